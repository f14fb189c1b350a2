//! Signatures with an RSA key (PKCS #1 v1.5 with SHA-256): Google's assertions and Oracle's
//! requests.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

/// A private key; clones share it.
#[derive(Clone)]
pub struct RsaKey {
    pair: Arc<RsaKeyPair>,
    /// Tells two keys apart.
    public: Vec<u8>,
}

/// The key can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RsaKeyError {
    /// No PEM, or of something else.
    #[error("it is no private key in PEM (-----BEGIN PRIVATE KEY-----, with its line ends)")]
    Pem,
    /// PEM that a passphrase protects.
    #[error(
        "it is encrypted, which is not supported: remove the passphrase (openssl pkcs8 -topk8 \
         -nocrypt) and protect the file instead"
    )]
    Encrypted,
    /// Not an RSA key, or one that is too short.
    #[error("it is no RSA key of 2048 to 8192 bits")]
    NotRsa,
    /// The library would not sign.
    #[error("signing failed")]
    Sign,
}

// === impl RsaKey ===

impl RsaKey {
    /// The key in `pem`, of PKCS #8 or PKCS #1.
    ///
    /// # Errors
    /// Where there is none.
    pub fn from_pem(pem: &str) -> Result<Self, RsaKeyError> {
        if pem.contains("ENCRYPTED") {
            return Err(RsaKeyError::Encrypted);
        }
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| RsaKeyError::Pem)?;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(RsaKeyError::NotRsa),
        };
        let pair = pair.map_err(|_| RsaKeyError::NotRsa)?;
        Ok(Self {
            public: aws_lc_rs::signature::KeyPair::public_key(&pair)
                .as_ref()
                .to_vec(),
            pair: Arc::new(pair),
        })
    }

    /// The signature of `message`.
    ///
    /// # Errors
    /// Where the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RsaKeyError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        let signed = self
            .pair
            .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
        signed.map_err(|_| RsaKeyError::Sign)?;
        Ok(signature)
    }

    /// The public half, as the ASN.1 type RSAPublicKey.
    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

impl PartialEq for RsaKey {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for RsaKey {}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey")
    }
}
