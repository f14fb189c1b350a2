//! Series entries: the labels of a series and the times and places of its chunks.
//!
//! The decoder is shared by both readers of the section; what they do with labels and chunks is
//! their [`SeriesSink`]. An entry is decoded as it comes, value by value, because one series may
//! hold very many chunks.

use std::ops::Range;

use super::SERIES_LABELS_MAX;
use super::frames::{Body, Layout, LengthField};
use crate::model::TimestampMs;
use crate::tsdb::decode::{Carry, Run, count, decode_uvarints, unzigzag, uvarints_length};
use crate::tsdb::{ChunkRef, DecodeError, DecodeErrorKind, Section};

/// A chunk as the index describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Time of its first sample.
    pub mint: TimestampMs,
    /// Time of its last sample.
    pub maxt: TimestampMs,
    /// Where it stands.
    pub reference: ChunkRef,
}

/// What is done with the series of an index.
pub(super) trait SeriesSink {
    /// Whether the section was verified before, and only chunks are wanted of it now: labels may
    /// be passed over.
    const IS_PROVEN: bool = false;

    /// An entry begins at this offset.
    fn begin(&mut self, start: u64) -> Result<(), DecodeErrorKind>;

    /// The next label of the entry, by the references of its name and value.
    fn label(&mut self, name: u64, value: u64) -> Result<(), DecodeErrorKind>;

    /// The next chunk of the entry.
    fn chunk(&mut self, chunk: ChunkMeta) -> Result<(), DecodeErrorKind>;

    /// The entry has ended and its checksum holds.
    fn end(&mut self) -> Result<(), DecodeErrorKind>;
}

/// How entries stand in an index of this version.
pub(super) fn layout(version: u8) -> Layout {
    let first_version = version == 1;
    Layout {
        length: LengthField::Uvarint,
        align: if first_version { 1 } else { 16 },
        // A length, two counts, a checksum.
        bytes_min: 7,
        once: false,
        loose_zeros: first_version,
    }
}

/// Decodes series entries into a sink.
#[derive(Debug)]
pub(super) struct SeriesEntries<S> {
    pub(super) sink: S,
    state: State,
    carry: Carry,
    /// Where the current entry begins.
    start: u64,
    /// Where its body ends.
    end: u64,
    /// Labels or chunks of the entry still to come.
    left: u64,
    name: u64,
    chunk: ChunkMeta,
    is_first_chunk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LabelCount,
    LabelName,
    LabelValue,
    ChunkCount,
    ChunkStart,
    ChunkSpan,
    ChunkReference,
    Done,
}

impl<S: SeriesSink> SeriesEntries<S> {
    pub(super) fn new(sink: S) -> Self {
        Self {
            sink,
            state: State::Done,
            carry: Carry::default(),
            start: 0,
            end: 0,
            left: 0,
            name: 0,
            chunk: ChunkMeta {
                mint: TimestampMs(0),
                maxt: TimestampMs(0),
                reference: ChunkRef(0),
            },
            is_first_chunk: true,
        }
    }

    fn labels_or_chunks(&mut self, labels: u64) {
        self.left = labels;
        self.state = match labels {
            0 => State::ChunkCount,
            _ => State::LabelName,
        };
    }

    fn chunks_or_done(&mut self, chunks: u64) {
        self.left = chunks;
        self.state = match chunks {
            0 => State::Done,
            _ => State::ChunkStart,
        };
    }

    /// Decodes the next value; `false` when the run ended first.
    #[inline]
    fn step(&mut self, run: &mut Run<'_>) -> Result<bool, DecodeErrorKind> {
        let carry = &mut self.carry;
        match self.state {
            State::LabelCount => {
                let Some(labels) = carry.uvarint(run, "label count")? else {
                    return Ok(false);
                };
                if labels > SERIES_LABELS_MAX {
                    return Err(DecodeErrorKind::Limit {
                        what: "number of labels",
                        value: labels,
                        limit: SERIES_LABELS_MAX,
                    });
                }
                self.labels_or_chunks(labels);
            }
            State::LabelName => {
                let Some(name) = carry.uvarint(run, "label name reference")? else {
                    return Ok(false);
                };
                self.name = name;
                self.state = State::LabelValue;
            }
            State::LabelValue => {
                let Some(value) = carry.uvarint(run, "label value reference")? else {
                    return Ok(false);
                };
                self.sink.label(self.name, value)?;
                self.labels_or_chunks(self.left.saturating_sub(1));
            }
            State::ChunkCount => {
                let Some(chunks) = carry.uvarint(run, "chunk count")? else {
                    return Ok(false);
                };
                self.is_first_chunk = true;
                self.chunks_or_done(chunks);
            }
            State::ChunkStart | State::ChunkSpan | State::ChunkReference => {
                return self.chunk_step(run);
            }
            State::Done => return Ok(false),
        }
        Ok(true)
    }

    /// The fast path of [`SeriesEntries::step`]: labels which lie whole in the run. `at` becomes
    /// the place of a value that is wrong.
    fn whole_labels(&mut self, run: &mut Run<'_>, at: &mut u64) -> Result<(), DecodeErrorKind> {
        let bytes = run.bytes();
        let mut left = self.left;
        let mut taken = 0_usize;
        while left > 0
            && let Some([(name, name_end), (value, end)]) =
                bytes.get(taken..).and_then(decode_uvarints)
        {
            let place = taken.saturating_add(name_end);
            *at = run.offset().saturating_add(count(place));
            self.sink.label(name, value)?;
            taken = taken.saturating_add(end);
            left = left.saturating_sub(1);
        }
        run.skip(taken);
        self.labels_or_chunks(left);
        Ok(())
    }

