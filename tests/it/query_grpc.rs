//! `thanos.Query` beside a real Prometheus (contract `grpc.md` §2.10), asked by tonic.

mod failures;
mod histograms;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use outrigger::proto::prometheus_copy::TimeSeries;
use outrigger::proto::thanos::info::{InfoRequest, InfoResponse, QueryApiInfo};
use outrigger::proto::thanos::{
    QueryRangeRequest, QueryRangeResponse, QueryRequest, QueryResponse, QueryStats, StoreMatchers,
    query_range_response, query_response,
};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_reflection::pb::v1;

use crate::support::{
    BACKFILL_START_S, Outrigger, Prometheus, PrometheusSetup, Queries, RemoteProxy, Site, StoreApi,
    backfill_text, get, matcher,
};

const QUERY: &str = "/thanos.Query/Query";
const QUERY_RANGE: &str = "/thanos.Query/QueryRange";
const ENABLE: &str = "--query.enable";
const STEP_S: i64 = 30;
const SAMPLES: i64 = 60;
const END_S: i64 = BACKFILL_START_S + STEP_S * (SAMPLES - 1);
const SERIES: usize = 10;

fn exposition() -> String {
    let mut text = "# TYPE requests counter\n".to_owned();
    for set in 0..i64::try_from(SERIES).unwrap() {
        for at in 0..SAMPLES {
            let (job, value) = (set % 3, at * (set + 1) * 7);
            let time = BACKFILL_START_S + at * STEP_S;
            writeln!(
                text,
                "requests_total{{instance=\"i{set}\",job=\"j{job}\"}} {value}.25 {time}"
            )
            .unwrap();
        }
    }
    text.push_str("# EOF\n");
    text
}

/// A Prometheus with data, a proxy, and an outrigger behind it.
struct Stand {
    // Dropped in this order.
    outrigger: Outrigger,
    proxy: RemoteProxy,
    prometheus: Prometheus,
    _site: Site,
}

impl Stand {
    fn new(flags: &[&str]) -> Self {
        let site = Site::new();
        backfill_text(&site.data, &exposition());
        Self::over(site, &PrometheusSetup::default(), flags)
    }

    fn over(site: Site, setup: &PrometheusSetup, flags: &[&str]) -> Self {
        let prometheus = Prometheus::start(&site.data, setup);
        let proxy = RemoteProxy::new(prometheus.address());
        let arguments = site.arguments_without_bucket(proxy.address(), flags);
        let outrigger = Outrigger::start(&arguments);
        outrigger.grpc_address();
        outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
        Self {
            outrigger,
            proxy,
            prometheus,
            _site: site,
        }
    }

    async fn connect(&self) -> StoreApi {
        StoreApi::connect(self.outrigger.grpc_address()).await
    }

    async fn instant(&self, request: QueryRequest) -> Result<Answer, Status> {
        let client = self.connect().await;
        let messages: Vec<QueryResponse> = client.messages(QUERY, request).await?;
        Ok(Answer::read(
            messages.into_iter().map(|message| message.result.unwrap()),
        ))
    }

    async fn range(&self, request: QueryRangeRequest) -> Result<Answer, Status> {
        use query_range_response::Result as Range;
        use query_response::Result as Instant;
        let client = self.connect().await;
        let messages: Vec<QueryRangeResponse> = client.messages(QUERY_RANGE, request).await?;
        let messages = messages
            .into_iter()
            .map(|message| match message.result.unwrap() {
                Range::Warnings(text) => Instant::Warnings(text),
                Range::Timeseries(series) => Instant::Timeseries(series),
                Range::Stats(stats) => Instant::Stats(stats),
                Range::TimeseriesBatch(batch) => Instant::TimeseriesBatch(batch),
            });
        Ok(Answer::read(messages))
    }

    /// What Prometheus itself answers, `data.result`.
    fn asked_directly(&self, path_and_query: &str) -> Vec<Value> {
        let (status, body) = get(self.prometheus.address(), path_and_query).unwrap();
        assert_eq!(status, 200, "{body}");
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        match answer["data"]["result"].take() {
            Value::Array(result) => result,
            other => panic!("no list: {other}"),
        }
    }
}

/// All that a call said.
#[derive(Debug, Default)]
struct Answer {
    series: Vec<TimeSeries>,
    /// How many series each batch had.
    batches: Vec<usize>,
    warnings: Vec<String>,
    stats: Option<QueryStats>,
}

