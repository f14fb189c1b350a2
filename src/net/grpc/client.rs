//! A small client, for a person at a terminal: one connection, calls one after another.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version, header};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::call::{compress_status, frame_status};
use super::compress::{ACCEPTED, Compressor, Encoding, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};
use super::deadline::{GRPC_TIMEOUT, timeout_text};
use super::frame::{FrameReader, PREFIX_BYTES, begin_prefix, finish_prefix};
use super::outbound::CONTENT_TYPE_GRPC;
use super::status::{Code, Status};
use crate::net::TlsClient;

/// How long reaching the server may take, TLS and HTTP/2 included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a server may send of one answer before it is read, and of all answers.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// The largest list of headers or trailers of an answer.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// A connection to a gRPC server. Closed when dropped; answers under way end then.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Bytes>,
    scheme: &'static str,
    authority: String,
    /// Drives the connection; aborted by drop.
    _driver: JoinSet<()>,
}

/// How a call is made.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// Headers of one's own.
    pub metadata: HeaderMap,
    /// How long the whole call may take.
    pub timeout: Option<Duration>,
    /// The longest message to accept, as sent and as decoded.
    pub message_bytes_max: usize,
    /// How the request is encoded.
    pub encoding: Encoding,
}

/// The messages of an answer. Dropping it cancels the call.
pub struct Responses {
    body: RecvStream,
    /// Kept so that the request is not reset before the answer has ended.
    _request: SendStream<Bytes>,
    frames: FrameReader,
    encoding: Encoding,
    message_bytes_max: usize,
    deadline: Option<Instant>,
    /// The status where the answer has nothing but headers.
    headers_alone: Option<Status>,
}

/// Why a server can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address can't be resolved, or no one listens there.
    #[error("connecting to {address}")]
    Connect {
        /// As given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The address bears no name that TLS can verify.
    #[error("{address} names no host that TLS can verify")]
    Name {
        /// As given.
        address: String,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address}")]
    Tls {
        /// As given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The peer does not speak HTTP/2.
    #[error("HTTP/2 handshake with {address}")]
    Handshake {
        /// As given.
        address: String,
        /// Why.
        source: h2::Error,
    },
    /// It took longer than [`CONNECT_TIMEOUT`].
    #[error("reaching {address} took longer than {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// As given.
        address: String,
    },
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            metadata: HeaderMap::new(),
            timeout: None,
            message_bytes_max: 64 << 20,
            encoding: Encoding::Identity,
        }
    }
}

// === impl Client ===

impl Client {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(address: &str, tls: Option<TlsClient>) -> Result<Self, ConnectError> {
        let connecting = Self::reach(address, tls);
        let reached = timeout(CONNECT_TIMEOUT, connecting).await;
        reached.unwrap_or_else(|_| {
            Err(ConnectError::Timeout {
                address: address.to_owned(),
            })
        })
    }

    async fn reach(address: &str, tls: Option<TlsClient>) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Connect {
            address: address.to_owned(),
            source,
        };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = tls.map(TlsClient::http2_only) else {
            return Self::handshake(address, "http", stream).await;
        };
        let name = match tls.server_name {
            Some(name) => name,
            None => server_name(address).ok_or_else(|| ConnectError::Name {
                address: address.to_owned(),
            })?,
        };
        let connector = TlsConnector::from(tls.config);
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|source| ConnectError::Tls {
            address: address.to_owned(),
            source,
        })?;
        Self::handshake(address, "https", stream).await
    }

    async fn handshake<T>(address: &str, scheme: &'static str, io: T) -> Result<Self, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .enable_push(false);
        let (sender, connection) =
            builder
                .handshake(io)
                .await
                .map_err(|source| ConnectError::Handshake {
                    address: address.to_owned(),
                    source,
                })?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(err = %error, "connection ended early");
            }
        });
        Ok(Self {
            sender,
            scheme,
            authority: address.to_owned(),
            _driver: driver,
        })
    }

    /// Calls a method that answers with one message.
    ///
    /// # Errors
    /// The status that the call ended with, or one that says what went wrong on the way.
    pub async fn unary(
        &self,
        path: &str,
        message: &[u8],
        options: CallOptions,
    ) -> Result<Bytes, Status> {
        let mut responses = self.server_streaming(path, message, options).await?;
        let message = responses.message().await?;
        let message =
            message.ok_or_else(|| Status::new(Code::Internal, "answer without a message"))?;
        match responses.message().await? {
            None => Ok(message),
            Some(_) => Err(Status::new(
                Code::Internal,
                "more than one message in an answer",
            )),
        }
    }

    /// Calls a method that answers with any number of messages.
    ///
    /// # Errors
    /// As [`Client::unary`].
    pub async fn server_streaming(
        &self,
        path: &str,
        message: &[u8],
        options: CallOptions,
    ) -> Result<Responses, Status> {
        let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
        let calling = self.begin(path, message, options, deadline);
        within(deadline, calling).await
    }

    async fn begin(
        &self,
        path: &str,
        message: &[u8],
        options: CallOptions,
        deadline: Option<Instant>,
    ) -> Result<Responses, Status> {
        let body = framed(message, options.encoding)?;
        let message_bytes_max = options.message_bytes_max;
        let request = self.request(path, options)?;
        let mut sender = self.sender.clone().ready().await.map_err(transport)?;
        let (answer, mut stream) = sender.send_request(request, false).map_err(transport)?;
        send(&mut stream, body).await?;
        let (parts, body) = answer.await.map_err(transport)?.into_parts();
        let encoding = response_encoding(&parts)?;
        let headers_alone = Status::read(&parts.headers);
        Ok(Responses {
            body,
            _request: stream,
            frames: FrameReader::new(message_bytes_max),
            encoding,
            message_bytes_max,
            deadline,
            headers_alone,
        })
    }

    fn request(&self, path: &str, options: CallOptions) -> Result<Request<()>, Status> {
        let malformed = |_| Status::new(Code::Internal, format!("{path} is no method's path"));
        let uri = Uri::builder()
            .scheme(self.scheme)
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(malformed)?;
        let mut request = Request::post(uri).version(Version::HTTP_2).body(());
        if let Ok(request) = &mut request {
            let headers = request.headers_mut();
            *headers = options.metadata;
            headers.insert(header::CONTENT_TYPE, CONTENT_TYPE_GRPC);
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
            if options.encoding != Encoding::Identity {
                let name = HeaderValue::from_static(options.encoding.name());
                headers.insert(GRPC_ENCODING, name);
            }
            if let Some(Ok(text)) = options
                .timeout
                .map(|timeout| HeaderValue::try_from(timeout_text(timeout)))
            {
                headers.insert(GRPC_TIMEOUT, text);
            }
        }
        request.map_err(malformed)
    }
}

