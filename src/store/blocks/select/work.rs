//! How much one request may cost before it is refused.

use std::fmt;

use super::SelectError;

/// Values of labels that may be looked at. A month's blocks are about forty, so that a label with a
/// million values may still be walked over in all of them; that takes about three seconds.
pub(super) const VALUES_MAX: u64 = 50_000_000;
/// Regular expressions that may be run, each on one value; about four seconds.
pub(super) const PATTERNS_MAX: u64 = 20_000_000;
/// Series whose labels may be read for lists of names and values; about six seconds.
pub(super) const SERIES_MAX: u64 = 20_000_000;

/// What is left of the work that one request may take, over all blocks.
#[derive(Clone, Debug)]
pub struct Work {
    values: Budget,
    patterns: Budget,
    series: Budget,
}

/// What work consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Values of labels that are looked at.
    Values,
    /// Runs of a regular expression.
    Patterns,
    /// Series whose labels are read.
    Series,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    limit: u64,
    left: u64,
}

impl Work {
    /// For a new request.
    pub fn new() -> Self {
        Self::limited(VALUES_MAX, PATTERNS_MAX, SERIES_MAX)
    }

    /// With other limits.
    pub(super) fn limited(values: u64, patterns: u64, series: u64) -> Self {
        Self {
            values: Budget::new(values),
            patterns: Budget::new(patterns),
            series: Budget::new(series),
        }
    }

    /// Counts one.
    pub(super) fn spend(
        &mut self,
        effort: Effort,
        selector: impl FnOnce() -> String,
    ) -> Result<(), SelectError> {
        let budget = match effort {
            Effort::Values => &mut self.values,
            Effort::Patterns => &mut self.patterns,
            Effort::Series => &mut self.series,
        };
        match budget.left.checked_sub(1) {
            Some(left) => {
                budget.left = left;
                Ok(())
            }
            None => Err(SelectError::TooExpensive {
                selector: selector(),
                effort,
                limit: budget.limit,
            }),
        }
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Values => "label values looked at",
            Self::Patterns => "values held against regular expressions",
            Self::Series => "series read",
        })
    }
}
