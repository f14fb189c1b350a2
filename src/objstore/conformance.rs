//! One suite that every bucket runs: what the [`Bucket`] trait promises, held to each provider
//! and each decorator.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::*;
use crate::model::Clock;

/// Gives runs of the sizes asked for, then fails or ends.
struct Scripted {
    size_bytes: u64,
    runs: Vec<usize>,
    fails: bool,
    opened: AtomicU32,
}

struct ScriptedRuns {
    runs: std::vec::IntoIter<usize>,
    /// What the last run was too short for.
    pending: Option<usize>,
    fails: bool,
}

#[async_trait]
impl UploadSource for Scripted {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(ScriptedRuns {
            runs: self.runs.clone().into_iter(),
            pending: None,
            fails: self.fails,
        }))
    }

    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        let length = usize::try_from(range.end - range.start)?;
        let bytes = MemorySource(Bytes::from(vec![b'x'; length]));
        bytes.open().await
    }
}

#[async_trait]
impl ByteRuns for ScriptedRuns {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        let within = usize::try_from(within).unwrap();
        match self.pending.take().or_else(|| self.runs.next()) {
            Some(length) if length > within => {
                self.pending = Some(length - within);
                Ok(Some(Bytes::from(vec![b'x'; within])))
            }
            Some(length) => Ok(Some(Bytes::from(vec![b'x'; length]))),
            None if self.fails => Err("the disk is gone".into()),
            None => Ok(None),
        }
    }
}

