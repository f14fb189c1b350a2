//! Flag values that are numbers, as Go's `strconv` reads them behind the reference's flags.
//!
//! An integer flag is read as a decimal and cut to its whole part (`2.7` is 2, `1e1` is 10); an
//! unsigned one takes Go's prefixes and separators (`0x10`, `1_000`). Observed with the reference's
//! flag library.

/// The text is not a number of the flag's type. The messages are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidNumber {
    #[error("strconv.{function}: parsing {text:?}: invalid syntax")]
    Syntax {
        function: &'static str,
        text: String,
    },
    #[error("strconv.{function}: parsing {text:?}: value out of range")]
    Range {
        function: &'static str,
        text: String,
    },
    #[error("must be from {min} to {max}, got {value}")]
    OutOfBounds { value: u64, min: u64, max: u64 },
}

/// A number of buffers: fewer than 4 let an upload wait for itself, and more than 4 GiB of them is
/// a slip of the pen.
pub(super) fn parse_buffers(text: &str) -> Result<usize, InvalidNumber> {
    parse_within(text, 4, 4096)
}

/// A number of calls: none at all would answer nobody, and more than a thousand are no limit.
pub(super) fn parse_concurrency(text: &str) -> Result<usize, InvalidNumber> {
    parse_within(text, 1, 1000)
}

fn parse_within(text: &str, min: u64, max: u64) -> Result<usize, InvalidNumber> {
    let value = parse_uint(text)?;
    let number = usize::try_from(value).ok();
    number
        .filter(|_| (min..=max).contains(&value))
        .ok_or(InvalidNumber::OutOfBounds { value, min, max })
}

/// A float: decimal with an optional exponent, `inf` or `nan`.
pub(super) fn parse_float(text: &str) -> Result<f64, InvalidNumber> {
    let function = "ParseFloat";
    let value: f64 = text.parse().map_err(|_| InvalidNumber::Syntax {
        function,
        text: text.to_owned(),
    })?;
    let is_named = text.contains(['n', 'N']);
    if value.is_infinite() && !is_named {
        return Err(InvalidNumber::Range {
            function,
            text: text.to_owned(),
        });
    }
    Ok(value)
}

/// A whole number, the fraction cut off. What does not fit is an error; the reference wraps it.
pub(super) fn parse_int(text: &str) -> Result<i64, InvalidNumber> {
    /// Whole numbers up to here are exact in a double.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let value = parse_float(text)?;
    if value.is_nan() || value.abs() > EXACT_MAX {
        return Err(InvalidNumber::Range {
            function: "ParseFloat",
            text: text.to_owned(),
        });
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked above; cutting the fraction is meant"
    )]
    let whole = value as i64;
    Ok(whole)
}

/// An unsigned number: decimal, `0x`, `0o`, `0b` or a leading `0` for octal, with `_` between
/// digits.
pub(super) fn parse_uint(text: &str) -> Result<u64, InvalidNumber> {
    let function = "ParseUint";
    let syntax = || InvalidNumber::Syntax {
        function,
        text: text.to_owned(),
    };
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    // A separator stands between digits, or between the prefix and a digit.
    let first = if radix == 10 {
        digits
    } else {
        digits.strip_prefix('_').unwrap_or(digits)
    };
    let is_separated = !first.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    let plain = digits.replace('_', "");
    if !is_separated || plain.is_empty() || !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(syntax());
    }
    u64::from_str_radix(&plain, radix).map_err(|_| InvalidNumber::Range {
        function,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax(function: &str, text: &str) -> String {
        format!("strconv.{function}: parsing {text:?}: invalid syntax")
    }

    fn range(function: &str, text: &str) -> String {
        format!("strconv.{function}: parsing {text:?}: value out of range")
    }

    #[test]
    fn unsigned_numbers_have_gos_spellings() {
        for (text, value) in [
            ("0", 0),
            ("7", 7),
            ("1_000", 1000),
            ("0x10", 16),
            ("0X1f", 31),
            ("010", 8),
            ("0o17", 15),
            ("0b11", 3),
            ("0x_10", 16),
            ("0_7", 7),
            ("00", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_uint(text), Ok(value), "{text}");
        }
        for bad in [
            "", "x", "-3", "+5", "1.5", "08", "_5", "5_", "1__0", "0x", "0x_", "0xg", "0x__1", "é",
            " 1",
        ] {
            assert_eq!(
                parse_uint(bad).unwrap_err().to_string(),
                syntax("ParseUint", bad)
            );
        }
        let big = "18446744073709551616";
        assert_eq!(
            parse_uint(big).unwrap_err().to_string(),
            range("ParseUint", big)
        );
    }

    #[test]
    fn integers_are_floats_cut_short() {
        for (text, value) in [("0", 0), ("2.7", 2), ("-2.7", -2), ("1e1", 10), ("-3", -3)] {
            assert_eq!(parse_int(text), Ok(value), "{text}");
        }
        for bad in ["", "x", "0x10", "1 "] {
            assert_eq!(
                parse_int(bad).unwrap_err().to_string(),
                syntax("ParseFloat", bad)
            );
        }
        for bad in ["1e30", "-1e30", "nan", "inf"] {
            assert_eq!(
                parse_int(bad).unwrap_err().to_string(),
                range("ParseFloat", bad)
            );
        }
    }

    #[test]
    fn buffers_are_some_and_not_too_many() {
        assert_eq!(parse_buffers("4"), Ok(4));
        assert_eq!(parse_buffers("4096"), Ok(4096));
        for bad in ["0", "3", "4097", "18446744073709551615"] {
            let error = parse_buffers(bad).unwrap_err().to_string();
            assert_eq!(error, format!("must be from 4 to 4096, got {bad}"));
        }
        assert!(parse_buffers("-1").is_err());
    }

    #[test]
    fn floats_have_gos_spellings() {
        for (text, value) in [("0.9", 0.9), (".5", 0.5), ("5.", 5.0), ("1e-1", 0.1)] {
            assert_eq!(parse_float(text), Ok(value), "{text}");
        }
        assert!(parse_float("NaN").unwrap().is_nan());
        assert_eq!(parse_float("Infinity"), Ok(f64::INFINITY));
        assert_eq!(
            parse_float("1e400").unwrap_err().to_string(),
            range("ParseFloat", "1e400")
        );
        assert_eq!(
            parse_float(".").unwrap_err().to_string(),
            syntax("ParseFloat", ".")
        );
    }
}
