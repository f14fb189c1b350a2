//! The directories and files of blocks: which there are, and what can be looked up in them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::disk::{Containment, Dir, DiskError, EntryKind, MappedFile};
use crate::model::BlockId;
use crate::tsdb::{
    BlockMeta, ChunkBytes, ChunkRef, DecodeError, Encoding, IndexLayout, IndexView, Tombstones,
    check_chunk, check_segment_header, chunk_at,
};

/// The longest `meta.json` that is read. One with a thousand parents has 100 KiB.
const META_BYTES_MAX: u64 = 16 << 20;
/// The longest tombstones file that is read: more than its reader takes entries.
const TOMBSTONES_BYTES_MAX: u64 = 256 << 20;

/// The directory of a block.
#[derive(Clone, Debug)]
pub(super) struct BlockDir {
    pub(super) dir: Dir,
    pub(super) path: PathBuf,
}

/// What a path leads to.
pub(super) enum Named {
    Block(BlockDir),
    /// The blocks in it, by ULID; those that vanished meanwhile are left out.
    Directory(Vec<BlockDir>),
}

/// A block whose index is open, and whose chunks can be read.
pub(super) struct OpenBlock {
    pub(super) meta: BlockMeta,
    pub(super) tombstones: Tombstones,
    index: MappedFile,
    layout: IndexLayout,
    segments: Vec<MappedFile>,
}

/// A chunk of a block, its checksum proven.
pub(super) struct FoundChunk<'a> {
    pub(super) encoding: Encoding,
    pub(super) data: &'a [u8],
    segment: &'a MappedFile,
    /// Where the data begins in the segment.
    data_offset: u64,
}

