//! How many queries run at a time: more wait their turn, and more than may wait are refused.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::QueryError;

/// How many queries may wait; whoever sends more has other troubles.
pub(super) const WAITING_QUERIES_MAX: usize = 512;

/// The way in; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    running_max: usize,
    running: Gauge,
    places: Arc<Semaphore>,
    waiting: Gauge,
}

/// A query that runs; the next one may when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

/// One more on a gauge, until it is dropped.
#[derive(Debug)]
struct Counted(Gauge);

impl Gate {
    /// Lets `running_max` queries run, but one always.
    pub(super) fn new(running_max: usize, running: Gauge, waiting: Gauge) -> Self {
        let running_max = running_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(running_max)),
            running_max,
            running,
            places: Arc::new(Semaphore::new(WAITING_QUERIES_MAX)),
            waiting,
        }
    }

    /// Waits for its turn. Queries get theirs in the order in which they came; one that gives up
    /// leaves the queue.
    ///
    /// # Errors
    /// Where too many wait already.
    pub(super) async fn enter(&self) -> Result<Running, QueryError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(self.run(permit));
        }
        let place = self.places.try_acquire().map_err(|_| self.refusal())?;
        let waiting = Counted::one(&self.waiting);
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        drop((waiting, place));
        // The semaphore is never closed.
        permit
            .map(|permit| self.run(permit))
            .map_err(|_| self.refusal())
    }

    pub(super) fn running(&self) -> usize {
        let free = self.permits.available_permits();
        self.running_max.saturating_sub(free)
    }

    pub(super) fn waiting(&self) -> usize {
        let free = self.places.available_permits();
        WAITING_QUERIES_MAX.saturating_sub(free)
    }

    pub(super) fn running_max(&self) -> usize {
        self.running_max
    }

    fn run(&self, permit: OwnedSemaphorePermit) -> Running {
        Running {
            _permit: permit,
            _counted: Counted::one(&self.running),
        }
    }

    fn refusal(&self) -> QueryError {
        QueryError::Unavailable(format!(
            "too many queries: {} run (--query.max-concurrent) and {WAITING_QUERIES_MAX} wait",
            self.running_max
        ))
    }
}

impl Counted {
    fn one(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn queries_wait_for_their_turn_and_too_many_are_refused() {
        let gauges = (Gauge::default(), Gauge::default());
        let gate = Gate::new(2, gauges.0.clone(), gauges.1.clone());
        let first = gate.enter().await.unwrap();
        let _second = gate.enter().await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_QUERIES_MAX)
            .map(|_| Box::pin(gate.enter()))
            .collect();
        for query in &mut waiting {
            assert!(poll_immediate(query).await.is_none());
        }
        assert_eq!((gate.running(), gate.waiting()), (2, WAITING_QUERIES_MAX));
        assert_eq!((gauges.0.get(), gauges.1.get()), (2, 512));
        let error = gate.enter().await.unwrap_err();
        assert!(matches!(error, QueryError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().ends_with("and 512 wait"), "{error}");
        // One that gives up makes room, and is not waited for.
        drop(waiting.remove(0));
        assert_eq!((gate.waiting(), gauges.1.get()), (511, 511));
        drop(first);
        let running = waiting[0].as_mut().now_or_never();
        assert!(running.is_some());
        assert_eq!((gate.running(), gauges.0.get()), (2, 2));
        drop((running, waiting));
        assert_eq!((gate.running(), gate.waiting()), (1, 0));
        assert_eq!((gauges.0.get(), gauges.1.get()), (1, 0));
    }

    #[test]
    fn one_query_always_runs() {
        let gate = |max| Gate::new(max, Gauge::default(), Gauge::default());
        assert_eq!(gate(0).running_max(), 1);
        assert_eq!(gate(20).running_max(), 20);
    }
}
