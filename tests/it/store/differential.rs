//! Series against what Prometheus itself tells: `/api/v1/query` for samples, a remote read decoded
//! here for the stale markers that it hides.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use outrigger::model::{MatchOp, Matcher};
use outrigger::prometheus::RemoteQuery;
use outrigger::proto::thanos::{LabelMatcher, Series, SeriesRequest, ShardInfo};
use outrigger::tsdb::Encoding;
use xxhash_rust::xxh64::xxh64;

use super::{END_MS, START_MS, STEP_S, Stand, everything, exposition, request, with_external};
use crate::support::{
    Labels, Point, Points, PointsOf, PrometheusSetup, Random, Site, backfill_text, decode,
    eventually, get, is_stale, left_out, matcher, pairs, queried, remotely_read,
};

const SELECTS: u64 = 60;
const SEED: u64 = 0x5eed_0005;

#[test]
fn series_are_what_prometheus_has() {
    compare("native-histograms");
}

/// Older versions warn of features that they do not know.
#[test]
fn series_are_what_prometheus_has_in_newer_encodings() {
    let encodings = compare("native-histograms,xor2-encoding,st-storage,histograms-st-encoding");
    if !encodings.contains(&Encoding::Xor2.id().into()) {
        left_out("XOR2 chunks in Series", "this Prometheus sends none");
    }
}

/// Compares backfilled and scraped series; the encodings that Prometheus sent.
fn compare(features: &str) -> BTreeSet<i32> {
    let site = Site::new();
    backfill_text(&site.data, &exposition());
    let setup = PrometheusSetup {
        scrapes_itself: true,
        scrapes_histograms: true,
        flags: vec![format!("--enable-feature={features}")],
        ..PrometheusSetup::default()
    };
    let stand = Stand::over(site, &setup, &[]);
    let address = stand.prometheus.address();
    scrape_some_seconds_and_stop(&stand, &setup);
    let is_left_open = is_left_open(address);
    let mut random = Random(SEED);
    let mut samples = 0;
    for _ in 0..SELECTS {
        samples += compare_backfilled(&stand, &mut random, is_left_open);
    }
    assert!(samples > 50_000, "{samples} samples compared");
    compare_live(&stand, is_left_open)
}

/// A scrape that ends leaves stale markers, and data that do not change any more.
fn scrape_some_seconds_and_stop(stand: &Stand, setup: &PrometheusSetup) {
    let address = stand.prometheus.address();
    let age = "/api/v1/query?query=time()-min_over_time(timestamp(up)%5B1h:250ms%5D)";
    eventually("there are samples of some seconds", || {
        let body: serde_json::Value = serde_json::from_str(&get(address, age).ok()?.1).ok()?;
        let age = body["data"]["result"][0]["value"][1].as_str()?;
        (age.parse::<f64>().ok()? > 4.0).then_some(())
    });
    stand.prometheus.stop_scraping(setup);
    eventually("the series are stale", || {
        let (_, body) = get(address, "/api/v1/query?query=up").ok()?;
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        body["data"]["result"].as_array()?.is_empty().then_some(())
    });
}

/// Whether ranges leave out the sample at their left border, as of Prometheus 3.
fn is_left_open(address: SocketAddr) -> bool {
    let selector = "m0{a=\"1\",job=\"j1\",zz=\"v-1\"}";
    // Two neighbours that exist, of which the left one is at the border.
    let counts = (1..12).map(|at| {
        let found = queried(
            address,
            selector,
            START_MS + at * STEP_S * 1000,
            STEP_S * 1000,
        );
        found.values().map(Vec::len).sum::<usize>()
    });
    counts.max() == Some(1)
}

/// Compares one random select; the number of samples.
fn compare_backfilled(stand: &Stand, random: &mut Random, is_left_open: bool) -> usize {
    let (matchers, selector) = random_select(random);
    let range_ms = 1 + i64::try_from(random.below(7_000_000)).unwrap();
    let end_ms = START_MS + i64::try_from(random.below(8_000_000)).unwrap();
    let start_ms = end_ms - range_ms + i64::from(is_left_open);
    let mut asked = SeriesRequest {
        min_time: start_ms,
        max_time: end_ms,
        matchers,
        ..SeriesRequest::default()
    };
    let expected = queried(stand.prometheus.address(), &selector, end_ms, range_ms);
    asked.response_batch_size = [0, 1, 64, -1][usize::try_from(random.below(4)).unwrap()];
    let answer = stand.client.series(&asked);
    let context = format!("{selector} {start_ms}..{end_ms}, seed {SEED:#x}");
    if asked.response_batch_size == 64 {
        // One that is not full goes out when nothing else is there yet.
        assert_eq!(answer.singles, 0, "{context}");
        assert!(answer.batches.iter().all(|size| (1..=64).contains(size)));
    } else {
        assert_eq!(answer.batches.len(), 0, "{context}");
    }
    assert!(answer.warnings.is_empty(), "{context}");
    let found = checked(&answer.series, &context);
    let expected: PointsOf = expected
        .into_iter()
        .map(|(labels, points)| (with_external(labels.into_iter()), points))
        .collect();
    assert_eq!(found.len(), expected.len(), "{context}");
    for (labels, points) in &expected {
        assert_eq!(found.get(labels), Some(points), "{context} {labels:?}");
    }
    compare_variants(stand, &asked, &answer.series, random);
    expected.values().map(Vec::len).sum()
}

