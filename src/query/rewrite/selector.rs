//! A selector: matchers on external labels are decided here and taken out.

use std::ops::Range;

use promql_parser::label::{MatchOp as ParsedOp, Matcher as ParsedMatcher};
use promql_parser::parser::VectorSelector;
use promql_parser::parser::token::{T_COMMA, T_LEFT_BRACE, T_RIGHT_BRACE, T_STRING};

use super::tokens::{Tokens, disagreement};
use super::unquote::unquoted;
use super::{LabelOverlay, RewriteError};
use crate::model::{MatchOp, Matcher, Quoted};

const NAME: &str = "__name__";
/// What takes every series, where a selector may not be without a matcher.
const ANY_NAME: &str = "__name__!=\"\"";
/// Stands for a metric's name where none is asked for and nothing shall be found.
const NO_METRIC: &str = "none";

/// How many patterns of one selector are held against external labels; each is compiled.
const PATTERNS_MAX: usize = 20;

/// A selector as it stands in the text.
#[derive(Debug)]
pub(super) struct Selector<'a> {
    /// Name and matchers in braces.
    pub(super) body: Range<usize>,
    /// Bare, before the braces.
    name: Option<&'a str>,
    matchers: Vec<Written<'a>>,
}

/// One matcher in its own words.
#[derive(Debug)]
struct Written<'a> {
    matcher: Matcher,
    text: &'a str,
    /// A metric's name in quotes, without operator.
    is_bare_name: bool,
}

/// What is left of a selector.
#[derive(Debug)]
pub(super) struct Decided {
    /// The text to put in its place, where it is another.
    pub(super) body: Option<String>,
    /// Whether a matcher on an external label excludes every series.
    pub(super) is_empty: bool,
}

impl<'a> Selector<'a> {
    /// Takes a selector's tokens, without what follows the braces.
    pub(super) fn take(
        tokens: &mut Tokens,
        text: &'a str,
        tree: &'a VectorSelector,
    ) -> Result<Self, RewriteError> {
        if !tree.matchers.or_matchers.is_empty() {
            let what = "`or` between matchers is not known to Prometheus".to_owned();
            return Err(RewriteError::Syntax(what));
        }
        let mut name = None;
        let mut start = None;
        if tree.name.is_some() && tokens.peek() != Some(T_LEFT_BRACE) {
            let span = tokens.take()?.span;
            start = Some(span.start);
            name = Some(part(text, span)?);
        }
        let mut matchers = Vec::new();
        if tokens.peek() == Some(T_LEFT_BRACE) {
            let brace = tokens.expect(T_LEFT_BRACE)?;
            start = start.or(Some(brace.span.start));
            while !tokens.accept(T_RIGHT_BRACE) {
                let parsed = tree.matchers.matchers.get(matchers.len());
                let parsed = parsed.ok_or_else(|| disagreement("a matcher"))?;
                matchers.push(written(tokens, text, parsed)?);
                tokens.accept(T_COMMA);
            }
        }
        if matchers.len() != tree.matchers.matchers.len() {
            return Err(disagreement("the matchers of a selector"));
        }
        let start = start.ok_or_else(|| disagreement("a selector"))?;
        Ok(Self {
            body: start..tokens.end(),
            name,
            matchers,
        })
    }

