//! What is written is read again, bit by bit; what headers say of counter resets is held against a
//! comparison by bucket numbers that shares no code with the writer's.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may end at once"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::tsdb::chunk::bits::STALE_NAN_BITS;
use crate::tsdb::chunk::fuzz::{decoded, meaning, t_ms};
use crate::tsdb::chunk::{ChunkStart, HistogramCounts, HistogramLayout, SegmentVerifier, Span};
use crate::tsdb::{Samples, chunk_at};

// === Samples ===

fn span(offset: i64, length: u64) -> Span {
    Span { offset, length }
}

/// Layouts among which some differ in spans alone, others in bounds.
fn layouts() -> Vec<HistogramLayout> {
    let plain = HistogramLayout {
        schema: 3,
        zero_threshold: f64::from_bits((1023 - 128) << 52),
        positive_spans: vec![span(0, 2), span(1, 1)],
        negative_spans: vec![span(-3, 1)],
        ..HistogramLayout::default()
    };
    vec![
        plain.clone(),
        HistogramLayout {
            positive_spans: vec![span(0, 4), span(0, 0)],
            ..plain.clone()
        },
        HistogramLayout {
            positive_spans: vec![span(3, 1)],
            ..plain.clone()
        },
        HistogramLayout {
            zero_threshold: -0.0,
            ..plain.clone()
        },
        HistogramLayout { schema: 2, ..plain },
        HistogramLayout {
            schema: -53,
            positive_spans: vec![span(0, 3)],
            custom_bounds: vec![0.5, 1.0 / 3.0, f64::INFINITY, 33_554.43, -1.0, 0.1, -0.0],
            ..HistogramLayout::default()
        },
    ]
}

fn buckets(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

/// What is chosen of a histogram.
#[derive(Clone, Debug)]
struct Choice {
    layout: usize,
    hint: CounterReset,
    is_float: bool,
    sum: u64,
    /// What the counts are, of which there may be too many.
    counts: Vec<u32>,
}

fn histogram(t_ms: i64, choice: &Choice) -> Sample {
    let mut layout = layouts()[choice.layout].clone();
    layout.counter_reset = choice.hint;
    let mut counts = choice.counts.iter().copied();
    let mut take = |many: usize| counts.by_ref().take(many).collect::<Vec<u32>>();
    let firsts = take(2);
    let (positive, negative) = (
        take(buckets(&layout.positive_spans)),
        take(buckets(&layout.negative_spans)),
    );
    let deltas = |absolute: Vec<u32>| {
        let before = std::iter::once(0).chain(absolute.clone());
        let pairs = absolute.iter().zip(before);
        pairs
            .map(|(now, before)| i64::from(*now) - i64::from(before))
            .collect()
    };
    let floats = |all: Vec<u32>| all.into_iter().map(f64::from).collect();
    let counts = match choice.is_float {
        false => HistogramCounts::Integer {
            count: u64::from(firsts[0]),
            zero: u64::from(firsts[1]),
            positive: deltas(positive),
            negative: deltas(negative),
        },
        true => HistogramCounts::Float {
            count: f64::from(firsts[0]),
            zero: f64::from(firsts[1]),
            positive: floats(positive),
            negative: floats(negative),
        },
    };
    Sample::Histogram(HistogramSample {
        t_ms,
        layout: Arc::new(layout),
        sum: f64::from_bits(choice.sum),
        counts,
    })
}

fn sum() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u32..1000).prop_map(|n| f64::from(n).to_bits()),
        1 => Just(STALE_NAN_BITS),
        1 => Just((-0.0f64).to_bits()),
        1 => Just(f64::NAN.to_bits() | 1),
        1 => any::<u64>(),
    ]
}

