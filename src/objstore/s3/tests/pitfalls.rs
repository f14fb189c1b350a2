//! Pitfalls of S3-compatible servers, by their numbers in the list of those met in the field. 5
//! and 13 stand beside `address`, part of 4 beside `sign`, 12 and 16 beside the credentials and
//! the configuration document.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::servers::bytes;
use super::testing::{Checksums, FakeS3, Fault, SeenRequest};
use super::{
    Encryption, ListVersion, PART_BYTES, S3Bucket, S3Credentials, S3Integrity, bucket, clock,
    config, http, keys, limits,
};
use crate::model::Clock;
use crate::net::ClientTls;
use crate::objstore::{Bucket as _, ListEntry, MemorySource, ObjectKey};

const WRITES: [&str; 4] = [
    "PutObject",
    "UploadPart",
    "CreateMultipartUpload",
    "CompleteMultipartUpload",
];

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// Three parts' worth.
fn large() -> MemorySource {
    MemorySource(bytes(usize::try_from(2 * PART_BYTES + 7).unwrap()))
}

fn small() -> MemorySource {
    MemorySource(bytes(1000))
}

fn has_checksum(seen: &SeenRequest) -> bool {
    let mut names = seen.headers.keys();
    names.any(|name| name.as_str().starts_with("x-amz-checksum-"))
}

async fn passing(checksums: Checksums) -> FakeS3 {
    FakeS3::start(checksums, |_| Fault::Pass).await.unwrap()
}

async fn upload_both(bucket: &S3Bucket, server: &FakeS3) {
    for (name, source) in [("small", small()), ("large", large())] {
        bucket.upload(&key(name), &source).await.unwrap();
        assert!(server.object(&format!("bucket/{name}")).unwrap() == source.0);
        let found = bucket.attributes(&key(name)).await.unwrap();
        assert_eq!(found.size_bytes, source.0.len() as u64);
    }
}

#[tokio::test]
async fn pitfall_01_servers_that_refuse_checksums_get_content_md5() {
    for checksums in [
        Checksums::NotImplemented,
        Checksums::InvalidArgument,
        Checksums::Ignore,
    ] {
        for multipart_first in [false, true] {
            let server = passing(checksums).await;
            let bucket = bucket(config(&server.endpoint()));
            if multipart_first {
                bucket.upload(&key("first"), &large()).await.unwrap();
            } else {
                bucket.upload(&key("first"), &small()).await.unwrap();
            }
            assert_eq!(bucket.integrity_in_use(), S3Integrity::ContentMd5);
            assert_eq!(server.uploads(), 0, "what was begun is aborted");
            let before = server.seen().len();
            upload_both(&bucket, &server).await;
            for seen in &server.seen()[before..] {
                if WRITES.contains(&seen.operation) {
                    assert!(!has_checksum(seen), "the verdict holds: {seen:?}");
                }
            }
        }
    }
    // Set explicitly, none is ever sent.
    let server = passing(Checksums::NotImplemented).await;
    let mut config = config(&server.endpoint());
    config.send_content_md5 = Some(true);
    upload_both(&bucket(config), &server).await;
    let mut writes = server.seen();
    writes.retain(|seen| WRITES.contains(&seen.operation));
    assert!(!writes.iter().any(has_checksum));
}

#[tokio::test]
async fn pitfall_02_no_chunked_bodies_and_no_trailers() {
    let server = passing(Checksums::Echo).await;
    upload_both(&bucket(config(&server.endpoint())), &server).await;
    for seen in server.seen() {
        assert!(!seen.headers.contains_key("transfer-encoding"), "{seen:?}");
        assert!(!seen.headers.contains_key("content-encoding"), "{seen:?}");
        assert!(!seen.headers.contains_key("x-amz-trailer"), "{seen:?}");
        let hash = seen.headers["x-amz-content-sha256"].to_str().unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        if WRITES.contains(&seen.operation) {
            let length = seen.headers["content-length"].to_str().unwrap();
            assert_eq!(length, seen.body_bytes.to_string());
        }
    }
}

