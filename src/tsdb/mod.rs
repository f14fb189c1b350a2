//! The files of a Prometheus TSDB block: bytes in, values out.
//!
//! Pure: no IO, no async, no clock, no environment. Files are verified while they stream past
//! ([`IndexVerifier`], [`SegmentVerifier`]) in runs of any size and with memory that depends on
//! neither file size nor the number of series; every limit that this needs is a named constant.
//! Offsets in errors are absolute in the file. The format is that of `contract/tsdb.md`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod checksum;
mod chunk;
mod decode;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod index;
mod meta;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub mod testing;
mod tombstones;
mod verify;

pub use chunk::{
    CHUNK_DATA_BYTES_MAX, ChunkRef, ChunkStart, CounterReset, Encoding, FloatSample,
    HistogramCounts, HistogramLayout, HistogramSample, SEGMENT_HEADER_BYTES, Sample, Samples,
    SegmentSummary, SegmentVerifier, Span, XorEncoder, transcode,
};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use chunk::{fuzz_histogram, fuzz_transcode, fuzz_xor, fuzz_xor2};
pub use decode::{DecodeError, DecodeErrorKind, Section};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::{fuzz_index, fuzz_meta, fuzz_segment, fuzz_tombstones};
pub use index::{
    INDEX_TOC_BYTES, IndexSummary, IndexToc, IndexVerifier, SEGMENTS_MAX, SERIES_LABELS_MAX,
    SYMBOL_BYTES_MAX, SegmentRefs, SeriesChunks,
};
pub use meta::{
    BlockMeta, BlockStats, Compaction, Downsample, FileHash, IndexStats, META_VERSION, MetaError,
    ParentBlock, RawJson, ThanosFile, ThanosMeta, UnknownKeys,
};
pub use tombstones::check_tombstones;
pub use verify::{BlockTotals, RefMatch, SegmentMatch, TotalsError};

#[cfg(test)]
mod tests;
