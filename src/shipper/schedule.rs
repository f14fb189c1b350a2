//! When a block may be tried: spread after its birth, and less and less often while it fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::Backoff;
use crate::model::{BlockId, TimestampMs};

/// The second failure in a row without progress makes the next try wait, the first does not: it
/// comes with the next look at the directory. A try reads the block from the disk, so it must not
/// be repeated often for nothing; and a bucket that works again must not wait long.
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Which blocks have to wait.
#[derive(Debug)]
pub(super) struct Schedule {
    jitter: Duration,
    seed: u64,
    failing: Vec<Failing>,
}

/// A block whose last try failed.
#[derive(Debug)]
struct Failing {
    block: BlockId,
    /// What the bucket had of it at most.
    sent_bytes: u64,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// How the last try ended.
    reason: String,
}

/// Why a block waits, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// For its turn among many sidecars (`--shipper.upload-jitter`).
    Jitter(Duration),
    /// For the next try after failures.
    Retry {
        /// The time until then.
        left: Duration,
        /// How the last try ended.
        reason: String,
    },
}

impl Schedule {
    /// A new block waits up to `jitter`; `seed` tells this process from others.
    pub(super) fn new(jitter: Duration, seed: u64) -> Self {
        Self {
            jitter,
            seed,
            failing: Vec::new(),
        }
    }

    /// From now on no block waits for chance, and one that failed is tried at once.
    pub(super) fn hurry(&mut self) {
        self.jitter = Duration::ZERO;
        self.failing.clear();
    }

    /// Whether the block has to wait.
    pub(super) fn wait(&self, block: BlockId, now: TimestampMs) -> Option<Wait> {
        let failing = self.failing.iter().find(|failing| failing.block == block);
        if let Some((not_before, failing)) = failing.and_then(|f| Some((f.not_before?, f))) {
            let left = not_before.saturating_duration_since(Instant::now());
            let reason = failing.reason.clone();
            return (!left.is_zero()).then_some(Wait::Retry { left, reason });
        }
        let age_ms = now.0.saturating_sub(block.created().0).max(0);
        let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or_default());
        let left = self.share(block).saturating_sub(age);
        (!left.is_zero()).then_some(Wait::Jitter(left))
    }

    /// The block failed with `sent_bytes` of it in the bucket.
    pub(super) fn failed(&mut self, block: BlockId, sent_bytes: u64, reason: String) {
        let known = self
            .failing
            .iter()
            .position(|failing| failing.block == block);
        let Some(failing) = known.and_then(|at| self.failing.get_mut(at)) else {
            self.failing.push(Failing {
                block,
                sent_bytes,
                backoff: Backoff::new(RETRY_MIN, RETRY_MAX, self.seed),
                not_before: None,
                reason,
            });
            return;
        };
        failing.reason = reason;
        if sent_bytes > failing.sent_bytes {
            failing.sent_bytes = sent_bytes;
            failing.backoff.reset();
            failing.not_before = None;
        } else {
            failing.not_before = Some(Instant::now() + failing.backoff.next_delay());
        }
    }

    /// Keeps only blocks of which `still_wanted` is true.
    pub(super) fn keep(&mut self, still_wanted: impl Fn(BlockId) -> bool) {
        self.failing.retain(|failing| still_wanted(failing.block));
    }

    /// This process' share of the jitter: another one for each block, the same at each look.
    fn share(&self, block: BlockId) -> Duration {
        // FNV-1a over the name.
        let name = block.to_string();
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325 ^ self.seed, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let permille = u32::try_from((hash >> 32) % 1000).unwrap_or_default();
        self.jitter.mul_f64(f64::from(permille) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(created_ms: u64) -> BlockId {
        BlockId::from_u128(u128::from(created_ms) << 80 | 7)
    }

    #[test]
    fn a_new_block_waits_within_the_jitter_and_processes_differ() {
        let jitter = Duration::from_secs(600);
        let born = TimestampMs(1_700_000_000_000);
        let id = block(1_700_000_000_000);
        let mut waits = Vec::new();
        for seed in 0..64 {
            let schedule = Schedule::new(jitter, seed << 40);
            let Some(Wait::Jitter(wait)) = schedule.wait(id, born) else {
                continue;
            };
            assert!(wait <= jitter);
            assert_eq!(schedule.wait(id, TimestampMs(born.0 + 600_000)), None);
            waits.push(wait);
        }
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 32, "{waits:?}");
        assert_eq!(Schedule::new(Duration::ZERO, 1).wait(id, born), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tries_without_progress_become_rare_and_progress_ends_that() {
        let mut schedule = Schedule::new(Duration::ZERO, 1);
        let (id, now) = (block(1), TimestampMs(2));
        let why = || "the bucket is away".to_owned();
        schedule.failed(id, 10, why());
        assert_eq!(
            schedule.wait(id, now),
            None,
            "the first failure costs no wait"
        );
        let mut total = Duration::ZERO;
        for _ in 0..8 {
            schedule.failed(id, 10, why());
            let Some(Wait::Retry { left: wait, reason }) = schedule.wait(id, now) else {
                panic!("no wait");
            };
            assert_eq!(reason, why());
            assert!(wait >= RETRY_MIN / 2 && wait <= RETRY_MAX);
            total += wait;
            tokio::time::advance(wait).await;
            assert_eq!(schedule.wait(id, now), None);
        }
        assert!(total > Duration::from_secs(900));
        schedule.failed(id, 11, why());
        assert_eq!(schedule.wait(id, now), None, "it got further");
        schedule.failed(id, 11, why());
        assert!(schedule.wait(id, now).is_some());
        schedule.keep(|_| false);
        assert_eq!(schedule.wait(id, now), None);
    }
}
