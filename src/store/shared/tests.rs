//! Calls that share a read: all at once, late, slow, and gone.

use std::sync::atomic::Ordering::SeqCst;

use bytes::BytesMut;
use futures_util::future::{join_all, pending, poll_immediate};

use super::*;
use crate::proto::thanos::{SeriesRequest, ShardInfo};
use crate::store::testing::{Fake, Pairs, Script, Sink, pairs, range, request};
use crate::store::{Config, Overlay, SeriesSink, SinkClosed, Store};

fn sets(count: usize) -> Vec<Pairs> {
    (0..count)
        .map(|i| pairs(&[("job", "x"), ("pod", &format!("{i:05}"))]))
        .collect()
}

fn fake(count: usize, chunks: usize) -> Fake {
    Fake::new(Script {
        series: sets(count).into_iter().map(|s| (s, chunks)).collect(),
        warnings: vec!["w".to_owned()],
        ..Script::default()
    })
}

fn select() -> Select {
    Select {
        range: range(0, 100),
        matchers: Vec::new(),
        labels_only: false,
        limit: None,
        overlay: Arc::new(Overlay::for_chunks(&Default::default(), &[]).unwrap()),
        conflicts_end: true,
    }
}

fn sharded(index: i64, total: i64) -> SeriesRequest {
    SeriesRequest {
        shard_info: Some(ShardInfo {
            shard_index: index,
            total_shards: total,
            by: false,
            labels: Vec::new(),
        }),
        response_batch_size: 64,
        ..request()
    }
}

impl SharedSource<Fake> {
    fn flight(&self) -> &Flight<<Fake as Upstream>::Source> {
        match &self.place {
            Place::Aboard(seat) => &seat.flight,
            Place::Alone { .. } => panic!("it reads alone"),
        }
    }
}

async fn call(store: &Store<Fake>, index: i64, mut sink: Sink) -> Result<Sink, StoreError> {
    store.series(sharded(index, 16), &mut sink).await?;
    Ok(sink)
}

#[tokio::test]
async fn sixteen_shards_are_one_read() {
    let fake = fake(3000, 20);
    let store = fake.store(Config::default(), &[("replica", "r")]);
    let calls = (0..16).map(|index| call(&store, index, Sink::default()));
    let sinks = join_all(calls).await;
    let mut all: Vec<String> = Vec::new();
    for sink in sinks {
        let labels = sink.unwrap().labels();
        assert!(labels.is_sorted());
        all.extend(labels);
    }
    all.sort();
    let expected: Vec<String> = (0..3000)
        .map(|i| format!("job=x,pod={i:05},replica=r"))
        .collect();
    assert_eq!(all, expected);
    assert_eq!(fake.reads.lock().unwrap().len(), 1);
    assert_eq!(store.metrics.shared.get(), 15);
    assert_eq!(fake.open_sources.load(SeqCst), 0);
}

