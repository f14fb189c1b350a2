//! Keeps Prometheus on the configuration and rules that the files have (contract `prometheus.md`
//! §7): watch → digest → expand → write → trigger.
//!
//! `survey` finds the directories to watch, `look` takes one look at the files: `walk` and `digest`
//! tell whether they say something new, `normalise` writes the configuration with variables put
//! in. `trigger` tells Prometheus. `follow` decides what happens when. Events are hints: each
//! look reads everything. An error of the first look ends the process; from then on errors are
//! logged, counted and shown, and the next change is waited for.

mod digest;
mod error;
mod file;
mod follow;
mod look;
mod metrics;
mod normalise;
mod process;
mod survey;
#[cfg(test)]
mod tests;
mod told;
mod trigger;
mod walk;

pub use error::{ReloaderError, StartError, TriggerError};
pub use follow::{Dependencies, Reloader, ReloaderConfig};
pub use look::Files;
pub use metrics::ReloaderMetrics;
pub use normalise::Variables;
pub use trigger::Trigger;
