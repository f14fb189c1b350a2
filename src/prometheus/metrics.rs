//! Metrics of the heartbeat.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// `thanos_sidecar_prometheus_up`.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    pub(super) up: Gauge,
}

impl PeerMetrics {
    /// Registers the gauge at 0.
    pub fn register(registry: &mut Registry) -> Self {
        let up = Gauge::default();
        registry.register(
            "thanos_sidecar_prometheus_up",
            "Whether the Prometheus beside the sidecar answered the last heartbeat",
            up.clone(),
        );
        Self { up }
    }
}
