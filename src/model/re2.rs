//! The regular expressions of matchers: Go's RE2 syntax, turned into the `regex` crate's.
//!
//! A pattern is refused or accepted, and matches, as in Go (contract `tsdb.md` §8, `grpc.md`
//! §3.6b). The two syntaxes look alike and differ in what they make of rare input: `\d`, `\w`,
//! `\s` and `\b` are ASCII in Go; `\Q…\E` quotes; `&&`, `--`, `~~` and `[` in a class are plain
//! characters; a brace that opens no repetition is plain; repetitions multiply to at most 1000.
//! So the pattern is read here by Go's rules and written anew, every rare character escaped.
//! Greediness and groups' names are left out: a matcher only asks whether the whole value fits.
//!
//! Work is bounded: the pattern's length, its nesting, and the compiled program's size. Reading
//! takes time in proportion to the pattern: what is written is only appended to, and what would
//! have to go before it is put in at the end.

mod class;
mod expand;
mod shortcut;

use std::borrow::Cow;
use std::fmt::Write as _;

use class::{ClassReader, PerlClass};

pub use shortcut::{PatternMatcher, Verdict};

/// A pattern's greatest length. Dashboards send lists of thousands of names.
const PATTERN_BYTES_MAX: usize = 768 << 10;
/// Go's limits: how often an expression may be repeated, and how deep it may nest.
const REPEAT_MAX: u32 = 1000;
const HEIGHT_MAX: u32 = 1000;
/// What the compiled program, and what its cache of states, may use.
const PROGRAM_BYTES_MAX: usize = 1 << 20;
const CACHE_BYTES_MAX: usize = 1 << 20;
/// How much of a pattern an error shows.
const SHOWN_CHARS: usize = 120;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {what}: `{fragment}`")]
pub struct PatternError {
    what: &'static str,
    fragment: String,
}

impl PatternError {
    fn new(what: &'static str, fragment: &str) -> Self {
        let mut shown: String = fragment.chars().take(SHOWN_CHARS).collect();
        if shown.len() < fragment.len() {
            shown.push('…');
        }
        Self {
            what,
            fragment: shown,
        }
    }
}

/// A pattern that Go accepts, in the syntax of the `regex` crate, not yet anchored or compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    rust: String,
}

/// A compiled pattern that fits a value only as a whole.
#[derive(Clone, Debug)]
pub struct AnchoredRegex(regex::bytes::Regex);

impl Pattern {
    /// Reads a pattern by Go's rules. Bytes that are not UTF-8 count as U+FFFD.
    ///
    /// # Errors
    /// Where Go refuses the pattern, or it is longer than 256 KiB.
    pub fn parse(pattern: &[u8]) -> Result<Self, PatternError> {
        let pattern = String::from_utf8_lossy(pattern);
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::new("expression too large", &pattern));
        }
        let rust = Parser::new(&pattern).run()?;
        Ok(Self { rust })
    }

    /// The pattern as the `regex` crate takes it.
    pub fn anchored(&self) -> String {
        format!("^(?s:{})$", self.rust)
    }

    /// Compiles the pattern, anchored at both ends.
    ///
    /// # Errors
    /// Where the program would be too large.
    pub fn compile(&self) -> Result<AnchoredRegex, PatternError> {
        regex::bytes::RegexBuilder::new(&self.anchored())
            .size_limit(PROGRAM_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX)
            .build()
            .map(AnchoredRegex)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => {
                    PatternError::new("expression too large", &self.rust)
                }
                _ => PatternError::new("unsupported expression", &self.rust),
            })
    }
}

impl AnchoredRegex {
    /// Whether the whole value fits.
    pub fn is_match(&self, value: &str) -> bool {
        self.0.is_match(value.as_bytes())
    }
}

/// The flags that change what is matched; `U` changes only which match is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flags {
    fold_case: bool,
    multi_line: bool,
    dot_newline: bool,
}

/// The expression last written, which a repetition would apply to.
#[derive(Clone, Copy, Debug)]
struct Atom {
    /// Where its text stands in what is written.
    start: usize,
    end: usize,
    size: Size,
    repeated: bool,
}

/// What Go limits.
#[derive(Clone, Copy, Debug)]
struct Size {
    height: u32,
    /// The product of nested repetitions, of the branch where it is greatest.
    repeats: u32,
}

impl Size {
    const ONE: Self = Self {
        height: 1,
        repeats: 1,
    };

