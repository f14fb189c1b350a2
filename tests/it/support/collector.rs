//! A collector that speaks OTLP over gRPC (by tonic's server) and HTTP (by hyper's) on one port,
//! and keeps what it gets.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use super::eventually;

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A collector, gone with its test.
pub(crate) struct Collector {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

/// A span, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    pub(crate) resource: Vec<KeyValue>,
    pub(crate) span: Span,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Collected>,
    heads: Vec<(String, HeaderMap)>,
    hangs: bool,
}

#[derive(Clone)]
struct Keeper(Arc<Mutex<Kept>>);

impl Collector {
    pub(crate) fn start() -> Self {
        Self::start_with(false)
    }

    /// One that takes requests and never answers.
    pub(crate) fn hanging() -> Self {
        Self::start_with(true)
    }

    fn start_with(hangs: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Mutex::new(Kept {
            hangs,
            ..Kept::default()
        }));
        let keeper = Keeper(Arc::clone(&kept));
        let (end, ended) = oneshot::channel::<()>();
        // A runtime of its own, which blocks no test.
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = serve(listener, keeper) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address,
            kept,
            _end: end,
        }
    }

    /// The flag for an outrigger that sends here, with these lines more below `config`.
    pub(crate) fn flag(&self, client_type: &str, lines: &str) -> String {
        format!(
            "--tracing.config=type: OTLP\nconfig:\n  client_type: {client_type}\n  endpoint: \
             {}\n  insecure: true\n  service_name: sidecar\n{lines}",
            self.address
        )
    }

    pub(crate) fn spans(&self) -> Vec<Collected> {
        self.kept.lock().unwrap().spans.clone()
    }

    /// Path and headers of each request.
    pub(crate) fn heads(&self) -> Vec<(String, HeaderMap)> {
        self.kept.lock().unwrap().heads.clone()
    }

    /// Waits for the first span that suits.
    pub(crate) fn wait_for(&self, what: &str, suits: impl Fn(&Collected) -> bool) -> Collected {
        eventually(&format!("a span {what}"), || {
            self.spans().into_iter().find(|collected| suits(collected))
        })
    }
}

impl Collected {
    /// An attribute as text.
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        text_of(&self.span.attributes, key)
    }

    pub(crate) fn resource(&self, key: &str) -> Option<String> {
        text_of(&self.resource, key)
    }

    pub(crate) fn trace_id(&self) -> String {
        hex::encode(&self.span.trace_id)
    }

    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.span.parent_span_id == other.span.span_id
    }
}

fn text_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => Some(text.clone()),
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
        }) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

async fn serve(listener: TcpListener, keeper: Keeper) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let keeper = keeper.clone();
        tokio::spawn(async move {
            let answer = |request| answer(keeper.clone(), request);
            let service = hyper::service::service_fn(answer);
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that goes away is not this one's concern.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(keeper: Keeper, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let head = (request.uri().path().to_owned(), request.headers().clone());
    let is_grpc = head.0 == GRPC_PATH;
    let is_compressed = head.1.contains_key("content-encoding");
    let hangs = {
        let mut kept = keeper.0.lock().unwrap();
        kept.heads.push(head);
        kept.hangs
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    if is_grpc {
        let codec = ProstCodec::<ExportTraceServiceResponse, ExportTraceServiceRequest>::default();
        let mut grpc = Grpc::new(codec).accept_compressed(CompressionEncoding::Gzip);
        return Ok(grpc.unary(keeper, request).await);
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut plain = Vec::new();
    match is_compressed {
        true => GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap(),
        false => (&body[..]).read_to_end(&mut plain).unwrap(),
    };
    keeper.keep(ExportTraceServiceRequest::decode(&plain[..]).unwrap());
    Ok(Response::new(Body::empty()))
}

impl Keeper {
    fn keep(&self, request: ExportTraceServiceRequest) {
        let mut kept = self.0.lock().unwrap();
        for of_one in request.resource_spans {
            let resource = of_one.resource.unwrap().attributes;
            let spans = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.spans.extend(spans.map(|span| Collected {
                resource: resource.clone(),
                span,
            }));
        }
    }
}

impl Service<tonic::Request<ExportTraceServiceRequest>> for Keeper {
    type Response = tonic::Response<ExportTraceServiceResponse>;
    type Error = tonic::Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<ExportTraceServiceRequest>) -> Self::Future {
        self.keep(request.into_inner());
        let taken = tonic::Response::new(ExportTraceServiceResponse::default());
        Box::pin(ready(Ok(taken)))
    }
}
