//! What the requests to a bucket took, for whoever measures one: counts, retries and latencies by
//! operation.
//!
//! Bounded: a histogram has the same size however many requests there were.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts of equal steps within each doubling of a latency: a quantile is at most 1/32 too high.
const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Microseconds below `STEPS` have a count each, then each doubling of 64 bits has `STEPS`.
const COUNTS: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// Times of many events, in 1,920 counts.
#[derive(Clone)]
pub struct LatencyHistogram {
    counts: Box<[u64; COUNTS]>,
    count: u64,
    max: Duration,
}

/// The requests for one operation.
#[derive(Clone, Debug)]
pub struct RequestTotals {
    /// What they asked for, by the name of the operation: `PutObject`, `UploadPart`.
    pub operation: &'static str,
    /// Those that came back with an error, or not at all.
    pub failed: u64,
    /// Those that repeated one that failed.
    pub retried: u64,
    /// How long each took, from its first byte to the end of the answer.
    pub latency: LatencyHistogram,
}

/// Counts requests; cheap to clone, every clone is the same.
#[derive(Clone, Debug, Default)]
pub struct RequestStats(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    operations: Vec<RequestTotals>,
    integrity: Option<String>,
}

// === impl LatencyHistogram ===

impl LatencyHistogram {
    /// Counts one event.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(position(micros)) {
            *count += 1;
        }
        self.count += 1;
        self.max = self.max.max(took);
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest; zero where there was none.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The time that so many of a hundred events did not exceed, at most 1/32 too high; zero where
    /// there was none.
    pub fn percentile(&self, percent: u8) -> Duration {
        let rank = (self.count * u64::from(percent.min(100)))
            .div_ceil(100)
            .max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(highest(at)).min(self.max);
            }
        }
        self.max
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            counts: Box::new([0; COUNTS]),
            count: 0,
            max: Duration::ZERO,
        }
    }
}

impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencyHistogram")
            .field("count", &self.count)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// Which count a number of microseconds belongs to.
fn position(micros: u64) -> usize {
    let doublings = (u64::BITS - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let step = micros >> doublings;
    let step = usize::try_from(step).expect("below twice the steps");
    STEPS * doublings as usize + step
}

/// The highest number of microseconds that belongs to a count.
fn highest(position: usize) -> u64 {
    let doublings = (position / STEPS).saturating_sub(1);
    let step = (position - STEPS * doublings) as u128;
    u64::try_from(((step + 1) << doublings) - 1).unwrap_or(u64::MAX)
}

// === impl RequestStats ===

impl RequestStats {
    /// Counts a request that has ended.
    pub fn record(&self, operation: &'static str, took: Duration, is_ok: bool) {
        self.update(operation, |totals| {
            totals.latency.record(took);
            totals.failed += u64::from(!is_ok);
        });
    }

    /// Counts that a request is sent once more.
    pub fn retried(&self, operation: &'static str) {
        self.update(operation, |totals| totals.retried += 1);
    }

    /// Notes which integrity check goes with the uploads now.
    pub fn integrity(&self, check: impl Into<String>) {
        self.lock().integrity = Some(check.into());
    }

    /// The totals so far, by operation.
    pub fn totals(&self) -> Vec<RequestTotals> {
        let mut totals = self.lock().operations.clone();
        totals.sort_by_key(|totals| totals.operation);
        totals
    }

    /// The integrity check that was noted last.
    pub fn integrity_in_use(&self) -> Option<String> {
        self.lock().integrity.clone()
    }

    fn update(&self, operation: &'static str, change: impl FnOnce(&mut RequestTotals)) {
        let mut inner = self.lock();
        let at = inner
            .operations
            .iter()
            .position(|totals| totals.operation == operation);
        let at = at.unwrap_or_else(|| {
            inner.operations.push(RequestTotals {
                operation,
                failed: 0,
                retried: 0,
                latency: LatencyHistogram::default(),
            });
            inner.operations.len() - 1
        });
        if let Some(totals) = inner.operations.get_mut(at) {
            change(totals);
        }
    }

    /// Counts are whole after every step, so a panic elsewhere leaves them usable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_count_has_the_microseconds_that_lead_to_it() {
        let mut lowest = 0;
        for at in 0..COUNTS {
            let highest = highest(at);
            assert_eq!((position(lowest), position(highest)), (at, at), "{lowest}");
            lowest = highest.wrapping_add(1);
        }
        assert_eq!(lowest, 0, "the last count ends with the last number");
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_times(
            mut micros in proptest::collection::vec(0_u64..100_000_000, 1..200),
            percent in 0_u8..=100,
        ) {
            let mut histogram = LatencyHistogram::default();
            micros.iter().for_each(|took| histogram.record(Duration::from_micros(*took)));
            micros.sort_unstable();
            let rank = (micros.len() * usize::from(percent)).div_ceil(100).max(1);
            let exact = micros[rank - 1];
            let found = u64::try_from(histogram.percentile(percent).as_micros()).unwrap();
            prop_assert!(found >= exact && found <= exact + exact / 32, "{found} for {exact}");
            prop_assert_eq!(histogram.max().as_micros(), u128::from(micros[micros.len() - 1]));
        }
    }

    #[test]
    fn a_day_and_nothing_at_all_have_their_place() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.percentile(99), Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.percentile(50), Duration::from_micros(u64::MAX));
        assert_eq!((histogram.count(), histogram.max()), (1, Duration::MAX));
    }

    #[test]
    fn requests_are_counted_by_operation() {
        let stats = RequestStats::default();
        let same = stats.clone();
        same.record("UploadPart", Duration::from_millis(2), false);
        same.retried("UploadPart");
        same.record("UploadPart", Duration::from_millis(4), true);
        same.record("PutObject", Duration::from_millis(1), true);
        same.integrity("crc64nvme");
        let totals: Vec<_> = stats
            .totals()
            .iter()
            .map(|t| (t.operation, t.latency.count(), t.failed, t.retried))
            .collect();
        assert_eq!(totals, [("PutObject", 1, 0, 0), ("UploadPart", 2, 1, 1)]);
        assert_eq!(stats.integrity_in_use().as_deref(), Some("crc64nvme"));
    }
}
