//! What bounds a call, and what calls share.

use std::collections::BTreeSet;
use std::time::Duration;

use outrigger::net::grpc::Code;
use outrigger::proto::thanos::{LabelValuesRequest, LabelValuesResponse, ShardInfo};

use super::{END_MS, START_MS, Stand, everything, exposition, sampled};
use crate::support::{Harm, StoreClient, eventually, matcher, pairs};

const VALUES: &str = "/thanos.Store/LabelValues";

#[test]
fn limits_of_a_request_end_it() {
    for (flag, what, reason) in [
        ("--store.limits.request-series=5", "series", "series"),
        ("--store.limits.request-samples=1000", "samples", "chunks"),
    ] {
        let stand = Stand::new(&exposition(), &[flag]);
        let dropped = format!("thanos_store_selects_dropped_total{{reason=\"{reason}\"}}");
        assert_eq!(stand.outrigger.metric(&dropped), Some(0.0));
        for (calls, batch) in [(1, 0), (2, 64)] {
            let mut request = everything();
            request.response_batch_size = batch;
            let answer = stand.client.try_series(&request);
            let failure = answer.failure.unwrap();
            assert_eq!(failure.code, Code::ResourceExhausted, "{failure:?}");
            let text = format!("failed to send {what}: limit ");
            assert!(failure.message.contains(&text), "{failure:?}");
            assert!(answer.series.len() <= 8);
            assert_eq!(stand.outrigger.metric(&dropped), Some(f64::from(calls)));
        }
        let mut small = everything();
        small.matchers.push(matcher("zz", "=", "v-1"));
        small.matchers.push(matcher("a", "=", "1"));
        small.matchers.push(matcher("job", "=", "j1"));
        assert_eq!(stand.client.series(&small).series.len(), 3);
    }
}

#[test]
fn one_call_too_many_waits() {
    let stand = Stand::new(&exposition(), &["--store.max-concurrent-series=1"]);
    stand.client.series(&everything());
    let reads = stand.reads();
    stand.proxy.set(Harm::Held);
    let address = stand.outrigger.grpc_address();
    let first = std::thread::spawn(move || {
        StoreClient::connect(address)
            .series(&everything())
            .series
            .len()
    });
    eventually("the first call reads", || {
        (stand.reads() > reads).then_some(())
    });
    let mut other = everything();
    other.min_time += 1;
    let waiting = stand.client.series_within(&other, Duration::from_secs(1));
    assert_eq!(waiting.failure.unwrap().code, Code::DeadlineExceeded);
    assert_eq!(stand.reads(), reads + 1, "the second did not read");
    stand.proxy.release();
    assert_eq!(first.join().unwrap(), 360);
    assert_eq!(stand.client.series(&other).series.len(), 360);
}

#[test]
fn shards_of_one_select_read_prometheus_once() {
    const SHARDS: usize = 16;
    let stand = Stand::new(&exposition(), &[]);
    let whole = stand.client.series(&everything());
    let reads = stand.reads();
    stand.proxy.set(Harm::Held);
    let requests: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let mut request = everything();
            request.shard_info = Some(ShardInfo {
                shard_index: i64::try_from(shard).unwrap(),
                total_shards: i64::try_from(SHARDS).unwrap(),
                by: false,
                labels: vec!["replica".into()],
            });
            request
        })
        .collect();
    let address = stand.outrigger.grpc_address();
    let calls = std::thread::spawn(move || StoreClient::connect(address).at_once(requests));
    let pending = "thanos_store_server_pending_series_requests";
    stand
        .outrigger
        .wait_for_metric(pending, |calls| calls >= SHARDS as f64);
    let shared = "outrigger_store_shared_selects_total";
    stand
        .outrigger
        .wait_for_metric(shared, |calls| calls >= (SHARDS - 1) as f64);
    stand.proxy.release();
    let answers = calls.join().unwrap();
    assert_eq!(stand.reads(), reads + 1);
    let mut union = Vec::new();
    for answer in answers {
        assert_eq!(answer.failure, None);
        assert!(answer.series.len() < whole.series.len() / 4);
        union.extend(answer.series);
    }
    union.sort_by_key(|series| pairs(&series.labels));
    assert_eq!(union, whole.series);
}

