//! A file as the client takes it: read by the disk engine, watched, and stopped from outside.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::disk::{DiskEngine, DiskFile, FileRuns, ReadMode};
use crate::lifecycle::Drain;
use crate::objstore::{ByteRuns, MultipartState, SourceError, UploadProgress, UploadSource};

/// A file to upload. Once stopped it fails, which makes the client give the upload up as it does
/// when a disk fails: nothing half-written stays.
#[derive(Debug)]
pub(super) struct FileSource<'a> {
    pub(super) engine: &'a DiskEngine,
    pub(super) file: DiskFile,
    pub(super) stop: &'a Drain,
    /// Bytes that are in the bucket, over all files.
    pub(super) sent: &'a AtomicU64,
    /// How often the client began to read it.
    pub(super) opens: AtomicU64,
    /// What it has begun in the bucket and not finished.
    pub(super) unfinished: Mutex<Option<MultipartState>>,
}

/// Someone asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

#[async_trait]
impl UploadSource for FileSource<'_> {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        self.opens.fetch_add(1, Ordering::Relaxed);
        Ok(self.runs(0..self.file.size_bytes()))
    }

    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        Ok(self.runs(range))
    }

    fn progress(&self) -> &dyn UploadProgress {
        self
    }
}

impl FileSource<'_> {
    /// What the client has begun in the bucket and not finished.
    pub(super) fn take_unfinished(&self) -> Option<MultipartState> {
        let mut unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        unfinished.take()
    }

    fn runs(&self, range: Range<u64>) -> Box<dyn ByteRuns> {
        Box::new(StoppableRuns {
            runs: self.engine.runs(&self.file, range, ReadMode::Buffered),
            stop: self.stop.clone(),
        })
    }
}

#[async_trait]
impl UploadProgress for FileSource<'_> {
    /// Every upload is measured from its beginning.
    async fn earlier(&self) -> Option<MultipartState> {
        None
    }

    async fn keep(&self, state: Option<&MultipartState>) {
        *self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = state.cloned();
    }

    fn advanced(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

struct StoppableRuns {
    runs: FileRuns,
    stop: Drain,
}

#[async_trait]
impl ByteRuns for StoppableRuns {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        if self.stop.has_started() {
            return Err(Interrupted.into());
        }
        Ok(self.runs.next(within).await?)
    }
}
