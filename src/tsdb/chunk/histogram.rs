//! Chunks of native histograms, with counts that are integers or floats, with start times or
//! without (`contract/tsdb.md` §4.1).

use std::sync::Arc;

use super::Encoding;
use super::bits::{BitReader, BitWriter, STALE_NAN_BITS, Window};
use super::samples::first_count;
use super::start_times::StartTimes;
use crate::tsdb::decode::{DecodeError, DecodeErrorKind, count};

/// Bytes before the bit stream: the number of samples, and flags or the byte on start times.
const HEADER_BYTES: usize = 3;
/// The schema whose bounds are listed.
pub(super) const CUSTOM_BOUNDS_SCHEMA: i64 = -53;
/// With start times the count is in the lower bits, the counter-reset hint above them.
const COUNT_BITS_ST: u16 = 0x3fff;

/// A native histogram at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// Ms since the epoch.
    pub t_ms: i64,
    /// The buckets, the same for all samples of the chunk, and what the chunk says of a counter
    /// reset between the sample before and this one.
    pub layout: Arc<HistogramLayout>,
    /// Sum of observations; the stale marker where the series ended, and all counts mean nothing.
    pub sum: f64,
    /// Counts.
    pub counts: HistogramCounts,
}

/// The buckets that all samples of a chunk have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramLayout {
    /// What is known of a counter reset before the sample. A chunk's header tells it of its first
    /// one; between those that follow there is none.
    pub counter_reset: CounterReset,
    /// Resolution; -53 for custom bounds.
    pub schema: i64,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Runs of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Runs of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Upper bounds where the schema is -53.
    pub custom_bounds: Vec<f64>,
}

/// A run of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Gap to the run before, or, first of all, the index of the first bucket.
    pub offset: i64,
    /// How many buckets.
    pub length: u64,
}

/// Counts of observations.
#[derive(Clone, Debug, PartialEq)]
pub enum HistogramCounts {
    /// Integers; buckets as the difference to the bucket before.
    Integer {
        /// All observations.
        count: u64,
        /// Those in the zero bucket.
        zero: u64,
        /// Positive buckets.
        positive: Vec<i64>,
        /// Negative buckets.
        negative: Vec<i64>,
    },
    /// Floats; buckets as they are.
    Float {
        /// All observations.
        count: f64,
        /// Those in the zero bucket.
        zero: f64,
        /// Positive buckets.
        positive: Vec<f64>,
        /// Negative buckets.
        negative: Vec<f64>,
    },
}

/// What a chunk's header says of counter resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CounterReset {
    /// Nothing.
    #[default]
    Unknown,
    /// There was none before it.
    NotReset,
    /// There was one.
    Reset,
    /// It is no counter.
    Gauge,
}

/// Yields the samples of a chunk.
#[derive(Clone, Debug)]
pub(super) struct HistogramReader<'a> {
    bits: BitReader<'a>,
    start_times: Option<StartTimes>,
    left: u16,
    read: u16,
    layout: Arc<HistogramLayout>,
    /// How many of the buckets are positive.
    positive_buckets: usize,
    t_ms: i64,
    delta_ms: i64,
    sum: f64,
    sum_window: Window,
    counts: Counts,
    /// Bit positions where the start time of the sample read last begins and ends.
    start_time_bits: (usize, usize),
}

/// Count and zero count, then the buckets, positive ones first.
#[derive(Clone, Debug)]
enum Counts {
    Integer([Integer; 2], Vec<Integer>),
    Float([Float; 2], Vec<Float>),
}

/// A number that is coded by the change of its change.
#[derive(Clone, Copy, Debug, Default)]
struct Integer {
    value: i64,
    delta: i64,
}

/// A number that is coded by the xor with the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Float {
    value: f64,
    window: Window,
}

