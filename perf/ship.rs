//! What shipping one block to a FILESYSTEM bucket costs, beside a plain copy of the same files.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use crate::block::{self, Block, BlockMaker};
use crate::sidecar::{Sidecar, Site};
use crate::usage::{self, Usage};
use crate::{Bench, copy, peer};

/// Whether the block's files are in the page cache when a run begins.
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
}

/// One run of one variant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) carrier: Carrier,
    pub(crate) cache: Cache,
    pub(crate) wall: Duration,
    /// While shipping; start and end of the process are not in it.
    pub(crate) user_ms: u64,
    pub(crate) system_ms: u64,
    pub(crate) rss_peak_bytes: u64,
    pub(crate) rss_anon_bytes: u64,
    pub(crate) read_bytes: u64,
    /// Of the source files, afterwards.
    pub(crate) cached_bytes: Option<u64>,
}

impl Run {
    fn summary(&self) -> String {
        format!(
            "{:?}, {:?}: {:.3} s, user {} ms, system {} ms, peak {} KiB",
            self.carrier,
            self.cache,
            self.wall.as_secs_f64(),
            self.user_ms,
            self.system_ms,
            self.rss_peak_bytes >> 10
        )
    }
}

/// All runs over one block.
#[derive(Debug)]
pub(crate) struct Shipping {
    pub(crate) block: Block,
    pub(crate) runs: Vec<Run>,
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Shipping> {
    eprintln!(
        "perf: writing a block of {} MiB of chunks",
        bench.settings.chunk_bytes >> 20
    );
    let made = bench.scratch.join("made");
    let block = BlockMaker::new(made, &bench.children).write(bench.settings.chunk_bytes)?;
    eprintln!(
        "perf: {} series, {} chunks, {} segments, {} bytes",
        block.series, block.chunks, block.segments, block.size_bytes
    );
    anyhow::ensure!(
        block.segments >= 2,
        "one segment only: nothing to interleave"
    );
    let peer = peer::start()?;
    // Its figures are thrown away: memory that the host hands to a virtual machine at first touch
    // is paid for by whoever comes first.
    prepare(bench, &block, Cache::Warm)?;
    copy(bench, &block, Cache::Warm)?;
    let mut runs = Vec::new();
    for round in 1..=bench.settings.rounds {
        let mut carriers = [Carrier::Outrigger, Carrier::Copy];
        // Who runs first changes, so that neither always gets the pages that the other left.
        if round % 2 == 0 {
            carriers.reverse();
        }
        for cache in [Cache::Warm, Cache::Cold] {
            for carrier in carriers {
                prepare(bench, &block, cache)?;
                let run = match carrier {
                    Carrier::Outrigger => ship(bench, &block, cache, peer),
                    Carrier::Copy => copy(bench, &block, cache),
                };
                let run = run.with_context(|| format!("{carrier:?}, {cache:?}"))?;
                eprintln!("perf: round {round}: {}", run.summary());
                runs.push(run);
            }
        }
    }
    Ok(Shipping { block, runs })
}

/// Brings the files into the cache or out of it, and shows that they are.
fn prepare(bench: &Bench, block: &Block, cache: Cache) -> anyhow::Result<()> {
    bench.children.check()?;
    usage::settle(&bench.scratch)?;
    let files = block::files(&block.path)?;
    let expected = match cache {
        Cache::Warm => {
            usage::fill_cache(&files)?;
            block.size_bytes..=u64::MAX
        }
        Cache::Cold => {
            usage::drop_cached(&files)?;
            0..=0
        }
    };
    if let Some(cached) = usage::cached_bytes(&files)? {
        anyhow::ensure!(
            expected.contains(&cached),
            "{cached} bytes are cached before a {cache:?} run"
        );
    }
    Ok(())
}

fn ship(bench: &Bench, block: &Block, cache: Cache, peer: SocketAddr) -> anyhow::Result<Run> {
    let site = Site::new(bench, "ship")?;
    let mut sidecar = Sidecar::start_idle(bench, &site, peer)?;
    let before = Usage::of(sidecar.pid)?;
    let started = site.put(block)?;
    sidecar.wait_for_file(&site.published(block))?;
    let wall = started.elapsed();
    let after = Usage::of(sidecar.pid)?;
    sidecar.wait_until("the block is recorded", || site.is_recorded(block))?;
    site.check_sizes(block)?;
    let cached_bytes = usage::cached_bytes(&block::files(&site.data.join(&block.name))?)?;
    let rss_peak_bytes = Usage::of(sidecar.pid)?.rss_peak_bytes;
    sidecar.stop()?;
    site.take_back(block)?;
    site.remove()?;
    Ok(Run {
        carrier: Carrier::Outrigger,
        cache,
        wall,
        user_ms: after.user_ms - before.user_ms,
        system_ms: after.system_ms - before.system_ms,
        rss_peak_bytes,
        rss_anon_bytes: after.rss_anon_bytes,
        read_bytes: after.read_bytes - before.read_bytes,
        cached_bytes,
    })
}

fn copy(bench: &Bench, block: &Block, cache: Cache) -> anyhow::Result<Run> {
    let site = Site::new(bench, "copy")?;
    let target = site.bucket.join(&block.name);
    let (wall, usage) = copy::measure(bench, &block.path, &target)?;
    let cached_bytes = usage::cached_bytes(&block::files(&block.path)?)?;
    site.remove()?;
    Ok(Run {
        carrier: Carrier::Copy,
        cache,
        wall,
        user_ms: usage.user_ms,
        system_ms: usage.system_ms,
        rss_peak_bytes: usage.rss_peak_bytes,
        rss_anon_bytes: usage.rss_anon_bytes,
        read_bytes: usage.read_bytes,
        cached_bytes,
    })
}
