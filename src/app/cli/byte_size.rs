//! Flag values that are sizes: a number of bytes with or without a unit.

use std::fmt;
use std::str::FromStr;

/// Units by name: powers of 1024 with an `i`, of 1000 without.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Digits after the point that are read; more say nothing about a count of bytes.
const FRACTION_DIGITS_MAX: usize = 9;

/// Bytes, as people write them: `512MiB`, `1.5 GB`, `4096`. Units are read in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// The text is not a [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidByteSize {
    /// Not a number followed by a unit.
    #[error("{text:?} is no size: a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB after it")]
    Malformed {
        /// The whole text.
        text: String,
    },
    /// The fraction is no whole number of bytes.
    #[error("{text:?} is no whole number of bytes")]
    Fraction {
        /// The whole text.
        text: String,
    },
    /// More than 64 bits of bytes.
    #[error("{text:?} is larger than any size")]
    Range {
        /// The whole text.
        text: String,
    },
    /// Nothing can be measured with nothing.
    #[error("a size must be above 0")]
    Zero,
}

impl ByteSize {
    /// The number of bytes, above 0.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let owned = || text.to_owned();
        let malformed = || InvalidByteSize::Malformed { text: owned() };
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = text.find(|c| !is_number(c)).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim();
        let known = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let factor = match known {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return Err(malformed()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || !is_digits(fraction)
            || fraction.len() > FRACTION_DIGITS_MAX
            || number.ends_with('.')
        {
            return Err(malformed());
        }
        let range = || InvalidByteSize::Range { text: owned() };
        let scale = fraction.bytes().fold(1_u128, |scale, _| scale * 10);
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| range())?;
        let scaled = digits.checked_mul(u128::from(factor)).ok_or_else(range)?;
        if !scaled.is_multiple_of(scale) {
            return Err(InvalidByteSize::Fraction { text: owned() });
        }
        match u64::try_from(scaled / scale) {
            Ok(0) => Err(InvalidByteSize::Zero),
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(range()),
        }
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit that leaves a whole number, powers of 1024 first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whole = UNITS
            .iter()
            .filter(|(_, factor)| self.0.is_multiple_of(*factor));
        match whole.next() {
            Some((name, factor)) => write!(f, "{} {name}", self.0 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("512 MiB", 512 << 20),
            ("8mib", 8 << 20),
            ("1.5GiB", 3 << 29),
            ("0.5KB", 500),
            ("2GB", 2_000_000_000),
            ("1TB", 1_000_000_000_000),
            ("16777215TiB", 16_777_215 << 40),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_what_is() {
        let owned = |text: &str| text.to_owned();
        for text in [
            "", "MiB", "1.GiB", ".5GiB", "1.2.3", "-1", "4g", "1 M", "٣MiB", "0x10",
        ] {
            let malformed = InvalidByteSize::Malformed { text: owned(text) };
            assert_eq!(text.parse::<ByteSize>(), Err(malformed), "{text}");
        }
        for text in ["0", "0GiB", "0.0"] {
            assert_eq!(text.parse::<ByteSize>(), Err(InvalidByteSize::Zero));
        }
        for text in ["0.5", "1.0001KiB"] {
            let fraction = InvalidByteSize::Fraction { text: owned(text) };
            assert_eq!(text.parse::<ByteSize>(), Err(fraction));
        }
        let nines = "9".repeat(60);
        for text in ["16777216TiB", nines.as_str()] {
            let range = InvalidByteSize::Range { text: owned(text) };
            assert_eq!(text.parse::<ByteSize>(), Err(range));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in 1_u64..) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_ends_the_parser(text in ".*") {
            drop(text.parse::<ByteSize>());
        }
    }
}
