//! The reloader's metrics (contract `metrics.md` §7).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the reloader counts.
#[derive(Clone, Debug, Default)]
pub struct ReloaderMetrics {
    pub(super) reloads: Counter,
    pub(super) reloads_failed: Counter,
    pub(super) last_reload_successful: Gauge,
    pub(super) last_reload_success: Gauge,
    pub(super) applies: Counter,
    pub(super) applies_failed: Counter,
    pub(super) expansion_errors: Gauge,
    pub(super) watches: Gauge,
    pub(super) watch_events: Counter,
    pub(super) watch_errors: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

impl ReloaderMetrics {
    /// Registers all of them, at 0; `method` is the one configured, `http` or `signal`.
    pub fn register(method: &'static str, registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let info = Family::<Method, Gauge>::default();
        info.get_or_create(&Method { method }).set(1);
        registry.register(
            "thanos_sidecar_reloader_info",
            "Constantly 1, labelled by how Prometheus is told to reload",
            info,
        );
        let counters: [(&str, &str, &Counter); 6] = [
            (
                "reloads",
                "Reloads that Prometheus was asked for, each retry included",
                &metrics.reloads,
            ),
            (
                "reloads_failed",
                "Reloads that Prometheus was asked for and that failed",
                &metrics.reloads_failed,
            ),
            (
                "config_apply_operations",
                "Looks at configuration and rules, without the first",
                &metrics.applies,
            ),
            (
                "config_apply_operations_failed",
                "Looks at configuration and rules that ended with an error; failed reloads are \
                 not among them",
                &metrics.applies_failed,
            ),
            (
                "watch_events",
                "Changes heard of in watched directories",
                &metrics.watch_events,
            ),
            (
                "watch_errors",
                "Directories that could not be watched, and failures to hear of changes",
                &metrics.watch_errors,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("{PREFIX}{name}"), help, counter.clone());
        }
        let gauges: [(&str, &str, &Gauge); 4] = [
            (
                "last_reload_successful",
                "Whether the last reload succeeded; 0 before the first",
                &metrics.last_reload_successful,
            ),
            (
                "last_reload_success_timestamp_seconds",
                "When a reload last succeeded, in seconds since the Unix epoch; 0 before the first",
                &metrics.last_reload_success,
            ),
            (
                "config_environment_variable_expansion_errors",
                "Variables that the configuration names and that are not set, as far as the last \
                 look at it came",
                &metrics.expansion_errors,
            ),
            ("watches", "Directories that are watched", &metrics.watches),
        ];
        for (name, help, gauge) in gauges {
            registry.register(format!("{PREFIX}{name}"), help, gauge.clone());
        }
        metrics
    }
}

const PREFIX: &str = "thanos_sidecar_reloader_";
