//! What the shipper publishes of itself, for a status page.

use tokio::sync::watch;

use super::decide::{Decision, SkipReason, decide};
use super::scan::{Origin, Scan};
use super::schedule::Wait;
use super::shipper::Shipper;
use super::sync::SyncError;
use crate::model::{
    BlockId, BlockState, ErrorChain, SHIPPING_BLOCKS_NAMED_MAX, SHIPPING_FAILURES_MAX,
    ShippedBlock, ShippingBlock, ShippingCounts, ShippingFailure, ShippingStanding, ShippingStatus,
    TimestampMs, UploadStatus,
};

/// The sending side of the status; clones publish to the same place.
#[derive(Clone, Debug)]
pub(super) struct Bulletin(watch::Sender<ShippingStatus>);

// === impl Bulletin ===

impl Bulletin {
    pub(super) fn new(status: watch::Sender<ShippingStatus>) -> Self {
        Self(status)
    }

    /// What the shipper is at now.
    pub(super) fn standing(&self, standing: ShippingStanding) {
        self.0.send_modify(|status| status.standing = standing);
    }

    /// A look at the data directory ended.
    pub(super) fn looked(&self, at: TimestampMs) {
        self.0.send_modify(|status| status.last_look = Some(at));
    }

    /// How far the upload under way is; `None` once there is none.
    pub(super) fn upload(&self, upload: Option<UploadStatus>) {
        self.0.send_modify(|status| status.upload = upload);
    }

    /// A block was published.
    pub(super) fn shipped(&self, shipped: ShippedBlock) {
        self.0
            .send_modify(|status| status.last_shipped = Some(shipped));
    }

    /// Something failed. The same failure again only counts.
    pub(super) fn failed(
        &self,
        at: TimestampMs,
        block: Option<BlockId>,
        error: String,
        remedy: Option<&'static str>,
    ) {
        self.0.send_modify(|status| {
            let failures = &mut status.failures;
            let same = failures
                .iter()
                .position(|known| known.block == block && known.error == error);
            let times = same.map_or(1, |at| failures.remove(at).times.saturating_add(1));
            let failure = ShippingFailure {
                at,
                times,
                block,
                error,
                remedy,
            };
            failures.insert(0, failure);
            failures.truncate(SHIPPING_FAILURES_MAX);
        });
    }

    /// What becomes of each block.
    fn blocks(&self, mut blocks: Vec<ShippingBlock>) {
        let counts = counted(&blocks);
        // The sort is stable, and the scan is ordered by time.
        let age = |block: &ShippingBlock| block.range.map(|range| range.mint);
        blocks.sort_by_key(|block| match block.state {
            BlockState::Shipped => (true, age(block).map(|mint| TimestampMs(!mint.0))),
            _ => (false, age(block)),
        });
        blocks.truncate(SHIPPING_BLOCKS_NAMED_MAX);
        self.0.send_modify(|status| {
            (status.counts, status.blocks) = (counts, blocks);
        });
    }
}

fn counted(blocks: &[ShippingBlock]) -> ShippingCounts {
    let mut counts = ShippingCounts::default();
    for block in blocks {
        let count = match block.state {
            BlockState::Shipped => &mut counts.shipped,
            BlockState::Waiting
            | BlockState::Delayed
            | BlockState::Retrying
            | BlockState::HeldBack => &mut counts.waiting,
            BlockState::Corrupt | BlockState::Unreadable => &mut counts.damaged,
            BlockState::Empty | BlockState::Compacted | BlockState::Downsampled => {
                &mut counts.left_out
            }
        };
        *count += 1;
    }
    counts
}

// === impl Shipper ===

impl Shipper {
    /// Publishes what becomes of each block that the scan found.
    pub(super) fn publish_blocks(&self, scan: &Scan, held_back_by: Option<BlockId>) {
        let candidates = scan.candidates.iter().filter(|candidate| {
            candidate.origin == Origin::DataDir || !self.lives_on(candidate.id, scan)
        });
        let readable = candidates.map(|candidate| {
            let mut standing = self.known(candidate.id);
            standing.held_back_by = held_back_by.filter(|by| *by < candidate.id);
            ShippingBlock {
                id: candidate.id,
                range: Some(candidate.meta.range()),
                state: self.state_of(candidate.id, decide(&candidate.meta, standing, self.policy)),
            }
        });
        let unreadable = scan.unreadable.iter().map(|unreadable| ShippingBlock {
            id: unreadable.id,
            range: None,
            state: match self.known(unreadable.id) {
                known if known.in_ledger => BlockState::Shipped,
                known if known.is_corrupt => BlockState::Corrupt,
                _ => BlockState::Unreadable,
            },
        });
        self.bulletin.blocks(unreadable.chain(readable).collect());
    }

