//! Samples as text: OpenMetrics lines, and JSON that has histograms too.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::tsdb::{HistogramCounts, HistogramSample, Sample, Span};

/// The float bits of a stale marker.
const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A label's name and value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// Writes what stands before the value on each line of a series: `name{label="value"}`. `None`
/// where the format can't say it: without a metric name.
pub(super) fn series_text(labels: &[Label<'_>]) -> Option<String> {
    let (_, metric) = labels.iter().find(|(name, _)| *name == "__name__")?;
    let mut text = String::new();
    let is_plain = is_metric_name(metric);
    if is_plain {
        text.push_str(metric);
    }
    let others = labels.iter().filter(|(name, _)| *name != "__name__");
    let mut parts: Vec<String> = Vec::with_capacity(labels.len());
    if !is_plain {
        parts.push(quoted(metric));
    }
    for (name, value) in others {
        let name = match is_label_name(name) {
            true => (*name).to_owned(),
            false => quoted(name),
        };
        parts.push(format!("{name}={}", quoted(value)));
    }
    if !parts.is_empty() {
        text.push('{');
        text.push_str(&parts.join(","));
        text.push('}');
    }
    Some(text)
}

/// Writes a line of a float sample.
pub(super) fn write_line(out: &mut String, series: &str, t_ms: i64, value: f64) {
    out.push_str(series);
    out.push(' ');
    write_float(out, value);
    out.push(' ');
    write_seconds(out, t_ms);
    out.push('\n');
}

/// Whether the series ended here.
pub(super) fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A sample as `[ms, "value"]`, `[ms, {histogram}]`, or `[ms, null]` where the series ended.
pub(super) fn sample_json(sample: &Sample) -> Value {
    match sample {
        Sample::Float(float) if is_stale(float.value) => json!([float.t_ms, null]),
        Sample::Float(float) => json!([float.t_ms, float_text(float.value)]),
        Sample::Histogram(histogram) if is_stale(histogram.sum) => json!([histogram.t_ms, null]),
        Sample::Histogram(histogram) => json!([histogram.t_ms, histogram_json(histogram)]),
    }
}

/// Buckets as counts, whether integers or floats.
fn histogram_json(sample: &HistogramSample) -> Value {
    let layout = &sample.layout;
    let spans = |spans: &[Span]| -> Vec<[Value; 2]> {
        let spans = spans.iter();
        spans
            .map(|span| [span.offset.into(), span.length.into()])
            .collect()
    };
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("schema", layout.schema.into());
    put("sum", float_text(sample.sum).into());
    put("zero_threshold", float_text(layout.zero_threshold).into());
    put("positive_spans", json!(spans(&layout.positive_spans)));
    put("negative_spans", json!(spans(&layout.negative_spans)));
    if !layout.custom_bounds.is_empty() {
        let bounds = layout.custom_bounds.iter().copied().map(float_text);
        put("custom_bounds", bounds.collect());
    }
    match &sample.counts {
        HistogramCounts::Integer {
            count,
            zero,
            positive,
            negative,
        } => {
            put("count", (*count).into());
            put("zero_count", (*zero).into());
            put("positive_buckets", absolute(positive));
            put("negative_buckets", absolute(negative));
        }
        HistogramCounts::Float {
            count,
            zero,
            positive,
            negative,
        } => {
            let texts = |buckets: &[f64]| buckets.iter().copied().map(float_text).collect();
            put("count", float_text(*count).into());
            put("zero_count", float_text(*zero).into());
            put("positive_buckets", texts(positive));
            put("negative_buckets", texts(negative));
        }
    }
    Value::Object(object)
}

fn absolute(differences: &[i64]) -> Value {
    let mut bucket = 0_i64;
    let counts = differences.iter().map(|difference| {
        bucket = bucket.wrapping_add(*difference);
        Value::from(bucket)
    });
    counts.collect()
}

fn float_text(value: f64) -> String {
    let mut text = String::new();
    write_float(&mut text, value);
    text
}

/// The shortest digits that give the same float again, as Go prints them.
fn write_float(out: &mut String, value: f64) {
    let written = match value {
        _ if value.is_nan() => write!(out, "NaN"),
        f64::INFINITY => write!(out, "+Inf"),
        f64::NEG_INFINITY => write!(out, "-Inf"),
        _ if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) => write!(out, "{value:e}"),
        _ => write!(out, "{value}"),
    };
    written.expect("a string takes all that is written");
}

/// Milliseconds as seconds, without a fraction where there is none.
fn write_seconds(out: &mut String, t_ms: i64) {
    let (sign, ms) = (if t_ms < 0 { "-" } else { "" }, t_ms.unsigned_abs());
    let (seconds, rest) = (ms / 1000, ms % 1000);
    let written = match rest {
        0 => write!(out, "{sign}{seconds}"),
        _ => write!(out, "{sign}{seconds}.{rest:03}"),
    };
    written.expect("a string takes all that is written");
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn is_metric_name(name: &str) -> bool {
    is_name(name, |byte| byte == b':')
}

fn is_label_name(name: &str) -> bool {
    is_name(name, |_| false)
}

fn is_name(name: &str, is_other: fn(u8) -> bool) -> bool {
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || is_other(byte);
    let mut bytes = name.bytes();
    bytes.next().is_some_and(starts) && bytes.all(|byte| starts(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::FloatSample;

    #[test]
    fn series_are_written_as_the_format_has_them() {
        let text = |labels: &[Label<'_>]| series_text(labels);
        assert_eq!(text(&[("__name__", "up")]).unwrap(), "up");
        assert_eq!(
            text(&[("A", "1"), ("__name__", "a:b"), ("c", "\"\\\n")]).unwrap(),
            r#"a:b{A="1",c="\"\\\n"}"#
        );
        assert_eq!(
            text(&[("__name__", "http.total"), ("l.x", "é")]).unwrap(),
            r#"{"http.total","l.x"="é"}"#
        );
        assert_eq!(text(&[("a", "b")]), None);
    }

    #[test]
    fn values_and_times_are_read_back_as_the_same() {
        for value in [
            0.0,
            -0.0,
            1.5,
            -1e21,
            1e22,
            123_456_789.125,
            1e-7,
            5e-324,
            f64::MAX,
            f64::MIN,
            0.1,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ] {
            let text = float_text(value);
            assert_eq!(
                text.parse::<f64>().unwrap().to_bits(),
                value.to_bits(),
                "{text}"
            );
            assert!(text.len() < 26, "{text}");
        }
        assert_eq!(float_text(f64::NAN), "NaN");
        assert_eq!(float_text(f64::INFINITY), "+Inf");
        for (t_ms, text) in [
            (0, "0"),
            (1_700_000_000_001, "1700000000.001"),
            (-1, "-0.001"),
            (-1500, "-1.500"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            let mut out = String::new();
            write_seconds(&mut out, t_ms);
            assert_eq!(out, text);
        }
        let mut line = String::new();
        write_line(&mut line, "up", 1000, 2.0);
        assert_eq!(line, "up 2 1\n");
    }

    #[test]
    fn the_end_of_a_series_is_null() {
        let float = |value| Sample::Float(FloatSample { t_ms: 1, value });
        let stale = f64::from_bits(STALE_NAN_BITS);
        assert_eq!(sample_json(&float(stale)), json!([1, null]));
        assert_eq!(sample_json(&float(f64::NAN)), json!([1, "NaN"]));
        assert_eq!(sample_json(&float(0.5)), json!([1, "0.5"]));
    }
}
