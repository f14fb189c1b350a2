//! The metrics of StoreAPI (contract `metrics.md` §6, and our own).

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

const FRAMES: [f64; 5] = [10.0, 100.0, 1e3, 1e4, 1e5];
const SERIES: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
/// The reference has no bucket of a million.
const CHUNKS: [f64; 8] = [1.0, 100.0, 1e3, 1e4, 1e5, 1e7, 1e8, 1e9];

/// Which limit ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub(super) enum DropReason {
    series,
    chunks,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DropLabels {
    pub(super) reason: DropReason,
}

/// What the StoreAPI counts.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    pub(super) received_frames: Histogram,
    pub(super) series_requested: Histogram,
    pub(super) chunks_requested: Histogram,
    pub(super) pending: Gauge,
    pub(super) selects_dropped: Family<DropLabels, Counter>,
    pub(super) sorted: Counter,
    pub(super) shared: Counter,
}

impl StoreMetrics {
    /// Registers all of them, at 0.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            received_frames: Histogram::new(FRAMES),
            series_requested: Histogram::new(SERIES),
            chunks_requested: Histogram::new(CHUNKS),
            pending: Gauge::default(),
            selects_dropped: Family::default(),
            sorted: Counter::default(),
            shared: Counter::default(),
        };
        for reason in [DropReason::series, DropReason::chunks] {
            drop(
                metrics
                    .selects_dropped
                    .get_or_create(&DropLabels { reason }),
            );
        }
        registry.register(
            "prometheus_store_received_frames",
            "Frames of a streamed remote read",
            metrics.received_frames.clone(),
        );
        registry.register(
            "thanos_store_server_series_requested",
            "Series sent in answer to one successful Series call",
            metrics.series_requested.clone(),
        );
        registry.register(
            "thanos_store_server_chunks_requested",
            "Chunks sent in answer to one successful Series call",
            metrics.chunks_requested.clone(),
        );
        registry.register(
            "thanos_store_server_pending_series_requests",
            "Series calls that run or wait to run",
            metrics.pending.clone(),
        );
        registry.register(
            "thanos_store_selects_dropped",
            "Series calls ended by a limit",
            metrics.selects_dropped.clone(),
        );
        registry.register(
            "outrigger_store_sorted_selects",
            "Series calls whose series could not be sent in the order in which they came",
            metrics.sorted.clone(),
        );
        registry.register(
            "outrigger_store_shared_selects",
            "Series calls that read along with another one instead of asking Prometheus",
            metrics.shared.clone(),
        );
        metrics
    }
}
