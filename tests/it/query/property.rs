//! The rewriter's promise, held for thousands of expressions: what Prometheus says of the
//! rewritten expression, with the labels put on, is what a Prometheus says of the expression whose
//! series really carry the external labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use outrigger::query::{RewriteError, Rewritten, rewrite};

use super::api::{Answer, Api, LabelSet, When};
use super::compare::{Inexact, Order, difference, without_positions};
use super::data;
use super::dialect::{ARITHMETIC, COMPARISONS, Dialect, SETS};
use super::expression::{Expression, OF_HISTOGRAMS, OF_PREFIXES};
use super::generator::Generator;
use super::stand::Stand;
use crate::support::{Random, left_out};

/// Expressions of one run.
pub(super) const EXPRESSIONS: usize = 2_400;
/// Of them, those over series whose own labels are named as external ones.
const WITH_OWN_LABELS: usize = 800;
/// Those of the long form, which are other ones.
const MORE: Range<usize> = 10_000..40_000;
/// What the rewriter may refuse, as its words begin.
pub(super) const UNSUPPORTED: [&str; 5] = [
    "absent() with another matcher on ",
    "info() of series without the external label ",
    "range selector as the whole query, while stored series have a label ",
    "info() where ",
    "info() with a matcher on ",
];
const SEED: u64 = 0x5eed_0008;
const THREADS: usize = 2;
/// How often it is asked for an answer that depends on chance, whether it changes.
pub(super) const ATTEMPTS: usize = 30;

/// One expression on its two ways.
pub(super) struct Check<'a> {
    pub(super) stand: &'a Stand,
    pub(super) stored: Api,
    pub(super) relabelled: Api,
    pub(super) held: Api,
    pub(super) tally: Tally,
}

/// What came of all expressions.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers compared, of which so many had elements.
    pub(super) compared: usize,
    pub(super) with_elements: usize,
    /// Errors on both ways.
    pub(super) errors: usize,
    inexact: usize,
    /// Answers that Prometheus gives one way or another.
    unsettled: usize,
    /// Those that this Prometheus gives without the histograms.
    lost: usize,
    /// What was refused, and an expression of each.
    pub(super) unsupported: BTreeMap<String, (usize, String)>,
    /// What Prometheus reads and the rewriter does not.
    pub(super) unread: BTreeMap<String, (usize, String)>,
    /// Seen in an expression that gave something.
    seen: BTreeSet<String>,
    /// The shortest expression first.
    pub(super) failures: Vec<(usize, String)>,
}

impl<'a> Check<'a> {
    pub(super) fn new(stand: &'a Stand) -> Self {
        Self {
            stand,
            stored: Api::new(stand.stored.address()),
            relabelled: Api::new(stand.expected_at(false)),
            held: Api::new(stand.expected_at(true)),
            tally: Tally::default(),
        }
    }

    fn expected(&mut self, expression: &Expression, is_held: bool, when: &When) -> Answer {
        match is_held {
            true => self.held.query(when, &expression.held, &[]),
            false => self.relabelled.query(when, &expression.text, &[]),
        }
    }

    fn difference(
        &mut self,
        expression: &Expression,
        is_held: bool,
        when: &When,
        rewritten: &Rewritten,
        inexact: &mut Inexact,
    ) -> Option<String> {
        let expected = self.expected(expression, is_held, when);
        let found = self.stored.query(when, &rewritten.query, &[]);
        let mut found = found.with_labels(&rewritten.added);
        for text in found.warnings.iter_mut().chain(&mut found.infos) {
            *text = rewritten.in_users_terms(text);
        }
        // What stands for the expression has other positions.
        let (found, expected) = match is_held {
            true => (without_positions(found), without_positions(expected)),
            false => (found, expected),
        };
        difference(&found, &expected, order(expression, when), inexact)
    }

