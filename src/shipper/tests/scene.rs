//! A data directory, a bucket directory, and the pristine blocks to hold both against.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::disk::{BufferPool, DiskEngine, Faults};
use crate::model::{
    BlockId, Clock, ExternalLabels, Labels, ShippingStatus, TimeRange, TimestampMs,
};
use crate::objstore::{Bucket, FilesystemBucket};
use crate::shipper::{
    Dependencies, HashFunc, Policy, Shipper, ShipperConfig, ShipperError, ShipperMetrics,
};
use crate::tsdb::BlockMeta;
use crate::tsdb::testing::{BlockFile, BlockLayout, Chunk, MemoryBlock, Series};

/// The length of one block's range, ms.
const RANGE_MS: i64 = 7_200_000;

/// 2026-01-01, after every block.
const NOW_NS: i128 = 1_767_225_600_000_000_000;

pub(super) struct Scene {
    root: tempfile::TempDir,
    pub(super) labels: watch::Sender<ExternalLabels>,
    pub(super) pristine: BTreeMap<BlockId, MemoryBlock>,
    pub(super) policy: Policy,
    pub(super) hash_func: HashFunc,
    pub(super) concurrency: usize,
    pub(super) jitter: Duration,
    pub(super) status: watch::Sender<ShippingStatus>,
}

/// The ULID of the block of slot `slot`: later slots are younger.
pub(super) fn block_id(slot: u8) -> BlockId {
    BlockId::from_u128((u128::from(slot) + 1) << 80 | 0xfeed)
}

/// Blocks of neighbouring slots touch and don't overlap.
pub(super) fn block_range(slot: u8) -> TimeRange {
    let mint = 1_700_000_000_000 + i64::from(slot) * RANGE_MS;
    TimeRange {
        mint: TimestampMs(mint),
        maxt: TimestampMs(mint + RANGE_MS),
    }
}

/// A small block of several segments.
pub(super) fn small_block(slot: u8, layout: BlockLayout) -> MemoryBlock {
    let range = block_range(slot);
    let series = (0..5i64).map(|n| Series {
        labels: vec![
            ("__name__".to_owned(), "m".to_owned()),
            ("n".to_owned(), format!("{n}")),
        ],
        chunks: (0..2i64)
            .map(|c| {
                let start = range.mint.0 + c * 3_000_000;
                let value = |i: i64| (start + i * 15_000, f64::from(u8::try_from(i * n).unwrap()));
                Chunk::xor(&(0..20).map(value).collect::<Vec<_>>())
            })
            .collect(),
    });
    MemoryBlock::write(layout, block_id(slot), range, series)
}

pub(super) fn small_layout() -> BlockLayout {
    BlockLayout {
        segment_bytes_max: 150,
        ..BlockLayout::default()
    }
}

