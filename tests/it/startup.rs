//! From start to ready: what ends the process, what is waited for. The command line by itself is
//! the matter of `cli`.

use std::fs;

use crate::support::{
    BACKFILL_START_S, Gate, GateState, LABELS, Process, Prometheus, PrometheusSetup, Site,
    assert_whole, backfill, eventually, run_to_end,
};

const UP: &str = "thanos_sidecar_prometheus_up";
const READY: &str = "thanos_status{check=\"ready\",component=\"sidecar\"}";

/// Waits for an end with code 1 and a log that says all of `said`.
fn assert_ends(process: &mut Process, said: &[&str]) {
    let status = process.wait();
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for expected in said {
        assert!(log.contains(expected), "did not say `{expected}`: {log}");
    }
}

#[test]
fn a_data_directory_that_is_not_there_ends_with_1() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let absent = format!("--tsdb.path={}", site.scratch().join("nowhere").display());
    let mut arguments = site.arguments(prometheus.address(), &[]);
    arguments.retain(|argument| !argument.starts_with("--tsdb.path="));
    arguments.push(absent);
    let (code, log) = run_to_end(&arguments);
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("opening tsdb directory") && log.contains("nowhere"),
        "{log}"
    );
}

#[test]
fn compaction_that_is_on_is_refused_until_the_time_is_up() {
    let site = Site::new();
    site.backfill(1);
    let setup = PrometheusSetup {
        max_block_duration: "6h",
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let mut outrigger = site.start(prometheus.address(), &["--prometheus.ready_timeout=4s"]);
    let said = [
        "found that TSDB Max time is",
        "Compaction needs to be disabled",
        "aborting as no external labels found after waiting 4s",
    ];
    assert_ends(&mut outrigger.process, &said);
    assert_eq!(site.bucket.objects(), [""; 0]);

    let flags = ["--shipper.ignore-unequal-block-size"];
    let outrigger = site.start(prometheus.address(), &flags);
    outrigger.wait_for_metric("thanos_shipper_uploads_total", |uploads| uploads == 1.0);
}

#[test]
fn missing_external_labels_end_with_1() {
    let site = Site::new();
    site.backfill(1);
    let setup = PrometheusSetup {
        external_labels: Vec::new(),
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let (code, log) = run_to_end(&site.arguments(prometheus.address(), &[]));
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("no external labels configured on Prometheus server"),
        "{log}"
    );
    assert_eq!(site.bucket.objects(), [""; 0]);
}

#[test]
fn a_prometheus_that_comes_late_is_waited_for() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let gate = Gate::new(GateState::Down);
    let outrigger = site.start(gate.address(), &[]);
    eventually("some tries", || (gate.connections() >= 4).then_some(()));
    assert_eq!(outrigger.metric(UP), Some(0.0));
    assert_eq!(outrigger.metric(READY), Some(0.0));
    assert_eq!(
        (outrigger.probe("/-/healthy"), outrigger.probe("/-/ready")),
        (200, 503)
    );
    assert_eq!(site.bucket.objects(), [""; 0]);

    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    gate.set(GateState::Open(prometheus.address()));
    outrigger.wait_for_metric(UP, |up| up == 1.0);
    outrigger.wait_for_metric(READY, |ready| ready == 1.0);
    assert_eq!(outrigger.probe("/-/ready"), 200);
    site.wait_for_ledger(&blocks[0]);
    assert_whole(&site.bucket, &blocks[0], LABELS);
}

#[test]
fn a_prometheus_that_never_comes_ends_with_1() {
    let site = Site::new();
    let gate = Gate::new(GateState::Down);
    let mut outrigger = site.start(gate.address(), &["--prometheus.ready_timeout=3s"]);
    let said = ["aborting as no external labels found after waiting 3s"];
    assert_ends(&mut outrigger.process, &said);
}