    /// The same where labels are not wanted.
    fn skip_labels(&mut self, run: &mut Run<'_>) {
        let labels = usize::try_from(self.left).unwrap_or(usize::MAX);
        if let Some(length) = uvarints_length(run.bytes(), labels.saturating_mul(2)) {
            run.skip(length);
            self.labels_or_chunks(0);
        }
    }

    /// The same for chunks. One hands on to the next in registers: what is read back from memory in
    /// other pieces than it was written in has to wait.
    fn whole_chunks(&mut self, run: &mut Run<'_>, at: &mut u64) -> Result<(), DecodeErrorKind> {
        let bytes = run.bytes();
        let mut chunk = self.chunk;
        let mut is_first = self.is_first_chunk;
        let mut left = self.left;
        let mut taken = 0_usize;
        while left > 0
            && let Some([(gap, gap_end), (span, span_end), (delta, end)]) =
                bytes.get(taken..).and_then(decode_uvarints)
        {
            let start = run.offset().saturating_add(count(taken));
            *at = start;
            let mint = match is_first {
                true => TimestampMs(unzigzag(gap)),
                false => time_after(chunk.maxt, gap)?,
            };
            *at = start.saturating_add(count(gap_end));
            let maxt = time_after(mint, span)?;
            *at = start.saturating_add(count(span_end));
            let reference = match is_first {
                true => ChunkRef(delta),
                false => reference_after(chunk.reference, unzigzag(delta))?,
            };
            is_first = false;
            chunk = ChunkMeta {
                mint,
                maxt,
                reference,
            };
            self.sink.chunk(chunk)?;
            taken = taken.saturating_add(end);
            left = left.saturating_sub(1);
        }
        self.chunk = chunk;
        self.is_first_chunk = is_first;
        run.skip(taken);
        self.chunks_or_done(left);
        Ok(())
    }

    #[inline]
    fn chunk_step(&mut self, run: &mut Run<'_>) -> Result<bool, DecodeErrorKind> {
        let carry = &mut self.carry;
        match self.state {
            State::ChunkStart => {
                let mint = if self.is_first_chunk {
                    carry.varint(run, "chunk mint")?.map(TimestampMs)
                } else {
                    let gap = carry.uvarint(run, "chunk mint")?;
                    let mint = gap.map(|gap| time_after(self.chunk.maxt, gap));
                    mint.transpose()?
                };
                let Some(mint) = mint else { return Ok(false) };
                self.chunk.mint = mint;
                self.state = State::ChunkSpan;
            }
            State::ChunkSpan => {
                let Some(span) = carry.uvarint(run, "chunk maxt")? else {
                    return Ok(false);
                };
                self.chunk.maxt = time_after(self.chunk.mint, span)?;
                self.state = State::ChunkReference;
            }
            _ => {
                let reference = if self.is_first_chunk {
                    carry.uvarint(run, "chunk reference")?.map(ChunkRef)
                } else {
                    let delta = carry.varint(run, "chunk reference")?;
                    let reference = delta.map(|d| reference_after(self.chunk.reference, d));
                    reference.transpose()?
                };
                let Some(reference) = reference else {
                    return Ok(false);
                };
                self.chunk.reference = reference;
                self.is_first_chunk = false;
                self.sink.chunk(self.chunk)?;
                self.chunks_or_done(self.left.saturating_sub(1));
            }
        }
        Ok(true)
    }
}

impl<S: SeriesSink> Body for SeriesEntries<S> {
    const SECTION: Section = Section::Series;
    const WHAT: &'static str = "a series entry";
    const IS_PROVEN: bool = S::IS_PROVEN;

    fn begin(&mut self, start: u64, body: Range<u64>) -> Result<(), DecodeErrorKind> {
        self.start = start;
        self.end = body.end;
        self.state = State::LabelCount;
        self.carry = Carry::default();
        self.sink.begin(start)
    }

    fn feed(&mut self, mut run: Run<'_>) -> Result<(), DecodeError> {
        loop {
            let mut at = self.carry.start(&run);
            let whole = match self.state {
                _ if self.carry.is_pending() => Ok(()),
                State::LabelName if S::IS_PROVEN => {
                    self.skip_labels(&mut run);
                    Ok(())
                }
                State::LabelName => self.whole_labels(&mut run, &mut at),
                State::ChunkStart => self.whole_chunks(&mut run, &mut at),
                _ => Ok(()),
            };
            let step = whole.and_then(|()| {
                at = self.carry.start(&run);
                self.step(&mut run)
            });
            if !step.map_err(|kind| DecodeError::new(Self::SECTION, at, kind))? {
                break;
            }
        }
        run.expect_end(Self::SECTION, self.end, "the last chunk of the series")
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let error = |offset, kind| DecodeError::new(Self::SECTION, offset, kind);
        if self.state != State::Done {
            let inside = Self::WHAT;
            return Err(error(self.end, DecodeErrorKind::Truncated { inside }));
        }
        self.sink.end().map_err(|kind| error(self.start, kind))
    }
}

pub(super) fn time_after(time: TimestampMs, span: u64) -> Result<TimestampMs, DecodeErrorKind> {
    let what = "chunk time";
    let sum = time.0.checked_add_unsigned(span);
    sum.map(TimestampMs)
        .ok_or(DecodeErrorKind::Overflow { what })
}

pub(super) fn reference_after(
    reference: ChunkRef,
    delta: i64,
) -> Result<ChunkRef, DecodeErrorKind> {
    let what = "chunk reference";
    let sum = reference.0.checked_add_signed(delta);
    sum.map(ChunkRef).ok_or(DecodeErrorKind::Overflow { what })
}
