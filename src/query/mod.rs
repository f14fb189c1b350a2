//! PromQL with the external labels in place, evaluated by the Prometheus beside us (design §6,
//! contract `grpc.md` §2.10).
//!
//! `rewrite` turns an expression over series with external labels into one over what Prometheus
//! stores, and says which labels its result still has to get. `Engine` asks Prometheus and puts
//! them on while the answer streams by. It knows no HTTP and no gRPC of ours.

mod answer;
mod engine;
mod error;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod gate;
mod histogram;
mod lossy;
mod metrics;
mod order;
mod rewrite;
mod samples;
mod stored;

pub use answer::{Element, Evaluated, Trailer};
pub use engine::{
    Engine, EngineConfig, Evaluation, EvaluationKind, QueryStatus, REPLICA_LABELS_MAX,
};
pub use error::QueryError;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::fuzz_rewrite;
pub use histogram::FloatHistogram;
pub use rewrite::{
    LabelOverlay, Overlaid, RewriteError, Rewritten, rewrite, rewrite_selector, selector_matchers,
};
pub use samples::{Samples, SamplesError};

pub use crate::prometheus::ResultType;
