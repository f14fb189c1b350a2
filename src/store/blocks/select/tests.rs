//! Selections against a naive model, over indexes in memory.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::{BlockId, TimeRange, TimestampMs};
use crate::tsdb::testing::{BlockLayout, MemoryBlock, Series};
use crate::tsdb::{IndexLayout, SeriesReader};

type Labels = Vec<(String, String)>;

fn matcher(op: MatchOp, name: &str, value: &str) -> CompiledMatcher {
    let (name, value) = (name.to_owned(), value.to_owned());
    CompiledMatcher::new(&Matcher { op, name, value }).unwrap()
}

fn eq(name: &str, value: &str) -> CompiledMatcher {
    matcher(MatchOp::Equal, name, value)
}

fn neq(name: &str, value: &str) -> CompiledMatcher {
    matcher(MatchOp::NotEqual, name, value)
}

fn re(name: &str, value: &str) -> CompiledMatcher {
    matcher(MatchOp::Regex, name, value)
}

fn nre(name: &str, value: &str) -> CompiledMatcher {
    matcher(MatchOp::NotRegex, name, value)
}

/// An index with these series, which are put in order.
struct Index {
    series: Vec<Labels>,
    bytes: Vec<u8>,
    layout: IndexLayout,
}

impl Index {
    fn new(series: impl IntoIterator<Item = Labels>, index_version: u8) -> Self {
        let series: BTreeSet<Labels> = series.into_iter().collect();
        let layout = BlockLayout {
            index_version,
            ..BlockLayout::default()
        };
        let range = TimeRange {
            mint: TimestampMs(0),
            maxt: TimestampMs(10),
        };
        let ulid: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let written = series.iter().map(|labels| Series {
            labels: labels.clone(),
            chunks: Vec::new(),
        });
        let block = MemoryBlock::write(layout, ulid, range, written);
        let bytes = block.index().to_vec();
        let layout = IndexLayout::read(&bytes).unwrap();
        Self {
            series: series.into_iter().collect(),
            bytes,
            layout,
        }
    }

    fn view(&self) -> IndexView<'_> {
        self.layout.view(&self.bytes)
    }

    /// The labels of the series with these matchers.
    fn select(&self, matchers: &[CompiledMatcher]) -> Vec<Labels> {
        let view = self.view();
        let mut found = select(view, matchers, &mut Work::new()).unwrap();
        let mut reader = SeriesReader::new();
        let mut all = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        while let Some(id) = found.next(view) {
            reader.read(view, id).unwrap();
            let labels = reader.labels(view);
            all.push(labels.map(|(n, v)| (text(n), text(v))).collect());
        }
        all
    }

    fn fitting(&self, matchers: &[CompiledMatcher]) -> Vec<Labels> {
        let fits = |labels: &&Labels| {
            matchers.iter().all(|matcher| {
                let label = labels.iter().find(|(name, _)| name == matcher.name());
                matcher.matches(label.map_or("", |(_, value)| value).as_bytes())
            })
        };
        self.series.iter().filter(fits).cloned().collect()
    }
}

fn labels(text: &str) -> Labels {
    let pairs = text.split_whitespace().map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    pairs.collect()
}

fn sample() -> Index {
    let series = [
        "n=1",
        "n=1 i=a",
        "n=1 i=b",
        "n=2",
        "n=2.5",
        "n=2.5 i=a b=",
        "i=a m=x",
        "m=y",
    ];
    Index::new(
        series.map(|text| {
            let mut labels = labels(text);
            labels.retain(|(_, value)| !value.is_empty());
            labels.sort();
            labels
        }),
        2,
    )
}

