//! The endpoints as a server answers them.

use std::io::Read;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::lifecycle::{Drain, ProbeMetrics};
use crate::net::http::HttpServer;

fn endpoints() -> (Endpoints, Probe) {
    let mut registry = Registry::default();
    let probe = Probe::new(ProbeMetrics::register(&mut registry));
    (Endpoints::new(probe.clone(), Arc::new(registry)), probe)
}

async fn get(
    endpoints: &Endpoints,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> (StatusCode, HeaderMap, Vec<u8>) {
    let headers = headers.iter().map(|(name, value)| {
        (
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let response = endpoints.answer(&Method::GET, &path.parse().unwrap(), &headers.collect());
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, body.to_vec())
}

#[tokio::test]
async fn probes_follow_their_state() {
    let (endpoints, probe) = endpoints();
    let expect = async |path: &str, status: u16, body: &str| {
        let (seen, headers, text) = get(&endpoints, path, &[]).await;
        assert_eq!(
            (seen.as_u16(), text.as_slice()),
            (status, body.as_bytes()),
            "{path}"
        );
        assert_eq!(headers[CONTENT_TYPE], PLAIN_TEXT);
    };
    expect("/-/healthy", 503, "NOT OK\n").await;
    expect("/-/ready", 503, "NOT OK\n").await;
    probe.healthy();
    expect("/-/healthy", 200, "OK").await;
    expect("/-/ready", 503, "NOT OK\n").await;
    probe.ready();
    expect("/-/ready", 200, "OK").await;
    probe.not_ready(&"gone");
    expect("/-/ready", 503, "NOT OK\n").await;
    expect("/-/healthy", 200, "OK").await;
}

#[tokio::test]
async fn metrics_are_negotiated_in_format_and_compression() {
    let (endpoints, _) = endpoints();
    let (status, headers, text) = get(&endpoints, "/metrics", &[]).await;
    assert_eq!(status, 200);
    assert_eq!(
        headers[CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("thanos_status{check=\"ready\",component=\"sidecar\"} 0\n"),
        "{text}"
    );
    assert!(!text.contains("# EOF"));

    let (_, headers, body) = get(
        &endpoints,
        "/metrics",
        &[
            (
                "accept",
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3",
            ),
            ("accept-encoding", "gzip"),
        ],
    )
    .await;
    assert_eq!(
        headers[CONTENT_TYPE],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(headers[CONTENT_ENCODING], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn a_server_answers_head_and_refuses_the_rest() {
    let (endpoints, probe) = endpoints();
    probe.healthy();
    let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr();
    let (trigger, drain) = Drain::new();
    let serving = tokio::spawn(server.serve(endpoints.handler(), drain, std::time::Duration::ZERO));
    let ask = async |method: &str, path: &str| {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.to_ascii_lowercase()
    };
    let head = ask("HEAD", "/-/healthy").await;
    assert!(
        head.starts_with("http/1.1 200 ok\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(head.contains("content-length: 2\r\n"), "{head}");
    let post = ask("POST", "/metrics").await;
    assert!(
        post.starts_with("http/1.1 405 ") && post.contains("allow: get, head\r\n"),
        "{post}"
    );
    for path in ["/", "/-/ready/", "/metricsx", "/debug/pprof/"] {
        let missing = ask("GET", path).await;
        assert!(missing.starts_with("http/1.1 404 "), "{path}: {missing}");
    }
    let query = ask("GET", "/-/healthy?x=1").await;
    assert!(
        query.starts_with("http/1.1 200 ") && query.ends_with("\r\n\r\nok"),
        "{query}"
    );
    trigger.start();
    serving.await.unwrap();
}
