//! Label matchers as they are written: operator, name, value, and their PromQL form.
//!
//! Plain values; [`Matcher::matches`] is for a value here and there, many are compared with a
//! pattern that was compiled once.

use std::fmt::{self, Write as _};

use super::{Pattern, PatternError};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Regex,
    /// `!~`, anchored at both ends.
    NotRegex,
}

/// One condition on a label; a label that a series lacks has the value `""`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Matcher {
    /// How to compare.
    pub op: MatchOp,
    /// Any UTF-8.
    pub name: String,
    /// A value or a pattern, as written.
    pub value: String,
}

/// Matchers as one PromQL selector: `{a="b", c=~"d"}`.
#[derive(Clone, Copy, Debug)]
pub struct Selector<'a>(pub &'a [Matcher]);

/// A string as PromQL writes it, in double quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quoted(f, self.0)
    }
}

impl MatchOp {
    /// The operator in PromQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

impl Matcher {
    /// Whether a label of this value fits.
    ///
    /// # Errors
    /// Where the pattern is none, in Go's view.
    pub fn matches(&self, value: &str) -> Result<bool, PatternError> {
        let is_match = || {
            let compiled = Pattern::parse(self.value.as_bytes())?.compile()?;
            Ok(compiled.is_match(value))
        };
        match self.op {
            MatchOp::Equal => Ok(self.value == value),
            MatchOp::NotEqual => Ok(self.value != value),
            MatchOp::Regex => is_match(),
            MatchOp::NotRegex => is_match().map(|matches| !matches),
        }
    }
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Matcher {
    /// The PromQL form (contract `prometheus.md` §2): the name bare where the grammar allows it,
    /// else quoted like the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_bare(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{matcher}")?;
        }
        f.write_str("}")
    }
}

/// Whether PromQL takes the name without quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
fn is_bare(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    bytes.next().is_some_and(starts) && bytes.all(|byte| starts(byte) || byte.is_ascii_digit())
}

/// Quoted as Go's `%q` does. Only rare unprintable characters (joiners, private use) differ: they
/// stand as they are here, which the grammar reads as the same.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\u{7}' => f.write_str("\\a")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{c}' => f.write_str("\\f")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{b}' => f.write_str("\\v")?,
            c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(f, "\\u{:04x}", u32::from(c))?;
            }
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(op: MatchOp, name: &str, value: &str) -> String {
        let (name, value) = (name.to_owned(), value.to_owned());
        Matcher { op, name, value }.to_string()
    }

    #[test]
    fn every_operator_has_its_sign() {
        assert_eq!(shown(MatchOp::Equal, "a", "b"), r#"a="b""#);
        assert_eq!(shown(MatchOp::NotEqual, "a", "b"), r#"a!="b""#);
        assert_eq!(shown(MatchOp::Regex, "a", "b.*"), r#"a=~"b.*""#);
        assert_eq!(shown(MatchOp::NotRegex, "a", ""), r#"a!~"""#);
    }

    #[test]
    fn names_outside_the_old_alphabet_are_quoted() {
        for bare in ["a", "_", "__name__", "A1_z"] {
            assert_eq!(
                shown(MatchOp::Equal, bare, "x"),
                format!("{bare}=\"x\""),
                "{bare}"
            );
        }
        for quoted in ["", "1a", "a.b", "a:b", "a/b", "ä"] {
            let expected = format!("\"{quoted}\"=\"x\"");
            assert_eq!(shown(MatchOp::Equal, quoted, "x"), expected);
        }
    }

    #[test]
    fn values_are_escaped_as_go_does() {
        let value = "\"\\\u{7}\u{8}\u{c}\n\r\t\u{b}\u{1}\u{7f}\u{85}\u{2028}\u{feff}ä🦀";
        let expected = r#"a="\"\\\a\b\f\n\r\t\v\x01\x7f\u0085\u2028\ufeffä🦀""#;
        assert_eq!(shown(MatchOp::Equal, "a", value), expected);
    }

    #[test]
    fn a_selector_joins_its_matchers() {
        let matcher = |op, name: &str| Matcher {
            op,
            name: name.to_owned(),
            value: "1".to_owned(),
        };
        let matchers = [matcher(MatchOp::Equal, "a"), matcher(MatchOp::Regex, "b")];
        assert_eq!(Selector(&matchers).to_string(), r#"{a="1", b=~"1"}"#);
        assert_eq!(Selector(&[]).to_string(), "{}");
    }
}
