//! StoreAPI of the binary beside a real Prometheus: what it tells, and what it never tells.

mod blocks;
mod command;
mod differential;
mod faults;
mod limits;
mod live;

use std::fmt::Write as _;

use outrigger::proto::thanos::{LabelMatcher, SeriesRequest};

use crate::support::{
    BACKFILL_START_S, LABELS, Outrigger, Prometheus, PrometheusSetup, RemoteProxy, Site,
    StoreClient, backfill_text, matcher,
};

const START_MS: i64 = BACKFILL_START_S * 1000;
const STEP_S: i64 = 30;
const SAMPLES: i64 = 200;
const END_MS: i64 = START_MS + STEP_S * 1000 * SAMPLES;

/// Series whose label sets are prefixes of each other, with labels that sort before, between and
/// after the external ones `cluster` and `replica`.
fn exposition() -> String {
    let mut text = "# TYPE m0 gauge\n# TYPE m1 gauge\n# TYPE m2 gauge\n".to_owned();
    for metric in 0..3 {
        for set in 0..120_i64 {
            let (a, b) = (set % 5, set / 5 % 4);
            let mut labels = Vec::new();
            if a > 0 {
                labels.push(format!("a=\"{a}\""));
            }
            if b > 0 {
                labels.push(format!("job=\"j{b}\""));
            }
            if set >= 20 {
                labels.push(format!("zz=\"v-{}\"", set / 20));
            }
            sampled(
                &mut text,
                &format!("m{metric}{{{}}}", labels.join(",")),
                set,
            );
        }
    }
    text.push_str("# EOF\n");
    text
}

fn sampled(text: &mut String, series: &str, set: i64) {
    for at in (0..SAMPLES).filter(|at| (at + set) % 11 != 0) {
        let value = match (at * 7 + set) % 13 {
            0 => "NaN".to_owned(),
            1 => "-1e300".to_owned(),
            rest => format!("{}.{at}", rest * set),
        };
        writeln!(text, "{series} {value} {}", BACKFILL_START_S + at * STEP_S).unwrap();
    }
}

/// A Prometheus with the data of an exposition, a proxy, and an outrigger behind it.
struct Stand {
    client: StoreClient,
    outrigger: Outrigger,
    proxy: RemoteProxy,
    prometheus: Prometheus,
    _site: Site,
}

impl Stand {
    fn new(exposition: &str, flags: &[&str]) -> Self {
        let site = Site::new();
        backfill_text(&site.data, exposition);
        Self::over(site, &PrometheusSetup::default(), flags)
    }

    fn over(site: Site, setup: &PrometheusSetup, flags: &[&str]) -> Self {
        let prometheus = Prometheus::start(&site.data, setup);
        let proxy = RemoteProxy::new(prometheus.address());
        let mut arguments = site.arguments_without_bucket(proxy.address(), flags);
        // What is seen at the proxy is all that is read.
        arguments.push("--no-store.local-blocks".to_owned());
        let outrigger = Outrigger::start(&arguments);
        let client = StoreClient::connect(outrigger.grpc_address());
        Self {
            client,
            outrigger,
            proxy,
            prometheus,
            _site: site,
        }
    }

    fn reads(&self) -> usize {
        self.proxy.requests("/api/v1/read").len()
    }
}

fn request(matchers: Vec<LabelMatcher>) -> SeriesRequest {
    SeriesRequest {
        min_time: START_MS,
        max_time: END_MS,
        matchers,
        ..SeriesRequest::default()
    }
}

/// All of the backfilled series.
fn everything() -> SeriesRequest {
    request(vec![matcher("__name__", "=~", "m.")])
}

fn with_external(labels: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let external = LABELS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut labels: Vec<_> = labels
        .filter(|(name, _)| LABELS.iter().all(|(external, _)| name != external))
        .chain(external)
        .collect();
    labels.sort();
    labels
}
