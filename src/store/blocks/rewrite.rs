//! Chunks of one series written anew: those that overlap become one sequence of samples, and
//! samples of times that somebody else answers for are left out.

use super::block::{Block, BlockError};
use super::cursor::Picked;
use crate::store::{Chunk, QueryRange, StoreError};
use crate::tsdb::{ChunkWriter, EncodedChunk, Sample, Samples, check_chunk};

/// The most samples at a time, which bounds the memory.
const SAMPLES_MAX: usize = 16 << 10;
/// As how many a histogram counts, which may take some KiB.
const HISTOGRAM_WEIGHT: usize = 32;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) chunks: Vec<Chunk>,
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

fn chunks(writer: ChunkWriter) -> Result<Vec<Chunk>, StoreError> {
    let storable = |chunk: EncodedChunk| {
        let data = chunk.data.into();
        Ok(Chunk::carried(
            chunk.min_ms,
            chunk.max_ms,
            chunk.encoding,
            data,
        )?)
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
