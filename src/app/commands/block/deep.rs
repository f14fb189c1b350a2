//! `outrigger block verify --deep`: every sample decoded, and held against what is said of it.
//!
//! The files are proven before; what is left to find are writers' mistakes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::files::{BlockDir, FoundChunk, OpenBlock};
use super::samples::is_stale;
use crate::model::TimeRange;
use crate::tsdb::{
    ChunkMeta, HistogramCounts, HistogramLayout, HistogramSample, Sample, Samples, SeriesReader,
    Span,
};

/// The schema whose bounds are listed.
const CUSTOM_BOUNDS_SCHEMA: i64 = -53;
/// Schemas of exponential buckets.
const SCHEMAS: std::ops::RangeInclusive<i64> = -4..=8;

/// Decodes all samples; how many there are. Adds the bytes of chunks to `done_bytes`.
pub(super) fn decode(block: &BlockDir, done_bytes: &AtomicU64) -> anyhow::Result<u64> {
    let open = block.open()?;
    let decoded = decode_all(&open, done_bytes);
    // Zeros in place of what was cut off look like anything.
    open.check()?;
    decoded
}

fn decode_all(open: &OpenBlock, done_bytes: &AtomicU64) -> anyhow::Result<u64> {
    let view = open.view();
    let of_index = |error| open.index_fault(error);
    let mut series = view.postings(view.all()).map_err(of_index)?;
    let mut reader = SeriesReader::new();
    let mut samples = 0_u64;
    while let Some(id) = series.next(view) {
        reader.read(view, id).map_err(of_index)?;
        for meta in reader.chunks() {
            let chunk = open.chunk(meta.reference)?;
            samples += check_chunk(&chunk, meta, open.meta.range())?;
            done_bytes.fetch_add(chunk.data.len() as u64, Ordering::Relaxed);
        }
    }
    Ok(samples)
}

fn check_chunk(chunk: &FoundChunk<'_>, meta: &ChunkMeta, range: TimeRange) -> anyhow::Result<u64> {
    let samples = Samples::new(chunk.encoding, chunk.data);
    let mut count = 0_u64;
    let mut last = None;
    for sample in samples.map_err(|error| chunk.fault(error))? {
        let sample = sample.map_err(|error| chunk.fault(error))?;
        let t_ms = time_of(&sample);
        let wrong = |what: String| chunk.wrong(format!("sample {} {what}", count + 1));
        if last.is_some_and(|last| t_ms <= last) {
            return Err(wrong(format!(
                "at {t_ms} ms does not come after the one before"
            )));
        }
        if t_ms < meta.mint.0 || t_ms > meta.maxt.0 {
            return Err(wrong(format!(
                "at {t_ms} ms lies outside the chunk, {} to {} in the index",
                meta.mint, meta.maxt
            )));
        }
        if t_ms < range.mint.0 || t_ms >= range.maxt.0 {
            return Err(wrong(format!(
                "at {t_ms} ms lies outside the block, {} until {}",
                range.mint, range.maxt
            )));
        }
        if let Sample::Histogram(histogram) = &sample {
            check_histogram(histogram).map_err(|what| wrong(what.to_owned()))?;
        }
        last = Some(t_ms);
        count += 1;
    }
    if count == 0 {
        return Err(chunk.wrong("the chunk has no samples".to_owned()));
    }
    Ok(count)
}

fn time_of(sample: &Sample) -> i64 {
    match sample {
        Sample::Float(float) => float.t_ms,
        Sample::Histogram(histogram) => histogram.t_ms,
    }
}

/// What every writer keeps to: spans as many buckets as there are, no negative counts, and buckets
/// that sum up to the count.
fn check_histogram(sample: &HistogramSample) -> Result<(), &'static str> {
    if is_stale(sample.sum) {
        return Ok(());
    }
    check_layout(&sample.layout)?;
    match &sample.counts {
        HistogramCounts::Integer {
            count,
            zero,
            positive,
            negative,
        } => {
            check_spans(&sample.layout, positive.len(), negative.len())?;
            let all = u128::from(*zero) + absolute(positive)? + absolute(negative)?;
            // Observations of NaN are in no bucket.
            let is_right = match sample.sum.is_nan() {
                true => all <= u128::from(*count),
                false => all == u128::from(*count),
            };
            is_right
                .then_some(())
                .ok_or("has buckets that do not sum up to its count")
        }
        HistogramCounts::Float {
            count,
            zero,
            positive,
            negative,
        } => {
            check_spans(&sample.layout, positive.len(), negative.len())?;
            let mut all = positive.iter().chain(negative).chain([count, zero]);
            match all.any(|count| *count < 0.0) {
                true => Err("has a negative count"),
                false => Ok(()),
            }
        }
    }
}

fn check_layout(layout: &HistogramLayout) -> Result<(), &'static str> {
    let bounds = &layout.custom_bounds;
    if layout.schema == CUSTOM_BOUNDS_SCHEMA {
        if !bounds.is_sorted_by(|a, b| a < b) {
            return Err("has custom bounds that do not ascend");
        }
        if !layout.negative_spans.is_empty() {
            return Err("has negative buckets beside custom bounds");
        }
    } else if !SCHEMAS.contains(&layout.schema) || !bounds.is_empty() {
        return Err("has a schema that does not exist, or bounds beside one that has none");
    }
    let behind = |spans: &[Span]| spans.iter().skip(1).any(|span| span.offset < 0);
    match behind(&layout.positive_spans) || behind(&layout.negative_spans) {
        true => Err("has spans that overlap"),
        false => Ok(()),
    }
}

fn check_spans(
    layout: &HistogramLayout,
    positive: usize,
    negative: usize,
) -> Result<(), &'static str> {
    let buckets = |spans: &[Span]| {
        spans
            .iter()
            .map(|span| u128::from(span.length))
            .sum::<u128>()
    };
    let is_right = buckets(&layout.positive_spans) == positive as u128
        && buckets(&layout.negative_spans) == negative as u128;
    is_right
        .then_some(())
        .ok_or("has another number of buckets than its spans")
}

/// The sum of buckets that are given as differences.
fn absolute(buckets: &[i64]) -> Result<u128, &'static str> {
    let mut bucket = 0_i128;
    let mut sum = 0_u128;
    for difference in buckets {
        bucket += i128::from(*difference);
        let count = u128::try_from(bucket).map_err(|_| "has a negative count")?;
        sum += count;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
