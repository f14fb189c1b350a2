//! Work off the network's threads, and tasks whose panic is their waiter's.

use tokio::task::JoinError;

/// Runs a blocking call off the network's threads. A panic in it continues in the caller.
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    finished(tokio::task::spawn_blocking(call)).await
}

/// What a task returns; its panic continues here. A task that was cancelled is waited for without
/// end: only a runtime that is shutting down does that to a task someone waits for, and it drops
/// the waiter as well.
pub async fn finished<T>(task: impl Future<Output = Result<T, JoinError>>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
