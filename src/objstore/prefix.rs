//! A bucket within a bucket: every name below one prefix (`prefix:` of the configuration).

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::{
    Attributes, Bucket, BucketError, InvalidKey, ListEntry, Listing, MultipartState, ObjectKey,
    ObjectReader, UploadSource, Uploaded,
};

/// Puts `prefix/` before every name, and takes it off the names that listing gives.
#[derive(Debug)]
pub struct Prefixed {
    inner: Arc<dyn Bucket>,
    prefix: ObjectKey,
}

impl Prefixed {
    /// Wraps `inner`. Slashes around `prefix` don't count; `None` of it left means `inner` itself.
    ///
    /// # Errors
    /// Where the prefix can't be part of an object's name.
    pub fn wrap(inner: Arc<dyn Bucket>, prefix: &str) -> Result<Arc<dyn Bucket>, InvalidKey> {
        match prefix.trim_matches('/') {
            "" => Ok(inner),
            trimmed => Ok(Arc::new(Self {
                inner,
                prefix: ObjectKey::new(trimmed)?,
            })),
        }
    }

    fn below(&self, op: &'static str, key: &ObjectKey) -> Result<ObjectKey, BucketError> {
        key.below(&self.prefix)
            .map_err(|invalid| BucketError::new(op, key.as_str(), invalid))
    }
}

#[async_trait]
impl Bucket for Prefixed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError> {
        self.inner.upload(&self.below("upload", key)?, source).await
    }

    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError> {
        self.inner.attributes(&self.below("stat", key)?).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError> {
        self.inner.get(&self.below("get", key)?).await
    }

    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError> {
        let directory = match directory {
            Some(directory) => self.below("list", directory)?,
            None => self.prefix.clone(),
        };
        let skip = self.prefix.as_str().len() + 1;
        let strip = move |name: String| name.get(skip..).unwrap_or_default().to_owned();
        let listing = self.inner.list(Some(&directory)).await?;
        Ok(listing
            .map(move |entry| {
                entry.map(|entry| match entry {
                    ListEntry::Object(name) => ListEntry::Object(strip(name)),
                    ListEntry::Directory(name) => ListEntry::Directory(strip(name)),
                })
            })
            .boxed())
    }

    async fn abandon(&self, upload: &MultipartState) -> Result<(), BucketError> {
        self.inner.abandon(upload).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        self.inner.delete(&self.below("delete", key)?).await
    }
}
