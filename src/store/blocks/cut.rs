//! Up to which instant blocks can answer, as far as the head is concerned.
//!
//! Pure. Samples newer than every block, or not older than the head's oldest, are only in the
//! head. Samples that came out of order are there as well until the next compaction, however old,
//! so while there may be any, blocks answer only for what none of them can be as old as.
//!
//! A sample that comes out of order is no older than the head's newest less the window, and the
//! head's newest is no older than its oldest. So nothing is older than the window before what was
//! the head's oldest when these samples were last written to a block.

use crate::model::TimestampMs;
use crate::prometheus::PeerStorage;

/// How many block ranges an out-of-order sample may wait in the head: the head is cut when it
/// spans one and a half (contract `tsdb.md` §6).
const RANGES_IN_HEAD: i64 = 2;

/// Follows whether there may be out-of-order samples in the head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OutOfOrder {
    /// The largest window seen, ms.
    window_max_ms: i64,
    /// The largest block range seen while there was a window, ms.
    block_range_max_ms: i64,
    /// Of the head while there may be such samples. The next head compaction, which moves its
    /// oldest instant, is followed by one of these samples.
    head: Option<HeadMin>,
}

/// The oldest instant of the head, and what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HeadMin {
    now: i64,
    /// What it was, at the latest, when out-of-order samples were last surely compacted: a move of
    /// the head's oldest instant comes before that, so it tells only of the compaction before.
    before: i64,
    /// Whether the head was too short to be cut again since it moved. Prometheus cuts it until it
    /// is, and only then compacts out-of-order samples.
    settled: bool,
}

impl HeadMin {
    fn first_seen(storage: &PeerStorage) -> Self {
        let now = storage.head_min.0;
        let first = Self {
            now,
            before: now,
            settled: false,
        };
        first.next(storage)
    }

    fn next(mut self, storage: &PeerStorage) -> Self {
        let now = storage.head_min.0;
        if now > self.now {
            if self.settled {
                self.before = self.now;
            }
            self.settled = false;
        }
        self.now = now;
        self.before = self.before.min(now);
        let range_ms = storage.block_range_ms;
        let span_ms = storage.head_max.0.saturating_sub(now);
        self.settled |= span_ms <= range_ms.saturating_add(range_ms / 2);
        self
    }
}

impl OutOfOrder {
    /// Takes what is known now; `log_has_data` tells whether `wbl/` does.
    pub(super) fn observe(&mut self, storage: &PeerStorage, log_has_data: bool) {
        let window_ms = storage.out_of_order_window_ms;
        if window_ms > 0 {
            self.window_max_ms = self.window_max_ms.max(window_ms);
            self.block_range_max_ms = self.block_range_max_ms.max(storage.block_range_ms);
        }
        self.head = match self.head {
            None if window_ms > 0 || log_has_data => Some(HeadMin::first_seen(storage)),
            Some(head) if window_ms > 0 || log_has_data => Some(head.next(storage)),
            // An empty head has its oldest instant at the end of time; the first sample moves it
            // back, which is no compaction.
            Some(head) if storage.head_min.0 <= head.now => Some(head.next(storage)),
            _ => None,
        };
    }

    /// The first instant that an out-of-order sample in the head may have; `None` where there are
    /// no such samples.
    fn first(&self, now: TimestampMs, head_max: TimestampMs) -> Option<i64> {
        let head = self.head?;
        if self.window_max_ms == 0 {
            // There are some, and nothing tells how old they may be.
            return Some(i64::MIN);
        }
        let wait_ms = self.block_range_max_ms.saturating_mul(RANGES_IN_HEAD);
        // The second alone fails where the newest jumps, as after a pause, or the head can't be
        // cut; the first alone where we saw neither the move nor what was before.
        let newest = now.min(head_max).0.saturating_sub(wait_ms);
        Some(head.before.min(newest).saturating_sub(self.window_max_ms))
    }

