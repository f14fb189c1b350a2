//! The one child that may be running, so that a signal to the harness ends it too.

use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// How long a child may take to end; longer than the grace period of a drain in these runs.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// Room for one child. Once closed it takes none any more, and work under way ends with an error.
#[derive(Debug, Default)]
pub(crate) struct ChildSlot(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    is_closed: bool,
}

impl ChildSlot {
    /// Starts a child and hands it to `taken`, for its pipes.
    pub(crate) fn spawn<T>(
        &self,
        command: &mut Command,
        taken: impl FnOnce(&mut Child) -> T,
    ) -> anyhow::Result<T> {
        let mut slot = self.lock();
        anyhow::ensure!(!slot.is_closed, "interrupted");
        anyhow::ensure!(slot.child.is_none(), "one child at a time");
        let spawned = command.spawn();
        let child = spawned.with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(taken(slot.child.insert(child)))
    }

    /// Ends the child, and everything that asks [`Self::check`].
    pub(crate) fn close(&self) {
        let mut slot = self.lock();
        slot.is_closed = true;
        if let Some(child) = &mut slot.child
            && let Err(error) = child.kill()
        {
            eprintln!("perf: could not end process {}: {error}", child.id());
        }
    }

    /// An error once the harness was interrupted or where the child ended by itself.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut slot = self.lock();
        anyhow::ensure!(!slot.is_closed, "interrupted");
        if let Some(child) = &mut slot.child
            && let Some(status) = child.try_wait()?
        {
            slot.child = None;
            anyhow::bail!("the child ended early: {status}");
        }
        Ok(())
    }

    /// SIGTERM, then as [`Self::wait`].
    pub(crate) fn stop(&self) -> anyhow::Result<ExitStatus> {
        if let Some(child) = &self.lock().child {
            kill_process(Pid::from_child(child), Signal::TERM)?;
        }
        self.wait(END_DEADLINE)
    }

    /// Waits for the child to end, and kills it at the deadline.
    pub(crate) fn wait(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            let mut slot = self.lock();
            let child = slot.child.as_mut().context("there is no child")?;
            if let Some(status) = child.try_wait()? {
                slot.child = None;
                return Ok(status);
            }
            if started.elapsed() > deadline {
                child.kill()?;
                child.wait()?;
                slot.child = None;
                anyhow::bail!("a child was still running after {deadline:?} and was killed");
            }
            drop(slot);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Readable also after a panic elsewhere: the child must be ended all the same.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
