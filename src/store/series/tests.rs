//! Series calls against a scripted Prometheus and a sink that remembers.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::poll_immediate;
use tokio::sync::mpsc;

use super::*;
use crate::proto::thanos::{PartialResponseStrategy, ShardInfo, series_response};
use crate::store::metrics::{DropLabels, DropReason};
use crate::store::testing::{Fake, Pairs, Script, Sink, pairs, request};
use crate::store::{Config, ErrorClass, RequestLimits};

/// Sorted, and out of order once `replica` is put in.
fn sorted_sets() -> Vec<Pairs> {
    vec![
        pairs(&[("job", "x")]),
        pairs(&[("job", "x"), ("le", "1")]),
        pairs(&[("job", "x"), ("le", "2")]),
        pairs(&[("job", "x"), ("zone", "z")]),
        pairs(&[("job", "y")]),
    ]
}

const EXPECTED: [&str; 5] = [
    "job=x,le=1,replica=r",
    "job=x,le=2,replica=r",
    "job=x,replica=r",
    "job=x,replica=r,zone=z",
    "job=y,replica=r",
];

fn fake(sets: Vec<Pairs>) -> Fake {
    Fake::new(Script {
        series: sets.into_iter().map(|labels| (labels, 2)).collect(),
        ..Script::default()
    })
}

fn values(fake: &Fake, name: &str, ranged: &[&str], all: &[&str]) {
    let owned = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
    let values = (owned(ranged), owned(all));
    let mut script = fake.script.lock().unwrap();
    script.values.insert(name.to_owned(), values);
}

