//! The selected series of one block, one after the other. All state is offsets, so that a cursor
//! can go from one blocking thread to the next.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, BlockError};
use crate::store::{LabelSet, QueryRange, StoreError};
use crate::tsdb::{ChunkMeta, Postings, SeriesReader};

/// How many series entries the kernel is asked for ahead of reading them.
const IDS_AHEAD: usize = 512;
/// Bytes of a usual series entry, chunks included.
const ENTRY_BYTES: usize = 512;
/// Wanted places that are nearer to each other are read as one: measured, `design.md` §5.4.
const GAP_BYTES_MAX: usize = 16 << 10;
/// The most bytes that are asked for at once.
const ADVICE_BYTES_MAX: usize = 1 << 20;
/// Series entries of version 2 and later stand at multiples of this.
const ENTRY_ALIGNMENT: usize = 16;

/// A position in the series of a block.
#[derive(Debug)]
pub(super) struct Cursor {
    block: Arc<Block>,
    /// The time that the block answers for.
    ranges: Vec<QueryRange>,
    postings: Postings,
    /// Taken from `postings`, and asked of the kernel.
    ids: VecDeque<u32>,
    reader: SeriesReader,
    /// The labels of the series read last: most are those of the next, too.
    labels: LabelSet,
    /// Whether `labels` are all that the block has, also those without a value.
    has_all_labels: bool,
    head: Option<Head>,
    is_over: bool,
}

/// A series of a block.
#[derive(Debug)]
pub(super) struct Head {
    /// All labels that it has in the block.
    pub(super) labels: LabelSet,
    /// The chunks of the block's time, at least one.
    pub(super) chunks: Vec<Picked>,
}

/// A chunk that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    /// Which of the call's blocks holds it.
    pub(super) block: usize,
    pub(super) meta: ChunkMeta,
}

impl Cursor {
    /// Before the first of `postings`.
    pub(super) fn new(block: Arc<Block>, ranges: Vec<QueryRange>, postings: Postings) -> Self {
        Self {
            block,
            ranges,
            postings,
            ids: VecDeque::new(),
            reader: SeriesReader::new(),
            labels: LabelSet::default(),
            has_all_labels: true,
            head: None,
            is_over: false,
        }
    }

    pub(super) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// The series that the cursor is at.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether the cursor is behind the last series.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The series that the cursor was at; [`Self::settle`] goes on.
    pub(super) fn take_head(&mut self) -> Option<Head> {
        self.head.take()
    }

    /// Goes to the next series that has chunks in the block's time, unless the cursor is at one;
    /// `position` is the block's among those of the call. Whether it is there, or at the end:
    /// `budget` is how many entries may be looked at.
    pub(super) fn settle(
        &mut self,
        position: usize,
        budget: &mut usize,
    ) -> Result<bool, StoreError> {
        while self.head.is_none() && !self.is_over {
            let Some(left) = budget.checked_sub(1) else {
                return Ok(false);
            };
            *budget = left;
            match self.next_id() {
                Some(id) => self.head = self.read(id, position)?,
                None => self.is_over = true,
            }
        }
        Ok(true)
    }

    /// The series, if it has chunks in the block's time.
    fn read(&mut self, id: u32, position: usize) -> Result<Option<Head>, StoreError> {
        let block = &self.block;
        let index = block.index();
        let read = self.reader.read(index, id);
        read.map_err(|error| block.index_error(error))?;
        let same = match self.has_all_labels {
            true => self.reader.same_labels(),
            false => 0,
        };
        self.labels.truncate(same);
        self.has_all_labels = true;
        for (name, value) in self.reader.labels(index).skip(same) {
            self.labels.push(name, value)?;
            self.has_all_labels &= !value.is_empty();
        }
        let wanted = |meta: &&ChunkMeta| self.is_wanted(meta);
        let picked = |meta: &ChunkMeta| Picked {
            block: position,
            meta: *meta,
        };
        let chunks: Vec<_> = self
            .reader
            .chunks()
            .iter()
            .filter(wanted)
            .map(picked)
            .collect();
        if chunks.is_empty() {
            return Ok(None);
        }
        let labels = self.labels.clone();
        Ok(Some(Head { labels, chunks }))
    }

    fn is_wanted(&self, meta: &ChunkMeta) -> bool {
        let overlaps = |range: &QueryRange| meta.mint <= range.maxt && meta.maxt >= range.mint;
        self.ranges.iter().any(overlaps)
    }

    fn next_id(&mut self) -> Option<u32> {
        if self.ids.is_empty() {
            let index = self.block.index();
            while self.ids.len() < IDS_AHEAD {
                let Some(id) = self.postings.next(index) else {
                    break;
                };
                self.ids.push_back(id);
            }
            let unit = match index.version() {
                1 => 1,
                _ => ENTRY_ALIGNMENT,
            };
            let starts = self.ids.iter().map(|id| *id as usize * unit);
            joined(starts, ENTRY_BYTES, |range| {
                self.block.will_need_index(range)
            });
        }
        self.ids.pop_front()
    }
}

/// Joins places of at most `len` bytes, in ascending order, that lie near each other.
pub(super) fn joined(
    starts: impl Iterator<Item = usize>,
    len: usize,
    mut each: impl FnMut(Range<usize>),
) {
    let mut open: Option<Range<usize>> = None;
    for start in starts {
        let end = start.saturating_add(len);
        open = match open {
            Some(range) if start < range.end.saturating_add(GAP_BYTES_MAX) => {
                let range = range.start..end.max(range.end);
                if range.len() < ADVICE_BYTES_MAX {
                    Some(range)
                } else {
                    each(range.clone());
                    Some(range.end..range.end)
                }
            }
            Some(range) => {
                each(range);
                Some(start..end)
            }
            None => Some(start..end),
        };
    }
    if let Some(range) = open.filter(|range| !range.is_empty()) {
        each(range);
    }
}

impl From<BlockError> for StoreError {
    fn from(error: BlockError) -> Self {
        Self::Block(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_places_are_asked_for_together() {
        let mut asked = Vec::new();
        joined([0, 100, 20_000, 60_000].into_iter(), 1000, |range| {
            asked.push(range)
        });
        assert_eq!(asked, [0..1100, 20_000..21_000, 60_000..61_000]);
        asked.clear();
        joined((0..300).map(|at| at * 10_000), 1000, |range| {
            asked.push(range)
        });
        assert!(
            asked
                .iter()
                .all(|range| range.len() < ADVICE_BYTES_MAX + GAP_BYTES_MAX)
        );
        assert_eq!(
            asked.iter().map(ExactSizeIterator::len).sum::<usize>(),
            2_991_000
        );
        joined(std::iter::empty(), 1000, |_| panic!("nothing was wanted"));
    }
}
