//! What was found out about damaged blocks, as long as the process lives.

use std::collections::{BTreeMap, BTreeSet};

use super::stage::Fingerprint;
use crate::model::BlockId;

/// Blocks that are not shipped because of what is on the disk. A verdict holds as long as nothing
/// of the block changes, so that it is not read again and again.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Proven to be damaged, and what they looked like then.
    corrupt: BTreeMap<BlockId, Fingerprint>,
    /// Were damaged and changed since. Newer blocks may be in the bucket by now.
    was_corrupt: BTreeSet<BlockId>,
    /// Could not be read and were passed over; each pass looks again.
    unread: BTreeSet<BlockId>,
}

impl Verdicts {
    /// The block is proven to be damaged as it looks in `fingerprint`. Whether that is news to
    /// be counted: a block counts once, however it changes.
    pub(super) fn condemn(&mut self, id: BlockId, fingerprint: Fingerprint) -> bool {
        let known = self.corrupt.insert(id, fingerprint).is_some();
        !known && !self.was_corrupt.remove(&id)
    }

    /// What the block looked like when it was proven to be damaged.
    pub(super) fn condemned_as(&self, id: BlockId) -> Option<&Fingerprint> {
        self.corrupt.get(&id)
    }

    /// The block looks different now, so it gets another look.
    pub(super) fn reopen(&mut self, id: BlockId) {
        if self.corrupt.remove(&id).is_some() {
            self.was_corrupt.insert(id);
        }
    }

    /// The block is in the bucket.
    pub(super) fn close(&mut self, id: BlockId) {
        self.was_corrupt.remove(&id);
    }

    /// Whether the block is damaged as far as is known.
    pub(super) fn is_corrupt(&self, id: BlockId) -> bool {
        self.corrupt.contains_key(&id)
    }

    /// Whether the block was damaged and changed since.
    pub(super) fn was_corrupt(&self, id: BlockId) -> bool {
        self.was_corrupt.contains(&id)
    }

    /// The block could not be read and is passed over; whether that is news.
    pub(super) fn pass_over(&mut self, id: BlockId) -> bool {
        self.unread.insert(id)
    }

    /// Forgets blocks that are gone, and those passed over that can be read again.
    pub(super) fn keep(&mut self, there: &BTreeSet<BlockId>, unreadable: &BTreeSet<BlockId>) {
        self.corrupt.retain(|id, _| there.contains(id));
        self.was_corrupt.retain(|id| there.contains(id));
        self.unread.retain(|id| unreadable.contains(id));
    }

    /// How many blocks are left out now.
    pub(super) fn count(&self) -> usize {
        self.corrupt.len() + self.unread.len()
    }
}
