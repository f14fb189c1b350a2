//! The walk over a whole index file: which section a byte belongs to, and what must hold between
//! sections.

use std::ops::Range;

use super::frames::{Frames, Layout, LengthField};
use super::label_index::LabelIndices;
use super::offset_table::{LabelTable, OffsetTable, PostingsTable};
use super::postings::PostingsLists;
use super::series::{SeriesEntries, layout as series_layout};
use super::series_checks::{References, SeriesChecks, series_id_unit};
use super::symbols::Symbols;
use super::toc::HEADER_BYTES;
use super::{IndexToc, Tally};
use crate::model::TimeRange;
use crate::tsdb::decode::{Run, count};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

const MAGIC: u32 = 0xbaaa_d700;

/// What a verified index holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSummary {
    /// Format version: 1, 2 or 3.
    pub version: u8,
    /// Symbols.
    pub symbols: u64,
    /// Series.
    pub series: u64,
    /// Chunks that the series reference.
    pub chunks: u64,
    /// Where the series section lies, for [`SeriesChunks`](super::SeriesChunks).
    pub series_section: Range<u64>,
    /// Whether chunk references ascend strictly through the whole index, as Prometheus writes them.
    pub refs_ascending: bool,
    /// The segments referenced, ascending; empty unless `refs_ascending`.
    pub segments: Vec<SegmentRefs>,
}

/// Where in the index the references to one segment file begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRefs {
    /// Position of the segment file in name order, from 0.
    pub segment: u32,
    /// Absolute offset of the series entry that holds the first reference to the segment. Earlier
    /// references of that entry may belong to the segment before.
    pub first_series_offset: u64,
    /// References to the segment.
    pub chunks: u64,
}

/// Verifies one index file as its bytes stream past, in order, in runs of any size.
#[derive(Debug)]
pub struct IndexVerifier {
    toc: IndexToc,
    file_size: u64,
    range: TimeRange,
    offset: u64,
    stage: Stage,
    /// The header or the table of contents as far as it has come.
    fixed: Vec<u8>,
    facts: Facts,
    failed: Option<DecodeError>,
}

/// The section being read, in file order.
#[derive(Debug)]
enum Stage {
    Header,
    Symbols(Frames, Symbols),
    Series(Frames, SeriesEntries<SeriesChecks>),
    LabelIndices(Frames, LabelIndices),
    Postings(Frames, PostingsLists),
    LabelOffsetTable(Frames, OffsetTable<LabelTable>),
    PostingsOffsetTable(Frames, OffsetTable<PostingsTable>),
    Toc,
    End,
}

/// What sections read so far demand of later ones.
#[derive(Debug, Default)]
struct Facts {
    version: u8,
    symbols: u64,
    /// References that a label may have.
    symbol_references: Range<u64>,
    series: Tally,
    /// The elements that all postings lists together must have.
    postings: Tally,
    references: References,
    label_indices: Tally,
    lists: Option<PostingsLists>,
}

impl IndexVerifier {
    /// A verifier for an index of `file_size` bytes with this table of contents, in a block that
    /// covers `range`.
    pub fn new(toc: IndexToc, file_size: u64, range: TimeRange) -> Self {
        Self {
            toc,
            file_size,
            range,
            offset: 0,
            stage: Stage::Header,
            fixed: Vec::new(),
            facts: Facts::default(),
            failed: None,
        }
    }

