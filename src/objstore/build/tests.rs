//! A document's bucket against servers with private authorities, client certificates and proxies
//! before them.

use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::model::ErrorChain;
use crate::net::http::{Reply, ScriptedServer, TestCa, response};
use crate::objstore::{MemorySource, ObjectKey};

const HEAD: &[(&str, &str)] = &[("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")];

/// The bucket of the document with these variables.
fn built(
    yaml: &str,
    payload_signing: PayloadSigning,
    variables: &[(&'static str, String)],
) -> Result<Arc<dyn Bucket>, ConfigError> {
    let variables = variables.to_vec();
    let variable: Variables = Arc::new(move |name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    });
    let config = BucketConfig::parse(yaml, Path::new("/"))?;
    let mut registry = Registry::default();
    let dependencies = BucketDependencies {
        engine: DiskEngine::for_tests(crate::disk::BufferPool::new(2)),
        registry: &mut registry,
        clock: Clock::fixed(1_767_225_600_000_000_000),
        jitter_seed: 1,
        variable,
        parts_in_flight: NonZeroUsize::MIN,
        body_bytes_max: 8 << 20,
        pace: None,
        payload_signing,
        requests: RequestStats::default(),
    };
    let bucket = build(&config, dependencies)?;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let series = "operations_total{bucket=\"b\",operation=\"upload\"} 0";
    assert!(text.contains(series), "{text}");
    Ok(bucket)
}

fn document(endpoint: &str, more: &str) -> String {
    format!(
        "type: S3\nprefix: p\nconfig:\n  bucket: b\n  endpoint: \"{endpoint}\"\n  region: r\n  \
         access_key: AK\n  secret_key: hidden\n  max_retries: 1\n{more}"
    )
}

async fn attributes(bucket: &Arc<dyn Bucket>) -> Result<u64, String> {
    let key = ObjectKey::new("k").unwrap();
    let attributes = bucket.attributes(&key).await;
    attributes
        .map(|attributes| attributes.size_bytes)
        .map_err(|error| ErrorChain(&error).to_string())
}

async fn tls_server(ca: &TestCa, client_auth: bool) -> (ScriptedServer, String) {
    let config = ca.server("localhost", client_auth);
    let server =
        ScriptedServer::start_tls(config, |_| Reply::Bytes(response("200 OK", HEAD, ""))).await;
    let endpoint = format!("localhost:{}", server.addr().port());
    (server, endpoint)
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_are_used() {
    let ca = TestCa::new();
    let (server, endpoint) = tls_server(&ca, true).await;
    let (cert, key) = ca.issue("client");
    let ca_line = format!("      ca_file: {}\n", ca.ca_file().display());
    let pair = format!(
        "      cert_file: {}\n      key_file: {}\n",
        cert.display(),
        key.display()
    );
    let tls = |lines: &str| format!("  http_config:\n    tls_config:\n{lines}");
    let with = |more: &str| {
        let yaml = document(&endpoint, more);
        built(&yaml, PayloadSigning::Auto, &[]).unwrap()
    };
    let both = with(&tls(&format!("{ca_line}{pair}")));
    assert_eq!(attributes(&both).await, Ok(0));
    let seen = &server.seen()[0];
    assert!(
        seen.line.starts_with("HEAD /b/p/k HTTP/1.1"),
        "{}",
        seen.line
    );
    assert!(
        seen.header("authorization")
            .unwrap()
            .contains("AK/20260101/r/s3/")
    );

    let without_pair = with(&tls(&ca_line));
    let text = attributes(&without_pair).await.unwrap_err();
    assert!(text.contains("ertificate"), "{text}");
    let skipping =
        format!("  http_config:\n    insecure_skip_verify: true\n    tls_config:\n{pair}");
    assert_eq!(attributes(&with(&skipping)).await, Ok(0));
}

#[tokio::test]
async fn an_authority_that_is_not_named_is_not_trusted() {
    let ca = TestCa::new();
    let (_server, endpoint) = tls_server(&ca, false).await;
    let other = TestCa::new();
    let tls = format!(
        "  http_config: {{tls_config: {{ca_file: {}}}}}\n",
        other.ca_file().display()
    );
    let bucket = built(&document(&endpoint, &tls), PayloadSigning::Auto, &[]).unwrap();
    let text = attributes(&bucket).await.unwrap_err();
    assert!(text.contains("invalid peer certificate"), "{text}");
}

#[tokio::test]
async fn a_server_name_replaces_the_host_s() {
    let ca = TestCa::new();
    let config = ca.server("bucket.internal", false);
    let server =
        ScriptedServer::start_tls(config, |_| Reply::Bytes(response("200 OK", HEAD, ""))).await;
    let endpoint = server.addr().to_string();
    for (name, works) in [("bucket.internal", true), ("other.internal", false)] {
        let tls = format!(
            "  http_config: {{tls_config: {{ca_file: {}, server_name: {name}}}}}\n",
            ca.ca_file().display()
        );
        let bucket = built(&document(&endpoint, &tls), PayloadSigning::Auto, &[]).unwrap();
        assert_eq!(attributes(&bucket).await.is_ok(), works, "{name}");
    }
}

#[tokio::test]
async fn requests_go_through_the_proxy_of_the_environment_unless_it_says_otherwise() {
    let proxy = ScriptedServer::start(|_| Reply::Bytes(response("200 OK", HEAD, ""))).await;
    let url = format!("http://user:hidden@{}", proxy.addr());
    let insecure = "  insecure: true\n";
    let yaml = document("s3.invalid:9000", insecure);
    let through = built(&yaml, PayloadSigning::Auto, &[("HTTP_PROXY", url.clone())]).unwrap();
    assert_eq!(attributes(&through).await, Ok(0));
    let seen = &proxy.seen()[0];
    let line = "HEAD http://s3.invalid:9000/b/p/k HTTP/1.1";
    assert_eq!(seen.line, line);
    assert_eq!(seen.header("host"), Some("s3.invalid:9000"));
    assert!(
        seen.header("proxy-authorization")
            .unwrap()
            .starts_with("Basic ")
    );

    let direct = [("http_proxy", url), ("no_proxy", ".invalid".to_owned())];
    let past = built(&yaml, PayloadSigning::Auto, &direct).unwrap();
    assert!(attributes(&past).await.is_err());
    assert_eq!(proxy.seen().len(), 1);
}

#[test]
fn what_cannot_be_set_up_fails_at_once_and_says_why() {
    let refused = |yaml: &str, variables: &[(&'static str, String)]| {
        let error = built(yaml, PayloadSigning::Auto, variables).unwrap_err();
        let text = ErrorChain(&error).to_string();
        assert!(text.starts_with("create S3 client: "), "{text}");
        assert!(!text.contains("hidden"), "{text}");
        text
    };
    let tls = "  http_config: {tls_config: {ca_file: /nonexistent/ca.pem}}\n";
    let text = refused(&document("e", tls), &[]);
    assert!(text.contains("/nonexistent/ca.pem: No such file"), "{text}");
    let variable = [("HTTPS_PROXY", "gopher://hidden@x".to_owned())];
    let text = refused(&document("e", ""), &variable);
    assert!(text.contains("environment variable HTTPS_PROXY"), "{text}");
    let text = refused("type: S3\nconfig: {bucket: b}\n", &[]);
    assert_eq!(text, "create S3 client: no s3 endpoint in config file");
    let text = refused("type: s3\nconfig:\n  bucket: b\n  endpiont: hidden\n", &[]);
    assert!(
        text.contains("`endpiont`") && text.contains("line 4"),
        "{text}"
    );
}

/// What the signature of an upload covers.
async fn payload_hash(tls: bool, signing: PayloadSigning) -> String {
    let ca = TestCa::new();
    let script = |_: &_| Reply::Bytes(response("200 OK", &[("ETag", "\"e\"")], ""));
    let server = match tls {
        true => ScriptedServer::start_tls(ca.server("localhost", false), script).await,
        false => ScriptedServer::start(script).await,
    };
    let transport = match tls {
        true => format!(
            "  http_config: {{tls_config: {{ca_file: {}}}}}\n",
            ca.ca_file().display()
        ),
        false => "  insecure: true\n".to_owned(),
    };
    let endpoint = format!("localhost:{}", server.addr().port());
    let yaml = document(&endpoint, &format!("{transport}  send_content_md5: true\n"));
    let bucket = built(&yaml, signing, &[]).unwrap();
    let source = MemorySource(bytes::Bytes::from_static(b"x"));
    let key = ObjectKey::new("k").unwrap();
    bucket.upload(&key, &source).await.unwrap();
    let seen = server.seen();
    let put = seen.iter().find(|seen| seen.line.starts_with("PUT "));
    let hash = put.unwrap().header("x-amz-content-sha256");
    hash.unwrap().to_owned()
}

#[tokio::test]
async fn the_flag_says_whether_signatures_cover_the_payload() {
    const SHA256_OF_X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
    for (tls, signing, expected) in [
        (false, PayloadSigning::Auto, SHA256_OF_X),
        (true, PayloadSigning::Auto, UNSIGNED),
        (false, PayloadSigning::Never, UNSIGNED),
        (true, PayloadSigning::Always, SHA256_OF_X),
    ] {
        assert_eq!(
            payload_hash(tls, signing).await,
            expected,
            "{tls} {signing:?}"
        );
    }
}
