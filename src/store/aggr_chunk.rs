//! Chunks in the form of StoreAPI's wire: fields `chunks` of a `thanos.Series` (contract `grpc.md`
//! §2.1, §2.3).
//!
//! A chunk that Prometheus sent is written when its message is. Chunks of local blocks are written
//! where they are copied to from the map, as a [`ChunkRun`]: from there on they are bytes.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use xxhash_rust::xxh64::xxh64;

use super::wire::{put_varint, varint_len};
use super::{Chunk, ChunkEncoding};
use crate::proto::thanos;

/// Field tags; all have one byte.
mod tag {
    pub(super) const SERIES_CHUNK: u8 = 0x12;
    pub(super) const AGGR_MIN_TIME: u8 = 0x08;
    pub(super) const AGGR_MAX_TIME: u8 = 0x10;
    pub(super) const AGGR_RAW: u8 = 0x1A;
    pub(super) const CHUNK_TYPE: u8 = 0x08;
    pub(super) const CHUNK_DATA: u8 = 0x12;
    pub(super) const CHUNK_HASH: u8 = 0x18;
}

/// Consecutive chunks of one series, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRun {
    /// Time of the first sample, in milliseconds since the epoch.
    pub min_ms: i64,
    /// Time of the last.
    pub max_ms: i64,
    count: usize,
    wire: Bytes,
}

/// What is known of a chunk beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkHead {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) encoding: ChunkEncoding,
}

/// Gathers the chunks of a run at the end of a buffer that may hold other runs.
#[derive(Debug)]
pub(super) struct RunWriter {
    min_ms: i64,
    max_ms: i64,
    count: usize,
}

/// The tag and the longest varint.
const HASH_BYTES_MAX: usize = 1 + 10;
/// A chunk's field without its data: four tags before lengths of at most five bytes, two before
/// times of at most ten, two bytes of encoding, and the hash.
pub(super) const AROUND_BYTES_MAX: usize = 4 * 6 + 2 * 11 + 2 + HASH_BYTES_MAX;

// === impl ChunkRun ===

impl ChunkRun {
    /// How many chunks there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The chunks as fields `chunks` of a `thanos.Series`.
    pub(super) fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// Moves the chunks to another buffer, which holds the same bytes.
    pub(super) fn set_wire(&mut self, same: Bytes) {
        debug_assert_eq!(self.wire, same);
        self.wire = same;
    }

    /// The chunks, each for itself; their data are views of the run's.
    pub(super) fn chunks(&self) -> Vec<Chunk> {
        let series = thanos::Series::decode(self.wire.clone());
        let series = series.expect("a run holds what was encoded here");
        let chunks = series.chunks.into_iter();
        let chunk = |aggr: thanos::AggrChunk| {
            let raw = aggr.raw.unwrap_or_default();
            let encoding = match raw.r#type {
                0 => ChunkEncoding::Xor,
                1 => ChunkEncoding::Histogram,
                _ => ChunkEncoding::FloatHistogram,
            };
            Chunk::new(aggr.min_time, aggr.max_time, encoding, raw.data)
        };
        chunks.map(chunk).collect()
    }
}

// === impl RunWriter ===

impl RunWriter {
    /// Appends a chunk to `buffer`: the data are copied there, and what is proven and hashed is the
    /// copy. `run` is the run that it becomes a part of.
    ///
    /// # Errors
    /// What `prove` says of the copy; the buffer is of no use then.
    pub(super) fn append<E>(
        run: &mut Option<Self>,
        buffer: &mut BytesMut,
        head: ChunkHead,
        data: &[u8],
        prove: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = buffer.len();
        // Lengths that stand before the data depend on how long the hash will be: nine or ten bytes
        // as a rule, which seldom matters to the length of a length.
        let expected = prefix_len(head, data.len(), u64::MAX);
        buffer.reserve(expected + data.len() + HASH_BYTES_MAX);
        buffer.put_bytes(0, expected);
        buffer.put_slice(data);
        let copy = &buffer[start + expected..];
        prove(copy)?;
        let hash = xxh64(copy, 0);
        let prefix_len = prefix_len(head, data.len(), hash);
        if prefix_len < expected {
            buffer.copy_within(start + expected.., start + prefix_len);
            buffer.truncate(start + prefix_len + data.len());
        }
        put_prefix(head, data.len(), hash, &mut &mut buffer[start..]);
        put_hash(hash, buffer);
        let run = run.get_or_insert(Self {
            min_ms: head.min_ms,
            max_ms: head.max_ms,
            count: 0,
        });
        run.max_ms = run.max_ms.max(head.max_ms);
        run.count += 1;
        Ok(())
    }

    /// Time of the last sample.
    pub(super) fn max_ms(&self) -> i64 {
        self.max_ms
    }

    /// The run, whose chunks are all that is in `buffer`.
    pub(super) fn finish(self, buffer: &mut BytesMut) -> ChunkRun {
        ChunkRun {
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            count: self.count,
            wire: buffer.split().freeze(),
        }
    }
}