    /// Verifies the next bytes of the file.
    ///
    /// # Errors
    /// When the bytes are not those of a whole index; the verifier then stays failed.
    pub fn feed(&mut self, run: &[u8]) -> Result<(), DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.walk(run);
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Ends the walk.
    ///
    /// # Errors
    /// When a feed failed, or the bytes fed end before the file.
    pub fn finish(self) -> Result<IndexSummary, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !matches!(self.stage, Stage::End) {
            let inside = "the index file";
            let kind = DecodeErrorKind::Truncated { inside };
            return Err(DecodeError::new(self.stage.section(), self.offset, kind));
        }
        let chunks = self.facts.references.chunks;
        let segments = self.facts.references.into_segments();
        Ok(IndexSummary {
            version: self.facts.version,
            symbols: self.facts.symbols,
            series: self.facts.series.count,
            chunks,
            series_section: self.toc.series_section(),
            refs_ascending: segments.is_some(),
            segments: segments.unwrap_or_default(),
        })
    }

    fn walk(&mut self, run: &[u8]) -> Result<(), DecodeError> {
        let mut run = Run::new(run, self.offset);
        let room = self.file_size.saturating_sub(self.offset);
        let length = count(run.bytes().len());
        if length > room {
            let what = "the index file";
            let bytes = length.saturating_sub(room);
            let kind = DecodeErrorKind::Trailing { what, bytes };
            return Err(DecodeError::new(Section::Toc, self.file_size, kind));
        }
        self.offset = self.offset.saturating_add(length);
        while !matches!(self.stage, Stage::End) {
            let end = self.stage_end();
            let part = run.split_to(end.saturating_sub(run.offset()));
            self.feed_stage(part)?;
            if run.offset() < end {
                break;
            }
            self.stage = self.next_stage()?;
        }
        Ok(())
    }

    fn feed_stage(&mut self, part: Run<'_>) -> Result<(), DecodeError> {
        match &mut self.stage {
            Stage::Header | Stage::Toc => self.fixed.extend_from_slice(part.bytes()),
            Stage::Symbols(frames, body) => frames.feed(body, part)?,
            Stage::Series(frames, body) => frames.feed(body, part)?,
            Stage::LabelIndices(frames, body) => frames.feed(body, part)?,
            Stage::Postings(frames, body) => frames.feed(body, part)?,
            Stage::LabelOffsetTable(frames, body) => frames.feed(body, part)?,
            Stage::PostingsOffsetTable(frames, body) => frames.feed(body, part)?,
            Stage::End => {}
        }
        Ok(())
    }

    /// Where the section being read ends.
    fn stage_end(&self) -> u64 {
        match self.stage {
            Stage::Header => HEADER_BYTES,
            Stage::Symbols(..) => self.toc.series,
            Stage::Series(..) => self.toc.label_indices,
            Stage::LabelIndices(..) => self.toc.postings,
            Stage::Postings(..) => self.toc.label_offset_table,
            Stage::LabelOffsetTable(..) => self.toc.postings_offset_table,
            Stage::PostingsOffsetTable(..) => self.toc.toc,
            Stage::Toc | Stage::End => self.file_size,
        }
    }

    /// Closes the section that has been read, keeps what it tells, and opens the next one.
    fn next_stage(&mut self) -> Result<Stage, DecodeError> {
        let toc = self.toc;
        Ok(match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Header => {
                self.facts.version = check_header(&self.fixed)?;
                self.fixed.clear();
                Stage::Symbols(Frames::new(ONE, toc.series), Symbols::default())
            }
            Stage::Symbols(frames, symbols) => {
                frames.finish::<Symbols>()?;
                self.facts.take_symbols(&symbols);
                let Facts { version, .. } = self.facts;
                let references = self.facts.symbol_references.clone();
                let checks = SeriesChecks::new(version, references, self.range);
                let frames = Frames::new(series_layout(version), toc.label_indices);
                Stage::Series(frames, SeriesEntries::new(checks))
            }
            Stage::Series(frames, entries) => {
                frames.finish::<SeriesEntries<SeriesChecks>>()?;
                self.facts.take_series(entries.sink);
                let body = LabelIndices::new(self.facts.symbol_references.clone());
                Stage::LabelIndices(Frames::new(LABEL_INDICES, toc.postings), body)
            }
            Stage::LabelIndices(frames, indices) => {
                frames.finish::<LabelIndices>()?;
                self.facts.label_indices = indices.offsets;
                let lists = self.facts.postings_lists(toc.series_section());
                Stage::Postings(Frames::new(POSTINGS, toc.label_offset_table), lists)
            }
            Stage::Postings(frames, lists) => {
                frames.finish::<PostingsLists>()?;
                self.check_postings(&lists)?;
                self.facts.lists = Some(lists);
                let body = OffsetTable::new(self.facts.version);
                Stage::LabelOffsetTable(Frames::new(ONE, toc.postings_offset_table), body)
            }
            Stage::LabelOffsetTable(frames, table) => {
                if toc.label_offset_table < toc.postings_offset_table {
                    frames.finish::<OffsetTable<LabelTable>>()?;
                }
                self.check_label_table(&table)?;
                let body = OffsetTable::new(self.facts.version);
                Stage::PostingsOffsetTable(Frames::new(ONE, toc.toc), body)
            }
            Stage::PostingsOffsetTable(frames, table) => {
                frames.finish::<OffsetTable<PostingsTable>>()?;
                self.check_postings_table(&table)?;
                Stage::Toc
            }
            Stage::Toc | Stage::End => {
                self.check_toc()?;
                Stage::End
            }
        })
    }

    fn check_postings(&self, lists: &PostingsLists) -> Result<(), DecodeError> {
        let what = "postings lists do not hold each series once for each of its labels";
        let agree = lists.elements == self.facts.postings;
        agreement(agree, Section::Postings, self.toc.postings, what)
    }

    fn check_label_table(&self, table: &OffsetTable<LabelTable>) -> Result<(), DecodeError> {
        let what = "entries do not point at the label indices, each once";
        let agree = table.offsets == self.facts.label_indices;
        let start = self.toc.label_offset_table;
        agreement(agree, Section::LabelOffsetTable, start, what)
    }

    fn check_postings_table(&self, table: &OffsetTable<PostingsTable>) -> Result<(), DecodeError> {
        let lists = self.facts.lists.as_ref();
        let start = self.toc.postings_offset_table;
        let what = "entries do not point at the postings lists, each once";
        let agree = lists.is_some_and(|lists| lists.offsets == table.offsets);
        agreement(agree, Section::PostingsOffsetTable, start, what)?;
        let what = "the entry of all series does not point at a list of all series";
        let all = table.first.zip(lists);
        let agree = all.is_some_and(|(offset, lists)| lists.is_full(offset));
        agreement(agree, Section::PostingsOffsetTable, start, what)
    }

    /// The table of contents came first, from another read; it must not have changed.
    fn check_toc(&self) -> Result<(), DecodeError> {
        let toc = IndexToc::parse(&self.fixed, self.file_size)?;
        let what = "differs from the table of contents read at first";
        agreement(toc == self.toc, Section::Toc, self.toc.toc, what)
    }
}

