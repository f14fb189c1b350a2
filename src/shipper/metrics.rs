//! The shipper's metrics (contract `metrics.md` §3, and our own).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the shipper counts.
#[derive(Clone, Debug, Default)]
pub struct ShipperMetrics {
    pub(super) dir_syncs: Counter,
    pub(super) dir_sync_failures: Counter,
    pub(super) uploads: Counter,
    pub(super) upload_failures: Counter,
    pub(super) corrupted_blocks: Counter,
    pub(super) upload_compacted_done: Gauge,
    pub(super) corrupt_now: Gauge,
    pub(super) held_back_now: Gauge,
    pub(super) upload_block_bytes: Gauge,
    pub(super) upload_sent_bytes: Gauge,
}

impl ShipperMetrics {
    /// Registers all of them, at 0.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "thanos_shipper_dir_syncs",
            "Looks at the data directory that reached their end",
            metrics.dir_syncs.clone(),
        );
        registry.register(
            "thanos_shipper_dir_sync_failures",
            "Looks at the data directory that ended early",
            metrics.dir_sync_failures.clone(),
        );
        registry.register(
            "thanos_shipper_uploads",
            "Blocks shipped",
            metrics.uploads.clone(),
        );
        registry.register(
            "thanos_shipper_upload_failures",
            "Blocks whose upload failed",
            metrics.upload_failures.clone(),
        );
        registry.register(
            "thanos_shipper_corrupted_blocks",
            "Blocks found corrupt and not shipped",
            metrics.corrupted_blocks.clone(),
        );
        registry.register(
            "thanos_shipper_upload_compacted_done",
            "Whether the last whole look at the data directory, compacted blocks \
             included, left nothing to ship",
            metrics.upload_compacted_done.clone(),
        );
        registry.register(
            "outrigger_shipper_corrupt_blocks",
            "Blocks on the disk now that are corrupted and therefore left out",
            metrics.corrupt_now.clone(),
        );
        registry.register(
            "outrigger_shipper_held_back_blocks",
            "Blocks that wait because an older one could not be read or sent",
            metrics.held_back_now.clone(),
        );
        registry.register(
            "outrigger_upload_block_bytes",
            "Size of the block that is being shipped; 0 while there is none",
            metrics.upload_block_bytes.clone(),
        );
        registry.register(
            "outrigger_upload_sent_bytes",
            "Bytes of the block being shipped that are in the bucket",
            metrics.upload_sent_bytes.clone(),
        );
        metrics
    }
}
