//! A pooled HTTP client: HTTP/1.1, and HTTP/2 where TLS negotiates it.
//!
//! It follows no redirects, adds no headers but `Host`, retries nothing that the peer may have
//! seen, and reads no environment: what is sent is what the caller built.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::{Scheme, Uri};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::oneshot;

use super::body::{RequestBody, ResponseBody};
use super::connect::{self, ConnectionCounts, Connector, Settings};
use super::error::{BoxError, HttpError};
use super::proxy::Proxy;
use crate::net::TlsClient;

/// Response headers larger than this are an error; Go's default is 1 MiB, S3 and Prometheus send
/// a few KiB.
const HEADER_BYTES_MAX: u32 = 256 * 1024;

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The client side of TLS for https.
    pub tls: TlsClient,
    /// What connections go through.
    pub proxy: Option<Proxy>,
    /// Longest time for name look-up and TCP connect.
    pub connect_timeout: Option<Duration>,
    /// Longest time for a TLS handshake.
    pub tls_handshake_timeout: Option<Duration>,
    /// Longest time from the request being sent whole to the response's header.
    pub response_header_timeout: Option<Duration>,
    /// How long an unused connection is kept.
    pub idle_timeout: Option<Duration>,
    /// How many unused connections are kept per host; 0 keeps none.
    pub idle_per_host_max: usize,
    /// How many connections a host has at most, used or not; requests wait for one.
    pub connections_per_host_max: Option<NonZeroUsize>,
}

/// The client; cheap to clone, clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<Connector, RequestBody>,
    response_header_timeout: Option<Duration>,
    proxy: Option<Proxy>,
}

// === impl HttpClient ===

impl HttpClient {
    /// A client without open connections.
    pub fn new(config: ClientConfig) -> Self {
        let proxy = config.proxy.clone();
        let connector = Connector::new(Settings {
            tls: config.tls,
            proxy: config.proxy,
            connect_timeout: config.connect_timeout,
            tls_handshake_timeout: config.tls_handshake_timeout,
            connections_per_host_max: config.connections_per_host_max,
            connections: ConnectionCounts::default(),
        });
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_per_host_max)
            .http1_max_buf_size(HEADER_BYTES_MAX as usize)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .build(connector);
        Self {
            client,
            response_header_timeout: config.response_header_timeout,
            proxy,
        }
    }

    /// Sends a request with an absolute URL; resolves at the response's header. Dropping the
    /// future, or the response, ends the exchange.
    ///
    /// # Errors
    /// See [`HttpError`]. A status of 400 or above is a response, not an error.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, HttpError> {
        let uri = request.uri();
        let authority = match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) => authority.to_string(),
            _ => return Err(HttpError::NotAbsolute { uri: uri.clone() }),
        };
        if let Some(value) = self.proxy_authorization(uri) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        let outcome = match self.response_header_timeout {
            None => connect::with_connections(self.client.request(request)).await,
            Some(after) => match self.send_within(request, after).await {
                Some(outcome) => outcome,
                None => return Err(HttpError::HeaderTimeout { authority, after }),
            },
        };
        match outcome {
            Ok(response) => Ok(response.map(ResponseBody::new)),
            Err(error) if error.is_connect() => Err(HttpError::Connect {
                authority,
                timed_out: connect::is_timeout(&error),
                source: error.into(),
            }),
            Err(error) => Err(HttpError::Exchange {
                authority,
                source: error.into(),
            }),
        }
    }

    /// What a request in absolute form carries for the proxy; a tunnel has it in its own request.
    fn proxy_authorization(&self, target: &Uri) -> Option<HeaderValue> {
        let proxy = self.proxy.as_ref()?;
        if target.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        let server = proxy.server(target)?;
        let is_absolute = server.takes_absolute_form();
        is_absolute.then(|| server.authorization()).flatten()
    }

    /// `None` where `after` passed between the request's last byte and the response's header.
    async fn send_within(
        &self,
        request: Request<RequestBody>,
        after: Duration,
    ) -> Option<Result<Response<Incoming>, hyper_util::client::legacy::Error>> {
        let (sent, request_sent) = oneshot::channel();
        let mut request = request.map(|body| SentNotice { body, _sent: sent }.boxed_unsync());
        let mut connection = capture_connection(&mut request);
        let exchange = connect::with_connections(self.client.request(request));
        let too_late = async move {
            connection.wait_for_connection_metadata().await;
            // Resolves with an error when the body is dropped, which is the notice.
            request_sent.await.unwrap_or_default();
            tokio::time::sleep(after).await;
        };
        tokio::select! {
            outcome = exchange => Some(outcome),
            () = too_late => None,
        }
    }
}

/// A body whose drop, at its end, tells that the request is on its way.
struct SentNotice {
    body: RequestBody,
    _sent: oneshot::Sender<()>,
}

impl Body for SentNotice {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
