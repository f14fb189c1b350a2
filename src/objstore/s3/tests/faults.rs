//! Servers and sources that fail in every way, and what must come of it: the object whole or not
//! there, nothing left behind, nothing sent twice that need not be.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::servers::bytes;
use super::testing::{Checksums, FakeS3, Fault, SeenRequest};
use super::{PART_BYTES, S3Fault, S3Integrity, bucket, bucket_with, config, limits};
use crate::net::http::{Reply as Answer, ScriptedServer, response};
use crate::objstore::{
    Bucket as _, BucketError, ByteRuns, ErrorKind, MemorySource, MultipartState, ObjectKey,
    RequestStats, SentPart, SourceError, UploadProgress, UploadSource,
};

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// A file in memory that remembers its upload as the shipper does.
struct Remembered {
    content: MemorySource,
    /// What a second reading gives.
    reread: MemorySource,
    state: Mutex<Option<MultipartState>>,
    advanced: AtomicU64,
}

#[async_trait]
impl UploadSource for Remembered {
    fn size_bytes(&self) -> u64 {
        self.content.size_bytes()
    }

    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        self.content.open().await
    }

    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        self.reread.reread(range).await
    }

    fn progress(&self) -> &dyn UploadProgress {
        self
    }
}

#[async_trait]
impl UploadProgress for Remembered {
    async fn earlier(&self) -> Option<MultipartState> {
        self.state.lock().unwrap().clone()
    }

    async fn keep(&self, state: Option<&MultipartState>) {
        *self.state.lock().unwrap() = state.cloned();
    }

