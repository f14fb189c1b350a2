//! `outrigger bench upload`: what a bucket, and this machine towards it, can do.
//!
//! The way of the bytes is the shipper's: disk engine, buffer pool, bucket with its decorators,
//! sizes confirmed at the end. Only the verification of blocks is missing. Stopping goes the way of
//! a failing disk, so that the client gives its uploads up in its own manner; then everything that
//! was written is removed.

mod clean_up;
mod files;
mod measure;
mod report;
mod setup;
mod source;
mod sweep;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;

use self::files::Load;
use self::setup::Setup;
use self::sweep::Setting;
use self::upload::Run;
use super::CommandError;
use super::progress::{self, Goal};
use super::sidecar::runtime;
use crate::app::Environment;
use crate::app::cli::UploadBenchArgs;
use crate::lifecycle::{Drain, DrainTrigger, Signals};

const NAME: &str = "bench upload";

/// How a bench ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It measured what it was to measure.
    Done,
    /// SIGINT or SIGTERM ended it early; what it wrote is removed.
    Interrupted,
}

/// Stops everything, and remembers whether it was by a signal.
#[derive(Clone, Debug)]
struct Stop {
    trigger: DrainTrigger,
    drain: Drain,
    is_interrupted: Arc<AtomicBool>,
}

/// Measures, prints the result to stdout, removes what was written.
///
/// # Errors
/// Where it can't be set up, the bucket or the disk fails, or something that was written stays.
pub fn upload(args: &UploadBenchArgs, environment: &Environment) -> Result<Ended, CommandError> {
    let prepared = runtime().and_then(|runtime| {
        let setup = runtime.block_on(Setup::new(args, environment))?;
        Ok((runtime, setup))
    });
    let (runtime, setup) = prepared.map_err(|source| CommandError::Prepare {
        command: NAME,
        source,
    })?;
    let ended = runtime.block_on(run(&setup));
    runtime.shutdown_timeout(setup::END_GRACE);
    ended.map_err(|source| CommandError::Run {
        command: NAME,
        source,
    })
}

async fn run(setup: &Setup) -> anyhow::Result<Ended> {
    let stop = Stop::on_signal()?;
    let load = setup.load()?;
    let files = load.summary();
    let outcome = measure_all(setup, &load, &stop).await;
    let removed = load.remove();
    let runs = match outcome {
        _ if stop.is_interrupted() => {
            removed?;
            return Ok(Ended::Interrupted);
        }
        outcome => outcome?,
    };
    removed?;
    report::print(setup, &files, &runs)?;
    Ok(Ended::Done)
}

/// One run for each setting, one after another.
async fn measure_all(setup: &Setup, load: &Load, stop: &Stop) -> anyhow::Result<Vec<Run>> {
    generate(load, stop).await?;
    if load.is_in_memory() {
        tracing::warn!(
            directory = %load.directory.display(),
            "the files are on a file system in memory: no disk is measured"
        );
    }
    let mut runs = Vec::new();
    let settings = setup.settings();
    for (number, setting) in (1..).zip(&settings) {
        let label = match settings.len() {
            1 => "uploading".to_owned(),
            count => format!("{number}/{count} {}", setting.label()),
        };
        runs.push(measure(setup, load, *setting, &label, stop).await?);
    }
    Ok(runs)
}

async fn generate(load: &Load, stop: &Stop) -> anyhow::Result<()> {
    if !load.is_generated() {
        return Ok(());
    }
    let written = AtomicU64::new(0);
    let generating = async {
        // The disk is all that this waits for, and nothing else runs yet.
        tokio::task::block_in_place(|| load.generate(&written, &stop.drain))
    };
    let goal = Goal::Bytes(load.size_bytes());
    progress::watch("generating", goal, &written, generating).await
}

/// One run, and the removal of what it wrote whether it went well or not.
async fn measure(
    setup: &Setup,
    load: &Load,
    setting: Setting,
    label: &str,
    stop: &Stop,
) -> anyhow::Result<Run> {
    let target = setup.target(setting)?;
    load.make_cold()?;
    let outcome = upload::measure(setup, &target, load, setting, label, stop).await;
    let removed = clean_up::remove(&target, stop.is_interrupted()).await;
    let run = outcome?;
    removed?;
    Ok(run)
}

// === impl Stop ===

impl Stop {
    /// Stops at the first SIGINT or SIGTERM.
    fn on_signal() -> anyhow::Result<Self> {
        let signals = Signals::catch().context("catch signals")?;
        let stop = Self::new();
        let stopping = stop.clone();
        drop(tokio::spawn(async move {
            let signal = signals.termination().await;
            tracing::info!(signal, "stopping and removing what was written");
            stopping.is_interrupted.store(true, Ordering::Relaxed);
            stopping.trigger.start();
        }));
        Ok(stop)
    }

    fn new() -> Self {
        let (trigger, drain) = Drain::new();
        Self {
            trigger,
            drain,
            is_interrupted: Arc::default(),
        }
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }
}
