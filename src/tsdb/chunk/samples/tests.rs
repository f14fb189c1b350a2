//! Codecs against encoders written for these tests from the contract, and against the chunk writer
//! of the tests of segments.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may end at once"
)]

use proptest::prelude::*;

use super::*;
use crate::tsdb::chunk::bits::{BitWriter, STALE_NAN_BITS, Window};
use crate::tsdb::chunk::histogram::HistogramCounts;
use crate::tsdb::chunk::{CounterReset, HistogramLayout, Span};
use crate::tsdb::testing::Chunk;

fn floats(encoding: Encoding, data: &[u8]) -> Result<Vec<(i64, u64)>, DecodeError> {
    let samples = Samples::new(encoding, data)?;
    let float = |sample| match sample {
        Sample::Float(FloatSample { t_ms, value }) => (t_ms, value.to_bits()),
        Sample::Histogram(_) => panic!("a histogram among floats"),
    };
    samples.map(|sample| sample.map(float)).collect()
}

fn histograms(encoding: Encoding, data: &[u8]) -> Result<Vec<HistogramSample>, DecodeError> {
    let samples = Samples::new(encoding, data)?;
    let histogram = |sample| match sample {
        Sample::Histogram(sample) => sample,
        Sample::Float(_) => panic!("a float among histograms"),
    };
    samples.map(|sample| sample.map(histogram)).collect()
}

fn xor(samples: &[(i64, u64)]) -> Vec<u8> {
    let mut encoder = XorEncoder::new();
    for &(t_ms, bits) in samples {
        assert!(encoder.append(t_ms, f64::from_bits(bits)));
    }
    encoder.finish()
}

/// No proper start of a chunk is one.
fn ends_only_at_its_end<T>(data: &[u8], read: impl Fn(&[u8]) -> Result<T, DecodeError>) {
    for cut in 0..data.len() {
        assert!(
            read(&data[..cut]).is_err(),
            "cut at {cut} of {}",
            data.len()
        );
    }
}

/// Values that repeat, go on, jump, and mark the end of a series.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(1.5f64.to_bits()),
        3 => (0u32..1000).prop_map(|n| f64::from(n).to_bits()),
        2 => Just(STALE_NAN_BITS),
        1 => Just(f64::NAN.to_bits()),
        2 => any::<u64>(),
    ]
}

/// Steps of time at and around the edges of all ranges.
fn step() -> impl Strategy<Value = i64> {
    let edges = [0, 13, 14, 17, 20].map(|bits| 1i64 << bits);
    prop_oneof![
        4 => Just(15_000i64),
        4 => 14_990i64..15_010,
        3 => (prop::sample::select(edges.to_vec()), -2i64..3)
            .prop_map(|(edge, near)| (edge + near).max(0)),
        1 => 0i64..1 << 40,
    ]
}

prop_compose! {
    fn samples()(
        start in prop_oneof![Just(1_700_000_000_000i64), -1i64 << 40..1 << 40],
        rest in proptest::collection::vec((step(), value()), 0..150),
    ) -> Vec<(i64, u64)> {
        let mut t = start;
        rest.into_iter().map(|(step, bits)| { t += step; (t, bits) }).collect()
    }
}

// === Floats ===

