//! Shipping to S3: servers that check signatures, servers that fail, and crashes on the way.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger::model::{BlockId, TimeRange, TimestampMs};
use outrigger::objstore::{Checksums, Fault};
use outrigger::tsdb::testing::{BlockLayout, Chunk, MemoryBlock, Series};
use rustix::process::Signal;

use crate::support::{
    ACCESS_KEY, FailingS3, HOST, LABELS, MotoS3, Outrigger, Prometheus, SECRET_KEY, SignedS3, Site,
    arguments_with_bucket, assert_whole, eventually, get, objstore_yaml,
};

/// The least that S3 and the flag take.
const PART_BYTES: u64 = 5 << 20;

fn start(site: &Site, prometheus: &Prometheus, yaml: &str, extra: &[&str]) -> Outrigger {
    let mut arguments = arguments_with_bucket(prometheus.address(), &site.data, yaml);
    arguments.extend(extra.iter().map(|&flag| flag.to_owned()));
    Outrigger::start(&arguments)
}

/// A block of about `mib` MiB in one segment, in place in the data directory.
pub(crate) fn large_block(site: &Site, mib: usize) -> PathBuf {
    let range = TimeRange {
        mint: TimestampMs(1_699_999_200_000),
        maxt: TimestampMs(1_699_999_200_000 + 7_200_000),
    };
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let samples = (0..7_200_000).step_by(120).map(|offset| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (range.mint.0 + offset, f64::from_bits(noise >> 2))
    });
    let chunk = Chunk::xor(&samples.collect::<Vec<_>>());
    let count = (mib << 20) / chunk.data.len() + 1;
    let series = (0..count).map(|number| Series {
        labels: vec![("__name__".to_owned(), format!("m{number:06}"))],
        chunks: vec![chunk.clone()],
    });
    let id = BlockId::from_u128((1_699_999_200_000 << 80) | 1);
    let block = MemoryBlock::write(BlockLayout::default(), id, range, series);
    let made = site.scratch().join("made");
    std::fs::create_dir_all(made.join("chunks")).unwrap();
    for (file, bytes) in &block.files {
        std::fs::write(made.join(file.path()), bytes).unwrap();
    }
    let path = site.data.join(id.to_string());
    std::fs::rename(made, &path).unwrap();
    path
}

/// The name of the bucket's host is known to no resolver, so the server is the proxy too.
#[test]
fn virtual_hosted_requests_go_through_a_proxy() {
    let site = Site::new();
    let server = SignedS3::start(&site.scratch().join("s3"));
    let blocks = site.backfill(1);
    let prometheus = site.prometheus_elsewhere();
    let yaml = objstore_yaml(HOST, &["bucket_lookup_type: virtual-hosted"]);
    let arguments = arguments_with_bucket(prometheus.address(), &site.data, &yaml);
    let proxy = format!("http://{}", server.address);
    let _outrigger = Outrigger::start_with_environment(&[("HTTP_PROXY", &proxy)], &arguments);
    site.wait_for_ledger(&blocks[0]);
    assert_whole(&server.bucket(), &blocks[0], LABELS);
}

#[test]
fn a_server_that_checks_signatures_gets_whole_blocks() {
    for keys in [
        &[][..],
        &["bucket_lookup_type: path", "part_size: 5242881"],
        &["send_content_md5: true", "list_objects_version: v1"],
        &["send_content_md5: false", "disable_multipart: true"],
    ] {
        let site = Site::new();
        let server = SignedS3::start(&site.scratch().join("s3"));
        let mut blocks = site.backfill(2);
        blocks.insert(0, large_block(&site, 12));
        let prometheus = site.prometheus_elsewhere();
        let yaml = objstore_yaml(&server.address.to_string(), keys);
        let outrigger = start(&site, &prometheus, &yaml, &[]);
        for block in &blocks {
            site.wait_for_ledger(block);
            assert_whole(&server.bucket(), block, LABELS);
        }
        let (status, log) = outrigger.stop();
        assert!(status.success(), "{log}");
        assert!(!log.contains(SECRET_KEY), "the secret is in the log");
    }
}

