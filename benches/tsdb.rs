//! What a query over blocks does on one core: opening an index, sets of series, series entries,
//! chunks proven and written.
//!
//! `cargo bench --features testing --bench tsdb`; as a smoke test under `cargo test --benches`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use outrigger::model::{BlockId, TimeRange, TimestampMs};
use outrigger::tsdb::testing::{BlockLayout, Chunk, MemoryBlock, Series};
use outrigger::tsdb::{
    ChunkWriter, Encoding, IndexLayout, IndexView, Postings, PostingsUnion, Sample, Samples,
    SeriesReader, check_chunk, chunk_at,
};

fn main() {
    divan::main();
}

/// Small in a debug build, which only proves that the benches run.
const SERIES: usize = match IS_SMALL {
    _ if cfg!(debug_assertions) => 500,
    true => 20_000,
    false => 1_000_000,
};
/// For `make bench-instructions`, under which all runs fifty times slower.
const IS_SMALL: bool = option_env!("OUTRIGGER_BENCH_SMALL").is_some();
/// Of those, how many are decoded.
const DECODED: usize = SERIES / 10;
const CHUNK_SAMPLES: i64 = 120;

const RANGE: TimeRange = TimeRange {
    mint: TimestampMs(0),
    maxt: TimestampMs(7_200_000),
};

/// An index of series with ten labels, the first of them with a value of its own for each, and
/// four chunks each.
fn index() -> Vec<u8> {
    let layout = BlockLayout {
        segment_bytes_max: u64::from(u32::MAX),
        ..BlockLayout::default()
    };
    let series = (0..SERIES).map(|i| Series {
        labels: (0..10)
            .map(|label| {
                let value = match label {
                    0 => format!("{i:08}"),
                    _ => format!("value_{}", i % (label * 10)),
                };
                (format!("label_{label}"), value)
            })
            .collect(),
        chunks: (0..4)
            .map(|k| Chunk::opaque(Encoding::Xor, 120, k * 900_000, k * 900_000 + 899_999, 3))
            .collect(),
    });
    let block = MemoryBlock::write(layout, BlockId::from_u128(1), RANGE, series);
    block.index().to_vec()
}

fn with_index(bench: impl FnOnce(IndexView<'_>)) {
    let file = index();
    let layout = IndexLayout::read(&file).expect("a whole index");
    bench(layout.view(&file));
}

fn list(view: IndexView<'_>, name: &str, value: &str) -> Postings {
    let found = view.value(name.as_bytes(), value.as_bytes());
    let at = found.expect("a whole index").expect("it is there");
    view.postings(at).expect("a whole index")
}

fn count(view: IndexView<'_>, mut postings: Postings) -> usize {
    let mut ids = 0;
    while postings.next(view).is_some() {
        ids += 1;
    }
    ids
}

#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let file = index();
    bencher.bench_local(|| IndexLayout::read(black_box(&file)).expect("a whole index"));
}

#[divan::bench]
fn one_series_by_equality(bencher: Bencher<'_, '_>) {
    with_index(|view| {
        let value = format!("{:08}", SERIES / 2);
        let mut reader = SeriesReader::new();
        bencher.bench_local(|| {
            let mut found = list(view, "label_0", black_box(&value));
            let id = found.next(view).expect("one series");
            reader.read(view, id).expect("a whole index");
            reader.chunks().len()
        });
    });
}

#[divan::bench]
fn postings_iterate(bencher: Bencher<'_, '_>) {
    with_index(|view| {
        bencher.counter(ItemsCount::new(SERIES)).bench_local(|| {
            let all = view.postings(view.all()).expect("a whole index");
            assert_eq!(count(view, all), SERIES);
        });
    });
}

#[divan::bench]
fn postings_intersect(bencher: Bencher<'_, '_>) {
    with_index(|view| {
        bencher.bench_local(|| {
            let lists = (1..4).map(|n| list(view, &format!("label_{n}"), "value_3"));
            count(view, Postings::intersection(lists.collect()))
        });
    });
}

