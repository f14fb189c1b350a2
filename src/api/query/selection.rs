//! `match[]` and the other parameters of lists, as they go to Prometheus.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::form::Form;
use super::params::{is_forwarded, store_matchers};
use crate::model::{ExternalLabels, Matcher, Selector};
use crate::prometheus::ForwardedParams;
use crate::query::{LabelOverlay, Overlaid, RewriteError, rewrite_selector, selector_matchers};

/// Matches no series: what is asked where nothing can match, so that it is Prometheus that says
/// what is wrong with the rest.
pub(super) const NOTHING: &str = "{__name__=\"a\",__name__=\"b\"}";
/// The most selectors of a request.
const MATCHES_MAX: usize = 1000;
const MATCH: &str = "match[]";

/// The selectors of a request as Prometheus takes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// There is none.
    Everything,
    /// There are some, and none can match.
    Nothing,
    /// Those that can match.
    Some(Vec<String>),
    /// One of them can't be read here: they are asked as they are, to hear what Prometheus says.
    /// This is what is said where it takes them.
    Unreadable(String),
}

/// What the selectors of a request become.
pub(super) fn selection(form: &Form, external: &ExternalLabels) -> Result<Selection, ApiError> {
    let given = given(form)?;
    let is_selected = is_store_selected(&store_matchers(form)?, external)?;
    if given.is_empty() {
        return Ok(match is_selected {
            true => Selection::Everything,
            false => Selection::Nothing,
        });
    }
    let overlay = overlay(external);
    let mut left = Vec::new();
    for selector in given {
        let Ok(selector) = std::str::from_utf8(selector) else {
            return Ok(Selection::Unreadable(
                "selector that is not UTF-8".to_owned(),
            ));
        };
        match rewrite_selector(selector, &overlay) {
            Ok(rewritten) => left.extend(rewritten),
            Err(RewriteError::Syntax(why)) => {
                return Ok(Selection::Unreadable(format!("selector: {why}")));
            }
            Err(error @ RewriteError::Unsupported { .. }) => return Err(error.into()),
        }
    }
    Ok(match is_selected && !left.is_empty() {
        true => Selection::Some(left),
        false => Selection::Nothing,
    })
}

fn given(form: &Form) -> Result<Vec<&[u8]>, ApiError> {
    let given: Vec<&[u8]> = form.all(MATCH).collect();
    match given.len() > MATCHES_MAX {
        true => {
            let why = format!("more than {MATCHES_MAX} selectors");
            Err(ApiError::parameter(MATCH, &why))
        }
        false => Ok(given),
    }
}

/// The selectors of rules, which are about labels that rules have and not about series: where one
/// is about external labels only, it selects all rules or none.
pub(super) fn rule_selection(
    form: &Form,
    external: &ExternalLabels,
) -> Result<Selection, ApiError> {
    let given = given(form)?;
    if given.is_empty() {
        return Ok(Selection::Everything);
    }
    let mut left = Vec::new();
    for selector in given {
        let text = String::from_utf8_lossy(selector);
        let matchers = match selector_matchers(&text) {
            Ok(matchers) if !matchers.is_empty() => matchers,
            Ok(_) => {
                return Ok(Selection::Unreadable(
                    "selector without matchers".to_owned(),
                ));
            }
            Err(why) => return Ok(Selection::Unreadable(format!("selector: {why}"))),
        };
        let (about_external, others): (Vec<_>, Vec<_>) = matchers
            .into_iter()
            .partition(|matcher| external.value(&matcher.name).is_some());
        match (all_match(&about_external, external)?, others.as_slice()) {
            (false, _) => {}
            (true, []) => return Ok(Selection::Everything),
            (true, others) => left.push(Selector(others).to_string()),
        }
    }
    Ok(match left.is_empty() {
        true => Selection::Nothing,
        false => Selection::Some(left),
    })
}

/// What Prometheus is asked: the parameters as they came, with these selectors.
pub(super) fn forwarded(form: &Form, selection: &Selection) -> ForwardedParams {
    let mut params = ForwardedParams::default();
    let keeps_selectors = matches!(selection, Selection::Unreadable(_));
    for (name, value) in form.pairs() {
        if is_forwarded(name) && (keeps_selectors || name != MATCH.as_bytes()) {
            params.put(name, value);
        }
    }
    match selection {
        Selection::Everything | Selection::Unreadable(_) => {}
        Selection::Nothing => params.put(MATCH, NOTHING),
        Selection::Some(selectors) => {
            for selector in selectors {
                params.put(MATCH, selector);
            }
        }
    }
    params
}

/// Whether one of the sets of `storeMatch[]` fits, or there is none. What is about labels that are
/// not external does not count, as on a querier.
fn is_store_selected(sets: &[Vec<Matcher>], external: &ExternalLabels) -> Result<bool, ApiError> {
    for set in sets {
        if all_match(set, external)? {
            return Ok(true);
        }
    }
    Ok(sets.is_empty())
}

/// Whether what is about external labels fits.
fn all_match(matchers: &[Matcher], external: &ExternalLabels) -> Result<bool, ApiError> {
    for matcher in matchers {
        let Some(value) = external.value(&matcher.name) else {
            continue;
        };
        let matches = matcher.matches(value);
        if !matches.map_err(|error| ApiError::parameter(MATCH, &error.to_string()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All external labels, none of them dropped. Whether series have such a label of their own does
/// not matter to selectors.
pub(super) fn overlay(external: &ExternalLabels) -> LabelOverlay {
    let labels = external.0.iter().filter(|(_, value)| !value.is_empty());
    let labels = labels.map(|(name, value)| {
        let overlaid = Overlaid {
            external: Some(value.to_owned()),
            is_shown: true,
            is_stored: false,
        };
        (name.to_owned(), overlaid)
    });
    LabelOverlay(labels.collect::<BTreeMap<_, _>>())
}
