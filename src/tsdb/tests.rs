//! Whole blocks: real ones that Prometheus wrote (`tests/data/blocks`), written ones, damaged ones,
//! and the fuzz corpora.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "tests may panic"
)]

use std::path::Path;

use proptest::prelude::*;

use super::testing::{
    BlockFault, BlockFile, BlockLayout, Chunk, MemoryBlock, Series, verify_block, verify_index,
};
use super::*;
use crate::model::{BlockId, TimeRange, TimestampMs};

/// A block as it stands in files.
struct RealBlock {
    name: &'static str,
    meta: &'static [u8],
    index: &'static [u8],
    segments: &'static [&'static [u8]],
}

macro_rules! real_file {
    ($name:literal, $file:literal) => {
        include_bytes!(concat!("../../tests/data/blocks/", $name, "/", $file)).as_slice()
    };
}

/// Backfilled by promtool, which still writes label indices; cut by Prometheus 3.16 with small
/// segments, floats and both kinds of histograms; the same with the encodings that keep start
/// timestamps.
const REAL: [RealBlock; 3] = [
    RealBlock {
        name: "prometheus-2.42",
        meta: real_file!("prometheus-2.42", "meta.json"),
        index: real_file!("prometheus-2.42", "index"),
        segments: &[real_file!("prometheus-2.42", "chunks/000001")],
    },
    RealBlock {
        name: "prometheus-3.16-histograms",
        meta: real_file!("prometheus-3.16-histograms", "meta.json"),
        index: real_file!("prometheus-3.16-histograms", "index"),
        segments: &[
            real_file!("prometheus-3.16-histograms", "chunks/000001"),
            real_file!("prometheus-3.16-histograms", "chunks/000002"),
            real_file!("prometheus-3.16-histograms", "chunks/000003"),
            real_file!("prometheus-3.16-histograms", "chunks/000004"),
        ],
    },
    RealBlock {
        name: "prometheus-3.16-xor2",
        meta: real_file!("prometheus-3.16-xor2", "meta.json"),
        index: real_file!("prometheus-3.16-xor2", "index"),
        segments: &[real_file!("prometheus-3.16-xor2", "chunks/000001")],
    },
];

impl RealBlock {
    fn meta(&self) -> BlockMeta {
        BlockMeta::parse(self.meta).unwrap()
    }
}

#[test]
fn real_blocks_are_whole_in_runs_of_any_size() {
    let run_sizes: &[usize] = match cfg!(miri) {
        true => &[1_000],
        false => &[1, 100, 4096, 1 << 20],
    };
    for block in REAL {
        let meta = block.meta();
        for &run_bytes in run_sizes {
            let totals = verify_block(&meta, block.index, block.segments, run_bytes);
            let totals = totals.unwrap_or_else(|fault| panic!("{}: {fault:?}", block.name));
            assert_eq!(totals.chunks, meta.stats.num_chunks);
            if meta.stats.num_float_samples == 0 {
                assert_eq!(totals.float_samples, meta.stats.num_samples);
            }
        }
        let written_back = meta.to_json();
        let (newline, text) = written_back.split_last().unwrap();
        assert_eq!(
            (newline, text),
            (&b'\n', block.meta),
            "Prometheus ends without newline"
        );
    }
}

#[test]
fn encodings_of_real_chunks_are_told_apart() {
    let encodings = |block: &RealBlock| {
        let mut verifier = SegmentVerifier::new(0, block.segments[0].len() as u64);
        let mut found = Vec::new();
        verifier.feed(block.segments[0], &mut found).unwrap();
        let mut ids: Vec<u8> = found.iter().map(|chunk| chunk.encoding.id()).collect();
        ids.dedup();
        ids
    };
    assert_eq!(encodings(&REAL[0]), [1]);
    // Series in label order: "f", then "fh", then "h".
    assert_eq!(encodings(&REAL[1]), [1, 3]);
    assert_eq!(encodings(&REAL[2]), [4, 6, 5]);
}

#[test]
fn the_label_indices_of_older_writers_are_really_there() {
    let tail = &REAL[0].index[REAL[0].index.len() - 52..];
    let starts: Vec<u64> = tail
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .collect();
    assert!(starts[2] < starts[4], "label indices before postings");
    assert!(
        starts[3] < starts[5],
        "label offset table before postings offset table"
    );
}

