//! A request over TLS, by a client that shares nothing with the server under test.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Ca;
use super::ca::Signed;

/// A client that trusts one authority.
pub(crate) struct HttpsClient {
    root: CertificateDer<'static>,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    authorization: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The certificate that the server showed.
    pub(crate) shown: Option<CertificateDer<'static>>,
}

impl HttpsClient {
    pub(crate) fn new(trusted: &Ca) -> Self {
        Self {
            root: CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap(),
            identity: None,
            versions: rustls::ALL_VERSIONS.to_vec(),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            authorization: None,
        }
    }

    /// The same with a certificate to show.
    pub(crate) fn showing(&self, signed: &Signed) -> Self {
        let cert = CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
        Self {
            root: self.root.clone(),
            identity: Some((cert, key)),
            versions: self.versions.clone(),
            alpn: self.alpn.clone(),
            authorization: self.authorization.clone(),
        }
    }

    /// The same with user and password.
    pub(crate) fn with_password(mut self, user: &str, password: &str) -> Self {
        self.authorization = Some(basic(user, password));
        self
    }

    /// The same speaking nothing but this version of TLS.
    pub(crate) fn with_version(
        mut self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Self {
        self.versions = vec![version];
        self
    }

    /// `GET path` over a new connection; `Err` where there is none, or it ends without an answer.
    pub(crate) async fn get(&self, address: SocketAddr, path: &str) -> Result<Answer, String> {
        let stream = TcpStream::connect(address).await.map_err(text)?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(self.config()));
        let stream = connector.connect(name, stream).await.map_err(text)?;
        let connection = stream.get_ref().1;
        let shown = connection.peer_certificates().unwrap()[0].clone();
        let is_http2 = connection.alpn_protocol() == Some(b"h2");
        let authorization = self.authorization.as_deref();
        let mut answer = match is_http2 {
            true => http2(stream, address, path, authorization).await?,
            false => http1(stream, address, path, authorization).await?,
        };
        answer.shown = Some(shown.into_owned());
        Ok(answer)
    }

    fn config(&self) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(vec![cert.clone()], key.clone_key())
                .unwrap(),
        };
        config.alpn_protocols = self.alpn.clone();
        config
    }
}

/// `GET path` in plain text, with these credentials if any.
pub(crate) async fn get_plain(
    address: SocketAddr,
    path: &str,
    credentials: Option<(&str, &str)>,
) -> Result<Answer, String> {
    let stream = TcpStream::connect(address).await.map_err(text)?;
    let authorization = credentials.map(|(user, password)| basic(user, password));
    http1(stream, address, path, authorization.as_deref()).await
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let encoded = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    path: &str,
    authorization: Option<&str>,
) -> Result<Answer, String> {
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(text)?;
    let driving = tokio::spawn(connection);
    let request = request(path, authorization).header("host", address.to_string());
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(text)?;
    let answer = read(response).await;
    driving.abort();
    answer
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    path: &str,
    authorization: Option<&str>,
) -> Result<Answer, String> {
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.map_err(text)?;
    let driving = tokio::spawn(connection);
    let uri = format!("https://{address}{path}");
    let request = request(&uri, authorization);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(text)?;
    let answer = read(response).await;
    driving.abort();
    answer
}

fn request(uri: &str, authorization: Option<&str>) -> http::request::Builder {
    let request = Request::get(uri);
    match authorization {
        Some(value) => request.header("authorization", value),
        None => request,
    }
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(text)?.to_bytes();
    Ok(Answer {
        status: parts.status.as_u16(),
        version: parts.version,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        shown: None,
    })
}

fn text(error: impl std::error::Error) -> String {
    format!("{error:?}")
}