#[tokio::test]
async fn series_come_in_the_order_that_they_have_with_external_labels() {
    for (batch_size, batches) in [(0, vec![1; 5]), (3, vec![1, 3, 1]), (64, vec![1, 4])] {
        let fake = fake(sorted_sets());
        let store = fake.store(Config::default(), &[("replica", "r")]);
        let mut sink = Sink::default();
        let request = SeriesRequest {
            response_batch_size: batch_size,
            ..request()
        };
        store.series(request, &mut sink).await.unwrap();
        assert_eq!(sink.labels(), EXPECTED);
        assert_eq!(sink.batches(), batches);
        assert_eq!(sink.flushes.lock().unwrap()[0], 1, "the first goes at once");
        assert_eq!(*sink.flushes.lock().unwrap().last().unwrap(), batches.len());
        assert_eq!(fake.open_sources.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn what_was_gathered_is_sent_while_prometheus_is_waited_for() {
    let (live, series) = mpsc::unbounded_channel();
    let fake = Fake::new(Script {
        live: Some(series),
        ..Script::default()
    });
    let store = fake.store(Config::default(), &[]);
    let mut sink = Sink::default();
    let seen = sink.clone();
    let request = SeriesRequest {
        response_batch_size: 64,
        ..request()
    };
    let mut call = Box::pin(store.series(request, &mut sink));
    assert!(poll_immediate(&mut call).await.is_none());
    for (value, sent) in [("a", 0), ("b", 1), ("c", 2)] {
        live.send(pairs(&[("job", value)])).unwrap();
        assert!(poll_immediate(&mut call).await.is_none());
        assert_eq!(seen.labels().len(), sent, "the last waits for its pieces");
        let flushed = seen.flushes.lock().unwrap().last().copied();
        assert_eq!(flushed.unwrap_or_default(), sent);
    }
    drop(live);
    call.await.unwrap();
    assert_eq!(seen.labels(), ["job=a", "job=b", "job=c"]);
}

#[tokio::test]
async fn a_dropped_call_gives_everything_back() {
    let (live, series) = mpsc::unbounded_channel();
    let fake = Fake::new(Script {
        live: Some(series),
        ..Script::default()
    });
    let one = Config {
        max_concurrent_series: 1,
        ..Config::default()
    };
    let store = fake.store(one, &[]);
    let (mut sink, mut second_sink) = (Sink::default(), Sink::default());
    let mut call = Box::pin(store.series(request(), &mut sink));
    assert!(poll_immediate(&mut call).await.is_none());
    let mut second = Box::pin(store.series(request(), &mut second_sink));
    assert!(poll_immediate(&mut second).await.is_none());
    assert_eq!(fake.reads.lock().unwrap().len(), 1, "the second waits");
    assert_eq!(store.metrics.pending.get(), 2);
    drop(call);
    assert!(live.is_closed(), "the read is closed");
    assert_eq!(fake.open_sources.load(Ordering::SeqCst), 0);
    second.await.unwrap();
    assert_eq!(store.metrics.pending.get(), 0);
}

#[tokio::test]
async fn limits_end_the_call() {
    for (limits, text, reason, sent) in [
        (
            RequestLimits {
                series: Some(2),
                samples: None,
            },
            "failed to send series: limit 2 violated (got 3)",
            DropReason::series,
            2,
        ),
        (
            RequestLimits {
                series: None,
                samples: Some(300),
            },
            "failed to send samples: limit 300 violated (got 480)",
            DropReason::chunks,
            1,
        ),
    ] {
        let fake = fake(sorted_sets());
        let config = Config {
            limits,
            ..Config::default()
        };
        let store = fake.store(config, &[]);
        let mut sink = Sink::default();
        let error = store.series(request(), &mut sink).await.unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(error.class(), ErrorClass::ResourceExhausted);
        let dropped = &store.metrics.selects_dropped;
        assert_eq!(dropped.get_or_create(&DropLabels { reason }).get(), 1);
        assert_eq!(sink.labels().len(), sent);
    }
    let exact = Config {
        limits: RequestLimits {
            series: Some(5),
            samples: Some(5 * 2 * 120),
        },
        ..Config::default()
    };
    let store = fake(sorted_sets()).store(exact, &[]);
    store.series(request(), &mut Sink::default()).await.unwrap();
}

/// Series with labels of their own like an external one: they come in the order of theirs.
fn conflicting() -> Vec<Pairs> {
    vec![
        pairs(&[("job", "x"), ("replica", "a"), ("zone", "2")]),
        pairs(&[("job", "x"), ("replica", "b"), ("zone", "1")]),
        pairs(&[("job", "x"), ("replica", "r"), ("zone", "0")]),
    ]
}

const SORTED: [&str; 3] = [
    "job=x,replica=r,zone=0",
    "job=x,replica=r,zone=1",
    "job=x,replica=r,zone=2",
];

#[tokio::test]
async fn series_with_labels_like_external_ones_are_sorted() {
    let fake = fake(conflicting());
    values(&fake, "replica", &["a", "b"], &["a", "b"]);
    let store = fake.store(Config::default(), &[("replica", "r")]);
    let mut sink = Sink::default();
    store.series(request(), &mut sink).await.unwrap();
    assert_eq!(sink.labels(), SORTED);
    assert_eq!(store.metrics.sorted.get(), 1);
    assert_eq!(store.sort_buffer.free_bytes(), 256 << 20, "given back");

    // Also where the label is only to be left out, and is no external one.
    let mut sink = Sink::default();
    let without = SeriesRequest {
        without_replica_labels: vec!["replica".to_owned()],
        ..request()
    };
    let store = fake.store(Config::default(), &[("cluster", "c")]);
    store.series(without, &mut sink).await.unwrap();
    let expected: Vec<_> = ["0", "1", "2"]
        .map(|z| format!("cluster=c,job=x,zone={z}"))
        .into();
    assert_eq!(sink.labels(), expected);
}

#[tokio::test]
async fn a_sort_that_does_not_fit_names_the_flag_and_sends_nothing() {
    let fake = fake(conflicting());
    values(&fake, "replica", &["a"], &["a"]);
    let small = Config {
        sort_buffer_bytes: 1024,
        ..Config::default()
    };
    let store = fake.store(small, &[("replica", "r")]);
    let mut sink = Sink::default();
    let error = store.series(request(), &mut sink).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::ResourceExhausted);
    assert!(error.to_string().contains("--store.sort-buffer"), "{error}");
    assert!(sink.labels().is_empty());
    assert_eq!(store.sort_buffer.free_bytes(), 1024);
}

#[tokio::test]
async fn a_series_that_breaks_the_proof_ends_the_call_and_the_next_one_sorts() {
    let fake = fake(conflicting());
    // Prometheus says that there are none, and goes on to say so.
    let store = fake.store(Config::default(), &[("replica", "r")]);
    let error = store.series(request(), &mut Sink::default()).await;
    let error = error.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(matches!(&error, StoreError::Conflict { name } if name == "replica"));

    let asked = fake.lists.lock().unwrap().len();
    let mut sink = Sink::default();
    store.series(request(), &mut sink).await.unwrap();
    assert_eq!(sink.labels(), SORTED);
    assert_eq!(fake.lists.lock().unwrap().len(), asked, "it is known");
}

/// A runtime with one thread for blocking work, which is busy: what is sorted waits for it.
#[test]
fn a_sort_that_nobody_waits_for_keeps_its_share_until_it_is_done() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let fake = fake(conflicting());
        values(&fake, "replica", &["a"], &["a"]);
        let store = fake.store(Config::default(), &[("replica", "r")]);
        let whole = store.sort_buffer.free_bytes();
        let mut sink = Sink::default();
        let mut call = Box::pin(store.series(request(), &mut sink));
        assert!(poll_immediate(&mut call).await.is_none());
        drop(call);
        assert!(store.sort_buffer.free_bytes() < whole, "still in memory");
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        // Behind the sort in the one thread's queue.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_eq!(store.sort_buffer.free_bytes(), whole);
    });
}

