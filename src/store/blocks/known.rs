//! What is known of the local blocks: the listing, what is proven of it, what may answer now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ahead::Ahead;
use super::cut::OutOfOrder;
use super::listing::Listing;
use super::open::OpenBlocks;
use super::plan::Candidate;
use super::proof::{self, Standing, Turn};
use super::status::{LocalBlocks, LocalStanding, UNREADABLE_NAMED_MAX, UnreadableBlock};
use crate::model::{BlockId, ErrorChain, TimeRange, TimestampMs};
use crate::prometheus::{LoadedBlocks, PeerStorage};

/// How many unreadable blocks one look tells of in the log; the others are counted.
const UNREADABLE_TOLD_MAX: usize = 10;

/// Everything that changes.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) listing: Listing,
    pub(super) open: OpenBlocks,
    ahead: Ahead,
    standing: Standing,
    out_of_order: OutOfOrder,
    /// Of the storage that was last looked at; 0 before.
    sequence: u64,
    view: Arc<View>,
    /// The listing and the storage that `view` was made of.
    view_of: (u64, u64),
    /// Blocks without a usable `meta.json` when the present proof was found: either Prometheus does
    /// not count on them, or it told what they cover.
    discounted: BTreeSet<BlockId>,
    /// Unreadable blocks that the log knows of.
    told: BTreeSet<BlockId>,
    /// Whether the log knows that the directory can't be listed.
    directory_failing: bool,
    /// Whether the log knows that `wbl/` can't be looked at.
    log_failing: bool,
    /// Whether the heartbeat tells what storage Prometheus has.
    is_told: bool,
    /// The first instant that is Prometheus', as last found.
    cut: Option<TimestampMs>,
    /// Of the listing, when the open blocks were opened.
    directories: u64,
}

/// What may answer, for as long as neither directory nor heartbeat tell anything new.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The proven blocks, by first instant.
    pub(super) blocks: Vec<Candidate>,
    /// What Prometheus answers for though blocks are there, or were.
    pub(super) excluded: Vec<TimeRange>,
    /// The last instant, outside, of the newest block that holds all samples of its range; `None`
    /// where no block may answer.
    pub(super) newest: Option<TimestampMs>,
}

impl Known {
    pub(super) fn new(listing: Listing) -> Self {
        Self {
            listing,
            open: OpenBlocks::default(),
            ahead: Ahead::default(),
            standing: Standing::Unproven { mismatched: false },
            out_of_order: OutOfOrder::default(),
            sequence: 0,
            view: Arc::default(),
            view_of: (0, 0),
            discounted: BTreeSet::new(),
            told: BTreeSet::new(),
            directory_failing: false,
            log_failing: false,
            is_told: false,
            cut: None,
            directories: 0,
        }
    }

    /// The heartbeat does not tell any more what storage Prometheus has: all is asked of it.
    pub(super) fn on_storage_forgotten(&mut self) {
        self.is_told = false;
        self.cut = None;
    }

    /// Makes everything current, with what the heartbeat says is `storage`; whether something
    /// changed. `anew` as for [`Listing::refresh`]. Blocks.
    pub(super) fn refresh(&mut self, storage: &PeerStorage, anew: bool) -> bool {
        self.is_told = true;
        self.refresh_listing(anew);
        if storage.sequence != self.sequence {
            self.sequence = storage.sequence;
            self.prove(storage);
        }
        let view_of = (self.listing.generation, self.sequence);
        let has_changed = view_of != self.view_of;
        if has_changed {
            self.view_of = view_of;
            self.view = Arc::new(self.current_view());
            let on_disk = &self.listing.blocks;
            let is_same = self.directories == self.listing.directories;
            self.directories = self.listing.directories;
            self.open.retain(|id| is_same && on_disk.contains_key(&id));
            self.tell_unreadable();
        }
        has_changed
    }

