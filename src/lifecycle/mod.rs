//! How the process lives and ends: signals, probes, drain with one deadline, back-off.
//!
//! Every long-running part is a task of the [`Supervisor`] and holds a [`Drain`]. The first task
//! to end, for whatever reason, drains all the others, as the reference's run group does.

mod backoff;
mod blocking;
mod drain;
mod probe;
mod signal;
mod supervisor;

pub use backoff::Backoff;
pub use blocking::{blocking, finished};
pub use drain::{Drain, DrainTrigger};
pub use probe::{Probe, ProbeMetrics, ProbeStatus};
pub use signal::Signals;
pub use supervisor::{Supervisor, TaskError};
