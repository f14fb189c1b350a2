//! The head into the bucket, for a Prometheus that is not coming back soon.
//!
//! Prometheus writes its head as a block into a snapshot. The block is staged like one that
//! Prometheus has deleted, so that a pass ships it after all older ones, proven like any other.
//! What happens when Prometheus comes back is told in [`super::flushed`].

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::flushed::{
    BegunSnapshot, FLUSHED_MAX, FlushedBlock, FlushedError, LocalBlock, is_bare, is_snapshot_of,
    tell,
};
use super::scan::{Candidate, Origin, Scan};
use super::shipper::Shipper;
use super::stage::{BlockFiles, BlockFilesError, read_meta};
use super::sync::{Pass, SyncError};
use crate::disk::{DiskError, EntryKind};
use crate::model::{BlockId, ErrorChain};

/// Where Prometheus puts snapshots, below the data directory.
const SNAPSHOTS: &str = "snapshots";

/// The time between two passes where nothing says when the next one is due.
const RETRY: Duration = Duration::from_secs(5);

/// The head's block while it is being flushed.
#[derive(Clone, Debug)]
pub(super) struct Flushing {
    pub(super) block: BlockId,
    /// Where its files are, below the data directory, where links can't be made of them.
    pub(super) unlinked: Option<PathBuf>,
}

