//! Who a client must be: signed by a root of the CA file, or such a root itself; and perhaps under
//! one of some names.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};

use super::pem::PemSource;
use super::san::subject_alternative_names;
use super::verify::is_authority_as_end_entity;
use super::{TlsError, setup};

/// Verifies the certificates that clients show.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    trust: ClientTrust,
    is_mandatory: bool,
    /// One of these must be among the certificate's names.
    allowed_sans: Option<Vec<String>>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum ClientTrust {
    /// Any certificate will do; the client proves that it has its key.
    Anyone,
    Roots {
        verifier: Arc<dyn ClientCertVerifier>,
        named: Vec<CertificateDer<'static>>,
    },
}

impl ClientVerifier {
    /// Wants a certificate signed by one of these; PEM without any usable certificate is an error,
    /// where the reference goes on without TLS.
    pub(super) fn signed_by(
        ca: &PemSource,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let named = ca.certificates()?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(named.clone());
        if usable == 0 {
            return Err(ca.empty("root certificate"));
        }
        Self::of_roots(roots, named, provider)
    }

    /// Wants a certificate signed by a root of the system, which is what no CA means in Go.
    pub(super) fn signed_by_system_root(provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        match roots.add_parsable_certificates(loaded.certs) {
            (0, _) => Err(TlsError::NoNativeRoots),
            _ => Self::of_roots(roots, Vec::new(), provider),
        }
    }

    /// Wants any certificate at all.
    pub(super) fn any(provider: &Arc<CryptoProvider>) -> Self {
        Self {
            trust: ClientTrust::Anyone,
            is_mandatory: true,
            allowed_sans: None,
            provider: Arc::clone(provider),
        }
    }

    fn of_roots(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        // The system's roots are too many to name.
        let builder = match named.is_empty() {
            true => builder.clear_root_hint_subjects(),
            false => builder,
        };
        let verifier = builder.build().map_err(setup)?;
        Ok(Self {
            trust: ClientTrust::Roots { verifier, named },
            ..Self::any(provider)
        })
    }

    /// The same for clients that need not show a certificate; what they show is verified.
    pub(super) fn optional(self) -> Self {
        Self {
            is_mandatory: false,
            ..self
        }
    }

    /// The same for certificates that bear one of these names.
    pub(super) fn with_allowed_sans(self, allowed_sans: Option<Vec<String>>) -> Self {
        Self {
            allowed_sans,
            ..self
        }
    }

    /// Like webpki, except that a client may present a named root itself, as Go allows.
    fn verify_trust(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let ClientTrust::Roots { verifier, named } = &self.trust else {
            return ParsedCertificate::try_from(end_entity).map(drop);
        };
        match verifier.verify_client_cert(end_entity, intermediates, now) {
            // webpki has checked the dates before it says this.
            Err(error) if is_authority_as_end_entity(&error) && named.contains(end_entity) => {
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    fn verify_names(&self, end_entity: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let Some(allowed) = &self.allowed_sans else {
            return Ok(());
        };
        let names = subject_alternative_names(end_entity).ok_or(CertificateError::BadEncoding)?;
        match names.iter().any(|name| allowed.contains(name)) {
            true => Ok(()),
            false => {
                tracing::debug!(
                    ?names,
                    ?allowed,
                    "a client's certificate bears no allowed name"
                );
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.trust {
            ClientTrust::Anyone => &[],
            ClientTrust::Roots { verifier, .. } => verifier.root_hint_subjects(),
        }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify_trust(end_entity, intermediates, now)?;
        self.verify_names(end_entity)?;
        Ok(ClientCertVerified::assertion())
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
