//! Calls that end early: deadlines, cancels, clients that go; and the end of the server.

use std::time::Duration;

use outrigger::proto::thanos::info::{InfoRequest, InfoResponse};
use outrigger::proto::thanos::{SeriesRequest, SeriesResponse};
use prost::Message as _;
use tonic::{Code, Request};

use super::{Beside, everything, framed, raw};
use crate::support::{GateState, Reads, StoreApi, eventually, messages};

/// Waits, away from the runtime's threads, until as many reads are under way.
async fn wait_for_reads(beside: &Beside, count: usize) {
    let what = format!("{count} reads are under way");
    tokio::task::block_in_place(|| {
        eventually(&what, || (beside.gate.open_reads() == count).then_some(()));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_call_and_its_read() {
    let beside = Beside::start(&[]);
    beside.gate.set_reads(Reads::Held);
    let message = everything().encode_to_vec();
    let bytes = framed(0, u32::try_from(message.len()).unwrap(), &message);
    let address = beside.grpc_address();
    let (code, text) = raw(address, "/thanos.Store/Series", Some("700m"), bytes, true).await;
    assert_eq!(code, Code::DeadlineExceeded);
    assert_eq!(text, "the call's deadline has passed");
    wait_for_reads(&beside, 0).await;
    let value = beside.outrigger.wait_for_metric(
        "grpc_server_handled_total{grpc_type=\"server_stream\",grpc_service=\"thanos.Store\",\
         grpc_method=\"Series\",grpc_code=\"DeadlineExceeded\"}",
        |value| value > 0.0,
    );
    assert_eq!(value, 1.0);
    // A client with a timer of its own may be faster.
    let client = beside.connect().await;
    let mut request = Request::new(everything());
    request.set_timeout(Duration::from_millis(700));
    let code = client.series(request).await.unwrap_err().code();
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code:?}"
    );
    wait_for_reads(&beside, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_closes_its_read() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    for reads in [Reads::Held, Reads::Endless] {
        beside.gate.set_reads(reads);
        let under_way = tokio::spawn({
            let client = client.clone();
            async move { client.series(everything()).await.map(|_| ()) }
        });
        wait_for_reads(&beside, 1).await;
        under_way.abort();
        wait_for_reads(&beside, 0).await;
    }
    // The connection is as good as before.
    let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    info.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_closes_its_reads() {
    let beside = Beside::start(&[]);
    beside.gate.set_reads(Reads::Endless);
    let client = beside.connect().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let stream =
            client.stream::<SeriesRequest, SeriesResponse>("/thanos.Store/Series", everything());
        let mut stream = stream.await.unwrap();
        assert!(stream.message().await.unwrap().is_some());
        streams.push(stream);
    }
    wait_for_reads(&beside, 3).await;
    drop((client, streams));
    wait_for_reads(&beside, 0).await;
}

/// A read that breaks off is an error, never a short answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_that_goes_amid_a_call_ends_it_with_an_error() {
    let beside = Beside::start(&[]);
    beside.gate.set_reads(Reads::Held);
    let client = beside.connect().await;
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { client.series(everything()).await }
    });
    wait_for_reads(&beside, 1).await;
    beside.gate.set(GateState::Down);
    beside.gate.break_reads();
    let error = under_way.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
}

/// What is under way at the end is finished within the grace period; nothing new begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_waits_for_calls_under_way() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    let address = beside.grpc_address();
    beside.gate.set_reads(Reads::Endless);
    let stream = client.stream::<_, SeriesResponse>("/thanos.Store/Series", everything());
    let mut stream = stream.await.unwrap();
    stream.message().await.unwrap();
    beside
        .outrigger
        .process
        .signal(rustix::process::Signal::TERM);
    tokio::task::block_in_place(|| {
        eventually("nothing listens any more", || {
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))
                .err()
                .map(|_| ())
        });
    });
    for _ in 0..1000 {
        assert!(stream.message().await.unwrap().is_some());
    }
    beside.gate.break_reads();
    let error = messages(stream).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    let (status, log) = {
        let mut process = beside.outrigger.process;
        (process.wait(), process.log())
    };
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        StoreApi::connect_to(
            &tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap()
        )
        .await
        .is_err()
    );
}
