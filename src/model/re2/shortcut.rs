//! What a pattern asks of a value, decided once, so that its regular expression is run only where
//! nothing cheaper tells.
//!
//! Most patterns are lists of names, beginnings or endings. Those are looked up, or held against
//! the value byte by byte; the expression is compiled only if there is a value that it may have to
//! judge. The meaning is that of [`AnchoredRegex`], which a property test holds it against.

use memchr::memmem;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;

use super::expand::{Alternative, Gapped, ends_of, expand};
use super::{AnchoredRegex, Pattern, PatternError};

/// The most alternatives with gaps that are tried one by one; more are run as an expression.
const GLOBS_MAX: usize = 64;
/// The same of those that may begin anyhow: each searches the value.
const UNPREFIXED_MAX: usize = 4;

/// A pattern that is ready to judge values.
#[derive(Clone, Debug)]
pub struct PatternMatcher {
    /// Values that fit, ascending.
    literals: Vec<Vec<u8>>,
    /// Ways to fit, by what they begin with.
    globs: Vec<Glob>,
    /// There if a glob is too wide.
    regex: Option<AnchoredRegex>,
}

/// What is known of a value before the expression is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Fits,
    /// It does not.
    DoesNot,
    /// Only the expression knows.
    Unclear,
}

/// A beginning, and literals that follow it with gaps between.
#[derive(Clone, Debug)]
struct Glob {
    prefix: Vec<u8>,
    middle: Vec<(usize, memmem::Finder<'static>)>,
    /// The last gap's least bytes and what the value ends with; without one it ends with the
    /// prefix.
    end: Option<(usize, Vec<u8>)>,
    is_too_wide: bool,
}

impl PatternMatcher {
    /// Prepares a pattern.
    ///
    /// # Errors
    /// Where its program would be too large, and it needs one.
    pub fn new(pattern: &Pattern) -> Result<Self, PatternError> {
        let alternatives = expand(&parse(pattern)?);
        let mut matcher = Self::from_alternatives(alternatives);
        if matcher.globs.iter().any(|glob| glob.is_too_wide) {
            matcher.regex = Some(pattern.compile()?);
        }
        Ok(matcher)
    }

    /// Whether the value, the whole of it, fits.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self.judge(value) {
            Verdict::Fits => true,
            Verdict::DoesNot => false,
            Verdict::Unclear => self.run(value),
        }
    }

    /// What is known without running the expression.
    pub fn judge(&self, value: &[u8]) -> Verdict {
        if self.is_literal(value) {
            return Verdict::Fits;
        }
        let mut verdict = Verdict::DoesNot;
        for glob in &self.globs {
            // They ascend: none that begins with more than the value can fit.
            if glob.prefix.as_slice() > value {
                break;
            }
            match glob.fits(value) {
                true if glob.is_too_wide => verdict = Verdict::Unclear,
                true => return Verdict::Fits,
                false => {}
            }
        }
        verdict
    }

    /// Runs the expression on a value that is [`Verdict::Unclear`].
    pub fn run(&self, value: &[u8]) -> bool {
        let Some(regex) = &self.regex else {
            return false;
        };
        match std::str::from_utf8(value) {
            Ok(value) => regex.is_match(value),
            Err(_) => regex.is_match(&as_go_reads(value)),
        }
    }

    /// Whether every value fits, the empty one too.
    pub fn is_any(&self) -> bool {
        self.fits_all_but_empty() && self.matches(b"")
    }

    /// Whether exactly the empty value does not fit.
    pub fn is_any_but_empty(&self) -> bool {
        self.fits_all_but_empty() && !self.matches(b"")
    }

    /// Whether it is one of [`Self::literals`].
    pub fn is_literal(&self, value: &[u8]) -> bool {
        let found = self
            .literals
            .binary_search_by(|literal| literal.as_slice().cmp(value));
        found.is_ok()
    }

    /// Values that fit, ascending.
    pub fn literals(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.literals.iter().map(Vec::as_slice)
    }

    /// What all values that fit and are no literal begin with, ascending, none the beginning of
    /// another; the empty text where they may begin anyhow.
    pub fn prefixes(&self) -> Vec<&[u8]> {
        let mut prefixes: Vec<&[u8]> = Vec::new();
        for glob in &self.globs {
            let covered = prefixes.last().is_some_and(|p| glob.prefix.starts_with(p));
            if !covered {
                prefixes.push(&glob.prefix);
            }
        }
        prefixes
    }

    fn fits_all_but_empty(&self) -> bool {
        self.globs.iter().any(|glob| glob.fits_all_from(1))
    }

    fn from_alternatives(alternatives: Vec<Alternative>) -> Self {
        let is_literal =
            |alternative: &Alternative| alternative.tail.is_empty() && !alternative.is_too_wide;
        let (literals, mut gapped): (Vec<_>, Vec<_>) =
            alternatives.into_iter().partition(is_literal);
        gapped.sort_unstable();
        gapped.dedup();
        let unprefixed = gapped.iter().take_while(|glob| glob.prefix.is_empty());
        if gapped.len() > GLOBS_MAX || unprefixed.count() > UNPREFIXED_MAX {
            gapped = vec![ends_of(&gapped)];
        }
        let mut literals: Vec<Vec<u8>> = literals.into_iter().map(|a| a.prefix).collect();
        literals.sort_unstable();
        literals.dedup();
        let mut globs: Vec<Glob> = gapped.into_iter().map(Glob::from).collect();
        simplify(&mut literals, &mut globs);
        Self {
            literals,
            globs,
            regex: None,
        }
    }
}

