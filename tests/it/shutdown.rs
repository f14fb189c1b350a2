//! The end: signals, the drain and its deadline, a port that is taken.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    BACKFILL_START_S, Gate, GateState, LABELS, Prometheus, PrometheusSetup, Site, assert_whole,
    backfill, eventually, get, ledger_ulids, run_to_end,
};

#[test]
fn termination_and_interrupt_drain_and_end_with_0() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    for signal in [Signal::TERM, Signal::INT] {
        let mut outrigger = site.start(prometheus.address(), &[]);
        outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
        outrigger.process.signal(signal);
        let status = outrigger.process.wait();
        let log = outrigger.process.log();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("caught signal. Exiting."), "{log}");
        assert!(
            log.lines().any(|line| line.contains("msg=exiting")),
            "{log}"
        );
        assert!(
            get(outrigger.address(), "/-/healthy").is_err(),
            "still listening"
        );
    }
}

#[test]
fn a_signal_before_prometheus_is_there_ends_with_0() {
    let site = Site::new();
    for state in [GateState::Down, GateState::Replaying, GateState::Stuck] {
        let gate = Gate::new(state);
        let outrigger = site.start(gate.address(), &[]);
        eventually("a first try", || (gate.connections() >= 1).then_some(()));
        let asked = Instant::now();
        let (status, log) = outrigger.stop();
        assert_eq!(status.code(), Some(0), "{state:?}: {log}");
        let took = asked.elapsed();
        assert!(
            took < Duration::from_secs(20),
            "{state:?}: past the grace period, {took:?}"
        );
    }
}

#[test]
fn a_signal_right_after_the_start_ends_with_0() {
    let site = Site::new();
    let gate = Gate::new(GateState::Down);
    for _ in 0..30 {
        // Asked as soon as it says that it listens.
        let (status, log) = site.start(gate.address(), &[]).stop();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

/// As a restore does: aside, and another one in its place.
#[test]
fn a_data_directory_that_is_replaced_ends_with_1() {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
    let aside = site.scratch().join("aside");
    std::fs::rename(&site.data, &aside).unwrap();
    std::fs::create_dir(&site.data).unwrap();
    // A block in the one that is held wakes the shipper.
    backfill(&aside, BACKFILL_START_S, 1, 1);
    let status = outrigger.process.wait();
    let log = outrigger.process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("was replaced by another one"), "{log}");
    assert_eq!(site.bucket.objects(), [""; 0]);
}

#[test]
fn hangup_has_no_effect() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let mut outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    for _ in 0..3 {
        outrigger.process.signal(Signal::HUP);
    }
    let blocks = site.backfill(1);
    site.wait_for_ledger(&blocks[0]);
    assert!(outrigger.process.is_running());
    assert_eq!(outrigger.probe("/-/ready"), 200);
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Whatever the moment of the signal, what is published is whole, and the rest comes later.
#[test]
fn a_signal_while_shipping_leaves_whole_blocks_only() {
    let site = Site::new();
    let blocks = backfill(&site.data, BACKFILL_START_S, 6, 3000);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    for published in [1, 3] {
        let outrigger = site.start(prometheus.address(), &[]);
        eventually("some blocks are out", || {
            (site.bucket.published().len() >= published).then_some(())
        });
        let (status, log) = outrigger.stop();
        assert_eq!(status.code(), Some(0), "{log}");
        for block in blocks.iter().filter(|block| site.bucket.has(block)) {
            assert_whole(&site.bucket, block, LABELS);
        }
        ledger_ulids(&site.ledger()).unwrap();
    }
    let _outrigger = site.start(prometheus.address(), &[]);
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
}

#[test]
fn a_port_that_is_taken_ends_with_1() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let mut first = site.start(prometheus.address(), &[]);
    let address = first.address().to_string();
    let mut arguments = site.arguments(prometheus.address(), &[]);
    for argument in &mut arguments {
        if argument.starts_with("--http-address=") {
            *argument = format!("--http-address={address}");
        }
    }
    let (code, log) = run_to_end(&arguments);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains(&address), "does not name the address: {log}");
    assert!(first.process.is_running());
}

/// Two over one data directory and one bucket, as in a rolling update: the bucket and the ledger
/// are as if there had been one.
#[test]
fn two_at_once_ship_each_block_whole() {
    let site = Site::new();
    let blocks = site.backfill(6);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let mut both = vec![
        site.start(prometheus.address(), &[]),
        site.start(prometheus.address(), &[]),
    ];
    for block in &blocks {
        site.wait_for_ledger(block);
    }
    // One of them ships, the other waits until that one ends, and then finds nothing to do.
    while !both.is_empty() {
        let owner = eventually("one of them has looked at the directory", || {
            both.iter().position(|outrigger| {
                outrigger.metric("thanos_shipper_dir_syncs_total") >= Some(1.0)
            })
        });
        let uploads = both[owner].metric("thanos_shipper_uploads_total");
        assert_eq!(uploads, Some(if both.len() == 2 { 6.0 } else { 0.0 }));
        let (status, log) = both.remove(owner).stop();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    for block in &blocks {
        assert_whole(&site.bucket, block, LABELS);
    }
}