impl Answer {
    /// Fails where anything stands behind the statistics.
    fn read(messages: impl Iterator<Item = query_response::Result>) -> Self {
        let mut answer = Self::default();
        for message in messages {
            assert_eq!(answer.stats, None, "before {message:?}");
            match message {
                query_response::Result::Warnings(text) => answer.warnings.push(text),
                query_response::Result::Timeseries(series) => answer.series.push(series),
                query_response::Result::Stats(stats) => answer.stats = Some(stats),
                query_response::Result::TimeseriesBatch(batch) => {
                    answer.batches.push(batch.series.len());
                    answer.series.extend(batch.series);
                }
            }
        }
        for series in &answer.series {
            assert!(
                series.labels.is_sorted_by(|a, b| a.name < b.name),
                "{series:?}"
            );
        }
        answer
    }

    /// Each label set with what there is at which time, values by their bits.
    fn points(&self) -> Points {
        let of = |series: &TimeSeries| {
            let labels = series.labels.iter();
            let labels = labels.map(|label| (label.name.clone(), label.value.clone()));
            let samples = series.samples.iter();
            let samples = samples.map(|sample| (sample.timestamp, sample.value.to_bits()));
            (labels.collect(), samples.collect())
        };
        let points: Points = self.series.iter().map(of).collect();
        assert_eq!(points.len(), self.series.len(), "a label set stands twice");
        points
    }
}

type Points = BTreeMap<BTreeMap<String, String>, Vec<(i64, u64)>>;

/// What Prometheus' JSON says, with these labels beside.
fn points(result: &[Value], added: &[(&str, &str)]) -> Points {
    let of = |element: &Value| {
        let own = element["metric"].as_object().unwrap().iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let all = own.chain(added.iter().copied());
        let labels = all.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs = match element.get("value") {
            Some(pair) => vec![pair],
            None => element["values"].as_array().unwrap().iter().collect(),
        };
        let samples = pairs.into_iter().map(|pair| {
            #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds")]
            let t_ms = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            let value: f64 = pair[1].as_str().unwrap().parse().unwrap();
            (t_ms, value.to_bits())
        });
        (labels.collect(), samples.collect())
    };
    result.iter().map(of).collect()
}

fn instant(query: &str) -> QueryRequest {
    QueryRequest {
        query: query.to_owned(),
        time_seconds: END_S,
        enable_dedup: true,
        replica_labels: vec!["replica".to_owned()],
        ..QueryRequest::default()
    }
}

fn range(query: &str) -> QueryRangeRequest {
    QueryRangeRequest {
        query: query.to_owned(),
        start_time_seconds: BACKFILL_START_S + 300,
        end_time_seconds: END_S,
        interval_seconds: 15,
        enable_dedup: true,
        replica_labels: vec!["replica".to_owned()],
        ..QueryRangeRequest::default()
    }
}