/// Flips bits, `step` apart, in every file of a block. Each must be found, and in that file.
fn flips(block: &RealBlock, step: usize) {
    let meta = block.meta();
    for flip in (0..block.index.len() * 8).step_by(step) {
        let mut index = block.index.to_vec();
        index[flip / 8] ^= 1 << (flip % 8);
        // Versions 2 and 3 differ in the version byte only.
        let undetectable = flip == 4 * 8;
        let found = verify_index(&meta, &index, 4096);
        assert_eq!(
            found.is_ok(),
            undetectable,
            "{} index bit {flip}",
            block.name
        );
    }
    for (position, segment) in block.segments.iter().enumerate() {
        for flip in (0..segment.len() * 8).step_by(step) {
            let mut flipped = segment.to_vec();
            flipped[flip / 8] ^= 1 << (flip % 8);
            let mut segments = block.segments.to_vec();
            segments[position] = &flipped;
            match verify_block(&meta, block.index, &segments, 4096) {
                Err(BlockFault::Segment(at, error)) => {
                    assert_eq!(at as usize, position);
                    assert!(
                        error.offset <= flip as u64 / 8,
                        "{error} for byte {}",
                        flip / 8
                    );
                }
                other => panic!("{} segment {position} bit {flip}: {other:?}", block.name),
            }
        }
    }
}

#[test]
fn flipped_bits_of_real_blocks_are_found() {
    for block in REAL {
        flips(&block, if cfg!(miri) { 50_021 } else { 37 });
    }
}

#[test]
#[ignore = "every bit of every byte; part of make test-long"]
fn exhaustive_flipped_bits_of_real_blocks_are_found() {
    for block in REAL {
        flips(&block, 1);
    }
}

#[test]
fn real_blocks_cut_short_are_found() {
    for block in REAL {
        let meta = block.meta();
        let step = if cfg!(miri) { 977 } else { 1 };
        for len in (0..block.index.len()).step_by(step) {
            let found = verify_index(&meta, &block.index[..len], 4096);
            assert!(found.is_err(), "{} index of {len} bytes", block.name);
        }
        let last = block.segments.len() - 1;
        for len in (0..block.segments[last].len()).step_by(step * 3) {
            let mut segments = block.segments.to_vec();
            segments[last] = &segments[last][..len];
            let found = verify_block(&meta, block.index, &segments, 4096).unwrap_err();
            assert!(matches!(found, BlockFault::Segment(at, _) if at as usize == last));
        }
        let found = verify_block(&meta, block.index, &block.segments[..last], 4096);
        assert_eq!(found, Err(BlockFault::MissingSegment(last as u32)));
    }
}

#[test]
fn segments_of_another_block_are_found() {
    let meta = REAL[1].meta();
    let mut segments = REAL[1].segments.to_vec();
    segments.swap(0, 1);
    let found = verify_block(&meta, REAL[1].index, &segments, 4096).unwrap_err();
    let BlockFault::Segment(0, error) = found else {
        panic!("{found:?}");
    };
    assert_eq!(error.kind, DecodeErrorKind::NoChunk);
}

const RANGE: TimeRange = TimeRange {
    mint: TimestampMs(-1_000),
    maxt: TimestampMs(1_000_000_000),
};

