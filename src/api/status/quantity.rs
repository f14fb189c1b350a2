//! Times and sizes as the page writes them.

use std::fmt;

/// A moment, in UTC; `None` and what no calendar has are a dash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) Option<i64>);

/// A length of time in two units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) u64);

/// A number of bytes with its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self
            .0
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match time {
            None => f.write_str("–"),
            Some(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        let (shift, unit) = match bytes {
            0..0x400 => return write!(f, "{bytes} B"),
            0x400..0x10_0000 => (10, "KiB"),
            0x10_0000..0x4000_0000 => (20, "MiB"),
            0x4000_0000..0x100_0000_0000 => (30, "GiB"),
            _ => (40, "TiB"),
        };
        let tenth = (bytes % (1 << shift) * 10) >> shift;
        write!(f, "{}.{tenth} {unit}", bytes >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        for (seconds, text) in [
            (0, "0 s"),
            (61, "1 min 1 s"),
            (7_260, "2 h 1 min"),
            (180_000, "2 d 2 h"),
        ] {
            assert_eq!(Span(seconds).to_string(), text);
        }
        for (bytes, text) in [
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (8 << 20, "8.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(Moment(Some(0)).to_string(), "1970-01-01 00:00:00 UTC");
        assert_eq!(Moment(Some(i64::MAX)).to_string(), "–");
        assert_eq!(Moment(None).to_string(), "–");
    }
}
