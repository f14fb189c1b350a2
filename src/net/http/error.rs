//! What goes wrong between a request and the end of its response's body.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

/// A boxed cause from the libraries below.
pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request has no (whole) response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL names no host, or its scheme is neither http nor https.
    #[error("`{uri}` is not an absolute http or https URL")]
    NotAbsolute {
        /// As given.
        uri: http::Uri,
    },
    /// No connection came about: refused, unreachable, TLS failure, proxy failure, timeout.
    #[error("connecting to {authority}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Whether a time limit ended the attempt.
        timed_out: bool,
        /// Why.
        source: BoxError,
    },
    /// The connection broke before the response's header was whole.
    #[error("exchanging a request with {authority}")]
    Exchange {
        /// Host and port.
        authority: String,
        /// Why.
        source: BoxError,
    },
    /// The peer did not take the whole request.
    #[error("{authority} did not take the request within {after:?}")]
    RequestTimeout {
        /// Host and port.
        authority: String,
        /// The limit.
        after: Duration,
    },
    /// The request was sent whole and no response header came.
    #[error("no response header from {authority} within {after:?}")]
    HeaderTimeout {
        /// Host and port.
        authority: String,
        /// The limit.
        after: Duration,
    },
    /// The connection broke inside the body.
    #[error("reading the response body")]
    Body {
        /// Why.
        source: hyper::Error,
    },
    /// The connection broke or closed inside the body, or what frames the body is broken.
    #[error("reading the response body from the connection")]
    Interrupted {
        /// Why.
        source: io::Error,
    },
    /// The body is not the gzip it claims to be, or ends early.
    #[error("decompressing the response body")]
    Gzip {
        /// Why.
        source: io::Error,
    },
    /// The body is longer than the limit the caller named.
    #[error("the response body is longer than {limit} ({limit_bytes} bytes)")]
    BodyTooLarge {
        /// The limit's name.
        limit: &'static str,
        /// The limit.
        limit_bytes: usize,
    },
}

impl HttpError {
    /// Whether no connection came about, so that the request can't have been seen by the peer.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }

    /// Whether a time limit ended the request.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::HeaderTimeout { .. }
                | Self::RequestTimeout { .. }
                | Self::Connect {
                    timed_out: true,
                    ..
                }
        )
    }
}
