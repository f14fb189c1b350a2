//! Follows Prometheus: waits until its flags, version and labels are known, then looks again at
//! every interval (contract `prometheus.md` §4).
//!
//! ```text
//! flags ──► version ──► labels ──► beating ─┐
//!   │ each retried for ever     ▲           │ success: up, ready
//!   └─ skipped without uploads  └───────────┘ failure: down, not ready, what is known is kept
//! ```
//! Deviations: a Prometheus that replays its write-ahead log is told as that, not as an error; the
//! lowest timestamp is a side matter whose failure makes nothing unready, and so is what storage
//! Prometheus has, which the reference does not ask for.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::client::{Client, Configuration};
use super::error::PeerError;
use super::flags::{self, FlagError, FlagExpectations, MIN_BLOCK_DURATION_USUAL, validate_flags};
use super::gauges::Gauges;
use super::labels::WindowError;
use super::metrics::PeerMetrics;
use super::state::{PeerFailure, PeerState, PeerWatch};
use super::storage::{ListedBlocks, PeerStorage, Untold};
use crate::lifecycle::{Drain, Probe};
use crate::model::{Clock, ErrorChain, ExternalLabels, PromDuration, TimeOrDuration, TimestampMs};

/// Between attempts while Prometheus starts: it may be ready at any moment, and who waits for its
/// answers waits for us.
const START_RETRY_MIN: Duration = Duration::from_millis(40);

/// The longest time between them, where nothing answers for long.
const START_RETRY_MAX: Duration = Duration::from_secs(2);

/// What to do where Prometheus gives no usable answer.
const UNREACHABLE_REMEDY: &str = "check that Prometheus runs, listens at this URL and lets \
    outrigger in (--prometheus.url, --prometheus.http-client)";

/// After so many looks at Prometheus' storage that failed one after the other, though it is up,
/// what was seen before is too old to build on.
const FAILED_LOOKS_MAX: u32 = 2;

/// How the heartbeat beats.
#[derive(Clone, Debug)]
pub struct HeartbeatConfig {
    /// `--prometheus.get_config_interval`.
    pub interval: Duration,
    /// `--prometheus.get_config_timeout`, for all calls of one iteration together.
    pub timeout: Duration,
    /// `--min-time`.
    pub min_time: TimeOrDuration,
    /// What `min_time` is relative to.
    pub clock: Clock,
    /// What the flags must agree with; `None` where nothing is uploaded.
    pub uploads: Option<FlagExpectations>,
}

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// Prometheus has no external labels, so its blocks could not be told from others'.
    #[error(
        "no external labels configured on Prometheus server, uniquely identifying external labels \
         must be configured; see https://thanos.io/tip/thanos/storage.md/#external-labels"
    )]
    NoExternalLabels,
}

/// The task that follows one Prometheus.
#[derive(Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    client: Client,
    probe: Probe,
    metrics: PeerMetrics,
    state: watch::Sender<PeerState>,
    labels: watch::Sender<ExternalLabels>,
}

/// Why one iteration of the start failed.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Flags(#[from] FlagError),
}

/// What the next look at Prometheus' storage builds on.
#[derive(Debug)]
struct StorageLook {
    /// As the configuration has it that the iteration fetched.
    out_of_order_window: Result<PromDuration, Arc<WindowError>>,
    /// The largest that was told since the last look that succeeded, ms.
    window_max_ms: i64,
    /// How many looks succeeded.
    sequence: u64,
    /// How many failed since.
    failed: u32,
}

