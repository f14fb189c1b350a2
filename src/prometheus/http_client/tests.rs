//! Each key of the document, over loopback.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::http::{Reply, ScriptedServer, TestCa, response};
use crate::prometheus::{Client, Config, PeerError};

fn parsed(yaml: &str) -> HttpClientConfig {
    let (config, unknown) = HttpClientConfig::parse(yaml).unwrap();
    assert_eq!(unknown, [], "{yaml}");
    config
}

fn client(yaml: &str, url: &str) -> Client {
    Client::new(Config {
        url: url.parse().unwrap(),
        http_client: parsed(yaml),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap()
}

fn version() -> Reply {
    Reply::Bytes(response(
        "200 OK",
        &[],
        r#"{"status":"success","data":{"version":"1"}}"#,
    ))
}

async fn fetch(yaml: &str, url: &str) -> Result<String, PeerError> {
    client(yaml, url).build_version().await
}

fn port_of(server: &ScriptedServer) -> u16 {
    server.addr().port()
}

// === The document ===

#[test]
fn what_the_operator_writes_and_an_empty_document_are_fine() {
    for yaml in [
        "",
        "{}",
        "# nothing\n",
        "---\n",
        "basic_auth:\ntls_config: ~\n",
    ] {
        let config = parsed(yaml);
        assert_eq!(config.authorization, Authorization::None, "{yaml:?}");
        assert!(config.accept_gzip && !config.tls.insecure_skip_verify);
    }
    assert!(
        parsed("tls_config:\n  insecure_skip_verify: true\n")
            .tls
            .insecure_skip_verify
    );
}

#[test]
fn unknown_keys_are_told_with_their_lines() {
    let yaml = "tls_config:\n  ca_file: /x\n  min_version: TLS13\n\
        follow_redirects: false\n\
        transport_config: {max_idle_conn: 3}\n\
        basic_auth:\n  user: x\n";
    let (config, unknown) = HttpClientConfig::parse(yaml).unwrap();
    assert_eq!(config.tls.ca_file.as_deref(), Some("/x".as_ref()));
    let told: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "unknown key `tls_config.min_version` in line 3",
            "unknown key `follow_redirects` in line 4",
            "unknown key `transport_config.max_idle_conn` in line 5",
            "unknown key `basic_auth.user` in line 7",
        ]
    );
}

#[test]
fn wrong_types_are_errors_that_name_key_and_line() {
    for (yaml, expected) in [
        (
            "a: 1\nbasic_auth: x\n",
            "`basic_auth` in line 2 must be a mapping",
        ),
        (
            "tls_config: []\n",
            "`tls_config` in line 1 must be a mapping",
        ),
        (
            "\n\nbearer_token: {a: b}\n",
            "`bearer_token` in line 3 must be a single value",
        ),
        (
            "tls_config:\n  insecure_skip_verify: maybe\n",
            "`tls_config.insecure_skip_verify` in line 2 must be true or false",
        ),
        (
            "transport_config:\n  dialer_timeout: 5s\n",
            "`transport_config.dialer_timeout` in line 2 must be a whole number of nanoseconds",
        ),
        (
            "transport_config:\n  expect_continue_timeout: 5s\n",
            "`transport_config.expect_continue_timeout` in line 2 must be a whole number of \
             nanoseconds",
        ),
        (
            "transport_config:\n  max_idle_conns: many\n",
            "`transport_config.max_idle_conns` in line 2 must be a whole number",
        ),
        ("- a\n", "the document in line 1 must be a mapping"),
        ("just text", "the document in line 1 must be a mapping"),
        ("proxy_url: 'proxy:1'\n", "`proxy_url` in line 1"),
    ] {
        let error = HttpClientConfig::parse(yaml).unwrap_err();
        assert_eq!(error.to_string(), expected, "{yaml}");
    }
    let error = HttpClientConfig::parse("a: [hunter2\nb: }\n").unwrap_err();
    assert!(matches!(
        error,
        HttpClientConfigError::Document(DocumentError::Syntax { .. })
    ));
    let chain = crate::model::ErrorChain(&error).to_string();
    assert!(
        chain.contains("line 2") && !chain.contains("hunter2"),
        "{chain}"
    );
}