async fn listed_services(client: &StoreApi) -> Vec<String> {
    let mut reflection =
        v1::server_reflection_client::ServerReflectionClient::new(client.channel());
    let asked = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answers = reflection
        .server_reflection_info(futures_util::stream::iter([asked]))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    match answer.message_response.unwrap() {
        v1::server_reflection_response::MessageResponse::ListServicesResponse(list) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("another answer: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_the_flag_there_are_no_queries() {
    let stand = Stand::new(&[]);
    let client = stand.connect().await;
    let info: InfoResponse = client
        .unary("/thanos.info.Info/Info", InfoRequest {})
        .await
        .unwrap();
    assert_eq!(info.query, None);
    assert!(
        !listed_services(&client)
            .await
            .iter()
            .any(|name| name == "thanos.Query")
    );
    let error = stand.instant(instant("requests_total")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
    let error = stand.range(range("requests_total")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_the_flag_they_are_advertised_listed_and_counted() {
    let stand = Stand::new(&[ENABLE]);
    let client = stand.connect().await;
    let info: InfoResponse = client
        .unary("/thanos.info.Info/Info", InfoRequest {})
        .await
        .unwrap();
    assert_eq!(info.query, Some(QueryApiInfo {}));
    assert!(
        listed_services(&client)
            .await
            .iter()
            .any(|name| name == "thanos.Query")
    );
    for (method, count) in [("Query", 0.0), ("QueryRange", 0.0)] {
        let series = format!(
            "grpc_server_handled_total{{grpc_type=\"server_stream\",grpc_service=\"thanos.Query\",\
             grpc_method=\"{method}\",grpc_code=\"OK\"}}"
        );
        assert_eq!(stand.outrigger.metric(&series), Some(count), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_instant_query_gives_what_prometheus_gives_with_external_labels() {
    let stand = Stand::new(&[ENABLE]);
    let cluster = [("cluster", "eu-1")];
    let both = [("cluster", "eu-1"), ("replica", "0")];
    for (query, added) in [
        ("requests_total", &cluster[..]),
        (
            "requests_total{cluster=\"eu-1\",replica=~\".+\"}",
            &cluster[..],
        ),
        ("sum%20by%20(job)(rate(requests_total[5m]))", &[]),
        ("topk(3,requests_total)", &cluster[..]),
    ] {
        let asked = query.replace("%20", " ");
        let answer = stand.instant(instant(&asked)).await.unwrap();
        let plain = query.split('{').next().unwrap();
        let plain = format!("/api/v1/query?query={plain}&time={END_S}");
        let expected = points(&stand.asked_directly(&plain), added);
        assert!(!expected.is_empty());
        assert_eq!(answer.points(), expected, "{query}");
        assert!(answer.series.iter().all(|series| series.samples.len() == 1));
        let stats = answer.stats.unwrap();
        assert!(
            stats.samples_total > 0 && stats.peak_samples > 0,
            "{stats:?}"
        );
        assert_eq!(answer.warnings, [""; 0]);
    }
    // Nothing is dropped where nothing is asked to be, or without the flag's default.
    for request in [
        QueryRequest {
            enable_dedup: false,
            ..instant("requests_total")
        },
        QueryRequest {
            replica_labels: Vec::new(),
            ..instant("requests_total")
        },
    ] {
        let answer = stand.instant(request).await.unwrap();
        let plain = format!("/api/v1/query?query=requests_total&time={END_S}");
        assert_eq!(
            answer.points(),
            points(&stand.asked_directly(&plain), &both)
        );
    }
    let grouped = stand.instant(instant("count by (cluster, replica) (requests_total)"));
    let grouped = grouped.await.unwrap().points();
    let labels = [("cluster".to_owned(), "eu-1".to_owned())].into();
    let expected = [(labels, vec![(END_S * 1000, 10_f64.to_bits())])].into();
    assert_eq!(grouped, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_flag_names_the_replica_labels_where_the_request_does_not() {
    let stand = Stand::new(&[ENABLE, "--query.replica-label=replica"]);
    let request = QueryRequest {
        replica_labels: Vec::new(),
        ..instant("requests_total")
    };
    let answer = stand.instant(request.clone()).await.unwrap();
    assert_eq!(answer.series.len(), SERIES);
    assert!(
        answer
            .points()
            .keys()
            .all(|labels| !labels.contains_key("replica"))
    );
    let kept = QueryRequest {
        enable_dedup: false,
        ..request
    };
    let answer = stand.instant(kept).await.unwrap();
    assert!(
        answer
            .points()
            .keys()
            .all(|labels| labels["replica"] == "0")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_range_comes_in_single_messages_or_in_batches() {
    let stand = Stand::new(&[ENABLE]);
    let path = format!(
        "/api/v1/query_range?query=rate(requests_total[5m])&start={}&end={END_S}&step=15",
        BACKFILL_START_S + 300
    );
    let expected = points(&stand.asked_directly(&path), &[("cluster", "eu-1")]);
    assert_eq!(expected.len(), SERIES);
    assert!(expected.values().all(|samples| samples.len() > 50));
    for (size, batches) in [
        (0, vec![]),
        (1, vec![]),
        (-3, vec![]),
        (4, vec![4, 4, 2]),
        (5, vec![5, 5]),
        (64, vec![10]),
        (i64::MAX, vec![10]),
    ] {
        let request = QueryRangeRequest {
            response_batch_size: size,
            ..range("rate(requests_total[5m])")
        };
        let answer = stand.range(request).await.unwrap();
        assert_eq!(answer.points(), expected, "batches of {size}");
        assert_eq!(answer.batches, batches, "batches of {size}");
        assert!(answer.stats.unwrap().samples_total > 0);
    }
    let request = QueryRequest {
        response_batch_size: 3,
        ..instant("requests_total")
    };
    let answer = stand.instant(request).await.unwrap();
    assert_eq!(answer.batches, [3, 3, 3, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_batch_ends_where_it_would_be_long() {
    let stand = Stand::new(&[ENABLE]);
    // Prometheus evaluates 11,000 steps beyond the first; so many are 198,000 bytes of a series.
    let request = QueryRangeRequest {
        start_time_seconds: END_S,
        end_time_seconds: END_S + 10_999,
        interval_seconds: 1,
        response_batch_size: 64,
        ..range("last_over_time(requests_total[6h])")
    };
    let answer = stand.range(request.clone()).await.unwrap();
    assert_eq!(answer.batches, [2; 5]);
    assert!(
        answer
            .points()
            .values()
            .all(|samples| samples.len() == 11_000)
    );
    let one_more = QueryRangeRequest {
        end_time_seconds: END_S + 11_001,
        ..request
    };
    let error = stand.range(one_more).await.err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("11,000"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_scalar_is_a_series_without_labels_and_a_string_is_none() {
    let stand = Stand::new(&[ENABLE]);
    let answer = stand
        .instant(instant("scalar(sum(requests_total)) * 0 + 5"))
        .await
        .unwrap();
    let expected: Points = [(BTreeMap::new(), vec![(END_S * 1000, 5_f64.to_bits())])].into();
    assert_eq!(answer.points(), expected);
    assert!(answer.stats.is_some());
    let answer = stand.range(range("5")).await.unwrap();
    assert_eq!(answer.series.len(), 1);
    assert_eq!(answer.series[0].labels, []);
    let answer = stand.instant(instant("\"text\"")).await.unwrap();
    assert_eq!(answer.series, []);
    assert!(answer.stats.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn store_matchers_choose_among_external_labels() {
    let stand = Stand::new(&[ENABLE]);
    let set = |matchers: &[(&str, &str, &str)]| StoreMatchers {
        label_matchers: matchers
            .iter()
            .map(|(n, op, v)| matcher(n, op, v))
            .collect(),
    };
    for (sets, series) in [
        (vec![], SERIES),
        (vec![set(&[("cluster", "=", "eu-1")])], SERIES),
        (
            vec![set(&[("cluster", "=~", "eu-.*"), ("replica", "!=", "1")])],
            SERIES,
        ),
        (vec![set(&[("cluster", "=", "us-1")])], 0),
        (
            vec![
                set(&[("cluster", "=", "us-1")]),
                set(&[("replica", "=", "0")]),
            ],
            SERIES,
        ),
    ] {
        let request = QueryRequest {
            store_matchers: sets.clone(),
            ..instant("requests_total")
        };
        let answer = stand.instant(request).await.unwrap();
        assert_eq!(answer.series.len(), series, "{sets:?}");
        assert!(answer.stats.is_some());
        let request = QueryRangeRequest {
            store_matchers: sets.clone(),
            ..range("requests_total")
        };
        let answer = stand.range(request).await.unwrap();
        assert_eq!(answer.series.len(), series, "{sets:?}");
    }
    let request = QueryRequest {
        store_matchers: vec![set(&[("cluster", "=~", "(")])],
        ..instant("requests_total")
    };
    let error = stand.instant(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn warnings_and_infos_are_told_once_before_the_statistics() {
    let stand = Stand::new(&[ENABLE]);
    let body = r#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"job":"a"},"value":[1700000000.5,"-0"]}],
        "stats":{"samples":{"totalQueryableSamples":7,"peakSamples":2}}},
        "warnings":["careful","so"],"infos":["by the way"]}"#;
    stand
        .proxy
        .set_queries(Queries::Answered(200, body.to_owned()));
    let answer = stand.instant(instant("requests_total")).await.unwrap();
    assert_eq!(answer.warnings, ["careful, so, by the way"]);
    let stats = QueryStats {
        samples_total: 7,
        peak_samples: 2,
    };
    assert_eq!(answer.stats, Some(stats));
    let samples = &answer.series[0].samples;
    assert_eq!(samples[0].timestamp, 1_700_000_000_500);
    assert_eq!(samples[0].value.to_bits(), (-0.0_f64).to_bits());
    assert_eq!(stand.proxy.requests("/api/v1/query").len(), 1);
}
