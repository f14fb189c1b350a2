//! The index walk on written blocks: layouts, seams, limits.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "tests may panic"
)]

use proptest::prelude::*;

use super::*;
use crate::model::{BlockId, TimeRange, TimestampMs};
use crate::tsdb::checksum::crc32c;
use crate::tsdb::testing::{BlockLayout, Chunk, MemoryBlock, Series, cut};
use crate::tsdb::{ChunkRef, DecodeError, DecodeErrorKind, Encoding, Section};

const RANGE: TimeRange = TimeRange {
    mint: TimestampMs(0),
    maxt: TimestampMs(7_200_000),
};

/// As many series as asked, with 0 to 5 chunks each, in label order.
fn series(count: usize) -> Vec<Series> {
    let numbered = (0..count).map(|i| Series {
        labels: vec![
            ("__name__".to_owned(), format!("metric_{:04}", i / 3)),
            ("instance".to_owned(), format!("i{}", i % 3)),
            ("job".to_owned(), "ü".to_owned()),
        ],
        chunks: (0..i % 6)
            .map(|k| {
                let mint = k as i64 * 1_000_000;
                Chunk::opaque(Encoding::Xor, 120, mint, mint + 999_999, 50 + i)
            })
            .collect(),
    });
    numbered.collect()
}

fn block(layout: BlockLayout, series: Vec<Series>) -> MemoryBlock {
    MemoryBlock::write(layout, BlockId::from_u128(7), RANGE, series)
}

fn index(layout: BlockLayout, count: usize) -> Vec<u8> {
    block(layout, series(count)).index().to_vec()
}

fn toc(file: &[u8]) -> Result<IndexToc, DecodeError> {
    let tail = file.len().saturating_sub(52);
    IndexToc::parse(&file[tail..], file.len() as u64)
}

fn verify<'a>(
    file: &[u8],
    runs: impl IntoIterator<Item = &'a [u8]>,
) -> Result<IndexSummary, DecodeError> {
    let mut verifier = IndexVerifier::new(toc(file)?, file.len() as u64, RANGE);
    for run in runs {
        verifier.feed(run)?;
    }
    verifier.finish()
}

fn whole(file: &[u8]) -> Result<IndexSummary, DecodeError> {
    verify(file, [file])
}

fn layouts() -> Vec<BlockLayout> {
    let mut layouts = Vec::new();
    for index_version in 1..=3 {
        for label_indices in [false, true] {
            for swap_references in [false, true] {
                layouts.push(BlockLayout {
                    index_version,
                    label_indices,
                    swap_references,
                    segment_bytes_max: 2_000,
                });
            }
        }
    }
    // Miri is slow; each option alone will do there.
    layouts.retain(|layout| !cfg!(miri) || layout.label_indices != layout.swap_references);
    layouts
}

#[test]
fn accepts_every_layout_in_one_run_and_byte_by_byte() {
    for layout in layouts() {
        for count in if cfg!(miri) {
            [0, 1, 2, 3, 4]
        } else {
            [0, 1, 2, 3, 40]
        } {
            let block = block(layout, series(count));
            let file = block.index();
            let summary = whole(file).unwrap_or_else(|e| panic!("{layout:?} of {count}: {e}"));
            assert_eq!(verify(file, file.chunks(1)).as_ref(), Ok(&summary));
            assert_eq!(summary.version, layout.index_version);
            assert_eq!(summary.series, block.meta.stats.num_series);
            assert_eq!(summary.chunks, block.meta.stats.num_chunks);
            // The first two with chunks on both sides of a swap are numbers 2 and 3.
            let ascending = !layout.swap_references || count < 4;
            assert_eq!(summary.refs_ascending, ascending, "{layout:?} of {count}");
        }
    }
}

