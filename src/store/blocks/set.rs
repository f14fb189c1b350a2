//! The blocks of the data directory that may answer, and the plans made of them.
//!
//! Whoever plans makes sure that what is known is current: the directory's own times tell whether
//! names came or went, each block's tombstones are looked at, blocks are opened when they are first
//! needed. [`BlockSet::follow`] does the same at every event, heartbeat and tick, so that a plan
//! seldom has to, and blocks that are deleted hold no disk space. It opens the newest blocks ahead.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::block::Block;
use super::known::{Known, View};
use super::listing::{self, Listing};
use super::metrics::BlockMetrics;
use super::open::{self, Failure, OPEN_BLOCKS_MAX, OPEN_WEIGHT_MAX, Opening};
use super::plan::{self, Candidate, Division, LocalBlock, Plan, Sources};
use super::status::{LocalBlocks, LocalStanding};
use crate::disk::{Dir, DirChange, DirWatch};
use crate::lifecycle::{Drain, blocking};
use crate::model::{BlockId, Clock, TimestampMs};
use crate::prometheus::{PeerState, PeerStorage};
use crate::store::QueryRange;

/// How often the directory is looked at where no event comes: NFS and overlayfs have none.
const TICK: Duration = Duration::from_secs(30);
/// Blocks seldom touch: the head is cut into blocks that begin with their first sample. What lies
/// between proven blocks, which are all that Prometheus has, is nobody's; only where a whole block
/// of the usual two hours could lie is Prometheus asked nevertheless.
const GAP_MS_MAX: i64 = 3_600_000;
/// A tombstones file of this size or less names nothing: magic, version, CRC (contract `tsdb.md`
/// §5).
const NO_TOMBSTONES_BYTES: u64 = 4 + 1 + 4;

/// The blocks of one data directory; cheap to clone.
#[derive(Clone, Debug)]
pub struct BlockSet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    data_dir: PathBuf,
    clock: Clock,
    peer: watch::Receiver<PeerState>,
    metrics: BlockMetrics,
    known: Mutex<Known>,
    status: watch::Sender<LocalBlocks>,
}

/// What one plan has found out.
#[derive(Debug, Default)]
struct Attempt {
    unusable: HashSet<BlockId>,
    /// Below it all is left to Prometheus; `None` where nothing is.
    floor: Option<TimestampMs>,
    opened: HashMap<BlockId, Arc<Block>>,
}

// === impl BlockSet ===

impl BlockSet {
    /// The blocks in `data_dir`, as the heartbeat that writes `peer` proves them.
    pub fn new(
        data_dir: PathBuf,
        clock: Clock,
        peer: watch::Receiver<PeerState>,
        metrics: BlockMetrics,
    ) -> Self {
        let known = Mutex::new(Known::new(Listing::new(data_dir.clone())));
        Self(Arc::new(Shared {
            data_dir,
            clock,
            peer,
            metrics,
            known,
            status: watch::Sender::default(),
        }))
    }

    /// What people may want to know of it.
    pub fn status(&self) -> watch::Receiver<LocalBlocks> {
        self.0.status.subscribe()
    }

    /// Who answers for which part of `range`. Blocks.
    pub fn plan(&self, range: QueryRange) -> Plan {
        let plan = self.0.plan(range).unwrap_or_else(|| Plan {
            remote: vec![range],
            ..Plan::default()
        });
        self.0.metrics.planned(&plan);
        plan
    }

    /// Follows the data directory and the heartbeat until `drain`.
    pub async fn follow(self, drain: Drain) {
        // Each await point is between two looks.
        drain.unless_started(self.follow_on()).await;
    }

    async fn follow_on(&self) {
        let mut peer = Some(self.0.peer.clone());
        let mut watch = Watch::new(&self.0.data_dir);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more_ahead = false;
        loop {
            let anew = tokio::select! {
                () = std::future::ready(()), if more_ahead => false,
                _ = ticks.tick() => {
                    watch.renew(&self.0.data_dir);
                    true
                }
                () = watch.changed() => false,
                told = heard(&mut peer) => {
                    if !told {
                        // The heartbeat has ended; what it told last stands.
                        peer = None;
                    }
                    false
                }
            };
            let shared = Arc::clone(&self.0);
            let look = move || {
                shared.look(anew);
                shared.open_ahead()
            };
            more_ahead = blocking(look).await;
        }
    }
}

