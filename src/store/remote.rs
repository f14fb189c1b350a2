//! Series from the Prometheus beside us: remote read for chunks, `/api/v1/series` for labels only.

use std::pin::pin;

use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;

use super::upstream::{ListQuery, Listed, Select, Upstream};
use super::{Chunk, ChunkEncoding, Inner, Part, Series, SeriesSource, StoreError, StoreMetrics};
use crate::model::Selector;
use crate::prometheus::{
    Answer, Client, FloatSample, LabelsText, RemoteChunk, RemoteQuery, RemoteRead, RemoteSeries,
    Scope, SeriesOrder, SeriesStream,
};
use crate::trace::Span;
use crate::tsdb::{Encoding, XorEncoder};

/// Samples per chunk where Prometheus does not send chunks (contract `grpc.md` §3.3).
const SAMPLES_PER_CHUNK: usize = 120;

/// What a Prometheus is asked through.
#[derive(Clone, Debug)]
pub struct PrometheusUpstream {
    client: Client,
    received_frames: Histogram,
}

/// Series of one selection; dropping it closes the connection.
#[derive(Debug)]
pub struct PrometheusSource {
    select: Select,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Chunks(Box<ChunkStream>),
    Labels {
        stream: Box<SeriesStream>,
        /// Used again for each series.
        labels: LabelsText,
    },
}

#[derive(Debug)]
struct ChunkStream {
    read: RemoteRead,
    /// Used again for each series.
    series: RemoteSeries,
    received_frames: Histogram,
    /// Named as the reference's is, with its attributes.
    span: Span,
    sent_series: u64,
    sent_chunks: u64,
}

impl PrometheusUpstream {
    /// For the Prometheus that `client` asks.
    pub fn new(client: Client, metrics: &StoreMetrics) -> Self {
        Self {
            client,
            received_frames: metrics.received_frames.clone(),
        }
    }
}

impl Upstream for PrometheusUpstream {
    type Source = PrometheusSource;

    async fn read(&self, select: &Select) -> Result<PrometheusSource, StoreError> {
        let (start_ms, end_ms) = (select.range.mint.0, select.range.maxt.0);
        let stream = if select.labels_only {
            let scope = Scope {
                matchers: &select.matchers,
                start_ms: Some(start_ms),
                end_ms: Some(end_ms),
                limit: select.limit,
            };
            // To be sorted here, they need not be by Prometheus.
            let order = match select.conflicts_end {
                true => SeriesOrder::Sorted,
                false => SeriesOrder::Any,
            };
            Stream::Labels {
                stream: Box::new(self.client.series(scope, order).await?),
                labels: LabelsText::default(),
            }
        } else {
            let query = RemoteQuery {
                start_ms,
                end_ms,
                matchers: select.matchers.clone(),
            };
            let span = Span::asking("query_prometheus");
            span.note_with("query.request", || {
                let selector = Selector(&query.matchers);
                format!("{selector} from {start_ms} to {end_ms}")
            });
            let read = span.around(pin!(self.client.remote_read(&query))).await;
            let read = read.inspect_err(|error| span.fail(error))?;
            Stream::Chunks(Box::new(ChunkStream {
                read,
                series: RemoteSeries::default(),
                received_frames: self.received_frames.clone(),
                span,
                sent_series: 0,
                sent_chunks: 0,
            }))
        };
        Ok(PrometheusSource {
            select: select.clone(),
            stream,
        })
    }

    async fn label_names(&self, query: &ListQuery) -> Result<Listed, StoreError> {
        Ok(listed(self.client.label_names(scope(query)).await?))
    }

    async fn label_values(&self, name: &str, query: &ListQuery) -> Result<Listed, StoreError> {
        let answer = self.client.label_values(name, scope(query)).await?;
        Ok(listed(answer))
    }

    async fn has_series(&self, query: &ListQuery) -> Result<bool, StoreError> {
        let one = Scope {
            limit: Some(1),
            ..scope(query)
        };
        let mut stream = self.client.series(one, SeriesOrder::Any).await?;
        Ok(stream.next_into(&mut LabelsText::default()).await?)
    }
}

fn scope(query: &ListQuery) -> Scope<'_> {
    Scope {
        matchers: &query.matchers,
        start_ms: query.range.map(|range| range.mint.0),
        end_ms: query.range.map(|range| range.maxt.0),
        limit: query.limit,
    }
}