#[test]
fn a_segment_is_found_again_from_its_first_series() {
    for layout in layouts().into_iter().filter(|l| !l.swap_references) {
        let file = index(layout, if cfg!(miri) { 15 } else { 60 });
        let summary = whole(&file).unwrap();
        assert!(summary.segments.len() > 1);
        let total: u64 = summary.segments.iter().map(|s| s.chunks).sum();
        assert_eq!(total, summary.chunks);
        for segment in &summary.segments {
            let start = segment.first_series_offset;
            for run in if cfg!(miri) {
                [3, 7, 500]
            } else {
                [1, 7, 100_000]
            } {
                let section = summary.series_section.clone();
                let mut chunks = SeriesChunks::new(summary.version, section, start);
                let mut out = Vec::new();
                // Whole runs, past the end of the section too.
                for run in file[start as usize..].chunks(run) {
                    chunks.feed(run, &mut out).unwrap();
                }
                assert!(chunks.is_done());
                let of_segment = out.iter().filter(|c| c.segment() == segment.segment);
                assert_eq!(of_segment.count() as u64, segment.chunks);
                let first = out.iter().position(|c| c.segment() == segment.segment);
                assert!(
                    first.unwrap() < 5,
                    "the first entry holds the first reference"
                );
                assert!(out.is_sorted());
            }
        }
    }
}

#[test]
fn references_are_those_written() {
    let block = block(BlockLayout::default(), series(6));
    let summary = whole(block.index()).unwrap();
    let section = summary.series_section;
    let start = section.start;
    let mut chunks = SeriesChunks::new(2, section, start);
    let mut out = Vec::new();
    chunks
        .feed(&block.index()[start as usize..], &mut out)
        .unwrap();
    assert_eq!(out.len(), 1 + 2 + 3 + 4 + 5);
    assert_eq!(out[0], ChunkRef::new(0, 8));
    assert!(out.is_sorted());
}

#[test]
fn every_truncation_is_an_error() {
    let file = index(BlockLayout::default(), 5);
    for len in (0..file.len()).step_by(if cfg!(miri) { 17 } else { 1 }) {
        let (head, _) = file.split_at(len);
        assert!(whole(head).is_err(), "a file of {len} bytes");
        let ended = verify(&file, [head]).unwrap_err();
        assert!(
            matches!(ended.kind, DecodeErrorKind::Truncated { .. }),
            "{len}: {ended}"
        );
    }
}

/// Which bytes may be flipped without being noticed: versions 2 and 3 differ in that byte only.
fn undetectable(at: usize, bit: u32, file: &[u8]) -> bool {
    at == 4 && matches!(file[4], 2 | 3) && bit == 0
}

fn flips(file: &[u8], step: usize) {
    for flip in (0..file.len() * 8).step_by(step) {
        let (at, bit) = (flip / 8, (flip % 8) as u32);
        let mut flipped = file.to_vec();
        flipped[at] ^= 1 << bit;
        let found = whole(&flipped);
        let expected = undetectable(at, bit, file);
        assert_eq!(found.is_ok(), expected, "byte {at} bit {bit}: {found:?}");
    }
}

#[test]
fn flipped_bits_are_found() {
    for layout in layouts() {
        flips(&index(layout, 8), if cfg!(miri) { 1_009 } else { 13 });
    }
}

#[test]
#[ignore = "every bit of every layout; part of make test-long"]
fn exhaustive_flipped_bits_are_found() {
    for layout in layouts() {
        flips(&index(layout, 40), 1);
    }
}

fn kind(series: Vec<Series>) -> DecodeErrorKind {
    let block = block(BlockLayout::default(), series);
    let error = whole(block.index()).unwrap_err();
    assert_eq!(error.section, Section::Series, "{error}");
    error.kind
}

fn one(labels: &[(&str, &str)], chunks: &[(i64, i64)]) -> Series {
    let owned = labels
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Series {
        labels: owned.collect(),
        chunks: chunks
            .iter()
            .map(|&(mint, maxt)| Chunk::opaque(Encoding::Xor, 1, mint, maxt, 9))
            .collect(),
    }
}