#[test]
fn series_with_labels_named_like_external_ones_are_sorted() {
    let mut text = "# TYPE c gauge\n".to_owned();
    for set in 0..60 {
        let cluster = match set % 3 {
            0 => String::new(),
            inner => format!("cluster=\"inner-{}\",", 9 - inner),
        };
        sampled(
            &mut text,
            &format!("c{{{cluster}b=\"{}\",pod=\"p{}\"}}", set / 6, set % 6),
            set,
        );
    }
    text.push_str("# EOF\n");
    let stand = Stand::new(&text, &[]);
    let sorted = "outrigger_store_sorted_selects_total";
    let mut request = everything();
    request.matchers = vec![matcher("__name__", "=", "c")];
    for without in [&[][..], &["replica"], &["pod"], &["b", "pod"]] {
        request.without_replica_labels = without.iter().map(|&name| name.into()).collect();
        for skip_chunks in [false, true] {
            request.skip_chunks = skip_chunks;
            let answer = stand.client.series(&request);
            assert_eq!(answer.series.len(), 60);
            let labels: Vec<_> = answer.series.iter().map(|s| pairs(&s.labels)).collect();
            assert!(labels.is_sorted(), "{without:?}");
            for labels in &labels {
                // The external value wins.
                let cluster = labels.iter().find(|(name, _)| name == "cluster").unwrap();
                assert_eq!(cluster.1, "eu-1");
                let removed = |(name, _): &(String, String)| without.contains(&name.as_str());
                // By `/api/v1/series` too, where the reference leaves them in.
                assert!(
                    !labels.iter().any(removed) || skip_chunks,
                    "{without:?} {labels:?}"
                );
            }
            let sets: BTreeSet<_> = labels.iter().collect();
            let expected = match without {
                ["b", "pod"] if !skip_chunks => 1,
                ["pod"] if !skip_chunks => 10,
                _ => 60,
            };
            assert_eq!(sets.len(), expected, "{without:?} {skip_chunks}");
        }
    }
    assert!(stand.outrigger.metric(sorted).unwrap() >= 4.0);
}

#[test]
fn what_does_not_fit_into_the_sort_buffer_is_refused_by_its_flag() {
    let mut text = "# TYPE c gauge\n".to_owned();
    for set in 0..60 {
        sampled(
            &mut text,
            &format!("c{{cluster=\"x\",pod=\"p{set}\"}}"),
            set,
        );
    }
    text.push_str("# EOF\n");
    let stand = Stand::new(&text, &["--store.sort-buffer=4KiB"]);
    let mut request = everything();
    request.matchers = vec![matcher("__name__", "=", "c")];
    for _ in 0..2 {
        let answer = stand.client.try_series(&request);
        let failure = answer.failure.unwrap();
        assert_eq!(failure.code, Code::ResourceExhausted, "{failure:?}");
        assert!(
            failure.message.contains("--store.sort-buffer"),
            "{failure:?}"
        );
        assert!(answer.series.is_empty());
    }
    // One series fits, also after others did not.
    request.matchers.push(matcher("pod", "=", "p7"));
    request.max_time = START_MS + 60_000;
    assert_eq!(stand.client.series(&request).series.len(), 1);
}

#[test]
fn whether_an_external_label_applies_is_asked_with_a_limit_of_one() {
    let stand = Stand::new(&exposition(), &[]);
    let values = |matchers| {
        let request = LabelValuesRequest {
            label: "cluster".into(),
            start: START_MS,
            end: END_MS,
            matchers,
            ..LabelValuesRequest::default()
        };
        let answer: LabelValuesResponse = stand.client.unary(VALUES, &request).unwrap();
        answer.values
    };
    assert_eq!(values(vec![]), ["eu-1"]);
    assert_eq!(values(vec![matcher("cluster", "=~", "eu.*")]), ["eu-1"]);
    assert_eq!(stand.proxy.requests("/api/v1/series").len(), 0);
    assert_eq!(values(vec![matcher("a", "=", "1")]), ["eu-1"]);
    assert!(values(vec![matcher("a", "=", "none")]).is_empty());
    assert!(
        values(vec![
            matcher("cluster", "=", "other"),
            matcher("a", "=", "1")
        ])
        .is_empty()
    );
    let asked = stand.proxy.requests("/api/v1/series");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked.iter().all(|request| request.contains("limit=1 ")
            || request.contains("limit=1&")
            || request.ends_with("limit=1")),
        "{asked:?}"
    );
}
