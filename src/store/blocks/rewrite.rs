//! Chunks of one series written anew: those that overlap become one sequence of samples, and
//! samples of times that somebody else answers for are left out, of blocks' chunks and of those
//! that Prometheus sends.

use super::block::{Block, BlockError};
use super::cursor::Picked;
use crate::store::{Chunk, Part, QueryRange, Series, StoreError};
use crate::tsdb::{ChunkWriter, EncodedChunk, Sample, Samples, check_chunk};

/// The most samples at a time, which bounds the memory.
const SAMPLES_MAX: usize = 16 << 10;
/// As how many a histogram counts, which may take some KiB.
const HISTOGRAM_WEIGHT: usize = 32;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) chunks: Vec<Part>,
    /// Where samples are left to be written: the time of the last that was.
    pub(super) until: Option<i64>,
}

/// The chunks of one series in one block, as samples.
struct Stream<'a> {
    block: &'a Block,
    /// Those not begun, in the order of time.
    chunks: Vec<Picked>,
    open: Option<(Picked, Samples<'a>)>,
    head: Option<Sample>,
}

/// Writes the samples of `group` behind `after` that are in none of `left_out`. Where blocks have
/// different samples of one time, that of the block named first wins.
///
/// # Errors
/// Where a chunk is damaged.
pub(super) fn rewrite<'a>(
    group: &[Picked],
    block: impl Fn(usize) -> &'a Block,
    left_out: &[QueryRange],
    after: Option<i64>,
) -> Result<Written, StoreError> {
    let mut streams = streams(group, block, after)?;
    let is_wanted = |t_ms: i64| {
        let inside = |range: &QueryRange| (range.mint.0..=range.maxt.0).contains(&t_ms);
        !left_out.iter().any(inside)
    };
    let sources = group.iter().map(|chunk| chunk.block);
    let is_merged = sources.clone().min() != sources.max();
    let mut writer = match is_merged {
        true => ChunkWriter::of_merged(),
        false => ChunkWriter::new(),
    };
    let mut written = 0;
    let mut last = after;
    loop {
        let heads = streams.iter_mut().filter_map(|stream| {
            let at = stream.head.as_ref()?.t_ms();
            Some((at, stream))
        });
        let Some((t_ms, stream)) = heads.min_by_key(|(at, _)| *at) else {
            break;
        };
        if written >= SAMPLES_MAX {
            return Ok(Written {
                chunks: chunks(writer)?,
                until: last,
            });
        }
        if last.is_none_or(|last| last < t_ms)
            && let Some(sample) = &stream.head
        {
            last = Some(t_ms);
            if is_wanted(t_ms) {
                writer.push(sample);
                written += match sample {
                    Sample::Float(_) => 1,
                    Sample::Histogram(_) => HISTOGRAM_WEIGHT,
                };
            }
        }
        stream.advance()?;
    }
    Ok(Written {
        chunks: chunks(writer)?,
        until: None,
    })
}

fn streams<'a>(
    group: &[Picked],
    block: impl Fn(usize) -> &'a Block,
    after: Option<i64>,
) -> Result<Vec<Stream<'a>>, BlockError> {
    let mut streams: Vec<(usize, Stream<'a>)> = Vec::new();
    let is_left = |chunk: &&Picked| after.is_none_or(|after| chunk.meta.maxt.0 > after);
    // The next is taken from the end.
    for chunk in group.iter().filter(is_left).rev() {
        match streams
            .iter_mut()
            .find(|(position, _)| *position == chunk.block)
        {
            Some((_, stream)) => stream.chunks.push(*chunk),
            None => {
                let stream = Stream {
                    block: block(chunk.block),
                    chunks: vec![*chunk],
                    open: None,
                    head: None,
                };
                streams.push((chunk.block, stream));
            }
        }
    }
    streams.sort_by_key(|(position, _)| *position);
    let mut streams: Vec<_> = streams.into_iter().map(|(_, stream)| stream).collect();
    streams.iter_mut().try_for_each(Stream::advance)?;
    Ok(streams)
}

