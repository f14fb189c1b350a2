//! HTTP/1.1 exchanges whose body the caller reads straight from the connection, for answers of
//! hundreds of megabytes that come in pieces of two kilobytes.
//!
//! hyper's client hands each piece of a chunked body from its own task to the caller's: at 100,000
//! pieces a second those hand-overs cost more than all else that is done with the bytes. Here the
//! caller's task reads, the chunked coding is taken out in place, and reads are coalesced
//! ([`Coalesce`]). Connections come about as they do for [`super::HttpClient`]; dropping a body
//! before its end closes its connection at once. Nothing is followed or added but what HTTP needs.

mod body;
mod chunked;
mod head;
mod idle;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::PROXY_AUTHORIZATION;
use http::uri::{Scheme, Uri};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service as _;

use body::Connection;
pub use body::{Coalesce, DirectBody};
use head::{Framing, Head};
use idle::IdleConnections;

use super::client::ClientConfig;
use super::connect::{self, ConnectionCounts, Connector, Settings, Stream};
use super::error::{BoxError, HttpError};
use super::proxy::Proxy;

/// Response headers larger than this are an error.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// How long a peer may take for a request, the configured limit counting only from its last byte:
/// requests have a MiB or so, so this meets a process that stands still.
const REQUEST_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read at once while the header is awaited: with the first bytes of the body.
const HEADER_READ_BYTES: usize = 16 * 1024;

/// The client; cheap to clone, clones share their connections.
///
/// The limit on connections per host counts these apart from those of an [`super::HttpClient`],
/// so that neither waits for the other's unused ones.
#[derive(Clone, Debug)]
pub struct DirectClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    idle: Arc<IdleConnections>,
    response_header_timeout: Option<Duration>,
    proxy: Option<Proxy>,
    coalesce: Coalesce,
}

/// Why there is no response, and whether any byte of one came.
struct Failed {
    answer_began: bool,
    source: BoxError,
}

// === impl DirectClient ===

impl DirectClient {
    /// A client without open connections.
    pub fn new(config: ClientConfig, coalesce: Coalesce) -> Self {
        let mut tls = config.tls;
        let mut over_tls = (*tls.config).clone();
        over_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.config = Arc::new(over_tls);
        // One that is kept would hold the permit that the next request waits for.
        let idle_max = match config.connections_per_host_max {
            Some(_) => 0,
            None => config.idle_per_host_max,
        };
        Self(Arc::new(Inner {
            connector: Connector::new(Settings {
                tls,
                proxy: config.proxy.clone(),
                connect_timeout: config.connect_timeout,
                tls_handshake_timeout: config.tls_handshake_timeout,
                connections_per_host_max: config.connections_per_host_max,
                connections: ConnectionCounts::default(),
            }),
            idle: IdleConnections::new(idle_max, config.idle_timeout),
            response_header_timeout: config.response_header_timeout,
            proxy: config.proxy,
            coalesce,
        }))
    }