/// Why a look at Prometheus' storage failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Flags(#[from] FlagError),
    #[error("Prometheus' configuration is not understood")]
    Window(#[source] Arc<WindowError>),
    #[error(transparent)]
    Untold(#[from] Untold),
}

// === impl StartError ===

impl StartError {
    fn is_replaying(&self) -> bool {
        matches!(self, Self::Peer(error) if error.is_replaying())
    }
}

// === impl Heartbeat ===

impl Heartbeat {
    /// A heartbeat that has not begun, and where its findings will be seen.
    pub fn new(
        config: HeartbeatConfig,
        client: Client,
        probe: Probe,
        metrics: PeerMetrics,
    ) -> (Self, PeerWatch) {
        let initial = PeerState {
            flags_accepted: config.uploads.is_none(),
            ..PeerState::unknown(config.min_time.at(&config.clock))
        };
        let (state, state_seen) = watch::channel(initial);
        let (labels, labels_seen) = watch::channel(ExternalLabels::default());
        let heartbeat = Self {
            config,
            client,
            probe,
            metrics,
            state,
            labels,
        };
        let watch = PeerWatch {
            state: state_seen,
            labels: labels_seen,
        };
        (heartbeat, watch)
    }

    /// Beats until `drain`.
    ///
    /// # Errors
    /// Where Prometheus has no external labels when they are first loaded. An unreachable or
    /// misconfigured Prometheus is waited for.
    pub async fn run(self, drain: Drain) -> Result<(), HeartbeatError> {
        let outcome = drain.unless_started(self.beat()).await;
        self.probe.not_ready(&"shutting down");
        match outcome {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(never)) => match never {},
        }
    }

    async fn beat(&self) -> Result<Infallible, HeartbeatError> {
        if self.config.uploads.is_some() {
            self.retry("validating Prometheus' flags", || self.check_flags())
                .await;
            self.state.send_modify(|state| state.flags_accepted = true);
        }
        let version = self
            .retry("fetching Prometheus' version", || self.build_version())
            .await;
        tracing::info!(version, "connected to Prometheus");
        self.state
            .send_modify(|state| state.build_version = version);
        let Configuration {
            labels,
            out_of_order_window,
        } = self
            .retry("fetching Prometheus' external labels", || {
                self.load_configuration()
            })
            .await;
        if labels.is_empty() {
            return Err(HeartbeatError::NoExternalLabels);
        }
        tracing::info!(external_labels = %labels.0, "loaded external labels from Prometheus");
        let mut ticks = self.ticks();
        let mut loaded = Instant::now();
        let mut look = StorageLook {
            out_of_order_window,
            window_max_ms: 0,
            sequence: 0,
            failed: 0,
        };
        self.note_window(&mut look);
        self.publish(labels);
        loop {
            self.load_side_matters(loaded, &mut look).await;
            ticks.tick().await;
            loaded = Instant::now();
            match self.load_configuration().await {
                Ok(configuration) => {
                    look.out_of_order_window = configuration.out_of_order_window;
                    self.note_window(&mut look);
                    self.publish(configuration.labels);
                }
                Err(error) => self.failed("heartbeat", &error).await,
            }
        }
    }

    /// Tries until it succeeds: soon again where Prometheus gave no answer, at every interval
    /// where it gave a wrong one. What keeps it from succeeding is told at once, when it becomes
    /// something else, and then once an interval.
    async fn retry<T, F>(&self, what: &'static str, attempt: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StartError>>,
    {
        let started = Instant::now();
        let mut told: Option<(bool, Instant)> = None;
        loop {
            let error = match attempt().await {
                Ok(value) => return value,
                Err(error) => error,
            };
            let is_replaying = error.is_replaying();
            let is_told = told.is_some_and(|(replaying, at)| {
                replaying == is_replaying && at.elapsed() < self.config.interval
            });
            if is_told {
                self.note_replay(is_replaying);
            } else {
                told = Some((is_replaying, Instant::now()));
                self.failed(what, &error).await;
            }
            let pause = match &error {
                StartError::Flags(_) => self.config.interval.max(Duration::from_millis(1)),
                StartError::Peer(_) if is_replaying => START_RETRY_MIN,
                StartError::Peer(_) => start_retry(started.elapsed()),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The first tick is one interval from now; ticks missed by a slow iteration are dropped.
    fn ticks(&self) -> tokio::time::Interval {
        let interval = self.config.interval.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    /// Fetches the flags and judges them.
    async fn check_flags(&self) -> Result<(), StartError> {
        let Some(expected) = &self.config.uploads else {
            return Ok(());
        };
        let deadline = Instant::now() + self.config.timeout;
        let flags = self.within(deadline, self.client.flags()).await?;
        let Some(flags) = flags else {
            tracing::warn!("Prometheus does not tell its flags, they are taken for fit");
            return Ok(());
        };
        for warning in validate_flags(&flags, expected, resolved)? {
            tracing::warn!(%warning, "unusual flags of Prometheus");
        }
        Ok(())
    }

    async fn build_version(&self) -> Result<String, StartError> {
        let deadline = Instant::now() + self.config.timeout;
        let version = self.within(deadline, self.client.build_version()).await?;
        Ok(version)
    }

    async fn load_configuration(&self) -> Result<Configuration, StartError> {
        let deadline = Instant::now() + self.config.timeout;
        Ok(self.within(deadline, self.client.configuration()).await?)
    }

    /// Loads what the iteration that began at `started` can do without, in what time is left.
    async fn load_side_matters(&self, started: Instant, look: &mut StorageLook) {
        if !self.state.borrow().up {
            return;
        }
        let deadline = started + self.config.timeout;
        // Before the gauges, so that a block cut from the head in between is on Prometheus' side.
        let blocks = self.within(deadline, self.client.loaded_blocks()).await;
        let range = self.block_range(deadline, look.window_max_ms > 0).await;
        let mut gauges = Gauges::default();
        self.load_lowest(deadline, &mut gauges).await;
        self.note_storage(look, blocks, range, &gauges);
    }

    /// A larger window is in force at once, whatever else can be learned.
    fn note_window(&self, look: &mut StorageLook) {
        let Ok(window) = &look.out_of_order_window else {
            return;
        };
        let window_max_ms = look.window_max_ms.max(millis(window.to_std()));
        look.window_max_ms = window_max_ms;
        self.state.send_if_modified(|state| {
            let known = state.storage.as_mut();
            let smaller = known.filter(|known| known.out_of_order_window_ms < window_max_ms);
            let is_news = smaller.is_some();
            if let Some(storage) = smaller {
                storage.out_of_order_window_ms = window_max_ms;
            }
            is_news
        });
    }

    /// What the head is cut into. It only matters where samples may come out of order.
    async fn block_range(
        &self,
        deadline: Instant,
        out_of_order: bool,
    ) -> Result<Duration, LookError> {
        if out_of_order {
            let flags = self.within(deadline, self.client.flags()).await?;
            Ok(flags::block_range(&flags.unwrap_or_default())?)
        } else {
            Ok(MIN_BLOCK_DURATION_USUAL)
        }
    }

    /// Publishes what was learned of Prometheus' storage, if all was.
    fn note_storage(
        &self,
        look: &mut StorageLook,
        blocks: Result<Option<ListedBlocks>, PeerError>,
        range: Result<Duration, LookError>,
        gauges: &Gauges,
    ) {
        let learn = || {
            let window = look.out_of_order_window.clone();
            let window_ms = millis(window.map_err(LookError::Window)?.to_std());
            // The largest since the last look, so that whoever follows sees it at least once.
            let window_max_ms = look.window_max_ms.max(window_ms);
            let sequence = look.sequence + 1;
            let range_ms = millis(range?);
            let storage = PeerStorage::learned(sequence, blocks?, gauges, window_max_ms, range_ms)?;
            Ok::<_, LookError>((storage, window_ms))
        };
        match learn() {
            Ok((storage, window_ms)) => {
                (look.sequence, look.failed) = (storage.sequence, 0);
                look.window_max_ms = window_ms;
                self.state
                    .send_modify(|state| state.storage = Some(storage));
            }
            Err(error) => self.note_failed_look(look, &error),
        }
    }

    /// One failure keeps what was known before, the next forgets it.
    fn note_failed_look(&self, look: &mut StorageLook, error: &LookError) {
        look.failed = look.failed.saturating_add(1);
        let forgets = look.failed >= FAILED_LOOKS_MAX;
        let err = ErrorChain(error);
        if look.failed == 1 {
            tracing::warn!(
                %err,
                "what storage Prometheus has is not known, what was known before is kept"
            );
        } else if look.failed == FAILED_LOOKS_MAX {
            tracing::warn!(
                %err,
                "what storage Prometheus has is still not known, so it is asked for everything"
            );
        } else {
            tracing::debug!(%err, "Prometheus' storage is still unknown");
        }
        self.state
            .send_if_modified(|state| forgets && state.storage.take().is_some());
    }

    /// Loads the oldest sample's time, and what gauges stand near it.
    async fn load_lowest(&self, deadline: Instant, gauges: &mut Gauges) {
        let lowest = match self
            .within(deadline, self.client.lowest_timestamp(gauges))
            .await
        {
            Ok(lowest) => Some(lowest.unwrap_or(TimestampMs(i64::MIN))),
            Err(error) => {
                tracing::warn!(
                    err = %ErrorChain(&error),
                    "fetching Prometheus' lowest timestamp failed, keeping the one before"
                );
                self.state.borrow().lowest
            }
        };
        let min_time = self.config.min_time.at(&self.config.clock);
        let mint = lowest.map_or(min_time, |lowest| lowest.max(min_time));
        self.state.send_if_modified(|state| {
            let changes = (state.mint, state.lowest) != (mint, lowest);
            (state.mint, state.lowest) = (mint, lowest);
            changes
        });
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        call: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        match tokio::time::timeout_at(deadline, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(PeerError::TimedOut {
                after: self.config.timeout,
            }),
        }
    }

    /// A heartbeat succeeded with these labels.
    fn publish(&self, labels: ExternalLabels) {
        self.metrics.up.set(1);
        self.probe.ready();
        let (known, loaded) = {
            let state = self.state.borrow();
            (state.labels.clone(), state.loaded)
        };
        let change = known != labels;
        if change && loaded {
            if labels.is_empty() {
                tracing::warn!(
                    before = %known.0,
                    "Prometheus has no external labels any more; blocks are not shipped without"
                );
            } else {
                tracing::info!(
                    before = %known.0, external_labels = %labels.0,
                    "external labels of Prometheus changed"
                );
            }
        }
        self.state.send_if_modified(|state| {
            let news = change || !state.up || !state.loaded || state.replaying;
            (state.up, state.loaded, state.replaying) = (true, true, false);
            state.labels.clone_from(&labels);
            news
        });
        if change {
            self.labels.send_replace(labels);
        }
    }

    /// An iteration failed. A replay is not an error: its progress is told instead.
    async fn failed(&self, what: &'static str, error: &StartError) {
        let replaying = error.is_replaying();
        self.metrics.up.set(0);
        self.note_replay(replaying);
        if !replaying {
            self.note_failure(error);
            self.probe.not_ready(&ErrorChain(error));
            tracing::warn!(
                step = what, err = %ErrorChain(error),
                "asking Prometheus failed, trying again"
            );
            return;
        }
        self.probe
            .not_ready(&"Prometheus replays its write-ahead log");
        let deadline = Instant::now() + self.config.timeout;
        match self.within(deadline, self.client.wal_replay()).await {
            Ok(replay) => tracing::info!(
                segment = replay.current,
                first = replay.min,
                last = replay.max,
                "Prometheus is starting, it replays its write-ahead log"
            ),
            Err(cause) => tracing::info!(
                err = %ErrorChain(&cause),
                "Prometheus is starting, its progress is not known"
            ),
        }
    }

    /// For a status page, which asks for it; whoever waits for news has no use for it.
    fn note_failure(&self, error: &StartError) {
        let failure = PeerFailure {
            at: self.config.clock.now(),
            error: ErrorChain(error).to_string(),
            remedy: match error {
                StartError::Peer(_) => Some(UNREACHABLE_REMEDY),
                StartError::Flags(_) => None,
            },
        };
        self.state.send_if_modified(|state| {
            state.last_failure = Some(failure);
            false
        });
    }

    fn note_replay(&self, replaying: bool) {
        self.state.send_if_modified(|state| {
            let news = state.up || state.replaying != replaying;
            (state.up, state.replaying) = (false, replaying);
            news
        });
    }
}

/// How long to wait for an answer after `waited` of waiting: a thousandth more.
fn start_retry(waited: Duration) -> Duration {
    (waited / 1000).clamp(START_RETRY_MIN, START_RETRY_MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The file that a path leads to. The ledger itself may not exist yet, its directory does.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
