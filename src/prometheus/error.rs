//! What goes wrong between us and Prometheus.

use http::StatusCode;

use crate::net::http::HttpError;

/// Why a call to Prometheus has no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No whole response came.
    #[error("requesting {url}")]
    Transport {
        /// The request's URL, without credentials.
        url: String,
        /// Why.
        source: HttpError,
    },
    /// The call took longer than it may.
    #[error("no answer from Prometheus within {after:?}")]
    TimedOut {
        /// The limit.
        after: std::time::Duration,
    },
    /// The status is not the one of success.
    #[error("{url} answered {status}: {message}")]
    Status {
        /// The request's URL, without credentials.
        url: String,
        /// The status.
        status: StatusCode,
        /// The API's error text, or the start of the body.
        message: String,
        /// Whether it said that it is starting up.
        starting: bool,
    },
    /// The API reports a failure under a status of success.
    #[error("{url} answered with an error: {message}")]
    Api {
        /// The request's URL, without credentials.
        url: String,
        /// The API's error text.
        message: String,
    },
    /// The body is not JSON of the form expected.
    #[error("{url} answered with something other than the API's JSON")]
    Malformed {
        /// The request's URL, without credentials.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The configuration inside the answer can't be read.
    #[error("the configuration that {url} gave can't be read")]
    Configuration {
        /// The request's URL, without credentials.
        url: String,
        /// Why.
        source: Box<serde_saphyr::Error>,
    },
    /// A metric is absent or not a number.
    #[error("{url} has no usable `{metric}`{detail}")]
    Metric {
        /// The request's URL, without credentials.
        url: String,
        /// The metric's name.
        metric: &'static str,
        /// The value at fault, or nothing.
        detail: String,
    },
    /// The redirects lead nowhere.
    #[error("stopped after {requests} requests, redirected from {url}")]
    Redirects {
        /// The last URL.
        url: String,
        /// How many requests were sent.
        requests: usize,
    },
    /// A redirect's target is not an http URL.
    #[error("{url} redirects to the unusable location `{location}`")]
    Location {
        /// The URL that redirects.
        url: String,
        /// The target.
        location: String,
    },
    /// A file with a password or token can't be read.
    #[error("reading credentials from {}", path.display())]
    Credentials {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A password or token has bytes that no header may have.
    #[error("the credentials can't be sent in a header")]
    CredentialBytes,
}

impl PeerError {
    /// Whether Prometheus is alive but not ready, because it replays its write-ahead log: it then
    /// answers 503 with the text `Service Unavailable`, where a stopping one says so in a header.
    pub fn is_replaying(&self) -> bool {
        matches!(self, Self::Status { starting: true, .. })
    }

    /// Whether no answer came at all.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Transport { source, .. } => source.is_connect() || source.is_timeout(),
            _ => false,
        }
    }

    /// Whether Prometheus does not know the endpoint.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::Status {
                status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED,
                ..
            }
        )
    }
}
