//! Series out of the blocks against the same through Prometheus' remote read: for random selectors
//! and ranges the samples are the same, and nothing is asked of Prometheus that blocks hold.

use std::collections::BTreeSet;

use outrigger::proto::thanos::{
    LabelMatcher, LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse,
    Series, SeriesRequest,
};

use super::differential::checked;
use crate::support::{
    Labels, Outrigger, PointsOf, Prometheus, PrometheusSetup, Random, Site, StoreClient, Writer,
    eventually, histogram, matcher, post, ulid_directories,
};

const SELECTS: usize = 2_000;
const SEED: u64 = 0x5eed_0006;
const STEP_MS: i64 = 15_000;
const STEPS: i64 = 360;
const BLOCK_MS: i64 = 600_000;
/// A border of blocks, as of 2023.
const FIRST_MS: i64 = 1_700_000_400_000;
const LAST_MS: i64 = FIRST_MS + STEPS * STEP_MS;
/// The values of one label.
const MANY: i64 = 100_000;

/// A Prometheus with blocks that it cut itself, and two that serve it: from blocks, and without.
struct Pair {
    local: StoreClient,
    remote: StoreClient,
    outrigger: Outrigger,
    _other: Outrigger,
    prometheus: Prometheus,
    _site: Site,
}

impl Pair {
    fn new(setup: &PrometheusSetup, blocks: usize, write: impl FnOnce(&mut Writer)) -> Self {
        let site = Site::new();
        let prometheus = Prometheus::start(&site.data, setup);
        write(&mut Writer::new(prometheus.address()));
        eventually("Prometheus has cut its blocks", || {
            (ulid_directories(&site.data).len() >= blocks).then_some(())
        });
        let start = |flags: &[&str]| {
            let arguments = site.arguments_without_bucket(prometheus.address(), flags);
            Outrigger::start(&arguments)
        };
        let outrigger = start(&[]);
        let other = start(&["--no-store.local-blocks"]);
        let blocks = blocks as f64;
        outrigger.wait_for_metric("outrigger_store_local_blocks", |proven| proven >= blocks);
        Self {
            local: StoreClient::connect(outrigger.grpc_address()),
            remote: StoreClient::connect(other.grpc_address()),
            outrigger,
            _other: other,
            prometheus,
            _site: site,
        }
    }
}

/// How many questions were answered so.
pub(super) fn plans(outrigger: &Outrigger, kind: &str) -> f64 {
    let series = format!("outrigger_store_local_plans_total{{kind=\"{kind}\"}}");
    outrigger.metric(&series).unwrap_or_default()
}

fn setup() -> PrometheusSetup {
    PrometheusSetup {
        min_block_duration: "10m",
        max_block_duration: "10m",
        flags: vec![
            "--web.enable-remote-write-receiver".to_owned(),
            "--enable-feature=native-histograms".to_owned(),
        ],
        ..PrometheusSetup::default()
    }
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs.iter().filter(|(_, value)| !value.is_empty());
    let mut labels: Labels = owned
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    labels.sort();
    labels
}

/// Floats with gaps, NaN and stale markers; whole and float histograms; values beyond ASCII; one
/// label with very many values.
fn write(writer: &mut Writer) {
    for step in 0..=STEPS {
        let t_ms = FIRST_MS + step * STEP_MS;
        for set in (0..48_i64).filter(|set| (step + set) % 11 != 0) {
            let (a, job, city) = (
                ["", "1", "2", "3"][usize::try_from(set % 4).unwrap()],
                ["", "j1", "j2"][usize::try_from(set % 3).unwrap()],
                ["", "städte", "日本", "straße"][usize::try_from(set / 12).unwrap()],
            );
            let name = format!("m{}", set % 2);
            let series = labels(&[("__name__", &name), ("a", a), ("job", job), ("city", city)]);
            let value = match (step * 7 + set) % 23 {
                0 => f64::NAN,
                1 if step % 40 > 30 => f64::from_bits(0x7ff0_0000_0000_0002),
                rest => rest as f64 * 1.25,
            };
            writer.float(&series, t_ms, value);
        }
        for (name, is_float) in [("h_int", false), ("h_float", true)] {
            // The count falls now and then, as after a restart.
            let count = u64::try_from(1 + step % 97).unwrap() * 6;
            let series = labels(&[("__name__", name), ("job", "j1")]);
            writer.histogram(&series, histogram(t_ms, count, is_float).0);
        }
        if step == 50 {
            for id in 0..MANY {
                let id = format!("id-{id:06}");
                writer.float(&labels(&[("__name__", "many"), ("id", &id)]), t_ms, 1.0);
                if id.ends_with("9999") {
                    writer.flush();
                }
            }
        }
        if step % 20 == 0 {
            writer.flush();
        }
    }
    writer.flush();
}

