//! A small YAML document whose keys know their lines, read without a schema, so that its owner
//! decides whether an unknown key is told or refused, and every error names key and line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// A document that is not what its owner wants. Never holds text of the document but keys, as
/// there may be secrets in it.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not YAML.
    #[error("the document is not valid YAML")]
    Syntax {
        /// Why and where.
        source: Box<serde_saphyr::Error>,
    },
    /// A value of another type than wanted.
    #[error("{key} in line {line} must be {wanted}")]
    WrongType {
        /// The key with those around it.
        key: String,
        /// Its line, from 1.
        line: u64,
        /// What it should be.
        wanted: &'static str,
    },
    /// A key that means nothing, in a document where that is an error.
    #[error("{key}; known there are {known}")]
    UnknownKey {
        /// The key and its line.
        key: UnknownKey,
        /// The keys that mean something in its place, with commas.
        known: String,
    },
}

/// A key that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown key `{key}` in line {line}")]
pub struct UnknownKey {
    /// The key with those around it, joined by dots.
    pub key: String,
    /// Its line, from 1.
    pub line: u64,
}

/// A mapping of the document; what is not taken from it is unknown.
pub struct Mapping<'a> {
    source: &'a str,
    /// The keys above this one.
    path: String,
    /// The line of its own key.
    line: u64,
    entries: Vec<Entry>,
    /// The keys that were asked for, for the error about another one.
    asked: Vec<&'static str>,
}

/// A scalar with what an error about it must say. May be a secret: without `Debug`.
#[expect(missing_debug_implementations, reason = "the text may be a secret")]
pub struct Scalar {
    /// As it is written, without quotes.
    pub text: String,
    /// The key with those around it, joined by dots.
    pub key: String,
    /// The key's line, from 1.
    pub line: u64,
}

struct Entry {
    key: Spanned<String>,
    value: Spanned<Node>,
}

enum Node {
    Mapping(Vec<Entry>),
    Sequence(Vec<Spanned<Node>>),
    /// A scalar that the resolver takes for a string.
    Text(String),
    /// A number or boolean: what counts is how it is written (`0123` is a fine password).
    Plain,
    Null,
}

// === impl Mapping ===

