//! Waiting longer after each failure, up to a limit, with jitter.

use std::time::Duration;

/// A sequence of delays: doubled at each failure up to `delay_max`, then spread by jitter so that
/// many sidecars which failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    delay_min: Duration,
    delay_max: Duration,
    failures: u32,
    jitter_state: u64,
}

impl Backoff {
    /// Delays from `delay_min` to `delay_max`; `seed` decides the jitter.
    ///
    /// # Panics
    /// Where `delay_min` is zero or above `delay_max`: both are constants of the caller.
    pub fn new(delay_min: Duration, delay_max: Duration, seed: u64) -> Self {
        assert!(
            !delay_min.is_zero() && delay_min <= delay_max,
            "0 < delay_min <= delay_max"
        );
        Self {
            delay_min,
            delay_max,
            failures: 0,
            jitter_state: seed,
        }
    }

    /// The delay to wait after one more failure: between half and all of the doubled delay.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self
            .delay_min
            .saturating_mul(1 << self.failures.min(20))
            .min(self.delay_max);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(0.5 + 0.5 * self.next_fraction())
    }

    /// Starts again from `delay_min`, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// SplitMix64: enough to spread retries, and no dependency on a process-wide generator.
    fn next_fraction(&mut self) -> f64 {
        self.jitter_state = self.jitter_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.jitter_state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::cast_precision_loss, reason = "32 bits fit a float exactly")]
        let numerator = ((z ^ (z >> 31)) >> 32) as f64;
        numerator / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_between_half_the_minimum_and_the_maximum(
            min_ms in 1u64..10_000, factor in 1u64..1_000, seed: u64, failures in 0usize..64,
        ) {
            let min = Duration::from_millis(min_ms);
            let max = min * u32::try_from(factor).unwrap();
            let mut backoff = Backoff::new(min, max, seed);
            for _ in 0..failures {
                let delay = backoff.next_delay();
                prop_assert!(delay >= min / 2 && delay <= max);
            }
            backoff.reset();
            prop_assert!(backoff.next_delay() <= min);
        }
    }
}
