//! Liveness and readiness, as the probe endpoints and `thanos_status` tell them.
//!
//! Readiness is not a latch: it goes back to "not ready" when Prometheus goes away
//! (contract `prometheus.md` §4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The process's health and readiness: cheap to clone, every clone is the same probe.
#[derive(Clone, Debug)]
pub struct Probe(Arc<State>);

#[derive(Debug)]
struct State {
    healthy: AtomicBool,
    ready: AtomicBool,
    metrics: ProbeMetrics,
}

/// `thanos_status{component="sidecar",check="healthy"|"ready"}`.
#[derive(Clone, Debug)]
pub struct ProbeMetrics {
    healthy: Gauge,
    ready: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Check {
    check: &'static str,
    component: &'static str,
}

// === impl Probe ===

impl Probe {
    /// A probe that is neither healthy nor ready yet.
    pub fn new(metrics: ProbeMetrics) -> Self {
        Self(Arc::new(State {
            healthy: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            metrics,
        }))
    }

    /// Whether the process is up and not past its end.
    pub fn is_healthy(&self) -> bool {
        self.0.healthy.load(Ordering::Relaxed)
    }

    /// Whether the process can do its work now.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// Marks the process healthy.
    pub fn healthy(&self) {
        self.0.healthy.store(true, Ordering::Relaxed);
        self.0.metrics.healthy.set(1);
    }

    /// Marks the process as ending; `reason` is logged at the change.
    pub fn not_healthy(&self, reason: &dyn std::fmt::Display) {
        self.0.metrics.healthy.set(0);
        if self.0.healthy.swap(false, Ordering::Relaxed) {
            tracing::info!(%reason, "changing probe status to not healthy");
        }
    }

    /// Marks the process ready; logged at the change.
    pub fn ready(&self) {
        self.0.metrics.ready.set(1);
        if !self.0.ready.swap(true, Ordering::Relaxed) {
            tracing::info!(status = "ready", "changing probe status");
        }
    }

    /// Marks the process not ready; `reason` is logged at the change.
    pub fn not_ready(&self, reason: &dyn std::fmt::Display) {
        self.0.metrics.ready.set(0);
        if self.0.ready.swap(false, Ordering::Relaxed) {
            tracing::warn!(status = "not-ready", %reason, "changing probe status");
        }
    }
}

// === impl ProbeMetrics ===

impl ProbeMetrics {
    /// Registers `thanos_status`, both checks at 0.
    pub fn register(registry: &mut Registry) -> Self {
        let family = Family::<Check, Gauge>::default();
        registry.register(
            "thanos_status",
            "Represents status (0 indicates failure, 1 indicates success) of the component",
            family.clone(),
        );
        let gauge = |check| {
            family
                .get_or_create(&Check {
                    check,
                    component: "sidecar",
                })
                .clone()
        };
        Self {
            healthy: gauge("healthy"),
            ready: gauge("ready"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_goes_both_ways_and_shows_in_the_metric() {
        let mut registry = Registry::default();
        let probe = Probe::new(ProbeMetrics::register(&mut registry));
        let text = |registry: &Registry| {
            let mut out = String::new();
            prometheus_client::encoding::text::encode(&mut out, registry).unwrap();
            out
        };
        assert!(text(&registry).contains(r#"thanos_status{check="ready",component="sidecar"} 0"#));
        probe.ready();
        probe.healthy();
        assert!(probe.is_ready() && probe.is_healthy());
        assert!(text(&registry).contains(r#"thanos_status{check="ready",component="sidecar"} 1"#));
        probe.not_ready(&"Prometheus is away");
        assert!(!probe.is_ready() && probe.is_healthy());
        probe.not_healthy(&"end");
        assert!(
            text(&registry).contains(r#"thanos_status{check="healthy",component="sidecar"} 0"#)
        );
    }
}