/// The table that the reference's own selection is known by, one row a rule.
#[test]
fn each_rule_of_the_selection() {
    let index = sample();
    let rows: &[(&[CompiledMatcher], usize)] = &[
        (&[eq("", "")], 8),
        (&[eq("", "x")], 0),
        (&[neq("", "")], 0),
        (&[], 8),
        (&[eq("n", "1")], 3),
        (&[eq("n", "1"), eq("i", "a")], 1),
        (&[eq("n", "1"), eq("i", "missing")], 0),
        (&[eq("missing", "")], 8),
        (&[neq("n", "1")], 5),
        (&[neq("i", "")], 4),
        (&[neq("missing", "")], 0),
        (&[eq("n", "1"), neq("i", "a")], 2),
        (&[eq("n", "1"), neq("i", "")], 2),
        (&[eq("i", "")], 4),
        (&[eq("n", "1"), eq("i", "")], 1),
        (&[re("n", "^1$")], 3),
        (&[re("n", "1.*"), re("i", "^a$")], 1),
        (&[re("i", "^.*$")], 8),
        (&[re("i", "^.+$")], 4),
        (&[nre("n", "^1$")], 5),
        (&[nre("n", "1")], 5),
        (&[nre("n", "1|2.5")], 3),
        (&[nre("n", "(1|2.5)")], 3),
        (&[eq("n", "1"), nre("i", "^a$")], 2),
        (&[eq("n", "1"), nre("i", "^a?$")], 1),
        (&[eq("n", "1"), nre("i", "^$")], 2),
        (&[eq("n", "1"), nre("i", "^.*$")], 0),
        (&[eq("n", "1"), nre("i", "^.+$")], 1),
        (&[eq("n", "1"), neq("i", "b"), re("i", "^(b|a).*$")], 1),
        (&[re("n", "(1|2)")], 4),
        (&[re("i", "a|")], 7),
        (&[re("i", "a|"), neq("i", "")], 3),
        (&[nre("i", "a|")], 1),
        (&[re("n", "x|2|.*5")], 3),
        (&[re("n", "2.*"), nre("n", "2.+")], 1),
    ];
    for (matchers, count) in rows {
        let found = index.select(matchers);
        assert_eq!(found, index.fitting(matchers), "{matchers:?}");
        assert_eq!(found.len(), *count, "{matchers:?}");
    }
}

#[test]
fn nothing_is_walked_over_once_nothing_is_left() {
    let index = sample();
    let mut work = Work::limited(1, 0, 0);
    let matchers = [re("i", ".*a.*"), eq("n", "7")];
    let mut found = select(index.view(), &matchers, &mut work).unwrap();
    assert_eq!(found.next(index.view()), None);
}

#[test]
fn a_prefix_is_sought_and_left_again() {
    let many = (0..5_000).map(|n| labels(&format!("n={n:04}")));
    let index = Index::new(many, 2);
    // Ten that fit and the one that ends it; and each is a number by its form.
    let mut work = Work::limited(10, 10, 0);
    let mut found = select(index.view(), &[re("n", r"123\d")], &mut work).unwrap();
    let mut count = 0;
    while found.next(index.view()).is_some() {
        count += 1;
    }
    assert_eq!(count, 10);
    assert_eq!(index.select(&[re("n", "12.*|4999|49[0-9]+")]).len(), 200);
}

/// Two series of interest and a thousand values: the values are not walked over.
#[test]
fn few_series_are_read_rather_than_many_values() {
    let many = (0..1_000).map(|n| {
        let name = if n % 500 == 7 { "few" } else { "many" };
        labels(&format!("m={n:03} n={name}"))
    });
    let index = Index::new(many, 2);
    for (matcher, count) in [
        (re("m", ".*5.*"), 1),
        (nre("m", ".*5.*"), 1),
        (neq("m", ""), 2),
        (nre("m", "|1"), 2),
        (re("x", "|1.*"), 2),
    ] {
        let matchers = [matcher, eq("n", "few")];
        let mut work = Work::limited(10, 10, 10);
        let mut found = select(index.view(), &matchers, &mut work).unwrap();
        let mut found_count = 0;
        while found.next(index.view()).is_some() {
            found_count += 1;
        }
        assert_eq!(found_count, count, "{matchers:?}");
        assert_eq!(index.select(&matchers), index.fitting(&matchers));
    }
}

#[test]
fn the_matcher_that_is_too_expensive_is_named() {
    let many = (0..100).map(|n| labels(&format!("job=x n={n:03}")));
    let index = Index::new(many, 2);
    let view = index.view();
    let refused = |matchers: &[CompiledMatcher], mut work: Work| {
        let error = select(view, matchers, &mut work).unwrap_err();
        assert_eq!(error.class(), ErrorClass::ResourceExhausted);
        error.to_string()
    };
    let matchers = [eq("job", "x"), re("n", ".*[1-9]{9}.*")];
    assert_eq!(
        refused(&matchers, Work::limited(100, 100, 0)),
        "n=~\".*[1-9]{9}.*\" is too expensive: more than 100 label values looked at for one \
         request; name the metric, match by = or by a fixed beginning, or ask for a shorter time"
    );
    assert!(select(view, &matchers, &mut Work::limited(101, 100, 0)).is_ok());
    let matchers = [nre("n", r"\d+1")];
    let text = refused(&matchers, Work::limited(100, 9, 0));
    assert!(
        text.contains("more than 9 values held against regular"),
        "{text}"
    );
    assert!(select(view, &matchers, &mut Work::limited(100, 10, 0)).is_ok());

    let matchers = [eq("job", "x")];
    let mut work = Work::limited(10, 0, 5);
    let error = label_names(view, &[eq("job", "x"), neq("k", "v")], 9, &mut work);
    assert!(error.is_ok(), "the first series has all names");
    let error = label_values(view, "n", &matchers, 1000, &mut work).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("{job=\"x\"} is too expensive"),
        "{error}"
    );
}

