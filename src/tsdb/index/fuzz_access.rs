//! Fuzzing of random access: all that is reachable from an index is looked up, and must agree with
//! itself; sets of ids must be what plain sets are.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support: nothing here reaches the product"
)]

use std::collections::BTreeSet;

use super::frames::{Frames, Layout};
use super::layout::IndexLayout;
use super::lists::{Postings, PostingsUnion};
use super::reader::SeriesReader;
use super::series::{ChunkMeta, SeriesEntries, SeriesSink, layout as series_layout};
use super::toc::IndexToc;
use super::view::{IndexView, PostingsRef};
use crate::tsdb::checksum::crc32c;
use crate::tsdb::decode::{Run, count};
use crate::tsdb::testing::{index_of_bodies, put_uvarint};
use crate::tsdb::{DecodeError, DecodeErrorKind};

/// Steps of one walk: inputs are small, but lists may be listed very often.
const WALK_STEPS: usize = 20_000;

/// The input as an index file: as it is, and with all its checksums made right.
pub fn fuzz_view(data: &[u8]) {
    for file in [data.to_vec(), repaired(data)] {
        if let Ok(layout) = IndexLayout::read(&file) {
            assert!(
                layout.memory_bytes() <= 16 * file.len(),
                "memory follows size"
            );
            // What it says is checked while it is read; an error is as good.
            drop(walk(layout.view(&file), WALK_STEPS));
        }
    }
}

