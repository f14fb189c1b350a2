//! Chunks: how the index refers to them, how their samples are encoded, and the segment files
//! that hold them.

mod access;
mod bits;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod histogram;
mod histogram_encoder;
mod samples;
mod segment;
mod start_times;
mod writer;
mod xor;
mod xor2;

use std::fmt;

pub use access::{ChunkBytes, check_chunk, check_segment_header, chunk_at};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::{fuzz_chunk_writer, fuzz_histogram, fuzz_transcode, fuzz_xor, fuzz_xor2};
pub use histogram::{CounterReset, HistogramCounts, HistogramLayout, HistogramSample, Span};
pub use samples::{FloatSample, Sample, Samples, transcode};
pub use writer::{CHUNK_SAMPLES_MAX, ChunkWriter, EncodedChunk};
pub use xor::XorEncoder;

pub use segment::{
    CHUNK_DATA_BYTES_MAX, ChunkStart, SEGMENT_HEADER_BYTES, SegmentSummary, SegmentVerifier,
};

/// Where a chunk stands: the position of its segment file in name order (upper 32 bits, from 0) and
/// the byte offset of its length field in that file (lower 32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRef(pub u64);

/// How the samples of a chunk are encoded (`contract/tsdb.md` §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Float samples, Gorilla.
    Xor,
    /// Native histograms with integer counts.
    Histogram,
    /// Native histograms with float counts.
    FloatHistogram,
    /// Float samples with start timestamps.
    Xor2,
    /// [`Encoding::Histogram`] with start timestamps.
    HistogramSt,
    /// [`Encoding::FloatHistogram`] with start timestamps.
    FloatHistogramSt,
}

impl ChunkRef {
    /// The reference to the chunk at `offset` of the segment at position `segment`.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// Position of the segment file in name order, from 0 (`chunks/000001` is 0).
    pub const fn segment(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Offset of the chunk's length field in its segment file, in bytes.
    pub const fn offset(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Display for ChunkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment(), self.offset())
    }
}

impl Encoding {
    /// The encoding with this id; `None` where it is unknown (0, which is "none", included).
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Xor),
            2 => Some(Self::Histogram),
            3 => Some(Self::FloatHistogram),
            4 => Some(Self::Xor2),
            5 => Some(Self::HistogramSt),
            6 => Some(Self::FloatHistogramSt),
            _ => None,
        }
    }

    /// The id that stands before the chunk's data.
    pub const fn id(self) -> u8 {
        match self {
            Self::Xor => 1,
            Self::Histogram => 2,
            Self::FloatHistogram => 3,
            Self::Xor2 => 4,
            Self::HistogramSt => 5,
            Self::FloatHistogramSt => 6,
        }
    }

    /// Whether the samples are native histograms rather than floats.
    pub const fn is_histogram(self) -> bool {
        !matches!(self, Self::Xor | Self::Xor2)
    }

    /// Bytes of data before the sample stream: a count, for most also a byte of flags.
    const fn data_header_bytes(self) -> u64 {
        match self {
            Self::Xor => 2,
            _ => 3,
        }
    }

    /// The number of samples, from the first two bytes of the data.
    const fn samples(self, first_two: [u8; 2]) -> u32 {
        /// The *_ST histograms keep the counter-reset hint in the two bits above.
        const COUNT_BITS_ST: u16 = 0x3fff;
        let count = u16::from_be_bytes(first_two);
        match self {
            Self::HistogramSt | Self::FloatHistogramSt => (count & COUNT_BITS_ST) as u32,
            _ => count as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_segment_and_offset() {
        let reference = ChunkRef::new(3, 0xffff_fff8);
        assert_eq!(reference, ChunkRef(0x0000_0003_ffff_fff8));
        assert_eq!((reference.segment(), reference.offset()), (3, 0xffff_fff8));
        assert_eq!(reference.to_string(), "segment 3 offset 4294967288");
    }

    #[test]
    fn ids_go_both_ways() {
        for id in 0..=u8::MAX {
            match Encoding::from_id(id) {
                Some(encoding) => assert_eq!(encoding.id(), id),
                None => assert!(id == 0 || id > 6, "{id}"),
            }
        }
    }

    #[test]
    fn histograms_with_start_times_count_in_fourteen_bits() {
        assert_eq!(Encoding::Histogram.samples([0xc0, 0x07]), 0xc007);
        assert_eq!(Encoding::HistogramSt.samples([0xc0, 0x07]), 7);
        assert!(Encoding::HistogramSt.is_histogram() && !Encoding::Xor2.is_histogram());
    }
}