#[test]
fn contradictions_are_refused() {
    for yaml in [
        "bearer_token: a\nbearer_token_file: b\n",
        "basic_auth: {username: a, password: b, password_file: c}\n",
        "basic_auth: {username: a}\nbearer_token: b\n",
    ] {
        let error = HttpClientConfig::parse(yaml).unwrap_err();
        assert!(
            matches!(error, HttpClientConfigError::Conflict { .. }),
            "{yaml}: {error:?}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let yaml = "basic_auth: {username: u, password: hunter2}\nproxy_url: http://u:hunter2@p:1\n";
    let shown = format!("{:?}", parsed(yaml));
    assert!(!shown.contains("hunter2"), "{shown}");
    let shown = format!("{:?}", parsed("bearer_token: hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn times_and_counts_reach_the_transport() {
    let defaults = HttpClientConfig::default().client().unwrap();
    assert_eq!(defaults.connect_timeout, Some(Duration::from_secs(5)));
    assert_eq!(
        defaults.tls_handshake_timeout,
        Some(Duration::from_secs(10))
    );
    assert_eq!(defaults.response_header_timeout, None);
    assert_eq!(defaults.idle_timeout, Some(Duration::from_secs(90)));
    assert_eq!(defaults.idle_per_host_max, 2);
    assert_eq!(defaults.connections_per_host_max, None);
    let yaml = "transport_config: {max_idle_conns: 3, max_idle_conns_per_host: 7, \
        idle_conn_timeout: 1, response_header_timeout: 2, max_conns_per_host: 4, \
        tls_handshake_timeout: 0, dialer_timeout: 90e9, expect_continue_timeout: 10e9}";
    let set = parsed(yaml).client().unwrap();
    assert_eq!(set.idle_per_host_max, 3, "the lower of the two limits");
    assert_eq!(set.idle_timeout, Some(Duration::from_nanos(1)));
    assert_eq!(set.response_header_timeout, Some(Duration::from_nanos(2)));
    assert_eq!(set.connections_per_host_max, NonZeroUsize::new(4));
    assert_eq!(set.tls_handshake_timeout, None);
    assert_eq!(set.connect_timeout, Some(Duration::from_secs(90)));
    let zero = parsed("transport_config: {max_idle_conns: 0, max_idle_conns_per_host: 0}");
    assert_eq!(zero.client().unwrap().idle_per_host_max, 2);
    let none = parsed("transport_config: {max_idle_conns_per_host: -1}");
    assert_eq!(none.client().unwrap().idle_per_host_max, 0);
}

// === Credentials ===

#[tokio::test]
async fn basic_auth_and_bearer_tokens_are_sent_and_files_read_anew() {
    let server = ScriptedServer::start(|_| version()).await;
    let url = server.url("/");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let last = || {
        server
            .seen()
            .pop()
            .unwrap()
            .header("authorization")
            .map(str::to_owned)
    };

    fetch("basic_auth: {username: us, password: 0123}", &url)
        .await
        .unwrap();
    assert_eq!(last().unwrap(), "Basic dXM6MDEyMw==");
    fetch("bearer_token: tok", &url).await.unwrap();
    assert_eq!(last().unwrap(), "Bearer tok");

    let basic = client(
        &format!(
            "basic_auth: {{username: us, password_file: {}}}",
            file.display()
        ),
        &url,
    );
    let bearer = client(&format!("bearer_token_file: {}", file.display()), &url);
    for (content, expected_basic, expected_bearer) in [
        ("one\n", "Basic dXM6b25l", "Bearer one"),
        ("two", "Basic dXM6dHdv", "Bearer two"),
    ] {
        std::fs::write(&file, content).unwrap();
        basic.build_version().await.unwrap();
        assert_eq!(last().unwrap(), expected_basic);
        bearer.build_version().await.unwrap();
        assert_eq!(last().unwrap(), expected_bearer);
    }
    std::fs::remove_file(&file).unwrap();
    let sent = server.seen().len();
    let error = bearer.build_version().await.unwrap_err();
    assert!(error.to_string().contains("secret"), "{error}");
    std::fs::write(&file, "bad\u{7f}\nbytes").unwrap();
    let error = bearer.build_version().await.unwrap_err();
    assert!(matches!(error, PeerError::CredentialBytes), "{error:?}");
    assert_eq!(
        server.seen().len(),
        sent,
        "nothing is sent without its credentials"
    );
}

#[tokio::test]
async fn disable_compression_asks_for_none() {
    let server = ScriptedServer::start(|_| version()).await;
    fetch("", &server.url("/")).await.unwrap();
    fetch(
        "transport_config: {disable_compression: true}",
        &server.url("/"),
    )
    .await
    .unwrap();
    let asked: Vec<_> = server
        .seen()
        .iter()
        .map(|s| s.header("accept-encoding").is_some())
        .collect();
    assert_eq!(asked, [true, false]);
}

// === TLS ===

#[tokio::test]
async fn a_private_authority_is_trusted_and_only_when_named() {
    let (ours, other) = (TestCa::new(), TestCa::new());
    let server = ScriptedServer::start_tls(ours.server("localhost", false), |_| version()).await;
    let url = format!("https://localhost:{}/", port_of(&server));
    let yaml = |ca: &TestCa| format!("tls_config: {{ca_file: {}}}", ca.ca_file().display());
    fetch(&yaml(&ours), &url).await.unwrap();
    for untrusting in [yaml(&other), String::new()] {
        let error = fetch(&untrusting, &url).await.unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
    }
    fetch("tls_config: {insecure_skip_verify: true}", &url)
        .await
        .unwrap();
}

#[tokio::test]
async fn server_name_replaces_the_host_of_the_url() {
    let ca = TestCa::new();
    let server =
        ScriptedServer::start_tls(ca.server("prometheus.example", false), |_| version()).await;
    let url = format!("https://127.0.0.1:{}/", port_of(&server));
    let ca_file = ca.ca_file();
    let with_name = |name: &str| {
        format!(
            "tls_config: {{ca_file: {}, server_name: {name}}}",
            ca_file.display()
        )
    };
    fetch(&with_name("prometheus.example"), &url).await.unwrap();
    assert!(fetch(&with_name("other.example"), &url).await.is_err());
    assert!(fetch(&with_name("''"), &url).await.is_err());
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let ca = TestCa::new();
    let server = ScriptedServer::start_tls(ca.server("localhost", true), |_| version()).await;
    let url = format!("https://localhost:{}/", port_of(&server));
    let ca_file = ca.ca_file();
    assert!(
        fetch(
            &format!("tls_config: {{ca_file: {}}}", ca_file.display()),
            &url
        )
        .await
        .is_err()
    );
    let (cert, key) = ca.issue("client");
    let yaml = format!(
        "tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}",
        ca_file.display(),
        cert.display(),
        key.display()
    );
    fetch(&yaml, &url).await.unwrap();
}

#[test]
fn broken_tls_files_fail_the_start_and_are_named() {
    let config = parsed("tls_config: {ca_file: /no/such/ca.pem}");
    let error = config.client().unwrap_err();
    assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
    let half = parsed("tls_config: {cert_file: /c}").client().unwrap_err();
    assert!(half.to_string().contains("key_file"), "{half}");
}

#[tokio::test(start_paused = true)]
async fn tls_handshake_timeout_ends_a_silent_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let started = tokio::time::Instant::now();
    let yaml = "transport_config: {tls_handshake_timeout: 3000000000, dialer_timeout: 0}";
    let error = fetch(yaml, &url).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(started.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn response_header_timeout_ends_a_silent_server() {
    let server = ScriptedServer::start(|_| Reply::Hang).await;
    let yaml = "transport_config: {response_header_timeout: 3000000000}";
    let error = fetch(yaml, &server.url("/")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}

// === Connections ===

#[tokio::test]
async fn connections_are_kept_counted_and_closed_as_configured() {
    let server = ScriptedServer::start(|_| version()).await;
    let url = server.url("/");
    let reusing = client("", &url);
    for _ in 0..2 {
        reusing.build_version().await.unwrap();
    }
    assert_eq!(server.accepted(), 1);
    let closing = client("transport_config: {max_idle_conns_per_host: -1}", &url);
    for _ in 0..2 {
        closing.build_version().await.unwrap();
    }
    assert_eq!(server.accepted(), 3);
    server.hung_up(2).await;
    let forgetting = client("transport_config: {idle_conn_timeout: 1000000}", &url);
    forgetting.build_version().await.unwrap();
    server.hung_up(3).await;

    let one = client("transport_config: {max_conns_per_host: 1}", &url);
    let before = server.accepted();
    let calls = (0..20).map(|_| one.build_version());
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(server.accepted() - before, 1);
}

// === Proxies ===

/// Speaks the proxy's side of CONNECT or SOCKS 5 and forwards to where it is told; remembers what
/// it was told.
async fn tunnel_proxy(socks: bool) -> (u16, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let target = match socks {
                true => socks_target(&mut stream, &log).await,
                false => connect_target(&mut stream, &log).await,
            };
            let mut upstream = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut upstream).await });
        }
    });
    (port, told)
}