#[test]
fn wrong_series_with_right_checksums_are_found() {
    let order = |what| DecodeErrorKind::Order { what };
    let a = || one(&[("a", "1")], &[]);
    let b = || one(&[("b", "1")], &[]);
    let ab = || one(&[("a", "1"), ("b", "1")], &[]);
    assert_eq!(kind(vec![b(), a()]), order("series"));
    assert_eq!(kind(vec![a(), a()]), order("series"));
    assert_eq!(kind(vec![ab(), a()]), order("series"));
    assert_eq!(kind(vec![ab(), b(), ab()]), order("series"));
    assert_eq!(
        kind(vec![one(&[("b", "1"), ("a", "1")], &[])]),
        order("label names of a series")
    );
    assert_eq!(
        kind(vec![one(&[("a", "1"), ("a", "2")], &[])]),
        order("label names of a series")
    );
    assert!(whole(block(BlockLayout::default(), vec![a(), ab(), b()]).index()).is_ok());

    let times = |times: &[(i64, i64)]| kind(vec![one(&[("a", "1")], times)]);
    let outside = |mint, maxt| DecodeErrorKind::ChunkOutsideBlock {
        mint,
        maxt,
        range_mint: 0,
        range_maxt: 7_200_000,
    };
    assert_eq!(times(&[(-1, 5)]), outside(-1, 5));
    assert_eq!(times(&[(0, 7_200_000)]), outside(0, 7_200_000));
    let overlap = |mint, previous_maxt| DecodeErrorKind::ChunkOverlap {
        mint,
        previous_maxt,
    };
    assert_eq!(times(&[(0, 10), (10, 20)]), overlap(10, 10));
    assert_eq!(times(&[(i64::MIN, -1)]), outside(i64::MIN, -1));
    let fits = one(&[("a", "1")], &[(0, 10), (11, 7_199_999)]);
    assert!(whole(block(BlockLayout::default(), vec![fits]).index()).is_ok());
}

/// The error of a section that holds one entry with this body.
fn entry_error(body: &[u8]) -> DecodeErrorKind {
    let mut section = vec![u8::try_from(body.len()).unwrap()];
    section.extend_from_slice(body);
    section.extend(crc32c(body).to_be_bytes());
    let errors = [1, section.len()].map(|run| {
        let mut chunks = SeriesChunks::new(2, 16..16 + section.len() as u64, 16);
        let mut out = Vec::new();
        let fed = section
            .chunks(run)
            .try_for_each(|run| chunks.feed(run, &mut out));
        fed.unwrap_err()
    });
    assert_eq!(errors[0], errors[1]);
    errors[0].kind.clone()
}

#[test]
fn entries_of_impossible_shape_are_found() {
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let overflow = |what| DecodeErrorKind::Overflow { what };
    let span_overflows = [[0, 1, 2].as_slice(), &max, &[8]].concat();
    assert_eq!(entry_error(&span_overflows), overflow("chunk time"));
    let gap_overflows = [[0, 2, 2, 0, 8].as_slice(), &max, &[0, 0]].concat();
    assert_eq!(entry_error(&gap_overflows), overflow("chunk time"));
    // The second reference is one before zero.
    assert_eq!(
        entry_error(&[0, 2, 2, 0, 0, 1, 0, 1]),
        overflow("chunk reference")
    );
    let varint = DecodeErrorKind::Varint {
        what: "chunk count",
    };
    assert_eq!(entry_error(&[[0].as_slice(), &[0x80; 10]].concat()), varint);
    let inside = "a series entry";
    assert_eq!(
        entry_error(&[0, 1, 2, 0]),
        DecodeErrorKind::Truncated { inside }
    );
    assert_eq!(
        entry_error(&[0, 1, 0x80]),
        DecodeErrorKind::Truncated { inside }
    );
    let what = "the last chunk of the series";
    assert_eq!(
        entry_error(&[0, 0, 9]),
        DecodeErrorKind::Trailing { what, bytes: 1 }
    );
}

