//! The seam between what is shipped and where it goes.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::{BucketError, ObjectKey};

/// Why a source can't give its bytes; the uploader hands it back unchanged.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Something to upload: a length known beforehand and bytes that can be read again from the start.
#[async_trait]
pub trait UploadSource: Send + Sync {
    /// The exact length in bytes.
    fn size_bytes(&self) -> u64;

    /// Starts reading from the first byte. Called once for each try.
    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError>;
}

/// Bytes in order, in runs of any size.
#[async_trait]
pub trait ByteRuns: Send {
    /// The next run; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError>;
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
}

/// Object storage (contract `objstore.md` §6). Read-after-write consistency is assumed.
#[async_trait]
pub trait Bucket: fmt::Debug + Send + Sync {
    /// The bucket's name as the `bucket` metric label tells it.
    fn name(&self) -> &str;

    /// Writes an object, over an older one if need be. When this returns `Ok`, the object is whole
    /// and durable; when it returns an error, there is no telling whether it was written.
    async fn upload(&self, key: &ObjectKey, source: &dyn UploadSource) -> Result<(), BucketError>;

    /// Size and time of an object. A missing one is an error with [`BucketError::is_not_found`].
    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError>;

    /// The content of an object. A missing one is an error here, not in the reader.
    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError>;

    /// The direct children of `directory`; `None` is the bucket's root. A directory that does not
    /// exist has no children.
    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError>;

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
        struct Once(Option<Bytes>);

        #[async_trait]
        impl ByteRuns for Once {
            async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
                Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
            }
        }

        Ok(Box::new(Once(Some(self.0.clone()))))
    }
}
