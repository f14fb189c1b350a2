//! What became of spans. Registered where tracing is configured, as the reference's exporters do.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The metrics of sending spans.
#[derive(Clone, Debug)]
pub struct ExportMetrics {
    pub(super) sent: Counter,
    dropped: Family<DropLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: DropReason,
}

#[expect(non_camel_case_types, reason = "these are the values of the label")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum DropReason {
    /// The queue had no room.
    queue_full,
    /// The collector could not be reached in time, or refused the batch.
    export_failed,
    /// The collector took the batch but for these.
    rejected,
}

impl ExportMetrics {
    /// Registers the metrics, every series there from the start.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            sent: Counter::default(),
            dropped: Family::default(),
        };
        registry.register(
            "outrigger_tracing_spans_sent",
            "Spans that the collector took",
            metrics.sent.clone(),
        );
        registry.register(
            "outrigger_tracing_spans_dropped",
            "Spans that were recorded and reached no collector",
            metrics.dropped.clone(),
        );
        for reason in [
            DropReason::queue_full,
            DropReason::export_failed,
            DropReason::rejected,
        ] {
            drop(metrics.dropped(reason));
        }
        metrics
    }

    /// Counts the spans for which there was no room in the queue.
    pub fn without_room(&self) -> Counter {
        self.dropped(DropReason::queue_full)
    }

    pub(super) fn dropped(&self, reason: DropReason) -> Counter {
        self.dropped.get_or_create(&DropLabels { reason }).clone()
    }
}