    /// Compares at one time and over a range.
    pub(super) fn compare(&mut self, expression: &Expression, is_held: bool, random: &mut Random) {
        let overlay = self.stand.overlay(is_held);
        let rewritten = rewrite(&expression.text, &overlay);
        for when in [at(random), over(random)] {
            let expected = self.expected(expression, is_held, &when);
            let rewritten = match &rewritten {
                Ok(rewritten) => rewritten,
                Err(error) => {
                    self.tally.refused(error, expression, &expected);
                    continue;
                }
            };
            let is_lost = rewritten.is_relabelled && !self.stand.replaces_in_histograms;
            if is_lost && expression.features.contains(OF_HISTOGRAMS) {
                self.tally.lost += 1;
                continue;
            }
            let mut inexact = Inexact::default();
            let mut differs = self.difference(expression, is_held, &when, rewritten, &mut inexact);
            // Prometheus' ranges go through a map: which of equal values are the top ones, and
            // what a variance of equal values comes to, it decides anew each time.
            if differs.is_some() {
                self.tally.unsettled += 1;
                for _ in 0..ATTEMPTS {
                    let again =
                        self.difference(expression, is_held, &when, rewritten, &mut inexact);
                    differs = differs.and(again);
                    let other = self.expected(expression, is_held, &when);
                    let is_settled = unordered(&other) == unordered(&expected);
                    differs = differs.filter(|_| is_settled);
                    if differs.is_none() {
                        break;
                    }
                }
                if chooses_by_order(expression) {
                    differs = None;
                }
            }
            self.tally.compared += 1;
            self.tally.inexact += usize::from(inexact.0 > 0);
            match differs {
                None if expected.kind.is_err() => self.tally.errors += 1,
                None if expected.elements.is_empty() => {}
                None => {
                    self.tally.with_elements += 1;
                    self.tally.seen.extend(expression.features.iter().cloned());
                }
                Some(what) => {
                    let mut text = String::new();
                    writeln!(text, "{:?} {when:?}, held: {is_held}", expression.text).unwrap();
                    writeln!(
                        text,
                        "  asked:    {:?} {:?}",
                        rewritten.query, rewritten.added
                    )
                    .unwrap();
                    if is_held {
                        writeln!(text, "  stood for: {:?}", expression.held).unwrap();
                    }
                    writeln!(text, "  {what}").unwrap();
                    self.tally.failures.push((expression.text.len(), text));
                }
            }
        }
    }
}

pub(super) fn unordered(answer: &Answer) -> BTreeMap<&LabelSet, String> {
    let elements = answer.elements.iter();
    elements
        .map(|element| (&element.labels, element.samples.to_string()))
        .collect()
}

/// Whether it chooses among series that may be equal in value, by the order in which Prometheus has
/// them, which external labels change.
pub(super) fn chooses_by_order(expression: &Expression) -> bool {
    let choosing = ["topk", "bottomk", "limitk"];
    let has = |feature: &str| expression.features.contains(feature);
    has(OF_PREFIXES)
        && choosing
            .iter()
            .any(|name| has(&format!("aggregation {name}")))
}

