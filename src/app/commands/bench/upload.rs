//! One run: uploads the files with one setting and tells what that took.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::Stop;
use super::files::{Load, LoadFile};
use super::measure::{CpuTime, peak_rss_bytes, reset_peak_rss};
use super::setup::{Setup, Target};
use super::source::{FileSource, Interrupted};
use super::sweep::Setting;
use crate::app::commands::progress;
use crate::disk::Dir;
use crate::objstore::{LatencyHistogram, MultipartState, ObjectKey, RequestTotals};

/// How long uploads may take to give up once they are told to.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// What one run took.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) setting: Setting,
    pub(super) objects: u64,
    pub(super) size_bytes: u64,
    pub(super) wall: Duration,
    pub(super) cpu: CpuTime,
    pub(super) rss_peak_bytes: u64,
    /// Of the files, before and after; `None` where the kernel does not tell.
    pub(super) cached_bytes: Option<(u64, u64)>,
    /// Whole objects, from the first read to the answer.
    pub(super) uploads: LatencyHistogram,
    /// Asking the bucket for an object's size.
    pub(super) confirmations: LatencyHistogram,
    /// Uploads that began again from their first byte.
    pub(super) restarts: u64,
    pub(super) requests: Vec<RequestTotals>,
    pub(super) integrity: Option<String>,
}

/// What the workers of a run share.
struct Work<'a> {
    setup: &'a Setup,
    target: &'a Target,
    directory: &'a Dir,
    files: &'a [LoadFile],
    stop: &'a Stop,
    started: Instant,
    next: AtomicUsize,
    sent: AtomicU64,
    tally: Mutex<Tally>,
}

/// What is counted as objects arrive.
#[derive(Default)]
struct Tally {
    size_bytes: u64,
    uploads: LatencyHistogram,
    confirmations: LatencyHistogram,
    restarts: u64,
}

/// Uploads every file at least once, and goes on for the duration that was asked for.
///
/// # Errors
/// The first failure, after which nothing new is begun; also where `stop` has started.
pub(super) async fn measure(
    setup: &Setup,
    target: &Target,
    load: &Load,
    setting: Setting,
    label: &str,
    stop: &Stop,
) -> anyhow::Result<Run> {
    let directory = setup.open(&load.directory).await?;
    let cached_before = load.cached_bytes(&directory).await?;
    reset_peak_rss();
    let before = CpuTime::now()?;
    let work = Work {
        setup,
        target,
        directory: &directory,
        files: &load.files,
        stop,
        started: Instant::now(),
        next: AtomicUsize::new(0),
        sent: AtomicU64::new(0),
        tally: Mutex::default(),
    };
    let goal = setup.goal(load);
    progress::watch(label, goal, &work.sent, work.run(setting)).await?;
    let wall = work.started.elapsed();
    let cpu = CpuTime::now()?.since(before);
    let rss_peak_bytes = peak_rss_bytes()?;
    let cached_after = load.cached_bytes(&directory).await?;
    let tally = work
        .tally
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Run {
        setting,
        objects: tally.uploads.count(),
        size_bytes: tally.size_bytes,
        wall,
        cpu,
        rss_peak_bytes,
        cached_bytes: cached_before.zip(cached_after),
        uploads: tally.uploads,
        confirmations: tally.confirmations,
        restarts: tally.restarts,
        requests: target.requests.totals(),
        integrity: target.requests.integrity_in_use(),
    })
}

// === impl Work ===

impl Work<'_> {
    /// As many workers as files may be in flight; the client itself bounds the parts.
    async fn run(&self, setting: Setting) -> anyhow::Result<()> {
        let wanted = usize::try_from(setting.concurrency.get())?;
        let workers = join_all((0..wanted.min(self.files.len())).map(|slot| async move {
            let outcome = self.work(slot).await;
            if outcome.is_err() {
                self.stop.trigger.start();
            }
            outcome
        }));
        let overdue = async {
            self.stop.drain.started().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        let outcomes = tokio::select! {
            outcomes = workers => outcomes,
            () = overdue => anyhow::bail!("uploads did not give up within {STOP_GRACE:?}"),
        };
        // Of the failures the one that made the others stop.
        let mut failures: Vec<anyhow::Error> =
            outcomes.into_iter().filter_map(Result::err).collect();
        let is_cause = |error: &anyhow::Error| !error.chain().any(|e| e.is::<Interrupted>());
        let at = failures.iter().position(is_cause).unwrap_or_default();
        if at < failures.len() {
            return Err(failures.swap_remove(at));
        }
        Ok(())
    }

    /// Uploads one file after another. Each slot has names of its own, so that no two workers
    /// write one object and a long run fills no bucket.
    async fn work(&self, slot: usize) -> anyhow::Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let is_over = number >= self.files.len();
            if is_over && self.started.elapsed() >= self.setup.duration() {
                return Ok(());
            }
            let at = number % self.files.len();
            if let Some(file) = self.files.get(at) {
                let key = format!("{}/{slot:03}/{at:06}", self.target.prefix);
                self.upload(file, ObjectKey::new(key)?).await?;
            }
        }
    }

    /// One file into the bucket, and its size confirmed as the shipper does.
    async fn upload(&self, file: &LoadFile, key: ObjectKey) -> anyhow::Result<()> {
        anyhow::ensure!(!self.stop.drain.has_started(), Interrupted);
        let source = FileSource {
            engine: &self.setup.engine,
            file: self.directory.open_file(&file.relative).await?,
            stop: &self.stop.drain,
            sent: &self.sent,
            opens: AtomicU64::new(0),
            unfinished: Mutex::new(None),
        };
        self.target.note_object(&key);
        let began = Instant::now();
        let outcome = self.target.bucket.upload(&key, &source).await;
        let upload = began.elapsed();
        self.target.note_unfinished(source.take_unfinished());
        outcome?;
        let began = Instant::now();
        let found = self.target.bucket.attributes(&key).await?;
        let confirmation = began.elapsed();
        let size_bytes = source.file.size_bytes();
        anyhow::ensure!(
            found.size_bytes == size_bytes,
            "object {key} has {} bytes in the bucket instead of {size_bytes}",
            found.size_bytes
        );
        let mut tally = self.tally();
        tally.size_bytes += size_bytes;
        tally.uploads.record(upload);
        tally.confirmations.record(confirmation);
        tally.restarts += source.opens.into_inner().saturating_sub(1);
        Ok(())
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    /// Before it is written: whatever happens then, it is removed.
    fn note_object(&self, key: &ObjectKey) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.objects.insert(key.clone());
    }

    /// What an upload has begun and left.
    fn note_unfinished(&self, left: Option<MultipartState>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.unfinished.extend(left);
    }
}

impl Load {
    /// Bytes of the files that are in the page cache; `None` where the kernel does not tell.
    async fn cached_bytes(&self, directory: &Dir) -> anyhow::Result<Option<u64>> {
        let mut sum = 0;
        for file in &self.files {
            let opened = directory.open_file(&file.relative).await;
            let opened = opened.context("look at what is in the page cache")?;
            match opened.cached_bytes() {
                Ok(bytes) => sum += bytes,
                Err(error) => {
                    tracing::debug!(err = %error, "what is in the page cache is not told");
                    return Ok(None);
                }
            }
        }
        Ok(Some(sum))
    }
}