#[test]
fn samples_out_of_blocks_are_those_of_remote_read() {
    let pair = Pair::new(&setup(), 7, write);
    let mut random = Random(SEED);
    let mut borders = vec![FIRST_MS, LAST_MS];
    borders.extend((0..=9).map(|block| FIRST_MS + block * BLOCK_MS));
    let mut samples = 0;
    for at in 0..SELECTS {
        let matchers = random_matchers(&mut random);
        let mut end = || match random.below(3) {
            0 => FIRST_MS + i64::try_from(random.below(STEPS as u64 * STEP_MS as u64)).unwrap(),
            _ => {
                let border = borders[usize::try_from(random.below(borders.len() as u64)).unwrap()];
                border + i64::try_from(random.below(3)).unwrap() - 1
            }
        };
        let (one, other) = (end(), end());
        let request = SeriesRequest {
            min_time: one.min(other),
            max_time: one.max(other),
            matchers,
            response_batch_size: 64,
            ..SeriesRequest::default()
        };
        let context = format!("select {at}, seed {SEED:#x}: {request:?}");
        let local = pair.local.series(&request).series;
        let remote = pair.remote.series(&request).series;
        let found = in_range(&local, &request, &context);
        assert_eq!(found, in_range(&remote, &request, &context), "{context}");
        samples += found.values().map(Vec::len).sum::<usize>();
        if borders.len() < 200 {
            let chunks = local.iter().flat_map(|series| &series.chunks);
            borders.extend(
                chunks
                    .take(3)
                    .flat_map(|chunk| [chunk.min_time, chunk.max_time]),
            );
        }
        if at % 10 == 0 {
            compare_lists(&pair, &request, &context);
        }
    }
    assert!(samples > 500_000, "{samples} samples compared");
    let only_blocks = plans(&pair.outrigger, "local");
    let mixed = plans(&pair.outrigger, "mixed");
    assert!(
        only_blocks > 500.0 && mixed > 100.0,
        "{only_blocks} local, {mixed} mixed"
    );
}

/// With deletions in blocks in between, Prometheus has to be asked for several times; calls that
/// each held one of its few reads while they waited for the next would wait for ever.
#[test]
fn calls_do_not_wait_for_each_other_at_prometheus() {
    let mut setup = setup();
    setup
        .flags
        .push("--storage.remote.read-concurrent-limit=1".to_owned());
    setup.flags.push("--web.enable-admin-api".to_owned());
    let series = |set: i64| labels(&[("__name__", "few"), ("set", &set.to_string())]);
    let pair = Pair::new(&setup, 5, |writer| {
        for step in 0..=260 {
            for set in 0..5 {
                writer.float(&series(set), FIRST_MS + step * STEP_MS, step as f64);
            }
            if step % 20 == 0 {
                writer.flush();
            }
        }
    });
    for block in [1, 3] {
        let from = (FIRST_MS + block * BLOCK_MS + 60_000) / 1000;
        let path = format!(
            "/api/v1/admin/tsdb/delete_series?match[]=few%7Bset=\"1\"%7D&start={from}&end={}",
            from + 60
        );
        assert_eq!(post(pair.prometheus.address(), &path).unwrap().0, 204);
    }
    let request = SeriesRequest {
        min_time: FIRST_MS,
        max_time: LAST_MS,
        matchers: vec![matcher("__name__", "=", "few")],
        response_batch_size: 64,
        ..SeriesRequest::default()
    };
    let expected = in_range(&pair.remote.series(&request).series, &request, "remote");
    for answer in pair.local.at_once(vec![request.clone(); 6]) {
        assert_eq!(answer.failure, None);
        assert_eq!(in_range(&answer.series, &request, "local"), expected);
    }
    assert!(plans(&pair.outrigger, "mixed") >= 6.0);
    let mut labels_only = request;
    labels_only.skip_chunks = true;
    assert_eq!(pair.local.series(&labels_only).series.len(), 5);
}

