//! One batch to the collector, over gRPC or HTTP.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::time::timeout;

use super::config::{Destination, Protocol};
use super::error::{SendError, TracingConfigError};
use crate::net::grpc::{CallOptions, Client, Encoding};
use crate::net::http::{BodyLimit, ClientConfig, HttpClient, Proxy, full_body};
use crate::net::{ClientTls, TlsClient};

/// OTLP's method for spans.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A collector's answer is empty, or says how many spans it refused and why.
const ANSWER_MAX: BodyLimit = BodyLimit {
    name: "ANSWER_MAX",
    bytes: 64 << 10,
};
/// How much of a refusal is told.
const TEXT_BYTES_MAX: usize = 512;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// The longest that a collector's wish to be left alone is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Sends batches to one collector, one at a time.
#[derive(Debug)]
pub(super) struct Carrier {
    way: Way,
    headers: HeaderMap,
    is_compressed: bool,
    timeout: Duration,
}

#[derive(Debug)]
enum Way {
    Grpc {
        address: String,
        tls: Option<TlsClient>,
        /// Made when it is needed, and again after a failure.
        connection: Option<Client>,
    },
    Http {
        client: Box<HttpClient>,
        url: Uri,
    },
}

impl Carrier {
    /// Reads the TLS files; nothing is sent yet. HTTP goes through `proxy`.
    pub(super) fn new(
        destination: &Destination,
        proxy: Option<Proxy>,
    ) -> Result<Self, TracingConfigError> {
        let tls = destination.tls.as_ref().map(ClientTls::build).transpose();
        let tls = tls.map_err(|source| TracingConfigError::Tls { source })?;
        let way = match &destination.protocol {
            Protocol::Grpc => Way::Grpc {
                address: destination.address.clone(),
                tls,
                connection: None,
            },
            Protocol::Http { url } => Way::Http {
                client: Box::new(http_client(destination, tls, proxy)?),
                url: url.clone(),
            },
        };
        Ok(Self {
            way,
            headers: destination.headers.clone(),
            is_compressed: destination.is_compressed,
            timeout: destination.timeout,
        })
    }

    /// Sends one batch; what the collector refused of it.
    pub(super) async fn send(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<Option<ExportTracePartialSuccess>, SendError> {
        let limit = self.timeout;
        let body = request.encode_to_vec();
        let sent = timeout(limit, self.exchange(body)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            failed => {
                if let Way::Grpc { connection, .. } = &mut self.way {
                    // Its state is not known; the next batch finds out where there is a collector.
                    *connection = None;
                }
                return match failed {
                    Ok(Err(error)) => Err(error),
                    _ => Err(SendError::Timeout(limit)),
                };
            }
        };
        // The spans have been taken; an answer that can't be read changes nothing about that.
        let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success;
        Ok(partial.filter(|p| p.rejected_spans > 0 || !p.error_message.is_empty()))
    }

    async fn exchange(&mut self, body: Vec<u8>) -> Result<Bytes, SendError> {
        let (headers, is_compressed) = (self.headers.clone(), self.is_compressed);
        match &mut self.way {
            Way::Grpc {
                address,
                tls,
                connection,
            } => {
                let connection = match connection {
                    Some(connection) => connection,
                    None => connection.insert(Client::connect(address, tls.clone()).await?),
                };
                let options = CallOptions {
                    metadata: headers,
                    timeout: Some(self.timeout),
                    message_bytes_max: ANSWER_MAX.bytes,
                    encoding: match is_compressed {
                        true => Encoding::Gzip,
                        false => Encoding::Identity,
                    },
                };
                let answer = connection.unary(EXPORT, &body, options).await;
                answer.map_err(SendError::Status)
            }
            Way::Http { client, url } => post(client, url, headers, body, is_compressed).await,
        }
    }
}

fn http_client(
    destination: &Destination,
    tls: Option<TlsClient>,
    proxy: Option<Proxy>,
) -> Result<HttpClient, TracingConfigError> {
    let tls = match tls {
        Some(tls) => tls,
        // The URL's scheme decides; there has to be one.
        None => ClientTls::default()
            .build()
            .map_err(|source| TracingConfigError::Tls { source })?,
    };
    Ok(HttpClient::new(ClientConfig {
        tls: tls.http1_only(),
        proxy,
        connect_timeout: Some(CONNECT_TIMEOUT),
        tls_handshake_timeout: Some(CONNECT_TIMEOUT),
        response_header_timeout: Some(destination.timeout),
        idle_timeout: Some(IDLE_TIMEOUT),
        idle_per_host_max: 1,
        connections_per_host_max: None,
    }))
}

async fn post(
    client: &HttpClient,
    url: &Uri,
    headers: HeaderMap,
    body: Vec<u8>,
    is_compressed: bool,
) -> Result<Bytes, SendError> {
    let body = match is_compressed {
        true => compressed(&body)?,
        false => body,
    };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url.clone())
        .body(full_body(body))?;
    *request.headers_mut() = headers;
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    request.headers_mut().insert(header::CONTENT_TYPE, protobuf);
    if is_compressed {
        let gzip = HeaderValue::from_static("gzip");
        request.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    }
    let response = client.send(request).await?;
    let (parts, body) = response.into_parts();
    let answer = body.read(ANSWER_MAX).await;
    if parts.status.is_success() {
        return Ok(answer?);
    }
    let text = answer.unwrap_or_default();
    let text = text.get(..TEXT_BYTES_MAX).unwrap_or(&text);
    Err(SendError::Answer {
        status: parts.status,
        // Collectors answer in protobuf, whose texts are readable between the rest.
        text: String::from_utf8_lossy(text).replace(|c: char| c.is_control(), " "),
        retry_after: retry_after(&parts.headers),
    })
}

/// In seconds; the other form, a date, is not followed.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.trim().parse().ok()?);
    Some(wait.min(RETRY_AFTER_MAX))
}

fn compressed(body: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}
