//! The series of several blocks as one stream: merged by labels, their chunks by time.
//!
//! A reader works in batches on blocking threads. First it *gathers*: steps through the indexes,
//! joins what belongs to one series, and asks the kernel for the chunks to come. Then it *reads*:
//! each chunk is copied out of the map once, into the batch's buffer, in the form of the wire; its
//! checksum and hash are those of the copy. So what is sent is what was proven, whatever becomes of
//! the file, and nobody touches a map on the network's threads.
//!
//! Chunks are passed on as they are, but for three kinds: encodings that StoreAPI has no name for,
//! chunks that reach into time that Prometheus answers for, and chunks that overlap others of
//! their series (out-of-order blocks). Those are decoded and written anew.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::block::{Block, BlockError, proven};
use super::cursor::{Cursor, Head, Picked, joined};
use super::rewrite::rewrite;
use crate::store::aggr_chunk::{AROUND_BYTES_MAX, ChunkHead, RunWriter};
use crate::store::{Chunk, ChunkEncoding, LabelSet, Overlay, Part, QueryRange, Series, StoreError};
use crate::tsdb::{ChunkBytes, check_chunk};

/// Chunk bytes of one batch: little enough to be written again out of the cache, enough that a
/// batch is worth the way to another thread and back.
const BATCH_BYTES: usize = 1 << 20;
/// Buffers of a reader: one is read into, one is sent from, and of one the last series waits.
const BUFFERS_MAX: usize = 3;
/// Series of one batch.
const BATCH_SERIES: usize = 512;
/// Entries that one step looks at: where few series have chunks in the time that was asked for,
/// nobody waits long for a thread.
const STEP_ENTRIES: usize = 64 << 10;
/// Chunks after which no more series are gathered.
const GATHER_CHUNKS: usize = 4096;
/// How many chunks the kernel is asked for ahead: one to two MiB.
const ADVISED_CHUNKS: usize = 2048;
/// Series that are gathered first, so that the first answer goes out early; then twice as many
/// each time.
const GATHER_FIRST: usize = 32;
/// A chunk of usual samples with what stands around it, bytes.
const CHUNK_BYTES: usize = 1100;

/// What a reader is to read.
#[derive(Debug)]
pub(super) struct Reading {
    /// What to take off the labels.
    pub(super) overlay: Arc<Overlay>,
    /// Whether a series with a label of its own under the overlay's names ends the read.
    pub(super) conflicts_end: bool,
    /// Whether only labels are wanted.
    pub(super) labels_only: bool,
    /// The most series.
    pub(super) limit: Option<u64>,
    /// What Prometheus answers for: samples of these times are left out.
    pub(super) remote: Vec<QueryRange>,
}

/// Reads series out of blocks.
#[derive(Debug)]
pub(super) struct BlockReader {
    cursors: Vec<Cursor>,
    reading: Reading,
    gathered: VecDeque<Gathered>,
    gather: usize,
    /// Entries that the step may still look at.
    budget: usize,
    /// Cursors at the series of the first; used again for each.
    ties: Vec<usize>,
    /// What batches were read into, to be taken again once they were sent.
    buffers: VecDeque<BytesMut>,
}

/// What came of a step.
#[derive(Debug)]
pub(super) struct Step {
    /// In order; may be none though more come.
    pub(super) series: Vec<Series>,
    pub(super) is_over: bool,
}

/// A series whose chunks were not all read yet.
#[derive(Debug)]
struct Gathered {
    labels: LabelSet,
    /// In the order of their beginnings.
    chunks: Vec<Picked>,
    /// The first that was not read.
    next: usize,
    /// The first that the kernel was not asked for.
    advised: usize,
    /// Samples up to here have been written, of chunks that are written anew.
    done_ms: Option<i64>,
}

/// What one step reads.
#[derive(Debug, Default)]
struct Batch {
    series: Vec<Series>,
    /// Where chunks are copied to: holds those of `run`, each run is split off.
    buffer: Option<BytesMut>,
    /// What batches before were read into.
    spare: VecDeque<BytesMut>,
    /// About how many bytes of chunks there are.
    expected: usize,
    /// The chunks that came last of the series that is read.
    run: Option<RunWriter>,
    /// Bytes of chunks that were written anew.
    rewritten: usize,
}

