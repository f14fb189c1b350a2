//! The two duration dialects of the command line and the YAML documents.
//!
//! [`GoDuration`] is the text of Go's `time.ParseDuration` with the units `d` and `w` added, which
//! most flags take; [`PromDuration`] is Prometheus' own (contract `cli.md` §1). They look alike and
//! are not: `1.5h` and `-5m` are Go only, `1y` is Prometheus only. Both count to about 292 years,
//! the range of 63 bits of nanoseconds, and refuse what lies beyond.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A duration in Go's syntax: a signed sum of decimal numbers with a unit each (`1h30m`, `-1.5h`,
/// `2w`). A day is 24 hours and a week seven days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration {
    nanos: i64,
}

/// The text is not a [`GoDuration`]. The messages are those of Go's time package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGoDuration {
    /// Not of the form at all, or beyond 63 bits of nanoseconds.
    #[error("time: invalid duration {text:?}")]
    Malformed {
        /// The whole text.
        text: String,
    },
    /// A number without a unit after it. Only a bare `0` needs none.
    #[error("time: missing unit in duration {text:?}")]
    MissingUnit {
        /// The whole text.
        text: String,
    },
    /// A number with a unit that is none of `ns us µs ms s m h d w`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unknown unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// A duration in Prometheus' syntax: whole numbers with the units `y w d h m s ms`, each at most
/// once and in this order (`1h30m`), or a bare `0`. A year is 365 days. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromDuration {
    millis: u64,
}

/// The text is not a [`PromDuration`]. The messages are those of Prometheus' model package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPromDuration {
    /// The text is empty.
    #[error("empty duration string")]
    Empty,
    /// Not of the form, or units out of order.
    #[error("not a valid duration string: {text:?}")]
    Malformed {
        /// The whole text.
        text: String,
    },
    /// A number with a unit that is none of `y w d h m s ms`.
    #[error("unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unknown unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// More than 63 bits of nanoseconds.
    #[error("duration out of range")]
    OutOfRange,
}

// === impl GoDuration ===

impl GoDuration {
    /// A duration of so many nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// The length in nanoseconds; negative where the text began with `-`.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// Whether it is longer than zero.
    pub const fn is_positive(self) -> bool {
        self.nanos > 0
    }

    /// The length as a standard duration; `None` where it is negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.nanos).ok().map(Duration::from_nanos)
    }

    /// The length as a standard duration, where a negative one counts as zero.
    pub fn to_std_or_zero(self) -> Duration {
        self.to_std().unwrap_or_default()
    }
}

impl FromStr for GoDuration {
    type Err = InvalidGoDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || InvalidGoDuration::Malformed {
            text: text.to_owned(),
        };
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if unsigned == "0" {
            return Ok(Self::default());
        }
        if unsigned.is_empty() {
            return Err(malformed());
        }
        let mut nanos = 0_i64;
        let mut rest = unsigned;
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after_point) => split_digits(after_point),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            let whole = parse_whole(whole).ok_or_else(malformed)?;
            let (unit, after) = split_unit(after, |c| c == '.' || c.is_ascii_digit());
            if unit.is_empty() {
                return Err(InvalidGoDuration::MissingUnit {
                    text: text.to_owned(),
                });
            }
            let unit_ns = go_unit_ns(unit).ok_or_else(|| InvalidGoDuration::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            })?;
            let term = whole
                .checked_mul(unit_ns)
                .and_then(|term| term.checked_add(fraction_ns(fraction, unit_ns)));
            nanos = term
                .and_then(|term| nanos.checked_add(term))
                .ok_or_else(malformed)?;
            rest = after;
        }
        Ok(Self::from_nanos(if is_negative { -nanos } else { nanos }))
    }
}

impl fmt::Display for GoDuration {
    /// Go's form: `1h30m0s`, `1.5s`, `2ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0s");
        }
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let ns = self.nanos.unsigned_abs();
        if ns < NS_PER_S {
            let (unit, unit_ns) = match ns {
                1_000_000.. => ("ms", 1_000_000),
                1_000.. => ("µs", 1_000),
                _ => ("ns", 1),
            };
            write_decimal(f, ns, unit_ns)?;
            return f.write_str(unit);
        }
        let minutes = ns / NS_PER_MIN;
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write_decimal(f, ns % NS_PER_MIN, NS_PER_S)?;
        f.write_str("s")
    }
}

