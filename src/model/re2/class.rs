//! Character classes and escapes, which Go and the `regex` crate read most differently.
//!
//! Every character is written as a hexadecimal escape unless it is an ASCII letter or digit, so
//! nothing in what is written can be taken for a set operator, a nested class or a range.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::PatternError;

/// A class that no character belongs to.
pub(super) const NOTHING: &str = "[a&&b]";

const CODE_MAX: u32 = 0x10_FFFF;
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;

/// The names that Go knows between `[:` and `:]`; ASCII in both languages.
const POSIX_NAMES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// `\d`, `\s`, `\w` and their complements: ASCII, and `\s` without the vertical tab.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerlClass {
    members: &'static str,
    negated: bool,
}

impl PerlClass {
    /// The class that `\` and this letter name.
    pub(super) fn named(letter: char) -> Option<Self> {
        let members = match letter.to_ascii_lowercase() {
            'd' => "0-9",
            's' => r"\t\n\x0C\r\x20",
            'w' => "0-9A-Za-z_",
            _ => return None,
        };
        Some(Self {
            members,
            negated: letter.is_ascii_uppercase(),
        })
    }

    /// Writes it as a class, which may stand inside another.
    pub(super) fn write(self, out: &mut String) {
        out.push_str(if self.negated { "[^" } else { "[" });
        out.push_str(self.members);
        out.push(']');
    }
}

/// Writes one character so that it stands for itself, in a class and outside. Surrogates, which
/// no text contains, are the caller's to leave out.
pub(super) fn write_char(out: &mut String, code: u32) {
    match char::from_u32(code) {
        Some(c) if c.is_ascii_alphanumeric() => out.push(c),
        _ => write!(out, "\\x{{{code:X}}}").expect("a string takes all that is written"),
    }
}

/// Writes a range, cut where it meets surrogates; whether anything was left of it.
fn write_range(out: &mut String, low: u32, high: u32) -> bool {
    let low = if SURROGATES.contains(&low) {
        SURROGATES.end() + 1
    } else {
        low
    };
    let high = if SURROGATES.contains(&high) {
        SURROGATES.start() - 1
    } else {
        high
    };
    if low > high {
        return false;
    }
    write_char(out, low);
    if high > low {
        out.push('-');
        write_char(out, high);
    }
    true
}

/// Reads the classes of one pattern, in time in proportion to its length.
#[derive(Debug)]
pub(super) struct ClassReader {
    /// How long the pattern's end is that begins with its last `:]`; longer than any if it has
    /// none. Whoever reads in it finds no other.
    last_posix_end: usize,
    /// The names between `\p{` and `}` that are known to be right, as Unicode compares them.
    names: HashSet<String>,
    /// How many names were looked up.
    #[cfg(test)]
    pub(super) lookups: usize,
    /// How many bytes were searched for `:]`, about.
    #[cfg(test)]
    pub(super) searched: usize,
}

impl ClassReader {
    /// For the classes of this pattern.
    pub(super) fn new(pattern: &str) -> Self {
        let end = pattern.rfind(":]");
        Self {
            last_posix_end: end.map_or(usize::MAX, |at| pattern.len() - at),
            names: HashSet::new(),
            #[cfg(test)]
            lookups: 0,
            #[cfg(test)]
            searched: 0,
        }
    }

    /// Reads the class that `text` begins with, writes it, and gives what follows.
    pub(super) fn read_class<'a>(
        &mut self,
        text: &'a str,
        out: &mut String,
    ) -> Result<&'a str, PatternError> {
        let mut rest = text.get(1..).unwrap_or("");
        out.push('[');
        if let Some(after) = rest.strip_prefix('^') {
            out.push('^');
            rest = after;
        }
        let mut first = true;
        let mut members = false;
        loop {
            if let Some(after) = rest.strip_prefix(']').filter(|_| !first) {
                if !members {
                    out.push_str(NOTHING);
                }
                out.push(']');
                return Ok(after);
            }
            first = false;
            if let Some(after) = self.read_posix_class(rest, out)? {
                (rest, members) = (after, true);
            } else if let Some(after) = self.read_unicode_class(rest, out)? {
                (rest, members) = (after, true);
            } else if let Some((perl, after)) = perl_class(rest) {
                perl.write(out);
                (rest, members) = (after, true);
            } else {
                let (low, high, after) = read_range(rest, text)?;
                members |= write_range(out, low, high);
                rest = after;
            }
        }
    }

    /// `[:name:]`, which is only one where it is closed.
    fn read_posix_class<'a>(
        &mut self,
        text: &'a str,
        out: &mut String,
    ) -> Result<Option<&'a str>, PatternError> {
        let Some(named) = text.strip_prefix("[:") else {
            return Ok(None);
        };
        // Not searched in vain: one that is found ends the class's name, or the reading.
        if named.len() < self.last_posix_end {
            return Ok(None);
        }
        let closed = named.split_once(":]");
        #[cfg(test)]
        {
            self.searched += named.len() - closed.map_or(0, |(_, rest)| rest.len());
        }
        let Some((name, rest)) = closed else {
            return Ok(None);
        };
        let bare = name.strip_prefix('^').unwrap_or(name);
        if !POSIX_NAMES.contains(&bare) {
            let consumed = text.len() - rest.len();
            let shown = text.get(..consumed).unwrap_or(text);
            return Err(PatternError::new("invalid character class range", shown));
        }
        write!(out, "[:{name}:]").expect("a string takes all that is written");
        Ok(Some(rest))
    }

    /// `\pL`, `\p{Greek}`, `\PL`, `\p{^Greek}`.
    pub(super) fn read_unicode_class<'a>(
        &mut self,
        text: &'a str,
        out: &mut String,
    ) -> Result<Option<&'a str>, PatternError> {
        let (mut negated, after) = match (text.strip_prefix(r"\p"), text.strip_prefix(r"\P")) {
            (Some(after), _) => (false, after),
            (_, Some(after)) => (true, after),
            _ => return Ok(None),
        };
        let refused = || PatternError::new("invalid character class range", text);
        let (mut name, rest) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(refused)?,
            None => {
                let length = after.chars().next().map(char::len_utf8);
                after.split_at(length.ok_or_else(refused)?)
            }
        };
        if let Some(bare) = name.strip_prefix('^') {
            negated = !negated;
            name = bare;
        }
        let letters = name.bytes().filter(|byte| *byte != b'_');
        let name: String = letters
            .map(|b| char::from(b.to_ascii_lowercase()))
            .collect();
        if !self.knows(&name) {
            return Err(refused());
        }
        let letter = if negated { 'P' } else { 'p' };
        write!(out, "\\{letter}{{{name}}}").expect("a string takes all that is written");
        Ok(Some(rest))
    }

    /// Whether Unicode has this name, given without capitals and underscores: then there are only
    /// so many to look up. A name that it does not have ends the reading.
    fn knows(&mut self, name: &str) -> bool {
        if self.names.contains(name) {
            return true;
        }
        #[cfg(test)]
        {
            self.lookups += 1;
        }
        // The crate that would compile it has the list.
        let known = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric())
            && regex_syntax::parse(&format!("\\p{{{name}}}")).is_ok();
        if known {
            self.names.insert(name.to_owned());
        }
        known
    }
}

