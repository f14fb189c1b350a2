//! The head's flush on shutdown, beside a real Prometheus that comes back.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Gate, GateState, Outrigger, Prometheus, PrometheusSetup, Reads, Site, eventually,
    ulid_directories,
};

const FLUSH: &str = "--shipper.flush-on-shutdown";
const UPLOADS: &str = "thanos_shipper_uploads_total";

fn with_admin_api(setup: PrometheusSetup) -> PrometheusSetup {
    PrometheusSetup {
        flags: vec!["--web.enable-admin-api".to_owned()],
        ..setup
    }
}

/// Ranges of the blocks that are visible in the bucket, by ULID.
fn visible(site: &Site) -> Vec<(String, i64, i64)> {
    let ulids = site.bucket.published().into_iter();
    let range = ulids.filter_map(|ulid| {
        // It may leave at any moment.
        let meta = fs::read(site.bucket.root().join(&ulid).join("meta.json")).ok()?;
        let meta: Value = serde_json::from_slice(&meta).unwrap();
        let (mint, maxt) = (meta["minTime"].as_i64()?, meta["maxTime"].as_i64()?);
        Some((ulid, mint, maxt))
    });
    let mut ranges: Vec<_> = range.collect();
    ranges.sort_by_key(|(_, mint, _)| *mint);
    ranges
}

fn assert_no_overlap(ranges: &[(String, i64, i64)]) {
    for pair in ranges.windows(2) {
        assert!(pair[0].2 <= pair[1].1, "{pair:?}");
    }
}

fn flushed(site: &Site) -> Option<String> {
    let record = fs::read(site.data.join("outrigger.flushed.json")).ok()?;
    let record: Value = serde_json::from_slice(&record).unwrap();
    Some(record["flushed"][0]["ulid"].as_str()?.to_owned())
}

fn ended(mut outrigger: Outrigger) -> (Option<i32>, String) {
    outrigger.process.signal(Signal::TERM);
    let status = outrigger.process.wait();
    (status.code(), outrigger.process.log())
}

#[test]
fn the_head_is_in_the_bucket_until_prometheus_is_back() {
    let site = Site::new();
    let setup = with_admin_api(PrometheusSetup::cutting_blocks());
    let mut prometheus = Prometheus::start(&site.data, &setup);
    let outrigger = site.start(prometheus.address(), &[FLUSH]);
    outrigger.wait_for_metric(UPLOADS, |uploads| uploads >= 2.0);
    let (code, log) = ended(outrigger);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the head is in the bucket"), "{log}");
    let flushed_ulid = flushed(&site).expect("a record of what was flushed");
    prometheus.stop();

    let there = visible(&site);
    assert_no_overlap(&there);
    let (_, _, end) = there
        .iter()
        .find(|(ulid, ..)| *ulid == flushed_ulid)
        .unwrap();
    assert!(there.iter().all(|(.., maxt)| maxt <= end), "{there:?}");
    let is_local = |path: &std::path::PathBuf| path.ends_with(&flushed_ulid);
    assert!(!ulid_directories(&site.data).iter().any(is_local));
    let left = fs::read_dir(site.data.join("snapshots")).unwrap().count();
    assert_eq!(left, 0, "the snapshot is gone");

    let prometheus = Prometheus::start(&site.data, &setup);
    let outrigger = site.start(prometheus.address(), &[FLUSH]);
    eventually("Prometheus' own blocks took its place", || {
        let ranges = visible(&site);
        assert_no_overlap(&ranges);
        let is_replaced = ranges.iter().all(|(ulid, ..)| *ulid != flushed_ulid);
        (is_replaced && flushed(&site).is_none()).then_some(())
    });
    outrigger.wait_for_metric(UPLOADS, |uploads| uploads >= 2.0);
    let covered = visible(&site);
    assert_no_overlap(&covered);
    assert!(covered.iter().any(|(.., maxt)| maxt >= end), "{covered:?}");
    let objects = site.bucket.objects();
    assert!(
        !objects.iter().any(|key| key.starts_with(&flushed_ulid)),
        "{objects:?}"
    );
    let (code, log) = ended(outrigger);
    assert_eq!(code, Some(0), "a second flush: {log}");
    assert_no_overlap(&visible(&site));
}

#[test]
fn without_the_admin_api_it_is_told_at_the_start_and_at_the_end() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let outrigger = site.start(prometheus.address(), &[FLUSH]);
    let told = |line: &str| line.contains("level=error") && line.contains("can't be flushed");
    outrigger.process.wait_for_line("the remedy", told);
    assert!(outrigger.process.log().contains("--web.enable-admin-api"));
    let (code, log) = ended(outrigger);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("ask Prometheus for a snapshot of its head"),
        "{log}"
    );
    assert!(log.contains("admin APIs disabled"), "{log}");
    assert!(flushed(&site).is_none());
}

#[test]
fn a_second_signal_and_the_timeout_cut_it_short() {
    for (timeout, signals, told) in [
        ("10m", 2, "cut short by another SIGTERM"),
        ("1s", 1, "not done within --shipper.flush-timeout"),
    ] {
        let site = Site::new();
        let prometheus = Prometheus::start(&site.data, &with_admin_api(PrometheusSetup::default()));
        let gate = Gate::new(GateState::Open(prometheus.address()));
        let timeout = format!("--shipper.flush-timeout={timeout}");
        let mut outrigger = site.start(gate.address(), &[FLUSH, &timeout]);
        outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
        gate.set_reads(Reads::Held);
        outrigger.process.signal(Signal::TERM);
        let begun = |line: &str| line.contains("flushing the head");
        outrigger.process.wait_for_line("the flush", begun);
        if signals == 2 {
            eventually("the snapshot is asked for", || {
                site.data
                    .join("outrigger.flushed.json")
                    .exists()
                    .then_some(())
            });
            outrigger.process.signal(Signal::TERM);
        }
        let status = outrigger.process.wait();
        let log = outrigger.process.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(told), "{log}");
        // The next start removes what it may have left, and the note of it.
        let outrigger = site.start(gate.address(), &[]);
        outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
        assert!(!site.data.join("outrigger.flushed.json").exists());
    }
}