impl Stage {
    fn section(&self) -> Section {
        match self {
            Self::Header => Section::Header,
            Self::Symbols(..) => Section::Symbols,
            Self::Series(..) => Section::Series,
            Self::LabelIndices(..) => Section::LabelIndices,
            Self::Postings(..) => Section::Postings,
            Self::LabelOffsetTable(..) => Section::LabelOffsetTable,
            Self::PostingsOffsetTable(..) => Section::PostingsOffsetTable,
            Self::Toc | Self::End => Section::Toc,
        }
    }
}

impl Facts {
    fn take_symbols(&mut self, symbols: &Symbols) {
        self.symbols = symbols.count();
        self.symbol_references = match self.version {
            1 => symbols.entries(),
            _ => 0..symbols.count(),
        };
    }

    fn take_series(&mut self, checks: SeriesChecks) {
        self.series = checks.ids;
        self.postings = checks.postings;
        self.references = checks.references;
    }

    /// A checker of postings lists over the series in this section.
    fn postings_lists(&self, section: Range<u64>) -> PostingsLists {
        let unit = series_id_unit(self.version);
        let id = |offset: u64| offset.checked_div(unit).unwrap_or(offset);
        let ids = id(section.start)..id(section.end).saturating_add(1);
        PostingsLists::new(ids, self.series)
    }
}

/// A section of one structure.
const ONE: Layout = Layout {
    length: LengthField::U32,
    align: 1,
    bytes_min: 12,
    once: true,
    loose_zeros: false,
};

const POSTINGS: Layout = Layout {
    length: LengthField::U32,
    align: 4,
    bytes_min: 12,
    once: false,
    loose_zeros: false,
};

const LABEL_INDICES: Layout = Layout {
    bytes_min: 16,
    ..POSTINGS
};

fn check_header(header: &[u8]) -> Result<u8, DecodeError> {
    let error = |offset, kind| Err(DecodeError::new(Section::Header, offset, kind));
    let Some((magic, &[version])) = header.split_first_chunk() else {
        let inside = "the header";
        return error(0, DecodeErrorKind::Truncated { inside });
    };
    let found = u32::from_be_bytes(*magic);
    if found != MAGIC {
        let expected = MAGIC;
        return error(0, DecodeErrorKind::Magic { expected, found });
    }
    if !(1..=3).contains(&version) {
        return error(4, DecodeErrorKind::Version { found: version });
    }
    Ok(version)
}

fn agreement(
    agree: bool,
    section: Section,
    offset: u64,
    what: &'static str,
) -> Result<(), DecodeError> {
    let disagreement = DecodeErrorKind::Disagreement { what };
    agree
        .then_some(())
        .ok_or(DecodeError::new(section, offset, disagreement))
}
