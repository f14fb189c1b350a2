//! Who a server must be: signed by roots of a file, by the system's, or anyone.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::pem::PemSource;
use super::{TlsError, setup};
use crate::lifecycle::Reloading;

/// Whom a server's certificate must be signed by.
#[derive(Debug)]
pub(super) enum Trust {
    /// `insecure_skip_verify`: any certificate under any name.
    Anyone,
    /// The system's roots, read at the first handshake.
    Native(OnceLock<Arc<WebPkiServerVerifier>>),
    /// The roots of a CA file.
    File(Reloading<NamedRoots, TlsError>),
}

/// The roots of a CA file.
#[derive(Debug)]
pub(super) struct NamedRoots {
    verifier: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl NamedRoots {
    /// The certificates of a PEM file.
    pub(super) fn read(ca: &PemSource, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let named = ca.certificates()?;
        let verifier = webpki_verifier(named.clone(), provider)?;
        let verifier = verifier.ok_or_else(|| ca.empty("root certificate"))?;
        Ok(Self { verifier, named })
    }

    /// Like webpki, except that a server may present a named root itself. Self-signed certificates
    /// are usually made so, marked as an authority, and Go accepts them.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let outcome =
            self.verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match outcome {
            // webpki has checked the dates before it says this.
            Err(error) if is_authority_as_end_entity(&error) && self.named.contains(end_entity) => {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }
}

/// Whether the one thing wrong is that a certificate is marked as an authority.
pub(super) fn is_authority_as_end_entity(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    let cause = other.0.downcast_ref::<webpki::Error>();
    matches!(cause, Some(webpki::Error::CaUsedAsEndEntity))
}

/// Verifies against the roots in force. The handshake's signature is checked whomever is trusted:
/// it costs nothing and catches a broken peer.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) trust: Trust,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = match &self.trust {
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
            Trust::File(file) => {
                let roots = file.current();
                return roots.verify(end_entity, intermediates, server_name, ocsp, now);
            }
            Trust::Native(cell) => match cell.get() {
                Some(verifier) => Arc::clone(verifier),
                None => {
                    let verifier = native_verifier(&self.provider)
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                    Arc::clone(cell.get_or_init(|| verifier))
                }
            },
        };
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Roots that can't be parsed are left out, as the reference does; `None` where none is left.
fn webpki_verifier(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Ok(None);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(setup)
}

fn native_verifier(provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(err = %error, "some native root certificates can't be read");
    }
    webpki_verifier(loaded.certs, provider)?.ok_or(TlsError::NoNativeRoots)
}
