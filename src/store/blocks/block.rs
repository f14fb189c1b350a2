//! A block of the data directory, open for reading: its index and chunk segments, mapped.
//!
//! A block is opened once and shared by the calls that read it; what it keeps on the heap is the
//! sampled index ([`IndexLayout`]). Whoever reads the maps does so on a blocking thread, and calls
//! [`Block::check`] before what was read leaves the process: a file that shrank under its map reads
//! as zeros. A block that turned out to be damaged is *condemned*, which sends later calls to
//! Prometheus.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::disk::{Dir, DiskError, EntryKind, MappedFile};
use crate::model::{BlockId, ErrorChain, TimeRange};
use crate::store::StoreError;
use crate::tsdb::{
    BlockMeta, ChunkBytes, ChunkRef, DecodeError, IndexLayout, IndexView, check_segment_header,
    chunk_at,
};

const INDEX: &str = "index";
const CHUNKS: &str = "chunks";

/// A block that is open.
#[derive(Debug)]
pub struct Block {
    id: BlockId,
    range: TimeRange,
    index: MappedFile,
    layout: IndexLayout,
    /// By position in name order, which is how the index refers to them.
    segments: Vec<Segment>,
    condemned: OnceLock<String>,
}

#[derive(Debug)]
struct Segment {
    name: PathBuf,
    map: MappedFile,
}

/// Why a block can't be read.
#[derive(Debug, thiserror::Error)]
#[error("block {id}, {}", file.display())]
pub struct BlockError {
    /// The block.
    pub id: BlockId,
    /// The file, relative to the block's directory.
    pub file: PathBuf,
    /// What is wrong with it.
    pub source: BlockFault,
}

/// What is wrong with a file of a block.
#[derive(Debug, thiserror::Error)]
pub enum BlockFault {
    /// It can't be opened, or was cut short while open.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its bytes are not what the format says.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The index refers to a segment file that is not there.
    #[error("no segment file at position {position}, there are {segments}")]
    NoSegment {
        /// From 0, in name order.
        position: u32,
        /// How many there are.
        segments: usize,
    },
}

impl Block {
    /// Maps the files below `dir`, the block's directory, and reads the index' layout. Blocks.
    ///
    /// # Errors
    /// Where a file can't be mapped or the index is damaged.
    pub fn open(dir: &Dir, meta: &BlockMeta) -> Result<Self, BlockError> {
        let id = meta.ulid;
        let at = |file: &Path| {
            let file = file.to_owned();
            move |source| BlockError { id, file, source }
        };
        let index_name = Path::new(INDEX);
        let index = dir.map_blocking(index_name).map_err(BlockFault::from);
        let index = index.map_err(at(index_name))?;
        let layout = IndexLayout::read(index.bytes()).map_err(BlockFault::from);
        let layout = layout.map_err(at(index_name))?;
        index.advise_random();
        let chunks = Path::new(CHUNKS);
        let entries = dir.list_blocking(chunks).map_err(BlockFault::from);
        let entries = entries.map_err(at(chunks))?;
        let numbered = entries.into_iter().filter(|entry| {
            let name = entry.name.as_encoded_bytes();
            entry.kind == EntryKind::File && name.iter().all(u8::is_ascii_digit)
        });
        let segments = numbered.map(|entry| {
            let name = chunks.join(entry.name);
            let map = dir.map_blocking(&name).map_err(BlockFault::from);
            let map = map.map_err(at(&name))?;
            let header = check_segment_header(map.bytes()).map_err(BlockFault::from);
            header.map_err(at(&name))?;
            map.advise_random();
            Ok(Segment { name, map })
        });
        let segments = segments.collect::<Result<_, BlockError>>()?;
        let block = Self {
            id,
            range: meta.range(),
            index,
            layout,
            segments,
            condemned: OnceLock::new(),
        };
        block.check()?;
        Ok(block)
    }

    /// Its identity.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// What it covers.
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// How many files it maps.
    pub fn maps(&self) -> usize {
        1 + self.segments.len()
    }

