//! One stream from its headers to its status: checks, the handler, its deadline, its panics.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, Method as HttpMethod, Request, StatusCode, header};
use tokio::time::Instant;

use super::call::{Call, CallHead, MessageSink, Requests};
use super::compress::{Encoding, GRPC_ENCODING};
use super::deadline::{GRPC_TIMEOUT, parse_timeout};
use super::failure_log::FailureLog;
use super::metrics::GrpcMetrics;
use super::outbound::Outbound;
use super::request_log::RequestLog;
use super::status::{Code, Status};
use super::{Method, Service};
use crate::trace::{Span, Tracer};

const REQUEST_ID: &str = "request-id";
/// The furthest a deadline may be: tokio's timers know no end of time.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What all calls of a server share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) service: Arc<S>,
    pub(super) metrics: GrpcMetrics,
    pub(super) partial_bytes: Arc<AtomicUsize>,
    pub(super) failures: FailureLog,
    pub(super) request_log: RequestLog,
    pub(super) tracer: Option<Tracer>,
}

/// A request that is refused before it is a call.
struct Refusal {
    http_status: StatusCode,
    status: Status,
}

/// How a call came to its end.
enum End {
    /// By itself: the status has been sent.
    Finished(Status),
    /// The client reset the stream, or is gone.
    Gone,
    /// The client has stopped waiting.
    Deadline,
}

/// Answers one stream.
pub(super) async fn answer<S: Service>(
    shared: Arc<Shared<S>>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    peer: SocketAddr,
) {
    let (parts, body) = request.into_parts();
    let outbound = Outbound::new(respond);
    let (head, encoding) = match check(parts, peer, shared.service.as_ref()) {
        Ok(checked) => checked,
        Err(refusal) => {
            tracing::debug!(%peer, err = %refusal.status, "call refused");
            outbound.refuse(refusal.http_status, &refusal.status);
            return;
        }
    };
    let record = shared.metrics.start(head.method);
    let span = span(shared.tracer.as_ref(), &head);
    let trace_id = span.trace_id();
    let logged = shared.request_log.start(&head, trace_id.as_deref());
    outbound.set_encoding(encoding);
    let call = Call::new(
        head.clone(),
        Requests::new(
            body,
            encoding,
            Arc::clone(&shared.partial_bytes),
            shared.metrics.received(head.method),
        ),
        MessageSink::new(
            outbound.clone(),
            encoding,
            head.method.kind,
            shared.metrics.sent(head.method),
        ),
    );
    // Pinned here, so that the span's future holds no second copy of it.
    let handling = pin!(handle(&shared, head.method, call, &outbound));
    let end = tokio::select! {
        // First of all the driver's waker, so that a sender finds it.
        biased;
        () = std::future::poll_fn(|cx| outbound.poll_gone(cx)) => End::Gone,
        () = until(head.deadline) => End::Deadline,
        status = span.around(handling) => End::Finished(status),
    };
    let status = match end {
        End::Finished(status) => status,
        End::Gone => Status::client_gone(),
        End::Deadline => {
            let status = Status::new(Code::DeadlineExceeded, "the call's deadline has passed");
            if !outbound.reset_if_stalled() {
                outbound.finish(&status);
            }
            status
        }
    };
    let duration = record.finish(status.code);
    span.note("rpc.grpc.status_code", i64::from(status.code.number()));
    if status.code != Code::Ok {
        span.fail(&status.message);
    }
    drop(span);
    if !logged.is_some_and(|logged| logged.finish(&head, &status, duration)) {
        log(
            &shared.failures,
            &head,
            &status,
            duration,
            trace_id.as_deref(),
        );
    }
}

/// The span of a call, named as the reference names it; below the caller's.
fn span(tracer: Option<&Tracer>, head: &CallHead) -> Span {
    let Some(tracer) = tracer else {
        return Span::none();
    };
    let Method { service, name, .. } = head.method;
    let span = tracer.call(format!("/{service}/{name}"), &head.metadata);
    span.note("component", "gRPC");
    span.note("rpc.system", "grpc");
    span.note("rpc.service", service);
    span.note("rpc.method", name);
    span.note_with("client.address", || head.peer.ip().to_string());
    if let Some(request_id) = head.request_id() {
        span.note("request_id", request_id.to_owned());
    }
    span
}