    /// Sends a request with an absolute URL; resolves at the response's header. Dropping the
    /// future, or the response's body, closes the connection.
    ///
    /// A request that met a kept connection which the peer had closed is sent once more, on a new
    /// one, so it must be one that may be repeated. No more often: it may be the request itself
    /// that makes the peer hang up.
    ///
    /// # Errors
    /// See [`HttpError`]. A status of 400 or above is a response, not an error.
    pub async fn send(&self, request: &Request<Bytes>) -> Result<Response<DirectBody>, HttpError> {
        let uri = request.uri();
        let authority = match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) => authority.to_string(),
            _ => return Err(HttpError::NotAbsolute { uri: uri.clone() }),
        };
        let origin = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        if let Some(connection) = self.0.idle.take(&origin) {
            match self
                .exchange(connection, request, &authority, &origin)
                .await?
            {
                Err(Failed {
                    answer_began: false,
                    ..
                }) => {}
                Err(Failed { source, .. }) => {
                    return Err(HttpError::Exchange { authority, source });
                }
                Ok(response) => return Ok(response),
            }
        }
        let connection = self.connect(uri, &authority).await?;
        match self
            .exchange(connection, request, &authority, &origin)
            .await?
        {
            Ok(response) => Ok(response),
            Err(Failed { source, .. }) => Err(HttpError::Exchange { authority, source }),
        }
    }

    async fn connect(&self, uri: &Uri, authority: &str) -> Result<Connection, HttpError> {
        let mut connector = self.0.connector.clone();
        match connect::with_connections(connector.call(uri.clone())).await {
            Ok(stream) => Ok(TokioIo::new(stream)),
            Err(error) => Err(HttpError::Connect {
                authority: authority.to_owned(),
                timed_out: connect::is_timeout(&error),
                source: error.into(),
            }),
        }
    }

    /// The inner error is one of this connection, the outer one final.
    async fn exchange(
        &self,
        mut connection: Connection,
        request: &Request<Bytes>,
        authority: &str,
        origin: &str,
    ) -> Result<Result<Response<DirectBody>, Failed>, HttpError> {
        let head = self.request_head(request, connection.inner());
        let writing = write_request(&mut connection, &head, request.body());
        let after = REQUEST_WRITE_TIMEOUT;
        let Ok(wrote) = tokio::time::timeout(after, writing).await else {
            let authority = authority.to_owned();
            return Err(HttpError::RequestTimeout { authority, after });
        };
        let after = self.0.response_header_timeout.unwrap_or(Duration::MAX);
        // Also where writing failed: the peer may have refused before it had read everything.
        let Ok(read) = tokio::time::timeout(after, read_head(&mut connection)).await else {
            let authority = authority.to_owned();
            return Err(HttpError::HeaderTimeout { authority, after });
        };
        let (head, rest) = match (read, wrote) {
            (Ok(read), _) => read,
            (Err(failed), Err(error)) if !failed.answer_began => {
                let source = error.into();
                return Ok(Err(Failed { source, ..failed }));
            }
            (Err(failed), _) => return Ok(Err(failed)),
        };
        let framing = match head.framing() {
            Ok(framing) => framing,
            Err(error) => {
                return Ok(Err(Failed {
                    answer_began: true,
                    source: error.into(),
                }));
            }
        };
        let keeper = (head.keeps_alive && !matches!(framing, Framing::UntilClose))
            .then(|| (Arc::clone(&self.0.idle), origin.to_owned()));
        let body = DirectBody::new(connection, framing, rest, keeper, self.0.coalesce);
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(Ok(response))
    }

    fn request_head(&self, request: &Request<Bytes>, stream: &Stream) -> Vec<u8> {
        let uri = request.uri();
        let absolute_form = stream.is_absolute_form();
        let mut out = head::request(request, absolute_form);
        let proxy = self.0.proxy.as_ref().filter(|_| absolute_form);
        if uri.scheme() == Some(&Scheme::HTTP)
            && let Some(server) = proxy.and_then(|proxy| proxy.server(uri))
            && let Some(value) = server.authorization()
        {
            head::put_header(&mut out, PROXY_AUTHORIZATION.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

async fn write_request(connection: &mut Connection, head: &[u8], body: &[u8]) -> io::Result<()> {
    connection.write_all(head).await?;
    connection.write_all(body).await?;
    connection.flush().await
}

/// The response's header, and what of the body came with it. Interim responses are passed over.
async fn read_head(connection: &mut Connection) -> Result<(Head, BytesMut), Failed> {
    let mut received = BytesMut::new();
    let mut header_bytes = 0_usize;
    let failed = |answer_began, source: BoxError| Failed {
        answer_began,
        source,
    };
    loop {
        match Head::split_from(&mut received) {
            Ok(Some(head)) if head.is_interim() => continue,
            Ok(Some(head)) => return Ok((head, received)),
            Ok(None) => {}
            Err(error) => return Err(failed(true, error.into())),
        }
        if header_bytes > HEADER_BYTES_MAX {
            return Err(failed(true, head::HeadError::TooLarge.into()));
        }
        received.reserve(HEADER_READ_BYTES);
        match connection.read_buf(&mut received).await {
            Ok(0) => {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(failed(header_bytes > 0, error.into()));
            }
            Ok(read) => header_bytes = header_bytes.saturating_add(read),
            Err(error) => return Err(failed(header_bytes > 0, error.into())),
        }
    }
}

#[cfg(test)]
mod tests;
