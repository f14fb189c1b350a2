//! Random blocks that overlap in time and share series, read with and without times left out,
//! against the samples they were made of.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::disk::{Containment, Dir};
use crate::model::{BlockId, ExternalLabels, Labels, TimeRange, TimestampMs};
use crate::tsdb::testing::{self, BlockLayout, MemoryBlock};
use crate::tsdb::{
    ChunkWriter, CounterReset, Encoding, HistogramCounts, HistogramLayout, HistogramSample, Sample,
    Samples, Span,
};

type Name = Vec<(String, String)>;
type Points = BTreeMap<i64, u64>;
type Written = BTreeMap<Name, Vec<Vec<(i64, f64)>>>;

/// SplitMix64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound).cast_signed()
    }
}

fn range(mint: i64, maxt: i64) -> QueryRange {
    QueryRange {
        mint: TimestampMs(mint),
        maxt: TimestampMs(maxt),
    }
}

/// Writes a block of float samples below `root` and opens it.
fn block(root: &Path, id: u128, series: &Written) -> Arc<Block> {
    let series = series.iter().map(|(labels, chunks)| testing::Series {
        labels: labels.clone(),
        chunks: chunks
            .iter()
            .map(|samples| testing::Chunk::xor(samples))
            .collect(),
    });
    opened(root, id, series)
}

