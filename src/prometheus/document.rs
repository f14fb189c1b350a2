//! A small YAML document whose keys know their lines, read without a schema so that unknown keys
//! can be told instead of refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::http_client::HttpClientConfigError;

/// A key that means nothing, in a document where that is no error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown key `{key}` in line {line}")]
pub struct UnknownKey {
    /// The key with those around it, joined by dots.
    pub key: String,
    /// Its line, from 1.
    pub line: u64,
}

/// A mapping of the document; what is not taken from it is unknown.
#[derive(Debug)]
pub(super) struct Mapping<'a> {
    source: &'a str,
    /// The keys above this one.
    path: String,
    entries: Vec<Entry>,
}

/// A scalar with what an error about it must say.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) key: String,
    pub(super) line: u64,
}

#[derive(Debug)]
struct Entry {
    key: Spanned<String>,
    value: Spanned<Node>,
}

#[derive(Debug)]
enum Node {
    Mapping(Vec<Entry>),
    Sequence,
    /// A scalar that the resolver takes for a string.
    Text(String),
    /// A number or boolean: what counts is how it is written (`0123` is a fine password).
    Plain,
    Null,
}

// === impl Mapping ===

impl<'a> Mapping<'a> {
    /// Reads a document whose root is a mapping; an empty document is an empty one.
    pub(super) fn parse(source: &'a str) -> Result<Self, HttpClientConfigError> {
        // Snippets of the document, with its passwords, have no place in an error.
        let options = serde_saphyr::options! { with_snippet: false };
        let root: Spanned<Node> =
            serde_saphyr::from_str_with_options(source, options).map_err(|source| {
                HttpClientConfigError::Syntax {
                    source: Box::new(source),
                }
            })?;
        let line = root.referenced.line();
        Self::of("", line, root, source)
    }

    fn of(
        path: &str,
        line: u64,
        node: Spanned<Node>,
        source: &'a str,
    ) -> Result<Self, HttpClientConfigError> {
        let entries = match node.value {
            Node::Mapping(entries) => entries,
            Node::Null => Vec::new(),
            _ => return Err(wrong_type(path, line, "a mapping")),
        };
        Ok(Self {
            source,
            path: path.to_owned(),
            entries,
        })
    }

    /// The mapping under `key`; empty where there is none.
    pub(super) fn mapping(&mut self, key: &str) -> Result<Self, HttpClientConfigError> {
        let path = self.path_of(key);
        match self.take(key) {
            None => Ok(Self {
                source: self.source,
                path,
                entries: Vec::new(),
            }),
            Some(entry) => Self::of(&path, entry.key.referenced.line(), entry.value, self.source),
        }
    }

    /// The scalar under `key` as it is written; `None` where it is absent, null or empty.
    pub(super) fn scalar(&mut self, key: &str) -> Result<Option<Scalar>, HttpClientConfigError> {
        let path = self.path_of(key);
        let Some(entry) = self.take(key) else {
            return Ok(None);
        };
        let line = entry.key.referenced.line();
        let text = match entry.value.value {
            Node::Null => return Ok(None),
            Node::Text(text) => text,
            Node::Plain => written(self.source, &entry.value.defined).to_owned(),
            Node::Mapping(_) | Node::Sequence => {
                return Err(wrong_type(&path, line, "a single value"));
            }
        };
        Ok((!text.is_empty()).then_some(Scalar {
            text,
            key: path,
            line,
        }))
    }

    /// The text under `key`.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, HttpClientConfigError> {
        Ok(self.scalar(key)?.map(|scalar| scalar.text))
    }

    /// The boolean under `key`, in YAML 1.1's spellings, which the reference takes.
    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, HttpClientConfigError> {
        let Some(scalar) = self.scalar(key)? else {
            return Ok(None);
        };
        match scalar.text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(Some(true)),
            "false" | "no" | "off" | "n" => Ok(Some(false)),
            _ => Err(wrong_type(&scalar.key, scalar.line, "true or false")),
        }
    }

    /// The whole number under `key`; `wanted` says what it counts.
    pub(super) fn integer(
        &mut self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<i64>, HttpClientConfigError> {
        let Some(scalar) = self.scalar(key)? else {
            return Ok(None);
        };
        match parse_integer(&scalar.text) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_type(&scalar.key, scalar.line, wanted)),
        }
    }

    /// The keys that nobody took.
    pub(super) fn unknown(self) -> Vec<UnknownKey> {
        let unknown = |entry: &Entry| UnknownKey {
            key: self.path_of(&entry.key.value),
            line: entry.key.referenced.line(),
        };
        self.entries.iter().map(unknown).collect()
    }

    fn take(&mut self, key: &str) -> Option<Entry> {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.key.value == key)?;
        Some(self.entries.remove(at))
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

fn wrong_type(key: &str, line: u64, wanted: &'static str) -> HttpClientConfigError {
    HttpClientConfigError::WrongType {
        key: match key {
            "" => "the document".to_owned(),
            key => format!("`{key}`"),
        },
        line,
        wanted,
    }
}

/// The characters of the source at this place.
fn written<'a>(source: &'a str, place: &Location) -> &'a str {
    let span = place.span();
    let range = || {
        let from = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        source.get(from..from.checked_add(length)?)
    };
    range().unwrap_or_default()
}

/// Decimal, `0x`, `0o`, with `_` between digits, or a float without fraction (`90e9`): what the
/// reference's YAML reader takes for an integer.
fn parse_integer(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok();
    }
    let float: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked: no fraction and within 2^53"
    )]
    (float.fract() == 0.0 && float.abs() <= 9e15).then_some(float as i64)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            let value = map.next_value()?;
            entries.push(Entry { key, value });
        }
        Ok(Node::Mapping(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        while sequence.next_element::<Node>()?.is_some() {}
        Ok(Node::Sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_what_the_reference_takes() {
        for (text, expected) in [
            ("90000000000", Some(90_000_000_000)),
            ("-1", Some(-1)),
            ("1_000", Some(1000)),
            ("0x10", Some(16)),
            ("90e9", Some(90_000_000_000)),
            ("1.5", None),
            ("90s", None),
            ("1e300", None),
        ] {
            assert_eq!(parse_integer(text), expected, "{text}");
        }
    }

    #[test]
    fn scalars_are_taken_as_they_are_written() {
        let source = "ü: {p: 0123}\na: 1.50\nb: 'x y'\nc: ~\nd: yes\ne: \"\"\n";
        let mut root = Mapping::parse(source).unwrap();
        assert_eq!(
            root.mapping("ü").unwrap().text("p").unwrap().unwrap(),
            "0123"
        );
        assert_eq!(root.text("a").unwrap().unwrap(), "1.50");
        assert_eq!(root.text("b").unwrap().unwrap(), "x y");
        assert_eq!(root.text("c").unwrap(), None);
        assert_eq!(root.text("d").unwrap().unwrap(), "yes");
        assert_eq!(root.text("e").unwrap(), None);
        assert!(root.unknown().is_empty());
    }
}
