//! Which blocks to open before anybody asks for them.
//!
//! Pure. After each proof that changes what may answer, the newest blocks are opened, since they
//! are asked for most; a few at a time, so that who ends the process or asks for them waits little.

use super::open::{OPEN_BLOCKS_MAX, OPEN_WEIGHT_MAX, OpenBlocks};
use super::plan::Candidate;
use crate::model::BlockId;

/// How many are opened in one go.
pub(super) const AHEAD_AT_ONCE: usize = 16;

/// What is left to open.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The blocks that this is about.
    of: Vec<Candidate>,
    /// Those of them that are to be opened, the newest last.
    left: Vec<BlockId>,
}

impl Ahead {
    /// The next to be opened, at most [`AHEAD_AT_ONCE`], where `proven` may answer.
    pub(super) fn next(&mut self, proven: &[Candidate], open: &OpenBlocks) -> Vec<BlockId> {
        if self.of != proven {
            self.of = proven.to_vec();
            let mut newest = proven.to_vec();
            newest.sort_unstable_by_key(|block| (block.range.maxt, block.id));
            newest.drain(..newest.len().saturating_sub(OPEN_BLOCKS_MAX));
            self.left = newest.into_iter().map(|block| block.id).collect();
        }
        self.left.retain(|id| !open.holds(*id));
        if open.len() >= OPEN_BLOCKS_MAX || open.weight() >= OPEN_WEIGHT_MAX {
            self.left.clear();
        }
        let from = self.left.len().saturating_sub(AHEAD_AT_ONCE);
        self.left.drain(from..).rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TimeRange, TimestampMs};

    fn candidates(first: u32, last: u32) -> Vec<Candidate> {
        let candidate = |n: u32| Candidate {
            id: BlockId::from_u128(n.into()),
            range: TimeRange {
                mint: TimestampMs(i64::from(n)),
                maxt: TimestampMs(i64::from(n) + 1),
            },
        };
        (first..=last).map(candidate).collect()
    }

    fn all(ahead: &mut Ahead, proven: &[Candidate]) -> Vec<i64> {
        let mut all = Vec::new();
        loop {
            let next = ahead.next(proven, &OpenBlocks::default());
            assert!(next.len() <= AHEAD_AT_ONCE);
            if next.is_empty() {
                return all;
            }
            let mint = |id: &BlockId| {
                let block = proven.iter().find(|block| block.id == *id);
                block.unwrap().range.mint.0
            };
            all.extend(next.iter().map(mint));
        }
    }

    #[test]
    fn the_newest_come_first_each_once_and_only_so_many() {
        let mut ahead = Ahead::default();
        let first = candidates(1, 40);
        assert_eq!(all(&mut ahead, &first), (1..=40).rev().collect::<Vec<_>>());
        assert!(all(&mut ahead, &first).is_empty(), "until they change");
        assert_eq!(all(&mut ahead, &candidates(38, 40)), [40, 39, 38]);
        let most = u32::try_from(OPEN_BLOCKS_MAX).unwrap();
        let opened = all(&mut ahead, &candidates(1, most + 9));
        assert_eq!(opened, (10..=i64::from(most) + 9).rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_open_is_passed_over() {
        let mut open = OpenBlocks::default();
        open.get(BlockId::from_u128(2));
        let next = Ahead::default().next(&candidates(1, 3), &open);
        assert_eq!(next, [3, 1].map(BlockId::from_u128));
    }
}
