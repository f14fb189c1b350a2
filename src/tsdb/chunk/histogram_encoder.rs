//! Makes chunks of native histograms, with counts that are integers or floats
//! (`contract/tsdb.md` §4.1); without start times, which StoreAPI does not know.

use std::sync::Arc;

use super::Encoding;
use super::bits::{BitWriter, STALE_NAN_BITS, Window};
use super::histogram::{
    CUSTOM_BOUNDS_SCHEMA, CounterReset, HistogramCounts, HistogramLayout, HistogramSample, Span,
};
use crate::tsdb::decode::count;

/// Bytes before the bit stream: the number of samples and the flags.
const HEADER_BYTES: usize = 3;
/// The largest custom bound that is written in thousandths.
const THOUSANDTHS_MAX: u64 = 33_554_430;
/// Exponents of two that a zero threshold of one byte can have.
const THRESHOLD_EXPONENTS: std::ops::RangeInclusive<i64> = -243..=10;
/// What that byte adds to the exponent.
const THRESHOLD_BIAS: i64 = 244;

/// A chunk of histograms with the same buckets.
#[derive(Clone, Debug)]
pub(super) struct HistogramEncoder {
    bits: BitWriter,
    samples: u16,
    layout: Arc<HistogramLayout>,
    counter_reset: CounterReset,
    /// How many of the buckets are positive.
    positive_buckets: usize,
    t_ms: i64,
    delta_ms: i64,
    sum: f64,
    sum_window: Option<Window>,
    counts: Counts,
}

