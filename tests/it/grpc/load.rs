//! Many calls, and calls that nobody reads: memory, sockets and threads stay what they were.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger::proto::thanos::info::{InfoRequest, InfoResponse};
use outrigger::proto::thanos::{
    LabelNamesRequest, LabelNamesResponse, SeriesRequest, SeriesResponse,
};
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};

use super::{Beside, everything};
use crate::support::{Outrigger, Reads, StoreApi, eventually, matcher};

/// One of the usual calls, by number.
async fn some_call(client: &StoreApi, n: usize) {
    match n % 12 {
        0 | 4 | 8 => {
            let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
            info.await.unwrap();
        }
        1 | 5 | 9 => {
            label_names(client).await;
        }
        2 => {
            let request = SeriesRequest {
                response_batch_size: 64,
                ..everything()
            };
            assert!(!client.series(request).await.unwrap().is_empty());
        }
        _ => {
            let mut request = everything();
            request.matchers.push(matcher("__name__", "=", "up"));
            assert_eq!(client.series(request).await.unwrap().len(), 1);
        }
    }
}

async fn label_names(client: &StoreApi) {
    let request = LabelNamesRequest {
        end: i64::MAX,
        ..LabelNamesRequest::default()
    };
    let answer = client.unary::<_, LabelNamesResponse>("/thanos.Store/LabelNames", request);
    assert!(!answer.await.unwrap().names.is_empty());
}

async fn sequential(address: SocketAddr, calls: usize) {
    let mut client = StoreApi::connect(address).await;
    for n in 0..calls {
        // A new connection now and then.
        if n % 50 == 0 {
            client = StoreApi::connect(address).await;
        }
        some_call(&client, n).await;
    }
}

async fn parallel(address: SocketAddr, calls: usize) {
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(StoreApi::connect(address).await);
    }
    let calls = (0..calls).map(|n| {
        let client = clients[n % clients.len()].clone();
        tokio::spawn(async move { some_call(&client, n).await })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        call.await.unwrap();
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    rss_kib: u64,
    threads: u64,
}

fn held(outrigger: &Outrigger) -> Held {
    Held {
        rss_kib: outrigger.proc_status("VmRSS"),
        threads: outrigger.proc_status("Threads"),
    }
}

/// A leak of 16 KiB per call would be past this.
const GROWTH_KIB_MAX: u64 = 16 << 10;
/// Connections that are made and closed all the time, such as the heartbeat's.
const FILES_NOISE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thousand_calls_leave_nothing_behind() {
    let beside = Beside::start(&[]);
    let address = beside.grpc_address();
    parallel(address, 200).await;
    sequential(address, 50).await;
    // With the connections to Prometheus that are kept for a while.
    let files = beside.outrigger.open_files();
    let before = held(&beside.outrigger);
    sequential(address, 1000).await;
    parallel(address, 200).await;
    tokio::task::block_in_place(|| {
        eventually("no more sockets are open than before", || {
            (beside.outrigger.open_files() <= files + FILES_NOISE).then_some(())
        });
    });
    let after = held(&beside.outrigger);
    assert!(
        after.rss_kib < before.rss_kib + GROWTH_KIB_MAX,
        "{before:?}, then {after:?}"
    );
    assert!(
        // Those that plan and read blocks come and go.
        after.threads <= before.threads + 6,
        "{before:?}, then {after:?}"
    );
    eprintln!("{before:?}, then {after:?}");
}

/// The value once it has been the same for `period`.
fn steady(value: impl Fn() -> u64, period: Duration) -> u64 {
    let mut last = (value(), Instant::now());
    tokio::task::block_in_place(|| {
        eventually("the value is steady", || {
            let now = value();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() >= period).then_some(now)
        })
    })
}

const STALLED: usize = 50;
/// What a call may hold when its client does not read; a quarter MiB is usual, and `store` counts
/// with 4.
const CALL_KIB_MAX: u64 = 1 << 10;
/// What memory may move by while nothing happens.
const NOISE_KIB: u64 = 4 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_queriers_cost_little_and_others_go_on() {
    stall(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute long"]
async fn queriers_stalled_for_a_minute_cost_little_and_others_go_on() {
    stall(Duration::from_secs(60)).await;
}

async fn stall(period: Duration) {
    let beside = Beside::start(&[&format!("--store.max-concurrent-series={STALLED}")]);
    let other = beside.connect().await;
    for n in 0..12 {
        some_call(&other, n).await;
    }
    beside.gate.set_reads(Reads::Endless);
    let before_kib = beside.outrigger.proc_status("RssAnon");
    let stalled = stalled_streams(&beside).await;
    let reads = || beside.gate.open_reads() as u64;
    assert_eq!(steady(reads, Duration::ZERO), STALLED as u64);
    // Nothing more is read from Prometheus.
    steady(|| beside.gate.endless_bytes(), Duration::from_millis(500));
    let stalled_kib = beside.outrigger.proc_status("RssAnon");
    let growth_kib = stalled_kib.saturating_sub(before_kib);
    eprintln!("{STALLED} stalled calls: {growth_kib} KiB over {before_kib}");
    assert!(
        growth_kib < STALLED as u64 * CALL_KIB_MAX,
        "{growth_kib} KiB"
    );

    // The next one waits, one with a deadline is told so, and those of other kinds go on.
    let mut waiting = {
        let client = other.clone();
        tokio::spawn(async move { open(&client).await })
    };
    let mut impatient = tonic::Request::new(everything());
    impatient.set_timeout(Duration::from_millis(300));
    let code = other.series(impatient).await.unwrap_err().code();
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code:?}"
    );
    let until = Instant::now() + period;
    while Instant::now() < until {
        label_names(&other).await;
        some_call(&other, 0).await;
        let now_kib = beside.outrigger.proc_status("RssAnon");
        assert!(
            now_kib < stalled_kib + NOISE_KIB,
            "{stalled_kib} KiB, then {now_kib}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(beside.gate.open_reads(), STALLED, "the next one waits");
    assert!(!waiting.is_finished());

    drop(stalled);
    let stream = (&mut waiting).await.unwrap();
    drop(stream);
    tokio::task::block_in_place(|| {
        eventually("no read is left", || {
            (beside.gate.open_reads() == 0).then_some(())
        });
    });
    beside.gate.set_reads(Reads::HandedOn);
    some_call(&other, 2).await;
}

async fn open(client: &StoreApi) -> Streaming<SeriesResponse> {
    let stream = client.stream("/thanos.Store/Series", everything());
    let mut stream: Streaming<SeriesResponse> = stream.await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    stream
}

/// Streams of which only the first message is read, on connections whose windows are full.
async fn stalled_streams(beside: &Beside) -> Vec<Streaming<SeriesResponse>> {
    let mut streams = Vec::new();
    for _ in 0..5 {
        let endpoint = format!("http://{}", beside.grpc_address());
        let endpoint = Endpoint::from_shared(endpoint).unwrap();
        let endpoint = endpoint
            .initial_stream_window_size(256 << 10)
            .initial_connection_window_size(8 << 20);
        let client = StoreApi::connect_to(&endpoint).await.unwrap();
        for _ in 0..STALLED / 5 {
            streams.push(open(&client).await);
        }
    }
    streams
}
