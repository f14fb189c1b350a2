//! What lands in the bucket, when, and what the ledger says of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    BACKFILL_START_S, Bucket, LABELS, Outrigger, Prometheus, PrometheusSetup, Site, assert_whole,
    backfill, copy_block, eventually, ledger_text, promtool, ulid_directories,
};

#[test]
fn blocks_that_prometheus_cuts_are_shipped_whole() {
    let site = Site::new();
    let mut prometheus = Prometheus::start(&site.data, &PrometheusSetup::cutting_blocks());
    let outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    outrigger.wait_for_metric("thanos_shipper_uploads_total", |uploads| uploads >= 3.0);
    prometheus.stop();
    let blocks = ulid_directories(&site.data);
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks)
    );
    assert_promtool_reads(&site.bucket, blocks.len());
}

fn assert_promtool_reads(bucket: &Bucket, blocks: usize) {
    let root = bucket.root().to_str().unwrap();
    let listed = promtool(&["tsdb", "list", root]);
    assert_eq!(listed.lines().count(), blocks + 1, "{listed}");
    let analyzed = promtool(&["tsdb", "analyze", root]);
    assert!(analyzed.contains("Block ID: "), "{analyzed}");
}

/// The tick comes 30 s after start, so that a block which is there well before it was woken for.
#[test]
fn a_new_block_wakes_the_shipper() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
    let blocks = site.backfill(1);
    let written = Instant::now();
    site.bucket.wait_for(&blocks[0]);
    let waited = written.elapsed();
    assert!(
        waited < Duration::from_secs(25),
        "shipped by the tick, after {waited:?}"
    );
    site.wait_for_ledger(&blocks[0]);
    assert_whole(&site.bucket, &blocks[0], LABELS);
}

#[test]
fn blocks_are_shipped_oldest_first() {
    let site = Site::new();
    let blocks = site.backfill(5);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let _outrigger = site.start(prometheus.address(), &[]);
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    let upload_time = |block| site.bucket.meta(block)["thanos"]["upload_time"].to_string();
    let times: Vec<String> = blocks.iter().map(|block| upload_time(block)).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks)
    );
    // Cleared at the end of the pass, after the last block is in the ledger.
    let staged = site.data.join("thanos/upload");
    eventually("nothing is staged any more", || {
        let left = fs::read_dir(&staged).into_iter().flatten().count();
        (left == 0).then_some(())
    });
}

#[test]
fn a_restart_sends_nothing_twice_with_and_without_the_ledger() {
    let site = Site::new();
    let blocks = site.backfill(3);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[2]);
    outrigger.stop();
    let written = inodes(&site.bucket);
    for forget in [false, true] {
        if forget {
            fs::remove_file(site.ledger()).unwrap();
        }
        let outrigger = site.start(prometheus.address(), &[]);
        outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
        assert_eq!(outrigger.metric("thanos_shipper_uploads_total"), Some(0.0));
        outrigger.stop();
        assert_eq!(inodes(&site.bucket), written, "an object was written again");
        assert_eq!(
            fs::read_to_string(site.ledger()).unwrap(),
            ledger_text(&blocks)
        );
    }
}

/// Each object's inode and modification time: both change when it is written again.
fn inodes(bucket: &Bucket) -> Vec<(String, u64, i64, i64)> {
    let objects = bucket.objects().into_iter();
    objects
        .map(|name| {
            let meta = fs::metadata(bucket.root().join(&name)).unwrap();
            (name, meta.ino(), meta.mtime(), meta.mtime_nsec())
        })
        .collect()
}

#[test]
fn a_block_deleted_locally_leaves_the_ledger_and_stays_in_the_bucket() {
    let site = Site::new();
    let blocks = site.backfill(2);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[1]);
    outrigger.stop();
    fs::remove_dir_all(&blocks[0]).unwrap();
    let _outrigger = site.start(prometheus.address(), &[]);
    eventually("the ledger lists what is there", || {
        let text = fs::read_to_string(site.ledger()).unwrap();
        (text == ledger_text(&blocks[1..])).then_some(())
    });
    assert!(site.bucket.has(&blocks[0]));
}

