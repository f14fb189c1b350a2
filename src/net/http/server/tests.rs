//! The server against slow, many and late clients.

use std::collections::VecDeque;

use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::lifecycle::DrainTrigger;
use crate::net::http::{ClientConfig, HttpClient, HttpError, TestCa, empty_body};
use crate::net::{ClientAuth, ClientTls, HttpsTls, PemSource, TlsVersion};

struct Running {
    addr: SocketAddr,
    trigger: DrainTrigger,
    task: tokio::task::JoinHandle<()>,
    /// One message per request that reached the handler.
    arrived: mpsc::UnboundedReceiver<String>,
}

/// Answers `/slow` after ten seconds, everything else at once.
async fn start(grace: Duration) -> Running {
    let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr();
    let (trigger, drain) = Drain::new();
    let (sender, arrived) = mpsc::unbounded_channel();
    let handler = move |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        sender.send(path.clone()).unwrap();
        async move {
            if path == "/slow" {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            Response::new(Full::new(Bytes::from(format!("answer to {path}"))))
        }
    };
    let task = tokio::spawn(server.serve(handler, drain, grace));
    Running {
        addr,
        trigger,
        task,
        arrived,
    }
}

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut buf = [0; 1024];
        match stream.read(&mut buf).await {
            Ok(n) if n > 0 => text.push_str(&String::from_utf8_lossy(&buf[..n])),
            _ => return text,
        }
    }
    text
}

