//! Exchanges with servers that frame their answers in every way, keep connections or don't, and
//! break off.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};

use super::*;
use crate::net::ClientTls;
use crate::net::http::{BodyLimit, Reply, ScriptedServer, StoppedClock, TestCa, response, until};

const EAGER: Coalesce = Coalesce {
    pause: Duration::from_millis(1),
    enough_bytes: 1 << 10,
    eager_bytes: 1 << 20,
};
const LIMIT: BodyLimit = BodyLimit {
    name: "LIMIT",
    bytes: 1 << 20,
};

fn config() -> ClientConfig {
    ClientConfig {
        tls: ClientTls::default().build().unwrap(),
        proxy: None,
        connect_timeout: Some(Duration::from_secs(20)),
        tls_handshake_timeout: None,
        response_header_timeout: None,
        idle_timeout: Some(Duration::from_secs(60)),
        idle_per_host_max: 2,
        connections_per_host_max: None,
    }
}

fn post(url: &str) -> Request<Bytes> {
    let request = Request::builder().method(Method::POST).uri(url);
    request.body(Bytes::from_static(b"question")).unwrap()
}

async fn whole(client: &DirectClient, url: &str) -> Result<(u16, Bytes), HttpError> {
    let answer: Response<DirectBody> = client.send(&post(url)).await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().read(LIMIT).await?.freeze()))
}

#[tokio::test]
async fn bodies_end_where_their_framing_says() {
    let server = ScriptedServer::start(|seen| match seen.path() {
        "/length" => Reply::Bytes(response("200 OK", &[], "abc")),
        "/empty" => Reply::Bytes(response("200 OK", &[], "")),
        "/none" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/chunked" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
              1;x=y\r\na\r\n2\r\nbc\r\n0\r\nT: x\r\n\r\n"
                .to_vec(),
        ),
        "/interim" => {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n";
            Reply::Bytes([&interim[..], &response("200 OK", &[], "abc")].concat())
        }
        _ => Reply::Close(b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec()),
    })
    .await;
    let client = DirectClient::new(config(), EAGER);
    for (path, status, body) in [
        ("/length", 200, "abc"),
        ("/empty", 200, ""),
        ("/none", 204, ""),
        ("/chunked", 200, "abc"),
        ("/interim", 200, "abc"),
        ("/until-close", 200, "abc"),
    ] {
        let answer = whole(&client, &server.url(path)).await.unwrap();
        assert_eq!(answer, (status, Bytes::from(body)), "{path}");
    }
    assert_eq!(server.accepted(), 1, "all but the last leave it usable");
    assert!(server.seen().iter().all(|seen| seen.body == b"question"));
}

#[tokio::test]
async fn broken_answers_are_errors() {
    let large = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEADER_BYTES_MAX + 1));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
    for broken in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        large.as_str(),
        many.as_str(),
    ] {
        let reply = Reply::Close(broken.as_bytes().to_vec());
        let server = ScriptedServer::start(move |_| reply.clone()).await;
        let client = DirectClient::new(config(), EAGER);
        let error = whole(&client, &server.url("/")).await.unwrap_err();
        assert!(
            !error.is_connect() && !error.is_timeout(),
            "{broken:.60}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_broke_stays_broken() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec();
    let server = ScriptedServer::start(move |_| Reply::Close(answer.clone())).await;
    let client = DirectClient::new(config(), EAGER);
    let mut body = client
        .send(&post(&server.url("/")))
        .await
        .unwrap()
        .into_body();
    let mut buffer = BytesMut::new();
    assert!(body.fill(&mut buffer).await.unwrap());
    for _ in 0..3 {
        assert!(body.fill(&mut buffer).await.is_err());
    }
    assert_eq!(&buffer[..], b"abc");
}

#[tokio::test]
async fn a_body_past_its_limit_is_refused() {
    let server = ScriptedServer::start(|seen| {
        let bytes = LIMIT.bytes + usize::from(seen.path() == "/more");
        Reply::Bytes(response("200 OK", &[], "x".repeat(bytes)))
    })
    .await;
    let client = DirectClient::new(config(), EAGER);
    assert_eq!(
        whole(&client, &server.url("/")).await.unwrap().1.len(),
        LIMIT.bytes
    );
    let error = whole(&client, &server.url("/more")).await.unwrap_err();
    assert!(matches!(
        error,
        HttpError::BodyTooLarge { limit: "LIMIT", .. }
    ));
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_closed_costs_nothing() {
    // Says that it keeps the connection, and closes it.
    let server = ScriptedServer::start(|_| Reply::Close(response("200 OK", &[], "abc"))).await;
    let client = DirectClient::new(config(), EAGER);
    for _ in 0..3 {
        assert_eq!(whole(&client, &server.url("/")).await.unwrap().1, "abc");
    }
    assert_eq!((server.accepted(), server.seen().len()), (3, 3));
}

/// A peer that answers the first request of a connection, says more when it is told to, and
/// then, as it has been heard, goes on to the next connection.
async fn unsolicited(more: &'static [u8]) -> (String, tokio::sync::mpsc::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"question") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
            }
            stream
                .write_all(&response("200 OK", &[], "abc"))
                .await
                .unwrap();
            if told.recv().await.is_none() {
                return;
            }
            stream.write_all(more).await.unwrap();
            open.push(stream);
        }
    });
    (url, tell)
}

