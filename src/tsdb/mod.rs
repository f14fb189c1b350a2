//! The files of a Prometheus TSDB block: bytes in, values out.
//!
//! Pure: no IO, no async, no clock, no environment. There are two ways to read a block:
//! - Files are verified while they stream past ([`IndexVerifier`], [`SegmentVerifier`]) in runs of
//!   any size and with memory that depends on neither file size nor the number of series.
//! - Where all bytes of a file are at hand, it is read at random: an [`IndexLayout`] holds sampled
//!   offsets and lends an [`IndexView`]; [`Postings`] are sets of series, a [`SeriesReader`] has
//!   their labels and chunks, [`chunk_at`] finds a chunk. What lasts longer than a call holds
//!   offsets, never bytes, and what is read is checked when it is read.
//!
//! Every limit that this needs is a named constant. Offsets in errors are absolute in the file. The
//! format is that of `contract/tsdb.md`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod checksum;
mod chunk;
mod cursor;
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
    CHUNK_DATA_BYTES_MAX, CHUNK_SAMPLES_MAX, ChunkBytes, ChunkRef, ChunkStart, ChunkWriter,
    CounterReset, EncodedChunk, Encoding, FloatSample, HistogramCounts, HistogramLayout,
    HistogramSample, SEGMENT_HEADER_BYTES, Sample, Samples, SegmentSummary, SegmentVerifier, Span,
    XorEncoder, check_chunk, check_segment_header, chunk_at, transcode,
};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use chunk::{fuzz_chunk_writer, fuzz_histogram, fuzz_transcode, fuzz_xor, fuzz_xor2};
pub use decode::{DecodeError, DecodeErrorKind, Section};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::{fuzz_chunk_access, fuzz_index, fuzz_meta, fuzz_segment, fuzz_tombstones};
pub use index::{
    ChunkMeta, INDEX_TOC_BYTES, IndexLayout, IndexSummary, IndexToc, IndexVerifier, IndexView,
    Postings, PostingsRef, PostingsUnion, SEGMENTS_MAX, SERIES_CHUNKS_MAX, SERIES_LABELS_MAX,
    SYMBOL_BYTES_MAX, SegmentRefs, SeriesChunks, SeriesReader, Values,
};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use index::{fuzz_postings, fuzz_series_entry, fuzz_view};
pub use meta::{
    BlockMeta, BlockStats, Compaction, Downsample, FileHash, IndexStats, META_VERSION, MetaError,
    ParentBlock, RawJson, ThanosFile, ThanosMeta, UnknownKeys,
};
pub use tombstones::{TOMBSTONES_MAX, Tombstones, check_tombstones};
pub use verify::{BlockTotals, RefMatch, SegmentMatch, TotalsError};

#[cfg(test)]
mod tests;
