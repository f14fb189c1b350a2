//! One series of an answer, in buffers that the next one uses again.

use bytes::Bytes;

use super::frame::FrameErrorKind;
use super::wire::{Fields, Value};
use crate::prometheus::LabelsText;

/// A series, or the part of it that one frame holds.
///
/// Label text is copied once, see [`LabelsText`]. Chunk data are views of the receive buffer: a
/// series that is kept keeps up to two such buffers (256 KiB).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteSeries {
    /// As sent, which is in the order of names.
    labels: LabelsText,
    /// Of a streamed answer, in the order of time.
    pub chunks: Vec<RemoteChunk>,
    /// Of an answer in samples, in the order of time.
    pub samples: Vec<FloatSample>,
    /// How many histograms an answer in samples had for this series; they are not decoded.
    pub histograms: u64,
}

/// A chunk as Prometheus encoded it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteChunk {
    /// First sample, ms since the epoch.
    pub min_ms: i64,
    /// Last sample, ms since the epoch.
    pub max_ms: i64,
    /// The id as sent: that of the TSDB for those known, 0 for none.
    pub encoding: i32,
    /// The encoded samples, a view of the receive buffer.
    pub data: Bytes,
}

/// A float at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatSample {
    /// Ms since the epoch.
    pub t_ms: i64,
    /// May be any NaN, the stale marker included: compare bits.
    pub value: f64,
}

// === impl RemoteSeries ===

impl RemoteSeries {
    /// Names and values as sent, which is in the order of names.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.labels.iter()
    }

    /// Bytes of all names and values.
    pub fn label_bytes(&self) -> usize {
        self.labels.text_bytes()
    }

    /// Forgets the content, lets go of receive buffers and keeps its own.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.chunks.clear();
        self.samples.clear();
        self.histograms = 0;
    }

    /// Reads a `ChunkedSeries`, which is a view of `frame`, in place of the content.
    pub(super) fn read_chunked(
        &mut self,
        frame: &Bytes,
        message: &[u8],
    ) -> Result<(), FrameErrorKind> {
        self.clear();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => self.read_label(value.bytes()?)?,
                2 => self.chunks.push(chunk(frame, value.bytes()?)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a `TimeSeries` in place of the content.
    pub(super) fn read_sampled(&mut self, message: &[u8]) -> Result<(), FrameErrorKind> {
        self.clear();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => self.read_label(value.bytes()?)?,
                2 => self.samples.push(sample(value.bytes()?)?),
                4 => {
                    value.bytes()?;
                    self.histograms = self.histograms.saturating_add(1);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_label(&mut self, message: &[u8]) -> Result<(), FrameErrorKind> {
        let (name, value) = label(message)?;
        self.labels.push(name, value);
        Ok(())
    }
}

/// Name and value of a `Label`; what stands twice counts as it stands last.
pub(super) fn label(message: &[u8]) -> Result<(&str, &str), FrameErrorKind> {
    let (mut name, mut text) = ("", "");
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value.text()?,
            2 => text = value.text()?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn chunk(frame: &Bytes, message: &[u8]) -> Result<RemoteChunk, FrameErrorKind> {
    let mut chunk = RemoteChunk::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => chunk.min_ms = value.int64()?,
            2 => chunk.max_ms = value.int64()?,
            3 => chunk.encoding = encoding(value)?,
            // `message` is part of `frame`.
            4 => chunk.data = frame.slice_ref(value.bytes()?),
            _ => {}
        }
    }
    Ok(chunk)
}

/// An id that no encoding has, too large ones included, is for the one who decodes chunks.
fn encoding(value: Value<'_>) -> Result<i32, FrameErrorKind> {
    Ok(i32::try_from(value.int64()?).unwrap_or(i32::MAX))
}

fn sample(message: &[u8]) -> Result<FloatSample, FrameErrorKind> {
    let mut sample = FloatSample {
        t_ms: 0,
        value: 0.0,
    };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => sample.value = value.double()?,
            2 => sample.t_ms = value.int64()?,
            _ => {}
        }
    }
    Ok(sample)
}