#[tokio::test]
async fn pitfall_03_every_body_bears_a_check_that_object_lock_takes() {
    for (checksums, md5) in [
        (Checksums::Echo, None),
        (Checksums::Ignore, None),
        (Checksums::Echo, Some(true)),
    ] {
        let server = passing(checksums).await;
        let mut config = config(&server.endpoint());
        config.send_content_md5 = md5;
        upload_both(&bucket(config), &server).await;
        for seen in server.seen() {
            if ["PutObject", "UploadPart"].contains(&seen.operation) {
                let has_md5 = seen.headers.contains_key("content-md5");
                assert!(has_md5 || has_checksum(&seen), "{seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn pitfall_04_accept_encoding_is_neither_sent_nor_signed() {
    let server = passing(Checksums::Echo).await;
    upload_both(&bucket(config(&server.endpoint())), &server).await;
    for seen in server.seen() {
        assert!(!seen.headers.contains_key("accept-encoding"), "{seen:?}");
        let signed = seen.headers["authorization"].to_str().unwrap();
        assert!(!signed.contains("accept-encoding"), "{signed}");
    }
}

#[tokio::test]
async fn pitfall_06_lengths_are_known_and_no_part_is_larger_than_asked() {
    let server = passing(Checksums::Echo).await;
    upload_both(&bucket(config(&server.endpoint())), &server).await;
    let parts: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|seen| seen.operation == "UploadPart")
        .map(|seen| seen.body_bytes)
        .collect();
    let mut sorted = parts.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [7, PART_BYTES, PART_BYTES]);
}

#[tokio::test]
async fn pitfall_07_an_answer_that_was_lost_is_asked_for_again_and_nothing_deleted() {
    let puts = AtomicU32::new(0);
    let server = FakeS3::start(Checksums::Echo, move |seen| {
        let is_first = seen.operation == "PutObject" && puts.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first {
            Fault::LoseAnswer
        } else {
            Fault::Pass
        }
    })
    .await
    .unwrap();
    let bucket = bucket(config(&server.endpoint()));
    bucket.upload(&key("meta.json"), &small()).await.unwrap();
    assert_eq!(server.count("PutObject"), 2);
    assert_eq!(server.count("DeleteObject"), 0);
    assert!(server.object("bucket/meta.json").unwrap() == small().0);
}

#[tokio::test]
async fn pitfall_08_an_etag_is_whatever_the_server_says() {
    // The server's ETags are no MD5 and hold characters that XML must escape.
    let server = passing(Checksums::Echo).await;
    upload_both(&bucket(config(&server.endpoint())), &server).await;
    assert_eq!(server.count("CompleteMultipartUpload"), 1);
}

#[tokio::test]
async fn pitfall_09_the_customers_key_goes_with_every_request_for_an_object() {
    let server = passing(Checksums::Echo).await;
    let mut config = config(&server.endpoint());
    config.encryption = Encryption::Customer { key: [7; 32] };
    let bucket = bucket(config);
    upload_both(&bucket, &server).await;
    let got: Vec<Bytes> = bucket
        .get(&key("small"))
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(got.concat(), small().0);
    let encoded = base64::prelude::BASE64_STANDARD.encode([7; 32]);
    let of_objects = [
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "HeadObject",
        "GetObject",
    ];
    for operation in of_objects {
        let all = server.seen();
        let seen = all.iter().find(|seen| seen.operation == operation).unwrap();
        let header = |name: &str| {
            let name = format!("x-amz-server-side-encryption-customer-{name}");
            seen.headers[name.as_str()].to_str().unwrap().to_owned()
        };
        assert_eq!(header("key"), encoded, "{operation}");
        assert_eq!(header("algorithm"), "AES256", "{operation}");
        assert_eq!(header("key-md5").len(), 24, "{operation}");
    }
    assert!(!format!("{bucket:?}").contains(&encoded));
}

#[tokio::test]
async fn pitfall_09_an_empty_encryption_context_is_an_object() {
    let server = passing(Checksums::Echo).await;
    let mut config = config(&server.endpoint());
    config.encryption = Encryption::Kms {
        key_id: "key".parse().unwrap(),
        context: std::collections::BTreeMap::new(),
    };
    upload_both(&bucket(config), &server).await;
    for seen in server.seen() {
        let begins = ["PutObject", "CreateMultipartUpload"].contains(&seen.operation);
        let context = seen.headers.get("x-amz-server-side-encryption-context");
        let context = context.map(|value| value.to_str().unwrap());
        assert_eq!(context, begins.then_some("e30="), "{seen:?}");
    }
}

#[tokio::test]
async fn pitfall_10_a_request_is_signed_when_it_is_sent() {
    let tries = AtomicU32::new(0);
    let server = FakeS3::start(Checksums::Echo, move |seen| {
        let is_part = seen.operation == "UploadPart";
        match is_part && tries.fetch_add(1, Ordering::Relaxed) < 3 {
            true => Fault::Refuse(503, "SlowDown", &[]),
            false => Fault::Pass,
        }
    })
    .await
    .unwrap();
    // Every look at this clock finds a quarter of an hour gone.
    let minutes = AtomicI64::new(0);
    let clock = Clock::new(move || {
        let minutes = minutes.fetch_add(15, Ordering::Relaxed);
        1_700_000_000_000_000_000 + i128::from(minutes) * 60_000_000_000
    });
    let http = http(&ClientTls::default());
    let bucket = S3Bucket::new(config(&server.endpoint()), http, keys(), limits(), clock, 1);
    bucket.upload(&key("large"), &large()).await.unwrap();
    let mut dates: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.headers["x-amz-date"].to_str().unwrap().to_owned())
        .collect();
    let count = dates.len();
    dates.sort();
    dates.dedup();
    assert!(
        count >= 8 && dates.len() == count,
        "no two tries share a signature"
    );
}

/// Gives other credentials at each call.
#[derive(Debug, Default)]
struct Renewing(AtomicU32);

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let id = format!("KEY{}", self.0.fetch_add(1, Ordering::Relaxed));
        let token = Some(format!("token-of-{id}"));
        future::ProvideCredentials::ready(Ok(Credentials::new(id, "secret", token, None, "test")))
    }
}

