//! Why a query has no answer, in the classes of Prometheus' HTTP API.

use http::StatusCode;

use super::RewriteError;
use crate::prometheus::PeerError;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// What Prometheus itself says of the query; its status and words are passed on.
    #[error("{message}")]
    Refused {
        /// The status of its answer: 400, 422, 503, …
        status: StatusCode,
        /// `errorType` of its answer: `bad_data`, `execution`, `timeout`, `canceled`, …
        error_type: String,
        /// `error` of its answer; positions are those of the text that the user sent.
        message: String,
    },
    /// The expression can't be evaluated with external labels in place.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// A parameter of ours is wrong: `bad_data`.
    #[error("{0}")]
    Parameter(String),
    /// Too many wait already, or Prometheus has no external labels known yet: `unavailable`.
    #[error("{0}")]
    Unavailable(String),
    /// `--query.timeout`, or the caller's own, has passed.
    #[error("query timed out")]
    TimedOut,
    /// Prometheus can't be reached, or its answer can't be read.
    #[error("asking Prometheus")]
    Peer(#[from] PeerError),
}

impl QueryError {
    /// The HTTP status of Prometheus' API for this error.
    pub fn status(&self) -> StatusCode {
        todo!()
    }

    /// `errorType` of Prometheus' API.
    pub fn error_type(&self) -> &str {
        todo!()
    }
}
