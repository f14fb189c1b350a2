//! Finds a few gauges in a text exposition that is never held whole.
//!
//! A large Prometheus exposes many megabytes of `/metrics`; the reference fetches and parses all of
//! it at every heartbeat. Here the lines pass by, and the caller hangs up once all is known.

use std::ops::RangeInclusive;

use crate::model::TimestampMs;

/// The gauge of the heartbeat: seconds of the oldest sample Prometheus has (contract
/// `prometheus.md` §5).
pub(super) const LOWEST_SECONDS: &str = "prometheus_tsdb_lowest_timestamp_seconds";

/// What all names begin with.
const PREFIX: &str = "prometheus_tsdb_";
/// What is looked for, in the order of [`Gauge`]. The gauges in seconds are whole seconds, rounded
/// towards zero; those without a unit are in milliseconds.
const NAMES: [&str; 8] = [
    LOWEST_SECONDS,
    "prometheus_tsdb_lowest_timestamp",
    "prometheus_tsdb_blocks_loaded",
    "prometheus_tsdb_storage_blocks_bytes",
    "prometheus_tsdb_head_min_time",
    "prometheus_tsdb_head_min_time_seconds",
    "prometheus_tsdb_head_max_time",
    "prometheus_tsdb_head_max_time_seconds",
];

#[derive(Clone, Copy)]
enum Gauge {
    LowestSeconds,
    Lowest,
    BlocksLoaded,
    BlocksBytes,
    HeadMin,
    HeadMinSeconds,
    HeadMax,
    HeadMaxSeconds,
}

/// Longer lines are not ours and are passed over without being kept.
const LINE_BYTES_MAX: usize = 1024;

/// Looks at one line after the other, in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct GaugeScan {
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Whether that line is already longer than [`LINE_BYTES_MAX`].
    passing_over: bool,
}

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gauges([Option<Value>; NAMES.len()]);

/// The value of a sample, or its text where that is no number.
type Value = Result<f64, String>;

/// What the gauge of the oldest sample says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lowest {
    /// The oldest sample.
    At(TimestampMs),
    /// There are no samples yet.
    NoData,
    /// The line of the gauge has no number.
    Garbage(String),
}

// === impl Gauges ===

impl Gauges {
    /// Whether no line can tell more.
    pub(super) fn is_complete(&self) -> bool {
        let has = |gauge: Gauge| self.value(gauge).is_some();
        has(Gauge::LowestSeconds)
            && has(Gauge::BlocksLoaded)
            && has(Gauge::BlocksBytes)
            && (has(Gauge::HeadMin) || has(Gauge::HeadMinSeconds))
            && (has(Gauge::HeadMax) || has(Gauge::HeadMaxSeconds))
    }

    /// The oldest sample, as the reference understands its gauge.
    pub(super) fn lowest(&self) -> Option<Lowest> {
        Some(match self.value(Gauge::LowestSeconds)? {
            Ok(seconds) => lowest_of(*seconds),
            Err(text) => Lowest::Garbage(text.clone()),
        })
    }

    /// Between which milliseconds, both inside, the oldest sample lies.
    pub(super) fn lowest_ms(&self) -> Option<RangeInclusive<i64>> {
        if let Some(ms) = self.number(Gauge::Lowest) {
            return Some(whole(ms)..=whole(ms));
        }
        let seconds = self.number(Gauge::LowestSeconds)?;
        let ms = whole(seconds * 1000.0);
        // What was rounded towards zero was further from it.
        let (below, above) = (
            if seconds > 0.0 { 0 } else { 999 },
            if seconds < 0.0 { 0 } else { 999 },
        );
        Some(ms.saturating_sub(below)..=ms.saturating_add(above))
    }

    /// How many blocks Prometheus has loaded.
    pub(super) fn blocks_loaded(&self) -> Option<u64> {
        self.count(Gauge::BlocksLoaded)
    }

    /// How many bytes these have.
    pub(super) fn blocks_bytes(&self) -> Option<u64> {
        self.count(Gauge::BlocksBytes)
    }

