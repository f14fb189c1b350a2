//! The blocks that are held open, and those that can't be opened.
//!
//! At most [`OPEN_BLOCKS_MAX`] and [`OPEN_WEIGHT_MAX`] are held here; the one not used for longest
//! goes first. Whoever reads a block keeps it open until the read ends, also when it is gone from
//! here. Several who want the same block wait for one opening.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::block::{Block, BlockError};
use super::listing::{self, MetaFault};
use crate::disk::{Dir, DiskError, FileStamp};
use crate::model::{BlockId, ErrorChain};

/// The most blocks that are held open, and that one request reads: half a year of two hours each.
/// They hold no descriptors. Where blocks are large, [`OPEN_WEIGHT_MAX`] is the narrower limit.
pub(super) const OPEN_BLOCKS_MAX: usize = 2_048;
/// The most bytes that open blocks keep on the heap, and what stands for their maps: a block of a
/// million series takes up to 4 MiB.
pub(super) const OPEN_WEIGHT_MAX: usize = 128 << 20;
/// What stands for a map. With this, open blocks have 8,192 at most; a process may have 16,384
/// (`disk`), and reads keep maps of blocks that are not held here any more. A block that gets none
/// can't be opened, so Prometheus answers for it.
const MAP_WEIGHT: usize = 16 << 10;
const _: () = assert!(OPEN_WEIGHT_MAX / MAP_WEIGHT == 8_192);
/// How long a block that could not be opened is left alone, unless its directory changes.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The same of a block that turned out to be damaged while it was read: it opens without an error,
/// and each try costs a caller its answer.
const RETRY_DAMAGED_AFTER: Duration = Duration::from_secs(3600);

/// Open blocks and failures.
#[derive(Debug, Default)]
pub(super) struct OpenBlocks {
    held: HashMap<BlockId, Held>,
    failed: HashMap<BlockId, Failed>,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
struct Held {
    opening: Opening,
    last_use: u64,
}

#[derive(Debug)]
struct Failed {
    reason: String,
    retry_at: Instant,
    /// The block's directory when it failed.
    stamp: Option<FileStamp>,
}

/// A block that is open, or that the first who needs it opens.
#[derive(Clone, Debug, Default)]
pub(super) struct Opening(Arc<OnceLock<Result<Arc<Block>, Box<Failure>>>>);

/// Why a block could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    reason: String,
    stamp: Option<FileStamp>,
    retry_after: Duration,
    /// Whether it is just not there any more.
    pub(super) has_vanished: bool,
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Meta(#[from] MetaFault),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl Opening {
    /// The block, opened by the first who calls. Blocks.
    pub(super) fn block(&self, dir: &Dir, id: BlockId) -> Result<Arc<Block>, Box<Failure>> {
        let opened = self.0.get_or_init(|| {
            // Before the files, so that a repair in between makes it another one.
            let stamp = dir.stamp_blocking(id.to_string()).ok();
            open(dir, id).map(Arc::new).map_err(|error| {
                Box::new(Failure {
                    reason: ErrorChain(&error).to_string(),
                    stamp,
                    retry_after: RETRY_AFTER,
                    has_vanished: !listing::is_there(dir, id),
                })
            })
        });
        let block = opened.clone()?;
        match block.condemned() {
            None => Ok(block),
            Some(reason) => Err(Box::new(Failure {
                reason: reason.to_owned(),
                stamp: dir.stamp_blocking(id.to_string()).ok(),
                retry_after: RETRY_DAMAGED_AFTER,
                has_vanished: !listing::is_there(dir, id),
            })),
        }
    }

    fn weight(&self) -> usize {
        let opened = self.0.get().and_then(|opened| opened.as_ref().ok());
        opened.map_or(0, |block| weight(block))
    }
}

/// What an open block counts towards [`OPEN_WEIGHT_MAX`].
pub(super) fn weight(block: &Block) -> usize {
    let maps = block.maps().saturating_mul(MAP_WEIGHT);
    block.memory_bytes().saturating_add(maps)
}

fn open(dir: &Dir, id: BlockId) -> Result<Block, OpenError> {
    let meta = listing::read_meta(dir, id)?;
    let dir = dir.subdir_blocking(id.to_string())?;
    Ok(Block::open(&dir, &meta)?)
}

impl OpenBlocks {
    /// The block, open or to be opened.
    pub(super) fn get(&mut self, id: BlockId) -> Opening {
        self.uses += 1;
        let held = self.held.entry(id).or_insert_with(|| Held {
            opening: Opening::default(),
            last_use: 0,
        });
        held.last_use = self.uses;
        held.opening.clone()
    }