/// The same select without chunks, without a replica label, and in shards.
fn compare_variants(stand: &Stand, asked: &SeriesRequest, whole: &[Series], random: &mut Random) {
    let mut request = asked.clone();
    request.without_replica_labels = vec!["replica".into()];
    let without = stand.client.series(&request).series;
    let mut expected = whole.to_vec();
    for series in &mut expected {
        series.labels.retain(|label| label.name != "replica");
    }
    expected.sort_by_key(|series| pairs(&series.labels));
    assert_eq!(without, expected);

    let mut request = asked.clone();
    let shards = 1 + i64::try_from(random.below(5)).unwrap();
    let by = random.below(2) == 0;
    let mut union = Vec::new();
    for shard_index in 0..shards {
        request.shard_info = Some(ShardInfo {
            shard_index,
            total_shards: shards,
            by,
            labels: vec!["a".into(), "zz".into()],
        });
        union.extend(stand.client.series(&request).series);
    }
    union.sort_by_key(|series| pairs(&series.labels));
    assert_eq!(union, whole);

    let mut request = asked.clone();
    request.skip_chunks = true;
    let labels_only = stand.client.series(&request).series;
    assert!(labels_only.iter().all(|series| series.chunks.is_empty()));
    let labels: Vec<Labels> = labels_only.iter().map(|s| pairs(&s.labels)).collect();
    assert!(labels.is_sorted_by(|a, b| a < b));
    // Blocks may hold a series without samples in the range.
    let labels: BTreeSet<Labels> = labels.into_iter().collect();
    for series in whole {
        assert!(labels.contains(&pairs(&series.labels)), "{series:?}");
    }
}

/// What Prometheus scraped of itself: native histograms, and stale markers at the ends.
fn compare_live(stand: &Stand, is_left_open: bool) -> BTreeSet<i32> {
    let address = stand.prometheus.address();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end_ms = i64::try_from(now.unwrap().as_millis()).unwrap();
    let range_ms = 600_000;
    let start_ms = end_ms - range_ms + i64::from(is_left_open);
    let mut asked = request(vec![matcher("job", "=", "prometheus")]);
    (asked.min_time, asked.max_time) = (start_ms, end_ms);
    let answer = stand.client.series(&asked);
    let mut found = checked(&answer.series, "live");
    let query = RemoteQuery {
        start_ms,
        end_ms,
        matchers: vec![Matcher {
            op: MatchOp::Equal,
            name: "job".to_owned(),
            value: "prometheus".to_owned(),
        }],
    };
    let (read, encodings) = remotely_read(address, &query).unwrap();
    let read = read.into_iter();
    let read: PointsOf = read
        .map(|(labels, points)| (with_external(labels.into_iter()), points))
        .collect();
    assert_eq!(found, read);
    let markers = found
        .values()
        .flatten()
        .filter(|(_, point)| is_stale(*point));
    assert!(markers.count() > 100);
    for points in found.values_mut() {
        points.retain(|(_, point)| !is_stale(*point));
    }
    found.retain(|_, points| !points.is_empty());
    let expected = queried(address, "{job=\"prometheus\"}", end_ms, range_ms);
    let expected: PointsOf = expected
        .into_iter()
        .map(|(labels, points)| (with_external(labels.into_iter()), points))
        .collect();
    assert_eq!(found, expected);
    let histograms = found.values().flatten();
    let histograms = histograms.filter(|(_, point)| matches!(point, Point::Histogram(..)));
    if histograms.count() == 0 {
        left_out(
            "native histograms in Series",
            "this Prometheus has none of its own",
        );
    }
    compare_variants(stand, &asked, &answer.series, &mut Random(SEED));
    encodings
}