    /// No later than the oldest sample of the head, ms; `i64::MAX` while the head is empty.
    pub(super) fn head_min(&self) -> Option<TimestampMs> {
        self.no_later(Gauge::HeadMin, Gauge::HeadMinSeconds)
    }

    /// No later than the newest sample of the head, ms; `i64::MIN` while the head is empty.
    pub(super) fn head_max(&self) -> Option<TimestampMs> {
        self.no_later(Gauge::HeadMax, Gauge::HeadMaxSeconds)
    }

    fn no_later(&self, ms: Gauge, seconds: Gauge) -> Option<TimestampMs> {
        if let Some(ms) = self.number(ms) {
            return Some(TimestampMs(whole(ms)));
        }
        let seconds = self.number(seconds)?;
        let ms = whole(seconds * 1000.0);
        let rounded_up_by = if seconds > 0.0 { 0 } else { 999 };
        Some(TimestampMs(ms.saturating_sub(rounded_up_by)))
    }

    fn count(&self, gauge: Gauge) -> Option<u64> {
        let value = self.number(gauge)?;
        u64::try_from(whole(value)).ok()
    }

    fn number(&self, gauge: Gauge) -> Option<f64> {
        self.value(gauge)?.as_ref().ok().copied()
    }

    fn value(&self, gauge: Gauge) -> Option<&Value> {
        self.0.get(gauge as usize)?.as_ref()
    }

    /// Looks at one line. The first sample of a gauge counts.
    fn look_at(&mut self, line: &[u8]) {
        let line = line.trim_ascii_start();
        if line.len() > LINE_BYTES_MAX || !line.starts_with(PREFIX.as_bytes()) {
            return;
        }
        let end = line.iter().position(|byte| b" \t{".contains(byte));
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        let known = NAMES.iter().position(|known| known.as_bytes() == name);
        if let Some(place @ None) = known.and_then(|known| self.0.get_mut(known)) {
            *place = value_of(rest);
        }
    }
}

/// The value behind a name: perhaps labels, the value, perhaps a time.
fn value_of(rest: &[u8]) -> Option<Value> {
    let rest = match rest.first()? {
        b'{' => rest.rsplit(|byte| *byte == b'}').next()?,
        _ => rest,
    };
    let text = String::from_utf8_lossy(rest);
    let value = text.split_ascii_whitespace().next().unwrap_or_default();
    Some(match value.parse::<f64>() {
        Ok(number) if !number.is_nan() => Ok(number),
        _ => Err(value.to_owned()),
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
    Lowest::At(TimestampMs(whole(ms)))
}

/// Rounded towards zero, as the contract has it.
fn whole(value: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates beyond the range, where only \"nothing yet\" lies"
    )]
    let whole = value as i64;
    whole
}

// === impl GaugeScan ===

