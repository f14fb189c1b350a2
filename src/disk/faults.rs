//! Fault injection at every file operation, for the tests that crash the process anywhere.
//!
//! In the product this type is empty and every call compiles to nothing.

use std::io;

/// Decides, before and after each file operation, whether it happens and is reported. An operation
/// is one call of a [`Dir`](super::Dir) or its writers, or one run read by
/// [`FileRuns`](super::FileRuns).
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(any(test, feature = "testing"))]
    plan: Option<std::sync::Arc<simulated::Plan>>,
}

#[cfg(not(any(test, feature = "testing")))]
impl Faults {
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "same shape as in tests"
    )]
    pub(super) fn before(&self) -> io::Result<()> {
        Ok(())
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "same shape as in tests"
    )]
    pub(super) fn before_link(&self) -> io::Result<()> {
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "same shape as in tests")]
    pub(super) fn after<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome
    }
}

#[cfg(any(test, feature = "testing"))]
mod simulated {
    use super::{Faults, io};
    use rustix::io::Errno;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    /// What goes wrong, and how many operations were attempted so far.
    #[derive(Debug)]
    pub(super) struct Plan {
        done: AtomicU64,
        fault: Fault,
    }

    #[derive(Clone, Copy, Debug)]
    enum Fault {
        None,
        /// The operation either does not happen or happens without its caller hearing of it, and
        /// nothing happens after it.
        Crash {
            at: u64,
            takes_effect: bool,
        },
        /// The operation does not happen; all others do.
        Once {
            at: u64,
            errno: Errno,
        },
        Links,
    }

    impl Faults {
        /// Counts operations and never crashes.
        pub fn none() -> Self {
            Self::planned(Fault::None)
        }

        /// Never crashes, and makes no hard link, as another owner's files or another mount do.
        pub fn refusing_links() -> Self {
            Self::planned(Fault::Links)
        }

        /// Crashes at operation `crash_at` (from 0); `takes_effect` decides whether that operation
        /// still happens. Every later operation fails without happening: the process is dead.
        pub fn crash_at(crash_at: u64, takes_effect: bool) -> Self {
            Self::planned(Fault::Crash {
                at: crash_at,
                takes_effect,
            })
        }

        /// Lets operation `operation` (from 0) fail with `errno` without happening. All others go
        /// on as ever.
        pub fn fail_once(operation: u64, errno: Errno) -> Self {
            Self::planned(Fault::Once {
                at: operation,
                errno,
            })
        }

        fn planned(fault: Fault) -> Self {
            let done = AtomicU64::new(0);
            Self {
                plan: Some(Arc::new(Plan { done, fault })),
            }
        }

        pub(in crate::disk) fn before_link(&self) -> io::Result<()> {
            match self.fault() {
                Fault::Links => Err(Errno::PERM.into()),
                _ => Ok(()),
            }
        }

        /// How many operations were attempted.
        pub fn operations(&self) -> u64 {
            self.plan.as_ref().map_or(0, |plan| plan.done.load(SeqCst))
        }

        /// Whether the crash has come.
        pub fn has_crashed(&self) -> bool {
            matches!(self.fault(), Fault::Crash { at, .. } if self.operations() > at)
        }

        fn fault(&self) -> Fault {
            self.plan.as_ref().map_or(Fault::None, |plan| plan.fault)
        }

        pub(in crate::disk) fn before(&self) -> io::Result<()> {
            let Some(plan) = &self.plan else {
                return Ok(());
            };
            let operation = plan.done.fetch_add(1, SeqCst);
            match plan.fault {
                Fault::Crash { at, takes_effect }
                    if operation > at || (operation == at && !takes_effect) =>
                {
                    Err(crashed())
                }
                Fault::Once { at, errno } if operation == at => Err(errno.into()),
                _ => Ok(()),
            }
        }

        pub(in crate::disk) fn after<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
            if self.has_crashed() {
                Err(crashed())
            } else {
                outcome
            }
        }
    }

    fn crashed() -> io::Error {
        io::Error::other("simulated crash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BufferPool, Containment, Dir, DiskEngine, DiskError, RUN_BYTES, ReadMode};
    use rustix::io::Errno;

    /// Opens a file of three runs and reads it; how many runs came.
    async fn read(faults: Faults) -> Result<u64, (u64, DiskError)> {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), vec![1; 3 * RUN_BYTES]).unwrap();
        let dir = Dir::open_with_faults(scratch.path(), Containment::Beneath, faults);
        let file = dir.await.unwrap().open_file("f").await;
        let file = file.map_err(|error| (0, error))?;
        let engine = DiskEngine::new(BufferPool::new(1));
        let mut runs = engine.runs(&file, 0..u64::MAX, ReadMode::Buffered);
        let mut read = 0;
        while let Some(run) = runs.next(u64::MAX).await.map_err(|error| (read, error))? {
            assert_eq!(run.len(), RUN_BYTES);
            read += 1;
        }
        Ok(read)
    }

    #[tokio::test]
    async fn every_run_is_an_operation() {
        let faults = Faults::none();
        assert_eq!(read(faults.clone()).await.unwrap(), 3);
        assert_eq!(faults.operations(), 4);
        for (at, takes_effect) in [(1, true), (2, false), (3, true)] {
            let faults = Faults::crash_at(at, takes_effect);
            let (runs, _) = read(faults.clone()).await.unwrap_err();
            assert_eq!(runs, at - 1);
            assert!(faults.has_crashed());
        }
    }

    #[tokio::test]
    async fn a_read_that_fails_names_its_offset_and_keeps_its_kind() {
        let faults = Faults::fail_once(2, Errno::STALE);
        let (runs, error) = read(faults.clone()).await.unwrap_err();
        assert_eq!(runs, 1);
        assert!(error.is_retryable() && error.op == "read", "{error:?}");
        assert_eq!(error.source.to_string(), format!("at offset {RUN_BYTES}"));
        let cause = std::error::Error::source(&error.source).unwrap();
        assert_eq!(cause.to_string(), io::Error::from(Errno::STALE).to_string());
        assert!(!faults.has_crashed());
    }

    #[tokio::test]
    async fn only_the_one_operation_fails() {
        let scratch = tempfile::tempdir().unwrap();
        let faults = Faults::fail_once(1, Errno::NOSPC);
        let dir = Dir::open_with_faults(scratch.path(), Containment::Beneath, faults.clone());
        let dir = dir.await.unwrap();
        dir.create_dirs("a", 0o750).await.unwrap();
        let error = dir.create_dirs("b", 0o750).await.unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(dir.kind("b").await.unwrap(), None, "it did not happen");
        dir.create_dirs("b", 0o750).await.unwrap();
        assert_eq!(faults.operations(), 4);
    }
}
