//! Proving a block whole while its bytes are read.
//!
//! The index is walked alone, first. Then each chunk segment is walked in lock step with the
//! references that the index holds to it. The same code reads through the page cache and, for
//! the second opinion on bytes that looked damaged, past it.

use std::path::PathBuf;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::error::VerifyError;
use super::refs::{RefReader, Refs};
use super::spill;
use super::stage::{BlockFiles, SegmentFile};
use crate::disk::{Dir, DiskEngine, DiskFile, FileRuns, ReadMode};
use crate::objstore::Look;
use crate::tsdb::{
    BlockTotals, ChunkRef, ChunkStart, INDEX_TOC_BYTES, IndexSummary, IndexToc, IndexVerifier,
    RefMatch, SegmentVerifier,
};

/// What the walk through the index gave.
#[derive(Clone, Debug)]
pub(super) struct VerifiedIndex {
    /// The references, in ascending order.
    pub(super) refs: Refs,
    /// What else the walk told.
    pub(super) summary: IndexSummary,
    /// Checksum of the whole file, so that a second read can be held against the first.
    pub(super) crc64: u64,
}

/// A segment being read and verified.
#[derive(Debug)]
pub(super) struct SegmentRuns {
    path: PathBuf,
    runs: FileRuns,
    bytes_left: u64,
    verifier: Option<SegmentVerifier>,
    matcher: Option<RefMatch>,
    refs: RefReader,
    found: Vec<ChunkStart>,
    totals: Option<BlockTotals>,
}

/// Walks the whole index.
pub(super) async fn verify_index(
    engine: &DiskEngine,
    scratch: &Dir,
    files: &BlockFiles,
    mode: ReadMode,
) -> Result<VerifiedIndex, VerifyError> {
    let index = &files.index;
    let size = index.size_bytes();
    let damaged = |source| VerifyError::damaged(index.path(), source);
    let tail = size.saturating_sub(INDEX_TOC_BYTES)..size;
    let tail = engine.read_exact(index, tail, mode).await?;
    let toc = IndexToc::parse(&tail, size).map_err(damaged)?;
    let mut verifier = IndexVerifier::new(toc, size, files.meta.range());
    let mut crc64 = file_digest();
    let mut runs = engine.runs(index, 0..size, mode);
    while let Some(run) = runs.next(size).await? {
        verifier.feed(&run).map_err(damaged)?;
        crc64.update(&run);
    }
    let summary = verifier.finish().map_err(damaged)?;
    let refs = if summary.refs_ascending {
        check_segments(files, summary.segments.last().map(|last| last.segment))?;
        Refs::InIndex {
            index: index.clone(),
            summary: summary.clone(),
        }
    } else {
        let sorted = spill::sort(engine, scratch, index, &summary, mode).await?;
        check_segments(files, last_segment(engine, &sorted).await?)?;
        Refs::Sorted(sorted)
    };
    Ok(VerifiedIndex {
        refs,
        summary,
        crc64: crc64.finalize(),
    })
}

/// Whether the block holds what its `meta.json` says.
pub(super) fn check_totals(
    files: &BlockFiles,
    index: &VerifiedIndex,
    totals: &BlockTotals,
) -> Result<(), VerifyError> {
    let checked = totals.check(&index.summary, &files.meta.stats);
    checked.map_err(|source| VerifyError::Stats {
        block: files.id,
        source,
    })
}

/// A digest for holding one read of a file against another.
pub(super) fn file_digest() -> Digest {
    Digest::new(CrcAlgorithm::Crc64Nvme)
}

fn check_segments(files: &BlockFiles, last: Option<u32>) -> Result<(), VerifyError> {
    let segments = files.segments.len();
    match last {
        Some(segment) if usize::try_from(segment).is_ok_and(|at| at >= segments) => {
            let path = files.index.path().to_owned();
            let segment = u64::from(segment) + 1;
            Err(VerifyError::MissingSegment {
                path,
                segment,
                segments,
            })
        }
        _ => Ok(()),
    }
}