// === impl PromDuration ===

impl PromDuration {
    /// A duration of so many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// The length in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// The length as a standard duration.
    pub const fn to_std(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl FromStr for PromDuration {
    type Err = InvalidPromDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || InvalidPromDuration::Malformed {
            text: text.to_owned(),
        };
        match text {
            "0" => return Ok(Self::default()),
            "" => return Err(InvalidPromDuration::Empty),
            _ => {}
        }
        let mut millis = 0_u64;
        let mut next_unit = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (digits, after) = split_digits(rest);
            let count: u64 = digits.parse().map_err(|_| malformed())?;
            let (unit, after) = split_unit(after, |c| c.is_ascii_digit());
            if unit.is_empty() {
                return Err(malformed());
            }
            let position = PROM_UNITS.iter().position(|(name, _)| *name == unit);
            let position = position.ok_or_else(|| InvalidPromDuration::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            })?;
            if position < next_unit {
                return Err(malformed());
            }
            next_unit = position + 1;
            let (_, unit_ms) = PROM_UNITS[position];
            millis = count
                .checked_mul(unit_ms)
                .and_then(|term| millis.checked_add(term))
                .filter(|sum| *sum <= PROM_MS_MAX)
                .ok_or(InvalidPromDuration::OutOfRange)?;
            rest = after;
        }
        Ok(Self::from_millis(millis))
    }
}

impl fmt::Display for PromDuration {
    /// Prometheus' form: the largest units first, `y` and `w` only where they divide the whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, unit_ms) in PROM_UNITS {
            if matches!(unit, "y" | "w") && !rest.is_multiple_of(unit_ms) {
                continue;
            }
            if rest >= unit_ms {
                write!(f, "{}{unit}", rest / unit_ms)?;
                rest %= unit_ms;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for PromDuration {
    /// From a string, or from a whole number, so that an unquoted `0` in YAML is zero.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl de::Visitor<'_> for Scalar {
            type Value = PromDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `1m30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

// === parsing ===

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn split_unit(text: &str, ends_unit: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends_unit).unwrap_or(text.len()))
}

/// The number before the point: nothing counts as zero (`.5h`), overflow is `None`.
fn parse_whole(digits: &str) -> Option<i64> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok()
}

/// The digits after the point, in nanoseconds. Digits that no longer fit 63 bits are left out, and
/// the rest goes through a double, as in Go: so `0.3333333333333333333h` is 20 minutes there and
/// here.
fn fraction_ns(digits: &str, unit_ns: i64) -> i64 {
    let mut value = 0_i64;
    let mut scale = 1_f64;
    for digit in digits.bytes() {
        let digit = i64::from(digit - b'0');
        let Some(longer) = value.checked_mul(10).and_then(|v| v.checked_add(digit)) else {
            break;
        };
        value = longer;
        scale *= 10.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the doubles are Go's rule, and the result is at most one unit"
    )]
    let ns = (value as f64 * (unit_ns as f64 / scale)) as i64;
    ns
}

fn go_unit_ns(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        // Both the micro sign (U+00B5) and the Greek letter mu (U+03BC).
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "w" => 604_800_000_000_000,
        _ => return None,
    })
}

// === printing ===

/// `value / unit` as a decimal without trailing zeros; `unit` is a power of ten.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: u64) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let mut fraction = value % unit;
    if fraction == 0 {
        return Ok(());
    }
    let mut digits = unit.ilog10() as usize;
    while fraction.is_multiple_of(10) {
        fraction /= 10;
        digits -= 1;
    }
    write!(f, ".{fraction:0digits$}")
}

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MIN: u64 = 60 * NS_PER_S;

/// Prometheus' units in the order in which they must appear, with their milliseconds.
const PROM_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The whole milliseconds that 63 bits of nanoseconds hold: where Prometheus stops.
const PROM_MS_MAX: u64 = i64::MAX.unsigned_abs() / 1_000_000;

#[cfg(test)]
mod tests;
