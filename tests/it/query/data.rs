//! The series that expressions are evaluated over, with timestamps of the year 2023: the same
//! numbers each time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::api::LabelSet;
use crate::support::{Random, Writer, histogram};

/// The time of the first samples, in ms.
pub(super) const START_MS: i64 = 1_700_000_000_000;
/// Between two samples of a series.
pub(super) const STEP_MS: i64 = 30_000;
/// Samples of a series.
pub(super) const SAMPLES: i64 = 60;

const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A series and what it holds.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: LabelSet,
    pub(super) shape: Shape,
}

/// How values go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rises, and begins anew now and then.
    Counter,
    /// Goes up and down, below zero as well.
    Gauge,
    /// Between 0 and 1.
    Ratio,
    One,
    /// Whole numbers between 0 and 3.
    Level,
    /// A time in seconds shortly before that of the sample.
    Time,
    /// With gaps, NaN and infinities.
    Odd,
    /// Ends in the middle with a stale marker, and comes back later.
    Gone,
    /// A cumulative bucket of a classic histogram: how many of its ten buckets it has seen.
    Bucket(u8),
    NativeHistogram,
    NativeFloatHistogram,
}

impl Series {
    pub(super) fn new(labels: &[(&str, &str)], shape: Shape) -> Self {
        let labels = labels.iter().map(|&(n, v)| (n.to_owned(), v.to_owned()));
        Self {
            labels: labels.collect(),
            shape,
        }
    }
}

/// Writes the series, each with the labels that `relabel` makes of its own.
pub(super) fn write(
    address: SocketAddr,
    series: &[Series],
    relabel: impl Fn(&LabelSet) -> LabelSet,
) {
    let mut writer = Writer::new(address);
    for (index, one) in (0_u64..).zip(series) {
        let labels: Vec<_> = relabel(&one.labels).into_iter().collect();
        // Targets are not scraped at the same instant.
        let phase_ms = i64::try_from(index % 7).unwrap() * 411;
        let mut values = Values::new(index);
        for at in 0..SAMPLES {
            let t_ms = START_MS + at * STEP_MS + phase_ms;
            match one.shape {
                Shape::NativeHistogram | Shape::NativeFloatHistogram => {
                    let is_float = one.shape == Shape::NativeFloatHistogram;
                    let count = values.count(at);
                    writer.histogram(&labels, histogram(t_ms, count, is_float).0);
                }
                shape => {
                    if let Some(value) = values.next(shape, at, t_ms) {
                        writer.float(&labels, t_ms, value);
                    }
                }
            }
        }
    }
    writer.flush();
}

/// The values of one series.
struct Values {
    random: Random,
    total: f64,
}

