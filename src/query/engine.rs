//! Asks Prometheus and puts the external labels on the answer while it streams by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::time::{Instant, timeout_at};

use super::answer::{Labelled, Source};
use super::gate::{Gate, Running};
use super::lossy;
use super::metrics::{Outcome, QueryMetrics, Rewrite};
use super::stored::StoredLabels;
use super::{
    Evaluated, LabelOverlay, Overlaid, QueryError, ResultType, RewriteError, Rewritten, rewrite,
};
use crate::model::{ExternalLabels, Matcher};
use crate::prometheus::{Client, PeerError, PeerWatch, QueryEndpoint, QueryStream};

/// How many replica labels a query may name: Prometheus is asked about each.
pub const REPLICA_LABELS_MAX: usize = 64;
/// The longest replica label of a query.
const REPLICA_LABEL_BYTES_MAX: usize = 1 << 10;
/// What is rewritten on the thread that took the call; longer texts would hold it up.
const SHORT_QUERY_BYTES: usize = 4 << 10;
/// A limit that is no limit: what a clock can still add to its time.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How to build an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Whom to ask.
    pub client: Client,
    /// Where external labels come from.
    pub peer: PeerWatch,
    /// `--query.max-concurrent`: how many queries run at a time; more wait.
    pub max_concurrent: usize,
    /// `--query.timeout`: the longest a query may take, waiting included.
    pub timeout: Duration,
    /// `--query.replica-label`: what is dropped where a request names none.
    pub replica_labels: Vec<String>,
}

/// At one time or over a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationKind {
    /// `/api/v1/query`
    Instant,
    /// `/api/v1/query_range`
    Range,
}

/// A query as it is asked.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// At one time or over a range.
    pub kind: EvaluationKind,
    /// PromQL over series with external labels.
    pub query: String,
    /// What else Prometheus gets, as given: `time`, `start`, `end`, `step`, `timeout`,
    /// `lookback_delta`, `stats`, `limit`. It is Prometheus that checks it.
    pub params: Vec<(&'static str, String)>,
    /// Labels that the result shall not carry (deduplication); `None`: `--query.replica-label`.
    pub replica_labels: Option<Vec<String>>,
    /// Where not empty, one of these sets has to match the external labels, or the result is
    /// empty: a vector or a matrix without elements, of which Prometheus is not asked. A matcher
    /// on a label that is not external does not count (Thanos `pkg/store/proxy.go`).
    pub store_matchers: Vec<Vec<Matcher>>,
    /// What the caller allows, where that is less than `--query.timeout`.
    pub timeout: Option<Duration>,
}

/// What the engine is doing, for the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryStatus {
    /// Queries that run.
    pub running: usize,
    /// Queries that wait for their turn.
    pub waiting: usize,
    /// `--query.max-concurrent`
    pub max_concurrent: usize,
    /// `--query.timeout`
    pub timeout: Duration,
    /// Queries that were answered whole since the start.
    pub answered: u64,
    /// Queries that ended otherwise, because of the query, of us, or of who asked.
    pub not_answered: u64,
    /// Expressions that were rewritten.
    pub rewritten: u64,
    /// Expressions that could not be.
    pub unsupported: u64,
}

/// Evaluates queries; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: EngineConfig,
    gate: Gate,
    metrics: QueryMetrics,
    stored: Arc<StoredLabels>,
    rewrite: Rewriter,
}

/// How an expression is rewritten; tests have ways of their own.
type Rewriter = fn(&str, &LabelOverlay) -> Result<Rewritten, RewriteError>;

impl Engine {
    /// An engine, with its metrics in `registry`.
    pub fn new(config: EngineConfig, registry: &mut Registry) -> Self {
        Self::with_rewriter(config, registry, rewrite)
    }

    pub(super) fn with_rewriter(
        config: EngineConfig,
        registry: &mut Registry,
        rewrite: Rewriter,
    ) -> Self {
        let metrics = QueryMetrics::register(config.max_concurrent.max(1), registry);
        let (running, waiting) = (metrics.in_flight.clone(), metrics.waiting.clone());
        Self(Arc::new(Inner {
            gate: Gate::new(config.max_concurrent, running, waiting),
            config,
            metrics,
            stored: Arc::default(),
            rewrite,
        }))
    }

