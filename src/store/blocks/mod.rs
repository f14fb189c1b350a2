//! Series straight from the blocks that Prometheus has persisted.
//!
//! ```text
//! data directory ─▶ set ─▶ plan ─┬▶ select ─▶ cursor ─▶ reader ─▶ source ─┐
//!   (proof by the heartbeat)     └▶ remote read of the other ranges ─────┴▶ upstream
//! ```
//! The set knows which blocks on disk are those that Prometheus has loaded; the plan gives every
//! instant of a request either to them or to Prometheus; the rest reads them by memory maps, on
//! blocking threads, and puts both together.

mod ahead;
mod block;
mod cursor;
mod cut;
mod known;
mod listing;
mod metrics;
mod open;
mod plan;
mod proof;
mod reader;
mod rewrite;
mod select;
mod set;
mod source;
mod status;
mod upstream;

pub use block::BlockError;
pub use metrics::BlockMetrics;
pub use select::{CompiledMatcher, Effort, SelectError, Work, label_names, label_values, select};
pub use set::BlockSet;
pub use status::{LocalBlocks, LocalStanding, UNREADABLE_NAMED_MAX, UnreadableBlock};
pub use upstream::LocalUpstream;
