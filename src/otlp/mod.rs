//! Sends spans to a collector that speaks OTLP, over gRPC or HTTP, and reads the document of
//! `--tracing.config` that says where it is (contract `cli.md` §2).
//!
//! The reference's providers are read with their own keys. What a vendor takes as OTLP today is
//! sent so; where that can't be told from the keys, the document is refused with one to write
//! instead.
//!
//! Nobody waits for a collector: spans come out of a queue with a limit ([`crate::trace`]), one
//! task sends them in batches, and what finds no room, or no collector in time, is counted.

mod carrier;
mod config;
mod error;
mod exporter;
mod failures;
mod metrics;

pub use config::{Remark, TracingConfig};
pub use error::{SendError, TracingConfigError};
pub use exporter::{BATCH_SPANS_MAX, Exporter, FLUSH_TIMEOUT, RunningExporter};
pub use metrics::ExportMetrics;
