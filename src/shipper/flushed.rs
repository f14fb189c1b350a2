//! What was flushed from Prometheus' head into the bucket, and when it has to leave again.
//!
//! A Prometheus that comes back replays its write-ahead log and writes the same samples into a
//! block of its own, under another ULID. Two blocks of one stream that overlap halt a compactor,
//! so a flushed block leaves the bucket right before the first block that overlaps it becomes
//! visible there, and not before Prometheus' own blocks hold everything that it holds.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::upload::{meta_key, object_key};
use crate::disk::{Dir, DiskError};
use crate::model::{BlockId, ErrorChain, Labels, TimeRange, TimestampMs};
use crate::objstore::{Bucket, BucketError, ListEntry, ObjectKey};
use crate::tsdb::BlockMeta;

/// The record's file in the data directory.
pub(super) const RECORD: &str = "outrigger.flushed.json";

/// The version this knows.
const RECORD_VERSION: i64 = 1;

/// The longest record that is read; real ones have some hundred bytes.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// How many flushed blocks may be in the bucket at a time.
pub(super) const FLUSHED_MAX: usize = 16;

/// Why the record can't be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlushedError {
    /// It can't be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not the JSON that it should be.
    #[error("parse the record of flushed blocks {RECORD}")]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("the record of flushed blocks {RECORD} has the unknown version {0}")]
    Version(i64),
    /// The bucket failed.
    #[error("remove flushed block {block} from the bucket")]
    Bucket {
        /// The flushed block.
        block: BlockId,
        /// Why.
        source: BucketError,
    },
    /// The bucket says "deleted" and has it still.
    #[error("meta.json of flushed block {block} is still in the bucket after its deletion")]
    StillThere {
        /// The flushed block.
        block: BlockId,
    },
    /// What Prometheus wrote holds less than what was flushed.
    #[error(
        "flushed block {block} [{mint}, {maxt}) holds {flushed} samples, and the blocks that \
         Prometheus wrote of this range {local}",
        mint = range.mint, maxt = range.maxt
    )]
    HoldsMore {
        /// The flushed block.
        block: BlockId,
        /// Its range.
        range: TimeRange,
        /// Its samples.
        flushed: u64,
        /// The samples of all local blocks that overlap it.
        local: u64,
    },
}

/// A block that was made of the head, and may be in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlushedBlock {
    /// Its ULID.
    pub(super) ulid: BlockId,
    /// Its first instant, ms.
    min_time: i64,
    /// The instant after its last, ms.
    max_time: i64,
    /// Its samples.
    num_samples: u64,
    /// The external labels that it was published with.
    labels: BTreeMap<String, String>,
    /// Whether it is on its way out of the bucket.
    #[serde(default)]
    removing: bool,
}

/// A snapshot that Prometheus was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BegunSnapshot {
    /// When, ms.
    pub(super) at: i64,
    /// The snapshots that were there already.
    pub(super) existing: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    version: i64,
    flushed: Vec<FlushedBlock>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<BegunSnapshot>,
}

/// A block of the data directory that is in the bucket or will be.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalBlock {
    /// The block.
    pub(super) id: BlockId,
    /// Its range.
    pub(super) range: TimeRange,
    /// Its samples.
    pub(super) samples: u64,
    /// Whether it is in the bucket.
    pub(super) is_shipped: bool,
}

/// The record's file and what it says.
#[derive(Debug)]
pub(super) struct Flushed {
    dir: Dir,
    document: Document,
    /// The block of which it was told that it waits.
    told: Option<BlockId>,
}

// === impl FlushedBlock ===

impl FlushedBlock {
    /// The record of a block that is going to be published with these labels.
    pub(super) fn new(meta: &BlockMeta, labels: &Labels) -> Self {
        Self {
            ulid: meta.ulid,
            min_time: meta.min_time.0,
            max_time: meta.max_time.0,
            num_samples: meta.stats.num_samples,
            labels: labels.as_map().clone(),
            removing: false,
        }
    }

    /// Whether it is not in the bucket, or somebody else removes it there: it never got in, an
    /// operator deleted it, or a compactor took its samples into another block.
    pub(super) async fn is_gone(&self, bucket: &dyn Bucket) -> Result<bool, BucketError> {
        let mark = object_key(self.ulid, "deletion-mark.json");
        Ok(!bucket.exists(&meta_key(self.ulid)).await? || bucket.exists(&mark).await?)
    }

    fn range(&self) -> TimeRange {
        TimeRange {
            mint: TimestampMs(self.min_time),
            maxt: TimestampMs(self.max_time),
        }
    }

