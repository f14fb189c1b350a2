//! Bytes and frames that no client sends, against the server over a socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// HPACK literals without indexing, of short names and values.
fn header_block(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
    ] {
        block.extend([0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

pub(super) fn opening() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

pub(super) fn begin_call(path: &str, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &header_block(path))
}

/// Sends `bytes`, then reads until the server ends the connection.
async fn talk(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    let reading = async {
        // A reset connection has ended too.
        let _reset = read.read_to_end(&mut answer).await;
    };
    let writing = async {
        let _closed = write.write_all(bytes).await;
        write
    };
    let both = async { tokio::join!(reading, writing) };
    let ended = tokio::time::timeout(Duration::from_secs(20), both).await;
    ended.expect("the server ends the connection");
    answer
}

/// Reason and text of the first GOAWAY that is not NO_ERROR.
pub(super) fn goaway(mut answer: &[u8]) -> Option<(u32, String)> {
    while let Some((header, rest)) = answer.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let payload = rest.get(..length)?;
        answer = &rest[length..];
        if header[3] == GOAWAY {
            let reason = u32::from_be_bytes(payload[4..8].try_into().unwrap());
            if reason != 0 {
                return Some((reason, String::from_utf8_lossy(&payload[8..]).into_owned()));
            }
        }
    }
    None
}

#[tokio::test]
async fn a_flood_of_pings_is_sent_away_with_the_word_for_it() {
    let running = Running::plain().await;
    let ping = frame(PING, 0, 0, &[0; 8]);
    for call in [Vec::new(), begin_call("/t.Trial/Chat", 1)] {
        let bytes = [opening(), call, ping.repeat(1000)].concat();
        let answer = talk(running.addr, &bytes).await;
        let calm = (ENHANCE_YOUR_CALM, "too_many_pings".to_owned());
        assert_eq!(goaway(&answer), Some(calm));
    }
    let trial = &running.trial;
    until("all calls dropped", || {
        trial.begun.load(Ordering::SeqCst) == trial.dropped.load(Ordering::SeqCst)
    })
    .await;
}

#[tokio::test]
async fn a_querier_may_cancel_all_its_calls_at_once() {
    let running = Running::plain().await;
    let mut bytes = opening();
    // In one write, so that the server finds most of them reset before it has taken them.
    for i in 0..CONCURRENT_STREAMS_MAX {
        bytes.extend(begin_call("/t.Trial/Chat", 2 * i + 1));
        bytes.extend(frame(RST_STREAM, 0, 2 * i + 1, &8_u32.to_be_bytes()));
    }
    let after = 2 * CONCURRENT_STREAMS_MAX + 1;
    bytes.extend(begin_call("/t.Trial/Chat", after));
    let mut socket = TcpStream::connect(running.addr).await.unwrap();
    socket.write_all(&bytes).await.unwrap();
    let trial = &running.trial;
    // The last call lives, and all the others are gone.
    until("the call after them served", || {
        let (begun, dropped) = [&trial.begun, &trial.dropped]
            .map(|n| n.load(Ordering::SeqCst))
            .into();
        begun == dropped + 1
    })
    .await;
    let message = frame(0, 1, after, &[0, 0, 0, 0, 3, b'a', b'b', b'c']);
    socket.write_all(&message).await.unwrap();
    let mut said = Vec::new();
    while !said.windows(3).any(|run| run == b"abc") {
        let read = socket.read_buf(&mut said).await.unwrap();
        assert!(read > 0, "the connection was ended");
    }
    assert_eq!(goaway(&said), None);
}

#[tokio::test]
async fn a_flood_of_resets_is_sent_away() {
    let running = Running::plain().await;
    let mut bytes = opening();
    for i in 0..20_000 {
        bytes.extend(begin_call("/t.Trial/Chat", 2 * i + 1));
        bytes.extend(frame(RST_STREAM, 0, 2 * i + 1, &8_u32.to_be_bytes()));
    }
    let answer = talk(running.addr, &bytes).await;
    assert_eq!(
        goaway(&answer).map(|(reason, _)| reason),
        Some(ENHANCE_YOUR_CALM)
    );
    let trial = &running.trial;
    assert!(trial.begun.load(Ordering::SeqCst) <= 1001);
    until("all calls dropped", || {
        trial.begun.load(Ordering::SeqCst) == trial.dropped.load(Ordering::SeqCst)
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_continuations_or_of_headers_ends_the_connection() {
    let running = Running::plain().await;
    let block = header_block("/t.Trial/Chat");
    let mut endless = opening();
    endless.extend(frame(HEADERS, 0, 1, &block));
    for _ in 0..10_000 {
        endless.extend(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"));
    }
    let answer = talk(running.addr, &endless).await;
    assert!(goaway(&answer).is_some());

    let mut empty = opening();
    empty.extend(frame(HEADERS, 0, 1, &block));
    empty.extend(frame(CONTINUATION, 0, 1, &[]).repeat(10_000));
    let answer = talk(running.addr, &empty).await;
    assert!(goaway(&answer).is_some());
    assert_eq!(running.trial.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_not_http2_ends_quickly() {
    let running = Running::plain().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"POST /t.Trial/Echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        &[0xff; 100],
    ] {
        let started = tokio::time::Instant::now();
        let answer = talk(running.addr, bytes).await;
        assert!(answer.len() < 200);
        assert!(started.elapsed() < HANDSHAKE_TIMEOUT, "not by the timeout");
    }
    // Still there for others.
    let mut client = tonic_client(running.addr).await;
    unary(&mut client, "/t.Trial/Echo", request("x"))
        .await
        .unwrap();
}

// === Requests by h2 ===

type H2Stream = h2::SendStream<Bytes>;

async fn h2_client(addr: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(
    sender: &h2::client::SendRequest<Bytes>,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (h2::client::ResponseFuture, H2Stream) {
    let uri = format!("http://x{path}");
    let mut request = http::Request::post(uri).header("content-type", "application/grpc");
    for (name, value) in headers {
        let map = request.headers_mut().unwrap();
        map.insert(*name, value.parse().unwrap());
    }
    let mut sender = sender.clone().ready().await.unwrap();
    sender
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

/// The headers of an answer, and its status wherever it stands.
async fn answered(response: h2::client::ResponseFuture) -> (http::response::Parts, Status) {
    let (parts, mut body) = response.await.unwrap().into_parts();
    while let Some(chunk) = body.data().await {
        body.flow_control()
            .release_capacity(chunk.unwrap().len())
            .unwrap();
    }
    let trailers = body.trailers().await.unwrap();
    let status = Status::read(&trailers.unwrap_or_else(|| parts.headers.clone())).unwrap();
    (parts, status)
}

#[tokio::test]
async fn requests_that_are_no_calls_are_refused_by_name() {
    let running = Running::plain().await;
    let sender = h2_client(running.addr).await;
    for (headers, http_status, code, text) in [
        (
            [("content-type", "text/html")],
            415,
            Code::InvalidArgument,
            "text/html",
        ),
        (
            [("content-type", "application/grpcx")],
            415,
            Code::InvalidArgument,
            "grpcx",
        ),
        (
            [("grpc-encoding", "zstd")],
            200,
            Code::Unimplemented,
            "zstd",
        ),
        ([("grpc-timeout", "1x")], 200, Code::Internal, "1x"),
    ] {
        let (response, _stream) = send(&sender, "/t.Trial/Echo", &headers).await;
        let (parts, status) = answered(response).await;
        assert_eq!(parts.status, http_status);
        assert_eq!(status.code, code);
        assert!(status.message.contains(text), "{status}");
        assert_eq!(
            parts.headers["grpc-accept-encoding"],
            "identity,gzip,snappy"
        );
    }
    let request = http::Request::get("http://x/t.Trial/Echo")
        .body(())
        .unwrap();
    let mut ready = sender.clone().ready().await.unwrap();
    let (parts, status) = answered(ready.send_request(request, true).unwrap().0).await;
    assert_eq!((parts.status.as_u16(), status.code), (405, Code::Internal));
    for content_type in [
        "application/grpc+proto",
        "application/grpc;x=y",
        "APPLICATION/GRPC",
    ] {
        let (response, mut stream) =
            send(&sender, "/t.Trial/Echo", &[("content-type", content_type)]).await;
        stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        assert_eq!(answered(response).await.1, Status::ok(), "{content_type}");
    }
}

#[tokio::test]
async fn broken_messages_end_the_call_with_a_status_at_once() {
    let running = Running::plain().await;
    let sender = h2_client(running.addr).await;
    for (bytes, end, code, text) in [
        (
            &[0, 0xff, 0xff, 0xff, 0xff, 1][..],
            false,
            Code::ResourceExhausted,
            "4294967295",
        ),
        (&[0, 0, 0x10, 0, 1], false, Code::ResourceExhausted, "limit"),
        (
            &[0, 0, 0, 0, 9, 1, 2],
            true,
            Code::Internal,
            "inside a message",
        ),
        (&[0, 0, 0], true, Code::Internal, "inside a message"),
        (&[], true, Code::Internal, "missing the request message"),
        (
            &[0; 10],
            true,
            Code::Internal,
            "more than one request message",
        ),
        (&[7, 0, 0, 0, 0], false, Code::Internal, "flag"),
        (&[1, 0, 0, 0, 0], false, Code::Internal, "compressed"),
    ] {
        let (response, mut stream) = send(&sender, "/t.Trial/Echo", &[]).await;
        stream
            .send_data(Bytes::copy_from_slice(bytes), end)
            .unwrap();
        let (_, status) = answered(response).await;
        assert_eq!(status.code, code, "{bytes:?}");
        assert!(status.message.contains(text), "{status}");
    }
    let (response, mut stream) = send(&sender, "/t.Trial/Echo", &[("grpc-encoding", "gzip")]).await;
    stream
        .send_data(Bytes::from_static(&[1, 0, 0, 0, 2, 1, 2]), true)
        .unwrap();
    assert_eq!(answered(response).await.1.code, Code::Internal);
}

/// Counts the warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let counted = *event.metadata().level() <= tracing::Level::WARN;
        self.0.fetch_add(usize::from(counted), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn no_request_can_fill_the_log() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let running = Running::plain().await;
    let sender = h2_client(running.addr).await;
    let gzip = ("grpc-encoding", "gzip");
    for (bytes, headers) in [
        (&[0, 0, 0, 0, 9, 1, 2][..], &[][..]),
        (&[], &[]),
        (&[0; 10], &[]),
        (&[7, 0, 0, 0, 0], &[]),
        (&[1, 0, 0, 0, 0], &[]),
        (&[1, 0, 0, 0, 2, 1, 2], &[gzip]),
    ] {
        let (response, mut stream) = send(&sender, "/t.Trial/Echo", headers).await;
        let message = Bytes::copy_from_slice(bytes);
        stream.send_data(message, true).unwrap();
        assert_eq!(answered(response).await.1.code, Code::Internal, "{bytes:?}");
    }
    assert_eq!(warnings.0.load(Ordering::SeqCst), 0);
    for _ in 0..20 {
        let (response, mut stream) = send(&sender, "/t.Trial/Panic", &[]).await;
        stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        assert_eq!(answered(response).await.1.code, Code::Internal);
    }
    assert_eq!(warnings.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bomb_is_refused_by_its_decoded_size() {
    let running = Running::plain().await;
    let client = Client::connect(&running.addr.to_string(), None)
        .await
        .unwrap();
    let zeros = vec![0; REQUEST_BYTES_MAX + 1];
    for encoding in [Encoding::Gzip, Encoding::Snappy] {
        let options = || CallOptions {
            encoding,
            ..CallOptions::default()
        };
        let answer = client.unary("/t.Trial/Echo", &zeros, options()).await;
        assert_eq!(
            answer.unwrap_err().code,
            Code::ResourceExhausted,
            "{encoding:?}"
        );
        let answer = client.unary("/t.Trial/Echo", &zeros[1..], options()).await;
        assert!(answer.unwrap() == zeros[1..], "{encoding:?}");
    }
}

#[tokio::test]
async fn a_deadline_ends_the_call_with_trailers() {
    let running = Running::plain().await;
    let sender = h2_client(running.addr).await;
    for (path, headers) in [("/t.Trial/Wait", true), ("/t.Trial/Chat", false)] {
        let (response, mut stream) = send(&sender, path, &[("grpc-timeout", "50m")]).await;
        if headers {
            stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        }
        let (_, status) = answered(response).await;
        assert_eq!(status.code, Code::DeadlineExceeded);
    }
    assert_eq!(running.trial.dropped.load(Ordering::SeqCst), 2);
    assert!(
        running
            .metrics()
            .contains("grpc_code=\"DeadlineExceeded\"} 1")
    );
}

#[tokio::test]
async fn a_stalled_client_stops_its_handler_and_no_one_else() {
    let running = Running::plain().await;
    let stream = TcpStream::connect(running.addr).await.unwrap();
    let (sender, connection) = h2::client::Builder::new()
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let trial = &running.trial;
    let (response, mut request) = send(&sender, "/t.Trial/Many", &[]).await;
    let wanted = [&[0, 0, 0, 0, 8][..], &many(100_000, 1000)].concat();
    request.send_data(Bytes::from(wanted), true).unwrap();
    let (_, mut body) = response.await.unwrap().into_parts();
    // What the client allows (64 KiB), what h2 may hold, and the batch being filled.
    let sent_max = (65_535 + 2 * BATCH_BYTES + BATCH_BYTES + 3000) / 1000;
    let mut before = usize::MAX;
    while before != trial.sent.load(Ordering::SeqCst) {
        before = trial.sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        before > 60 && before <= sent_max,
        "{before} messages, at most {sent_max}"
    );

    let (response, mut stream) = send(&sender, "/t.Trial/Echo", &[]).await;
    stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    assert_eq!(answered(response).await.1, Status::ok());

    let mut received = 0;
    while received < 10_000_000 {
        let chunk = body.data().await.unwrap().unwrap();
        received += chunk.len();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    assert!(trial.sent.load(Ordering::SeqCst) > before);
    assert_eq!(trial.dropped.load(Ordering::SeqCst), 1);
    drop((body, request));
    until("the stalled call dropped", || {
        trial.dropped.load(Ordering::SeqCst) == 2
    })
    .await;
    assert!(running.metrics().contains("grpc_code=\"Canceled\"} 1"));
}

#[tokio::test]
async fn streams_and_headers_have_their_limits() {
    let running = Running::plain().await;
    let sender = h2_client(running.addr).await;
    let (response, mut stream) = send(&sender, "/t.Trial/Echo", &[]).await;
    stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    assert_eq!(answered(response).await.1, Status::ok());
    assert_eq!(
        sender.current_max_send_streams(),
        CONCURRENT_STREAMS_MAX as usize
    );
    let mut open = Vec::new();
    for _ in 0..CONCURRENT_STREAMS_MAX {
        open.push(send(&sender, "/t.Trial/Chat", &[]).await);
    }
    let begun = || running.trial.begun.load(Ordering::SeqCst);
    until("all calls begun", || begun() == 1 + open.len()).await;
    open.clear();

    let long = "x".repeat(HEADER_LIST_BYTES_MAX as usize);
    let (response, _stream) = send(
        &h2_client(running.addr).await,
        "/t.Trial/Echo",
        &[("a", &long)],
    )
    .await;
    let refused = response.await;
    assert!(refused.is_err() || refused.unwrap().status() == 431);
}

#[tokio::test]
async fn connections_past_the_limit_wait_until_one_closes() {
    let running = Running::plain().await;
    let mut held = std::collections::VecDeque::new();
    let addr = running.addr;
    let ask = |sender: h2::client::SendRequest<Bytes>| async move {
        let (response, mut stream) = send(&sender, "/t.Trial/Echo", &[]).await;
        stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        answered(response).await.1
    };
    for _ in 0..GRPC_CONNECTIONS_MAX {
        let sender = h2_client(addr).await;
        assert_eq!(ask(sender.clone()).await, Status::ok());
        held.push_back(sender);
    }
    let waiting = h2_client(addr).await;
    let mut asking = Box::pin(ask(waiting));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut asking).await;
    assert!(early.is_err(), "served past the limit");
    held.pop_front();
    let served = tokio::time::timeout(Duration::from_secs(20), asking).await;
    assert_eq!(served.unwrap(), Status::ok());
}
