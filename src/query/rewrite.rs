//! An expression over series with external labels, as one over what Prometheus stores.
//!
//! The text is parsed, its tree walked from the leaves up (`walk`, `calls`, `labels`), and changed
//! where it has to be; all else stays as the user wrote it, so Prometheus reads numbers, durations
//! and comments in the user's own words, and places in what it says lead back to the user's text.
//! What the parser does not read is told to it in other words (`dialect`).
//! Three changes are made: matchers on external labels are taken out of selectors (`selector`),
//! labels are put into the series of a vector that something looks at (`label_replace`), and
//! labels that nothing looked at are named, to be added to the result: [`Rewritten::added`].

mod calls;
mod dialect;
mod edits;
mod labels;
mod selector;
mod tokens;
mod unquote;
mod walk;

use std::collections::BTreeMap;
use std::sync::Once;

use promql_parser::parser::token::{
    T_LEFT_BRACE, T_LEFT_BRACKET, T_LEFT_PAREN, T_OPERATORS_END, T_OPERATORS_START,
};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{Expr, Function, parse, register_extra_functions};

use dialect::Readable;
use edits::Piece;
use selector::Selector;
use tokens::Tokens;
use walk::Walk;

use crate::model::Matcher;

/// The longest expression.
const QUERY_BYTES_MAX: usize = 2 << 20;
/// How deep an expression may be nested, counting every operator and parenthesis: its tree is
/// walked by recursion, as it is by the parser.
const NESTING_MAX: usize = 4_000;
/// The stack for that.
const STACK_BYTES: usize = 64 << 20;
/// What fits a usual stack.
const SMALL_NESTING: usize = 32;

/// What a label is that Prometheus' series do not carry, or that results shall not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlaid {
    /// What matchers on it are held against; `None`: a replica label that is no external label,
    /// whose matchers go to Prometheus.
    pub external: Option<String>,
    /// Whether results carry it: external labels that are no replica labels to be dropped.
    pub is_shown: bool,
    /// Whether a stored series has a label of this name, which then has to be replaced.
    pub is_stored: bool,
}

/// The labels that differ between what Prometheus stores and what is asked about, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelOverlay(pub BTreeMap<String, Overlaid>);

/// What Prometheus is asked in place of the user's expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The expression.
    pub query: String,
    /// Labels that each series of the result has to get, sorted by name; none of them is there.
    pub added: Vec<(String, String)>,
    /// Whether labels are put into stored series by `label_replace`, which loses native histograms
    /// in Prometheus before 2.44.
    pub is_relabelled: bool,
    original: String,
    pieces: Vec<Piece>,
}

/// An expression that is not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Not PromQL as far as we can tell; Prometheus has better words for it.
    #[error("{0}")]
    Syntax(String),
    /// Can't be evaluated faithfully with external labels in place.
    #[error("unsupported {what}")]
    Unsupported {
        /// What it has.
        what: String,
    },
}

