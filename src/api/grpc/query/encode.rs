//! `prometheus_copy.TimeSeries`, written straight to where it is sent from.
//!
//! By hand for labels and floats, which are most of an answer: messages of their own would be an
//! allocation for each label and a copy of each sample. Histograms are few and go through prost.

use bytes::{BufMut, BytesMut};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::proto::prometheus_copy::Histogram;

/// Field tags (contract `grpc.md` §2.10); all have one byte.
mod tag {
    pub(super) const SERIES_LABEL: u8 = 0x0A;
    pub(super) const LABEL_NAME: u8 = 0x0A;
    pub(super) const LABEL_VALUE: u8 = 0x12;
    pub(super) const SERIES_SAMPLE: u8 = 0x12;
    pub(super) const SAMPLE_VALUE: u8 = 0x09;
    pub(super) const SAMPLE_TIMESTAMP: u8 = 0x10;
    pub(super) const SERIES_HISTOGRAM: u8 = 0x22;
}

/// A tag and a double.
const VALUE_LEN: usize = 1 + 8;

/// One sample: time in milliseconds since the epoch, and value.
pub(super) type Float = (i64, f64);

/// A series to be written.
#[derive(Debug)]
pub(super) struct TimeSeries<'a, L> {
    /// In the order of names.
    pub(super) labels: L,
    pub(super) floats: &'a [Float],
    pub(super) histograms: &'a [Histogram],
}

impl<'a, L: Iterator<Item = (&'a str, &'a str)> + Clone> TimeSeries<'a, L> {
    /// How long the message is, without its own tag and length.
    pub(super) fn encoded_len(&self) -> usize {
        let labels = self.labels.clone().map(|label| field_len(label_len(label)));
        let floats = self.floats.iter().map(|float| field_len(float_len(float)));
        let histograms = self.histograms.iter().map(|h| field_len(h.encoded_len()));
        labels.sum::<usize>() + floats.sum::<usize>() + histograms.sum::<usize>()
    }

    /// Appends the message: [`Self::encoded_len`] bytes.
    pub(super) fn write(&self, out: &mut BytesMut) {
        for label in self.labels.clone() {
            put_head(tag::SERIES_LABEL, label_len(label), out);
            put_text(tag::LABEL_NAME, label.0, out);
            put_text(tag::LABEL_VALUE, label.1, out);
        }
        for float in self.floats {
            put_head(tag::SERIES_SAMPLE, float_len(float), out);
            put_float(float, out);
        }
        for histogram in self.histograms {
            put_head(tag::SERIES_HISTOGRAM, histogram.encoded_len(), out);
            histogram.encode_raw(out);
        }
    }
}

/// A field's tag and the length of what follows.
pub(super) fn put_head(tag: u8, len: usize, out: &mut BytesMut) {
    out.put_u8(tag);
    encode_varint(len as u64, out);
}

/// How long a field of a one-byte tag is, whose contents are so long.
pub(super) fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn label_len((name, value): (&str, &str)) -> usize {
    text_len(name) + text_len(value)
}

/// An empty text is not written.
fn text_len(text: &str) -> usize {
    match text.len() {
        0 => 0,
        len => field_len(len),
    }
}

fn put_text(tag: u8, text: &str, out: &mut BytesMut) {
    if !text.is_empty() {
        put_head(tag, text.len(), out);
        out.put_slice(text.as_bytes());
    }
}

/// Zero is not written, but the zero below zero is, which would else lose its sign.
fn float_len((t_ms, value): &Float) -> usize {
    let value = if value.to_bits() == 0 { 0 } else { VALUE_LEN };
    value + timestamp_len(*t_ms)
}

fn timestamp_len(t_ms: i64) -> usize {
    match t_ms {
        0 => 0,
        t_ms => 1 + encoded_len_varint(t_ms.cast_unsigned()),
    }
}

fn put_float((t_ms, value): &Float, out: &mut BytesMut) {
    if value.to_bits() != 0 {
        out.put_u8(tag::SAMPLE_VALUE);
        out.put_f64_le(*value);
    }
    if *t_ms != 0 {
        out.put_u8(tag::SAMPLE_TIMESTAMP);
        encode_varint(t_ms.cast_unsigned(), out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::prometheus_copy::{self, Sample, histogram};
    use crate::proto::thanos::Label;

    fn float() -> impl Strategy<Value = Float> {
        let times = prop_oneof![Just(0), Just(-1), any::<i64>(), 0..2_000_000_000_000_i64];
        let values = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), any::<f64>()];
        (times, values)
    }

    prop_compose! {
        fn native()(
            (timestamp, sum) in float(),
            positive_counts in prop::collection::vec(any::<f64>(), 0..5),
        ) -> Histogram {
            Histogram {
                count: Some(histogram::Count::CountFloat(1.0)),
                sum,
                positive_counts,
                timestamp,
                ..Histogram::default()
            }
        }
    }

    proptest! {
        /// What prost writes; it leaves out the zero below zero, which is the same number.
        #[test]
        fn as_prost(
            labels in prop::collection::btree_map("[a-z]{0,3}", "\\PC{0,200}", 0..6),
            floats in prop::collection::vec(float(), 0..200),
            histograms in prop::collection::vec(native(), 0..4),
        ) {
            let series = TimeSeries {
                labels: labels.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                floats: &floats,
                histograms: &histograms,
            };
            let mut out = BytesMut::from(&b"before"[..]);
            series.write(&mut out);
            let written = out.split_off(6).freeze();
            prop_assert_eq!(written.len(), series.encoded_len());
            let decoded = prometheus_copy::TimeSeries::decode(written.clone()).unwrap();
            for (sample, (_, value)) in decoded.samples.iter().zip(&floats) {
                prop_assert_eq!(sample.value.to_bits(), value.to_bits());
            }
            let label = |(name, value): (&String, &String)| Label {
                name: name.clone(),
                value: value.clone(),
            };
            let sample = |&(timestamp, value): &Float| Sample { value, timestamp };
            let theirs = prometheus_copy::TimeSeries {
                labels: labels.iter().map(label).collect(),
                samples: floats.iter().map(sample).collect(),
                exemplars: Vec::new(),
                histograms: histograms.clone(),
            };
            let has_negative_zero = floats.iter().any(|(_, value)| value.to_bits() == 1 << 63);
            if !has_negative_zero {
                prop_assert_eq!(written, theirs.encode_to_vec());
            }
        }
    }

    #[test]
    fn lengths_of_fields() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 1 << 21] {
            let mut out = BytesMut::new();
            put_head(tag::SERIES_LABEL, len, &mut out);
            assert_eq!(out.len() + len, field_len(len));
        }
    }
}
