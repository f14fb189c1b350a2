//! Connections that end: by age, by the drain, by silence, by pings.

use std::net::Ipv4Addr;

use h2::Ping;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use super::raw::{begin_call, frame, goaway, opening};
use super::*;
use crate::net::grpc::answer::Shared;
use crate::net::grpc::connection::Connection;
use crate::net::grpc::failure_log::FailureLog;
use crate::net::grpc::outbound::STALL_MAX;

async fn first_of_wait(client: &mut Tonic) -> tonic::Streaming<Bytes> {
    let mut stream = streaming(client, "/t.Trial/Wait", request(""))
        .await
        .unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap(), "first");
    stream
}

async fn rest_of_wait(running: &Running, mut stream: tonic::Streaming<Bytes>) {
    running.trial.go_on.notify_one();
    assert_eq!(stream.message().await.unwrap().unwrap(), "last");
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_cancelled_call_is_dropped_and_so_is_one_whose_connection_is_lost() {
    let running = Running::plain().await;
    let trial = &running.trial;
    let mut client = tonic_client(running.addr).await;
    drop(first_of_wait(&mut client).await);
    until("the cancelled call dropped", || {
        trial.dropped.load(Ordering::SeqCst) == 1
    })
    .await;

    let mut socket = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    let bytes = [opening(), begin_call("/t.Trial/Chat", 1)].concat();
    socket.write_all(&bytes).await.unwrap();
    until("the call begun", || trial.begun.load(Ordering::SeqCst) == 2).await;
    drop(socket);
    until("the lost call dropped", || {
        trial.dropped.load(Ordering::SeqCst) == 2
    })
    .await;
    let canceled = "grpc_method=\"Chat\",grpc_code=\"Canceled\"} 1";
    until("the lost call counted", || {
        running.metrics().contains(canceled)
    })
    .await;
}

#[tokio::test]
async fn the_drain_finishes_calls_under_way_and_takes_no_more() {
    let running = Running::plain().await;
    let mut client = tonic_client(running.addr).await;
    let stream = first_of_wait(&mut client).await;
    running.trigger.start();
    let addr = running.addr;
    let refused = async {
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused)
        .await
        .unwrap();
    rest_of_wait(&running, stream).await;
    tokio::time::timeout(Duration::from_secs(20), running.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn without_grace_the_drain_drops_calls_and_with_it_at_its_end() {
    for grace in [Duration::ZERO, Duration::from_millis(50)] {
        let running = start(GrpcServerConfig::default(), grace).await;
        let mut client = tonic_client(running.addr).await;
        let mut stream = first_of_wait(&mut client).await;
        running.trigger.start();
        tokio::time::timeout(Duration::from_secs(20), running.task)
            .await
            .unwrap()
            .unwrap();
        assert!(stream.message().await.is_err());
        let trial = &running.trial;
        until("the call dropped", || {
            trial.dropped.load(Ordering::SeqCst) == 1
        })
        .await;
    }
}

#[tokio::test]
async fn an_old_connection_is_asked_to_go_and_its_calls_are_not_cut() {
    let config = GrpcServerConfig {
        max_connection_age: Duration::from_millis(100),
        ..GrpcServerConfig::default()
    };
    let running = start(config, Duration::ZERO).await;
    let client = Client::connect(&running.addr.to_string(), None)
        .await
        .unwrap();
    let mut stream = client
        .server_streaming("/t.Trial/Wait", b"", CallOptions::default())
        .await
        .unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap(), "first");
    let refused = async {
        while client
            .unary("/t.Trial/Echo", b"", CallOptions::default())
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused)
        .await
        .unwrap();
    running.trial.go_on.notify_one();
    assert_eq!(stream.message().await.unwrap().unwrap(), "last");
    assert_eq!(stream.message().await.unwrap(), None);
}

// === In memory, where time is ours ===

fn serve_in_memory(trial: &Arc<Trial>) -> (DuplexStream, JoinHandle<()>, DrainTrigger) {
    serve_through(1 << 16, trial)
}

/// `pipe_bytes` is what each side takes before the other must read.
fn serve_through(
    pipe_bytes: usize,
    trial: &Arc<Trial>,
) -> (DuplexStream, JoinHandle<()>, DrainTrigger) {
    let (client, server) = tokio::io::duplex(pipe_bytes);
    let (trigger, drain) = Drain::new();
    let connection = Connection {
        shared: Arc::new(Shared {
            service: Arc::clone(trial),
            metrics: GrpcMetrics::register(&mut Registry::default(), &[]),
            partial_bytes: Arc::new(AtomicUsize::new(0)),
            failures: FailureLog::default(),
            request_log: RequestLog::Off,
            tracer: None,
        }),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        age_max: None,
        drain,
    };
    (client, tokio::spawn(connection.serve(server)), trigger)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_up() {
    let (_client, serving, _trigger) = serve_in_memory(&Arc::default());
    let started = Instant::now();
    serving.await.unwrap();
    assert!(started.elapsed() >= HANDSHAKE_TIMEOUT);
    assert!(started.elapsed() < HANDSHAKE_TIMEOUT * 2);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_no_longer_answers_pings_is_given_up() {
    let trial = Arc::default();
    let (mut client, serving, _trigger) = serve_in_memory(&trial);
    let started = Instant::now();
    let bytes = [opening(), begin_call("/t.Trial/Chat", 1)].concat();
    client.write_all(&bytes).await.unwrap();
    serving.await.unwrap();
    let hours = started.elapsed().as_secs_f64() / 3600.0;
    assert!((2.0..2.01).contains(&hours), "{hours} hours");
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert!(
        said.windows(5).any(|w| w == [0, 0, 8, 6, 0]),
        "it was pinged"
    );
    until("the call dropped", || {
        trial.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_stays_and_may_ping_every_ten_seconds() {
    let trial = Arc::<Trial>::default();
    let (client, serving, _trigger) = serve_in_memory(&trial);
    let (sender, mut connection) = h2::client::handshake(client).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    tokio::time::sleep(Duration::from_secs(10 * 3600)).await;
    assert!(!serving.is_finished(), "idle, but it answers");

    let post =
        http::Request::post("http://x/t.Trial/Wait").header("content-type", "application/grpc");
    let mut sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        pings.ping(Ping::opaque()).await.unwrap();
    }
    trial.go_on.notify_one();
    let mut received = 0;
    while let Some(chunk) = body.data().await {
        received += chunk.unwrap().len();
    }
    assert_eq!(received, 5 + "first".len() + 5 + "last".len());
    assert!(body.trailers().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_long_loses_its_call_and_a_slow_one_does_not() {
    let trial = Arc::<Trial>::default();
    let (client, serving, _trigger) = serve_in_memory(&trial);
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let post =
        http::Request::post("http://x/t.Trial/Many").header("content-type", "application/grpc");
    let mut sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post.body(()).unwrap(), false).unwrap();
    let wanted = [&[0, 0, 0, 0, 8][..], &many(100_000, 1000)].concat();
    stream.send_data(Bytes::from(wanted), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    // The connection is alive all the time: only the window of the stream stays shut.
    // h2 gives back half a window at a time, which is every second turn or third.
    for _ in 0..12 {
        let chunk = body.data().await.unwrap().unwrap();
        tokio::time::sleep(STALL_MAX / 4).await;
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    assert_eq!(trial.dropped.load(Ordering::SeqCst), 0);
    let started = Instant::now();
    let reset = loop {
        match body.data().await.unwrap() {
            Ok(_kept) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL), "{reset}");
    let after = started.elapsed();
    assert!(
        after >= STALL_MAX / 4 && after < STALL_MAX + Duration::from_secs(1),
        "{after:?}"
    );
    until("the call dropped", || {
        trial.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    assert!(!serving.is_finished(), "the connection stays");
}

#[tokio::test(start_paused = true)]
async fn the_last_words_come_after_a_whole_frame() {
    let trial = Arc::<Trial>::default();
    let (mut client, serving, _trigger) = serve_through(1000, &trial);
    let message = [&[0, 0, 0, 0, 8][..], &many(1000, 1000)].concat();
    let (data, end_stream, ping) = (0, 1, 6);
    let call = begin_call("/t.Trial/Many", 1);
    let bytes = [opening(), call, frame(data, end_stream, 1, &message)].concat();
    client.write_all(&bytes).await.unwrap();
    until("the server stands inside a frame", || {
        trial.sent.load(Ordering::SeqCst) > 20
    })
    .await;
    client
        .write_all(&frame(ping, 0, 0, &[0; 8]).repeat(5))
        .await
        .unwrap();
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert!(said.len() > 1000);
    let (reason, text) = goaway(&said).expect("a GOAWAY where a frame may begin");
    assert_eq!((reason, text.as_str()), (11, "too_many_pings"));
    drop(client);
    serving.await.unwrap();
}
