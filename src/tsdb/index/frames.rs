//! A section as a sequence of structures: padding, length, body, CRC-32C of the body.
//!
//! A structure that lies whole in the run is handed to its decoder in one piece. Otherwise the body
//! is handed on as it comes and its checksum is known last, so what the decoder objects to waits
//! until then: the error is the same for every way to split the file, and damage is called damage.

use std::ops::Range;

use super::PADDING_BYTES_MAX;
use crate::tsdb::checksum::{Crc32c, crc32c};
use crate::tsdb::decode::{Carry, Run, Uvarint, count, decode_uvarint};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// Reads the bodies of one kind of structure.
pub(super) trait Body {
    /// Where errors are said to be.
    const SECTION: Section;
    /// What one structure is called in errors.
    const WHAT: &'static str;
    /// Whether the checksums were held against these bytes before. Those of structures that lie
    /// whole in a run are not computed again then.
    const IS_PROVEN: bool = false;

    /// A structure begins at `start` (of its padding-free head); its body takes `body`.
    fn begin(&mut self, start: u64, body: Range<u64>) -> Result<(), DecodeErrorKind>;

    /// The next bytes of the body. All are consumed unless there is an error.
    fn feed(&mut self, run: Run<'_>) -> Result<(), DecodeError>;

    /// The body has ended and its checksum holds.
    fn end(&mut self) -> Result<(), DecodeError>;
}

/// How the structures of a section stand one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) length: LengthField,
    /// Structures begin at multiples of this.
    pub(super) align: u64,
    /// The shortest structure, bytes; fewer at the end of a section can only be padding.
    pub(super) bytes_min: u64,
    /// Exactly one structure, rather than any number of them.
    pub(super) once: bool,
    /// Zeros may precede a structure even where it is aligned. A length is never 0 there.
    pub(super) loose_zeros: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthField {
    U32,
    Uvarint,
}

/// Cuts one section into structures.
#[derive(Debug)]
pub(super) struct Frames {
    layout: Layout,
    /// Where the section ends.
    end: u64,
    state: State,
    carry: Carry,
    /// Where the current structure begins.
    start: u64,
    crc: Crc32c,
    /// What the decoder said about a body whose checksum is not known yet.
    fault: Option<DecodeError>,
    /// Padding seen since the last structure, bytes.
    zeros: u64,
    frames: u64,
}

/// ```text
/// Padding ──▶ Length ──▶ Body ──▶ Checksum ──▶ Padding …
///    └──────────────────────────────┴──▶ Trailer (zeros to the end of the section)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Padding,
    Length,
    Body { left: u64 },
    Checksum,
    Trailer,
}

const CRC_BYTES: u64 = 4;
const U32_BYTES: usize = 4;

impl Frames {
    pub(super) fn new(layout: Layout, end: u64) -> Self {
        Self {
            layout,
            end,
            state: State::Padding,
            carry: Carry::default(),
            start: 0,
            crc: Crc32c::new(),
            fault: None,
            zeros: 0,
            frames: 0,
        }
    }

    /// Takes the next bytes of the section. The caller cuts the run at the section's end.
    pub(super) fn feed<B: Body>(
        &mut self,
        body: &mut B,
        mut run: Run<'_>,
    ) -> Result<(), DecodeError> {
        while !run.is_empty() {
            match self.state {
                State::Padding => self.padding::<B>(&mut run)?,
                State::Length => self.length(body, &mut run)?,
                State::Body { left } => {
                    let part = run.split_to(left);
                    self.crc.update(part.bytes());
                    if self.fault.is_none() {
                        self.fault = body.feed(part).err();
                    }
                    self.state = match left.saturating_sub(count(part.bytes().len())) {
                        0 => State::Checksum,
                        left => State::Body { left },
                    };
                }
                State::Checksum => {
                    if let Some(stored) = self.carry.u32(&mut run) {
                        self.check::<B>(stored, self.crc.value())?;
                        self.fault.take().map_or(Ok(()), Err)?;
                        body.end()?;
                        self.next();
                    }
                }
                State::Trailer => self.trailer::<B>(&mut run)?,
            }
        }
        Ok(())
    }

    /// The section has ended; the number of structures in it.
    pub(super) fn finish<B: Body>(&self) -> Result<u64, DecodeError> {
        let between = matches!(self.state, State::Padding | State::Trailer);
        if between && !(self.layout.once && self.frames == 0) {
            return Ok(self.frames);
        }
        let kind = DecodeErrorKind::Truncated { inside: B::WHAT };
        Err(DecodeError::new(B::SECTION, self.end, kind))
    }

