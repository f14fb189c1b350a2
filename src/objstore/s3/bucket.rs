//! The façade: an S3 bucket as a [`Bucket`].

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::S3Config;
use super::credentials::S3Credentials;
use super::integrity::{S3Integrity, Verdict};
use super::list::list;
use super::parts::abort;
use super::request::Client;
use super::upload::{Uploads, upload};
use super::wire::Wire;
use crate::model::Clock;
use crate::net::http::HttpClient;
use crate::objstore::{
    Attributes, Bucket, BucketError, ErrorKind, Listing, MultipartState, ObjectKey, ObjectReader,
    Pace, RequestStats, UploadSource, Uploaded,
};

/// What a bucket may use.
#[derive(Clone, Debug)]
pub struct S3Limits {
    /// Bodies being filled or sent at once, over all uploads.
    pub parts_in_flight: NonZeroUsize,
    /// A body larger than this is read twice instead of kept: half of the buffer pool.
    pub body_bytes_max: u64,
    /// A limit on what all bodies together send.
    pub pace: Option<Pace>,
    /// How long a server may take no byte of a body, or give none of an answer that has begun.
    pub stall_timeout: Duration,
    /// How long the answer may take to begin once the request was sent; `None` for ever. The
    /// HTTP client itself must have no such limit: it can't tell a slow line from a silent server.
    pub response_header_timeout: Option<Duration>,
}

/// A bucket of an S3 server. It tries again by itself, so it needs no
/// [`Retrying`](crate::objstore::Retrying) around it.
#[derive(Debug)]
pub struct S3Bucket {
    /// What the `bucket` metric label tells, where that is not the name in requests.
    label: Option<String>,
    client: Arc<Client>,
    uploads: Uploads,
}

// === impl S3Bucket ===

impl S3Bucket {
    /// A bucket; nothing is sent yet. `jitter_seed` spreads the waits between tries.
    pub fn new(
        config: S3Config,
        http: HttpClient,
        credentials: S3Credentials,
        limits: S3Limits,
        clock: Clock,
        jitter_seed: u64,
    ) -> Self {
        let verdict = Verdict::new(config.send_content_md5);
        let in_flight = limits.parts_in_flight.get();
        let uploads = Uploads::new(verdict, in_flight, limits.body_bytes_max);
        Self {
            label: None,
            client: Arc::new(Client::new(
                config,
                http,
                credentials,
                limits,
                clock,
                jitter_seed,
            )),
            uploads,
        }
    }

    /// The same bucket, whose requests are counted in `requests`. To be called before it is used.
    #[must_use]
    pub fn counted(mut self, requests: RequestStats) -> Self {
        let client = Arc::get_mut(&mut self.client).expect("nobody else has a new client");
        client.requests = requests;
        self
    }

    /// The same bucket under another name in metrics.
    #[must_use]
    pub(in crate::objstore) fn labelled(self, label: Option<String>) -> Self {
        Self { label, ..self }
    }

    /// The same bucket, spoken to in another way. To be called before it is used.
    #[must_use]
    pub(in crate::objstore) fn speaking(mut self, wire: Arc<dyn Wire>) -> Self {
        if let Some((first, fallback)) = wire.checks() {
            self.uploads.verdict = Verdict::of(wire.component(), first, fallback);
        }
        let client = Arc::get_mut(&mut self.client).expect("nobody else has a new client");
        client.wire = wire;
        self
    }

    /// The check that protects uploads on their way, as far as the server is known.
    pub fn integrity_in_use(&self) -> S3Integrity {
        self.uploads.verdict.current()
    }

    /// A range of an object; what is past its end is left out.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<ObjectReader, BucketError> {
        let length = range.end.saturating_sub(range.start);
        let got = self.client.get(key.as_str(), range.start, Some(length));
        got.await.map_err(|kind| failed("get", key, kind))
    }
}

fn failed(op: &'static str, key: &ObjectKey, kind: ErrorKind) -> BucketError {
    BucketError::new(op, key.as_str(), kind)
}

#[async_trait]
impl Bucket for S3Bucket {
    fn name(&self) -> &str {
        let label = self.label.as_ref();
        label.unwrap_or(&self.client.config.bucket)
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError> {
        let uploaded = upload(&self.client, &self.uploads, key.as_str(), source).await;
        uploaded.map_err(|kind| failed("upload", key, kind))
    }

    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError> {
        let attributes = self.client.look(key.as_str()).await;
        attributes.map_err(|kind| failed("stat", key, kind))
    }

    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError> {
        let got = self.client.get(key.as_str(), 0, None).await;
        got.map_err(|kind| failed("get", key, kind))
    }

    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError> {
        let name = directory.map_or("", ObjectKey::as_str);
        let prefix = match directory {
            None => String::new(),
            Some(directory) => format!("{directory}/"),
        };
        let listing = list(Arc::clone(&self.client), prefix).await;
        listing.map_err(|kind| BucketError::new("list", name, kind))
    }

    async fn abandon(&self, upload: &MultipartState) -> Result<(), BucketError> {
        // One that went elsewhere is out of reach.
        let Some(key) = self.client.address.key_at(&upload.destination) else {
            return Ok(());
        };
        let aborted = abort(&self.client, key, &upload.upload_id).await;
        aborted.map_err(|kind| BucketError::new("abort upload of", key, kind))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        let deleted = self.client.delete(key.as_str()).await;
        deleted.map_err(|kind| failed("delete", key, kind))
    }
}
