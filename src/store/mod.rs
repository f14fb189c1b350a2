//! StoreAPI over the Prometheus beside us: what is asked, where it comes from, in which order it
//! goes out, and within which limits.
//!
//! A Series call is a pipeline without a queue: frames of a remote read become series, lose the
//! labels that Prometheus merged in, pass the shard filter, wait on a small stack for their place
//! ([`Resort`]), and are encoded straight into the sink's buffer with the external labels. A sink
//! that can't take more makes Prometheus wait. Memory is bounded by constants per call, the number
//! of calls by [`Gate`], and what has to be sorted by [`SortBuffer`].

mod aggr_chunk;
mod blocks;
mod encode;
mod error;
mod exemplars;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod gate;
mod label_set;
mod labels;
mod metrics;
mod outbox;
mod overlay;
mod proof;
mod remote;
mod request;
mod resort;
mod selector;
mod series;
mod shard;
mod shared;
mod sort_buffer;
mod source;
#[expect(
    clippy::module_inception,
    reason = "the module's main type has a file of its own"
)]
mod store;
#[cfg(test)]
mod testing;
mod upstream;
mod wire;

pub use aggr_chunk::ChunkRun;
pub use blocks::{
    BlockError, BlockMetrics, BlockSet, CompiledMatcher, Effort, LocalBlocks, LocalStanding,
    LocalUpstream, SelectError, UNREADABLE_NAMED_MAX, UnreadableBlock, Work, label_names,
    label_values, select,
};
pub use error::{ErrorClass, Limited, StoreError};
pub use exemplars::exemplars_query;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::{fuzz_regex, fuzz_series_request};
pub use gate::{Gate, Running};
pub use label_set::LabelSet;
pub use metrics::StoreMetrics;
pub use outbox::{RequestLimits, SeriesSink, SinkClosed};
pub use overlay::{Inner, Overlay};
pub use remote::{PrometheusSource, PrometheusUpstream};
pub use request::{Parsed, QueryRange, SeriesQuery, matcher_sets, matches_external};
pub use resort::Resort;
pub use selector::{InvalidSelector, selector_matchers};
pub use shard::Shard;
pub use sort_buffer::{Lease, SortBuffer};
pub use source::{Chunk, ChunkEncoding, Part, Series, SeriesSource};
pub use store::{Config, Store};
pub use upstream::{ListQuery, Listed, Select, Upstream};