/// What a path leads to: a directory with `meta.json` in it is a block.
pub(super) fn named(path: &Path) -> anyhow::Result<Named> {
    let dir = Dir::open_blocking(path, Containment::Unconfined)?;
    let entries = dir.list_blocking("")?;
    let name = path.file_name().and_then(OsStr::to_str);
    let has_block_name = name.is_some_and(|name| BlockId::from_file_name(name).is_some());
    if has_block_name || entries.iter().any(|entry| entry.name == "meta.json") {
        let path = path.to_owned();
        return Ok(Named::Block(BlockDir { dir, path }));
    }
    let mut blocks = Vec::new();
    for entry in entries {
        let id = entry.name.to_str().and_then(BlockId::from_file_name);
        if id.is_none() || entry.kind != EntryKind::Directory {
            continue;
        }
        match dir.subdir_blocking(&entry.name) {
            Ok(dir) => blocks.push(BlockDir {
                dir,
                path: path.join(&entry.name),
            }),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Named::Directory(blocks))
}

/// The one block that the path leads to.
pub(super) fn one_block(path: &Path) -> anyhow::Result<BlockDir> {
    match named(path)? {
        Named::Block(block) => Ok(block),
        Named::Directory(blocks) => anyhow::bail!(
            "{} is no block, but a directory with {} blocks: name one of them",
            path.display(),
            blocks.len()
        ),
    }
}

/// The names of chunk segments in order: numbers (contract `tsdb.md` §4).
pub(super) fn segment_names(dir: &Dir) -> Result<Vec<PathBuf>, DiskError> {
    let entries = dir.list_blocking("chunks")?;
    let names = entries.into_iter().map(|entry| entry.name);
    let numbers = names.filter(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    Ok(numbers.map(|name| Path::new("chunks").join(name)).collect())
}

// === impl BlockDir ===

impl BlockDir {
    /// The name of its directory.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Its `meta.json`, which must be of the block that the directory is named by, if it is.
    pub(super) fn meta(&self) -> anyhow::Result<BlockMeta> {
        let (bytes, _) = self.dir.read_small_blocking("meta.json", META_BYTES_MAX)?;
        let path = || self.path.join("meta.json").display().to_string();
        let meta = BlockMeta::parse(&bytes).with_context(path)?;
        let named = self.path.file_name().and_then(OsStr::to_str);
        let named = named.and_then(BlockId::from_file_name);
        anyhow::ensure!(
            named.is_none_or(|named| named == meta.ulid),
            "{} says it belongs to block {}",
            path(),
            meta.ulid
        );
        Ok(meta)
    }

    /// Whether it was deleted meanwhile, as Prometheus does with blocks at any time.
    pub(super) fn is_gone(&self) -> bool {
        match self.dir.is_in_place_blocking() {
            Ok(is_in_place) => !is_in_place,
            Err(error) => error.is_not_found(),
        }
    }

    /// What has been deleted; nothing where there is no file of it.
    pub(super) fn tombstones(&self) -> anyhow::Result<Tombstones> {
        let read = self
            .dir
            .read_small_blocking("tombstones", TOMBSTONES_BYTES_MAX);
        let bytes = match read {
            Err(error) if error.is_not_found() => return Ok(Tombstones::default()),
            read => read?.0,
        };
        let path = || self.path.join("tombstones").display().to_string();
        Tombstones::parse(&bytes).with_context(path)
    }

    /// Sizes of the index, of all segments, and of the small files.
    pub(super) fn sizes_bytes(&self) -> Result<[u64; 3], DiskError> {
        let size = |path: &Path| match self.dir.stamp_blocking(path) {
            Err(error) if error.is_not_found() => Ok(0),
            stamp => Ok(stamp?.identity.size_bytes),
        };
        let mut segments = 0;
        for name in segment_names(&self.dir)? {
            segments += size(&name)?;
        }
        let small = size(Path::new("meta.json"))? + size(Path::new("tombstones"))?;
        Ok([size(Path::new("index"))?, segments, small])
    }

    /// Opens index and chunks to look things up in.
    pub(super) fn open(&self) -> anyhow::Result<OpenBlock> {
        let meta = self.meta()?;
        let tombstones = self.tombstones()?;
        let index = self.dir.map_blocking("index")?;
        let layout = IndexLayout::read(index.bytes()).map_err(|error| fault(&index, error))?;
        let mut segments = Vec::new();
        for name in segment_names(&self.dir)? {
            let segment = self.dir.map_blocking(name)?;
            check_segment_header(segment.bytes()).map_err(|error| fault(&segment, error))?;
            segments.push(segment);
        }
        Ok(OpenBlock {
            meta,
            tombstones,
            index,
            layout,
            segments,
        })
    }
}

/// What is wrong with a file. Where it was cut short, that is, rather than what came of it.
fn fault(file: &MappedFile, error: DecodeError) -> anyhow::Error {
    match file.check() {
        Ok(()) => anyhow::Error::new(error).context(file.path().display().to_string()),
        Err(cut) => cut.into(),
    }
}

// === impl OpenBlock ===

impl OpenBlock {
    pub(super) fn view(&self) -> IndexView<'_> {
        self.layout.view(self.index.bytes())
    }

    /// The index' size.
    pub(super) fn index_bytes(&self) -> &[u8] {
        self.index.bytes()
    }

    /// What is wrong with the index.
    pub(super) fn index_fault(&self, error: DecodeError) -> anyhow::Error {
        fault(&self.index, error)
    }

    /// The chunk, its checksum proven.
    pub(super) fn chunk(&self, reference: ChunkRef) -> anyhow::Result<FoundChunk<'_>> {
        let position = usize::try_from(reference.segment());
        let segment = position.ok().and_then(|at| self.segments.get(at));
        let segment = segment.with_context(|| {
            format!(
                "{} refers to chunk segment number {}, but there are only {}",
                self.index.path().display(),
                u64::from(reference.segment()) + 1,
                self.segments.len()
            )
        })?;
        let offset = reference.offset();
        let failed = |error| fault(segment, error);
        let ChunkBytes {
            encoding,
            data,
            stored_crc,
        } = chunk_at(segment.bytes(), offset).map_err(failed)?;
        check_chunk(encoding, data, stored_crc, offset).map_err(failed)?;
        let before = data.as_ptr().addr() - segment.bytes().as_ptr().addr();
        Ok(FoundChunk {
            encoding,
            data,
            segment,
            data_offset: before as u64,
        })
    }

    /// Whether all that was read so far was the files'.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        self.index.check()?;
        self.segments.iter().try_for_each(MappedFile::check)
    }
}

// === impl FoundChunk ===

impl FoundChunk<'_> {
    /// What is wrong with its samples; the error's offset is one in its data.
    pub(super) fn fault(&self, mut error: DecodeError) -> anyhow::Error {
        error.offset += self.data_offset;
        fault(self.segment, error)
    }

    /// Something else that is wrong with its samples.
    pub(super) fn wrong(&self, what: String) -> anyhow::Error {
        let place = format!(
            "{}: chunk data at offset {}",
            self.segment.path().display(),
            self.data_offset
        );
        anyhow::anyhow!(what).context(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_renamed_away_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("01ARZ3NDEKTSV4RRFFQ69G5FAV");
        std::fs::create_dir(&path).unwrap();
        let Named::Directory(blocks) = named(data.path()).unwrap() else {
            panic!("no block");
        };
        let [block] = blocks.as_slice() else {
            panic!("one block");
        };
        assert!(!block.is_gone());
        std::fs::rename(&path, path.with_extension("tmp-for-deletion")).unwrap();
        assert!(block.is_gone());
        std::fs::create_dir(&path).unwrap();
        assert!(block.is_gone(), "another one has its name");
        // By its name it is a block, whatever is in it.
        let named = one_block(&path).unwrap();
        assert!(named.meta().unwrap_err().to_string().contains("meta.json"));
    }
}
