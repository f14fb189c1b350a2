//! The place where a test happens: a scratch directory with a data directory and a bucket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{
    Bucket, Outrigger, Prometheus, PrometheusSetup, backfill, eventually, ledger_ulids,
    sidecar_arguments,
};

/// External labels of every Prometheus that a test does not set up otherwise.
pub(crate) const LABELS: &[(&str, &str)] = &[("cluster", "eu-1"), ("replica", "0")];

/// A scratch directory, gone with its test.
pub(crate) struct Site {
    scratch: TempDir,
    pub(crate) data: PathBuf,
    pub(crate) bucket: Bucket,
}

impl Site {
    pub(crate) fn new() -> Self {
        let scratch = TempDir::with_prefix("outrigger-it-").unwrap();
        let data = scratch.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let bucket = Bucket::new(scratch.path().join("bucket"));
        Self {
            scratch,
            data,
            bucket,
        }
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.data.join("thanos.shipper.json")
    }

    /// Some small blocks of the year 2023 in the data directory, oldest first.
    pub(crate) fn backfill(&self, blocks: i64) -> Vec<PathBuf> {
        backfill(&self.data, super::BACKFILL_START_S, blocks, 50)
    }

    /// A Prometheus over a data directory of its own: one that finds a broken block does not start.
    pub(crate) fn prometheus_elsewhere(&self) -> Prometheus {
        let data = self.scratch.path().join("prometheus-data");
        Prometheus::start(&data, &PrometheusSetup::default())
    }

    pub(crate) fn arguments(&self, prometheus: SocketAddr, extra: &[&str]) -> Vec<String> {
        let mut arguments = sidecar_arguments(prometheus, &self.data, self.bucket.root());
        arguments.extend(extra.iter().map(|&flag| flag.to_owned()));
        arguments
    }

    /// The same without a bucket.
    pub(crate) fn arguments_without_bucket(
        &self,
        prometheus: SocketAddr,
        extra: &[&str],
    ) -> Vec<String> {
        let mut arguments = self.arguments(prometheus, extra);
        arguments.retain(|argument| !argument.starts_with("--objstore.config"));
        arguments
    }

    pub(crate) fn start(&self, prometheus: SocketAddr, extra: &[&str]) -> Outrigger {
        Outrigger::start(&self.arguments(prometheus, extra))
    }

    /// Waits until the ledger lists the block.
    pub(crate) fn wait_for_ledger(&self, block: &Path) {
        let ulid = block.file_name().unwrap().to_str().unwrap();
        let what = format!("{ulid} is in the ledger");
        eventually(&what, || {
            let listed = ledger_ulids(&self.ledger()).ok()?;
            listed.iter().any(|known| known == ulid).then_some(())
        });
    }
}
