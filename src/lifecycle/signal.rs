//! Signals: SIGINT and SIGTERM end the process, SIGHUP is noted and does nothing.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are caught from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on. Must be called inside a tokio runtime, before the process tells
    /// anyone that it is there: until then a signal ends it without a drain.
    ///
    /// # Errors
    /// Where a handler can't be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves with the name of the first SIGINT or SIGTERM, one that came before included.
    pub async fn termination(mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => {
                    tracing::info!("received SIGHUP, which has no effect on the sidecar");
                }
            }
        }
    }
}
