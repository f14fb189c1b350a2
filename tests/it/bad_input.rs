//! Broken blocks, odd names, bad configuration, a full bucket: a clear error, nothing lost, nothing
//! bad published, and no harm to the other blocks.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{
    LABELS, Outrigger, Site, assert_whole, edit_meta, eventually, is_root, ledger_text, left_out,
    run_to_end,
};

const CORRUPTED: &str = "thanos_shipper_corrupted_blocks_total";
const FAILED_SYNCS: &str = "thanos_shipper_dir_sync_failures_total";

fn ulid(block: &Path) -> &str {
    block.file_name().unwrap().to_str().unwrap()
}

/// Fails unless outrigger runs, has not panicked, and says all of `said` in one line of its log.
fn assert_says(outrigger: &mut Outrigger, said: &[&str]) {
    let what = format!("a line with {said:?}");
    outrigger
        .process
        .wait_for_line(&what, |line| said.iter().all(|part| line.contains(part)));
    assert!(outrigger.process.is_running());
    let log = outrigger.process.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn bucket_configuration_names_key_and_line() {
    let says = |document: &str, said: &[&str]| {
        let (code, text) = run_to_end(&[
            "sidecar".to_owned(),
            format!("--objstore.config={document}"),
        ]);
        assert_eq!(code, 1, "{document}: {text}");
        for expected in said {
            assert!(text.contains(expected), "did not say `{expected}`: {text}");
        }
    };
    let unknown = "type: FILESYSTEM\nconfig:\n  directory: b\nprefixx: a\n";
    says(unknown, &["parsing config YAML file", "prefixx", "line 4"]);
    says(
        "type: FILESYSTEM\nconfig: {}\n",
        &["missing directory for filesystem bucket"],
    );
    says(
        "type: FLOPPY\n",
        &["bucket with type FLOPPY is not supported"],
    );
    says("type: [\n", &["parsing config YAML file"]);
    // Shipping nowhere in silence would lose blocks.
    says(
        "type: GCS\nconfig: {bcket: a}\n",
        &["create GCS client", "bcket"],
    );
    says(
        "type: S3\nconfig: {bucket: a}\n",
        &["create S3 client: no s3 endpoint in config file"],
    );
    says(
        "type: S3\nconfig: {bucket: a, endpoint: https://b}\n",
        &["create S3 client", "remove the scheme"],
    );
    says(
        "type: S3\nconfig: {bucket: a, endpoint: b, part_size: 1024}\n",
        &["create S3 client", "part_size", "5 MiB"],
    );
    says(
        "type: S3\nconfig:\n  bucket: a\n  endpoint: b\n  acess_key: c\n",
        &["create S3 client", "acess_key", "line 5"],
    );
    says(
        "type: S3\nconfig: {bucket: a, endpoint: b, \
         http_config: {tls_config: {ca_file: /no/ca}}}\n",
        &["create S3 client", "/no/ca"],
    );
}

/// The reference ignores unknown keys of this provider; here each is one warning.
#[test]
fn an_unknown_key_of_the_provider_is_a_warning() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let prometheus = site.prometheus_elsewhere();
    let mut arguments = site.arguments(prometheus.address(), &[]);
    arguments
        .last_mut()
        .unwrap()
        .push_str("  direktory: elsewhere\n");
    let mut outrigger = Outrigger::start(&arguments);
    assert_says(&mut outrigger, &["direktory", "level=warn"]);
    site.wait_for_ledger(&blocks[0]);
}

#[test]
fn a_corrupt_block_is_left_out_and_holds_back_nobody() {
    let site = Site::new();
    let blocks = site.backfill(3);
    let segment = blocks[1].join("chunks/000001");
    let whole = fs::read(&segment).unwrap();
    let file = fs::File::options().write(true).open(&segment).unwrap();
    let middle = whole.len() as u64 / 2;
    file.write_all_at(&[!whole[whole.len() / 2]], middle)
        .unwrap();
    drop(file);
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    for block in [&blocks[0], &blocks[2]] {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    outrigger.wait_for_metric(CORRUPTED, |corrupted| corrupted == 1.0);
    assert!(!site.bucket.has(&blocks[1]));
    assert_says(
        &mut outrigger,
        &[ulid(&blocks[1]), "chunks/000001", "offset"],
    );
    let shipped = [blocks[0].clone(), blocks[2].clone()];
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&shipped)
    );

    fs::write(&segment, &whole).unwrap();
    site.wait_for_ledger(&blocks[1]);
    assert_whole(&site.bucket, &blocks[1], LABELS);
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks)
    );
    assert_eq!(outrigger.metric(CORRUPTED), Some(1.0), "counted once");
}

