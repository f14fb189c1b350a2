//! The API's envelope around a list that is too long to hold: a scanner that yields one element at
//! a time.
//!
//! It finds where values begin and end; serde_json reads each of them. The envelope's keys may
//! stand in any order with any whitespace between them. What is held is one element, under a
//! limit, and the small values beside the list. Where the list stands, and what its elements may
//! be, is a [`Layout`].

use bytes::{Buf, Bytes, BytesMut};

/// The longest element of the list: a label set.
pub const SERIES_OBJECT_BYTES_MAX: usize = 4 << 20;
/// The longest key.
const KEY_BYTES_MAX: usize = 1 << 10;
/// The most members that an element whose members are marked has.
pub(super) const MEMBERS_MAX: usize = 16;

/// What form an answer has.
#[derive(Debug)]
pub(super) struct Layout {
    /// The keys that lead to the list; all but the last lead to objects.
    pub(super) path: &'static [&'static str],
    /// The longest element.
    pub(super) element_bytes_max: usize,
    /// The longest value beside the list.
    pub(super) value_bytes_max: usize,
    /// Whether to note where the members of an element, which is an object then, stand.
    pub(super) marks_members: bool,
}

/// `/api/v1/series`: label sets under `data`; warnings are beside it.
pub(super) static SERIES: Layout = Layout {
    path: &["data"],
    element_bytes_max: SERIES_OBJECT_BYTES_MAX,
    value_bytes_max: 1 << 20,
    marks_members: false,
};

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
    /// The list begins; its elements follow.
    List,
    /// An element of the list.
    Element(Bytes),
    /// The value of another key.
    Beside {
        /// How many objects of the path it stands in: 0 for the envelope's own keys.
        depth: usize,
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// The end of the envelope.
    End,
}

/// Where in the envelope the next byte stands.
#[derive(Debug)]
pub(super) struct EnvelopeScanner {
    layout: &'static Layout,
    state: State,
    /// How many objects of the path are open.
    depth: usize,
    /// Whether what stands where the list would is one value.
    list_is_value: bool,
    value: ValueScan,
    /// Where colons and commas stand between the members of the last element.
    marks: Vec<usize>,
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
    /// In the list, at the first element or its end.
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
    /// At the start of an answer.
    pub(super) fn new(layout: &'static Layout) -> Self {
        Self {
            layout,
            state: State::Start,
            depth: 0,
            list_is_value: false,
            value: ValueScan::default(),
            marks: Vec::new(),
            key: String::new(),
            offset: 0,
        }
    }

    /// From now on, what stands where the list would is one value, which comes beside it.
    pub(super) fn take_list_as_value(&mut self) {
        self.list_is_value = true;
    }

    /// Bytes of the answer that are consumed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where in the element that came last a colon or comma stands between its members, where the
    /// layout asks for them; no more than those of [`MEMBERS_MAX`] members and one.
    pub(super) fn marks(&self) -> &[usize] {
        &self.marks
    }

    /// The next item at the front of `buffer`, which is consumed; `None` where more must come.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, JsonError> {
        loop {
            self.skip_space(buffer);
            let Some(&byte) = buffer.first() else {
                return Ok((self.state == State::Done).then_some(Item::End));
            };
            self.state = match (self.state, byte) {
                (State::Start, b'{') => self.step(buffer, State::FirstKey),
                (State::FirstKey | State::AfterValue, b'}') => {
                    let next = self.closed();
                    self.step(buffer, next)
                }
                (State::AfterValue, b',') => self.step(buffer, State::Key),
                (State::FirstKey | State::Key, b'"') => {
                    let Some(key) = self.whole_value(buffer, KEY_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.key = self.parsed(&key)?;
                    State::Colon
                }
                (State::Colon, b':') => self.step(buffer, State::Value),
                (State::Value, b'{') if self.is_on_path() => {
                    self.depth = self.depth.saturating_add(1);
                    self.step(buffer, State::FirstKey)
                }
                (State::Value, b'[') if self.is_at_list() => {
                    self.state = self.step(buffer, State::FirstElement);
                    return Ok(Some(Item::List));
                }
                (State::FirstElement | State::AfterElement, b']') => {
                    self.step(buffer, State::AfterValue)
                }
                (State::AfterElement, b',') => self.step(buffer, State::Element),
                (State::Value, _) => return self.value_beside(buffer),
                (State::FirstElement | State::Element, _) => return self.element(buffer),
                (state, _) => return Err(self.error(state.expected())),
            };
        }
    }

    /// The value of the key just read.
    fn value_beside(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, JsonError> {
        let bytes_max = match self.stands_where_the_list_does() {
            true => self.layout.element_bytes_max,
            false => self.layout.value_bytes_max,
        };
        let Some(value) = self.whole_value(buffer, bytes_max)? else {
            return Ok(None);
        };
        self.state = State::AfterValue;
        Ok(Some(Item::Beside {
            depth: self.depth,
            key: std::mem::take(&mut self.key),
            value,
        }))
    }

    fn element(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, JsonError> {
        let Some(value) = self.whole_value(buffer, self.layout.element_bytes_max)? else {
            return Ok(None);
        };
        self.state = State::AfterElement;
        Ok(Some(Item::Element(value)))
    }

    /// What follows the end of an object.
    fn closed(&mut self) -> State {
        match self.depth.checked_sub(1) {
            None => State::Done,
            Some(outer) => {
                self.depth = outer;
                State::AfterValue
            }
        }
    }

    /// Whether an object that begins here is one that the list is in.
    fn is_on_path(&self) -> bool {
        let is_inner = self.depth.saturating_add(1) < self.layout.path.len();
        is_inner && self.value.scanned == 0 && self.is_key_of_path()
    }

    /// Whether an array that begins here is the list.
    fn is_at_list(&self) -> bool {
        !self.list_is_value && self.value.scanned == 0 && self.stands_where_the_list_does()
    }

    fn stands_where_the_list_does(&self) -> bool {
        self.depth.saturating_add(1) == self.layout.path.len() && self.is_key_of_path()
    }

    fn is_key_of_path(&self) -> bool {
        let key = self.layout.path.get(self.depth);
        key.is_some_and(|key| *key == self.key)
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
        if self.value.scanned == 0 {
            self.marks.clear();
        }
        let is_element = matches!(self.state, State::FirstElement | State::Element);
        let end = match self.layout.marks_members && is_element {
            true => self.value.end(buffer, Some(&mut self.marks)),
            false => self.value.end(buffer, None),
        };
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

impl State {
    /// What is wrong where no other byte is understood.
    fn expected(self) -> &'static str {
        match self {
            Self::Start => "no object begins",
            Self::FirstKey | Self::Key => "no key begins",
            Self::Colon => "no colon follows a key",
            Self::Value | Self::FirstElement | Self::Element => "no value begins",
            Self::AfterElement | Self::AfterValue => "no comma follows a value",
            Self::Done => "bytes follow the end",
        }
    }
}

impl ValueScan {
    /// The length of the value at the front of `buffer`, once its end is there. Each byte is looked
    /// at once, however often this is called while the value grows.
    /// `marks` gets the places of colons and commas between members of an object.
    fn end(&mut self, buffer: &[u8], mut marks: Option<&mut Vec<usize>>) -> Option<usize> {
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
                b':' | b',' if self.depth == 1 => {
                    if let Some(marks) = &mut marks
                        && marks.len() <= 2 * MEMBERS_MAX
                    {
                        marks.push(position);
                    }
                }
                _ => {}
            }
        }
        self.scanned = buffer.len();
        None
    }
}