#[test]
fn hashes_concurrency_and_ledger_name_follow_their_flags() {
    let site = Site::new();
    let blocks = site.backfill(2);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let flags = [
        "--hash-func=SHA256",
        "--shipper.upload-concurrency=4",
        "--shipper.meta-file-name=shipped.json",
    ];
    let outrigger = site.start(prometheus.address(), &flags);
    outrigger.wait_for_metric("thanos_shipper_uploads_total", |uploads| uploads == 2.0);
    outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
    for block in &blocks {
        assert_whole(&site.bucket, block, LABELS);
        let files = &site.bucket.meta(block)["thanos"]["files"];
        assert_eq!(files[0]["hash"]["hashFunc"], "SHA256");
    }
    let ledger = fs::read_to_string(site.data.join("shipped.json")).unwrap();
    assert_eq!(ledger, ledger_text(&blocks));
    assert!(!site.ledger().exists());
}

#[test]
fn a_prefix_stands_before_every_object() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let mut arguments = site.arguments(prometheus.address(), &[]);
    let config = arguments.last_mut().unwrap();
    config.push_str("prefix: /team-a/eu/\n");
    let _outrigger = Outrigger::start(&arguments);
    site.wait_for_ledger(&blocks[0]);
    let below = Bucket::new(site.bucket.root().join("team-a/eu"));
    assert_whole(&below, &blocks[0], LABELS);
    assert_eq!(site.bucket.objects().len(), below.objects().len());
}

#[test]
fn a_meta_that_prometheus_does_not_write_today_survives() {
    let site = Site::new();
    let original = site.backfill(1).remove(0);
    let block = copy_block(&original, "01HF7QZXG0000000000000TEST", |meta| {
        meta["compaction"]["hints"] = json!(["from-out-of-order"]);
        meta["stats"]["numTombstones"] = json!(7);
    });
    fs::remove_dir_all(&original).unwrap();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let _outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&block);
    assert_whole(&site.bucket, &block, LABELS);
}

#[test]
fn compacted_blocks_are_shipped_when_asked_for_and_overlapping_nothing() {
    let site = Site::new();
    let originals = site.backfill(2);
    let compact =
        |block: &Path, ulid| copy_block(block, ulid, |meta| meta["compaction"]["level"] = json!(2));
    let first = compact(&originals[0], "01HF7QZXG00000000000CMPCT1");
    let second = compact(&originals[1], "01HF7QZXG00000000000CMPCT2");
    for original in &originals {
        fs::remove_dir_all(original).unwrap();
    }
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());

    let outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
    assert_eq!(
        site.bucket.objects(),
        [""; 0],
        "shipped without being asked for"
    );
    assert_eq!(
        outrigger.metric("thanos_shipper_upload_compacted_done"),
        Some(0.0)
    );
    outrigger.stop();

    let outrigger = site.start(prometheus.address(), &["--shipper.upload-compacted"]);
    for block in [&first, &second] {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    outrigger.wait_for_metric("thanos_shipper_upload_compacted_done", |done| done == 1.0);
    outrigger.stop();

    let overlapping = compact(&first, "01HF7QZXG00000000000CMPCT3");
    let mut outrigger = site.start(prometheus.address(), &["--shipper.upload-compacted"]);
    outrigger.wait_for_metric("thanos_shipper_dir_sync_failures_total", |failed| {
        failed >= 1.0
    });
    assert!(!site.bucket.has(&overlapping));
    let log = outrigger.process.log();
    assert!(
        log.contains("is blocked; overlap spotted") || log.contains("overlap"),
        "{log}"
    );
    assert!(outrigger.process.is_running());
}

#[test]
fn empty_blocks_are_neither_shipped_nor_recorded() {
    let site = Site::new();
    let blocks = site.backfill(2);
    crate::support::edit_meta(&blocks[0], |meta| meta["stats"]["numSamples"] = json!(0));
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let _outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[1]);
    assert!(!site.bucket.has(&blocks[0]));
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks[1..])
    );
}

#[test]
fn blocks_from_the_future_are_shipped_like_any_other() {
    let site = Site::new();
    // 2096-10-02: the clock of this machine stands before the block.
    let blocks = backfill(&site.data, 4_000_003_200, 1, 10);
    let older = backfill(&site.data, BACKFILL_START_S, 1, 10);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let _outrigger = site.start(prometheus.address(), &[]);
    for block in older.iter().chain(&blocks) {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
}
