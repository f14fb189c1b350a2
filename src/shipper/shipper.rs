//! The shipper of one data directory: what it is made of, when it looks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::bulletin::Bulletin;
use super::flush::Flushing;
use super::flushed::Flushed;
use super::record::Ledger;
use super::schedule::Schedule;
use super::source::HashFunc;
use super::stage::UploadDir;
use super::verdict::Verdicts;
use super::{Policy, ShipperMetrics};
use crate::disk::{Containment, Dir, DirWatch, DiskEngine, DiskError, EntryKind, Faults};
use crate::lifecycle::Drain;
use crate::model::{BlockId, Clock, ErrorChain, ExternalLabels, ShippingStanding, ShippingStatus};
use crate::objstore::Bucket;
use crate::trace::Tracer;

/// How often a data directory is asked for that another process has.
const OWNER_INTERVAL: Duration = Duration::from_secs(1);

/// How often the directory is looked at when nothing is heard from it.
const SYNC_INTERVAL: Duration = Duration::from_secs(30);

/// What the shipper is told by flags.
#[derive(Clone, Debug)]
pub struct ShipperConfig {
    /// Prometheus' data directory (`--tsdb.path`).
    pub data_dir: PathBuf,
    /// The ledger's name in it (`--shipper.meta-file-name`).
    pub ledger_name: PathBuf,
    /// Which blocks to ship and what may hold them back.
    pub policy: Policy,
    /// Per-file hashes in `meta.json` (`--hash-func`).
    pub hash_func: HashFunc,
    /// Chunk segments of one block that are sent at a time; at least 1.
    pub upload_concurrency: usize,
    /// The longest time that a new block waits, so that many sidecars don't send at once
    /// (`--shipper.upload-jitter`).
    pub upload_jitter: Duration,
    /// Tells this process from others, for what is spread by chance.
    pub jitter_seed: u64,
}

/// What the shipper works with.
#[derive(Clone, Debug)]
pub struct Dependencies {
    /// Where blocks go.
    pub bucket: Arc<dyn Bucket>,
    /// Reads the blocks.
    pub engine: DiskEngine,
    /// The external labels, empty until they are known.
    pub labels: watch::Receiver<ExternalLabels>,
    /// Tells the upload time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: ShipperMetrics,
    /// Where it is told how it stands.
    pub status: watch::Sender<ShippingStatus>,
    /// Faults to inject into the data directory.
    pub faults: Faults,
    /// Starts a span for each block; `None` for no spans.
    pub tracer: Option<Tracer>,
}

/// Why the shipper can't start.
#[derive(Debug, thiserror::Error)]
pub enum ShipperError {
    /// The data directory can't be opened.
    #[error("opening tsdb directory")]
    DataDir(#[from] DiskError),
    /// Another directory has taken its place: restored, moved or mounted over.
    #[error(
        "the data directory {} was replaced by another one; a new start ships from that",
        path.display()
    )]
    Replaced {
        /// Its path.
        path: PathBuf,
    },
}

/// Ships the blocks of one data directory to one bucket.
#[derive(Debug)]
pub struct Shipper {
    /// Whether no other process ships from the data directory.
    pub(super) is_owner: bool,
    pub(super) data: Dir,
    pub(super) upload_dir: UploadDir,
    pub(super) ledger: Ledger,
    pub(super) flushed: Flushed,
    /// The head's block, once it is made.
    pub(super) flushing: Option<Flushing>,
    pub(super) policy: Policy,
    pub(super) hash_func: HashFunc,
    pub(super) upload_concurrency: usize,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) engine: DiskEngine,
    pub(super) labels: watch::Receiver<ExternalLabels>,
    pub(super) clock: Clock,
    pub(super) metrics: ShipperMetrics,
    pub(super) bulletin: Bulletin,
    pub(super) verdicts: Verdicts,
    pub(super) schedule: Schedule,
    pub(super) tracer: Option<Tracer>,
}

// === impl Shipper ===

impl ShipperError {
    /// Whether the data directory is not there (yet).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::DataDir(error) if error.is_not_found())
    }
}

