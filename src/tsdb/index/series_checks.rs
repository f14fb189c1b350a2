//! What must hold between the labels and chunks of one series, and from series to series.

use std::ops::Range;

use super::series::{ChunkMeta, SeriesSink};
use super::{SEGMENTS_MAX, SegmentRefs, Tally};
use crate::model::TimeRange;
use crate::tsdb::decode::count;
use crate::tsdb::{DecodeErrorKind, SEGMENT_HEADER_BYTES};

/// Checks series and remembers what later sections must agree with.
#[derive(Debug)]
pub(super) struct SeriesChecks {
    /// References a label may have.
    symbols: Range<u64>,
    range: TimeRange,
    /// A series id is its entry's offset divided by this.
    id_unit: u64,
    start: u64,
    id: u64,
    labels: LabelOrder,
    previous_maxt: Option<i64>,
    /// The ids of all series.
    pub(super) ids: Tally,
    /// Each id as often as the postings lists must hold it: once for each label and once among all.
    pub(super) postings: Tally,
    pub(super) references: References,
}

/// Whether series ascend by labels. References order as the symbols do, in every version.
#[derive(Debug, Default)]
struct LabelOrder {
    /// The labels of the series before, overwritten by those of this one as they come.
    labels: Vec<(u32, u32)>,
    /// How many labels of this series have come.
    len: usize,
    /// Whether this series is already known to come after the one before.
    is_after: bool,
    is_first_series: bool,
}

/// Whether chunk references ascend through the whole index, and where each segment's begin.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) chunks: u64,
    last: u64,
    out_of_order: bool,
    segments: Vec<SegmentRefs>,
}

impl SeriesChecks {
    pub(super) fn new(version: u8, symbols: Range<u64>, range: TimeRange) -> Self {
        Self {
            symbols,
            range,
            id_unit: series_id_unit(version),
            start: 0,
            id: 0,
            labels: LabelOrder {
                is_first_series: true,
                ..LabelOrder::default()
            },
            previous_maxt: None,
            ids: Tally::default(),
            postings: Tally::default(),
            references: References::default(),
        }
    }

    fn symbol(&self, what: &'static str, reference: u64) -> Result<u32, DecodeErrorKind> {
        let Range { start, end } = self.symbols;
        let found = u32::try_from(reference).ok();
        let within = |_: &u32| self.symbols.contains(&reference);
        found.filter(within).ok_or(DecodeErrorKind::OutOfRange {
            what,
            value: reference,
            low: start,
            high: end,
        })
    }

    #[inline(always)]
    fn check_time(
        &mut self,
        ChunkMeta { mint, maxt, .. }: ChunkMeta,
    ) -> Result<(), DecodeErrorKind> {
        if mint < self.range.mint || maxt >= self.range.maxt {
            return Err(DecodeErrorKind::ChunkOutsideBlock {
                mint: mint.0,
                maxt: maxt.0,
                range_mint: self.range.mint.0,
                range_maxt: self.range.maxt.0,
            });
        }
        match self.previous_maxt.replace(maxt.0) {
            Some(previous_maxt) if mint.0 <= previous_maxt => Err(DecodeErrorKind::ChunkOverlap {
                mint: mint.0,
                previous_maxt,
            }),
            _ => Ok(()),
        }
    }
}

/// What an entry's offset is divided by to give the id of its series.
pub(super) const fn series_id_unit(version: u8) -> u64 {
    if version == 1 { 1 } else { 16 }
}

impl SeriesSink for SeriesChecks {
    fn begin(&mut self, start: u64) -> Result<(), DecodeErrorKind> {
        self.start = start;
        self.id = start.checked_div(self.id_unit).unwrap_or(start);
        self.labels.begin();
        self.previous_maxt = None;
        if u32::try_from(self.id).is_ok() {
            return Ok(());
        }
        Err(DecodeErrorKind::Limit {
            what: "series id",
            value: self.id,
            limit: u64::from(u32::MAX),
        })
    }

    #[inline(always)]
    fn label(&mut self, name: u64, value: u64) -> Result<(), DecodeErrorKind> {
        let name = self.symbol("label name reference", name)?;
        let value = self.symbol("label value reference", value)?;
        self.labels.push((name, value))
    }

    #[inline(always)]
    fn chunk(&mut self, chunk: ChunkMeta) -> Result<(), DecodeErrorKind> {
        self.check_time(chunk)?;
        let offset = u64::from(chunk.reference.offset());
        if offset < SEGMENT_HEADER_BYTES {
            return Err(DecodeErrorKind::OutOfRange {
                what: "chunk offset",
                value: offset,
                low: SEGMENT_HEADER_BYTES,
                high: u64::from(u32::MAX),
            });
        }
        self.references.push(chunk, self.start)
    }

    fn end(&mut self) -> Result<(), DecodeErrorKind> {
        self.labels.end()?;
        let lists = count(self.labels.len).saturating_add(1);
        self.ids.add(self.id);
        self.postings.add_times(self.id, lists);
        Ok(())
    }
}

impl LabelOrder {
    fn begin(&mut self) {
        self.len = 0;
        self.is_after = self.is_first_series;
        self.is_first_series = false;
    }

    #[inline(always)]
    fn push(&mut self, label: (u32, u32)) -> Result<(), DecodeErrorKind> {
        let order = |what| Err(DecodeErrorKind::Order { what });
        let before = self.len.checked_sub(1).and_then(|i| self.labels.get(i));
        if before.is_some_and(|&(name, _)| label.0 <= name) {
            return order("label names of a series");
        }
        match self.labels.get_mut(self.len) {
            Some(previous) => {
                if !self.is_after && label < *previous {
                    return order("series");
                }
                self.is_after |= label > *previous;
                *previous = label;
            }
            None => {
                // The series before is a true prefix, or had fewer labels and came earlier.
                self.is_after = true;
                self.labels.push(label);
            }
        }
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    fn end(&mut self) -> Result<(), DecodeErrorKind> {
        self.labels.truncate(self.len);
        if self.is_after {
            return Ok(());
        }
        Err(DecodeErrorKind::Order { what: "series" })
    }
}

impl References {
    /// Where the references of each segment begin; `None` when they do not ascend.
    pub(super) fn into_segments(self) -> Option<Vec<SegmentRefs>> {
        (!self.out_of_order).then_some(self.segments)
    }

    #[inline(always)]
    fn push(&mut self, chunk: ChunkMeta, series_start: u64) -> Result<(), DecodeErrorKind> {
        self.chunks = self.chunks.saturating_add(1);
        let reference = chunk.reference;
        // No reference is 0: a chunk's offset is at least that of the segment header's end.
        if reference.0 <= self.last {
            self.out_of_order = true;
            self.segments = Vec::new();
        }
        self.last = reference.0;
        if self.out_of_order {
            return Ok(());
        }
        match self.segments.last_mut() {
            Some(last) if last.segment == reference.segment() => {
                last.chunks = last.chunks.saturating_add(1);
            }
            _ => {
                let value = count(self.segments.len()).saturating_add(1);
                let limit = SEGMENTS_MAX;
                if value > limit {
                    let what = "number of segments";
                    return Err(DecodeErrorKind::Limit { what, value, limit });
                }
                self.segments.push(SegmentRefs {
                    segment: reference.segment(),
                    first_series_offset: series_start,
                    chunks: 1,
                });
            }
        }
        Ok(())
    }
}