/// A union of 90 long lists, read whole, and asked for few ids.
#[divan::bench(args = [false, true])]
fn postings_union_of_long(bencher: Bencher<'_, '_>, is_asked_for_few: bool) {
    with_index(|view| {
        let few = list(view, "label_0", "00000077");
        bencher.bench_local(|| {
            let lists = (0..90).map(|n| list(view, "label_9", &format!("value_{n}")));
            let union = Postings::union(lists.collect());
            match is_asked_for_few {
                true => count(view, Postings::intersection(vec![union, few.clone()])),
                false => count(view, union),
            }
        });
    });
}

/// As many lists as series, of one id each.
#[divan::bench]
fn postings_union_of_short(bencher: Bencher<'_, '_>) {
    with_index(|view| {
        bencher.counter(ItemsCount::new(SERIES)).bench_local(|| {
            let mut values = view.values(b"label_0").expect("a whole index");
            let mut union = PostingsUnion::new();
            while let Some((_, at)) = values.next(view).expect("a whole index") {
                union.add(view, at).expect("a whole index");
            }
            assert_eq!(count(view, union.finish()), SERIES);
        });
    });
}

/// Entries in order, with the texts of their labels.
#[divan::bench]
fn series_decode(bencher: Bencher<'_, '_>) {
    with_index(|view| {
        let mut all = view.postings(view.all()).expect("a whole index");
        let ids: Vec<u32> = std::iter::from_fn(|| all.next(view))
            .take(DECODED)
            .collect();
        bencher.counter(ItemsCount::new(DECODED)).bench_local(|| {
            let mut reader = SeriesReader::new();
            let mut bytes = 0;
            for id in &ids {
                reader.read(view, *id).expect("a whole index");
                for (name, value) in reader.labels(view) {
                    bytes += name.len() + value.len();
                }
                bytes += reader.chunks().len();
            }
            bytes
        });
    });
}

/// What is done with each chunk that is sent.
#[divan::bench]
fn chunks_prove(bencher: Bencher<'_, '_>) {
    let mut segment = outrigger::tsdb::testing::SEGMENT_HEADER.to_vec();
    let mut offsets = Vec::new();
    for t in 0..if cfg!(debug_assertions) { 10 } else { 10_000 } {
        offsets.push(u32::try_from(segment.len()).expect("small"));
        let chunk = Chunk::opaque(Encoding::Xor, 120, t, t, 450);
        let id = chunk.encoding.id();
        segment.extend(outrigger::tsdb::testing::chunk_bytes(id, &chunk.data));
    }
    bencher
        .counter(BytesCount::new(segment.len()))
        .bench_local(|| {
            for offset in black_box(&offsets) {
                let chunk = chunk_at(&segment, *offset).expect("a whole segment");
                let is_whole = check_chunk(chunk.encoding, chunk.data, chunk.stored_crc, *offset);
                is_whole.expect("a whole segment");
            }
        });
}

/// A chunk that is trimmed or merged: decoded and written anew.
#[divan::bench]
fn chunk_write_anew(bencher: Bencher<'_, '_>) {
    let wave = |i: i64| (i * 15_000, (i as f64 / 9.0).sin());
    let samples: Vec<(i64, f64)> = (0..CHUNK_SAMPLES).map(wave).collect();
    let chunk = Chunk::xor(&samples);
    bencher
        .counter(ItemsCount::new(samples.len()))
        .bench_local(|| {
            let mut writer = ChunkWriter::new();
            let samples = Samples::new(Encoding::Xor, black_box(&chunk.data));
            for sample in samples.expect("a whole chunk") {
                let sample: Sample = sample.expect("a whole chunk");
                writer.push(&sample);
            }
            assert_eq!(writer.finish().len(), 1);
        });
}
