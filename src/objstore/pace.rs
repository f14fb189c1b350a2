//! A limit on bytes per second, shared by everything that is sent (`--shipper.max-rate`).

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What may be made up after a pause: a fifth of a second's bytes, so that the limit holds in any
/// second that somebody looks at.
const BURST: Duration = Duration::from_millis(200);

/// A token bucket; cheap to clone, every clone draws on the same one.
///
/// Bytes are granted in the order in which they are asked for. A grant is never taken back, so
/// whoever asks and then sends nothing has wasted it.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_s: NonZeroU64,
    /// When all that was granted so far is paid for.
    paid_at: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// At most `bytes_per_s`, over all clones.
    pub fn new(bytes_per_s: NonZeroU64) -> Self {
        Self {
            bytes_per_s,
            paid_at: Arc::default(),
        }
    }

    /// Grants `bytes`, to be sent at the instant that is returned, or later.
    pub fn grant(&self, bytes: u64) -> Instant {
        let now = Instant::now();
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let from = paid_at.map_or(now, |paid_at| paid_at.max(earliest));
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s.get());
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        // A rate so low that it ends past the clock's range is one that never ends.
        let until = from.checked_add(cost).unwrap_or(from + DECADE);
        *paid_at = Some(until);
        // The bytes go out when the time that they take has passed.
        until.max(now)
    }

    /// Most bytes to ask for at a time: an eighth of a second's, so that several connections that
    /// share a low rate all move within the seconds after which servers close an idle one.
    pub fn slice_bytes_max(&self) -> usize {
        let eighth = usize::try_from(self.bytes_per_s.get() / 8).unwrap_or(usize::MAX);
        eighth.max(SLICE_BYTES_MIN)
    }

    /// Waits until `bytes` more may be sent.
    pub async fn pass(&self, bytes: u64) {
        tokio::time::sleep_until(self.grant(bytes)).await;
    }
}

/// Less is not worth a system call.
const SLICE_BYTES_MIN: usize = 512;

const DECADE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(bytes_per_s: u64) -> Pace {
        Pace::new(NonZeroU64::new(bytes_per_s).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn all_clones_together_keep_the_rate() {
        let pace = pace(1 << 20);
        let started = Instant::now();
        let senders = (0..4).map(|_| {
            let pace = pace.clone();
            async move {
                for _ in 0..16 {
                    pace.pass(64 << 10).await;
                }
            }
        });
        futures_util::future::join_all(senders).await;
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(3990), "{elapsed:?}");
        assert!(elapsed <= Duration::from_millis(4100), "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_no_more_than_the_burst() {
        let pace = pace(1000);
        pace.pass(1000).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let started = Instant::now();
        pace.pass(200).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        pace.pass(1000).await;
        assert!(started.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_rate_is_a_rate() {
        assert!(pace(1).grant(u64::MAX) > Instant::now() + Duration::from_secs(3600));
    }
}