fn opened(root: &Path, id: u128, series: impl Iterator<Item = testing::Series>) -> Arc<Block> {
    let layout = BlockLayout {
        segment_bytes_max: 4096,
        ..BlockLayout::default()
    };
    let all = TimeRange {
        mint: TimestampMs(0),
        maxt: TimestampMs(1 << 40),
    };
    let written = MemoryBlock::write(layout, BlockId::from_u128(id), all, series);
    let path = root.join(id.to_string());
    std::fs::create_dir_all(path.join("chunks")).unwrap();
    for (file, bytes) in &written.files {
        std::fs::write(path.join(file.path()), bytes).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let dir = runtime
        .block_on(Dir::open(&path, Containment::Unconfined))
        .unwrap();
    Arc::new(Block::open(&dir, &written.meta).unwrap())
}

fn reading(remote: Vec<QueryRange>) -> Reading {
    let external = ExternalLabels(Labels::from_iter([("z".to_owned(), "1".to_owned())]));
    Reading {
        overlay: Arc::new(Overlay::for_chunks(&external, &[]).unwrap()),
        conflicts_end: true,
        labels_only: false,
        limit: None,
        remote,
    }
}

fn reader(blocks: &[Arc<Block>], ranges: &[QueryRange], reading: Reading) -> BlockReader {
    let cursors = blocks.iter().map(|block| {
        let index = block.index();
        let all = index.postings(index.all()).unwrap();
        Cursor::new(Arc::clone(block), ranges.to_vec(), all)
    });
    BlockReader::new(cursors.collect(), reading)
}

/// All that comes, checked for order and sizes.
fn read_all(mut reader: BlockReader) -> BTreeMap<Name, Points> {
    let mut all = BTreeMap::<Name, Points>::new();
    let mut last: Option<(Name, i64)> = None;
    loop {
        let Step { series, is_over } = reader.step().unwrap();
        let bytes: usize = series.iter().map(Series::data_bytes).sum();
        assert!(bytes < 2 * BATCH_BYTES);
        for series in series {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let labels = series.labels.iter().map(|(n, v)| (text(n), text(v)));
            let labels: Name = labels.collect();
            assert!(last.as_ref().is_none_or(|(last, _)| *last <= labels));
            let before = last.filter(|(last, _)| *last == labels).map(|(_, t)| t);
            let mut until = before.unwrap_or(i64::MIN);
            let points = all.entry(labels.clone()).or_default();
            for chunk in series.single_chunks() {
                assert!(chunk.min_ms > until, "chunks overlap");
                until = chunk.max_ms;
                let samples = Samples::new(Encoding::Xor, chunk.data()).unwrap();
                let times: Vec<_> = samples.clone().map(|s| s.unwrap().t_ms()).collect();
                assert_eq!(times.first(), Some(&chunk.min_ms));
                assert_eq!(times.last(), Some(&chunk.max_ms));
                for sample in samples {
                    let Sample::Float(sample) = sample.unwrap() else {
                        panic!("no floats");
                    };
                    assert_eq!(points.insert(sample.t_ms, sample.value.to_bits()), None);
                }
            }
            last = Some((labels, until));
        }
        if is_over {
            return all;
        }
    }
}

/// Blocks of few series and many chunks, of which some are the same in two blocks.
fn random_blocks(random: &mut Random) -> Vec<Written> {
    let mut blocks = vec![Written::new(); usize::try_from(1 + random.below(4)).unwrap()];
    for set in 0..1 + random.below(6) {
        let name = vec![
            ("a".to_owned(), format!("{}", set % 3)),
            ("b".to_owned(), format!("{set}")),
        ];
        let mut copied: Option<Vec<Vec<(i64, f64)>>> = None;
        for block in &mut blocks {
            if random.below(4) == 0 {
                continue;
            }
            let chunks = match copied.take().filter(|_| random.below(3) == 0) {
                Some(chunks) => chunks,
                None => random_chunks(random),
            };
            copied = Some(chunks.clone());
            block.insert(name.clone(), chunks);
        }
    }
    blocks
}

/// Values follow from the time, since nobody says which of two samples of one time wins.
fn random_chunks(random: &mut Random) -> Vec<Vec<(i64, f64)>> {
    let mut t = random.below(3_000);
    let mut chunks = Vec::new();
    for _ in 0..1 + random.below(12) {
        let mut chunk = Vec::new();
        for _ in 0..1 + random.below(40) {
            t += 1 + random.below(30);
            chunk.push((t, t as f64 * 0.5));
        }
        t += random.below(300);
        chunks.push(chunk);
    }
    chunks
}

#[test]
fn what_comes_out_is_what_went_in_each_sample_once() {
    let scratch = tempfile::tempdir().unwrap();
    let mut random = Random(6);
    for round in 0..150 {
        let written = random_blocks(&mut random);
        let root = scratch.path().join(round.to_string());
        let blocks = written.iter().enumerate();
        let blocks: Vec<_> = blocks
            .map(|(id, series)| block(&root, id as u128, series))
            .collect();
        let mut remote = Vec::new();
        let mut at = random.below(2_000);
        for _ in 0..random.below(4) {
            let end = at + random.below(1_500);
            remote.push(range(at, end));
            at = end + 2 + random.below(2_000);
        }
        let mut expected = BTreeMap::<Name, Points>::new();
        for (labels, chunks) in written.iter().flatten() {
            let wanted = |t: i64| remote.iter().all(|r| !(r.mint.0..=r.maxt.0).contains(&t));
            let samples = chunks.iter().flatten().filter(|(t, _)| wanted(*t));
            let points = expected.entry(labels.clone()).or_default();
            points.extend(samples.map(|(t, value)| (*t, value.to_bits())));
        }
        expected.retain(|_, points| !points.is_empty());
        let reading = reading(remote.clone());
        let found = read_all(reader(&blocks, &[range(0, i64::MAX)], reading));
        assert_eq!(found, expected, "round {round}, {remote:?}");
    }
}

#[test]
fn chunks_that_nobody_shares_pass_as_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let chunks = vec![
        vec![(10, 1.0), (20, 2.0)],
        vec![(30, 3.0)],
        vec![(40, 4.0), (50, 5.0)],
    ];
    let series = Written::from([(vec![("a".to_owned(), "1".to_owned())], chunks.clone())]);
    // The second block has all of it as well: copies are sent once, and as they are.
    let blocks = [
        block(scratch.path(), 0, &series),
        block(scratch.path(), 1, &series),
    ];
    let mut reader = reader(&blocks, &[range(15, 30)], reading(Vec::new()));
    let step = reader.step().unwrap();
    let batch = step.series;
    let data: Vec<_> = batch[0]
        .single_chunks()
        .map(|chunk| chunk.data().to_vec())
        .collect();
    let expected = chunks[..2]
        .iter()
        .map(|samples| testing::Chunk::xor(samples).data);
    assert_eq!(data, expected.collect::<Vec<_>>());
    assert!(step.is_over);
}

