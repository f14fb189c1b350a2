//! Counts and times what is done to a bucket, under the reference's metric names
//! (contract `metrics.md` §4).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{
    Attributes, Bucket, BucketError, Listing, MultipartState, ObjectKey, ObjectReader,
    UploadSource, Uploaded,
};
use crate::model::Clock;
use crate::trace::Span;

const SECONDS_BUCKETS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];
const OPERATIONS: [&str; 7] = [
    "iter",
    "get",
    "get_range",
    "exists",
    "upload",
    "delete",
    "attributes",
];
const TRANSFERS: [&str; 3] = ["get", "get_range", "upload"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BucketLabels {
    bucket: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    bucket: String,
    operation: &'static str,
}

type HistogramFamily = Family<OperationLabels, Histogram, fn() -> Histogram>;

/// The metrics of one bucket, every series there from the start.
#[derive(Clone, Debug)]
pub struct BucketMetrics {
    bucket: String,
    operations: Family<OperationLabels, Counter>,
    failures: Family<OperationLabels, Counter>,
    duration: HistogramFamily,
    fetched_bytes: Family<OperationLabels, Counter>,
    transferred_bytes: HistogramFamily,
    last_upload: Gauge<f64, AtomicU64>,
}

/// Counts and times every operation of the bucket inside.
#[derive(Debug)]
pub struct Instrumented {
    inner: Arc<dyn Bucket>,
    metrics: BucketMetrics,
    clock: Clock,
}

// === impl BucketMetrics ===

impl BucketMetrics {
    /// Registers the metrics for the bucket named `bucket`.
    pub fn register(registry: &mut Registry, bucket: &str) -> Self {
        let last_upload = Family::<BucketLabels, Gauge<f64, AtomicU64>>::default();
        let labels = BucketLabels {
            bucket: bucket.to_owned(),
        };
        let metrics = Self {
            bucket: bucket.to_owned(),
            operations: Family::default(),
            failures: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS)),
            fetched_bytes: Family::default(),
            transferred_bytes: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(32_768.0, 2.0, 16))
            }),
            last_upload: last_upload.get_or_create(&labels).clone(),
        };
        let name = |rest: &str| format!("thanos_objstore_bucket_{rest}");
        registry.register(
            name("operations"),
            "Operations on the bucket that were attempted",
            metrics.operations.clone(),
        );
        registry.register(
            name("operation_failures"),
            "Operations on the bucket that failed in a way that was not expected",
            metrics.failures.clone(),
        );
        registry.register(
            name("operation_duration_seconds"),
            "How long successful operations on the bucket took, in seconds",
            metrics.duration.clone(),
        );
        registry.register(
            name("operation_fetched_bytes"),
            "Bytes read from the bucket",
            metrics.fetched_bytes.clone(),
        );
        registry.register(
            name("operation_transferred_bytes"),
            "Bytes moved by one operation on the bucket",
            metrics.transferred_bytes.clone(),
        );
        registry.register(
            name("last_successful_upload_time"),
            "When an object was last uploaded, in seconds since the Unix epoch; 0 \
             before the first",
            last_upload,
        );
        metrics.initialise();
        metrics
    }

    fn initialise(&self) {
        for operation in OPERATIONS {
            let labels = self.labels(operation);
            drop(self.operations.get_or_create(&labels));
            drop(self.failures.get_or_create(&labels));
            drop(self.duration.get_or_create(&labels));
        }
        for operation in TRANSFERS {
            let labels = self.labels(operation);
            drop(self.fetched_bytes.get_or_create(&labels));
            drop(self.transferred_bytes.get_or_create(&labels));
        }
    }

    fn labels(&self, operation: &'static str) -> OperationLabels {
        OperationLabels {
            bucket: self.bucket.clone(),
            operation,
        }
    }

    fn started(&self, operation: &'static str) -> Instant {
        self.operations.get_or_create(&self.labels(operation)).inc();
        Instant::now()
    }

    fn failed(&self, operation: &'static str) {
        self.failures.get_or_create(&self.labels(operation)).inc();
    }

    fn succeeded(&self, operation: &'static str, since: Instant) {
        let labels = self.labels(operation);
        self.duration
            .get_or_create(&labels)
            .observe(since.elapsed().as_secs_f64());
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a histogram needs no exact byte count"
    )]
    fn transferred(&self, operation: &'static str, bytes: u64) {
        self.transferred_bytes
            .get_or_create(&self.labels(operation))
            .observe(bytes as f64);
    }
}

// === impl Instrumented ===

impl Instrumented {
    /// Wraps `inner`. `clock` tells the time of the last upload.
    pub fn new(inner: Arc<dyn Bucket>, metrics: BucketMetrics, clock: Clock) -> Self {
        Self {
            inner,
            metrics,
            clock,
        }
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        key: Option<&ObjectKey>,
        act: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        let since = self.metrics.started(operation);
        let span = span(operation, key);
        let outcome = span.around(pin!(act)).await;
        if let Err(error) = &outcome {
            span.fail(error);
        }
        match &outcome {
            Ok(_) => self.metrics.succeeded(operation, since),
            // A source that is damaged or unreadable is no failure of the bucket.
            Err(error) if error.is_source() => {}
            Err(_) => self.metrics.failed(operation),
        }
        outcome
    }
}

