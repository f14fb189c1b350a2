//! What the fuzz targets of the sample codecs run.
//!
//! Beyond "no panic": what is decoded lies within the bytes that are there, and a transcoded chunk
//! has the samples of the original, bit by bit.

use super::{
    CHUNK_SAMPLES_MAX, ChunkWriter, EncodedChunk, Encoding, FloatSample, HistogramCounts, Sample,
    Samples, XorEncoder, transcode,
};

/// The input as an XOR chunk, which survives being encoded anew.
pub fn fuzz_xor(data: &[u8]) {
    let Some(samples) = bits_of(Encoding::Xor, data) else {
        return;
    };
    let mut encoder = XorEncoder::new();
    for sample in Samples::new(Encoding::Xor, data).expect("it has been read") {
        if let Sample::Float(sample) = sample.expect("it has been read") {
            assert!(encoder.append(sample.t_ms, sample.value));
        }
    }
    let again = encoder.finish();
    assert_eq!(bits_of(Encoding::Xor, &again), Some(samples));
}

/// The input as an XOR2 chunk.
pub fn fuzz_xor2(data: &[u8]) {
    transcoded(Encoding::Xor2, data);
}

/// The input as a chunk of histograms in each of their encodings.
pub fn fuzz_histogram(data: &[u8]) {
    for encoding in [Encoding::Histogram, Encoding::FloatHistogram] {
        bits_of(encoding, data);
    }
    transcoded(Encoding::HistogramSt, data);
    transcoded(Encoding::FloatHistogramSt, data);
}

/// The first byte is the encoding, the rest a chunk.
pub fn fuzz_transcode(data: &[u8]) {
    if let Some((&id, data)) = data.split_first()
        && let Some(encoding) = Encoding::from_id(id % 8)
    {
        transcoded(encoding, data);
    }
}

/// The input as a chunk, the first byte its encoding, whose samples are written anew.
pub fn fuzz_chunk_writer(data: &[u8]) {
    let Some((&id, data)) = data.split_first() else {
        return;
    };
    let Some(encoding) = Encoding::from_id(id % 8) else {
        return;
    };
    // Those before what is broken will do.
    let samples = Samples::new(encoding, data).into_iter().flatten();
    let samples: Vec<Sample> = samples.map_while(Result::ok).collect();
    for mut writer in [ChunkWriter::new(), ChunkWriter::of_merged()] {
        samples.iter().for_each(|sample| writer.push(sample));
        let chunks = writer.finish();
        let mut read = Vec::new();
        for chunk in &chunks {
            let samples = decoded(chunk);
            assert!(samples.len() <= CHUNK_SAMPLES_MAX as usize);
            assert_eq!(samples.first().map(t_ms), Some(chunk.min_ms));
            assert_eq!(samples.last().map(t_ms), Some(chunk.max_ms));
            read.extend(samples.iter().map(meaning));
        }
        assert_eq!(read, samples.iter().map(meaning).collect::<Vec<_>>());
    }
}

/// The samples of a chunk that has been written.
pub(super) fn decoded(chunk: &EncodedChunk) -> Vec<Sample> {
    let samples = Samples::new(chunk.encoding, &chunk.data).expect("it has been written");
    let samples = samples.map(|sample| sample.expect("it has been written"));
    samples.collect()
}

pub(super) fn t_ms(sample: &Sample) -> i64 {
    match sample {
        Sample::Float(sample) => sample.t_ms,
        Sample::Histogram(sample) => sample.t_ms,
    }
}

/// Every bit of what a sample means: of a stale marker its time alone, of a layout all but the
/// counter reset.
pub(super) fn meaning(sample: &Sample) -> String {
    let bits = |floats: &[f64]| floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
    let sample = match sample {
        Sample::Float(FloatSample { t_ms, value }) => {
            return format!("float {t_ms} {:x}", value.to_bits());
        }
        Sample::Histogram(sample) => sample,
    };
    let (t_ms, layout) = (sample.t_ms, &sample.layout);
    let counts = match &sample.counts {
        HistogramCounts::Integer { .. } if sample.is_stale() => "integer".to_owned(),
        HistogramCounts::Float { .. } if sample.is_stale() => "float".to_owned(),
        HistogramCounts::Integer { .. } => format!("{:?}", sample.counts),
        HistogramCounts::Float {
            count,
            zero,
            positive,
            negative,
        } => {
            let all = (bits(&[*count, *zero]), bits(positive), bits(negative));
            format!("float {all:?}")
        }
    };
    if sample.is_stale() {
        return format!("{t_ms} stale {counts}");
    }
    format!(
        "{t_ms} {} {:x} {:?} {:?} {:?} {:x} {counts}",
        layout.schema,
        layout.zero_threshold.to_bits(),
        layout.positive_spans,
        layout.negative_spans,
        bits(&layout.custom_bounds),
        sample.sum.to_bits(),
    )
}

/// What a chunk without start times says must be what the one with them did.
fn transcoded(encoding: Encoding, data: &[u8]) {
    let before = bits_of(encoding, data);
    let outcome = transcode(encoding, data);
    let is_plain = matches!(
        encoding,
        Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram
    );
    if is_plain {
        assert_eq!(outcome, Ok((encoding, data.to_vec())));
        return;
    }
    match (before, outcome) {
        (Some(before), Ok((encoding, data))) => {
            assert!(encoding.id() <= 3, "StoreAPI knows it");
            assert_eq!(bits_of(encoding, &data), Some(before));
        }
        (None, Err(_)) => {}
        (before, outcome) => panic!("{before:?} but {outcome:?}"),
    }
}

/// All samples as text that tells every bit of every float; `None` where the chunk is broken.
fn bits_of(encoding: Encoding, data: &[u8]) -> Option<Vec<String>> {
    let samples = Samples::new(encoding, data).ok()?;
    let mut all = Vec::new();
    for sample in samples {
        all.push(match sample.ok()? {
            Sample::Float(sample) => format!("{} {:x}", sample.t_ms, sample.value.to_bits()),
            Sample::Histogram(sample) => {
                // The same for all.
                let layout = all.is_empty().then_some(&sample.layout);
                let (sum, counts) = (sample.sum.to_bits(), &sample.counts);
                format!("{} {sum:x} {counts:?} {layout:?}", sample.t_ms)
            }
        });
    }
    assert!(
        all.len() <= data.len().saturating_mul(8),
        "a sample has a bit"
    );
    Some(all)
}
