//! The samples of a chunk, whatever its encoding, and chunks in the encodings that StoreAPI knows.

use super::Encoding;
use super::bits::BitReader;
use super::histogram::{self, HistogramReader, HistogramSample};
use super::xor::{XorEncoder, XorReader};
use super::xor2::Xor2Reader;
use crate::tsdb::decode::{DecodeError, DecodeErrorKind};

/// A float at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FloatSample {
    /// Ms since the epoch.
    pub t_ms: i64,
    /// May be any NaN, the stale marker included: compare bits.
    pub value: f64,
}

/// A sample of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A float.
    Float(FloatSample),
    /// A native histogram.
    Histogram(HistogramSample),
}

impl Sample {
    /// Ms since the epoch.
    pub fn t_ms(&self) -> i64 {
        match self {
            Self::Float(sample) => sample.t_ms,
            Self::Histogram(sample) => sample.t_ms,
        }
    }
}

/// The samples of a chunk, in the order of time; after an error there are no more.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    reader: Reader<'a>,
    is_over: bool,
}

#[derive(Clone, Debug)]
enum Reader<'a> {
    Xor(XorReader<'a>),
    Xor2(Xor2Reader<'a>),
    Histogram(Box<HistogramReader<'a>>),
}

impl<'a> Samples<'a> {
    /// The samples of chunk data, header included.
    ///
    /// # Errors
    /// Where the header is cut short or a histogram's layout is broken. Offsets are those in
    /// `data`.
    pub fn new(encoding: Encoding, data: &'a [u8]) -> Result<Self, DecodeError> {
        let reader = match encoding {
            Encoding::Xor => Reader::Xor(XorReader::new(data)?),
            Encoding::Xor2 => Reader::Xor2(Xor2Reader::new(data)?),
            _ => Reader::Histogram(Box::new(HistogramReader::new(encoding, data)?)),
        };
        Ok(Self {
            reader,
            is_over: false,
        })
    }
}

impl Iterator for Samples<'_> {
    type Item = Result<Sample, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = match &mut self.reader {
            Reader::Xor(reader) => reader.next().map(|next| next.map(Sample::Float)),
            Reader::Xor2(reader) => reader.next().map(|next| next.map(Sample::Float)),
            Reader::Histogram(reader) => reader.next().map(|next| next.map(Sample::Histogram)),
        };
        self.is_over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// The chunk in an encoding that StoreAPI knows: XOR2 becomes XOR, and histograms lose their start
/// times; others stay as they are. All samples are the same, bit by bit.
///
/// # Errors
/// Where the chunk is broken. Offsets are those in `data`.
pub fn transcode(encoding: Encoding, data: &[u8]) -> Result<(Encoding, Vec<u8>), DecodeError> {
    match encoding {
        Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram => {
            Ok((encoding, data.to_vec()))
        }
        Encoding::Xor2 => {
            let mut reader = Xor2Reader::new(data)?;
            let mut encoder = XorEncoder::new();
            while let Some(sample) = reader.next()? {
                // Both headers count to the same number.
                encoder.append(sample.t_ms, sample.value);
            }
            Ok((Encoding::Xor, encoder.finish()))
        }
        Encoding::HistogramSt => {
            let plain = histogram::without_start_times(encoding, data)?;
            Ok((Encoding::Histogram, plain))
        }
        Encoding::FloatHistogramSt => {
            let plain = histogram::without_start_times(encoding, data)?;
            Ok((Encoding::FloatHistogram, plain))
        }
    }
}

/// The number that all chunks begin with.
pub(super) fn first_count(data: &[u8]) -> Result<u16, DecodeError> {
    match data.first_chunk() {
        Some(count) => Ok(u16::from_be_bytes(*count)),
        None => {
            let inside = "a chunk's header";
            let end = BitReader::new(data, data.len());
            Err(end.error(DecodeErrorKind::Truncated { inside }))
        }
    }
}

#[cfg(test)]
mod tests;