#[tokio::test]
async fn what_comes_unasked_on_a_kept_connection_is_no_answer() {
    let more = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    let (url, tell) = unsolicited(more).await;
    let client = DirectClient::new(config(), EAGER);
    for _ in 0..3 {
        let answer = whole(&client, &url).await.unwrap();
        assert_eq!(answer, (200, Bytes::from("abc")));
        tell.send(()).await.unwrap();
        let kept = || client.0.idle.is_last_silent();
        until("the bytes arrive", || !kept()).await;
    }
}

#[tokio::test]
async fn a_request_that_ends_connections_is_sent_twice_at_most() {
    let server = ScriptedServer::start(|seen| match seen.path() {
        "/poison" => Reply::Close(Vec::new()),
        _ => Reply::Bytes(response("200 OK", &[], "abc")),
    })
    .await;
    let client = DirectClient::new(config(), EAGER);
    // Two connections are kept.
    let url = server.url("/");
    let bodies = [
        client.send(&post(&url)).await,
        client.send(&post(&url)).await,
    ];
    for answer in bodies {
        answer.unwrap().into_body().read(LIMIT).await.unwrap();
    }
    assert_eq!(server.accepted(), 2);
    let error = whole(&client, &server.url("/poison")).await.unwrap_err();
    assert!(matches!(error, HttpError::Exchange { .. }), "{error:?}");
    let seen = server.seen();
    let sent = seen.iter().filter(|seen| seen.path() == "/poison");
    let connections: Vec<_> = sent.map(|seen| seen.connection).collect();
    assert_eq!(connections, [1, 2], "a kept one, then a new one");
}