/// The next change of what the heartbeat tells; `false` where there will be none.
async fn heard(peer: &mut Option<watch::Receiver<PeerState>>) -> bool {
    match peer {
        Some(peer) => peer.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// The directory's events, while there are any.
#[derive(Debug)]
struct Watch {
    events: Option<DirWatch>,
    /// Whether the log knows that there are none.
    told: bool,
}

impl Watch {
    fn new(path: &std::path::Path) -> Self {
        let mut watch = Self {
            events: None,
            told: false,
        };
        watch.renew(path);
        watch
    }

    /// Watches again, where that ended.
    fn renew(&mut self, path: &std::path::Path) {
        if self.events.is_some() {
            return;
        }
        match DirWatch::of_changes(path) {
            Ok(events) => (self.events, self.told) = (Some(events), false),
            Err(error) if self.told => {
                tracing::debug!(err = %error, "the data directory still can't be watched");
            }
            Err(error) => {
                self.told = true;
                tracing::info!(
                    err = %error,
                    "the data directory can't be watched, it is looked at every 30 seconds"
                );
            }
        }
    }

    /// Resolves when blocks may have come or gone.
    async fn changed(&mut self) {
        let is_block = |name: &std::ffi::OsStr| {
            let name = name.to_str();
            name.is_some_and(|name| BlockId::from_file_name(name).is_some())
        };
        loop {
            let Some(events) = &mut self.events else {
                return std::future::pending().await;
            };
            match events.changed().await {
                Ok(DirChange::Appeared(name) | DirChange::Vanished(name)) if !is_block(&name) => {}
                Ok(DirChange::Appeared(_) | DirChange::Vanished(_) | DirChange::Lost) => return,
                Ok(DirChange::Gone) | Err(_) => {
                    self.events = None;
                    return;
                }
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storage(&self) -> Option<PeerStorage> {
        self.peer.borrow().storage.clone()
    }

    /// Makes what is known current. Blocks.
    fn look(&self, anew: bool) {
        let storage = self.storage();
        let mut known = self.known();
        if let Some(storage) = storage {
            known.refresh(&storage, anew);
            known.find_cut(&storage, self.clock.now());
        } else {
            known.on_storage_forgotten();
        }
        self.tell(&known);
    }

    /// Opens a few of the blocks that will be asked for; whether there were any. Blocks.
    fn open_ahead(&self) -> bool {
        let (dir, ids, failing) = {
            let mut known = self.known();
            let Some(dir) = known.listing.dir().cloned() else {
                return false;
            };
            let ids = known.ahead();
            let failing = match ids.is_empty() {
                true => HashSet::new(),
                false => known.open.failing(&dir),
            };
            (dir, ids, failing)
        };
        for id in ids.iter().filter(|id| !failing.contains(id)) {
            if !has_tombstones(&dir, *id) {
                let opening = self.known().open.get_ahead(*id);
                drop(self.opened(&dir, *id, &opening));
            }
        }
        if !ids.is_empty() {
            self.trim();
        }
        !ids.is_empty()
    }

    /// Publishes status and gauges.
    fn tell(&self, known: &Known) {
        let status = known.status();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics
            .on
            .set(i64::from(status.standing == LocalStanding::On));
        self.metrics.blocks.set(count(status.local));
        self.metrics.unreadable.set(count(status.unreadable));
        self.tell_open(known);
        #[expect(clippy::cast_precision_loss, reason = "exact for 280,000 years")]
        let cut = status.cut.map_or(0.0, |cut| cut.0 as f64 / 1000.0);
        self.metrics.cut_seconds.set(cut);
        self.status.send_if_modified(|before| {
            let is_news = *before != status;
            *before = status;
            is_news
        });
    }

    /// `None` where all is Prometheus'.
    fn plan(&self, range: QueryRange) -> Option<Plan> {
        let storage = self.storage()?;
        let (view, dir, cut, mut attempt) = {
            let mut known = self.known();
            let has_changed = known.refresh(&storage, false);
            let cut = known.find_cut(&storage, self.clock.now());
            if has_changed {
                self.tell(&known);
            }
            let dir = known.listing.dir()?.clone();
            let attempt = Attempt {
                unusable: known.open.failing(&dir),
                ..Attempt::default()
            };
            (known.view(), dir, cut?, attempt)
        };
        let plan = self.planned(range, (&dir, &view, cut), &mut attempt);
        self.trim();
        plan
    }

    /// Lets go of what is over the limits. Once a plan: what that opened it holds itself.
    fn trim(&self) {
        let mut known = self.known();
        known.open.trim(OPEN_BLOCKS_MAX, OPEN_WEIGHT_MAX);
        self.tell_open(&known);
    }

    fn tell_open(&self, known: &Known) {
        let open = known.open.len();
        self.metrics
            .open
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// `None` where all is Prometheus'. Blocks.
    fn planned(
        &self,
        range: QueryRange,
        (dir, view, cut): (&Dir, &View, TimestampMs),
        attempt: &mut Attempt,
    ) -> Option<Plan> {
        // Each round finds another block that can't be used, or raises the floor.
        loop {
            let division = plan::divide(
                range,
                &Sources {
                    blocks: &view.blocks,
                    gap_ms_max: GAP_MS_MAX,
                    unusable: &attempt.unusable,
                    excluded: &view.excluded,
                    cut,
                    floor: attempt.floor.unwrap_or(TimestampMs(i64::MIN)),
                },
            );
            if division.covered.is_empty() {
                return None;
            }
            if self.prepare(dir, view, &division, attempt) {
                return assembled(view, division, &attempt.opened);
            }
        }
    }

    /// Whether all blocks of `division` are open and have no tombstones; otherwise `attempt` says
    /// which do not fit. Blocks.
    fn prepare(&self, dir: &Dir, view: &View, division: &Division, attempt: &mut Attempt) -> bool {
        let picked = division
            .local
            .iter()
            .filter_map(|(at, _)| view.blocks.get(*at));
        let mut picked: Vec<Candidate> = picked.copied().collect();
        picked.sort_unstable_by_key(|block| std::cmp::Reverse((block.range.maxt, block.id)));
        if let Some(first_too_many) = picked.get(OPEN_BLOCKS_MAX) {
            attempt.floor = Some(first_too_many.range.maxt);
            return false;
        }
        let known_unusable = attempt.unusable.len();
        for block in &picked {
            if !attempt.opened.contains_key(&block.id) && has_tombstones(dir, block.id) {
                attempt.unusable.insert(block.id);
            }
        }
        let mut weight = 0_usize;
        for block in &picked {
            if attempt.unusable.contains(&block.id) {
                continue;
            }
            let Some(open) = self.open(dir, block.id, attempt) else {
                attempt.unusable.insert(block.id);
                continue;
            };
            weight = weight.saturating_add(open::weight(&open));
            if weight > OPEN_WEIGHT_MAX {
                attempt.floor = Some(block.range.maxt);
                return false;
            }
        }
        attempt.unusable.len() == known_unusable
    }

    /// The block, open; `None` where that can't be. Blocks.
    fn open(&self, dir: &Dir, id: BlockId, attempt: &mut Attempt) -> Option<Arc<Block>> {
        if let Some(open) = attempt.opened.get(&id) {
            return Some(Arc::clone(open));
        }
        let opening = self.known().open.get(id);
        let block = self.opened(dir, id, &opening)?;
        attempt.opened.insert(id, Arc::clone(&block));
        Some(block)
    }

    /// Opens it, unless that was done, and tells what came of it. Blocks.
    fn opened(&self, dir: &Dir, id: BlockId, opening: &Opening) -> Option<Arc<Block>> {
        let opened = opening.block(dir, id);
        let mut known = self.known();
        match opened {
            Ok(block) => {
                if known.open.note_success(id) {
                    self.tell(&known);
                    tracing::info!(block = %id, "a block can be read again");
                }
                if !known.listing.blocks.contains_key(&id) {
                    // It vanished meanwhile, and nobody would ever let go of it.
                    known.open.retain(|other| other != id);
                }
                Some(block)
            }
            Err(failure) => {
                let is_news = known.open.note_failure(id, opening, &failure);
                if is_news {
                    self.tell(&known);
                }
                drop(known);
                tell_failure(id, &failure, is_news);
                None
            }
        }
    }
}

fn tell_failure(id: BlockId, failure: &Failure, is_news: bool) {
    if failure.has_vanished {
        tracing::debug!(block = %id, "a block vanished before it was opened");
    } else if is_news {
        tracing::warn!(
            block = %id, err = %failure,
            "a block can't be opened, so Prometheus answers for it"
        );
    }
}

/// `None` where a block is missing: no answer may lack it.
fn assembled(
    view: &View,
    division: Division,
    opened: &HashMap<BlockId, Arc<Block>>,
) -> Option<Plan> {
    let local = division.local.into_iter().map(|(at, ranges)| {
        let block = opened.get(&view.blocks.get(at)?.id)?;
        Some(LocalBlock {
            block: Arc::clone(block),
            ranges,
        })
    });
    Some(Plan {
        local: local.collect::<Option<_>>()?,
        covered: division.covered,
        remote: division.remote,
    })
}

/// Whether samples of the block are marked as deleted, or that can't be told. Blocks.
fn has_tombstones(dir: &Dir, id: BlockId) -> bool {
    match listing::size_of(dir, &listing::path(id, "tombstones")) {
        Ok(bytes) => bytes > NO_TOMBSTONES_BYTES,
        // A block that is not there any more has no such file either; names do not come back, so
        // one that is there now was there before.
        Err(error) => !error.is_not_found() || !listing::is_there(dir, id),
    }
}

#[cfg(test)]
mod tests;
