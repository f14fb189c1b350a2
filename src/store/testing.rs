//! A scripted Prometheus and a sink that remembers, for the tests of this module.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::sync::{mpsc, watch};

use super::{
    Chunk, ChunkEncoding, Config, ErrorClass, ListQuery, Listed, QueryRange, Select, Series,
    SeriesSink, SeriesSource, SinkClosed, Store, StoreError, StoreMetrics, Upstream,
};
use crate::model::{ExternalLabels, Labels, TimestampMs};
use crate::prometheus::PeerState;
use crate::proto::thanos::{self, LabelMatcher, SeriesRequest, series_response};

pub(super) type Pairs = Vec<(String, String)>;

pub(super) fn pairs(labels: &[(&str, &str)]) -> Pairs {
    labels
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

/// What a [`Fake`] answers.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Series as they come, each with this many chunks; ignored where `live` is set.
    pub(super) series: Vec<(Pairs, usize)>,
    /// Fails after the series.
    pub(super) fails: bool,
    /// A read takes its series from here as they are sent.
    pub(super) live: Option<mpsc::UnboundedReceiver<Pairs>>,
    pub(super) names: Vec<String>,
    /// By label; those asked for with a range, then those of all time.
    pub(super) values: BTreeMap<String, (Vec<String>, Vec<String>)>,
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Fake {
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) reads: Arc<Mutex<Vec<Select>>>,
    pub(super) lists: Arc<Mutex<Vec<(String, ListQuery)>>>,
    pub(super) open_sources: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(super) struct FakeSource {
    select: Select,
    series: VecDeque<(Pairs, usize)>,
    fails: bool,
    live: Option<mpsc::UnboundedReceiver<Pairs>>,
    warnings: Vec<String>,
    open: Arc<AtomicUsize>,
}

pub(super) fn failure() -> StoreError {
    StoreError::Shared {
        message: "scripted".to_owned(),
        class: ErrorClass::Unavailable,
    }
}

impl Fake {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script: Arc::new(Mutex::new(script)),
            ..Self::default()
        }
    }

    pub(super) fn store(&self, config: Config, external: &[(&str, &str)]) -> Store<Self> {
        let labels = pairs(external).into_iter().collect::<Labels>();
        let state = PeerState::up_with(ExternalLabels(labels));
        let (_, state) = watch::channel(state);
        let metrics = StoreMetrics::register(&mut Registry::default());
        Store::new(config, self.clone(), state, metrics)
    }

    fn listed(&self, what: &str, query: &ListQuery, values: Vec<String>) -> Listed {
        let asked = (what.to_owned(), query.clone());
        self.lists.lock().unwrap().push(asked);
        Listed {
            values,
            warnings: self.script.lock().unwrap().warnings.clone(),
        }
    }
}

impl Upstream for Fake {
    type Source = FakeSource;

    async fn read(&self, select: &Select) -> Result<FakeSource, StoreError> {
        self.reads.lock().unwrap().push(select.clone());
        self.open_sources.fetch_add(1, Ordering::SeqCst);
        let mut script = self.script.lock().unwrap();
        Ok(FakeSource {
            select: select.clone(),
            series: script.series.clone().into(),
            fails: script.fails,
            live: script.live.take(),
            warnings: script.warnings.clone(),
            open: Arc::clone(&self.open_sources),
        })
    }

    async fn label_names(&self, query: &ListQuery) -> Result<Listed, StoreError> {
        let names = self.script.lock().unwrap().names.clone();
        Ok(self.listed("names", query, names))
    }

    async fn label_values(&self, name: &str, query: &ListQuery) -> Result<Listed, StoreError> {
        let values = self.script.lock().unwrap().values.get(name).cloned();
        let (ranged, all) = values.unwrap_or_default();
        let values = if query.range.is_some() { ranged } else { all };
        Ok(self.listed(name, query, values))
    }

