//! The tombstones file: what has been deleted of a block and still stands in its chunks. It is not
//! uploaded.

use super::checksum::crc32c;
use super::cursor::Cursor;
use super::decode::count;
use super::{DecodeError, DecodeErrorKind, Section};

const MAGIC: u32 = 0x0130_ba30;
const VERSION: u8 = 1;
const HEADER_BYTES: u64 = 5;
const CRC_BYTES: u64 = 4;

/// The most tombstones one file may hold; 16 bytes each are in memory, and 16 for each series.
/// Prometheus holds them in memory as well, in more.
pub const TOMBSTONES_MAX: u64 = 1 << 22;

/// What has been deleted of a block and not yet removed from it: closed intervals of time for each
/// series. They apply to samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// Series ids, ascending, each with how many intervals there are up to its last one.
    series: Vec<(u64, usize)>,
    /// Of one series after the other: closed, ascending, with time between them.
    intervals: Vec<(i64, i64)>,
}

impl Tombstones {
    /// Parses a tombstones file, given whole (`contract/tsdb.md` §5).
    ///
    /// Intervals that meet become one. One that ends before it begins deletes nothing and is left
    /// out.
    ///
    /// # Errors
    /// As [`check_tombstones`], or where an entry is cut short or there are too many.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_tombstones(bytes)?;
        let end = count(bytes.len()).saturating_sub(CRC_BYTES);
        let mut cursor = Cursor::new(Section::Tombstones, bytes, HEADER_BYTES..end)?;
        let mut all = Vec::new();
        while !cursor.is_at_end() {
            if count(all.len()) == TOMBSTONES_MAX {
                return Err(cursor.error(DecodeErrorKind::Limit {
                    what: "number of tombstones",
                    value: TOMBSTONES_MAX.saturating_add(1),
                    limit: TOMBSTONES_MAX,
                }));
            }
            let series = cursor.uvarint("series of a tombstone")?;
            let mint = cursor.varint("mint of a tombstone")?;
            let maxt = cursor.varint("maxt of a tombstone")?;
            if mint <= maxt {
                all.push((series, mint, maxt));
            }
        }
        all.sort_unstable();
        Ok(Self::of_sorted(all))
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The closed intervals (ms) deleted of the series with this id, ascending, with time between
    /// them.
    pub fn intervals(&self, series: u64) -> &[(i64, i64)] {
        let rank = self.series.binary_search_by_key(&series, |(id, _)| *id);
        let end = |rank: usize| self.series.get(rank).map(|(_, end)| *end);
        let range = rank.ok().and_then(|rank| {
            let start = rank.checked_sub(1).map_or(Some(0), end)?;
            self.intervals.get(start..end(rank)?)
        });
        range.unwrap_or_default()
    }

    /// Whether the sample at `t_ms` of a series is deleted.
    pub fn covers(&self, series: u64, t_ms: i64) -> bool {
        let intervals = self.intervals(series);
        let after = intervals.partition_point(|(_, maxt)| *maxt < t_ms);
        intervals.get(after).is_some_and(|(mint, _)| *mint <= t_ms)
    }

    fn of_sorted(all: Vec<(u64, i64, i64)>) -> Self {
        let mut tombstones = Self::default();
        for (id, mint, maxt) in all {
            let Self { series, intervals } = &mut tombstones;
            let same = series.last_mut().filter(|(last, _)| *last == id);
            let Some((_, end)) = same else {
                intervals.push((mint, maxt));
                series.push((id, intervals.len()));
                continue;
            };
            match intervals.last_mut() {
                // Nothing is between two milliseconds.
                Some((_, last)) if mint <= last.saturating_add(1) => *last = maxt.max(*last),
                _ => intervals.push((mint, maxt)),
            }
            *end = intervals.len();
        }
        tombstones
    }
}