#[test]
fn moto_gets_whole_blocks() {
    let Some(moto) = MotoS3::start("shipping to moto") else {
        return;
    };
    let created = request(moto.address, "PUT", "/blocks");
    assert!(created.starts_with("HTTP/1.1 200"), "{created}");
    let site = Site::new();
    let blocks = site.backfill(2);
    let prometheus = site.prometheus_elsewhere();
    // So that the test may read what is there without a signature.
    let keys = [
        "region: us-east-1",
        "put_user_metadata: {x-amz-acl: public-read}",
    ];
    let yaml = objstore_yaml(&moto.address.to_string(), &keys);
    let _outrigger = start(&site, &prometheus, &yaml, &[]);
    for block in &blocks {
        site.wait_for_ledger(block);
        let name = block.file_name().unwrap().to_str().unwrap();
        let (status, meta) = get(moto.address, &format!("/blocks/{name}/meta.json")).unwrap();
        assert_eq!(status, 200, "{meta}");
        let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
        for file in meta["thanos"]["files"].as_array().unwrap() {
            let rel_path = file["rel_path"].as_str().unwrap();
            let head = request(moto.address, "HEAD", &format!("/blocks/{name}/{rel_path}"));
            let head = head.to_ascii_lowercase();
            if let Some(size) = file.get("size_bytes") {
                assert!(head.contains(&format!("content-length: {size}")), "{head}");
            }
        }
    }
}