    fn advanced(&self, bytes: u64) {
        self.advanced.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn remembered(parts: u64) -> Remembered {
    let content = MemorySource(bytes(usize::try_from(parts * PART_BYTES - 3).unwrap()));
    Remembered {
        reread: content.clone(),
        content,
        state: Mutex::new(None),
        advanced: AtomicU64::new(0),
    }
}

/// The first `times` requests of `operation` meet `fault`.
async fn failing(operation: &'static str, times: u32, fault: Fault) -> FakeS3 {
    let met = AtomicU32::new(0);
    FakeS3::start(Checksums::Echo, move |seen| {
        match seen.operation == operation && met.fetch_add(1, Ordering::Relaxed) < times {
            true => fault,
            false => Fault::Pass,
        }
    })
    .await
    .unwrap()
}

fn refuse(status: u16, code: &'static str) -> Fault {
    Fault::Refuse(status, code, &[])
}

#[tokio::test]
async fn what_passes_is_tried_again_and_the_object_is_whole() {
    let faults = [
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::Damage,
        Fault::Stall,
        refuse(500, "InternalError"),
        refuse(503, "SlowDown"),
        refuse(400, "RequestTimeout"),
        refuse(429, ""),
    ];
    let operations = [
        ("PutObject", 1),
        ("UploadPart", 3),
        ("CreateMultipartUpload", 3),
        ("CompleteMultipartUpload", 3),
    ];
    let mut runs = Vec::new();
    for fault in &faults {
        for (operation, parts) in operations {
            // Damage is noticed by the sums of bodies, which these have not, and a request without
            // a body is given a minute to be connected.
            let has_body = operation != "CreateMultipartUpload";
            let is_summed = !operation.ends_with("MultipartUpload");
            if (*fault != Fault::Damage || is_summed) && (*fault != Fault::Stall || has_body) {
                runs.push(passes_after(operation, *fault, parts));
            }
        }
    }
    futures_util::future::join_all(runs).await;
}

async fn passes_after(operation: &'static str, fault: Fault, parts: u64) {
    let server = failing(operation, 1, fault).await;
    let mut limits = limits();
    limits.stall_timeout = Duration::from_secs(1);
    limits.response_header_timeout = Some(Duration::from_secs(1));
    let source = remembered(parts);
    let bucket = bucket_with(config(&server.endpoint()), limits);
    let uploaded = bucket.upload(&key("o"), &source).await.unwrap();
    assert!(server.object("bucket/o").unwrap() == source.content.0);
    let found = bucket.attributes(&key("o")).await.unwrap();
    assert_eq!(found.crc64, uploaded.crc64, "{operation} {fault:?}");
    assert_eq!(source.advanced.load(Ordering::Relaxed), source.size_bytes());
    assert!(source.state.lock().unwrap().is_none());
}

#[tokio::test]
async fn an_answer_cut_short_is_asked_for_again() {
    for operation in [
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
        "ListObjectsV2",
        "GetBucketLocation",
    ] {
        let server = failing(operation, 1, Fault::Truncate).await;
        let bucket = bucket(config(&server.endpoint()));
        let source = remembered(2);
        bucket.upload(&key("o"), &source).await.unwrap();
        assert!(server.object("bucket/o").unwrap() == source.content.0);
        drop(bucket.list(None).await.unwrap());
    }
}

#[tokio::test]
async fn an_error_inside_a_good_status_is_an_error() {
    let server = failing(
        "CompleteMultipartUpload",
        1,
        Fault::ErrorInside("InternalError"),
    )
    .await;
    let source = remembered(2);
    let bucket_a = bucket(config(&server.endpoint()));
    bucket_a.upload(&key("o"), &source).await.unwrap();
    assert_eq!(server.count("CompleteMultipartUpload"), 2);

    let server = failing(
        "CompleteMultipartUpload",
        99,
        Fault::ErrorInside("AccessDenied"),
    )
    .await;
    let error = bucket(config(&server.endpoint()))
        .upload(&key("o"), &source)
        .await
        .unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(server.object("bucket/o").is_none());
    assert_eq!(server.uploads(), 0);
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_resolved_by_looking() {
    let server = failing("CompleteMultipartUpload", 1, Fault::LoseAnswer).await;
    let source = remembered(2);
    bucket(config(&server.endpoint()))
        .upload(&key("o"), &source)
        .await
        .unwrap();
    assert_eq!(server.count("CompleteMultipartUpload"), 2);
    assert_eq!(server.count("HeadObject"), 1);
    assert_eq!(server.count("UploadPart"), 2, "nothing is sent again");
}

/// How many uploads it takes where the first completion is refused, although an object of the same
/// size is there since `last_modified`. This server knows no checksums.
async fn uploads_beside(last_modified: &'static str) -> usize {
    let completions = AtomicU32::new(0);
    let server = ScriptedServer::start(move |seen| {
        let answer = |headers: &[(&str, &str)], document: &str| {
            let now = ("Date", "Fri, 24 May 2013 00:00:00 GMT");
            Answer::Bytes(response("200 OK", &[&[now], headers].concat(), document))
        };
        let gone = "<Error><Code>NoSuchUpload</Code></Error>";
        let method = seen.line.split(' ').next().unwrap_or_default();
        match method {
            "POST" if seen.path().ends_with("?uploads=") => answer(
                &[],
                "<InitiateMultipartUploadResult><UploadId>u</UploadId>\
                 </InitiateMultipartUploadResult>",
            ),
            "PUT" => answer(&[("ETag", "e")], ""),
            "HEAD" => {
                let size = 2 * PART_BYTES - 3;
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\
                     Last-Modified: {last_modified}\r\n\r\n"
                );
                Answer::Bytes(head.into_bytes())
            }
            _ if completions.fetch_add(1, Ordering::Relaxed) == 0 => {
                Answer::Bytes(response("404 Not Found", &[], gone))
            }
            _ => answer(&[], "<CompleteMultipartUploadResult/>"),
        }
    })
    .await;
    let mut config = config(&server.addr().to_string());
    config.region = Some("r".to_owned());
    config.send_content_md5 = Some(true);
    let bucket = bucket(config);
    bucket.upload(&key("o"), &remembered(2)).await.unwrap();
    let seen = server.seen();
    let begun = seen
        .iter()
        .filter(|seen| seen.path().ends_with("?uploads="));
    begun.count()
}

#[tokio::test]
async fn an_object_older_than_the_upload_has_not_come_of_it() {
    assert_eq!(uploads_beside("Thu, 23 May 2013 23:58:00 GMT").await, 2);
    assert_eq!(uploads_beside("Thu, 23 May 2013 23:59:59 GMT").await, 1);
    assert_eq!(uploads_beside("Fri, 24 May 2013 00:00:09 GMT").await, 1);
    assert_eq!(uploads_beside("some day").await, 1, "nothing is known");
}

#[tokio::test]
async fn an_upload_that_is_gone_starts_over_once() {
    for operation in ["UploadPart", "CompleteMultipartUpload"] {
        let server = failing(operation, 1, refuse(404, "NoSuchUpload")).await;
        let source = remembered(2);
        bucket(config(&server.endpoint()))
            .upload(&key("o"), &source)
            .await
            .unwrap();
        assert_eq!(server.count("CreateMultipartUpload"), 2);
        assert!(server.object("bucket/o").unwrap() == source.content.0);

        let server = failing(operation, 99, refuse(404, "NoSuchUpload")).await;
        bucket(config(&server.endpoint()))
            .upload(&key("o"), &source)
            .await
            .unwrap_err();
        assert_eq!(server.count("CreateMultipartUpload"), 2);
    }
}

#[tokio::test]
async fn an_upload_that_was_kept_can_be_given_up_and_its_requests_are_counted() {
    let server = failing("UploadPart", 99, refuse(503, "SlowDown")).await;
    let source = remembered(2);
    let mut config = config(&server.endpoint());
    config.attempts_max = NonZeroU32::new(2).unwrap();
    let requests = RequestStats::default();
    let bucket = bucket(config).counted(requests.clone());
    bucket.upload(&key("o"), &source).await.unwrap_err();
    let state = source.state.lock().unwrap().clone().unwrap();
    assert_eq!(server.uploads(), 1);
    let elsewhere = MultipartState {
        destination: "elsewhere/bucket/o".to_owned(),
        ..state.clone()
    };
    bucket.abandon(&elsewhere).await.unwrap();
    assert_eq!(server.uploads(), 1, "another bucket's is let be");
    bucket.abandon(&state).await.unwrap();
    assert_eq!(server.uploads(), 0);
    bucket.abandon(&state).await.unwrap();

    let totals = requests.totals();
    let of = |operation| totals.iter().find(|totals| totals.operation == operation);
    let parts = of("UploadPart").unwrap();
    let sent = server.count("UploadPart") as u64;
    assert_eq!((parts.latency.count(), parts.failed), (sent, sent));
    assert!(parts.retried >= 1 && parts.retried < sent, "{parts:?}");
    let created = of("CreateMultipartUpload").unwrap();
    assert_eq!(
        (created.latency.count(), created.failed, created.retried),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn what_may_work_later_is_kept_and_gone_on_with() {
    let down = Arc::new(AtomicU32::new(1));
    let switch = Arc::clone(&down);
    let server = FakeS3::start(Checksums::Echo, move |seen| {
        let fails = seen.operation == "UploadPart"
            && seen.query["partNumber"] == "3"
            && switch.load(Ordering::Relaxed) == 1;
        if fails {
            refuse(503, "SlowDown")
        } else {
            Fault::Pass
        }
    })
    .await
    .unwrap();
    let source = remembered(4);
    let mut config = config(&server.endpoint());
    config.attempts_max = NonZeroU32::new(2).unwrap();
    let mut limits = limits();
    limits.parts_in_flight = NonZeroUsize::MIN;
    let bucket_a = bucket_with(config.clone(), limits.clone());
    let error = bucket_a.upload(&key("o"), &source).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(server.count("AbortMultipartUpload"), 0);
    let kept = source.state.lock().unwrap().clone().unwrap();
    assert_eq!(kept.parts.keys().copied().collect::<Vec<_>>(), [1, 2]);

    // Another process goes on.
    down.store(0, Ordering::Relaxed);
    source.advanced.store(0, Ordering::Relaxed);
    let before = server.count("UploadPart");
    bucket_with(config, limits)
        .upload(&key("o"), &source)
        .await
        .unwrap();
    assert_eq!(server.count("UploadPart") - before, 2);
    assert_eq!(server.count("CreateMultipartUpload"), 1);
    assert!(server.object("bucket/o").unwrap() == source.content.0);
    assert_eq!(source.advanced.load(Ordering::Relaxed), source.size_bytes());
    assert!(source.state.lock().unwrap().is_none());
}

/// Makes of the first part another.
fn renumber(state: &mut MultipartState, number: u32) {
    let part = state.parts.remove(&1).unwrap();
    state.parts.insert(number, part);
}

#[tokio::test]
async fn a_state_that_does_not_fit_is_aborted_and_begun_anew() {
    let server = failing("none", 0, Fault::Pass).await;
    let source = remembered(3);
    let good = MultipartState {
        destination: format!("{}/bucket/o", server.endpoint()),
        upload_id: "old".to_owned(),
        part_bytes: NonZeroU64::new(PART_BYTES).unwrap(),
        integrity: "crc64nvme".to_owned(),
        created_seconds: None,
        parts: BTreeMap::new(),
    };
    let part = SentPart {
        etag: "e".to_owned(),
        crc64: 1,
    };
    type Change = fn(&mut MultipartState);
    let misfits: [(Change, usize); 6] = [
        (|state| state.destination.push('x'), 0),
        (|state| state.part_bytes = NonZeroU64::MIN, 1),
        (|state| state.integrity = "none".to_owned(), 1),
        (|state| renumber(state, 4), 1),
        (|state| renumber(state, 0), 1),
        (|_| {}, 1),
    ];
    for (change, aborts) in misfits {
        let mut state = good.clone();
        // The last one fits, but the file's first part is another now.
        state.parts.insert(1, part.clone());
        change(&mut state);
        *source.state.lock().unwrap() = Some(state);
        let before = server.count("AbortMultipartUpload");
        // Each has a bucket of its own, which has found out nothing of the server yet.
        let bucket = bucket(config(&server.endpoint()));
        bucket.upload(&key("o"), &source).await.unwrap();
        assert_eq!(server.count("AbortMultipartUpload") - before, aborts);
        assert!(server.object("bucket/o").unwrap() == source.content.0);
        assert_eq!(server.uploads(), 0);
    }
}

#[tokio::test]
async fn a_server_without_checksums_does_not_cost_the_parts_of_an_earlier_process() {
    for (checksums, md5, integrity) in [
        (Checksums::NotImplemented, None, "content-md5"),
        (Checksums::Ignore, None, "content-md5"),
        (Checksums::InvalidArgument, Some(false), "none"),
    ] {
        let down = Arc::new(AtomicU32::new(1));
        let switch = Arc::clone(&down);
        let server = FakeS3::start(checksums, move |seen| {
            let fails = seen.operation == "UploadPart"
                && seen
                    .query
                    .get("partNumber")
                    .is_some_and(|number| number == "3")
                && switch.load(Ordering::Relaxed) == 1;
            match fails {
                true => refuse(503, "SlowDown"),
                false => Fault::Pass,
            }
        })
        .await
        .unwrap();
        let source = remembered(4);
        let mut config = config(&server.endpoint());
        config.send_content_md5 = md5;
        config.attempts_max = NonZeroU32::MIN;
        let mut limits = limits();
        limits.parts_in_flight = NonZeroUsize::MIN;
        let first = bucket_with(config.clone(), limits.clone());
        first.upload(&key("o"), &source).await.unwrap_err();
        let kept = source.state.lock().unwrap().clone().unwrap();
        assert_eq!((kept.integrity.as_str(), kept.parts.len()), (integrity, 2));

        down.store(0, Ordering::Relaxed);
        let (parts, aborts) = (
            server.count("UploadPart"),
            server.count("AbortMultipartUpload"),
        );
        let second = bucket_with(config, limits);
        second.upload(&key("o"), &source).await.unwrap();
        assert_eq!(server.count("UploadPart") - parts, 2, "{checksums:?}");
        assert_eq!(server.count("AbortMultipartUpload"), aborts);
        assert!(server.object("bucket/o").unwrap() == source.content.0);
    }
}

#[tokio::test]
async fn a_server_that_ignores_checksums_does_not_cost_the_parts_of_an_earlier_try() {
    let met = AtomicU32::new(0);
    let server = FakeS3::start(Checksums::Ignore, move |seen| {
        let is_third = seen.operation == "UploadPart"
            && seen
                .query
                .get("partNumber")
                .is_some_and(|number| number == "3");
        match is_third && met.fetch_add(1, Ordering::Relaxed) == 0 {
            true => refuse(503, "SlowDown"),
            false => Fault::Pass,
        }
    })
    .await
    .unwrap();
    let source = remembered(4);
    let mut config = config(&server.endpoint());
    config.send_content_md5 = Some(false);
    config.attempts_max = NonZeroU32::MIN;
    let mut limits = limits();
    limits.parts_in_flight = NonZeroUsize::MIN;
    let bucket = bucket_with(config, limits);
    bucket.upload(&key("o"), &source).await.unwrap_err();
    assert_eq!(bucket.integrity_in_use(), S3Integrity::None);
    let kept = source.state.lock().unwrap().clone().unwrap();
    assert_eq!(
        (kept.integrity.as_str(), kept.parts.len()),
        ("crc64nvme", 2)
    );

    bucket.upload(&key("o"), &source).await.unwrap();
    assert_eq!(server.count("UploadPart"), 3 + 2, "none is sent again");
    assert_eq!(server.count("AbortMultipartUpload"), 0);
    assert!(server.object("bucket/o").unwrap() == source.content.0);
    assert_eq!(bucket.integrity_in_use(), S3Integrity::None);
}

#[tokio::test]
async fn a_full_server_does_not_cost_what_is_there() {
    let server = failing("UploadPart", 99, refuse(507, "XMinioStorageFull")).await;
    let source = remembered(2);
    let bucket = bucket(config(&server.endpoint()));
    let error = bucket.upload(&key("o"), &source).await.unwrap_err();
    assert!(!error.is_retryable(), "not at once");
    assert_eq!(server.uploads(), 1);
    assert!(source.state.lock().unwrap().is_some());
}

#[tokio::test]
async fn an_answer_that_comes_in_drops_is_waited_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&listener.local_addr().unwrap().to_string());
    config.region = Some("r".to_owned());
    config.attempts_max = NonZeroU32::MIN;
    let mut limits = limits();
    limits.stall_timeout = Duration::from_secs(2);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<ListBucketResult>";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            stream.write_all(b" ").await.unwrap();
        }
        stream.write_all(b"</ListBucketResult>").await.unwrap();
        // All of the request, so that its end is no reset.
        stream.shutdown().await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
        std::future::pending::<()>().await;
    };
    let bucket = bucket_with(config, limits);
    tokio::select! {
        listing = bucket.list(None) => drop(listing.unwrap()),
        () = server => unreachable!("pending"),
    }
}

