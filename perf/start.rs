//! What start and idling cost.

use std::fs;
use std::time::{Duration, Instant};

use crate::sidecar::{Launch, Sidecar, Site, get};
use crate::usage::{self, Usage};
use crate::{Bench, peer};

const STARTS: usize = 10;
/// The window of the idle figure that others give; it holds neither heartbeat nor pass.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Start {
    /// From exec to the end of the first answer of `/metrics`.
    pub(crate) waits: Vec<Duration>,
    pub(crate) metrics_bytes: usize,
    pub(crate) idle_rss_bytes: u64,
    pub(crate) idle_rss_anon_bytes: u64,
    /// Windows of idling and the CPU time in them.
    pub(crate) idle: Vec<(Duration, Duration)>,
    pub(crate) binary_bytes: u64,
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Start> {
    eprintln!(
        "perf: {STARTS} starts, then {:?} of idling",
        bench.settings.idle
    );
    let peer = peer::start()?;
    let mut waits = Vec::new();
    let mut metrics_bytes = 0;
    for _ in 0..STARTS {
        let site = Site::new(bench, "start")?;
        let started = Instant::now();
        let mut sidecar = Sidecar::start(bench, &site, &Launch::outrigger(bench, &site, peer))?;
        metrics_bytes = get(sidecar.address, "/metrics")?;
        waits.push(started.elapsed());
        // A signal that comes sooner may find no handler yet.
        sidecar.wait_for_labels()?;
        sidecar.stop()?;
        site.remove()?;
    }
    let site = Site::new(bench, "idle")?;
    let mut sidecar = Sidecar::start_idle(bench, &site, &Launch::outrigger(bench, &site, peer))?;
    let before = usage::thread_times(sidecar.pid)?;
    let started = Instant::now();
    let mut idle = Vec::new();
    for window in [QUIET.min(bench.settings.idle), bench.settings.idle] {
        // The pause is looked through for a signal to the harness.
        sidecar.wait_until("idling", || Ok(started.elapsed() >= window))?;
        let after = usage::thread_times(sidecar.pid)?;
        idle.push((window, usage::cpu_between(&before, &after)));
    }
    let usage = Usage::of(sidecar.pid)?;
    sidecar.stop()?;
    site.remove()?;
    Ok(Start {
        waits,
        metrics_bytes,
        idle_rss_bytes: usage.rss_bytes,
        idle_rss_anon_bytes: usage.rss_anon_bytes,
        idle,
        binary_bytes: fs::metadata(&bench.binary)?.len(),
    })
}
