//! The server's metrics, under the names that dashboards know (contract `metrics.md` §5).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::Method;
use super::status::Code;

const SECONDS_BUCKETS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandledLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

/// What the gRPC server counts.
#[derive(Clone, Debug)]
pub struct GrpcMetrics {
    started: Family<MethodLabels, Counter>,
    handled: Family<HandledLabels, Counter>,
    received: Family<MethodLabels, Counter>,
    sent: Family<MethodLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    panics: Counter,
}

/// One call being counted. One that is dropped unfinished ends as `Canceled`: that is what
/// happens to calls whose connection is lost.
#[derive(Debug)]
pub(super) struct CallRecord {
    metrics: GrpcMetrics,
    method: Method,
    started: Instant,
    is_finished: bool,
}

// === impl GrpcMetrics ===

impl GrpcMetrics {
    /// Registers the metrics; the series of `methods` are there at 0 with every code, those of
    /// other methods from their first call on.
    pub fn register(registry: &mut Registry, methods: &[Method]) -> Self {
        let metrics = Self {
            started: Family::default(),
            handled: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS)),
            panics: Counter::default(),
        };
        registry.register(
            "grpc_server_started",
            "Calls begun on the server",
            metrics.started.clone(),
        );
        registry.register(
            "grpc_server_handled",
            "Calls ended on the server, whatever the outcome",
            metrics.handled.clone(),
        );
        registry.register(
            "grpc_server_msg_received",
            "Messages the server received",
            metrics.received.clone(),
        );
        registry.register(
            "grpc_server_msg_sent",
            "Messages the server sent",
            metrics.sent.clone(),
        );
        registry.register(
            "grpc_server_handling_seconds",
            "How long calls took on the server, in seconds",
            metrics.seconds.clone(),
        );
        registry.register(
            "grpc_req_panics_recovered",
            "Calls whose handler panicked",
            metrics.panics.clone(),
        );
        for method in methods {
            let labels = labels(*method);
            drop(metrics.started.get_or_create(&labels));
            drop(metrics.received.get_or_create(&labels));
            drop(metrics.sent.get_or_create(&labels));
            drop(metrics.seconds.get_or_create(&labels));
            for code in Code::ALL {
                drop(
                    metrics
                        .handled
                        .get_or_create(&handled_labels(*method, code)),
                );
            }
        }
        metrics
    }

    pub(super) fn start(&self, method: Method) -> CallRecord {
        self.started.get_or_create(&labels(method)).inc();
        CallRecord {
            metrics: self.clone(),
            method,
            started: Instant::now(),
            is_finished: false,
        }
    }

    pub(super) fn received(&self, method: Method) -> Counter {
        self.received.get_or_create(&labels(method)).clone()
    }

    pub(super) fn sent(&self, method: Method) -> Counter {
        self.sent.get_or_create(&labels(method)).clone()
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }
}

// === impl CallRecord ===

impl CallRecord {
    /// Counts the end; returns how long the call took.
    pub(super) fn finish(mut self, code: Code) -> std::time::Duration {
        self.end(code)
    }

    fn end(&mut self, code: Code) -> std::time::Duration {
        self.is_finished = true;
        let duration = self.started.elapsed();
        let handled = &self.metrics.handled;
        handled
            .get_or_create(&handled_labels(self.method, code))
            .inc();
        let seconds = self.metrics.seconds.get_or_create(&labels(self.method));
        seconds.observe(duration.as_secs_f64());
        duration
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if !self.is_finished {
            self.end(Code::Canceled);
        }
    }
}

fn labels(method: Method) -> MethodLabels {
    MethodLabels {
        grpc_type: method.kind.name(),
        grpc_service: method.service,
        grpc_method: method.name,
    }
}

fn handled_labels(method: Method, code: Code) -> HandledLabels {
    HandledLabels {
        grpc_type: method.kind.name(),
        grpc_service: method.service,
        grpc_method: method.name,
        grpc_code: code.name(),
    }
}