/// Leaves of a series that Prometheus sent the samples of the range it was asked for. Where samples
/// were deleted, Prometheus 2.42 sends chunks that reach beyond it whole.
///
/// # Errors
/// Where such a chunk is damaged.
pub(super) fn trim(series: &mut Series, asked: QueryRange) -> Result<(), StoreError> {
    let within = |min_ms, max_ms| asked.mint.0 <= min_ms && max_ms <= asked.maxt.0;
    let is_within = |part: &Part| within(part.min_ms(), part.max_ms());
    if series.chunks.iter().all(is_within) {
        return Ok(());
    }
    let mut trimmed = Vec::with_capacity(series.chunks.len());
    for chunk in series.single_chunks() {
        if within(chunk.min_ms, chunk.max_ms) {
            trimmed.push(chunk.into());
            continue;
        }
        let mut writer = ChunkWriter::new();
        for sample in Samples::new(chunk.encoding().stored(), chunk.data())? {
            let sample = sample?;
            if (asked.mint.0..=asked.maxt.0).contains(&sample.t_ms()) {
                writer.push(&sample);
            }
        }
        trimmed.extend(chunks(writer)?);
    }
    series.chunks = trimmed;
    Ok(())
}

fn chunks(writer: ChunkWriter) -> Result<Vec<Part>, StoreError> {
    let storable = |chunk: EncodedChunk| {
        let data = chunk.data.into();
        let chunk = Chunk::carried(chunk.min_ms, chunk.max_ms, chunk.encoding, data)?;
        Ok(chunk.into())
    };
    writer.finish().into_iter().map(storable).collect()
}

impl Stream<'_> {
    fn advance(&mut self) -> Result<(), BlockError> {
        loop {
            if let Some((chunk, samples)) = &mut self.open {
                let reference = chunk.meta.reference;
                let next = samples.next().transpose();
                self.head = next.map_err(|error| self.block.chunk_error(reference, error))?;
                if self.head.is_some() {
                    return Ok(());
                }
            }
            self.head = None;
            let Some(chunk) = self.chunks.pop() else {
                self.open = None;
                return Ok(());
            };
            let reference = chunk.meta.reference;
            let damaged = |error| self.block.chunk_error(reference, error);
            let found = self.block.chunk(reference)?;
            let (encoding, data) = (found.encoding, found.data);
            check_chunk(encoding, data, found.stored_crc, reference.offset()).map_err(damaged)?;
            self.open = Some((chunk, Samples::new(encoding, data).map_err(damaged)?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TimestampMs;
    use crate::store::ChunkEncoding;
    use crate::tsdb::XorEncoder;

    fn chunk(times: std::ops::RangeInclusive<i64>) -> Chunk {
        let mut encoder = XorEncoder::new();
        for t_ms in times.clone() {
            assert!(encoder.append(t_ms, t_ms as f64));
        }
        let data = encoder.finish().into();
        Chunk::new(*times.start(), *times.end(), ChunkEncoding::Xor, data)
    }

    fn trimmed(chunks: &[Chunk], (mint, maxt): (i64, i64)) -> Vec<Chunk> {
        let mut series = Series {
            chunks: chunks.iter().cloned().map(Part::Chunk).collect(),
            ..Series::default()
        };
        let asked = QueryRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        };
        trim(&mut series, asked).unwrap();
        series.single_chunks().collect()
    }

    #[test]
    fn of_what_prometheus_sends_only_the_range_that_was_asked_for_is_left() {
        let sent = [chunk(1..=10), chunk(11..=20), chunk(21..=30)];
        assert_eq!(trimmed(&sent, (1, 30)), sent);
        let both_ends = [chunk(5..=10), chunk(11..=20), chunk(21..=25)];
        assert_eq!(trimmed(&sent, (5, 25)), both_ends);
        assert_eq!(trimmed(&sent, (13, 13)), [chunk(13..=13)]);
        assert_eq!(trimmed(&sent, (31, 40)), []);
    }

    #[test]
    fn what_cannot_be_read_is_no_reason_to_send_less() {
        let broken = Chunk::new(1, 10, ChunkEncoding::Xor, vec![0, 10, 1].into());
        let mut series = Series {
            chunks: vec![broken.into()],
            ..Series::default()
        };
        let asked = QueryRange {
            mint: TimestampMs(5),
            maxt: TimestampMs(20),
        };
        assert!(matches!(
            trim(&mut series, asked),
            Err(StoreError::Chunk(_))
        ));
    }
}
