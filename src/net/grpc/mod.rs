//! gRPC over raw HTTP/2: a server that is generic over its messages, which are bytes, and a small
//! client.
//!
//! A connection is one task, each call another. A handler reads messages from its [`Call`] and
//! writes them to the [`MessageSink`], which gathers batches and waits for the client's window:
//! a slow client slows its handler, and nothing is queued beyond one batch. When the client resets
//! the stream, goes away, or the deadline passes, the handler's future is dropped.
//!
//! Everything a peer can make us hold, do or wait for has a named limit; `guard` follows the
//! frames below `h2` for the two abuses that it does not count itself, pings and resets.

use std::sync::Arc;

mod abuse;
mod answer;
mod call;
mod client;
mod compress;
mod connection;
mod deadline;
mod failure_log;
mod frame;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod gather;
mod guard;
mod metrics;
mod outbound;
mod request_log;
mod server;
mod status;

pub use call::{
    BATCH_BYTES, Call, CallHead, MessageSink, PARTIAL_REQUESTS_BYTES_MAX, REQUEST_BYTES_MAX,
    Requests,
};
pub use client::{CONNECT_TIMEOUT, CallOptions, Client, ConnectError, Responses};
pub use compress::Encoding;
pub use connection::{CONCURRENT_STREAMS_MAX, HANDSHAKE_TIMEOUT, HEADER_LIST_BYTES_MAX};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::{fuzz_compress, fuzz_grpc_frames, fuzz_http2};
pub use metrics::GrpcMetrics;
pub use request_log::{CallSeverity, RequestLog, RequestLogRules};
pub use server::{GRPC_CONNECTIONS_MAX, GrpcServer, GrpcServerConfig};
pub use status::{Code, STATUS_MESSAGE_BYTES_MAX, Status};

/// Which side sends how many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// One each.
    Unary,
    /// One is answered by many.
    ServerStream,
    /// Many are answered by one.
    ClientStream,
    /// Many each.
    BidiStream,
}

/// A method of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method {
    /// With its package: `thanos.Store`.
    pub service: &'static str,
    /// Without its service: `Series`.
    pub name: &'static str,
    /// Which side sends how many messages.
    pub kind: MethodKind,
}

/// What a server serves: methods by path, and what they do.
pub trait Service: Send + Sync + 'static {
    /// The method at `/service/name`; `None` for one that is not there.
    fn method(&self, path: &str) -> Option<Method>;

    /// Whether there is such a service at all, for the text of the error otherwise.
    fn has_service(&self, service: &str) -> bool {
        let _ = service;
        false
    }

    /// Handles one call. Dropped where it is when the client goes or stops waiting, so it must be
    /// safe to drop at each of its await points.
    fn call(
        self: Arc<Self>,
        method: Method,
        call: Call,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

impl MethodKind {
    /// The name in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::ClientStream => "client_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

#[cfg(test)]
mod tests;
