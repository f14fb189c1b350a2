//! TLS for incoming connections, in the words of the `--grpc-server-tls-*` flags, which are Go's.
//!
//! Every value that Go knows is accepted. What the TLS library lacks is left out with a warning;
//! it is an error where nothing would be left. Certificate, key and client CA are read again once
//! the files have changed.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_verify::ClientVerifier;
use super::{PemSource, TlsError, certified_key, log_unusable, provider, setup};
use crate::lifecycle::{ReadFiles, Reloading};

pub(super) static TLS13_ALONE: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
pub(super) const ALPN_HTTP2: &[u8] = b"h2";

/// Go's cipher suites that count as secure, and the same here where there is one. Those of TLS 1.3
/// are always on, as in Go, where they can't be chosen.
pub(super) const CIPHERS: [(&str, Option<CipherSuite>); 13] = [
    (
        "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256),
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384),
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
];

/// Go's curves, and the same here where there is one.
pub(super) const CURVES: [(&str, Option<&dyn SupportedKxGroup>); 7] = [
    ("CurveP256", Some(kx_group::SECP256R1)),
    ("CurveP384", Some(kx_group::SECP384R1)),
    ("CurveP521", None),
    ("X25519", Some(kx_group::X25519)),
    ("X25519MLKEM768", Some(kx_group::X25519MLKEM768)),
    ("SecP256r1MLKEM768", Some(kx_group::SECP256R1MLKEM768)),
    ("SecP384r1MLKEM1024", None),
];

/// The values of `--grpc-server-tls-*`. All empty: no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM file of our certificate chain; goes with `key`.
    pub cert: Option<PathBuf>,
    /// PEM file of our private key; goes with `cert`.
    pub key: Option<PathBuf>,
    /// PEM file of the roots that a client's certificate must be signed by; without it clients
    /// need none.
    pub client_ca: Option<PathBuf>,
    /// The oldest version to speak.
    pub min_version: TlsVersion,
    /// Go's names, each entry one or several with commas; empty for all.
    pub ciphers: Vec<String>,
    /// Go's names, each entry one or several with commas; empty for the library's choice.
    pub curves: Vec<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.0; acts as 1.2.
    Tls10,
    /// 1.1; acts as 1.2.
    Tls11,
    /// 1.2.
    Tls12,
    /// 1.3.
    #[default]
    Tls13,
}

/// What was asked for and is done otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsWarning {
    /// A version that the library does not speak any more.
    Version {
        /// As asked.
        asked: TlsVersion,
    },
    /// A cipher suite that the library does not have.
    Cipher {
        /// Go's name.
        name: String,
    },
    /// A curve that the library does not have.
    Curve {
        /// Go's name.
        name: String,
    },
}