impl Tally {
    fn refused(&mut self, error: &RewriteError, expression: &Expression, expected: &Answer) {
        let (kinds, what) = match (error, &expected.kind) {
            (RewriteError::Unsupported { what }, _) => (&mut self.unsupported, what),
            (RewriteError::Syntax(_), Err(failure)) if failure.class == "bad_data" => {
                self.errors += 1;
                return;
            }
            (RewriteError::Syntax(what), _) => (&mut self.unread, what),
        };
        let entry = kinds.entry(what.clone()).or_default();
        entry.0 += 1;
        if entry.1.is_empty() || entry.1.len() > expression.text.len() {
            entry.1.clone_from(&expression.text);
        }
    }

    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.with_elements += other.with_elements;
        self.errors += other.errors;
        self.inexact += other.inexact;
        self.unsettled += other.unsettled;
        self.lost += other.lost;
        for (kinds, others) in [
            (&mut self.unsupported, other.unsupported),
            (&mut self.unread, other.unread),
        ] {
            for (what, (count, example)) in others {
                let entry = kinds.entry(what).or_insert((0, example));
                entry.0 += count;
            }
        }
        self.seen.extend(other.seen);
        self.failures.extend(other.failures);
    }

    /// Fails with the shortest of what differs.
    pub(super) fn assert_equal(&mut self, context: &str) {
        eprintln!(
            "{context}: {} answers compared, {} with elements, {} errors on both ways, {} with \
             other last bits, {} by chance, {} with histograms lost, {} not supported, {} not read",
            self.compared,
            self.with_elements,
            self.errors,
            self.inexact,
            self.unsettled,
            self.lost,
            self.unsupported
                .values()
                .map(|(count, _)| count)
                .sum::<usize>(),
            self.unread.values().map(|(count, _)| count).sum::<usize>(),
        );
        for (what, (count, example)) in self.unsupported.iter().chain(&self.unread) {
            eprintln!("  {count} × {what}: {example}");
        }
        if self.lost > 0 {
            let why = "label_replace() of this Prometheus loses them";
            left_out("native histograms in series into which labels are put", why);
        }
        self.failures.sort_unstable();
        let shortest = self.failures.iter().take(40).map(|(_, text)| text.as_str());
        let shortest: Vec<_> = shortest.collect();
        let count = self.failures.len();
        assert!(
            count == 0,
            "{context}: {count} answers differ:\n{}",
            shortest.join("\n")
        );
        let other = self
            .unsupported
            .keys()
            .find(|what| UNSUPPORTED.iter().all(|known| !what.starts_with(known)));
        assert_eq!(other, None, "{context}: not supported");
        assert!(self.unread.is_empty(), "{context}: {:?}", self.unread);
        let unsupported: usize = self.unsupported.values().map(|(count, _)| count).sum();
        assert!(unsupported * 20 < self.compared, "{context}: {unsupported}");
        assert!(
            self.unsettled * 50 < self.compared,
            "{context}: {}",
            self.unsettled
        );
        assert!(
            self.inexact * 50 < self.compared,
            "{context}: {}",
            self.inexact
        );
        assert!(self.with_elements * 3 > self.compared * 2, "{context}");
    }
}

/// What is asked for decides the order, where the outermost call does.
pub(super) fn order(expression: &Expression, when: &When) -> Order {
    match (when, expression.sorted_by) {
        (When::Over { .. }, _) | (_, None) => Order::Any,
        (_, Some("sort" | "sort_desc")) => Order::ByValue,
        (_, Some(_)) => Order::Exact,
    }
}

/// Some time, mostly within the samples.
pub(super) fn at(random: &mut Random) -> When {
    let ms = data::START_MS + i64::try_from(random.below(1_900_000)).unwrap();
    When::At(seconds(ms))
}

/// Some range of few steps.
pub(super) fn over(random: &mut Random) -> When {
    let start = data::START_MS + i64::try_from(random.below(1_200_000)).unwrap();
    let step_s = 20 + i64::try_from(random.below(100)).unwrap();
    let steps = i64::try_from(random.below(9)).unwrap();
    When::Over {
        start: seconds(start),
        end: seconds(start + steps * step_s * 1000 + 7),
        step: step_s.to_string(),
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

pub(super) fn random_of(number: usize) -> Random {
    let number = u64::try_from(number).unwrap();
    let mut random = Random(SEED ^ (number << 20));
    random.below(2);
    random
}

/// Runs the expressions, half of them with the replica labels dropped.
fn run(stand: &Stand, numbers: Range<usize>, has_own: bool) -> (Dialect, Tally) {
    let dialect = Dialect::of(&mut Api::new(stand.stored.address()), stand.has_utf8);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let threads = [(); THREADS].into_iter().enumerate();
        let threads: Vec<_> = threads
            .map(|(thread, ())| {
                let (dialect, numbers) = (&dialect, numbers.clone());
                scope.spawn(move || {
                    let mut check = Check::new(stand);
                    for number in numbers.skip(thread).step_by(THREADS) {
                        let mut generator = Generator {
                            dialect,
                            random: random_of(number),
                            has_own,
                        };
                        let expression = generator.expression(number);
                        let mut random = generator.random;
                        let is_held = random.below(3) == 0;
                        check.compare(&expression, is_held, &mut random);
                    }
                    check.tally
                })
            })
            .collect();
        for thread in threads {
            tally.add(thread.join().unwrap());
        }
    });
    (dialect, tally)
}