#[tokio::test]
async fn parts_that_make_another_object_are_not_gone_on_with() {
    for (times, is_sent) in [(2, true), (99, false)] {
        let refusal = refuse(400, "BadDigest");
        let server = failing("CompleteMultipartUpload", times, refusal).await;
        let source = remembered(2);
        let mut config = config(&server.endpoint());
        config.attempts_max = NonZeroU32::new(2).unwrap();
        let outcome = bucket(config).upload(&key("o"), &source).await;
        assert_eq!(outcome.is_ok(), is_sent, "{outcome:?}");
        assert_eq!(server.object("bucket/o").is_some(), is_sent);
        assert_eq!(server.count("CreateMultipartUpload"), 2);
        assert_eq!(server.uploads(), 0);
        assert!(source.state.lock().unwrap().is_none());
    }
}

#[tokio::test]
async fn an_object_sent_in_one_leaves_no_upload_in_parts_behind() {
    let server = failing("UploadPart", 2, refuse(503, "SlowDown")).await;
    let source = remembered(2);
    let mut config = config(&server.endpoint());
    config.attempts_max = NonZeroU32::MIN;
    let in_parts = bucket(config.clone());
    in_parts.upload(&key("o"), &source).await.unwrap_err();
    assert_eq!(server.uploads(), 1);
    config.disable_multipart = true;
    bucket(config).upload(&key("o"), &source).await.unwrap();
    assert!(server.object("bucket/o").unwrap() == source.content.0);
    assert_eq!(server.uploads(), 0);
    assert!(source.state.lock().unwrap().is_none());
}