#[test]
fn wal_replay_does_not_count_against_the_ready_timeout() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let gate = Gate::new(GateState::Replaying);
    let started = std::time::Instant::now();
    let mut outrigger = site.start(gate.address(), &["--prometheus.ready_timeout=2s"]);
    // Longer than the timeout by far.
    eventually("a wait for longer than the timeout", || {
        let is_over = started.elapsed().as_secs() >= 7;
        (is_over || !outrigger.process.is_running()).then_some(())
    });
    assert!(outrigger.process.is_running(), "gave up during WAL replay");
    assert_eq!(outrigger.metric(UP), Some(0.0));
    assert_eq!(outrigger.probe("/-/ready"), 503);

    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    gate.set(GateState::Open(prometheus.address()));
    outrigger.wait_for_metric(UP, |up| up == 1.0);
    site.wait_for_ledger(&blocks[0]);
}

#[test]
fn a_prometheus_that_goes_away_is_seen_and_shipping_goes_on() {
    let site = Site::new();
    let mut prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric(UP, |up| up == 1.0);
    prometheus.stop();
    outrigger.wait_for_metric(UP, |up| up == 0.0);
    outrigger.wait_for_metric(READY, |ready| ready == 0.0);
    assert_eq!(
        (outrigger.probe("/-/healthy"), outrigger.probe("/-/ready")),
        (200, 503)
    );
    // The labels are known, and a block's way does not lead through Prometheus.
    let blocks = site.backfill(1);
    site.wait_for_ledger(&blocks[0]);
    assert_whole(&site.bucket, &blocks[0], LABELS);
}

#[test]
fn labels_that_change_at_run_time_go_into_later_blocks() {
    let site = Site::new();
    let first = site.backfill(1).remove(0);
    let setup = PrometheusSetup::default();
    let prometheus = Prometheus::start(&site.data, &setup);
    let outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&first);

    let changed: &[(&str, &str)] = &[("cluster", "eu-2"), ("replica", "0"), ("tier", "<a&b>")];
    prometheus.reload(&PrometheusSetup {
        external_labels: changed.to_vec(),
        ..setup
    });
    // No metric tells which labels are known, so blocks come until one carries the new ones.
    let mut hours = 0;
    let second = eventually("a block with the new labels", || {
        hours += 2;
        let start = BACKFILL_START_S + hours * 3600;
        let block = backfill(&site.data, start, 1, 5).remove(0);
        site.wait_for_ledger(&block);
        let is_new = site.bucket.meta(&block)["thanos"]["labels"]["cluster"] == "eu-2";
        is_new.then_some(block)
    });
    let text = site.bucket.meta_text(&second);
    let escaped = "\"labels\": {\n\t\t\t\"cluster\": \"eu-2\",\n\t\t\t\"replica\": \"0\",\n\t\t\t\
                   \"tier\": \"\\u003ca\\u0026b\\u003e\"\n\t\t}";
    assert!(text.contains(escaped), "{text}");
    assert_whole(&site.bucket, &first, LABELS);
    assert_eq!(outrigger.metric(UP), Some(1.0));
}

#[test]
fn without_a_bucket_nothing_is_shipped_and_no_shipper_shown() {
    let site = Site::new();
    site.backfill(1);
    let setup = PrometheusSetup {
        max_block_duration: "6h",
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let arguments = site.arguments_without_bucket(prometheus.address(), &[]);
    let outrigger = crate::support::Outrigger::start(&arguments);
    outrigger.wait_for_metric(READY, |ready| ready == 1.0);
    assert_eq!(outrigger.metric("thanos_shipper_dir_syncs_total"), None);
    assert!(!site.ledger().exists());
}

#[test]
fn the_operators_arguments_are_accepted() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let ledger = site.ledger().display().to_string();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let client = site.scratch().join("http-client.yaml");
    fs::write(&client, "tls_config:\n  insecure_skip_verify: true\n").unwrap();
    let client = format!("--prometheus.http-client-file={}", client.display());
    let flags = [
        "--shipper.meta-file-name=thanos.shipper.json",
        "--shipper.ignore-unequal-block-size",
        "--log.level=debug",
        "--log.format=logfmt",
        "--min-time=-2w",
        "--prometheus.ready_timeout=10m",
        "--prometheus.get_config_timeout=30s",
        &client,
    ];
    let outrigger = site.start(prometheus.address(), &flags);
    site.wait_for_ledger(&blocks[0]);
    assert!(fs::metadata(ledger).unwrap().is_file());
    outrigger.stop();
}