/// All that has to have been in an expression which gave something.
fn wanted(dialect: &Dialect) -> Vec<String> {
    // Samples that are written remotely have no start time.
    let functions = dialect
        .functions
        .iter()
        .filter(|f| f.name != "start_timestamp");
    let functions = functions.map(|f| format!("function {}", f.name));
    let aggregations = dialect
        .aggregations
        .iter()
        .map(|name| format!("aggregation {name}"));
    let operators = [ARITHMETIC, COMPARISONS, SETS, &["bool", "unary"]].concat();
    let operators = operators.into_iter().map(|name| format!("operator {name}"));
    let mut wanted: Vec<String> = functions.chain(aggregations).chain(operators).collect();
    for others in [
        &["at", "at start", "at end", "offset", "offset negative"].map(|m| format!("modifier {m}"))
            [..],
        &["subquery", "subquery default step"].map(|m| format!("modifier {m}")),
        &[
            "all",
            "by stored",
            "by external",
            "without stored",
            "without external",
        ]
        .map(|g| format!("grouping {g}")),
        &[
            "none",
            "on stored",
            "on external",
            "ignoring stored",
            "ignoring external",
        ]
        .map(|m| format!("matching {m}")),
        &["", " including stored", " including external"].map(|i| format!("group_left{i}")),
        &["", " including stored", " including external"].map(|i| format!("group_right{i}")),
        &["= yes", "!= yes", "=~ yes", "!~ yes"].map(|m| format!("matcher {m}")),
        &["= no", "!= no", "=~ no", "!~ no"].map(|m| format!("matcher {m}")),
        &["form odd".to_owned()],
    ] {
        wanted.extend(others.iter().cloned());
    }
    let optional = [
        (dialect.has_utf8, "name utf8"),
        (
            dialect.has_duration_expressions,
            "modifier offset expression",
        ),
        (
            dialect.has_duration_expressions,
            "modifier range expression",
        ),
        (dialect.has_extended_selectors, "modifier anchored"),
        (dialect.has_extended_selectors, "modifier smoothed"),
        (dialect.has_fill, "modifier fill"),
    ];
    wanted.extend(
        optional
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| (*name).to_owned()),
    );
    wanted
}

/// Every function, operator, modifier and way of matching that this Prometheus knows.
#[test]
fn answers_are_those_of_series_with_the_external_labels() {
    let stand = Stand::over(data::everything);
    let (dialect, mut tally) = run(&stand, 0..EXPRESSIONS, false);
    eprintln!(
        "{} functions, {} aggregations",
        dialect.functions.len(),
        dialect.aggregations.len()
    );
    tally.assert_equal("generated");
    let mut missing = wanted(&dialect);
    missing.retain(|name| !tally.seen.contains(name));
    assert_eq!(
        missing,
        Vec::<String>::new(),
        "never in an answer with elements"
    );
    assert!(tally.compared > EXPRESSIONS * 3 / 2, "{}", tally.compared);
}

/// Stored labels that are named as external ones are replaced, inner replica labels dropped.
#[test]
fn answers_are_the_same_where_series_have_labels_named_as_external_ones() {
    compare_with_own_labels(0..WITH_OWN_LABELS);
}

fn compare_with_own_labels(numbers: Range<usize>) {
    let stand = Stand::over(with_own_labels);
    run(&stand, numbers, true)
        .1
        .assert_equal("with labels of their own");
}

pub(super) fn with_own_labels(has_utf8: bool) -> Vec<data::Series> {
    let mut series = data::everything(has_utf8);
    series.extend(data::with_own_labels());
    series
}

#[test]
#[ignore = "the long form of the property, some minutes"]
fn many_more_answers_are_those_of_series_with_the_external_labels() {
    let stand = Stand::over(data::everything);
    run(&stand, MORE, false).1.assert_equal("many more");
    compare_with_own_labels(MORE);
}