#[tokio::test]
async fn pitfall_11_an_expired_token_is_renewed_once() {
    let is_old = |seen: &SeenRequest, ids: &[&str]| {
        let signed = seen.headers["authorization"].to_str().unwrap();
        ids.iter().any(|id| signed.contains(id))
    };
    for (expired, works) in [(&["KEY0/"][..], true), (&["KEY0/", "KEY1/"], false)] {
        let server = FakeS3::start(Checksums::Echo, move |seen| {
            let token = seen.headers["x-amz-security-token"].to_str().unwrap();
            assert!(token.starts_with("token-of-KEY"));
            match is_old(seen, expired) {
                true => Fault::Refuse(400, "ExpiredToken", &[]),
                false => Fault::Pass,
            }
        })
        .await
        .unwrap();
        let provider = Arc::new(Renewing::default());
        let shared =
            SharedCredentialsProvider::new(Arc::clone(&provider) as Arc<dyn ProvideCredentials>);
        let mut config = config(&server.endpoint());
        config.region = Some("r".to_owned());
        config.attempts_max = std::num::NonZeroU32::MIN;
        let http = http(&ClientTls::default());
        let credentials = S3Credentials::provided(shared, clock());
        let bucket = S3Bucket::new(config, http, credentials, limits(), clock(), 1);
        let outcome = bucket.upload(&key("o"), &small()).await;
        assert_eq!(outcome.is_ok(), works);
        assert_eq!(provider.0.load(Ordering::Relaxed), 2, "asked once more");
        // A HEAD's 400 has no body that would say why.
        if works {
            bucket.attributes(&key("o")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn pitfall_14_servers_without_the_second_listing_are_asked_by_the_first() {
    for version in [ListVersion::V1, ListVersion::V2] {
        let server = passing(Checksums::Echo).await;
        let mut config = config(&server.endpoint());
        config.list_version = version;
        let bucket = bucket(config);
        let names = ["a b+c", "d/1", "d/2", "e", "f/g/h", "i", "j", "ü"];
        for name in names {
            bucket.upload(&key(name), &small()).await.unwrap();
        }
        let listed: Vec<ListEntry> = bucket
            .list(None)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        let object = |name: &str| ListEntry::Object(name.to_owned());
        let directory = |name: &str| ListEntry::Directory(name.to_owned());
        assert_eq!(
            listed,
            [
                object("a b+c"),
                directory("d"),
                object("e"),
                directory("f"),
                object("i"),
                object("j"),
                object("ü")
            ]
        );
        let other = match version {
            ListVersion::V1 => "ListObjectsV2",
            ListVersion::V2 => "ListObjects",
        };
        assert_eq!(server.count(other), 0);
    }
}

#[tokio::test]
async fn pitfall_15_the_usual_policy_is_enough() {
    // List, Get, Put and Delete are allowed; AbortMultipartUpload and the rest are not.
    let server = FakeS3::start(Checksums::NotImplemented, |seen| {
        match ["AbortMultipartUpload", "GetBucketLocation"].contains(&seen.operation) {
            true => Fault::Refuse(403, "AccessDenied", &[]),
            false => Fault::Pass,
        }
    })
    .await
    .unwrap();
    let bucket = bucket(config(&server.endpoint()));
    upload_both(&bucket, &server).await;
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.operation != "ListParts")
    );

    let fails = Failing(large());
    let error = bucket.upload(&key("bad"), &fails).await.unwrap_err();
    assert!(error.is_source(), "{error:?}");
    assert_eq!(server.count("AbortMultipartUpload"), 1);
    assert!(server.object("bucket/bad").is_none());
}

/// Its last run does not come.
struct Failing(MemorySource);

#[async_trait::async_trait]
impl crate::objstore::UploadSource for Failing {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    async fn open(
        &self,
    ) -> Result<Box<dyn crate::objstore::ByteRuns>, crate::objstore::SourceError> {
        let whole = usize::try_from(self.size_bytes()).unwrap();
        let cut = MemorySource(self.0.0.slice(..whole - 3));
        Ok(Box::new(ThenFails(cut.open().await?)))
    }

    async fn reread(
        &self,
        range: std::ops::Range<u64>,
    ) -> Result<Box<dyn crate::objstore::ByteRuns>, crate::objstore::SourceError> {
        self.0.reread(range).await
    }
}

struct ThenFails(Box<dyn crate::objstore::ByteRuns>);

#[async_trait::async_trait]
impl crate::objstore::ByteRuns for ThenFails {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, crate::objstore::SourceError> {
        match self.0.next(within).await? {
            Some(run) => Ok(Some(run)),
            None => Err("the disk is gone".into()),
        }
    }
}
