//! The two offset tables: a key of one or two texts, and where its list begins.

use std::ops::Range;

use super::Tally;
use super::frames::Body;
use super::symbols::within_limit;
use super::text::{Text, keep};
use crate::tsdb::decode::{Carry, Run};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// The rules of one of the tables.
pub(super) trait Table {
    const SECTION: Section;
    const WHAT: &'static str;
    /// Texts in a key, which each entry repeats.
    const KEY_TEXTS: u64;
    /// Whether the first entry, and no other, has the empty key (that of all series).
    const EMPTY_KEY_FIRST: bool;
}

/// Keys are label names.
#[derive(Debug)]
pub(super) struct LabelTable;

/// Keys are label names and values.
#[derive(Debug)]
pub(super) struct PostingsTable;

impl Table for LabelTable {
    const SECTION: Section = Section::LabelOffsetTable;
    const WHAT: &'static str = "the label offset table";
    const KEY_TEXTS: u64 = 1;
    const EMPTY_KEY_FIRST: bool = false;
}

impl Table for PostingsTable {
    const SECTION: Section = Section::PostingsOffsetTable;
    const WHAT: &'static str = "the postings offset table";
    const KEY_TEXTS: u64 = 2;
    const EMPTY_KEY_FIRST: bool = true;
}

/// Checks an offset table.
#[derive(Debug)]
pub(super) struct OffsetTable<T> {
    /// Whether keys must ascend strictly. Those of version 1 are in no order.
    sorted: bool,
    state: State,
    carry: Carry,
    text: Text,
    start: u64,
    body_end: u64,
    declared: u64,
    found: u64,
    /// The key of the entry before, overwritten by this one's texts as they come.
    key: [Vec<u8>; 2],
    /// Whether this key is already known to come after the one before.
    is_after: bool,
    is_empty: bool,
    /// Where the entries point.
    pub(super) offsets: Tally,
    /// Where the first entry points.
    pub(super) first: Option<u64>,
    table: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Count,
    KeyTexts,
    Length { text: u64 },
    Text { text: u64 },
    Offset,
}

impl<T: Table> OffsetTable<T> {
    pub(super) fn new(version: u8) -> Self {
        Self {
            sorted: version != 1 && T::EMPTY_KEY_FIRST,
            state: State::Count,
            carry: Carry::default(),
            text: Text::default(),
            start: 0,
            body_end: 0,
            declared: 0,
            found: 0,
            key: [Vec::new(), Vec::new()],
            is_after: true,
            is_empty: true,
            offsets: Tally::default(),
            first: None,
            table: std::marker::PhantomData,
        }
    }

    /// Decodes the next value; `false` when the run ended first.
    fn step(&mut self, run: &mut Run<'_>) -> Result<bool, DecodeErrorKind> {
        match self.state {
            State::Count => {
                let Some(declared) = self.carry.u32(run) else {
                    return Ok(false);
                };
                self.declared = u64::from(declared);
                self.state = State::KeyTexts;
            }
            State::KeyTexts => {
                if self.found == self.declared {
                    return Ok(false);
                }
                let Some(texts) = self.carry.uvarint(run, "number of texts in a key")? else {
                    return Ok(false);
                };
                if texts != T::KEY_TEXTS {
                    return Err(DecodeErrorKind::Count {
                        what: "texts in a key",
                        declared: texts,
                        found: T::KEY_TEXTS,
                    });
                }
                self.is_after = self.found == 0;
                self.is_empty = true;
                self.state = State::Length { text: 0 };
            }
            State::Length { text } => {
                let what = "key length";
                let Some(length) = self.carry.uvarint(run, what)? else {
                    return Ok(false);
                };
                within_limit(what, length)?;
                self.text.begin(length);
                self.state = State::Text { text };
            }
            State::Text { text } => return self.text_step(text, run),
            State::Offset => {
                let Some(offset) = self.carry.uvarint(run, "list offset")? else {
                    return Ok(false);
                };
                self.check_key()?;
                self.offsets.add(offset);
                self.first.get_or_insert(offset);
                self.found = self.found.saturating_add(1);
                self.state = State::KeyTexts;
            }
        }
        Ok(true)
    }

    fn text_step(&mut self, text: u64, run: &mut Run<'_>) -> Result<bool, DecodeErrorKind> {
        let Some(bytes) = self.text.read(run) else {
            return Ok(false);
        };
        let [name, value] = &mut self.key;
        let previous = if text == 0 { name } else { value };
        if self.sorted && !self.is_after && bytes < previous.as_slice() {
            return Err(DecodeErrorKind::Order { what: "keys" });
        }
        self.is_after |= bytes > previous.as_slice();
        self.is_empty &= bytes.is_empty();
        keep(previous, bytes);
        let next = text.saturating_add(1);
        self.state = if next == T::KEY_TEXTS {
            State::Offset
        } else {
            State::Length { text: next }
        };
        Ok(true)
    }

    fn check_key(&self) -> Result<(), DecodeErrorKind> {
        if self.sorted && !self.is_after {
            return Err(DecodeErrorKind::Order { what: "keys" });
        }
        if T::EMPTY_KEY_FIRST && self.is_empty != (self.found == 0) {
            return Err(DecodeErrorKind::Disagreement {
                what: "the entry of all series is not the first one, and only the first",
            });
        }
        Ok(())
    }
}

impl<T: Table> Body for OffsetTable<T> {
    const SECTION: Section = T::SECTION;
    const WHAT: &'static str = T::WHAT;

    fn begin(&mut self, start: u64, body: Range<u64>) -> Result<(), DecodeErrorKind> {
        self.start = start;
        self.body_end = body.end;
        Ok(())
    }

    fn feed(&mut self, mut run: Run<'_>) -> Result<(), DecodeError> {
        loop {
            let at = self.carry.start(&run);
            let error = |kind| DecodeError::new(Self::SECTION, at, kind);
            if !self.step(&mut run).map_err(error)? {
                break;
            }
        }
        run.expect_end(Self::SECTION, self.body_end, "the last entry")
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let complete = self.state == State::KeyTexts && !self.carry.is_pending();
        if complete && self.found == self.declared {
            return Ok(());
        }
        let kind = DecodeErrorKind::Count {
            what: "entries",
            declared: self.declared,
            found: self.found,
        };
        Err(DecodeError::new(Self::SECTION, self.start, kind))
    }
}