    fn padding<B: Body>(&mut self, run: &mut Run<'_>) -> Result<(), DecodeError> {
        while let Some(&byte) = run.bytes().first() {
            let at = run.offset();
            let aligned = at.checked_rem(self.layout.align).unwrap_or(0) == 0;
            let loose = self.layout.loose_zeros && byte == 0 && self.zeros < PADDING_BYTES_MAX;
            if aligned && !loose {
                self.state = State::Length;
                if self.end.saturating_sub(at) < self.layout.bytes_min {
                    self.state = State::Trailer;
                }
                return Ok(());
            }
            zero::<B>(at, byte)?;
            self.zeros = self.zeros.saturating_add(1);
            run.skip(1);
        }
        Ok(())
    }

    fn trailer<B: Body>(&mut self, run: &mut Run<'_>) -> Result<(), DecodeError> {
        let bytes = self.end.saturating_sub(run.offset());
        if bytes > PADDING_BYTES_MAX {
            let kind = DecodeErrorKind::Trailing {
                what: B::WHAT,
                bytes,
            };
            return Err(DecodeError::new(B::SECTION, run.offset(), kind));
        }
        loop {
            let at = run.offset();
            let Some(byte) = run.next() else {
                return Ok(());
            };
            zero::<B>(at, byte)?;
        }
    }

    fn length<B: Body>(&mut self, body: &mut B, run: &mut Run<'_>) -> Result<(), DecodeError> {
        if !self.carry.is_pending() {
            self.start = run.offset();
            if self.whole_frame(body, run)? {
                self.next();
                return Ok(());
            }
        }
        let error = |kind| DecodeError::new(B::SECTION, self.start, kind);
        let length = match self.layout.length {
            LengthField::U32 => self.carry.u32(run).map(u64::from),
            LengthField::Uvarint => self.carry.uvarint(run, "length").map_err(error)?,
        };
        if let Some(length) = length {
            let range = self.body_range::<B>(length, run.offset()).map_err(error)?;
            body.begin(self.start, range).map_err(error)?;
            self.crc = Crc32c::new();
            self.state = State::Body { left: length };
        }
        Ok(())
    }

    /// The fast path: a structure that lies whole in the run. Whether there was one.
    fn whole_frame<B: Body>(&self, body: &mut B, run: &mut Run<'_>) -> Result<bool, DecodeError> {
        let bytes = run.bytes();
        let (length, length_bytes) = match self.layout.length {
            LengthField::U32 => match bytes.first_chunk::<U32_BYTES>() {
                Some(length) => (u64::from(u32::from_be_bytes(*length)), U32_BYTES),
                None => return Ok(false),
            },
            LengthField::Uvarint => match decode_uvarint(bytes) {
                Uvarint::Value(length, length_bytes) => (length, length_bytes),
                Uvarint::Incomplete | Uvarint::Overflow => return Ok(false),
            },
        };
        let Ok(body_bytes) = usize::try_from(length) else {
            return Ok(false);
        };
        let Some((content, rest)) = bytes
            .split_at_checked(length_bytes)
            .and_then(|(_, rest)| rest.split_at_checked(body_bytes))
        else {
            return Ok(false);
        };
        let Some(stored) = rest.first_chunk::<U32_BYTES>() else {
            return Ok(false);
        };
        let error = |kind| DecodeError::new(B::SECTION, self.start, kind);
        let content_start = self.start.saturating_add(count(length_bytes));
        let range = self.body_range::<B>(length, content_start).map_err(error)?;
        body.begin(self.start, range).map_err(error)?;
        if !B::IS_PROVEN {
            self.check::<B>(u32::from_be_bytes(*stored), crc32c(content))?;
        }
        body.feed(Run::new(content, content_start))?;
        body.end()?;
        run.skip(length_bytes);
        run.skip(body_bytes);
        run.skip(U32_BYTES);
        Ok(true)
    }

    /// The body of `length` bytes that begins at `start`, if it and its checksum fit the section.
    fn body_range<B: Body>(&self, length: u64, start: u64) -> Result<Range<u64>, DecodeErrorKind> {
        let room = self.end.saturating_sub(start);
        let available = room.saturating_sub(CRC_BYTES);
        let what = B::WHAT;
        if length > available {
            return Err(DecodeErrorKind::Length {
                what,
                length,
                available,
            });
        }
        if length == 0 {
            return Err(DecodeErrorKind::Shape { what, length });
        }
        Ok(start..start.saturating_add(length))
    }

    fn check<B: Body>(&self, stored: u32, computed: u32) -> Result<(), DecodeError> {
        if stored == computed {
            return Ok(());
        }
        let kind = DecodeErrorKind::Checksum { stored, computed };
        Err(DecodeError::new(B::SECTION, self.start, kind))
    }

    fn next(&mut self) {
        self.frames = self.frames.saturating_add(1);
        self.zeros = 0;
        self.state = match self.layout.once {
            true => State::Trailer,
            false => State::Padding,
        };
    }
}

fn zero<B: Body>(at: u64, found: u8) -> Result<(), DecodeError> {
    if found == 0 {
        return Ok(());
    }
    let kind = DecodeErrorKind::Padding { found };
    Err(DecodeError::new(B::SECTION, at, kind))
}
