//! What a user gets wrong in the configuration, and what the error tells of it.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;

use super::servers::bytes;
use super::testing::{Checksums, FakeS3, Fault};
use super::{
    Mismatch, S3Bucket, S3Config, S3Fault, bucket, bucket_with, clock, config, http, keys, limits,
};
use crate::net::ClientTls;
use crate::net::http::{Reply, ScriptedServer, TestCa, response};
use crate::objstore::{Bucket as _, BucketError, ErrorKind, MemorySource, ObjectKey};

fn once(endpoint: &str) -> S3Config {
    let mut config = config(endpoint);
    config.attempts_max = NonZeroU32::MIN;
    config.region = Some("r".to_owned());
    config
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

async fn head(config: S3Config, tls: &ClientTls) -> BucketError {
    let bucket = S3Bucket::new(config, http(tls), keys(), limits(), clock(), 1);
    bucket.attributes(&key("o")).await.unwrap_err()
}

fn mismatch(error: &BucketError) -> Option<Mismatch> {
    match &error.kind {
        ErrorKind::S3(inner) => match &inner.fault {
            S3Fault::Http { mismatch, .. } => *mismatch,
            _ => None,
        },
        _ => None,
    }
}

fn ok() -> Reply {
    Reply::Bytes(response("200 OK", &[], ""))
}

#[tokio::test]
async fn tls_of_an_unknown_authority_or_name_is_fatal_and_says_what_to_set() {
    let ca = TestCa::new();
    let trusting = ClientTls {
        ca_file: Some(ca.ca_file()),
        ..ClientTls::default()
    };
    let other = TestCa::new();
    let distrusting = ClientTls {
        ca_file: Some(other.ca_file()),
        ..ClientTls::default()
    };
    for (name, tls, expected, remedy) in [
        ("127.0.0.1", &distrusting, Mismatch::UnknownCa, "ca_file"),
        (
            "elsewhere.example",
            &trusting,
            Mismatch::Certificate,
            "server_name",
        ),
    ] {
        let server = ScriptedServer::start_tls(ca.server(name, false), |_| ok()).await;
        let mut config = once(&server.addr().to_string());
        config.insecure = false;
        config.attempts_max = NonZeroU32::new(10).unwrap();
        let error = head(config, tls).await;
        assert_eq!(mismatch(&error), Some(expected), "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.remedy().unwrap().contains(remedy));
        assert_eq!(server.accepted(), 1, "not tried again");
    }
    // This server offers HTTP/2 and does not speak it: bodies go over HTTP/1.1.
    let mut server_tls = ca.server("127.0.0.1", false);
    server_tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = ScriptedServer::start_tls(server_tls, |_| ok()).await;
    let mut config = once(&server.addr().to_string());
    config.insecure = false;
    let bucket = S3Bucket::new(config, http(&trusting), keys(), limits(), clock(), 1);
    assert_eq!(bucket.attributes(&key("o")).await.unwrap().size_bytes, 0);
    // TLS protects bodies, so their signature leaves them out.
    let seen = server.seen();
    assert_eq!(
        seen[0].header("x-amz-content-sha256"),
        Some("UNSIGNED-PAYLOAD")
    );
}

#[tokio::test]
async fn http_and_https_mixed_up_is_fatal_and_says_so() {
    let speaks_plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = once(&speaks_plain.local_addr().unwrap().to_string());
    config.insecure = false;
    let server = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = speaks_plain.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let answer = b"HTTP/1.0 400 Bad Request\r\n\r\nnot TLS";
        stream.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    };
    let tls = ClientTls::default();
    let error = tokio::select! {
        error = head(config, &tls) => error,
        () = server => unreachable!("pending"),
    };
    assert_eq!(mismatch(&error), Some(Mismatch::PlainHttp), "{error:?}");
    assert!(!error.is_retryable() && error.remedy().unwrap().contains("insecure"));

    // A TLS server answers plain HTTP with an alert.
    let alert = vec![0x15, 3, 3, 0, 2, 2, 22];
    let tls = ScriptedServer::start(move |_| Reply::Close(alert.clone())).await;
    let error = head(once(&tls.addr().to_string()), &ClientTls::default()).await;
    assert_eq!(mismatch(&error), Some(Mismatch::NotHttp), "{error:?}");
    assert!(!error.is_retryable() && error.remedy().unwrap().contains("insecure"));

    // Others answer 400 in words that are not S3's.
    let text = "Client sent an HTTP request to an HTTPS server.";
    let go =
        ScriptedServer::start(move |_| Reply::Bytes(response("400 Bad Request", &[], text))).await;
    let error = bucket(once(&go.addr().to_string()))
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(error.remedy().unwrap().contains("no answer of S3"));
}

#[tokio::test]
async fn a_wrong_endpoint_is_named_and_may_come_back() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = gone.local_addr().unwrap().to_string();
    drop(gone);
    let error = head(once(&endpoint), &ClientTls::default()).await;
    assert!(error.is_retryable());
    assert!(error.remedy().unwrap().contains("endpoint"), "{error:?}");
    assert!(format!("{error:?}").contains(&endpoint));
    let error = head(once("http://x/y z"), &ClientTls::default()).await;
    assert!(!error.is_retryable());
    assert!(
        error.remedy().unwrap().contains("without a scheme"),
        "{error:?}"
    );
}

