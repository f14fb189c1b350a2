//! Matchers to series: what a selection costs in an index of many series, by the form of the
//! pattern, and what it costs to prepare a pattern.
//!
//! `cargo bench --features testing --bench select`; as a smoke test under `cargo test --benches`.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a bench may panic, and its table is read in place"
)]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use outrigger::model::{BlockId, MatchOp, Matcher, TimeRange, TimestampMs};
use outrigger::store::{CompiledMatcher, Work, label_values, select};
use outrigger::tsdb::IndexLayout;
use outrigger::tsdb::testing::{BlockLayout, MemoryBlock, Series};

fn main() {
    divan::main();
}

/// Small in a debug build, which only proves that the bench runs.
const SERIES: usize = match IS_SMALL {
    _ if cfg!(debug_assertions) => 500,
    true => 20_000,
    false => 200_000,
};
/// For `make bench-instructions`, under which all runs fifty times slower.
const IS_SMALL: bool = option_env!("OUTRIGGER_BENCH_SMALL").is_some();
/// Series of one metric.
const PER_METRIC: usize = 500;

/// Selectors by name: operator, label, value; all of them must fit.
const SELECTORS: &[(&str, &[(MatchOp, &str, &str)])] = &[
    ("one series", &[(MatchOp::Equal, "pod", "pod-00000123")]),
    ("one metric", &[(MatchOp::Equal, "__name__", "metric_0")]),
    (
        "names",
        &[(
            MatchOp::Regex,
            "pod",
            "pod-00000123|pod-00000007|pod-00000400",
        )],
    ),
    ("beginning", &[(MatchOp::Regex, "pod", "pod-000001.*")]),
    (
        "beginning, expression",
        &[(MatchOp::Regex, "pod", r"pod-000001\d+")],
    ),
    ("ending", &[(MatchOp::Regex, "pod", ".*123")]),
    ("inside", &[(MatchOp::Regex, "pod", ".*123.*")]),
    ("expression", &[(MatchOp::Regex, "pod", "[^x]+1+[^x]+3")]),
    ("has the label", &[(MatchOp::NotEqual, "pod", "")]),
    (
        "metric and inside",
        &[
            (MatchOp::Equal, "__name__", "metric_0"),
            (MatchOp::Regex, "pod", ".*12.*"),
        ],
    ),
    (
        "metric but not one",
        &[
            (MatchOp::Equal, "__name__", "metric_0"),
            (MatchOp::NotEqual, "pod", "pod-00000123"),
        ],
    ),
];

/// Names of [`SELECTORS`], as divan takes them.
const NAMES: [&str; SELECTORS.len()] = {
    let mut names = [""; SELECTORS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = SELECTORS[at].0;
        at += 1;
    }
    names
};

fn matchers(name: &str) -> Vec<CompiledMatcher> {
    let (_, matchers) = SELECTORS.iter().find(|(other, _)| *other == name).unwrap();
    let matchers = matchers.iter().map(|(op, name, value)| {
        let (name, value) = ((*name).to_owned(), (*value).to_owned());
        CompiledMatcher::new(&Matcher {
            op: *op,
            name,
            value,
        })
        .unwrap()
    });
    matchers.collect()
}

fn index() -> Vec<u8> {
    let mut labels: Vec<Vec<(String, String)>> = (0..SERIES)
        .map(|i| {
            let label = |name: &str, value: String| (name.to_owned(), value);
            vec![
                label("__name__", format!("metric_{}", i / PER_METRIC)),
                label("job", format!("job-{}", i % 7)),
                label("pod", format!("pod-{i:08}")),
            ]
        })
        .collect();
    labels.sort();
    let range = TimeRange {
        mint: TimestampMs(0),
        maxt: TimestampMs(10),
    };
    let series = labels.into_iter().map(|labels| Series {
        labels,
        chunks: Vec::new(),
    });
    let ulid = BlockId::from_u128(1);
    let block = MemoryBlock::write(BlockLayout::default(), ulid, range, series);
    block.index().to_vec()
}

#[divan::bench(args = NAMES)]
fn selection(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = index();
    let layout = IndexLayout::read(&bytes).unwrap();
    let matchers = matchers(name);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let view = layout.view(&bytes);
        let mut series = select(view, &matchers, &mut Work::new()).unwrap();
        let mut count = 0;
        while series.next(view).is_some() {
            count += 1;
        }
        assert!(count > 0, "{name} selects nothing");
        black_box(count)
    });
}

#[divan::bench(args = NAMES)]
fn preparation(name: &str) {
    black_box(matchers(name));
}

#[divan::bench(args = ["one metric", "has the label"])]
fn values_of_a_label(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = index();
    let layout = IndexLayout::read(&bytes).unwrap();
    let matchers = matchers(name);
    bencher.bench_local(|| {
        let view = layout.view(&bytes);
        let mut work = Work::new();
        let values = label_values(view, "job", &matchers, usize::MAX, &mut work).unwrap();
        assert_eq!(values.len(), 7);
    });
}
