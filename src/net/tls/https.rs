//! TLS of the HTTP server, in the words of a configuration document, which are Go's.
//!
//! Unlike with the flags of gRPC, nothing is left out: what the TLS library lacks is an error. The
//! files are read once; whoever follows them builds anew.

use std::io;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    CipherSuite, ProtocolVersion, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_verify::ClientVerifier;
use super::server::{ALPN_HTTP2, CIPHERS, CURVES, TlsVersion, lookup, names, server_config};
use super::{PemSource, TlsError, provider};

const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The server's side as a document wants it.
#[derive(Clone, Debug)]
pub struct HttpsTls {
    /// Our certificate chain.
    pub cert: PemSource,
    /// Our private key.
    pub key: PemSource,
    /// What clients must show.
    pub client_auth: ClientAuth,
    /// Whom a client's certificate must be signed by; `None` for the system's roots.
    pub client_ca: Option<PemSource>,
    /// One of these names must be in a client's certificate, to the letter.
    pub client_allowed_sans: Option<Vec<String>>,
    /// The oldest version to speak; what is older than 1.2 acts as 1.2.
    pub min_version: TlsVersion,
    /// The newest version to speak.
    pub max_version: TlsVersion,
    /// The cipher suites of TLS 1.2, the best first; empty for all.
    pub ciphers: Vec<TlsCipher>,
    /// The groups for the key exchange, the best first; empty for the library's choice.
    pub curves: Vec<TlsCurve>,
    /// Whether our order of cipher suites counts, or the client's.
    pub prefer_server_ciphers: bool,
    /// Whether HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
}

/// What clients must show, by Go's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    NoClientCert,
    /// They are asked for a certificate, and may show any or none.
    RequestClientCert,
    /// Any certificate.
    RequireAnyClientCert,
    /// They may show none; one that is shown must be signed as wanted.
    VerifyClientCertIfGiven,
    /// A certificate that is signed as wanted.
    RequireAndVerifyClientCert,
}

/// A cipher suite that Go and the TLS library both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsCipher(CipherSuite);

/// A group for the key exchange that Go and the TLS library both have.
#[derive(Clone, Copy, Debug)]
pub struct TlsCurve(&'static dyn SupportedKxGroup);

/// A ready server's side; cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpsAcceptor {
    config: Arc<ServerConfig>,
}

// === impl HttpsTls ===

impl HttpsTls {
    /// Reads the files and builds the server's side.
    ///
    /// # Errors
    /// See [`TlsError`]; the file at fault is named.
    pub fn build(&self) -> Result<HttpsAcceptor, TlsError> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: self.cipher_suites(),
            kx_groups: self.kx_groups(),
            ..provider()
        });
        let identity = (&self.cert, &self.key);
        let verifier = self.verifier(&provider)?;
        let mut config = server_config(&provider, &self.versions(), identity, verifier)?;
        config.ignore_client_order = self.prefer_server_ciphers;
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        if self.http2 {
            config.alpn_protocols.insert(0, ALPN_HTTP2.to_vec());
        }
        Ok(HttpsAcceptor {
            config: Arc::new(config),
        })
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Option<ClientVerifier>, TlsError> {
        let any = || Ok(ClientVerifier::any(provider));
        let signed = || match &self.client_ca {
            Some(ca) => ClientVerifier::signed_by(ca, provider),
            None => ClientVerifier::signed_by_system_root(provider),
        };
        let verifier = match self.client_auth {
            ClientAuth::NoClientCert => return Ok(None),
            ClientAuth::RequestClientCert => any()?.optional(),
            ClientAuth::RequireAnyClientCert => any()?,
            ClientAuth::VerifyClientCertIfGiven => signed()?.optional(),
            ClientAuth::RequireAndVerifyClientCert => signed()?,
        };
        Ok(Some(
            verifier.with_allowed_sans(self.client_allowed_sans.clone()),
        ))
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let is_spoken = |version: &&'static SupportedProtocolVersion| match version.version {
            ProtocolVersion::TLSv1_3 => self.max_version == TlsVersion::Tls13,
            _ => self.min_version != TlsVersion::Tls13,
        };
        rustls::ALL_VERSIONS
            .iter()
            .copied()
            .filter(is_spoken)
            .collect()
    }

    /// Those of TLS 1.3, which can't be chosen, and the chosen ones in their order.
    fn cipher_suites(&self) -> Vec<SupportedCipherSuite> {
        let all = provider().cipher_suites;
        if self.ciphers.is_empty() {
            return all;
        }
        let chosen = self.ciphers.iter().filter_map(|TlsCipher(cipher)| {
            let mut tls12 = all.iter().filter(|suite| suite.tls13().is_none());
            tls12.find(|suite| suite.suite() == *cipher).copied()
        });
        let tls13 = all.iter().filter(|suite| suite.tls13().is_some()).copied();
        tls13.chain(chosen).collect()
    }

    fn kx_groups(&self) -> Vec<&'static dyn SupportedKxGroup> {
        match self.curves.is_empty() {
            true => provider().kx_groups,
            false => self.curves.iter().map(|TlsCurve(group)| *group).collect(),
        }
    }
}