impl<'a> Mapping<'a> {
    /// Reads a document whose root is a mapping; an empty document is an empty one.
    ///
    /// # Errors
    /// Where it is not YAML, or something else than a mapping.
    pub fn parse(source: &'a str) -> Result<Self, DocumentError> {
        // Snippets of the document, with its passwords, have no place in an error.
        let options = serde_saphyr::options! { with_snippet: false };
        let root: Spanned<Node> =
            serde_saphyr::from_str_with_options(source, options).map_err(|source| {
                DocumentError::Syntax {
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
    ) -> Result<Self, DocumentError> {
        let entries = match node.value {
            Node::Mapping(entries) => entries,
            Node::Null => Vec::new(),
            _ => return Err(wrong_type(path, line, "a mapping")),
        };
        Ok(Self {
            source,
            path: path.to_owned(),
            line,
            entries,
            asked: Vec::new(),
        })
    }

    /// The line of the key that this mapping stands under, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether nothing is in it, or nothing any more.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The mapping under `key`; empty where there is none.
    ///
    /// # Errors
    /// Where something else stands there.
    pub fn mapping(&mut self, key: &'static str) -> Result<Self, DocumentError> {
        let path = self.path_of(key);
        match self.take(key) {
            None => Ok(Self {
                source: self.source,
                path,
                line: self.line,
                entries: Vec::new(),
                asked: Vec::new(),
            }),
            Some(entry) => Self::of(&path, entry.key.referenced.line(), entry.value, self.source),
        }
    }

    /// The scalar under `key` as it is written; `None` where it is absent, null or empty.
    ///
    /// # Errors
    /// Where a mapping or list stands there.
    pub fn scalar(&mut self, key: &'static str) -> Result<Option<Scalar>, DocumentError> {
        let path = self.path_of(key);
        let Some(entry) = self.take(key) else {
            return Ok(None);
        };
        let line = entry.key.referenced.line();
        let scalar = self.scalar_of(path, line, &entry.value)?;
        Ok(scalar.filter(|scalar| !scalar.text.is_empty()))
    }

    /// The list of scalars under `key`; `None` where it is absent or null.
    ///
    /// # Errors
    /// Where something else than a list stands there, or in the list.
    pub fn scalars(&mut self, key: &'static str) -> Result<Option<Vec<Scalar>>, DocumentError> {
        let path = self.path_of(key);
        let Some(nodes) = self.sequence(key, "a list of texts")? else {
            return Ok(None);
        };
        let scalar = |node: Spanned<Node>| {
            let line = node.referenced.line();
            let scalar = self.scalar_of(path.clone(), line, &node)?;
            scalar.ok_or_else(|| wrong_type(&path, line, "a list of texts"))
        };
        nodes
            .into_iter()
            .map(scalar)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The list of mappings under `key`; empty where it is absent or null.
    ///
    /// # Errors
    /// Where something else than a list stands there, or in the list.
    pub fn mappings(&mut self, key: &'static str) -> Result<Vec<Self>, DocumentError> {
        let path = self.path_of(key);
        let nodes = self
            .sequence(key, "a list of mappings")?
            .unwrap_or_default();
        let mapping = |node: Spanned<Node>| {
            let line = node.referenced.line();
            Self::of(&path, line, node, self.source)
        };
        nodes.into_iter().map(mapping).collect()
    }

    /// All that is left, each name with its scalar, in the order of the document; null is the
    /// empty text. For mappings whose keys are names of their owner's users.
    ///
    /// # Errors
    /// Where a value is a mapping or list.
    pub fn named_scalars(mut self) -> Result<Vec<(String, Scalar)>, DocumentError> {
        let entries = std::mem::take(&mut self.entries);
        let named = |entry: Entry| {
            let path = self.path_of(&entry.key.value);
            let line = entry.key.referenced.line();
            let scalar = self.scalar_of(path.clone(), line, &entry.value)?;
            let scalar = scalar.unwrap_or(Scalar {
                text: String::new(),
                key: path,
                line,
            });
            Ok((entry.key.value, scalar))
        };
        entries.into_iter().map(named).collect()
    }

    /// The text under `key`; see [`Self::scalar`].
    ///
    /// # Errors
    /// Where a mapping or list stands there.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, DocumentError> {
        Ok(self.scalar(key)?.map(|scalar| scalar.text))
    }

    /// The boolean under `key`, in YAML 1.1's spellings, which the reference takes.
    ///
    /// # Errors
    /// Where something else stands there.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, DocumentError> {
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
    ///
    /// # Errors
    /// Where something else stands there.
    pub fn integer(
        &mut self,
        key: &'static str,
        wanted: &'static str,
    ) -> Result<Option<i64>, DocumentError> {
        let Some(scalar) = self.scalar(key)? else {
            return Ok(None);
        };
        match parse_integer(&scalar.text) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_type(&scalar.key, scalar.line, wanted)),
        }
    }

    /// Refuses the first key that nobody took.
    ///
    /// # Errors
    /// Where there is one; the keys that would have been taken are named.
    pub fn end(self) -> Result<(), DocumentError> {
        let known = self.asked.join(", ");
        match self.unknown().into_iter().next() {
            None => Ok(()),
            Some(key) => Err(DocumentError::UnknownKey { key, known }),
        }
    }

    /// The keys that nobody took.
    pub fn unknown(self) -> Vec<UnknownKey> {
        let unknown = |entry: &Entry| UnknownKey {
            key: self.path_of(&entry.key.value),
            line: entry.key.referenced.line(),
        };
        self.entries.iter().map(unknown).collect()
    }

    fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.asked.push(key);
        let at = self
            .entries
            .iter()
            .position(|entry| entry.key.value == key)?;
        Some(self.entries.remove(at))
    }