/// Makes Prometheus write what is in its head.
#[async_trait]
pub trait HeadSnapshot: Send + Sync {
    /// Makes a snapshot; the name of its directory below `snapshots` in the data directory.
    ///
    /// # Errors
    /// Where Prometheus does not, with what it said.
    async fn take(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>>;
}

/// Why the head was not flushed.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Another process ships from the data directory.
    #[error("another process ships from this data directory")]
    OtherOwner,
    /// The external labels are not known.
    #[error("there are no external labels")]
    NoLabels,
    /// The data directory can't be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Too many were flushed before, and none has been replaced.
    #[error("{FLUSHED_MAX} flushed blocks are in the bucket already, see outrigger.flushed.json")]
    TooMany,
    /// The record of flushed blocks can't be followed.
    #[error(transparent)]
    Record(Box<dyn std::error::Error + Send + Sync>),
    /// Prometheus made no snapshot.
    #[error("ask Prometheus for a snapshot of its head")]
    Snapshot(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The snapshot is not where it should be.
    #[error("Prometheus made a snapshot `{name}`, which is no name of a directory")]
    SnapshotName {
        /// What Prometheus told.
        name: String,
    },
    /// The block in the snapshot can't be read.
    #[error("read the head's block {block}")]
    Block {
        /// The block.
        block: BlockId,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Other external labels came while it was being shipped.
    #[error("the external labels changed meanwhile")]
    OtherLabels,
    /// More than one block in the snapshot is new.
    #[error("the snapshot has {found} new blocks instead of one, the head's")]
    NotOne {
        /// How many.
        found: usize,
    },
}

impl From<FlushedError> for FlushError {
    fn from(error: FlushedError) -> Self {
        Self::Record(error.into())
    }
}

impl Shipper {
    /// Ships what is in Prometheus' head, after all that is not shipped yet; the block that it
    /// went into, or `None` where the head is empty. Goes on trying to ship until it is dropped,
    /// which leaves a state that the next run puts in order.
    ///
    /// # Errors
    /// See [`FlushError`]; nothing of the head is in the bucket then.
    pub async fn flush(&mut self, head: &dyn HeadSnapshot) -> Result<Option<BlockId>, FlushError> {
        if !self.is_owner {
            return Err(FlushError::OtherOwner);
        }
        if self.labels.borrow().is_empty() {
            return Err(FlushError::NoLabels);
        }
        self.flushed.reload().await?;
        if self.flushed.blocks().len() >= FLUSHED_MAX {
            return Err(FlushError::TooMany);
        }
        self.clear_snapshot(None).await;
        let mut name = None;
        let taken = self.take_snapshot(head, &mut name).await;
        let shipped = match taken {
            Ok(Some(block)) => self.ship_flush(block).await.map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        self.clear_snapshot(name.as_deref()).await;
        shipped
    }

    /// Ships all there is, the head's block last, until that is in the bucket.
    async fn ship_flush(&mut self, block: BlockId) -> Result<BlockId, FlushError> {
        self.schedule.hurry();
        loop {
            let labels = self.labels.borrow().0.clone();
            if !self.flushed.stays(block, &labels) {
                return Err(FlushError::OtherLabels);
            }
            let due = self.sync().await.due;
            if self.ledger.contains(block) {
                return Ok(block);
            }
            let retry = Instant::now() + RETRY;
            tokio::time::sleep_until(due.map_or(retry, |due| due.min(retry))).await;
        }
    }

    /// Stages the head's block, and records it before that. The snapshot's name is told as soon as
    /// it is known.
    async fn take_snapshot(
        &mut self,
        head: &dyn HeadSnapshot,
        told: &mut Option<String>,
    ) -> Result<Option<BlockId>, FlushError> {
        let begun = BegunSnapshot {
            at: self.clock.now().0,
            existing: self.snapshots().await?,
        };
        let known = self.blocks_in(Path::new("")).await?;
        self.flushed.set_snapshot(Some(begun)).await?;
        let name = head.take().await.map_err(FlushError::Snapshot)?;
        if !is_bare(&name) {
            return Err(FlushError::SnapshotName { name });
        }
        let snapshot = Path::new(SNAPSHOTS).join(told.insert(name));
        // All others are links to blocks of the data directory, some of them new since.
        let mut new = self.blocks_in(&snapshot).await?;
        let cut_meanwhile = self.blocks_in(Path::new("")).await?;
        new.retain(|block| !known.contains(block) && !cut_meanwhile.contains(block));
        match Vec::from_iter(new).as_slice() {
            [] => Ok(None),
            [block] => self.adopt(*block, &snapshot).await,
            several => Err(FlushError::NotOne {
                found: several.len(),
            }),
        }
    }

    async fn adopt(
        &mut self,
        block: BlockId,
        snapshot: &Path,
    ) -> Result<Option<BlockId>, FlushError> {
        let failed = |source: BlockFilesError| FlushError::Block {
            block,
            source: source.into(),
        };
        let source = snapshot.join(block.to_string());
        let meta = read_meta(&self.data, block, &source).await;
        let meta = meta.map_err(failed)?;
        if meta.stats.num_samples == 0 {
            return Ok(None);
        }
        let labels = self.labels.borrow().0.clone();
        self.flushed.add(FlushedBlock::new(&meta, &labels)).await?;
        let unlinked = match self.upload_dir.link(block, &source).await {
            Ok(()) => None,
            Err(error) if error.is_link_refused() => Some(source),
            Err(error) => return Err(error.into()),
        };
        self.flushing = Some(Flushing { block, unlinked });
        tracing::info!(
            %block, mint = meta.min_time.0, maxt = meta.max_time.0,
            samples = meta.stats.num_samples, "the head was written as a block"
        );
        Ok(Some(block))
    }

    /// Removes the snapshot of a flush that was cut short.
    pub(super) async fn clear_flush(&mut self) {
        match self.flushed.reload().await {
            Ok(()) => self.clear_snapshot(None).await,
            Err(error) => tell(&error),
        }
    }

    /// Gives up what is staged of a flush that was cut short: its samples are in the write-ahead
    /// log, and Prometheus will write them into a block of its own.
    pub(super) async fn give_up_flush(&self, scan: &mut Scan) {
        for flushed in self.flushed.blocks() {
            let block = flushed.ulid;
            if !self.is_flushing(block) && scan.staged.contains(&block) {
                self.unstage(block).await;
                scan.staged.retain(|staged| *staged != block);
                scan.candidates.retain(|candidate| candidate.id != block);
            }
        }
    }

    /// Whether this is the head's block, on its way into the bucket.
    pub(super) fn is_flushing(&self, block: BlockId) -> bool {
        let flushing = self.flushing.as_ref();
        flushing.is_some_and(|flushing| flushing.block == block)
    }

    /// Adds the head's block to what was found, where it can't be staged.
    pub(super) async fn find_unlinked(&self, scan: &mut Scan) {
        let Some(Flushing {
            block,
            unlinked: Some(source),
        }) = &self.flushing
        else {
            return;
        };
        match read_meta(&self.data, *block, source).await {
            Ok(meta) => scan.add(Candidate {
                id: *block,
                meta,
                origin: Origin::StagingOnly,
            }),
            Err(error) => tracing::warn!(
                %block, err = %ErrorChain(&error), "the head's block can't be read"
            ),
        }
    }

    /// Removes the snapshot that was asked for; where its name was never learnt, the one that was
    /// made at that moment.
    async fn clear_snapshot(&mut self, name: Option<&str>) {
        let Some(begun) = self.flushed.snapshot() else {
            return;
        };
        let names = match name {
            Some(name) => vec![name.to_owned()],
            None => self.snapshots().await.unwrap_or_else(|error| {
                tracing::warn!(err = %ErrorChain(&error), "snapshots can't be listed");
                Vec::new()
            }),
        };
        for found in &names {
            if name.is_some() || is_snapshot_of(found, begun) {
                self.remove_snapshot(&Path::new(SNAPSHOTS).join(found))
                    .await;
            }
        }
        if let Err(error) = self.flushed.set_snapshot(None).await {
            tell(&error);
        }
    }

    async fn remove_snapshot(&self, snapshot: &Path) {
        if let Err(error) = self.data.remove_tree(snapshot).await {
            let err = ErrorChain(&error);
            tracing::warn!(%err, "the snapshot of a flush could not be removed; please remove it");
        }
    }

    async fn snapshots(&self) -> Result<Vec<String>, DiskError> {
        let entries = match self.data.list(SNAPSHOTS).await {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.into_iter();
        Ok(names.filter_map(|e| e.name.into_string().ok()).collect())
    }

    async fn blocks_in(&self, directory: &Path) -> Result<BTreeSet<BlockId>, DiskError> {
        let entries = self.data.list(PathBuf::from(directory)).await?;
        let blocks = entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::Directory);
        Ok(blocks
            .filter_map(|entry| entry.name.to_str().and_then(BlockId::from_file_name))
            .collect())
    }

    /// The files of a block that Prometheus does not have: staged, or in the snapshot where they
    /// can't be.
    pub(super) async fn open_staged(&self, id: BlockId) -> Result<BlockFiles, BlockFilesError> {
        let flushing = self
            .flushing
            .as_ref()
            .filter(|flushing| flushing.block == id);
        match flushing.and_then(|flushing| flushing.unlinked.as_deref()) {
            Some(source) => BlockFiles::open(&self.data, id, source).await,
            None => self.upload_dir.open(id).await,
        }
    }

    /// Which flushed blocks leave the bucket for this one; where it has to wait, whether the pass
    /// goes on with the next.
    pub(super) async fn clear_way(
        &mut self,
        candidate: &Candidate,
        scan: &Scan,
        pass: &mut Pass,
    ) -> Result<ControlFlow<ControlFlow<()>, Vec<BlockId>>, SyncError> {
        let next = ControlFlow::Continue(());
        match self.way(candidate, scan, pass).await {
            Ok(ControlFlow::Continue(leaving)) => Ok(ControlFlow::Continue(leaving)),
            // The head's block comes before what was cut of the head meanwhile.
            Ok(ControlFlow::Break(()))
                if self.policy.allow_out_of_order || self.flushing.is_some() =>
            {
                pass.report.held_back += 1;
                Ok(ControlFlow::Break(next))
            }
            Ok(ControlFlow::Break(())) => Ok(ControlFlow::Break(ControlFlow::Break(()))),
            Err(error) if self.policy.allow_out_of_order => {
                tracing::error!(
                    block = %candidate.id, err = %ErrorChain(&error), remedy = error.remedy(),
                    "a flushed block stands in the way of this one, which is not shipped"
                );
                self.post(&error);
                pass.report.failed += 1;
                Ok(ControlFlow::Break(next))
            }
            Err(error) => Err(error),
        }
    }

    /// Which flushed blocks leave the bucket for this one; nothing where it has to wait.
    async fn way(
        &mut self,
        candidate: &Candidate,
        scan: &Scan,
        pass: &mut Pass,
    ) -> Result<ControlFlow<(), Vec<BlockId>>, SyncError> {
        if self.flushed.blocks().is_empty() {
            return Ok(ControlFlow::Continue(Vec::new()));
        }
        let (id, range) = (candidate.id, candidate.meta.range());
        let labels = self.labels.borrow().0.clone();
        let local = self.local_blocks(scan);
        let (mut leaving, mut gone) = (Vec::new(), false);
        for flushed in self.flushed.overlapped(id, range, &labels) {
            let is_gone = !self.is_flushing(flushed.ulid)
                && flushed
                    .is_gone(&*self.bucket)
                    .await
                    .map_err(SyncError::Exists)?;
            if !is_gone && !flushed.is_replaced_by(&local)? {
                if self.flushed.tell_once(id) {
                    tracing::info!(
                        block = %id, flushed = %flushed.ulid,
                        "this block waits until Prometheus has written all that was flushed"
                    );
                }
                return Ok(ControlFlow::Break(()));
            }
            leaving.push(flushed.ulid);
            gone |= is_gone;
        }
        if gone {
            // A compactor may have put its samples into another block.
            let ranges = self.ranges(pass).await?.without(&leaving);
            ranges.admit_alone(id, range)?;
        }
        Ok(ControlFlow::Continue(leaving))
    }

    pub(super) async fn settle_flushed(&mut self, scan: &Scan) {
        if self.flushed.blocks().is_empty() {
            return;
        }
        let local = self.local_blocks(scan);
        let ranges = scan
            .candidates
            .iter()
            .filter(|c| c.origin == Origin::DataDir);
        let ranges: Vec<_> = ranges.map(|candidate| candidate.meta.range()).collect();
        let there = scan.unreadable.is_empty().then_some(ranges.as_slice());
        let settled = self.flushed.settle(&*self.bucket, &local, there);
        if let Err(error) = settled.await {
            tell(&error);
        }
    }

    fn local_blocks(&self, scan: &Scan) -> Vec<LocalBlock> {
        let candidates = scan.candidates.iter();
        let blocks = candidates.filter_map(|candidate| {
            let is_shipped = self.ledger.contains(candidate.id);
            (is_shipped || self.waits(candidate)).then(|| LocalBlock {
                id: candidate.id,
                range: candidate.meta.range(),
                samples: candidate.meta.stats.num_samples,
                is_shipped: is_shipped && candidate.origin == Origin::DataDir,
            })
        });
        blocks.collect()
    }
}
