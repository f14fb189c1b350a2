//! The one-way signal from "running" to "draining", seen by every task.

use tokio_util::sync::CancellationToken;

/// A task's view of the drain: cheap to clone, cannot start it.
#[derive(Clone, Debug)]
pub struct Drain(CancellationToken);

/// The right to start the drain.
#[derive(Clone, Debug)]
pub struct DrainTrigger(CancellationToken);

impl Drain {
    /// A drain that has not begun, and the trigger that begins it.
    pub fn new() -> (DrainTrigger, Self) {
        let token = CancellationToken::new();
        (DrainTrigger(token.clone()), Self(token))
    }

    /// Resolves once draining has begun; at once if it already has.
    pub async fn started(&self) {
        self.0.cancelled().await;
    }

    /// Whether draining has begun, for work that cannot wait.
    pub fn has_started(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Runs `work` until it ends or draining begins; `None` where draining came first.
    /// `work` is dropped then, so it must be safe to drop at each of its await points.
    pub async fn unless_started<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.0.run_until_cancelled(work).await
    }
}

impl DrainTrigger {
    /// Begins the drain. Further calls change nothing.
    pub fn start(&self) {
        self.0.cancel();
    }
}