#[tokio::test(start_paused = true)]
async fn the_proof_is_remembered_for_a_while() {
    let fake = fake(sorted_sets());
    let store = fake.store(Config::default(), &[("a", "1"), ("b", "2")]);
    let without = SeriesRequest {
        without_replica_labels: vec!["b".to_owned(), "c".to_owned()],
        ..request()
    };
    let ask = async || {
        let mut sink = Sink::default();
        store.series(without.clone(), &mut sink).await.unwrap();
        let lists = fake.lists.lock().unwrap();
        lists
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ask().await, ["a", "b", "c"]);
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(ask().await.len(), 3);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ask().await.len(), 6);

    // Where there are some, but not in what is asked for, the order is known nevertheless.
    values(&fake, "a", &[], &["1"]);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(ask().await.len(), 10);
    assert_eq!(store.metrics.sorted.get(), 0);
    let lists = fake.lists.lock().unwrap();
    let (name, query) = &lists[7];
    assert_eq!(name, "a");
    assert_eq!(query.matchers.len(), 1);
    assert_eq!((query.range.is_some(), query.limit), (true, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn disorder_ends_the_call_and_for_a_while_others_sort() {
    let mut sets = sorted_sets();
    sets.swap(2, 4);
    let store = fake(sets.clone()).store(Config::default(), &[("replica", "r")]);
    for _ in 0..2 {
        let error = store.series(request(), &mut Sink::default()).await;
        assert!(matches!(error, Err(StoreError::OutOfOrder)));
        let mut sink = Sink::default();
        store.series(request(), &mut sink).await.unwrap();
        assert_eq!(sink.labels(), EXPECTED);
        tokio::time::advance(Duration::from_secs(30)).await;
    }

    // Labels only are another kind.
    let fake = fake(sets);
    let store = fake.store(Config::default(), &[("replica", "r")]);
    let labels = SeriesRequest {
        skip_chunks: true,
        limit: 7,
        ..request()
    };
    let error = store.series(labels.clone(), &mut Sink::default()).await;
    assert!(matches!(error, Err(StoreError::OutOfOrder)));
    let mut sink = Sink::default();
    store.series(labels.clone(), &mut sink).await.unwrap();
    assert_eq!(sink.labels(), EXPECTED);
    tokio::time::advance(Duration::from_secs(30)).await;
    let error = store.series(labels, &mut Sink::default()).await;
    assert!(matches!(error, Err(StoreError::OutOfOrder)), "it is tried");
    let reads = fake.reads.lock().unwrap();
    assert!(reads.iter().all(|r| r.labels_only && r.limit == Some(7)));
}

#[tokio::test]
async fn shards_are_disjoint_and_whole_on_both_ways() {
    for replica_values in [&[][..], &["a"]] {
        let mut all = Vec::new();
        for index in 0..3 {
            let fake = fake(sorted_sets());
            values(&fake, "replica", replica_values, replica_values);
            let store = fake.store(Config::default(), &[("replica", "r")]);
            let sharded = SeriesRequest {
                shard_info: Some(ShardInfo {
                    shard_index: index,
                    total_shards: 3,
                    by: false,
                    labels: Vec::new(),
                }),
                ..request()
            };
            let mut sink = Sink::default();
            store.series(sharded, &mut sink).await.unwrap();
            all.extend(sink.labels());
        }
        all.sort();
        let mut expected = EXPECTED.to_vec();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }
}

#[tokio::test]
async fn failures_are_never_a_short_success() {
    for replica_values in [&[][..], &["a"]] {
        let fake = fake(sorted_sets());
        fake.script.lock().unwrap().fails = true;
        values(&fake, "replica", replica_values, replica_values);
        let store = fake.store(Config::default(), &[("replica", "r")]);
        let error = store.series(request(), &mut Sink::default()).await;
        assert_eq!(error.unwrap_err().class(), ErrorClass::Unavailable);
    }
    let fake = fake(sorted_sets());
    let store = fake.store(Config::default(), &[]);
    let mut sink = Sink::default();
    sink.closed.store(true, Ordering::SeqCst);
    let error = store.series(request(), &mut sink).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Canceled);
}

#[tokio::test]
async fn warnings_are_passed_on_and_empty_answers_ask_nothing() {
    let fake = fake(sorted_sets());
    let warnings = ["results truncated due to limit", "not all was read"];
    fake.script.lock().unwrap().warnings = warnings.map(str::to_owned).into();
    let store = fake.store(Config::default(), &[("replica", "r")]);
    let mut sink = Sink::default();
    store.series(request(), &mut sink).await.unwrap();
    let messages: &Mutex<_> = &sink.messages;
    let last = messages.lock().unwrap().pop().unwrap();
    assert_eq!(
        last,
        series_response::Result::Warning("not all was read".to_owned())
    );
    assert_eq!(messages.lock().unwrap().len(), sorted_sets().len());

    #[expect(deprecated, reason = "queriers still set it")]
    let disabled = SeriesRequest {
        partial_response_disabled: true,
        ..request()
    };
    let abort = SeriesRequest {
        partial_response_strategy: PartialResponseStrategy::Abort.into(),
        ..request()
    };
    for whole_only in [disabled, abort] {
        let mut sink = Sink::default();
        store.series(whole_only, &mut sink).await.unwrap();
        assert_eq!(sink.batches(), vec![1; sorted_sets().len()], "no warning");
    }

    let reads = fake.reads.lock().unwrap().len();
    let inverted = SeriesRequest {
        min_time: 101,
        ..request()
    };
    let mut sink = Sink::default();
    store.series(inverted, &mut sink).await.unwrap();
    assert_eq!(fake.reads.lock().unwrap().len(), reads);
    assert!(sink.labels().is_empty());
}
