//! What the services of Thanos answer beside a real Prometheus (contract `grpc.md` §2, §3).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use outrigger::proto::thanos::info::{
    ExemplarsInfo, InfoRequest, InfoResponse, MetricMetadataInfo, RulesInfo, StatusInfo, StoreInfo,
    TargetsInfo, TsdbInfo,
};
use outrigger::proto::thanos::{
    ExemplarsRequest, ExemplarsResponse, Label, LabelNamesRequest, LabelNamesResponse,
    LabelValuesRequest, LabelValuesResponse, MetricMetadataRequest, MetricMetadataResponse,
    RuleGroup, RulesRequest, RulesResponse, SeriesRequest, TargetsRequest, TargetsResponse,
    TsdbStatisticsRequest, TsdbStatisticsResponse, ZLabelSet, exemplars_response,
    metric_metadata_response, rule, rules_response, series_response, targets_response,
    tsdb_statistics_response,
};
use tonic::{Code, Status};
use xxhash_rust::xxh64::xxh64;

use super::{Beside, everything, job_matcher, label_map};
use crate::support::{
    GateState, LABELS, PrometheusSetup, StoreApi, all_series, eventually, get, matcher,
};

fn external() -> ZLabelSet {
    let labels = LABELS.iter().map(|(name, value)| Label {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    ZLabelSet {
        labels: labels.collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn info_is_that_of_a_sidecar() {
    let beside = Beside::start(&["--min-time=2020-01-02T03:04:05Z"]);
    let client = beside.connect().await;
    let info: InfoResponse = client
        .unary("/thanos.info.Info/Info", InfoRequest {})
        .await
        .unwrap();
    let (min_time, max_time) = (1_577_934_245_000, i64::MAX);
    let expected = InfoResponse {
        label_sets: vec![external()],
        component_type: "sidecar".to_owned(),
        store: Some(StoreInfo {
            min_time,
            max_time,
            supports_sharding: true,
            supports_without_replica_labels: true,
            tsdb_infos: vec![TsdbInfo {
                labels: Some(external()),
                min_time,
                max_time,
            }],
            supports_projections: false,
        }),
        rules: Some(RulesInfo {}),
        metric_metadata: Some(MetricMetadataInfo {}),
        targets: Some(TargetsInfo {}),
        exemplars: Some(ExemplarsInfo { min_time, max_time }),
        query: None,
        status: Some(StatusInfo {}),
    };
    assert_eq!(info, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_prometheus_info_and_statistics_say_that_they_are_not_ready() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    beside.gate.set(GateState::Down);
    eventually("it is not ready", || {
        (beside.outrigger.probe("/-/ready") == 503).then_some(())
    });
    let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    let error = info.await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unknown, "Not ready")
    );
    let statistics = client.messages::<_, TsdbStatisticsResponse>(
        "/thanos.Status/TSDBStatistics",
        TsdbStatisticsRequest::default(),
    );
    let error = statistics.await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unknown, "not ready")
    );
    // What can't be asked is no empty answer.
    let error = client.series(everything()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn series_come_sorted_with_external_labels_and_hashed_chunks() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    // Scrapes go on: what is compared ends now.
    let request = SeriesRequest {
        max_time: now_ms(),
        ..everything()
    };
    let messages = client.series(request.clone()).await.unwrap();
    assert!(
        messages
            .iter()
            .all(|message| matches!(message.result, Some(series_response::Result::Series(_))))
    );
    let series = all_series(messages);
    assert!(series.len() > 100, "{} series", series.len());
    let labels: Vec<_> = series
        .iter()
        .map(|series| label_map(&series.labels))
        .collect();
    assert!(labels.is_sorted_by(|a, b| a.iter().lt(b.iter())));
    for labels in &labels {
        for (name, value) in LABELS {
            assert_eq!(labels.get(name), Some(value), "{labels:?}");
        }
    }
    for series in &series {
        assert!(!series.chunks.is_empty());
        assert!(series.labels.is_sorted_by(|a, b| a.name < b.name));
        for chunk in &series.chunks {
            let raw = chunk.raw.as_ref().unwrap();
            assert_eq!(raw.hash, xxh64(&raw.data, 0));
            assert!(0 < chunk.min_time && chunk.min_time <= chunk.max_time);
        }
    }
    let batched = SeriesRequest {
        response_batch_size: 64,
        ..request.clone()
    };
    let batches = client.series(batched).await.unwrap();
    let sizes: Vec<usize> = batches
        .iter()
        .map(|message| match &message.result {
            Some(series_response::Result::Batch(batch)) => batch.series.len(),
            other => panic!("no batch: {other:?}"),
        })
        .collect();
    // What comes first goes out at once, and so does what Prometheus pauses after.
    assert!(
        sizes.iter().all(|size| (1..=64).contains(size)),
        "{sizes:?}"
    );
    assert!(sizes.contains(&64), "{sizes:?}");
    assert_eq!(all_series(batches), series);
    let skip_chunks = SeriesRequest {
        skip_chunks: true,
        ..request
    };
    let bare = all_series(client.series(skip_chunks).await.unwrap());
    assert!(bare.iter().all(|series| series.chunks.is_empty()));
    let bare: Vec<_> = bare
        .iter()
        .map(|series| label_map(&series.labels))
        .collect();
    assert!(bare.is_sorted_by(|a, b| a.iter().lt(b.iter())));
    // Prometheus rounds the range of this call outwards to its blocks.
    assert!(labels.iter().all(|labels| bare.contains(labels)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn external_labels_decide_and_replica_labels_go() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    let with = |op, value: &str| {
        let mut request = everything();
        request.matchers.push(matcher("cluster", op, value));
        request.without_replica_labels = vec!["replica".to_owned()];
        request
    };
    let series = client.series(with("=~", "eu-.")).await;
    let series = all_series(series.unwrap());
    assert!(series.len() > 100);
    for series in &series {
        let labels = label_map(&series.labels);
        assert_eq!(labels.get("cluster"), Some(&"eu-1"));
        assert_eq!(labels.get("replica"), None);
    }
    let none = client.series(with("=", "us-1")).await;
    assert_eq!(none.unwrap(), []);
    let only_external = SeriesRequest {
        matchers: vec![matcher("cluster", "=", "eu-1")],
        ..everything()
    };
    let error = client.series(only_external).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(
        error.message(),
        "no matchers specified (excluding external labels)"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn label_names_and_values_are_those_of_prometheus_and_the_external() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    let names = async |without: &[&str]| -> Vec<String> {
        let request = LabelNamesRequest {
            end: i64::MAX,
            matchers: vec![job_matcher()],
            without_replica_labels: without.iter().map(|&name| name.to_owned()).collect(),
            ..LabelNamesRequest::default()
        };
        let answer = client.unary::<_, LabelNamesResponse>("/thanos.Store/LabelNames", request);
        answer.await.unwrap().names
    };
    let all = names(&[]).await;
    assert!(all.is_sorted(), "{all:?}");
    for name in ["__name__", "cluster", "instance", "job", "replica"] {
        assert!(all.contains(&name.to_owned()), "{name} in {all:?}");
    }
    let fewer = names(&["replica"]).await;
    assert!(!fewer.contains(&"replica".to_owned()), "{fewer:?}");
    let values = async |label: &str| {
        let request = LabelValuesRequest {
            label: label.to_owned(),
            end: i64::MAX,
            ..LabelValuesRequest::default()
        };
        let answer = client.unary::<_, LabelValuesResponse>("/thanos.Store/LabelValues", request);
        answer.await.map(|answer| answer.values)
    };
    assert_eq!(values("job").await.unwrap(), ["prometheus"]);
    assert_eq!(values("cluster").await.unwrap(), ["eu-1"]);
    assert_eq!(values("nowhere").await.unwrap(), [""; 0]);
    let error = values("").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.message(), "label name parameter cannot be empty");
}

const RULES: &str = "\
groups:
- name: it
  interval: 1s
  rules:
  - record: it:up:sum
    expr: sum(up)
    labels: {team: a}
  - alert: Always
    expr: vector(1) > 0
    labels: {severity: none, cluster: own}
    annotations: {summary: so}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_come_in_groups_with_the_external_labels_over_their_own() {
    let setup = PrometheusSetup {
        scrapes_itself: true,
        rules: RULES,
        ..PrometheusSetup::default()
    };
    let beside = Beside::start_with(&setup, &[]);
    let client = beside.connect().await;
    eventually("the alert fires", || {
        let (_, body) = get(beside.prometheus.address(), "/api/v1/rules").unwrap();
        (body.contains("\"firing\"") && !body.contains("\"unknown\"")).then_some(())
    });
    let groups = groups_of(&client, 0).await.unwrap();
    let [group] = &groups[..] else {
        panic!("{groups:?}")
    };
    assert_eq!((group.name.as_str(), group.interval), ("it", 1.0));
    assert!(group.file.ends_with("rules.yml"), "{}", group.file);
    assert_eq!(group.partial_response_strategy, 1);
    assert!(group.last_evaluation.is_some());
    let rules: Vec<_> = group
        .rules
        .iter()
        .map(|rule| rule.result.as_ref().unwrap())
        .collect();
    let [
        rule::Result::Recording(recording),
        rule::Result::Alert(alert),
    ] = rules[..]
    else {
        panic!("{rules:?}")
    };
    assert_eq!(
        (recording.name.as_str(), recording.query.as_str()),
        ("it:up:sum", "sum(up)")
    );
    assert_eq!(recording.health, "ok");
    let labels = recording.labels.as_ref().unwrap();
    let expected = [("cluster", "eu-1"), ("replica", "0"), ("team", "a")];
    assert_eq!(label_map(&labels.labels), expected.into());
    assert_eq!((alert.name.as_str(), alert.state), ("Always", 3));
    let labels = alert.labels.as_ref().unwrap();
    let expected = [("cluster", "eu-1"), ("replica", "0"), ("severity", "none")];
    assert_eq!(label_map(&labels.labels), expected.into());
    let [instance] = &alert.alerts[..] else {
        panic!("{alert:?}")
    };
    assert_eq!((instance.state, instance.partial_response_strategy), (3, 0));
    assert!(instance.active_at.is_some());
    // The labels of instances stay as they are.
    let labels = label_map(&instance.labels.as_ref().unwrap().labels);
    assert_eq!(labels.get("cluster"), Some(&"own"));
    let alerts = groups_of(&client, 1).await.unwrap();
    assert_eq!(alerts[0].rules.len(), 1);
    // Passed on, and Prometheus knows no such type.
    let error = groups_of(&client, 9).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
}

async fn groups_of(client: &StoreApi, kind: i32) -> Result<Vec<RuleGroup>, Status> {
    let request = RulesRequest {
        r#type: kind,
        ..RulesRequest::default()
    };
    let messages = client.messages::<_, RulesResponse>("/thanos.Rules/Rules", request);
    let groups = messages
        .await?
        .into_iter()
        .map(|message| match message.result {
            Some(rules_response::Result::Group(group)) => group,
            other => panic!("no group: {other:?}"),
        });
    Ok(groups.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn targets_are_prometheus_own() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    let ask = async |state: i32| {
        let request = TargetsRequest {
            state,
            ..TargetsRequest::default()
        };
        let answer = client.messages::<_, TargetsResponse>("/thanos.Targets/Targets", request);
        let mut messages = answer.await.unwrap();
        assert_eq!(messages.len(), 1);
        match messages.remove(0).result {
            Some(targets_response::Result::Targets(targets)) => targets,
            other => panic!("no targets: {other:?}"),
        }
    };
    for state in [0, 1] {
        let targets = ask(state).await;
        let [active] = &targets.active_targets[..] else {
            panic!("{targets:?}")
        };
        assert_eq!(
            (active.scrape_pool.as_str(), active.health),
            ("prometheus", 1)
        );
        assert!(active.last_scrape.is_some() && active.scrape_url.ends_with("/metrics"));
        for labels in [&active.labels, &active.discovered_labels] {
            let labels = label_map(&labels.as_ref().unwrap().labels);
            assert_eq!(labels.get("cluster"), Some(&"eu-1"), "{labels:?}");
        }
    }
    // Dropped ones there are none; of a state that nobody knows neither.
    for state in [2, 9] {
        assert_eq!(ask(state).await.active_targets, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn metadata_and_statistics_are_prometheus_own() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    let metadata = async |metric: &str, limit: i32| {
        let request = MetricMetadataRequest {
            metric: metric.to_owned(),
            limit,
            ..MetricMetadataRequest::default()
        };
        let path = "/thanos.Metadata/MetricMetadata";
        let answer = client.messages::<_, MetricMetadataResponse>(path, request);
        let mut messages = answer.await.unwrap();
        assert_eq!(messages.len(), 1);
        match messages.remove(0).result {
            Some(metric_metadata_response::Result::Metadata(found)) => found.metadata,
            other => panic!("no metadata: {other:?}"),
        }
    };
    let all = metadata("", -1).await;
    assert!(all.len() > 50, "{}", all.len());
    let one = metadata("go_goroutines", -1).await;
    assert_eq!(one.len(), 1);
    let metas = &one["go_goroutines"].metas;
    assert_eq!(metas[0].r#type, "gauge");
    assert!(metas[0].help.starts_with("Number of goroutines"));
    assert_eq!(metadata("", 0).await.len(), 0);

    let statistics = async |request: TsdbStatisticsRequest| {
        let path = "/thanos.Status/TSDBStatistics";
        let answer = client.messages::<_, TsdbStatisticsResponse>(path, request);
        let mut messages = answer.await.unwrap();
        assert_eq!(messages.len(), 1);
        match messages.remove(0).result {
            Some(tsdb_statistics_response::Result::Statistics(found)) => found.statistics,
            other => panic!("no statistics: {other:?}"),
        }
    };
    let request = TsdbStatisticsRequest {
        limit: 3,
        matchers: vec![matcher("cluster", "=", "eu-1")],
        ..TsdbStatisticsRequest::default()
    };
    let found = statistics(request).await;
    assert_eq!(found.len(), 1);
    let entry = &found[""];
    assert!(entry.head_statistics.as_ref().unwrap().num_series > 100);
    let by_metric = &entry.series_count_by_metric_name;
    assert!(by_metric.len() == 3 && by_metric[0].value >= by_metric[2].value);
    assert_eq!(entry.label_value_count_by_label_name[0].name, "__name__");
    assert_eq!(entry.memory_in_bytes_by_label_name.len(), 3);
    let elsewhere = TsdbStatisticsRequest {
        matchers: vec![matcher("cluster", "=", "us-1")],
        ..TsdbStatisticsRequest::default()
    };
    assert_eq!(statistics(elsewhere).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn exemplars_come_by_series() {
    let setup = PrometheusSetup {
        targets: vec![exemplars_target()],
        flags: vec!["--enable-feature=exemplar-storage".to_owned()],
        ..PrometheusSetup::default()
    };
    let beside = Beside::start_with(&setup, &[]);
    let client = beside.connect().await;
    let metric = "it_requests_total";
    let path = "/api/v1/query_exemplars?query=it_requests_total&start=0&end=99999999999";
    eventually("there are exemplars", || {
        let (_, body) = get(beside.prometheus.address(), path).unwrap();
        body.contains("trace_id").then_some(())
    });
    let request = |query: &str, start, end| ExemplarsRequest {
        query: query.to_owned(),
        start,
        end,
        ..ExemplarsRequest::default()
    };
    let ask = async |request| {
        let path = "/thanos.Exemplars/Exemplars";
        client.messages::<_, ExemplarsResponse>(path, request).await
    };
    let end = now_ms() + 3_600_000;
    // A matcher of an external label is resolved, not looked for among the series.
    for query in [metric.to_owned(), format!("{metric}{{cluster=\"eu-1\"}}")] {
        let messages = ask(request(&query, 0, end)).await.unwrap();
        let [message] = &messages[..] else {
            panic!("{query}: {messages:?}")
        };
        let Some(exemplars_response::Result::Data(data)) = &message.result else {
            panic!("{message:?}")
        };
        let labels = label_map(&data.series_labels.as_ref().unwrap().labels);
        assert_eq!((labels["path"], labels["cluster"]), ("/x", "eu-1"));
        let [exemplar, ..] = &data.exemplars[..] else {
            panic!("{data:?}")
        };
        let own = label_map(&exemplar.labels.as_ref().unwrap().labels);
        assert_eq!(own, [("trace_id", "abc")].into());
        assert_eq!(exemplar.value, 0.5);
        assert!((end - exemplar.ts).abs() < 2 * 3_600_000, "{exemplar:?}");
    }
    let other = format!("{metric}{{cluster=\"us-1\"}}");
    assert_eq!(ask(request(&other, 0, end)).await.unwrap(), []);
    let error = ask(request(metric, end, 0)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    let error = ask(request("sum(", 0, end)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
}

/// A target whose one counter has an exemplar.
fn exemplars_target() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        // For as long as the tests run.
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let body = "# TYPE it_requests counter\n\
                        it_requests_total{path=\"/x\"} 5 # {trace_id=\"abc\"} 0.5\n# EOF\n";
            // One request per connection; Prometheus may give up at any time.
            if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: \
                            application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
                let length = body.len();
                drop(write!(
                    stream,
                    "{head}Content-Length: {length}\r\n\r\n{body}"
                ));
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_there_is_unimplemented() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    for (path, text) in [
        (
            "/thanos.Store/Nothing",
            "unknown method Nothing for service thanos.Store",
        ),
        ("/thanos.Query/Query", "unknown service thanos.Query"),
        (
            "/thanos.Store/Info",
            "unknown method Info for service thanos.Store",
        ),
    ] {
        let answer = client.unary::<_, InfoResponse>(path, InfoRequest {}).await;
        let error = answer.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, text));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn compressed_calls_have_the_same_answers() {
    let beside = Beside::start(&[]);
    let plain = beside.connect().await;
    let gzip: StoreApi = plain.clone().with_gzip();
    let request = SeriesRequest {
        max_time: now_ms(),
        response_batch_size: 64,
        ..everything()
    };
    let expected = all_series(plain.series(request.clone()).await.unwrap());
    assert!(!expected.is_empty());
    assert_eq!(
        all_series(gzip.series(request.clone()).await.unwrap()),
        expected
    );
    // The client, which refuses such messages where it did not offer to take them, has seen some.
    let only_sending = plain.clone().sending_gzip();
    let error = only_sending.series(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
