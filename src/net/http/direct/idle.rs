//! Connections between two exchanges: few, and not for long.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;

use super::body::Connection;

/// The unused connections of a client.
pub(super) struct IdleConnections {
    max: usize,
    timeout: Option<Duration>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The latest stands last.
    connections: Vec<Idle>,
    /// Whether a task waits for the oldest to expire.
    is_watched: bool,
}

struct Idle {
    origin: String,
    connection: Connection,
    since: Instant,
}

impl IdleConnections {
    pub(super) fn new(max: usize, timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            max,
            timeout,
            kept: Mutex::default(),
        })
    }

    /// The one to `origin` that was used last and is silent; those that are not are closed.
    pub(super) fn take(&self, origin: &str) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.expire(&mut kept);
        let is_same = |idle: &Idle| idle.origin == origin;
        loop {
            let last = kept.connections.iter().rposition(is_same)?;
            let mut connection = kept.connections.remove(last).connection;
            if is_silent(&mut connection) {
                return Some(connection);
            }
        }
    }

    /// Keeps one whose exchange has ended; past the limit the oldest is closed.
    pub(super) fn put(self: &Arc<Self>, origin: String, connection: Connection) {
        if self.max == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.expire(&mut kept);
        if kept.connections.len() >= self.max {
            kept.connections.remove(0);
        }
        kept.connections.push(Idle {
            origin,
            connection,
            since: Instant::now(),
        });
        if let Some(timeout) = self.timeout.filter(|_| !kept.is_watched) {
            kept.is_watched = true;
            tokio::spawn(watch(Arc::downgrade(self), timeout));
        }
    }

    #[cfg(test)]
    pub(super) fn is_last_silent(&self) -> bool {
        let mut kept = self.kept.lock().unwrap();
        let last = kept.connections.last_mut();
        is_silent(&mut last.expect("one is kept").connection)
    }

    fn expire(&self, kept: &mut Kept) {
        if let Some(timeout) = self.timeout {
            let is_fresh = |idle: &Idle| idle.since.elapsed() < timeout;
            kept.connections.retain(is_fresh);
        }
    }

    /// Closes what has expired; whether any is left.
    fn sweep(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.expire(&mut kept);
        kept.is_watched = !kept.connections.is_empty();
        kept.is_watched
    }
}

/// Whether nothing has come, not even the end: a 408 that the peer said before it hung up would be
/// taken for the answer to what is asked next.
fn is_silent(connection: &mut Connection) -> bool {
    let mut byte = [0];
    let mut byte = ReadBuf::new(&mut byte);
    // Whoever takes the connection waits with a waker of its own.
    let mut cx = Context::from_waker(Waker::noop());
    let read = Pin::new(connection).poll_read(&mut cx, &mut byte);
    matches!(read, Poll::Pending)
}

/// Ends with the client, or when nothing is left to expire.
async fn watch(connections: Weak<IdleConnections>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let left = connections.upgrade().is_some_and(|idle| idle.sweep());
        if !left {
            return;
        }
    }
}

impl fmt::Debug for IdleConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleConnections")
            .field("max", &self.max)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
