//! What the fuzz targets run, here so that a plain `cargo test` replays their corpora.
//!
//! Beyond "no panic", each asserts what must hold for any input: one verdict however the bytes are
//! split, and a document that survives being printed.

#![allow(
    clippy::indexing_slicing,
    reason = "test support: nothing here reaches the product"
)]

use super::index::fuzz_bodies;
use super::testing::{SEGMENT_HEADER, chunk_bytes};
use super::{
    BlockMeta, ChunkStart, DecodeError, IndexSummary, IndexToc, IndexVerifier, SegmentSummary,
    SegmentVerifier, SeriesChunks, check_tombstones,
};
use crate::model::{TimeRange, TimestampMs};

/// The input as a whole index file, then as the body of each structure of one.
pub fn fuzz_index(data: &[u8]) {
    let split = data
        .first()
        .map_or(1, |&byte| usize::from(byte % 61).saturating_add(1));
    let whole = index(data, data.len().max(1));
    assert_eq!(index(data, split), whole, "split every {split} bytes");
    if let Ok(summary) = whole {
        let section = summary.series_section;
        let start = section.start;
        let mut chunks = SeriesChunks::new(summary.version, section, start);
        let mut out = Vec::new();
        let rest = usize::try_from(start).map_or(data, |start| &data[start..]);
        chunks
            .feed(rest, &mut out)
            .expect("the section has been verified");
        assert_eq!(out.len() as u64, summary.chunks);
    }
    fuzz_bodies(data, split);
}

/// The input as a whole segment file, then as chunks with right checksums.
pub fn fuzz_segment(data: &[u8]) {
    let split = data
        .first()
        .map_or(1, |&byte| usize::from(byte % 61).saturating_add(1));
    assert_eq!(segment(data, split), segment(data, data.len().max(1)));

    let mut repaired = SEGMENT_HEADER.to_vec();
    let mut rest = data;
    while let Some((&[length, encoding], tail)) = rest.split_first_chunk() {
        let (body, tail) = tail.split_at(usize::from(length).min(tail.len()));
        repaired.extend(chunk_bytes(encoding, body));
        rest = tail;
    }
    let whole = segment(&repaired, repaired.len());
    assert_eq!(segment(&repaired, split), whole);
}

/// The input as a `meta.json`.
pub fn fuzz_meta(data: &[u8]) {
    if let Ok(meta) = BlockMeta::parse(data) {
        assert_eq!(BlockMeta::parse(&meta.to_json()), Ok(meta));
    }
}

/// The input as a tombstones file.
pub fn fuzz_tombstones(data: &[u8]) {
    if check_tombstones(data).is_ok() {
        assert!(data.len() >= 9, "a header and a checksum are 9 bytes");
    }
}

fn index(data: &[u8], split: usize) -> Result<IndexSummary, DecodeError> {
    let size = data.len() as u64;
    let toc = IndexToc::parse(&data[data.len().saturating_sub(52)..], size)?;
    let range = TimeRange {
        mint: TimestampMs(i64::MIN),
        maxt: TimestampMs(i64::MAX),
    };
    let mut verifier = IndexVerifier::new(toc, size, range);
    data.chunks(split).try_for_each(|run| verifier.feed(run))?;
    verifier.finish()
}

fn segment(data: &[u8], split: usize) -> Result<(Vec<ChunkStart>, SegmentSummary), DecodeError> {
    let mut verifier = SegmentVerifier::new(0, data.len() as u64);
    let mut out = Vec::new();
    data.chunks(split)
        .try_for_each(|run| verifier.feed(run, &mut out))?;
    Ok((out, verifier.finish()?))
}