#[tokio::test]
async fn answers_http1_and_http2_with_prior_knowledge() {
    let running = start(Duration::ZERO).await;
    let mut stream = connect(running.addr).await;
    for path in ["/a", "/b"] {
        ask(&mut stream, path).await;
        let text = read_until(&mut stream, &format!("answer to {path}")).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    }
    let io = TokioIo::new(connect(running.addr).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/h2", running.addr))
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    driving.abort();
    running.trigger.start();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_request_in_flight_is_finished_within_grace() {
    tokio::time::pause();
    let mut running = start(Duration::from_secs(60)).await;
    let mut busy = connect(running.addr).await;
    ask(&mut busy, "/slow").await;
    assert_eq!(running.arrived.recv().await.unwrap(), "/slow");
    running.trigger.start();
    let text = read_until(&mut busy, "answer to /slow").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    running.task.await.unwrap();
    assert!(
        TcpStream::connect(running.addr).await.is_err(),
        "no longer listening"
    );
}

#[tokio::test]
async fn past_grace_and_with_zero_grace_connections_are_closed() {
    tokio::time::pause();
    for grace in [Duration::ZERO, Duration::from_secs(3)] {
        let mut running = start(grace).await;
        let mut busy = connect(running.addr).await;
        ask(&mut busy, "/slow").await;
        running.arrived.recv().await.unwrap();
        let started = tokio::time::Instant::now();
        running.trigger.start();
        running.task.await.unwrap();
        assert_eq!(started.elapsed().as_secs(), grace.as_secs());
        assert_eq!(
            read_until(&mut busy, "\0").await,
            "",
            "closed without answer"
        );
    }
}

#[tokio::test]
async fn a_peer_that_sends_no_header_is_closed_in_time() {
    tokio::time::pause();
    let running = start(Duration::ZERO).await;
    for start_of_header in ["", "P", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = connect(running.addr).await;
        stream.write_all(start_of_header.as_bytes()).await.unwrap();
        let started = tokio::time::Instant::now();
        read_until(&mut stream, "\0").await;
        let waited = started.elapsed();
        let slack = Duration::from_secs(1);
        assert!(
            waited >= HEADER_READ_TIMEOUT - slack && waited <= HEADER_READ_TIMEOUT + slack,
            "{start_of_header:?}: {waited:?}"
        );
    }
    // A handler may take longer than a header.
    let mut stream = connect(running.addr).await;
    ask(&mut stream, "/slow").await;
    let text = read_until(&mut stream, "answer to /slow").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
}

#[tokio::test]
async fn a_header_past_the_limit_is_refused() {
    let running = start(Duration::ZERO).await;
    let mut stream = connect(running.addr).await;
    let filler = "x".repeat(HEADER_BYTES_MAX as usize);
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {filler}\r\n\r\n");
    // The server may close before it has taken everything.
    stream.write_all(request.as_bytes()).await.ok();
    let text = read_until(&mut stream, "\0").await;
    assert!(
        text.is_empty() || text.starts_with("HTTP/1.1 431 "),
        "{text}"
    );
}

#[tokio::test]
async fn connections_past_the_limit_wait_until_one_closes() {
    let mut running = start(Duration::ZERO).await;
    let mut held = VecDeque::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = connect(running.addr).await;
        ask(&mut stream, "/held").await;
        assert_eq!(running.arrived.recv().await.unwrap(), "/held");
        held.push_back(stream);
    }
    let mut waiting = connect(running.addr).await;
    ask(&mut waiting, "/waiting").await;
    let early = tokio::time::timeout(Duration::from_millis(200), running.arrived.recv()).await;
    assert!(early.is_err(), "{early:?} came past the limit");
    held.pop_front();
    assert_eq!(running.arrived.recv().await.unwrap(), "/waiting");
}

fn https(ca: &TestCa, http2: bool) -> HttpTransport {
    let (cert, key) = ca.issue("localhost");
    let tls = HttpsTls {
        cert: PemSource::File(cert),
        key: PemSource::File(key),
        client_auth: ClientAuth::NoClientCert,
        client_ca: None,
        client_allowed_sans: None,
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        ciphers: Vec::new(),
        curves: Vec::new(),
        prefer_server_ciphers: true,
        http2,
    };
    HttpTransport {
        tls: Some(tls.build().unwrap()),
        http2,
    }
}

/// As `start`, over TLS, every answer in the same words.
async fn start_over(
    transport: impl Fn() -> HttpTransport + Clone + Send + Sync + 'static,
) -> (SocketAddr, DrainTrigger, tokio::task::JoinHandle<()>) {
    let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr();
    let (trigger, drain) = Drain::new();
    let handler = |_: Request<Incoming>| {
        std::future::ready(Response::new(Full::new(Bytes::from_static(b"secure"))))
    };
    let task = tokio::spawn(server.serve_over(transport, handler, drain, Duration::ZERO));
    (addr, trigger, task)
}

async fn get_secure(addr: SocketAddr, ca: &TestCa) -> Result<(http::Version, Bytes), HttpError> {
    let client_tls = ClientTls {
        ca_file: Some(ca.ca_file()),
        ..ClientTls::default()
    };
    let client = HttpClient::new(ClientConfig {
        tls: client_tls.build().unwrap(),
        proxy: None,
        connect_timeout: None,
        tls_handshake_timeout: None,
        response_header_timeout: None,
        idle_timeout: None,
        idle_per_host_max: 0,
        connections_per_host_max: None,
    });
    let uri = format!("https://localhost:{}/", addr.port());
    let request = Request::get(uri).body(empty_body()).unwrap();
    let response = client.send(request).await?;
    let version = response.version();
    Ok((version, response.into_body().collect().await?.to_bytes()))
}

#[tokio::test]
async fn tls_is_spoken_with_http_1_and_http_2() {
    let ca = TestCa::new();
    for (http2, version) in [
        (true, http::Version::HTTP_2),
        (false, http::Version::HTTP_11),
    ] {
        let transport = https(&ca, http2);
        let (addr, trigger, task) = start_over(move || transport.clone()).await;
        let answer = get_secure(addr, &ca).await.unwrap();
        assert_eq!(answer, (version, Bytes::from_static(b"secure")));
        trigger.start();
        task.await.unwrap();
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let transport = https(&TestCa::new(), true);
    let (addr, _trigger, _task) = start_over(move || transport.clone()).await;
    let mut stream = connect(addr).await;
    ask(&mut stream, "/-/healthy").await;
    let text = read_until(&mut stream, "\0").await;
    assert!(
        text.starts_with("HTTP/1.0 400 ") && text.contains("HTTPS server"),
        "{text}"
    );
}

#[tokio::test]
async fn a_peer_that_never_finishes_the_handshake_is_closed_in_time() {
    tokio::time::pause();
    let transport = https(&TestCa::new(), true);
    let (addr, _trigger, _task) = start_over(move || transport.clone()).await;
    // Nothing, and the head of a record whose rest never comes.
    for bytes in [&b""[..], &[TLS_HANDSHAKE_RECORD, 3, 1, 2, 0]] {
        let mut stream = connect(addr).await;
        stream.write_all(bytes).await.unwrap();
        let started = tokio::time::Instant::now();
        read_until(&mut stream, "\0").await;
        let waited = started.elapsed();
        let slack = Duration::from_secs(1);
        assert!(
            waited >= TLS_HANDSHAKE_TIMEOUT - slack && waited <= TLS_HANDSHAKE_TIMEOUT + slack,
            "{bytes:?}: {waited:?}"
        );
    }
}

#[tokio::test]
async fn the_drain_ends_a_handshake() {
    let transport = https(&TestCa::new(), true);
    let (addr, trigger, task) = start_over(move || transport.clone()).await;
    let mut stream = connect(addr).await;
    stream.write_all(&[TLS_HANDSHAKE_RECORD]).await.unwrap();
    trigger.start();
    task.await.unwrap();
    assert_eq!(read_until(&mut stream, "\0").await, "");
}

#[tokio::test]
async fn each_connection_is_served_as_is_told_when_it_comes() {
    let ca = TestCa::new();
    let (secure, on) = (https(&ca, true), Arc::new(AtomicBool::new(false)));
    let is_on = Arc::clone(&on);
    let (addr, _trigger, _task) = start_over(move || match is_on.load(Ordering::Relaxed) {
        true => secure.clone(),
        false => HttpTransport::default(),
    })
    .await;
    let mut plain = connect(addr).await;
    ask(&mut plain, "/").await;
    assert!(
        read_until(&mut plain, "secure")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    on.store(true, Ordering::Relaxed);
    get_secure(addr, &ca).await.unwrap();
    // The connection of before goes on as it began.
    ask(&mut plain, "/").await;
    assert!(
        read_until(&mut plain, "secure")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}
