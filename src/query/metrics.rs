//! What queries count. All names are ours; they are there only where queries are enabled.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{EvaluationKind, QueryError, RewriteError};
use crate::prometheus::PeerErrorClass;

/// Seconds: from an answer out of a cache to the usual `--query.timeout`.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0, 120.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub(super) enum Kind {
    instant,
    range,
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub(super) enum Outcome {
    ok,
    refused,
    unsupported,
    timeout,
    unavailable,
    failed,
    canceled,
}

/// What became of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub(super) enum Rewrite {
    unchanged,
    rewritten,
    unsupported,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    kind: Kind,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RewriteLabels {
    result: Rewrite,
}

/// What queries count.
#[derive(Clone, Debug)]
pub(super) struct QueryMetrics {
    pub(super) in_flight: Gauge,
    pub(super) waiting: Gauge,
    pub(super) gate_seconds: Histogram,
    seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    queries: Family<QueryLabels, Counter>,
    rewrites: Family<RewriteLabels, Counter>,
}

/// A query's entry in the books, which is made when this is dropped.
#[derive(Debug)]
pub(super) struct Account {
    metrics: QueryMetrics,
    kind: Kind,
    began: Instant,
    pub(super) outcome: Outcome,
}

impl Kind {
    const ALL: [Self; 2] = [Self::instant, Self::range];
}

impl From<EvaluationKind> for Kind {
    fn from(kind: EvaluationKind) -> Self {
        match kind {
            EvaluationKind::Instant => Self::instant,
            EvaluationKind::Range => Self::range,
        }
    }
}

impl Outcome {
    pub(super) const ALL: [Self; 7] = [
        Self::ok,
        Self::refused,
        Self::unsupported,
        Self::timeout,
        Self::unavailable,
        Self::failed,
        Self::canceled,
    ];
}

impl From<&QueryError> for Outcome {
    fn from(error: &QueryError) -> Self {
        match error {
            QueryError::Refused { error_type, .. } => match error_type.as_str() {
                "timeout" => Self::timeout,
                "canceled" => Self::canceled,
                "unavailable" => Self::unavailable,
                "internal" => Self::failed,
                _ => Self::refused,
            },
            QueryError::Rewrite(RewriteError::Syntax(_)) | QueryError::Parameter(_) => {
                Self::refused
            }
            QueryError::Rewrite(RewriteError::Unsupported { .. })
            | QueryError::Unsupported { .. } => Self::unsupported,
            QueryError::Unavailable(_) => Self::unavailable,
            QueryError::TimedOut => Self::timeout,
            QueryError::Peer(error) if error.class() == PeerErrorClass::TimedOut => Self::timeout,
            QueryError::Peer(_) | QueryError::Samples(_) => Self::failed,
        }
    }
}

impl Rewrite {
    const ALL: [Self; 3] = [Self::unchanged, Self::rewritten, Self::unsupported];
}

impl QueryMetrics {
    /// Registers all of them, at 0.
    pub(super) fn register(max_concurrent: usize, registry: &mut Registry) -> Self {
        let metrics = Self {
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            gate_seconds: Histogram::new(SECONDS),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            queries: Family::default(),
            rewrites: Family::default(),
        };
        metrics.begin_at_zero();
        let limit: Gauge = Gauge::default();
        limit.set(i64::try_from(max_concurrent).unwrap_or(i64::MAX));
        registry.register(
            "outrigger_query_in_flight",
            "Queries that Prometheus evaluates now, or whose answers are passed on",
            metrics.in_flight.clone(),
        );
        registry.register(
            "outrigger_query_waiting",
            "Queries that wait for their turn",
            metrics.waiting.clone(),
        );
        registry.register(
            "outrigger_query_max_concurrent",
            "How many queries may run at a time",
            limit,
        );
        registry.register(
            "outrigger_query_gate_duration_seconds",
            "How long queries waited for their turn",
            metrics.gate_seconds.clone(),
        );
        registry.register(
            "outrigger_query_duration_seconds",
            "How long queries took, from their arrival to the end of their answers",
            metrics.seconds.clone(),
        );
        registry.register(
            "outrigger_queries",
            "Queries by how they ended",
            metrics.queries.clone(),
        );
        registry.register(
            "outrigger_query_rewrites",
            "Expressions by whether they had to be rewritten for external labels",
            metrics.rewrites.clone(),
        );
        metrics
    }

    fn begin_at_zero(&self) {
        for kind in Kind::ALL {
            drop(self.seconds.get_or_create(&KindLabels { kind }));
            for outcome in Outcome::ALL {
                drop(self.queries.get_or_create(&QueryLabels { kind, outcome }));
            }
        }
        for result in Rewrite::ALL {
            drop(self.rewrites.get_or_create(&RewriteLabels { result }));
        }
    }

    /// A query begins; it counts as canceled unless the entry is told otherwise.
    pub(super) fn begin(&self, kind: EvaluationKind) -> Account {
        Account {
            metrics: self.clone(),
            kind: kind.into(),
            began: Instant::now(),
            outcome: Outcome::canceled,
        }
    }

    pub(super) fn count_rewrite(&self, result: Rewrite) {
        self.rewrites.get_or_create(&RewriteLabels { result }).inc();
    }

    pub(super) fn rewrites(&self, result: Rewrite) -> u64 {
        self.rewrites.get_or_create(&RewriteLabels { result }).get()
    }

    pub(super) fn queries(&self, kind: EvaluationKind, outcome: Outcome) -> u64 {
        let kind = kind.into();
        let counter = self.queries.get_or_create(&QueryLabels { kind, outcome });
        counter.get()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Self { kind, outcome, .. } = *self;
        let seconds = self.began.elapsed().as_secs_f64();
        let histogram = self.metrics.seconds.get_or_create(&KindLabels { kind });
        histogram.observe(seconds);
        let labels = QueryLabels { kind, outcome };
        self.metrics.queries.get_or_create(&labels).inc();
    }
}