impl Scene {
    pub(super) fn new(policy: Policy) -> Self {
        // Memory is quick to sync; every kind of file operation works there as on a disk.
        let base = Path::new("/dev/shm");
        let root = if base.is_dir() {
            tempfile::tempdir_in(base)
        } else {
            tempfile::tempdir()
        };
        let root = root.unwrap();
        std::fs::create_dir_all(root.path().join("data/wal")).unwrap();
        let labels: Labels = [("cluster".to_owned(), "a".to_owned())]
            .into_iter()
            .collect();
        Self {
            root,
            labels: watch::channel(ExternalLabels(labels)).0,
            pristine: BTreeMap::new(),
            policy,
            hash_func: HashFunc::None,
            concurrency: 1,
            jitter: Duration::ZERO,
            status: watch::Sender::default(),
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(super) fn bucket_dir(&self) -> PathBuf {
        self.root.path().join("bucket")
    }

    pub(super) fn block_dir(&self, id: BlockId) -> PathBuf {
        self.data().join(id.to_string())
    }

    /// Puts the block of a slot into the data directory as Prometheus does: whole, by rename.
    pub(super) fn put(&mut self, slot: u8) -> BlockId {
        self.put_block(small_block(slot, small_layout()))
    }

    pub(super) fn put_block(&mut self, block: MemoryBlock) -> BlockId {
        let id = block.meta.ulid;
        let temporary = self.data().join(format!("{id}.tmp-for-creation"));
        std::fs::create_dir_all(temporary.join("chunks")).unwrap();
        for (file, bytes) in &block.files {
            std::fs::write(temporary.join(file.path()), bytes).unwrap();
        }
        std::fs::rename(temporary, self.block_dir(id)).unwrap();
        self.pristine.insert(id, block);
        id
    }

    /// Rewrites `meta.json` of a block that is in place.
    pub(super) fn edit_meta(&mut self, id: BlockId, edit: impl FnOnce(&mut BlockMeta)) {
        let block = self.pristine.get_mut(&id).unwrap();
        edit(&mut block.meta);
        block.files.insert(BlockFile::Meta, block.meta.to_json());
        let bytes = block.meta.to_json();
        std::fs::write(self.block_dir(id).join("meta.json"), bytes).unwrap();
    }

    /// Deletes a block as Prometheus does: renamed first.
    pub(super) fn vanish(&self, id: BlockId) {
        let doomed = self.data().join(format!("{id}.tmp-for-deletion"));
        std::fs::rename(self.block_dir(id), &doomed).unwrap();
        std::fs::remove_dir_all(doomed).unwrap();
    }

    /// Whether all files of the block are staged, as Prometheus wrote them.
    pub(super) fn is_staged_whole(&self, id: BlockId) -> bool {
        let staged = self.data().join("thanos/upload").join(id.to_string());
        let is_staged = |file: &BlockFile, bytes: &Vec<u8>| {
            std::fs::read(staged.join(file.path())).is_ok_and(|found| found == *bytes)
        };
        self.pristine[&id]
            .files
            .iter()
            .all(|(file, bytes)| is_staged(file, bytes))
    }

    /// Replaces a file by another with these bytes: a new inode, so that what is staged by hard
    /// link keeps the old ones, as with a restored copy.
    pub(super) fn replace(&self, id: BlockId, file: &str, bytes: &[u8]) {
        let path = self.block_dir(id).join(file);
        std::fs::write(path.with_extension("new"), bytes).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Flips a bit in place, as a failing disk does.
    pub(super) fn flip(&self, id: BlockId, file: &str, at: usize, bit: u8) {
        let path = self.block_dir(id).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, bytes).unwrap();
    }

    pub(super) async fn shipper(&self) -> Shipper {
        self.shipper_with(Faults::none(), |bucket| bucket).await
    }

    /// As [`Scene::try_shipper_with`], where nothing fails before the first pass.
    pub(super) async fn shipper_with(
        &self,
        faults: Faults,
        decorate: impl FnOnce(Arc<dyn Bucket>) -> Arc<dyn Bucket>,
    ) -> Shipper {
        self.try_shipper_with(faults, decorate).await.unwrap()
    }

    /// A shipper whose data directory and bucket share `faults`, with `decorate` around the bucket.
    pub(super) async fn try_shipper_with(
        &self,
        faults: Faults,
        decorate: impl FnOnce(Arc<dyn Bucket>) -> Arc<dyn Bucket>,
    ) -> Result<Shipper, ShipperError> {
        let bucket = FilesystemBucket::with_faults(self.bucket_dir(), faults.clone());
        let config = ShipperConfig {
            data_dir: self.data(),
            ledger_name: "thanos.shipper.json".into(),
            policy: self.policy,
            hash_func: self.hash_func,
            upload_concurrency: self.concurrency,
            upload_jitter: self.jitter,
            jitter_seed: 1,
        };
        let dependencies = Dependencies {
            bucket: decorate(Arc::new(bucket)),
            engine: DiskEngine::for_tests(BufferPool::new(2)),
            labels: self.labels.subscribe(),
            clock: Clock::fixed(NOW_NS),
            metrics: ShipperMetrics::default(),
            status: self.status.clone(),
            faults,
            tracer: None,
        };
        Shipper::open(config, dependencies).await
    }

    /// The ledger as Prometheus reads it; panics where Prometheus would not understand it.
    pub(super) fn ledger(&self) -> Vec<String> {
        let text = std::fs::read(self.data().join("thanos.shipper.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["version"], 1);
        match &json["uploaded"] {
            serde_json::Value::Null => Vec::new(),
            list => {
                let ids = list.as_array().unwrap().iter();
                ids.map(|id| id.as_str().unwrap().to_owned()).collect()
            }
        }
    }

    /// The blocks that readers of the bucket see.
    pub(super) fn published(&self) -> Vec<BlockId> {
        let Ok(entries) = std::fs::read_dir(self.bucket_dir()) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut ids: Vec<_> = names
            .filter(|name| self.bucket_dir().join(name).join("meta.json").exists())
            .map(|name| name.parse::<BlockId>().unwrap())
            .collect();
        ids.sort();
        ids
    }

    /// Every published block is, byte for byte, the block that Prometheus wrote, and its
    /// `meta.json` tells the truth about its objects.
    pub(super) fn assert_published_blocks_are_whole(&self) {
        for id in self.published() {
            let pristine = &self.pristine[&id];
            let in_bucket = |file: &str| {
                std::fs::read(self.bucket_dir().join(id.to_string()).join(file)).unwrap_or_default()
            };
            let meta = BlockMeta::parse(&in_bucket("meta.json")).unwrap();
            let thanos = meta.thanos.clone().unwrap();
            assert_eq!(thanos.source, "sidecar");
            assert!(!thanos.labels.is_empty());
            let listed: BTreeMap<&str, u64> = thanos
                .files
                .iter()
                .map(|f| (f.rel_path.as_str(), f.size_bytes))
                .collect();
            for (file, bytes) in &pristine.files {
                let path = file.path();
                assert!(
                    listed.contains_key(path.as_str()),
                    "{path} of {id} is not listed"
                );
                if *file != BlockFile::Meta {
                    assert!(
                        in_bucket(&path) == *bytes,
                        "{path} of {id} is not what was written"
                    );
                    assert_eq!(listed[path.as_str()], bytes.len() as u64);
                }
            }
            assert_eq!(listed.len(), pristine.files.len());
            let back = BlockMeta {
                thanos: pristine.meta.thanos.clone(),
                ..meta
            };
            assert_eq!(back, pristine.meta, "what Prometheus wrote is kept");
        }
    }
}
