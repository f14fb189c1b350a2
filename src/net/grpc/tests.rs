//! The server against clients that no one here wrote, and against bytes that no client sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::lifecycle::{Drain, DrainTrigger};

mod calls;
mod life;
mod raw;
mod secure;
mod seeds;

/// A service with a method for each thing that may happen to a call.
#[derive(Default)]
struct Trial {
    /// Messages handed to a sink so far.
    sent: AtomicUsize,
    /// Calls that have begun, and calls whose future is gone.
    begun: AtomicUsize,
    dropped: AtomicUsize,
    /// Lets `/t.Trial/Wait` go on.
    go_on: Notify,
}

const METHODS: [Method; 6] = [
    method("Echo", MethodKind::Unary),
    method("Fail", MethodKind::Unary),
    method("Panic", MethodKind::Unary),
    method("Many", MethodKind::ServerStream),
    method("Wait", MethodKind::ServerStream),
    method("Chat", MethodKind::BidiStream),
];

const fn method(name: &'static str, kind: MethodKind) -> Method {
    Method {
        service: "t.Trial",
        name,
        kind,
    }
}

struct CountDrop<'a>(&'a AtomicUsize);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Service for Trial {
    fn method(&self, path: &str) -> Option<Method> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let found = METHODS
            .iter()
            .find(|m| m.service == service && m.name == name);
        found.copied()
    }

    fn has_service(&self, service: &str) -> bool {
        service == "t.Trial"
    }

    async fn call(self: Arc<Self>, method: Method, mut call: Call) -> Result<(), Status> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _count = CountDrop(&self.dropped);
        match method.name {
            "Chat" => {
                while let Some(message) = call.message().await? {
                    put(call.sink(), &message).await?;
                }
                return Ok(());
            }
            "Panic" => panic!("no such luck"),
            _ => {}
        }
        let request = call.only_message().await?;
        match method.name {
            "Fail" => Err(Status::new(Code::NotFound, "caf\u{e9}: 100% gone\n")),
            // The request says how many messages of how many bytes.
            "Many" => {
                let (count, size) = request.split_at(4);
                let [count, size] =
                    [count, size].map(|b| u32::from_be_bytes(b.try_into().unwrap()));
                let message = vec![7; size as usize];
                for _ in 0..count {
                    put(call.sink(), &message).await?;
                    self.sent.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            }
            "Wait" => {
                put(call.sink(), b"first").await?;
                self.go_on.notified().await;
                put(call.sink(), b"last").await
            }
            _ => put(call.sink(), &request).await,
        }
    }
}

async fn put(sink: &mut MessageSink, message: &[u8]) -> Result<(), Status> {
    sink.send(message.len(), |out| out.extend_from_slice(message))
        .await
}

fn many(count: u32, size: u32) -> Vec<u8> {
    [count.to_be_bytes(), size.to_be_bytes()].concat()
}

struct Running {
    addr: SocketAddr,
    trial: Arc<Trial>,
    trigger: DrainTrigger,
    task: JoinHandle<()>,
    registry: Registry,
}

async fn start(config: GrpcServerConfig, grace: Duration) -> Running {
    let mut registry = Registry::default();
    let metrics = GrpcMetrics::register(&mut registry, &METHODS[..3]);
    let server = GrpcServer::bind("127.0.0.1:0", config, metrics)
        .await
        .unwrap();
    let addr = server.local_addr();
    let (trigger, drain) = Drain::new();
    let trial = Arc::new(Trial::default());
    let task = tokio::spawn(server.serve(Arc::clone(&trial), drain, grace));
    Running {
        addr,
        trial,
        trigger,
        task,
        registry,
    }
}

impl Running {
    async fn plain() -> Self {
        start(GrpcServerConfig::default(), Duration::from_secs(60)).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Waits until `condition` holds; fails after a time that no working build needs.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

// === A tonic client for bytes ===

#[derive(Clone, Copy, Default)]
struct BytesCodec;

impl tonic::codec::Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl tonic::codec::Encoder for BytesCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Bytes,
        dst: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put(dst, item);
        Ok(())
    }
}

impl tonic::codec::Decoder for BytesCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        src: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Bytes>, tonic::Status> {
        let length = bytes::Buf::remaining(src);
        Ok(Some(bytes::Buf::copy_to_bytes(src, length)))
    }
}

type Tonic = tonic::client::Grpc<tonic::transport::Channel>;

async fn tonic_client(addr: SocketAddr) -> Tonic {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
    tonic::client::Grpc::new(endpoint.connect().await.unwrap())
}

async fn unary(
    client: &mut Tonic,
    path: &'static str,
    request: tonic::Request<Bytes>,
) -> Result<tonic::Response<Bytes>, tonic::Status> {
    client.ready().await.unwrap();
    client
        .unary(
            request,
            http::uri::PathAndQuery::from_static(path),
            BytesCodec,
        )
        .await
}

async fn streaming(
    client: &mut Tonic,
    path: &'static str,
    request: tonic::Request<Bytes>,
) -> Result<tonic::Streaming<Bytes>, tonic::Status> {
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    let response = client.server_streaming(request, path, BytesCodec).await?;
    Ok(response.into_inner())
}

fn request(message: impl Into<Bytes>) -> tonic::Request<Bytes> {
    tonic::Request::new(message.into())
}
