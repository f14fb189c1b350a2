//! The postings offset table of an open index: where the values of each name stand in it, sampled.
//!
//! Keys are read from the table itself whenever they are needed; only offsets are in memory. A
//! *position* is what finds an entry: in the sorted tables of versions 2 and 3 its offset, in the
//! unsorted one of version 1 its rank among all entries.

use std::cmp::Ordering;

use super::symbols::within_limit;
use super::toc::IndexToc;
use crate::tsdb::cursor::Cursor;
use crate::tsdb::decode::count;
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// One entry in that many of each name is kept, as Prometheus does: 128 KiB for a million values.
const SAMPLED_EVERY: u32 = 32;
/// Texts in a key.
const KEY_TEXTS: u64 = 2;

/// Where label names and values stand.
#[derive(Debug)]
pub(super) struct SampledTable {
    /// Absolute offset of the first entry.
    start: u64,
    /// Absolute offset after the last one.
    end: u64,
    /// Position after the last entry.
    past: u32,
    /// Label names, ascending.
    names: Vec<Name>,
    order: Order,
    /// Offset of the list of all series.
    all: u64,
}

/// The entries of one label name.
#[derive(Clone, Copy, Debug)]
struct Name {
    /// Position of the first one.
    first: u32,
    /// How many samples there are of the names before.
    samples: u32,
}

#[derive(Debug)]
enum Order {
    /// Positions of each name's entries 32, 64 and so on (0 is in [`Name`]).
    Sorted { samples: Vec<u32> },
    /// Offsets of all entries in the order of their keys. Four bytes an entry: only indexes of
    /// version 1 have it, which Prometheus stopped writing in 2018.
    Unsorted { entries: Vec<u32> },
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// Offset of the postings list.
    pub(super) list: u64,
    /// Position of the next entry.
    pub(super) next: u32,
}

/// Positions of the first entry and after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) first: u32,
    pub(super) past: u32,
}

impl Positions {
    pub(super) const NONE: Self = Self { first: 0, past: 0 };
}

impl SampledTable {
    /// Walks the table once: checksum, count, lengths, strictly ascending keys, the entry of all
    /// series first.
    pub(super) fn read(file: &[u8], toc: &IndexToc, version: u8) -> Result<Self, DecodeError> {
        let range = toc.postings_offset_table..toc.toc;
        let mut section = Cursor::new(Section::PostingsOffsetTable, file, range)?;
        let mut body = section.framed("the postings offset table")?;
        let declared_at = body.offset();
        let declared = body.u32("the entry count")?;
        let (start, entries) = (body.offset(), body.rest());
        let walk = Walk { start, entries };
        let mut keys = Keys::new(version);
        let mut at = 0;
        let mut found = 0_u32;
        let mut all = None;
        while found < declared && at < entries.len() {
            let (entry, next) = walk.entry(at)?;
            let is_all = entry.name.is_empty() && entry.value.is_empty();
            if is_all != (found == 0) {
                let what = "the entry of all series is not the first one, and only the first";
                return Err(walk.error(at, DecodeErrorKind::Disagreement { what }));
            }
            if is_all {
                all = Some(walk.list(at)?);
            } else {
                keys.push(&walk, entry, at)?;
            }
            at = next;
            found = found.wrapping_add(1);
        }
        let Some(all) = all.filter(|_| found == declared) else {
            return Err(DecodeError::new(
                Section::PostingsOffsetTable,
                declared_at,
                DecodeErrorKind::Count {
                    what: "entries",
                    declared: u64::from(declared),
                    found: u64::from(found),
                },
            ));
        };
        walk.cursor(at).expect_end("the last entry")?;
        let mut table = Self {
            start,
            end: start.saturating_add(count(entries.len())),
            past: offset_u32(entries.len()),
            names: keys.names,
            order: keys.order,
            all,
        };
        table.sort(&walk)?;
        // They last as long as the block.
        table.names.shrink_to_fit();
        let (Order::Sorted { samples: offsets } | Order::Unsorted { entries: offsets }) =
            &mut table.order;
        offsets.shrink_to_fit();
        Ok(table)
    }

