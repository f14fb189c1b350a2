//! One chunk of a segment file whose bytes are all at hand.
//!
//! What a reader does with a chunk is in its hands: it takes the place from here, copies the data,
//! and proves the copy, so that what it passes on is what was proven, whatever becomes of the file.

use super::segment::check_header;
use super::{CHUNK_DATA_BYTES_MAX, Encoding, SEGMENT_HEADER_BYTES};
use crate::tsdb::checksum::Crc32c;
use crate::tsdb::cursor::Cursor;
use crate::tsdb::decode::count;
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// A chunk as it stands in a segment file, its checksum not yet proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkBytes<'a> {
    /// How its samples are encoded.
    pub encoding: Encoding,
    /// Its data, header included.
    pub data: &'a [u8],
    /// The checksum of encoding and data as stored.
    pub stored_crc: u32,
}

/// The chunk at `offset` (of its length field, bytes) of a segment file.
///
/// # Errors
/// Where no chunk can stand there: inside the file's header, past its end, of a length that does
/// not fit, or of an unknown encoding.
pub fn chunk_at(segment: &[u8], offset: u32) -> Result<ChunkBytes<'_>, DecodeError> {
    let start = u64::from(offset);
    let end = count(segment.len());
    let error = |kind| DecodeError::new(Section::Chunks, start, kind);
    if !(SEGMENT_HEADER_BYTES..end).contains(&start) {
        return Err(error(DecodeErrorKind::OutOfRange {
            what: "offset of a chunk",
            value: start,
            low: SEGMENT_HEADER_BYTES,
            high: end,
        }));
    }
    let mut cursor = Cursor::new(Section::Chunks, segment, start..end)?;
    let length = cursor.uvarint("chunk length")?;
    if length > CHUNK_DATA_BYTES_MAX {
        return Err(error(DecodeErrorKind::Limit {
            what: "chunk data",
            value: length,
            limit: CHUNK_DATA_BYTES_MAX,
        }));
    }
    let inside = "a chunk";
    let body = cursor.take(length.saturating_add(1), start, inside)?;
    let stored_crc = cursor.u32(inside)?;
    let Some((&id, data)) = body.split_first() else {
        return Err(error(DecodeErrorKind::Truncated { inside }));
    };
    let unknown = || error(DecodeErrorKind::Encoding { found: id });
    let encoding = Encoding::from_id(id).ok_or_else(unknown)?;
    if length < encoding.data_header_bytes() {
        let what = "chunk data";
        return Err(error(DecodeErrorKind::Shape { what, length }));
    }
    Ok(ChunkBytes {
        encoding,
        data,
        stored_crc,
    })
}

/// Whether `data` is that of the chunk at `offset`: whether it has, with its encoding, the checksum
/// that is stored there.
///
/// # Errors
/// Where it has not.
pub fn check_chunk(
    encoding: Encoding,
    data: &[u8],
    stored_crc: u32,
    offset: u32,
) -> Result<(), DecodeError> {
    let mut crc = Crc32c::after(encoding.id());
    crc.update(data);
    let (stored, computed) = (stored_crc, crc.value());
    if stored == computed {
        return Ok(());
    }
    let kind = DecodeErrorKind::Checksum { stored, computed };
    Err(DecodeError::new(Section::Chunks, u64::from(offset), kind))
}

/// Whether a segment file begins as one.
///
/// # Errors
/// Where it does not.
pub fn check_segment_header(segment: &[u8]) -> Result<(), DecodeError> {
    let Some(header) = segment.first_chunk() else {
        let inside = "the segment header";
        let kind = DecodeErrorKind::Truncated { inside };
        return Err(DecodeError::new(
            Section::Header,
            count(segment.len()),
            kind,
        ));
    };
    check_header(*header)
}
