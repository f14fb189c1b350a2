//! The expressions of public monitoring mixins: their answers are those of series which carry the
//! external labels, with and without `cluster` in what they group by and match on.

use std::collections::BTreeSet;

use regex::{Captures, Regex};

use super::api::LabelSet;
use super::data::{self, Series};
use super::expression::Expression;
use super::property::Check;
use super::stand::Stand;
use crate::support::Random;

const EXPRESSIONS: &str = include_str!("mixins.promql");
const SERIES: &str = include_str!("mixins.series");
/// Each is asked at so many times and over as many ranges.
const ROUNDS: u64 = 3;

/// Paragraphs without those that are comments only.
pub(super) fn expressions() -> Vec<&'static str> {
    let paragraphs = EXPRESSIONS.split("\n\n").map(str::trim);
    let is_code = |text: &&str| text.lines().any(|line| !line.starts_with('#'));
    paragraphs.filter(is_code).collect()
}

pub(super) fn series() -> Vec<Series> {
    data::parse(SERIES)
}

/// The expression with lists of labels changed by `change`.
fn with_lists(expression: &str, change: impl Fn(&mut Vec<&str>)) -> String {
    let lists = Regex::new(r"(?i)\b(by|on)(\s*)\(([^()]*)\)").unwrap();
    let changed = lists.replace_all(expression, |found: &Captures<'_>| {
        let mut labels: Vec<_> = found[3].split(',').map(str::trim).collect();
        labels.retain(|label| !label.is_empty());
        change(&mut labels);
        format!("{}{}({})", &found[1], &found[2], labels.join(", "))
    });
    changed.into_owned()
}

/// As it is, with `cluster` in all lists, and in none.
fn variants(expression: &str) -> BTreeSet<String> {
    let added = with_lists(expression, |labels| {
        if !labels.contains(&"cluster") {
            labels.insert(0, "cluster");
        }
    });
    let removed = with_lists(expression, |labels| {
        labels.retain(|label| *label != "cluster")
    });
    BTreeSet::from([expression.to_owned(), added, removed])
}

#[test]
fn mixins_give_what_series_with_the_external_labels_give() {
    let stand = Stand::over(|_| series());
    let mut check = Check::new(&stand);
    let mut empty = Vec::new();
    let expressions = expressions();
    for (number, text) in (0_u64..).zip(&expressions) {
        let mut has_elements = false;
        for variant in variants(text) {
            let expression = Expression::plain(&variant);
            let before = check.tally.with_elements;
            for round in 0..ROUNDS {
                let mut random = Random(number * ROUNDS + round);
                check.compare(&expression, false, &mut random);
            }
            has_elements |= check.tally.with_elements > before;
        }
        if !has_elements {
            empty.push(*text);
        }
    }
    eprintln!(
        "of {} expressions nothing came of:
{}",
        expressions.len(),
        empty.join(
            "
---
"
        )
    );
    check.tally.assert_equal("mixins");
    assert!(expressions.len() >= 150, "{}", expressions.len());
    // All of them are read and evaluated.
    let tally = &check.tally;
    assert!(tally.unread.is_empty() && tally.unsupported.is_empty() && tally.errors == 0);
    let empty = empty.len();
    assert!(
        empty * 20 < expressions.len(),
        "{empty} of {}",
        expressions.len()
    );
}

/// No series has a label twice, and none is there twice.
#[test]
fn the_series_of_the_mixins_are_distinct() {
    let series = series();
    let distinct: BTreeSet<&LabelSet> = series.iter().map(|series| &series.labels).collect();
    assert_eq!(distinct.len(), series.len());
}
