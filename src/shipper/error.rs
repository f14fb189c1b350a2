//! What verification can find, and what keeps it from finding anything.

use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::tsdb::{DecodeError, TotalsError};

/// Why a block's files are not what they should be, or can't be told to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// A file can't be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file's content is damaged.
    #[error("{}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong there.
        source: DecodeError,
    },
    /// The index refers to a segment that is not there.
    #[error(
        "{} refers to chunk segment number {segment}, but there are only {segments}",
        path.display()
    )]
    MissingSegment {
        /// The index.
        path: PathBuf,
        /// Number in name order, from 1 as in the names.
        segment: u64,
        /// How many there are.
        segments: usize,
    },
    /// The files hold other numbers than `meta.json` says.
    #[error("meta.json of block {block}")]
    Stats {
        /// The block.
        block: crate::model::BlockId,
        /// Which number.
        source: TotalsError,
    },
    /// A file gave other bytes when it was read again.
    #[error("{} gave other bytes when it was read again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Too many references for the bounded sort.
    #[error("{} holds more than {refs_max} chunk references out of order", path.display())]
    TooManyOutOfOrder {
        /// The index.
        path: PathBuf,
        /// The limit.
        refs_max: usize,
    },
}

impl VerifyError {
    pub(super) fn damaged(path: &Path, source: DecodeError) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the bytes that were read are no whole block. They may have been read wrongly; only
    /// a second read past the page cache proves it.
    pub(super) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::MissingSegment { .. } | Self::Stats { .. }
        )
    }
}