#[tokio::test]
async fn failures_reach_every_call() {
    // Enough of them for the first call to let the others begin.
    let fake = fake(300, 1);
    fake.script.lock().unwrap().fails = true;
    let store = fake.store(Config::default(), &[]);
    let calls = (0..4).map(|index| call(&store, index, Sink::default()));
    for outcome in join_all(calls).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable);
        assert_eq!(error.to_string(), "scripted");
    }
    assert_eq!(fake.reads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn other_selections_and_late_calls_read_for_themselves() {
    let fake = fake(1000, 200);
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (mut first, joined) = flights.join(&upstream, &select());
    assert!(!joined);
    let other = Select {
        range: range(0, 99),
        ..select()
    };
    assert!(!flights.join(&upstream, &other).1);
    let (second, joined) = flights.join(&upstream, &select());
    assert!(joined);
    drop(second);
    while first.flight().window().first == 0 {
        first.next().await.unwrap().unwrap();
    }
    assert!(
        !flights.join(&upstream, &select()).1,
        "the beginning is gone"
    );
    drop(first);
    assert_eq!(fake.open_sources.load(SeqCst), 0);
    assert!(!flights.join(&upstream, &select()).1);
    assert_eq!(
        flights.open.lock().unwrap().len(),
        1,
        "the dead are forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_stands_still_holds_up_the_others_only_for_a_moment() {
    let fake = fake(1000, 100);
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (mut fast, _) = flights.join(&upstream, &select());
    let (mut slow, joined) = flights.join(&upstream, &select());
    assert!(joined);
    let mut slow_had = Vec::new();
    for _ in 0..3 {
        slow_had.push(slow.next().await.unwrap().unwrap());
    }
    let started = Instant::now();
    let mut fast_had = Vec::new();
    while let Some(series) = fast.next().await.unwrap() {
        let held = fast.flight().window().bytes;
        assert!(held <= WINDOW_BYTES_MAX + series.memory_bytes());
        fast_had.push(series);
    }
    assert_eq!(fast_had.len(), 1000);
    assert_eq!(started.elapsed().as_secs(), 1, "held up once");
    assert_eq!(fake.reads.lock().unwrap().len(), 1);

    while let Some(series) = slow.next().await.unwrap() {
        slow_had.push(series);
    }
    assert_eq!(slow_had, fast_had);
    assert_eq!(slow.take_warnings(), ["w"]);
    assert_eq!(fake.reads.lock().unwrap().len(), 2, "it went on alone");
}

#[tokio::test]
async fn pieces_that_were_had_are_not_had_again() {
    let fake = fake(1, 3);
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (mut source, _) = flights.join(&upstream, &select());
    let first = source.next().await.unwrap().unwrap();
    assert_eq!(first.chunks.len(), 3);
    source.flight().window().first = 5;
    assert!(source.next().await.unwrap().is_none());
    assert_eq!(fake.reads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_puller_that_goes_away_does_not_take_the_series_with_it() {
    let (live, series) = tokio::sync::mpsc::unbounded_channel();
    let fake = Fake::new(Script {
        live: Some(series),
        ..Script::default()
    });
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (mut first, _) = flights.join(&upstream, &select());
    let (mut second, _) = flights.join(&upstream, &select());
    let mut pulling = Box::pin(first.next());
    assert!(poll_immediate(&mut pulling).await.is_none());
    let mut waiting = Box::pin(second.next());
    assert!(poll_immediate(&mut waiting).await.is_none());
    drop(pulling);
    drop(first);
    live.send(pairs(&[("job", "x")])).unwrap();
    assert!(waiting.await.unwrap().is_some());
    drop(second);
    assert!(live.is_closed());
}

/// A sink that takes no more once its first message is flushed.
#[derive(Default)]
struct Stalled {
    flushes: usize,
}

impl SeriesSink for Stalled {
    async fn send(
        &mut self,
        _len: usize,
        _encode: impl FnOnce(&mut BytesMut) + Send,
    ) -> Result<(), SinkClosed> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        self.flushes += 1;
        match self.flushes {
            1 => Ok(()),
            _ => pending().await,
        }
    }
}

#[tokio::test]
async fn a_caller_that_takes_no_more_does_not_stop_the_others() {
    let (live, series) = tokio::sync::mpsc::unbounded_channel();
    let fake = Fake::new(Script {
        live: Some(series),
        ..Script::default()
    });
    let store = fake.store(Config::default(), &[]);
    let (mut stalled, mut sink) = (Stalled::default(), Sink::default());
    let seen = sink.clone();
    let mut first = Box::pin(store.series(sharded(0, 1), &mut stalled));
    let mut second = Box::pin(store.series(sharded(0, 1), &mut sink));
    assert!(poll_immediate(&mut first).await.is_none());
    assert!(poll_immediate(&mut second).await.is_none());
    for sent in sets(3) {
        live.send(sent).unwrap();
        // Each time it is the first to ask for the next series, with one that waits to be sent.
        assert!(poll_immediate(&mut first).await.is_none());
        assert!(poll_immediate(&mut second).await.is_none());
    }
    for sent in sets(6).split_off(3) {
        live.send(sent).unwrap();
        assert!(poll_immediate(&mut second).await.is_none());
    }
    assert_eq!(seen.labels().len(), 5, "the last waits for its pieces");
    assert_eq!(fake.reads.lock().unwrap().len(), 1);
    drop(live);
    second.await.unwrap();
    drop(first);
    assert_eq!(fake.open_sources.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_on_alone_holds_no_second_connection() {
    let fake = fake(1000, 100);
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (mut fast, _) = flights.join(&upstream, &select());
    let (mut slow, _) = flights.join(&upstream, &select());
    slow.next().await.unwrap().unwrap();
    while fast.flight().window().first < 2 {
        fast.next().await.unwrap().unwrap();
    }
    drop(fast);
    assert_eq!(fake.open_sources.load(SeqCst), 1, "the flight's");
    slow.next().await.unwrap().unwrap();
    assert_eq!(fake.reads.lock().unwrap().len(), 2);
    assert_eq!(fake.open_sources.load(SeqCst), 1, "its own");
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_holds_up_the_others_only_for_so_long_in_all() {
    let fake = fake(1000, 100);
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (mut fast, _) = flights.join(&upstream, &select());
    let (mut slow, _) = flights.join(&upstream, &select());
    let started = Instant::now();
    let crawl = async {
        while slow.next().await.unwrap().is_some() {
            tokio::time::sleep(LAG_MAX * 9 / 10).await;
        }
    };
    let run = async { while fast.next().await.unwrap().is_some() {} };
    tokio::select! {
        () = crawl => panic!("the slow one was first"),
        () = run => {}
    }
    let took = started.elapsed();
    assert!(took >= LAG_TOTAL_MAX, "{took:?}");
    assert!(took <= LAG_TOTAL_MAX + LAG_MAX, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flight_is_joined_only_at_its_beginning() {
    let fake = fake(3, 1);
    let upstream = Arc::new(fake.clone());
    let flights = Flights::default();
    let (first, _) = flights.join(&upstream, &select());
    tokio::time::advance(JOIN_WITHIN / 2).await;
    assert!(flights.join(&upstream, &select()).1);
    tokio::time::advance(JOIN_WITHIN / 2).await;
    assert!(!flights.join(&upstream, &select()).1, "it is old");
    drop(first);

    let (mut first, joined) = flights.join(&upstream, &select());
    assert!(!joined);
    while first.next().await.unwrap().is_some() {}
    assert!(!flights.join(&upstream, &select()).1, "all is over");
}
