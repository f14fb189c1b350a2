//! Which blocks the data directory holds, kept current cheaply.
//!
//! Names come and go only by renames, which change the directory's own times. So a listing is
//! current as long as these are what they were, but for changes within one tick of a coarse clock:
//! a change of times counts as settled only when a listing began [`SETTLED_AFTER`] it was seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::proof::{BlockOnDisk, BlocksOnDisk};
use crate::disk::{Containment, Dir, DiskError, EntryKind, FileStamp};
use crate::model::BlockId;
use crate::tsdb::{BlockMeta, MetaError};

/// Longer than the tick of any file system's clock: FAT has two seconds, NFS servers often one.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// A block merged from thousands lists them all, in some hundred bytes each.
pub(super) const META_BYTES_MAX: u64 = 64 << 20;

/// The data directory.
#[derive(Debug)]
pub(super) struct Listing {
    path: PathBuf,
    held: Option<Held>,
    /// How many directories were at that path so far.
    pub(super) directories: u64,
    /// The complete blocks.
    pub(super) blocks: BlocksOnDisk,
    /// Why others are not complete.
    pub(super) unreadable: BTreeMap<BlockId, MetaFault>,
    /// The bytes of segments and index, which never change, of blocks that were asked for.
    sizes: BTreeMap<BlockId, u64>,
    /// Grows with each change of the above.
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Held {
    dir: Dir,
    stamp: FileStamp,
    stamp_seen: Instant,
    listed: Instant,
}

/// Why a directory with a ULID's name is no complete block.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetaFault {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("meta.json can't be used")]
    Meta(#[from] MetaError),
    #[error("meta.json is that of block {0}")]
    OtherBlock(BlockId),
}

impl Listing {
    /// Of the directory at `path`, not yet looked at.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            held: None,
            directories: 0,
            blocks: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            sizes: BTreeMap::new(),
            generation: 0,
        }
    }

    /// The directory, where it could be opened.
    pub(super) fn dir(&self) -> Option<&Dir> {
        self.held.as_ref().map(|held| &held.dir)
    }

    /// Makes the listing current; `anew` where that must not rest on the directory's times, and
    /// for another look at what could not be read. Blocks.
    ///
    /// # Errors
    /// Where the directory is not there or can't be listed; it then counts as empty.
    pub(super) fn refresh(&mut self, anew: bool) -> Result<(), DiskError> {
        let outcome = self.try_refresh(anew);
        if outcome.is_err() {
            self.held = None;
            self.forget();
        }
        outcome
    }

    fn try_refresh(&mut self, anew: bool) -> Result<(), DiskError> {
        let in_place = match &self.held {
            Some(held) => held.dir.is_in_place_blocking()?,
            None => false,
        };
        if !in_place {
            self.forget();
            let dir = Dir::open_blocking(&self.path, Containment::Beneath)?;
            let now = Instant::now();
            self.directories += 1;
            self.held = Some(Held {
                stamp: dir.stamp_blocking("")?,
                stamp_seen: now,
                listed: now,
                dir,
            });
        }
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let stamp = held.dir.stamp_blocking("")?;
        let now = Instant::now();
        if stamp != held.stamp {
            (held.stamp, held.stamp_seen) = (stamp, now);
        }
        let is_current = held.listed >= held.stamp_seen + SETTLED_AFTER;
        if is_current && in_place && !anew {
            return Ok(());
        }
        held.listed = now;
        let dir = held.dir.clone();
        self.list(&dir, anew)
    }

    fn list(&mut self, dir: &Dir, anew: bool) -> Result<(), DiskError> {
        let mut ids = Vec::new();
        for entry in dir.list_blocking("")? {
            let id = entry.name.to_str().and_then(BlockId::from_file_name);
            ids.extend(id.filter(|_| entry.kind == EntryKind::Directory));
        }
        // The names are sorted, and ULIDs sort as their names do.
        let gone = |id: &BlockId| ids.binary_search(id).is_err();
        let before = self.blocks.len() + self.unreadable.len();
        self.blocks.retain(|id, _| !gone(id));
        self.unreadable.retain(|id, _| !gone(id));
        self.sizes.retain(|id, _| !gone(id));
        let mut changed = before != self.blocks.len() + self.unreadable.len();
        for id in ids {
            let is_known =
                self.blocks.contains_key(&id) || (self.unreadable.contains_key(&id) && !anew);
            if !is_known {
                changed |= self.look_at(dir, id);
            }
        }
        if changed {
            self.generation += 1;
        }
        Ok(())
    }

    /// Reads what a new block says of itself; whether that changes anything.
    fn look_at(&mut self, dir: &Dir, id: BlockId) -> bool {
        match read_meta(dir, id) {
            Ok(meta) => {
                self.unreadable.remove(&id);
                let block = BlockOnDisk {
                    range: meta.range(),
                    parents: meta
                        .compaction
                        .parents
                        .iter()
                        .map(|parent| parent.ulid)
                        .collect(),
                    hinted: !meta.compaction.hints.is_empty(),
                };
                self.blocks.insert(id, block);
                true
            }
            Err(MetaFault::Disk(error)) if error.is_not_found() && !is_there(dir, id) => {
                tracing::debug!(block = %id, "a block vanished while the directory was listed");
                self.unreadable.remove(&id).is_some()
            }
            Err(fault) => self.unreadable.insert(id, fault).is_none(),
        }
    }

    fn forget(&mut self) {
        let had = !self.blocks.is_empty() || !self.unreadable.is_empty();
        self.blocks.clear();
        self.unreadable.clear();
        self.sizes.clear();
        self.generation += u64::from(had);
    }

    /// The bytes of a block's files as Prometheus counts them; `None` where they can't be told.
    /// Blocks.
    pub(super) fn block_bytes(&mut self, id: BlockId) -> Option<u64> {
        let dir = &self.held.as_ref()?.dir;
        let fixed = match self.sizes.get(&id) {
            Some(bytes) => *bytes,
            None => {
                let bytes = fixed_bytes(dir, id).ok()?;
                self.sizes.insert(id, bytes);
                bytes
            }
        };
        let tombstones = match size_of(dir, &path(id, "tombstones")) {
            Err(error) if error.is_not_found() => 0,
            size => size.ok()?,
        };
        let meta = size_of(dir, &path(id, "meta.json")).ok()?;
        Some(fixed.saturating_add(tombstones).saturating_add(meta))
    }

    /// Whether the log of out-of-order samples has any; `false` without a directory. Blocks.
    ///
    /// # Errors
    /// Where it can't be looked at.
    pub(super) fn out_of_order_log_has_data(&self) -> Result<bool, DiskError> {
        let Some(dir) = self.dir() else {
            return Ok(false);
        };
        let segments = match dir.list_blocking("wbl") {
            Err(error) if error.is_not_found() => return Ok(false),
            segments => segments?,
        };
        for segment in segments {
            match size_of(dir, &Path::new("wbl").join(&segment.name)) {
                // Prometheus is done with it.
                Err(error) if error.is_not_found() => {}
                size => {
                    if size? > 0 {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// The `meta.json` of a block. Blocks.
pub(super) fn read_meta(dir: &Dir, id: BlockId) -> Result<BlockMeta, MetaFault> {
    let (bytes, _) = dir.read_small_blocking(path(id, "meta.json"), META_BYTES_MAX)?;
    let meta = BlockMeta::parse(&bytes)?;
    match meta.ulid == id {
        true => Ok(meta),
        false => Err(MetaFault::OtherBlock(meta.ulid)),
    }
}

/// Whether a block has its name still; where that can't be told, it counts as there. Blocks.
pub(super) fn is_there(dir: &Dir, id: BlockId) -> bool {
    let stamp = dir.stamp_blocking(id.to_string());
    !stamp.is_err_and(|error| error.is_not_found())
}

/// A file of a block, from the data directory.
pub(super) fn path(id: BlockId, file: &str) -> PathBuf {
    Path::new(&id.to_string()).join(file)
}

fn fixed_bytes(dir: &Dir, id: BlockId) -> Result<u64, DiskError> {
    let mut bytes = size_of(dir, &path(id, "index"))?;
    let chunks = path(id, "chunks");
    for entry in dir.list_blocking(&chunks)? {
        bytes = bytes.saturating_add(size_of(dir, &chunks.join(&entry.name))?);
    }
    Ok(bytes)
}

pub(super) fn size_of(dir: &Dir, relative: &Path) -> Result<u64, DiskError> {
    Ok(dir.stamp_blocking(relative)?.identity.size_bytes)
}