#[test]
fn lists_of_the_whole_index_are_cut() {
    let index = sample();
    let (view, mut work) = (index.view(), Work::new());
    let names = label_names(view, &[], 9, &mut work).unwrap();
    assert_eq!(names, [b"i", b"m", b"n"]);
    assert_eq!(label_names(view, &[], 2, &mut work).unwrap(), [b"i", b"m"]);
    let values = label_values(view, "n", &[], 9, &mut work).unwrap();
    assert_eq!(values, [&b"1"[..], b"2", b"2.5"]);
    assert_eq!(label_values(view, "n", &[], 1, &mut work).unwrap(), [b"1"]);
    assert!(
        label_values(view, "n", &[], 0, &mut work)
            .unwrap()
            .is_empty()
    );
    assert!(
        label_values(view, "", &[], 9, &mut work)
            .unwrap()
            .is_empty()
    );
    assert!(
        label_values(view, "missing", &[], 9, &mut work)
            .unwrap()
            .is_empty()
    );
}

const NAMES: [&str; 5] = ["a", "b", "c", "é", ""];
const VALUES: [&str; 8] = ["x", "y", "xy", "yx", "z1", "z2", "é", "X"];
const PATTERNS: [&str; 22] = [
    "", "x", "x|y", "x|", ".*", ".+", "x.*", ".*x", ".*y.*", "z[12]", "z.", "[^x]*", "(?i)x",
    "a.b", "^x$", "x.+|y", "|z.*", ".", "..", "(x|y){2}", "x?y?", r"\w+\d",
];

fn any_series() -> impl Strategy<Value = Vec<Labels>> {
    let label = prop::option::weighted(0.7, prop::sample::select(&VALUES[..]));
    let labels = prop::collection::vec(label, 4).prop_map(|values| {
        let pairs = NAMES.iter().zip(values);
        let pairs = pairs.filter_map(|(name, value)| Some((*name, value?)));
        pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    });
    prop::collection::vec(labels, 0..60)
}

fn any_matcher() -> impl Strategy<Value = CompiledMatcher> {
    let op = prop::sample::select(vec![
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::Regex,
        MatchOp::NotRegex,
    ]);
    let name = prop::sample::select(&NAMES[..]);
    (op, name, any::<prop::sample::Index>()).prop_map(|(op, name, at)| {
        let value = match op {
            MatchOp::Regex | MatchOp::NotRegex => *at.get(&PATTERNS),
            _ => *at.get(&["", "", "x", "y", "xy", "é", "X", "none"]),
        };
        matcher(op, name, value)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn selects_what_a_naive_look_at_each_series_does(
        series in any_series(), matchers in prop::collection::vec(any_matcher(), 1..5),
        version in 1_u8..4,
    ) {
        let index = Index::new(series, version);
        prop_assert_eq!(index.select(&matchers), index.fitting(&matchers), "{:?}", matchers);
    }

    #[test]
    fn lists_what_the_series_have(
        series in any_series(), matchers in prop::collection::vec(any_matcher(), 0..3),
        limit in 0_usize..12, many in any::<bool>(),
    ) {
        // With enough series of no interest lists are looked into rather than series read.
        let others = (0..if many { 200 } else { 0 }).map(|n| labels(&format!("a=x o={n}")));
        let index = Index::new(series.into_iter().chain(others), 2);
        let fitting = index.fitting(&matchers);
        let (view, mut work) = (index.view(), Work::new());
        let names: BTreeSet<&[u8]> =
            fitting.iter().flatten().map(|(name, _)| name.as_bytes()).collect();
        let found = label_names(view, &matchers, limit, &mut work).unwrap();
        prop_assert_eq!(found, names.iter().copied().take(limit).collect::<Vec<_>>());
        for name in NAMES {
            let labels = fitting.iter().flatten().filter(|(found, _)| found == name);
            let values: BTreeSet<&[u8]> = labels.map(|(_, value)| value.as_bytes()).collect();
            let found = label_values(view, name, &matchers, limit, &mut work).unwrap();
            prop_assert_eq!(found, values.iter().copied().take(limit).collect::<Vec<_>>());
        }
    }
}