impl BlockReader {
    pub(super) fn new(cursors: Vec<Cursor>, reading: Reading) -> Self {
        Self {
            cursors,
            reading,
            gathered: VecDeque::new(),
            gather: GATHER_FIRST,
            budget: 0,
            ties: Vec::new(),
            buffers: VecDeque::new(),
        }
    }

    /// The next series, or pieces of them. Blocks.
    ///
    /// # Errors
    /// Where a block is damaged, which it is noted for, or labels are in the way.
    pub(super) fn step(&mut self) -> Result<Step, StoreError> {
        let read = self.read();
        let blocks = self.cursors.iter().map(|cursor| Arc::clone(cursor.block()));
        let blocks: Vec<_> = blocks.collect();
        proven(&blocks, read)
    }

    fn read(&mut self) -> Result<Step, StoreError> {
        self.budget = STEP_ENTRIES;
        let mut batch = Batch {
            spare: std::mem::take(&mut self.buffers),
            ..Batch::default()
        };
        if self.gathered.is_empty() {
            self.gather()?;
        }
        while batch.series.is_empty() && !self.gathered.is_empty() {
            self.read_gathered(&mut batch)?;
            if self.gathered.is_empty() {
                // The kernel reads while the batch is sent.
                self.gather()?;
            }
        }
        self.advise();
        self.buffers = batch.spare;
        self.buffers.extend(batch.buffer);
        if self.buffers.len() > BUFFERS_MAX {
            self.buffers.pop_front();
        }
        let is_over = self.gathered.is_empty()
            && (self.reading.limit == Some(0) || self.cursors.iter().all(Cursor::is_over));
        Ok(Step {
            series: batch.series,
            is_over,
        })
    }

    /// Reads what was gathered, until the batch is full.
    fn read_gathered(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        let left = |series: &Gathered| series.chunks.len() - series.next;
        batch.expected = self.gathered.iter().map(left).sum::<usize>() * CHUNK_BYTES;
        while let Some(mut series) = self.gathered.pop_front() {
            if self.reading.labels_only {
                let labels = series.labels;
                batch.series.push(Series {
                    labels,
                    chunks: Vec::new(),
                });
                continue;
            }
            let chunks = self.chunks(&mut series, batch)?;
            let is_whole = series.next == series.chunks.len();
            if !chunks.is_empty() {
                let labels = match is_whole {
                    true => std::mem::take(&mut series.labels),
                    false => series.labels.clone(),
                };
                batch.series.push(Series { labels, chunks });
            }
            if !is_whole {
                self.gathered.push_front(series);
                break;
            }
        }
        Ok(())
    }

    /// Chunks of a series as far as they fit into the batch; an empty one takes at least one.
    fn chunks(&self, series: &mut Gathered, batch: &mut Batch) -> Result<Vec<Part>, StoreError> {
        let mut chunks = Vec::new();
        while let Some((first, rest)) = series
            .chunks
            .get(series.next..)
            .and_then(<[_]>::split_first)
            && batch.rewritten < BATCH_BYTES
        {
            let others = overlapping(first, rest);
            let is_rewritten = self.is_cut(first) || !self.are_copies(first, others)?;
            let next = series.next + 1 + others.len();
            if is_rewritten {
                let group = series.chunks.get(series.next..next).unwrap_or_default();
                let block = |at: usize| &**self.cursors[at].block();
                let written = rewrite(group, block, &self.reading.remote, series.done_ms)?;
                let bytes = written.chunks.iter().map(Part::data_bytes);
                batch.rewritten += bytes.sum::<usize>();
                batch.end_run(&mut chunks);
                chunks.extend(written.chunks);
                series.done_ms = written.until;
                if written.until.is_some() {
                    break;
                }
            } else {
                let block = self.cursors[first.block].block();
                let found = block.chunk(first.meta.reference)?;
                if !batch.make_room(found.data.len() + AROUND_BYTES_MAX) {
                    break;
                }
                if let Some(run) = &batch.run
                    && self.is_around_remote(run.max_ms(), first)
                {
                    batch.end_run(&mut chunks);
                }
                batch.copy(block, first, &found, &mut chunks)?;
            }
            series.next = next;
        }
        batch.end_run(&mut chunks);
        Ok(chunks)
    }

