//! The symbol table: every label name and value once, in strictly ascending byte order.

use std::ops::Range;

use super::SYMBOL_BYTES_MAX;
use super::frames::Body;
use super::text::{Text, keep};
use crate::tsdb::decode::{Carry, Run};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// Checks the symbol table.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    state: State,
    carry: Carry,
    text: Text,
    /// Where the current symbol begins.
    start: u64,
    previous: Vec<u8>,
    declared: u64,
    found: u64,
    /// The symbols' bytes, without the count.
    entries: Range<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Count,
    Length,
    Text,
}

impl Symbols {
    /// How many symbols there are.
    pub(super) fn count(&self) -> u64 {
        self.found
    }

    /// Where the symbols stand: what a reference of a version 1 index may point at. Whether it
    /// points at the beginning of one is not checked: that would take memory per symbol.
    pub(super) fn entries(&self) -> Range<u64> {
        self.entries.clone()
    }

    fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(Self::SECTION, self.start, kind)
    }
}

impl Body for Symbols {
    const SECTION: Section = Section::Symbols;
    const WHAT: &'static str = "the symbol table";

    fn begin(&mut self, start: u64, body: Range<u64>) -> Result<(), DecodeErrorKind> {
        self.start = start;
        self.entries = body.start.saturating_add(4)..body.end;
        Ok(())
    }

    fn feed(&mut self, mut run: Run<'_>) -> Result<(), DecodeError> {
        loop {
            match self.state {
                State::Count => {
                    let Some(declared) = self.carry.u32(&mut run) else {
                        return Ok(());
                    };
                    self.declared = u64::from(declared);
                    self.state = State::Length;
                }
                State::Length => {
                    if run.is_empty() {
                        return Ok(());
                    }
                    if self.found == self.declared {
                        let bytes = self.entries.end.saturating_sub(run.offset());
                        let what = "the last symbol";
                        return Err(self.error(DecodeErrorKind::Trailing { what, bytes }));
                    }
                    self.start = self.carry.start(&run);
                    let length = self.carry.uvarint(&mut run, "symbol length");
                    let Some(length) = length.map_err(|kind| self.error(kind))? else {
                        return Ok(());
                    };
                    within_limit("symbol length", length).map_err(|kind| self.error(kind))?;
                    self.text.begin(length);
                    self.state = State::Text;
                }
                State::Text => {
                    let Some(text) = self.text.read(&mut run) else {
                        return Ok(());
                    };
                    let first = self.found == 0;
                    let kind = if !first && text <= self.previous.as_slice() {
                        Some(DecodeErrorKind::Order { what: "symbols" })
                    } else if str::from_utf8(text).is_err() {
                        Some(DecodeErrorKind::NotUtf8 { what: "symbol" })
                    } else {
                        None
                    };
                    if let Some(kind) = kind {
                        return Err(self.error(kind));
                    }
                    keep(&mut self.previous, text);
                    self.found = self.found.saturating_add(1);
                    self.state = State::Length;
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let complete = matches!(self.state, State::Length) && !self.carry.is_pending();
        if complete && self.found == self.declared {
            return Ok(());
        }
        Err(self.error(DecodeErrorKind::Count {
            what: "symbols",
            declared: self.declared,
            found: self.found,
        }))
    }
}

/// Refuses a text longer than a symbol can be.
pub(super) fn within_limit(what: &'static str, length: u64) -> Result<(), DecodeErrorKind> {
    if length <= SYMBOL_BYTES_MAX {
        return Ok(());
    }
    Err(DecodeErrorKind::Limit {
        what,
        value: length,
        limit: SYMBOL_BYTES_MAX,
    })
}
