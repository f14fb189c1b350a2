//! The selectors of a PromQL expression, as StoreAPI's matchers.

use std::convert::Infallible;

use promql_parser::label::MatchOp as ParsedOp;
use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

use crate::proto::thanos::{LabelMatcher, label_matcher};

/// A text is not the PromQL that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// No PromQL at all.
    #[error("{text:?} is not PromQL: {why}")]
    Syntax {
        /// The text.
        text: String,
        /// The parser's words.
        why: String,
    },
    /// `or` between matchers, which Prometheus does not know.
    #[error("{text:?} has `or` between matchers, which Prometheus does not know")]
    Alternatives {
        /// The text.
        text: String,
    },
    /// More than a selector.
    #[error("{text:?} is more than a selector such as up{{job=\"node\"}}")]
    NotASelector {
        /// The text.
        text: String,
    },
}

/// The matchers of a selector; none of an empty text.
///
/// # Errors
/// Where the text is something else.
pub fn selector_matchers(text: &str) -> Result<Vec<LabelMatcher>, InvalidSelector> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let text_owned = || text.to_owned();
    match parse(text)? {
        Expr::VectorSelector(VectorSelector {
            offset: Some(_), ..
        })
        | Expr::VectorSelector(VectorSelector { at: Some(_), .. }) => {
            Err(InvalidSelector::NotASelector { text: text_owned() })
        }
        Expr::VectorSelector(selector) if !selector.matchers.or_matchers.is_empty() => {
            Err(InvalidSelector::Alternatives { text: text_owned() })
        }
        Expr::VectorSelector(selector) => Ok(matchers(&selector)),
        _ => Err(InvalidSelector::NotASelector { text: text_owned() }),
    }
}

/// The matchers of each selector of an expression.
///
/// # Errors
/// Where it is no PromQL, or not Prometheus'.
pub(super) fn selectors(text: &str) -> Result<Vec<Vec<LabelMatcher>>, InvalidSelector> {
    let expression = parse(text)?;
    let mut found = Selectors::default();
    let Ok(_) = walk_expr(&mut found, &expression);
    match found.has_alternatives {
        true => Err(InvalidSelector::Alternatives {
            text: text.to_owned(),
        }),
        false => Ok(found.matchers),
    }
}

fn parse(text: &str) -> Result<Expr, InvalidSelector> {
    promql_parser::parser::parse(text).map_err(|why| InvalidSelector::Syntax {
        text: text.to_owned(),
        why,
    })
}

/// Collects the matchers of the selectors that a walk meets.
#[derive(Default)]
struct Selectors {
    matchers: Vec<Vec<LabelMatcher>>,
    /// Whether one has `or` between its matchers.
    has_alternatives: bool,
}

impl ExprVisitor for Selectors {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.note(selector),
            Expr::MatrixSelector(range) => self.note(&range.vs),
            _ => {}
        }
        Ok(true)
    }
}

impl Selectors {
    fn note(&mut self, selector: &VectorSelector) {
        self.has_alternatives |= !selector.matchers.or_matchers.is_empty();
        self.matchers.push(matchers(selector));
    }
}

fn matchers(selector: &VectorSelector) -> Vec<LabelMatcher> {
    let name = selector.name.iter().map(|name| LabelMatcher {
        r#type: label_matcher::Type::Eq.into(),
        name: "__name__".to_owned(),
        value: name.clone(),
    });
    let others = selector
        .matchers
        .matchers
        .iter()
        .map(|matcher| LabelMatcher {
            r#type: kind(&matcher.op).into(),
            name: matcher.name.clone(),
            value: matcher.value.clone(),
        });
    name.chain(others).collect()
}

fn kind(op: &ParsedOp) -> label_matcher::Type {
    match op {
        ParsedOp::Equal => label_matcher::Type::Eq,
        ParsedOp::NotEqual => label_matcher::Type::Neq,
        ParsedOp::Re(_) => label_matcher::Type::Re,
        ParsedOp::NotRe(_) => label_matcher::Type::Nre,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_becomes_matchers() {
        let found = selector_matchers("up{job=\"node\", x=~\"a.*\", y!=\"\"}").unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|m| (m.r#type, m.name.as_str(), m.value.as_str()))
            .collect();
        let expected = [
            (0, "__name__", "up"),
            (0, "job", "node"),
            (2, "x", "a.*"),
            (1, "y", ""),
        ];
        assert_eq!(shown, expected);
        assert!(selector_matchers(" ").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["rate(x[1m])", "x[5m]", "x offset 5m", "x @ 1", "1"] {
            let refused = selector_matchers(text).unwrap_err();
            assert!(
                matches!(refused, InvalidSelector::NotASelector { .. }),
                "{text}"
            );
        }
        let refused = selector_matchers("x{").unwrap_err();
        assert!(matches!(refused, InvalidSelector::Syntax { .. }));
        let refused = selector_matchers("x{a=\"1\" or b=\"2\"}").unwrap_err();
        assert!(matches!(refused, InvalidSelector::Alternatives { .. }));
    }
}
