//! Which blocks there are: the scan is the truth, events are only hints to scan.

use std::path::PathBuf;

use super::stage::{BlockFilesError, UploadDir, read_meta};
use crate::disk::{Dir, DiskError, EntryKind};
use crate::model::BlockId;
use crate::tsdb::BlockMeta;

/// A block whose `meta.json` could be read.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The block.
    pub(super) id: BlockId,
    /// Its `meta.json`.
    pub(super) meta: BlockMeta,
    /// Where its files are.
    pub(super) origin: Origin,
}

/// Where a block's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the data directory.
    DataDir,
    /// Only in our staging directory: Prometheus deleted the block before it was shipped.
    StagingOnly,
}

/// A block whose `meta.json` could not be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// The block.
    pub(super) id: BlockId,
    /// Why.
    pub(super) error: BlockFilesError,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Readable blocks, oldest first.
    pub(super) candidates: Vec<Candidate>,
    /// The others of the data directory, by ULID.
    pub(super) unreadable: Vec<Unreadable>,
    /// Everything in the staging directory, whole or not.
    pub(super) staged: Vec<BlockId>,
    /// Of these, what is not whole and whose source is gone: nothing can come of it.
    pub(super) remnants: Vec<BlockId>,
}

impl Scan {
    /// Looks through the data directory and the staging directory.
    ///
    /// # Errors
    /// Where one of them can't be listed.
    pub(super) async fn run(data: &Dir, upload_dir: &UploadDir) -> Result<Self, DiskError> {
        let mut scan = Self::default();
        for entry in data.list("").await? {
            let id = entry.name.to_str().and_then(BlockId::from_file_name);
            if let (Some(id), EntryKind::Directory) = (id, entry.kind) {
                scan.look_at(data, id, Origin::DataDir).await;
            }
        }
        scan.staged = upload_dir.staged().await?;
        for id in scan.staged.clone() {
            if scan.knows(id) {
                continue;
            }
            if upload_dir.is_remnant(id).await {
                scan.remnants.push(id);
            } else {
                scan.look_at(data, id, Origin::StagingOnly).await;
            }
        }
        scan.sort();
        Ok(scan)
    }

    /// Adds a block that was found elsewhere.
    pub(super) fn add(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
        self.sort();
    }

    fn sort(&mut self) {
        self.candidates
            .sort_by_key(|candidate| (candidate.meta.min_time, candidate.id));
    }

    /// The blocks of the data directory in ledger order: by time, then those without a known time.
    pub(super) fn present(&self) -> Vec<BlockId> {
        let readable = self
            .candidates
            .iter()
            .filter(|c| c.origin == Origin::DataDir)
            .map(|c| c.id);
        readable
            .chain(self.unreadable.iter().map(|unreadable| unreadable.id))
            .collect()
    }

    async fn look_at(&mut self, data: &Dir, id: BlockId, origin: Origin) {
        match read_meta(data, id, &origin.path(id)).await {
            Ok(meta) => self.candidates.push(Candidate { id, meta, origin }),
            Err(BlockFilesError::Vanished) => {
                tracing::debug!(block = %id, "a block vanished while the directory was scanned");
            }
            Err(error) if origin == Origin::StagingOnly => tracing::warn!(
                block = %id, err = %crate::model::ErrorChain(&error),
                "the staged files of a deleted block can't be read"
            ),
            Err(error) => self.unreadable.push(Unreadable { id, error }),
        }
    }

    fn knows(&self, id: BlockId) -> bool {
        self.candidates.iter().any(|candidate| candidate.id == id)
            || self.unreadable.iter().any(|unreadable| unreadable.id == id)
    }
}

impl Origin {
    /// The directory of the block's files, below the data directory.
    pub(super) fn path(self, id: BlockId) -> PathBuf {
        match self {
            Self::DataDir => PathBuf::from(id.to_string()),
            Self::StagingOnly => UploadDir::path(id),
        }
    }
}
