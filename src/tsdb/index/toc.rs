//! The table of contents: the last 52 bytes, which say where every section begins.

use std::ops::Range;

use crate::tsdb::checksum::crc32c;
use crate::tsdb::decode::count;
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// Length of the table of contents, bytes.
pub const INDEX_TOC_BYTES: u64 = 52;

/// Magic number and version.
pub(super) const HEADER_BYTES: u64 = 5;

const OFFSETS: usize = 6;
const OFFSETS_BYTES: usize = 48;

/// Where the sections of an index begin: absolute offsets, ascending in file order.
///
/// The two label sections belong to older writers. Where they are absent they are empty, that is,
/// they begin where the next section does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexToc {
    pub(super) symbols: u64,
    pub(super) series: u64,
    pub(super) label_indices: u64,
    pub(super) postings: u64,
    pub(super) label_offset_table: u64,
    pub(super) postings_offset_table: u64,
    /// Where the table of contents itself begins.
    pub(super) toc: u64,
}

impl IndexToc {
    /// Parses the last [`INDEX_TOC_BYTES`] of an index file that is `file_size` bytes long.
    ///
    /// # Errors
    /// When the file is too short, the checksum is wrong, or the sections are not in order.
    pub fn parse(tail: &[u8], file_size: u64) -> Result<Self, DecodeError> {
        let start = file_size.saturating_sub(INDEX_TOC_BYTES);
        let error = |kind| DecodeError::new(Section::Toc, start, kind);
        let inside = "the table of contents";
        if file_size < HEADER_BYTES.saturating_add(INDEX_TOC_BYTES) {
            return Err(error(DecodeErrorKind::Truncated { inside }));
        }
        let (offsets, stored) = tail
            .split_first_chunk::<OFFSETS_BYTES>()
            .and_then(|(offsets, crc)| Some((offsets, <[u8; 4]>::try_from(crc).ok()?)))
            .ok_or_else(|| {
                let length = count(tail.len());
                let what = inside;
                error(DecodeErrorKind::Shape { what, length })
            })?;
        let stored = u32::from_be_bytes(stored);
        let computed = crc32c(offsets);
        if stored != computed {
            return Err(error(DecodeErrorKind::Checksum { stored, computed }));
        }
        Self::of_offsets(offsets, start).map_err(error)
    }

    /// The series section, as absolute offsets.
    pub fn series_section(&self) -> Range<u64> {
        self.series..self.label_indices
    }

    /// All sections in file order, as absolute offsets.
    pub fn sections(&self) -> [(Section, Range<u64>); OFFSETS] {
        [
            (Section::Symbols, self.symbols..self.series),
            (Section::Series, self.series_section()),
            (Section::LabelIndices, self.label_indices..self.postings),
            (Section::Postings, self.postings..self.label_offset_table),
            (
                Section::LabelOffsetTable,
                self.label_offset_table..self.postings_offset_table,
            ),
            (
                Section::PostingsOffsetTable,
                self.postings_offset_table..self.toc,
            ),
        ]
    }

    fn of_offsets(bytes: &[u8; OFFSETS_BYTES], toc: u64) -> Result<Self, DecodeErrorKind> {
        let mut offsets = [0; OFFSETS];
        for (offset, bytes) in offsets.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *offset = u64::from_be_bytes(*bytes);
        }
        let [
            symbols,
            series,
            label_indices,
            label_offset_table,
            postings,
            table,
        ] = offsets;
        let or_next = |start, next| if start == 0 { next } else { start };
        let toc = Self {
            symbols,
            series,
            label_indices: or_next(label_indices, postings),
            postings,
            label_offset_table: or_next(label_offset_table, table),
            postings_offset_table: table,
            toc,
        };
        toc.check_order()?;
        Ok(toc)
    }

    fn check_order(&self) -> Result<(), DecodeErrorKind> {
        if self.symbols != HEADER_BYTES {
            return Err(out_of_range(
                "start of the symbol table",
                self.symbols,
                HEADER_BYTES..HEADER_BYTES.saturating_add(1),
            ));
        }
        let starts = [
            ("start of the symbol table", self.symbols),
            ("start of the series section", self.series),
            ("start of the label indices", self.label_indices),
            ("start of the postings", self.postings),
            ("start of the label offset table", self.label_offset_table),
            (
                "start of the postings offset table",
                self.postings_offset_table,
            ),
        ];
        let mut low = 0;
        for (what, start) in starts {
            if !(low..self.toc).contains(&start) {
                return Err(out_of_range(what, start, low..self.toc));
            }
            low = start;
        }
        Ok(())
    }
}

fn out_of_range(
    what: &'static str,
    value: u64,
    Range { start, end }: Range<u64>,
) -> DecodeErrorKind {
    DecodeErrorKind::OutOfRange {
        what,
        value,
        low: start,
        high: end,
    }
}