/// Checks header and checksum of a tombstones file, given whole (`contract/tsdb.md` §5). A block
/// without the file has no tombstones.
///
/// # Errors
/// When it is cut short, of another format or version, or its entries are damaged.
pub fn check_tombstones(file: &[u8]) -> Result<(), DecodeError> {
    let header_error = |offset, kind| DecodeError::new(Section::Header, offset, kind);
    let inside = "the header";
    let truncated = || header_error(count(file.len()), DecodeErrorKind::Truncated { inside });
    let (magic, rest) = file.split_first_chunk().ok_or_else(truncated)?;
    let (&version, rest) = rest.split_first().ok_or_else(truncated)?;
    let found = u32::from_be_bytes(*magic);
    if found != MAGIC {
        let expected = MAGIC;
        return Err(header_error(0, DecodeErrorKind::Magic { expected, found }));
    }
    if version != VERSION {
        let kind = DecodeErrorKind::Version { found: version };
        return Err(header_error(4, kind));
    }
    let Some((entries, stored)) = rest.split_last_chunk() else {
        let inside = "the checksum";
        let kind = DecodeErrorKind::Truncated { inside };
        return Err(DecodeError::new(
            Section::Tombstones,
            count(file.len()),
            kind,
        ));
    };
    let (stored, computed) = (u32::from_be_bytes(*stored), crc32c(entries));
    if stored != computed {
        let kind = DecodeErrorKind::Checksum { stored, computed };
        return Err(DecodeError::new(Section::Tombstones, 5, kind));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may end at once")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tsdb::testing::{put_uvarint, put_varint};

    const NONE: &[u8] = include_bytes!("../../tests/data/blocks/prometheus-2.42/tombstones");

    fn with_entries(entries: &[u8]) -> Vec<u8> {
        let mut file = vec![0x01, 0x30, 0xba, 0x30, 1];
        file.extend_from_slice(entries);
        file.extend(crc32c(entries).to_be_bytes());
        file
    }

    #[test]
    fn accepts_what_prometheus_writes() {
        assert_eq!(check_tombstones(NONE), Ok(()));
        assert_eq!(NONE, with_entries(&[]));
        assert_eq!(check_tombstones(&with_entries(&[1, 2, 3, 4])), Ok(()));
        assert!(Tombstones::parse(NONE).unwrap().is_empty());
    }

    /// Entries as the file has them.
    fn file(all: &[(u64, i64, i64)]) -> Vec<u8> {
        let mut entries = Vec::new();
        for &(series, mint, maxt) in all {
            put_uvarint(&mut entries, series);
            put_varint(&mut entries, mint);
            put_varint(&mut entries, maxt);
        }
        with_entries(&entries)
    }

    proptest! {
        #[test]
        fn what_is_deleted_is_what_any_entry_covers(
            all in proptest::collection::vec((0u64..4, -9i64..40, -2i64..9), 0..20),
        ) {
            let all: Vec<_> = all.into_iter().map(|(id, t, length)| (id, t, t + length)).collect();
            let parsed = Tombstones::parse(&file(&all)).unwrap();
            prop_assert_eq!(parsed.is_empty(), all.iter().all(|(_, mint, maxt)| mint > maxt));
            for id in 0..5 {
                for t in -12..50 {
                    let covered = |&(of, mint, maxt): &(u64, i64, i64)| {
                        of == id && mint <= t && t <= maxt
                    };
                    prop_assert_eq!(parsed.covers(id, t), all.iter().any(covered));
                }
                let apart = |pair: &[(i64, i64)]| match *pair {
                    [(mint, maxt), (next, _)] => mint <= maxt && maxt + 1 < next,
                    _ => false,
                };
                prop_assert!(parsed.intervals(id).windows(2).all(apart));
            }
        }
    }

    #[test]
    fn intervals_that_meet_become_one_and_the_ends_of_time_hold() {
        let ends = [
            (7, 5, 9),
            (7, 10, 12),
            (7, 14, i64::MAX),
            (7, i64::MIN, -1),
            (3, 0, 0),
        ];
        let parsed = Tombstones::parse(&file(&ends)).unwrap();
        assert_eq!(
            parsed.intervals(7),
            [(i64::MIN, -1), (5, 12), (14, i64::MAX)]
        );
        assert_eq!(parsed.intervals(3), [(0, 0)]);
        assert_eq!(parsed.intervals(4), []);
        assert!(parsed.covers(7, i64::MIN) && parsed.covers(7, i64::MAX));
        assert!(!parsed.covers(7, 13) && !parsed.covers(7, 0));
    }

    #[test]
    fn entries_are_whole_and_not_too_many() {
        let cut = with_entries(&[1, 2, 3, 4]);
        assert_eq!(
            Tombstones::parse(&cut).unwrap_err().to_string(),
            "tombstones section, offset 9: ends inside mint of a tombstone"
        );
        if cfg!(miri) {
            return;
        }
        let most = usize::try_from(TOMBSTONES_MAX).unwrap();
        let mut entries = [1, 0, 0].repeat(most);
        let parsed = Tombstones::parse(&with_entries(&entries)).unwrap();
        assert_eq!(parsed.intervals(1), [(0, 0)]);
        entries.extend([1, 0, 0]);
        let error = Tombstones::parse(&with_entries(&entries)).unwrap_err();
        assert!(
            matches!(error.kind, DecodeErrorKind::Limit { .. }),
            "{error}"
        );
    }

    #[test]
    fn refuses_every_truncation_and_every_flipped_bit() {
        let file = with_entries(&[9, 8, 7]);
        for len in 0..file.len() {
            let (head, _) = file.split_at(len);
            assert!(check_tombstones(head).is_err(), "{len} bytes");
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                assert!(check_tombstones(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}