proptest! {
    // Each case looks at every cut.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn xor_is_read_as_written_and_as_another_writer_has_it(samples in samples()) {
        let data = xor(&samples);
        prop_assert_eq!(floats(Encoding::Xor, &data).unwrap(), samples.clone());
        ends_only_at_its_end(&data, |cut| floats(Encoding::Xor, cut));
        if !samples.is_empty() {
            let other = samples.iter().map(|&(t, bits)| (t, f64::from_bits(bits)));
            prop_assert_eq!(data, Chunk::xor(&other.collect::<Vec<_>>()).data);
        }
    }

    #[test]
    fn xor2_loses_start_times_and_nothing_else(
        samples in samples(), first in any::<Option<i64>>(),
        from in prop_oneof![Just(0usize), 1usize..128],
        starts in proptest::collection::vec(any::<i64>(), 150),
    ) {
        let first = first.map(|st| st >> 8);
        let data = xor2(&samples, first, from, &starts);
        prop_assert_eq!(floats(Encoding::Xor2, &data).unwrap(), samples.clone());
        ends_only_at_its_end(&data, |cut| floats(Encoding::Xor2, cut));
        let (encoding, plain) = transcode(Encoding::Xor2, &data).unwrap();
        prop_assert_eq!((encoding, plain), (Encoding::Xor, xor(&samples)));
        ends_only_at_its_end(&data, |cut| transcode(Encoding::Xor2, cut));
    }

    #[test]
    fn times_at_the_ends_of_their_type_survive(
        samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..5),
    ) {
        prop_assert_eq!(floats(Encoding::Xor, &xor(&samples)).unwrap(), samples);
    }
}

/// The encoder, from the contract: `first` start time, and one for each sample from `from` on.
fn xor2(samples: &[(i64, u64)], first: Option<i64>, from: usize, starts: &[i64]) -> Vec<u8> {
    let has_first = u8::from(first.is_some()) << 7;
    let mut header = (samples.len() as u16).to_be_bytes().to_vec();
    header.push(has_first | from as u8);
    let mut bits = BitWriter::after(header);
    let (mut base, mut window) = (0.0f64, None);
    let (mut delta, mut start_delta) = (0i64, 0i64);
    for (i, &(t, value_bits)) in samples.iter().enumerate() {
        let previous_t = if i == 0 { 0 } else { samples[i - 1].0 };
        match i {
            0 => {
                bits.varint(t);
                bits.put(value_bits, 64);
                if let Some(first) = first {
                    bits.varint(t.wrapping_sub(first));
                }
            }
            1 => {
                bits.uvarint((t - previous_t) as u64);
                xor2_value(&mut bits, value_bits, base, &mut window);
            }
            _ => xor2_joint(
                &mut bits,
                (t - previous_t) - delta,
                value_bits,
                base,
                &mut window,
            ),
        }
        if i > 0 {
            delta = t - previous_t;
        }
        if from != 0 && i >= from {
            let absolute = previous_t.wrapping_sub(starts[i]);
            let code = if i == from {
                absolute
            } else {
                absolute.wrapping_sub(start_delta)
            };
            bits.varbit_int(code);
            start_delta = absolute;
        }
        if value_bits != STALE_NAN_BITS {
            base = f64::from_bits(value_bits);
        }
    }
    bits.into_bytes()
}

fn xor2_joint(
    bits: &mut BitWriter,
    dod: i64,
    value_bits: u64,
    base: f64,
    window: &mut Option<Window>,
) {
    match dod {
        0 if value_bits == STALE_NAN_BITS => return bits.put(0b11111, 5),
        0 if value_bits == base.to_bits() => return bits.put(0, 1),
        0 => return xor2_changed(bits, [(0b100, 3), (0b101, 3)], value_bits, base, window),
        -4096..=4095 => {
            bits.put(0b110, 3);
            bits.put(dod as u64, 13);
        }
        -524_288..=524_287 => {
            bits.put(0b1110, 4);
            bits.put(dod as u64, 20);
        }
        _ => {
            bits.put(0b11110, 5);
            bits.put(dod as u64, 64);
        }
    }
    xor2_value(bits, value_bits, base, window);
}

fn xor2_value(bits: &mut BitWriter, value_bits: u64, base: f64, window: &mut Option<Window>) {
    if value_bits == STALE_NAN_BITS {
        return bits.put(0b111, 3);
    }
    match value_bits == base.to_bits() {
        true => bits.put(0, 1),
        false => xor2_changed(bits, [(0b10, 2), (0b110, 3)], value_bits, base, window),
    }
}

