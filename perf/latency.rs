//! How soon a new block is in the bucket: from its rename to its `meta.json`, out of idling.

use std::time::Duration;

use crate::block::BlockMaker;
use crate::sidecar::{Launch, Sidecar, Site};
use crate::usage;
use crate::{Bench, peer};

const BLOCKS: usize = 20;
/// Some two thousand chunks: what a small Prometheus cuts.
const CHUNK_BYTES: u64 = 1 << 20;
/// Between two blocks, so that each finds outrigger idle.
const PAUSE: Duration = Duration::from_millis(300);

/// The latencies, in the order of the blocks.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) block_bytes: u64,
    pub(crate) waits: Vec<Duration>,
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Latency> {
    eprintln!("perf: latency of {BLOCKS} small blocks");
    let site = Site::new(bench, "latency")?;
    let mut maker = BlockMaker::new(bench.scratch.join("latency/made"), &bench.children);
    let mut blocks = Vec::new();
    for _ in 0..BLOCKS {
        blocks.push(maker.write(CHUNK_BYTES)?);
    }
    usage::settle(&bench.scratch)?;
    let mut sidecar = Sidecar::start_idle(
        bench,
        &site,
        &Launch::outrigger(bench, &site, peer::start()?),
    )?;
    let mut waits = Vec::new();
    for block in &blocks {
        let started = site.put(block)?;
        sidecar.wait_for_file(&site.published(block))?;
        waits.push(started.elapsed());
        sidecar.wait_until("the block is recorded", || site.is_recorded(block))?;
        std::thread::sleep(PAUSE);
    }
    sidecar.stop()?;
    let block_bytes = blocks.iter().map(|block| block.size_bytes).max();
    site.remove()?;
    Ok(Latency {
        block_bytes: block_bytes.unwrap_or_default(),
        waits,
    })
}