/// Labels and samples, after a look at order, times and hashes.
pub(super) fn checked(series: &[Series], context: &str) -> PointsOf {
    let mut found = PointsOf::new();
    let mut previous = Labels::new();
    for one in series {
        let labels = pairs(&one.labels);
        assert!(
            labels.is_sorted_by(|a, b| a.0 < b.0),
            "{context} {labels:?}"
        );
        assert!(
            previous < labels,
            "{context} {previous:?} before {labels:?}"
        );
        previous.clone_from(&labels);
        assert!(!one.chunks.is_empty(), "{context} {labels:?}");
        let mut points = Points::new();
        for chunk in &one.chunks {
            let raw = chunk.raw.as_ref().unwrap();
            assert_eq!(raw.hash, xxh64(&raw.data, 0), "{context} {labels:?}");
            // XOR, HISTOGRAM, FLOAT_HISTOGRAM: what queriers know.
            assert!((0..=2).contains(&raw.r#type), "{context} {}", raw.r#type);
            let encoding = Encoding::from_id(u8::try_from(raw.r#type + 1).unwrap()).unwrap();
            let decoded = decode(encoding, &raw.data);
            assert_eq!(
                decoded.first().map(|(t, _)| *t),
                Some(chunk.min_time),
                "{context}"
            );
            assert_eq!(
                decoded.last().map(|(t, _)| *t),
                Some(chunk.max_time),
                "{context}"
            );
            points.extend(decoded);
        }
        let ranges = || -> Vec<_> {
            let chunks = one.chunks.iter();
            chunks
                .map(|chunk| (chunk.min_time, chunk.max_time))
                .collect()
        };
        assert!(
            points.is_sorted_by(|a, b| a.0 < b.0),
            "{context} {labels:?}: samples out of order in the chunks of {:?}",
            ranges()
        );
        found.insert(labels, points);
    }
    found
}

/// Matchers, and the same as a selector; those of external labels are left out of the selector.
fn random_select(random: &mut Random) -> (Vec<LabelMatcher>, String) {
    let choices = [
        ("__name__", "=~", "m."),
        ("__name__", "=~", "m0|m2"),
        ("__name__", "=", "m1"),
        (
            "__name__",
            "!~",
            "go_.*|up|m2|scrape_.*|prometheus_.*|net_.*|process_.*|promhttp_.*",
        ),
    ];
    let others = [
        ("a", "=", "1"),
        ("a", "=", ""),
        ("a", "!=", ""),
        ("a", "=~", "1|3|"),
        ("a", "!~", "[12]"),
        ("job", "=~", "j.+"),
        ("job", "!=", "j2"),
        ("job", "=~", ".*1"),
        ("zz", "=", "v-2"),
        ("zz", "=~", "(?i)V-[1-3]"),
        ("zz", "!~", "v-.*"),
        ("nope", "=", ""),
        ("cluster", "=", "eu-1"),
        ("cluster", "=~", "eu-.*"),
        ("replica", "!=", "1"),
    ];
    let mut pick = |of: &[(&'static str, &'static str, &'static str)]| {
        of[usize::try_from(random.below(of.len() as u64)).unwrap()]
    };
    let mut chosen = vec![pick(&choices)];
    // One that does not match the empty text is needed.
    if chosen[0].1 == "!~" {
        chosen.push(("__name__", "=~", ".+"));
    }
    let more = usize::try_from(random.below(4)).unwrap();
    for _ in 0..more {
        let at = usize::try_from(random.below(others.len() as u64)).unwrap();
        chosen.push(others[at]);
    }
    let matchers = chosen.iter();
    let matchers = matchers
        .map(|(name, op, value)| matcher(name, op, value))
        .collect();
    let inner = chosen
        .iter()
        .filter(|(name, ..)| !["cluster", "replica"].contains(name));
    let inner: Vec<String> = inner
        .map(|(name, op, value)| format!("{name}{op}\"{value}\""))
        .collect();
    (matchers, format!("{{{}}}", inner.join(",")))
}

#[test]
fn matchers_of_external_labels_alone_or_of_other_values() {
    use outrigger::net::grpc::Code;
    let stand = Stand::new(&exposition(), &[]);
    let select = |matchers| stand.client.try_series(&request(matchers));
    let other = vec![
        matcher("cluster", "=", "us-1"),
        matcher("__name__", "=", "m0"),
    ];
    let none = select(other);
    assert_eq!((none.failure, none.series.len()), (None, 0));
    assert_eq!(stand.reads(), 0);
    let alone = select(vec![matcher("cluster", "=", "eu-1")])
        .failure
        .unwrap();
    assert_eq!(alone.code, Code::InvalidArgument, "{alone:?}");
    let broken = vec![matcher("cluster", "=", "us-1"), matcher("job", "=~", "(")];
    let broken = select(broken).failure.unwrap();
    assert_eq!(broken.code, Code::InvalidArgument, "{broken:?}");
    let mut inverted = everything();
    (inverted.min_time, inverted.max_time) = (END_MS, START_MS);
    assert!(stand.client.series(&inverted).series.is_empty());
    let mut all_times = everything();
    (all_times.min_time, all_times.max_time) = (i64::MIN, i64::MAX);
    assert_eq!(stand.client.series(&all_times).series.len(), 360);
    all_times.skip_chunks = true;
    assert_eq!(stand.client.series(&all_times).series.len(), 360);
}