/// The input as the body of a series entry, read at random and as a stream.
pub fn fuzz_series_entry(data: &[u8]) {
    let texts: Vec<String> = (0..40).map(|i| format!("{i:02}")).collect();
    let (file, id) = index_of_bodies(2, &texts, data);
    let layout = IndexLayout::read(&file).expect("all but the entry is right");
    let view = layout.view(&file);
    let mut reader = SeriesReader::new();
    let read = reader.read(view, id);
    let streamed = streamed(data);
    if read.is_err() {
        assert_eq!((reader.labels(view).count(), reader.chunks().len()), (0, 0));
        return;
    }
    let streamed = streamed.expect("what is read at random is read as a stream");
    let labels: Vec<(&[u8], &[u8])> = reader.labels(view).collect();
    let text = |reference: u64| texts[usize::try_from(reference).expect("in memory")].as_bytes();
    let known = streamed
        .labels
        .iter()
        .map(|&(name, value)| (text(name), text(value)));
    assert!(labels.iter().copied().eq(known));
    assert!(labels.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(reader.chunks(), streamed.chunks);
    assert!(reader.chunks().is_sorted_by(|a, b| a.maxt < b.mint));
}

/// The input as lists, then as a program that combines them, then as questions.
pub fn fuzz_postings(data: &[u8]) {
    let mut input = data.iter().copied();
    let mut next = move || input.next();
    let mut bytes = Vec::new();
    let mut stack: Vec<(Postings, BTreeSet<u32>)> = Vec::new();
    for _ in 0..next().unwrap_or(0) % 16 {
        let (ids, scale) = (next().unwrap_or(0), next().unwrap_or(0) % 24);
        let mut list = Vec::new();
        let mut id = 0_u32;
        for _ in 0..ids {
            id = id.saturating_add((u32::from(next().unwrap_or(0)) << scale) + 1);
            list.push(id);
        }
        list.dedup();
        stack.push(put_list(&mut bytes, &list));
    }
    let (empty, _) = index_of_bodies(2, &[], &[]);
    let layout = IndexLayout::read(&empty).expect("it has been written");
    let view = layout.view(&bytes);
    while let Some(operation) = next() {
        let Some((a, a_set)) = stack.pop() else { break };
        let Some((b, b_set)) = stack.pop() else {
            stack.push((a, a_set));
            break;
        };
        let combined = match operation % 4 {
            0 => (Postings::union(vec![a, b]), &a_set | &b_set),
            1 => (Postings::intersection(vec![a, b]), &a_set & &b_set),
            2 => (a.without(b), &a_set - &b_set),
            _ => {
                let many = stack.len();
                let rest = stack.drain(many.saturating_sub(3)..);
                let (mut sets, mut all) = (vec![a, b], &a_set | &b_set);
                for (set, ids) in rest {
                    sets.push(set);
                    all = &all | &ids;
                }
                (Postings::union(sets), all)
            }
        };
        stack.push(combined);
    }
    let Some((postings, ids)) = stack.pop() else {
        return;
    };
    assert!(postings.at_most() >= count(ids.len()));
    ask(postings.clone(), view, &ids, data);
    // Read from before, it begins anew.
    let mut used = postings;
    used.next(view);
    ask(
        Postings::union(vec![used, Postings::none()]),
        view,
        &ids,
        &[],
    );
}

/// Reads a set by steps that the input chooses.
fn ask(mut postings: Postings, view: IndexView<'_>, ids: &BTreeSet<u32>, steps: &[u8]) {
    let mut from = 0_u64;
    for step in steps
        .iter()
        .copied()
        .chain(std::iter::repeat_n(0, ids.len() + 1))
    {
        let jump = if step < 128 {
            0
        } else {
            u64::from(step) << (step % 26)
        };
        let at_least = u32::try_from(from + jump).ok();
        let known = at_least.and_then(|at_least| ids.range(at_least..).next().copied());
        let found = match (jump, at_least) {
            (0, _) => postings.next(view),
            (_, Some(at_least)) => postings.seek(view, at_least),
            (_, None) => return,
        };
        assert_eq!(found, known, "from {from} by {jump}");
        let Some(found) = found else {
            assert_eq!(postings.next(view), None, "there are no more");
            return;
        };
        from = u64::from(found) + 1;
    }
}

/// Appends a list, as it stands in a file behind its count.
fn put_list(bytes: &mut Vec<u8>, ids: &[u32]) -> (Postings, BTreeSet<u32>) {
    let start = count(bytes.len());
    bytes.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
    let many = u32::try_from(ids.len()).expect("few");
    (
        Postings::of_list(start, many),
        ids.iter().copied().collect(),
    )
}

/// All that can be looked up, as text; what must hold of it is asserted.
pub(super) fn walk(view: IndexView<'_>, steps: usize) -> Result<Vec<String>, DecodeError> {
    let mut found = vec![format!("v{}, {} symbols", view.version(), view.symbols())];
    let mut left = steps;
    let mut ids = read_all(view, view.all(), &mut left)?;
    let names = view.label_names().collect::<Result<Vec<_>, _>>()?;
    assert!(names.is_sorted_by(|a, b| a < b) && !names.contains(&b"".as_slice()));
    for name in names {
        let mut values = view.values(name)?;
        let mut union = PostingsUnion::new();
        let mut all = BTreeSet::new();
        let mut previous: Option<&[u8]> = None;
        while let Some((value, at)) = values.next(view)? {
            assert!(
                previous.is_none_or(|previous| previous < value),
                "ascending"
            );
            previous = Some(value);
            assert_eq!(view.value(name, value)?, Some(at));
            let mut from = view.values_from(name, value)?;
            assert_eq!(from.next(view)?, Some((value, at)));
            let list = read_all(view, at, &mut left)?;
            found.push(format!("{name:?}={value:?}: {list:?}"));
            union.add(view, at)?;
            all.extend(list);
            if left == 0 {
                return Ok(found);
            }
        }
        let mut union = union.finish();
        assert!(all.iter().all(|id| union.next(view) == Some(*id)));
        assert_eq!(union.next(view), None);
        ids.extend(all);
    }
    let mut reader = SeriesReader::new();
    for id in ids {
        reader.read(view, id)?;
        let labels: Vec<_> = reader.labels(view).collect();
        assert!(labels.is_sorted_by(|(a, _), (b, _)| a < b));
        for (name, value) in &labels {
            assert!(str::from_utf8(name).is_ok() && str::from_utf8(value).is_ok());
        }
        found.push(format!("{id}: {labels:?} {:?}", reader.chunks()));
    }
    Ok(found)
}

fn read_all(
    view: IndexView<'_>,
    at: PostingsRef,
    left: &mut usize,
) -> Result<BTreeSet<u32>, DecodeError> {
    let mut postings = view.postings(at)?;
    let mut ids = BTreeSet::new();
    while *left > 0
        && let Some(id) = postings.next(view)
    {
        assert!(ids.last().is_none_or(|last| *last < id), "ascending");
        ids.insert(id);
        *left -= 1;
    }
    Ok(ids)
}

// === Checksums made right ===

/// The index with the checksums of all that lies where its offsets say.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    let Some(toc) = file.len().checked_sub(52) else {
        return file;
    };
    put_crc(&mut file, toc, 48);
    let Ok(toc) = IndexToc::parse(&file[toc..], count(file.len())) else {
        return file;
    };
    repair_frame(&mut file, toc.symbols);
    repair_frame(&mut file, toc.postings_offset_table);
    // As far as it can be walked.
    let mut ids = BTreeSet::new();
    if let Ok(layout) = IndexLayout::read(&file) {
        let original = file.clone();
        let view = layout.view(&original);
        let mut lists = vec![layout.table.all()];
        for name in view.label_names().flatten() {
            if let Ok(mut values) = view.values(name) {
                while let Ok(Some((_, at))) = values.next(view)
                    && lists.len() < 1000
                {
                    lists.push(at.offset());
                }
            }
        }
        for list in lists {
            repair_frame(&mut file, list);
            let start = usize::try_from(list).unwrap_or(usize::MAX);
            let listed = file.get(start.saturating_add(8)..).unwrap_or_default();
            let listed = listed.as_chunks::<4>().0.iter().take(100);
            ids.extend(listed.map(|id| u32::from_be_bytes(*id)));
        }
    }
    for id in ids.into_iter().take(1000) {
        let at = usize::try_from(id).expect("64 bits") * if file[4] == 1 { 1 } else { 16 };
        let entry = file.get(at..).unwrap_or_default();
        if let crate::tsdb::decode::Uvarint::Value(length, bytes) =
            crate::tsdb::decode::decode_uvarint(entry)
        {
            put_crc(
                &mut file,
                at + bytes,
                usize::try_from(length).unwrap_or(usize::MAX),
            );
        }
    }
    file
}

