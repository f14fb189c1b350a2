//! The chunk references of an index in ascending order, segment by segment.
//!
//! Prometheus writes them ascending, so a second reading position in the index is all it takes.
//! An index whose references jump is sorted into a temporary file first ([`super::spill`]).

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::VerifyError;
use crate::disk::{BufferPool, DiskEngine, DiskFile, FileRuns, ReadMode};
use crate::tsdb::{ChunkRef, IndexSummary, SeriesChunks};

/// How much of the index is decoded at a time: at four bytes a chunk or more, what comes of it
/// stays below half a MiB.
const DECODE_BYTES: usize = 64 << 10;

/// Bytes of a reference in a sorted file: big-endian, so that byte order is number order.
pub(super) const REF_BYTES: u64 = 8;
const REF_LENGTH: usize = 8;

/// Where the references of a verified index can be had in ascending order.
#[derive(Clone, Debug)]
pub(super) enum Refs {
    /// In the index itself.
    InIndex {
        /// The index.
        index: DiskFile,
        /// What the walk through it told.
        summary: IndexSummary,
    },
    /// In a file of sorted references.
    Sorted(DiskFile),
}

/// Reads the references of one segment, in ascending order.
#[derive(Debug)]
pub(super) struct RefReader {
    segment: u32,
    path: PathBuf,
    runs: Option<FileRuns>,
    run: Bytes,
    /// Decodes series entries; `None` where the file is one of sorted references.
    series: Option<SeriesChunks>,
    decoded: Vec<ChunkRef>,
}

impl Refs {
    /// A reader of the references to `segment`, and how many there are.
    pub(super) async fn of_segment(
        &self,
        segment: u32,
        mode: ReadMode,
    ) -> Result<(RefReader, u64), VerifyError> {
        match self {
            Self::InIndex { index, summary } => {
                let first = summary.segments.iter().find(|refs| refs.segment == segment);
                let start = first.map(|refs| refs.first_series_offset);
                let reader = RefReader::in_index(index, summary, segment, start, mode);
                Ok((reader, first.map_or(0, |refs| refs.chunks)))
            }
            Self::Sorted(file) => {
                let start = first_at_or_after(file, ChunkRef::new(segment, 0)).await?;
                let end = match segment.checked_add(1) {
                    Some(next) => first_at_or_after(file, ChunkRef::new(next, 0)).await?,
                    None => file.size_bytes(),
                };
                Ok((
                    RefReader::in_sorted(file, segment, start),
                    (end - start) / REF_BYTES,
                ))
            }
        }
    }
}

impl RefReader {
    /// A reader which starts with the series entry at `start`; without one there is nothing.
    pub(super) fn in_index(
        index: &DiskFile,
        summary: &IndexSummary,
        segment: u32,
        start: Option<u64>,
        mode: ReadMode,
    ) -> Self {
        let section = summary.series_section.clone();
        let from = start.unwrap_or(section.end);
        Self {
            segment,
            path: index.path().to_owned(),
            runs: start.map(|start| own_engine().runs(index, start..section.end, mode)),
            run: Bytes::new(),
            series: Some(SeriesChunks::new(summary.version, section, from)),
            decoded: Vec::new(),
        }
    }

    fn in_sorted(file: &DiskFile, segment: u32, start: u64) -> Self {
        let runs = own_engine().runs(file, start..file.size_bytes(), ReadMode::Buffered);
        Self {
            segment,
            path: file.path().to_owned(),
            runs: Some(runs),
            run: Bytes::new(),
            series: None,
            decoded: Vec::new(),
        }
    }

    /// The file that is read, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The error for a file that no longer holds what it held when it was verified.
    pub(super) fn changed(&self) -> VerifyError {
        VerifyError::Changed {
            path: self.path.clone(),
        }
    }

    /// Some more references to the segment; `None` after the last.
    pub(super) async fn more(&mut self) -> Result<Option<&[ChunkRef]>, VerifyError> {
        let segment = self.segment;
        while let Some(all) = self.more_of_any().await? {
            // The first entry may begin with references to the segment before.
            let from = all.partition_point(|reference| reference.segment() < segment);
            let to = all.partition_point(|reference| reference.segment() <= segment);
            if to < all.len() {
                self.runs = None;
                self.run = Bytes::new();
            }
            if from < to {
                return Ok(self.decoded.get(from..to));
            }
        }
        Ok(None)
    }

    /// Some more references to whatever segment; `None` at the end of the file or section.
    pub(super) async fn more_of_any(&mut self) -> Result<Option<&[ChunkRef]>, VerifyError> {
        if self.run.is_empty() {
            let Some(runs) = &mut self.runs else {
                return Ok(None);
            };
            // Given back before the next is taken: the reader's pool has one buffer.
            self.run = Bytes::new();
            match runs.next(u64::MAX).await? {
                Some(run) => self.run = run,
                None => return Ok(None),
            }
        }
        let piece = self.run.split_to(self.run.len().min(DECODE_BYTES));
        self.decoded.clear();
        match &mut self.series {
            Some(series) => series
                .feed(&piece, &mut self.decoded)
                .map_err(|source| VerifyError::damaged(&self.path, source))?,
            None => self.decoded.extend(decode_sorted(&piece)),
        }
        Ok(Some(&self.decoded))
    }
}

/// A reader waits for index bytes while a segment's bytes wait for it: with a buffer of its own it
/// can't wait for itself.
fn own_engine() -> DiskEngine {
    DiskEngine::new(BufferPool::new(1))
}

/// Sorted references as they stand in a file; runs of one are multiples of [`REF_BYTES`].
pub(super) fn decode_sorted(bytes: &[u8]) -> impl Iterator<Item = ChunkRef> {
    let (references, _) = bytes.as_chunks::<REF_LENGTH>();
    references
        .iter()
        .map(|reference| ChunkRef(u64::from_be_bytes(*reference)))
}

/// Offset of the first reference of a sorted file that is not below `least`.
async fn first_at_or_after(file: &DiskFile, least: ChunkRef) -> Result<u64, VerifyError> {
    let engine = own_engine();
    let (mut low, mut high) = (0, file.size_bytes() / REF_BYTES);
    while low < high {
        let middle = low.midpoint(high);
        let range = middle * REF_BYTES..(middle + 1) * REF_BYTES;
        let bytes = engine.read_exact(file, range, ReadMode::Buffered).await?;
        if decode_sorted(&bytes)
            .next()
            .is_some_and(|found| found < least)
        {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low * REF_BYTES)
}
