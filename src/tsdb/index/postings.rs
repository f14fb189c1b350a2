//! Postings lists: for each label pair, and once for all, the ids of the series that have it.
//!
//! What the lists hold must be what the series section implies, but neither fits memory. So the ids
//! of all lists together are tallied against the ids of all series, each once per label and once
//! more; and the list of all series, which is strictly ascending like every list, is known by
//! having the tally of all ids.

use std::ops::Range;

use super::frames::Body;
use super::{SERIES_LABELS_MAX, Tally};
use crate::tsdb::decode::{Carry, Run, count};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// Checks postings lists.
#[derive(Debug)]
pub(super) struct PostingsLists {
    /// Ids that a series can have.
    ids: Range<u64>,
    /// The ids of all series.
    all: Tally,
    state: State,
    carry: Carry,
    start: u64,
    body: Range<u64>,
    /// The list being read.
    list: Tally,
    previous: Option<u32>,
    /// The elements of all lists.
    pub(super) elements: Tally,
    /// Where the lists begin, which the postings offset table must agree with.
    pub(super) offsets: Tally,
    /// Where the lists of all series begin, ascending: one for each label pair that every series
    /// has, and the list of all.
    full_lists: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Count,
    Ids,
}

const ID_BYTES: u64 = 4;

/// A valid index has one list of all series and one for each label pair that all series share.
const FULL_LISTS_MAX: u64 = SERIES_LABELS_MAX + 1;

impl PostingsLists {
    /// Lists of ids within `ids`, where the ids of all series have this tally.
    pub(super) fn new(ids: Range<u64>, all: Tally) -> Self {
        Self {
            ids,
            all,
            state: State::Count,
            carry: Carry::default(),
            start: 0,
            body: 0..0,
            list: Tally::default(),
            previous: None,
            elements: Tally::default(),
            offsets: Tally::default(),
            full_lists: Vec::new(),
        }
    }

    /// Whether the list at `offset` holds every series.
    pub(super) fn is_full(&self, offset: u64) -> bool {
        self.full_lists.binary_search(&offset).is_ok()
    }

    #[inline]
    fn push(&mut self, id: u32) -> Result<(), DecodeErrorKind> {
        if self.previous.is_some_and(|previous| id <= previous) {
            return Err(DecodeErrorKind::Order { what: "postings" });
        }
        if !self.ids.contains(&u64::from(id)) {
            return Err(DecodeErrorKind::OutOfRange {
                what: "series id",
                value: u64::from(id),
                low: self.ids.start,
                high: self.ids.end,
            });
        }
        self.previous = Some(id);
        self.list.add(u64::from(id));
        Ok(())
    }

    fn check_count(&self, declared: u32) -> Result<(), DecodeErrorKind> {
        let declared = u64::from(declared);
        let bytes = self.body.end.saturating_sub(self.body.start);
        let found = bytes.saturating_sub(ID_BYTES) / ID_BYTES;
        if declared == found {
            return Ok(());
        }
        Err(DecodeErrorKind::Count {
            what: "postings",
            declared,
            found,
        })
    }

    fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(Self::SECTION, self.start, kind)
    }
}

impl Body for PostingsLists {
    const SECTION: Section = Section::Postings;
    const WHAT: &'static str = "a postings list";

    fn begin(&mut self, start: u64, body: Range<u64>) -> Result<(), DecodeErrorKind> {
        let length = body.end.saturating_sub(body.start);
        self.start = start;
        self.body = body;
        self.state = State::Count;
        self.carry = Carry::default();
        self.list = Tally::default();
        self.previous = None;
        if !length.is_multiple_of(ID_BYTES) {
            let what = Self::WHAT;
            return Err(DecodeErrorKind::Shape { what, length });
        }
        Ok(())
    }

    fn feed(&mut self, mut run: Run<'_>) -> Result<(), DecodeError> {
        loop {
            let at = self.carry.start(&run);
            if let State::Ids = self.state
                && !self.carry.is_pending()
            {
                let (ids, _) = run.bytes().as_chunks::<4>();
                for (id, at) in ids.iter().zip((at..).step_by(4)) {
                    self.push(u32::from_be_bytes(*id))
                        .map_err(|kind| DecodeError::new(Self::SECTION, at, kind))?;
                }
                run.split_to(count(ids.len()).saturating_mul(ID_BYTES));
            }
            let at = self.carry.start(&run);
            let Some(value) = self.carry.u32(&mut run) else {
                return Ok(());
            };
            match self.state {
                State::Count => {
                    self.check_count(value).map_err(|kind| self.error(kind))?;
                    self.state = State::Ids;
                }
                State::Ids => self
                    .push(value)
                    .map_err(|kind| DecodeError::new(Self::SECTION, at, kind))?,
            }
        }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        // The count check has settled that the body ends with its last id.
        self.elements.add_all(self.list);
        self.offsets.add(self.start);
        if self.list == self.all {
            let value = count(self.full_lists.len()).saturating_add(1);
            if value > FULL_LISTS_MAX {
                return Err(self.error(DecodeErrorKind::Limit {
                    what: "number of lists that hold every series",
                    value,
                    limit: FULL_LISTS_MAX,
                }));
            }
            self.full_lists.push(self.start);
        }
        Ok(())
    }
}