    fn sequence(
        &mut self,
        key: &'static str,
        wanted: &'static str,
    ) -> Result<Option<Vec<Spanned<Node>>>, DocumentError> {
        let path = self.path_of(key);
        let Some(entry) = self.take(key) else {
            return Ok(None);
        };
        let line = entry.key.referenced.line();
        match entry.value.value {
            Node::Null => Ok(None),
            Node::Sequence(nodes) => Ok(Some(nodes)),
            _ => Err(wrong_type(&path, line, wanted)),
        }
    }

    fn scalar_of(
        &self,
        key: String,
        line: u64,
        node: &Spanned<Node>,
    ) -> Result<Option<Scalar>, DocumentError> {
        let text = match &node.value {
            Node::Null => return Ok(None),
            Node::Text(text) => text.clone(),
            Node::Plain => written(self.source, &node.defined).to_owned(),
            Node::Mapping(_) | Node::Sequence(_) => {
                return Err(wrong_type(&key, line, "a single value"));
            }
        };
        Ok(Some(Scalar { text, key, line }))
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

fn wrong_type(key: &str, line: u64, wanted: &'static str) -> DocumentError {
    DocumentError::WrongType {
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

impl fmt::Debug for Mapping<'_> {
    /// Without values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.entries.iter().map(|entry| &entry.key.value);
        f.debug_set().entries(keys).finish()
    }
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
        let mut nodes = Vec::new();
        while let Some(node) = sequence.next_element()? {
            nodes.push(node);
        }
        Ok(Node::Sequence(nodes))
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

    #[test]
    fn lists_and_named_scalars_know_their_lines() {
        let source = "a:\n- x\n- 5\nb:\n- {c: 1}\n- d: 2\nu:\n  one: p\n  2: ~\n";
        let mut root = Mapping::parse(source).unwrap();
        let a = root.scalars("a").unwrap().unwrap();
        let a: Vec<_> = a.iter().map(|s| (s.text.as_str(), s.line)).collect();
        assert_eq!(a, [("x", 2), ("5", 3)]);
        let mut b = root.mappings("b").unwrap();
        assert_eq!(b[0].text("c").unwrap().unwrap(), "1");
        assert_eq!(b[1].scalar("d").unwrap().unwrap().line, 6);
        let named = root.mapping("u").unwrap().named_scalars().unwrap();
        let named: Vec<_> = named
            .iter()
            .map(|(name, s)| (name.as_str(), s.text.as_str(), s.line))
            .collect();
        assert_eq!(named, [("one", "p", 8), ("2", "", 9)]);
        root.end().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_with_key_and_line() {
        let said = |source: &str, read: fn(&mut Mapping<'_>) -> Result<(), DocumentError>| {
            let mut root = Mapping::parse(source).unwrap();
            let outcome = read(&mut root).and_then(|()| root.end());
            outcome.unwrap_err().to_string()
        };
        let list = |root: &mut Mapping<'_>| root.scalars("a").map(drop);
        assert_eq!(
            said("\na: x\n", list),
            "`a` in line 2 must be a list of texts"
        );
        assert_eq!(
            said("a:\n- [x]\n", list),
            "`a` in line 2 must be a single value"
        );
        assert_eq!(
            said("a:\n- ~\n", list),
            "`a` in line 2 must be a list of texts"
        );
        assert_eq!(
            said("b: x\n", list),
            "unknown key `b` in line 1; known there are a"
        );
        let nested = |root: &mut Mapping<'_>| root.mapping("m").and_then(Mapping::end);
        assert_eq!(
            said("m:\n  x: 1\n", nested),
            "unknown key `m.x` in line 2; known there are "
        );
        assert_eq!(said("m: [1]\n", nested), "`m` in line 1 must be a mapping");
        let error = Mapping::parse("a: 1\na: 2\n").unwrap_err();
        assert!(matches!(error, DocumentError::Syntax { .. }), "{error:?}");
        let error = Mapping::parse("- 1\n").unwrap_err().to_string();
        assert_eq!(error, "the document in line 1 must be a mapping");
    }
}