fn perl_class(text: &str) -> Option<(PerlClass, &str)> {
    let escaped = text.strip_prefix('\\')?;
    let mut chars = escaped.chars();
    let perl = PerlClass::named(chars.next()?)?;
    Some((perl, chars.as_str()))
}

/// One character of a class, or a range of them.
fn read_range<'a>(text: &'a str, class: &str) -> Result<(u32, u32, &'a str), PatternError> {
    let (low, rest) = read_class_char(text, class)?;
    // In `[a-]` the hyphen is plain.
    let upper = rest
        .strip_prefix('-')
        .filter(|u| !u.is_empty() && !u.starts_with(']'));
    let Some(upper) = upper else {
        return Ok((low, low, rest));
    };
    let (high, after) = read_class_char(upper, class)?;
    if high < low {
        let consumed = text.len() - after.len();
        let shown = text.get(..consumed).unwrap_or(text);
        return Err(PatternError::new("invalid character class range", shown));
    }
    Ok((low, high, after))
}

fn read_class_char<'a>(text: &'a str, class: &str) -> Result<(u32, &'a str), PatternError> {
    let mut chars = text.chars();
    match chars.next() {
        None => Err(PatternError::new("missing closing ]", class)),
        Some('\\') => read_escape(text),
        Some(c) => Ok((u32::from(c), chars.as_str())),
    }
}

/// The character that an escape stands for, and what follows.
pub(super) fn read_escape(text: &str) -> Result<(u32, &str), PatternError> {
    let mut chars = text.chars();
    chars.next();
    let Some(c) = chars.next() else {
        return Err(PatternError::new(
            "trailing backslash at end of expression",
            "",
        ));
    };
    let after = chars.as_str();
    let refused = || {
        let consumed = text.len() - after.len();
        let shown = text.get(..consumed).unwrap_or(text);
        PatternError::new("invalid escape sequence", shown)
    };
    let code = match c {
        '0' => return Ok(read_octal(0, after)),
        // A single digit would be a reference to a group.
        '1'..='7' if after.starts_with(|d: char| ('0'..='7').contains(&d)) => {
            return Ok(read_octal(c.to_digit(8).unwrap_or(0), after));
        }
        'x' => return read_hex(after).ok_or_else(refused),
        'a' => 0x07,
        'f' => 0x0C,
        'n' => 0x0A,
        'r' => 0x0D,
        't' => 0x09,
        'v' => 0x0B,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
        _ => return Err(refused()),
    };
    Ok((code, after))
}

/// Up to two more octal digits.
fn read_octal(first: u32, text: &str) -> (u32, &str) {
    let digits = text
        .bytes()
        .take(2)
        .take_while(|b| (b'0'..=b'7').contains(b));
    let (code, length) = digits.fold((first, 0), |(code, length), digit| {
        (code * 8 + u32::from(digit - b'0'), length + 1)
    });
    (code, text.get(length..).unwrap_or(""))
}

/// `41` or `{…}` with any number of digits.
fn read_hex(text: &str) -> Option<(u32, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        let (digits, rest) = braced.split_once('}')?;
        let mut code = 0u32;
        for digit in digits.chars() {
            code = code.checked_mul(16)? + digit.to_digit(16)?;
            if code > CODE_MAX {
                return None;
            }
        }
        return (!digits.is_empty()).then_some((code, rest));
    }
    let (digits, rest) = text.split_at_checked(2)?;
    let mut code = 0;
    for digit in digits.chars() {
        code = code * 16 + digit.to_digit(16)?;
    }
    Some((code, rest))
}
