//! The second reading position: chunk references in index order, to be met by a segment walk.

use std::ops::Range;

use super::frames::Frames;
use super::series::{ChunkMeta, SeriesEntries, SeriesSink, layout};
use crate::tsdb::decode::{Run, count};
use crate::tsdb::{ChunkRef, DecodeError, DecodeErrorKind};

/// Decodes the series section of a verified index from the entry at some offset on.
#[derive(Debug)]
pub struct SeriesChunks {
    frames: Frames,
    entries: SeriesEntries<Collect>,
    offset: u64,
    end: u64,
    failed: Option<DecodeError>,
}

/// References of entries decoded since the last feed.
#[derive(Debug, Default)]
struct Collect(Vec<ChunkRef>);

impl SeriesChunks {
    /// A reader of the entries from `start_offset` (absolute, that of an entry or of the section)
    /// to the end of `series_section`, in an index of this version.
    pub fn new(version: u8, series_section: Range<u64>, start_offset: u64) -> Self {
        Self {
            frames: Frames::new(layout(version), series_section.end),
            entries: SeriesEntries::new(Collect::default()),
            offset: start_offset,
            end: series_section.end,
            failed: None,
        }
    }

    /// Decodes the next bytes of the file and appends the references found to `out`, at most one
    /// for each three bytes. Bytes past the end of the section are ignored.
    ///
    /// A reference is appended before the checksum of its entry is known when the end of a run cuts
    /// the entry. The error comes with a later run then.
    ///
    /// # Errors
    /// When an entry is damaged; the reader then stays failed.
    pub fn feed(&mut self, run: &[u8], out: &mut Vec<ChunkRef>) -> Result<(), DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        std::mem::swap(&mut self.entries.sink.0, out);
        let result = self.walk(run);
        std::mem::swap(&mut self.entries.sink.0, out);
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Absolute offset of the next byte to feed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the whole section has been read.
    pub fn is_done(&self) -> bool {
        self.offset >= self.end
    }

    fn walk(&mut self, run: &[u8]) -> Result<(), DecodeError> {
        let mut run = Run::new(run, self.offset);
        let part = run.split_to(self.end.saturating_sub(self.offset));
        self.offset = self.offset.saturating_add(count(part.bytes().len()));
        self.frames.feed(&mut self.entries, part)?;
        if self.is_done() {
            self.frames.finish::<SeriesEntries<Collect>>()?;
        }
        Ok(())
    }
}

impl SeriesSink for Collect {
    const IS_PROVEN: bool = true;

    fn begin(&mut self, _start: u64) -> Result<(), DecodeErrorKind> {
        Ok(())
    }

    fn label(&mut self, _name: u64, _value: u64) -> Result<(), DecodeErrorKind> {
        Ok(())
    }

    #[inline(always)]
    fn chunk(&mut self, chunk: ChunkMeta) -> Result<(), DecodeErrorKind> {
        self.0.push(chunk.reference);
        Ok(())
    }

    fn end(&mut self) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
}