    /// The same for a block that nobody asked for: it is the first to go.
    pub(super) fn get_ahead(&mut self, id: BlockId) -> Opening {
        let held = self.held.entry(id).or_insert_with(|| Held {
            opening: Opening::default(),
            last_use: 0,
        });
        held.opening.clone()
    }

    /// Whether the block is held.
    pub(super) fn holds(&self, id: BlockId) -> bool {
        self.held.contains_key(&id)
    }

    /// Of all that are held, as [`weight`].
    pub(super) fn weight(&self) -> usize {
        self.held.values().map(|held| held.opening.weight()).sum()
    }

    /// Notes that `opening` failed; whether that is news to tell.
    pub(super) fn note_failure(
        &mut self,
        id: BlockId,
        opening: &Opening,
        failure: &Failure,
    ) -> bool {
        let same = |held: &Held| Arc::ptr_eq(&held.opening.0, &opening.0);
        if !self.held.get(&id).is_some_and(same) {
            // Someone else who waited for it noted it already.
            return false;
        }
        self.held.remove(&id);
        if failure.has_vanished {
            return false;
        }
        let reason = failure.reason.clone();
        let failed = Failed {
            reason: reason.clone(),
            retry_at: Instant::now() + failure.retry_after,
            stamp: failure.stamp,
        };
        let before = self.failed.insert(id, failed);
        before.is_none_or(|before| before.reason != reason)
    }

    /// Notes that the block could be opened; whether it could not before.
    pub(super) fn note_success(&mut self, id: BlockId) -> bool {
        self.failed.remove(&id).is_some()
    }

    /// The blocks that failed and are not to be tried again yet. Blocks.
    pub(super) fn failing(&self, dir: &Dir) -> HashSet<BlockId> {
        let now = Instant::now();
        let failed = self.failed.iter().enumerate();
        let waits = failed.filter(|(at, (id, failed))| {
            // Where there are very many, time alone tells.
            let is_same = || dir.stamp_blocking(id.to_string()).ok() == failed.stamp;
            now < failed.retry_at && (*at >= OPEN_BLOCKS_MAX || is_same())
        });
        waits.map(|(_, (id, _))| *id).collect()
    }

    /// Those that could not be opened, and why.
    pub(super) fn failures(&self) -> impl Iterator<Item = (BlockId, &str)> {
        self.failed
            .iter()
            .map(|(id, failed)| (*id, failed.reason.as_str()))
    }

    /// Lets go of the blocks of which `stays` is false.
    pub(super) fn retain(&mut self, stays: impl Fn(BlockId) -> bool) {
        self.held.retain(|id, _| stays(*id));
        self.failed.retain(|id, _| stays(*id));
    }

    /// Lets go of what is over the limits, the one that was not used for longest first.
    pub(super) fn trim(&mut self, blocks_max: usize, weight_max: usize) {
        let held = self.held.iter();
        let mut by_use: Vec<_> = held
            .map(|(id, held)| (held.last_use, *id, held.opening.weight()))
            .collect();
        let mut weight: usize = by_use.iter().map(|(.., weight)| *weight).sum();
        if by_use.len() <= blocks_max && weight <= weight_max {
            return;
        }
        by_use.sort_unstable();
        for (_, id, freed) in by_use {
            if self.held.len() <= blocks_max && weight <= weight_max {
                return;
            }
            self.held.remove(&id);
            weight = weight.saturating_sub(freed);
        }
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}
