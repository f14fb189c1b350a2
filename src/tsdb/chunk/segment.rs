//! The walk over a chunk segment file: every chunk's place, encoding, sample count and CRC-32C.
//!
//! Layout (`contract/tsdb.md` §4): an 8-byte header, then chunk after chunk without gaps to the end
//! of the file: uvarint data length, encoding byte, data, CRC-32C of encoding and data. A chunk
//! that lies whole inside a run is checked where it is; only one that a run's end cuts goes through
//! the states below. Chunk data is never copied, so memory is constant.

use super::{ChunkRef, Encoding};
use crate::tsdb::checksum::{Crc32c, crc32c};
use crate::tsdb::decode::{Carry, Run, Uvarint, count, decode_uvarint};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// Bytes before the first chunk of a segment file.
pub const SEGMENT_HEADER_BYTES: u64 = 8;

/// The most data one chunk may hold. Every chunk of a block once stood in a head chunk file or fits
/// one, and those are at most 128 MiB; a real XOR chunk is at most 1 KiB.
pub const CHUNK_DATA_BYTES_MAX: u64 = 128 << 20;

const MAGIC: u32 = 0x85bd_40dd;
const VERSION: u8 = 1;
const ENCODING_BYTES: u64 = 1;
const CRC_BYTES: u64 = 4;

/// A chunk whose checksum has been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkStart {
    /// What the index must say to mean this chunk.
    pub reference: ChunkRef,
    /// How its samples are encoded.
    pub encoding: Encoding,
    /// How many samples its header declares.
    pub samples: u32,
}

/// What a whole segment file held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Chunks in the file, referenced or not.
    pub chunks: u64,
    /// Samples in all of them.
    pub samples: u64,
}

/// Verifies one segment file as its bytes stream past, in order, in runs of any size.
#[derive(Debug)]
pub struct SegmentVerifier {
    segment: u32,
    file_size: u64,
    offset: u64,
    state: State,
    carry: Carry,
    summary: SegmentSummary,
    failed: Option<DecodeError>,
}

/// ```text
/// Header ──▶ Length ──▶ Body ──▶ Checksum ──▶ Length …
/// ```
#[derive(Clone, Debug)]
enum State {
    Header { bytes: [u8; 8], len: usize },
    Length,
    Body(Body),
    Checksum(Body),
}

/// A chunk cut by the end of a run.
#[derive(Clone, Debug)]
struct Body {
    start: u64,
    length: u64,
    /// Encoding and data that have not come by.
    left: u64,
    crc: Crc32c,
    /// The encoding byte and the first two bytes of data.
    head: [u8; 3],
    head_len: usize,
}

impl SegmentVerifier {
    /// A verifier for the segment file at position `segment` in name order (from 0), which is
    /// `file_size` bytes long.
    pub fn new(segment: u32, file_size: u64) -> Self {
        Self {
            segment,
            file_size,
            offset: 0,
            state: State::Header {
                bytes: [0; 8],
                len: 0,
            },
            carry: Carry::default(),
            summary: SegmentSummary::default(),
            failed: None,
        }
    }

    /// Verifies the next bytes of the file and appends every chunk that they complete to `out`, at
    /// most one for each eight bytes.
    ///
    /// # Errors
    /// When the bytes are not a segment file's; the verifier then stays failed.
    pub fn feed(&mut self, run: &[u8], out: &mut Vec<ChunkStart>) -> Result<(), DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.walk(Run::new(run, self.offset), out);
        self.offset = self.offset.saturating_add(count(run.len()));
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Ends the walk.
    ///
    /// # Errors
    /// When a feed failed, or the bytes fed end before the file or inside a chunk.
    pub fn finish(self) -> Result<SegmentSummary, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let inside = match self.state {
            State::Header { .. } => "the segment header",
            State::Length if self.offset < self.file_size => "the segment file",
            State::Length if !self.carry.is_pending() => return Ok(self.summary),
            _ => "a chunk",
        };
        let kind = DecodeErrorKind::Truncated { inside };
        Err(DecodeError::new(Section::Chunks, self.offset, kind))
    }

    fn walk(&mut self, mut run: Run<'_>, out: &mut Vec<ChunkStart>) -> Result<(), DecodeError> {
        let room = self.file_size.saturating_sub(run.offset());
        if count(run.bytes().len()) > room {
            let kind = DecodeErrorKind::Trailing {
                what: "the segment file",
                bytes: count(run.bytes().len()).saturating_sub(room),
            };
            return Err(DecodeError::new(Section::Chunks, self.file_size, kind));
        }
        while !run.is_empty() {
            match &mut self.state {
                State::Header { bytes, len } => {
                    if !take_into(&mut run, bytes, len) {
                        break;
                    }
                    check_header(*bytes)?;
                    self.state = State::Length;
                }
                State::Length => {
                    if !self.carry.is_pending() {
                        self.whole_chunks(&mut run, out)?;
                    }
                    let start = self.carry.start(&run);
                    let length = self.carry.uvarint(&mut run, "chunk length");
                    if let Some(length) = length.map_err(|kind| at(start, kind))? {
                        let body = Body::new(start, length, self.file_size, run.offset())?;
                        self.state = State::Body(body);
                    }
                }
                State::Body(body) => {
                    body.take(&mut run);
                    if body.left == 0 {
                        self.state = State::Checksum(body.clone());
                    }
                }
                State::Checksum(body) => {
                    if let Some(stored) = self.carry.u32(&mut run) {
                        let chunk = body.proven(self.segment, stored)?;
                        push(&mut self.summary, out, chunk);
                        self.state = State::Length;
                    }
                }
            }
        }
        Ok(())
    }

    /// The fast path: chunks that lie whole in the run.
    fn whole_chunks(
        &mut self,
        run: &mut Run<'_>,
        out: &mut Vec<ChunkStart>,
    ) -> Result<(), DecodeError> {
        loop {
            let start = run.offset();
            let Uvarint::Value(length, length_bytes) = decode_uvarint(run.bytes()) else {
                return Ok(());
            };
            let body_start = start.saturating_add(count(length_bytes));
            let body = Body::new(start, length, self.file_size, body_start)?;
            let Some((checked, rest)) = run
                .bytes()
                .split_at_checked(length_bytes)
                .and_then(|(_, bytes)| bytes.split_at_checked(usize::try_from(body.left).ok()?))
            else {
                return Ok(());
            };
            let (Some(head), Some(stored)) = (checked.first_chunk(), rest.first_chunk()) else {
                return Ok(());
            };
            let stored = u32::from_be_bytes(*stored);
            let chunk = prove(self.segment, start, length, *head, stored, crc32c(checked))?;
            push(&mut self.summary, out, chunk);
            run.split_to(frame_bytes(length_bytes, length));
        }
    }
}

