//! What a Series call costs besides reading from Prometheus and writing to the socket: labels,
//! order, shards, hashes, encoding.
//!
//! `cargo bench --features testing --bench store`; as a smoke test under `cargo test --benches`.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use outrigger::model::{ExternalLabels, Labels};
use outrigger::prometheus::PeerState;
use outrigger::proto::thanos::{LabelMatcher, SeriesRequest};
use outrigger::store::{
    Chunk, ChunkEncoding, Config, ListQuery, Listed, Select, Series, SeriesSink, SeriesSource,
    SinkClosed, Store, StoreError, StoreMetrics, Upstream,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

fn main() {
    divan::main();
}

/// Small in a debug build, which only proves that the bench runs.
const SERIES: usize = match IS_SMALL {
    _ if cfg!(debug_assertions) => 100,
    true => 2_000,
    false => 20_000,
};
/// For `make bench-instructions`, under which all runs fifty times slower.
const IS_SMALL: bool = option_env!("OUTRIGGER_BENCH_SMALL").is_some();
const CHUNKS: usize = 5;
const CHUNK_BYTES: usize = 420;
/// When the sink's buffer would go to the socket.
const FLUSH_BYTES: usize = 64 << 10;

/// Ten labels a series, already as text, as they come from a frame.
struct Memory {
    labels: Vec<Vec<(String, String)>>,
    data: Bytes,
}

struct MemorySource {
    select: Select,
    labels: std::vec::IntoIter<Vec<(String, String)>>,
    data: Bytes,
}

impl Memory {
    fn new() -> Self {
        let labels = (0..SERIES).map(|i| {
            let label = |n: usize| match n {
                9 => ("pod".to_owned(), format!("pod-{i:08}")),
                n => (format!("label_{n}"), format!("value_{n}")),
            };
            (0..10).map(label).collect()
        });
        Self {
            labels: labels.collect(),
            data: Bytes::from(vec![7; CHUNK_BYTES]),
        }
    }
}

impl Upstream for Memory {
    type Source = MemorySource;

    async fn read(&self, select: &Select) -> Result<MemorySource, StoreError> {
        Ok(MemorySource {
            select: select.clone(),
            labels: self.labels.clone().into_iter(),
            data: self.data.clone(),
        })
    }

    async fn label_names(&self, _: &ListQuery) -> Result<Listed, StoreError> {
        Ok(Listed::default())
    }

    async fn label_values(&self, _: &str, _: &ListQuery) -> Result<Listed, StoreError> {
        Ok(Listed::default())
    }

    async fn has_series(&self, _: &ListQuery) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl SeriesSource for MemorySource {
    type Item = Series;

    async fn next(&mut self) -> Result<Option<Series>, StoreError> {
        let Some(labels) = self.labels.next() else {
            return Ok(None);
        };
        let labels = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let inner = self.select.overlay.inner(labels)?;
        let chunk = |at| Chunk::new(at, at, ChunkEncoding::Xor, self.data.clone()).into();
        Ok(Some(Series {
            labels: inner.labels,
            chunks: (0..CHUNKS as i64).map(chunk).collect(),
        }))
    }
}

#[derive(Default)]
struct Sink {
    out: BytesMut,
    bytes: usize,
}

impl SeriesSink for Sink {
    fn send(
        &mut self,
        len: usize,
        encode: impl FnOnce(&mut BytesMut) + Send,
    ) -> impl Future<Output = Result<(), SinkClosed>> + Send {
        encode(&mut self.out);
        self.bytes += len;
        if self.out.len() >= FLUSH_BYTES {
            black_box(&self.out).len();
            self.out.clear();
        }
        std::future::ready(Ok(()))
    }

    fn flush(&mut self) -> impl Future<Output = Result<(), SinkClosed>> + Send {
        std::future::ready(Ok(()))
    }
}

fn store(external: &str) -> Store<Memory> {
    let labels = [(external.to_owned(), "x".to_owned())];
    let state = PeerState::up_with(ExternalLabels(labels.into_iter().collect::<Labels>()));
    let metrics = StoreMetrics::register(&mut Registry::default());
    let (_, state) = watch::channel(state);
    Store::new(Config::default(), Memory::new(), state, metrics)
}

/// A whole call, with an external label before, between and behind a series' own.
#[divan::bench(args = ["a", "mid", "z"], sample_count = 20)]
fn series_call(bencher: Bencher<'_, '_>, external: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let store = store(external);
    let request = SeriesRequest {
        max_time: 100,
        matchers: vec![LabelMatcher {
            r#type: 0,
            name: "job".to_owned(),
            value: "x".to_owned(),
        }],
        response_batch_size: 64,
        ..SeriesRequest::default()
    };
    let call = || {
        let mut sink = Sink::default();
        let answered = runtime.block_on(store.series(request.clone(), &mut sink));
        answered.expect("an answer");
        sink.bytes
    };
    let bytes = call();
    bencher
        .counter(BytesCount::new(bytes))
        .counter(ItemsCount::new(SERIES))
        .bench_local(call);
}
