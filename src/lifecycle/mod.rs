//! How the process lives and ends: signals, probes, drain with one deadline, back-off, files that
//! change meanwhile.
//!
//! Every long-running part is a task of the [`Supervisor`] and holds a [`Drain`]. The first task
//! to end, for whatever reason, drains all the others, as the reference's run group does.

mod backoff;
mod blocking;
mod drain;
mod plain_file;
mod probe;
mod reloading;
mod signal;
mod supervisor;

pub use backoff::Backoff;
pub use blocking::{blocking, finished};
pub use drain::{Drain, DrainTrigger};
pub use plain_file::{OpenFileError, open_plain, read_at_most};
pub use probe::{Probe, ProbeMetrics, ProbeStatus};
pub use reloading::{ReadFiles, Reloading};
pub use signal::Signals;
pub use supervisor::{Supervisor, TaskError};