prop_compose! {
    fn series_list()(
        shapes in prop::collection::btree_map(
            ("[a-c]{1,2}", "[a-zü]{0,3}"),
            prop::collection::vec((1_usize..130, 1_u8..7), 0..5),
            0..25,
        ),
    ) -> Vec<Series> {
        shapes.into_iter().map(|((name, value), chunks)| {
            let mut t = -1_000;
            let chunks = chunks.into_iter().map(|(samples, id)| {
                let first = t;
                t += samples as i64 * 15_000;
                match Encoding::from_id(id) {
                    Some(Encoding::Xor) | None => {
                        let at = |k| (first + k as i64 * 15_000, (k * samples) as f64 * 0.5);
                        Chunk::xor(&(0..samples).map(at).collect::<Vec<_>>())
                    }
                    Some(other) => Chunk::opaque(other, samples as u16, first, t - 1, samples * 3),
                }
            });
            Series { chunks: chunks.collect(), labels: vec![(name, value)] }
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn written_blocks_are_whole(
        series in series_list(),
        index_version in 1_u8..4,
        label_indices in any::<bool>(),
        swap_references in any::<bool>(),
        segment_bytes_max in 100_u64..5_000,
        run_bytes in 1_usize..2_000,
    ) {
        let layout = BlockLayout {
            index_version, label_indices, segment_bytes_max, swap_references,
        };
        let block = MemoryBlock::write(layout, BlockId::from_u128(1), RANGE, series);
        let segments: Vec<&[u8]> = block.segments().map(|(_, bytes)| bytes).collect();
        let totals = verify_block(&block.meta, block.index(), &segments, run_bytes);
        prop_assert_eq!(totals.map(|totals| totals.chunks), Ok(block.meta.stats.num_chunks));
        prop_assert_eq!(&block.files[&BlockFile::Meta], &block.meta.to_json());
    }

    #[test]
    fn noise_never_panics(data in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz_index(&data);
        fuzz_segment(&data);
        fuzz_chunk_access(&data);
        fuzz_meta(&data);
        fuzz_tombstones(&data);
        fuzz_chunk_writer(&data);
    }

    #[test]
    fn damaged_files_never_panic(
        which in 0_usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let damage = |file: &[u8]| {
            let mut file = file.to_vec();
            for (at, byte) in &edits {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            file
        };
        fuzz_index(&damage(REAL[which].index));
        fuzz_view(&damage(REAL[which].index));
        fuzz_segment(&damage(REAL[which].segments[0]));
        fuzz_chunk_access(&damage(REAL[which].segments[0]));
        fuzz_meta(&damage(REAL[which].meta));
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads a directory")]
fn the_fuzz_corpora_replay() {
    replay("index", fuzz_index);
    replay("segment", fuzz_segment);
    replay("meta", fuzz_meta);
    replay("tombstones", fuzz_tombstones);
    replay("xor", fuzz_xor);
    replay("xor2", fuzz_xor2);
    replay("histogram", fuzz_histogram);
    replay("transcode", fuzz_transcode);
    replay("index_view", fuzz_view);
    replay("postings", fuzz_postings);
    replay("series_entry", fuzz_series_entry);
    replay("chunk_access", fuzz_chunk_access);
    replay("chunk_writer", fuzz_chunk_writer);
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "{} is empty", corpus.display());
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let directory = corpus.join(target);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), bytes).unwrap();
}

/// Writes the seeds of the fuzz corpora anew, after the formats or the writer have changed.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn regenerate_fuzz_seeds() {
    for block in &REAL {
        put("index", block.name, block.index);
        put("index_view", block.name, block.index);
        put("meta", block.name, block.meta);
        put(
            "segment",
            block.name,
            block.segments[block.segments.len() - 1],
        );
    }
    let series = |count: usize| {
        (0..count).map(|i| Series {
            labels: vec![("a".to_owned(), format!("{i}"))],
            chunks: vec![Chunk::xor(&[(0, i as f64), (15, 1.0), (30, 1.5)])],
        })
    };
    for index_version in 1..=3 {
        for count in [0, 3] {
            let layout = BlockLayout {
                index_version,
                label_indices: count > 0,
                ..BlockLayout::default()
            };
            let block = MemoryBlock::write(layout, BlockId::from_u128(1), RANGE, series(count));
            let name = format!("written-v{index_version}-{count}-series");
            put("index", &name, block.index());
            put("index_view", &name, block.index());
            for (_, bytes) in block.segments() {
                put("segment", &name, bytes);
                put("chunk_access", &name, bytes);
            }
        }
    }
    let tombstones = [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0];
    put(
        "tombstones",
        "entries",
        &[1, 2, 4, 1, 6, 8, 7, 0x81, 1, 0x81, 2],
    );
    put("tombstones", "none", &tombstones);
    put("tombstones", "damaged", &tombstones.map(|byte| byte | 2));
    put(
        "meta",
        "unknown-keys",
        include_bytes!("../../tests/data/meta/unknown.json"),
    );
    put(
        "meta",
        "full",
        include_bytes!("../../tests/data/meta/full.json"),
    );
}

/// The same for what is read at random.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn regenerate_fuzz_seeds_of_random_access() {
    // Two labels, two chunks.
    put(
        "series_entry",
        "plain",
        &[2, 1, 30, 2, 30, 2, 20, 5, 77, 3, 0, 9],
    );
    put(
        "series_entry",
        "wide",
        &[1, 39, 39, 1, 0x80, 0xb4, 1, 0xff, 0xff, 3, 0x80, 0x80, 8],
    );
    // Lists of gaps; intersection, union, difference; steps.
    let lists = [
        4, 3, 2, 1, 1, 1, 2, 9, 1, 5, 2, 0, 7, 7, 4, 1, 0, 0, 0, 0, 1, 0, 2, 200, 129,
    ];
    put("postings", "few", &lists);
    let many = [
        vec![3, 200, 0],
        vec![1; 200],
        vec![200, 1],
        vec![0; 200],
        vec![1, 9, 50],
    ];
    let asked = [vec![3, 1], vec![0, 200, 0, 0]];
    put(
        "postings",
        "many",
        &[many.concat(), asked.concat()].concat(),
    );
    let segment = REAL[1].segments[1];
    put("chunk_access", REAL[1].name, segment);
    let mut verifier = SegmentVerifier::new(0, segment.len() as u64);
    let mut found = Vec::new();
    verifier.feed(segment, &mut found).unwrap();
    for chunk in found.iter().take(3) {
        let chunk = chunk_at(segment, chunk.reference.offset()).unwrap();
        let id = chunk.encoding.id();
        let name = format!("prometheus-{id}-{}", chunk.data.len());
        put("chunk_writer", &name, &[&[id], chunk.data].concat());
    }
}
