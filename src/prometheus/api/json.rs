//! The API's envelope around a list that is too long to hold: a scanner that yields one element at
//! a time.
//!
//! It finds where values begin and end; serde_json reads each of them. The envelope's keys may
//! stand in any order with any whitespace between them. What is held is one element, under a
//! limit, and the small values beside the list.

use bytes::{Buf, Bytes, BytesMut};

/// The longest element of the list: a label set.
pub const SERIES_OBJECT_BYTES_MAX: usize = 4 << 20;
/// The longest key, and the longest value beside the list: warnings.
const KEY_BYTES_MAX: usize = 1 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;

/// The answer is not JSON of the form expected.
#[derive(Debug, thiserror::Error)]
#[error("at byte {offset}: {what}")]
pub struct JsonError {
    /// Where in the body, in bytes from 0.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// What the scanner comes upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// An element of `data`.
    Element(Bytes),
    /// The value of another key.
    Beside(String, Bytes),
    /// The end of the envelope.
    End,
}

/// Where in the envelope the next byte stands.
#[derive(Debug, Default)]
pub(super) struct EnvelopeScanner {
    state: State,
    value: ValueScan,
    key: String,
    offset: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// At the first key, or the end.
    FirstKey,
    Key,
    Colon,
    Value,
    /// In `data`, at the first element or its end.
    FirstElement,
    Element,
    AfterElement,
    AfterValue,
    Done,
}

/// How far the end of one value has been looked for.
#[derive(Clone, Copy, Debug, Default)]
struct ValueScan {
    scanned: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl EnvelopeScanner {
    /// The next item at the front of `buffer`, which is consumed; `None` where more must come.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, JsonError> {
        loop {
            self.skip_space(buffer);
            let Some(&byte) = buffer.first() else {
                return Ok((self.state == State::Done).then_some(Item::End));
            };
            self.state = match (self.state, byte) {
                (State::Start, b'{') => self.step(buffer, State::FirstKey),
                (State::FirstKey | State::AfterValue, b'}') => self.step(buffer, State::Done),
                (State::AfterValue, b',') => self.step(buffer, State::Key),
                (State::FirstKey | State::Key, b'"') => {
                    let Some(key) = self.whole_value(buffer, KEY_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.key = self.parsed(&key)?;
                    State::Colon
                }
                (State::Colon, b':') => self.step(buffer, State::Value),
                (State::Value, b'[') if self.key == "data" && self.value.scanned == 0 => {
                    self.step(buffer, State::FirstElement)
                }
                (State::FirstElement | State::AfterElement, b']') => {
                    self.step(buffer, State::AfterValue)
                }
                (State::AfterElement, b',') => self.step(buffer, State::Element),
                (State::Value, _) => {
                    let Some(value) = self.whole_value(buffer, VALUE_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.state = State::AfterValue;
                    return Ok(Some(Item::Beside(std::mem::take(&mut self.key), value)));
                }
                (State::FirstElement | State::Element, _) => {
                    let Some(value) = self.whole_value(buffer, SERIES_OBJECT_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.state = State::AfterElement;
                    return Ok(Some(Item::Element(value)));
                }
                (State::Done, _) => return Err(self.error("bytes follow the end")),
                (State::Start, _) => return Err(self.error("no object begins")),
                (State::FirstKey | State::Key, _) => return Err(self.error("no key begins")),
                (State::Colon, _) => return Err(self.error("no colon follows a key")),
                (State::AfterElement | State::AfterValue, _) => {
                    return Err(self.error("no comma follows a value"));
                }
            };
        }
    }

    /// An error at the first byte that is not consumed.
    pub(super) fn error(&self, what: impl Into<String>) -> JsonError {
        JsonError {
            offset: self.offset,
            what: what.into(),
        }
    }

    /// Reads a value that was yielded last.
    pub(super) fn parsed<'de, T: serde::Deserialize<'de>>(
        &self,
        value: &'de [u8],
    ) -> Result<T, JsonError> {
        serde_json::from_slice(value).map_err(|error| self.error(error.to_string()))
    }

    fn skip_space(&mut self, buffer: &mut BytesMut) {
        // Within a value, which begins at the front, nothing is skipped.
        if self.value.scanned > 0 {
            return;
        }
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let spaces = buffer.iter().take_while(is_space).count();
        self.consume(buffer, spaces);
    }

    fn step(&mut self, buffer: &mut BytesMut, next: State) -> State {
        self.consume(buffer, 1);
        next
    }

    fn consume(&mut self, buffer: &mut BytesMut, bytes: usize) {
        buffer.advance(bytes);
        self.offset = self.offset.saturating_add(bytes as u64);
    }

    fn whole_value(
        &mut self,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, JsonError> {
        let end = self.value.end(buffer);
        if end.unwrap_or(buffer.len()) > bytes_max {
            return Err(self.error(format!("a value is longer than {bytes_max} bytes")));
        }
        let Some(end) = end else {
            return Ok(None);
        };
        if end == 0 {
            return Err(self.error("a value is missing"));
        }
        self.value = ValueScan::default();
        self.offset = self.offset.saturating_add(end as u64);
        Ok(Some(buffer.split_to(end).freeze()))
    }
}

impl ValueScan {
    /// The length of the value at the front of `buffer`, once its end is there. Each byte is looked
    /// at once, however often this is called while the value grows.
    fn end(&mut self, buffer: &[u8]) -> Option<usize> {
        let rest = buffer.get(self.scanned..).unwrap_or_default();
        for (ahead, &byte) in rest.iter().enumerate() {
            let position = self.scanned.saturating_add(ahead);
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(position.saturating_add(1));
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => {
                    return Some(position);
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(position.saturating_add(1));
                    }
                }
                _ => {}
            }
        }
        self.scanned = buffer.len();
        None
    }
}
