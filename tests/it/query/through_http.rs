//! A sample of the generated expressions and the mixins through outrigger's HTTP API: answers,
//! their order, errors and messages are those of a Prometheus whose series carry the external
//! labels.

use super::api::{Answer, Api, When};
use super::compare::{Inexact, Order, difference, without_positions};
use super::dialect::Dialect;
use super::expression::{Expression, OF_HISTOGRAMS};
use super::generator::Generator;
use super::mixins;
use super::property::{
    ATTEMPTS, EXPRESSIONS, UNSUPPORTED, at, chooses_by_order, order, over, random_of, unordered,
    with_own_labels,
};
use super::stand::{INNER_REPLICA, REPLICA, Stand};
use crate::support::{Outrigger, Random, eventually};

/// What is said where labels would have to be put into series and Prometheus is too old.
const LOSES_HISTOGRAMS: &str = "loses native histograms";

/// One in so many of the generated expressions.
const SAMPLE: usize = 5;

/// outrigger beside the Prometheus that stores series without the external labels.
struct Asked {
    outrigger: Api,
    relabelled: Api,
    held: Api,
    compared: usize,
    with_elements: usize,
    unsupported: Vec<String>,
    failures: Vec<(usize, String)>,
}

fn start(stand: &Stand) -> Outrigger {
    let flags = [
        "--query.enable".to_owned(),
        format!("--query.replica-label={REPLICA}"),
        format!("--query.replica-label={INNER_REPLICA}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let arguments = stand
        .site
        .arguments_without_bucket(stand.stored.address(), &flags);
    let outrigger = Outrigger::start(&arguments);
    eventually("it is ready", || {
        (outrigger.probe("/-/ready") == 200).then_some(())
    });
    outrigger
}

impl Asked {
    fn new(stand: &Stand, outrigger: &Outrigger) -> Self {
        Self {
            outrigger: Api::new(outrigger.address()),
            relabelled: Api::new(stand.expected_at(false)),
            held: Api::new(stand.expected_at(true)),
            compared: 0,
            with_elements: 0,
            unsupported: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn compare(&mut self, expression: &Expression, is_held: bool, random: &mut Random) {
        for when in [at(random), over(random)] {
            let (mut found, mut expected, mut differs) = self.ask(expression, is_held, &when);
            if let Err(failure) = &found.kind
                && failure.message.starts_with("unsupported ")
            {
                assert_eq!((failure.status, failure.class.as_str()), (422, "execution"));
                self.unsupported
                    .push(format!("{}: {}", failure.message, expression.text));
                continue;
            }
            // See the property test: Prometheus answers some one way or another.
            for _ in 0..ATTEMPTS {
                if differs.is_none() {
                    break;
                }
                let before = expected.clone();
                (found, expected, differs) = self.ask(expression, is_held, &when);
                differs = differs.filter(|_| unordered(&expected) == unordered(&before));
            }
            differs = differs.filter(|_| !chooses_by_order(expression));
            self.compared += 1;
            self.with_elements += usize::from(!expected.elements.is_empty());
            if let Some(what) = differs.or_else(|| unlike_errors(&found, &expected, is_held)) {
                let text = format!(
                    "{:?} {when:?}, held: {is_held}\n  {what}\n",
                    expression.text
                );
                self.failures.push((expression.text.len(), text));
            }
        }
    }

    fn ask(
        &mut self,
        expression: &Expression,
        is_held: bool,
        when: &When,
    ) -> (Answer, Answer, Option<String>) {
        let expected = match is_held {
            true => self.held.query(when, &expression.held, &[]),
            false => self.relabelled.query(when, &expression.text, &[]),
        };
        let dedup = if is_held { "true" } else { "false" };
        let found = self
            .outrigger
            .query(when, &expression.text, &[("dedup", dedup)]);
        let (found, expected) = match is_held {
            true => (without_positions(found), without_positions(expected)),
            false => (found, expected),
        };
        let order = match when {
            // Prometheus sorts matrices.
            When::Over { .. } => Order::Exact,
            When::At(_) => order(expression, when),
        };
        let differs = difference(&found, &expected, order, &mut Inexact::default());
        (found, expected, differs)
    }

    /// What was refused is little and known; where Prometheus loses histograms, more is.
    fn assert_supported(&mut self, keeps_histograms: bool) {
        let all = self.unsupported.len();
        self.unsupported.retain(|text| {
            let what = text.trim_start_matches("unsupported ");
            UNSUPPORTED.iter().all(|known| !what.starts_with(known))
        });
        if !keeps_histograms {
            self.unsupported
                .retain(|text| !text.contains(LOSES_HISTOGRAMS));
        }
        assert_eq!(self.unsupported, Vec::<String>::new());
        assert!(!keeps_histograms || all * 10 < self.compared, "{all}");
    }

    fn assert_equal(&mut self) {
        eprintln!(
            "{} answers compared, {} with elements, {} not supported",
            self.compared,
            self.with_elements,
            self.unsupported.len()
        );
        for text in self.unsupported.iter().take(20) {
            eprintln!("  {text}");
        }
        self.failures.sort();
        let shortest: Vec<_> = self
            .failures
            .iter()
            .take(25)
            .map(|(_, text)| text.as_str())
            .collect();
        let count = self.failures.len();
        assert!(
            count == 0,
            "{count} answers differ:\n{}",
            shortest.join("\n")
        );
    }
}

/// What is said of a user's text that is wrong is Prometheus' own, places included.
fn unlike_errors(found: &Answer, expected: &Answer, is_held: bool) -> Option<String> {
    let (Err(found), Err(expected)) = (&found.kind, &expected.kind) else {
        return None;
    };
    let is_alike = found.status == expected.status
        && (is_held || expected.class != "bad_data" || found.message == expected.message);
    (!is_alike).then(|| format!("{found:?}, expected {expected:?}"))
}

#[test]
fn answers_over_http_are_those_of_series_with_the_external_labels() {
    let stand = Stand::over(with_own_labels);
    let outrigger = start(&stand);
    let dialect = Dialect::of(&mut Api::new(stand.stored.address()), stand.has_utf8);
    let mut asked = Asked::new(&stand, &outrigger);
    for number in (0..EXPRESSIONS).step_by(SAMPLE) {
        let mut generator = Generator {
            dialect: &dialect,
            random: random_of(number),
            has_own: true,
        };
        let expression = generator.expression(number);
        let mut random = generator.random;
        let is_held = random.below(3) == 0;
        let is_lost = !stand.replaces_in_histograms && expression.features.contains(OF_HISTOGRAMS);
        if is_lost {
            continue;
        }
        asked.compare(&expression, is_held, &mut random);
    }
    asked.assert_equal();
    asked.assert_supported(stand.replaces_in_histograms);
    assert!(asked.with_elements * 2 > asked.compared);
}

#[test]
fn mixins_over_http_give_what_series_with_the_external_labels_give() {
    let stand = Stand::over(|_| mixins::series());
    let outrigger = start(&stand);
    let mut asked = Asked::new(&stand, &outrigger);
    for (number, text) in (0_u64..).zip(mixins::expressions()) {
        let expression = Expression::plain(text);
        asked.compare(&expression, false, &mut Random(number));
    }
    asked.assert_equal();
    asked
        .unsupported
        .retain(|text| !text.contains(LOSES_HISTOGRAMS));
    assert!(asked.unsupported.is_empty());
    assert!(asked.with_elements * 4 > asked.compared * 3);
}
