//! What shipping blocks to a FILESYSTEM bucket costs, beside a plain copy of the same files.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::block::Load;
use crate::sidecar::{Launch, Sidecar, Site};
use crate::usage::{self, Usage};
use crate::{Bench, copy, peer};

/// How often the page cache is asked to drop the files, 100 ms apart.
const DROPS_MAX: usize = 100;

/// Whether the blocks' files are in the page cache when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    Warm,
    Cold,
}

/// Who brings the files into the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Outrigger,
    Copy,
    Incumbent,
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) wall: Duration,
    /// While shipping; start and end of outrigger are not in it.
    pub(crate) user_ms: u64,
    pub(crate) system_ms: u64,
    pub(crate) rss_peak_bytes: u64,
    pub(crate) rss_anon_bytes: u64,
    /// Of the source files, afterwards.
    pub(crate) cached_bytes: Option<u64>,
}

/// One run of one variant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) carrier: Carrier,
    pub(crate) cache: Cache,
    pub(crate) figures: Figures,
}

impl Cache {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

impl Carrier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Outrigger => "outrigger",
            Self::Copy => "copy",
            Self::Incumbent => "incumbent",
        }
    }
}

impl Figures {
    /// What was used between two readings of a process that is still there.
    pub(crate) fn between(
        wall: Duration,
        before: &Usage,
        after: &Usage,
        cached_bytes: Option<u64>,
    ) -> Self {
        Self {
            wall,
            user_ms: after.user_ms - before.user_ms,
            system_ms: after.system_ms - before.system_ms,
            rss_peak_bytes: after.rss_peak_bytes,
            rss_anon_bytes: after.rss_anon_bytes,
            cached_bytes,
        }
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{:.3} s, user {} ms, system {} ms, peak {} KiB, cached {:?} KiB",
            self.wall.as_secs_f64(),
            self.user_ms,
            self.system_ms,
            self.rss_peak_bytes >> 10,
            self.cached_bytes.map(|bytes| bytes >> 10)
        )
    }
}

pub(crate) fn measure(bench: &Bench, load: &Load) -> anyhow::Result<Vec<Run>> {
    let peer = peer::start()?;
    let mut carriers = vec![Carrier::Outrigger, Carrier::Copy];
    if bench.settings.incumbent.is_some() {
        carriers.push(Carrier::Incumbent);
    }
    let is_wanted = |carrier: Carrier, cache: Cache| {
        let name = format!("filesystem {} {}", cache.name(), carrier.name());
        bench.settings.wants(&name)
    };
    let caches = [Cache::Warm, Cache::Cold];
    let wants_any = |carrier| caches.iter().any(|cache| is_wanted(carrier, *cache));
    let mut runs = Vec::new();
    if !carriers.iter().any(|carrier| wants_any(*carrier)) {
        return Ok(runs);
    }
    // Its figures are thrown away: memory that the host hands to a virtual machine at first touch
    // is paid for by whoever comes first.
    prepare(bench, load, Cache::Warm)?;
    copy(bench, load)?;
    for round in 1..=bench.settings.rounds {
        for cache in caches {
            for carrier in &carriers {
                if !is_wanted(*carrier, cache) {
                    continue;
                }
                prepare(bench, load, cache)?;
                let figures = match carrier {
                    Carrier::Outrigger => ship(bench, load, peer),
                    Carrier::Copy => copy(bench, load),
                    Carrier::Incumbent => ship_with_incumbent(bench, load, peer),
                };
                let figures = figures.with_context(|| format!("{carrier:?}, {cache:?}"))?;
                let summary = figures.summary();
                eprintln!("perf: round {round}: {carrier:?}, {cache:?}: {summary}");
                runs.push(Run {
                    carrier: *carrier,
                    cache,
                    figures,
                });
            }
        }
        // Who runs first changes, so that nobody always gets the pages that another left.
        carriers.rotate_left(1);
    }
    Ok(runs)
}

/// Brings the files into the cache or out of it, and shows that they are.
pub(crate) fn prepare(bench: &Bench, load: &Load, cache: Cache) -> anyhow::Result<()> {
    bench.children.check()?;
    usage::settle(&bench.scratch)?;
    let files = load.files()?;
    match cache {
        Cache::Warm => {
            usage::fill_cache(&files)?;
            let cached = usage::cached_bytes(&files)?;
            // A machine whose kernel reclaims ahead of need takes some pages back at once.
            let enough = load.size_bytes() / 100 * 95;
            anyhow::ensure!(
                cached.is_none_or(|cached| cached >= enough),
                "{cached:?} bytes are cached before a warm run"
            );
        }
        Cache::Cold => {
            // A page that a socket still has can't be dropped yet.
            for _ in 0..DROPS_MAX {
                usage::drop_cached(&files)?;
                if usage::cached_bytes(&files)?.is_none_or(|cached| cached == 0) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            anyhow::bail!("pages of the files stay in the cache before a cold run");
        }
    }
    Ok(())
}

fn ship(bench: &Bench, load: &Load, peer: SocketAddr) -> anyhow::Result<Figures> {
    let site = Site::new(bench, "ship")?;
    let mut launch = Launch::outrigger(bench, &site, peer);
    launch.flags.push("--io.engine=uring".to_owned());
    let mut sidecar = Sidecar::start_idle(bench, &site, &launch)?;
    let before = Usage::of(sidecar.pid)?;
    let started = site.put_all(load)?;
    for block in &load.blocks {
        sidecar.wait_for_file(&site.published(block))?;
    }
    let wall = started.elapsed();
    let after = Usage::of(sidecar.pid)?;
    for block in &load.blocks {
        sidecar.wait_until("the block is recorded", || site.is_recorded(block))?;
        site.check_sizes(block)?;
    }
    site.finish(load, sidecar, |cached| {
        Figures::between(wall, &before, &after, cached)
    })
}

/// It looks for blocks only every 30 s, so it finds them there when it starts.
fn ship_with_incumbent(bench: &Bench, load: &Load, peer: SocketAddr) -> anyhow::Result<Figures> {
    let site = Site::new(bench, "incumbent")?;
    let launch = Launch {
        program: bench.incumbent()?,
        objstore: site.objstore(),
        flags: Vec::new(),
        peer,
    };
    site.put_all(load)?;
    let started = Instant::now();
    let mut sidecar = Sidecar::spawn(bench, &site, &launch)?;
    for block in &load.blocks {
        sidecar.wait_for_file(&site.published(block))?;
    }
    let wall = started.elapsed();
    let after = Usage::of(sidecar.pid)?;
    for block in &load.blocks {
        // The file is there before its content is.
        sidecar.wait_until("the block is recorded", || site.is_recorded(block))?;
        site.check_sizes(block)?;
    }
    site.finish(load, sidecar, |cached| {
        Figures::between(wall, &Usage::default(), &after, cached)
    })
}

fn copy(bench: &Bench, load: &Load) -> anyhow::Result<Figures> {
    let site = Site::new(bench, "copy")?;
    let (wall, usage) = copy::measure(bench, load, &site.bucket)?;
    let cached_bytes = usage::cached_bytes(&load.files()?)?;
    site.remove()?;
    Ok(Figures::between(
        wall,
        &Usage::default(),
        &usage,
        cached_bytes,
    ))
}
