//! JSON as Go's `encoding/json` prints it, and a reader that can say which key is wrong, and where.
//!
//! Uploaded `meta.json` files are compared and hashed byte for byte, so the writer follows Go:
//! tabs, `<`, `>` and `&` as `\u003c` …, U+2028 and U+2029 escaped, empty containers on one line.
//! Values nobody here knows the meaning of are kept as text ([`RawJson`]), because a number that
//! goes through a float does not come back as it was.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::MetaError;

/// How deep a kept value may nest. Indented output grows with the square of the depth, so depth
/// must have a limit; real values nest a handful deep.
pub(super) const NESTING_MAX: usize = 64;

/// A JSON value whose meaning is unknown here: its text without white space, `<`, `>`, `&`, U+2028
/// and U+2029 escaped as Go does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawJson(String);

/// The keys of one JSON object that have no meaning here, in the order they were read. They are
/// written back after the known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownKeys(Vec<(String, RawJson)>);

impl RawJson {
    /// The text, on one line.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl UnknownKeys {
    /// Names and values in the order they were read.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawJson)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A JSON document being read; knows the place of every piece of its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
}

/// The members of one object that have not been taken yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    document: Document<'a>,
    path: String,
    members: Vec<(String, &'a RawValue)>,
}

/// One value and the path of keys that leads to it.
#[derive(Debug)]
pub(super) struct Value<'a> {
    document: Document<'a>,
    path: String,
    raw: &'a RawValue,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The members of the document, which must be one object.
    pub(super) fn fields(self) -> Result<Fields<'a>, MetaError> {
        let members: Members<'a> =
            serde_json::from_str(self.text).map_err(|error| MetaError::Syntax {
                line: error.line(),
                column: error.column(),
                reason: reason(&error),
            })?;
        Fields::new(self, String::new(), members)
    }

    /// Line and column (both from 1) of a piece of this document's text.
    fn place(self, piece: &str) -> (usize, usize) {
        let start = piece
            .as_ptr()
            .addr()
            .wrapping_sub(self.text.as_ptr().addr());
        let before = self.text.as_bytes().get(..start).unwrap_or_default();
        let lines = before.split(|&byte| byte == b'\n');
        let column = lines.clone().next_back().map_or(0, <[u8]>::len);
        (lines.count(), column.saturating_add(1))
    }
}

impl<'a> Fields<'a> {
    fn new(
        document: Document<'a>,
        path: String,
        Members(members): Members<'a>,
    ) -> Result<Self, MetaError> {
        let fields = Self {
            document,
            path,
            members,
        };
        let mut seen = BTreeSet::new();
        for (key, raw) in &fields.members {
            if !seen.insert(key.as_str()) {
                return Err(fields.value(key, raw).invalid("the key appears twice"));
            }
        }
        Ok(fields)
    }

    /// Takes the member `key`; `None` where it is absent or null, which Go does not tell apart.
    pub(super) fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let index = self.members.iter().position(|(name, _)| name == key)?;
        let (_, raw) = self.members.remove(index);
        (raw.get() != "null").then(|| self.value(key, raw))
    }

    /// Takes the member `key`, which must be there.
    pub(super) fn require(&mut self, key: &str) -> Result<Value<'a>, MetaError> {
        self.take(key).ok_or_else(|| MetaError::Missing {
            key: joined(&self.path, key),
        })
    }

    /// Takes the member `key` as a `T`, or the default where it is absent.
    pub(super) fn optional<T: DeserializeOwned + Default>(
        &mut self,
        key: &str,
    ) -> Result<T, MetaError> {
        self.take(key)
            .map_or_else(|| Ok(T::default()), |value| value.read())
    }

    /// What nobody took.
    pub(super) fn unknown(self) -> Result<UnknownKeys, MetaError> {
        let kept = self.members.iter().map(|(key, raw)| {
            let value = self.value(key, raw);
            Ok((key.clone(), value.raw()?))
        });
        kept.collect::<Result<_, _>>().map(UnknownKeys)
    }

    fn value(&self, key: &str, raw: &'a RawValue) -> Value<'a> {
        Value {
            document: self.document,
            path: joined(&self.path, key),
            raw,
        }
    }
}

