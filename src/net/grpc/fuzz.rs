//! What the fuzz targets run, here so that a plain `cargo test` replays their corpora.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::answer::Shared;
use super::compress::{Compressor, Encoding};
use super::connection::Connection;
use super::failure_log::FailureLog;
use super::frame::{Frame, FrameError, FrameReader};
use super::request_log::RequestLog;
use super::{Call, GrpcMetrics, Method, MethodKind, Service, Status};
use crate::lifecycle::Drain;

const LENGTH_MAX: usize = 1 << 16;

/// The input as a stream of messages: the same, however it is split.
///
/// # Panics
/// Where the split makes a difference.
pub fn fuzz_grpc_frames(data: &[u8]) {
    let split = data.first().map_or(1, |&byte| usize::from(byte % 61) + 1);
    assert_eq!(frames(data, split), frames(data, data.len().max(1)));
}

fn frames(data: &[u8], split: usize) -> (Vec<Frame>, Result<bool, FrameError>) {
    let mut reader = FrameReader::new(LENGTH_MAX);
    let mut found = Vec::new();
    for chunk in data.chunks(split) {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
        assert!(reader.held_bytes() <= LENGTH_MAX);
    }
    (found, Ok(reader.is_at_boundary()))
}

/// The input as a compressed message, and as one to compress.
///
/// # Panics
/// Where more comes out than allowed, or not what was put in.
pub fn fuzz_compress(data: &[u8]) {
    for encoding in [Encoding::Gzip, Encoding::Snappy] {
        if let Ok(message) = encoding.decode(data, LENGTH_MAX) {
            assert!(message.len() <= LENGTH_MAX);
        }
        let mut out = BytesMut::new();
        let encoded = Compressor::new(encoding).encode(data, &mut out);
        encoded.expect("encoders take any bytes");
        let decoded = encoding.decode(&out, data.len());
        assert_eq!(decoded.expect("its own output"), data);
    }
}

/// The input as what a client sends on a connection, after which it closes: the server must end
/// the connection, and leave no call behind.
///
/// # Panics
/// Where it does not.
pub fn fuzz_http2(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let echo = Arc::new(Echo::default());
    let serving = serve(data, Arc::clone(&echo));
    runtime.expect("a runtime").block_on(async {
        let limited = tokio::time::timeout(Duration::from_secs(10), serving).await;
        limited.expect("the connection ends");
        // Aborted calls are dropped by the runtime once it gets to them.
        while echo.under_way.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    });
}

async fn serve(data: &[u8], service: Arc<Echo>) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let (_trigger, drain) = Drain::new();
    let connection = Connection {
        shared: Arc::new(Shared {
            service,
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
    let (mut read, mut write) = tokio::io::split(client);
    let talk = async {
        // A server that has hung up takes no more; what it said matters to no one.
        let _closed = write.write_all(data).await;
        let _closed = write.shutdown().await;
    };
    let listen = async {
        let mut answer = [0; 4096];
        while matches!(read.read(&mut answer).await, Ok(n) if n > 0) {}
    };
    tokio::join!(connection.serve(server), talk, listen);
}

/// Sends back whatever comes.
#[derive(Debug, Default)]
struct Echo {
    under_way: AtomicUsize,
}

struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Echo {
    fn method(&self, path: &str) -> Option<Method> {
        (path == "/e/E").then_some(Method {
            service: "e",
            name: "E",
            kind: MethodKind::BidiStream,
        })
    }

    async fn call(self: Arc<Self>, _: Method, mut call: Call) -> Result<(), Status> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let _under_way = UnderWay(&self.under_way);
        while let Some(message) = call.message().await? {
            let put = |out: &mut BytesMut| out.extend_from_slice(&message);
            call.sink().send(message.len(), put).await?;
        }
        Ok(())
    }
}
