//! How many calls run at a time, and so how much memory they may use together.
//!
//! A call's memory is bounded by constants, so the number of calls that run is the bound over all
//! of them. A Series call takes some 6 MiB at most: the receive buffer with a frame of the read,
//! which Prometheus ends at 1 MiB; the series that wait, of which 1 MiB is free and the rest comes
//! out of the sort buffer (`series`); what a batch keeps of 1 MiB received (`outbox`); and a shared
//! window of 2 MiB (`shared`). Usually it is a tenth of that. A call that reads its answer as a
//! whole takes that answer. More than may run wait their turn; more than may wait are refused.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::StoreError;

/// How many Series calls may wait; a querier that finds more has other troubles.
pub(super) const WAITING_CALLS_MAX: usize = 512;
/// How many calls run that hold an answer as a whole, up to 64 MiB each.
pub(super) const WHOLE_ANSWERS_MAX: usize = 8;
/// How many of them may wait.
pub(super) const WAITING_WHOLE_ANSWERS_MAX: usize = 256;

/// The way in; clones are the same one.
#[derive(Clone, Debug)]
pub struct Gate {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What passes, for the error.
    what: &'static str,
    running_max: usize,
    waiting_max: usize,
}

/// A call that runs; the next one may when this is dropped.
#[derive(Debug)]
pub struct Running {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate that lets `running_max` calls run, but one always, and `waiting_max` wait; `what`
    /// names them in the plural, for the error.
    pub fn new(what: &'static str, running_max: usize, waiting_max: usize) -> Self {
        let running_max = running_max.clamp(1, Semaphore::MAX_PERMITS);
        let waiting_max = waiting_max.min(Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(running_max)),
            waiting: Arc::new(Semaphore::new(waiting_max)),
            what,
            running_max,
            waiting_max,
        }
    }

    /// The gate of Series calls, of which `--store.max-concurrent-series` run.
    pub(super) fn for_series(calls_max: usize) -> Self {
        let what = "Series calls (--store.max-concurrent-series)";
        Self::new(what, calls_max, WAITING_CALLS_MAX)
    }

    /// The gate of calls that hold an answer of Prometheus' as a whole.
    pub(super) fn for_whole_answers() -> Self {
        let what = "calls for labels or other lists";
        Self::new(what, WHOLE_ANSWERS_MAX, WAITING_WHOLE_ANSWERS_MAX)
    }

    /// Waits for a share. Calls get theirs in the order in which they came; one that gives up
    /// leaves the queue.
    ///
    /// # Errors
    /// Where too many wait already.
    pub async fn enter(&self) -> Result<Running, StoreError> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Running { _permit: permit });
        }
        let waiting = self.waiting.try_acquire().map_err(|_| self.refusal())?;
        let permit = Arc::clone(&self.running).acquire_owned().await;
        drop(waiting);
        // The semaphore is never closed.
        let permit = permit.map_err(|_| self.refusal())?;
        Ok(Running { _permit: permit })
    }

    /// How many calls run now.
    pub fn running(&self) -> usize {
        self.running_max
            .saturating_sub(self.running.available_permits())
    }

    /// How many calls wait now.
    pub fn waiting(&self) -> usize {
        self.waiting_max
            .saturating_sub(self.waiting.available_permits())
    }

    /// How many calls may run.
    pub fn running_max(&self) -> usize {
        self.running_max
    }

    fn refusal(&self) -> StoreError {
        StoreError::TooManyCalls {
            what: self.what,
            running: self.running_max,
            waiting: self.waiting_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn calls_wait_for_a_share_and_too_many_are_refused() {
        let gate = Gate::for_series(2);
        let first = gate.enter().await.unwrap();
        let _second = gate.enter().await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_CALLS_MAX)
            .map(|_| Box::pin(gate.enter()))
            .collect();
        for call in &mut waiting {
            assert!(poll_immediate(call).await.is_none());
        }
        assert_eq!((gate.running(), gate.waiting()), (2, WAITING_CALLS_MAX));
        let error = gate.enter().await.unwrap_err();
        assert!(
            error.to_string().contains("series): 2 run and 512 wait"),
            "{error}"
        );
        // One that gives up makes room, and is not waited for.
        drop(waiting.remove(0));
        let mut last = Box::pin(gate.enter());
        assert!(poll_immediate(&mut last).await.is_none());
        drop(first);
        assert!(waiting[0].as_mut().now_or_never().is_some());
        assert!(
            waiting[1].as_mut().now_or_never().is_some(),
            "the first was dropped at once"
        );
    }

    #[test]
    fn one_call_always_runs() {
        assert_eq!(Gate::for_series(0).running_max, 1);
        assert_eq!(Gate::for_series(200).running_max, 200);
    }
}
