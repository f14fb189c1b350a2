//! Label index sections: the values of one label name. Writers up to about Prometheus 2.42 left
//! them; no reader uses them. They are checked so that a damaged file is not called whole.

use std::ops::Range;

use super::Tally;
use super::frames::Body;
use crate::tsdb::decode::{Carry, Run};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// Checks label index sections.
#[derive(Debug)]
pub(super) struct LabelIndices {
    symbols: Range<u64>,
    state: State,
    carry: Carry,
    start: u64,
    body: Range<u64>,
    names: u64,
    /// Where they begin, which the label offset table must agree with.
    pub(super) offsets: Tally,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Names,
    Entries,
    Values,
}

/// Names and entries.
const COUNTS_BYTES: u64 = 8;

impl LabelIndices {
    pub(super) fn new(symbols: Range<u64>) -> Self {
        Self {
            symbols,
            state: State::Names,
            carry: Carry::default(),
            start: 0,
            body: 0..0,
            names: 0,
            offsets: Tally::default(),
        }
    }

    fn check_shape(&self, entries: u64) -> Result<(), DecodeErrorKind> {
        let length = self.body.end.saturating_sub(self.body.start);
        let values = self.names.saturating_mul(entries);
        let expected = values.saturating_mul(4).saturating_add(COUNTS_BYTES);
        if self.names > 0 && length == expected {
            return Ok(());
        }
        let what = "a label index of these names and entries";
        Err(DecodeErrorKind::Shape { what, length })
    }
}

impl Body for LabelIndices {
    const SECTION: Section = Section::LabelIndices;
    const WHAT: &'static str = "a label index";

    fn begin(&mut self, start: u64, body: Range<u64>) -> Result<(), DecodeErrorKind> {
        self.start = start;
        let length = body.end.saturating_sub(body.start);
        self.body = body;
        self.state = State::Names;
        self.carry = Carry::default();
        if length < COUNTS_BYTES {
            let what = Self::WHAT;
            return Err(DecodeErrorKind::Shape { what, length });
        }
        Ok(())
    }

    fn feed(&mut self, mut run: Run<'_>) -> Result<(), DecodeError> {
        loop {
            let at = self.carry.start(&run);
            let Some(value) = self.carry.u32(&mut run).map(u64::from) else {
                return Ok(());
            };
            match self.state {
                State::Names => {
                    self.names = value;
                    self.state = State::Entries;
                }
                State::Entries => {
                    let shape = self.check_shape(value);
                    shape.map_err(|kind| DecodeError::new(Self::SECTION, self.start, kind))?;
                    self.state = State::Values;
                }
                State::Values if self.symbols.contains(&value) => {}
                State::Values => {
                    let kind = DecodeErrorKind::OutOfRange {
                        what: "label value reference",
                        value,
                        low: self.symbols.start,
                        high: self.symbols.end,
                    };
                    return Err(DecodeError::new(Self::SECTION, at, kind));
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        // The shape check has settled that the body ends with its last value.
        self.offsets.add(self.start);
        Ok(())
    }
}