async fn connect_target(stream: &mut TcpStream, log: &std::sync::Mutex<Vec<String>>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    log.lock().unwrap().push(head);
    target
}

async fn socks_target(stream: &mut TcpStream, log: &std::sync::Mutex<Vec<String>>) -> String {
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.unwrap();
    let mut methods = vec![0; greeting[1].into()];
    stream.read_exact(&mut methods).await.unwrap();
    let method = methods[0];
    stream.write_all(&[5, method]).await.unwrap();
    let mut credentials = String::from("-");
    if method == 2 {
        stream.read_u8().await.unwrap();
        let mut parts = Vec::new();
        for _ in 0..2 {
            let mut part = vec![0; stream.read_u8().await.unwrap().into()];
            stream.read_exact(&mut part).await.unwrap();
            parts.push(String::from_utf8(part).unwrap());
        }
        stream.write_all(&[1, 0]).await.unwrap();
        credentials = parts.join(":");
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    let host = match request[3] {
        1 => {
            let mut ip = [0; 4];
            stream.read_exact(&mut ip).await.unwrap();
            std::net::Ipv4Addr::from(ip).to_string()
        }
        _ => {
            let mut name = vec![0; stream.read_u8().await.unwrap().into()];
            stream.read_exact(&mut name).await.unwrap();
            String::from_utf8(name).unwrap()
        }
    };
    let port = stream.read_u16().await.unwrap();
    stream
        .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    log.lock()
        .unwrap()
        .push(format!("{credentials} {host}:{port}"));
    format!("{host}:{port}")
}

#[tokio::test]
async fn an_http_proxy_gets_absolute_requests_with_credentials() {
    let proxy = ScriptedServer::start(|_| version()).await;
    let yaml = format!("proxy_url: http://u:p@{}", proxy.addr());
    fetch(&yaml, "http://prometheus.invalid:9090/x")
        .await
        .unwrap();
    let seen = proxy.seen().pop().unwrap();
    assert_eq!(
        seen.line,
        "GET http://prometheus.invalid:9090/x/api/v1/status/buildinfo HTTP/1.1"
    );
    assert_eq!(seen.header("host"), Some("prometheus.invalid:9090"));
    assert_eq!(seen.header("proxy-authorization"), Some("Basic dTpw"));
}

#[tokio::test]
async fn https_goes_through_a_proxy_by_connect() {
    let ca = TestCa::new();
    let server = ScriptedServer::start_tls(ca.server("localhost", false), |_| version()).await;
    let (port, told) = tunnel_proxy(false).await;
    let yaml = format!(
        "proxy_url: http://u:p@127.0.0.1:{port}\ntls_config: {{ca_file: {}}}",
        ca.ca_file().display()
    );
    let target = format!("localhost:{}", port_of(&server));
    fetch(&yaml, &format!("https://{target}/")).await.unwrap();
    let head = told.lock().unwrap().pop().unwrap();
    assert!(
        head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")),
        "{head}"
    );
    assert!(
        head.contains("Proxy-Authorization: Basic dTpw\r\n"),
        "{head}"
    );
    assert_eq!(server.seen()[0].header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_tls_proxy_is_spoken_to_in_tls() {
    let ca = TestCa::new();
    let proxy = ScriptedServer::start_tls(ca.server("localhost", false), |_| version()).await;
    let yaml = format!(
        "proxy_url: https://localhost:{}\ntls_config: {{ca_file: {}}}",
        port_of(&proxy),
        ca.ca_file().display()
    );
    fetch(&yaml, "http://prometheus.invalid/").await.unwrap();
    assert_eq!(
        proxy.seen()[0].line,
        "GET http://prometheus.invalid/api/v1/status/buildinfo HTTP/1.1"
    );
}

#[tokio::test]
async fn a_socks_proxy_forwards_both_schemes() {
    let server = ScriptedServer::start(|_| version()).await;
    let (port, told) = tunnel_proxy(true).await;
    let target = format!("localhost:{}", port_of(&server));
    fetch(
        &format!("proxy_url: socks5://127.0.0.1:{port}"),
        &format!("http://{target}"),
    )
    .await
    .unwrap();
    fetch(
        &format!("proxy_url: socks5h://u:p@127.0.0.1:{port}"),
        &format!("http://{target}"),
    )
    .await
    .unwrap();
    assert_eq!(server.seen()[0].path(), "/api/v1/status/buildinfo");
    assert_eq!(
        *told.lock().unwrap(),
        [format!("- {target}"), format!("u:p {target}")]
    );
}

#[tokio::test]
async fn a_dead_or_refusing_proxy_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("proxy_url: http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = fetch(&dead, "http://prometheus.invalid/")
        .await
        .unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let refusing = ScriptedServer::start(|_| {
        Reply::Bytes(response("407 Proxy Authentication Required", &[], ""))
    })
    .await;
    let yaml = format!("proxy_url: http://{}", refusing.addr());
    let error = fetch(&yaml, "https://prometheus.invalid/")
        .await
        .unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}