    /// Offset of the list of all series.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let names = self.names.capacity().saturating_mul(size_of::<Name>());
        let (Order::Sorted { samples: offsets } | Order::Unsorted { entries: offsets }) =
            &self.order;
        names.saturating_add(offsets.capacity().saturating_mul(size_of::<u32>()))
    }

    /// How many label names there are.
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    /// The positions of a label name by its rank.
    pub(super) fn positions(&self, rank: usize) -> Positions {
        let next = self.names.get(rank.saturating_add(1));
        Positions {
            first: self.names.get(rank).map_or(self.past, |name| name.first),
            past: next.map_or(self.past, |name| name.first),
        }
    }

    /// The rank of a label name; `None` where no series has it.
    pub(super) fn find_name(&self, file: &[u8], name: &[u8]) -> Result<Option<usize>, DecodeError> {
        let (mut low, mut high) = (0, self.names.len());
        while low < high {
            let middle = low.midpoint(high);
            let first = self.names.get(middle).map_or(self.past, |name| name.first);
            match self.entry(file, first)?.name.cmp(name) {
                Ordering::Less => low = middle.saturating_add(1),
                Ordering::Equal => return Ok(Some(middle)),
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// The positions from the first value that is not below `value`.
    pub(super) fn find_value(
        &self,
        file: &[u8],
        rank: usize,
        value: &[u8],
    ) -> Result<Positions, DecodeError> {
        let all = self.positions(rank);
        let (samples, is_all) = match &self.order {
            Order::Unsorted { entries: _ } => (None, true),
            Order::Sorted { samples } => (Some(self.samples(samples, rank)), false),
        };
        // The number of entries, or of samples after the first entry.
        let many = match samples {
            Some(samples) => samples.len(),
            None => all.past.saturating_sub(all.first) as usize,
        };
        let position = |at: usize| match samples {
            Some(samples) => samples.get(at).copied().unwrap_or(all.past),
            None => all.first.saturating_add(offset_u32(at)),
        };
        // How many of those are below the value.
        let (mut low, mut high) = (0, many);
        while low < high {
            let middle = low.midpoint(high);
            match self.entry(file, position(middle))?.value < value {
                true => low = middle.saturating_add(1),
                false => high = middle,
            }
        }
        let mut first = match low.checked_sub(1) {
            _ if is_all => position(low),
            Some(before) => position(before),
            None => all.first,
        };
        // What is between two samples.
        while !is_all && first < all.past {
            let entry = self.entry(file, first)?;
            if entry.value >= value {
                break;
            }
            first = entry.next;
        }
        Ok(Positions {
            first,
            past: all.past,
        })
    }

    /// The entry at a position.
    pub(super) fn entry<'a>(
        &self,
        file: &'a [u8],
        position: u32,
    ) -> Result<Entry<'a>, DecodeError> {
        let offset = match &self.order {
            Order::Sorted { .. } => position,
            Order::Unsorted { entries } => {
                let offset = entries.get(position as usize).copied();
                offset.unwrap_or(u32::MAX)
            }
        };
        let at = self.start.saturating_add(u64::from(offset)).min(self.end);
        let mut cursor = Cursor::new(Section::PostingsOffsetTable, file, at..self.end)?;
        let (name, value) = read_key(&mut cursor)?;
        let list = cursor.uvarint("list offset")?;
        let next = match &self.order {
            Order::Sorted { .. } => {
                let next = cursor.offset().saturating_sub(self.start);
                u32::try_from(next).unwrap_or(u32::MAX)
            }
            Order::Unsorted { .. } => position.saturating_add(1),
        };
        Ok(Entry {
            name,
            value,
            list,
            next,
        })
    }

    fn samples<'s>(&self, samples: &'s [u32], rank: usize) -> &'s [u32] {
        let start = |rank: usize| {
            let name = self.names.get(rank);
            name.map_or(samples.len(), |name| name.samples as usize)
        };
        let range = start(rank)..start(rank.saturating_add(1));
        samples.get(range).unwrap_or_default()
    }

    /// Puts the entries of version 1 into the order of their keys.
    fn sort(&mut self, walk: &Walk<'_>) -> Result<(), DecodeError> {
        let Order::Unsorted { entries } = &mut self.order else {
            return Ok(());
        };
        // All have been read by the walk.
        let key = |at: u32| {
            walk.entry(at as usize)
                .map(|(key, _)| (key.name, key.value))
        };
        let key = |at: u32| key(at).unwrap_or_default();
        entries.sort_unstable_by(|&a, &b| key(a).cmp(&key(b)));
        let mut previous = None;
        for (rank, &at) in entries.iter().enumerate() {
            let (name, value) = key(at);
            if previous == Some((name, value)) {
                let kind = DecodeErrorKind::Order { what: "keys" };
                return Err(walk.error(at as usize, kind));
            }
            if previous.is_none_or(|(before, _)| before != name) && !name.is_empty() {
                self.names.push(Name {
                    first: offset_u32(rank),
                    samples: 0,
                });
            }
            previous = Some((name, value));
        }
        self.past = offset_u32(entries.len());
        Ok(())
    }
}

/// The table while it is walked.
struct Walk<'a> {
    start: u64,
    entries: &'a [u8],
}

/// The key of an entry.
#[derive(Clone, Copy)]
struct Key<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// What is kept of the keys as they come.
struct Keys<'a> {
    names: Vec<Name>,
    order: Order,
    name: &'a [u8],
    value: &'a [u8],
    /// Entries of the name so far.
    entries: u32,
}