impl GaugeScan {
    /// Takes the next piece; tells whether all is known now.
    pub(super) fn push(&mut self, mut piece: &[u8], seen: &mut Gauges) -> bool {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            self.end_line(line, seen);
            if seen.is_complete() {
                return true;
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
        false
    }

    /// Looks at a last line that has no line end.
    pub(super) fn finish(&mut self, seen: &mut Gauges) {
        self.end_line(b"", seen);
    }

    fn end_line(&mut self, end: &[u8], seen: &mut Gauges) {
        match (self.passing_over, self.partial.is_empty()) {
            (true, _) => {}
            (false, true) => seen.look_at(end),
            (false, false) => {
                self.partial.extend_from_slice(end);
                seen.look_at(&self.partial);
            }
        }
        self.passing_over = false;
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METRIC: &str = LOWEST_SECONDS;

    fn scan(text: &str, piece_bytes: usize) -> Option<Lowest> {
        gauges(text, piece_bytes).0.lowest()
    }

    /// What was found, and in how many bytes.
    fn gauges(text: &str, piece_bytes: usize) -> (Gauges, usize) {
        let mut scan = GaugeScan::default();
        let mut seen = Gauges::default();
        let mut looked_at = 0;
        for piece in text.as_bytes().chunks(piece_bytes) {
            looked_at += piece.len();
            if scan.push(piece, &mut seen) {
                return (seen, looked_at);
            }
            assert!(scan.partial.len() <= LINE_BYTES_MAX);
        }
        scan.finish(&mut seen);
        (seen, looked_at)
    }

    /// As Prometheus 3.14 prints them, at the place where each stands.
    const EXPOSITION: &str = "# TYPE prometheus_tsdb_blocks_loaded gauge\n\
        prometheus_tsdb_blocks_loaded 12\n\
        prometheus_tsdb_head_max_time 1.700003600123e+12\n\
        prometheus_tsdb_head_max_time_seconds 1.7000036e+09\n\
        prometheus_tsdb_head_min_time 1.700000000456e+12\n\
        prometheus_tsdb_head_min_time_seconds 1.7e+09\n\
        prometheus_tsdb_lowest_timestamp 1.600000000789e+12\n\
        prometheus_tsdb_lowest_timestamp_seconds 1.6e+09\n\
        prometheus_tsdb_storage_blocks_bytes 8.796093022209e+12\n";

    #[test]
    fn milliseconds_are_preferred_and_the_scan_ends_with_the_last_gauge() {
        let text = format!("{EXPOSITION}{}", "zzz 1\n".repeat(1000));
        for piece in [1, 7, 100] {
            let (seen, looked_at) = gauges(&text, piece);
            assert_eq!(seen.blocks_loaded(), Some(12));
            assert_eq!(seen.blocks_bytes(), Some(8_796_093_022_209));
            assert_eq!(seen.head_max(), Some(TimestampMs(1_700_003_600_123)));
            assert_eq!(seen.head_min(), Some(TimestampMs(1_700_000_000_456)));
            assert_eq!(
                seen.lowest_ms(),
                Some(1_600_000_000_789..=1_600_000_000_789)
            );
            assert_eq!(
                seen.lowest(),
                Some(Lowest::At(TimestampMs(1_600_000_000_000)))
            );
            assert!(looked_at < EXPOSITION.len() + piece, "{looked_at}");
        }
    }

    #[test]
    fn seconds_alone_are_rounded_to_the_safe_side() {
        for (seconds, no_later, lowest) in [
            (
                "1.7e+09",
                1_700_000_000_000,
                1_700_000_000_000..=1_700_000_000_999,
            ),
            ("0", -999, -999..=999),
            ("-5", -5999, -5999..=-5000),
        ] {
            let text: String = EXPOSITION
                .lines()
                .filter_map(|line| Some(line.split_once("_seconds ")?.0))
                .map(|name| format!("{name}_seconds {seconds}\n"))
                .collect();
            let (seen, _) = gauges(&text, 4096);
            assert_eq!(seen.head_min(), Some(TimestampMs(no_later)));
            assert_eq!(seen.head_max(), Some(TimestampMs(no_later)));
            assert_eq!(seen.lowest_ms(), Some(lowest));
            assert_eq!((seen.blocks_loaded(), seen.blocks_bytes()), (None, None));
            assert!(!seen.is_complete());
        }
    }

    #[test]
    fn an_empty_head_and_garbage_are_told_apart() {
        let (seen, _) = gauges(
            "prometheus_tsdb_head_max_time -9.223372036854776e+18\n\
             prometheus_tsdb_head_min_time 9.223372036854776e+18\n\
             prometheus_tsdb_blocks_loaded -1\nprometheus_tsdb_storage_blocks_bytes NaN\n",
            4096,
        );
        assert_eq!(seen.head_min(), Some(TimestampMs(i64::MAX)));
        assert_eq!(seen.head_max(), Some(TimestampMs(i64::MIN)));
        assert_eq!((seen.blocks_loaded(), seen.blocks_bytes()), (None, None));
        assert_eq!(seen.lowest_ms(), None);
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
        assert_eq!(
            scan(&format!("{METRIC} 1\n{METRIC} 2\n"), 7),
            Some(Lowest::At(TimestampMs(1000)))
        );
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
