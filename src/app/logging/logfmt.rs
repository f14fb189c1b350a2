//! Logfmt with go-kit's quoting.
//!
//! A value is quoted where it holds a blank, a control character, `=`, `"` or U+FFFD; within
//! quotes the escapes are JSON's. A backslash alone needs no quotes. An empty value is nothing
//! after the `=`, and the text `null` is quoted, because bare it means no value.

use std::fmt::Write as _;

use super::record::{Record, Value};

/// Appends the line with its line feed.
pub(super) fn write_line(record: &Record<'_>, line: &mut String) {
    for (at, (key, value)) in record.iter().enumerate() {
        if at > 0 {
            line.push(' ');
        }
        write_key(key, line);
        line.push('=');
        match value {
            Value::Text(text) => write_text(text, line),
            Value::Bool(value) => append(line, value),
            Value::Signed(value) => append(line, value),
            Value::Unsigned(value) => append(line, value),
            Value::Float(value) => append(line, value),
        }
    }
    line.push('\n');
}

fn append(line: &mut String, value: &dyn std::fmt::Display) {
    write!(line, "{value}").expect("a String takes any text");
}

/// Whether a character cannot stand bare.
fn is_special(c: char) -> bool {
    c <= ' ' || matches!(c, '=' | '"' | '\u{7f}' | char::REPLACEMENT_CHARACTER)
}

/// Keys have no quotes; what they cannot hold is left out.
fn write_key(key: &str, line: &mut String) {
    let start = line.len();
    line.extend(key.chars().filter(|c| !is_special(*c)));
    if line.len() == start {
        line.push('_');
    }
}

fn write_text(text: &str, line: &mut String) {
    if text == "null" {
        line.push_str("\"null\"");
        return;
    }
    if !text.contains(is_special) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            char::REPLACEMENT_CHARACTER => line.push_str("\\ufffd"),
            c if c < ' ' || c == '\u{7f}' => {
                write!(line, "\\u{:04x}", u32::from(c)).expect("a String takes any text");
            }
            c => line.push(c),
        }
    }
    line.push('"');
}
