//! What happens when: looks at the files, reloads, retries.
//!
//! ```text
//!   change heard ──┐                        ┌── success: loaded = wanted
//!   interval ──────┴─► look ─► wanted ─► attempt
//!                       │        ▲          └── failure ─► pause ─┐
//!                     error      └──────────────────────────────┘
//! ```
//!
//! A look never waits for an attempt: the correction of a configuration that Prometheus does not
//! take is seen at once. An attempt goes on through looks that find nothing new. One that finds
//! something makes it stale: its success is not that of the files as they were seen, so another
//! follows. By HTTP it follows when the first has ended, since Prometheus works off each POST that
//! it ever got; a wait for a signal's outcome is given up.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::digest::Digests;
use super::error::{OUTPUT_FLAG, ReloaderError, StartError, TriggerError};
use super::look::{Files, Lookout, normalise_once};
use super::metrics::ReloaderMetrics;
use super::normalise::Variables;
use super::told::Told;
use super::trigger::Trigger;
use crate::lifecycle::Drain;
use crate::model::{Clock, ErrorChain, ReloadFailure, ReloadStatus};

/// How long a change settles before the look: a swap is some events, and a file that was just
/// created is about to be written.
const SETTLE: Duration = Duration::from_millis(50);

/// The least pause between two looks.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(200);

/// The pause between two looks, as a multiple of what the last one took: where something is written
/// all the time, looking takes a fifth of a core at most.
const LOOK_PAUSE_SHARE: u32 = 4;

/// What the flags say.
#[derive(Clone, Debug)]
pub struct ReloaderConfig {
    /// What is watched.
    pub files: Files,
    /// `--reloader.watch-interval`; zero writes the output once and watches nothing.
    pub watch_interval: Duration,
    /// `--reloader.retry-interval`, above zero.
    pub retry_interval: Duration,
}

/// What the reloader needs of the process.
pub struct Dependencies {
    /// How Prometheus is told.
    pub trigger: Trigger,
    /// The environment, for `$(VAR)`.
    pub variable: Arc<Variables>,
    /// The wall clock.
    pub clock: Clock,
    /// What it counts.
    pub metrics: ReloaderMetrics,
}

/// Keeps Prometheus on the configuration that the files have.
pub struct Reloader {
    config: ReloaderConfig,
    dependencies: Dependencies,
    status: watch::Sender<ReloadStatus>,
}

/// A reload under way.
struct Attempt {
    digests: Digests,
    /// Whether the files were seen to be others, or unreadable, since it began.
    is_stale: bool,
    pulled: Pin<Box<dyn Future<Output = Result<(), TriggerError>> + Send>>,
}

/// A reloader that watches.
struct Following {
    config: ReloaderConfig,
    lookout: Lookout,
    trigger: Trigger,
    clock: Clock,
    metrics: ReloaderMetrics,
    status: watch::Sender<ReloadStatus>,
    /// What the files said at the last look that reached its end.
    wanted: Option<Digests>,
    /// What Prometheus has loaded; `None` where that is not known, as during an attempt and after
    /// one that failed.
    loaded: Option<Digests>,
    attempt: Option<Attempt>,
    /// Whether Prometheus may still be about a reload that is not waited for any more.
    is_unsettled: bool,
    /// How often in a row Prometheus was there and did not take what is wanted.
    verdicts: u32,
    retry_at: Option<Instant>,
    look_at: Instant,
    earliest_look: Instant,
    told: Told,
}

// === impl Reloader ===

impl Reloader {
    /// A reloader that has not begun.
    pub fn new(config: ReloaderConfig, dependencies: Dependencies) -> Self {
        Self {
            config,
            dependencies,
            status: watch::Sender::default(),
        }
    }