/// Rewrites an expression. Takes a fraction of a second for the longest, so what is long does not
/// belong on a thread of the network.
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite(query: &str, overlay: &LabelOverlay) -> Result<Rewritten, RewriteError> {
    with_stack(query, |readable, tokens| {
        let tree = parsed(readable)?;
        let mut walk = Walk::new(query, overlay, tokens);
        let root = walk.settled(&tree)?;
        if !walk.tokens.is_done() {
            return Err(tokens::disagreement("the end"));
        }
        if root.value == ValueType::Matrix
            && let Some(name) = root.carried.stale.first()
        {
            return Err(RewriteError::Unsupported {
                what: format!(
                    "range selector as the whole query, while stored series have a label {name} \
                     of their own: wrap it in last_over_time()"
                ),
            });
        }
        let added = root.carried.virt.iter().filter_map(|name| {
            let value = overlay.shown(name)?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        let added = added.collect();
        if walk.edits.are_too_many() {
            return Err(RewriteError::Unsupported {
                what: "expression: too many labels have to be put into it".to_owned(),
            });
        }
        let is_relabelled = walk.is_relabelled;
        let (changed, pieces) = walk.edits.apply(query);
        Ok(Rewritten {
            query: changed,
            added,
            is_relabelled,
            original: query.to_owned(),
            pieces,
        })
    })
}

/// Rewrites a selector (`match[]`); `None` where it can't match anything.
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite_selector(
    selector: &str,
    overlay: &LabelOverlay,
) -> Result<Option<String>, RewriteError> {
    read_selector(selector, |written| {
        let decided = written.decide(overlay)?;
        let body = decided.body.unwrap_or_else(|| selector.to_owned());
        Ok((!decided.is_empty).then_some(body))
    })
}

/// What a selector asks for; nothing is compiled.
///
/// # Errors
/// See [`RewriteError`].
pub fn selector_matchers(selector: &str) -> Result<Vec<Matcher>, RewriteError> {
    read_selector(selector, |written| Ok(written.into_matchers()))
}

/// Reads a text that is one selector and nothing else.
fn read_selector<T: Send>(
    text: &str,
    read: impl FnOnce(Selector<'_>) -> Result<T, RewriteError> + Send,
) -> Result<T, RewriteError> {
    let more = || RewriteError::Syntax("more than a selector such as up{job=\"node\"}".to_owned());
    with_stack(text, |readable, mut tokens| {
        let Expr::VectorSelector(tree) = parsed(readable)? else {
            return Err(more());
        };
        let written = Selector::take(&mut tokens, text, &tree)?;
        match tokens.is_done() {
            true => read(written),
            false => Err(more()),
        }
    })
}

impl LabelOverlay {
    /// The value that matchers on this label are held against.
    fn external(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.external.as_deref()
    }

    /// The value that results carry.
    fn shown(&self, name: &str) -> Option<&str> {
        let label = self.0.get(name).filter(|label| label.is_shown)?;
        label.external.as_deref()
    }
}

impl Rewritten {
    /// A message of Prometheus about [`Self::query`] with the positions of the user's text, where
    /// it ends in one: `… (1:6)`.
    pub fn in_users_terms(&self, message: &str) -> String {
        let translated = || {
            let (words, place) = message.strip_suffix(')')?.rsplit_once(" (")?;
            let (line, column) = place.split_once(':')?;
            let at = offset(&self.query, line.parse().ok()?, column.parse().ok()?)?;
            let (line, column) = line_and_column(&self.original, self.came_from(at));
            Some(format!("{words} ({line}:{column})"))
        };
        translated().unwrap_or_else(|| message.to_owned())
    }

    /// Where in the user's text a byte of the query comes from.
    fn came_from(&self, at: usize) -> usize {
        let after = self.pieces.partition_point(|piece| piece.at <= at);
        let piece = after.checked_sub(1).and_then(|i| self.pieces.get(i));
        match piece {
            Some(piece) if piece.is_kept => piece.from + (at - piece.at),
            Some(piece) => piece.from,
            None => at,
        }
    }
}

/// Parses and walks where there is stack enough for it.
fn with_stack<T: Send>(
    text: &str,
    walk: impl FnOnce(&str, Tokens) -> Result<T, RewriteError> + Send,
) -> Result<T, RewriteError> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(RewriteError::Unsupported {
            what: format!("expression: longer than {QUERY_BYTES_MAX} bytes"),
        });
    }
    let readable = Readable::of(text).checked()?;
    let tokens = Tokens::of(&readable)?;
    let walk = |tokens| walk(&readable.text, tokens);
    let nesting = tokens.count(|id| {
        matches!(id, T_LEFT_PAREN | T_LEFT_BRACKET | T_LEFT_BRACE)
            || (T_OPERATORS_START..T_OPERATORS_END).contains(&id)
    });
    if nesting > NESTING_MAX {
        return Err(RewriteError::Unsupported {
            what: format!(
                "expression: {nesting} operators, parentheses and brackets, at most {NESTING_MAX}"
            ),
        });
    }
    if nesting <= SMALL_NESTING {
        return walk(tokens);
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new()
            .name("promql".to_owned())
            .stack_size(STACK_BYTES);
        let no_thread = |what: String| RewriteError::Unsupported { what };
        let thread = builder.spawn_scoped(scope, || walk(tokens));
        let thread = thread.map_err(|error| {
            no_thread(format!("expression now: no thread to read it on: {error}"))
        })?;
        let joined = thread.join();
        joined.unwrap_or_else(|_| Err(no_thread("expression: reading it failed".to_owned())))
    })
}

/// The tree of an expression, by the functions of all versions of Prometheus.
fn parsed(text: &str) -> Result<Expr, RewriteError> {
    static RENAMED: Once = Once::new();
    let mut registered = Ok(());
    RENAMED.call_once(|| {
        let (matrix, scalar) = (ValueType::Matrix, ValueType::Scalar);
        // The name of double_exponential_smoothing before Prometheus 3.
        let arguments = vec![matrix, scalar, scalar];
        let smoothing = Function::new("holt_winters", arguments, 0, ValueType::Vector, false);
        registered = register_extra_functions(vec![smoothing]);
    });
    registered.map_err(RewriteError::Syntax)?;
    parse(text).map_err(RewriteError::Syntax)
}

/// The byte at a line and column, both from 1, columns in bytes, as Prometheus counts them.
fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let before = text.split_inclusive('\n').take(line.checked_sub(1)?);
    let line_start: usize = before.map(str::len).sum();
    Some(line_start + column.checked_sub(1)?)
}

/// The line and column of a byte.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    let line = before.split(|byte| *byte == b'\n');
    let (lines, last) = line.fold((0, 0), |(lines, _), line| (lines + 1, line.len()));
    (lines, last + 1)
}

#[cfg(test)]
mod tests;
