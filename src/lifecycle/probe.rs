//! Liveness and readiness, as the probe endpoints and `thanos_status` tell them.
//!
//! Readiness is not a latch: it goes back to "not ready" when Prometheus goes away
//! (contract `prometheus.md` §4).

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// The process's health and readiness: cheap to clone, every clone is the same probe.
#[derive(Clone, Debug)]
pub struct Probe(Arc<State>);

#[derive(Debug)]
struct State {
    status: watch::Sender<ProbeStatus>,
    metrics: ProbeMetrics,
}

/// What a probe says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Whether the process is up and not past its end.
    pub healthy: bool,
    /// Whether the process can do its work now.
    pub ready: bool,
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
            status: watch::Sender::default(),
            metrics,
        }))
    }

    /// Whether the process is up and not past its end.
    pub fn is_healthy(&self) -> bool {
        self.0.status.borrow().healthy
    }

    /// Whether the process can do its work now.
    pub fn is_ready(&self) -> bool {
        self.0.status.borrow().ready
    }

    /// What the probe says, now and at each change.
    pub fn status(&self) -> watch::Receiver<ProbeStatus> {
        self.0.status.subscribe()
    }

    /// Marks the process healthy.
    pub fn healthy(&self) {
        self.0.metrics.healthy.set(1);
        self.set(|status| &mut status.healthy, true);
    }

    /// Marks the process as ending; `reason` is logged at the change.
    pub fn not_healthy(&self, reason: &dyn std::fmt::Display) {
        self.0.metrics.healthy.set(0);
        if self.set(|status| &mut status.healthy, false) {
            tracing::info!(%reason, "changing probe status to not healthy");
        }
    }

    /// Marks the process ready; logged at the change.
    pub fn ready(&self) {
        self.0.metrics.ready.set(1);
        if self.set(|status| &mut status.ready, true) {
            tracing::info!(status = "ready", "changing probe status");
        }
    }

    /// Marks the process not ready; `reason` is logged at the change.
    pub fn not_ready(&self, reason: &dyn std::fmt::Display) {
        self.0.metrics.ready.set(0);
        if self.set(|status| &mut status.ready, false) {
            tracing::warn!(status = "not-ready", %reason, "changing probe status");
        }
    }

    /// Sets one side of the status; whether it was another before.
    fn set(&self, side: fn(&mut ProbeStatus) -> &mut bool, to: bool) -> bool {
        let change = |status: &mut ProbeStatus| std::mem::replace(side(status), to) != to;
        self.0.status.send_if_modified(change)
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
        let mut status = probe.status();
        probe.ready();
        probe.healthy();
        assert!(probe.is_ready() && probe.is_healthy());
        assert!(status.has_changed().unwrap());
        assert!(status.borrow_and_update().ready);
        probe.ready();
        assert!(!status.has_changed().unwrap(), "told only when it changes");
        assert!(text(&registry).contains(r#"thanos_status{check="ready",component="sidecar"} 1"#));
        probe.not_ready(&"Prometheus is away");
        assert!(!probe.is_ready() && probe.is_healthy());
        probe.not_healthy(&"end");
        assert!(
            text(&registry).contains(r#"thanos_status{check="healthy",component="sidecar"} 0"#)
        );
    }
}
