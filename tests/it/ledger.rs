//! The handshake of `--storage.tsdb.delay-compact-file.path` (contract `shipper.md` §8): Prometheus
//! compacts away whatever is not in the ledger as soon as the ledger is missing or unreadable.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::support::{
    Gate, GateState, LABELS, Prometheus, PrometheusSetup, Site, assert_whole, eventually,
    ledger_text, ledger_ulids, left_out, ulid_directories,
};

/// Reads the ledger in a tight loop, from its first appearance on.
struct Poller {
    reads: Arc<AtomicU64>,
    is_done: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Poller {
    fn start(ledger: PathBuf) -> Self {
        let reads = Arc::new(AtomicU64::new(0));
        let is_done = Arc::new(AtomicBool::new(false));
        let (count, done) = (Arc::clone(&reads), Arc::clone(&is_done));
        let thread = std::thread::spawn(move || {
            eventually("the ledger appears", || ledger.exists().then_some(()));
            while !done.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                ledger_ulids(&ledger).map_err(|error| format!("read {number}: {error}"))?;
            }
            Ok(())
        });
        Self {
            reads,
            is_done,
            thread,
        }
    }

    /// Waits until this many more reads were done, or one has failed.
    fn wait_for_reads(&self, more: u64) {
        let until = self.reads.load(Ordering::Relaxed) + more;
        eventually("the poller reads on", || {
            let enough = self.reads.load(Ordering::Relaxed) >= until;
            (enough || self.thread.is_finished()).then_some(())
        });
    }

    fn finish(self) {
        self.is_done.store(true, Ordering::Relaxed);
        let outcome = self.thread.join().unwrap();
        assert_eq!(
            outcome,
            Ok(()),
            "the ledger was missing or partial for a moment"
        );
    }
}

#[test]
fn is_never_missing_or_partial_through_a_loop_of_kills() {
    const KILLS: u64 = 15;
    let site = Site::new();
    let blocks = site.backfill(12);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let poller = Poller::start(site.ledger());
    for round in 0..KILLS {
        let mut outrigger = site.start(prometheus.address(), &[]);
        // Further into its work at each round, from before the first block to after the last.
        poller.wait_for_reads(round * round * 20 + 1);
        outrigger.process.kill();
        assert_published_are_whole(&site, &blocks);
    }
    let outrigger = site.start(prometheus.address(), &[]);
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    outrigger.stop();
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks)
    );
    poller.finish();
}

fn assert_published_are_whole(site: &Site, blocks: &[PathBuf]) {
    for block in blocks.iter().filter(|block| site.bucket.has(block)) {
        assert_whole(&site.bucket, block, LABELS);
    }
}

#[test]
fn is_there_before_prometheus_is() {
    let site = Site::new();
    let gate = Gate::new(GateState::Down);
    let mut outrigger = site.start(gate.address(), &[]);
    eventually("the ledger is there", || {
        site.ledger().exists().then_some(())
    });
    assert_eq!(fs::read_to_string(site.ledger()).unwrap(), ledger_text(&[]));
    assert!(outrigger.process.is_running());
    assert_eq!(outrigger.metric("thanos_sidecar_prometheus_up"), Some(0.0));
}

#[test]
fn is_kept_at_start_while_it_is_good() {
    let site = Site::new();
    let blocks = site.backfill(1);
    fs::write(site.ledger(), ledger_text(&blocks)).unwrap();
    let poller = Poller::start(site.ledger());
    let gate = Gate::new(GateState::Down);
    let outrigger = site.start(gate.address(), &[]);
    eventually("a second try", || (gate.connections() >= 3).then_some(()));
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks)
    );
    poller.wait_for_reads(1);
    poller.finish();
    outrigger.stop();
}

/// With a Prometheus that honours the ledger and compacts, nothing is compacted away unshipped.
#[test]
fn delays_compaction_until_blocks_are_shipped() {
    let delay = "storage.tsdb.delay-compact-file.path";
    if !Prometheus::has_flag(delay) {
        let why = format!("needs a PROMETHEUS with --{delay} (3.9 or newer)");
        left_out("delayed compaction", &why);
        return;
    }
    let site = Site::new();
    let ledger = site.ledger().display().to_string();
    let setup = PrometheusSetup {
        max_block_duration: "18s",
        flags: vec![format!("--{delay}={ledger}")],
        ..PrometheusSetup::cutting_blocks()
    };
    // The ledger must be there before Prometheus' first compaction.
    fs::write(&ledger, ledger_text(&[])).unwrap();
    let prometheus = Prometheus::start(&site.data, &setup);
    let outrigger = site.start(prometheus.address(), &[]);
    let compacted = eventually("Prometheus compacts", || {
        ulid_directories(&site.data)
            .into_iter()
            .find_map(|block| sources_of_compacted(&block))
    });
    let published: BTreeSet<String> = site.bucket.published();
    let lost: Vec<&String> = compacted
        .iter()
        .filter(|ulid| !published.contains(*ulid))
        .collect();
    assert!(lost.is_empty(), "compacted away unshipped: {lost:?}");
    outrigger.stop();
}

/// What a compacted block was made of; `None` for a block as the head wrote it, or gone meanwhile.
fn sources_of_compacted(block: &Path) -> Option<Vec<String>> {
    let text = fs::read(block.join("meta.json")).ok()?;
    let meta: serde_json::Value = serde_json::from_slice(&text).unwrap();
    if meta["compaction"]["level"].as_u64().unwrap() < 2 {
        return None;
    }
    let sources = meta["compaction"]["sources"].as_array().unwrap().iter();
    Some(
        sources
            .map(|ulid| ulid.as_str().unwrap().to_owned())
            .collect(),
    )
}
