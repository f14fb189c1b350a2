//! Certificates and keys in PEM, from files or from a document's text.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsError;

/// Where PEM stands.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// In a file.
    File(PathBuf),
    /// In the text itself.
    Inline {
        /// The PEM; a key is a secret.
        text: String,
        /// What errors call it: where it stands in its document.
        name: String,
    },
}

// === impl PemSource ===

impl PemSource {
    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Inline { .. } => None,
        }
    }

    /// All certificates in it, of which there must be one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read()?;
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let certificates = parsed.map_err(|source| self.not_pem(source))?;
        match certificates.is_empty() {
            true => Err(self.empty("certificate")),
            false => Ok(certificates),
        }
    }

    /// The error of PEM that holds nothing of the kind.
    pub(super) fn empty(&self, wanted: &'static str) -> TlsError {
        let path = self.name();
        TlsError::Empty { path, wanted }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|source| match source {
            pem::Error::NoItemsFound => self.empty("private key"),
            source => self.not_pem(source),
        })
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::Inline { text, .. } => Ok(text.clone().into_bytes()),
            Self::File(path) => fs::read(path).map_err(|source| TlsError::Read {
                path: path.clone(),
                source,
            }),
        }
    }

    fn not_pem(&self, source: pem::Error) -> TlsError {
        let path = self.name();
        TlsError::Pem { path, source }
    }

    fn name(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Inline { name, .. } => PathBuf::from(name),
        }
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PemSource").field(&self.name()).finish()
    }
}

impl From<&Path> for PemSource {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

/// Certificate chain and key, found to belong together.
pub(super) fn certified_key(
    cert: &PemSource,
    key: &PemSource,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let (chain, private) = (cert.certificates()?, key.private_key()?);
    CertifiedKey::from_der(chain, private, provider).map_err(|source| TlsError::Identity {
        cert: cert.name(),
        key: key.name(),
        source,
    })
}