#[test]
fn long_series_come_in_pieces() {
    let scratch = tempfile::tempdir().unwrap();
    let samples = |chunk: i64| {
        (0..120)
            .map(move |at| (chunk * 200 + at, at as f64 * 1.1))
            .collect()
    };
    let chunks: Vec<Vec<(i64, f64)>> = (0..2_000).map(samples).collect();
    let name = vec![("a".to_owned(), "1".to_owned())];
    let shifted = chunks
        .iter()
        .map(|chunk| chunk.iter().map(|(t, v)| (t + 60, *v)).collect());
    let alone = Written::from([(name.clone(), chunks.clone())]);
    let beside = Written::from([(name.clone(), shifted.collect())]);
    let blocks = [
        block(scratch.path(), 0, &alone),
        block(scratch.path(), 1, &beside),
    ];
    let one = read_all(reader(
        &blocks[..1],
        &[range(0, i64::MAX)],
        reading(Vec::new()),
    ));
    assert_eq!(one[&name].len(), 2_000 * 120);
    let both = read_all(reader(&blocks, &[range(0, i64::MAX)], reading(Vec::new())));
    assert_eq!(both[&name].len(), 2_000 * 180);
}

#[test]
fn damage_is_an_error_and_condemns_the_block() {
    let scratch = tempfile::tempdir().unwrap();
    let series = Written::from([(
        vec![("a".to_owned(), "1".to_owned())],
        vec![vec![(10, 1.0)]],
    )]);
    for (case, file) in ["chunks/000001", "index"].into_iter().enumerate() {
        let root = scratch.path().join(case.to_string());
        let block = block(&root, 7, &series);
        let path = root.join("7").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = match case {
            0 => 12,
            // In the middle of the only series' entry.
            _ => bytes.windows(2).position(|two| two == [1, 1]).unwrap(),
        };
        bytes[at] ^= 0x10;
        // The same file, so that the map sees it.
        std::fs::write(&path, &bytes).unwrap();
        let blocks = [Arc::clone(&block)];
        let mut reader = reader(&blocks, &[range(0, i64::MAX)], reading(Vec::new()));
        let error = reader.step().unwrap_err();
        let text = crate::model::ErrorChain(&error).to_string();
        assert!(text.contains(file) && text.contains("offset"), "{text}");
        assert_eq!(error.class(), crate::store::ErrorClass::Unavailable);
        assert!(block.condemned().is_some_and(|why| why.contains(file)));
    }
}

#[test]
fn labels_alone_know_their_limit_and_conflicts() {
    let scratch = tempfile::tempdir().unwrap();
    let named = |value: &str| vec![("z".to_owned(), value.to_owned())];
    let samples = vec![vec![(10, 1.0)]];
    let series = Written::from([
        (vec![("a".to_owned(), "1".to_owned())], samples.clone()),
        (
            vec![("a".to_owned(), "2".to_owned())],
            vec![vec![(99, 1.0)]],
        ),
        (named("own"), samples),
    ]);
    let blocks = [block(scratch.path(), 0, &series)];
    let labels_only = |limit| Reading {
        labels_only: true,
        limit,
        ..reading(Vec::new())
    };
    let mut two = reader(&blocks, &[range(0, 50)], labels_only(Some(1)));
    let step = two.step().unwrap();
    assert!(step.series.len() == 1 && step.is_over);
    let mut all = reader(&blocks, &[range(0, 50)], labels_only(None));
    let error = all.step().unwrap_err();
    assert!(matches!(error, StoreError::Conflict { name } if name == "z"));
}

/// A counter that only grows.
fn histogram(t_ms: i64, counter_reset: CounterReset) -> Sample {
    let count = t_ms.unsigned_abs();
    Sample::Histogram(HistogramSample {
        t_ms,
        layout: Arc::new(HistogramLayout {
            counter_reset,
            schema: 1,
            positive_spans: vec![Span {
                offset: 0,
                length: 1,
            }],
            ..HistogramLayout::default()
        }),
        sum: t_ms as f64,
        counts: HistogramCounts::Integer {
            count,
            zero: 0,
            positive: vec![t_ms],
            negative: Vec::new(),
        },
    })
}

