//! What goes wrong between us and Prometheus.

use http::StatusCode;

use super::api::JsonError;
use super::remote_read::{FrameError, FrameErrorKind, SamplesError};
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
        /// The body, up to 64 KiB of it.
        body: String,
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
    /// Prometheus says why it does not answer a query, whatever the status.
    #[error("{url} answered {status}: {message}")]
    Refused {
        /// The request's URL, without credentials.
        url: String,
        /// The status, which is one of success where the answer broke off in the end.
        status: StatusCode,
        /// `errorType`: `bad_data`, `execution`, `timeout`, …
        error_type: String,
        /// `error`, whole.
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
    /// The body is not JSON of the form expected, or ends early.
    #[error("{url} answered with something other than the API's JSON")]
    Json {
        /// The request's URL, without credentials.
        url: String,
        /// Where and why.
        source: JsonError,
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
    /// No URL can ask this: its query is too long.
    #[error("a query of {query_bytes} bytes does not fit a request to {url}")]
    Unaskable {
        /// The request's URL, without credentials.
        url: String,
        /// The length of what would stand behind `?`.
        query_bytes: usize,
    },
    /// Remote read is answered in a form that is unknown here.
    #[error("not supported remote read content type: {content_type}")]
    ContentType {
        /// As the header says.
        content_type: String,
    },
    /// A streamed answer would end with its connection, so whether it is whole can't be known.
    #[error(
        "the stream that {url} answers with has neither a length nor chunked coding, so its end \
         can't be told from a lost connection"
    )]
    Undelimited {
        /// The request's URL, without credentials.
        url: String,
    },
    /// A streamed answer is broken.
    #[error("reading the answer of {url}")]
    Frame {
        /// The request's URL, without credentials.
        url: String,
        /// Where and why.
        source: FrameError,
    },
    /// An answer in samples is broken or too large.
    #[error("reading the answer of {url}")]
    Samples {
        /// The request's URL, without credentials.
        url: String,
        /// Why.
        source: SamplesError,
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

/// What kind of failure it is, for a status towards our own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerErrorClass {
    /// No connection came about.
    Unreachable,
    /// A time limit passed.
    TimedOut,
    /// Prometheus refused, with this status.
    Status(StatusCode),
    /// Prometheus reports a failure under a status of success.
    Api,
    /// The connection broke before the answer was whole.
    Interrupted,
    /// The question or the answer is larger than what is let through here.
    TooLarge,
    /// The answer is not what it must be.
    Invalid,
    /// The way to Prometheus is misconfigured: credentials, redirects.
    Setup,
}

impl PeerError {
    /// What kind of failure it is.
    pub fn class(&self) -> PeerErrorClass {
        match self {
            Self::TimedOut { .. } => PeerErrorClass::TimedOut,
            Self::Status { status, .. } => PeerErrorClass::Status(*status),
            Self::Refused { status, .. } if !status.is_success() => PeerErrorClass::Status(*status),
            Self::Api { .. } | Self::Refused { .. } => PeerErrorClass::Api,
            Self::Transport { source, .. } => match source {
                error if error.is_timeout() => PeerErrorClass::TimedOut,
                error if error.is_connect() => PeerErrorClass::Unreachable,
                HttpError::BodyTooLarge { .. } => PeerErrorClass::TooLarge,
                HttpError::NotAbsolute { .. } => PeerErrorClass::Setup,
                _ => PeerErrorClass::Interrupted,
            },
            Self::Frame { source, .. } => match source.kind {
                FrameErrorKind::Truncated { .. } => PeerErrorClass::Interrupted,
                FrameErrorKind::TooLarge { .. } => PeerErrorClass::TooLarge,
                _ => PeerErrorClass::Invalid,
            },
            Self::Samples {
                source: SamplesError::TooLarge { .. },
                ..
            }
            | Self::Samples {
                source: SamplesError::TooManySeries | SamplesError::Busy,
                ..
            }
            | Self::Unaskable { .. } => PeerErrorClass::TooLarge,
            Self::Malformed { .. }
            | Self::Json { .. }
            | Self::Configuration { .. }
            | Self::Metric { .. }
            | Self::ContentType { .. }
            | Self::Undelimited { .. }
            | Self::Samples { .. } => PeerErrorClass::Invalid,
            Self::Redirects { .. }
            | Self::Location { .. }
            | Self::Credentials { .. }
            | Self::CredentialBytes => PeerErrorClass::Setup,
        }
    }

    /// The status that Prometheus refused with, and its body.
    pub fn status(&self) -> Option<(StatusCode, &str)> {
        match self {
            Self::Status { status, body, .. } => Some((*status, body)),
            _ => None,
        }
    }

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
            } | Self::Refused {
                status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED,
                ..
            }
        )
    }
}