    fn max(self, other: Self) -> Self {
        Self {
            height: self.height.max(other.height),
            repeats: self.repeats.max(other.repeats),
        }
    }
}

/// An open group, or the whole pattern.
#[derive(Debug)]
struct Group {
    /// Where its text begins.
    start: usize,
    atom: Option<Atom>,
    size: Size,
    /// The flags outside, in force again once the group is closed.
    outer: Flags,
}

impl Group {
    fn new(start: usize, outer: Flags) -> Self {
        Self {
            start,
            atom: None,
            size: Size::ONE,
            outer,
        }
    }

    /// Takes the last expression's size into the group's: no repetition can change it any more.
    fn settle(&mut self) {
        if let Some(atom) = self.atom.take() {
            self.size = self.size.max(atom.size);
        }
    }

    /// An expression, which stands there in what is written.
    fn push(&mut self, start: usize, end: usize, size: Size) {
        self.settle();
        self.atom = Some(Atom {
            start,
            end,
            size,
            repeated: false,
        });
    }
}

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    flags: Flags,
    /// What is written, without the insertions.
    text: String,
    /// What is to be put in, and where; at one place in this order.
    insertions: Vec<(usize, Cow<'static, str>)>,
    classes: ClassReader,
    open: Vec<Group>,
    group: Group,
    /// The repetition just read, if one was: stacking another on it is an error.
    last_repeat: Option<&'a str>,
    scratch: String,
}

impl<'a> Parser<'a> {
    fn new(pattern: &'a str) -> Self {
        let flags = Flags {
            fold_case: false,
            multi_line: false,
            dot_newline: true,
        };
        Self {
            whole: pattern,
            rest: pattern,
            flags,
            text: String::new(),
            insertions: Vec::new(),
            classes: ClassReader::new(pattern),
            open: Vec::new(),
            group: Group::new(0, flags),
            last_repeat: None,
            scratch: String::new(),
        }
    }