#[test]
fn merged_histograms_keep_no_hint_of_another_sequence() {
    let scratch = tempfile::tempdir().unwrap();
    let name = vec![("a".to_owned(), "1".to_owned())];
    let of = |times: [i64; 3]| {
        let mut writer = ChunkWriter::new();
        // What each block says of its first one, having begun to count anew.
        writer.push(&histogram(times[0], CounterReset::Reset));
        for t_ms in &times[1..] {
            writer.push(&histogram(*t_ms, CounterReset::NotReset));
        }
        let chunks = writer.finish().into_iter().map(|chunk| testing::Chunk {
            mint: chunk.min_ms,
            maxt: chunk.max_ms,
            samples: 3,
            encoding: chunk.encoding,
            data: chunk.data,
        });
        testing::Series {
            labels: name.clone(),
            chunks: chunks.collect(),
        }
    };
    let blocks = [[10, 30, 50], [20, 40, 60]].into_iter().enumerate();
    let blocks: Vec<_> = blocks
        .map(|(id, times)| opened(scratch.path(), id as u128, std::iter::once(of(times))))
        .collect();
    let mut reader = reader(&blocks, &[range(0, i64::MAX)], reading(Vec::new()));
    let series = reader.step().unwrap().series;
    let mut times = Vec::new();
    for chunk in series[0].single_chunks() {
        for sample in Samples::new(Encoding::Histogram, chunk.data()).unwrap() {
            let Sample::Histogram(sample) = sample.unwrap() else {
                panic!("no histogram");
            };
            // The count only grows, so what says otherwise would have it counted twice.
            assert_ne!(sample.layout.counter_reset, CounterReset::Reset);
            times.push(sample.t_ms);
        }
    }
    assert_eq!(times, [10, 20, 30, 40, 50, 60]);
}

#[test]
fn labels_without_a_value_do_not_shift_those_of_the_next_series() {
    let root = tempfile::tempdir().unwrap();
    let name = |pairs: &[(&str, &str)]| -> Name {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    };
    let series = Written::from([
        (
            name(&[("a", "1"), ("b", ""), ("c", "1")]),
            vec![vec![(1, 1.0)]],
        ),
        (
            name(&[("a", "1"), ("b", ""), ("c", "2")]),
            vec![vec![(1, 2.0)]],
        ),
        (
            name(&[("a", "2"), ("b", "x"), ("c", "2")]),
            vec![vec![(1, 3.0)]],
        ),
    ]);
    let block = block(root.path(), 1, &series);
    let all = read_all(reader(&[block], &[range(0, 100)], reading(Vec::new())));
    let names: Vec<_> = all.into_keys().collect();
    assert_eq!(
        names,
        [
            name(&[("a", "1"), ("c", "1")]),
            name(&[("a", "1"), ("c", "2")]),
            name(&[("a", "2"), ("b", "x"), ("c", "2")]),
        ]
    );
}

#[test]
fn a_run_ends_where_prometheus_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let chunk = |from: i64| (from..from + 10).map(|t| (t, 0.5)).collect::<Vec<_>>();
    let chunks = [0, 10, 50, 60].map(chunk).to_vec();
    let series = Written::from([(vec![("a".to_owned(), "1".to_owned())], chunks)]);
    let block = block(root.path(), 1, &series);
    let runs = |remote: Vec<QueryRange>| -> Vec<_> {
        let blocks = [Arc::clone(&block)];
        let step = reader(&blocks, &[range(0, 100)], reading(remote)).step();
        let parts = step.unwrap().series.remove(0).chunks;
        parts
            .iter()
            .map(|part| (part.min_ms(), part.max_ms(), part.count()))
            .collect()
    };
    assert_eq!(runs(Vec::new()), [(0, 69, 4)]);
    assert_eq!(runs(vec![range(30, 40)]), [(0, 19, 2), (50, 69, 2)]);
    assert_eq!(runs(vec![range(20, 49)]), [(0, 19, 2), (50, 69, 2)]);
    // What reaches into it is written anew.
    assert_eq!(
        runs(vec![range(45, 54)]),
        [(0, 19, 2), (55, 59, 1), (60, 69, 1)]
    );
}