    /// Decides the matchers on external labels.
    pub(super) fn decide(&self, overlay: &LabelOverlay) -> Result<Decided, RewriteError> {
        let mut kept = Vec::with_capacity(self.matchers.len());
        let mut is_empty = false;
        let is_pattern = |w: &&Written<'_>| {
            matches!(w.matcher.op, MatchOp::Regex | MatchOp::NotRegex)
                && overlay.external(&w.matcher.name).is_some()
        };
        if self.matchers.iter().filter(is_pattern).count() > PATTERNS_MAX {
            return Err(RewriteError::Unsupported {
                what: format!("selector: more than {PATTERNS_MAX} patterns for external labels"),
            });
        }
        for written in &self.matchers {
            match overlay.external(&written.matcher.name) {
                None => kept.push(written),
                Some(value) => is_empty |= !matches(&written.matcher, value)?,
            }
        }
        let body = match kept.len() == self.matchers.len() {
            true => None,
            false => {
                // The parser was shown other patterns.
                let is_bound = |w: &Written<'_>| excludes_empty(&w.matcher);
                if self.name.is_none() && !self.matchers.iter().any(is_bound) {
                    let what = "vector selector must contain at least one non-empty matcher";
                    return Err(RewriteError::Syntax(what.to_owned()));
                }
                Some(self.written_anew(&kept, is_empty))
            }
        };
        Ok(Decided { body, is_empty })
    }

    /// All it asks for, the metric's name first.
    pub(super) fn into_matchers(self) -> Vec<Matcher> {
        let name = self.name.map(|name| Matcher {
            op: MatchOp::Equal,
            name: NAME.to_owned(),
            value: name.to_owned(),
        });
        let others = self.matchers.into_iter().map(|written| written.matcher);
        name.into_iter().chain(others).collect()
    }

    /// The labels that the matchers are on.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.matchers.iter().map(|written| &*written.matcher.name)
    }

    fn written_anew(&self, kept: &[&Written<'_>], is_empty: bool) -> String {
        let mut matchers: Vec<String> = Vec::with_capacity(kept.len() + 2);
        if is_empty {
            // No metric has two names: that is decided without looking at any series. Names are
            // left out of what `absent` tells.
            let name = Quoted(self.name.unwrap_or(NO_METRIC));
            matchers.push(format!("{NAME}={name},{NAME}=\"\""));
        }
        for written in kept {
            matchers.push(match is_empty && written.is_bare_name {
                true => format!("{NAME}={}", written.text),
                false => written.text.to_owned(),
            });
        }
        let has_condition = kept.iter().any(|written| excludes_empty(&written.matcher));
        if self.name.is_none() && !is_empty && !has_condition {
            matchers.push(ANY_NAME.to_owned());
        }
        let name = self.name.filter(|_| !is_empty).unwrap_or_default();
        match matchers.is_empty() {
            true => name.to_owned(),
            false => format!("{name}{{{}}}", matchers.join(",")),
        }
    }
}

/// What `absent` makes of the matchers on one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AbsentLabel<'a> {
    /// Its sample does not carry the label.
    None,
    Value(&'a str),
    /// Versions of Prometheus differ: another matcher stands before the one for equality.
    Unclear,
}

/// The label that `absent` gives its sample for the matchers on `name`: as in Prometheus, where
/// the last of them is the first that asks for equality.
pub(super) fn absent_label<'a>(tree: &'a VectorSelector, name: &str) -> AbsentLabel<'a> {
    let mut matchers = tree.matchers.matchers.iter().filter(|m| m.name == name);
    let is_equality = |m: &&ParsedMatcher| m.op == ParsedOp::Equal;
    let mut others = matchers.clone().filter(|m| !is_equality(m)).peekable();
    let mut equalities = matchers.clone().filter(is_equality);
    match (equalities.next(), matchers.next_back()) {
        (Some(only), Some(last)) if std::ptr::eq(only, last) && !only.value.is_empty() => {
            match others.peek() {
                None => AbsentLabel::Value(&only.value),
                Some(_) => AbsentLabel::Unclear,
            }
        }
        _ => AbsentLabel::None,
    }
}

/// Takes the tokens of one matcher.
fn written<'a>(
    tokens: &mut Tokens,
    text: &'a str,
    parsed: &ParsedMatcher,
) -> Result<Written<'a>, RewriteError> {
    let first = tokens.take()?;
    let mut last = first.clone();
    let mut count = 1;
    while !matches!(tokens.peek(), None | Some(T_COMMA | T_RIGHT_BRACE)) {
        last = tokens.take()?;
        count += 1;
    }
    let (op, is_pattern) = match parsed.op {
        ParsedOp::Equal => (MatchOp::Equal, false),
        ParsedOp::NotEqual => (MatchOp::NotEqual, false),
        ParsedOp::Re(_) => (MatchOp::Regex, true),
        ParsedOp::NotRe(_) => (MatchOp::NotRegex, true),
    };
    let value = match is_pattern {
        // The parser got another one.
        true => unquoted(part(text, last.span)?)?,
        false => parsed.value.clone(),
    };
    let name = parsed.name.clone();
    Ok(Written {
        matcher: Matcher { op, name, value },
        text: part(text, first.span.start..tokens.end())?,
        is_bare_name: count == 1 && first.id == T_STRING,
    })
}

/// A part of the text.
pub(super) fn part(text: &str, span: Range<usize>) -> Result<&str, RewriteError> {
    let place = || disagreement(&format!("byte {}", span.start));
    text.get(span.clone()).ok_or_else(place)
}

fn matches(matcher: &Matcher, value: &str) -> Result<bool, RewriteError> {
    let matched = matcher.matches(value);
    matched.map_err(|error| RewriteError::Syntax(error.to_string()))
}

/// Whether a series without the label does not match.
fn excludes_empty(matcher: &Matcher) -> bool {
    matches(matcher, "").is_ok_and(|matched| !matched)
}