fn listed(answer: Answer<Vec<String>>) -> Listed {
    Listed {
        values: answer.value,
        warnings: answer.warnings,
    }
}

impl SeriesSource for PrometheusSource {
    type Item = Series;

    async fn next(&mut self) -> Result<Option<Series>, StoreError> {
        match &mut self.stream {
            Stream::Chunks(chunks) => chunks.next(&self.select).await,
            Stream::Labels { stream, labels } => {
                if !stream.next_into(labels).await? {
                    return Ok(None);
                }
                let inner = self.select.overlay.inner(labels.iter())?;
                series(&self.select, inner, Vec::new()).map(Some)
            }
        }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        match &self.stream {
            Stream::Chunks(_) => Vec::new(),
            Stream::Labels { stream, .. } => stream.warnings().to_vec(),
        }
    }
}

impl ChunkStream {
    async fn next(&mut self, select: &Select) -> Result<Option<Series>, StoreError> {
        let next = self.read_next(select).await;
        match &next {
            Ok(Some(series)) => {
                self.sent_series += 1;
                self.sent_chunks += series.chunks.len() as u64;
            }
            Ok(None) => {}
            Err(error) => self.span.fail(error),
        }
        next
    }

    async fn read_next(&mut self, select: &Select) -> Result<Option<Series>, StoreError> {
        while self.read.next_into(&mut self.series).await? {
            let received = &mut self.series;
            let chunks = if self.read.is_streamed() {
                let chunks = received.chunks.drain(..);
                chunks.map(storable).collect::<Result<Vec<_>, _>>()?
            } else {
                chunked(&received.samples)
            };
            if chunks.is_empty() {
                // Histograms do not travel as samples (contract `grpc.md` §3.3).
                let histograms = received.histograms;
                tracing::debug!(histograms, "a series without float samples is left out");
                continue;
            }
            let inner = select.overlay.inner(received.labels())?;
            return series(select, inner, chunks).map(Some);
        }
        Ok(None)
    }
}

impl Drop for ChunkStream {
    fn drop(&mut self) {
        self.span.count("processed.series", self.sent_series);
        self.span.count("processed.chunks", self.sent_chunks);
        if self.read.is_streamed() {
            self.span.count("frames", self.read.frames_and_reads().0);
            // As floats, since that is what histograms take; exact up to 2^53.
            #[expect(clippy::cast_precision_loss, reason = "see above")]
            let frames = self.read.frames_and_reads().0 as f64;
            self.received_frames.observe(frames);
        }
    }
}

fn series(select: &Select, inner: Inner, chunks: Vec<Part>) -> Result<Series, StoreError> {
    match inner.conflict.filter(|_| select.conflicts_end) {
        Some(name) => Err(StoreError::Conflict { name }),
        None => Ok(Series {
            labels: inner.labels,
            chunks,
        }),
    }
}

/// The chunk as StoreAPI can carry it.
fn storable(chunk: RemoteChunk) -> Result<Part, StoreError> {
    let id = u8::try_from(chunk.encoding).ok();
    let Some(encoding) = id.and_then(Encoding::from_id) else {
        let id = chunk.encoding;
        return Err(StoreError::Encoding { id });
    };
    let chunk = Chunk::carried(chunk.min_ms, chunk.max_ms, encoding, chunk.data)?;
    Ok(chunk.into())
}

/// Samples in chunks.
fn chunked(samples: &[FloatSample]) -> Vec<Part> {
    let chunk = |samples: &[FloatSample]| {
        let mut encoder = XorEncoder::new();
        for sample in samples {
            let taken = encoder.append(sample.t_ms, sample.value);
            debug_assert!(taken, "a chunk takes more than 120 samples");
        }
        let times = samples.iter().map(|sample| sample.t_ms);
        let (min, max) = (times.clone().min(), times.max());
        Chunk::new(
            min.unwrap_or_default(),
            max.unwrap_or_default(),
            ChunkEncoding::Xor,
            Bytes::from(encoder.finish()),
        )
        .into()
    };
    samples.chunks(SAMPLES_PER_CHUNK).map(chunk).collect()
}

#[cfg(test)]
mod tests;
