//! A listening socket: `host:port` as the reference reads it, connections that keep coming when
//! accepting one fails, and their end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::lifecycle::{Backoff, Drain};

/// The kernel's queue of connections not accepted yet.
const BACKLOG: i32 = 1024;
/// Delays after a failed accept, as Go's server: from 5 ms to 1 s.
const ACCEPT_DELAY_MIN: Duration = Duration::from_millis(5);
const ACCEPT_DELAY_MAX: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub(in crate::net) struct Listener {
    socket: TcpListener,
    local_addr: SocketAddr,
}

/// Why the server can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not `host:port`.
    #[error("listen address `{address}` is not host:port")]
    Address {
        /// As given.
        address: String,
    },
    /// The host can't be resolved.
    #[error("resolving listen address {address}")]
    Resolve {
        /// As given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refuses the address.
    #[error("listening on {address}")]
    Bind {
        /// As given.
        address: String,
        /// Why.
        source: io::Error,
    },
}

// === impl Listener ===

impl Listener {
    /// Binds `host:port`. An empty host, `0.0.0.0` and `[::]` all mean every address of both
    /// families, as they do in the reference; a name means its first address, IPv4 preferred.
    /// Must be called inside a tokio runtime.
    pub(in crate::net) async fn bind(address: &str) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind {
            address: address.to_owned(),
            source,
        };
        let (host, port) = host_and_port(address)?;
        let listener = match host {
            Some(host) => {
                let ip = resolve(host, address).await?;
                listen(SocketAddr::new(ip, port))
            }
            None => listen_on_all(port),
        };
        let listener = listener.and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let socket = listener.map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, local_addr })
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    pub(in crate::net) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Gives each connection to a task of its own, which runs what `serve` makes of it, until
    /// `drain`; at most `connections_max` at a time, more wait in the kernel's queue. Then nothing
    /// is accepted any more, and tasks still running end within `grace` (zero: at once). `what`
    /// they do is told where they don't.
    pub(in crate::net) async fn serve<F>(
        self,
        connections_max: usize,
        drain: Drain,
        grace: Duration,
        what: &'static str,
        mut serve: impl FnMut(TcpStream, SocketAddr) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        let places = Arc::new(Semaphore::new(connections_max));
        let accepting = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let (stream, peer) = accept(&self.socket).await;
                let serving = serve(stream, peer);
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
                while connections.try_join_next().is_some() {}
            }
        };
        drain.unless_started(accepting).await;
        drop(self.socket);
        if !grace.is_zero()
            && tokio::time::timeout(grace, all(&mut connections))
                .await
                .is_err()
        {
            tracing::warn!(
                ?grace,
                connections = connections.len(),
                "{what} not finished within the grace period, closing"
            );
        }
        connections.shutdown().await;
    }
}

async fn all(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// `None` for a host that means every address.
fn host_and_port(address: &str) -> Result<(Option<&str>, u16), ListenError> {
    let malformed = || ListenError::Address {
        address: address.to_owned(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let port = port.parse().map_err(|_| malformed())?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(malformed)?,
        None if host.contains(':') => return Err(malformed()),
        None => host,
    };
    let unspecified = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    Ok(((!host.is_empty() && !unspecified).then_some(host), port))
}

async fn resolve(host: &str, address: &str) -> Result<IpAddr, ListenError> {
    let failed = |source| ListenError::Resolve {
        address: address.to_owned(),
        source,
    };
    let found = tokio::net::lookup_host((host, 0)).await.map_err(failed)?;
    let ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let ipv4 = ips.iter().find(|ip| ip.is_ipv4());
    ipv4.or(ips.first())
        .copied()
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn listen_on_all(port: u16) -> io::Result<std::net::TcpListener> {
    match listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        // Hosts without IPv6.
        Err(error)
            if [
                rustix::io::Errno::AFNOSUPPORT,
                rustix::io::Errno::ADDRNOTAVAIL,
            ]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        }
        outcome => outcome,
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        let only_ipv6 = !address.ip().is_unspecified();
        sockopt::set_ipv6_v6only(&socket, only_ipv6)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

// === Accepting ===

/// What gives connections; a trait so that tests can let it fail.
trait Accept {
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)>;
}

impl Accept for TcpListener {
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

/// The next connection. Failures (out of descriptors, a peer that went away in the queue) pass;
/// giving up would leave a process without probes.
async fn accept(listener: &impl Accept) -> (TcpStream, SocketAddr) {
    let mut backoff = Backoff::new(ACCEPT_DELAY_MIN, ACCEPT_DELAY_MAX, 0);
    loop {
        match listener.next().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                let delay = backoff.next_delay();
                tracing::warn!(err = %error, retry_in = ?delay, "accepting a connection failed");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    async fn connect(to: impl tokio::net::ToSocketAddrs) {
        drop(TcpStream::connect(to).await.unwrap());
    }

    #[tokio::test]
    async fn addresses_are_taken_as_go_takes_them() {
        for (address, expected) in [
            (":10902", (None, 10902)),
            ("0.0.0.0:1", (None, 1)),
            ("[::]:1", (None, 1)),
            ("localhost:1", (Some("localhost"), 1)),
            ("127.0.0.1:0", (Some("127.0.0.1"), 0)),
            ("[::1]:8", (Some("::1"), 8)),
        ] {
            assert_eq!(host_and_port(address).unwrap(), expected, "{address}");
        }
        for bad in [
            "",
            "10902",
            "localhost",
            "::1:8",
            "[::1:8",
            "a:b",
            "a:70000",
            "a:-1",
        ] {
            let error = host_and_port(bad).unwrap_err();
            let is_named = matches!(&error, ListenError::Address { address } if address == bad);
            assert!(is_named, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_wildcard_listens_on_both_families_and_a_taken_port_is_named() {
        for address in [":0", "0.0.0.0:0", "[::]:0"] {
            let server = Listener::bind(address).await.unwrap();
            let port = server.local_addr().port();
            connect((Ipv4Addr::LOCALHOST, port)).await;
            if std::net::TcpListener::bind("[::1]:0").is_ok() {
                connect((Ipv6Addr::LOCALHOST, port)).await;
            }
            let taken = format!("127.0.0.1:{port}");
            let error = Listener::bind(&taken).await.unwrap_err();
            assert!(error.to_string().contains(&taken), "{error}");
        }
        let named = Listener::bind("localhost:0").await.unwrap();
        assert!(named.local_addr().ip().is_loopback());
        let error = Listener::bind("no-such-host.invalid:1").await.unwrap_err();
        assert!(matches!(error, ListenError::Resolve { .. }), "{error:?}");
    }

    struct Failing {
        listener: TcpListener,
        failures: Mutex<u32>,
    }

    impl Accept for Failing {
        async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
            {
                let mut failures = self.failures.lock().unwrap();
                if *failures > 0 {
                    *failures -= 1;
                    return Err(rustix::io::Errno::MFILE.into());
                }
            }
            self.listener.next().await
        }
    }

    #[tokio::test]
    async fn accept_errors_are_waited_out() {
        tokio::time::pause();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let failing = Failing {
            listener,
            failures: Mutex::new(20),
        };
        let started = tokio::time::Instant::now();
        tokio::join!(accept(&failing), connect(addr));
        let waited = started.elapsed();
        assert!(
            waited > Duration::from_secs(5) && waited <= Duration::from_secs(20),
            "backs off up to one second each: {waited:?}"
        );
    }
}