impl Shipper {
    /// Opens the data directory and makes sure that it has a valid ledger, before anything else:
    /// a Prometheus that finds none compacts away what was not shipped yet. Where another process
    /// ships from the directory, the ledger is that one's, and [`Shipper::run`] waits.
    ///
    /// # Errors
    /// Where the data directory can't be opened.
    pub async fn open(
        config: ShipperConfig,
        dependencies: Dependencies,
    ) -> Result<Self, ShipperError> {
        let Dependencies {
            bucket,
            engine,
            labels,
            clock,
            metrics,
            status,
            faults,
            tracer,
        } = dependencies;
        let data = Dir::open_with_faults(&config.data_dir, Containment::Beneath, faults).await?;
        match data.kind("wal").await {
            Ok(Some(EntryKind::Directory)) => {}
            outcome => tracing::error!(
                path = %config.data_dir.join("wal").display(), ?outcome,
                "no WAL directory here: is --tsdb.path the data directory of Prometheus?"
            ),
        }
        let mut ledger = Ledger::new(&data, config.ledger_name);
        let is_owner = data.try_lock().await?;
        if is_owner {
            ledger.reload().await;
        }
        Ok(Self {
            is_owner,
            upload_dir: UploadDir::new(data.clone()),
            ledger,
            flushed: Flushed::new(&data),
            flushing: None,
            data,
            policy: config.policy,
            hash_func: config.hash_func,
            upload_concurrency: config.upload_concurrency.max(1),
            bucket,
            engine,
            labels,
            clock,
            metrics,
            bulletin: Bulletin::new(status),
            verdicts: Verdicts::default(),
            schedule: Schedule::new(config.upload_jitter, config.jitter_seed),
            tracer,
        })
    }

    /// Ships until the drain begins: at once, whenever a block appears, and every 30 s. A pass
    /// that is under way then is dropped where it stands; the next run goes on from there.
    ///
    /// # Errors
    /// Where another data directory took the place of this one: its ledger, lock and blocks are
    /// others, and Prometheus works there now.
    pub async fn run(&mut self, drain: Drain) -> Result<(), ShipperError> {
        let starting = async {
            self.own().await;
            self.clear_flush().await;
        };
        if drain.unless_started(starting).await.is_none() {
            return Ok(());
        }
        self.bulletin.standing(ShippingStanding::Running);
        let mut watch = self.watch();
        let mut ticks = tokio::time::interval(SYNC_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = None;
        loop {
            let woken = drain.unless_started(async {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = block_appeared(&mut watch) => {}
                    () = passed(due) => {}
                }
                // What can't be told is told by the pass.
                if matches!(self.data.is_in_place().await, Ok(false)) {
                    let path = self.data.path().to_owned();
                    return Err(ShipperError::Replaced { path });
                }
                Ok(self.sync().await.due)
            });
            match woken.await {
                Some(next) => due = next?,
                None => return Ok(()),
            }
        }
    }

    /// Waits until no other process ships from this data directory: two would write the same
    /// ledger and the same objects.
    async fn own(&mut self) {
        let mut is_told = false;
        while !self.is_owner {
            match self.data.try_lock().await {
                Ok(is_owner) => self.is_owner = is_owner,
                Err(error) => {
                    let err = ErrorChain(&error);
                    tracing::warn!(%err, "the data directory can't be locked, going on without");
                    self.is_owner = true;
                }
            }
            if self.is_owner {
                self.ledger.reload().await;
            } else {
                if !is_told {
                    self.bulletin.standing(ShippingStanding::OtherOwner);
                    tracing::warn!(
                        path = %self.data.path().display(),
                        "another process ships from this data directory; waiting until it ends"
                    );
                    is_told = true;
                }
                tokio::time::sleep(OWNER_INTERVAL).await;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &ShipperMetrics {
        &self.metrics
    }

    fn watch(&self) -> Option<DirWatch> {
        match DirWatch::new(self.data.path()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(
                    err = %ErrorChain(&error),
                    "new blocks can't be heard of, only looked for every 30 s"
                );
                None
            }
        }
    }
}

/// Resolves at a moment; never where there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Resolves when a block may have appeared; never where nothing can be heard.
async fn block_appeared(watch: &mut Option<DirWatch>) {
    while let Some(events) = watch {
        match events.appeared().await {
            Ok(Some(name)) if name.to_str().and_then(BlockId::from_file_name).is_none() => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(err = %error, "new blocks are only looked for every 30 s now");
                *watch = None;
            }
        }
    }
    std::future::pending().await
}
