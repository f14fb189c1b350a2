//! A small HTTP server: HTTP/1.1 and HTTP/2, with TLS where it is told so, bounded in connections,
//! header size and the time a peer may take to send a header.
//!
//! It binds at once, so that a taken port fails the start, and serves until the drain: then it
//! accepts nothing more, lets requests in flight finish within the grace period and closes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::error::BoxError;
use crate::lifecycle::Drain;
use crate::net::{HttpsAcceptor, ListenError, Listener};

/// Connections served at once; more wait in the kernel's queue. Scrapers and probes need a few.
pub const CONNECTIONS_MAX: usize = 512;
/// The longest request header that is read.
pub const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How long a peer may take for a request's header, counted from the connection or from the
/// previous response: ends slow-header attacks and idle connections alike. Above the usual scrape
/// intervals, so that scrapers keep their connection.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a peer may take for a TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of TLS.
const TLS_HANDSHAKE_RECORD: u8 = 0x16;
/// What a peer is told that speaks HTTP where TLS is wanted; Go's servers say so too.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";
/// HTTP/2 peers that are gone without a word are found by a ping after this silence.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
/// Requests of one HTTP/2 connection at once.
const HTTP2_STREAMS_MAX: u32 = 64;

/// How to speak on a connection.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    /// Speak TLS.
    pub tls: Option<HttpsAcceptor>,
    /// Speak HTTP/2 to those who want it.
    pub http2: bool,
}

/// A bound, not yet serving server.
#[derive(Debug)]
pub struct HttpServer {
    listener: Listener,
}

// === impl HttpServer ===

impl HttpServer {
    /// Binds `host:port`. An empty host, `0.0.0.0` and `[::]` all mean every address of both
    /// families, as they do in the reference; a name means its first address, IPv4 preferred.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Where the address is malformed, unknown or taken.
    pub async fn bind(address: &str) -> Result<Self, ListenError> {
        let listener = Listener::bind(address).await?;
        Ok(Self { listener })
    }

    /// Where the server listens, with the port that the kernel chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Answers requests with `handler` until `drain`; then finishes those in flight within
    /// `grace` (zero: closes at once). A handler's future is dropped when its peer goes away.
    pub async fn serve<H, F, B>(self, handler: H, drain: Drain, grace: Duration)
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.serve_over(HttpTransport::default, handler, drain, grace)
            .await;
    }

    /// As [`Self::serve`], each connection in the way that `transport` tells when it comes.
    pub async fn serve_over<H, F, B>(
        self,
        transport: impl Fn() -> HttpTransport + Clone + Send + Sync + 'static,
        handler: H,
        drain: Drain,
        grace: Duration,
    ) where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let serve = |stream, _| {
            let (transport, handler, drain) = (transport.clone(), handler.clone(), drain.clone());
            // In the connection's own task: what it asks may have to read files.
            async move { serve_stream(stream, transport(), handler, drain).await }
        };
        self.listener
            .serve(CONNECTIONS_MAX, drain.clone(), grace, "requests", serve)
            .await;
    }
}

// === impl HttpTransport ===

impl Default for HttpTransport {
    /// Plain text.
    fn default() -> Self {
        Self {
            tls: None,
            http2: true,
        }
    }
}

// === Connections ===

/// Speaks TLS where that is wanted.
async fn serve_stream<H, F, B>(
    mut stream: TcpStream,
    transport: HttpTransport,
    handler: H,
    drain: Drain,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(err = %error, "connection closed before it was served");
        return;
    }
    let Some(tls) = transport.tls else {
        return serve_connection(stream, transport.http2, handler, drain).await;
    };
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE_RECORD] {
            stream.write_all(NOT_TLS).await?;
            stream.shutdown().await?;
            // Closing with something unread would take the answer from the peer.
            let mut rest = stream.take(u64::from(HEADER_BYTES_MAX));
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            return Ok(None);
        }
        tls.accept(stream).await.map(Some)
    };
    let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, handshake);
    // Nothing is owed to a peer that has not said who it is: the drain ends the handshake.
    match drain.unless_started(handshake).await {
        None | Some(Ok(Ok(None))) => {}
        Some(Ok(Ok(Some(stream)))) => {
            serve_connection(stream, transport.http2, handler, drain).await;
        }
        Some(Ok(Err(error))) => tracing::debug!(err = %error, "TLS handshake failed"),
        Some(Err(_)) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn serve_connection<T, H, F, B>(stream: T, http2: bool, handler: H, drain: Drain)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let requested = Arc::new(AtomicBool::new(false));
    let io = FirstRequestTimer {
        io: TokioIo::new(stream),
        deadline: Box::pin(tokio::time::sleep(HEADER_READ_TIMEOUT)),
        requested: Arc::clone(&requested),
    };
    let service = service_fn(move |request| {
        requested.store(true, Ordering::Relaxed);
        let answering = handler(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let builder = match http2 {
        true => builder(),
        false => builder().http1_only(),
    };
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let outcome = match drain.unless_started(connection.as_mut()).await {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(err = %error, "connection ended early");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    builder
}

/// Ends a connection on which no request has arrived in time. Hyper's own timer only runs once
/// it knows whether the peer speaks HTTP/1, which a silent peer never tells.
struct FirstRequestTimer<T> {
    io: TokioIo<T>,
    deadline: Pin<Box<Sleep>>,
    requested: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> Read for FirstRequestTimer<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_pending()
            && !self.requested.load(Ordering::Relaxed)
            && self.deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> Write for FirstRequestTimer<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests;
