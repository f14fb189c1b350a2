//! What Prometheus reads and the parser does not, said in words that it knows.
//!
//! The parser gets a copy in which strings in backticks, and with escapes, which it reads by other
//! rules than Go, stand as they are meant, patterns are other ones
//! (it would compile them, by other rules and within narrower limits than Go's), durations that
//! are computed are plain, and `anchored` and `smoothed` are left out: nothing of that decides
//! where labels go. Prometheus gets the user's own words, so each place of the copy knows its place
//! in the original.

use std::ops::Range;

use super::RewriteError;
use super::unquote::unquoted;
use crate::model::Quoted;

/// Words behind which an operand begins, so that `anchored` behind them is a metric.
const OPERATORS: [&str; 15] = [
    "and",
    "or",
    "unless",
    "atan2",
    "bool",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "fill",
    "fill_left",
    "fill_right",
];
/// How ranges are extended to their ends, behind a selector.
const EXTENSIONS: [&str; 2] = ["anchored", "smoothed"];

/// Stands for every pattern behind `=~`; what is empty does not match, so the selector may do
/// without another matcher, as far as the parser is to judge.
const PATTERN: &str = "\"x\"";
/// The same behind `!~`.
const NEGATED_PATTERN: &str = "\"\"";

/// How long an expression may be beside its strings; the parser holds each token several times.
const TOKENS_MAX: usize = 100_000;
/// The longest duration that is computed behind `offset`; its end is looked for at each.
const COMPUTED_BYTES_MAX: usize = 512;

/// An expression as the parser reads it.
#[derive(Debug)]
pub(super) struct Readable {
    /// The copy.
    pub(super) text: String,
    /// What stands otherwise in the original, in order.
    replaced: Vec<Replaced>,
    /// Words, numbers, strings and signs.
    tokens: usize,
    /// What Prometheus may read and we can't.
    unreadable: Option<RewriteError>,
}

#[derive(Debug)]
struct Replaced {
    /// In the copy.
    copy: Range<usize>,
    original: Range<usize>,
}

impl Readable {
    /// The copy of an expression.
    pub(super) fn of(original: &str) -> Self {
        let reader = Reader {
            original,
            at: 0,
            copied: 0,
            last: Last::Operator,
            readable: Self {
                text: String::with_capacity(original.len()),
                replaced: Vec::new(),
                tokens: 0,
                unreadable: None,
            },
        };
        reader.run()
    }

    /// Itself, if it can be read within bounds.
    pub(super) fn checked(self) -> Result<Self, RewriteError> {
        if let Some(error) = self.unreadable {
            return Err(error);
        }
        match self.tokens > TOKENS_MAX {
            true => Err(RewriteError::Unsupported {
                what: format!("expression: more than {TOKENS_MAX} words, numbers and signs"),
            }),
            false => Ok(self),
        }
    }

    /// Where in the original a token of the copy stands.
    pub(super) fn in_original(&self, token: Range<usize>) -> Range<usize> {
        let place = |at: usize, is_end: bool| {
            let after = self.replaced.partition_point(|replaced| match is_end {
                // What was left out belongs to what stands before it.
                true => replaced.copy.start < at || replaced.copy == (at..at),
                false => replaced.copy.start <= at,
            });
            let before = after.checked_sub(1).and_then(|i| self.replaced.get(i));
            match before {
                None => at,
                Some(replaced) if at < replaced.copy.end => replaced.original.start,
                Some(replaced) => replaced.original.end + (at - replaced.copy.end),
            }
        };
        place(token.start, false)..place(token.end, true)
    }
}

/// What was read last: whether an operand has ended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Operand,
    Operator,
    Offset,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

/// Goes through the text once, by what Prometheus' lexer takes for strings, comments and words.
struct Reader<'a> {
    original: &'a str,
    at: usize,
    /// Up to where the original was copied.
    copied: usize,
    last: Last,
    readable: Readable,
}

