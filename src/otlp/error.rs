//! What is wrong with a tracing configuration, and why spans could not be sent.

use std::time::Duration;

use http::StatusCode;

use crate::model::DocumentError;
use crate::net::TlsError;
use crate::net::grpc::{Code, ConnectError, Status};
use crate::net::http::{HttpError, InvalidProxyVariable};

/// Why there can be no tracing as the document wants it.
#[derive(Debug, thiserror::Error)]
pub enum TracingConfigError {
    /// Not YAML, a key that is unknown at the top, or a value of another type than wanted.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// No provider of that name.
    #[error("tracing with type `{given}` is not supported, `type` must be one of {known}")]
    Type {
        /// As given.
        given: String,
        /// What there is.
        known: &'static str,
    },
    /// A value that means nothing.
    #[error("`{key}` in line {line} is {given:?}, it must be {wanted}")]
    Value {
        /// The key with those above it.
        key: String,
        /// Its line, from 1.
        line: u64,
        /// As given; not told where it may be a secret.
        given: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A key that has to be there.
    #[error("`{key}` is missing, it must be {wanted}")]
    Missing {
        /// The key with those above it.
        key: &'static str,
        /// What it may be.
        wanted: &'static str,
    },
    /// A provider, or one of its keys, that spans can't be sent by.
    #[error("{what}: {why}; {remedy}")]
    Refused {
        /// The type, or the key with its line.
        what: String,
        /// Why.
        why: &'static str,
        /// What to write instead.
        remedy: String,
    },
    /// An environment variable that means nothing.
    #[error("the environment variable {name} is {given:?}, it must be {wanted}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// As given.
        given: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// The files of `tls_config` can't be used.
    #[error("`config.tls_config` can't be used")]
    Tls {
        /// Why.
        source: TlsError,
    },
    /// A variable for a proxy holds none.
    #[error(transparent)]
    Proxy(#[from] InvalidProxyVariable),
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The collector can't be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The call ended with an error.
    #[error("the collector ended the call with {}: {}", .0.code.name(), .0.message)]
    Status(Status),
    /// The exchange failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It answered with an error.
    #[error("the collector answered {status}: {text}")]
    Answer {
        /// The status.
        status: StatusCode,
        /// The start of what it said.
        text: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The request can't be built.
    #[error("the request can't be built")]
    Request(#[from] http::Error),
    /// It could not be compressed.
    #[error("compressing the spans")]
    Compress(#[from] std::io::Error),
    /// It took longer than `timeout`.
    #[error("the collector did not answer within {0:?}")]
    Timeout(Duration),
}

impl SendError {
    /// Whether the same may go well later: what OTLP's specification lets clients try again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Http(_) | Self::Timeout(_) => true,
            Self::Status(status) => matches!(
                status.code,
                Code::Canceled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
            Self::Answer { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Request(_) | Self::Compress(_) => false,
        }
    }

    /// How long the collector wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
