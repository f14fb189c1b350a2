//! A writer of TSDB blocks, for tests, benches, fuzz seeds and the perf harness.
//!
//! Written from `contract/tsdb.md` alone, so that the decoders are tested against something that
//! does not share their code. Its blocks are read by promtool. Chunks go to the sink as they come;
//! what stays in memory is about the size of the index, so multi-GiB blocks can be written.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test support: a wrong input may panic, nothing here reads foreign bytes"
)]

mod chunk;
mod index;
mod walk;

use std::collections::BTreeMap;

pub use chunk::Chunk;
use index::IndexWriter;
pub use index::index_of_bodies;
pub use walk::{BlockFault, verify_block, verify_index};

use super::checksum::crc32c;
use super::{BlockMeta, BlockStats, ChunkRef, Compaction, Encoding, META_VERSION};
use crate::model::{BlockId, TimeRange};

/// One series of a block to be written.
#[derive(Clone, Debug)]
pub struct Series {
    /// Label names and values, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Its chunks in time order.
    pub chunks: Vec<Chunk>,
}

/// How a block is laid out.
#[derive(Clone, Copy, Debug)]
pub struct BlockLayout {
    /// Version of the index: 1, 2 or 3.
    pub index_version: u8,
    /// Whether to write the label index sections that older writers left.
    pub label_indices: bool,
    /// Where a segment file is cut, bytes.
    pub segment_bytes_max: u64,
    /// Whether the chunks of every second series are written after those of the next one, so that
    /// references are out of order in the index.
    pub swap_references: bool,
}

impl Default for BlockLayout {
    /// What Prometheus writes today.
    fn default() -> Self {
        Self {
            index_version: 2,
            label_indices: false,
            segment_bytes_max: 512 << 20,
            swap_references: false,
        }
    }
}

/// A file of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockFile {
    /// A segment file, by its position in name order, from 0.
    Segment(u32),
    /// `index`
    Index,
    /// `meta.json`
    Meta,
}

impl BlockFile {
    /// Its path inside the block.
    pub fn path(self) -> String {
        match self {
            Self::Segment(segment) => format!("chunks/{:06}", segment + 1),
            Self::Index => "index".to_owned(),
            Self::Meta => "meta.json".to_owned(),
        }
    }
}

/// Writes one block, handing the bytes of its files to a sink: segment by segment, then the index,
/// then `meta.json`.
#[derive(Debug)]
pub struct BlockWriter<S> {
    layout: BlockLayout,
    meta: BlockMeta,
    sink: S,
    index: IndexWriter,
    segment: u32,
    segment_bytes: u64,
    held_back: Option<Series>,
}

impl<S: FnMut(BlockFile, &[u8])> BlockWriter<S> {
    /// Begins a block of this identity and half-open range.
    pub fn new(layout: BlockLayout, ulid: BlockId, range: TimeRange, sink: S) -> Self {
        let compaction = Compaction {
            level: 1,
            sources: vec![ulid],
            ..Compaction::default()
        };
        let meta = BlockMeta {
            ulid,
            min_time: range.mint,
            max_time: range.maxt,
            stats: BlockStats::default(),
            compaction,
            version: META_VERSION,
            thanos: None,
            unknown: Default::default(),
        };
        Self {
            layout,
            meta,
            sink,
            index: IndexWriter::default(),
            segment: 0,
            segment_bytes: 0,
            held_back: None,
        }
    }

    /// Writes the next series. Series come in label order.
    pub fn add(&mut self, series: Series) {
        if !self.layout.swap_references {
            let chunks = self.write_chunks(&series);
            self.index.add(&series.labels, &chunks);
            return;
        }
        let Some(first) = self.held_back.take() else {
            self.held_back = Some(series);
            return;
        };
        let second_chunks = self.write_chunks(&series);
        let first_chunks = self.write_chunks(&first);
        self.index.add(&first.labels, &first_chunks);
        self.index.add(&series.labels, &second_chunks);
    }