    /// The first instant that blocks can't answer for, where the newest of them ends at `newest`.
    pub(super) fn cut(
        &self,
        newest: TimestampMs,
        storage: &PeerStorage,
        now: TimestampMs,
    ) -> TimestampMs {
        let first = self.first(now, storage.head_max).unwrap_or(i64::MAX);
        newest.min(storage.head_min).min(TimestampMs(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::LoadedBlocks;
    use std::sync::Arc;

    const HOUR: i64 = 3_600_000;
    const NOW: TimestampMs = TimestampMs(100 * HOUR);

    fn storage(head_min: i64, window_ms: i64) -> PeerStorage {
        PeerStorage {
            sequence: 1,
            blocks: LoadedBlocks::Listed(Arc::default()),
            head_min: TimestampMs(head_min),
            head_max: TimestampMs(99 * HOUR),
            out_of_order_window_ms: window_ms,
            block_range_ms: 2 * HOUR,
        }
    }

    fn cut(out_of_order: &OutOfOrder, storage: &PeerStorage) -> i64 {
        out_of_order.cut(TimestampMs(98 * HOUR), storage, NOW).0
    }

    /// The cut after a look at a head of these ends, with a window of six hours.
    fn observed(seen: &mut OutOfOrder, head_min: i64, head_max: i64) -> i64 {
        let storage = PeerStorage {
            head_max: TimestampMs(head_max),
            ..storage(head_min, 6 * HOUR)
        };
        seen.observe(&storage, false);
        cut(seen, &storage)
    }

    #[test]
    fn without_a_window_the_head_and_the_newest_block_bound_it() {
        let mut none = OutOfOrder::default();
        for (head_min, expected) in [(97 * HOUR, 97 * HOUR), (i64::MAX, 98 * HOUR), (5, 5)] {
            let storage = storage(head_min, 0);
            none.observe(&storage, false);
            assert_eq!(cut(&none, &storage), expected);
        }
    }

    #[test]
    fn the_largest_window_counts_until_the_head_was_cut() {
        let mut seen = OutOfOrder::default();
        let observe = |seen: &mut OutOfOrder, head_min, window_ms, log_has_data| {
            let storage = storage(head_min, window_ms);
            seen.observe(&storage, log_has_data);
            cut(seen, &storage)
        };
        let head = 96 * HOUR;
        assert_eq!(observe(&mut seen, head, 0, false), head);
        // min(now, head max) - window - 2 block ranges
        assert_eq!(observe(&mut seen, head, HOUR, false), 94 * HOUR);
        assert_eq!(observe(&mut seen, head, 10 * HOUR, false), 85 * HOUR);
        assert_eq!(observe(&mut seen, head, HOUR, false), 85 * HOUR);
        assert_eq!(
            observe(&mut seen, head, 0, false),
            85 * HOUR,
            "no compaction yet"
        );
        assert_eq!(observe(&mut seen, head, 0, true), 85 * HOUR);
        assert_eq!(
            observe(&mut seen, head + 1, 0, true),
            85 * HOUR,
            "the log has data"
        );
        assert_eq!(observe(&mut seen, head + 1, 0, false), 85 * HOUR);
        assert_eq!(observe(&mut seen, head + 2, 0, false), head + 2);
        assert_eq!(
            observe(&mut seen, head + 2, HOUR, false),
            85 * HOUR,
            "still the largest"
        );
    }

    #[test]
    fn samples_of_an_unknown_window_leave_everything_to_prometheus() {
        let mut seen = OutOfOrder::default();
        let left_over = storage(96 * HOUR, 0);
        seen.observe(&left_over, true);
        assert_eq!(cut(&seen, &left_over), i64::MIN);
        seen.observe(&left_over, false);
        assert_eq!(cut(&seen, &left_over), i64::MIN);
        let compacted = storage(97 * HOUR, 0);
        seen.observe(&compacted, false);
        assert_eq!(cut(&seen, &compacted), 97 * HOUR);
    }

    #[test]
    fn an_empty_head_that_fills_is_no_compaction() {
        let mut seen = OutOfOrder::default();
        let empty = PeerStorage {
            head_max: TimestampMs(i64::MIN),
            ..storage(i64::MAX, HOUR)
        };
        seen.observe(&empty, false);
        assert_eq!(cut(&seen, &empty), i64::MIN);
        let filled = storage(96 * HOUR, 0);
        seen.observe(&filled, false);
        assert_eq!(cut(&seen, &filled), 94 * HOUR);
        let compacted = storage(97 * HOUR, 0);
        seen.observe(&compacted, false);
        assert_eq!(cut(&seen, &compacted), 97 * HOUR);
    }

    #[test]
    fn a_jump_of_the_newest_sample_leaves_what_only_the_head_has() {
        let mut seen = OutOfOrder::default();
        let a = 80 * HOUR;
        let mut observe = |head_min, head_max| observed(&mut seen, head_min, head_max);
        assert_eq!(observe(a, a + HOUR), a - 9 * HOUR);
        // Scrapes pause for eight hours.
        assert_eq!(observe(a, a + 9 * HOUR), a - 6 * HOUR);
        assert_eq!(
            observe(a + 8 * HOUR, a + 9 * HOUR),
            a - 6 * HOUR,
            "the head was cut, out-of-order samples may be left"
        );
        // The next move proves that those of the one before are in a block.
        assert_eq!(observe(a + 10 * HOUR, a + 15 * HOUR), a + 2 * HOUR);
    }

    #[test]
    fn a_head_that_is_cut_several_times_in_a_row_counts_as_moved_once() {
        let mut seen = OutOfOrder::default();
        let a = 80 * HOUR;
        let mut observe = |head_min, head_max| observed(&mut seen, head_min, head_max);
        assert_eq!(observe(a, a + 3 * HOUR), a - 7 * HOUR);
        // Compactions fail for hours, then the disk has space again.
        for head_min in [0, 0, 2, 4, 6, 8] {
            let cut = observe(a + head_min * HOUR, a + 11 * HOUR);
            assert_eq!(cut, a - 6 * HOUR, "{head_min}");
        }
        assert_eq!(observe(a + 10 * HOUR, a + 15 * HOUR), a + 2 * HOUR);
    }

    #[test]
    fn a_head_of_the_future_counts_only_to_now() {
        let mut seen = OutOfOrder::default();
        let ahead = PeerStorage {
            head_max: TimestampMs(500 * HOUR),
            ..storage(96 * HOUR, HOUR)
        };
        seen.observe(&ahead, false);
        assert_eq!(cut(&seen, &ahead), 95 * HOUR);
    }
}
