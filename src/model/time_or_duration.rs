//! A bound in time that is a fixed instant or moves along with the clock (`--min-time`).

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::{Clock, InvalidPromDuration, PromDuration, TimestampMs};

/// An instant, or a distance from the present (contract `cli.md` §3.4).
///
/// Its text is an RFC 3339 time (years 0000 to 9999) or a [`PromDuration`] with an optional `-`;
/// a duration without it lies in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeOrDuration {
    /// This instant.
    Time(TimestampMs),
    /// So many milliseconds from whenever it is asked.
    FromNow {
        /// Positive in the future, negative in the past.
        offset_ms: i64,
    },
}

impl TimeOrDuration {
    /// The instant that is meant now. A bound that moves is computed anew at each call.
    pub fn at(self, clock: &Clock) -> TimestampMs {
        match self {
            Self::Time(time) => time,
            Self::FromNow { offset_ms } => TimestampMs(clock.now().0.saturating_add(offset_ms)),
        }
    }
}

impl FromStr for TimeOrDuration {
    type Err = InvalidPromDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(time) = parse_rfc3339(text) {
            return Ok(Self::Time(time));
        }
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => (-1, unsigned),
            None => (1, text),
        };
        let duration: PromDuration = unsigned.parse()?;
        let ms =
            i64::try_from(duration.as_millis()).map_err(|_| InvalidPromDuration::OutOfRange)?;
        Ok(Self::FromNow {
            offset_ms: sign * ms,
        })
    }
}

impl fmt::Display for TimeOrDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => match EPOCH.checked_add(SignedDuration::from_millis(time.0)) {
                Ok(date_time) => write!(f, "{date_time}Z"),
                Err(_) => time.fmt(f),
            },
            Self::FromNow { offset_ms } => {
                let sign = if *offset_ms < 0 { "-" } else { "" };
                let duration = PromDuration::from_millis(offset_ms.unsigned_abs());
                write!(f, "{sign}{duration}")
            }
        }
    }
}

/// `2006-01-02T15:04:05`, an optional fraction of a second, then `Z` or an offset like `+01:00`.
/// Stricter than the general time parsers, which take spaces, leap seconds or named zones: what
/// the reference refuses must not get a meaning here.
fn parse_rfc3339(text: &str) -> Option<TimestampMs> {
    if !text.is_ascii() || text.len() < "2006-01-02T15:04:05Z".len() {
        return None;
    }
    let (date_time, zone) = text.split_at("2006-01-02T15:04:05".len());
    for (at, byte) in date_time.bytes().enumerate() {
        let is_expected = match at {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        };
        if !is_expected {
            return None;
        }
    }
    let field = |from: usize, to: usize| date_time.get(from..to)?.parse::<i16>().ok();
    let small = |from: usize| i8::try_from(field(from, from + 2)?).ok();
    let (zone, nanos) = match zone.strip_prefix(['.', ',']) {
        Some(fraction) => split_fraction(fraction)?,
        None => (zone, 0),
    };
    let date_time = DateTime::new(
        field(0, 4)?,
        small(5)?,
        small(8)?,
        small(11)?,
        small(14)?,
        small(17)?,
        nanos,
    );
    let since_epoch = date_time.ok()?.duration_since(EPOCH);
    let local_ms = i64::try_from(since_epoch.as_millis()).ok()?;
    let utc_ms = local_ms.checked_sub(offset_ms(zone)?)?;
    Some(TimestampMs(utc_ms))
}

/// The zone after the digits of a fraction, and the fraction in nanoseconds.
fn split_fraction(text: &str) -> Option<(&str, i32)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, zone) = text.split_at(end);
    let kept = digits.get(..digits.len().min(9))?;
    let nanos: i32 = format!("{kept:0<9}").parse().ok()?;
    (!digits.is_empty()).then_some((zone, nanos))
}

fn offset_ms(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two_digits = |field: &str, below: i64| {
        let is_plain = field.len() == 2 && field.bytes().all(|b| b.is_ascii_digit());
        let value: i64 = field.parse().ok()?;
        (is_plain && value < below).then_some(value)
    };
    Some(sign * (two_digits(hours, 24)? * 60 + two_digits(minutes, 60)?) * 60_000)
}

/// Calendar arithmetic starts here rather than at a timestamp type, which ends before the last
/// offsets of the year 9999.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<i64> {
        match text.parse() {
            Ok(TimeOrDuration::Time(time)) => Some(time.0),
            _ => None,
        }
    }

    #[test]
    fn rfc3339_times() {
        for (text, ms) in [
            // The default of --min-time, Go's zero year (contract `cli.md` §3.4).
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T16:00:00-08:00", 0),
            ("2026-11-23T01:52:27.123456789Z", 1_795_398_747_123),
            ("2026-11-23T01:52:27,5Z", 1_795_398_747_500),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(time(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn durations_follow_the_clock() {
        let now = |text: &str, ms: i128| {
            let bound: TimeOrDuration = text.parse().unwrap();
            bound.at(&Clock::fixed(ms * 1_000_000)).0
        };
        assert_eq!(now("-2h", 10_000_000), 2_800_000);
        assert_eq!(now("-2h", 20_000_000), 12_800_000);
        assert_eq!(now("1d", 0), 86_400_000);
        assert_eq!(now("0", 5), 5);
        assert_eq!(now("-0", 5), 5);
        assert_eq!(now("1970-01-01T00:00:07Z", 5), 7_000);
        assert_eq!(now("292y", i128::from(i64::MAX)), i64::MAX);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [
            "",
            "-",
            "--2h",
            "+2h",
            "1.5h",
            "now",
            "2026-11-23",
            "2026-11-23T01:52:27",
            "2026-11-23 01:52:27Z",
            "2026-13-23T01:52:27Z",
            "2026-02-30T01:52:27Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T01:52:60Z",
            "2026-11-23T01:52:27.Z",
            "2026-11-23T01:52:27z",
            "2026-11-23T01:52:27+0100",
            "2026-11-23T01:52:27+01:60",
            "2026-11-23T01:52:27+24:00",
            "2026-11-23T01:52:27Z ",
            "+2026-11-23T01:52:27Z",
            "-2026-11-23T01:52:27Z",
            "２026-11-23T01:52:27Z",
            "2026-11-23T01:52:27+é1:00",
            "300y",
            "2h1d",
        ] {
            assert!(bad.parse::<TimeOrDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_printed_form_parses_back() {
        for text in [
            "0000-01-01T00:00:00Z",
            "2026-11-23T01:52:27.5Z",
            "-2h",
            "1d12h",
            "0s",
        ] {
            let bound: TimeOrDuration = text.parse().unwrap();
            assert_eq!(bound.to_string(), text);
        }
    }
}
