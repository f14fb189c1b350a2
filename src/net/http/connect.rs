//! How a connection comes about: name, TCP, proxy, TLS, each step under its own time limit, and
//! no more connections per host than allowed.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri;
use http::uri::{Scheme, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::error::BoxError;
use super::proxy::{Proxy, ProxyKind, ProxyServer};
use crate::net::TlsClient;

/// What Go allows a proxy for its handshake.
const PROXY_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Keeps middle boxes from forgetting an idle connection, and finds dead peers.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// Hosts whose connections are counted at once; those without any are forgotten past it.
const COUNTED_HOSTS_MAX: usize = 64;

tokio::task_local! {
    /// Cancelled once the request that asked for a connection needs it no longer.
    static REQUEST_OVER: CancellationToken;
}

/// Makes connections for the pool.
#[derive(Clone, Debug)]
pub(super) struct Connector(Arc<Settings>);

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) tls: TlsClient,
    pub(super) proxy: Option<Proxy>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) tls_handshake_timeout: Option<Duration>,
    pub(super) connections_per_host_max: Option<NonZeroUsize>,
    pub(super) connections: ConnectionCounts,
}

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("dialing")]
    Dial { source: BoxError },
    #[error("dialing took longer than {after:?}")]
    DialTimeout { after: Duration },
    #[error("TLS handshake")]
    Tls { source: io::Error },
    #[error("TLS handshake took longer than {after:?}")]
    TlsTimeout { after: Duration },
    #[error("the host can't be a TLS server name")]
    TlsName,
    #[error("through proxy {proxy}")]
    Proxy { proxy: String, source: BoxError },
    #[error("the proxy's handshake took longer than {after:?}")]
    ProxyTimeout { after: Duration },
    #[error("not needed any more")]
    NotNeeded,
}

/// One permit per open connection and host.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounts(Mutex<HashMap<String, Arc<Semaphore>>>);

/// Runs a request; connections which wait for their turn on its behalf give up when it ends.
///
/// The pool races a new connection against one that becomes idle, and when the latter wins it
/// finishes the former in the background. Without this, attempts that wait for a permit would
/// pile up there.
pub(super) async fn with_connections<T>(request: impl Future<Output = T>) -> T {
    let token = CancellationToken::new();
    let _over = token.clone().drop_guard();
    REQUEST_OVER.scope(token, request).await
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Arc::new(settings))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let settings = Arc::clone(&self.0);
        let request_over = REQUEST_OVER.try_with(Clone::clone).unwrap_or_default();
        Box::pin(async move {
            let permit = settings.permit(&target, request_over).await?;
            let mut stream = settings.connect(&target).await?;
            stream.permit = permit;
            Ok(stream)
        })
    }
}

impl Settings {
    async fn permit(
        &self,
        target: &Uri,
        request_over: CancellationToken,
    ) -> Result<Option<OwnedSemaphorePermit>, ConnectError> {
        let Some(max) = self.connections_per_host_max else {
            return Ok(None);
        };
        let semaphore = self.connections.of(target, max);
        let acquired = request_over.run_until_cancelled(semaphore.acquire_owned());
        match acquired.await {
            Some(permit) => Ok(permit.ok()),
            None => Err(ConnectError::NotNeeded),
        }
    }

    async fn connect(&self, target: &Uri) -> Result<Stream, ConnectError> {
        let https = target.scheme() == Some(&Scheme::HTTPS);
        let target = &with_port(target, if https { 443 } else { 80 });
        let proxy = self.proxy.as_ref().and_then(|proxy| proxy.server(target));
        let (io, absolute_form) = match proxy {
            None => (self.dial(target).await?, false),
            Some(proxy) if proxy.takes_absolute_form() && !https => {
                (self.dial_proxy(proxy).await?, true)
            }
            Some(proxy) => (self.tunnel(proxy, target).await?, false),
        };
        let (io, http2) = match https {
            true => self.secure(io, target).await?,
            false => (io, false),
        };
        Ok(Stream {
            io,
            http2,
            absolute_form,
            permit: None,
        })
    }

