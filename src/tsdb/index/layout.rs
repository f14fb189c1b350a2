//! What is kept of an index that is open.

use std::ops::Range;

use super::sampled_symbols::SampledSymbols;
use super::sampled_table::SampledTable;
use super::toc::{HEADER_BYTES, INDEX_TOC_BYTES, IndexToc};
use super::view::IndexView;
use crate::tsdb::cursor::Cursor;
use crate::tsdb::decode::count;
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

const MAGIC: u32 = 0xbaaa_d700;

/// Where things stand in an index: sampled offsets of symbols and of the table of postings lists.
///
/// Per million series it takes 128 KiB for each label that all of them have with a value of its
/// own (one symbol and one table entry in 32, four bytes each, both), eight bytes for each label
/// name, and nothing for labels with few values; no text. For version 1, whose table is unsorted,
/// it is four bytes for each label pair instead.
#[derive(Debug)]
pub struct IndexLayout {
    pub(super) version: u8,
    /// Where series entries stand.
    pub(super) series: Range<u64>,
    /// Where postings lists stand.
    pub(super) postings: Range<u64>,
    pub(super) symbols: SampledSymbols,
    pub(super) table: SampledTable,
}

impl IndexLayout {
    /// Reads header, table of contents, symbols and the table of the postings lists: their
    /// checksums hold afterwards, both are in strict order, and symbols are UTF-8. Series entries
    /// and postings lists are checked whenever they are read.
    ///
    /// # Errors
    /// Where those are broken, or of an unknown version.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let size = count(bytes.len());
        let version = read_header(bytes)?;
        let tail = size.saturating_sub(INDEX_TOC_BYTES)..size;
        let tail = Cursor::new(Section::Toc, bytes, tail)?;
        let toc = IndexToc::parse(tail.rest(), size)?;
        Ok(Self {
            version,
            series: toc.series_section(),
            postings: toc.postings..toc.label_offset_table,
            symbols: SampledSymbols::read(bytes, &toc, version)?,
            table: SampledTable::read(bytes, &toc, version)?,
        })
    }

    /// What it takes on the heap, bytes.
    pub fn memory_bytes(&self) -> usize {
        let symbols = self.symbols.memory_bytes();
        symbols.saturating_add(self.table.memory_bytes())
    }

    /// The index, to look things up in: `bytes` are those that this was read from.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> IndexView<'a> {
        IndexView {
            layout: self,
            bytes,
        }
    }
}

fn read_header(bytes: &[u8]) -> Result<u8, DecodeError> {
    let error = |offset, kind| Err(DecodeError::new(Section::Header, offset, kind));
    let Some(&[a, b, c, d, version]) = bytes.first_chunk() else {
        let inside = "the index header";
        return error(count(bytes.len()), DecodeErrorKind::Truncated { inside });
    };
    let found = u32::from_be_bytes([a, b, c, d]);
    if found != MAGIC {
        let expected = MAGIC;
        return error(0, DecodeErrorKind::Magic { expected, found });
    }
    if !(1..=3).contains(&version) {
        let offset = HEADER_BYTES.saturating_sub(1);
        return error(offset, DecodeErrorKind::Version { found: version });
    }
    Ok(version)
}
