//! Sorting chunk references that an index does not hold in ascending order.
//!
//! Prometheus never writes such an index; other tools may. Memory is bounded: sorted pieces go to
//! a temporary file and are merged into a second one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::error::VerifyError;
use super::refs::{REF_BYTES, RefReader, decode_sorted};
use crate::disk::{Dir, DiskEngine, DiskFile, ReadMode, TempFile};
use crate::tsdb::{ChunkRef, IndexSummary};

/// References sorted in memory at a time: 4 MiB of them.
#[cfg(not(test))]
const PIECE_REFS: usize = 512 << 10;
/// Small, so that tests sort in many pieces.
#[cfg(test)]
const PIECE_REFS: usize = 7;

/// Pieces merged at a time; each has [`MERGE_BYTES`] in memory. Together they allow for 134 million
/// chunks out of order, as many as 200 GiB of chunk segments hold.
const PIECES_MAX: usize = 256;

/// How much of each piece is in memory while merging, and written at a time.
const MERGE_BYTES: u64 = 64 << 10;

/// A piece being merged.
struct Piece {
    offset: u64,
    end: u64,
    loaded: std::vec::IntoIter<ChunkRef>,
}

/// All references of the index, ascending, in a temporary file below `scratch`.
pub(super) async fn sort(
    engine: &DiskEngine,
    scratch: &Dir,
    index: &DiskFile,
    summary: &IndexSummary,
    mode: ReadMode,
) -> Result<DiskFile, VerifyError> {
    let start = summary.series_section.start;
    let mut reader = RefReader::in_index(index, summary, 0, Some(start), mode);
    let mut pieces = Vec::new();
    let mut file = scratch.temp_file("").await?;
    let mut piece: Vec<ChunkRef> = Vec::with_capacity(PIECE_REFS);
    let mut offset = 0;
    loop {
        let more = reader.more_of_any().await?;
        let is_last = more.is_none();
        for reference in more.into_iter().flatten() {
            piece.push(*reference);
            if piece.len() == PIECE_REFS {
                offset = write_piece(&mut file, &mut piece, offset, &mut pieces, index).await?;
            }
        }
        if is_last {
            write_piece(&mut file, &mut piece, offset, &mut pieces, index).await?;
            break;
        }
    }
    let file = file.into_file().await?;
    merge(engine, &file, pieces, scratch.temp_file("").await?).await
}

async fn write_piece(
    file: &mut TempFile,
    piece: &mut Vec<ChunkRef>,
    offset: u64,
    pieces: &mut Vec<Piece>,
    index: &DiskFile,
) -> Result<u64, VerifyError> {
    if piece.is_empty() {
        return Ok(offset);
    }
    if pieces.len() == PIECES_MAX {
        return Err(VerifyError::TooManyOutOfOrder {
            path: index.path().to_owned(),
            refs_max: PIECES_MAX * PIECE_REFS,
        });
    }
    piece.sort_unstable();
    let end = offset + piece.len() as u64 * REF_BYTES;
    file.append(encode(piece.drain(..))).await?;
    pieces.push(Piece {
        offset,
        end,
        loaded: Vec::new().into_iter(),
    });
    Ok(end)
}

async fn merge(
    engine: &DiskEngine,
    file: &DiskFile,
    mut pieces: Vec<Piece>,
    mut merged: TempFile,
) -> Result<DiskFile, VerifyError> {
    let mut heads = BinaryHeap::new();
    for (number, piece) in pieces.iter_mut().enumerate() {
        heads.extend(
            piece
                .next(engine, file)
                .await?
                .map(|reference| Reverse((reference, number))),
        );
    }
    let mut out = BytesMut::new();
    while let Some(Reverse((reference, number))) = heads.pop() {
        out.put_u64(reference.0);
        if out.len() as u64 >= MERGE_BYTES {
            merged.append(out.split().freeze()).await?;
        }
        if let Some(piece) = pieces.get_mut(number) {
            heads.extend(
                piece
                    .next(engine, file)
                    .await?
                    .map(|next| Reverse((next, number))),
            );
        }
    }
    merged.append(out.freeze()).await?;
    Ok(merged.into_file().await?)
}

impl Piece {
    async fn next(
        &mut self,
        engine: &DiskEngine,
        file: &DiskFile,
    ) -> Result<Option<ChunkRef>, VerifyError> {
        if self.loaded.len() == 0 && self.offset < self.end {
            let end = self.end.min(self.offset + MERGE_BYTES);
            let bytes = engine
                .read_exact(file, self.offset..end, ReadMode::Buffered)
                .await?;
            self.loaded = decode_sorted(&bytes).collect::<Vec<_>>().into_iter();
            self.offset = end;
        }
        Ok(self.loaded.next())
    }
}

fn encode(references: impl Iterator<Item = ChunkRef>) -> Bytes {
    let mut bytes = BytesMut::new();
    references.for_each(|reference| bytes.put_u64(reference.0));
    bytes.freeze()
}