impl<'a> Reader<'a> {
    fn run(mut self) -> Readable {
        while let Some(c) = self.rest().chars().next() {
            self.readable.tokens += usize::from(!c.is_whitespace());
            match c {
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                '"' | '\'' | '`' => self.string(),
                '[' => self.brackets(),
                '(' if self.last == Last::Offset => match closed_bytes(self.rest()) {
                    Some(bytes) => self.replace(bytes, "1s"),
                    None => {
                        self.at += 1;
                        self.last = Last::Operator;
                    }
                },
                c if c.is_ascii_digit() || c == '.' => {
                    self.at += word_bytes(self.rest());
                    self.last = Last::Operand;
                }
                c if is_word(c) => self.word(),
                c => {
                    let before = self
                        .original
                        .get(..self.at)
                        .and_then(|t| t.chars().next_back());
                    self.at += c.len_utf8();
                    self.last = match c {
                        '~' if before == Some('!') => Last::MatchesNot,
                        '~' => Last::Matches,
                        ')' | '}' | ']' => Last::Operand,
                        // A sign, or the space, before what the offset is.
                        '+' | '-' if self.last == Last::Offset => Last::Offset,
                        c if c.is_whitespace() => self.last,
                        _ => Last::Operator,
                    };
                }
            }
        }
        let rest = self.original.get(self.copied..).unwrap_or_default();
        self.readable.text.push_str(rest);
        self.readable
    }

    fn rest(&self) -> &'a str {
        self.original.get(self.at..).unwrap_or_default()
    }

    /// Puts something else in place of the next bytes.
    fn replace(&mut self, bytes: usize, by: &str) {
        let original = self.at..(self.at + bytes).min(self.original.len());
        let before = self.original.get(self.copied..original.start);
        let text = &mut self.readable.text;
        text.push_str(before.unwrap_or_default());
        let start = text.len();
        text.push_str(by);
        let copy = start..text.len();
        self.at = original.end;
        self.copied = original.end;
        self.readable.replaced.push(Replaced { copy, original });
        self.last = Last::Operand;
    }

    fn string(&mut self) {
        let bytes = quoted_bytes(self.rest());
        let literal = self.rest().get(..bytes).unwrap_or_default();
        let is_plain = !literal.contains(['\\', '`']);
        match (self.last, unquoted(literal)) {
            (Last::Matches, Ok(_)) => self.replace(bytes, PATTERN),
            (Last::MatchesNot, Ok(_)) => self.replace(bytes, NEGATED_PATTERN),
            (_, Ok(content)) if !is_plain => {
                self.replace(bytes, &Quoted(&content).to_string());
            }
            (_, read) => {
                // What is no string by any rules, the parser tells.
                if let Err(error @ RewriteError::Unsupported { .. }) = read {
                    self.readable.unreadable.get_or_insert(error);
                }
                self.at += bytes;
                self.last = Last::Operand;
            }
        }
    }

    /// `[5m]`, `[1h:]`, or with durations that are computed.
    fn brackets(&mut self) {
        self.at += 1;
        self.last = Last::Operator;
        let Some((content, _)) = self.rest().split_once(']') else {
            // An error, which the parser tells.
            self.at = self.original.len();
            return;
        };
        if content
            .chars()
            .all(|c| is_word(c) || c == '.' || c.is_whitespace())
        {
            self.at += content.len();
            return;
        }
        let plain = match content.split_once(':') {
            None => "1s",
            Some((_, step)) if step.trim().is_empty() => "1s:",
            Some(_) => "1s:1s",
        };
        let bytes = content.len();
        self.replace(bytes, plain);
    }

    fn word(&mut self) {
        let bytes = word_bytes(self.rest());
        let word = self
            .rest()
            .get(..bytes)
            .unwrap_or_default()
            .to_ascii_lowercase();
        if self.last == Last::Operand && EXTENSIONS.contains(&&*word) {
            let before = self.original.get(self.copied..self.at).unwrap_or_default();
            let space = before.len() - before.trim_end().len();
            self.at -= space;
            self.replace(space + bytes, "");
        } else if self.last == Last::Offset {
            // `step()`, or a smaller or greater one of two.
            let behind = self.rest().get(bytes..).unwrap_or_default();
            let space = behind.len() - behind.trim_start().len();
            match closed_bytes(behind.trim_start()) {
                Some(call) => self.replace(bytes + space + call, "1s"),
                None => {
                    self.at += bytes;
                    self.last = Last::Operand;
                }
            }
        } else {
            self.at += bytes;
            self.last = match &*word {
                "offset" => Last::Offset,
                word if OPERATORS.contains(&word) => Last::Operator,
                _ => Last::Operand,
            };
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The bytes of a name, number or duration.
fn word_bytes(text: &str) -> usize {
    let is_part = |c: char| is_word(c) || c == '.';
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

/// The bytes of a string with its quotes; between backticks nothing is escaped.
fn quoted_bytes(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != Some('`') {
            chars.next();
        } else if Some(c) == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The bytes from an opening parenthesis to the one that closes it.
fn closed_bytes(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().take(COMPUTED_BYTES_MAX).enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return (byte == b')').then_some(at + 1);
        }
    }
    None
}