fn choice() -> impl Strategy<Value = Choice> {
    let hint = prop_oneof![
        4 => Just(CounterReset::Unknown),
        4 => Just(CounterReset::NotReset),
        1 => Just(CounterReset::Reset),
        2 => Just(CounterReset::Gauge),
    ];
    // Few different ones, so that counters go on for a while.
    let counts = proptest::collection::vec(prop_oneof![9 => Just(5), 1 => 0u32..12], 9);
    (0..layouts().len(), hint, any::<bool>(), sum(), counts).prop_map(
        |(layout, hint, is_float, sum, counts)| Choice {
            layout,
            hint,
            is_float,
            sum,
            counts,
        },
    )
}

/// Runs of samples that are alike: a float or a choice, repeated with a change or not.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let run = (
        proptest::option::weighted(0.8, choice()),
        sum(),
        1usize..9,
        1i64..90_000,
    );
    let long = (
        proptest::option::weighted(0.5, choice()),
        sum(),
        if cfg!(miri) { 119..123 } else { 100usize..300 },
        Just(15_000),
    );
    let runs = proptest::collection::vec(prop_oneof![9 => run, 1 => long], 0..12);
    (any::<i32>(), runs).prop_map(|(start, runs)| {
        let mut t_ms = i64::from(start);
        let mut made = Vec::new();
        for (choice, value, times, step) in runs {
            for nth in 0..times {
                t_ms += step;
                made.push(match &choice {
                    None => Sample::Float(FloatSample {
                        t_ms,
                        value: f64::from_bits(value),
                    }),
                    Some(choice) => {
                        let mut choice = choice.clone();
                        if nth > 0 && choice.hint != CounterReset::Gauge {
                            choice.hint = CounterReset::NotReset;
                        }
                        histogram(t_ms, &choice)
                    }
                });
            }
        }
        made
    })
}

// === What headers must say ===

/// All counts by bucket: the sign, the number; the two counts first.
fn by_bucket(sample: &HistogramSample) -> BTreeMap<(u8, i64), f64> {
    let mut all = BTreeMap::new();
    let mut put = |sign: u8, spans: &[Span], counts: Vec<f64>| {
        let mut counts = counts.into_iter();
        let mut index = 0;
        for span in spans {
            index += span.offset;
            for _ in 0..span.length {
                all.insert(
                    (sign, index),
                    counts.next().expect("as many as the layout says"),
                );
                index += 1;
            }
        }
    };
    let absolute = |deltas: &[i64]| {
        let sums = (1..=deltas.len()).map(|many| deltas[..many].iter().sum::<i64>());
        sums.map(|sum| sum as f64).collect::<Vec<_>>()
    };
    let layout = &sample.layout;
    let (firsts, positive, negative) = match &sample.counts {
        HistogramCounts::Integer {
            count,
            zero,
            positive,
            negative,
        } => (
            vec![*count as f64, *zero as f64],
            absolute(positive),
            absolute(negative),
        ),
        HistogramCounts::Float {
            count,
            zero,
            positive,
            negative,
        } => (vec![*count, *zero], positive.clone(), negative.clone()),
    };
    put(0, &[span(0, 2)], firsts);
    put(1, &layout.positive_spans, positive);
    put(2, &layout.negative_spans, negative);
    all
}

/// Whether a count is less than before; `None` where they cannot be compared.
fn is_reset(before: &Sample, after: &Sample) -> Option<bool> {
    let (Sample::Histogram(before), Sample::Histogram(after)) = (before, after) else {
        return None;
    };
    let bounds = |sample: &HistogramSample| {
        let layout = &sample.layout;
        let custom: Vec<u64> = layout.custom_bounds.iter().map(|b| b.to_bits()).collect();
        let is_integer = matches!(sample.counts, HistogramCounts::Integer { .. });
        let is_gauge = layout.counter_reset == CounterReset::Gauge;
        let threshold = layout.zero_threshold.to_bits();
        (layout.schema, threshold, custom, is_integer, is_gauge)
    };
    if before.is_stale() || after.is_stale() || bounds(before) != bounds(after) {
        return None;
    }
    let new = by_bucket(after);
    let less =
        |(bucket, count): (&(u8, i64), &f64)| new.get(bucket).copied().unwrap_or(0.0) < *count;
    Some(by_bucket(before).iter().any(less))
}

