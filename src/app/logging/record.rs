//! What a log line says, before it is text: fields in their order, no key twice.

use std::borrow::Cow;
use std::fmt;

use tracing::field::{Field, Visit};

use crate::model::ErrorChain;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
}

/// The fields of one span or event, in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

/// One line: keys and values.
#[derive(Debug, Default)]
pub(super) struct Record<'a>(Vec<(Cow<'a, str>, Cow<'a, Value>)>);

// === impl Fields ===

impl Fields {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    fn set(&mut self, field: &Field, value: Value) {
        // A span's field may be recorded again later; the latest value counts.
        let name = field.name();
        let key = name.strip_prefix("r#").unwrap_or(name);
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.0.push((key, value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Signed(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Unsigned(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.set(field, Value::Signed(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.set(field, Value::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::Text(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, Value::Text(ErrorChain(value).to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::Text(format!("{value:?}")));
    }
}

// === impl Record ===

impl<'a> Record<'a> {
    /// Adds a field. A key that is taken gets a `_` appended, so that a field called `level`
    /// neither hides the line's level nor gets lost.
    pub(super) fn push(&mut self, key: &'a str, value: Cow<'a, Value>) {
        let mut key = Cow::Borrowed(key);
        while self.0.iter().any(|(taken, _)| *taken == key) {
            key.to_mut().push('_');
        }
        self.0.push((key, value));
    }

    pub(super) fn push_text(&mut self, key: &'a str, text: String) {
        self.push(key, Cow::Owned(Value::Text(text)));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_ref()))
    }
}
