//! Shipping to stores other than S3: real blocks of a real Prometheus, read back and compared.

use crate::s3::large_block;
use crate::support::{
    ACCESS_KEY, Azurite, FakeStore, LABELS, Outrigger, SECRET_KEY, SignedS3, Site,
    arguments_with_bucket, assert_whole, mirrored, run_to_end,
};

/// Ships blocks to the store, reads them back, and finds each object equal to its source.
fn ships(site: &Site, yaml: &str, variables: &[(&'static str, String)]) {
    let mut blocks = site.backfill(2);
    blocks.insert(0, large_block(site, 12));
    let prometheus = site.prometheus_elsewhere();
    let arguments = arguments_with_bucket(prometheus.address(), &site.data, yaml);
    let environment: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    let outrigger = Outrigger::start_with_environment(&environment, &arguments);
    for block in &blocks {
        site.wait_for_ledger(block);
    }
    let bucket = mirrored(yaml, variables, &site.scratch().join("mirror"));
    for block in &blocks {
        assert_whole(&bucket, block, LABELS);
    }
    let (status, log) = outrigger.stop();
    assert!(status.success(), "{log}");
    for secret in ["PRIVATE KEY", "hidden", "ya29.", "Eby8vdM02", "gAAAA-"] {
        assert!(!log.contains(secret), "a secret is in the log: {secret}");
    }
}

#[test]
fn google_gets_whole_blocks() {
    let site = Site::new();
    let store = FakeStore::google();
    ships(&site, &store.yaml, &store.variables);
    assert!(
        store.server.count("UploadPart") >= 3,
        "the large one goes in parts"
    );
    assert_eq!(store.server.open_uploads(), 0);
}

#[test]
fn swift_gets_whole_blocks() {
    let site = Site::new();
    let store = FakeStore::swift();
    ships(&site, &store.yaml, &store.variables);
    let objects = store.server.objects();
    let segments = objects.keys().filter(|name| name.starts_with("segments/"));
    assert!(segments.count() >= 3, "the large one goes in segments");
}

#[test]
fn azurite_gets_whole_blocks() {
    let site = Site::new();
    let scratch = site.scratch().join("azurite");
    let Some(azurite) = Azurite::start("shipping to Azurite", &scratch) else {
        return;
    };
    ships(&site, &azurite.yaml, &[]);
}

/// The vendors' own addresses, with a server before them that checks signatures.
#[test]
fn vendors_of_s3_get_whole_blocks() {
    let keys = |id: &str, secret: &str| format!("  {id}: {ACCESS_KEY}\n  {secret}: {SECRET_KEY}\n");
    for (domain, document, keys) in [
        (
            "s3.oss-cn-hangzhou.aliyuncs.com",
            "type: ALIYUNOSS\nconfig:\n  endpoint: http://oss-cn-hangzhou.aliyuncs.com\n  \
             bucket: blocks\n",
            keys("access_key_id", "access_key_secret"),
        ),
        (
            "s3.bj.bcebos.com",
            "type: BOS\nconfig:\n  endpoint: http://bj.bcebos.com\n  bucket: blocks\n",
            keys("access_key", "secret_key"),
        ),
        (
            "cos.ap-guangzhou.myqcloud.com",
            "type: COS\nconfig:\n  endpoint: http://blocks.cos.ap-guangzhou.myqcloud.com\n",
            keys("secret_id", "secret_key"),
        ),
        (
            "obs.cn-north-4.myhuaweicloud.com",
            "type: OBS\nconfig:\n  endpoint: http://obs.cn-north-4.myhuaweicloud.com\n  \
             bucket: blocks\n",
            keys("access_key", "secret_key"),
        ),
    ] {
        let site = Site::new();
        let server = SignedS3::start_as(domain, &site.scratch().join("s3"));
        let yaml = format!("{document}{keys}");
        let proxy = format!("http://{}", server.address);
        let blocks = site.backfill(1);
        let prometheus = site.prometheus_elsewhere();
        let arguments = arguments_with_bucket(prometheus.address(), &site.data, &yaml);
        let environment = [("HTTP_PROXY", &*proxy)];
        let _outrigger = Outrigger::start_with_environment(&environment, &arguments);
        site.wait_for_ledger(&blocks[0]);
        assert_whole(&server.bucket(), &blocks[0], LABELS);
    }
}

#[test]
fn a_store_that_cannot_be_used_ends_the_start_with_the_remedy() {
    let site = Site::new();
    for (yaml, expected) in [
        (
            "type: OCI\nconfig: {provider: raw, bucket: b, region: eu-x, privatekey: hidden}",
            "customer secret key",
        ),
        (
            "type: GCS\nconfig: {bucket: b, service_account: '{}'}",
            "`service_account`",
        ),
        (
            "type: AZURE\nconfig: {container: c}",
            "set `storage_account`",
        ),
        (
            "type: SWIFT\nconfig: {container_name: c, auth_url: 'https://k/v2.0'}",
            "version 2",
        ),
        ("type: COS\nconfig: {bucket: b}", "set `app_id`"),
        ("type: GCS\nconfig: {bucket: b, no_auth: true}", "no_auth"),
    ] {
        let prometheus = "127.0.0.1:9".parse().unwrap();
        let (code, log) = run_to_end(&arguments_with_bucket(prometheus, &site.data, yaml));
        assert_eq!(code, 1, "{log}");
        assert!(log.contains(expected) && !log.contains("hidden"), "{log}");
    }
}

#[test]
fn the_bench_takes_every_store() {
    let site = Site::new();
    let store = FakeStore::swift();
    let arguments = [
        "bench".to_owned(),
        "upload".to_owned(),
        format!("--objstore.config={}", store.yaml),
        format!("--scratch={}", site.scratch().display()),
        "--size=12MiB".to_owned(),
        "--file-size=6MiB".to_owned(),
    ];
    let (code, output) = run_to_end(&arguments);
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("SWIFT"), "{output}");
    assert!(
        store.server.objects().is_empty(),
        "it removes what it has written"
    );
}