    /// Waits for its turn, rewrites, asks, and reads the answer up to where its result begins.
    /// Dropping the future closes the connection, which cancels the query.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn evaluate(&self, evaluation: Evaluation) -> Result<Evaluated, QueryError> {
        let inner = &self.0;
        let mut account = inner.metrics.begin(evaluation.kind);
        let limit = inner.config.timeout;
        let timeout = evaluation.timeout.map_or(limit, |own| own.min(limit));
        let deadline = Instant::now() + timeout.min(FOREVER);
        let begun = timeout_at(deadline, inner.begin(evaluation, deadline)).await;
        match begun.unwrap_or(Err(QueryError::TimedOut)) {
            Ok((source, running)) => Ok(Evaluated::new(source, running, account, deadline)),
            Err(error) => {
                account.outcome = Outcome::from(&error);
                Err(error)
            }
        }
    }

    /// What it is doing.
    pub fn status(&self) -> QueryStatus {
        let inner = &self.0;
        let kinds = [EvaluationKind::Instant, EvaluationKind::Range];
        let count = |outcome| {
            let counts = kinds.map(|kind| inner.metrics.queries(kind, outcome));
            counts.iter().sum::<u64>()
        };
        let others = Outcome::ALL.into_iter().filter(|o| *o != Outcome::ok);
        QueryStatus {
            running: inner.gate.running(),
            waiting: inner.gate.waiting(),
            max_concurrent: inner.gate.running_max(),
            timeout: inner.config.timeout,
            answered: count(Outcome::ok),
            not_answered: others.map(count).sum(),
            rewritten: inner.metrics.rewrites(Rewrite::rewritten),
            unsupported: inner.metrics.rewrites(Rewrite::unsupported),
        }
    }
}

impl Inner {
    async fn begin(
        &self,
        evaluation: Evaluation,
        deadline: Instant,
    ) -> Result<(Source, Running), QueryError> {
        let external = self.external_labels()?;
        let replica = match &evaluation.replica_labels {
            Some(named) if named.len() > REPLICA_LABELS_MAX => {
                let what = format!("more than {REPLICA_LABELS_MAX} replica labels");
                return Err(QueryError::Parameter(what));
            }
            Some(named)
                if named
                    .iter()
                    .any(|name| name.len() > REPLICA_LABEL_BYTES_MAX) =>
            {
                let what = format!("a replica label of more than {REPLICA_LABEL_BYTES_MAX} bytes");
                return Err(QueryError::Parameter(what));
            }
            Some(named) => named,
            None => &self.config.replica_labels,
        };
        let came = Instant::now();
        let running = self.gate.enter().await?;
        let waited = came.elapsed().as_secs_f64();
        self.metrics.gate_seconds.observe(waited);
        if !is_meant(&evaluation.store_matchers, &external)? {
            let result_type = match evaluation.kind {
                EvaluationKind::Instant => ResultType::Vector,
                EvaluationKind::Range => ResultType::Matrix,
            };
            return Ok((Source::Nothing(result_type), running));
        }
        let overlay = self.overlay(&external, replica).await?;
        let rewritten = self.rewritten(&evaluation, &overlay).await?;
        let version = self.config.peer.state.borrow().build_version.clone();
        lossy::check(&self.config.client, &version, &rewritten).await?;
        let stream = self.ask(&evaluation, &rewritten, deadline).await?;
        let stored = Arc::clone(&self.stored);
        let source = Source::Asked(Box::new(Labelled::new(stream, rewritten, stored)));
        Ok((source, running))
    }

    fn external_labels(&self) -> Result<ExternalLabels, QueryError> {
        let state = self.config.peer.state.borrow();
        match state.loaded {
            true => Ok(state.labels.clone()),
            false => Err(QueryError::Unavailable(
                "Prometheus' external labels are not known yet".to_owned(),
            )),
        }
    }

    async fn overlay(
        &self,
        external: &ExternalLabels,
        replica: &[String],
    ) -> Result<LabelOverlay, QueryError> {
        let mut overlay = BTreeMap::new();
        // One without a value does not count as an external label (contract `prometheus.md` §5).
        let external = external.0.iter().filter(|(_, value)| !value.is_empty());
        for (name, value) in external {
            let overlaid = Overlaid {
                external: Some(value.to_owned()),
                is_shown: !replica.iter().any(|replica| replica == name),
                is_stored: false,
            };
            overlay.insert(name.to_owned(), overlaid);
        }
        for name in replica.iter().filter(|name| !name.is_empty()) {
            overlay.entry(name.clone()).or_insert(Overlaid {
                external: None,
                is_shown: false,
                is_stored: false,
            });
        }
        for (name, overlaid) in &mut overlay {
            overlaid.is_stored = self.stored.has(&self.config.client, name).await?;
        }
        Ok(LabelOverlay(overlay))
    }

