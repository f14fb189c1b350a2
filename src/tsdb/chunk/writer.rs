//! Samples in, chunks out: for chunks that are trimmed or merged.
//!
//! A chunk of histograms has one layout, and its header says whether the counter began anew before
//! its first sample. Promising that it did not lets a reader skip its own comparison, so that is
//! said only where all counts have been compared; saying that it did makes a reader add what the
//! counter had reached, so that is said only where a source said so of this very sample, or where a
//! count has become less.

use super::histogram::{CounterReset, HistogramSample};
use super::histogram_encoder::{Course, HistogramEncoder};
use super::{Encoding, FloatSample, Sample, XorEncoder};

/// Samples in one chunk, as Prometheus' head has them.
pub const CHUNK_SAMPLES_MAX: u32 = 120;

/// Makes chunks of samples: XOR of floats, histograms as they are. It cuts at
/// [`CHUNK_SAMPLES_MAX`] samples, where the kind of samples changes, and of histograms where the
/// layout changes, a counter begins anew, a counter turns into a gauge or back, and after a stale
/// marker.
#[derive(Debug)]
pub struct ChunkWriter {
    /// Whether what sources say of counter resets holds between the samples pushed.
    has_hints: bool,
    chunks: Vec<EncodedChunk>,
    open: Option<Open>,
}

/// A chunk that has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChunk {
    /// Time of its first sample, ms.
    pub min_ms: i64,
    /// Time of its last sample, ms.
    pub max_ms: i64,
    /// How its samples are encoded.
    pub encoding: Encoding,
    /// Its data, header included.
    pub data: Vec<u8>,
}

/// The chunk being written, which has a sample at least.
#[derive(Debug)]
struct Open {
    min_ms: i64,
    max_ms: i64,
    samples: u32,
    encoder: Encoder,
}

#[derive(Debug)]
enum Encoder {
    Floats(XorEncoder),
    Histograms(Box<HistogramEncoder>),
}

/// Where a histogram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Into the open chunk.
    Open,
    /// Into a new one with this in its header.
    New(CounterReset),
}

impl ChunkWriter {
    /// A writer for samples of one source that follow each other there, such as those of a chunk
    /// that is trimmed: what its chunks say of counter resets holds.
    pub fn new() -> Self {
        Self {
            has_hints: true,
            chunks: Vec::new(),
            open: None,
        }
    }

    /// A writer for samples merged from several sources. What one of them says of a counter reset
    /// is relative to a sample of its own, which may not be the one before here; so only counts
    /// tell.
    pub fn of_merged() -> Self {
        Self {
            has_hints: false,
            ..Self::new()
        }
    }

    /// Adds a sample, later than the one before. A histogram has as many buckets as its layout
    /// says, as those do that are decoded.
    pub fn push(&mut self, sample: &Sample) {
        match sample {
            Sample::Float(sample) => self.push_float(*sample),
            Sample::Histogram(sample) => self.push_histogram(sample),
        }
    }

    /// The chunks, in the order of time.
    pub fn finish(mut self) -> Vec<EncodedChunk> {
        self.cut();
        self.chunks
    }

    fn push_float(&mut self, FloatSample { t_ms, value }: FloatSample) {
        if let Some(open) = &mut self.open
            && !open.is_full()
            && let Encoder::Floats(encoder) = &mut open.encoder
        {
            encoder.append(t_ms, value);
            open.count(t_ms);
            return;
        }
        self.cut();
        let mut encoder = XorEncoder::new();
        encoder.append(t_ms, value);
        self.open = Some(Open::new(t_ms, Encoder::Floats(encoder)));
    }

    fn push_histogram(&mut self, sample: &HistogramSample) {
        let place = self.place(sample);
        if let Some(open) = &mut self.open
            && place == Place::Open
            && let Encoder::Histograms(encoder) = &mut open.encoder
        {
            encoder.append(sample);
            open.count(sample.t_ms);
            return;
        }
        self.cut();
        let counter_reset = match place {
            Place::New(counter_reset) => counter_reset,
            Place::Open => CounterReset::Unknown,
        };
        let mut encoder = HistogramEncoder::new(sample, counter_reset);
        encoder.append(sample);
        let encoder = Encoder::Histograms(Box::new(encoder));
        self.open = Some(Open::new(sample.t_ms, encoder));
    }

    fn place(&self, sample: &HistogramSample) -> Place {
        let hint = match sample.layout.counter_reset {
            CounterReset::Gauge => CounterReset::Gauge,
            hint if self.has_hints => hint,
            _ => CounterReset::Unknown,
        };
        let Some(open) = &self.open else {
            // Nothing here speaks against it.
            return Place::New(hint);
        };
        // What the header says where counts tell nothing.
        let unproven = match hint {
            CounterReset::NotReset => CounterReset::Unknown,
            hint => hint,
        };
        let Encoder::Histograms(encoder) = &open.encoder else {
            return Place::New(unproven);
        };
        if !encoder.has_kind_of(sample) {
            return Place::New(unproven);
        }
        if sample.is_stale() {
            return match open.is_full() {
                true => Place::New(unproven),
                false => Place::Open,
            };
        }
        let is_gauge = hint == CounterReset::Gauge;
        if encoder.is_stale() || encoder.is_gauge() != is_gauge {
            return Place::New(unproven);
        }
        let fits = !open.is_full() && encoder.has_layout_of(sample);
        if is_gauge || hint == CounterReset::Reset {
            return match fits && is_gauge {
                true => Place::Open,
                false => Place::New(hint),
            };
        }
        match encoder.course(sample) {
            Course::On if fits => Place::Open,
            Course::On => Place::New(CounterReset::NotReset),
            Course::Reset => Place::New(CounterReset::Reset),
            Course::Unknown => Place::New(CounterReset::Unknown),
        }
    }

    fn cut(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let (encoding, data) = match open.encoder {
            Encoder::Floats(encoder) => (Encoding::Xor, encoder.finish()),
            Encoder::Histograms(encoder) => encoder.finish(),
        };
        self.chunks.push(EncodedChunk {
            min_ms: open.min_ms,
            max_ms: open.max_ms,
            encoding,
            data,
        });
    }
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Open {
    fn new(t_ms: i64, encoder: Encoder) -> Self {
        Self {
            min_ms: t_ms,
            max_ms: t_ms,
            samples: 1,
            encoder,
        }
    }

    fn is_full(&self) -> bool {
        self.samples >= CHUNK_SAMPLES_MAX
    }

    fn count(&mut self, t_ms: i64) {
        self.max_ms = t_ms;
        self.samples = self.samples.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
