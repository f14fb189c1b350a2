//! Frames of a streamed answer (contract `grpc.md` §5): uvarint length, CRC-32C of the payload
//! (big-endian), payload.
//!
//! A payload is a view of the receive buffer; nothing is copied. What does move, once at most, is
//! the beginning of a frame that a full buffer cut off.

use bytes::{Buf, Bytes, BytesMut};

use super::wire;

/// What the reference's client accepts of one frame.
pub const FRAME_BYTES_MAX: usize = 50_000_000;
const CHECKSUM_BYTES: usize = 4;

/// A frame of a streamed remote read is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame {number} of the remote read, at byte {offset}: {kind}")]
pub struct FrameError {
    /// Which frame, from 1.
    pub number: u64,
    /// Where in the body it begins, in bytes, from 0.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: FrameErrorKind,
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameErrorKind {
    /// No 64-bit number is so long.
    #[error("its length is no valid number")]
    Length,
    /// Refused before anything is allocated for it.
    #[error("its length is {length} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLarge {
        /// As declared.
        length: u64,
    },
    /// The body ended inside it.
    #[error("the body ends in it, after {bytes} of its bytes")]
    Truncated {
        /// What came of it.
        bytes: u64,
    },
    /// Damaged, or no frame at all: Prometheus appends an error's text to what it has sent.
    #[error("its checksum is {stored:#010x}, that of its bytes is {computed:#010x}")]
    Checksum {
        /// As sent.
        stored: u32,
        /// Of the bytes as received.
        computed: u32,
    },
    /// The payload is not the message expected.
    #[error("{0}")]
    Message(&'static str),
    /// A label that is not text.
    #[error("a label is not UTF-8")]
    NotUtf8,
}

/// Takes frames off the front of a buffer.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Frames taken.
    taken: u64,
    /// Where the frame taken last began, and where the next one does.
    last_offset: u64,
    next_offset: u64,
}

/// The next frame as far as its header tells.
enum Ahead {
    Incomplete,
    Whole { header_bytes: usize, length: usize },
}

impl Frames {
    /// The payload of the next frame, its checksum verified; `None` where it has not come whole.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Ahead::Whole {
            header_bytes,
            length,
        } = ahead(buffer).map_err(|kind| self.at_next(kind))?
        else {
            return Ok(None);
        };
        let checksum_at = header_bytes.saturating_sub(CHECKSUM_BYTES);
        let stored = buffer.get(checksum_at..).and_then(<[u8]>::first_chunk);
        let stored = stored.map_or(0, |bytes| u32::from_be_bytes(*bytes));
        buffer.advance(header_bytes);
        let payload = buffer.split_to(length).freeze();
        let computed = crc_fast::crc32_iscsi(&payload);
        if stored != computed {
            return Err(self.at_next(FrameErrorKind::Checksum { stored, computed }));
        }
        let frame_bytes = (header_bytes as u64).saturating_add(length as u64);
        self.taken = self.taken.saturating_add(1);
        self.last_offset = self.next_offset;
        self.next_offset = self.next_offset.saturating_add(frame_bytes);
        Ok(Some(payload))
    }

    /// Says of the end of the body whether it may be here.
    pub(super) fn finish(&self, buffer: &BytesMut) -> Result<(), FrameError> {
        match buffer.len() as u64 {
            0 => Ok(()),
            bytes => Err(self.at_next(FrameErrorKind::Truncated { bytes })),
        }
    }

    /// An error of the frame that comes next.
    pub(super) fn at_next(&self, kind: FrameErrorKind) -> FrameError {
        FrameError {
            number: self.taken.saturating_add(1),
            offset: self.next_offset,
            kind,
        }
    }

    /// An error of the frame that was taken last.
    pub(super) fn at_last(&self, kind: FrameErrorKind) -> FrameError {
        FrameError {
            number: self.taken,
            offset: self.last_offset,
            kind,
        }
    }

    /// How many were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

fn ahead(buffer: &BytesMut) -> Result<Ahead, FrameErrorKind> {
    let declared = wire::varint(buffer).map_err(|()| FrameErrorKind::Length)?;
    let Some((length, length_bytes)) = declared else {
        return Ok(Ahead::Incomplete);
    };
    let too_large = FrameErrorKind::TooLarge { length };
    let length = usize::try_from(length).map_err(|_| too_large.clone())?;
    if length > FRAME_BYTES_MAX {
        return Err(too_large);
    }
    let header_bytes = length_bytes.saturating_add(CHECKSUM_BYTES);
    match buffer.len() < header_bytes.saturating_add(length) {
        true => Ok(Ahead::Incomplete),
        false => Ok(Ahead::Whole {
            header_bytes,
            length,
        }),
    }
}