    async fn dial(&self, target: &Uri) -> Result<BoxIo, ConnectError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        // Splits the time among the addresses of a name, so that one dead address does not use
        // up all of it; the limit around it also covers the look-up.
        tcp.set_connect_timeout(self.connect_timeout);
        let dialing = tcp.call(target.clone());
        let after = self.connect_timeout.unwrap_or(Duration::MAX);
        match tokio::time::timeout(after, dialing).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(ConnectError::Dial {
                source: error.into(),
            }),
            Err(_) => Err(ConnectError::DialTimeout { after }),
        }
    }

    async fn dial_proxy(&self, proxy: &ProxyServer) -> Result<BoxIo, ConnectError> {
        let io = self.dial(&proxy.uri).await?;
        match proxy.uri.scheme() == Some(&Scheme::HTTPS) {
            true => Ok(self.secure_http1(io, &proxy.uri).await?),
            false => Ok(io),
        }
    }

    /// A connection to `target` that the proxy forwards.
    async fn tunnel(&self, proxy: &ProxyServer, target: &Uri) -> Result<BoxIo, ConnectError> {
        let through = |source: BoxError| ConnectError::Proxy {
            proxy: proxy.uri.to_string(),
            source,
        };
        let io = self.dial_proxy(proxy).await?;
        let ready = ReadyIo(Some(io));
        let handshake = async {
            match proxy.kind {
                ProxyKind::Http => {
                    let mut tunnel = Tunnel::new(proxy.uri.clone(), ready);
                    if let Some(value) = proxy.authorization() {
                        tunnel = tunnel.with_auth(value);
                    }
                    tunnel
                        .call(target.clone())
                        .await
                        .map_err(|e| through(e.into()))
                }
                ProxyKind::Socks5 => {
                    let mut socks = SocksV5::new(proxy.uri.clone(), ready);
                    if let Some((user, password)) = proxy.credentials.clone() {
                        socks = socks.with_auth(user, password);
                    }
                    socks
                        .call(target.clone())
                        .await
                        .map_err(|e| through(e.into()))
                }
            }
        };
        let after = PROXY_HANDSHAKE_TIMEOUT;
        match tokio::time::timeout(after, handshake).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::ProxyTimeout { after }),
        }
    }

    async fn secure(&self, io: BoxIo, target: &Uri) -> Result<(BoxIo, bool), ConnectError> {
        self.handshake(io, target, Arc::clone(&self.tls.config))
            .await
    }

    /// To a proxy: requests in absolute form and CONNECT are HTTP/1.1.
    async fn secure_http1(&self, io: BoxIo, target: &Uri) -> Result<BoxIo, ConnectError> {
        let mut config = (*self.tls.config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (io, _) = self.handshake(io, target, Arc::new(config)).await?;
        Ok(io)
    }

    async fn handshake(
        &self,
        io: BoxIo,
        target: &Uri,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<(BoxIo, bool), ConnectError> {
        let host = target.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match &self.tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::TlsName)?,
        };
        let connector = tokio_rustls::TlsConnector::from(config);
        let handshake = connector.connect(name, TokioIo::new(io));
        let after = self.tls_handshake_timeout.unwrap_or(Duration::MAX);
        match tokio::time::timeout(after, handshake).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok((Box::new(TokioIo::new(stream)), http2))
            }
            Ok(Err(source)) => Err(ConnectError::Tls { source }),
            Err(_) => Err(ConnectError::TlsTimeout { after }),
        }
    }
}

/// SOCKS and CONNECT need a port; libraries disagree on which one to assume.
fn with_port(target: &Uri, port: u16) -> Uri {
    let mut parts = uri::Parts::from(target.clone());
    if let Some(host) = target.host()
        && target.port().is_none()
    {
        parts.authority = format!("{host}:{port}").parse().ok();
    }
    Uri::from_parts(parts).unwrap_or_else(|_| target.clone())
}

impl ConnectionCounts {
    fn of(&self, target: &Uri, max: NonZeroUsize) -> Arc<Semaphore> {
        let key = format!(
            "{}://{}",
            target.scheme_str().unwrap_or_default(),
            target
                .authority()
                .map(uri::Authority::as_str)
                .unwrap_or_default()
        );
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= COUNTED_HOSTS_MAX {
            hosts.retain(|_, semaphore| semaphore.available_permits() < max.get());
        }
        let new = || Arc::new(Semaphore::new(max.get()));
        Arc::clone(hosts.entry(key).or_insert_with(new))
    }
}

/// Whether a time limit is somewhere in the chain of causes.
pub(super) fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let ours = matches!(
            error.downcast_ref::<ConnectError>(),
            Some(
                ConnectError::DialTimeout { .. }
                    | ConnectError::TlsTimeout { .. }
                    | ConnectError::ProxyTimeout { .. }
            )
        );
        let io = error.downcast_ref::<io::Error>();
        if ours || io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

// === Stream ===

trait Io: Read + Write + Send + Sync + Unpin {}
impl<T: Read + Write + Send + Sync + Unpin> Io for T {}
type BoxIo = Box<dyn Io>;

/// A connection as the pool sees it.
pub(super) struct Stream {
    io: BoxIo,
    http2: bool,
    absolute_form: bool,
    /// Given back when the connection closes.
    permit: Option<OwnedSemaphorePermit>,
}

impl Stream {
    /// Whether a request's target is the whole URL, since a proxy takes it.
    pub(super) fn is_absolute_form(&self) -> bool {
        self.absolute_form
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.absolute_form);
        match self.http2 {
            true => connected.negotiated_h2(),
            false => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
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

/// Hands an already open connection to a proxy handshake, which wants to be given a dialer.
struct ReadyIo(Option<BoxIo>);

impl Service<Uri> for ReadyIo {
    type Response = BoxIo;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<BoxIo>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let taken = self.0.take();
        std::future::ready(taken.ok_or_else(|| io::Error::other("connection already used")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_connections_are_forgotten_at_the_limit() {
        let counts = ConnectionCounts::default();
        let one = NonZeroUsize::MIN;
        let held = counts.of(&Uri::from_static("http://held"), one);
        let _permit = Arc::clone(&held).try_acquire_owned().unwrap();
        for i in 0..3 * COUNTED_HOSTS_MAX {
            counts.of(&format!("http://host-{i}").parse().unwrap(), one);
        }
        assert!(counts.0.lock().unwrap().len() <= COUNTED_HOSTS_MAX);
        assert!(Arc::ptr_eq(
            &held,
            &counts.of(&Uri::from_static("http://held"), one)
        ));
    }
}