fn repair_frame(file: &mut [u8], start: u64) {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let length = file.get(start..).and_then(<[u8]>::first_chunk);
    if let Some(length) = length.map(|length| u32::from_be_bytes(*length)) {
        put_crc(file, start + 4, length as usize);
    }
}

/// Writes the checksum of `length` bytes behind them, if all of it is in the file.
fn put_crc(file: &mut [u8], start: usize, length: usize) {
    let end = start.saturating_add(length);
    let Some(crc) = file.get(start..end).map(crc32c) else {
        return;
    };
    if let Some(slot) = file.get_mut(end..).and_then(<[u8]>::first_chunk_mut) {
        *slot = crc.to_be_bytes();
    }
}

// === The other reader of series entries ===

#[derive(Default)]
struct Streamed {
    labels: Vec<(u64, u64)>,
    chunks: Vec<ChunkMeta>,
}

impl SeriesSink for Streamed {
    fn begin(&mut self, _start: u64) -> Result<(), DecodeErrorKind> {
        Ok(())
    }

    fn label(&mut self, name: u64, value: u64) -> Result<(), DecodeErrorKind> {
        self.labels.push((name, value));
        Ok(())
    }

    fn chunk(&mut self, chunk: ChunkMeta) -> Result<(), DecodeErrorKind> {
        self.chunks.push(chunk);
        Ok(())
    }

    fn end(&mut self) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
}

fn streamed(body: &[u8]) -> Result<Streamed, DecodeError> {
    let mut section = Vec::new();
    put_uvarint(&mut section, count(body.len()));
    section.extend_from_slice(body);
    section.extend(crc32c(body).to_be_bytes());
    let layout = Layout {
        once: true,
        bytes_min: 1,
        ..series_layout(2)
    };
    let mut entries = SeriesEntries::new(Streamed::default());
    let mut frames = Frames::new(layout, count(section.len()));
    frames.feed(&mut entries, Run::new(&section, 0))?;
    frames.finish::<SeriesEntries<Streamed>>()?;
    Ok(entries.sink)
}
