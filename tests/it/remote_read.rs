//! Remote read against a real Prometheus: the samples decoded from its chunks are those that its
//! query API tells, for floats and native histograms, whatever the encoding.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger::model::{MatchOp, Matcher};
use outrigger::prometheus::{Client, LabelsText, RemoteQuery, Scope, SeriesOrder};
use outrigger::tsdb::{Encoding, transcode};

use crate::support::{
    LABELS, Labels, Point, PointsOf, Prometheus, PrometheusSetup, Site, client, decode, eventually,
    get, is_stale, left_out, queried,
};

/// How far back the samples go that are compared.
const RANGE_S: i64 = 4;

#[test]
fn decoded_samples_are_those_of_the_query_api() {
    compare("native-histograms");
}

/// Older versions warn of features that they do not know, and give what they always do.
#[test]
fn decoded_samples_are_those_of_the_query_api_with_newer_encodings() {
    let encodings = compare("native-histograms,xor2-encoding,st-storage,histograms-st-encoding");
    if !encodings.contains(&Encoding::Xor2.id().into()) {
        left_out("XOR2 chunks of a real Prometheus", "this one has none");
    }
}

fn compare(features: &str) -> BTreeSet<i32> {
    let site = Site::new();
    let setup = PrometheusSetup {
        scrapes_itself: true,
        scrapes_histograms: true,
        flags: vec![format!("--enable-feature={features}")],
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let address = prometheus.address();
    eventually("there are samples of some seconds", || {
        let body = get(
            address,
            "/api/v1/query?query=time()-min_over_time(timestamp(up)%5B1h:250ms%5D)",
        );
        let body: serde_json::Value = serde_json::from_str(&body.ok()?.1).ok()?;
        let age_s: f64 = body["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()?;
        (age_s > (RANGE_S + 2) as f64).then_some(())
    });
    // Two seconds back no sample comes in any more.
    let now = SystemTime::now() - Duration::from_secs(2);
    let end_ms = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let start_ms = end_ms - RANGE_S * 1000;
    let client = client(address);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (read, encodings) = runtime.block_on(read(&client, start_ms, end_ms));
    let queried = query(address, start_ms, end_ms);
    assert!(queried.len() > 100, "{} series", queried.len());
    assert_eq!(read.len(), queried.len());
    for (labels, expected) in &queried {
        assert_eq!(read.get(labels), Some(expected), "{labels:?}");
    }
    let histograms = queried.values().flatten();
    let histograms = histograms.filter(|(_, point)| matches!(point, Point::Histogram(..)));
    if histograms.count() == 0 {
        left_out(
            "native histograms of a real Prometheus",
            "it has none of its own",
        );
    }
    runtime.block_on(series_are_those_read(&client, start_ms, end_ms, &read));
    encodings
}

fn everything() -> Vec<Matcher> {
    vec![Matcher {
        op: MatchOp::Equal,
        name: "job".to_owned(),
        value: "prometheus".to_owned(),
    }]
}

/// All samples by remote read; also which encodings came.
async fn read(client: &Client, start_ms: i64, end_ms: i64) -> (PointsOf, BTreeSet<i32>) {
    let query = RemoteQuery {
        start_ms,
        end_ms,
        matchers: everything(),
    };
    let mut answer = client.remote_read(&query).await.unwrap();
    assert!(answer.is_streamed());
    let (mut all, mut encodings) = (PointsOf::new(), BTreeSet::new());
    let mut previous = Labels::new();
    while let Some(series) = answer.next().await.unwrap() {
        let mut labels: Labels = owned(series.labels());
        for (name, value) in LABELS {
            let merged = labels.iter().position(|(n, v)| n == name && v == value);
            labels.remove(merged.unwrap());
        }
        assert!(previous <= labels, "{previous:?} before {labels:?}");
        previous.clone_from(&labels);
        for chunk in &series.chunks {
            encodings.insert(chunk.encoding);
            let encoding = Encoding::from_id(u8::try_from(chunk.encoding).unwrap()).unwrap();
            let points = decode(encoding, &chunk.data);
            let (known, transcoded) = transcode(encoding, &chunk.data).unwrap();
            assert!(known.id() <= 3);
            assert_eq!(decode(known, &transcoded), points);
            assert_eq!(points.first().map(|(t, _)| *t), Some(chunk.min_ms));
            assert_eq!(points.last().map(|(t, _)| *t), Some(chunk.max_ms));
            all.entry(labels.clone()).or_default().extend(points);
        }
    }
    for points in all.values_mut() {
        // At its left border versions differ, and markers the query API does not tell.
        points.retain(|&(t, point)| t > start_ms && !is_stale(point));
    }
    all.retain(|_, points| !points.is_empty());
    (all, encodings)
}

/// All samples by the query API.
fn query(address: SocketAddr, start_ms: i64, end_ms: i64) -> PointsOf {
    let mut all = queried(address, "{job=\"prometheus\"}", end_ms, end_ms - start_ms);
    for points in all.values_mut() {
        points.retain(|&(t, _)| t > start_ms);
    }
    all.retain(|_, points| !points.is_empty());
    all
}

/// The label sets of `/api/v1/series`, sorted on demand, hold those that were read.
async fn series_are_those_read(client: &Client, start_ms: i64, end_ms: i64, read: &PointsOf) {
    let matchers = everything();
    let scope = Scope {
        matchers: &matchers,
        start_ms: Some(start_ms),
        end_ms: Some(end_ms),
        limit: None,
    };
    let mut stream = client.series(scope, SeriesOrder::Sorted).await.unwrap();
    let mut labels = LabelsText::default();
    let mut all = Vec::new();
    while stream.next_into(&mut labels).await.unwrap() {
        all.push(owned(labels.iter()));
    }
    assert!(all.is_sorted_by(|a, b| a < b));
    for labels in read.keys() {
        assert!(all.contains(labels), "{labels:?}");
    }
    let names = client.label_names(scope).await.unwrap().value;
    assert!(names.iter().is_sorted() && names.contains(&"__name__".to_owned()));
    let jobs = client.label_values("job", scope).await.unwrap().value;
    assert_eq!(jobs, ["prometheus"]);
}

fn owned<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