    /// How it stands, now and later.
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.subscribe()
    }

    /// Watches and reloads until the drain. With a watch interval of zero it writes the output once
    /// and returns, which ends the process, as the reference does.
    ///
    /// # Errors
    /// Where the first look fails: the configuration can't be read, expanded or written, or a
    /// directory of rules is not there. Without a configuration, what else is wrong with rules is
    /// waited out. Later there is no error.
    pub async fn run(self, drain: Drain) -> Result<(), StartError> {
        let files = &self.config.files;
        if files.is_empty() {
            tracing::debug!("no configuration and no rules to watch");
            drain.started().await;
            return Ok(());
        }
        if files.output.is_some() && files.config_file.is_none() {
            tracing::warn!(
                component = "reloader",
                flag = OUTPUT_FLAG,
                "nothing is written without --reloader.config-file"
            );
        }
        let ended = match self.config.watch_interval.is_zero() {
            true => drain.unless_started(self.once()).await,
            false => drain.unless_started(self.follow()).await,
        };
        ended.unwrap_or(Ok(()))
    }

    async fn once(self) -> Result<(), StartError> {
        let files = Arc::new(self.config.files);
        let normalised = normalise_once(&files, &self.dependencies.variable).await;
        normalised.map_err(StartError::from)?;
        tracing::info!(
            component = "reloader",
            "nothing is watched and Prometheus is not told to reload, since \
             --reloader.watch-interval is 0; ending"
        );
        Ok(())
    }

    async fn follow(self) -> Result<(), StartError> {
        let Dependencies {
            trigger,
            variable,
            clock,
            metrics,
        } = self.dependencies;
        let files = Arc::new(self.config.files.clone());
        let now = Instant::now();
        let mut following = Following {
            config: self.config,
            lookout: Lookout::new(files, variable, metrics.clone()),
            trigger,
            clock,
            metrics,
            status: self.status,
            wanted: None,
            loaded: None,
            attempt: None,
            is_unsettled: false,
            verdicts: 0,
            retry_at: None,
            look_at: now,
            earliest_look: now,
            told: Told::default(),
        };
        following.first_look().await?;
        following.run().await
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependencies")
            .field("trigger", &self.trigger)
            .finish_non_exhaustive()
    }
}

impl From<ReloaderError> for StartError {
    fn from(source: ReloaderError) -> Self {
        Self {
            remedy: source.remedy(),
            source,
        }
    }
}

// === impl Following ===

impl Following {
    async fn first_look(&mut self) -> Result<(), StartError> {
        match self.look().await {
            Ok(digests) => self.want(digests),
            Err(error) if self.is_fatal(&error) => return Err(error.into()),
            Err(error) => self.on_look_error(&error),
        }
        tracing::info!(
            component = "reloader",
            files = self.config.files.shown(),
            method = self.trigger.method(),
            watched_dirs = self.lookout.watched_dirs(),
            "watching configuration and rules"
        );
        Ok(())
    }

    /// Whether the reference would not start either: it looks at a configuration before anything
    /// else, and watches each directory of rules.
    fn is_fatal(&self, first: &ReloaderError) -> bool {
        let files = &self.config.files;
        let is_root = |path: &PathBuf| files.rule_dirs.contains(path);
        files.config_file.is_some() || first.missing().is_some_and(is_root)
    }

    async fn run(mut self) -> Result<(), StartError> {
        loop {
            tokio::select! {
                () = self.lookout.changed() => {
                    let soon = (Instant::now() + SETTLE).max(self.earliest_look);
                    self.look_at = self.look_at.min(soon);
                }
                () = tokio::time::sleep_until(self.look_at) => self.look_again().await,
                () = passed(self.retry_at) => {
                    if let Some(digests) = self.wanted {
                        self.begin(digests);
                    }
                }
                outcome = concluded(&mut self.attempt) => {
                    if let Some(attempt) = self.attempt.take() {
                        self.on_concluded(&attempt, outcome);
                    }
                }
            }
        }
    }

    fn on_concluded(&mut self, attempt: &Attempt, outcome: Result<(), TriggerError>) {
        if let Err(error) = &outcome {
            self.on_reload_error(error);
        }
        match outcome {
            _ if attempt.is_stale => {
                self.retry_at = None;
                // Where the files can't be read, the look that can begins.
                if let Some(wanted) = self.wanted {
                    self.begin(wanted);
                }
            }
            // Told by signal, that may have been the reload before: once more.
            Ok(()) if self.is_unsettled && !self.trigger.is_exact() => {
                self.is_unsettled = false;
                self.begin(attempt.digests);
            }
            Ok(()) => self.on_reloaded(attempt.digests),
            Err(_) => {}
        }
    }

    async fn look(&mut self) -> Result<Digests, ReloaderError> {
        let began = Instant::now();
        let outcome = self.lookout.look().await;
        let now = Instant::now();
        let pause = LOOK_PAUSE_MIN.max((now - began) * LOOK_PAUSE_SHARE);
        self.earliest_look = now + pause;
        self.look_at = now + self.config.watch_interval.max(LOOK_PAUSE_MIN);
        let is_unset = matches!(&outcome, Err(error) if error.is_unset_variable());
        self.metrics.expansion_errors.set(i64::from(is_unset));
        let watched_dirs = self.lookout.watched_dirs();
        self.status.send_if_modified(|status| {
            std::mem::replace(&mut status.watched_dirs, watched_dirs) != watched_dirs
        });
        outcome
    }

    async fn look_again(&mut self) {
        self.metrics.applies.inc();
        match self.look().await {
            Ok(digests) => self.want(digests),
            Err(error) => {
                self.metrics.applies_failed.inc();
                self.on_look_error(&error);
            }
        }
    }