/// One request without a signature over a plain socket; all of the answer's head.
fn request(address: std::net::SocketAddr, method: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let header = "Content-Length: 0\r\nConnection: close";
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sent again for each crash: at most the parts that were in flight, here one.
#[test]
fn kill_9_costs_the_parts_in_flight_and_no_more() {
    const CRASHES: u64 = 4;
    let site = Site::new();
    let block = large_block(&site, 40);
    let size_bytes = size_of(&block);
    let prometheus = site.prometheus_elsewhere();
    let failing = FailingS3::start(Checksums::Echo);
    let yaml = objstore_yaml(
        &failing.server.endpoint(),
        &[&format!("part_size: {PART_BYTES}")],
    );
    let slow = ["--shipper.upload-concurrency=1", "--shipper.max-rate=40MiB"];
    for crash in 1..=CRASHES {
        let outrigger = start(&site, &prometheus, &yaml, &slow);
        // Bytes of a broken-off body arrive too.
        let enough = failing.server.body_bytes() + size_bytes / (CRASHES + 1);
        eventually("more was sent", || {
            (failing.server.body_bytes() >= enough).then_some(())
        });
        outrigger.process.signal(Signal::KILL);
        assert!(!failing.has(&block), "published after crash {crash}");
    }
    let _outrigger = start(&site, &prometheus, &yaml, &[]);
    site.wait_for_ledger(&block);
    assert_in(&failing, &block);
    let sent = failing.server.body_bytes();
    let allowed = size_bytes + CRASHES * PART_BYTES + (1 << 20);
    assert!(
        sent <= allowed,
        "{sent} bytes sent for a block of {size_bytes}"
    );
    assert_eq!(failing.server.open_uploads(), 0);
    let left = std::fs::read_dir(site.data.join("thanos/upload")).unwrap();
    eventually("nothing is left of the upload", || {
        let names = std::fs::read_dir(site.data.join("thanos/upload")).unwrap();
        (names.count() == 0).then_some(())
    });
    drop(left);
}

fn size_of(block: &Path) -> u64 {
    let size = |path: PathBuf| std::fs::metadata(path).unwrap().len();
    size(block.join("index")) + size(block.join("chunks/000001"))
}

fn assert_in(failing: &FailingS3, block: &Path) {
    let name = block.file_name().unwrap().to_str().unwrap();
    let objects = failing.server.objects();
    for file in ["index", "chunks/000001"] {
        let there = &objects[&format!("blocks/{name}/{file}")];
        assert!(*there == std::fs::read(block.join(file)).unwrap(), "{file}");
    }
    assert!(objects.contains_key(&format!("blocks/{name}/meta.json")));
}

/// A server that does not know `x-amz-checksum-*` gets the block whole all the same.
#[test]
fn servers_without_checksums_are_sent_md5() {
    for checksums in [Checksums::NotImplemented, Checksums::Ignore] {
        let site = Site::new();
        let block = large_block(&site, 12);
        let prometheus = site.prometheus_elsewhere();
        let failing = FailingS3::start(checksums);
        let part_size = format!("part_size: {PART_BYTES}");
        let yaml = objstore_yaml(&failing.server.endpoint(), &[&part_size]);
        let outrigger = start(&site, &prometheus, &yaml, &[]);
        site.wait_for_ledger(&block);
        assert_in(&failing, &block);
        assert_eq!(failing.server.open_uploads(), 0);
        let (_, log) = outrigger.stop();
        assert!(log.to_ascii_lowercase().contains("content-md5"), "{log}");
    }
}

/// Each buffer is 1 MiB; a part of 5 MiB is larger than half of four, so it is read twice.
#[test]
fn four_buffers_are_enough_for_everything() {
    for keys in [
        &["part_size: 5242880"][..],
        &["part_size: 5242881"],
        &["disable_multipart: true"],
        &[],
    ] {
        let site = Site::new();
        let block = large_block(&site, 12);
        let prometheus = site.prometheus_elsewhere();
        let failing = FailingS3::start(Checksums::Echo);
        let yaml = objstore_yaml(&failing.server.endpoint(), keys);
        let outrigger = start(&site, &prometheus, &yaml, &["--io.buffers=4"]);
        site.wait_for_ledger(&block);
        assert_in(&failing, &block);
        drop(outrigger);
    }
}

#[test]
fn a_block_whose_disk_is_damaged_is_not_published_and_leaves_no_upload_open() {
    let site = Site::new();
    let block = large_block(&site, 12);
    let segment = block.join("chunks/000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let prometheus = site.prometheus_elsewhere();
    let failing = FailingS3::start(Checksums::Echo);
    let part_size = format!("part_size: {PART_BYTES}");
    let yaml = objstore_yaml(&failing.server.endpoint(), &[&part_size]);
    let outrigger = start(&site, &prometheus, &yaml, &[]);
    outrigger.wait_for_metric("thanos_shipper_corrupted_blocks_total", |count| {
        count == 1.0
    });
    assert!(!failing.has(&block));
    assert_eq!(failing.server.open_uploads(), 0);
}

/// What an operator gets wrong, and what is said: a remedy, never the secret.
#[test]
fn refusals_are_told_with_a_remedy() {
    let site = Site::new();
    site.backfill(1);
    let server = SignedS3::start(&site.scratch().join("s3"));
    let prometheus = site.prometheus_elsewhere();
    let good = objstore_yaml(&server.address.to_string(), &["max_retries: 1"]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    for (yaml, said) in [
        (
            good.replace(SECRET_KEY, "not-the-secret"),
            &["403", ACCESS_KEY, "remedy="][..],
        ),
        (
            good.replace("bucket: blocks", "bucket: elsewhere"),
            &["NoSuchBucket", "remedy="],
        ),
        (
            objstore_yaml(&nobody.to_string(), &["max_retries: 1"]),
            &["onnect", "remedy="],
        ),
        (
            good.replace("insecure: true", "insecure: false"),
            &["insecure", "remedy="],
        ),
    ] {
        let outrigger = start(&site, &prometheus, &yaml, &[]);
        let what = format!("a line with {said:?}");
        outrigger
            .process
            .wait_for_line(&what, |line| said.iter().all(|part| line.contains(part)));
        let (status, log) = outrigger.stop();
        assert!(status.success(), "{log}");
        assert!(
            !log.contains(SECRET_KEY) && !log.contains("not-the-secret"),
            "{log}"
        );
    }
}

/// For some requests the server denies what it allowed before: everything arrives with the next
/// look, and nothing is sent that was there already.
#[test]
fn what_was_confirmed_before_a_refusal_is_not_sent_again() {
    let site = Site::new();
    let block = large_block(&site, 24);
    let prometheus = site.prometheus_elsewhere();
    let failing = FailingS3::start(Checksums::Echo);
    static DENIED: AtomicBool = AtomicBool::new(false);
    static LOST: AtomicBool = AtomicBool::new(false);
    failing.server.decide_by(|request| {
        let part = request.query.get("partNumber").map(String::as_str);
        match part {
            Some("2") if !LOST.swap(true, Ordering::SeqCst) => Fault::LoseAnswer,
            Some("5") if !DENIED.swap(true, Ordering::SeqCst) => {
                Fault::Refuse(403, "AccessDenied", &[])
            }
            _ => Fault::Pass,
        }
    });
    let part_size = format!("part_size: {PART_BYTES}");
    let yaml = objstore_yaml(&failing.server.endpoint(), &[&part_size]);
    let one_by_one = ["--shipper.upload-concurrency=1"];
    let outrigger = start(&site, &prometheus, &yaml, &one_by_one);
    site.wait_for_ledger(&block);
    assert_in(&failing, &block);
    let sent = failing.server.body_bytes();
    assert!(
        sent <= size_of(&block) + 2 * PART_BYTES + (1 << 20),
        "{sent}"
    );
    let failures = "thanos_shipper_dir_sync_failures_total";
    assert_eq!(outrigger.metric(failures), Some(1.0));
}
