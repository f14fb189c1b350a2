//! The store: what all calls share.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::metrics::StoreMetrics;
use super::outbox::RequestLimits;
use super::proof::{InnerLabels, Sighting};
use super::shared::{Flights, SharedSource};
use super::upstream::{Select, Upstream};
use super::{BlockSet, Gate, LocalUpstream, PrometheusUpstream, SortBuffer, StoreError};
use crate::prometheus::{Client, PeerState, PeerWatch};

/// How a store works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `--store.sort-buffer`, in bytes, over all calls.
    pub sort_buffer_bytes: u64,
    /// `--store.max-concurrent-series`.
    pub max_concurrent_series: usize,
    /// `--store.limits.*`.
    pub limits: RequestLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sort_buffer_bytes: 256 << 20,
            max_concurrent_series: 50,
            limits: RequestLimits::default(),
        }
    }
}

/// Answers StoreAPI calls from what Prometheus has.
pub struct Store<U: Upstream> {
    pub(super) upstream: Arc<U>,
    pub(super) state: watch::Receiver<PeerState>,
    pub(super) gate: Gate,
    pub(super) whole_answers: Gate,
    pub(super) sort_buffer: SortBuffer,
    pub(super) limits: RequestLimits,
    pub(super) inner_labels: InnerLabels,
    pub(super) metrics: StoreMetrics,
    flights: Flights<U::Source>,
    /// Prometheus did not sort a labels-only answer.
    labels_disorder: Sighting,
    /// Prometheus did not sort a remote read.
    chunks_disorder: Sighting,
}

impl<U: Upstream> fmt::Debug for Store<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store<LocalUpstream> {
    /// A store over the Prometheus that `client` asks and whose heartbeat is `peer`; `blocks` are
    /// those of its data directory that are at hand.
    pub fn over_prometheus(
        config: Config,
        client: Client,
        peer: &PeerWatch,
        blocks: Option<BlockSet>,
        registry: &mut Registry,
    ) -> Self {
        let metrics = StoreMetrics::register(registry);
        let prometheus = PrometheusUpstream::new(client, &metrics);
        let upstream = LocalUpstream::new(prometheus, blocks);
        Self::new(config, upstream, peer.state.clone(), metrics)
    }
}

impl<U: Upstream> Store<U> {
    /// A store over `upstream`, whose external labels and lowest time `state` tells.
    pub fn new(
        config: Config,
        upstream: U,
        state: watch::Receiver<PeerState>,
        metrics: StoreMetrics,
    ) -> Self {
        Self {
            upstream: Arc::new(upstream),
            state,
            gate: Gate::for_series(config.max_concurrent_series),
            whole_answers: Gate::for_whole_answers(),
            sort_buffer: SortBuffer::new(config.sort_buffer_bytes),
            limits: config.limits,
            inner_labels: InnerLabels::default(),
            metrics,
            flights: Flights::default(),
            labels_disorder: Sighting::default(),
            chunks_disorder: Sighting::default(),
        }
    }

    /// Begins to read a selection.
    pub(super) async fn open(&self, select: &Select) -> Result<U::Source, StoreError> {
        self.upstream.read(select).await
    }

    /// Reads a selection together with other calls.
    pub(super) fn share(&self, select: &Select) -> SharedSource<U> {
        let (source, joined) = self.flights.join(&self.upstream, select);
        if joined {
            self.metrics.shared.inc();
        }
        source
    }

    /// The gate of Series calls.
    pub fn series_calls(&self) -> &Gate {
        &self.gate
    }

    /// The gate of calls that hold an answer of Prometheus' as a whole; LabelNames and LabelValues
    /// pass it here, and whoever else asks such questions shares it by a clone.
    pub fn whole_answers(&self) -> &Gate {
        &self.whole_answers
    }

    /// Where it is noted that Prometheus sent series of this kind out of order.
    pub(super) fn disorder(&self, labels_only: bool) -> &Sighting {
        match labels_only {
            true => &self.labels_disorder,
            false => &self.chunks_disorder,
        }
    }
}