    /// Publishes what ended a pass early.
    pub(super) fn post(&self, error: &SyncError) {
        let block = match error {
            SyncError::Upload { block, .. } => Some(*block),
            SyncError::Scan(_)
            | SyncError::Exists(_)
            | SyncError::Overlap(_)
            | SyncError::Flushed(_) => None,
            // The failures behind these are published already, and blocks say that they wait.
            SyncError::Retry { .. } | SyncError::Metadata { .. } => return,
        };
        self.post_failure(block, ErrorChain(error).to_string(), error.remedy());
    }

    /// Publishes a failure of now.
    pub(super) fn post_failure(
        &self,
        block: Option<BlockId>,
        error: String,
        remedy: Option<&'static str>,
    ) {
        self.bulletin.failed(self.clock.now(), block, error, remedy);
    }

    fn state_of(&self, id: BlockId, decision: Decision) -> BlockState {
        match decision {
            Decision::AlreadyShipped => BlockState::Shipped,
            Decision::Skip(SkipReason::Empty) => BlockState::Empty,
            Decision::Skip(SkipReason::Compacted) => BlockState::Compacted,
            Decision::Skip(SkipReason::Corrupt) => BlockState::Corrupt,
            Decision::Skip(SkipReason::Downsampled { .. }) => BlockState::Downsampled,
            Decision::Skip(SkipReason::HeldBack { .. }) => BlockState::HeldBack,
            Decision::Ship(_) => match self.schedule.wait(id, self.clock.now()) {
                None => BlockState::Waiting,
                Some(Wait::Jitter(_)) => BlockState::Delayed,
                Some(Wait::Retry { .. }) => BlockState::Retrying,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TimeRange;

    fn bulletin() -> (Bulletin, watch::Receiver<ShippingStatus>) {
        let (sender, receiver) = watch::channel(ShippingStatus::default());
        (Bulletin::new(sender), receiver)
    }

    fn block(n: u128, state: BlockState) -> ShippingBlock {
        let mint = TimestampMs(i64::try_from(n).unwrap() * 10);
        let range = TimeRange {
            mint,
            maxt: TimestampMs(mint.0 + 10),
        };
        ShippingBlock {
            id: BlockId::from_u128(n),
            range: Some(range),
            state,
        }
    }

    #[test]
    fn what_is_not_shipped_comes_first_and_the_list_is_cut() {
        let (bulletin, status) = bulletin();
        let shipped = (1..=1000).map(|n| block(n, BlockState::Shipped));
        let others = [BlockState::Waiting, BlockState::Corrupt, BlockState::Empty];
        let others = others
            .into_iter()
            .zip(1001..)
            .map(|(state, n)| block(n, state));
        bulletin.blocks(shipped.chain(others).collect());
        let status = status.borrow();
        let counts = ShippingCounts {
            shipped: 1000,
            waiting: 1,
            damaged: 1,
            left_out: 1,
        };
        assert_eq!(status.counts, counts);
        assert_eq!(status.blocks.len(), SHIPPING_BLOCKS_NAMED_MAX);
        let ids: Vec<BlockId> = status.blocks.iter().take(5).map(|block| block.id).collect();
        assert_eq!(ids, [1001, 1002, 1003, 1000, 999].map(BlockId::from_u128));
    }

    #[test]
    fn a_failure_that_comes_again_counts_and_old_ones_go() {
        let (bulletin, status) = bulletin();
        let fail = |at, text: &str| {
            bulletin.failed(TimestampMs(at), None, text.to_owned(), Some("wait"));
        };
        fail(1, "away");
        fail(2, "other");
        fail(3, "away");
        {
            let status = status.borrow();
            let seen: Vec<_> = status.failures.iter().map(|f| (f.at.0, f.times)).collect();
            assert_eq!(seen, [(3, 2), (2, 1)]);
        }
        for at in 4..40 {
            fail(at, &at.to_string());
        }
        assert_eq!(status.borrow().failures.len(), SHIPPING_FAILURES_MAX);
        assert_eq!(status.borrow().failures[0].error, "39");
    }
}