    /// Whether other blocks hold all of it. Prometheus cuts them in order of time: one that reaches
    /// its end means that nothing of it is in the head any more.
    ///
    /// # Errors
    /// Where they hold fewer samples, and no more will come.
    pub(super) fn is_replaced_by(&self, local: &[LocalBlock]) -> Result<bool, FlushedError> {
        let range = self.range();
        let others = || local.iter().filter(|block| block.id != self.ulid);
        let overlapping = others().filter(|block| block.range.overlaps(range));
        let samples = overlapping.map(|block| block.samples).sum();
        if !others().any(|block| block.range.maxt >= range.maxt) {
            return Ok(false);
        }
        if samples < self.num_samples {
            return Err(FlushedError::HoldsMore {
                block: self.ulid,
                range,
                flushed: self.num_samples,
                local: samples,
            });
        }
        Ok(true)
    }
}

// === impl Flushed ===

impl FlushedError {
    pub(super) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Disk(error) => error.remedy(),
            Self::Json(_) | Self::Version(_) => Some(
                "restore outrigger.flushed.json; or, if no flushed block is in the bucket, \
                 remove it",
            ),
            Self::Bucket { source, .. } => source.remedy(),
            Self::StillThere { .. } => Some("allow outrigger to delete objects in the bucket"),
            Self::HoldsMore { .. } => Some(
                "find out what Prometheus lost; then delete the flushed block from the bucket, or \
                 let the compactor merge overlapping blocks (--compact.enable-vertical-compaction) \
                 and take the block out of outrigger.flushed.json",
            ),
        }
    }
}

impl Flushed {
    /// The record in `dir`, not read yet.
    pub(super) fn new(dir: &Dir) -> Self {
        Self {
            dir: dir.clone(),
            document: Document::default(),
            told: None,
        }
    }