/// What XOR writes behind `10` (the window is used again) and `11` (a new one), behind `prefixes`.
fn xor2_changed(
    bits: &mut BitWriter,
    prefixes: [(u64, u32); 2],
    value_bits: u64,
    base: f64,
    window: &mut Option<Window>,
) {
    let mut alone = BitWriter::default();
    alone.xor(f64::from_bits(value_bits), base, window);
    let end = alone.position();
    let alone = alone.into_bytes();
    let mut reader = BitReader::new(&alone, 0);
    let [reused, new] = prefixes;
    let (prefix, width) = if reader.bits(2).unwrap() == 0b11 {
        new
    } else {
        reused
    };
    bits.put(prefix, width);
    bits.copy(&mut reader, end).unwrap();
}

#[test]
fn a_full_chunk_takes_no_more() {
    let mut encoder = XorEncoder::new();
    for i in 0..i64::from(XorEncoder::SAMPLES_MAX) {
        assert!(encoder.append(i, 1.0));
    }
    assert!(!encoder.append(1 << 20, 1.0));
    assert_eq!(encoder.samples(), XorEncoder::SAMPLES_MAX);
    let data = encoder.finish();
    assert_eq!(floats(Encoding::Xor, &data).unwrap().len(), 65_535);
}

// === Histograms ===

/// A histogram's numbers, which the encoder writes as integers or floats.
#[derive(Clone, Debug)]
struct Numbers {
    t_ms: i64,
    sum: u64,
    count: u64,
    zero: u64,
    buckets: Vec<i64>,
}

/// What the byte of a zero threshold means; by halves, which are exact.
fn power_of_two(byte: u64) -> f64 {
    (byte..254).fold(1024.0, |power, _| power / 2.0)
}

fn layout() -> impl Strategy<Value = HistogramLayout> {
    let spans = || {
        let span = (-5i64..300, 0u64..4).prop_map(|(offset, length)| Span { offset, length });
        proptest::collection::vec(span, 0..4)
    };
    let bound = prop_oneof![
        (0u32..33_554_431).prop_map(|n| f64::from(n) / 1000.0),
        any::<u32>().prop_map(|n| f64::from(n) / 3.0),
        Just(f64::INFINITY),
    ];
    let threshold = prop_oneof![Just(0.0), (1u64..255).prop_map(power_of_two), Just(0.001),];
    (
        spans(),
        spans(),
        threshold,
        prop_oneof![Just(-53i64), -4i64..9],
        proptest::collection::vec(bound, 0..5),
    )
        .prop_map(
            |(positive_spans, negative_spans, zero_threshold, schema, bounds)| HistogramLayout {
                counter_reset: CounterReset::Gauge,
                schema,
                zero_threshold,
                positive_spans,
                negative_spans,
                custom_bounds: if schema == -53 { bounds } else { Vec::new() },
            },
        )
}

fn buckets(layout: &HistogramLayout) -> usize {
    let spans = layout.positive_spans.iter().chain(&layout.negative_spans);
    spans.map(|span| span.length as usize).sum()
}

fn numbers() -> impl Strategy<Value = (HistogramLayout, Vec<Numbers>)> {
    layout().prop_flat_map(|layout| {
        let buckets = buckets(&layout);
        let bucket = prop_oneof![4 => -9i64..50, 1 => any::<i64>()];
        let number = (
            step(),
            value(),
            any::<(u64, u64)>(),
            proptest::collection::vec(bucket, buckets),
        );
        let all = proptest::collection::vec(number, 0..40).prop_map(|all| {
            let mut t_ms = 1_700_000_000_000;
            let mut made: Vec<Numbers> = Vec::new();
            for (step, sum, (count, zero), buckets) in all {
                t_ms += step;
                made.push(Numbers {
                    t_ms,
                    sum,
                    count,
                    zero,
                    buckets,
                });
                // A stale marker ends a chunk.
                if sum == STALE_NAN_BITS {
                    break;
                }
            }
            made
        });
        (Just(layout), all)
    })
}

