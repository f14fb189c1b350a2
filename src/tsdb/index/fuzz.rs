//! Fuzzing behind the checksums: the input as the body of each structure, framed rightly.

use super::Tally;
use super::frames::{Body, Frames, Layout, LengthField};
use super::label_index::LabelIndices;
use super::offset_table::{LabelTable, OffsetTable, PostingsTable};
use super::postings::PostingsLists;
use super::series::{SeriesEntries, layout as series_layout};
use super::series_checks::SeriesChecks;
use super::symbols::Symbols;
use crate::model::{TimeRange, TimestampMs};
use crate::tsdb::DecodeError;
use crate::tsdb::checksum::crc32c;
use crate::tsdb::decode::{Run, count};
use crate::tsdb::testing::put_uvarint;

/// Each decoder must say the same of `data` in one run and in runs of `split` bytes.
pub(in crate::tsdb) fn fuzz_bodies(data: &[u8], split: usize) {
    let range = TimeRange {
        mint: TimestampMs(-1_000),
        maxt: TimestampMs(1_000_000),
    };
    let series = || SeriesEntries::new(SeriesChecks::new(2, 0..64, range));
    same(Symbols::default, data, split, LengthField::U32);
    same(series, data, split, LengthField::Uvarint);
    same(|| LabelIndices::new(0..64), data, split, LengthField::U32);
    let lists = || PostingsLists::new(0..1 << 20, Tally::default());
    same(lists, data, split, LengthField::U32);
    for version in [1, 2] {
        let label_table = || OffsetTable::<LabelTable>::new(version);
        same(label_table, data, split, LengthField::U32);
        let postings_table = || OffsetTable::<PostingsTable>::new(version);
        same(postings_table, data, split, LengthField::U32);
    }
}

fn same<B: Body>(body: impl Fn() -> B, data: &[u8], split: usize, length: LengthField) {
    let mut section = Vec::new();
    match length {
        LengthField::U32 => {
            let length = u32::try_from(data.len()).expect("fuzz inputs are small");
            section.extend(length.to_be_bytes());
        }
        LengthField::Uvarint => put_uvarint(&mut section, count(data.len())),
    }
    section.extend_from_slice(data);
    section.extend(crc32c(data).to_be_bytes());
    let layout = Layout {
        length,
        once: true,
        bytes_min: 1,
        ..series_layout(2)
    };
    let verdicts = [section.len(), split].map(|size| verdict(body(), &section, size, layout));
    let [whole, pieces] = verdicts;
    assert_eq!(whole, pieces, "split every {split} bytes");
}

fn verdict<B: Body>(
    mut body: B,
    section: &[u8],
    split: usize,
    layout: Layout,
) -> Result<u64, DecodeError> {
    let mut frames = Frames::new(layout, count(section.len()));
    let mut offset = 0_u64;
    for run in section.chunks(split) {
        frames.feed(&mut body, Run::new(run, offset))?;
        offset = offset.saturating_add(count(run.len()));
    }
    frames.finish::<B>()
}
