//! What the process can be asked to do.

pub mod bench;
pub mod block;
mod progress;
pub mod sidecar;
pub mod store;

/// A command ended with an error: exit code 1. The messages are the reference's.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be set up.
    #[error("preparing {command} command failed")]
    Prepare {
        /// The command's name.
        command: &'static str,
        /// Why.
        source: anyhow::Error,
    },
    /// It was running.
    #[error("{command} command failed")]
    Run {
        /// The command's name.
        command: &'static str,
        /// Why.
        source: anyhow::Error,
    },
}
