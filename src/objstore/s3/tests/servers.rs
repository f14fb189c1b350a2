//! The client against s3s: signatures, both addressing styles, parts, listings.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::s3s_server::S3sServer;
use super::testing::{Checksums, FakeS3, Fault};
use super::{
    ACCESS_KEY, Addressing, ListVersion, PART_BYTES, PayloadSigning, S3Bucket, S3Config,
    S3Integrity, SECRET_KEY, bucket, bucket_with, client_config, clock, config, keys, limits,
};
use crate::net::ClientTls;
use crate::net::http::{ClientConfig, HttpClient, Proxy};
use crate::objstore::conformance::conforms;
use crate::objstore::{Bucket, ErrorKind, ListEntry, MemorySource, ObjectKey};

const KEYS: (&str, &str) = (ACCESS_KEY, SECRET_KEY);

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// Bytes of which no two runs are the same.
pub(super) fn bytes(length: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

async fn content(bucket: &dyn Bucket, name: &str) -> Vec<u8> {
    let runs: Vec<Bytes> = bucket
        .get(&key(name))
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    runs.concat()
}

type Change = fn(&mut S3Config);

const WAYS: [Change; 6] = [
    |_| {},
    |config| config.list_version = ListVersion::V1,
    |config| config.payload_signing = PayloadSigning::Never,
    |config| config.payload_signing = PayloadSigning::Always,
    |config| config.send_content_md5 = Some(true),
    |config| config.send_content_md5 = Some(false),
];

/// Objects and listings; the rest of the suite asks for directories, which s3s-fs answers with 500.
async fn round_trip(bucket: &dyn Bucket) {
    for name in ["d/e/1", "d/2", "3"] {
        bucket
            .upload(&key(name), &MemorySource(bytes(70_000)))
            .await
            .unwrap();
        assert_eq!(content(bucket, name).await, bytes(70_000));
        let found = bucket.attributes(&key(name)).await.unwrap();
        assert_eq!(found.size_bytes, 70_000);
        assert!(found.last_modified > jiff::Timestamp::UNIX_EPOCH);
    }
    let below: Vec<ListEntry> = bucket
        .list(Some(&key("d")))
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let expected = [
        ListEntry::Object("d/2".to_owned()),
        ListEntry::Directory("d/e".to_owned()),
    ];
    assert_eq!(below, expected);
    for name in ["d/e/1", "d/2", "3", "3"] {
        bucket.delete(&key(name)).await.unwrap();
        assert!(!bucket.exists(&key(name)).await.unwrap());
    }
}

#[tokio::test]
async fn s3s_understands_every_way_to_talk_to_it() {
    let server = S3sServer::start(KEYS, None).await;
    for change in WAYS {
        let mut config = config(&server.endpoint());
        change(&mut config);
        round_trip(&bucket(config)).await;
    }
}

#[tokio::test]
async fn s3s_understands_virtual_hosts() {
    let server = S3sServer::start(KEYS, Some("s3.test")).await;
    let mut config = config("s3.test");
    config.addressing = Addressing::VirtualHosted;
    // Names below s3.test are not to be looked up, so all goes through the server as a proxy.
    let proxy = Proxy::parse(&format!("http://{}", server.endpoint())).unwrap();
    let http = HttpClient::new(ClientConfig {
        proxy: Some(proxy),
        ..client_config(&ClientTls::default())
    });
    let bucket = S3Bucket::new(config, http, keys(), limits(), clock(), 1);
    round_trip(&bucket).await;
}

#[tokio::test]
async fn a_server_without_faults_conforms_in_every_way() {
    for checksums in [
        Checksums::Echo,
        Checksums::Ignore,
        Checksums::NotImplemented,
    ] {
        for change in WAYS {
            let server = FakeS3::start(checksums, |_| Fault::Pass).await.unwrap();
            let mut config = config(&server.endpoint());
            change(&mut config);
            conforms(&bucket(config)).await;
        }
    }
}

#[tokio::test]
async fn odd_names_are_signed_as_the_server_sees_them() {
    let server = S3sServer::start(KEYS, None).await;
    let bucket = bucket(config(&server.endpoint()));
    for name in [
        "a b",
        "a+b",
        "ü/日本",
        "per%41cent",
        "q?x=1&y#z",
        "~*'()!@:,;$=",
    ] {
        bucket
            .upload(&key(name), &MemorySource(bytes(100)))
            .await
            .unwrap();
        assert_eq!(content(&bucket, name).await, bytes(100), "{name}");
        bucket.delete(&key(name)).await.unwrap();
    }
}

#[tokio::test]
async fn large_objects_arrive_whole_in_parts() {
    let server = S3sServer::start(KEYS, None).await;
    let whole = bytes(usize::try_from(3 * PART_BYTES + 12_345).unwrap());
    // s3s does not echo checksums of parts, so the upload starts over with Content-MD5.
    for (body_bytes_max, md5, expected) in [
        (20 << 20, None, S3Integrity::ContentMd5),
        (1 << 20, None, S3Integrity::ContentMd5),
        (20 << 20, Some(false), S3Integrity::None),
        (20 << 20, Some(true), S3Integrity::ContentMd5),
    ] {
        let mut config = config(&server.endpoint());
        config.send_content_md5 = md5;
        let mut limits = limits();
        limits.body_bytes_max = body_bytes_max;
        let bucket = bucket_with(config, limits);
        let source = MemorySource(whole.clone());
        bucket.upload(&key("a/large"), &source).await.unwrap();
        assert!(server.object("a/large") == whole);
        assert_eq!(bucket.integrity_in_use(), expected);
        let found = bucket.attributes(&key("a/large")).await.unwrap();
        assert_eq!(found.size_bytes, whole.len() as u64);
        bucket.delete(&key("a/large")).await.unwrap();
    }
}

#[tokio::test]
async fn one_request_for_all_when_multipart_is_off() {
    let server = S3sServer::start(KEYS, None).await;
    let whole = bytes(usize::try_from(2 * PART_BYTES).unwrap());
    for body_bytes_max in [20 << 20, 1 << 20] {
        let mut config = config(&server.endpoint());
        config.disable_multipart = true;
        let mut limits = limits();
        limits.body_bytes_max = body_bytes_max;
        let bucket = bucket_with(config, limits);
        let source = MemorySource(whole.clone());
        bucket.upload(&key("one"), &source).await.unwrap();
        assert!(server.object("one") == whole);
        // s3s keeps and echoes the checksum of a single request.
        assert_eq!(bucket.integrity_in_use(), S3Integrity::Crc64Nvme);
        let found = bucket.attributes(&key("one")).await.unwrap();
        assert!(found.crc64.is_some());
    }
}

#[tokio::test]
async fn a_range_is_what_was_asked_for() {
    let server = S3sServer::start(KEYS, None).await;
    let bucket = bucket(config(&server.endpoint()));
    let source = MemorySource(bytes(1000));
    bucket.upload(&key("o"), &source).await.unwrap();
    for range in [0..1000, 0..1, 10..20, 999..1000, 5..5] {
        let runs: Vec<Bytes> = bucket
            .get_range(&key("o"), range.clone())
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        let expected = source
            .0
            .slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert_eq!(runs.concat(), expected, "{range:?}");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_naming_the_id_alone() {
    let server = S3sServer::start((ACCESS_KEY, "another-secret"), None).await;
    let bucket = bucket(config(&server.endpoint()));
    let error = bucket
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(error.remedy().unwrap().contains("secret_key"));
    let ErrorKind::S3(inner) = &error.kind else {
        panic!("{error:?}");
    };
    let text = format!("{inner}: {} {error:?} {bucket:?}", inner.fault);
    assert!(
        text.contains(ACCESS_KEY) && text.contains("SignatureDoesNotMatch"),
        "{text}"
    );
    assert!(!text.contains(SECRET_KEY), "{text}");
}