impl<'a> HistogramReader<'a> {
    pub(super) fn new(encoding: Encoding, data: &'a [u8]) -> Result<Self, DecodeError> {
        let has_start_times =
            matches!(encoding, Encoding::HistogramSt | Encoding::FloatHistogramSt);
        let is_float = matches!(
            encoding,
            Encoding::FloatHistogram | Encoding::FloatHistogramSt
        );
        let mut left = first_count(data)?;
        let start_times = StartTimes::of(data)?;
        let flags = match has_start_times {
            true => data.first(),
            false => data.get(HEADER_BYTES.saturating_sub(1)),
        };
        if has_start_times {
            left &= COUNT_BITS_ST;
        }
        let mut bits = BitReader::new(data, HEADER_BYTES);
        let (mut layout, mut positive, mut negative) = (HistogramLayout::default(), 0, 0);
        if left > 0 {
            layout = read_layout(&mut bits)?;
            positive = buckets(&layout.positive_spans, &bits)?;
            negative = buckets(&layout.negative_spans, &bits)?;
        }
        layout.counter_reset = CounterReset::from_flags(flags.copied().unwrap_or(0));
        let buckets = positive.saturating_add(negative);
        let counts = match is_float {
            true => Counts::Float(Default::default(), vec![Float::default(); buckets]),
            false => Counts::Integer(Default::default(), vec![Integer::default(); buckets]),
        };
        Ok(Self {
            bits,
            start_times: has_start_times.then_some(start_times),
            left,
            read: 0,
            layout: Arc::new(layout),
            positive_buckets: positive,
            t_ms: 0,
            delta_ms: 0,
            sum: 0.0,
            sum_window: Window::default(),
            counts,
            start_time_bits: (0, 0),
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<HistogramSample>, DecodeError> {
        let is_second = self.read == 1;
        if !self.advance()? {
            return Ok(None);
        }
        // The header speaks of the first sample.
        let header = self.layout.counter_reset;
        if is_second && matches!(header, CounterReset::Unknown | CounterReset::Reset) {
            Arc::make_mut(&mut self.layout).counter_reset = CounterReset::NotReset;
        }
        Ok(Some(self.sample()))
    }

    /// Reads the next sample; false at the end.
    fn advance(&mut self) -> Result<bool, DecodeError> {
        if self.left == 0 {
            return Ok(false);
        }
        let change = self.bits.varbit_int()?;
        match self.read {
            0 => self.t_ms = change,
            1 => self.delta_ms = change,
            _ => self.delta_ms = self.delta_ms.wrapping_add(change),
        }
        if self.read > 0 {
            self.t_ms = self.t_ms.wrapping_add(self.delta_ms);
        }
        self.counts.read_counts(&mut self.bits, self.read)?;
        self.sum = match self.read {
            0 => self.bits.float()?,
            _ => self.bits.xor(self.sum, &mut self.sum_window)?,
        };
        // A stale marker has no buckets, unless it is the first sample, whose layout tells.
        if self.read == 0 || self.sum.to_bits() != STALE_NAN_BITS {
            self.counts.read_buckets(&mut self.bits, self.read)?;
        }
        let start = self.bits.position();
        if let Some(start_times) = self.start_times {
            start_times.skip(&mut self.bits, self.read)?;
        }
        self.start_time_bits = (start, self.bits.position());
        self.left = self.left.saturating_sub(1);
        self.read = self.read.saturating_add(1);
        Ok(true)
    }

    fn sample(&self) -> HistogramSample {
        HistogramSample {
            t_ms: self.t_ms,
            layout: Arc::clone(&self.layout),
            sum: self.sum,
            counts: self.counts.values(self.positive_buckets),
        }
    }
}

impl Counts {
    fn read_counts(&mut self, bits: &mut BitReader<'_>, sample: u16) -> Result<(), DecodeError> {
        match self {
            Self::Integer(counts, _) if sample == 0 => {
                for count in counts {
                    count.value = bits.varbit_uint()?.cast_signed();
                }
                Ok(())
            }
            Self::Integer(counts, _) => counts.iter_mut().try_for_each(|n| n.read(bits, sample)),
            Self::Float(counts, _) => counts.iter_mut().try_for_each(|n| n.read(bits, sample)),
        }
    }

    fn read_buckets(&mut self, bits: &mut BitReader<'_>, sample: u16) -> Result<(), DecodeError> {
        match self {
            Self::Integer(_, buckets) => buckets.iter_mut().try_for_each(|n| n.read(bits, sample)),
            Self::Float(_, buckets) => buckets.iter_mut().try_for_each(|n| n.read(bits, sample)),
        }
    }

    fn values(&self, positive_buckets: usize) -> HistogramCounts {
        match self {
            Self::Integer([count, zero], buckets) => {
                let mut positive: Vec<_> = buckets.iter().map(|bucket| bucket.value).collect();
                let negative = positive.split_off(positive_buckets.min(positive.len()));
                HistogramCounts::Integer {
                    count: count.value.cast_unsigned(),
                    zero: zero.value.cast_unsigned(),
                    positive,
                    negative,
                }
            }
            Self::Float([count, zero], buckets) => {
                let mut positive: Vec<_> = buckets.iter().map(|bucket| bucket.value).collect();
                let negative = positive.split_off(positive_buckets.min(positive.len()));
                HistogramCounts::Float {
                    count: count.value,
                    zero: zero.value,
                    positive,
                    negative,
                }
            }
        }
    }
}

impl Integer {
    fn read(&mut self, bits: &mut BitReader<'_>, sample: u16) -> Result<(), DecodeError> {
        let change = bits.varbit_int()?;
        match sample {
            0 => self.value = change,
            1 => self.delta = change,
            _ => self.delta = self.delta.wrapping_add(change),
        }
        if sample > 0 {
            self.value = self.value.wrapping_add(self.delta);
        }
        Ok(())
    }
}

impl Float {
    fn read(&mut self, bits: &mut BitReader<'_>, sample: u16) -> Result<(), DecodeError> {
        self.value = match sample {
            0 => bits.float()?,
            _ => bits.xor(self.value, &mut self.window)?,
        };
        Ok(())
    }
}

impl HistogramSample {
    /// Whether it says that the series has ended; its counts mean nothing then.
    pub fn is_stale(&self) -> bool {
        self.sum.to_bits() == STALE_NAN_BITS
    }
}

impl CounterReset {
    /// The upper two bits of a byte.
    pub(super) fn flags(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::NotReset => 0b0100_0000,
            Self::Reset => 0b1000_0000,
            Self::Gauge => 0b1100_0000,
        }
    }

    /// From the upper two bits.
    fn from_flags(flags: u8) -> Self {
        match flags >> 6 {
            0b10 => Self::Reset,
            0b01 => Self::NotReset,
            0b11 => Self::Gauge,
            _ => Self::Unknown,
        }
    }
}

// === Layout ===

fn read_layout(bits: &mut BitReader<'_>) -> Result<HistogramLayout, DecodeError> {
    let zero_threshold = zero_threshold(bits)?;
    let schema = bits.varbit_int()?;
    let positive_spans = read_spans(bits)?;
    let negative_spans = read_spans(bits)?;
    let mut custom_bounds = Vec::new();
    if schema == CUSTOM_BOUNDS_SCHEMA {
        let bounds = bits.varbit_uint()?;
        at_most_bits(bits, "custom bounds", bounds)?;
        for _ in 0..bounds {
            custom_bounds.push(custom_bound(bits)?);
        }
    }
    Ok(HistogramLayout {
        counter_reset: CounterReset::Unknown,
        schema,
        zero_threshold,
        positive_spans,
        negative_spans,
        custom_bounds,
    })
}

fn read_spans(bits: &mut BitReader<'_>) -> Result<Vec<Span>, DecodeError> {
    let spans = bits.varbit_uint()?;
    at_most_bits(bits, "spans", spans)?;
    let mut read = Vec::new();
    for _ in 0..spans {
        let length = bits.varbit_uint()?;
        let offset = bits.varbit_int()?;
        read.push(Span { offset, length });
    }
    Ok(read)
}

/// How many buckets there are. Each has a bit at least in the first sample, so more of them than
/// bits are left is an error, and memory follows what is there, not what is claimed.
fn buckets(spans: &[Span], bits: &BitReader<'_>) -> Result<usize, DecodeError> {
    let mut buckets = 0_u64;
    for span in spans {
        buckets = buckets.saturating_add(span.length);
    }
    at_most_bits(bits, "buckets", buckets)
}

fn at_most_bits(
    bits: &BitReader<'_>,
    what: &'static str,
    value: u64,
) -> Result<usize, DecodeError> {
    let left = bits.bits_left();
    match usize::try_from(value) {
        Ok(value) if value <= left => Ok(value),
        _ => Err(bits.error(DecodeErrorKind::Limit {
            what,
            value,
            limit: count(left),
        })),
    }
}

/// 0, a power of two, or any float.
fn zero_threshold(bits: &mut BitReader<'_>) -> Result<f64, DecodeError> {
    match bits.bits(8)? {
        0 => Ok(0.0),
        255 => bits.float(),
        // 2^(number - 244), bit by bit: what a power function gives is not exact everywhere.
        exponent => Ok(f64::from_bits(
            exponent.saturating_add(779).wrapping_shl(52),
        )),
    }
}

/// Thousandths as an integer, or any float.
fn custom_bound(bits: &mut BitReader<'_>) -> Result<f64, DecodeError> {
    match bits.varbit_uint()? {
        0 => bits.float(),
        more => {
            #[expect(
                clippy::cast_precision_loss,
                reason = "the format's own numbers end at 33,554,431"
            )]
            let thousandths = more.saturating_sub(1) as f64;
            Ok(thousandths / 1000.0)
        }
    }
}

// === Start times ===

/// The same chunk without start times: all other bits are copied as they are.
pub(super) fn without_start_times(encoding: Encoding, data: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut reader = HistogramReader::new(encoding, data)?;
    let samples = first_count(data)?;
    let flags = data.first().copied().unwrap_or(0) & 0xc0;
    let mut header = (samples & COUNT_BITS_ST).to_be_bytes().to_vec();
    header.push(flags);
    let mut out = BitWriter::after(header);
    let mut copied = BitReader::new(data, HEADER_BYTES);
    while reader.advance()? {
        let (start, end) = reader.start_time_bits;
        out.copy(&mut copied, start)?;
        copied.seek(end);
    }
    Ok(out.into_bytes())
}
