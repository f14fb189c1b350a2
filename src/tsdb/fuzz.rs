//! What the fuzz targets run, here so that a plain `cargo test` replays their corpora.
//!
//! Beyond "no panic", each asserts what must hold for any input: one verdict however the bytes are
//! split, and a document that survives being printed.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support: nothing here reaches the product"
)]

use super::checksum::crc32c;
use super::index::fuzz_bodies;
use super::testing::{SEGMENT_HEADER, chunk_bytes};
use super::{
    BlockMeta, ChunkStart, DecodeError, IndexSummary, IndexToc, IndexVerifier, SegmentSummary,
    SegmentVerifier, SeriesChunks, Tombstones, check_chunk, check_segment_header, check_tombstones,
    chunk_at,
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

/// The input as a tombstones file, and as the entries of one.
pub fn fuzz_tombstones(data: &[u8]) {
    if check_tombstones(data).is_ok() {
        assert!(data.len() >= 9, "a header and a checksum are 9 bytes");
    } else {
        assert!(Tombstones::parse(data).is_err());
    }
    let mut file = vec![0x01, 0x30, 0xba, 0x30, 1];
    file.extend_from_slice(data);
    file.extend(crc32c(data).to_be_bytes());
    for file in [&file, data] {
        let Ok(tombstones) = Tombstones::parse(file) else {
            continue;
        };
        for series in 0..300 {
            let intervals = tombstones.intervals(series);
            let apart =
                |a: &(i64, i64), b: &(i64, i64)| a.1.checked_add(1).is_some_and(|t| t < b.0);
            assert!(intervals.is_sorted_by(apart));
            assert!(intervals.is_empty() || !tombstones.is_empty());
            for &(mint, maxt) in intervals {
                assert!(mint <= maxt);
                assert!(tombstones.covers(series, mint) && tombstones.covers(series, maxt));
                let before = mint.checked_sub(1);
                assert!(before.is_none_or(|t| !tombstones.covers(series, t)));
                let after = maxt.checked_add(1);
                assert!(after.is_none_or(|t| !tombstones.covers(series, t)));
            }
        }
    }
}

/// The input as a segment file: what is found while it streams past stands there at random access,
/// and any offset is an error or a chunk in the file.
pub fn fuzz_chunk_access(data: &[u8]) {
    let mut framed = SEGMENT_HEADER.to_vec();
    let mut rest = data;
    while let Some((&[length, encoding], tail)) = rest.split_first_chunk() {
        let (body, tail) = tail.split_at(usize::from(length).min(tail.len()));
        framed.extend(chunk_bytes(encoding, body));
        rest = tail;
    }
    for file in [data, &framed] {
        let mut verifier = SegmentVerifier::new(0, file.len() as u64);
        let mut found = Vec::new();
        if verifier.feed(file, &mut found).is_ok() && file.len() >= 8 {
            assert_eq!(check_segment_header(file), Ok(()));
        }
        for chunk in found {
            let offset = chunk.reference.offset();
            let bytes = chunk_at(file, offset).expect("it has been verified");
            assert_eq!(bytes.encoding, chunk.encoding);
            let checked = check_chunk(bytes.encoding, bytes.data, bytes.stored_crc, offset);
            assert_eq!(checked, Ok(()));
        }
        for offset in (0..4096).chain([u32::MAX]) {
            if let Ok(chunk) = chunk_at(file, offset) {
                assert!(chunk.data.len() + 6 + offset as usize <= file.len());
                let _is_whole = check_chunk(chunk.encoding, chunk.data, chunk.stored_crc, offset);
            }
        }
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