    async fn has_series(&self, query: &ListQuery) -> Result<bool, StoreError> {
        let any = !self.script.lock().unwrap().series.is_empty();
        self.listed("series", query, Vec::new());
        Ok(any)
    }
}

impl Drop for FakeSource {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SeriesSource for FakeSource {
    type Item = Series;

    async fn next(&mut self) -> Result<Option<Series>, StoreError> {
        let next = match &mut self.live {
            Some(live) => live.recv().await.map(|labels| (labels, 1)),
            None => self.series.pop_front(),
        };
        let Some((labels, chunks)) = next else {
            return if self.fails { Err(failure()) } else { Ok(None) };
        };
        let labels = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let inner = self.select.overlay.inner(labels)?;
        if let Some(name) = inner.conflict.filter(|_| self.select.conflicts_end) {
            return Err(StoreError::Conflict { name });
        }
        let chunk = |at: usize| {
            let time = i64::try_from(at).unwrap();
            let data = Bytes::from(vec![7; 100]);
            Chunk::new(time, time, ChunkEncoding::Xor, data).into()
        };
        let chunks = if self.select.labels_only { 0 } else { chunks };
        Ok(Some(Series {
            labels: inner.labels,
            chunks: (0..chunks).map(chunk).collect(),
        }))
    }

    fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// Remembers messages, and how many were there at each flush.
#[derive(Clone, Debug, Default)]
pub(super) struct Sink {
    pub(super) messages: Arc<Mutex<Vec<series_response::Result>>>,
    pub(super) flushes: Arc<Mutex<Vec<usize>>>,
    pub(super) closed: Arc<AtomicBool>,
}

impl Sink {
    /// The label sets sent, whether in batches or not, as one text each.
    pub(super) fn labels(&self) -> Vec<String> {
        let shown = |series: &thanos::Series| {
            let labels = series.labels.iter();
            let labels: Vec<_> = labels.map(|l| format!("{}={}", l.name, l.value)).collect();
            labels.join(",")
        };
        let messages = self.messages.lock().unwrap();
        let all = messages.iter().flat_map(|message| match message {
            series_response::Result::Series(series) => vec![shown(series)],
            series_response::Result::Batch(batch) => batch.series.iter().map(shown).collect(),
            _ => Vec::new(),
        });
        all.collect()
    }

    /// How many series each message has; 0 for one that has none.
    pub(super) fn batches(&self) -> Vec<usize> {
        let messages = self.messages.lock().unwrap();
        let size = |message: &series_response::Result| match message {
            series_response::Result::Series(_) => 1,
            series_response::Result::Batch(batch) => batch.series.len(),
            _ => 0,
        };
        messages.iter().map(size).collect()
    }
}

impl SeriesSink for Sink {
    async fn send(
        &mut self,
        len: usize,
        encode: impl FnOnce(&mut BytesMut) + Send,
    ) -> Result<(), SinkClosed> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(SinkClosed);
        }
        let mut out = BytesMut::new();
        encode(&mut out);
        assert_eq!(out.len(), len);
        let message = thanos::SeriesResponse::decode(out.freeze()).unwrap();
        self.messages.lock().unwrap().push(message.result.unwrap());
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        let sent = self.messages.lock().unwrap().len();
        self.flushes.lock().unwrap().push(sent);
        Ok(())
    }
}

pub(super) fn matcher(name: &str, value: &str) -> LabelMatcher {
    LabelMatcher {
        r#type: 0,
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// A request for `job="x"` in `0..=100`.
pub(super) fn request() -> SeriesRequest {
    SeriesRequest {
        max_time: 100,
        matchers: vec![matcher("job", "x")],
        ..SeriesRequest::default()
    }
}

pub(super) fn range(mint: i64, maxt: i64) -> QueryRange {
    QueryRange {
        mint: TimestampMs(mint),
        maxt: TimestampMs(maxt),
    }
}
