//! A bucket that fails on purpose: faults for tests, in front of any other bucket.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Attributes, Bucket, BucketError, ErrorKind, Listing, MultipartState, ObjectKey, ObjectReader,
    UploadSource, Uploaded,
};

/// What is about to be done to the inner bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `upload`.
    Upload,
    /// `attributes`, and `exists`, which is made of it.
    Attributes,
    /// `get`.
    Get,
    /// `list`.
    List,
    /// `delete`.
    Delete,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The inner bucket answers.
    Pass,
    /// Nothing is done, an error comes back.
    Refuse {
        /// Whether the error says that another try may succeed.
        retryable: bool,
    },
    /// The inner bucket does it, and an error comes back all the same.
    LoseAnswer {
        /// Whether the error says that another try may succeed.
        retryable: bool,
    },
    /// For uploads: the answer is "done" and the object is not there.
    LoseObject,
}

type Decide = dyn Fn(Operation, &str) -> Outcome + Send + Sync;

/// Asks one hook before each operation what is to happen.
pub struct Flaky {
    inner: Arc<dyn Bucket>,
    decide: Box<Decide>,
}

impl Flaky {
    /// Wraps `inner`; `decide` gets the operation and the object's name.
    pub fn new(
        inner: Arc<dyn Bucket>,
        decide: impl Fn(Operation, &str) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            decide: Box::new(decide),
        }
    }

    async fn around<T>(
        &self,
        operation: Operation,
        key: &str,
        act: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        perform((self.decide)(operation, key), key, act).await
    }
}

async fn perform<T>(
    outcome: Outcome,
    key: &str,
    act: impl Future<Output = Result<T, BucketError>>,
) -> Result<T, BucketError> {
    let failed = |retryable| BucketError::new("try", key, ErrorKind::Injected { retryable });
    match outcome {
        Outcome::Refuse { retryable } => Err(failed(retryable)),
        Outcome::LoseAnswer { retryable } => {
            act.await?;
            Err(failed(retryable))
        }
        Outcome::Pass | Outcome::LoseObject => act.await,
    }
}

impl std::fmt::Debug for Flaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flaky")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Bucket for Flaky {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError> {
        let outcome = (self.decide)(Operation::Upload, key.as_str());
        let uploaded = perform(outcome, key.as_str(), self.inner.upload(key, source)).await?;
        if outcome == Outcome::LoseObject {
            self.inner.delete(key).await?;
        }
        Ok(uploaded)
    }

    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError> {
        self.around(
            Operation::Attributes,
            key.as_str(),
            self.inner.attributes(key),
        )
        .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError> {
        self.around(Operation::Get, key.as_str(), self.inner.get(key))
            .await
    }

    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError> {
        let key = directory.map_or("", ObjectKey::as_str);
        self.around(Operation::List, key, self.inner.list(directory))
            .await
    }

    async fn abandon(&self, upload: &MultipartState) -> Result<(), BucketError> {
        self.inner.abandon(upload).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        self.around(Operation::Delete, key.as_str(), self.inner.delete(key))
            .await
    }
}
