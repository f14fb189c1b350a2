//! One JSON object per line, with the keys of the logfmt lines.

use serde::Serializer as _;
use serde::ser::SerializeMap as _;

use super::record::{Record, Value};

/// Appends the line with its line feed.
pub(super) fn write_line(record: &Record<'_>, line: &mut Vec<u8>) {
    write_object(record, line).expect("strings and numbers serialize into memory");
    line.push(b'\n');
}

fn write_object(record: &Record<'_>, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut object = serializer.serialize_map(None)?;
    for (key, value) in record.iter() {
        match value {
            Value::Text(text) => object.serialize_entry(key, text)?,
            Value::Bool(value) => object.serialize_entry(key, value)?,
            Value::Signed(value) => object.serialize_entry(key, value)?,
            Value::Unsigned(value) => object.serialize_entry(key, value)?,
            Value::Float(value) if value.is_finite() => object.serialize_entry(key, value)?,
            // JSON has no such number.
            Value::Float(value) => object.serialize_entry(key, &value.to_string())?,
        }
    }
    object.end()
}