#[async_trait]
impl Bucket for Instrumented {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError> {
        let uploaded = self
            .observe("upload", Some(key), self.inner.upload(key, source))
            .await?;
        self.metrics.transferred("upload", source.size_bytes());
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds fit a float for ages"
        )]
        let now_seconds = self.clock.now().0 as f64 / 1e3;
        self.metrics.last_upload.set(now_seconds);
        Ok(uploaded)
    }

    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError> {
        self.observe("attributes", Some(key), self.inner.attributes(key))
            .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError> {
        let since = self.metrics.started("get");
        let span = span("get", Some(key));
        match span.around(pin!(self.inner.get(key))).await {
            Ok(reader) => {
                let metrics = self.metrics.clone();
                Ok(CountedReader {
                    reader,
                    metrics,
                    since,
                    bytes: 0,
                    failed: false,
                    span,
                }
                .boxed())
            }
            Err(error) => {
                self.metrics.failed("get");
                span.fail(&error);
                Err(error)
            }
        }
    }

    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError> {
        self.observe("iter", directory, self.inner.list(directory))
            .await
    }

    async fn abandon(&self, upload: &MultipartState) -> Result<(), BucketError> {
        self.inner.abandon(upload).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        self.observe("delete", Some(key), self.inner.delete(key))
            .await
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, BucketError> {
        self.observe("exists", Some(key), self.inner.exists(key))
            .await
    }
}

/// The span of an operation below what asks for it, named as the reference's wrapper names it.
fn span(operation: &'static str, key: Option<&ObjectKey>) -> Span {
    let span = Span::asking(match operation {
        "upload" => "bucket_upload",
        "attributes" => "bucket_attributes",
        "iter" => "bucket_iter",
        "delete" => "bucket_delete",
        "exists" => "bucket_exists",
        "get" => "bucket_get",
        _ => "bucket_operation",
    });
    if let Some(key) = key {
        span.note_with("name", || key.to_string());
    }
    span
}

/// Counts what is read; the operation is over when the reader is dropped.
struct CountedReader {
    reader: ObjectReader,
    metrics: BucketMetrics,
    since: Instant,
    bytes: u64,
    failed: bool,
    span: Span,
}

impl Stream for CountedReader {
    type Item = Result<Bytes, BucketError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.reader.poll_next_unpin(context);
        match &polled {
            Poll::Ready(Some(Ok(run))) => self.bytes += run.len() as u64,
            Poll::Ready(Some(Err(error))) => {
                self.failed = true;
                self.span.fail(error);
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}

impl Drop for CountedReader {
    fn drop(&mut self) {
        self.span.count("read", self.bytes);
        let labels = self.metrics.labels("get");
        self.metrics
            .fetched_bytes
            .get_or_create(&labels)
            .inc_by(self.bytes);
        self.metrics.transferred("get", self.bytes);
        if self.failed {
            self.metrics.failed("get");
        } else {
            self.metrics.succeeded("get", self.since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::{FilesystemBucket, MemorySource};

    #[tokio::test]
    async fn a_miss_is_no_failure_and_an_upload_is_counted_with_its_bytes() {
        let scratch = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let inner = Arc::new(FilesystemBucket::new(scratch.path().to_owned()));
        let metrics = BucketMetrics::register(&mut registry, inner.name());
        let bucket = Instrumented::new(inner, metrics, Clock::fixed(1_500_000_000_250_000_000));
        let key = ObjectKey::new("a/b").unwrap();
        assert!(!bucket.exists(&key).await.unwrap());
        let source = MemorySource(Bytes::from_static(b"12345"));
        bucket.upload(&key, &source).await.unwrap();
        let read: Vec<_> = bucket.get(&key).await.unwrap().collect().await;
        assert_eq!(read.len(), 1);
        assert!(
            bucket
                .attributes(&ObjectKey::new("none").unwrap())
                .await
                .is_err()
        );

        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let label = format!("{{bucket=\"fs: {}\"", scratch.path().display());
        for line in [
            format!("thanos_objstore_bucket_operations_total{label},operation=\"exists\"}} 1"),
            format!(
                "thanos_objstore_bucket_operation_failures_total{label},operation=\"exists\"}} 0"
            ),
            format!(
                "thanos_objstore_bucket_operation_failures_total{label},\
                 operation=\"attributes\"}} 1"
            ),
            format!(
                "thanos_objstore_bucket_operation_fetched_bytes_total{label},operation=\"get\"}} 5"
            ),
            format!(
                "thanos_objstore_bucket_operation_transferred_bytes_sum{label},\
                 operation=\"upload\"}} 5.0"
            ),
            format!("thanos_objstore_bucket_last_successful_upload_time{label}}} 1500000000.25"),
            format!("thanos_objstore_bucket_operations_total{label},operation=\"get_range\"}} 0"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
        }
    }
}
