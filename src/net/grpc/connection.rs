//! One connection: the HTTP/2 handshake with its limits, a task per stream, age, drain and
//! keepalive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::Service;
use super::abuse::goaway_no_preface;
use super::answer::{Shared, answer};
use super::call::BATCH_BYTES;
use super::gather::Gather;
use super::guard::{Activity, CLOSING_TIMEOUT, GuardedIo};
use crate::lifecycle::Drain;

/// How long a peer may take for its TLS handshake, and again for the HTTP/2 preface.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls of one connection at once; a client waits with more. A querier has all its calls on one
/// connection, and one panel may be a dozen of them.
pub const CONCURRENT_STREAMS_MAX: u32 = 256;
/// The largest list of headers of a request.
pub const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// What a client may send of a request before we read it: requests are a few KiB.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What `h2` may hold of one call's answer: a batch, and the message that made it full.
const SEND_BUFFER_BYTES: usize = 2 * BATCH_BYTES;
/// Streams that were reset before a task took them (CVE-2023-44487): as many as there may be, as a
/// querier that gives up on a dashboard resets all its calls in one write. A flood of them is the
/// guard's, by `RESETS_MAX`.
const PENDING_RESET_STREAMS_MAX: usize = CONCURRENT_STREAMS_MAX as usize;
/// Streams that we reset because of the peer's errors; then the connection ends.
const LOCAL_ERROR_RESETS_MAX: usize = 1024;
/// After this silence a connection is pinged, and given up after the timeout: grpc-go's defaults.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 3600);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a connection needs to be served.
pub(super) struct Connection<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) peer: SocketAddr,
    pub(super) age_max: Option<Duration>,
    pub(super) drain: Drain,
}

impl<S: Service> Connection<S> {
    /// Serves until the peer goes, misbehaves or is asked to go and has nothing more under way.
    /// Dropping the future ends the calls.
    pub(super) async fn serve<T>(self, io: T)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let gather = Gather::new(io);
        let io = gather.handle();
        gather.while_serving(self.serve_gathered(io)).await;
    }

    async fn serve_gathered<T>(self, io: Gather<T>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = self.peer;
        let activity = Arc::new(Activity::new());
        let mut io = GuardedIo::new(io, Arc::clone(&activity));
        {
            let handshake = timeout(HANDSHAKE_TIMEOUT, builder().handshake::<_, Bytes>(&mut io));
            match self.drain.unless_started(handshake).await {
                None => return,
                Some(Ok(Ok(connection))) => return self.accept(connection, &activity).await,
                Some(Ok(Err(error))) => {
                    tracing::debug!(%peer, err = %error, "peer does not speak HTTP/2");
                }
                Some(Err(_)) => {
                    tracing::debug!(%peer, "peer sent no HTTP/2 preface in time");
                    return;
                }
            }
        }
        close(io, &goaway_no_preface()).await;
    }

    async fn accept<T>(
        self,
        mut connection: h2::server::Connection<T, Bytes>,
        activity: &Arc<Activity>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = self.peer;
        let mut calls = JoinSet::new();
        let keepalive = connection
            .ping_pong()
            .map(|pings| keepalive(pings, activity));
        let mut keepalive = std::pin::pin!(async {
            match keepalive {
                Some(keepalive) => keepalive.await,
                None => std::future::pending().await,
            }
        });
        let mut leaving = std::pin::pin!(leave(&self.drain, self.age_max));
        let mut is_leaving = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    None => break,
                    Some(Err(error)) => {
                        tracing::debug!(%peer, err = %error, "connection ended early");
                        break;
                    }
                    Some(Ok((request, respond))) => {
                        let answering = answer(Arc::clone(&self.shared), request, respond, peer);
                        let counted = activity.begin_call();
                        calls.spawn(async move {
                            answering.await;
                            drop(counted);
                        });
                    }
                },
                () = &mut leaving, if !is_leaving => {
                    is_leaving = true;
                    connection.graceful_shutdown();
                }
                () = &mut keepalive => {
                    tracing::debug!(%peer, "peer does not answer pings, closing");
                    break;
                }
                Some(_ended) = calls.join_next(), if !calls.is_empty() => {}
            }
        }
    }
}

fn builder() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESET_STREAMS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX));
    builder
}

/// Closes a connection whose peer may still be sending, after these last words. With unread bytes
/// in the socket the kernel would reset it, and what was written last would be lost.
pub(super) async fn close(mut io: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) {
    let closing = async {
        io.write_all(words).await?;
        io.shutdown().await?;
        let mut unread = [0; 1024];
        while io.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    match timeout(CLOSING_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(err = %error, "peer is gone before its connection"),
        Err(_) => tracing::debug!("peer does not close its end in time"),
    }
}

/// Resolves when the peer is to be told to go.
async fn leave(drain: &Drain, age_max: Option<Duration>) {
    let aged = async {
        match age_max {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    drain.unless_started(aged).await;
}

/// Resolves once the peer has been silent and does not answer a ping.
async fn keepalive(mut pings: PingPong, activity: &Activity) {
    loop {
        let due = activity.last_read() + KEEPALIVE_INTERVAL;
        if Instant::now() < due {
            sleep_until(due).await;
            continue;
        }
        let asked = Instant::now();
        match timeout(KEEPALIVE_TIMEOUT, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself says what is wrong.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) if activity.last_read() >= asked => {}
            Err(_) => return,
        }
    }
}