#[tokio::test]
async fn wrong_keys_small_parts_and_clocks_have_remedies() {
    for (status, code, remedy) in [
        (403, "SignatureDoesNotMatch", "secret_key"),
        (403, "InvalidAccessKeyId", "access_key"),
        (403, "AccessDenied", "s3:PutObject"),
        (403, "RequestTimeTooSkewed", "NTP"),
        (400, "EntityTooSmall", "part_size"),
        (400, "ExpiredToken", "token"),
    ] {
        let server = FakeS3::start(Checksums::Echo, move |_| Fault::Refuse(status, code, &[]))
            .await
            .unwrap();
        let source = MemorySource(bytes(10));
        let bucket = bucket(once(&server.endpoint()));
        let error = bucket.upload(&key("o"), &source).await.unwrap_err();
        assert!(
            error.remedy().unwrap().contains(remedy),
            "{code}: {error:?}"
        );
        let text = crate::model::ErrorChain(&error).to_string();
        assert!(text.contains(code) && text.contains("R-1"), "{text}");
        assert_eq!(text.contains("AKIDEXAMPLE"), status == 403, "{text}");
        assert!(text.contains(&server.endpoint()), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_question_for_checksums_is_asked_without() {
    let server = FakeS3::start(Checksums::Echo, |seen| {
        match seen.headers.contains_key("x-amz-checksum-mode") {
            true => Fault::Refuse(400, "InvalidArgument", &[]),
            false => Fault::Pass,
        }
    })
    .await
    .unwrap();
    let bucket = bucket(once(&server.endpoint()));
    let source = MemorySource(bytes(10));
    bucket.upload(&key("o"), &source).await.unwrap();
    for _ in 0..2 {
        let found = bucket.attributes(&key("o")).await.unwrap();
        assert_eq!((found.size_bytes, found.crc64), (10, None));
    }
    assert_eq!(server.count("HeadObject"), 3);
}

#[tokio::test]
async fn a_key_that_may_not_decrypt_asks_without_checksums_each_time() {
    let server = FakeS3::start(Checksums::Echo, |seen| {
        match seen.headers.contains_key("x-amz-checksum-mode") && seen.name.ends_with("kms") {
            true => Fault::Refuse(403, "AccessDenied", &[]),
            false => Fault::Pass,
        }
    })
    .await
    .unwrap();
    let bucket = bucket(once(&server.endpoint()));
    let source = MemorySource(bytes(10));
    for (name, has_checksum) in [("kms", false), ("plain", true), ("kms", false)] {
        bucket.upload(&key(name), &source).await.unwrap();
        let found = bucket.attributes(&key(name)).await.unwrap();
        assert_eq!(
            (found.size_bytes, found.crc64.is_some()),
            (10, has_checksum)
        );
    }
    // Once more for the clock: this one is wrong, and a HEAD's 403 does not say why.
    assert_eq!(server.count("HeadObject"), 5 + 1);
}

#[tokio::test]
async fn a_listing_that_never_ends_is_an_error() {
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents>\
                <NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
    let server = ScriptedServer::start(move |_| Reply::Bytes(response("200 OK", &[], page))).await;
    let bucket = bucket(once(&server.addr().to_string()));
    let listing = bucket.list(None).await.unwrap();
    let error = listing.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(error.to_string().contains("list"), "{error:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn the_region_is_asked_for_once_and_only_where_it_is_unknown() {
    let server = FakeS3::start(Checksums::Echo, |_| Fault::Pass)
        .await
        .unwrap();
    let mut unknown = config(&server.endpoint());
    unknown.region = None;
    let bucket_a = bucket(unknown);
    for _ in 0..2 {
        bucket_a.attributes(&key("o")).await.unwrap_err();
    }
    assert_eq!(server.count("GetBucketLocation"), 1);
    let seen = server.seen();
    let signed = seen[1].headers["authorization"].to_str().unwrap();
    assert!(signed.contains("/us-east-1/s3/"), "{signed}");
    let bucket_b = bucket(once(&server.endpoint()));
    bucket_b.attributes(&key("o")).await.unwrap_err();
    assert_eq!(server.count("GetBucketLocation"), 1);
}

#[tokio::test]
async fn headers_of_the_user_go_with_what_begins_an_object() {
    let server = FakeS3::start(Checksums::Echo, |_| Fault::Pass)
        .await
        .unwrap();
    let mut config = once(&server.endpoint());
    let name = http::HeaderName::from_static;
    config.put_headers = vec![
        (name("x-amz-meta-team"), "a".parse().unwrap()),
        (name("content-type"), "text/x".parse().unwrap()),
    ];
    config.storage_class = Some("STANDARD_IA".parse().unwrap());
    let source = MemorySource(bytes(10));
    bucket(config).upload(&key("o"), &source).await.unwrap();
    let seen = server.seen().remove(0);
    for (name, value) in [
        ("x-amz-meta-team", "a"),
        ("content-type", "text/x"),
        ("x-amz-storage-class", "STANDARD_IA"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    let agent = seen.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("outrigger/"), "{agent}");
    let signed = seen.headers["authorization"].to_str().unwrap();
    assert!(signed.contains("x-amz-meta-team") && !signed.contains("user-agent"));
}

#[tokio::test]
async fn anonymous_requests_are_not_signed() {
    let server = FakeS3::start(Checksums::Echo, |_| Fault::Pass)
        .await
        .unwrap();
    let http = http(&ClientTls::default());
    let nobody = super::S3Credentials::anonymous();
    let bucket = S3Bucket::new(
        config(&server.endpoint()),
        http,
        nobody,
        limits(),
        clock(),
        1,
    );
    let source = MemorySource(bytes(10));
    bucket.upload(&key("o"), &source).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 1, "no region is needed");
    assert!(!seen[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_trace_tells_requests_and_no_secrets() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let server = FakeS3::start(Checksums::Echo, |_| Fault::Pass)
        .await
        .unwrap();
    let mut config = once(&server.endpoint());
    config.trace = true;
    config.encryption = super::Encryption::Customer {
        key: *b"0123456789abcdef0123456789abcdef",
    };
    let bucket = bucket(config);
    let _guard = tracing::subscriber::set_default(Lines(Arc::clone(&lines)));
    bucket
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap();
    let text = lines.lock().unwrap().join("\n");
    for told in [
        "request",
        "response",
        "/bucket/o",
        "x-amz-checksum-crc64nvme",
    ] {
        assert!(text.contains(told), "{told} in {text}");
    }
    for secret in ["Signature=", "MDEyMzQ1Njc4", "not-a-real-secret"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// What a small upload logs as warnings, over a server whose first answers meet `faults`.
async fn warnings(mut faults: Vec<Fault>, answer: Duration) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    faults.reverse();
    let faults = Mutex::new(faults);
    let server = FakeS3::start(Checksums::Echo, move |_| {
        faults.lock().unwrap().pop().unwrap_or(Fault::Pass)
    })
    .await
    .unwrap();
    let mut config = once(&server.endpoint());
    config.attempts_max = NonZeroU32::new(10).unwrap();
    let mut limits = limits();
    limits.stall_timeout = answer;
    limits.response_header_timeout = Some(answer);
    let bucket = bucket_with(config, limits);
    let _guard = tracing::subscriber::set_default(Lines(Arc::clone(&lines)));
    let source = MemorySource(bytes(10));
    bucket.upload(&key("o"), &source).await.unwrap();
    let mut lines = lines.lock().unwrap();
    lines.retain(|line| line.starts_with("WARN "));
    lines.clone()
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_told_of_once() {
    let slow = || Fault::Refuse(503, "SlowDown", &[]);
    let long = Duration::from_secs(60);
    assert_eq!(warnings(vec![slow(); 2], long).await, [""; 0]);
    let told = warnings(vec![slow(); 5], long).await;
    assert_eq!(told.len(), 1, "{told:?}");
    for word in ["attempts=3", "PutObject", "SlowDown", "remedy="] {
        assert!(told[0].contains(word), "{word}: {told:?}");
    }
    // One that says nothing at all has cost a minute already.
    let told = warnings(vec![Fault::Stall], Duration::from_millis(100)).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("attempts=1"), "{told:?}");
}

#[tokio::test]
async fn a_region_that_is_none_never_becomes_a_host() {
    let server = ScriptedServer::start(|_| {
        let document = "<LocationConstraint>evil.example/</LocationConstraint>";
        Reply::Bytes(response("200 OK", &[], document))
    })
    .await;
    let mut config = once(&server.addr().to_string());
    config.region = None;
    let error = head(config, &ClientTls::default()).await;
    let text = crate::model::ErrorChain(&error).to_string();
    assert!(
        text.contains("<LocationConstraint> is `evil.example/`"),
        "{text}"
    );
    assert!(error.remedy().unwrap().contains("`region`"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn uploads_that_nothing_protects_are_told_of_once() {
    let server = FakeS3::start(Checksums::Ignore, |_| Fault::Pass)
        .await
        .unwrap();
    for (md5, told) in [(Some(false), 1), (None, 0)] {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut config = once(&server.endpoint());
        config.send_content_md5 = md5;
        let bucket = bucket(config);
        let _guard = tracing::subscriber::set_default(Lines(Arc::clone(&lines)));
        for _ in 0..2 {
            let source = MemorySource(bytes(10));
            bucket.upload(&key("o"), &source).await.unwrap();
        }
        let lines = lines.lock().unwrap();
        let warned = lines.iter().filter(|line| line.starts_with("WARN "));
        let warned: Vec<_> = warned.collect();
        assert_eq!(warned.len(), told, "{warned:?}");
        assert!(
            warned
                .iter()
                .all(|line| line.contains("nothing but their size"))
        );
        let protects = |line: &String| line.contains("this check protects uploads");
        assert_eq!(lines.iter().filter(|line| protects(line)).count(), 1 - told);
    }
}

/// Keeps all log lines.
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("outrigger")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
