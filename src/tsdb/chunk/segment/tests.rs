//! The segment walk: layout, seams, limits and damage.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests may panic"
)]

use proptest::prelude::*;

use super::*;
use crate::tsdb::testing::{Chunk, SEGMENT_HEADER, chunk_bytes, cut, put_uvarint};

const ENCODINGS: [Encoding; 6] = [
    Encoding::Xor,
    Encoding::Histogram,
    Encoding::FloatHistogram,
    Encoding::Xor2,
    Encoding::HistogramSt,
    Encoding::FloatHistogramSt,
];

/// A segment of one chunk for each length, encodings in turn, and what a walk must find in it.
fn segment(lengths: &[usize]) -> (Vec<u8>, Vec<ChunkStart>) {
    let mut file = SEGMENT_HEADER.to_vec();
    let mut expected = Vec::new();
    for (i, &length) in lengths.iter().enumerate() {
        let encoding = ENCODINGS[i % ENCODINGS.len()];
        let samples = u16::try_from(i % 120 + 1).unwrap();
        let chunk = Chunk::opaque(encoding, samples, i as i64, i as i64, length);
        expected.push(ChunkStart {
            reference: ChunkRef::new(7, u32::try_from(file.len()).unwrap()),
            encoding,
            samples: u32::from(samples),
        });
        file.extend(chunk_bytes(encoding.id(), &chunk.data));
    }
    (file, expected)
}

fn verify<'a>(
    size: usize,
    runs: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<ChunkStart>, SegmentSummary), DecodeError> {
    let mut verifier = SegmentVerifier::new(7, size as u64);
    let mut out = Vec::new();
    for run in runs {
        verifier.feed(run, &mut out)?;
    }
    Ok((out, verifier.finish()?))
}

fn kind_of(file: &[u8]) -> DecodeErrorKind {
    verify(file.len(), [file]).unwrap_err().kind
}

#[test]
fn finds_every_chunk_in_one_run_and_byte_by_byte() {
    let (file, expected) = segment(&[3, 100, 127, 128, 500, if cfg!(miri) { 999 } else { 20_000 }]);
    let summary = SegmentSummary {
        chunks: 6,
        samples: 1 + 2 + 3 + 4 + 5 + 6,
    };
    let whole = verify(file.len(), [file.as_slice()]).unwrap();
    assert_eq!(whole, (expected.clone(), summary));
    assert_eq!(
        verify(file.len(), file.chunks(1)).unwrap(),
        (expected, summary)
    );
}

#[test]
fn a_segment_may_hold_nothing() {
    let found = verify(8, [SEGMENT_HEADER.as_slice()]).unwrap();
    assert_eq!(found, (vec![], SegmentSummary::default()));
}

#[test]
fn every_truncation_is_an_error_that_names_where() {
    let (file, _) = segment(&[3, 60, 200]);
    for len in 0..file.len() {
        // The file is as short as the bytes that come, or the bytes end before the file does.
        for size in [len, file.len()] {
            let error = verify(size, [&file[..len]]);
            let at_a_chunk_end = [8, 8 + 9, 8 + 9 + 66].contains(&len) && size == len;
            assert_eq!(error.is_ok(), at_a_chunk_end, "{len} of {size}: {error:?}");
        }
    }
    let error = verify(file.len(), [&file[..50]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "chunks section, offset 50: ends inside a chunk"
    );
}

#[test]
fn every_flipped_bit_is_found() {
    let (file, _) = segment(&[3, 17, 130]);
    for at in (0..file.len()).step_by(if cfg!(miri) { 9 } else { 1 }) {
        for bit in (0..8).step_by(if cfg!(miri) { 7 } else { 1 }) {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << bit;
            let whole = verify(file.len(), [flipped.as_slice()]).unwrap_err();
            let split = verify(file.len(), flipped.chunks(1)).unwrap_err();
            assert_eq!(whole, split, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn unusual_chunks_are_named() {
    let with = |encoding, data: &[u8]| {
        let mut file = SEGMENT_HEADER.to_vec();
        file.extend(chunk_bytes(encoding, data));
        kind_of(&file)
    };
    assert_eq!(with(0, &[0, 1, 0]), DecodeErrorKind::Encoding { found: 0 });
    assert_eq!(with(7, &[0, 1, 0]), DecodeErrorKind::Encoding { found: 7 });
    let what = "chunk data";
    let length = 2;
    assert_eq!(with(2, &[0, 1]), DecodeErrorKind::Shape { what, length });
    let length = 1;
    assert_eq!(with(1, &[0]), DecodeErrorKind::Shape { what, length });

    let mut file = SEGMENT_HEADER.to_vec();
    put_uvarint(&mut file, CHUNK_DATA_BYTES_MAX + 1);
    let limit = CHUNK_DATA_BYTES_MAX;
    let value = limit + 1;
    assert_eq!(
        kind_of(&file),
        DecodeErrorKind::Limit { what, value, limit }
    );

    let (mut file, _) = segment(&[20]);
    let size = file.len();
    file.push(0);
    let what = "the segment file";
    let trailing = verify(size, [file.as_slice()]).unwrap_err().kind;
    assert_eq!(trailing, DecodeErrorKind::Trailing { what, bytes: 1 });
}

#[test]
fn a_chunk_of_the_largest_length_needs_no_memory() {
    // Its bytes come by in runs; the verifier holds a CRC and three bytes of it.
    let mut verifier = SegmentVerifier::new(0, u64::from(u32::MAX));
    let mut head = SEGMENT_HEADER.to_vec();
    put_uvarint(&mut head, CHUNK_DATA_BYTES_MAX);
    let mut out = Vec::new();
    verifier.feed(&head, &mut out).unwrap();
    verifier.feed(&[1; 4096], &mut out).unwrap();
    assert!(matches!(verifier.state, State::Body(_)));
}

#[test]
fn a_failed_verifier_stays_failed() {
    let mut verifier = SegmentVerifier::new(0, 100);
    let mut out = Vec::new();
    let error = verifier.feed(b"not a segment", &mut out).unwrap_err();
    assert_eq!(error.section, Section::Header);
    assert_eq!(verifier.feed(&SEGMENT_HEADER, &mut out), Err(error.clone()));
    assert_eq!(verifier.finish(), Err(error));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn any_split_gives_the_same_verdict(
        lengths in prop::collection::vec(3_usize..400, 0..12),
        cuts in prop::collection::vec(1_usize..300, 1..40),
        flip in prop::option::of((any::<prop::sample::Index>(), 0_u32..8)),
    ) {
        let (mut file, expected) = segment(&lengths);
        if let Some((index, bit)) = flip {
            let at = index.index(file.len());
            file[at] ^= 1 << bit;
        }
        let whole = verify(file.len(), [file.as_slice()]);
        prop_assert_eq!(&verify(file.len(), cut(&file, &cuts)), &whole);
        prop_assert_eq!(whole.is_ok(), flip.is_none());
        if let Ok((found, _)) = whole {
            prop_assert_eq!(found, expected);
        }
    }
}