/// The encoder, from the contract; `start_times`: the first one, and from where on all others.
fn histogram_chunk(
    layout: &HistogramLayout,
    all: &[Numbers],
    is_float: bool,
    start_times: Option<(Option<i64>, usize)>,
) -> Vec<u8> {
    let mut header = (all.len() as u16).to_be_bytes().to_vec();
    match start_times {
        None => header.push(0b1100_0000),
        Some((first, from)) => {
            header[0] |= 0b1100_0000;
            header.push(u8::from(first.is_some()) << 7 | from as u8);
        }
    }
    let mut bits = BitWriter::after(header);
    if !all.is_empty() {
        put_layout(&mut bits, layout);
    }
    let mut coder = Coder {
        windows: vec![None; layout_numbers(layout) + 1],
        ..Coder::default()
    };
    for (i, numbers) in all.iter().enumerate() {
        coder.time(&mut bits, i, numbers.t_ms);
        coder.put(&mut bits, i, numbers, is_float);
        match start_times {
            Some((Some(first), _)) if i == 0 => bits.varint(numbers.t_ms - first),
            Some((_, from)) if from != 0 && i >= from => bits.varbit_int(i as i64 * 1_000_003),
            _ => {}
        }
    }
    bits.into_bytes()
}

fn layout_numbers(layout: &HistogramLayout) -> usize {
    buckets(layout) + 2
}

fn put_layout(bits: &mut BitWriter, layout: &HistogramLayout) {
    let threshold = layout.zero_threshold;
    let power = (1..255).find(|b| power_of_two(*b) == threshold);
    match power {
        _ if threshold == 0.0 => bits.put(0, 8),
        Some(power) => bits.put(power, 8),
        None => {
            bits.put(255, 8);
            bits.put(threshold.to_bits(), 64);
        }
    }
    bits.varbit_int(layout.schema);
    for spans in [&layout.positive_spans, &layout.negative_spans] {
        bits.varbit_uint(spans.len() as u64);
        for span in spans {
            bits.varbit_uint(span.length);
            bits.varbit_int(span.offset);
        }
    }
    if layout.schema != -53 {
        return;
    }
    bits.varbit_uint(layout.custom_bounds.len() as u64);
    for bound in &layout.custom_bounds {
        let thousandths = bound * 1000.0;
        if thousandths.fract() == 0.0 && (0.0..=33_554_430.0).contains(&thousandths) {
            bits.varbit_uint(thousandths as u64 + 1);
        } else {
            bits.put(0, 1);
            bits.put(bound.to_bits(), 64);
        }
    }
}

#[derive(Default)]
struct Coder {
    t_ms: i64,
    delta_ms: i64,
    values: Vec<i64>,
    deltas: Vec<i64>,
    windows: Vec<Option<Window>>,
    sum: u64,
}

impl Coder {
    fn time(&mut self, bits: &mut BitWriter, i: usize, t_ms: i64) {
        let delta = t_ms.wrapping_sub(self.t_ms);
        match i {
            0 => bits.varbit_int(t_ms),
            1 => bits.varbit_int(delta),
            _ => bits.varbit_int(delta.wrapping_sub(self.delta_ms)),
        }
        (self.t_ms, self.delta_ms) = (t_ms, if i == 0 { 0 } else { delta });
    }

    fn put(&mut self, bits: &mut BitWriter, i: usize, numbers: &Numbers, is_float: bool) {
        let counts = [numbers.count as i64, numbers.zero as i64];
        let all: Vec<i64> = counts.into_iter().chain(numbers.buckets.clone()).collect();
        self.values.resize(all.len(), 0);
        self.deltas.resize(all.len(), 0);
        for (at, &value) in all.iter().enumerate() {
            if at == 2 {
                self.put_sum(bits, i, numbers.sum);
            }
            if at < 2 || i == 0 || numbers.sum != STALE_NAN_BITS {
                self.number(bits, i, at, value, is_float);
            }
        }
        if all.len() == 2 {
            self.put_sum(bits, i, numbers.sum);
        }
    }

