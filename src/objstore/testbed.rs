//! What the tests of stores share: a bucket from a document, large objects, and what they must
//! come to.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use prometheus_client::registry::Registry;

use super::*;
use crate::disk::{BufferPool, DiskEngine};
use crate::model::{Clock, ErrorChain};

/// The time that all of them are at: 2026-01-01T00:00:00Z.
pub(super) const NOW_NS: i128 = 1_767_225_600_000_000_000;

/// The bucket of the document with these environment variables.
pub(super) fn built(
    yaml: &str,
    variables: &[(&str, &str)],
) -> Result<Arc<dyn Bucket>, ConfigError> {
    built_with(yaml, variables, 8 << 20)
}

/// As [`built`], with this limit for bodies that are kept in memory.
pub(super) fn built_with(
    yaml: &str,
    variables: &[(&str, &str)],
    body_bytes_max: u64,
) -> Result<Arc<dyn Bucket>, ConfigError> {
    built_at(yaml, variables, body_bytes_max, Clock::fixed(NOW_NS))
}

/// As [`built`], at another time, for servers that look at theirs.
pub(super) fn built_when(yaml: &str, now_ns: i128) -> Arc<dyn Bucket> {
    built_at(yaml, &[], 8 << 20, Clock::fixed(now_ns)).unwrap()
}

fn built_at(
    yaml: &str,
    variables: &[(&str, &str)],
    body_bytes_max: u64,
    clock: Clock,
) -> Result<Arc<dyn Bucket>, ConfigError> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
    let variables: Vec<_> = variables.iter().map(owned).collect();
    let variable: Variables = Arc::new(move |name| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    });
    let config = BucketConfig::parse(yaml, Path::new("/"))?;
    let dependencies = BucketDependencies {
        engine: DiskEngine::for_tests(BufferPool::new(2)),
        registry: &mut Registry::default(),
        clock,
        jitter_seed: 1,
        variable,
        parts_in_flight: NonZeroUsize::new(2).unwrap(),
        body_bytes_max,
        pace: None,
        payload_signing: PayloadSigning::Auto,
        requests: RequestStats::default(),
    };
    build(&config, dependencies)
}

pub(super) fn key(text: &str) -> ObjectKey {
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
    bytes.into()
}

pub(super) async fn content(bucket: &dyn Bucket, name: &str) -> Bytes {
    let runs = bucket.get(&key(name)).await.unwrap();
    let runs: Vec<Bytes> = runs.try_collect().await.unwrap();
    runs.concat().into()
}

/// The error of writing a small object, with its causes and its remedy.
pub(super) async fn refusal(bucket: &dyn Bucket) -> (BucketError, String) {
    let source = MemorySource(bytes(10));
    let error = bucket.upload(&key("o"), &source).await.unwrap_err();
    let text = format!(
        "{}; {}",
        ErrorChain(&error),
        error.remedy().unwrap_or_default()
    );
    (error, text)
}

/// Objects with odd names and large ones come back as they went.
pub(super) async fn objects_come_back(bucket: &dyn Bucket, large_bytes: usize) {
    let names = [
        "a b",
        "a+b",
        "ü/日本",
        "per%41cent",
        "q?x=1&y#z",
        "~*'()!@:,;$=",
    ];
    for name in names {
        bucket
            .upload(&key(name), &MemorySource(bytes(100)))
            .await
            .unwrap();
        assert_eq!(content(bucket, name).await, bytes(100), "{name}");
        bucket.delete(&key(name)).await.unwrap();
        assert!(!bucket.exists(&key(name)).await.unwrap(), "{name}");
    }
    let whole = bytes(large_bytes);
    let source = MemorySource(whole.clone());
    bucket.upload(&key("d/large"), &source).await.unwrap();
    let found = bucket.attributes(&key("d/large")).await.unwrap();
    assert_eq!(found.size_bytes, whole.len() as u64);
    assert!(content(bucket, "d/large").await == whole);
    bucket.delete(&key("d/large")).await.unwrap();
    assert!(!bucket.exists(&key("d/large")).await.unwrap());
}