impl<'a> Keys<'a> {
    fn new(version: u8) -> Self {
        let order = match version {
            1 => Order::Unsorted {
                entries: Vec::new(),
            },
            _ => Order::Sorted {
                samples: Vec::new(),
            },
        };
        Self {
            names: Vec::new(),
            order,
            name: &[],
            value: &[],
            entries: 0,
        }
    }

    #[inline]
    fn push(&mut self, walk: &Walk<'_>, key: Key<'a>, at: usize) -> Result<(), DecodeError> {
        let samples = match &mut self.order {
            Order::Unsorted { entries } => {
                entries.push(offset_u32(at));
                return Ok(());
            }
            Order::Sorted { samples } => samples,
        };
        let is_new = key.name != self.name;
        let is_after = match is_new {
            true => key.name > self.name,
            false => key.value > self.value,
        };
        if !is_after {
            return Err(walk.error(at, DecodeErrorKind::Order { what: "keys" }));
        }
        if is_new {
            self.name = key.name;
            self.entries = 0;
            self.names.push(Name {
                first: offset_u32(at),
                samples: offset_u32(samples.len()),
            });
        } else if self.entries.is_multiple_of(SAMPLED_EVERY) && !key.name.is_empty() {
            samples.push(offset_u32(at));
        }
        self.value = key.value;
        self.entries = self.entries.saturating_add(1);
        Ok(())
    }
}

impl<'a> Walk<'a> {
    /// The key of the entry at an offset, and where the entry ends.
    #[inline]
    fn entry(&self, at: usize) -> Result<(Key<'a>, usize), DecodeError> {
        let ahead = self.entries.get(at..).unwrap_or_default();
        self.short_entry(ahead, at).map_or_else(
            || {
                let mut cursor = self.cursor(at);
                let (name, value) = read_key(&mut cursor)?;
                cursor.uvarint("list offset")?;
                let end = cursor.offset().saturating_sub(self.start);
                let end = usize::try_from(end).unwrap_or(usize::MAX);
                Ok((Key { name, value }, end))
            },
            Ok,
        )
    }

    /// The same where both texts are short and the offset has eight bytes at most, as nearly all.
    #[inline]
    fn short_entry(&self, ahead: &'a [u8], at: usize) -> Option<(Key<'a>, usize)> {
        const UPPER_BITS: u64 = 0x8080_8080_8080_8080;
        let [2, name_length @ 0..0x80, rest @ ..] = ahead else {
            return None;
        };
        let (name, rest) = rest.split_at_checked(usize::from(*name_length))?;
        let [value_length @ 0..0x80, rest @ ..] = rest else {
            return None;
        };
        let (value, rest) = rest.split_at_checked(usize::from(*value_length))?;
        let ends = !u64::from_le_bytes(*rest.first_chunk()?) & UPPER_BITS;
        if ends == 0 {
            return None;
        }
        let offset_bytes = ends.trailing_zeros().wrapping_div(8).wrapping_add(1);
        // 3 for the two lengths and the number of texts; none of it leaves `ahead`.
        let end = at
            .wrapping_add(3)
            .wrapping_add(name.len())
            .wrapping_add(value.len())
            .wrapping_add(offset_bytes as usize);
        Some((Key { name, value }, end))
    }

    /// The offset of the list of the entry at an offset.
    fn list(&self, at: usize) -> Result<u64, DecodeError> {
        let mut cursor = self.cursor(at);
        read_key(&mut cursor)?;
        cursor.uvarint("list offset")
    }

    fn cursor(&self, at: usize) -> Cursor<'a> {
        let ahead = self.entries.get(at..).unwrap_or_default();
        let offset = self.start.saturating_add(count(at));
        Cursor::of_bytes(Section::PostingsOffsetTable, ahead, offset)
    }

    #[cold]
    fn error(&self, at: usize, kind: DecodeErrorKind) -> DecodeError {
        self.cursor(at).error(kind)
    }
}

/// The two texts of a key.
fn read_key<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    let before = *cursor;
    let texts = cursor.uvarint("number of texts in a key")?;
    if texts != KEY_TEXTS {
        return Err(before.error(DecodeErrorKind::Count {
            what: "texts in a key",
            declared: texts,
            found: KEY_TEXTS,
        }));
    }
    Ok((read_text(cursor)?, read_text(cursor)?))
}

fn read_text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
    let before = *cursor;
    let what = "key length";
    let length = cursor.uvarint(what)?;
    within_limit(what, length).map_err(|kind| before.error(kind))?;
    cursor.take(length, before.offset(), "a key")
}

/// An offset in the table, which the format holds below 4 GiB.
fn offset_u32(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
