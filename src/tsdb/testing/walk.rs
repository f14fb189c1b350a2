//! A whole block, verified in memory: the order of steps that the shipper follows, without IO.

use crate::tsdb::{
    BlockMeta, BlockTotals, ChunkRef, DecodeError, IndexSummary, IndexToc, IndexVerifier, RefMatch,
    SegmentVerifier, SeriesChunks, TotalsError,
};

/// Which file of a block is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// The index.
    Index(DecodeError),
    /// The segment file at this position, or the references to it.
    Segment(u32, DecodeError),
    /// The index refers to segment files that are not there.
    MissingSegment(u32),
    /// The files agree, but not with `meta.json`.
    Totals(TotalsError),
}

/// Verifies a block whose files come in runs of `run_bytes`.
///
/// # Errors
/// The first fault found.
pub fn verify_block(
    meta: &BlockMeta,
    index: &[u8],
    segments: &[&[u8]],
    run_bytes: usize,
) -> Result<BlockTotals, BlockFault> {
    let summary = verify_index(meta, index, run_bytes).map_err(BlockFault::Index)?;
    let last = summary.segments.last().map_or(0, |last| last.segment);
    if !summary.segments.is_empty() && last as usize >= segments.len() {
        return Err(BlockFault::MissingSegment(last));
    }
    let mut totals = BlockTotals::default();
    for (segment, bytes) in (0..).zip(segments) {
        let matched = if summary.refs_ascending {
            match_in_lock_step(&summary, index, segment, bytes, run_bytes)
        } else {
            match_sorted(&summary, index, segment, bytes, run_bytes)
        };
        totals.add(matched.map_err(|error| BlockFault::Segment(segment, error))?);
    }
    totals
        .check(&summary, &meta.stats)
        .map_err(BlockFault::Totals)?;
    Ok(totals)
}

/// Verifies the index of a block.
///
/// # Errors
/// What the verifier says.
pub fn verify_index(
    meta: &BlockMeta,
    index: &[u8],
    run_bytes: usize,
) -> Result<IndexSummary, DecodeError> {
    let tail = &index[index.len().saturating_sub(52)..];
    let toc = IndexToc::parse(tail, index.len() as u64)?;
    let mut verifier = IndexVerifier::new(toc, index.len() as u64, meta.range());
    for run in index.chunks(run_bytes) {
        verifier.feed(run)?;
    }
    verifier.finish()
}

fn match_in_lock_step(
    summary: &IndexSummary,
    index: &[u8],
    segment: u32,
    bytes: &[u8],
    run_bytes: usize,
) -> Result<BlockTotals, DecodeError> {
    let section = summary.series_section.clone();
    let refs = summary.segments.iter().find(|refs| refs.segment == segment);
    let start = refs.map_or(section.end, |refs| refs.first_series_offset);
    let mut matching = RefMatch::new(segment, refs.map_or(0, |refs| refs.chunks));
    let mut chunks = SeriesChunks::new(summary.version, section, start);
    let mut references = Vec::new();
    let mut expect_more = |matching: &mut RefMatch| {
        let rest = &index[chunks.offset() as usize..];
        references.clear();
        chunks.feed(&rest[..run_bytes.min(rest.len())], &mut references)?;
        matching.expect_all(&references)?;
        Ok::<_, DecodeError>(!chunks.is_done())
    };

    let mut verifier = SegmentVerifier::new(segment, bytes.len() as u64);
    let mut found = Vec::new();
    for run in bytes.chunks(run_bytes) {
        verifier.feed(run, &mut found)?;
        loop {
            let placed = matching.found(&found)?;
            found.drain(..placed);
            if found.is_empty() || !expect_more(&mut matching)? && matching.wants_expected() {
                break;
            }
        }
    }
    verifier.finish()?;
    while matching.wants_expected() && expect_more(&mut matching)? {}
    Ok(matching.finish()?.totals)
}

/// References out of order are few enough in tests to be sorted in memory.
fn match_sorted(
    summary: &IndexSummary,
    index: &[u8],
    segment: u32,
    bytes: &[u8],
    run_bytes: usize,
) -> Result<BlockTotals, DecodeError> {
    let section = summary.series_section.clone();
    let start = section.start as usize;
    let mut chunks = SeriesChunks::new(summary.version, section, start as u64);
    let mut sorted: Vec<ChunkRef> = Vec::new();
    for run in index[start..].chunks(run_bytes) {
        chunks.feed(run, &mut sorted)?;
    }
    sorted.retain(|reference| reference.segment() == segment);
    sorted.sort_unstable();
    let mut matching = RefMatch::new(segment, sorted.len() as u64);
    matching.expect_all(&sorted)?;
    let mut verifier = SegmentVerifier::new(segment, bytes.len() as u64);
    let mut found = Vec::new();
    for run in bytes.chunks(run_bytes) {
        verifier.feed(run, &mut found)?;
    }
    verifier.finish()?;
    matching.found(&found)?;
    Ok(matching.finish()?.totals)
}