    /// Writes index and `meta.json`.
    pub fn finish(mut self) -> BlockMeta {
        if let Some(series) = self.held_back.take() {
            let chunks = self.write_chunks(&series);
            self.index.add(&series.labels, &chunks);
        }
        let index = self.index.finish(self.layout);
        (self.sink)(BlockFile::Index, &index);
        (self.sink)(BlockFile::Meta, &self.meta.to_json());
        self.meta
    }

    fn write_chunks(&mut self, series: &Series) -> Vec<(i64, i64, ChunkRef)> {
        let stats = &mut self.meta.stats;
        stats.num_series += 1;
        stats.num_chunks += series.chunks.len() as u64;
        for chunk in &series.chunks {
            let samples = u64::from(chunk.samples);
            stats.num_samples += samples;
            if chunk.encoding.is_histogram() {
                stats.num_histogram_samples += samples;
            } else {
                stats.num_float_samples += samples;
            }
        }
        let written = series.chunks.iter().map(|chunk| {
            let reference = self.write_chunk(chunk.encoding, &chunk.data);
            (chunk.mint, chunk.maxt, reference)
        });
        written.collect()
    }

    fn write_chunk(&mut self, encoding: Encoding, data: &[u8]) -> ChunkRef {
        let bytes = chunk_bytes(encoding.id(), data);
        let full = self.segment_bytes + bytes.len() as u64 > self.layout.segment_bytes_max;
        if self.segment_bytes > 8 && full {
            self.segment += 1;
            self.segment_bytes = 0;
        }
        if self.segment_bytes == 0 {
            (self.sink)(BlockFile::Segment(self.segment), &SEGMENT_HEADER);
            self.segment_bytes = SEGMENT_HEADER.len() as u64;
        }
        let offset = u32::try_from(self.segment_bytes).expect("a segment is below 4 GiB");
        (self.sink)(BlockFile::Segment(self.segment), &bytes);
        self.segment_bytes += bytes.len() as u64;
        ChunkRef::new(self.segment, offset)
    }
}

/// A block in memory.
#[derive(Clone, Debug)]
pub struct MemoryBlock {
    /// Its `meta.json`.
    pub meta: BlockMeta,
    /// Its files by position.
    pub files: BTreeMap<BlockFile, Vec<u8>>,
}

impl MemoryBlock {
    /// Writes the series, which come in label order, into a block.
    pub fn write(
        layout: BlockLayout,
        ulid: BlockId,
        range: TimeRange,
        series: impl IntoIterator<Item = Series>,
    ) -> Self {
        let mut files = BTreeMap::<BlockFile, Vec<u8>>::new();
        let mut writer = BlockWriter::new(layout, ulid, range, |file, bytes: &[u8]| {
            files.entry(file).or_default().extend_from_slice(bytes);
        });
        for series in series {
            writer.add(series);
        }
        let meta = writer.finish();
        Self { meta, files }
    }

    /// The bytes of the index.
    pub fn index(&self) -> &[u8] {
        &self.files[&BlockFile::Index]
    }

    /// The bytes of the segment files in name order.
    pub fn segments(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.files.iter().filter_map(|(file, bytes)| match file {
            BlockFile::Segment(segment) => Some((*segment, bytes.as_slice())),
            _ => None,
        })
    }
}

/// The header of a segment file.
pub const SEGMENT_HEADER: [u8; 8] = [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];

/// One chunk as it stands in a segment file.
pub fn chunk_bytes(encoding: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + 10);
    put_uvarint(&mut bytes, data.len() as u64);
    let body = bytes.len();
    bytes.push(encoding);
    bytes.extend_from_slice(data);
    let crc = crc32c(&bytes[body..]);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// Cuts `bytes` into runs of these lengths, over and over, as a reader might give them. Without
/// bytes there is one empty run; no length may be zero.
pub fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    assert!(lengths.iter().all(|length| *length > 0), "endless");
    let mut runs = Vec::new();
    let mut rest = bytes;
    for length in lengths.iter().cycle() {
        let (run, tail) = rest.split_at((*length).min(rest.len()));
        runs.push(run);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    runs
}

/// Appends an unsigned variable-length integer.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zig-zag variable-length integer.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}
