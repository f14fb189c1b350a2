//! One look at the files, and hearing when the next one is due.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::{Digest, Digests};
use super::error::{CONFIG_FLAG, OUTPUT_FLAG, RULES_FLAG, ReloaderError, watch_remedy};
use super::metrics::ReloaderMetrics;
use super::normalise::{self, CONFIG_BYTES_MAX, Output, Variables};
use super::survey::{DIRS_MAX, Survey};
use super::told::Told;
use crate::disk::{DiskError, WatchSet, WatchSetChange};
use crate::lifecycle::blocking;
use crate::model::ErrorChain;

/// How often the directories are looked for, each time that some of them were not watched before:
/// what happens in a directory before it is watched is not heard.
const SURVEYS_MAX: usize = 4;

/// The files that are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `--reloader.config-file`.
    pub config_file: Option<PathBuf>,
    /// `--reloader.config-envsubst-file`; nothing without a configuration.
    pub output: Option<PathBuf>,
    /// `--reloader.rule-dir`.
    pub rule_dirs: Vec<PathBuf>,
}

/// Looks at the files and hears of their changes.
pub(super) struct Lookout {
    files: Arc<Files>,
    variable: Arc<Variables>,
    metrics: ReloaderMetrics,
    /// `None` where nothing can be heard; each look tries again.
    watch: Option<WatchSet>,
    survey: Survey,
    told: Told,
    told_cut: bool,
}

// === impl Files ===

impl Files {
    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.config_file.is_none() && self.rule_dirs.is_empty()
    }

    /// The flags that are set, with their values, for the log.
    pub(super) fn shown(&self) -> String {
        let Self {
            config_file,
            output,
            rule_dirs,
        } = self;
        let config = config_file.iter().map(|path| (CONFIG_FLAG, path));
        let output = output.iter().map(|path| (OUTPUT_FLAG, path));
        let rules = rule_dirs.iter().map(|path| (RULES_FLAG, path));
        let all = config.chain(output).chain(rules);
        let all = all.map(|(flag, path)| format!("--{flag}={}", path.display()));
        all.collect::<Vec<String>>().join(" ")
    }

    /// Writes the output, where there is one, and tells what the files say. Blocks.
    fn digests(&self, variable: &Variables) -> Result<Digests, ReloaderError> {
        // In this order, since the output may lie among the rules.
        let config = self.config_file.as_deref();
        let config = config.map(|path| self.config_digest(path, variable));
        Ok(Digests {
            config: config.transpose()?,
            rules: Digest::of_rules(&self.rule_dirs)?,
        })
    }

    /// Writes the output, where there is one, and tells what the configuration says. Blocks.
    fn config_digest(&self, path: &Path, variable: &Variables) -> Result<Digest, ReloaderError> {
        let Some(output) = &self.output else {
            return Digest::of_file(path, CONFIG_FLAG, CONFIG_BYTES_MAX);
        };
        // Read once, so that the digest is of what was written.
        let content = normalise::read(path)?;
        let digest = Digest::of_content(path, &content);
        if normalise::normalise(path, content, output, variable)? == Output::Written {
            tracing::debug!(path = %output.display(), "wrote the expanded configuration");
        }
        Ok(digest)
    }
}

/// Only the configuration, once.
pub(super) async fn normalise_once(
    files: &Arc<Files>,
    variable: &Arc<Variables>,
) -> Result<(), ReloaderError> {
    let (files, variable) = (Arc::clone(files), Arc::clone(variable));
    blocking(move || match &files.config_file {
        Some(path) => files.config_digest(path, &*variable).map(drop),
        None => Ok(()),
    })
    .await
}

// === impl Lookout ===

impl Lookout {
    pub(super) fn new(
        files: Arc<Files>,
        variable: Arc<Variables>,
        metrics: ReloaderMetrics,
    ) -> Self {
        Self {
            files,
            variable,
            metrics,
            watch: None,
            survey: Survey::default(),
            told: Told::default(),
            told_cut: false,
        }
    }

    /// What the files say now. The output is written on the way. Directories are watched before
    /// anything is read in them, so that no change falls between.
    pub(super) async fn look(&mut self) -> Result<Digests, ReloaderError> {
        if self.watch.is_none() {
            self.begin_to_watch();
        }
        for _ in 0..SURVEYS_MAX {
            let files = Arc::clone(&self.files);
            self.survey = blocking(move || Survey::of(&files)).await;
            if !self.watch_surveyed().await {
                break;
            }
        }
        if self.survey.is_cut && !self.told_cut {
            self.told_cut = true;
            tracing::warn!(
                component = "reloader",
                dirs_max = DIRS_MAX,
                "there are more directories than are watched; changes in the others are found \
                 every --reloader.watch-interval"
            );
        }
        let (files, variable) = (Arc::clone(&self.files), Arc::clone(&self.variable));
        blocking(move || files.digests(&*variable)).await
    }

    /// Resolves when something happened that may matter; never where nothing can be heard.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some(watch) = &mut self.watch else {
                return std::future::pending().await;
            };
            match watch.changed().await {
                Ok(change) => {
                    self.metrics.watch_events.inc();
                    if self.concerns(&change) {
                        return;
                    }
                }
                Err(error) => {
                    self.metrics.watch_errors.inc();
                    tracing::warn!(
                        component = "reloader",
                        err = %error,
                        "changes of configuration and rules are not heard of until the next look"
                    );
                    self.watch = None;
                    return;
                }
            }
        }
    }

    /// How many directories are watched.
    pub(super) fn watched_dirs(&self) -> usize {
        self.watch.as_ref().map_or(0, WatchSet::len)
    }

    fn concerns(&self, change: &WatchSetChange) -> bool {
        match change {
            WatchSetChange::Lost | WatchSetChange::Gone { .. } => true,
            WatchSetChange::Entry { dirs, name } => {
                dirs.iter().any(|dir| self.survey.concerns(dir, name))
            }
        }
    }

    fn begin_to_watch(&mut self) {
        match WatchSet::new() {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => self.on_watch_errors(&[&error]),
        }
    }

    /// Whether there were directories among the surveyed that were not watched before.
    async fn watch_surveyed(&mut self) -> bool {
        let Some(watch) = &mut self.watch else {
            return false;
        };
        let outcome = watch.set(self.survey.dirs()).await;
        let watched = i64::try_from(watch.len()).unwrap_or(i64::MAX);
        self.metrics.watches.set(watched);
        // One that has gone in between is told by the directory that it was in.
        let failed = outcome.failed.iter().filter(|error| !error.is_not_found());
        let failed: Vec<&DiskError> = failed.collect();
        self.on_watch_errors(&failed);
        outcome.added > 0
    }

    /// Tells the first, since the others are of its kind.
    fn on_watch_errors(&mut self, errors: &[&DiskError]) {
        let Some(&first) = errors.first() else {
            return;
        };
        self.metrics.watch_errors.inc_by(errors.len() as u64);
        let text = ErrorChain(first).to_string();
        if self.told.is_news(&text) {
            tracing::warn!(
                component = "reloader",
                err = text,
                remedy = watch_remedy(first),
                dirs = errors.len(),
                "directories can't be watched, changes are found every --reloader.watch-interval"
            );
        }
    }
}
