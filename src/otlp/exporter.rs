//! The task that sends spans: gathers them into batches, tries again, and knows when to stop.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::carrier::Carrier;
use super::config::{Retry, TracingConfig};
use super::error::{SendError, TracingConfigError};
use super::failures::FailureLog;
use super::metrics::{DropReason, ExportMetrics};
use crate::lifecycle::Backoff;
use crate::net::http::Proxy;
use crate::trace::SpanReceiver;

/// The most spans in one request: what OpenTelemetry SDKs send. The largest that we make fit into
/// the 4 MiB that a collector takes.
pub const BATCH_SPANS_MAX: usize = 512;
/// How long sending what is left may take at the end, as in the reference.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the spans of a queue.
#[derive(Debug)]
pub struct Exporter {
    carrier: Carrier,
    /// For the log.
    collector: String,
    resource: ResourceAttributesWithSchema,
    flush_interval: Duration,
    retry: Retry,
    jitter_seed: u64,
    metrics: ExportMetrics,
    failures: FailureLog,
}

/// An exporter at work. Dropped, it goes on until nobody can record a span any more.
#[derive(Debug)]
pub struct RunningExporter {
    task: JoinHandle<()>,
    end: watch::Sender<bool>,
}

impl Exporter {
    /// An exporter as `config` says; reads the TLS files. `proxy` is what HTTP goes through, and
    /// `jitter_seed` spreads what is tried again.
    ///
    /// # Errors
    /// Where the TLS files can't be used.
    pub fn new(
        config: &TracingConfig,
        proxy: Option<Proxy>,
        jitter_seed: u64,
        metrics: ExportMetrics,
    ) -> Result<Self, TracingConfigError> {
        let attributes = config.resource.iter();
        let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource::builder_empty().with_attributes(attributes);
        Ok(Self {
            carrier: Carrier::new(&config.destination, proxy)?,
            collector: config.destination.shown(),
            resource: ResourceAttributesWithSchema::from(&resource.build()),
            flush_interval: config.flush_interval,
            retry: config.destination.retry,
            jitter_seed,
            metrics,
            failures: FailureLog::default(),
        })
    }

    /// Begins to send what comes out of `spans`. Must be called inside a tokio runtime.
    pub fn start(self, spans: SpanReceiver) -> RunningExporter {
        let (end, ending) = watch::channel(false);
        RunningExporter {
            task: tokio::spawn(self.run(spans, ending)),
            end,
        }
    }

    /// Sends until the end was asked for and the queue is empty, or all who could fill it are gone.
    async fn run(mut self, mut spans: SpanReceiver, mut ending: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        loop {
            let is_ending = *ending.borrow();
            let is_over = match is_ending {
                true => self.gather_rest(&mut spans, &mut batch),
                false => self.gather(&mut spans, &mut batch, &mut ending).await,
            };
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch), &mut ending).await;
            } else if is_over {
                return;
            }
        }
    }

    /// What is there without waiting; whether that was all.
    fn gather_rest(&self, spans: &mut SpanReceiver, batch: &mut Vec<SpanData>) -> bool {
        while batch.len() < BATCH_SPANS_MAX {
            match spans.try_recv() {
                Ok(span) => batch.push(span),
                Err(_) => break,
            }
        }
        batch.is_empty()
    }

    /// A full batch, or what came within the interval; whether nothing will come any more.
    async fn gather(
        &self,
        spans: &mut SpanReceiver,
        batch: &mut Vec<SpanData>,
        ending: &mut watch::Receiver<bool>,
    ) -> bool {
        tokio::select! {
            received = spans.recv_many(batch, BATCH_SPANS_MAX) => if received == 0 {
                return true;
            },
            () = asked(ending) => return false,
        }
        let due = Instant::now() + self.flush_interval;
        while batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            tokio::select! {
                received = spans.recv_many(batch, room) => if received == 0 {
                    return true;
                },
                () = tokio::time::sleep_until(due) => break,
                () = asked(ending) => break,
            }
        }
        false
    }

    async fn send(&mut self, batch: Vec<SpanData>, ending: &mut watch::Receiver<bool>) {
        let count = batch.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let outcome = self.try_send(&request, ending).await;
        match outcome {
            Ok(rejected) => {
                self.failures.succeeded(&self.collector);
                let rejected = u64::try_from(rejected).unwrap_or_default().min(count);
                self.metrics.sent.inc_by(count - rejected);
                let dropped = self.metrics.dropped(DropReason::rejected);
                dropped.inc_by(rejected);
            }
            Err(error) => {
                let spans = usize::try_from(count).unwrap_or(usize::MAX);
                self.failures.failed(&self.collector, &error, spans);
                let dropped = self.metrics.dropped(DropReason::export_failed);
                dropped.inc_by(count);
            }
        }
    }

    /// How many spans the collector refused. At the end nothing is tried again.
    async fn try_send(
        &mut self,
        request: &ExportTraceServiceRequest,
        ending: &mut watch::Receiver<bool>,
    ) -> Result<i64, SendError> {
        let Retry {
            delay_min,
            delay_max,
            elapsed_max,
        } = self.retry;
        let began = Instant::now();
        self.jitter_seed = self.jitter_seed.wrapping_add(1);
        let mut backoff = Backoff::new(delay_min, delay_max, self.jitter_seed);
        loop {
            let error = match self.carrier.send(request).await {
                Ok(None) => return Ok(0),
                Ok(Some(partial)) => {
                    let (spans, why) = (partial.rejected_spans, &partial.error_message);
                    self.failures.rejected(&self.collector, spans, why);
                    return Ok(spans);
                }
                Err(error) => error,
            };
            let delay = backoff
                .next_delay()
                .max(error.retry_after().unwrap_or_default());
            let is_late = began.elapsed().saturating_add(delay) > elapsed_max;
            if !error.is_retryable() || is_late || *ending.borrow() {
                return Err(error);
            }
            tracing::debug!(
                component = "tracing", collector = self.collector, ?delay, err = %error,
                "spans could not be sent, trying again"
            );
            // At the end once more, at once.
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = asked(ending) => {}
            }
        }
    }
}

impl RunningExporter {
    /// Sends what is left, for no longer than `limit`; the rest is dropped.
    pub async fn finish(mut self, limit: Duration) {
        self.end.send_replace(true);
        match timeout(limit, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(component = "tracing", err = %error, "sending spans ended early");
            }
            Err(_) => {
                self.task.abort();
                tracing::warn!(
                    component = "tracing",
                    ?limit,
                    "the collector did not take the last spans in time, they are dropped"
                );
            }
        }
    }
}

/// Resolves once the end was asked for; never where nobody can any more.
async fn asked(ending: &mut watch::Receiver<bool>) {
    if ending.wait_for(|is_asked| *is_asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
