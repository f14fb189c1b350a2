//! Asks Prometheus and puts the external labels on the answer while it streams by.

use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;

use super::QueryError;
use crate::model::Matcher;
use crate::prometheus::{Client, LabelsText, PeerWatch};

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
    /// Where not empty, one of these sets has to match the external labels, or nothing matches.
    pub store_matchers: Vec<Vec<Matcher>>,
    /// What the caller allows, where that is less than `--query.timeout`.
    pub timeout: Option<Duration>,
}

/// `resultType` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// Series with one sample each.
    Vector,
    /// Series with samples.
    Matrix,
    /// One number.
    Scalar,
    /// One string.
    String,
}

/// One element of a result.
#[derive(Debug)]
pub struct Element<'a> {
    /// Sorted by name, the external labels in place; empty for scalar and string.
    pub labels: &'a LabelsText,
    /// The rest of the element as Prometheus wrote it, JSON: of a vector or matrix the members
    /// beside `metric` (`"value":[1.5,"2"]`, `"values":[[…],…]`, `"histogram":…`,
    /// `"histograms":…`, joined by commas), of scalar and string the array `[1.5,"2"]`.
    pub samples: Bytes,
}

/// What stands behind the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// `data.stats` as Prometheus wrote it, JSON; where it was asked for.
    pub stats: Option<Bytes>,
    /// Positions in them are those of the text that the user sent.
    pub warnings: Vec<String>,
    /// As `warnings`.
    pub infos: Vec<String>,
}

/// Evaluates queries; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine;

/// An answer as it comes. Dropping it closes the connection, which cancels the query.
#[derive(Debug)]
pub struct Evaluated;

impl Engine {
    /// An engine, with its metrics in `registry`.
    pub fn new(_config: EngineConfig, _registry: &mut Registry) -> Self {
        todo!()
    }

    /// Waits for its turn, rewrites, asks, and reads the answer up to its first element.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn evaluate(&self, _evaluation: Evaluation) -> Result<Evaluated, QueryError> {
        todo!()
    }
}

impl Evaluated {
    /// Known before the first element.
    pub fn result_type(&self) -> ResultType {
        todo!()
    }

    /// The next element; `None` at the end. A matrix is sorted by labels, as Prometheus' is.
    ///
    /// # Errors
    /// See [`QueryError`]; every later call is an error, too.
    pub async fn next(&mut self) -> Result<Option<Element<'_>>, QueryError> {
        todo!()
    }

    /// What stands behind the result; complete once `next` has given `None`.
    pub fn trailer(&self) -> &Trailer {
        todo!()
    }
}