/// A ready server side of TLS; cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsServer {
    config: Arc<Reloading<ServerConfig, TlsError>>,
    warnings: Arc<[TlsWarning]>,
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads the files and builds the server side, which speaks HTTP/2 and nothing else; `None`
    /// where no file is named.
    ///
    /// # Errors
    /// See [`TlsError`]; the file or value at fault is named.
    pub fn build(&self) -> Result<Option<TlsServer>, TlsError> {
        let (cert, key) = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) if self.client_ca.is_some() => return Err(TlsError::ClientCaAlone),
            (None, None) => return Ok(None),
            _ => return Err(TlsError::HalfServerIdentity),
        };
        let mut warnings = Vec::new();
        let versions = self.versions(&mut warnings);
        let provider = Arc::new(CryptoProvider {
            cipher_suites: self.cipher_suites(&mut warnings)?,
            kx_groups: self.kx_groups(&mut warnings)?,
            ..provider()
        });
        let (cert, key) = (PemSource::File(cert), PemSource::File(key));
        let client_ca = self.client_ca.clone().map(PemSource::File);
        // The whole configuration is made anew: no session of an old one lives on.
        let load = move |files: &mut ReadFiles| {
            let sources = [Some(&cert), Some(&key), client_ca.as_ref()];
            files.add_all(sources.into_iter().flatten().filter_map(PemSource::file));
            let verifier = match &client_ca {
                None => None,
                Some(ca) => Some(ClientVerifier::signed_by(ca, &provider)?),
            };
            let mut config = server_config(&provider, versions, (&cert, &key), verifier)?;
            config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
            Ok(config)
        };
        let config = Reloading::new(load, log_unusable)?;
        Ok(Some(TlsServer {
            config: Arc::new(config),
            warnings: warnings.into(),
        }))
    }

    fn versions(
        &self,
        warnings: &mut Vec<TlsWarning>,
    ) -> &'static [&'static SupportedProtocolVersion] {
        if matches!(self.min_version, TlsVersion::Tls10 | TlsVersion::Tls11) {
            let asked = self.min_version;
            warnings.push(TlsWarning::Version { asked });
        }
        match self.min_version {
            TlsVersion::Tls13 => &TLS13_ALONE,
            _ => rustls::ALL_VERSIONS,
        }
    }

    fn cipher_suites(
        &self,
        warnings: &mut Vec<TlsWarning>,
    ) -> Result<Vec<SupportedCipherSuite>, TlsError> {
        let all = provider().cipher_suites;
        let asked = named(&self.ciphers);
        if asked.is_empty() {
            return Ok(all);
        }
        let mut chosen: Vec<CipherSuite> = Vec::new();
        for name in &asked {
            match lookup(&CIPHERS, name) {
                Some((_, Some(suite))) => chosen.push(*suite),
                Some((name, None)) => warnings.push(TlsWarning::Cipher {
                    name: (*name).to_owned(),
                }),
                None => {
                    return Err(TlsError::UnknownCipher {
                        name: (*name).to_owned(),
                        allowed: names(&CIPHERS),
                    });
                }
            }
        }
        if chosen.is_empty() {
            return Err(TlsError::NoCipherLeft);
        }
        debug_assert!(
            chosen
                .iter()
                .all(|c| ALL_CIPHER_SUITES.iter().any(|s| s.suite() == *c))
        );
        let is_on = |s: &SupportedCipherSuite| s.tls13().is_some() || chosen.contains(&s.suite());
        Ok(all.into_iter().filter(is_on).collect())
    }

    fn kx_groups(
        &self,
        warnings: &mut Vec<TlsWarning>,
    ) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsError> {
        let asked = named(&self.curves);
        if asked.is_empty() {
            return Ok(provider().kx_groups);
        }
        let mut chosen: Vec<&'static dyn SupportedKxGroup> = Vec::new();
        for name in &asked {
            match lookup(&CURVES, name) {
                Some((_, Some(group))) => chosen.push(*group),
                Some((name, None)) => warnings.push(TlsWarning::Curve {
                    name: (*name).to_owned(),
                }),
                None => {
                    return Err(TlsError::UnknownCurve {
                        name: (*name).to_owned(),
                        allowed: names(&CURVES),
                    });
                }
            }
        }
        match chosen.is_empty() {
            true => Err(TlsError::NoCurveLeft),
            false => Ok(chosen),
        }
    }
}

/// The names in a list of flags, each of which may hold several with commas.
fn named(flags: &[String]) -> Vec<&str> {
    let names = flags.iter().flat_map(|flag| flag.split(','));
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

pub(super) fn lookup<'a, T>(
    table: &'a [(&'static str, T)],
    name: &str,
) -> Option<&'a (&'static str, T)> {
    table.iter().find(|(known, _)| *known == name)
}

pub(super) fn names<T>(table: &[(&'static str, T)]) -> String {
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// A server's side that speaks `versions`. Its protocols (ALPN) are still to be set.
pub(super) fn server_config(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    (cert, key): (&PemSource, &PemSource),
    verifier: Option<ClientVerifier>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(setup)?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
    };
    let identity = certified_key(cert, key, provider)?;
    let resolver = rustls::sign::SingleCertAndKey::from(identity);
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    // Connections live for long; a resumed session would outlive the certificate of its client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

// === impl TlsServer ===

impl TlsServer {
    /// What was asked for and is done otherwise.
    pub fn warnings(&self) -> &[TlsWarning] {
        &self.warnings
    }

    /// The handshake, with the files as they are now.
    pub(in crate::net) async fn accept<T>(&self, io: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.config.current()).accept(io).await?;
        match stream.get_ref().1.alpn_protocol() {
            Some(ALPN_HTTP2) => Ok(stream),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer did not choose HTTP/2 by ALPN",
            )),
        }
    }
}

// === impl TlsVersion ===

impl TlsVersion {
    /// The version of a flag's value: `1.0` to `1.3`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "1.0" => Some(Self::Tls10),
            "1.1" => Some(Self::Tls11),
            "1.2" => Some(Self::Tls12),
            "1.3" => Some(Self::Tls13),
            _ => None,
        }
    }

    /// As in the flag.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls10 => "1.0",
            Self::Tls11 => "1.1",
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

// === impl TlsWarning ===

impl fmt::Display for TlsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { asked } => {
                write!(
                    f,
                    "TLS {} is not spoken, the oldest version is 1.2",
                    asked.name()
                )
            }
            Self::Cipher { name } => write!(f, "cipher suite {name} is not available, left out"),
            Self::Curve { name } => write!(f, "curve {name} is not available, left out"),
        }
    }
}

#[cfg(test)]
mod tests;
