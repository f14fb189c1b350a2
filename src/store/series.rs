//! The Series call: parse, wait for a share, prove the order, then stream.

use std::sync::Arc;

use futures_util::future::poll_immediate;
use prometheus_client::metrics::gauge::Gauge;

use super::label_set::Merged;
use super::outbox::Outbox;
use super::upstream::{Select, Upstream};
use super::{
    LabelSet, Lease, Overlay, Parsed, Part, Resort, Series, SeriesQuery, SeriesSink, SeriesSource,
    Shard, Store, StoreError,
};
use crate::lifecycle::blocking;
use crate::proto::thanos::SeriesRequest;

/// How much of the series that wait for a later one is the call's own; the rest comes out of
/// `--store.sort-buffer`. Usually one series of some KiB waits.
const WAITING_BYTES_FREE: usize = 1 << 20;

/// Why a sort can be needed, for the error when it does not fit.
const WHY_OWN_LABELS: &str = "some have labels of their own that external or replica labels have";
const WHY_UNSORTED: &str = "Prometheus sent some out of order a moment ago";
const WHY_WAITING: &str = "a series of great size waits for its place";

/// A call that runs or waits, in the gauge.
struct Pending<'a>(&'a Gauge);

impl<'a> Pending<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<U: Upstream> Store<U> {
    /// Answers a Series call. Messages are sent as their data come in; an error may follow after
    /// some were sent. Dropping the future gives back all that the call holds and closes the
    /// connection to Prometheus.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn series(
        &self,
        request: SeriesRequest,
        sink: &mut impl SeriesSink,
    ) -> Result<(), StoreError> {
        let _pending = Pending::new(&self.metrics.pending);
        let (external, mint) = {
            let state = self.state.borrow();
            (state.labels.clone(), state.mint)
        };
        let mut query = match SeriesQuery::parse(request, &external, mint)? {
            Parsed::Empty => return Ok(()),
            Parsed::Query(query) => query,
        };
        let without = &query.without_replica_labels;
        let overlay = Arc::new(match query.skip_chunks {
            true => Overlay::for_labels(&external, without)?,
            false => Overlay::for_chunks(&external, without)?,
        });
        let _running = self.gate.enter().await?;
        let mut select = Select {
            range: query.range,
            matchers: std::mem::take(&mut query.matchers),
            labels_only: query.skip_chunks,
            limit: query.limit.filter(|_| query.skip_chunks),
            overlay: Arc::clone(&overlay),
            conflicts_end: true,
        };
        let why_sort = self.why_sort(&select).await?;
        // Labels-only answers are not sharded (contract `grpc.md` §3.2).
        let shard = query.shard.take().filter(|_| !query.skip_chunks);
        let nothing = LabelSet::default();
        let added = match why_sort {
            None => overlay.added(),
            Some(_) => &nothing,
        };
        let outbox = Outbox::new(sink, added, &query, self.limits, &self.metrics);
        let Some(why) = why_sort else {
            let outcome = match &shard {
                Some(shard) => {
                    let source = self.share(&select);
                    self.stream(source, Some(shard), outbox).await
                }
                None => {
                    let source = self.open(&select).await?;
                    self.stream(source, None, outbox).await
                }
            };
            self.learn(&select, &outcome);
            return outcome;
        };
        self.metrics.sorted.inc();
        select.conflicts_end = false;
        let source = self.open(&select).await?;
        self.sort(source, shard.as_ref(), overlay.added(), why, outbox)
            .await
    }

    /// Why the series can't be sent as they come; `None` where they can.
    async fn why_sort(&self, select: &Select) -> Result<Option<&'static str>, StoreError> {
        if self.disorder(select.labels_only).is_believed() {
            return Ok(Some(WHY_UNSORTED));
        }
        let conflict = self.inner_labels.first_conflict(&*self.upstream, select);
        let Some(label) = conflict.await? else {
            return Ok(None);
        };
        tracing::debug!(label, "series have a label like an external one, sorting");
        Ok(Some(WHY_OWN_LABELS))
    }

    /// Remembers what a call ran into, so that the next one does better.
    fn learn(&self, select: &Select, outcome: &Result<(), StoreError>) {
        match outcome {
            Err(StoreError::Conflict { name }) => self.inner_labels.refuted(name),
            Err(StoreError::OutOfOrder) => self.disorder(select.labels_only).note(),
            _ => {}
        }
    }

    async fn stream<S: SeriesSink>(
        &self,
        mut source: impl SeriesSource,
        shard: Option<&Shard>,
        mut outbox: Outbox<'_, S>,
    ) -> Result<(), StoreError> {
        outbox.trace();
        let added = outbox.added();
        let mut resort = Resort::new(added);
        let mut lease = self.sort_buffer.lease(WHY_WAITING);
        let mut scratch = Vec::new();
        while let Some(series) = next_or_flush(&mut source, &mut outbox).await? {
            let (labels, bytes) = (&series.as_ref().labels, series.as_ref().data_bytes());
            outbox.received(bytes).await?;
            let labels = Merged::new(labels, added);
            if shard.is_some_and(|shard| !shard.contains(labels, &mut scratch)) {
                continue;
            }
            resort.push(series.into())?;
            let beyond = resort.waiting_bytes().saturating_sub(WAITING_BYTES_FREE);
            lease.resize(beyond as u64)?;
            while let Some(series) = resort.pop() {
                outbox.push(series).await?;
            }
        }
        resort.finish();
        while let Some(series) = resort.pop() {
            outbox.push(series).await?;
        }
        warn(&mut source, &mut outbox).await?;
        outbox.finish().await
    }

    async fn sort<S: SeriesSink>(
        &self,
        mut source: impl SeriesSource,
        shard: Option<&Shard>,
        added: &LabelSet,
        why: &'static str,
        mut outbox: Outbox<'_, S>,
    ) -> Result<(), StoreError> {
        outbox.trace();
        let mut lease = self.sort_buffer.lease(why);
        let mut bytes = 0;
        let mut scratch = Vec::new();
        let mut all: Vec<Series> = Vec::new();
        while let Some(series) = source.next().await? {
            let mut series: Series = series.into();
            series.labels = series.labels.merged(added)?;
            if shard.is_some_and(|s| !s.contains(series.labels.iter(), &mut scratch)) {
                continue;
            }
            series.detach();
            bytes += series.memory_bytes() as u64;
            // Doubling a vector holds the old one beside the new; both are counted before.
            let slots = (all.len() + 1).next_power_of_two() * 3 / 2;
            lease.resize(bytes + (slots * size_of::<Series>()) as u64)?;
            all.push(series);
        }
        let (all, _lease) = sorted(all, lease).await;
        for series in all {
            outbox.push(series).await?;
        }
        warn(&mut source, &mut outbox).await?;
        outbox.finish().await
    }
}

