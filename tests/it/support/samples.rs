//! Samples as all sides tell them: decoded from chunks, by the query API, by remote read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use outrigger::prometheus::{Client, Config, HttpClientConfig, PeerError, RemoteQuery};
use outrigger::tsdb::{Encoding, HistogramCounts, Sample, Samples};

use super::get;

pub(crate) type Labels = Vec<(String, String)>;
pub(crate) type Points = Vec<(i64, Point)>;
pub(crate) type PointsOf = BTreeMap<Labels, Points>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Point {
    /// Bits of the value.
    Float(u64),
    /// Bits of count and sum.
    Histogram(u64, u64),
}

const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) fn decode(encoding: Encoding, data: &[u8]) -> Points {
    let samples = Samples::new(encoding, data).unwrap();
    let points = samples.map(|sample| match sample.unwrap() {
        Sample::Float(sample) => (sample.t_ms, Point::Float(canonical(sample.value))),
        Sample::Histogram(sample) => {
            let count = match sample.counts {
                HistogramCounts::Integer { count, .. } => count as f64,
                HistogramCounts::Float { count, .. } => count,
            };
            let (count, sum) = (count.to_bits(), canonical(sample.sum));
            (sample.t_ms, Point::Histogram(count, sum))
        }
    });
    points.collect()
}

pub(crate) fn is_stale(point: Point) -> bool {
    match point {
        Point::Float(bits) | Point::Histogram(_, bits) => bits == STALE_NAN_BITS,
    }
}

/// All NaNs but stale markers are one, as in text.
fn canonical(value: f64) -> u64 {
    match value.to_bits() {
        STALE_NAN_BITS => STALE_NAN_BITS,
        _ if value.is_nan() => f64::NAN.to_bits(),
        bits => bits,
    }
}

/// Raw samples by the query API.
pub(crate) fn queried(address: SocketAddr, selector: &str, end_ms: i64, range_ms: i64) -> PointsOf {
    let query = escaped(&format!("{selector}[{range_ms}ms]"));
    let time = format!("{}.{:03}", end_ms / 1000, end_ms % 1000);
    let path = format!("/api/v1/query?query={query}&time={time}");
    let (status, body) = get(address, &path).unwrap();
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let number = |value: &serde_json::Value| -> f64 { value.as_str().unwrap().parse().unwrap() };
    let mut all = BTreeMap::new();
    for series in body["data"]["result"].as_array().unwrap() {
        let labels = series["metric"].as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let mut labels: Labels = labels.collect();
        labels.sort();
        let mut points = Points::new();
        for value in series["values"].as_array().into_iter().flatten() {
            points.push((as_ms(&value[0]), Point::Float(canonical(number(&value[1])))));
        }
        for value in series["histograms"].as_array().into_iter().flatten() {
            let (count, sum) = (number(&value[1]["count"]), number(&value[1]["sum"]));
            let point = Point::Histogram(count.to_bits(), canonical(sum));
            points.push((as_ms(&value[0]), point));
        }
        points.sort_by_key(|&(t, _)| t);
        all.insert(labels, points);
    }
    all
}

#[expect(clippy::cast_possible_truncation, reason = "a time of today")]
fn as_ms(seconds: &serde_json::Value) -> i64 {
    (seconds.as_f64().unwrap() * 1000.0).round() as i64
}

fn escaped(text: &str) -> String {
    let bytes = text.bytes();
    bytes.map(|byte| format!("%{byte:02x}")).collect()
}

/// What a remote read gives, stale markers included, and the encodings that came.
pub(crate) fn remotely_read(
    address: SocketAddr,
    query: &RemoteQuery,
) -> Result<(PointsOf, BTreeSet<i32>), PeerError> {
    let client = client(address);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut answer = client.remote_read(query).await?;
        let (mut all, mut encodings) = (PointsOf::new(), BTreeSet::new());
        while let Some(series) = answer.next().await? {
            let labels = series.labels().map(|(n, v)| (n.to_owned(), v.to_owned()));
            let points = all.entry(labels.collect()).or_default();
            for chunk in &series.chunks {
                encodings.insert(chunk.encoding);
                let encoding = Encoding::from_id(u8::try_from(chunk.encoding).unwrap()).unwrap();
                points.extend(decode(encoding, &chunk.data));
            }
        }
        Ok((all, encodings))
    })
}

/// A client of Prometheus that is ours.
pub(crate) fn client(address: SocketAddr) -> Client {
    Client::new(Config {
        url: format!("http://{address}/").parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap()
}

/// SplitMix64: the same numbers each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