    /// The index, for the length of one look at it.
    pub fn index(&self) -> IndexView<'_> {
        self.layout.view(self.index.bytes())
    }

    /// The chunk at a reference; its checksum is not looked at.
    ///
    /// # Errors
    /// Where no chunk can be there.
    pub(super) fn chunk(&self, reference: ChunkRef) -> Result<ChunkBytes<'_>, BlockError> {
        let segment = self.segment(reference)?;
        chunk_at(segment.map.bytes(), reference.offset())
            .map_err(|error| self.chunk_error(reference, error))
    }

    /// The error for what is wrong with the chunk at a reference.
    pub(super) fn chunk_error(&self, reference: ChunkRef, error: DecodeError) -> BlockError {
        let segment = self.segment(reference);
        let file = segment.map_or_else(|_| CHUNKS.into(), |segment| segment.name.clone());
        self.error(file, error.into())
    }

    /// The error for what is wrong with the index.
    pub(super) fn index_error(&self, error: DecodeError) -> BlockError {
        self.error(INDEX.into(), error.into())
    }

    /// Asks the kernel to bring this part of a segment into memory.
    pub(super) fn will_need(&self, segment: u32, range: std::ops::Range<usize>) {
        let position = usize::try_from(segment).unwrap_or(usize::MAX);
        if let Some(segment) = self.segments.get(position) {
            segment.map.will_need(range);
        }
    }

    /// Asks the kernel to bring this part of the index into memory.
    pub(super) fn will_need_index(&self, range: std::ops::Range<usize>) {
        self.index.will_need(range);
    }

    /// Whether all that was read from the maps so far was there.
    ///
    /// # Errors
    /// Where a file was cut short meanwhile.
    pub fn check(&self) -> Result<(), BlockError> {
        let intact = self.index.check();
        intact.map_err(|error| self.error(INDEX.into(), error.into()))?;
        for segment in &self.segments {
            let intact = segment.map.check();
            intact.map_err(|error| self.error(segment.name.clone(), error.into()))?;
        }
        Ok(())
    }

    /// Notes that the block is damaged; the first reason stays.
    fn condemn(&self, why: &BlockError) {
        let reason = ErrorChain(why).to_string();
        if self.condemned.set(reason).is_ok() {
            tracing::warn!(
                block = %self.id, err = %ErrorChain(why),
                "a local block is damaged, Prometheus answers for its time from now on"
            );
        }
    }

    /// Why the block may not be read any more.
    pub fn condemned(&self) -> Option<&str> {
        self.condemned.get().map(String::as_str)
    }

    /// Bytes that it keeps on the heap.
    pub fn memory_bytes(&self) -> usize {
        let names = self
            .segments
            .iter()
            .map(|segment| segment.name.as_os_str().len() + size_of::<Segment>());
        size_of::<Self>() + self.layout.memory_bytes() + names.sum::<usize>()
    }

    fn segment(&self, reference: ChunkRef) -> Result<&Segment, BlockError> {
        let position = reference.segment();
        let segment = usize::try_from(position)
            .ok()
            .and_then(|at| self.segments.get(at));
        segment.ok_or_else(|| {
            let segments = self.segments.len();
            self.error(CHUNKS.into(), BlockFault::NoSegment { position, segments })
        })
    }

    fn error(&self, file: PathBuf, source: BlockFault) -> BlockError {
        BlockError {
            id: self.id,
            file,
            source,
        }
    }
}

/// What was read from `blocks`, if all of it was there. Damage is noted for the block.
///
/// # Errors
/// That of reading, or a file that was cut short meanwhile.
pub(super) fn proven<T>(
    blocks: &[Arc<Block>],
    read: Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Zeros in the place of what was cut off look like any damage, so this goes first.
    let intact = blocks.iter().try_for_each(|block| block.check());
    let proven = intact.map_err(StoreError::from).and(read);
    if let Err(StoreError::Block(error)) = &proven {
        let damaged = blocks.iter().filter(|block| block.id() == error.id);
        damaged.for_each(|block| block.condemn(error));
    }
    proven
}