    fn run(&mut self) -> Result<String, PatternError> {
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeat = None;
            match c {
                '(' => self.open_group()?,
                '|' => self.alternative(),
                ')' => self.close_group()?,
                '^' => self.assertion("(?:^)"),
                '$' => self.assertion("(?:$)"),
                '.' => self.assertion("."),
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.rest = self.rest.get(1..).unwrap_or("");
                    repeat = Some(self.repeat(before, (c, 0, None))?);
                }
                '{' => match read_counts(self.rest) {
                    Some((min, max, rest)) => {
                        self.rest = rest;
                        repeat = Some(self.repeat_counted(before, min, max)?);
                    }
                    None => self.literal_char(c),
                },
                '\\' => self.escape()?,
                _ => self.literal_char(c),
            }
            self.last_repeat = repeat;
        }
        if !self.open.is_empty() {
            return Err(PatternError::new("missing closing )", self.whole));
        }
        Ok(self.finished())
    }

    /// What is written, with the insertions.
    fn finished(&mut self) -> String {
        if self.insertions.is_empty() {
            return std::mem::take(&mut self.text);
        }
        // Stable: what was repeated last is closed last.
        self.insertions.sort_by_key(|(at, _)| *at);
        let inserted: usize = self.insertions.iter().map(|(_, text)| text.len()).sum();
        let mut whole = String::with_capacity(self.text.len() + inserted);
        let mut written = 0;
        for (at, text) in &self.insertions {
            whole.push_str(self.text.get(written..*at).unwrap_or_default());
            whole.push_str(text);
            written = *at;
        }
        whole.push_str(self.text.get(written..).unwrap_or_default());
        whole
    }

    /// Writes an expression.
    fn push(&mut self, text: &str, size: Size) {
        let start = self.text.len();
        self.text.push_str(text);
        self.group.push(start, self.text.len(), size);
    }

    /// One character that stands for itself.
    fn literal_char(&mut self, c: char) {
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or("");
        self.literal(u32::from(c));
    }

    fn literal(&mut self, code: u32) {
        self.scratch.clear();
        match char::from_u32(code) {
            Some(_) => class::write_char(&mut self.scratch, code),
            // Go's text has no surrogates, so one is never found.
            None => self.scratch.push_str(class::NOTHING),
        }
        self.push_scratch();
    }

    /// Writes what was gathered as one expression.
    fn push_scratch(&mut self) {
        let start = self.text.len();
        self.text.push_str(&self.scratch);
        self.group.push(start, self.text.len(), Size::ONE);
    }

    /// An operator of one character.
    fn assertion(&mut self, text: &str) {
        self.rest = self.rest.get(1..).unwrap_or("");
        self.push(text, Size::ONE);
    }

    fn alternative(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or("");
        self.text.push('|');
        self.group.settle();
    }

    fn open_group(&mut self) -> Result<(), PatternError> {
        let outer = self.flags;
        if self.rest.starts_with("(?") {
            if !self.group_head()? {
                return Ok(());
            }
        } else {
            self.rest = self.rest.get(1..).unwrap_or("");
        }
        if self.open.len() >= HEIGHT_MAX as usize {
            return Err(PatternError::new("expression nests too deeply", self.whole));
        }
        let group = Group::new(self.text.len(), outer);
        self.text.push_str("(?:");
        let parent = std::mem::replace(&mut self.group, group);
        self.open.push(parent);
        if self.flags != outer {
            self.write_flags();
        }
        Ok(())
    }

    /// What follows `(?`; whether it opens a group, rather than only setting flags.
    fn group_head(&mut self) -> Result<bool, PatternError> {
        let start = self.rest;
        for opening in ["(?P<", "(?<"] {
            let Some(named) = start.strip_prefix(opening) else {
                continue;
            };
            let Some((name, rest)) = named.split_once('>') else {
                return Err(PatternError::new("invalid named capture", start));
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(PatternError::new("invalid named capture", start));
            }
            self.rest = rest;
            return Ok(true);
        }
        let mut on = true;
        let mut seen_since_minus = true;
        let flags_at = start.get(2..).unwrap_or("");
        for (at, c) in flags_at.char_indices() {
            match c {
                'i' => self.flags.fold_case = on,
                'm' => self.flags.multi_line = on,
                's' => self.flags.dot_newline = on,
                'U' => {}
                '-' if on => (on, seen_since_minus) = (false, false),
                ':' | ')' if seen_since_minus => {
                    self.rest = flags_at.get(at + 1..).unwrap_or("");
                    if c == ')' {
                        self.write_flags();
                    }
                    return Ok(c == ':');
                }
                _ => break,
            }
            seen_since_minus |= c != '-';
        }
        Err(PatternError::new(
            "invalid or unsupported Perl syntax",
            start,
        ))
    }

    /// Flags that hold up to the group's end. They are no expression: a repetition behind them
    /// applies to what stands before.
    fn write_flags(&mut self) {
        self.text.push('(');
        write_flags(&mut self.text, self.flags);
        self.text.push(')');
    }

    fn close_group(&mut self) -> Result<(), PatternError> {
        let Some(parent) = self.open.pop() else {
            return Err(PatternError::new("unexpected )", self.whole));
        };
        self.rest = self.rest.get(1..).unwrap_or("");
        let mut inner = std::mem::replace(&mut self.group, parent);
        inner.settle();
        let size = Size {
            height: inner.size.height + 1,
            repeats: inner.size.repeats,
        };
        self.check_height(size)?;
        self.text.push(')');
        self.group.push(inner.start, self.text.len(), size);
        self.flags = inner.outer;
        Ok(())
    }

    fn check_height(&self, size: Size) -> Result<(), PatternError> {
        match size.height > HEIGHT_MAX {
            true => Err(PatternError::new("expression nests too deeply", self.whole)),
            false => Ok(()),
        }
    }

    /// `{min,max}`, whose numbers `read_counts` found.
    fn repeat_counted(
        &mut self,
        before: &'a str,
        min: u32,
        max: Option<u32>,
    ) -> Result<&'a str, PatternError> {
        let consumed = before.len() - self.rest.len();
        let text = before.get(..consumed).unwrap_or(before);
        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
            return Err(PatternError::new("invalid repeat count", text));
        }
        self.repeat(before, ('{', min, max))
    }

    /// Applies a repetition to the atom before it; `before` is the pattern from its first byte.
    fn repeat(
        &mut self,
        before: &'a str,
        (op, min, max): (char, u32, Option<u32>),
    ) -> Result<&'a str, PatternError> {
        if let Some(rest) = self.rest.strip_prefix('?') {
            self.rest = rest;
        }
        let consumed = before.len() - self.rest.len();
        let text = before.get(..consumed).unwrap_or(before);
        if let Some(last) = self.last_repeat {
            let both = self.whole.len() - self.rest.len();
            let from = both - text.len() - last.len();
            let fragment = self.whole.get(from..both).unwrap_or(text);
            return Err(PatternError::new(
                "invalid nested repetition operator",
                fragment,
            ));
        }
        let Some(atom) = self.group.atom else {
            return Err(PatternError::new(
                "missing argument to repetition operator",
                text,
            ));
        };
        let times = max.unwrap_or(min);
        let repeats = match op {
            '{' if max == Some(0) => 1,
            '{' => atom.size.repeats * times.max(1),
            _ => atom.size.repeats,
        };
        if repeats > REPEAT_MAX {
            return Err(PatternError::new("invalid repeat count", text));
        }
        let size = Size {
            height: atom.size.height + 1,
            repeats,
        };
        self.check_height(size)?;
        self.write_repeat(atom, size, (op, min, max));
        Ok(text)
    }

    fn write_repeat(&mut self, atom: Atom, size: Size, (op, min, max): (char, u32, Option<u32>)) {
        let mut suffix = String::new();
        if atom.repeated {
            self.insertions.push((atom.start, Cow::Borrowed("(?:")));
            suffix.push(')');
        }
        let written = match (op, max) {
            ('{', None) => write!(suffix, "{{{min},}}"),
            ('{', Some(max)) => write!(suffix, "{{{min},{max}}}"),
            _ => write!(suffix, "{op}"),
        };
        written.expect("a string takes all that is written");
        // Only flags may stand behind the atom.
        let mut end = atom.end;
        if end == self.text.len() {
            self.text.push_str(&suffix);
            end = self.text.len();
        } else {
            self.insertions.push((end, Cow::Owned(suffix)));
        }
        self.group.atom = Some(Atom {
            start: atom.start,
            end,
            size,
            repeated: true,
        });
    }

    fn class(&mut self) -> Result<(), PatternError> {
        self.scratch.clear();
        self.rest = self.classes.read_class(self.rest, &mut self.scratch)?;
        self.push_scratch();
        Ok(())
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let mut chars = self.rest.chars();
        let second = chars.by_ref().nth(1);
        let after = chars.as_str();
        let simple = match second {
            Some('A') => Some(r"(?:\A)"),
            Some('z') => Some(r"(?:\z)"),
            Some('b') => Some(r"(?-u:\b)"),
            Some('B') => Some(r"(?-u:\B)"),
            _ => None,
        };
        if let Some(text) = simple {
            self.rest = after;
            self.push(text, Size::ONE);
            return Ok(());
        }
        if second == Some('Q') {
            let (quoted, rest) = after.split_once(r"\E").unwrap_or((after, ""));
            self.rest = rest;
            quoted.chars().for_each(|c| self.literal(u32::from(c)));
            return Ok(());
        }
        self.scratch.clear();
        let named = self
            .classes
            .read_unicode_class(self.rest, &mut self.scratch);
        if let Some(rest) = named? {
            self.rest = rest;
            self.push_scratch();
        } else if let Some(perl) = second.and_then(PerlClass::named) {
            self.rest = after;
            perl.write(&mut self.scratch);
            self.push_scratch();
        } else {
            let (code, rest) = class::read_escape(self.rest)?;
            self.rest = rest;
            self.literal(code);
        }
        Ok(())
    }
}

/// `?ims-ims`, each flag on one of the sides.
fn write_flags(out: &mut String, flags: Flags) {
    let all = [
        ('i', flags.fold_case),
        ('m', flags.multi_line),
        ('s', flags.dot_newline),
    ];
    out.push('?');
    out.extend(all.iter().filter(|(_, on)| *on).map(|(name, _)| name));
    if all.iter().any(|(_, on)| !on) {
        out.push('-');
        out.extend(all.iter().filter(|(_, on)| !on).map(|(name, _)| name));
    }
}

/// The numbers of `{n}`, `{n,}` or `{n,m}` and what follows; `None` where the brace is plain.
fn read_counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (min, rest) = read_count(text.strip_prefix('{')?)?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((min, Some(min), rest));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((min, None, rest));
    }
    let (max, rest) = read_count(rest)?;
    Some((min, Some(max), rest.strip_prefix('}')?))
}

/// A decimal without leading zero; one past all limits saturates.
fn read_count(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if number.is_empty() || (number.len() > 1 && number.starts_with('0')) {
        return None;
    }
    Some((number.parse().unwrap_or(u32::MAX), rest))
}

#[cfg(test)]
mod tests;
