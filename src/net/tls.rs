//! TLS from plain values. For outgoing connections: which roots to trust, who we are, what name
//! the peer must bear. For incoming ones see `server`.
//!
//! Files are read when the client is built, so that a wrong path fails the start, and again at a
//! handshake once they have changed, because certificates are renewed under a running process.
//! A file that is broken by then leaves the last good one in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, pem as pem_format};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureScheme};

mod client_verify;
mod https;
mod pem;
mod san;
mod server;
mod verify;

pub use https::{ClientAuth, HttpsAcceptor, HttpsTls, TlsCipher, TlsCurve};
pub use pem::PemSource;
use pem::certified_key;
pub use server::{ServerTls, TlsServer, TlsVersion, TlsWarning};
use verify::{NamedRoots, ServerVerifier, Trust};

use crate::lifecycle::{ReadFiles, Reloading};

/// How to verify a server and how to present ourselves. All empty: native roots, no client
/// certificate, the name of the URL's host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM file of the roots to trust instead of the native ones.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate chain; goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of our private key; goes with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name to verify and to ask for (SNI) instead of the URL's host.
    pub server_name: Option<String>,
    /// Accept any certificate under any name.
    pub insecure_skip_verify: bool,
}

/// A ready client side of TLS; cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsClient {
    pub(in crate::net) config: Arc<rustls::ClientConfig>,
    pub(in crate::net) server_name: Option<ServerName<'static>>,
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file, or a text of a document, is not PEM.
    #[error("{} is not PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem_format::Error,
    },
    /// A file, or a text of a document, holds nothing of the kind wanted.
    #[error("{} holds no usable {wanted}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Certificate and key don't fit together or are of an unknown kind.
    #[error("certificate {} and key {} can't be used", cert.display(), key.display())]
    Identity {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// One of certificate and key is given without the other.
    #[error("a client certificate needs both cert_file and key_file, {missing} is missing")]
    HalfIdentity {
        /// The one that is missing.
        missing: &'static str,
    },
    /// One of a server's certificate and key is given without the other.
    #[error("both server key and certificate must be provided")]
    HalfServerIdentity,
    /// A client CA is given for a server that has no certificate.
    #[error("when a client CA is used a server key and certificate must also be provided")]
    ClientCaAlone,
    /// A cipher suite that the TLS library lacks, where none may be left out.
    #[error("cipher suite {name} is not available here, take it out of the list")]
    LackingCipher {
        /// As given.
        name: String,
    },
    /// A curve that the TLS library lacks, where none may be left out.
    #[error("curve {name} is not available here, take it out of the list")]
    LackingCurve {
        /// As given.
        name: String,
    },
    /// A cipher suite that Go does not know, or does not count as secure.
    #[error("invalid cipher suite: {name}, valid values are {allowed}")]
    UnknownCipher {
        /// As given.
        name: String,
        /// What may stand there.
        allowed: String,
    },
    /// All cipher suites asked for are ones that the TLS library lacks.
    #[error("none of the cipher suites asked for is available")]
    NoCipherLeft,
    /// A curve that Go does not know.
    #[error("invalid curve: {name}, valid values are {allowed}")]
    UnknownCurve {
        /// As given.
        name: String,
        /// What may stand there.
        allowed: String,
    },
    /// All curves asked for are ones that the TLS library lacks.
    #[error("none of the curves asked for is available")]
    NoCurveLeft,
    /// The server name is neither a DNS name nor an IP address.
    #[error("server name `{name}` is neither a DNS name nor an IP address")]
    ServerName {
        /// As given.
        name: String,
    },
    /// The roots or protocol versions were refused.
    #[error("setting up TLS")]
    Setup {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system has no root certificates.
    #[error("no root certificates were found on this system; name a CA file")]
    NoNativeRoots,
}

// === impl TlsClient ===

impl TlsClient {
    /// The same without HTTP/2 in its offer, for peers and loads that want HTTP/1.1.
    #[must_use]
    pub fn http1_only(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![b"http/1.1".to_vec()];
        self
    }

    /// The same with nothing but HTTP/2 in its offer, which is what gRPC speaks.
    #[must_use]
    pub fn http2_only(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![b"h2".to_vec()];
        self
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// The files that [`Self::build`] reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Reads the files and builds the client side, which offers HTTP/2 and HTTP/1.1 by ALPN.
    /// Native roots are only read at the first handshake.
    ///
    /// # Errors
    /// See [`TlsError`]; the file at fault is named.
    pub fn build(&self) -> Result<TlsClient, TlsError> {
        let provider = Arc::new(provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(&provider)?);
        let mut config = match self.identity(&provider)? {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let server_name = self.server_name.as_deref().filter(|name| !name.is_empty());
        Ok(TlsClient {
            config: Arc::new(config),
            server_name: server_name.map(parse_server_name).transpose()?,
        })
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let trust = match &self.ca_file {
            _ if self.insecure_skip_verify => Trust::Anyone,
            None => Trust::Native(OnceLock::new()),
            Some(path) => {
                let provider = Arc::clone(provider);
                let ca = PemSource::File(path.clone());
                let load = move |files: &mut ReadFiles| {
                    files.add_all(ca.file());
                    NamedRoots::read(&ca, &provider)
                };
                Trust::File(Reloading::new(load, log_unusable)?)
            }
        };
        Ok(Arc::new(ServerVerifier {
            trust,
            provider: Arc::clone(provider),
        }))
    }

    fn identity(&self, provider: &Arc<CryptoProvider>) -> Result<Option<Identity>, TlsError> {
        let (cert, key) = match (&self.cert_file, &self.key_file) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (Some(_), None) => {
                return Err(TlsError::HalfIdentity {
                    missing: "key_file",
                });
            }
            (None, Some(_)) => {
                return Err(TlsError::HalfIdentity {
                    missing: "cert_file",
                });
            }
        };
        let provider = Arc::clone(provider);
        let (cert, key) = (PemSource::File(cert), PemSource::File(key));
        let load = move |files: &mut ReadFiles| {
            files.add_all([&cert, &key].into_iter().filter_map(|pem| pem.file()));
            certified_key(&cert, &key, &provider)
        };
        Ok(Some(Identity(Reloading::new(load, log_unusable)?)))
    }
}

/// aws-lc-rs with AES-128-GCM in front: the cheapest suite on hardware with AES instructions, and
/// 128 bits are enough; the server may still choose otherwise.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let aes_128 = matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        );
        (suite.tls13().is_none(), !aes_128)
    });
    provider
}

fn setup(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Setup {
        source: source.into(),
    }
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName {
        name: name.to_owned(),
    })
}

/// Files that were fine at the start and are not any more: whoever renews them must know.
fn log_unusable(error: &TlsError) {
    tracing::warn!(
        err = %error,
        cause = ?std::error::Error::source(error),
        "changed TLS files can't be used, keeping what was read before"
    );
}

// === Identity ===

/// Our certificate and key, as they are on disk at the handshake.
#[derive(Debug)]
struct Identity(Reloading<CertifiedKey, TlsError>);

impl rustls::client::ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