#[tokio::test]
async fn connections_are_kept_only_where_both_sides_can() {
    let server = ScriptedServer::start(|seen| {
        let close = [("Connection", "Keep, Close")];
        Reply::Bytes(match seen.path() {
            "/close" => response("200 OK", &close, "abc"),
            "/old" => [b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc".to_vec()].concat(),
            "/more" => [response("200 OK", &[], "abc"), b"HTTP/1.1 200".to_vec()].concat(),
            _ => response("200 OK", &[], "abc"),
        })
    })
    .await;
    let client = DirectClient::new(config(), EAGER);
    for (count, path) in ["/close", "/old", "/more", "/", "/", "/"]
        .iter()
        .enumerate()
    {
        assert_eq!(whole(&client, &server.url(path)).await.unwrap().1, "abc");
        assert_eq!(server.accepted(), (count + 1).min(4), "{path}");
    }
    drop(client);
    server.hung_up(4).await;

    let limited = DirectClient::new(
        ClientConfig {
            connections_per_host_max: std::num::NonZeroUsize::new(1),
            ..config()
        },
        EAGER,
    );
    for _ in 0..2 {
        whole(&limited, &server.url("/")).await.unwrap();
    }
    assert_eq!(server.accepted(), 6, "an unused one holds no permit");
}

#[tokio::test]
async fn unused_connections_are_few_and_close_in_time() {
    let server = ScriptedServer::start(|_| Reply::Bytes(response("200 OK", &[], "abc"))).await;
    let short = ClientConfig {
        idle_timeout: Some(Duration::from_millis(50)),
        ..config()
    };
    let client = DirectClient::new(short, EAGER);
    let bodies: Vec<_> = {
        let mut bodies = Vec::new();
        for _ in 0..5 {
            bodies.push(
                client
                    .send(&post(&server.url("/")))
                    .await
                    .unwrap()
                    .into_body(),
            );
        }
        bodies
    };
    for body in bodies {
        body.read(LIMIT).await.unwrap();
    }
    // Three are closed at once, since two are kept, and those when their time is up.
    server.hung_up(5).await;
    assert_eq!(server.accepted(), 5);
}

#[tokio::test]
async fn a_header_that_does_not_come_is_a_timeout() {
    let server = ScriptedServer::start(|_| Reply::Hang).await;
    let hurried = ClientConfig {
        response_header_timeout: Some(Duration::from_millis(20)),
        ..config()
    };
    let client = DirectClient::new(hurried, EAGER);
    let error = whole(&client, &server.url("/")).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    server.hung_up(1).await;
}

#[tokio::test]
async fn a_request_that_is_not_taken_is_a_timeout() {
    // Accepted by the kernel, and read by nobody.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let patient = ClientConfig {
        connect_timeout: None,
        ..config()
    };
    let clock = StoppedClock::stop();
    let client = DirectClient::new(patient, EAGER);
    let large = Request::post(&url)
        .body(Bytes::from(vec![0; 64 << 20]))
        .unwrap();
    let asking = tokio::spawn(async move { client.send(&large).await.map(drop) });
    let started = tokio::time::Instant::now();
    while !asking.is_finished() {
        assert!(
            started.elapsed() < REQUEST_WRITE_TIMEOUT * 1000,
            "never ends"
        );
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        clock.advance(REQUEST_WRITE_TIMEOUT / 4).await;
    }
    let error = asking.await.unwrap().unwrap_err();
    assert!(
        matches!(error, HttpError::RequestTimeout { .. }),
        "{error:?}"
    );
    assert!(error.is_timeout());
}

#[tokio::test]
async fn over_tls_it_speaks_http_1() {
    let ca = TestCa::new();
    let mut tls = ca.server("localhost", false);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let answer = |_: &_| Reply::Bytes(response("200 OK", &[], "abc"));
    let server = ScriptedServer::start_tls(tls, answer).await;
    let with_ca = ClientTls {
        ca_file: Some(ca.ca_file()),
        ..ClientTls::default()
    };
    let client = DirectClient::new(
        ClientConfig {
            tls: with_ca.build().unwrap(),
            ..config()
        },
        EAGER,
    );
    let url = format!("https://localhost:{}/x?y", server.addr().port());
    for _ in 0..2 {
        assert_eq!(whole(&client, &url).await.unwrap().1, "abc");
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.seen()[0].line, "POST /x?y HTTP/1.1");
}

#[tokio::test]
async fn reads_of_a_long_body_are_coalesced() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let piece = [&b"400\r\n"[..], &[b'x'; 1024], b"\r\n"].concat();
    let server = ScriptedServer::start(move |_| Reply::Endless(head.clone(), piece.clone())).await;
    let coalesce = Coalesce {
        pause: Duration::from_secs(3600),
        enough_bytes: usize::MAX,
        eager_bytes: 64 << 10,
    };
    let client = DirectClient::new(config(), coalesce);
    let mut body = client
        .send(&post(&server.url("/")))
        .await
        .unwrap()
        .into_body();
    let mut buffer = BytesMut::new();
    // The start comes without a pause, and then one begins.
    let eager = async {
        loop {
            assert!(body.fill(&mut buffer).await.unwrap());
            buffer.clear();
        }
    };
    let paused = tokio::time::timeout(Duration::from_millis(300), eager).await;
    assert!(paused.is_err());
    assert!(body.received_bytes > 64 << 10, "{}", body.received_bytes);
    let (reads, received) = (body.reads(), body.received_bytes);
    assert!(
        received < (64 << 10) + 2 * (1 << 20),
        "{received} in {reads} reads"
    );
    drop(body);
    until("the server sees the end", || server.accepted() == 1).await;
    server.hung_up(1).await;
}