fn hint(sample: &Sample) -> CounterReset {
    match sample {
        Sample::Float(_) => CounterReset::Unknown,
        Sample::Histogram(sample) => sample.layout.counter_reset,
    }
}

/// Checks all that the chunks must be when the samples were pushed.
fn check(samples: &[Sample], chunks: &[EncodedChunk], has_hints: bool) {
    let read: Vec<Vec<Sample>> = chunks.iter().map(decoded).collect();
    let all: Vec<String> = read.iter().flatten().map(meaning).collect();
    assert_eq!(all, samples.iter().map(meaning).collect::<Vec<_>>());
    let mut rest = samples;
    let mut before: Option<&Sample> = None;
    for (chunk, read) in chunks.iter().zip(&read) {
        let (pushed, after) = rest.split_at(read.len());
        rest = after;
        assert!((1..=120).contains(&pushed.len()));
        assert_eq!(chunk.min_ms, t_ms(&pushed[0]));
        assert_eq!(chunk.max_ms, t_ms(&pushed[pushed.len() - 1]));
        let first = &pushed[0];
        let said = hint(&read[0]);
        let told = if has_hints {
            hint(first)
        } else {
            CounterReset::Unknown
        };
        let compared = before.map(|before| is_reset(before, first));
        match said {
            CounterReset::Gauge => assert_eq!(hint(first), CounterReset::Gauge),
            CounterReset::Reset => {
                assert!(told == CounterReset::Reset || compared == Some(Some(true)));
            }
            CounterReset::NotReset => match compared {
                None => assert_eq!(told, CounterReset::NotReset),
                compared => assert_eq!(compared, Some(Some(false))),
            },
            CounterReset::Unknown => {
                assert_ne!(hint(first), CounterReset::Gauge);
                assert!(!matches!(compared, Some(Some(_))), "it is known");
            }
        }
        let is_gauge = said == CounterReset::Gauge;
        for pair in pushed.windows(2) {
            assert!(is_gauge || is_reset(&pair[0], &pair[1]) != Some(true));
        }
        before = pushed.last();
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_headers_tell_the_truth(samples in samples()) {
        for has_hints in [true, false] {
            let mut writer = if has_hints { ChunkWriter::new() } else { ChunkWriter::of_merged() };
            samples.iter().for_each(|sample| writer.push(sample));
            check(&samples, &writer.finish(), has_hints);
        }
    }

    #[test]
    fn extreme_numbers_survive(
        choices in proptest::collection::vec((any::<i64>(), any::<[i64; 8]>(), sum()), 1..20),
    ) {
        let layout = Arc::new(HistogramLayout {
            counter_reset: CounterReset::Gauge,
            schema: i64::MIN,
            zero_threshold: f64::MAX,
            positive_spans: vec![span(i64::MAX, 2), span(i64::MIN, 1)],
            negative_spans: vec![span(-1, 2)],
            custom_bounds: Vec::new(),
        });
        for is_float in [false, true] {
            let mut writer = ChunkWriter::new();
            let mut pushed = Vec::new();
            for (t_ms, numbers, sum) in &choices {
                let floats = |all: &[i64]| {
                    all.iter().map(|n| f64::from_bits(n.cast_unsigned())).collect::<Vec<_>>()
                };
                let counts = match is_float {
                    false => HistogramCounts::Integer {
                        count: numbers[0].cast_unsigned(),
                        zero: numbers[1].cast_unsigned(),
                        positive: numbers[2..5].to_vec(),
                        negative: numbers[5..7].to_vec(),
                    },
                    true => HistogramCounts::Float {
                        count: floats(numbers)[0],
                        zero: floats(numbers)[1],
                        positive: floats(&numbers[2..5]),
                        negative: floats(&numbers[5..7]),
                    },
                };
                pushed.push(Sample::Histogram(HistogramSample {
                    t_ms: *t_ms,
                    layout: Arc::clone(&layout),
                    sum: f64::from_bits(*sum),
                    counts,
                }));
            }
            pushed.iter().for_each(|sample| writer.push(sample));
            let chunks = writer.finish();
            let read: Vec<String> = chunks.iter().flat_map(decoded).map(|s| meaning(&s)).collect();
            prop_assert_eq!(read, pushed.iter().map(meaning).collect::<Vec<_>>());
        }
    }
}

// === Each rule by itself ===

fn integer(t_ms: i64, layout: usize, hint: CounterReset, counts: &[u32]) -> Sample {
    let choice = Choice {
        layout,
        hint,
        is_float: false,
        sum: 1.0f64.to_bits(),
        // Buckets that are not given are empty.
        counts: counts.iter().copied().chain([0; 7]).collect(),
    };
    histogram(t_ms, &choice)
}

/// The number of samples of each chunk, and what its header says.
fn chunks_of(writer: ChunkWriter, samples: &[Sample]) -> Vec<(usize, CounterReset)> {
    let mut writer = writer;
    samples.iter().for_each(|sample| writer.push(sample));
    let chunks = writer.finish();
    let read = chunks.iter().map(decoded);
    read.map(|all| (all.len(), hint(&all[0]))).collect()
}

#[test]
fn the_first_chunk_keeps_the_hint_of_its_first_sample() {
    use CounterReset::{Gauge, NotReset, Reset, Unknown};
    for hint in [Gauge, NotReset, Reset, Unknown] {
        let sample = integer(1, 0, hint, &[9, 1, 3, 3, 3, 1]);
        assert_eq!(
            chunks_of(ChunkWriter::new(), std::slice::from_ref(&sample)),
            [(1, hint)]
        );
        let merged = if hint == Gauge { Gauge } else { Unknown };
        assert_eq!(
            chunks_of(ChunkWriter::of_merged(), &[sample]),
            [(1, merged)]
        );
    }
}

#[test]
fn a_chunk_is_cut_where_a_reset_or_another_layout_asks_for_it() {
    use CounterReset::{NotReset, Reset, Unknown};
    let all = [
        integer(1, 0, Unknown, &[9, 1, 3, 3, 0, 1]),
        integer(2, 0, NotReset, &[9, 1, 3, 3, 0, 1]),
        // A bucket with less, then the count with less.
        integer(3, 0, NotReset, &[9, 1, 2, 3, 0, 1]),
        integer(4, 0, NotReset, &[8, 1, 2, 3, 0, 1]),
        // One bucket more: all that were there are.
        integer(5, 1, NotReset, &[8, 1, 2, 3, 1, 0, 1]),
        // The bucket goes again.
        integer(6, 0, NotReset, &[8, 1, 2, 3, 0, 1]),
    ];
    assert_eq!(
        chunks_of(ChunkWriter::new(), &all),
        [
            (2, Unknown),
            (1, Reset),
            (1, Reset),
            (1, NotReset),
            (1, Reset)
        ]
    );
    // Other bounds: nothing can be compared, and the hint alone tells of a reset.
    let others = [
        integer(1, 2, Unknown, &[9, 1, 3, 1]),
        integer(2, 3, NotReset, &[9, 1, 9, 9, 9, 9]),
        integer(3, 4, NotReset, &[9, 1, 9, 9, 9, 9]),
        integer(4, 5, Reset, &[9, 1, 9, 9, 9, 9]),
    ];
    let flags = |writer| chunks_of(writer, &others).into_iter().map(|(_, flag)| flag);
    assert!(flags(ChunkWriter::new()).eq([Unknown, Unknown, Unknown, Reset]));
    assert!(flags(ChunkWriter::of_merged()).eq([Unknown; 4]));
}

#[test]
fn a_bucket_that_had_nothing_may_go_and_a_full_chunk_goes_on_without_reset() {
    use CounterReset::{NotReset, Unknown};
    let mut all = vec![integer(0, 1, Unknown, &[9, 1, 0, 0, 0, 2])];
    // Bucket 3 alone, then all four again.
    all.push(integer(1, 2, NotReset, &[9, 1, 2, 0, 0, 0]));
    all.extend((2..300).map(|t| integer(t, 2, NotReset, &[9, 1, 2, 0, 0, 0])));
    assert_eq!(
        chunks_of(ChunkWriter::new(), &all),
        [
            (1, Unknown),
            (120, NotReset),
            (120, NotReset),
            (59, NotReset)
        ]
    );
}

#[test]
fn a_stale_marker_ends_a_chunk_of_histograms() {
    use CounterReset::{NotReset, Unknown};
    let stale = |t_ms| {
        Sample::Histogram(HistogramSample {
            t_ms,
            layout: Arc::default(),
            sum: f64::from_bits(STALE_NAN_BITS),
            counts: HistogramCounts::Integer {
                count: 0,
                zero: 0,
                positive: Vec::new(),
                negative: Vec::new(),
            },
        })
    };
    let sample = |t_ms| integer(t_ms, 0, NotReset, &[9, 1, 3, 3, 3, 1]);
    let all = [
        stale(0),
        stale(1),
        sample(2),
        sample(3),
        stale(4),
        stale(5),
        sample(6),
    ];
    assert_eq!(
        chunks_of(ChunkWriter::new(), &all),
        [(2, Unknown), (4, Unknown), (1, Unknown)]
    );
}

#[test]
fn the_first_sample_alone_has_what_a_header_says() {
    use CounterReset::{Gauge, NotReset, Reset, Unknown};
    for (header, others) in [
        (Unknown, NotReset),
        (Reset, NotReset),
        (NotReset, NotReset),
        (Gauge, Gauge),
    ] {
        let mut writer = ChunkWriter::new();
        for t_ms in 0..3 {
            let hint = if t_ms == 0 { header } else { others };
            writer.push(&integer(t_ms, 0, hint, &[9, 1, 3, 3, 3, 1]));
        }
        let chunks = writer.finish();
        let said: Vec<_> = chunks.iter().flat_map(decoded).map(|s| hint(&s)).collect();
        assert_eq!(said, [header, others, others]);
        // So a chunk cut off at the front does not repeat it.
        let mut trimmed = ChunkWriter::new();
        decoded(&chunks[0])[1..]
            .iter()
            .for_each(|sample| trimmed.push(sample));
        assert_eq!(hint(&decoded(&trimmed.finish()[0])[0]), others);
    }
}

/// Chunks of real blocks in encodings that the writer has, written again from their samples.
#[test]
fn chunks_of_prometheus_are_written_as_prometheus_wrote_them() {
    let mut written = 0;
    for segment in [
        include_bytes!("../../../../tests/data/blocks/prometheus-2.42/chunks/000001").as_slice(),
        include_bytes!("../../../../tests/data/blocks/prometheus-3.16-histograms/chunks/000001"),
        include_bytes!("../../../../tests/data/blocks/prometheus-3.16-xor2/chunks/000001"),
    ] {
        let mut verifier = SegmentVerifier::new(0, segment.len() as u64);
        let mut found: Vec<ChunkStart> = Vec::new();
        verifier.feed(segment, &mut found).unwrap();
        let limit = if cfg!(miri) { 5 } else { usize::MAX };
        for start in found.iter().take(limit) {
            let chunk = chunk_at(segment, start.reference.offset()).unwrap();
            let (encoding, data) = crate::tsdb::transcode(chunk.encoding, chunk.data).unwrap();
            let mut writer = ChunkWriter::new();
            let samples: Vec<Sample> = Samples::new(encoding, &data)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            samples.iter().for_each(|sample| writer.push(sample));
            let chunks = writer.finish();
            check(&samples, &chunks, true);
            if samples.len() <= 120 {
                assert_eq!(chunks.len(), 1, "{encoding:?} {:?}", start.reference);
                assert_eq!((chunks[0].encoding, &chunks[0].data), (encoding, &data));
                written += 1;
            }
        }
    }
    assert!(written > 10, "{written} chunks");
}
