//! A block's files as upload sources: verified and hashed while their bytes go by.

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::error::VerifyError;
use super::refs::Refs;
use super::resume::FileProgress;
use super::stage::SegmentFile;
use super::verify::{SegmentRuns, file_digest};
use crate::disk::{DiskEngine, DiskFile, FileRuns, ReadMode};
use crate::objstore::{ByteRuns, Look, SourceError, UploadProgress, UploadSource};
use crate::tsdb::BlockTotals;

/// Which hash of each file goes into `meta.json` (`--hash-func`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashFunc {
    /// None.
    #[default]
    None,
    /// SHA-256.
    Sha256,
}

/// A chunk segment to upload. Its last bytes are handed out only once all of it is proven.
#[derive(Debug)]
pub(super) struct SegmentSource<'a> {
    pub(super) engine: &'a DiskEngine,
    pub(super) segment: &'a SegmentFile,
    /// Position in name order.
    pub(super) position: u32,
    pub(super) refs: &'a Refs,
    pub(super) mode: ReadMode,
    pub(super) hash_func: HashFunc,
    pub(super) progress: FileProgress,
    pub(super) outcome: Outcome<(BlockTotals, Option<String>)>,
}

/// The index to upload: it was verified as a whole before, and must give the same bytes again.
#[derive(Debug)]
pub(super) struct IndexSource<'a> {
    pub(super) engine: &'a DiskEngine,
    pub(super) index: &'a DiskFile,
    /// Checksum of the verified bytes.
    pub(super) crc64: u64,
    pub(super) mode: ReadMode,
    pub(super) hash_func: HashFunc,
    pub(super) progress: FileProgress,
    pub(super) outcome: Outcome<Option<String>>,
}

/// What the last complete read of a source gave, set by the reader and taken by the uploader.
#[derive(Debug, Default)]
pub(super) struct Outcome<T>(std::sync::Arc<Mutex<Option<T>>>);

/// A SHA-256 over what goes by, where `--hash-func` asks for one.
struct FileHasher(Option<Sha256>);

// === impl SegmentSource ===

#[async_trait]
impl UploadSource for SegmentSource<'_> {
    fn size_bytes(&self) -> u64 {
        self.segment.file.size_bytes()
    }

    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        let mode = self.mode;
        let opened =
            SegmentRuns::open(self.engine, self.segment, self.position, self.refs, mode).await;
        Ok(Box::new(SegmentReader {
            runs: opened?,
            hasher: FileHasher::new(self.hash_func),
            outcome: self.outcome.clone(),
        }))
    }

    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        Ok(reread(self.engine, &self.segment.file, range, self.mode))
    }

    fn progress(&self) -> &dyn UploadProgress {
        &self.progress
    }
}

struct SegmentReader {
    runs: SegmentRuns,
    hasher: FileHasher,
    outcome: Outcome<(BlockTotals, Option<String>)>,
}

#[async_trait]
impl ByteRuns for SegmentReader {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        self.next_seen(within, &mut |_| {}).await
    }

    async fn next_seen(
        &mut self,
        within: u64,
        look: Look<'_>,
    ) -> Result<Option<Bytes>, SourceError> {
        let hasher = &mut self.hasher;
        let run = self
            .runs
            .next(within, &mut |piece| {
                hasher.update(piece);
                look(piece);
            })
            .await?;
        if let (None, Some(totals)) = (&run, self.runs.totals()) {
            self.outcome.set((totals, self.hasher.finish()));
        }
        Ok(run)
    }
}

// === impl IndexSource ===

#[async_trait]
impl UploadSource for IndexSource<'_> {
    fn size_bytes(&self) -> u64 {
        self.index.size_bytes()
    }

    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        let size = self.index.size_bytes();
        Ok(Box::new(IndexReader {
            runs: self.engine.runs(self.index, 0..size, self.mode),
            path: self.index.path().into(),
            bytes_left: size,
            digest: file_digest(),
            crc64: self.crc64,
            hasher: FileHasher::new(self.hash_func),
            outcome: self.outcome.clone(),
        }))
    }

    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        Ok(reread(self.engine, self.index, range, self.mode))
    }

    fn progress(&self) -> &dyn UploadProgress {
        &self.progress
    }
}

struct IndexReader {
    runs: FileRuns,
    path: Box<Path>,
    bytes_left: u64,
    digest: crc_fast::Digest,
    crc64: u64,
    hasher: FileHasher,
    outcome: Outcome<Option<String>>,
}

#[async_trait]
impl ByteRuns for IndexReader {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        let Some(run) = self.runs.next(within).await.map_err(VerifyError::from)? else {
            self.outcome.set(self.hasher.finish());
            return Ok(None);
        };
        self.digest.update(&run);
        self.hasher.update(&run);
        self.bytes_left -= run.len() as u64;
        // The last run is held back where the whole is not what was verified.
        if self.bytes_left == 0 && self.digest.finalize() != self.crc64 {
            return Err(VerifyError::Changed {
                path: self.path.to_path_buf(),
            }
            .into());
        }
        Ok(Some(run))
    }
}

/// A range read once more, unchecked.
struct RawReader(FileRuns);

fn reread(
    engine: &DiskEngine,
    file: &DiskFile,
    range: Range<u64>,
    mode: ReadMode,
) -> Box<dyn ByteRuns> {
    Box::new(RawReader(engine.runs(file, range, mode)))
}

#[async_trait]
impl ByteRuns for RawReader {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        Ok(self.0.next(within).await.map_err(VerifyError::from)?)
    }
}

// === impl Outcome ===

impl<T> Outcome<T> {
    fn set(&self, outcome: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// What the read gave; `None` where none was complete.
    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        Self(std::sync::Arc::clone(&self.0))
    }
}

// === impl FileHasher ===

impl FileHasher {
    fn new(hash_func: HashFunc) -> Self {
        Self(match hash_func {
            HashFunc::None => None,
            HashFunc::Sha256 => Some(Sha256::new()),
        })
    }

    fn update(&mut self, run: &[u8]) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(run);
        }
    }

    /// The hash in lower-case hex.
    fn finish(&self) -> Option<String> {
        self.0.clone().map(|hasher| hex::encode(hasher.finalize()))
    }
}
