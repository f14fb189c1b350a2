//! What the integration tests stand on: processes that end with their test, a real Prometheus,
//! blocks made by promtool, and readers of what outrigger leaves behind.

mod block;
mod bucket;
mod ca;
mod collector;
mod gate;
mod grpc;
mod http;
mod https;
mod outrigger;
mod process;
mod prometheus;
mod reads;
mod remote_proxy;
mod remote_write;
mod s3;
mod samples;
mod site;
mod store_client;
mod stores;

use std::io::Write as _;
use std::time::{Duration, Instant};

pub(crate) use block::{BACKFILL_START_S, backfill, backfill_text, copy_block, edit_meta};
pub(crate) use bucket::{Bucket, assert_whole, ledger_text, ledger_ulids, ulid_directories};
pub(crate) use ca::{Ca, replace};
pub(crate) use collector::{Collected, Collector};
pub(crate) use gate::{Gate, GateState, Reads};
pub(crate) use grpc::{StoreApi, all_series, messages};
pub(crate) use http::{get, post};
pub(crate) use https::{Answer, HttpsClient, get_plain};
pub(crate) use outrigger::{
    Outrigger, arguments_with_bucket, outrigger_command, run_command_to_end, run_to_end,
    sidecar_arguments,
};
pub(crate) use process::{Process, logfmt_value};
pub(crate) use prometheus::{
    Prometheus, PrometheusSetup, promtool, promtool_accepts, promtool_path,
};
pub(crate) use remote_proxy::{Harm, Queries, RemoteProxy};
pub(crate) use remote_write::{Writer, histogram};
pub(crate) use s3::{ACCESS_KEY, FailingS3, HOST, MotoS3, SECRET_KEY, SignedS3, objstore_yaml};
pub(crate) use samples::{
    Labels, Point, Points, PointsOf, Random, client, decode, is_stale, queried, remotely_read,
};
pub(crate) use site::{LABELS, Site};
pub(crate) use store_client::{StoreClient, matcher, pairs};
pub(crate) use stores::{Azurite, FakeStore, mirrored};

/// How long anything may take before the test counts as broken. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until there is an answer, and fails with `what` at the deadline.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "within {DEADLINE:?} not: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the tests run as root, to whom file permissions do not apply.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a case is left out, and why. Straight to stderr, since what a passing test prints is
/// kept back; `make test` repeats it at its end.
pub(crate) fn left_out(case: &str, why: &str) {
    let line = format!("LEFT OUT: {case}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
