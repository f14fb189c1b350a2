//! How soon Prometheus is followed: its readiness, and a change of its configuration.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Bench;
use crate::peer::Peer;
use crate::sidecar::{Launch, Sidecar, Site, get};

/// How often each is measured.
const TIMES: usize = 10;
/// How long Prometheus replays before it is ready.
const REPLAY: Duration = Duration::from_millis(1510);
/// Longer than any reload takes.
const RELOAD_MAX: Duration = Duration::from_secs(60);
/// Between two swaps, so that each finds outrigger idle.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct Follow {
    /// From the end of Prometheus' replay to the first 200 of `/-/ready`.
    pub(crate) ready: Vec<Duration>,
    /// From the swap of a ConfigMap's `..data` to the arrival of the reload at Prometheus.
    pub(crate) reloads: Vec<Duration>,
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Follow> {
    eprintln!("perf: {TIMES} starts beside a Prometheus that replays, {TIMES} ConfigMap swaps");
    let mut ready = Vec::new();
    for _ in 0..TIMES {
        ready.push(readiness(bench)?);
    }
    Ok(Follow {
        ready,
        reloads: reloads(bench)?,
    })
}

fn readiness(bench: &Bench) -> anyhow::Result<Duration> {
    let site = Site::new(bench, "ready")?;
    let peer = Peer::start()?;
    let launch = Launch::outrigger(bench, &site, peer.address);
    let mut sidecar = Sidecar::start(bench, &site, &launch)?;
    std::thread::sleep(REPLAY);
    peer.set_ready(true);
    let started = Instant::now();
    while get(sidecar.address, "/-/ready").is_err() {
        sidecar.check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let waited = started.elapsed();
    sidecar.wait_for_labels()?;
    sidecar.stop()?;
    site.remove()?;
    Ok(waited)
}

fn reloads(bench: &Bench) -> anyhow::Result<Vec<Duration>> {
    let site = Site::new(bench, "reload")?;
    let mount = bench.scratch.join("reload/config");
    let peer = Peer::start()?;
    peer.set_ready(true);
    let config = ConfigMap::mount(&mount)?;
    let mut launch = Launch::outrigger(bench, &site, peer.address);
    let file = mount.join("prometheus.yml");
    launch
        .flags
        .push(format!("--reloader.config-file={}", file.display()));
    let sidecar = Sidecar::start_idle(bench, &site, &launch)?;
    let reload = || peer.reloads.recv_timeout(RELOAD_MAX);
    reload().context("the first reload did not come")?;
    let mut waits = Vec::new();
    for version in 1..=TIMES {
        std::thread::sleep(PAUSE);
        let swapped = config.swap(version)?;
        let reloaded = reload().context("a reload did not come")?;
        waits.push(reloaded.saturating_duration_since(swapped));
    }
    sidecar.stop()?;
    site.remove()?;
    Ok(waits)
}

/// A directory as Kubernetes mounts a ConfigMap: files are links through `..data`, which is
/// replaced.
struct ConfigMap<'a>(&'a Path);

impl<'a> ConfigMap<'a> {
    fn mount(directory: &'a Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let mounted = Self(directory);
        mounted.swap(0)?;
        symlink("..data/prometheus.yml", directory.join("prometheus.yml"))?;
        Ok(mounted)
    }

    /// Puts another version in place. When that was.
    fn swap(&self, version: usize) -> anyhow::Result<Instant> {
        let name = PathBuf::from(format!("..{version}"));
        fs::create_dir(self.0.join(&name))?;
        let text = format!("global:\n  scrape_interval: {}s\n", version + 1);
        fs::write(self.0.join(&name).join("prometheus.yml"), text)?;
        let beside = self.0.join("..data_tmp");
        symlink(&name, &beside)?;
        let started = Instant::now();
        fs::rename(beside, self.0.join("..data"))?;
        Ok(started)
    }
}