impl Values {
    fn new(index: u64) -> Self {
        Self {
            random: Random(0x000d_a7a0 + index),
            total: 0.0,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn below(&mut self, bound: u64) -> f64 {
        self.random.below(bound) as f64
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a total of small whole numbers"
    )]
    fn count(&mut self, at: i64) -> u64 {
        if at == 41 {
            self.total = 0.0;
        }
        self.total += 3.0 + self.below(40);
        self.total as u64
    }

    #[expect(clippy::cast_precision_loss, reason = "a time of ms")]
    fn next(&mut self, shape: Shape, at: i64, t_ms: i64) -> Option<f64> {
        let resets_at = 17 + i64::try_from(self.random.0 % 20).unwrap_or(0);
        match shape {
            Shape::Counter => {
                if at == resets_at {
                    self.total = 0.0;
                }
                self.total += self.below(4_000) / 16.0;
                Some(self.total)
            }
            Shape::Gauge => Some(self.below(2_000_000) / 1_024.0 - 700.0),
            Shape::Ratio => Some(self.below(1_000) / 1_000.0),
            Shape::One => Some(1.0),
            Shape::Level => Some(self.below(4)),
            Shape::Time => Some(t_ms as f64 / 1e3 - self.below(4_000)),
            Shape::Odd => match at % 13 {
                3 => Some(f64::NAN),
                5 => Some(f64::INFINITY),
                7 => Some(f64::NEG_INFINITY),
                8..=10 => None,
                _ => Some(self.below(1_000) / 8.0 - 60.0),
            },
            Shape::Gone => match at {
                25 => Some(f64::from_bits(STALE_NAN_BITS)),
                26..=40 => None,
                _ => Some(self.below(90)),
            },
            Shape::Bucket(of_ten) => {
                // Each bucket rises with the one below it.
                self.random = Random(u64::try_from(at).unwrap_or(0));
                self.total += (2.0 + self.below(30)) * f64::from(of_ten);
                Some(self.total)
            }
            Shape::NativeHistogram | Shape::NativeFloatHistogram => None,
        }
    }
}

const INSTANCES: [(&str, &str); 4] = [
    ("api", "i1:80"),
    ("api", "i2:80"),
    ("web", "i1:81"),
    ("web", "i3:81"),
];

/// What the generator's expressions speak of.
pub(super) fn everything(has_utf8: bool) -> Vec<Series> {
    let mut all = Vec::new();
    for (job, instance) in INSTANCES {
        let mut put = |name: &str, more: &[(&str, &str)], shape| {
            let mut labels = vec![("__name__", name), ("job", job), ("instance", instance)];
            labels.extend(more);
            all.push(Series::new(&labels, shape));
        };
        for code in ["200", "500"] {
            for method in ["get", "post"] {
                let labels = [("code", code), ("method", method)];
                put("http_requests_total", &labels, Shape::Counter);
            }
        }
        for mode in ["idle", "user", "system"] {
            put("cpu_seconds_total", &[("mode", mode)], Shape::Counter);
        }
        put("memory_bytes", &[], Shape::Gauge);
        put("memory_limit_bytes", &[], Shape::Gauge);
        put("up", &[], Shape::Level);
        put("odd", &[], Shape::Odd);
        put("gone", &[], Shape::Gone);
        put("seen_seconds", &[], Shape::Time);
        put("usage", &[("zz", "after")], Shape::Ratio);
        let version = if instance == "i1:80" { "1.0" } else { "1.1" };
        put("build_info", &[("version", version)], Shape::One);
        let region = [("region", "r\"1"), ("k8s_pod", "p$1")];
        put("target_info", &region, Shape::One);
        for (le, of_ten) in [("0.1", 2), ("0.5", 5), ("1", 7), ("+Inf", 10)] {
            put("lat_bucket", &[("le", le)], Shape::Bucket(of_ten));
        }
        put("lat_count", &[], Shape::Bucket(10));
        put("lat_sum", &[], Shape::Counter);
        put("nh", &[], Shape::NativeHistogram);
        put("nhf", &[], Shape::NativeFloatHistogram);
        if has_utf8 {
            put("my.metric", &[("my.label", "ü 1")], Shape::Gauge);
        }
    }
    // Where one is what another begins with, an external label between changes the order.
    for labels in [
        &[("__name__", "pre")][..],
        &[("__name__", "pre"), ("a", "1")],
        &[("__name__", "pre"), ("a", "1"), ("b", "2")],
        &[("__name__", "pre"), ("a", "1"), ("b", "2"), ("zz", "3")],
        &[("__name__", "pre"), ("a", "1"), ("zz", "3")],
        &[("__name__", "pre"), ("b", "x \"quoted\" \\ ünï")],
    ] {
        all.push(Series::new(labels, Shape::Gauge));
    }
    all
}

/// Series with labels of their own that are named as external labels, or as a replica label that
/// is none; no two differ in these only.
pub(super) fn with_own_labels() -> Vec<Series> {
    let mut all = Vec::new();
    for (job, instance) in INSTANCES {
        for (name, own) in [
            ("own_gauge", &[("cluster", "mine"), ("replica", "z")][..]),
            (
                "own_some",
                if job == "api" {
                    &[("zone", "inner")][..]
                } else {
                    &[]
                },
            ),
            ("own_same", &[("cluster", "eu1"), ("rep2", "r")]),
        ] {
            let mut labels = vec![("__name__", name), ("job", job), ("instance", instance)];
            labels.extend(own);
            all.push(Series::new(&labels, Shape::Gauge));
        }
    }
    all
}

/// The values of `key="a|b"` in every combination: `name{key="a|b",…} shape`, a line each.
pub(super) fn parse(text: &str) -> Vec<Series> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(parse_line).collect()
}

fn parse_line(line: &str) -> Vec<Series> {
    let (series, shape) = line.rsplit_once(' ').unwrap();
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut all = vec![BTreeMap::from([("__name__".to_owned(), name.to_owned())])];
    for label in rest
        .trim_end_matches('}')
        .split("\",")
        .filter(|l| !l.is_empty())
    {
        let (key, values) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        let values: Vec<_> = values.trim_end_matches('"').split('|').collect();
        let combined = all.iter().flat_map(|labels| {
            values.iter().map(|&value| {
                let mut labels = labels.clone();
                labels.insert(key.trim().to_owned(), value.to_owned());
                labels
            })
        });
        all = combined.collect();
    }
    let shape = match shape {
        "counter" => Shape::Counter,
        "gauge" => Shape::Gauge,
        "ratio" => Shape::Ratio,
        "one" => Shape::One,
        "level" => Shape::Level,
        "time" => Shape::Time,
        "histogram" => return all.iter().flat_map(classic_histogram).collect(),
        other => panic!("{other} of {line}"),
    };
    all.into_iter()
        .map(|labels| Series { labels, shape })
        .collect()
}

/// Buckets, count and sum.
fn classic_histogram(labels: &LabelSet) -> Vec<Series> {
    let named = |suffix: &str, le: Option<&str>, shape| {
        let mut labels = labels.clone();
        labels.get_mut("__name__").unwrap().push_str(suffix);
        labels.extend(le.map(|le| ("le".to_owned(), le.to_owned())));
        Series { labels, shape }
    };
    let buckets = [("0.1", 2), ("0.4", 4), ("1", 7), ("5", 9), ("+Inf", 10)];
    let buckets = buckets.map(|(le, of_ten)| named("_bucket", Some(le), Shape::Bucket(of_ten)));
    let mut all = buckets.to_vec();
    all.push(named("_count", None, Shape::Bucket(10)));
    all.push(named("_sum", None, Shape::Counter));
    all
}