/// Appends everything of a chunk's field that stands before the data.
fn put_prefix(head: ChunkHead, data_len: usize, hash: u64, out: &mut impl BufMut) {
    let raw_len = raw_len(head.encoding, data_len, hash);
    put_head(tag::SERIES_CHUNK, aggr_len(head, raw_len), out);
    for (tag, time) in [
        (tag::AGGR_MIN_TIME, head.min_ms),
        (tag::AGGR_MAX_TIME, head.max_ms),
    ] {
        if time != 0 {
            out.put_u8(tag);
            put_varint(out, time.cast_unsigned());
        }
    }
    put_head(tag::AGGR_RAW, raw_len, out);
    if encoding_id(head.encoding) != 0 {
        out.put_slice(&[tag::CHUNK_TYPE, encoding_id(head.encoding)]);
    }
    if data_len != 0 {
        put_head(tag::CHUNK_DATA, data_len, out);
    }
}

/// How many bytes [`put_prefix`] appends: all of the field but the data and the hash.
fn prefix_len(head: ChunkHead, data_len: usize, hash: u64) -> usize {
    let raw_len = raw_len(head.encoding, data_len, hash);
    delimited(aggr_len(head, raw_len)) - data_len - hash_len(hash)
}

/// How many bytes [`put_chunk`] appends.
pub(super) fn chunk_len(chunk: &Chunk) -> usize {
    let head = chunk.head();
    delimited(aggr_len(
        head,
        raw_len(head.encoding, chunk.data().len(), chunk.hash()),
    ))
}

/// Appends a chunk as a field of its series.
pub(super) fn put_chunk(chunk: &Chunk, out: &mut BytesMut) {
    put_prefix(chunk.head(), chunk.data().len(), chunk.hash(), out);
    out.put_slice(chunk.data());
    put_hash(chunk.hash(), out);
}

fn put_hash(hash: u64, out: &mut BytesMut) {
    if hash != 0 {
        out.put_u8(tag::CHUNK_HASH);
        put_varint(out, hash);
    }
}

/// A field with its tag and length.
pub(super) fn delimited(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The tag and length of a field.
pub(super) fn put_head(tag: u8, len: usize, out: &mut impl BufMut) {
    out.put_u8(tag);
    put_varint(out, len as u64);
}

fn aggr_len(head: ChunkHead, raw_len: usize) -> usize {
    time_len(head.min_ms) + time_len(head.max_ms) + delimited(raw_len)
}

fn raw_len(encoding: ChunkEncoding, data_len: usize, hash: u64) -> usize {
    let encoding = if encoding_id(encoding) == 0 { 0 } else { 2 };
    let data = match data_len {
        0 => 0,
        len => delimited(len),
    };
    encoding + data + hash_len(hash)
}

fn hash_len(hash: u64) -> usize {
    match hash {
        0 => 0,
        hash => 1 + varint_len(hash),
    }
}

/// A number that is 0 is left out, as everywhere in proto3; a negative one takes ten bytes.
fn time_len(time: i64) -> usize {
    match time {
        0 => 0,
        time => 1 + varint_len(time.cast_unsigned()),
    }
}

fn encoding_id(encoding: ChunkEncoding) -> u8 {
    match encoding {
        ChunkEncoding::Xor => 0,
        ChunkEncoding::Histogram => 1,
        ChunkEncoding::FloatHistogram => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn head(at: i64) -> ChunkHead {
        ChunkHead {
            min_ms: at,
            max_ms: at + 9,
            encoding: ChunkEncoding::Histogram,
        }
    }

    /// Every length of data around those at which a length takes one byte more, so that the hash's
    /// length matters to some of them.
    #[test]
    fn a_run_is_what_its_chunks_are_alone() {
        let lens = (0..200).chain(16_300..16_400);
        let mut buffer = BytesMut::new();
        let (mut run, mut expected, mut chunks) = (None, BytesMut::new(), Vec::new());
        for (at, len) in lens.enumerate() {
            for salt in 0..4_u8 {
                let data: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0] ^ salt).collect();
                let at = i64::try_from(at).unwrap() - 3;
                let none = |_: &[u8]| Ok::<_, Infallible>(());
                RunWriter::append(&mut run, &mut buffer, head(at), &data, none).unwrap();
                let chunk = Chunk::new(at, at + 9, ChunkEncoding::Histogram, data.into());
                let before = expected.len();
                put_chunk(&chunk, &mut expected);
                assert_eq!(expected.len() - before, chunk_len(&chunk));
                chunks.push(chunk);
            }
        }
        let run = run.unwrap().finish(&mut buffer);
        assert_eq!(run.wire(), &expected);
        assert_eq!((run.min_ms, run.max_ms), (-3, 305));
        assert_eq!(run.count(), chunks.len());
        assert_eq!(run.chunks(), chunks);
    }

    #[test]
    fn a_hash_that_makes_a_length_shorter_moves_the_data() {
        let of = |len, hash| prefix_len(head(1), len, hash);
        let shorter = |len: usize| of(len, u64::MAX) != of(len, 1 << 60);
        assert!((0..200).any(shorter), "else the other test shows less");
    }

    #[test]
    fn the_copy_is_what_is_proven() {
        let mut buffer = BytesMut::new();
        let prove = |copy: &[u8]| match copy {
            b"data" => Err("seen"),
            _ => Ok(()),
        };
        let appended = RunWriter::append(&mut None, &mut buffer, head(1), b"data", prove);
        assert_eq!(appended, Err("seen"));
    }
}
