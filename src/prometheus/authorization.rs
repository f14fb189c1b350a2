//! What we show Prometheus: a user's password or a token, from the configuration or from a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;

use super::error::PeerError;

/// A password or token: never shown in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretSource {
    Inline(Secret),
    /// Read anew for each request, since mounted secrets are rotated; surrounding white space,
    /// like the final newline, is not part of it.
    File(PathBuf),
}

/// The `Authorization` header's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Authorization {
    #[default]
    None,
    Basic {
        username: String,
        password: SecretSource,
    },
    Bearer(SecretSource),
}

// === impl Secret ===

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl SecretSource ===

impl SecretSource {
    async fn read(&self) -> Result<String, PeerError> {
        match self {
            Self::Inline(secret) => Ok(secret.0.clone()),
            Self::File(path) => read_trimmed(path)
                .await
                .map_err(|source| PeerError::Credentials {
                    path: path.clone(),
                    source,
                }),
        }
    }
}

async fn read_trimmed(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
    let text = reading.await.map_err(io::Error::other)??;
    Ok(text.trim().to_owned())
}

// === impl Authorization ===

impl Authorization {
    /// The file that it is read from, where it is.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Basic {
                password: SecretSource::File(path),
                ..
            }
            | Self::Bearer(SecretSource::File(path)) => Some(path),
            Self::None | Self::Basic { .. } | Self::Bearer(_) => None,
        }
    }

    /// The header's value for the next request; `None` where none is configured.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, PeerError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic { username, password } => {
                let password = password.read().await?;
                let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
                format!("Basic {pair}")
            }
            Self::Bearer(token) => format!("Bearer {}", token.read().await?),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| PeerError::CredentialBytes)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