    /// Reads the file, which an operator may have edited or removed since the last time.
    pub(super) async fn reload(&mut self) -> Result<(), FlushedError> {
        self.document = match self.dir.read_small(RECORD, RECORD_BYTES_MAX).await {
            Ok((bytes, _)) => {
                let document: Document = serde_json::from_slice(&bytes)?;
                if document.version != RECORD_VERSION {
                    return Err(FlushedError::Version(document.version));
                }
                document
            }
            Err(error) if error.is_not_found() => Document::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// The blocks that may be in the bucket.
    pub(super) fn blocks(&self) -> &[FlushedBlock] {
        &self.document.flushed
    }

    /// The snapshot that was asked for and may not have been removed.
    pub(super) fn snapshot(&self) -> Option<&BegunSnapshot> {
        self.document.snapshot.as_ref()
    }

    /// Notes the snapshot that Prometheus is asked for, or that it is gone.
    pub(super) async fn set_snapshot(
        &mut self,
        snapshot: Option<BegunSnapshot>,
    ) -> Result<(), FlushedError> {
        self.document.snapshot = snapshot;
        self.write().await
    }

    /// Notes a block before its first byte goes into the bucket.
    pub(super) async fn add(&mut self, block: FlushedBlock) -> Result<(), FlushedError> {
        self.document.flushed.push(block);
        self.write().await
    }

    /// The flushed blocks that a block of this range and these labels overlaps.
    pub(super) fn overlapped(
        &self,
        block: BlockId,
        range: TimeRange,
        labels: &Labels,
    ) -> Vec<FlushedBlock> {
        let overlaps = |flushed: &&FlushedBlock| {
            flushed.ulid != block
                && flushed.labels == *labels.as_map()
                && flushed.range().overlaps(range)
        };
        self.blocks().iter().filter(overlaps).cloned().collect()
    }

    /// Whether the block is recorded with these labels and not on its way out.
    pub(super) fn stays(&self, block: BlockId, labels: &Labels) -> bool {
        let mut blocks = self.blocks().iter();
        blocks.any(|flushed| {
            flushed.ulid == block && !flushed.removing && flushed.labels == *labels.as_map()
        })
    }

    /// Whether it is to be told that this block waits; once for each.
    pub(super) fn tell_once(&mut self, block: BlockId) -> bool {
        self.told.replace(block) != Some(block)
    }

    /// Takes `meta.json` of these blocks out of the bucket and makes sure that it is gone; the
    /// rest of their objects is removed by [`Flushed::settle`].
    pub(super) async fn hide(
        &mut self,
        bucket: &dyn Bucket,
        blocks: &[BlockId],
    ) -> Result<(), FlushedError> {
        if blocks.is_empty() {
            return Ok(());
        }
        for flushed in &mut self.document.flushed {
            flushed.removing |= blocks.contains(&flushed.ulid);
        }
        self.write().await?;
        for block in blocks {
            hide(bucket, *block).await?;
        }
        Ok(())
    }

    /// Removes what is left of the blocks on their way out, and forgets those that will stay for
    /// good: where Prometheus' blocks have gone on beyond without one that overlaps them. `there`
    /// are the ranges of all blocks of the data directory, whatever becomes of them; `None` where
    /// one can't be told.
    pub(super) async fn settle(
        &mut self,
        bucket: &dyn Bucket,
        local: &[LocalBlock],
        there: Option<&[TimeRange]>,
    ) -> Result<(), FlushedError> {
        let mut settled = Vec::new();
        for flushed in self.blocks() {
            let (block, range) = (flushed.ulid, flushed.range());
            if flushed.removing {
                hide(bucket, block).await?;
                let removed = remove_objects(bucket, block).await;
                removed.map_err(|source| FlushedError::Bucket { block, source })?;
                tracing::info!(
                    %block, "a flushed block has left the bucket, Prometheus' own take its place"
                );
                settled.push(block);
                continue;
            }
            let has_successor =
                |block: &LocalBlock| block.is_shipped && block.range.mint >= range.maxt;
            let stays = there.is_some_and(|there| !there.iter().any(|one| one.overlaps(range)));
            if stays && local.iter().any(has_successor) {
                tracing::info!(%block, "a flushed block stays in the bucket, nothing overlaps it");
                settled.push(block);
            }
        }
        if settled.is_empty() {
            return Ok(());
        }
        let flushed = &mut self.document.flushed;
        flushed.retain(|flushed| !settled.contains(&flushed.ulid));
        self.write().await
    }

    /// Writes the file; without anything to tell there is none.
    async fn write(&mut self) -> Result<(), FlushedError> {
        self.document.version = RECORD_VERSION;
        if self.document.flushed.is_empty() && self.document.snapshot.is_none() {
            self.dir.remove_file(RECORD).await?;
            return Ok(());
        }
        let mut bytes = serde_json::to_vec_pretty(&self.document)?;
        bytes.push(b'\n');
        self.dir.write_atomic(RECORD, bytes).await?;
        Ok(())
    }
}

/// Deletes `meta.json`, first of a block's objects, and asks whether it is gone.
async fn hide(bucket: &dyn Bucket, block: BlockId) -> Result<(), FlushedError> {
    let key = meta_key(block);
    let gone = async {
        if bucket.exists(&key).await? {
            bucket.delete(&key).await?;
        }
        bucket.exists(&key).await
    };
    match gone.await {
        Ok(false) => Ok(()),
        Ok(true) => Err(FlushedError::StillThere { block }),
        Err(source) => Err(FlushedError::Bucket { block, source }),
    }
}

/// Deletes everything of a block.
async fn remove_objects(bucket: &dyn Bucket, block: BlockId) -> Result<(), BucketError> {
    let mut directories = vec![block.to_string()];
    while let Some(directory) = directories.pop() {
        // A name that is none of ours is not ours to delete.
        let Ok(key) = ObjectKey::new(directory) else {
            continue;
        };
        let mut entries = bucket.list(Some(&key)).await?;
        while let Some(entry) = entries.try_next().await? {
            match entry {
                ListEntry::Directory(name) => directories.push(name),
                ListEntry::Object(name) => {
                    if let Ok(key) = ObjectKey::new(name) {
                        bucket.delete(&key).await?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether `name` may be the directory of a snapshot that was asked for at this moment: Prometheus
/// names them `20060102T150405Z-<random>`.
pub(super) fn is_snapshot_of(name: &str, begun: &BegunSnapshot) -> bool {
    /// How long Prometheus may take to begin, s.
    const BEGINNING_S: i64 = 10;
    let is_new = !begun.existing.iter().any(|existing| existing == name);
    let time = name.split_once('-').map(|(time, _)| time);
    let parsed = time.and_then(|time| {
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok()
    });
    is_new
        && parsed.is_some_and(|named| {
            let at_s = begun.at.div_euclid(1000);
            (at_s..=at_s + BEGINNING_S).contains(&named.timestamp().as_second())
        })
}

/// Whether this is the bare name of a directory, and leads nowhere else.
pub(super) fn is_bare(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(only)) if only == name)
        && parts.next().is_none()
}

/// A failure that only delays: told and tried again with the next pass.
pub(super) fn tell(error: &FlushedError) {
    tracing::warn!(
        err = %ErrorChain(error), remedy = error.remedy(),
        "flushed blocks could not be looked after; trying again soon"
    );
}