    /// Decides whether Prometheus must be told.
    fn want(&mut self, digests: Digests) {
        let is_new = self.wanted.replace(digests) != Some(digests);
        let is_exact = self.trigger.is_exact();
        if let Some(attempt) = self.attempt.as_mut().filter(|_| is_new && is_exact) {
            attempt.is_stale = true;
            self.verdicts = 0;
        } else if self.loaded == Some(digests) {
            self.told.forget();
            self.publish(|status| status.is_current = true);
        } else if is_new {
            self.verdicts = 0;
            self.begin(digests);
        }
        // Otherwise an attempt is under way or the next one waits for its time.
    }

    /// Tells Prometheus, and gives up an attempt that is under way.
    fn begin(&mut self, digests: Digests) {
        self.metrics.reloads.inc();
        if self.attempt.is_some() {
            self.metrics.reloads_failed.inc();
            self.is_unsettled = true;
        }
        self.loaded = None;
        self.retry_at = None;
        self.attempt = Some(Attempt {
            digests,
            is_stale: false,
            pulled: Box::pin(self.trigger.clone().pull()),
        });
        self.publish(|status| status.is_current = false);
    }

    fn on_reloaded(&mut self, digests: Digests) {
        let now = self.clock.now();
        self.loaded = Some(digests);
        self.verdicts = 0;
        self.is_unsettled = false;
        self.told.forget();
        self.metrics.last_reload_successful.set(1);
        self.metrics.last_reload_success.set(now.0.div_euclid(1000));
        self.publish(|status| {
            status.is_current = true;
            status.last_success = Some(now);
        });
        tracing::info!(
            component = "reloader",
            files = self.config.files.shown(),
            method = self.trigger.method(),
            "Prometheus has reloaded"
        );
    }

    fn on_reload_error(&mut self, error: &TriggerError) {
        self.metrics.reloads_failed.inc();
        self.metrics.last_reload_successful.set(0);
        self.is_unsettled |= matches!(error, TriggerError::TimedOut { .. });
        let is_verdict = error.is_verdict();
        self.verdicts = match is_verdict {
            true => self.verdicts.saturating_add(1),
            false => 0,
        };
        let pause = retry_pause(&self.config, self.verdicts);
        self.retry_at = Some(Instant::now() + pause);
        let (text, remedy) = (ErrorChain(error).to_string(), error.remedy());
        let (is_news, retry_in) = (self.told.is_news(&text), pause);
        if is_news && is_verdict {
            tracing::error!(
                component = "reloader",
                err = text,
                remedy,
                ?retry_in,
                "reloading Prometheus failed"
            );
        } else if is_news {
            tracing::warn!(
                component = "reloader",
                err = text,
                remedy,
                ?retry_in,
                "Prometheus can't be told to reload"
            );
        } else {
            tracing::debug!(err = text, ?retry_in, "reloading Prometheus failed again");
        }
        self.on_failure(text, remedy);
    }

    /// Nothing is reloaded while the files can't be read, and what is under way may have read them
    /// as they are now: Prometheus takes it for no error where rules are missing.
    fn on_look_error(&mut self, error: &ReloaderError) {
        self.wanted = None;
        self.retry_at = None;
        if let Some(attempt) = &mut self.attempt {
            attempt.is_stale = true;
        }
        let (text, remedy) = (ErrorChain(error).to_string(), error.remedy());
        if self.told.is_news(&text) {
            tracing::error!(
                component = "reloader",
                err = text,
                remedy,
                "configuration or rules can't be applied; Prometheus keeps what it has"
            );
        } else {
            tracing::debug!(err = text, "configuration or rules still can't be applied");
        }
        self.on_failure(text, remedy);
    }

    fn on_failure(&mut self, error: String, remedy: &'static str) {
        let failure = ReloadFailure {
            at: self.clock.now(),
            error,
            remedy: Some(remedy),
        };
        self.publish(|status| {
            status.is_current = false;
            status.last_failure = Some(failure);
        });
    }

    /// Wakes those who watch the status where it changes.
    fn publish(&self, change: impl FnOnce(&mut ReloadStatus)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

/// Every retry interval while Prometheus is not there. One that was there and did not take the
/// configuration parses it and writes to its log each time, so the pauses double up to the watch
/// interval; a change of the files begins anew at once.
pub(super) fn retry_pause(config: &ReloaderConfig, verdicts: u32) -> Duration {
    let doublings = verdicts.saturating_sub(1).min(16);
    let doubled = config.retry_interval.saturating_mul(1 << doublings);
    doubled.min(config.watch_interval.max(config.retry_interval))
}

/// Resolves at a moment; never where there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the attempt does; never where there is none.
async fn concluded(attempt: &mut Option<Attempt>) -> Result<(), TriggerError> {
    match attempt {
        Some(attempt) => attempt.pulled.as_mut().await,
        None => std::future::pending().await,
    }
}