#[test]
fn a_truncated_segment_or_index_is_never_published() {
    for file in ["chunks/000001", "index"] {
        let site = Site::new();
        let blocks = site.backfill(2);
        let path = blocks[0].join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let prometheus = site.prometheus_elsewhere();
        let mut outrigger = site.start(prometheus.address(), &[]);
        site.wait_for_ledger(&blocks[1]);
        outrigger.wait_for_metric(CORRUPTED, |corrupted| corrupted == 1.0);
        assert_says(&mut outrigger, &[ulid(&blocks[0]), file]);
        assert!(!site.bucket.has(&blocks[0]));
        if file == "index" {
            let sent = site.bucket.objects();
            let of_it = sent
                .iter()
                .filter(|object| object.starts_with(ulid(&blocks[0])));
            assert_eq!(
                of_it.count(),
                0,
                "sent before the index was verified: {sent:?}"
            );
        }
    }
}

#[test]
fn a_missing_segment_is_never_published() {
    let site = Site::new();
    let blocks = site.backfill(2);
    let segment = blocks[0].join("chunks/000001");
    let kept = site.scratch().join("kept");
    fs::rename(&segment, &kept).unwrap();
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    assert_says(&mut outrigger, &[ulid(&blocks[0])]);
    assert!(!site.bucket.has(&blocks[0]));
    fs::rename(&kept, &segment).unwrap();
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
}

/// What can't be read may be readable later, so it holds back newer blocks; older ones are out.
#[test]
fn an_unreadable_block_is_told_and_shipped_once_readable() {
    let site = Site::new();
    let blocks = site.backfill(3);
    let index = blocks[1].join("index");
    let kept = site.scratch().join("kept");
    fs::rename(&index, &kept).unwrap();
    fs::create_dir(&index).unwrap();
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[0]);
    assert_says(&mut outrigger, &[ulid(&blocks[1])]);
    assert!(!site.bucket.has(&blocks[1]));
    fs::remove_dir(&index).unwrap();
    fs::rename(&kept, &index).unwrap();
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
}

#[test]
fn a_block_without_permission_is_told_and_shipped_once_permitted() {
    if is_root() {
        left_out(
            "a block without read permission",
            "permissions do not apply to root",
        );
        return;
    }
    let site = Site::new();
    let blocks = site.backfill(2);
    let index = blocks[1].join("index");
    let mode = |mode| fs::set_permissions(&index, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[0]);
    outrigger.wait_for_metric(FAILED_SYNCS, |failed| failed >= 1.0);
    assert_says(&mut outrigger, &[ulid(&blocks[1]), "ermission denied"]);
    assert!(!site.bucket.has(&blocks[1]));
    mode(0o644);
    site.wait_for_ledger(&blocks[1]);
    assert_whole(&site.bucket, &blocks[1], LABELS);
}

/// A pipe in a block's place must not be waited on.
#[test]
fn a_pipe_for_a_file_does_not_stop_anything() {
    let site = Site::new();
    let blocks = site.backfill(2);
    let index = blocks[1].join("index");
    fs::remove_file(&index).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &index, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[0]);
    assert_says(&mut outrigger, &[ulid(&blocks[1])]);
    assert!(!site.bucket.has(&blocks[1]));
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// The cases in which a `meta.json` can't be used: what it is replaced by, and what must be said.
fn unusable_metas() -> Vec<(&'static str, Option<String>, &'static str)> {
    let version_2 = "{\"ulid\":\"$ULID\",\"minTime\":0,\"maxTime\":1,\"stats\":{},\
                     \"compaction\":{\"level\":1,\"sources\":[\"$ULID\"]},\"version\":2}";
    vec![
        ("missing", None, "meta.json"),
        ("empty", Some(String::new()), "meta.json"),
        ("half", Some("{\"ulid\": \"01HF".to_owned()), "meta.json"),
        ("version 2", Some(version_2.to_owned()), "version"),
    ]
}