    /// Whether a chunk has samples of a time that Prometheus answers for.
    fn is_cut(&self, chunk: &Picked) -> bool {
        let overlaps =
            |range: &QueryRange| chunk.meta.mint <= range.maxt && chunk.meta.maxt >= range.mint;
        self.reading.remote.iter().any(overlaps)
    }

    /// Whether Prometheus answers for a time between what ends at `until` and a chunk. A run does
    /// not reach over that: its place among what comes of Prometheus is where it begins.
    fn is_around_remote(&self, until_ms: i64, chunk: &Picked) -> bool {
        let between = |range: &QueryRange| until_ms < range.mint.0 && range.maxt < chunk.meta.mint;
        self.reading.remote.iter().any(between)
    }

    /// Whether the others are the same chunk, byte by byte.
    fn are_copies(&self, first: &Picked, others: &[Picked]) -> Result<bool, BlockError> {
        let times = |chunk: &Picked| (chunk.meta.mint, chunk.meta.maxt);
        if others.is_empty() {
            return Ok(true);
        }
        if others.iter().any(|other| times(other) != times(first)) {
            return Ok(false);
        }
        let found = self.cursors[first.block]
            .block()
            .chunk(first.meta.reference)?;
        for other in others {
            let copy = self.cursors[other.block]
                .block()
                .chunk(other.meta.reference)?;
            if (copy.encoding, copy.data) != (found.encoding, found.data) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Steps to the next series.
    fn gather(&mut self) -> Result<(), StoreError> {
        let wanted = self.gather;
        self.gather = (wanted * 2).min(BATCH_SERIES);
        let mut chunks = 0;
        while self.gathered.len() < wanted
            && chunks < GATHER_CHUNKS
            && self.reading.limit != Some(0)
        {
            let Some(head) = self.next_head()? else {
                break;
            };
            let inner = self.reading.overlay.strip(head.labels)?;
            if let Some(name) = inner.conflict.filter(|_| self.reading.conflicts_end) {
                return Err(StoreError::Conflict { name });
            }
            if let Some(limit) = &mut self.reading.limit {
                *limit -= 1;
            }
            chunks += head.chunks.len();
            self.gathered.push_back(Gathered {
                labels: inner.labels,
                chunks: head.chunks,
                next: 0,
                advised: 0,
                done_ms: None,
            });
        }
        Ok(())
    }

    /// The series that sorts first, joined from all blocks that have it; `None` at the end, or
    /// where this step has looked at enough.
    fn next_head(&mut self) -> Result<Option<Head>, StoreError> {
        for (position, cursor) in self.cursors.iter_mut().enumerate() {
            if !cursor.settle(position, &mut self.budget)? {
                return Ok(None);
            }
        }
        let mut first: Option<(usize, &LabelSet)> = None;
        self.ties.clear();
        for (at, cursor) in self.cursors.iter().enumerate() {
            let Some(head) = cursor.head() else {
                continue;
            };
            match first.map(|(_, labels)| head.labels.cmp(labels)) {
                Some(Ordering::Greater) => {}
                Some(Ordering::Equal) => self.ties.push(at),
                Some(Ordering::Less) | None => {
                    first = Some((at, &head.labels));
                    self.ties.clear();
                }
            }
        }
        let Some((first, _)) = first else {
            return Ok(None);
        };
        let mut head = self.cursors[first].take_head();
        if let Some(head) = head.as_mut().filter(|_| !self.ties.is_empty()) {
            for &at in &self.ties {
                let other = self.cursors[at].take_head();
                head.chunks
                    .extend(other.into_iter().flat_map(|other| other.chunks));
            }
            let times = |chunk: &Picked| (chunk.meta.mint, chunk.meta.maxt);
            head.chunks.sort_by_key(times);
        }
        Ok(head)
    }

    /// Asks the kernel for the chunks to come, some batches ahead.
    fn advise(&mut self) {
        if self.reading.labels_only {
            return;
        }
        let mut ahead = ADVISED_CHUNKS;
        let mut places = Vec::new();
        for series in &mut self.gathered {
            let end = series.chunks.len().min(series.next.saturating_add(ahead));
            let new = series.chunks.get(series.advised.max(series.next)..end);
            let new = new.unwrap_or_default().iter();
            places.extend(new.map(|chunk| (chunk.block, chunk.meta.reference)));
            series.advised = series.advised.max(end);
            ahead = ahead.saturating_sub(end - series.next);
        }
        places.sort_unstable();
        for run in places.chunk_by(|a, b| (a.0, a.1.segment()) == (b.0, b.1.segment())) {
            let Some((block, reference)) = run.first() else {
                continue;
            };
            let starts = run.iter().map(|(_, reference)| reference.offset() as usize);
            let block = self.cursors[*block].block();
            let ask = |range| block.will_need(reference.segment(), range);
            joined(starts, CHUNK_BYTES, ask);
        }
    }
}

impl Batch {
    /// Makes room for `len` more bytes, unless the batch is full; the first chunk of a batch is
    /// always taken.
    fn make_room(&mut self, len: usize) -> bool {
        if let Some(buffer) = &self.buffer {
            return buffer.capacity() - buffer.len() >= len;
        }
        let wanted = self.expected.min(BATCH_BYTES).max(len);
        let sent = self
            .spare
            .iter_mut()
            .position(|spare| spare.try_reclaim(wanted));
        let again = sent.and_then(|at| self.spare.remove(at));
        self.buffer = Some(again.unwrap_or_else(|| BytesMut::with_capacity(wanted)));
        true
    }

    /// A chunk as it stands in the block, copied and proven.
    fn copy(
        &mut self,
        block: &Block,
        chunk: &Picked,
        found: &ChunkBytes<'_>,
        chunks: &mut Vec<Part>,
    ) -> Result<(), BlockError> {
        let reference = chunk.meta.reference;
        let damaged = |error| block.chunk_error(reference, error);
        let prove =
            |copy: &[u8]| check_chunk(found.encoding, copy, found.stored_crc, reference.offset());
        let (min_ms, max_ms) = (chunk.meta.mint.0, chunk.meta.maxt.0);
        if let (Some(encoding), Some(buffer)) =
            (ChunkEncoding::of(found.encoding), &mut self.buffer)
        {
            let head = ChunkHead {
                min_ms,
                max_ms,
                encoding,
            };
            return RunWriter::append(&mut self.run, buffer, head, found.data, prove)
                .map_err(damaged);
        }
        self.end_run(chunks);
        let data = Bytes::copy_from_slice(found.data);
        prove(&data).map_err(damaged)?;
        let chunk = Chunk::carried(min_ms, max_ms, found.encoding, data).map_err(damaged)?;
        self.rewritten += chunk.data().len();
        chunks.push(chunk.into());
        Ok(())
    }

    /// Appends the run that is being written.
    fn end_run(&mut self, chunks: &mut Vec<Part>) {
        if let (Some(run), Some(buffer)) = (self.run.take(), &mut self.buffer) {
            chunks.push(Part::Run(run.finish(buffer)));
        }
    }
}

/// The chunks behind the first that begin before all before them have ended.
fn overlapping<'a>(first: &Picked, rest: &'a [Picked]) -> &'a [Picked] {
    let mut end = first.meta.maxt;
    let overlaps = |chunk: &&Picked| {
        let overlaps = chunk.meta.mint <= end;
        end = end.max(chunk.meta.maxt);
        overlaps
    };
    let count = rest.iter().take_while(overlaps).count();
    rest.get(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests;