#[test]
#[cfg_attr(miri, ignore = "megabytes take miri minutes")]
fn limits_are_errors_that_name_them() {
    let names: Vec<String> = (0..=SERIES_LABELS_MAX).map(|i| format!("{i:06}")).collect();
    let labels = |count: usize| Series {
        labels: names[..count]
            .iter()
            .map(|n| (n.clone(), String::new()))
            .collect(),
        chunks: vec![],
    };
    let limit = SERIES_LABELS_MAX;
    let what = "number of labels";
    let value = limit + 1;
    let at_limit = block(BlockLayout::default(), vec![labels(limit as usize)]);
    assert!(whole(at_limit.index()).is_ok());
    assert_eq!(
        kind(vec![labels(limit as usize + 1)]),
        DecodeErrorKind::Limit { what, value, limit }
    );

    let long = |length: u64| {
        let value = "x".repeat(length as usize);
        block(BlockLayout::default(), vec![one(&[("a", &value)], &[])])
    };
    assert!(whole(long(SYMBOL_BYTES_MAX).index()).is_ok());
    let error = whole(long(SYMBOL_BYTES_MAX + 1).index()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "symbols section, offset 15: symbol length is 16777217, the limit is 16777216"
    );
}

#[test]
#[cfg_attr(miri, ignore = "megabytes take miri minutes")]
fn too_many_segments_are_an_error() {
    let many = |segments: u64| Series {
        labels: vec![("a".to_owned(), "b".to_owned())],
        chunks: (0..segments as i64)
            .map(|t| Chunk::opaque(Encoding::Xor, 1, t, t, 3))
            .collect(),
    };
    let layout = BlockLayout {
        segment_bytes_max: 1,
        ..BlockLayout::default()
    };
    let summary = whole(block(layout, vec![many(SEGMENTS_MAX)]).index()).unwrap();
    assert_eq!(summary.segments.len() as u64, SEGMENTS_MAX);
    let error = whole(block(layout, vec![many(SEGMENTS_MAX + 1)]).index()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("number of segments is 65537, the limit is 65536")
    );
}

#[test]
fn a_changed_table_of_contents_is_noticed() {
    let before = index(BlockLayout::default(), 3);
    let mut verifier = IndexVerifier::new(toc(&before).unwrap(), before.len() as u64, RANGE);
    let mut changed = before.clone();
    let at = changed.len() - 1;
    changed[at] ^= 1;
    let error = verifier.feed(&changed).unwrap_err();
    assert_eq!(error.section, Section::Toc);
    assert_eq!(verifier.feed(&[]), Err(error.clone()));
    assert_eq!(verifier.finish(), Err(error));
}

#[test]
fn bytes_past_the_end_are_an_error() {
    let file = index(BlockLayout::default(), 3);
    let error = verify(&file, [file.as_slice(), &[0]]).unwrap_err();
    assert!(matches!(
        error.kind,
        DecodeErrorKind::Trailing { bytes: 1, .. }
    ));
}

#[test]
fn sets_that_differ_have_other_tallies() {
    let tally = |elements: &[u64]| {
        let mut tally = Tally::default();
        elements.iter().for_each(|&e| tally.add(e));
        tally
    };
    assert_eq!(tally(&[1, 2, 3]), tally(&[3, 1, 2]));
    assert_ne!(tally(&[1, 4]), tally(&[2, 3]));
    assert_ne!(tally(&[0]), tally(&[0, 0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn any_split_gives_the_same_verdict(
        layout in prop::sample::select(layouts()),
        count in 0_usize..20,
        cuts in prop::collection::vec(1_usize..200, 1..60),
        flip in prop::option::of((any::<prop::sample::Index>(), 0_u32..8)),
    ) {
        let mut file = index(layout, count);
        if let Some((at, bit)) = flip {
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
        }
        let in_one = whole(&file);
        prop_assert_eq!(verify(&file, cut(&file, &cuts)), in_one.clone());
        if flip.is_none() { prop_assert!(in_one.is_ok(), "{:?}", in_one) }
    }
}