#[tokio::test]
async fn a_dropped_upload_stays_open_and_kept() {
    let server = failing("UploadPart", 99, Fault::Stall).await;
    let source = remembered(2);
    let bucket = bucket(config(&server.endpoint()));
    let name = key("o");
    let uploading = bucket.upload(&name, &source);
    let seen = async {
        while server.count("UploadPart") < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = uploading => panic!("{outcome:?}"),
        () = seen => {}
    }
    assert_eq!(server.uploads(), 1);
    assert_eq!(server.count("AbortMultipartUpload"), 0);
    assert!(source.state.lock().unwrap().is_some());
}

#[tokio::test]
async fn a_source_that_reads_differently_twice_is_never_published() {
    let server = failing("none", 0, Fault::Pass).await;
    for one_request in [false, true] {
        let mut source = remembered(2);
        let mut changed = source.content.0.to_vec();
        changed[100] ^= 1;
        source.reread = MemorySource(Bytes::from(changed));
        let mut config = config(&server.endpoint());
        config.disable_multipart = one_request;
        let mut limits = limits();
        limits.body_bytes_max = 1 << 20;
        let bucket = bucket_with(config, limits);
        let error = bucket.upload(&key("o"), &source).await.unwrap_err();
        assert!(error.is_source() && !error.is_retryable(), "{error:?}");
        assert!(server.object("bucket/o").is_none());
        assert_eq!(server.uploads(), 0);
        assert!(source.state.lock().unwrap().is_none());
    }
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_by_the_servers() {
    let server = FakeS3::start(Checksums::Echo, |seen| {
        let date = seen.headers["x-amz-date"].to_str().unwrap();
        match date.starts_with("2013") {
            true => Fault::Pass,
            false => Fault::Refuse(
                403,
                "RequestTimeTooSkewed",
                &[("date", "Fri, 24 May 2013 00:00:10 GMT")],
            ),
        }
    })
    .await
    .unwrap();
    let bucket = bucket(config(&server.endpoint()));
    // A HEAD's refusal has no code; the server's date tells all the same.
    assert!(
        bucket
            .attributes(&key("o"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    bucket
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap();
    let refused = server.seen().iter().filter(|seen| !is_2013(seen)).count();
    assert_eq!(refused, 1, "learned once");
}

fn is_2013(seen: &SeenRequest) -> bool {
    seen.headers["x-amz-date"]
        .to_str()
        .unwrap()
        .starts_with("2013")
}

#[tokio::test]
async fn a_bucket_in_another_region_is_followed_once() {
    for (status, code) in [
        (301, "PermanentRedirect"),
        (307, "TemporaryRedirect"),
        (400, "AuthorizationHeaderMalformed"),
    ] {
        for reachable in [true, false] {
            let server = FakeS3::start(Checksums::Echo, move |seen| {
                let signed = seen.headers["authorization"].to_str().unwrap();
                match reachable && signed.contains("/eu-west-9/s3/") {
                    true => Fault::Pass,
                    false => Fault::Refuse(status, code, &[("x-amz-bucket-region", "eu-west-9")]),
                }
            })
            .await
            .unwrap();
            let mut config = config(&server.endpoint());
            config.region = Some("us-east-1".to_owned());
            let bucket = bucket(config);
            let outcome = bucket.upload(&key("o"), &MemorySource(bytes(10))).await;
            match reachable {
                true => {
                    outcome.unwrap();
                    bucket.attributes(&key("o")).await.unwrap();
                    assert_eq!(server.seen().len(), 3, "the region is remembered");
                }
                false => {
                    let error = outcome.unwrap_err();
                    assert!(!error.is_retryable());
                    assert!(error.remedy().unwrap().contains("region"), "{error:?}");
                    assert_eq!(server.seen().len(), 2);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_aborts() {
    let server = failing("UploadPart", 99, refuse(400, "InvalidArgument")).await;
    let source = remembered(2);
    let error = bucket(config(&server.endpoint()))
        .upload(&key("o"), &source)
        .await
        .unwrap_err();
    assert!(!error.is_retryable() && !error.is_source());
    assert_eq!(server.uploads(), 0);
    assert!(source.state.lock().unwrap().is_none());
}

/// Somebody changed a policy and changes it back: what was sent is not sent again.
#[tokio::test]
async fn where_access_is_denied_the_upload_stays_for_another_try() {
    let server = failing("UploadPart", 99, refuse(403, "AccessDenied")).await;
    let source = remembered(2);
    let error = bucket(config(&server.endpoint()))
        .upload(&key("o"), &source)
        .await
        .unwrap_err();
    assert!(!error.is_retryable() && !error.is_source());
    assert!(error.remedy().unwrap().contains("s3:PutObject"));
    assert_eq!(server.uploads(), 1);
    let state = source.state.lock().unwrap().clone();
    assert!(state.is_some_and(|state| state.parts.is_empty()));
}

#[tokio::test]
async fn a_missing_bucket_says_so_but_to_head() {
    let server = FakeS3::start(Checksums::Echo, |_| refuse(404, "NoSuchBucket"))
        .await
        .unwrap();
    let mut config = config(&server.endpoint());
    config.region = Some("r".to_owned());
    let bucket = bucket(config);
    let error = bucket.attributes(&key("o")).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let source = MemorySource(bytes(10));
    let error = bucket.upload(&key("o"), &source).await.unwrap_err();
    assert!(!error.is_retryable() && !error.is_not_found());
    assert!(error.remedy().unwrap().contains("create the bucket"));
    assert!(bucket.list(None).await.is_err());
}

#[tokio::test]
async fn tries_are_counted() {
    let server = failing("PutObject", 99, refuse(500, "InternalError")).await;
    let mut config = config(&server.endpoint());
    config.attempts_max = NonZeroU32::new(3).unwrap();
    let error = bucket(config)
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap_err();
    assert!(error.is_retryable());
    let ErrorKind::S3(error) = error.kind else {
        panic!("{error:?}");
    };
    assert_eq!((error.attempts, server.count("PutObject")), (3, 3));
}

#[tokio::test]
async fn uploads_share_one_limit_of_bodies_in_flight() {
    for most in [1, 3] {
        let server = failing("none", 0, Fault::Pass).await;
        let mut limits = limits();
        limits.parts_in_flight = NonZeroUsize::new(most).unwrap();
        let bucket = bucket_with(config(&server.endpoint()), limits);
        let (a, b) = (remembered(3), remembered(3));
        let (name_a, name_b) = (key("a"), key("b"));
        let both =
            futures_util::future::join(bucket.upload(&name_a, &a), bucket.upload(&name_b, &b));
        let (first, second) = both.await;
        first.unwrap();
        second.unwrap();
        assert!(server.object("bucket/a").unwrap() == a.content.0);
        assert!(server.object("bucket/b").unwrap() == b.content.0);
        assert!(
            server.bodies_max() <= most,
            "{} of {most}",
            server.bodies_max()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn random_faults_end_in_whole_objects() {
    for batch in 0..15 {
        let runs = (0..20).map(|seed| random_run(batch * 20 + seed));
        futures_util::future::join_all(runs).await;
    }
}

/// One object against a server of which every third answer is a fault, until it is there. The
/// paused clock makes waits nothing, and time-outs come when they like, which is one fault more.
async fn random_run(seed: u64) {
    let faults = [
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::Damage,
        Fault::Stall,
        Fault::Truncate,
        refuse(500, "InternalError"),
        refuse(503, "SlowDown"),
        refuse(403, "AccessDenied"),
        refuse(404, "NoSuchUpload"),
        Fault::ErrorInside("InternalError"),
    ];
    let checksums = match seed % 4 {
        0 => Checksums::Ignore,
        1 => Checksums::NotImplemented,
        _ => Checksums::Echo,
    };
    let count = AtomicU64::new(seed << 32);
    let server = FakeS3::start(checksums, move |seen| {
        let mut number = count.fetch_add(1, Ordering::Relaxed);
        number = (number ^ (number >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
        number = (number ^ (number >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d);
        let number = usize::try_from((number ^ (number >> 33)) % 30).unwrap();
        match faults.get(number) {
            // Nobody is told of damage to what has no sum, nor of an error inside no document.
            Some(Fault::Damage) if !["PutObject", "UploadPart"].contains(&seen.operation) => {
                Fault::Pass
            }
            Some(Fault::ErrorInside(_)) if seen.operation != "CompleteMultipartUpload" => {
                Fault::Pass
            }
            Some(fault) => *fault,
            None => Fault::Pass,
        }
    })
    .await
    .unwrap();
    let content = MemorySource(bytes(500 + usize::try_from(seed % 9).unwrap() * 700));
    let source = Remembered {
        reread: content.clone(),
        content,
        state: Mutex::new(None),
        advanced: AtomicU64::new(0),
    };
    let mut config = config(&server.endpoint());
    config.part_bytes = NonZeroU64::new(1000).unwrap();
    config.region = Some("r".to_owned());
    let mut limits = limits();
    limits.body_bytes_max = if seed.is_multiple_of(3) { 100 } else { 1 << 20 };
    for _ in 0..200 {
        // Another process each time, as after a crash.
        let bucket = bucket_with(config.clone(), limits.clone());
        if bucket.upload(&key("o"), &source).await.is_ok() {
            let whole = server.object("bucket/o");
            assert!(whole.unwrap() == source.content.0, "seed {seed}");
            assert!(source.state.lock().unwrap().is_none(), "seed {seed}");
            return;
        }
    }
    panic!("seed {seed} never ended");
}

#[tokio::test]
async fn an_object_too_large_for_one_request_says_what_to_do() {
    struct Huge;
    #[async_trait]
    impl UploadSource for Huge {
        fn size_bytes(&self) -> u64 {
            (5 << 30) + 1
        }
        async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
            Err("never read".into())
        }
        async fn reread(&self, _: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
            Err("never read".into())
        }
    }
    let mut config = config("127.0.0.1:9");
    config.disable_multipart = true;
    let error = bucket(config).upload(&key("o"), &Huge).await.unwrap_err();
    assert!(
        matches!(fault(&error), S3Fault::TooLarge { .. }),
        "{error:?}"
    );
    assert!(error.remedy().unwrap().contains("disable_multipart"));
}

fn fault(error: &BucketError) -> &S3Fault {
    match &error.kind {
        ErrorKind::S3(error) => &error.fault,
        other => panic!("{other:?}"),
    }
}

struct OnDisk(crate::disk::DiskEngine, crate::disk::DiskFile);
struct OnDiskRuns(crate::disk::FileRuns);

#[async_trait]
impl ByteRuns for OnDiskRuns {
    async fn next(&mut self, within: u64) -> Result<Option<Bytes>, SourceError> {
        Ok(self.0.next(within).await?)
    }
}

#[async_trait]
impl UploadSource for OnDisk {
    fn size_bytes(&self) -> u64 {
        self.1.size_bytes()
    }
    async fn open(&self) -> Result<Box<dyn ByteRuns>, SourceError> {
        self.reread(0..self.size_bytes()).await
    }
    async fn reread(&self, range: Range<u64>) -> Result<Box<dyn ByteRuns>, SourceError> {
        let mode = crate::disk::ReadMode::Buffered;
        Ok(Box::new(OnDiskRuns(self.0.runs(&self.1, range, mode))))
    }
}

/// Bodies that wait for a connection hold buffers, and one that is read while it is sent wants
/// some: so there are no more bodies than connections.
#[tokio::test]
async fn few_connections_and_few_buffers_end_well() {
    use crate::disk::{BufferPool, Containment, Dir, DiskEngine};
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("big"), vec![1u8; 64 << 20]).unwrap();
    std::fs::write(scratch.path().join("small"), vec![2u8; 2 << 20]).unwrap();
    let dir = Dir::open(scratch.path(), Containment::Beneath)
        .await
        .unwrap();
    let engine = DiskEngine::new(BufferPool::new(4));
    let big = OnDisk(engine.clone(), dir.open_file("big").await.unwrap());
    let small = OnDisk(engine.clone(), dir.open_file("small").await.unwrap());
    for max in [None, NonZeroUsize::new(1)] {
        let server = failing("none", 0, Fault::Pass).await;
        let document = max.map_or_else(String::new, |max| format!("max_conns_per_host: {max}"));
        let transport = super::transport::HttpConfig::parsed(&document);
        let mut config = config(&server.endpoint());
        config.disable_multipart = true;
        config.region = Some("r".to_owned());
        let mut limits = limits();
        limits.body_bytes_max = 2 << 20;
        limits.parts_in_flight = transport.bodies_max(limits.parts_in_flight);
        let http = crate::net::http::HttpClient::new(transport.client(None).unwrap());
        let bucket = super::S3Bucket::new(config, http, super::keys(), limits, super::clock(), 1);
        let names = [key("a"), key("b"), key("c")];
        let all = async {
            let later = async {
                while server.bodies_max() == 0 {
                    tokio::task::yield_now().await;
                }
                let (one, two) = futures_util::future::join(
                    bucket.upload(&names[1], &small),
                    bucket.upload(&names[2], &small),
                )
                .await;
                one.unwrap();
                two.unwrap();
            };
            let (first, ()) =
                futures_util::future::join(bucket.upload(&names[0], &big), later).await;
            first.unwrap();
        };
        let ended = tokio::time::timeout(Duration::from_secs(120), all).await;
        ended.expect("no body waits for another");
    }
}