    async fn rewritten(
        &self,
        evaluation: &Evaluation,
        overlay: &LabelOverlay,
    ) -> Result<Rewritten, QueryError> {
        let query = evaluation.query.as_str();
        let outcome = match query.len() <= SHORT_QUERY_BYTES {
            true => (self.rewrite)(query, overlay),
            false => {
                let (rewrite, query, overlay) = (self.rewrite, query.to_owned(), overlay.clone());
                let thread = tokio::task::spawn_blocking(move || rewrite(&query, &overlay));
                thread.await.unwrap_or_else(|error| {
                    let what = format!("expression: reading it failed: {error}");
                    Err(RewriteError::Unsupported { what })
                })
            }
        };
        match outcome {
            Ok(rewritten) => {
                let result = match rewritten.query == query {
                    true => Rewrite::unchanged,
                    false => Rewrite::rewritten,
                };
                self.metrics.count_rewrite(result);
                Ok(rewritten)
            }
            Err(RewriteError::Syntax(words)) => {
                // Prometheus' words are better, if it refuses too.
                self.check(evaluation).await?;
                self.metrics.count_rewrite(Rewrite::unsupported);
                let what = format!("expression: {words}");
                Err(RewriteError::Unsupported { what }.into())
            }
            Err(error @ RewriteError::Unsupported { .. }) => {
                self.metrics.count_rewrite(Rewrite::unsupported);
                Err(error.into())
            }
        }
    }

    async fn ask(
        &self,
        evaluation: &Evaluation,
        rewritten: &Rewritten,
        deadline: Instant,
    ) -> Result<QueryStream, QueryError> {
        let mut params = vec![("query", rewritten.query.as_str())];
        let given = evaluation.params.iter();
        params.extend(given.map(|(name, value)| (*name, value.as_str())));
        let left = deadline.saturating_duration_since(Instant::now());
        // Prometheus takes 0 for no time at all.
        let left = format!("{:.3}", left.as_secs_f64().max(0.001));
        if !params.iter().any(|(name, _)| *name == "timeout") {
            params.push(("timeout", &left));
        }
        let endpoint = endpoint(evaluation.kind);
        let error = match self.config.client.query(endpoint, &params).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let is_bad = matches!(&error, PeerError::Refused { status, .. } if *status == 400);
        if is_bad && rewritten.query != evaluation.query {
            // Where it is the expression that is refused, the user's own text tells better why.
            if let Err(told @ QueryError::Refused { .. }) = self.check(evaluation).await {
                return Err(told);
            }
        }
        Err(in_users_terms(error, rewritten))
    }

    /// Whether Prometheus takes the user's text. Where it does not, and so will not evaluate it,
    /// the query is asked as it came: each endpoint has words of its own, and looks at other
    /// parameters first.
    async fn check(&self, evaluation: &Evaluation) -> Result<(), QueryError> {
        let (client, query) = (&self.config.client, evaluation.query.as_str());
        let Err(error) = client.check_expression(query).await else {
            return Ok(());
        };
        let mut error = error;
        if matches!(&error, PeerError::Refused { status, .. } if *status == 400) {
            let mut params = vec![("query", query)];
            let given = evaluation.params.iter();
            params.extend(given.map(|(name, value)| (*name, value.as_str())));
            let asked = client.query(endpoint(evaluation.kind), &params).await;
            if let Err(told @ PeerError::Refused { .. }) = asked {
                error = told;
            }
        }
        Err(passed_on(error, |message| message))
    }
}

fn endpoint(kind: EvaluationKind) -> QueryEndpoint {
    match kind {
        EvaluationKind::Instant => QueryEndpoint::Instant,
        EvaluationKind::Range => QueryEndpoint::Range,
    }
}

/// An error about a rewritten expression.
pub(super) fn in_users_terms(error: PeerError, rewritten: &Rewritten) -> QueryError {
    passed_on(error, |message| rewritten.in_users_terms(&message))
}

fn passed_on(error: PeerError, words: impl FnOnce(String) -> String) -> QueryError {
    match error {
        PeerError::Refused {
            status,
            error_type,
            message,
            ..
        } => QueryError::Refused {
            status,
            error_type,
            message: words(message),
        },
        error => error.into(),
    }
}

/// Whether one of the sets, if there are any, matches the external labels.
fn is_meant(sets: &[Vec<Matcher>], external: &ExternalLabels) -> Result<bool, QueryError> {
    let mut is_meant = sets.is_empty();
    for set in sets {
        let mut matches = true;
        for matcher in set {
            if let Some(value) = external.value(&matcher.name) {
                let fits = matcher.matches(value);
                matches &= fits.map_err(|error| QueryError::Parameter(error.to_string()))?;
            }
        }
        is_meant |= matches;
    }
    Ok(is_meant)
}

#[cfg(test)]
mod tests;
