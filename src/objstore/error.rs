//! What went wrong with a bucket, and what follows from it.

use super::s3::S3Error;
use super::{InvalidKey, SourceError};
use crate::disk::DiskError;

/// An operation on a bucket that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} object `{key}`")]
pub struct BucketError {
    /// The operation, as a verb.
    pub op: &'static str,
    /// The object or the directory.
    pub key: String,
    /// Why.
    #[source]
    pub kind: ErrorKind,
}

/// Why an operation failed. The kind decides what a caller may do: it is set where the error is
/// born and never guessed from text.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// What was to be uploaded could not be read, or was found damaged while it was read. The
    /// bucket is not at fault.
    #[error("the source failed")]
    Source(#[source] SourceError),
    /// The source gave more or fewer bytes than it said it had.
    #[error("the source gave {given_bytes} bytes instead of {expected_bytes}")]
    SourceLength {
        /// What it said.
        expected_bytes: u64,
        /// What came (at least, where it gave too many).
        given_bytes: u64,
    },
    /// The file system behind the bucket failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The S3 server failed, or refused.
    #[error(transparent)]
    S3(Box<S3Error>),
    /// The name can't be used.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// A fault that a test asked for.
    #[cfg(any(test, feature = "testing"))]
    #[error("injected fault")]
    Injected {
        /// Whether another try may succeed.
        retryable: bool,
    },
}

impl BucketError {
    pub(in crate::objstore) fn new(
        op: &'static str,
        key: &str,
        kind: impl Into<ErrorKind>,
    ) -> Self {
        Self {
            op,
            key: key.to_owned(),
            kind: kind.into(),
        }
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        match &self.kind {
            ErrorKind::NotFound => true,
            ErrorKind::Disk(error) => error.is_not_found(),
            _ => false,
        }
    }

    /// Whether the same call may succeed a moment later without anyone doing something.
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            ErrorKind::Disk(error) => error.is_retryable(),
            ErrorKind::S3(error) => error.is_retryable(),
            #[cfg(any(test, feature = "testing"))]
            ErrorKind::Injected { retryable } => *retryable,
            _ => false,
        }
    }

    /// Whether the source of an upload failed, not the bucket.
    pub fn is_source(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Source(_) | ErrorKind::SourceLength { .. }
        )
    }

    /// What an operator can do about it, where the text alone does not say.
    pub fn remedy(&self) -> Option<&'static str> {
        match &self.kind {
            ErrorKind::Disk(error) => error.remedy(),
            ErrorKind::S3(error) => error.remedy(),
            _ => None,
        }
    }
}