async fn last_segment(engine: &DiskEngine, sorted: &DiskFile) -> Result<Option<u32>, VerifyError> {
    let size = sorted.size_bytes();
    let Some(start) = size.checked_sub(super::refs::REF_BYTES) else {
        return Ok(None);
    };
    let bytes = engine
        .read_exact(sorted, start..size, ReadMode::Buffered)
        .await?;
    let reference = bytes
        .first_chunk()
        .map(|bytes| ChunkRef(u64::from_be_bytes(*bytes)));
    Ok(reference.map(ChunkRef::segment))
}

// === impl SegmentRuns ===

impl SegmentRuns {
    pub(super) async fn open(
        engine: &DiskEngine,
        segment: &SegmentFile,
        position: u32,
        refs: &Refs,
        mode: ReadMode,
    ) -> Result<Self, VerifyError> {
        let size = segment.file.size_bytes();
        let (refs, chunks) = refs.of_segment(position, mode).await?;
        Ok(Self {
            path: segment.file.path().to_owned(),
            runs: engine.runs(&segment.file, 0..size, mode),
            bytes_left: size,
            verifier: Some(SegmentVerifier::new(position, size)),
            matcher: Some(RefMatch::new(position, chunks)),
            refs,
            found: Vec::new(),
            totals: None,
        })
    }

    /// The next run, proven so far as chunks end in it. The last run comes only once the whole
    /// segment is proven, so that a damaged one is never sent whole. `look` is shown its bytes
    /// while they are in the processor's cache. Not to be called again after an error.
    pub(super) async fn next(
        &mut self,
        within: u64,
        look: Look<'_>,
    ) -> Result<Option<Bytes>, VerifyError> {
        self.found.clear();
        let (verifier, found) = (&mut self.verifier, &mut self.found);
        let mut verified = Ok(());
        let mut proving = |piece: &[u8]| {
            if let Some(verifier) = verifier.as_mut().filter(|_| verified.is_ok()) {
                verified = verifier.feed(piece, found);
            }
            look(piece);
        };
        let Some(run) = self.runs.next_seen(within, &mut proving).await? else {
            // An empty file has no last run to prove it with.
            self.finish().await?;
            return Ok(None);
        };
        verified.map_err(|source| VerifyError::damaged(&self.path, source))?;
        self.match_found().await?;
        self.bytes_left -= run.len() as u64;
        if self.bytes_left == 0 {
            self.finish().await?;
        }
        Ok(Some(run))
    }

    /// What the segment holds of the index's chunks; `None` before all of it was read and proven.
    pub(super) fn totals(&self) -> Option<BlockTotals> {
        self.totals
    }

    async fn match_found(&mut self) -> Result<(), VerifyError> {
        let matcher = self.matcher.as_mut().expect("taken only at the end");
        let mut unplaced = self.found.as_slice();
        loop {
            let placed = matcher
                .found(unplaced)
                .map_err(|source| VerifyError::damaged(&self.path, source))?;
            unplaced = unplaced.get(placed..).unwrap_or_default();
            if unplaced.is_empty() {
                return Ok(());
            }
            // The index was proven already; fewer references than it had are another file.
            let Some(more) = self.refs.more().await? else {
                return Err(self.refs.changed());
            };
            matcher
                .expect_all(more)
                .map_err(|source| VerifyError::damaged(self.refs.path(), source))?;
        }
    }

    async fn finish(&mut self) -> Result<(), VerifyError> {
        let (Some(verifier), Some(mut matcher)) = (self.verifier.take(), self.matcher.take())
        else {
            return Ok(());
        };
        let damaged = |source| VerifyError::damaged(&self.path, source);
        verifier.finish().map_err(damaged)?;
        while matcher.wants_expected() {
            let Some(more) = self.refs.more().await? else {
                return Err(self.refs.changed());
            };
            matcher.expect_all(more).map_err(damaged)?;
        }
        let matched = matcher.finish().map_err(damaged)?;
        if matched.unreferenced_chunks > 0 {
            tracing::debug!(
                file = %self.path.display(), chunks = matched.unreferenced_chunks,
                "the segment holds chunks that the index does not refer to"
            );
        }
        self.totals = Some(matched.totals);
        Ok(())
    }
}
