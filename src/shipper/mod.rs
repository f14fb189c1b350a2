//! Ships blocks: find, decide, stage, verify and upload, confirm, publish, record.
//!
//! The rule above all others: `meta.json` of a block goes into the bucket last, and only when
//! every byte before it has been proven valid and is confirmed to be there. A crash at any point
//! leaves a state from which the same steps lead to the same bucket. The shipper does not know
//! Prometheus: external labels arrive as a `watch::Receiver`.

mod bulletin;
mod clear;
mod decide;
mod error;
mod flush;
mod flushed;
mod metrics;
mod overlap;
mod progress;
mod prove;
mod record;
mod refs;
mod resume;
mod scan;
mod schedule;
#[expect(
    clippy::module_inception,
    reason = "the module's main type has a file of its own"
)]
mod shipper;
mod source;
mod spans;
mod spill;
mod stage;
mod sync;
mod upload;
mod verdict;
mod verify;

#[cfg(test)]
mod tests;

pub use decide::Policy;
pub use flush::{FlushError, HeadSnapshot};
pub use metrics::ShipperMetrics;
pub use prove::{BlockFault, ProvenBlock, prove_block};
pub use shipper::{Dependencies, Shipper, ShipperConfig, ShipperError};
pub use source::HashFunc;
