//! Runs the process's tasks: the first to end drains the rest, under one deadline.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Drain, DrainTrigger};

/// A boxed error of any task; the supervisor only hands it on.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the process ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task returned an error.
    #[error("{task}")]
    Failed {
        /// The task's name.
        task: &'static str,
        /// What it returned.
        source: BoxError,
    },
    /// A task panicked.
    #[error("{task} panicked")]
    Panicked {
        /// The task's name.
        task: &'static str,
        /// The join error, with the panic's message.
        source: tokio::task::JoinError,
    },
}

/// A group of named tasks which live and end together.
#[derive(Debug)]
pub struct Supervisor {
    trigger: DrainTrigger,
    drain: Drain,
    tasks: JoinSet<Result<(), BoxError>>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Supervisor {
    /// A group without tasks.
    pub fn new() -> Self {
        let (trigger, drain) = Drain::new();
        Self {
            trigger,
            drain,
            tasks: JoinSet::new(),
            names: Vec::new(),
        }
    }

    /// The drain that the tasks of this group wait for.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Starts a task. When it ends, with or without error, all others are drained.
    pub fn spawn<E>(
        &mut self,
        task: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<BoxError> + 'static,
    {
        let handle = self
            .tasks
            .spawn(async move { work.await.map_err(Into::into) });
        self.names.push((handle.id(), task));
    }

    /// Waits for the first task to end, drains the others and waits for them at most `grace`.
    ///
    /// # Errors
    /// The first error of a task. Later ones are logged, and tasks that outlive `grace` are dropped
    /// at their next await point.
    pub async fn run(mut self, grace: Duration) -> Result<(), TaskError> {
        let mut ended = self.join_next().await.unwrap_or(Ok(()));
        self.trigger.start();
        let rest = async {
            while let Some(outcome) = self.join_next().await {
                if ended.is_ok() {
                    ended = outcome;
                } else if let Err(error) = outcome {
                    let cause = std::error::Error::source(&error);
                    tracing::warn!(err = %error, ?cause, "task failed while draining");
                }
            }
        };
        if tokio::time::timeout(grace, rest).await.is_err() {
            let tasks: Vec<&str> = self.names.iter().map(|(_, name)| *name).collect();
            tracing::warn!(
                ?grace,
                tasks = tasks.join(","),
                "not drained within the deadline, leaving"
            );
        }
        self.tasks.shutdown().await;
        ended
    }

    async fn join_next(&mut self) -> Option<Result<(), TaskError>> {
        let joined = self.tasks.join_next_with_id().await?;
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let position = self.names.iter().position(|(known, _)| *known == id);
        let task = position.map_or("task", |at| self.names.swap_remove(at).1);
        Some(match joined {
            Ok((_, Ok(()))) => {
                tracing::debug!(task, "task ended");
                Ok(())
            }
            Ok((_, Err(source))) => Err(TaskError::Failed { task, source }),
            Err(source) => Err(TaskError::Panicked { task, source }),
        })
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn first_task_to_end_drains_the_rest() {
        let mut supervisor = Supervisor::new();
        let drained = Arc::new(AtomicBool::new(false));
        let (seen, drain) = (Arc::clone(&drained), supervisor.drain());
        supervisor.spawn("server", async move {
            drain.started().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            seen.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(())
        });
        supervisor.spawn("signal", async { Ok::<_, std::io::Error>(()) });
        supervisor.run(GRACE).await.unwrap();
        assert!(drained.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_kept_and_a_stuck_task_is_left_at_the_deadline() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn(
            "stuck",
            std::future::pending::<Result<(), std::io::Error>>(),
        );
        supervisor.spawn("shipper", async { Err(std::io::Error::other("no labels")) });
        let started = tokio::time::Instant::now();
        let error = supervisor.run(GRACE).await.unwrap_err();
        assert_eq!(started.elapsed(), GRACE);
        assert!(
            matches!(
                error,
                TaskError::Failed {
                    task: "shipper",
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_the_tasks_name() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("odd", async {
            assert!(std::hint::black_box(false), "broken invariant");
            Ok::<_, std::io::Error>(())
        });
        let error = supervisor.run(GRACE).await.unwrap_err();
        assert!(
            matches!(error, TaskError::Panicked { task: "odd", .. }),
            "{error:?}"
        );
    }
}
