//! The rate limit of the HTTP server: a bucket of tokens that fills up again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One request per `interval` on average, `burst` of them at once.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    /// How far requests may be ahead of their time.
    ahead_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Instant,
    /// How far requests were ahead of their time then.
    ahead: Duration,
}

impl RateLimit {
    /// A full bucket. `burst` is at least 1.
    pub(super) fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            ahead_max: interval.saturating_mul(burst.saturating_sub(1)),
            state: Mutex::new(State {
                seen: Instant::now(),
                ahead: Duration::ZERO,
            }),
        }
    }

    /// Whether one more request may be answered now; then it counts.
    pub(super) fn admit(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now.saturating_duration_since(state.seen);
        state.seen = now;
        state.ahead = state.ahead.saturating_sub(passed);
        let is_admitted = state.ahead <= self.ahead_max;
        if is_admitted {
            state.ahead = state.ahead.saturating_add(self.interval);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(limit: &RateLimit, asked: usize) -> usize {
        (0..asked).filter(|_| limit.admit()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_each_interval() {
        let limit = RateLimit::new(Duration::from_secs(2), 3);
        assert_eq!(admitted(&limit, 10), 3);
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert_eq!(admitted(&limit, 10), 0);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(admitted(&limit, 10), 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(admitted(&limit, 10), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_interval_and_burst_overflow_nothing() {
        let limit = RateLimit::new(Duration::MAX, u32::MAX);
        assert_eq!(admitted(&limit, 2), 2);
        let limit = RateLimit::new(Duration::MAX, 1);
        assert_eq!(admitted(&limit, 2), 1);
    }
}