impl Body {
    /// Checks the length declared at `start`, whose field ends at `body_start`.
    fn new(start: u64, length: u64, file_size: u64, body_start: u64) -> Result<Self, DecodeError> {
        let what = "chunk data";
        if length > CHUNK_DATA_BYTES_MAX {
            let limit = CHUNK_DATA_BYTES_MAX;
            let value = length;
            return Err(at(start, DecodeErrorKind::Limit { what, value, limit }));
        }
        if length < Encoding::Xor.data_header_bytes() {
            return Err(at(start, DecodeErrorKind::Shape { what, length }));
        }
        let left = length.saturating_add(ENCODING_BYTES);
        let available = file_size.saturating_sub(body_start);
        if left.saturating_add(CRC_BYTES) > available {
            let length = left.saturating_add(CRC_BYTES);
            let what = "chunk";
            let kind = DecodeErrorKind::Length {
                what,
                length,
                available,
            };
            return Err(at(start, kind));
        }
        if u32::try_from(start).is_err() {
            let kind = DecodeErrorKind::Limit {
                what: "chunk offset",
                value: start,
                limit: u64::from(u32::MAX),
            };
            return Err(at(start, kind));
        }
        Ok(Self {
            start,
            length,
            left,
            crc: Crc32c::new(),
            head: [0; 3],
            head_len: 0,
        })
    }

    fn take(&mut self, run: &mut Run<'_>) {
        let part = run.split_to(self.left);
        self.crc.update(part.bytes());
        self.left = self.left.saturating_sub(count(part.bytes().len()));
        let mut part = part;
        take_into(&mut part, &mut self.head, &mut self.head_len);
    }

    fn proven(&self, segment: u32, stored: u32) -> Result<ChunkStart, DecodeError> {
        let computed = self.crc.value();
        prove(
            segment,
            self.start,
            self.length,
            self.head,
            stored,
            computed,
        )
    }
}

/// The chunk at `start`, once its checksum and its first bytes hold.
#[inline]
fn prove(
    segment: u32,
    start: u64,
    length: u64,
    [id, first, second]: [u8; 3],
    stored: u32,
    computed: u32,
) -> Result<ChunkStart, DecodeError> {
    if stored != computed {
        return Err(at(start, DecodeErrorKind::Checksum { stored, computed }));
    }
    let unknown = || at(start, DecodeErrorKind::Encoding { found: id });
    let encoding = Encoding::from_id(id).ok_or_else(unknown)?;
    if length < encoding.data_header_bytes() {
        let what = "chunk data";
        return Err(at(start, DecodeErrorKind::Shape { what, length }));
    }
    let offset = u32::try_from(start).unwrap_or(u32::MAX);
    Ok(ChunkStart {
        reference: ChunkRef::new(segment, offset),
        encoding,
        samples: encoding.samples([first, second]),
    })
}

fn push(summary: &mut SegmentSummary, out: &mut Vec<ChunkStart>, chunk: ChunkStart) {
    summary.chunks = summary.chunks.saturating_add(1);
    summary.samples = summary.samples.saturating_add(u64::from(chunk.samples));
    out.push(chunk);
}

pub(super) fn check_header(header: [u8; 8]) -> Result<(), DecodeError> {
    let [m0, m1, m2, m3, version, padding @ ..] = header;
    let found = u32::from_be_bytes([m0, m1, m2, m3]);
    let error = |offset, kind| Err(DecodeError::new(Section::Header, offset, kind));
    if found != MAGIC {
        let expected = MAGIC;
        return error(0, DecodeErrorKind::Magic { expected, found });
    }
    if version != VERSION {
        return error(4, DecodeErrorKind::Version { found: version });
    }
    for (offset, found) in (5..).zip(padding) {
        if found != 0 {
            return error(offset, DecodeErrorKind::Padding { found });
        }
    }
    Ok(())
}

/// Fills `bytes` from the run; whether it is full now.
fn take_into<const N: usize>(run: &mut Run<'_>, bytes: &mut [u8; N], len: &mut usize) -> bool {
    while *len < N {
        let Some(byte) = run.next() else { break };
        if let Some(slot) = bytes.get_mut(*len) {
            *slot = byte;
        }
        *len = len.saturating_add(1);
    }
    *len == N
}

fn frame_bytes(length_bytes: usize, length: u64) -> u64 {
    count(length_bytes)
        .saturating_add(length)
        .saturating_add(ENCODING_BYTES)
        .saturating_add(CRC_BYTES)
}

fn at(offset: u64, kind: DecodeErrorKind) -> DecodeError {
    DecodeError::new(Section::Chunks, offset, kind)
}

#[cfg(test)]
mod tests;
