//! Whether two answers are the same, and where they are not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::api::{Answer, Element, LabelSet};

/// Sums depend in their last bits on the order of the summands.
const TOLERANCE: f64 = 1e-9;

/// What is held against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The order of elements says nothing.
    Any,
    /// By value; elements that are equal in it may stand either way.
    ByValue,
    /// As it stands.
    Exact,
}

/// Values that differ, in the last bits only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inexact(pub(super) usize);

/// What differs, if something does.
pub(super) fn difference(
    found: &Answer,
    expected: &Answer,
    order: Order,
    inexact: &mut Inexact,
) -> Option<String> {
    match (&found.kind, &expected.kind) {
        (Err(found), Err(expected)) if found.class == expected.class => return None,
        (Ok(found), Ok(expected)) if found == expected => {}
        (found, expected) => return Some(format!("{found:?}, expected {expected:?}")),
    }
    if found.elements.len() != expected.elements.len() {
        return Some(format!(
            "{} elements, expected {}: {}, expected {}",
            found.elements.len(),
            expected.elements.len(),
            shortened(&found.elements),
            shortened(&expected.elements)
        ));
    }
    let differs = match order {
        Order::Any => as_sets(found, expected, inexact),
        Order::ByValue => {
            as_sets(found, expected, inexact).or_else(|| values_in_order(found, expected, inexact))
        }
        Order::Exact => in_order(found, expected, inexact),
    };
    differs.or_else(|| messages(found, expected))
}

fn as_sets(found: &Answer, expected: &Answer, inexact: &mut Inexact) -> Option<String> {
    let of = |answer: &Answer| -> BTreeMap<LabelSet, Value> {
        let elements = answer.elements.iter().cloned();
        elements
            .map(|element| (element.labels, element.samples))
            .collect()
    };
    let (found, expected) = (of(found), of(expected));
    for (labels, samples) in &expected {
        let Some(others) = found.get(labels) else {
            let names: Vec<_> = found.keys().take(3).collect();
            return Some(format!("no {labels:?}, there are {names:?}, …"));
        };
        if !is_same(others, samples, inexact) {
            return Some(format!("{labels:?}: {others}, expected {samples}"));
        }
    }
    None
}

fn in_order(found: &Answer, expected: &Answer, inexact: &mut Inexact) -> Option<String> {
    for (found, expected) in found.elements.iter().zip(&expected.elements) {
        if found.labels != expected.labels {
            return Some(format!(
                "{:?} where {:?} is expected",
                found.labels, expected.labels
            ));
        }
        if !is_same(&found.samples, &expected.samples, inexact) {
            let (found, labels) = (&found.samples, &found.labels);
            return Some(format!(
                "{labels:?}: {found}, expected {}",
                expected.samples
            ));
        }
    }
    None
}

fn values_in_order(found: &Answer, expected: &Answer, inexact: &mut Inexact) -> Option<String> {
    for (found, expected) in found.elements.iter().zip(&expected.elements) {
        // Native histograms are all alike in a sort.
        let are_histograms = [found, expected]
            .iter()
            .all(|one| one.samples.get("histogram").is_some());
        if !are_histograms && !is_same(&found.samples, &expected.samples, inexact) {
            return Some(format!("{found:?} where {expected:?} is expected"));
        }
    }
    None
}

fn messages(found: &Answer, expected: &Answer) -> Option<String> {
    let set = |texts: &[String]| -> BTreeSet<String> { texts.iter().cloned().collect() };
    for (found, expected) in [
        (&found.warnings, &expected.warnings),
        (&found.infos, &expected.infos),
    ] {
        if set(found) != set(expected) {
            return Some(format!("messages {found:?}, expected {expected:?}"));
        }
    }
    None
}

/// Equal, but for the last bits of numbers that are written as text.
fn is_same(found: &Value, expected: &Value, inexact: &mut Inexact) -> bool {
    match (found, expected) {
        (Value::String(found), Value::String(expected)) => {
            found == expected || is_close(found, expected, inexact)
        }
        (Value::Array(found), Value::Array(expected)) => {
            let mut pairs = found.iter().zip(expected);
            found.len() == expected.len() && pairs.all(|(f, e)| is_same(f, e, inexact))
        }
        (Value::Object(found), Value::Object(expected)) => {
            let mut pairs = expected.iter();
            found.len() == expected.len()
                && pairs.all(|(key, e)| found.get(key).is_some_and(|f| is_same(f, e, inexact)))
        }
        _ => found == expected,
    }
}

fn is_close(found: &str, expected: &str, inexact: &mut Inexact) -> bool {
    let (Ok(found), Ok(expected)) = (found.parse::<f64>(), expected.parse::<f64>()) else {
        return false;
    };
    let is_close = (found - expected).abs() <= TOLERANCE * found.abs().max(expected.abs());
    inexact.0 += usize::from(is_close);
    is_close
}

/// Without the positions at the end of messages.
pub(super) fn without_positions(mut answer: Answer) -> Answer {
    for text in answer.warnings.iter_mut().chain(&mut answer.infos) {
        if let Some(at) = text.rfind(" (")
            && text.ends_with(')')
            && text[at + 2..text.len() - 1]
                .chars()
                .all(|c| c.is_ascii_digit() || c == ':')
        {
            text.truncate(at);
        }
    }
    answer
}

fn shortened(elements: &[Element]) -> String {
    let labels: Vec<_> = elements
        .iter()
        .map(|element| &element.labels)
        .take(4)
        .collect();
    format!("{labels:?}")
}