impl<'a> Value<'a> {
    /// The value as a `T`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, MetaError> {
        serde_json::from_str(self.raw.get()).map_err(|error| self.misread(&error))
    }

    /// The members of the value, which must be an object.
    pub(super) fn fields(&self) -> Result<Fields<'a>, MetaError> {
        let members = serde_json::from_str(self.raw.get()).map_err(|error| self.misread(&error))?;
        Fields::new(self.document, self.path.clone(), members)
    }

    /// The elements of the value, which must be an array.
    pub(super) fn elements(&self) -> Result<Vec<Self>, MetaError> {
        let elements: Vec<&'a RawValue> =
            serde_json::from_str(self.raw.get()).map_err(|error| self.misread(&error))?;
        let numbered = elements.into_iter().enumerate();
        Ok(numbered
            .map(|(index, raw)| Self {
                document: self.document,
                path: format!("{}[{index}]", self.path),
                raw,
            })
            .collect())
    }

    /// The value as text.
    pub(super) fn raw(&self) -> Result<RawJson, MetaError> {
        let compact = compact(self.raw.get());
        let reason = || self.invalid(format!("nests deeper than {NESTING_MAX} levels"));
        compact.map(RawJson).ok_or_else(reason)
    }

    /// The error that this value is not what it must be.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> MetaError {
        let (line, column) = self.document.place(self.raw.get());
        MetaError::Invalid {
            key: self.path.clone(),
            line,
            column,
            reason: reason.into(),
        }
    }

    fn misread(&self, error: &serde_json::Error) -> MetaError {
        let (line, column) = self.document.place(self.raw.get());
        let inner_line = error.line().saturating_sub(1);
        let column = match inner_line {
            0 => column.saturating_add(error.column().saturating_sub(1)),
            _ => error.column(),
        };
        MetaError::Invalid {
            key: self.path.clone(),
            line: line.saturating_add(inner_line),
            column,
            reason: reason(error),
        }
    }
}

/// The members of an object in document order, duplicates included.
#[derive(Debug)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Writes one JSON object on one line; [`indented`] gives it its final form.
#[derive(Debug)]
pub(super) struct ObjectWriter<'o> {
    out: &'o mut String,
    is_empty: bool,
}

impl<'o> ObjectWriter<'o> {
    pub(super) fn begin(out: &'o mut String) -> Self {
        out.push('{');
        Self {
            out,
            is_empty: true,
        }
    }

    /// Writes the key; the caller writes the value.
    pub(super) fn key(&mut self, key: &str) -> &mut String {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        push_string(self.out, key);
        self.out.push(':');
        self.out
    }

    pub(super) fn display(&mut self, key: &str, value: impl fmt::Display) {
        let text = value.to_string();
        self.key(key).push_str(&text);
    }

    pub(super) fn nonzero(&mut self, key: &str, value: u64) {
        if value != 0 {
            self.display(key, value);
        }
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        push_string(self.key(key), value);
    }

    /// Writes the list unless it is empty.
    pub(super) fn nonempty_list<T>(
        &mut self,
        key: &str,
        items: &[T],
        mut write: impl FnMut(&mut String, &T),
    ) {
        if items.is_empty() {
            return;
        }
        let out = self.key(key);
        for (index, item) in items.iter().enumerate() {
            out.push(if index == 0 { '[' } else { ',' });
            write(out, item);
        }
        out.push(']');
    }

    pub(super) fn raw(&mut self, key: &str, value: &RawJson) {
        self.key(key).push_str(value.text());
    }

    pub(super) fn end(mut self, unknown: &UnknownKeys) {
        for (key, value) in unknown.iter() {
            self.raw(key, value);
        }
        self.out.push('}');
    }
}

/// Appends `text` as a JSON string, escaped as Go does by default.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..'\u{20}' => push_escape(out, character),
            _ => push_html_safe(out, character),
        }
    }
    out.push('"');
}

/// The document indented by tabs and ended by a newline.
pub(super) fn indented(compact: &str) -> Vec<u8> {
    let mut out = String::with_capacity(compact.len().saturating_mul(2));
    let mut depth = 0_usize;
    let mut scan = Scan::default();
    let mut characters = compact.chars().peekable();
    while let Some(character) = characters.next() {
        let in_string = scan.is_in_string(character);
        match character {
            '{' | '[' if !in_string => {
                out.push(character);
                match characters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth = depth.saturating_add(1);
                        push_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' if !in_string => {
                depth = depth.saturating_sub(1);
                push_line(&mut out, depth);
                out.push(character);
            }
            ',' if !in_string => {
                out.push(',');
                push_line(&mut out, depth);
            }
            ':' if !in_string => out.push_str(": "),
            _ => out.push(character),
        }
    }
    out.push('\n');
    out.into_bytes()
}

/// The text of a valid JSON value without white space; `None` where it nests too deep.
fn compact(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_usize;
    let mut scan = Scan::default();
    for character in text.chars() {
        if scan.is_in_string(character) {
            push_html_safe(&mut out, character);
            continue;
        }
        match character {
            ' ' | '\t' | '\r' | '\n' => continue,
            '{' | '[' => depth = depth.saturating_add(1),
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return None;
        }
        out.push(character);
    }
    Some(out)
}

/// Tells the characters of strings from those between them.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the next character belongs to a string; its quotation marks do.
    fn is_in_string(&mut self, character: char) -> bool {
        let was_in_string = self.in_string;
        if self.escaped {
            self.escaped = false;
        } else if character == '\\' {
            self.escaped = self.in_string;
        } else if character == '"' {
            self.in_string = !self.in_string;
        }
        was_in_string || self.in_string
    }
}

fn push_html_safe(out: &mut String, character: char) {
    match character {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => push_escape(out, character),
        _ => out.push(character),
    }
}

fn push_escape(out: &mut String, character: char) {
    out.push_str(&format!("\\u{:04x}", u32::from(character)));
}

fn push_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n('\t', depth));
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// What serde_json says, without the place, which is relative to a part of the document.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}