/// Count and zero count, then the buckets, positive ones first: those of the sample before.
#[derive(Clone, Debug)]
enum Counts {
    Integer([Integer; 2], Vec<Integer>),
    Float([Float; 2], Vec<Float>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Integer {
    value: i64,
    delta: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Float {
    value: f64,
    window: Option<Window>,
}

/// What the counts of a sample tell when those before are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// None has become less.
    On,
    /// One has become less: the counter began anew.
    Reset,
    /// The buckets are others, so they cannot be compared.
    Unknown,
}

impl HistogramEncoder {
    /// A chunk without samples for those that have the kind and the layout of `first`.
    pub(super) fn new(first: &HistogramSample, counter_reset: CounterReset) -> Self {
        let (positive_buckets, counts) = match &first.counts {
            HistogramCounts::Integer {
                positive, negative, ..
            } => {
                let buckets = positive.len().saturating_add(negative.len());
                let buckets = vec![Integer::default(); buckets];
                (positive.len(), Counts::Integer(Default::default(), buckets))
            }
            HistogramCounts::Float {
                positive, negative, ..
            } => {
                let buckets = positive.len().saturating_add(negative.len());
                let buckets = vec![Float::default(); buckets];
                (positive.len(), Counts::Float(Default::default(), buckets))
            }
        };
        let mut bits = BitWriter::after(vec![0; HEADER_BYTES]);
        put_layout(&mut bits, &first.layout);
        Self {
            bits,
            samples: 0,
            layout: Arc::clone(&first.layout),
            counter_reset,
            positive_buckets,
            t_ms: 0,
            delta_ms: 0,
            sum: 0.0,
            sum_window: None,
            counts,
        }
    }

    pub(super) fn is_gauge(&self) -> bool {
        self.counter_reset == CounterReset::Gauge
    }

    /// Whether the last sample said that the series had ended.
    pub(super) fn is_stale(&self) -> bool {
        self.samples > 0 && self.sum.to_bits() == STALE_NAN_BITS
    }

    /// Whether counts are integers there as here, or floats.
    pub(super) fn has_kind_of(&self, sample: &HistogramSample) -> bool {
        match self.counts {
            Counts::Integer(..) => matches!(sample.counts, HistogramCounts::Integer { .. }),
            Counts::Float(..) => matches!(sample.counts, HistogramCounts::Float { .. }),
        }
    }

    /// Whether the buckets are the same, bit by bit.
    pub(super) fn has_layout_of(&self, sample: &HistogramSample) -> bool {
        if Arc::ptr_eq(&self.layout, &sample.layout) {
            return true;
        }
        let (one, other) = (&*self.layout, &*sample.layout);
        self.has_bounds_of(sample)
            && one.positive_spans == other.positive_spans
            && one.negative_spans == other.negative_spans
    }

    /// How a counter goes on.
    pub(super) fn course(&self, sample: &HistogramSample) -> Course {
        if !self.has_bounds_of(sample) {
            return Course::Unknown;
        }
        let (before, after) = (&*self.layout, &*sample.layout);
        let drops = match (&self.counts, &sample.counts) {
            (
                Counts::Integer(counts, buckets),
                HistogramCounts::Integer {
                    count,
                    zero,
                    positive,
                    negative,
                },
            ) => {
                let (ours, theirs) = buckets.split_at(self.positive_buckets.min(buckets.len()));
                let value = |bucket: &Integer| bucket.value;
                let old_positive = running(ours.iter().map(value));
                let old_negative = running(theirs.iter().map(value));
                let new_positive = running(positive.iter().copied());
                let new_negative = running(negative.iter().copied());
                let [old_count, old_zero] = counts.map(|count| count.value.cast_unsigned());
                *count < old_count
                    || *zero < old_zero
                    || drops(
                        indexed(&before.positive_spans, old_positive),
                        indexed(&after.positive_spans, new_positive),
                    )
                    || drops(
                        indexed(&before.negative_spans, old_negative),
                        indexed(&after.negative_spans, new_negative),
                    )
            }
            (
                Counts::Float(counts, buckets),
                HistogramCounts::Float {
                    count,
                    zero,
                    positive,
                    negative,
                },
            ) => {
                let (ours, theirs) = buckets.split_at(self.positive_buckets.min(buckets.len()));
                let value = |bucket: &Float| bucket.value;
                let [old_count, old_zero] = counts.map(|count| count.value);
                *count < old_count
                    || *zero < old_zero
                    || drops(
                        indexed(&before.positive_spans, ours.iter().map(value)),
                        indexed(&after.positive_spans, positive.iter().copied()),
                    )
                    || drops(
                        indexed(&before.negative_spans, theirs.iter().map(value)),
                        indexed(&after.negative_spans, negative.iter().copied()),
                    )
            }
            _ => return Course::Unknown,
        };
        match drops {
            true => Course::Reset,
            false => Course::On,
        }
    }

    /// Adds a sample of this kind and layout, no earlier than the one before. A stale marker may
    /// have any layout: its buckets mean nothing and are not written, unless it comes first.
    pub(super) fn append(&mut self, sample: &HistogramSample) {
        let nth = self.samples;
        let delta_ms = sample.t_ms.wrapping_sub(self.t_ms);
        match nth {
            0 => self.bits.varbit_int(sample.t_ms),
            1 => self.bits.varbit_int(delta_ms),
            _ => self.bits.varbit_int(delta_ms.wrapping_sub(self.delta_ms)),
        }
        self.delta_ms = delta_ms;
        self.t_ms = sample.t_ms;
        self.put_counts(sample);
        match nth {
            0 => self.bits.put(sample.sum.to_bits(), 64),
            _ => self.bits.xor(sample.sum, self.sum, &mut self.sum_window),
        }
        self.sum = sample.sum;
        if nth == 0 || sample.sum.to_bits() != STALE_NAN_BITS {
            self.put_buckets(sample);
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// The chunk's encoding and data, header included.
    pub(super) fn finish(mut self) -> (Encoding, Vec<u8>) {
        let [high, low] = self.samples.to_be_bytes();
        let flags = self.counter_reset.flags();
        if let Some(header) = self.bits.bytes_mut().first_chunk_mut::<HEADER_BYTES>() {
            *header = [high, low, flags];
        }
        let encoding = match self.counts {
            Counts::Integer(..) => Encoding::Histogram,
            Counts::Float(..) => Encoding::FloatHistogram,
        };
        (encoding, self.bits.into_bytes())
    }

    /// Whether the same buckets have the same bounds.
    fn has_bounds_of(&self, sample: &HistogramSample) -> bool {
        let (one, other) = (&*self.layout, &*sample.layout);
        let ours = one.custom_bounds.iter().map(|bound| bound.to_bits());
        let theirs = other.custom_bounds.iter().map(|bound| bound.to_bits());
        one.schema == other.schema
            && one.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && ours.eq(theirs)
    }

    fn put_counts(&mut self, sample: &HistogramSample) {
        let nth = self.samples;
        match (&mut self.counts, &sample.counts) {
            (Counts::Integer(counts, _), HistogramCounts::Integer { count, zero, .. }) => {
                for (known, value) in counts.iter_mut().zip([*count, *zero]) {
                    match nth {
                        0 => {
                            self.bits.varbit_uint(value);
                            known.value = value.cast_signed();
                        }
                        _ => known.put(&mut self.bits, value.cast_signed(), nth),
                    }
                }
            }
            (Counts::Float(counts, _), HistogramCounts::Float { count, zero, .. }) => {
                for (known, value) in counts.iter_mut().zip([*count, *zero]) {
                    known.put(&mut self.bits, value, nth);
                }
            }
            _ => debug_assert!(false, "a chunk has one kind of counts"),
        }
    }

    fn put_buckets(&mut self, sample: &HistogramSample) {
        let nth = self.samples;
        match (&mut self.counts, &sample.counts) {
            (
                Counts::Integer(_, known),
                HistogramCounts::Integer {
                    positive, negative, ..
                },
            ) => {
                let values = positive.iter().chain(negative);
                debug_assert_eq!(values.clone().count(), known.len(), "as the layout has it");
                for (known, value) in known.iter_mut().zip(values) {
                    known.put(&mut self.bits, *value, nth);
                }
            }
            (
                Counts::Float(_, known),
                HistogramCounts::Float {
                    positive, negative, ..
                },
            ) => {
                let values = positive.iter().chain(negative);
                debug_assert_eq!(values.clone().count(), known.len(), "as the layout has it");
                for (known, value) in known.iter_mut().zip(values) {
                    known.put(&mut self.bits, *value, nth);
                }
            }
            _ => debug_assert!(false, "a chunk has one kind of counts"),
        }
    }
}

impl Integer {
    fn put(&mut self, bits: &mut BitWriter, value: i64, nth: u16) {
        let delta = value.wrapping_sub(self.value);
        match nth {
            0 => bits.varbit_int(value),
            1 => bits.varbit_int(delta),
            _ => bits.varbit_int(delta.wrapping_sub(self.delta)),
        }
        self.value = value;
        // The first value has none.
        self.delta = if nth == 0 { 0 } else { delta };
    }
}

impl Float {
    fn put(&mut self, bits: &mut BitWriter, value: f64, nth: u16) {
        match nth {
            0 => bits.put(value.to_bits(), 64),
            _ => bits.xor(value, self.value, &mut self.window),
        }
        self.value = value;
    }
}

// === Layout ===

fn put_layout(bits: &mut BitWriter, layout: &HistogramLayout) {
    put_zero_threshold(bits, layout.zero_threshold);
    bits.varbit_int(layout.schema);
    for spans in [&layout.positive_spans, &layout.negative_spans] {
        bits.varbit_uint(count(spans.len()));
        for span in spans {
            bits.varbit_uint(span.length);
            bits.varbit_int(span.offset);
        }
    }
    if layout.schema == CUSTOM_BOUNDS_SCHEMA {
        bits.varbit_uint(count(layout.custom_bounds.len()));
        for bound in &layout.custom_bounds {
            put_custom_bound(bits, *bound);
        }
    }
}

/// 0, a power of two, or any float.
fn put_zero_threshold(bits: &mut BitWriter, threshold: f64) {
    const FRACTION_BITS: u32 = 52;
    const EXPONENT_BIAS: i64 = 1023;
    let raw = threshold.to_bits();
    if raw == 0 {
        bits.put(0, 8);
        return;
    }
    // That of a negative number is far above the range.
    let exponent = raw.wrapping_shr(FRACTION_BITS).cast_signed();
    let exponent = exponent.wrapping_sub(EXPONENT_BIAS);
    let is_power = raw.trailing_zeros() >= FRACTION_BITS;
    if is_power && THRESHOLD_EXPONENTS.contains(&exponent) {
        let byte = exponent.saturating_add(THRESHOLD_BIAS);
        bits.put(byte.cast_unsigned(), 8);
        return;
    }
    bits.put(255, 8);
    bits.put(raw, 64);
}

/// Thousandths as an integer where they give the same float again, or any float.
fn put_custom_bound(bits: &mut BitWriter, bound: f64) {
    let thousandths = bound * 1000.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "what does not survive it is not taken"
    )]
    let (whole, again) = (thousandths as u64, (thousandths as u64) as f64 / 1000.0);
    // Also tells a zero that is negative, and NaN, which becomes zero.
    let is_exact = whole <= THOUSANDTHS_MAX && again.to_bits() == bound.to_bits();
    if is_exact {
        bits.varbit_uint(whole.saturating_add(1));
    } else {
        bits.put(0, 1);
        bits.put(bound.to_bits(), 64);
    }
}

// === Counter resets ===

/// Counts from the differences between neighbours.
fn running(deltas: impl Iterator<Item = i64>) -> impl Iterator<Item = i64> {
    deltas.scan(0_i64, |sum, delta| {
        *sum = sum.wrapping_add(delta);
        Some(*sum)
    })
}

/// Counts with the numbers of their buckets.
fn indexed<T>(spans: &[Span], counts: impl Iterator<Item = T>) -> impl Iterator<Item = (i64, T)> {
    let mut spans = spans.iter();
    let (mut next, mut left) = (0_i64, 0_u64);
    counts.map_while(move |count| {
        while left == 0 {
            let span = spans.next()?;
            next = next.wrapping_add(span.offset);
            left = span.length;
        }
        let index = next;
        next = next.wrapping_add(1);
        left = left.saturating_sub(1);
        Some((index, count))
    })
}

/// Whether a bucket has less than before; one that is no longer there has nothing.
fn drops<T: Copy + Default + PartialOrd>(
    before: impl Iterator<Item = (i64, T)>,
    after: impl Iterator<Item = (i64, T)>,
) -> bool {
    let mut after = after.peekable();
    for (index, count) in before {
        while after.next_if(|(at, _)| *at < index).is_some() {}
        let same = after.peek().filter(|(at, _)| *at == index);
        if same.map_or(T::default(), |(_, count)| *count) < count {
            return true;
        }
    }
    false
}
