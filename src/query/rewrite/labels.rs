//! Which labels of the user's view the series of a node carry, and which they still have to get.
//!
//! For each external label a node's series are in one of two states: *virtual*, in the user's view
//! all of them carry it, and as Prometheus evaluates them none does; or *exact*, they carry it or
//! not as they should. A selector's series start virtual. A node that treats all values of a label
//! alike passes the state on, since one value in all series changes nothing: grouping by it, or
//! matching on it where both sides have it. Where the two states meet, or a label is looked at, it
//! is put in.

use std::collections::BTreeSet;

use promql_parser::parser::token::{T_LAND, T_LOR, T_LUNLESS, TokenId};
use promql_parser::parser::{BinModifier, LabelModifier, VectorMatchCardinality};

/// A set of names out of the overlay.
pub(super) type Names<'o> = BTreeSet<&'o str>;

/// What is known of the labels of a node's series.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried<'o> {
    /// External labels that all series carry in the user's view and none does yet.
    pub(super) virt: Names<'o>,
    /// Labels that stored series may carry with another value than in the user's view. They are
    /// replaced as soon as there is an instant vector to replace them in.
    pub(super) stale: Names<'o>,
    /// Whether there is no series, whatever is stored; then the rest does not matter.
    pub(super) is_empty: bool,
}

/// What a binary operation needs before it gives the right answer.
#[derive(Debug, Default)]
pub(super) struct Matched<'o> {
    /// To be put into the left side.
    pub(super) into_lhs: Names<'o>,
    /// To be put into the right side.
    pub(super) into_rhs: Names<'o>,
    /// The labels of the result.
    pub(super) result: Carried<'o>,
}

impl<'o> Carried<'o> {
    /// No series.
    pub(super) fn nothing() -> Self {
        Self {
            is_empty: true,
            ..Self::default()
        }
    }

    /// After an aggregation over groups.
    pub(super) fn grouped(mut self, grouping: Option<&LabelModifier>) -> Self {
        self.virt.retain(|name| match grouping {
            None => false,
            Some(LabelModifier::Include(labels)) => has(&labels.labels, name),
            Some(LabelModifier::Exclude(labels)) => !has(&labels.labels, name),
        });
        self
    }

    fn has_virtual(&self, name: &str) -> bool {
        !self.is_empty && self.virt.contains(name)
    }
}

/// An operation between two instant vectors.
pub(super) fn matched<'o>(
    op: TokenId,
    modifier: Option<&BinModifier>,
    lhs: &Carried<'o>,
    rhs: &Carried<'o>,
) -> Matched<'o> {
    let mut matched = Matched {
        result: if_one_is_empty(op, modifier, lhs, rhs),
        ..Matched::default()
    };
    let is_filled = fills(modifier);
    if matched.result.is_empty || (!is_filled && (lhs.is_empty || rhs.is_empty)) {
        return matched;
    }
    for &name in lhs.virt.union(&rhs.virt) {
        let sides = (lhs.has_virtual(name), rhs.has_virtual(name));
        let is_mixed = sides.0 != sides.1;
        // What a filled-in sample carries depends on which side it stands for.
        if is_filled || (is_mixed && (op == T_LOR || is_matched_on(modifier, name))) {
            if sides.0 {
                matched.into_lhs.insert(name);
            }
            if sides.1 {
                matched.into_rhs.insert(name);
            }
        } else if stays_virtual(op, modifier, name, sides) {
            matched.result.virt.insert(name);
        }
    }
    matched
}

/// The result where a side has no series at all; nothing has to be put in then.
fn if_one_is_empty<'o>(
    op: TokenId,
    modifier: Option<&BinModifier>,
    lhs: &Carried<'o>,
    rhs: &Carried<'o>,
) -> Carried<'o> {
    match (op, lhs.is_empty, rhs.is_empty) {
        (_, false, false) => Carried::default(),
        (T_LOR, true, _) => rhs.clone(),
        (T_LOR | T_LUNLESS, false, true) => lhs.clone(),
        // What one side lacks is filled in from the other.
        (_, false, _) | (_, _, false) if fills(modifier) => Carried::default(),
        _ => Carried::nothing(),
    }
}

/// Whether the result's series lack a label that they should all carry; the sides agree where it is
/// matched on.
fn stays_virtual(
    op: TokenId,
    modifier: Option<&BinModifier>,
    name: &str,
    (lhs, rhs): (bool, bool),
) -> bool {
    if matches!(op, T_LAND | T_LOR | T_LUNLESS) {
        return lhs;
    }
    let (many, one, included) = match modifier.map(|modifier| &modifier.card) {
        Some(VectorMatchCardinality::ManyToOne(included)) => (lhs, rhs, included),
        Some(VectorMatchCardinality::OneToMany(included)) => (rhs, lhs, included),
        // Of labels that are not matched on, nothing is left.
        _ => return is_matched_on(modifier, name) && lhs && rhs,
    };
    match has(&included.labels, name) {
        true => one,
        false => many,
    }
}

fn is_matched_on(modifier: Option<&BinModifier>, name: &str) -> bool {
    match modifier.and_then(|modifier| modifier.matching.as_ref()) {
        None => true,
        Some(LabelModifier::Include(labels)) => has(&labels.labels, name),
        Some(LabelModifier::Exclude(labels)) => !has(&labels.labels, name),
    }
}

fn fills(modifier: Option<&BinModifier>) -> bool {
    modifier.is_some_and(|modifier| {
        modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some()
    })
}

fn has(labels: &[String], name: &str) -> bool {
    labels.iter().any(|label| label == name)
}