    /// The blocks that should be opened next though nobody asked yet.
    pub(super) fn ahead(&mut self) -> Vec<BlockId> {
        self.ahead.next(&self.view.blocks, &self.open)
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Finds the first instant that is Prometheus' with all that follow, and keeps it in
    /// [`Known::cut`]; `None` where all is. Blocks.
    pub(super) fn find_cut(
        &mut self,
        storage: &PeerStorage,
        now: TimestampMs,
    ) -> Option<TimestampMs> {
        self.cut = None;
        // While there is a window, the log tells nothing more.
        let log_has_data = match storage.out_of_order_window_ms {
            0 => self.log_has_data()?,
            _ => false,
        };
        self.out_of_order.observe(storage, log_has_data);
        let cut = self.out_of_order.cut(self.view.newest?, storage, now);
        self.cut = (cut > TimestampMs(i64::MIN)).then_some(cut);
        self.cut
    }

    /// `None` where that can't be told.
    fn log_has_data(&mut self) -> Option<bool> {
        match self.listing.out_of_order_log_has_data() {
            Ok(has_data) => {
                self.log_failing = false;
                Some(has_data)
            }
            Err(error) => {
                if !self.log_failing {
                    tracing::warn!(
                        err = %ErrorChain(&error),
                        "whether there are out-of-order samples can't be told, so blocks do not \
                         answer"
                    );
                }
                self.log_failing = true;
                None
            }
        }
    }

    fn refresh_listing(&mut self, anew: bool) {
        match self.listing.refresh(anew) {
            Ok(()) => self.directory_failing = false,
            Err(error) if self.directory_failing => {
                tracing::debug!(err = %ErrorChain(&error), "the data directory is still missing");
            }
            Err(error) => {
                self.directory_failing = true;
                tracing::warn!(
                    err = %ErrorChain(&error),
                    "the data directory can't be listed, so its blocks do not answer"
                );
            }
        }
    }

    fn prove(&mut self, storage: &PeerStorage) {
        let mut bytes = BTreeMap::new();
        if let LoadedBlocks::Counted { blocks, .. } = &storage.blocks {
            // No more than Prometheus has matter: where there are others, the numbers differ.
            let parents = proof::superseded(self.listing.blocks.values());
            let ids: Vec<_> = self.listing.blocks.keys().copied().collect();
            let ids = ids
                .into_iter()
                .filter(|id| parents.binary_search(id).is_err());
            let some = usize::try_from(*blocks).unwrap_or(usize::MAX);
            bytes.extend(ids.take(some).map(|id| (id, self.listing.block_bytes(id))));
        }
        let on_disk = &self.listing.blocks;
        let size = |id| bytes.get(&id).copied().flatten();
        let is_unreadable = |id| self.listing.unreadable.contains_key(&id);
        let proof = proof::prove(on_disk, &storage.blocks, is_unreadable, size);
        if matches!(proof, proof::Proof::Proven { .. }) {
            self.discounted = self.listing.unreadable.keys().copied().collect();
        }
        match (self.standing.follow(proof, on_disk), &self.standing) {
            (Turn::On, standing) => tracing::info!(
                blocks = standing.proven().map_or(0, BTreeMap::len),
                "blocks of the data directory answer from now on, they are proven to be Prometheus'"
            ),
            (Turn::Off, Standing::Off(why)) => tracing::warn!(
                reason = %why,
                "the data directory's blocks are not those of Prometheus, which is asked for \
                 everything now; see that --tsdb.path is its data directory and may be read, or \
                 give --no-store.local-blocks"
            ),
            _ => {}
        }
    }

    fn current_view(&self) -> View {
        let unread = |id: &BlockId| !self.discounted.contains(id);
        let Some(proven) = self.standing.proven() else {
            return View::default();
        };
        if self.listing.unreadable.keys().any(unread) {
            // Nobody knows which range it has, and Prometheus may have loaded it.
            return View::default();
        }
        let on_disk = &self.listing.blocks;
        let (alive, vanished): (Vec<_>, Vec<_>) =
            proven.iter().partition(|(id, _)| on_disk.contains_key(id));
        let superseded = proof::superseded(alive.iter().map(|(_, block)| *block));
        let is_current = |id: &BlockId| superseded.binary_search(id).is_err();
        let usable = alive.iter().filter(|(id, _)| is_current(id));
        let mut blocks: Vec<_> = usable
            .clone()
            .map(|(id, block)| Candidate {
                id: **id,
                range: block.range,
            })
            .collect();
        blocks.sort_unstable_by_key(|block| (block.range.mint, block.id));
        let whole = usable.filter(|(_, block)| !block.hinted);
        let unproven = on_disk.iter().filter(|(id, _)| !proven.contains_key(id));
        let excluded = unproven.chain(vanished).filter(|(id, _)| is_current(id));
        let excluded = excluded.map(|(_, block)| block.range);
        let unreadable = self.standing.unreadable().iter().copied();
        View {
            blocks,
            excluded: excluded.chain(unreadable).collect(),
            newest: whole.map(|(_, block)| block.range.maxt).max(),
        }
    }

    fn tell_unreadable(&mut self) {
        let unreadable = &self.listing.unreadable;
        self.told.retain(|id| unreadable.contains_key(id));
        let mut untold = 0_usize;
        for (id, fault) in unreadable {
            if !self.told.insert(*id) {
                continue;
            }
            untold += 1;
            if untold <= UNREADABLE_TOLD_MAX {
                tracing::warn!(
                    block = %id, err = %ErrorChain(fault),
                    "a block can't be read, so Prometheus answers for it"
                );
            }
        }
        if let Some(others) = untold.checked_sub(UNREADABLE_TOLD_MAX).filter(|n| *n > 0) {
            tracing::warn!(blocks = others, "more blocks can't be read");
        }
    }

    /// All of it for people.
    pub(super) fn status(&self) -> LocalBlocks {
        let unreadable = self.listing.unreadable.iter();
        let unreadable = unreadable.map(|(id, fault)| (*id, ErrorChain(fault).to_string()));
        let failures = self.open.failures();
        let failures = failures.map(|(id, reason)| (id, reason.to_owned()));
        let mut blocks: Vec<_> = unreadable
            .chain(failures)
            .map(|(id, reason)| UnreadableBlock { id, reason })
            .collect();
        blocks.sort_unstable_by_key(|block| block.id);
        let unreadable = blocks.len();
        blocks.truncate(UNREADABLE_NAMED_MAX);
        LocalBlocks {
            standing: match &self.standing {
                _ if !self.is_told => LocalStanding::Waiting,
                Standing::Unproven { .. } => LocalStanding::Waiting,
                Standing::Proven { .. } => LocalStanding::On,
                Standing::Off(why) => LocalStanding::Off {
                    reason: why.to_string(),
                },
            },
            on_disk: self.listing.blocks.len(),
            local: self.view.blocks.len(),
            cut: self.cut,
            unreadable,
            unreadable_blocks: blocks,
        }
    }
}