    fn put_sum(&mut self, bits: &mut BitWriter, i: usize, sum: u64) {
        let mut window = self.windows.pop().unwrap();
        match i {
            0 => bits.put(sum, 64),
            _ => bits.xor(f64::from_bits(sum), f64::from_bits(self.sum), &mut window),
        }
        self.windows.push(window);
        self.sum = sum;
    }

    fn number(&mut self, bits: &mut BitWriter, i: usize, at: usize, value: i64, is_float: bool) {
        let before = std::mem::replace(&mut self.values[at], value);
        if is_float {
            let (value, before) = (as_float(value), as_float(before));
            return match i {
                0 => bits.put(value.to_bits(), 64),
                _ => bits.xor(value, before, &mut self.windows[at]),
            };
        }
        let delta = value.wrapping_sub(before);
        match i {
            0 if at < 2 => bits.varbit_uint(value as u64),
            0 => bits.varbit_int(value),
            1 => bits.varbit_int(delta),
            _ => bits.varbit_int(delta.wrapping_sub(self.deltas[at])),
        }
        self.deltas[at] = if i == 0 { 0 } else { delta };
    }
}

fn as_float(value: i64) -> f64 {
    value as f64 / 8.0
}

fn check(
    layout: &HistogramLayout,
    all: &[Numbers],
    read: &[HistogramSample],
    is_float: bool,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(read.len(), all.len());
    let positive: u64 = layout.positive_spans.iter().map(|span| span.length).sum();
    for (i, (read, made)) in read.iter().zip(all).enumerate() {
        prop_assert_eq!((read.t_ms, read.sum.to_bits()), (made.t_ms, made.sum));
        prop_assert_eq!(&*read.layout, layout);
        if i > 0 && made.sum == STALE_NAN_BITS {
            continue;
        }
        let (first, second) = made.buckets.split_at(positive as usize);
        let floats = |all: &[i64]| all.iter().map(|&n| as_float(n)).collect();
        let expected = match is_float {
            true => HistogramCounts::Float {
                count: as_float(made.count as i64),
                zero: as_float(made.zero as i64),
                positive: floats(first),
                negative: floats(second),
            },
            false => HistogramCounts::Integer {
                count: made.count,
                zero: made.zero,
                positive: first.to_vec(),
                negative: second.to_vec(),
            },
        };
        prop_assert_eq!(&read.counts, &expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn histograms_are_read_as_written_and_lose_only_start_times(
        (layout, all) in numbers(), is_float: bool,
        first in any::<Option<i32>>(), from in 0usize..50,
    ) {
        let (plain, with) = match is_float {
            true => (Encoding::FloatHistogram, Encoding::FloatHistogramSt),
            false => (Encoding::Histogram, Encoding::HistogramSt),
        };
        let data = histogram_chunk(&layout, &all, is_float, None);
        check(&layout, &all, &histograms(plain, &data).unwrap(), is_float)?;
        ends_only_at_its_end(&data, |cut| histograms(plain, cut));

        let start_times = Some((first.map(i64::from), from));
        let longer = histogram_chunk(&layout, &all, is_float, start_times);
        check(&layout, &all, &histograms(with, &longer).unwrap(), is_float)?;
        prop_assert_eq!(transcode(with, &longer).unwrap(), (plain, data));
        ends_only_at_its_end(&longer, |cut| transcode(with, cut));
    }
}

#[test]
fn claims_beyond_the_bytes_are_refused_before_anything_is_made_for_them() {
    let mut bits = BitWriter::after(vec![0, 1, 0]);
    bits.put(0, 8);
    bits.varbit_int(0);
    bits.varbit_uint(1);
    bits.varbit_uint(u64::MAX);
    bits.varbit_int(0);
    bits.varbit_uint(0);
    let data = bits.into_bytes();
    let error = Samples::new(Encoding::Histogram, &data).unwrap_err();
    assert!(
        matches!(
            error.kind,
            DecodeErrorKind::Limit {
                what: "buckets",
                ..
            }
        ),
        "{error}"
    );

    let mut bits = BitWriter::after(vec![0, 1, 0]);
    bits.put(0, 8);
    bits.varbit_int(0);
    bits.varbit_uint(1 << 40);
    let error = Samples::new(Encoding::FloatHistogram, &bits.into_bytes()).unwrap_err();
    assert!(
        matches!(error.kind, DecodeErrorKind::Limit { what: "spans", .. }),
        "{error}"
    );
}

#[test]
fn counter_resets_are_read_from_their_place() {
    for (flags, expected) in [
        (0b00, CounterReset::Unknown),
        (0b01, CounterReset::NotReset),
        (0b10, CounterReset::Reset),
        (0b11, CounterReset::Gauge),
    ] {
        let layout = HistogramLayout::default();
        let numbers = [Numbers {
            t_ms: 5,
            sum: 0,
            count: 1,
            zero: 1,
            buckets: Vec::new(),
        }];
        let mut plain = histogram_chunk(&layout, &numbers, false, None);
        plain[2] = flags << 6;
        let read = histograms(Encoding::Histogram, &plain).unwrap();
        assert_eq!(read[0].layout.counter_reset, expected);
        let mut with = histogram_chunk(&layout, &numbers, false, Some((Some(3), 0)));
        with[0] = flags << 6;
        let read = histograms(Encoding::HistogramSt, &with).unwrap();
        assert_eq!(read[0].layout.counter_reset, expected);
        assert_eq!(transcode(Encoding::HistogramSt, &with).unwrap().1, plain);
    }
}

proptest! {
    #[test]
    fn garbage_is_an_error_or_samples(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::tsdb::fuzz_xor(&data);
        crate::tsdb::fuzz_xor2(&data);
        crate::tsdb::fuzz_histogram(&data);
        crate::tsdb::fuzz_transcode(&data);
    }
}

/// Writes the seeds of the fuzz corpora anew, after the encoders have changed.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn regenerate_fuzz_seeds() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let put = |target: &str, name: &str, encoding: Encoding, data: &[u8]| {
        for (target, bytes) in [
            (target, data.to_vec()),
            ("transcode", [&[encoding.id()], data].concat()),
            ("chunk_writer", [&[encoding.id()], data].concat()),
        ] {
            let directory = corpus.join(target);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), bytes).unwrap();
        }
    };
    let step = |i: i64| i * 15_000 + i % 3;
    let all: Vec<_> = (0..20)
        .map(|i| (step(i), (i as f64 / 3.0).to_bits()))
        .collect();
    put("xor", "floats", Encoding::Xor, &xor(&all));
    let mut ending = all.clone();
    ending[19].1 = STALE_NAN_BITS;
    put(
        "xor2",
        "plain",
        Encoding::Xor2,
        &xor2(&ending, None, 0, &[0; 20]),
    );
    put(
        "xor2",
        "start-times",
        Encoding::Xor2,
        &xor2(&all, Some(-5), 3, &[7; 20]),
    );
    let layout = HistogramLayout {
        schema: -53,
        positive_spans: vec![Span {
            offset: 1,
            length: 3,
        }],
        custom_bounds: vec![0.5, 1.0 / 3.0],
        ..HistogramLayout::default()
    };
    let numbers = |i: i64| Numbers {
        t_ms: step(i),
        sum: (i as f64).to_bits(),
        count: i as u64,
        zero: 1,
        buckets: vec![i, -i, 7],
    };
    let all: Vec<_> = (0..9).map(numbers).collect();
    for (name, encoding, is_float, start_times) in [
        ("integer", Encoding::Histogram, false, None),
        ("float", Encoding::FloatHistogram, true, None),
        (
            "integer-st",
            Encoding::HistogramSt,
            false,
            Some((Some(3), 2)),
        ),
        (
            "float-st",
            Encoding::FloatHistogramSt,
            true,
            Some((None, 1)),
        ),
    ] {
        let data = histogram_chunk(&layout, &all, is_float, start_times);
        put("histogram", name, encoding, &data);
    }
}