/// The next series; what was gathered is sent where Prometheus has to be waited for. The wait for
/// a series is given up for that: it may hold what other calls of the same flight need, and a
/// caller may take its time.
async fn next_or_flush<I, S: SeriesSink>(
    source: &mut impl SeriesSource<Item = I>,
    outbox: &mut Outbox<'_, S>,
) -> Result<Option<I>, StoreError> {
    if outbox.has_gathered() {
        if let Some(next) = poll_immediate(source.next()).await {
            return next;
        }
        outbox.flush().await?;
    }
    source.next().await
}

async fn warn<S: SeriesSink>(
    source: &mut impl SeriesSource,
    outbox: &mut Outbox<'_, S>,
) -> Result<(), StoreError> {
    for text in source.take_warnings() {
        outbox.warn(&text).await?;
    }
    Ok(())
}

/// Sorts off the runtime's threads: a million label sets take a second. Pieces of one series, which
/// may have come from several sources, stand in the order of time; without chunks they are one. The
/// lease goes along: what is sorted is in memory until that is done, even
/// if nobody waits for it any more.
async fn sorted(mut all: Vec<Series>, lease: Lease) -> (Vec<Series>, Lease) {
    blocking(move || {
        let first_ms = |series: &Series| series.chunks.first().map(Part::min_ms);
        all.sort_by(|a, b| a.labels.cmp(&b.labels).then(first_ms(a).cmp(&first_ms(b))));
        all.dedup_by(|b, a| b.chunks.is_empty() && a.labels == b.labels);
        (all, lease)
    })
    .await
}

#[cfg(test)]
mod tests;