// === impl HttpsAcceptor ===

impl HttpsAcceptor {
    /// The handshake.
    pub(in crate::net) async fn accept<T>(&self, io: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(io).await
    }
}

// === impl ClientAuth ===

impl ClientAuth {
    /// Every value.
    pub const ALL: [Self; 5] = [
        Self::NoClientCert,
        Self::RequestClientCert,
        Self::RequireAnyClientCert,
        Self::VerifyClientCertIfGiven,
        Self::RequireAndVerifyClientCert,
    ];

    /// The value of a name. `RequireClientCert` is an old name for `RequireAnyClientCert`.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "RequireClientCert" {
            return Some(Self::RequireAnyClientCert);
        }
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// Go's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoClientCert => "NoClientCert",
            Self::RequestClientCert => "RequestClientCert",
            Self::RequireAnyClientCert => "RequireAnyClientCert",
            Self::VerifyClientCertIfGiven => "VerifyClientCertIfGiven",
            Self::RequireAndVerifyClientCert => "RequireAndVerifyClientCert",
        }
    }

    /// Whether a client without a certificate is turned away.
    pub const fn is_mandatory(self) -> bool {
        matches!(
            self,
            Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert
        )
    }

    /// Whether it matters who signed a certificate.
    pub const fn is_verified(self) -> bool {
        matches!(
            self,
            Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert
        )
    }
}

// === impl TlsCipher ===

impl TlsCipher {
    /// The suite of a name of Go's.
    ///
    /// # Errors
    /// Where Go does not know it, or does not count it as secure, or the library lacks it.
    pub fn parse(name: &str) -> Result<Self, TlsError> {
        let owned = || name.to_owned();
        match lookup(&CIPHERS, name) {
            Some((_, Some(suite))) => Ok(Self(*suite)),
            Some((_, None)) => Err(TlsError::LackingCipher { name: owned() }),
            None => Err(TlsError::UnknownCipher {
                name: owned(),
                allowed: names(&CIPHERS),
            }),
        }
    }
}

// === impl TlsCurve ===

impl TlsCurve {
    /// The group of a name of Go's.
    ///
    /// # Errors
    /// Where Go does not know it, or the library lacks it.
    pub fn parse(name: &str) -> Result<Self, TlsError> {
        let owned = || name.to_owned();
        match lookup(&CURVES, name) {
            Some((_, Some(group))) => Ok(Self(*group)),
            Some((_, None)) => Err(TlsError::LackingCurve { name: owned() }),
            None => Err(TlsError::UnknownCurve {
                name: owned(),
                allowed: names(&CURVES),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
