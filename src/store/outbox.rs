//! What leaves a Series call: limits, batches, the sink.

use std::future::Future;

use bytes::BytesMut;
use xxhash_rust::xxh64::xxh64;

use super::encode::{Measured, Message};
use super::metrics::{DropLabels, DropReason, StoreMetrics};
use super::{LabelSet, Limited, Part, Series, SeriesQuery, StoreError};
use crate::trace::Span;

/// A message of several series is sent at this size, even if it could have more of them.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Chunk data are views of receive buffers, and a batch that only takes few of many series would
/// keep all of those; so it goes out after this much was received.
const BATCH_RECEIVED_BYTES_MAX: usize = 1 << 20;
/// What a chunk counts against the limit on samples (contract `grpc.md` §3.8).
const SAMPLES_PER_CHUNK: u64 = 120;
/// Prometheus' remark on an answer that has as many series as were asked for: no news to whoever
/// gave the limit, and any warning spoils the query's answer.
const TRUNCATED: &str = "results truncated due to limit";

/// Nobody reads what is sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller is gone")]
pub struct SinkClosed;

/// Where messages go. A sink that can't take more makes the call wait, and so Prometheus.
pub trait SeriesSink: Send {
    /// Sends a message of exactly `len` bytes, which `encode` appends.
    fn send(
        &mut self,
        len: usize,
        encode: impl FnOnce(&mut BytesMut) + Send,
    ) -> impl Future<Output = Result<(), SinkClosed>> + Send;

    /// Sends on what may have been gathered.
    fn flush(&mut self) -> impl Future<Output = Result<(), SinkClosed>> + Send;
}

/// `--store.limits.*`, per request; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Series.
    pub series: Option<u64>,
    /// Samples, counted as 120 per chunk.
    pub samples: Option<u64>,
}

/// Counts, gathers and sends the series of one call.
pub(super) struct Outbox<'a, S> {
    sink: &'a mut S,
    /// Put into every series.
    added: &'a LabelSet,
    limits: RequestLimits,
    metrics: &'a StoreMetrics,
    batch_series: usize,
    warnings: bool,
    batch: Vec<Measured>,
    batch_bytes: usize,
    received_bytes: usize,
    sent_any: bool,
    /// Whether the sink may hold messages back.
    unflushed: bool,
    series: u64,
    chunks: u64,
    /// Hash of the labels of the series that came last, which may go on.
    last: Option<u64>,
    span: Span,
}

impl<'a, S: SeriesSink> Outbox<'a, S> {
    pub(super) fn new(
        sink: &'a mut S,
        added: &'a LabelSet,
        query: &SeriesQuery,
        limits: RequestLimits,
        metrics: &'a StoreMetrics,
    ) -> Self {
        Self {
            sink,
            added,
            limits,
            metrics,
            batch_series: query.batch_series,
            warnings: query.warnings,
            batch: Vec::new(),
            batch_bytes: 0,
            received_bytes: 0,
            sent_any: false,
            unflushed: false,
            series: 0,
            chunks: 0,
            last: None,
            span: Span::none(),
        }
    }

    /// Begins the span of what comes now, which ends with this: named as the reference's is.
    pub(super) fn trace(&mut self) {
        self.span = Span::child("transform_and_respond");
    }

    /// What is put into every series.
    pub(super) fn added(&self) -> &'a LabelSet {
        self.added
    }

    /// Sends a series, maybe together with the next ones. The first goes out at once.
    pub(super) async fn push(&mut self, series: Series) -> Result<(), StoreError> {
        self.count(&series)?;
        let series = Measured::new(series, self.added);
        if self.batch_series <= 1 {
            self.send(Message::Series(&series)).await?;
        } else {
            self.batch_bytes += series.encoded_len();
            self.batch.push(series);
            let full = self.batch.len() >= self.batch_series || self.batch_bytes >= BATCH_BYTES_MAX;
            if full || !self.sent_any {
                self.send_batch().await?;
            }
        }
        if !self.sent_any {
            self.sent_any = true;
            self.flush().await?;
        }
        Ok(())
    }

    /// Notes that this much was received, wanted or not.
    pub(super) async fn received(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.received_bytes += bytes;
        if self.received_bytes >= BATCH_RECEIVED_BYTES_MAX {
            self.send_batch().await?;
        }
        Ok(())
    }

    /// Tells whoever runs the query something, if that is wanted.
    pub(super) async fn warn(&mut self, text: &str) -> Result<(), StoreError> {
        if !self.warnings || text.contains(TRUNCATED) {
            return Ok(());
        }
        self.send(Message::Warning(text)).await
    }

    /// Whether [`Self::flush`] has something to send.
    pub(super) fn has_gathered(&self) -> bool {
        self.unflushed || !self.batch.is_empty()
    }

    /// Sends all that was gathered.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.send_batch().await?;
        self.sink.flush().await.map_err(gone)?;
        self.unflushed = false;
        Ok(())
    }

    /// The end of a successful call.
    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
        self.flush().await?;
        // As floats, since that is what histograms take; exact up to 2^53.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let (series, chunks) = (self.series as f64, self.chunks as f64);
        self.metrics.series_requested.observe(series);
        self.metrics.chunks_requested.observe(chunks);
        Ok(())
    }

    fn count(&mut self, series: &Series) -> Result<(), StoreError> {
        let labels = Some(xxh64(series.labels.wire(), 0));
        self.series += u64::from(self.last != labels);
        self.last = labels;
        self.chunks += series.chunks.iter().map(Part::count).sum::<usize>() as u64;
        let samples = self.chunks.saturating_mul(SAMPLES_PER_CHUNK);
        for (what, reason, limit, got) in [
            (
                Limited::Series,
                DropReason::series,
                self.limits.series,
                self.series,
            ),
            (
                Limited::Samples,
                DropReason::chunks,
                self.limits.samples,
                samples,
            ),
        ] {
            if let Some(limit) = limit.filter(|limit| got > *limit) {
                let dropped = &self.metrics.selects_dropped;
                dropped.get_or_create(&DropLabels { reason }).inc();
                return Err(StoreError::Limit { what, limit, got });
            }
        }
        Ok(())
    }

    async fn send_batch(&mut self) -> Result<(), StoreError> {
        self.received_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.send(Message::Batch(&batch)).await?;
        batch.clear();
        self.batch = batch;
        self.batch_bytes = 0;
        Ok(())
    }

    async fn send(&mut self, message: Message<'_>) -> Result<(), StoreError> {
        let added = self.added;
        let len = message.len();
        let encode = |out: &mut BytesMut| message.write(added, out);
        self.unflushed = true;
        self.sink.send(len, encode).await.map_err(gone)
    }
}

fn gone(_: SinkClosed) -> StoreError {
    StoreError::CallerGone
}

impl<S> Drop for Outbox<'_, S> {
    fn drop(&mut self) {
        self.span.count("series_count", self.series);
        self.span.count("chunk_count", self.chunks);
    }
}
