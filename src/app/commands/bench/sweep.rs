//! Which settings a sweep tries, and which of them won.

use std::num::{NonZeroU32, NonZeroU64};

use crate::app::cli::SweepAxes;

/// What an operator might set: from the least that S3 takes to what half a pool of 40 buffers no
/// longer holds.
const PART_MIB: [u64; 5] = [5, 8, 16, 32, 64];
const CONCURRENCIES: [u32; 4] = [1, 2, 4, 8];

/// Throughputs within this much of the best one are equal: runs differ by that much by themselves.
const EQUAL_WITHIN: f64 = 0.05;

/// How the winner is found, for the report.
pub(super) const RULE: &str = "of the runs whose GiB/s is within 5 % of the best, the one with the \
    least CPU s/GiB";

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Size of a part; `None` where the bucket has none.
    pub(super) part_bytes: Option<NonZeroU64>,
    /// Parts, or files, in flight.
    pub(super) concurrency: NonZeroU32,
}

impl Setting {
    /// For a line on a terminal.
    pub(super) fn label(self) -> String {
        match self.part_bytes {
            Some(bytes) => format!("{} MiB × {}", bytes.get() >> 20, self.concurrency),
            None => format!("× {}", self.concurrency),
        }
    }
}

/// The combinations of a sweep over `axes`, `base` alone where there is none.
pub(super) fn grid(axes: SweepAxes, base: Setting) -> Vec<Setting> {
    let parts: Vec<Option<NonZeroU64>> = if axes.part_size {
        PART_MIB.map(|mib| NonZeroU64::new(mib << 20)).to_vec()
    } else {
        vec![base.part_bytes]
    };
    let concurrencies: Vec<NonZeroU32> = if axes.concurrency {
        CONCURRENCIES
            .into_iter()
            .filter_map(NonZeroU32::new)
            .collect()
    } else {
        vec![base.concurrency]
    };
    let all = parts.into_iter().flat_map(|part_bytes| {
        concurrencies.iter().map(move |concurrency| Setting {
            part_bytes,
            concurrency: *concurrency,
        })
    });
    all.collect()
}

/// The position of the winner among (GiB/s, CPU s/GiB) pairs, by [`RULE`].
pub(super) fn winner(figures: &[(f64, f64)]) -> Option<usize> {
    let best = figures
        .iter()
        .map(|(rate, _)| *rate)
        .max_by(f64::total_cmp)?;
    let near = figures
        .iter()
        .enumerate()
        .filter(|(_, (rate, _))| *rate >= best * (1.0 - EQUAL_WITHIN));
    // Of equal ones the first: it has the smaller settings, which need less memory.
    near.min_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Setting {
        Setting {
            part_bytes: NonZeroU64::new(7 << 20),
            concurrency: NonZeroU32::MIN,
        }
    }

    #[test]
    fn a_grid_has_every_combination_once_and_keeps_what_is_not_swept() {
        let axes = |part_size, concurrency| SweepAxes {
            part_size,
            concurrency,
        };
        assert_eq!(grid(axes(false, false), base()), [base()]);
        let parts = grid(axes(true, false), base());
        assert_eq!(parts.len(), PART_MIB.len());
        assert!(parts.iter().all(|s| s.concurrency == base().concurrency));
        let counts = grid(axes(false, true), base());
        assert_eq!(counts.len(), CONCURRENCIES.len());
        assert!(counts.iter().all(|s| s.part_bytes == base().part_bytes));
        let mut all = grid(axes(true, true), base());
        assert_eq!(all.len(), PART_MIB.len() * CONCURRENCIES.len());
        all.dedup();
        assert_eq!(all.len(), PART_MIB.len() * CONCURRENCIES.len());
    }

    #[test]
    fn the_cheapest_of_the_fastest_wins() {
        assert_eq!(winner(&[]), None);
        assert_eq!(winner(&[(1.0, 3.0)]), Some(0));
        assert_eq!(winner(&[(1.0, 0.1), (2.0, 1.0)]), Some(1));
        assert_eq!(winner(&[(2.0, 1.0), (1.95, 0.5), (1.8, 0.1)]), Some(1));
        assert_eq!(winner(&[(2.0, 0.5), (2.0, 0.5)]), Some(0));
    }
}
