//! Why a StoreAPI call has no answer, or no whole one.

use super::blocks::{BlockError, SelectError};
use crate::model::PatternError;
use crate::prometheus::{PeerError, PeerErrorClass};
use crate::tsdb::DecodeError;

/// What a caller is told; `api` makes a status code of it (contract `grpc.md` §3.7, and where
/// `design.md` §5 says more than "unknown").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request can't be answered as it is.
    InvalidArgument,
    /// What was asked for is not there.
    NotFound,
    /// A limit of ours ends the call.
    ResourceExhausted,
    /// Prometheus can't be asked now, or broke off; another try may succeed.
    Unavailable,
    /// Prometheus failed, or said what can't be understood.
    Internal,
    /// The caller is gone.
    Canceled,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// `--store.limits.request-series`.
    Series,
    /// `--store.limits.request-samples`.
    Samples,
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Series => "series",
            Self::Samples => "samples",
        })
    }
}

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A matcher's pattern is no regular expression.
    #[error("the matcher of label {name:?}")]
    Pattern {
        /// The matcher's label.
        name: String,
        /// Why.
        source: PatternError,
    },
    /// A matcher's type is none that is known.
    #[error("unrecognized label matcher type [{value}]")]
    MatcherType {
        /// The number on the wire.
        value: i32,
    },
    /// Every matcher was one of external labels (contract `grpc.md` §3.1).
    #[error("no matchers specified (excluding external labels)")]
    NoMatchers,
    /// A part of the request is larger than it may be.
    #[error("{got} {what}, at most {limit} are taken")]
    RequestTooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// How much there may be.
        limit: usize,
    },
    /// LabelValues without a name.
    #[error("label name parameter cannot be empty")]
    EmptyLabelName,
    /// `--store.limits.*` (contract `grpc.md` §3.8).
    #[error("failed to send {what}: limit {limit} violated (got {got})")]
    Limit {
        /// What is counted.
        what: Limited,
        /// The flag's value.
        limit: u64,
        /// The count with what was not sent any more.
        got: u64,
    },
    /// The buffer for sorting is used up, over all calls.
    #[error(
        "the series have to be sorted ({why}) and do not fit into \
         --store.sort-buffer ({bytes_max} bytes over all calls)"
    )]
    SortBuffer {
        /// Why they can't be sent as they come.
        why: &'static str,
        /// The flag's value.
        bytes_max: u64,
    },
    /// Too many calls wait already.
    #[error("too many {what}: {running} run and {waiting} wait")]
    TooManyCalls {
        /// Of which kind, and the flag if there is one.
        what: &'static str,
        /// How many may run.
        running: usize,
        /// How many may wait.
        waiting: usize,
    },
    /// Series came in another order than asked for.
    #[error("Prometheus sent series out of order")]
    OutOfOrder,
    /// A series has a label of its own where the answer was planned without.
    #[error(
        "a series has a label {name:?} of its own, like the external or replica label, \
         though a moment ago none had"
    )]
    Conflict {
        /// The label.
        name: String,
    },
    /// A series' labels are longer than any real ones.
    #[error("the labels of one series have more than {bytes_max} bytes")]
    LabelsTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// A chunk of a kind that StoreAPI has no name for and that can't be rewritten.
    #[error("Prometheus sent a chunk of the unknown encoding {id}")]
    Encoding {
        /// The number on the wire.
        id: i32,
    },
    /// A chunk that has to be rewritten is damaged.
    #[error("a chunk that Prometheus sent can't be read")]
    Chunk(#[from] DecodeError),
    /// Prometheus gave no usable answer.
    #[error("asking Prometheus")]
    Peer(#[from] PeerError),
    /// The read that this call shared with others failed; the others have the cause.
    #[error("{message}")]
    Shared {
        /// The cause, with its chain.
        message: String,
        /// Its class.
        class: ErrorClass,
    },
    /// To find the series in local blocks takes too much.
    #[error(transparent)]
    Select(SelectError),
    /// A local block is damaged or gone; Prometheus is asked from now on.
    #[error("reading local blocks")]
    Block(#[source] Box<BlockError>),
    /// Nobody listens any more.
    #[error("the caller is gone")]
    CallerGone,
}

impl StoreError {
    /// What the caller is told.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Pattern { .. }
            | Self::MatcherType { .. }
            | Self::NoMatchers
            | Self::RequestTooLarge { .. }
            | Self::EmptyLabelName => ErrorClass::InvalidArgument,
            Self::Limit { .. } | Self::SortBuffer { .. } | Self::TooManyCalls { .. } => {
                ErrorClass::ResourceExhausted
            }
            Self::Conflict { .. } | Self::OutOfOrder | Self::Block(_) => ErrorClass::Unavailable,
            Self::LabelsTooLong { .. } | Self::Encoding { .. } | Self::Chunk(_) => {
                ErrorClass::Internal
            }
            Self::Select(error) => error.class(),
            Self::Peer(error) => peer_class(error),
            Self::Shared { class, .. } => *class,
            Self::CallerGone => ErrorClass::Canceled,
        }
    }
}

/// Contract `grpc.md` §3.7 for statuses; a Prometheus that can't be reached, or whose stream breaks
/// off or turns to garbage (a failure in the middle is appended as text), may do better next time.
fn peer_class(error: &PeerError) -> ErrorClass {
    match (error.class(), error) {
        (PeerErrorClass::Status(status), _) => match status.as_u16() {
            400 => ErrorClass::InvalidArgument,
            404 => ErrorClass::NotFound,
            413 | 429 => ErrorClass::ResourceExhausted,
            502..=504 => ErrorClass::Unavailable,
            _ => ErrorClass::Internal,
        },
        // A length that is garbage is told as too large.
        (_, PeerError::Frame { .. }) => ErrorClass::Unavailable,
        (_, PeerError::Unaskable { .. }) => ErrorClass::InvalidArgument,
        (PeerErrorClass::TooLarge, _) => ErrorClass::ResourceExhausted,
        (
            PeerErrorClass::Unreachable | PeerErrorClass::TimedOut | PeerErrorClass::Interrupted,
            _,
        ) => ErrorClass::Unavailable,
        (PeerErrorClass::Invalid | PeerErrorClass::Api | PeerErrorClass::Setup, _) => {
            ErrorClass::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_keep_their_meaning() {
        for (status, class) in [
            (400, ErrorClass::InvalidArgument),
            (404, ErrorClass::NotFound),
            (422, ErrorClass::Internal),
            (429, ErrorClass::ResourceExhausted),
            (500, ErrorClass::Internal),
            (503, ErrorClass::Unavailable),
        ] {
            let error = StoreError::Peer(PeerError::Status {
                url: "http://p/api".to_owned(),
                status: http::StatusCode::from_u16(status).unwrap(),
                message: String::new(),
                body: String::new(),
                starting: false,
            });
            assert_eq!(error.class(), class, "{status}");
        }
        let after = std::time::Duration::from_secs(1);
        let error = StoreError::Peer(PeerError::TimedOut { after });
        assert_eq!(error.class(), ErrorClass::Unavailable);
    }

    #[test]
    fn limits_have_the_reference_text() {
        let error = StoreError::Limit {
            what: Limited::Series,
            limit: 10,
            got: 11,
        };
        assert_eq!(
            error.to_string(),
            "failed to send series: limit 10 violated (got 11)"
        );
        assert_eq!(error.class(), ErrorClass::ResourceExhausted);
    }
}
