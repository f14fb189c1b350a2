//! Why a query has no answer, in the classes of Prometheus' HTTP API.

use http::StatusCode;

use super::{RewriteError, SamplesError};
use crate::prometheus::{PeerError, PeerErrorClass};

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
    /// A result can't be told faithfully, though Prometheus gave it: `execution`.
    #[error("unsupported {what}")]
    Unsupported {
        /// What it has.
        what: String,
    },
    /// Samples can't be read.
    #[error("reading samples of Prometheus' answer")]
    Samples(#[from] SamplesError),
    /// Prometheus can't be reached, or its answer can't be read.
    #[error("asking Prometheus")]
    Peer(#[from] PeerError),
}

/// The classes of Prometheus' API that errors of ours are of.
const BAD_DATA: &str = "bad_data";
const EXECUTION: &str = "execution";
const INTERNAL: &str = "internal";
const TIMEOUT: &str = "timeout";
const UNAVAILABLE: &str = "unavailable";

impl QueryError {
    /// The HTTP status of Prometheus' API for this error.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused {
                status, error_type, ..
            } => match status.is_success() {
                // The answer broke off after its status was sent.
                true => status_of(error_type),
                false => *status,
            },
            error => status_of(error.error_type()),
        }
    }

    /// `errorType` of Prometheus' API.
    pub fn error_type(&self) -> &str {
        match self {
            Self::Refused { error_type, .. } => error_type,
            Self::Rewrite(RewriteError::Syntax(_)) | Self::Parameter(_) => BAD_DATA,
            Self::Rewrite(RewriteError::Unsupported { .. }) | Self::Unsupported { .. } => EXECUTION,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::TimedOut => TIMEOUT,
            Self::Samples(_) => INTERNAL,
            Self::Peer(error) => match error.class() {
                PeerErrorClass::TimedOut => TIMEOUT,
                PeerErrorClass::Unreachable | PeerErrorClass::Interrupted => UNAVAILABLE,
                // A proxy, or a Prometheus that is not ready.
                PeerErrorClass::Status(status) => match status {
                    StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::TOO_MANY_REQUESTS => UNAVAILABLE,
                    StatusCode::GATEWAY_TIMEOUT => TIMEOUT,
                    _ => INTERNAL,
                },
                PeerErrorClass::TooLarge => EXECUTION,
                PeerErrorClass::Api | PeerErrorClass::Invalid | PeerErrorClass::Setup => INTERNAL,
            },
        }
    }
}

/// The status that Prometheus' API has for a class.
fn status_of(error_type: &str) -> StatusCode {
    match error_type {
        BAD_DATA => StatusCode::BAD_REQUEST,
        EXECUTION => StatusCode::UNPROCESSABLE_ENTITY,
        "not_found" => StatusCode::NOT_FOUND,
        "not_acceptable" => StatusCode::NOT_ACCEPTABLE,
        // The client went away, so this is for logs.
        "canceled" => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        TIMEOUT | UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_classes_and_statuses_of_the_api() {
        let refused = |status: u16, error_type: &str| QueryError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            error_type: error_type.to_owned(),
            message: "m".to_owned(),
        };
        let unsupported = RewriteError::Unsupported {
            what: "x".to_owned(),
        };
        let peer = |status: u16| {
            QueryError::Peer(PeerError::Status {
                url: String::new(),
                status: StatusCode::from_u16(status).unwrap(),
                message: String::new(),
                body: String::new(),
                starting: false,
            })
        };
        let timed_out = PeerError::TimedOut {
            after: std::time::Duration::ZERO,
        };
        for (error, error_type, status) in [
            (refused(422, "execution"), "execution", 422),
            (refused(503, "timeout"), "timeout", 503),
            (refused(200, "bad_data"), "bad_data", 400),
            (refused(200, "canceled"), "canceled", 499),
            (
                refused(200, "of_a_later_version"),
                "of_a_later_version",
                500,
            ),
            (RewriteError::Syntax(String::new()).into(), "bad_data", 400),
            (unsupported.into(), "execution", 422),
            (QueryError::Parameter(String::new()), "bad_data", 400),
            (QueryError::Unavailable(String::new()), "unavailable", 503),
            (QueryError::TimedOut, "timeout", 503),
            (QueryError::Peer(timed_out), "timeout", 503),
            (peer(502), "unavailable", 503),
            (peer(503), "unavailable", 503),
            (peer(504), "timeout", 503),
            (peer(401), "internal", 500),
        ] {
            assert_eq!(error.error_type(), error_type, "{error:?}");
            assert_eq!(error.status().as_u16(), status, "{error:?}");
        }
    }
}