/// The samples of the time that was asked for; chunks may reach beyond.
pub(super) fn in_range(series: &[Series], request: &SeriesRequest, context: &str) -> PointsOf {
    let mut found = checked(series, context);
    for points in found.values_mut() {
        points.retain(|(t_ms, _)| (request.min_time..=request.max_time).contains(t_ms));
    }
    found.retain(|_, points| !points.is_empty());
    found
}

/// Labels alone, names and values. Prometheus tells of whole blocks there.
fn compare_lists(pair: &Pair, asked: &SeriesRequest, context: &str) {
    let mut request = asked.clone();
    request.skip_chunks = true;
    let labels = |client: &StoreClient| {
        let series = client.series(&request).series;
        let labels: Vec<_> = series
            .iter()
            .map(|series| crate::support::pairs(&series.labels))
            .collect();
        assert!(labels.is_sorted_by(|a, b| a < b), "{context}");
        labels.into_iter().collect::<BTreeSet<_>>()
    };
    assert_eq!(labels(&pair.local), labels(&pair.remote), "{context}");
    let names = |client: &StoreClient| {
        let request = LabelNamesRequest {
            start: asked.min_time,
            end: asked.max_time,
            matchers: asked.matchers.clone(),
            ..LabelNamesRequest::default()
        };
        client
            .unary::<LabelNamesResponse>("/thanos.Store/LabelNames", &request)
            .unwrap()
            .names
    };
    assert_eq!(names(&pair.local), names(&pair.remote), "{context}");
    for label in ["job", "id", "nope"] {
        let values = |client: &StoreClient| {
            let request = LabelValuesRequest {
                label: label.to_owned(),
                start: asked.min_time,
                end: asked.max_time,
                matchers: asked.matchers.clone(),
                ..LabelValuesRequest::default()
            };
            let path = "/thanos.Store/LabelValues";
            client
                .unary::<LabelValuesResponse>(path, &request)
                .unwrap()
                .values
        };
        assert_eq!(
            values(&pair.local),
            values(&pair.remote),
            "{label} {context}"
        );
    }
}

fn random_matchers(random: &mut Random) -> Vec<LabelMatcher> {
    let metrics = [
        ("__name__", "=~", "m."),
        ("__name__", "=", "m1"),
        ("__name__", "=~", "m0|h_int"),
        ("__name__", "=~", "h_.*"),
        ("__name__", "!~", "many|h.*"),
        ("job", "=~", ".+"),
        ("id", "=", "id-012345"),
        ("id", "=~", "id-0123.*"),
        ("id", "=~", ".*(77777|4242)"),
        ("id", "=~", "id-(000001|099999|nope)"),
    ];
    let others = [
        ("a", "=", "1"),
        ("a", "=", ""),
        ("a", "!=", ""),
        ("a", "!=", "2"),
        ("a", "=~", "1|3|"),
        ("a", "!~", "[12]"),
        ("a", "=~", ".*"),
        ("a", "!~", ".+"),
        ("job", "=~", "j.+"),
        ("job", "!~", "j1|"),
        ("city", "=", "日本"),
        ("city", "=~", "(?i)STÄDTE|stra.e"),
        ("city", "!=", "städte"),
        ("nope", "=", ""),
        ("id", "=", ""),
        ("cluster", "=~", "eu-.*"),
    ];
    let mut chosen = Vec::new();
    let metric = metrics[usize::try_from(random.below(metrics.len() as u64)).unwrap()];
    chosen.push(metric);
    if metric.1 == "!~" {
        chosen.push(("__name__", "!=", ""));
    }
    for _ in 0..random.below(4) {
        chosen.push(others[usize::try_from(random.below(others.len() as u64)).unwrap()]);
    }
    chosen
        .iter()
        .map(|(name, op, value)| matcher(name, op, value))
        .collect()
}