fn scripted(size_bytes: u64, runs: &[usize], fails: bool) -> Scripted {
    Scripted {
        size_bytes,
        runs: runs.to_vec(),
        fails,
        opened: AtomicU32::new(0),
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn memory(text: &str) -> MemorySource {
    MemorySource(Bytes::from(text.to_owned()))
}

async fn content(bucket: &dyn Bucket, name: &str) -> Result<Vec<u8>, BucketError> {
    let runs: Vec<Bytes> = bucket.get(&key(name)).await?.try_collect().await?;
    Ok(runs.concat())
}

async fn names(bucket: &dyn Bucket, directory: Option<&str>) -> Vec<ListEntry> {
    let directory = directory.map(key);
    bucket
        .list(directory.as_ref())
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap()
}

pub(super) async fn conforms(bucket: &dyn Bucket) {
    objects_come_and_go(bucket).await;
    listing_shows_direct_children(bucket).await;
    a_failed_upload_leaves_the_old_object(bucket).await;
}

async fn objects_come_and_go(bucket: &dyn Bucket) {
    let missing = bucket.attributes(&key("a/b/c")).await.unwrap_err();
    assert!(
        missing.is_not_found() && !missing.is_retryable(),
        "{missing:?}"
    );
    assert!(
        bucket
            .get(&key("a/b/c"))
            .await
            .err()
            .unwrap()
            .is_not_found()
    );
    assert!(!bucket.exists(&key("a/b/c")).await.unwrap());
    bucket.delete(&key("a/b/c")).await.unwrap();

    bucket.upload(&key("a/b/c"), &memory("one")).await.unwrap();
    assert_eq!(content(bucket, "a/b/c").await.unwrap(), b"one");
    bucket
        .upload(&key("a/b/c"), &memory("second"))
        .await
        .unwrap();
    assert_eq!(content(bucket, "a/b/c").await.unwrap(), b"second");
    assert_eq!(
        bucket.attributes(&key("a/b/c")).await.unwrap().size_bytes,
        6
    );
    assert!(bucket.exists(&key("a/b/c")).await.unwrap());
    assert!(
        !bucket.exists(&key("a/b")).await.unwrap(),
        "a directory is no object"
    );
    assert!(
        !bucket.exists(&key("a/b/c/d")).await.unwrap(),
        "below an object is nothing"
    );

    bucket.upload(&key("empty"), &memory("")).await.unwrap();
    assert_eq!(content(bucket, "empty").await.unwrap(), b"");
    let big = scripted(5_000_000, &[1, 1_999_999, 3_000_000], false);
    bucket.upload(&key("big"), &big).await.unwrap();
    assert_eq!(content(bucket, "big").await.unwrap().len(), 5_000_000);
    for name in ["a/b/c", "empty", "big"] {
        bucket.delete(&key(name)).await.unwrap();
        assert!(!bucket.exists(&key(name)).await.unwrap());
    }
    assert!(
        names(bucket, None).await.is_empty(),
        "no directory outlives its last object"
    );
}

async fn listing_shows_direct_children(bucket: &dyn Bucket) {
    let objects = [
        "b/chunks/000001",
        "b/chunks/000002",
        "b/index",
        "c",
        "debug/x",
    ];
    for name in objects {
        bucket.upload(&key(name), &memory(name)).await.unwrap();
    }
    let object = |name: &str| ListEntry::Object(name.to_owned());
    let directory = |name: &str| ListEntry::Directory(name.to_owned());
    let root = names(bucket, None).await;
    assert_eq!(root, [directory("b"), object("c"), directory("debug")]);
    let below = names(bucket, Some("b")).await;
    assert_eq!(below, [directory("b/chunks"), object("b/index")]);
    assert!(names(bucket, Some("nowhere")).await.is_empty());
    for name in objects {
        bucket.delete(&key(name)).await.unwrap();
    }
}

async fn a_failed_upload_leaves_the_old_object(bucket: &dyn Bucket) {
    bucket.upload(&key("o"), &memory("old")).await.unwrap();
    for (size_bytes, runs, fails) in [
        (10, &[4usize][..], true),
        (10, &[4, 5], false),
        (10, &[4, 7], false),
        (0, &[1], false),
    ] {
        let source = scripted(size_bytes, runs, fails);
        let error = bucket.upload(&key("o"), &source).await.unwrap_err();
        assert!(error.is_source() && !error.is_retryable(), "{error:?}");
        assert_eq!(source.opened.load(Ordering::Relaxed), 1);
        assert_eq!(content(bucket, "o").await.unwrap(), b"old");
        assert_eq!(
            names(bucket, None).await.len(),
            1,
            "no partial object shows"
        );
    }
    bucket.delete(&key("o")).await.unwrap();
}

fn filesystem(root: &std::path::Path) -> Arc<dyn Bucket> {
    let engine = crate::disk::DiskEngine::for_tests(crate::disk::BufferPool::new(4));
    Arc::new(FilesystemBucket::new(root.to_owned()).with_engine(&engine))
}

#[tokio::test]
async fn filesystem_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    conforms(&*filesystem(&scratch.path().join("made/at/first/upload"))).await;
}

#[tokio::test]
async fn prefixed_conforms_and_stays_below_its_prefix() {
    let scratch = tempfile::tempdir().unwrap();
    let inner = filesystem(scratch.path());
    inner.upload(&key("outside"), &memory("x")).await.unwrap();
    let bucket = Prefixed::wrap(Arc::clone(&inner), "/some/dir/").unwrap();
    conforms(&*bucket).await;
    bucket.upload(&key("a"), &memory("x")).await.unwrap();
    assert!(inner.exists(&key("some/dir/a")).await.unwrap());
    assert!(!bucket.exists(&key("outside")).await.unwrap());
    for none in ["", "/", "//"] {
        let bucket = Prefixed::wrap(Arc::clone(&inner), none).unwrap();
        assert!(bucket.exists(&key("outside")).await.unwrap());
    }
    assert!(Prefixed::wrap(inner, "a/../b").is_err());
}

#[tokio::test]
async fn every_decorator_together_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let yaml = format!(
        "type: FILESYSTEM\nconfig: {{directory: {}}}\nprefix: p\n",
        scratch.path().display()
    );
    let config = BucketConfig::parse(&yaml, std::path::Path::new("/")).unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    let dependencies = BucketDependencies {
        engine: crate::disk::DiskEngine::for_tests(crate::disk::BufferPool::new(4)),
        registry: &mut registry,
        clock: Clock::fixed(0),
        jitter_seed: 1,
        variable: Arc::new(|_| None),
        parts_in_flight: std::num::NonZeroUsize::MIN,
        body_bytes_max: 1 << 20,
        pace: None,
        payload_signing: PayloadSigning::Auto,
        requests: RequestStats::default(),
    };
    conforms(&*build(&config, dependencies).unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_work_a_moment_later_is_tried_again_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    for (failures, retryable, tries, works) in [
        (3, true, 4, true),
        (4, true, 4, false),
        (1, false, 1, false),
    ] {
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        let flaky = Flaky::new(filesystem(scratch.path()), move |_, _| {
            if seen.fetch_add(1, Ordering::Relaxed) < failures {
                Outcome::Refuse { retryable }
            } else {
                Outcome::Pass
            }
        });
        let bucket = Retrying::new(Arc::new(flaky), 7);
        assert_eq!(bucket.upload(&key("o"), &memory("x")).await.is_ok(), works);
        assert_eq!(count.load(Ordering::Relaxed), tries);
    }
}

#[tokio::test]
async fn a_lost_answer_and_a_lost_object_are_what_they_say() {
    let scratch = tempfile::tempdir().unwrap();
    for (outcome, is_ok, is_there) in [
        (Outcome::LoseAnswer { retryable: false }, false, true),
        (Outcome::LoseObject, true, false),
        (Outcome::Refuse { retryable: false }, false, false),
    ] {
        let inner = filesystem(scratch.path());
        let flaky = Flaky::new(Arc::clone(&inner), move |_, _| outcome);
        assert_eq!(flaky.upload(&key("o"), &memory("x")).await.is_ok(), is_ok);
        assert_eq!(inner.exists(&key("o")).await.unwrap(), is_there);
        inner.delete(&key("o")).await.unwrap();
    }
}
