//! The seam between what is shipped and where it goes.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::multipart::MultipartState;
use super::{BucketError, ObjectKey};

/// Why a source can't give its bytes; the uploader hands it back unchanged.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Something to upload: a length known beforehand and bytes that can be read again from the start.
#[async_trait]
pub trait UploadSource: Send + Sync {
    /// The exact length in bytes.
    fn size_bytes(&self) -> u64;

    /// Starts reading from the first byte. Called once for each try. What is read is checked on
    /// the way, so a source is to be read to its end.
    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError>;

    /// Reads a range once more, unchecked: for bodies that don't fit into memory, of which `open`
    /// gave the checksum that these bytes must have too.
    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError>;

    /// Where the progress of this upload is kept and told.
    fn progress(&self) -> &dyn UploadProgress {
        &NoProgress
    }
}

/// Whoever looks at bytes, piece by piece, while they are in the processor's cache.
pub type Look<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// Bytes in order, in runs of any size.
#[async_trait]
pub trait ByteRuns: Send {
    /// The next run, of at most `within` bytes and at least one; `None` at the end.
    ///
    /// The source may read ahead within those bytes, so the caller takes them all before it waits
    /// for something that needs buffers of the pool itself.
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError>;

    /// As [`ByteRuns::next`], and shows the run's bytes to `look`, all of them once and in order,
    /// where possible while they are still in the processor's cache. Not to be called again after
    /// an error.
    async fn next_seen(
        &mut self,
        within: u64,
        look: Look<'_>,
    ) -> Result<Option<Bytes>, SourceError> {
        let run = self.next(within).await?;
        look(run.as_deref().unwrap_or_default());
        Ok(run)
    }
}

/// What outlives a try of an upload, and who hears of its progress.
#[async_trait]
pub trait UploadProgress: Send + Sync {
    /// What an earlier try, maybe of another process, left in the bucket.
    async fn earlier(&self) -> Option<MultipartState>;

    /// Keeps what is in the bucket now; `None` once there is nothing to go on from. A state that
    /// can't be kept only means that more is sent again after a crash.
    async fn keep(&self, state: Option<&MultipartState>);

    /// So many bytes more are in the bucket, sent now or by an earlier try.
    fn advanced(&self, bytes: u64);
}

/// For uploads that nobody watches and that start over.
#[derive(Clone, Copy, Debug)]
pub struct NoProgress;

#[async_trait]
impl UploadProgress for NoProgress {
    async fn earlier(&self) -> Option<MultipartState> {
        None
    }

    async fn keep(&self, _: Option<&MultipartState>) {}

    fn advanced(&self, _: u64) {}
}

/// The content of an object, in runs.
pub type ObjectReader = BoxStream<'static, Result<Bytes, BucketError>>;

/// The names in a directory of a bucket.
pub type Listing = BoxStream<'static, Result<ListEntry, BucketError>>;

/// A name found by listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListEntry {
    /// An object, by its whole name.
    Object(String),
    /// A directory (common prefix), by its whole name without the final `/`.
    Directory(String),
}

/// What a bucket tells of an object without giving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub last_modified: Timestamp,
    /// CRC-64/NVME of the whole content, where the bucket keeps one.
    pub crc64: Option<u64>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// CRC-64/NVME of the whole content, where it was computed on the way.
    pub crc64: Option<u64>,
}

/// Object storage (contract `objstore.md` §6). Read-after-write consistency is assumed.
#[async_trait]
pub trait Bucket: fmt::Debug + Send + Sync {
    /// The bucket's name as the `bucket` metric label tells it.
    fn name(&self) -> &str;

    /// Writes an object, over an older one if need be. When this returns `Ok`, the object is whole
    /// and durable; when it returns an error, there is no telling whether it was written.
    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError>;

    /// Size and time of an object. A missing one is an error with [`BucketError::is_not_found`].
    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError>;

    /// The content of an object. A missing one is an error here, not in the reader.
    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError>;

    /// The direct children of `directory`; `None` is the bucket's root. A directory that does not
    /// exist has no children.
    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError>;

    /// Gives up an upload in parts that nobody will finish, so that the bucket does not keep (and
    /// charge for) its parts. One that is gone already is no error.
    async fn abandon(&self, _upload: &MultipartState) -> Result<(), BucketError> {
        Ok(())
    }

    /// Removes an object; a missing one is no error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError>;

    /// Whether there is an object of this name.
    async fn exists(&self, key: &ObjectKey) -> Result<bool, BucketError> {
        match self.attributes(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A source that is already in memory.
#[derive(Clone, Debug)]
pub struct MemorySource(pub Bytes);

#[async_trait]
impl UploadSource for MemorySource {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        Ok(Box::new(MemoryRuns(self.0.clone())))
    }

    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        let bounds = usize::try_from(range.start)?..usize::try_from(range.end)?;
        let part = self.0.get(bounds).ok_or("the range is not in the source")?;
        Ok(Box::new(MemoryRuns(self.0.slice_ref(part))))
    }
}

struct MemoryRuns(Bytes);

#[async_trait]
impl ByteRuns for MemoryRuns {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        let length = usize::try_from(within).unwrap_or(usize::MAX);
        let run = self.0.split_to(length.min(self.0.len()));
        Ok((!run.is_empty()).then_some(run))
    }
}
