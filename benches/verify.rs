//! Throughput of block verification on one core: what shipping costs besides IO.
//!
//! `cargo bench --features testing`; as a smoke test under `cargo test --benches`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use outrigger::model::{BlockId, TimeRange, TimestampMs};
use outrigger::tsdb::testing::{BlockLayout, Chunk, MemoryBlock, Series};
use outrigger::tsdb::{Encoding, IndexToc, IndexVerifier, SegmentVerifier, SeriesChunks};

fn main() {
    divan::main();
}

/// The run the shipper reads at a time.
const RUN_BYTES: usize = 1 << 20;

/// Sizes of what is verified; small in a debug build, which only proves that the benches run.
const SEGMENT_BYTES: usize = if cfg!(debug_assertions) {
    1 << 20
} else {
    64 << 20
};
const SERIES: usize = if cfg!(debug_assertions) { 500 } else { 200_000 };

const RANGE: TimeRange = TimeRange {
    mint: TimestampMs(0),
    maxt: TimestampMs(7_200_000),
};

/// A block of `series` series with ten labels and eight chunks of `chunk_bytes` each.
fn block(series: usize, chunk_bytes: usize) -> MemoryBlock {
    let layout = BlockLayout {
        segment_bytes_max: u64::from(u32::MAX),
        ..BlockLayout::default()
    };
    let numbered = (0..series).map(|i| Series {
        labels: (0..10)
            .map(|label| {
                let value = match label {
                    0 => format!("{i:08}"),
                    _ => format!("value_{}", i % (label * 10)),
                };
                (format!("label_{label}"), value)
            })
            .collect(),
        chunks: (0..8)
            .map(|k| {
                Chunk::opaque(
                    Encoding::Xor,
                    120,
                    k * 900_000,
                    k * 900_000 + 899_999,
                    chunk_bytes,
                )
            })
            .collect(),
    });
    MemoryBlock::write(layout, BlockId::from_u128(1), RANGE, numbered)
}

#[divan::bench(args = [130, 500, 16 << 10])]
fn segment(bencher: Bencher<'_, '_>, chunk_bytes: usize) {
    let block = block(SEGMENT_BYTES / 8 / chunk_bytes, chunk_bytes);
    let (_, file) = block.segments().next().expect("one segment");
    let mut found = Vec::new();
    bencher
        .counter(BytesCount::new(file.len()))
        .bench_local(|| {
            let mut verifier = SegmentVerifier::new(0, file.len() as u64);
            for run in black_box(file).chunks(RUN_BYTES) {
                found.clear();
                verifier.feed(run, &mut found).expect("a whole segment");
            }
            verifier.finish().expect("a whole segment")
        });
}

#[divan::bench]
fn index(bencher: Bencher<'_, '_>) {
    let block = block(SERIES, 3);
    let file = block.index();
    let size = file.len() as u64;
    let (_, tail) = file.split_at(file.len() - 52);
    bencher
        .counter(BytesCount::new(file.len()))
        .bench_local(|| {
            let toc = IndexToc::parse(tail, size).expect("a whole index");
            let mut verifier = IndexVerifier::new(toc, size, RANGE);
            for run in black_box(file).chunks(RUN_BYTES) {
                verifier.feed(run).expect("a whole index");
            }
            verifier.finish().expect("a whole index")
        });
}

#[divan::bench]
fn series_chunks(bencher: Bencher<'_, '_>) {
    let block = block(SERIES, 3);
    let file = block.index();
    let (_, tail) = file.split_at(file.len() - 52);
    let toc = IndexToc::parse(tail, file.len() as u64).expect("a whole index");
    let section = toc.series_section();
    let start = usize::try_from(section.start).expect("it is in memory");
    let end = usize::try_from(section.end).expect("it is in memory");
    let bytes = file.get(start..end).expect("the section is in the file");
    let mut references = Vec::new();
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| {
            let mut chunks = SeriesChunks::new(2, section.clone(), section.start);
            for run in black_box(bytes).chunks(RUN_BYTES) {
                references.clear();
                chunks.feed(run, &mut references).expect("a whole section");
            }
            assert!(chunks.is_done());
        });
}
