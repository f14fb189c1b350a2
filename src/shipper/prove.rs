//! The shipper's proof of a block, for those who ask for it without shipping.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::VerifyError;
use super::stage::{BlockFiles, BlockFilesError};
use super::verify::{SegmentRuns, check_totals, verify_index};
use crate::disk::{Dir, DiskEngine, ReadMode};
use crate::model::BlockId;
use crate::tsdb::{BlockTotals, IndexSummary};

/// A block of which every byte of index and chunks has been read and proven.
#[derive(Clone, Debug)]
pub struct ProvenBlock {
    /// What the index holds.
    pub index: IndexSummary,
    /// What the segments hold of the index's chunks.
    pub totals: BlockTotals,
}

/// What is wrong with a block.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BlockFault(Fault);

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Files(#[from] BlockFilesError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Reads and proves the block in `dir`, which its `meta.json` must call `id`: the index by itself,
/// the segments against the index, the sums against `meta.json`. Adds the bytes that are proven to
/// `done_bytes`. `scratch` takes files without a name, where chunk references are out of order.
///
/// # Errors
/// The first fault, with file and offset.
pub async fn prove_block(
    engine: &DiskEngine,
    scratch: &Dir,
    dir: &Dir,
    id: BlockId,
    done_bytes: &AtomicU64,
) -> Result<ProvenBlock, BlockFault> {
    let proven = prove(engine, scratch, dir, id, done_bytes).await;
    proven.map_err(BlockFault)
}

async fn prove(
    engine: &DiskEngine,
    scratch: &Dir,
    dir: &Dir,
    id: BlockId,
    done_bytes: &AtomicU64,
) -> Result<ProvenBlock, Fault> {
    let mode = ReadMode::Buffered;
    let files = BlockFiles::open(dir, id, Path::new("")).await?;
    let index = verify_index(engine, scratch, &files, mode).await?;
    done_bytes.fetch_add(files.index.size_bytes(), Ordering::Relaxed);
    let mut totals = BlockTotals::default();
    for (position, segment) in (0..).zip(&files.segments) {
        let opening = SegmentRuns::open(engine, segment, position, &index.refs, mode);
        let mut runs = opening.await?;
        while let Some(run) = runs.next(u64::MAX, &mut |_| {}).await? {
            done_bytes.fetch_add(run.len() as u64, Ordering::Relaxed);
        }
        totals.add(runs.totals().unwrap_or_default());
    }
    check_totals(&files, &index, &totals)?;
    Ok(ProvenBlock {
        index: index.summary,
        totals,
    })
}
