//! Tries again what may work a moment later.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{
    Attributes, Bucket, BucketError, Listing, MultipartState, ObjectKey, ObjectReader,
    UploadSource, Uploaded,
};
use crate::lifecycle::Backoff;

/// Tries of one operation, the first included. What still fails then is tried again with the next
/// sync, 30 s later.
const ATTEMPTS_MAX: u32 = 4;

/// The first and the longest wait between two tries, those of the reference's S3 client.
const DELAY_MIN: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Repeats operations whose error says that another try may succeed.
#[derive(Debug)]
pub struct Retrying {
    inner: Arc<dyn Bucket>,
    jitter_seed: u64,
}

impl Retrying {
    /// Wraps `inner`; `jitter_seed` spreads the waits.
    pub fn new(inner: Arc<dyn Bucket>, jitter_seed: u64) -> Self {
        Self { inner, jitter_seed }
    }

    async fn attempts<'a, T>(
        &self,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, BucketError>> + Send,
    ) -> Result<T, BucketError> {
        let mut backoff = Backoff::new(DELAY_MIN, DELAY_MAX, self.jitter_seed);
        for number in 1..ATTEMPTS_MAX {
            match attempt().await {
                Err(error) if error.is_retryable() => {
                    let delay = backoff.next_delay();
                    tracing::debug!(err = %error, attempt = number, ?delay, "trying again");
                    tokio::time::sleep(delay).await;
                }
                outcome => return outcome,
            }
        }
        attempt().await
    }
}

#[async_trait]
impl Bucket for Retrying {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError> {
        self.attempts(|| self.inner.upload(key, source)).await
    }

    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError> {
        self.attempts(|| self.inner.attributes(key)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError> {
        self.attempts(|| self.inner.get(key)).await
    }

    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError> {
        self.attempts(|| self.inner.list(directory)).await
    }

    async fn abandon(&self, upload: &MultipartState) -> Result<(), BucketError> {
        self.attempts(|| self.inner.abandon(upload)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        self.attempts(|| self.inner.delete(key)).await
    }
}