/// What a pattern means, without its anchors.
fn parse(pattern: &Pattern) -> Result<Hir, PatternError> {
    // As the `regex` crate reads it for bytes.
    let mut parser = ParserBuilder::new().utf8(false).build();
    let parsed = parser.parse(&format!("(?s:{})", pattern.rust));
    parsed.map_err(|_| PatternError::new("unsupported expression", &pattern.rust))
}

/// Leaves out what something wider says already.
fn simplify(literals: &mut Vec<Vec<u8>>, globs: &mut Vec<Glob>) {
    let widest = globs.iter().filter(|glob| glob.fits_all_from(1));
    if let Some(mut widest) = widest.min_by_key(|glob| !glob.fits_all_from(0)).cloned() {
        if literals.first().is_some_and(Vec::is_empty) {
            widest.end = Some((0, Vec::new()));
        }
        // One that is too wide may know the empty value.
        let is_sure = widest.fits_all_from(0) || !globs.iter().any(|glob| glob.fits(b""));
        if is_sure {
            *globs = vec![widest];
        }
    }
    literals.retain(|literal| {
        let mut exact = globs.iter().filter(|glob| !glob.is_too_wide);
        !exact.any(|glob| glob.fits(literal))
    });
}

/// The text that Go's matcher sees: each byte that is no UTF-8 as U+FFFD.
fn as_go_reads(value: &[u8]) -> String {
    let mut text = String::new();
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

// === impl Glob ===

impl From<Alternative> for Glob {
    fn from(alternative: Alternative) -> Self {
        let mut tail = alternative.tail;
        let end = tail.pop().map(|last| (last.bytes_min, last.literal));
        let finder = |Gapped { bytes_min, literal }| {
            let finder = memmem::Finder::new(&literal).into_owned();
            (bytes_min, finder)
        };
        Self {
            prefix: alternative.prefix,
            middle: tail.into_iter().map(finder).collect(),
            end,
            is_too_wide: alternative.is_too_wide,
        }
    }
}

impl Glob {
    /// Each literal is taken where it comes first, which leaves most to those behind.
    fn fits(&self, value: &[u8]) -> bool {
        let Some(mut rest) = value.strip_prefix(self.prefix.as_slice()) else {
            return false;
        };
        for (bytes_min, finder) in &self.middle {
            let Some(behind) = rest.get(*bytes_min..) else {
                return false;
            };
            let Some(found) = finder.find(behind) else {
                return false;
            };
            rest = behind
                .get(found + finder.needle().len()..)
                .unwrap_or_default();
        }
        match &self.end {
            None => rest.is_empty(),
            Some((bytes_min, literal)) => {
                let gap = rest.strip_suffix(literal.as_slice());
                gap.is_some_and(|gap| gap.len() >= *bytes_min)
            }
        }
    }

    /// Whether it fits every value of so many bytes and more.
    fn fits_all_from(&self, bytes: usize) -> bool {
        let is_open = |(least, literal): &(usize, Vec<u8>)| *least <= bytes && literal.is_empty();
        !self.is_too_wide
            && self.prefix.is_empty()
            && self.middle.is_empty()
            && self.end.as_ref().is_some_and(is_open)
    }
}

#[cfg(test)]
mod tests;