#[test]
fn an_unusable_meta_is_told_and_never_published() {
    for (case, text, said) in unusable_metas() {
        let site = Site::new();
        let blocks = site.backfill(2);
        let meta = blocks[1].join("meta.json");
        let whole = fs::read(&meta).unwrap();
        match text {
            Some(text) => fs::write(&meta, text.replace("$ULID", ulid(&blocks[1]))).unwrap(),
            None => fs::remove_file(&meta).unwrap(),
        }
        let prometheus = site.prometheus_elsewhere();
        let mut outrigger = site.start(prometheus.address(), &[]);
        assert_says(&mut outrigger, &[ulid(&blocks[1]), said]);
        assert!(!site.bucket.has(&blocks[1]), "{case}");
        fs::write(&meta, &whole).unwrap();
        for block in &blocks {
            site.wait_for_ledger(block);
            assert_whole(&site.bucket, block, LABELS);
        }
    }
}

#[test]
fn unusable_metas_are_skipped_where_asked_for() {
    let site = Site::new();
    let blocks = site.backfill(5);
    for (block, (_, text, _)) in blocks.iter().zip(unusable_metas()) {
        let meta = block.join("meta.json");
        match text {
            Some(text) => fs::write(&meta, text.replace("$ULID", ulid(block))).unwrap(),
            None => fs::remove_file(&meta).unwrap(),
        }
    }
    let prometheus = site.prometheus_elsewhere();
    let outrigger = site.start(prometheus.address(), &["--shipper.skip-corrupted-blocks"]);
    site.wait_for_ledger(&blocks[4]);
    assert_whole(&site.bucket, &blocks[4], LABELS);
    outrigger.wait_for_metric(CORRUPTED, |corrupted| corrupted >= 4.0);
    let published: Vec<String> = site.bucket.published().into_iter().collect();
    assert_eq!(published, [ulid(&blocks[4])]);
}

/// A local thanos section with a resolution would be refused by every reader of the bucket.
#[test]
fn a_downsampled_block_is_refused() {
    let site = Site::new();
    let blocks = site.backfill(2);
    edit_meta(&blocks[1], |meta| {
        meta["thanos"] = serde_json::json!({ "labels": {}, "downsample": { "resolution": 5 } });
    });
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[0]);
    assert_says(&mut outrigger, &[ulid(&blocks[1]), "resolution"]);
    assert!(!site.bucket.has(&blocks[1]));
}

#[test]
fn odd_names_in_the_data_directory_are_left_alone() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let odd: Vec<PathBuf> = [
        OsStr::from_bytes(b"caf\xe9"),
        OsStr::from_bytes(b"\xff\xfe01HF7QZXG0000000000000000"),
        OsStr::new("01HF7QZXG00000000000000000.tmp-for-creation"),
        OsStr::new("01HF7QZXG00000000000000001.tmp-for-deletion"),
        OsStr::new("01HF7QZXG0000000000000000U"),
        OsStr::new("lost+found"),
    ]
    .iter()
    .map(|name| site.data.join(name))
    .collect();
    for directory in &odd {
        fs::create_dir_all(directory.join("chunks")).unwrap();
        fs::write(directory.join("meta.json"), "{").unwrap();
    }
    // A file where a block's directory would be.
    fs::write(site.data.join("01HF7QZXG00000000000000002"), "x").unwrap();
    let prometheus = site.prometheus_elsewhere();
    let outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[0]);
    outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
    assert_whole(&site.bucket, &blocks[0], LABELS);
    assert_eq!(site.bucket.published().len(), 1);
    assert_eq!(
        fs::read_to_string(site.ledger()).unwrap(),
        ledger_text(&blocks)
    );
}

