//! The metrics of local blocks, all our own.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::plan::Plan;

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
enum PlanKind {
    local,
    mixed,
    remote,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlanLabels {
    kind: PlanKind,
}

/// What local blocks count.
#[derive(Clone, Debug, Default)]
pub struct BlockMetrics {
    pub(super) on: Gauge,
    pub(super) blocks: Gauge,
    pub(super) unreadable: Gauge,
    pub(super) open: Gauge,
    pub(super) cut_seconds: Gauge<f64, AtomicU64>,
    plans: Family<PlanLabels, Counter>,
}

impl BlockMetrics {
    /// Registers all of them, at 0.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for kind in [PlanKind::local, PlanKind::mixed, PlanKind::remote] {
            drop(metrics.plans.get_or_create(&PlanLabels { kind }));
        }
        registry.register(
            "outrigger_store_local_blocks_enabled",
            "Whether blocks of the data directory answer: they are proven to be Prometheus'",
            metrics.on.clone(),
        );
        registry.register(
            "outrigger_store_local_blocks",
            "Blocks of the data directory that may answer",
            metrics.blocks.clone(),
        );
        registry.register(
            "outrigger_store_local_unreadable_blocks",
            "Blocks of the data directory that can't be read, so that Prometheus answers for them",
            metrics.unreadable.clone(),
        );
        registry.register(
            "outrigger_store_local_open_blocks",
            "Blocks of the data directory that are held open",
            metrics.open.clone(),
        );
        registry.register(
            "outrigger_store_local_cut_timestamp_seconds",
            "The time from which on Prometheus answers, 0 where it answers for all times",
            metrics.cut_seconds.clone(),
        );
        registry.register(
            "outrigger_store_local_plans",
            "Requests by who answered: local blocks, Prometheus, or both",
            metrics.plans.clone(),
        );
        metrics
    }

    pub(super) fn planned(&self, plan: &Plan) {
        let kind = match (plan.covered.is_empty(), plan.remote.is_empty()) {
            (true, _) => PlanKind::remote,
            (false, true) => PlanKind::local,
            (false, false) => PlanKind::mixed,
        };
        self.plans.get_or_create(&PlanLabels { kind }).inc();
    }
}
