//! The server: accepts connections and gives each to a task, until the drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::Service;
use super::answer::Shared;
use super::connection::{Connection, HANDSHAKE_TIMEOUT, close};
use super::failure_log::FailureLog;
use super::metrics::GrpcMetrics;
use super::request_log::RequestLog;
use crate::lifecycle::Drain;
use crate::net::{ListenError, Listener, TlsServer};
use crate::trace::Tracer;

/// Connections served at once; more wait in the kernel's queue. Each querier has one, sometimes
/// two while it moves to a new one.
pub const GRPC_CONNECTIONS_MAX: usize = 256;
/// How long sent bytes may stay without an acknowledgement, or unsent before a closed TCP window:
/// what grpc-go sets too. Ends connections to hosts that are gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a server may be told.
#[derive(Clone, Debug, Default)]
pub struct GrpcServerConfig {
    /// Speak TLS.
    pub tls: Option<TlsServer>,
    /// The age at which a connection is asked to end, spread by a tenth both ways; zero for never.
    /// Calls under way go on.
    pub max_connection_age: Duration,
    /// Decides the spread.
    pub jitter_seed: u64,
    /// Which calls are told in the log.
    pub request_log: RequestLog,
    /// Starts a span for each call; `None` for no spans.
    pub tracer: Option<Tracer>,
}

/// A bound, not yet serving server.
#[derive(Debug)]
pub struct GrpcServer {
    listener: Listener,
    config: GrpcServerConfig,
    metrics: GrpcMetrics,
}

impl GrpcServer {
    /// Binds `host:port`, read as [`crate::net::http::HttpServer::bind`] reads it. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// Where the address is malformed, unknown or taken.
    pub async fn bind(
        address: &str,
        config: GrpcServerConfig,
        metrics: GrpcMetrics,
    ) -> Result<Self, ListenError> {
        let listener = Listener::bind(address).await?;
        Ok(Self {
            listener,
            config,
            metrics,
        })
    }

    /// Where the server listens, with the port that the kernel chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Answers calls with `service` until `drain`; then tells clients to go and finishes the calls
    /// under way within `grace` (zero: closes at once). A handler's future is dropped when its
    /// client resets the stream or goes away, and at the call's deadline.
    pub async fn serve<S: Service>(self, service: Arc<S>, drain: Drain, grace: Duration) {
        let shared = Arc::new(Shared {
            service,
            metrics: self.metrics,
            partial_bytes: Arc::new(AtomicUsize::new(0)),
            failures: FailureLog::default(),
            request_log: self.config.request_log.clone(),
            tracer: self.config.tracer.clone(),
        });
        let mut accepted = 0_u64;
        let serve = |stream, peer| {
            accepted = accepted.wrapping_add(1);
            let connection = Connection {
                shared: Arc::clone(&shared),
                peer,
                age_max: age_max(&self.config, accepted),
                drain: drain.clone(),
            };
            serve_stream(connection, stream, self.config.tls.clone())
        };
        self.listener
            .serve(GRPC_CONNECTIONS_MAX, drain.clone(), grace, "calls", serve)
            .await;
    }
}

async fn serve_stream<S: Service>(
    connection: Connection<S>,
    mut stream: TcpStream,
    tls: Option<TlsServer>,
) {
    let peer = connection.peer;
    let timeout_ms = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let prepared = stream.set_nodelay(true).and_then(|()| {
        sockopt::set_tcp_user_timeout(&stream, timeout_ms).map_err(std::io::Error::from)
    });
    if let Err(error) = prepared {
        tracing::debug!(%peer, err = %error, "connection closed before it was served");
        return;
    }
    match tls {
        None => connection.serve(&mut stream).await,
        Some(tls) => {
            // Nothing is owed to a peer that has not said who it is: the drain ends the handshake.
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(&mut stream));
            match connection.drain.unless_started(handshake).await {
                None => return,
                Some(Ok(Ok(stream))) => connection.serve(stream).await,
                Some(Ok(Err(error))) => {
                    tracing::debug!(%peer, err = %error, "TLS handshake failed");
                }
                Some(Err(_)) => {
                    tracing::debug!(%peer, "TLS handshake took too long");
                    return;
                }
            }
        }
    }
    // What was written last, a status or an alert, is to be read: the client may have sent
    // something in the meantime.
    close(stream, &[]).await;
}

/// The age of the `n`th connection: `max_connection_age`, spread by a tenth both ways so that the
/// connections of a start do not end together. `None` for never.
fn age_max(config: &GrpcServerConfig, n: u64) -> Option<Duration> {
    if config.max_connection_age.is_zero() {
        return None;
    }
    // SplitMix64, as in `lifecycle::Backoff`: enough to spread.
    let mut z = config
        .jitter_seed
        .wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let numerator = u32::try_from(z >> 32).unwrap_or(u32::MAX);
    let fraction = f64::from(numerator) / f64::from(u32::MAX);
    Some(config.max_connection_age.mul_f64(0.9 + 0.2 * fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_by_a_tenth_both_ways() {
        let config = GrpcServerConfig {
            max_connection_age: Duration::from_secs(1000),
            jitter_seed: 7,
            ..GrpcServerConfig::default()
        };
        let ages: Vec<u64> = (0..1000)
            .map(|n| age_max(&config, n).unwrap().as_secs())
            .collect();
        assert!(ages.iter().all(|age| (900..=1100).contains(age)));
        assert!(ages.iter().any(|age| *age < 920) && ages.iter().any(|age| *age > 1080));
        assert_eq!(age_max(&GrpcServerConfig::default(), 1), None);
    }
}
