//! Times in the TSDB's unit: milliseconds since the Unix epoch, signed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimestampMs(pub i64);

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The half-open range `[mint, maxt)` that a block covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First instant inside.
    pub mint: TimestampMs,
    /// First instant after.
    pub maxt: TimestampMs,
}

impl TimeRange {
    /// Whether the two ranges share an instant. An empty range overlaps nothing.
    pub fn overlaps(self, other: Self) -> bool {
        self.mint < other.maxt && other.mint < self.maxt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(mint: i64, maxt: i64) -> TimeRange {
        TimeRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        }
    }

    #[test]
    fn ranges_are_half_open() {
        assert!(range(0, 10).overlaps(range(9, 20)));
        assert!(!range(0, 10).overlaps(range(10, 20)));
        assert!(range(0, 10).overlaps(range(2, 3)));
        assert!(!range(10, 20).overlaps(range(0, 10)));
    }
}