#[test]
fn nothing_outside_the_data_directory_is_published() {
    let site = Site::new();
    let blocks = site.backfill(3);
    let outside = site.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    // A whole block elsewhere, and a segment elsewhere.
    let whole = outside.join(ulid(&blocks[1]));
    fs::rename(&blocks[1], &whole).unwrap();
    symlink(&whole, &blocks[1]).unwrap();
    let segment = blocks[2].join("chunks/000001");
    fs::rename(&segment, outside.join("segment")).unwrap();
    symlink(outside.join("segment"), &segment).unwrap();
    let prometheus = site.prometheus_elsewhere();
    let flags = ["--shipper.skip-corrupted-blocks"];
    let mut outrigger = site.start(prometheus.address(), &flags);
    site.wait_for_ledger(&blocks[0]);
    assert_says(&mut outrigger, &[ulid(&blocks[2])]);
    let published: Vec<String> = site.bucket.published().into_iter().collect();
    assert_eq!(published, [ulid(&blocks[0])]);
}

#[test]
fn a_ledger_that_can_not_be_read_is_replaced_at_once() {
    for (text, said) in [
        (
            "{\"version\": 2, \"uploaded\": [\"01HF7QZXG00000000000000000\"]}",
            "version 2",
        ),
        ("{\"version\": 1, \"uploaded\": [\"01HF", "shipper"),
        ("", "shipper"),
        ("[]", "shipper"),
    ] {
        let site = Site::new();
        let blocks = site.backfill(1);
        fs::write(site.ledger(), text).unwrap();
        let prometheus = site.prometheus_elsewhere();
        let mut outrigger = site.start(prometheus.address(), &[]);
        assert_says(&mut outrigger, &[said, "level=error"]);
        site.wait_for_ledger(&blocks[0]);
        assert_whole(&site.bucket, &blocks[0], LABELS);
        assert_eq!(
            fs::read_to_string(site.ledger()).unwrap(),
            ledger_text(&blocks)
        );
    }
}

#[test]
fn a_full_bucket_publishes_nothing_half_and_recovers() {
    let site = Site::new();
    let blocks = crate::support::backfill(&site.data, crate::support::BACKFILL_START_S, 2, 2000);
    let root = site.bucket.root().to_owned();
    fs::create_dir(&root).unwrap();
    let probe = std::process::Command::new("unshare")
        .args([
            if is_root() { "-m" } else { "-rm" },
            "mount",
            "-t",
            "tmpfs",
            "none",
        ])
        .arg(&root)
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        left_out("a full bucket", "no mount of one's own can be made here");
        return;
    }
    let prometheus = site.prometheus_elsewhere();
    let small = format!(
        "mount -t tmpfs -o size=3m none {root} && head -c 2900k /dev/zero >{root}/filler",
        root = root.display()
    );
    let mut outrigger =
        Outrigger::start_with_mounts(&small, &site.arguments(prometheus.address(), &[]));
    let seen = format!("/proc/{}/root{}", outrigger.process.id(), root.display());
    let bucket = crate::support::Bucket::new(&seen);
    outrigger.wait_for_metric(FAILED_SYNCS, |failed| failed >= 1.0);
    assert_says(&mut outrigger, &[ulid(&blocks[0]), "o space left"]);
    assert!(bucket.published().is_empty());
    fs::remove_file(Path::new(&seen).join("filler")).unwrap();
    for block in &blocks {
        eventually("shipped once there is room", || {
            bucket.has(block).then_some(())
        });
        assert_whole(&bucket, block, LABELS);
    }
}

/// The bucket's directory is made when it is needed (contract `objstore.md` §4), and not before.
#[test]
fn a_bucket_directory_that_can_not_be_made_is_told_and_waited_for() {
    let site = Site::new();
    let blocks = site.backfill(1);
    fs::write(site.bucket.root(), "a file where the directory should be").unwrap();
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric(FAILED_SYNCS, |failed| failed >= 1.0);
    let root = site.bucket.root().to_str().unwrap().to_owned();
    assert_says(&mut outrigger, &[&root, "level=warn"]);
    fs::remove_file(site.bucket.root()).unwrap();
    site.wait_for_ledger(&blocks[0]);
    assert_whole(&site.bucket, &blocks[0], LABELS);
}
