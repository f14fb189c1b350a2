//! The client against scripted and broken servers.

use std::io::Write;

use http::StatusCode;
use http_body_util::StreamBody;

use super::*;
use crate::net::ClientTls;
use crate::net::http::{BodyLimit, Reply, ScriptedServer, TestCa, decoded, empty_body, response};

const LIMIT: BodyLimit = BodyLimit {
    name: "TEST_BYTES_MAX",
    bytes: 1000,
};

fn config() -> ClientConfig {
    ClientConfig {
        tls: ClientTls::default().build().unwrap(),
        proxy: None,
        connect_timeout: Some(Duration::from_secs(5)),
        tls_handshake_timeout: Some(Duration::from_secs(10)),
        response_header_timeout: None,
        idle_timeout: Some(Duration::from_secs(90)),
        idle_per_host_max: 2,
        connections_per_host_max: None,
    }
}

fn get(url: &str) -> Request<RequestBody> {
    Request::get(url).body(empty_body()).unwrap()
}

fn ok(body: impl AsRef<[u8]>) -> Reply {
    Reply::Bytes(response("200 OK", &[], body))
}

#[tokio::test]
async fn a_connection_is_used_again_after_its_body_was_read() {
    let server = ScriptedServer::start(|_| ok("hello")).await;
    let client = HttpClient::new(config());
    for _ in 0..3 {
        let response = client.send(get(&server.url("/"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().read(LIMIT).await.unwrap(), "hello");
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(
        server.seen()[0].headers,
        [("host".to_owned(), server.addr().to_string())],
        "nothing is added"
    );
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpClient::new(config()).send(get(&url)).await.unwrap_err();
    assert!(error.is_connect() && !error.is_timeout(), "{error:?}");
    let relative = HttpClient::new(config()).send(get("/x")).await.unwrap_err();
    assert!(matches!(relative, HttpError::NotAbsolute { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_times_out_in_dialing() {
    // A full accept queue drops further connection attempts, as a dead host does.
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
    );
    let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let _queued = std::net::TcpStream::connect(addr).unwrap();

    let client = HttpClient::new(config());
    let error = client
        .send(get(&format!("http://{addr}/")))
        .await
        .unwrap_err();
    assert!(error.is_connect() && error.is_timeout(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_tls_server_times_out_in_the_handshake() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let error = HttpClient::new(config()).send(get(&url)).await.unwrap_err();
    assert!(error.is_connect() && error.is_timeout(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn header_timeout_counts_from_the_end_of_the_request() {
    let server = ScriptedServer::start(|seen| match seen.path() {
        "/hang" => Reply::Hang,
        _ => ok("done"),
    })
    .await;
    let client = HttpClient::new(ClientConfig {
        response_header_timeout: Some(Duration::from_secs(10)),
        ..config()
    });
    let error = client.send(get(&server.url("/hang"))).await.unwrap_err();
    assert!(
        matches!(error, HttpError::HeaderTimeout { after, .. } if after == Duration::from_secs(10)),
        "{error:?}"
    );
    assert!(error.is_timeout() && !error.is_connect());
    server.hung_up(1).await;

    let slow = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_secs(7)).await;
        (sent < 5).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
    });
    let upload = Request::put(server.url("/upload"))
        .header("content-length", 5)
        .body(StreamBody::new(slow).boxed_unsync())
        .unwrap();
    let response = client.send(upload).await.unwrap();
    assert_eq!(response.into_body().read(LIMIT).await.unwrap(), "done");
}

#[tokio::test]
async fn bodies_are_read_up_to_the_limit_and_not_past_it() {
    let server = ScriptedServer::start(|seen| {
        let length = seen.path().trim_start_matches('/').parse().unwrap();
        ok(vec![b'x'; length])
    })
    .await;
    let client = HttpClient::new(config());
    let read = async |length: usize| {
        let response = client.send(get(&server.url(&format!("/{length}")))).await;
        response.unwrap().into_body().read(LIMIT).await
    };
    assert_eq!(read(LIMIT.bytes).await.unwrap().len(), LIMIT.bytes);
    let error = read(LIMIT.bytes + 1).await.unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::BodyTooLarge {
                limit: "TEST_BYTES_MAX",
                limit_bytes: 1000
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_cut_short_is_an_error() {
    let server = ScriptedServer::start(|seen| match seen.path() {
        "/length" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()),
        _ => Reply::Close(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
        ),
    })
    .await;
    let client = HttpClient::new(config());
    for path in ["/length", "/chunked"] {
        let response = client.send(get(&server.url(path))).await.unwrap();
        let error = response.into_body().read(LIMIT).await.unwrap_err();
        assert!(matches!(error, HttpError::Body { .. }), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn gzip_is_decoded_on_demand_and_under_the_limit() {
    let compress = |length: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&vec![b'x'; length]).unwrap();
        encoder.finish().unwrap()
    };
    let server = ScriptedServer::start(move |seen| {
        let gzip = &[("Content-Encoding", "gzip")];
        Reply::Bytes(match seen.path() {
            "/bomb" => response("200 OK", gzip, compress(64 << 20)),
            "/cut" => {
                let mut body = compress(500);
                body.truncate(body.len() - 4);
                response("200 OK", gzip, body)
            }
            "/text" => response("200 OK", gzip, "not gzip at all"),
            "/plain" => response("200 OK", &[], "plain"),
            _ => response("200 OK", gzip, compress(500)),
        })
    })
    .await;
    let client = HttpClient::new(config());
    let read = async |path: &str| {
        let response = decoded(client.send(get(&server.url(path))).await.unwrap());
        assert!(response.headers().get("content-encoding").is_none());
        response.into_body().read(LIMIT).await
    };
    assert_eq!(read("/").await.unwrap(), vec![b'x'; 500]);
    assert_eq!(read("/plain").await.unwrap(), "plain");
    assert!(matches!(
        read("/bomb").await.unwrap_err(),
        HttpError::BodyTooLarge { .. }
    ));
    for path in ["/cut", "/text"] {
        let error = read(path).await.unwrap_err();
        assert!(matches!(error, HttpError::Gzip { .. }), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn dropping_a_response_closes_the_upstream() {
    let endless = Reply::Endless(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_vec(),
        vec![b'x'; 4096],
    );
    let server = ScriptedServer::start(move |_| endless.clone()).await;
    let client = HttpClient::new(config());
    let mut response = client.send(get(&server.url("/"))).await.unwrap();
    assert!(response.body_mut().chunk().await.unwrap().is_some());
    drop(response);
    server.hung_up(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_per_host_are_limited_and_waiting_leaves_nothing_behind() {
    let server = ScriptedServer::start(|_| {
        Reply::Late(Duration::from_millis(2), response("200 OK", &[], "x"))
    })
    .await;
    let client = HttpClient::new(ClientConfig {
        connections_per_host_max: NonZeroUsize::new(2),
        ..config()
    });
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, url) = (client.clone(), server.url("/"));
        requests.spawn(async move {
            let response = client.send(get(&url)).await.unwrap();
            response.into_body().read(LIMIT).await.unwrap()
        });
    }
    while let Some(body) = requests.join_next().await {
        assert_eq!(body.unwrap(), "x");
    }
    assert_eq!(server.open_max(), 2);
    // Connection attempts which were overtaken end by themselves: what stays is the server's
    // accept loop, and per open connection one task on either side.
    let metrics = tokio::runtime::Handle::current().metrics();
    tokio::time::timeout(Duration::from_secs(20), async {
        while metrics.num_alive_tasks() > 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("no task waits for a connection that nobody needs");
}

#[tokio::test]
async fn idle_connections_are_limited_in_number_and_age() {
    let server = ScriptedServer::start(|_| ok("x")).await;
    let fetch = async |client: &HttpClient| {
        let response = client.send(get(&server.url("/"))).await.unwrap();
        response.into_body().read(LIMIT).await.unwrap();
    };
    let none_kept = HttpClient::new(ClientConfig {
        idle_per_host_max: 0,
        ..config()
    });
    fetch(&none_kept).await;
    fetch(&none_kept).await;
    server.hung_up(2).await;
    assert_eq!(server.accepted(), 2);

    let soon_closed = HttpClient::new(ClientConfig {
        idle_timeout: Some(Duration::from_millis(20)),
        ..config()
    });
    fetch(&soon_closed).await;
    server.hung_up(3).await;
}

#[tokio::test]
async fn http2_is_used_where_tls_negotiates_it() {
    let ca = TestCa::new();
    let mut config_tls = ca.server("localhost", false);
    config_tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config_tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = hyper_util::rt::TokioIo::new(acceptor.accept(stream).await.unwrap());
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            let body = format!("{:?}", request.version());
            let body = http_body_util::Full::new(Bytes::from(body));
            Ok::<_, std::convert::Infallible>(Response::new(body))
        });
        let serving = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        serving.serve_connection(stream, service).await.ok();
    });
    let tls = ClientTls {
        ca_file: Some(ca.ca_file()),
        ..ClientTls::default()
    };
    let client = HttpClient::new(ClientConfig {
        tls: tls.build().unwrap(),
        ..config()
    });
    for _ in 0..2 {
        let response = client.send(get(&url)).await.unwrap();
        assert_eq!(response.into_body().read(LIMIT).await.unwrap(), "HTTP/2.0");
    }
    drop(client);
    server.abort();
}