// === impl Responses ===

impl Responses {
    /// The next message; `None` once the call has ended well. What has been read is given back to
    /// the server's window, so that it sends no faster than this is called.
    ///
    /// # Errors
    /// The status that the call ended with, or one that says what went wrong on the way.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        within(self.deadline, self.next()).await
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(frame_status)? {
                let limit = self.message_bytes_max;
                return match frame.compressed {
                    false => Ok(Some(frame.payload)),
                    true => match self.encoding.decode(&frame.payload, limit) {
                        Ok(message) => Ok(Some(message)),
                        Err(error) => Err(compress_status(&error)),
                    },
                };
            }
            match self.body.data().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(transport)?;
                    let flow = self.body.flow_control();
                    flow.release_capacity(chunk.len()).map_err(transport)?;
                    self.frames.push(chunk);
                }
                None => return self.end().await,
            }
        }
    }

    async fn end(&mut self) -> Result<Option<Bytes>, Status> {
        let trailers = self.body.trailers().await.map_err(transport)?;
        let status = trailers.as_ref().and_then(Status::read);
        let status = status.or_else(|| self.headers_alone.take());
        match status {
            Some(status) if status.code != Code::Ok => Err(status),
            Some(_) if self.frames.is_at_boundary() => Ok(None),
            Some(_) => Err(Status::new(
                Code::Internal,
                "the answer ends inside a message",
            )),
            None => Err(Status::new(
                Code::Internal,
                "the answer ends without a status",
            )),
        }
    }
}

impl std::fmt::Debug for Responses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responses").finish_non_exhaustive()
    }
}

async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => work.await,
        Some(deadline) => timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(Status::new(
                Code::DeadlineExceeded,
                "no answer within the timeout",
            ))
        }),
    }
}

fn server_name(address: &str) -> Option<ServerName<'static>> {
    let (host, _port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).ok()
}

fn framed(message: &[u8], encoding: Encoding) -> Result<Bytes, Status> {
    let mut compressor = Compressor::new(encoding);
    let mut out = BytesMut::with_capacity(message.len().saturating_add(PREFIX_BYTES));
    let start = begin_prefix(&mut out);
    let is_encoded = encoding != Encoding::Identity;
    compressor
        .encode(message, &mut out)
        .map_err(|error| compress_status(&error))?;
    finish_prefix(&mut out, start, is_encoded)
        .ok_or_else(|| Status::new(Code::ResourceExhausted, "message is longer than 4 GiB"))?;
    Ok(out.freeze())
}

async fn send(stream: &mut SendStream<Bytes>, mut body: Bytes) -> Result<(), Status> {
    loop {
        stream.reserve_capacity(body.len());
        let room = stream.capacity();
        if room >= body.len() {
            return stream.send_data(body, true).map_err(transport);
        }
        if room > 0 {
            stream
                .send_data(body.split_to(room), false)
                .map_err(transport)?;
            continue;
        }
        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(transport(error)),
            // The server has answered without reading all of the request.
            None => return Ok(()),
        }
    }
}

/// The encoding of an answer that is gRPC; else the status that its headers amount to.
fn response_encoding(parts: &http::response::Parts) -> Result<Encoding, Status> {
    if let Some(status) = Status::read(&parts.headers).filter(|s| s.code != Code::Ok) {
        return Err(status);
    }
    if parts.status != StatusCode::OK {
        let code = match parts.status {
            StatusCode::BAD_REQUEST => Code::Internal,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::Unimplemented,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
            _ => Code::Unknown,
        };
        return Err(Status::new(
            code,
            format!("the server answered {}", parts.status),
        ));
    }
    let encoding = parts.headers.get(GRPC_ENCODING);
    let token = encoding.map_or(&b""[..], HeaderValue::as_bytes);
    Encoding::parse(token).ok_or_else(|| {
        let message = format!("the server answered in encoding {encoding:?}");
        Status::new(Code::Internal, message)
    })
}

fn transport(error: h2::Error) -> Status {
    let code = match error.reason() {
        Some(h2::Reason::CANCEL) => Code::Canceled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}
