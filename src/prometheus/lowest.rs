//! Finds one gauge in a text exposition that is never held whole.
//!
//! A large Prometheus exposes many megabytes of `/metrics`; the reference fetches and parses all of
//! it at every heartbeat. Here the lines pass by, and the caller hangs up once the value is known.

use crate::model::TimestampMs;

/// The gauge: seconds of the oldest sample Prometheus has (contract `prometheus.md` §5).
pub(super) const METRIC: &str = "prometheus_tsdb_lowest_timestamp_seconds";

/// Longer lines are not ours and are passed over without being kept.
const LINE_BYTES_MAX: usize = 1024;

/// Looks at one line after the other, in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct LowestScan {
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Whether that line is already longer than [`LINE_BYTES_MAX`].
    passing_over: bool,
}

/// What the gauge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lowest {
    /// The oldest sample.
    At(TimestampMs),
    /// There are no samples yet.
    NoData,
    /// The line of the gauge has no number.
    Garbage(String),
}

// === impl LowestScan ===

impl LowestScan {
    /// Takes the next piece; tells the value as soon as its line is whole.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Option<Lowest> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            let found = self.end_line(line);
            if found.is_some() {
                return found;
            }
            piece = rest.get(1..).unwrap_or_default();
        }
        if self.partial.len() + piece.len() > LINE_BYTES_MAX {
            self.passing_over = true;
            self.partial.clear();
        }
        if !self.passing_over {
            self.partial.extend_from_slice(piece);
        }
        None
    }

    /// Looks at a last line that has no line end.
    pub(super) fn finish(&mut self) -> Option<Lowest> {
        self.end_line(b"")
    }

    fn end_line(&mut self, end: &[u8]) -> Option<Lowest> {
        let found = match (self.passing_over, self.partial.is_empty()) {
            (true, _) => None,
            (false, true) => value_of(end),
            (false, false) => {
                self.partial.extend_from_slice(end);
                value_of(&self.partial)
            }
        };
        self.passing_over = false;
        self.partial.clear();
        found
    }
}

/// The value where the line is a sample of the gauge: name, perhaps labels, value, perhaps time.
fn value_of(line: &[u8]) -> Option<Lowest> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let rest = line.trim_ascii_start().strip_prefix(METRIC.as_bytes())?;
    let rest = match rest.first()? {
        b' ' | b'\t' => rest,
        b'{' => rest.rsplit(|byte| *byte == b'}').next()?,
        _ => return None,
    };
    let text = String::from_utf8_lossy(rest);
    let value = text.split_ascii_whitespace().next().unwrap_or_default();
    Some(match value.parse::<f64>() {
        Ok(seconds) if !seconds.is_nan() => lowest_of(seconds),
        _ => Lowest::Garbage(value.to_owned()),
    })
}

fn lowest_of(seconds: f64) -> Lowest {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the comparison is between floats, as Prometheus converts the same constant"
    )]
    let no_data = i64::MAX as f64;
    let ms = seconds * 1000.0;
    if ms >= no_data {
        return Lowest::NoData;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "truncation towards zero is the contract, and `as` saturates below the range"
    )]
    let ms = ms as i64;
    Lowest::At(TimestampMs(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str, piece_bytes: usize) -> Option<Lowest> {
        let mut scan = LowestScan::default();
        for piece in text.as_bytes().chunks(piece_bytes) {
            let found = scan.push(piece);
            if found.is_some() {
                return found;
            }
            assert!(scan.partial.len() <= LINE_BYTES_MAX);
        }
        scan.finish()
    }

    #[test]
    fn values_are_converted_as_the_contract_says() {
        for (value, expected) in [
            ("1.7e+09", Lowest::At(TimestampMs(1_700_000_000_000))),
            (
                "1700000000.1239",
                Lowest::At(TimestampMs(1_700_000_000_123)),
            ),
            ("-0.0019", Lowest::At(TimestampMs(-1))),
            ("9.223372036854776e+15", Lowest::NoData),
            ("+Inf", Lowest::NoData),
            ("-Inf", Lowest::At(TimestampMs(i64::MIN))),
            ("NaN", Lowest::Garbage("NaN".to_owned())),
            ("oops", Lowest::Garbage("oops".to_owned())),
            ("", Lowest::Garbage(String::new())),
        ] {
            let text = format!("{METRIC} {value}\n");
            assert_eq!(scan(&text, 4096), Some(expected), "{value}");
        }
    }

    #[test]
    fn only_the_gauge_itself_is_taken() {
        let text = format!(
            "# HELP {METRIC} 1\n# TYPE {METRIC} gauge\n{METRIC}_other 2\nx{METRIC} 3\n\n \
             \t{METRIC}{{a=\"}} 9\"}} 5 1700\n"
        );
        assert_eq!(scan(&text, 7), Some(Lowest::At(TimestampMs(5000))));
        assert_eq!(scan("<html>not found</html>", 3), None);
        assert_eq!(scan(METRIC, 3), None);
    }

    #[test]
    fn lines_past_the_limit_are_passed_over_wherever_they_are_cut() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("{long}\n{METRIC}{long} 1\n{METRIC} 2\n");
        for piece in [1, 2, 3, 100, LINE_BYTES_MAX, 100_000] {
            assert_eq!(
                scan(&text, piece),
                Some(Lowest::At(TimestampMs(2000))),
                "{piece}"
            );
        }
        let longest = format!(
            "{METRIC} 3{}",
            " ".repeat(LINE_BYTES_MAX - METRIC.len() - 2)
        );
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        for piece in [1, 1000, 100_000] {
            let exact = scan(&format!("{longest}\n"), piece);
            assert_eq!(exact, Some(Lowest::At(TimestampMs(3000))), "{piece}");
            assert_eq!(scan(&format!("{longest} \n"), piece), None, "{piece}");
        }
    }

    proptest! {
        #[test]
        fn the_chunking_never_matters(
            mut lines in proptest::collection::vec("[ -~]{0,60}", 0..20),
            at in any::<prop::sample::Index>(), seconds in 0u32.., piece in 1usize..200, last: bool,
        ) {
            lines.retain(|line| !line.trim_start().starts_with(METRIC));
            let at = at.index(lines.len() + 1);
            lines.insert(at, format!("{METRIC} {seconds}"));
            let mut text = lines.join("\n");
            if !last { text.push('\n'); }
            let expected = Lowest::At(TimestampMs(i64::from(seconds) * 1000));
            prop_assert_eq!(scan(&text, piece), Some(expected));
        }
    }
}
