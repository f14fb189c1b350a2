//! A small HTTP server: HTTP/1.1 and HTTP/2 without TLS, bounded in connections, header size and
//! the time a peer may take to send a header.
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
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::error::BoxError;
use crate::lifecycle::Drain;
use crate::net::{ListenError, Listener};

/// Connections served at once; more wait in the kernel's queue. Scrapers and probes need a few.
pub const CONNECTIONS_MAX: usize = 512;
/// The longest request header that is read.
pub const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How long a peer may take for a request's header, counted from the connection or from the
/// previous response: ends slow-header attacks and idle connections alike. Above the usual scrape
/// intervals, so that scrapers keep their connection.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(90);
/// HTTP/2 peers that are gone without a word are found by a ping after this silence.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
/// Requests of one HTTP/2 connection at once.
const HTTP2_STREAMS_MAX: u32 = 64;

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
        let serve = |stream, _| serve_connection(stream, handler.clone(), drain.clone());
        self.listener
            .serve(CONNECTIONS_MAX, drain.clone(), grace, "requests", serve)
            .await;
    }
}

// === Connections ===

async fn serve_connection<H, F, B>(stream: TcpStream, handler: H, drain: Drain)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(err = %error, "connection closed before it was served");
        return;
    }
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
    let builder = builder();
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
struct FirstRequestTimer {
    io: TokioIo<TcpStream>,
    deadline: Pin<Box<Sleep>>,
    requested: Arc<AtomicBool>,
}

impl Read for FirstRequestTimer {
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

impl Write for FirstRequestTimer {
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
