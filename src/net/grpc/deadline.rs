//! `grpc-timeout`: up to eight digits and a unit.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::time::Duration;

/// The header.
pub(super) const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Digits that the protocol allows.
const DIGITS_MAX: usize = 8;

/// The time that a client gives its call; `None` where the text is malformed.
pub(super) fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count.saturating_mul(3600))),
        b'M' => Some(Duration::from_secs(count.saturating_mul(60))),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The text for a timeout, in the finest unit in which it has eight digits; rounded up, so that a
/// server never gives up before its client does.
pub(super) fn timeout_text(timeout: Duration) -> String {
    let units: [(u128, char); 6] = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let nanos = timeout.as_nanos();
    for (unit, letter) in units {
        let count = nanos.div_ceil(unit);
        if count <= 99_999_999 {
            return format!("{count}{letter}");
        }
    }
    "99999999H".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_understood_and_nothing_else() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("00000006n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1 S",
            "123456789S",
            "1.5S",
            "1SS",
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_timeout_is_read_as_no_less(nanos: u64) {
            let timeout = Duration::from_nanos(nanos);
            let read = parse_timeout(timeout_text(timeout).as_bytes()).unwrap();
            prop_assert!(read >= timeout);
            prop_assert!(read.as_nanos() <= timeout.as_nanos() + timeout.as_nanos() / 100_000 + 1);
        }

        #[test]
        fn any_bytes_are_a_timeout_or_none(text: Vec<u8>) {
            let _ = parse_timeout(&text);
        }
    }
}