/// Runs the handler and sends what it left, with its status.
async fn handle<S: Service>(
    shared: &Shared<S>,
    method: Method,
    call: Call,
    outbound: &Outbound,
) -> Status {
    let service = Arc::clone(&shared.service);
    let handling = async move { service.call(method, call).await };
    let outcome = AssertUnwindSafe(handling).catch_unwind().await;
    let mut status = match outcome {
        Ok(Ok(())) => Status::ok(),
        Ok(Err(status)) => status,
        Err(panic) => {
            shared.metrics.panicked();
            Status::new(Code::Internal, panic_text(panic.as_ref()))
        }
    };
    if let Err(gone) = outbound.send_all(&mut outbound.take_rest()).await {
        status = gone;
    }
    outbound.finish(&status);
    status
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a text"))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn log(
    failures: &FailureLog,
    head: &CallHead,
    status: &Status,
    duration: Duration,
    trace_id: Option<&str>,
) {
    let method = format_args!("/{}/{}", head.method.service, head.method.name);
    let request_id = head.request_id.as_deref().unwrap_or_default();
    let (code, peer, err) = (status.code.name(), head.peer, &status.message);
    let admitted = match status.is_failure() {
        true => failures.admit(head.method, status.code),
        false => None,
    };
    if status.code == Code::Ok {
        tracing::debug!(
            %method, code, ?duration, request_id, traceID = trace_id, %peer, "call ended"
        );
    } else if let Some(left_out) = admitted {
        tracing::warn!(
            %method, code, ?duration, request_id, traceID = trace_id, %peer, left_out, %err,
            "call failed"
        );
    } else {
        tracing::debug!(
            %method, code, ?duration, request_id, traceID = trace_id, %peer, %err, "call ended"
        );
    }
}

// === Checks ===

fn check<S: Service>(
    parts: Parts,
    peer: SocketAddr,
    service: &S,
) -> Result<(CallHead, Encoding), Refusal> {
    let refuse = |http_status, code, message: String| Refusal {
        http_status,
        status: Status::new(code, message),
    };
    if parts.method != HttpMethod::POST {
        let message = format!("method is {}, want POST", parts.method);
        return Err(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Internal,
            message,
        ));
    }
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| is_grpc(value.as_bytes())) {
        let message = format!("content-type is {content_type:?}, want application/grpc");
        let http_status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(refuse(http_status, Code::InvalidArgument, message));
    }
    let path = parts.uri.path();
    let method = service
        .method(path)
        .ok_or_else(|| refuse(StatusCode::OK, Code::Unimplemented, unknown(path, service)))?;
    let encoding = parts.headers.get(GRPC_ENCODING);
    let token = encoding.map_or(&b""[..], |value| value.as_bytes());
    let encoding = Encoding::parse(token).ok_or_else(|| {
        let message = format!("grpc-encoding is {encoding:?}, which is not supported");
        refuse(StatusCode::OK, Code::Unimplemented, message)
    })?;
    let timeout = match parts.headers.get(GRPC_TIMEOUT) {
        None => None,
        Some(text) => Some(parse_timeout(text.as_bytes()).ok_or_else(|| {
            let message = format!("grpc-timeout {text:?} is malformed");
            refuse(StatusCode::OK, Code::Internal, message)
        })?),
    };
    let head = CallHead {
        method,
        peer,
        deadline: timeout.map(|timeout| Instant::now() + timeout.min(TIMEOUT_MAX)),
        request_id: request_id(&parts.headers),
        metadata: parts.headers,
    };
    Ok((head, encoding))
}

/// `application/grpc` with any subtype: it names the codec of the messages, which here are bytes.
fn is_grpc(content_type: &[u8]) -> bool {
    let media_type = b"application/grpc";
    let Some((start, rest)) = content_type.split_at_checked(media_type.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(media_type) && matches!(rest.first(), None | Some(b'+' | b';'))
}

fn unknown<S: Service>(path: &str, service: &S) -> String {
    match path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
    {
        None => format!("malformed method name {path:?}"),
        Some((name, method)) if service.has_service(name) => {
            format!("unknown method {method} for service {name}")
        }
        Some((name, _)) => format!("unknown service {name}"),
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return None;
    }
    first.to_str().ok().map(str::to_owned)
}
