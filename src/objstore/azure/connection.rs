//! `storage_connection_string`: pairs of names and values ("Configure Azure Storage connection
//! strings").

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::sign::SharedKey;

/// What the string says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Connection {
    /// Without a final `/`.
    pub(super) blob_endpoint: String,
    pub(super) proof: Proof,
}

/// In whose name.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Key(SharedKey),
    /// A query without `?`.
    Signature(String),
}

/// The string can't be used. Values are left out, as they are secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Not a pair.
    #[error("part {number} is no name and value: parts are written Name=Value, with `;` between")]
    Pair {
        /// From 1.
        number: usize,
    },
    /// A name that is not there.
    #[error("there is no {0}: copy the whole string from the account's access keys")]
    Missing(&'static str),
    /// The key is not base64.
    #[error("AccountKey is not base64: copy the whole string from the account's access keys")]
    Key,
    /// Neither http nor https.
    #[error("{0} is no http or https address")]
    Endpoint(&'static str),
}

// === impl Connection ===

impl Connection {
    pub(super) fn parsed(text: &str) -> Result<Self, ConnectionError> {
        let mut protocol = "https";
        let mut suffix = "core.windows.net";
        let (mut account, mut key, mut signature, mut endpoint) = (None, None, None, None);
        let parts = text.trim().trim_end_matches(';').split(';');
        for (number, part) in (1..).zip(parts) {
            let pair = part
                .split_once('=')
                .ok_or(ConnectionError::Pair { number })?;
            let (name, value) = (pair.0.trim(), pair.1.trim());
            match name.to_ascii_lowercase().as_str() {
                "defaultendpointsprotocol" => protocol = value,
                "endpointsuffix" => suffix = value,
                "accountname" => account = Some(value),
                "accountkey" => key = Some(value),
                "sharedaccesssignature" => signature = Some(value),
                "blobendpoint" => endpoint = Some(value),
                // Those of other services.
                _ => {}
            }
        }
        let blob_endpoint = match (endpoint, account) {
            (Some(endpoint), _) => endpoint.trim_end_matches('/').to_owned(),
            (None, Some(account)) => format!("{protocol}://{account}.blob.{suffix}"),
            (None, None) => return Err(ConnectionError::Missing("AccountName")),
        };
        let is_http = ["http://", "https://"]
            .iter()
            .any(|scheme| blob_endpoint.len() > scheme.len() && blob_endpoint.starts_with(scheme));
        if !is_http || blob_endpoint.parse::<http::Uri>().is_err() {
            let from = if endpoint.is_some() {
                "BlobEndpoint"
            } else {
                "DefaultEndpointsProtocol"
            };
            return Err(ConnectionError::Endpoint(from));
        }
        let proof = match (key, signature) {
            (Some(key), _) => {
                let account = account.ok_or(ConnectionError::Missing("AccountName"))?;
                let key = BASE64_STANDARD
                    .decode(key)
                    .map_err(|_| ConnectionError::Key)?;
                Proof::Key(SharedKey::new(account, &key))
            }
            (None, Some(signature)) => {
                Proof::Signature(signature.trim_start_matches('?').to_owned())
            }
            (None, None) => return Err(ConnectionError::Missing("AccountKey")),
        };
        Ok(Self {
            blob_endpoint,
            proof,
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut form = f.debug_struct("Connection");
        form.field("blob_endpoint", &self.blob_endpoint);
        form.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_documentation() {
        let key = "AccountName=acct;AccountKey=aGVsbG8=";
        for (text, endpoint) in [
            (
                format!("DefaultEndpointsProtocol=https;{key};EndpointSuffix=core.windows.net"),
                "https://acct.blob.core.windows.net",
            ),
            (
                format!(
                    "DefaultEndpointsProtocol=http;{key};EndpointSuffix=core.chinacloudapi.cn;"
                ),
                "http://acct.blob.core.chinacloudapi.cn",
            ),
            (
                format!("{key};BlobEndpoint=http://127.0.0.1:10000/acct/;QueueEndpoint=x=y"),
                "http://127.0.0.1:10000/acct",
            ),
        ] {
            let connection = Connection::parsed(&text).unwrap();
            assert_eq!(connection.blob_endpoint, endpoint);
            assert!(matches!(connection.proof, Proof::Key(_)));
            assert!(!format!("{connection:?}").contains("aGVsbG8="));
        }
        let text =
            "BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=?sv=1&sig=a%3D";
        let connection = Connection::parsed(text).unwrap();
        assert!(connection.proof == Proof::Signature("sv=1&sig=a%3D".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is() {
        for (text, expected) in [
            ("hidden", ConnectionError::Pair { number: 1 }),
            (
                "AccountKey=aGlkZGVu",
                ConnectionError::Missing("AccountName"),
            ),
            ("AccountName=a", ConnectionError::Missing("AccountKey")),
            ("AccountName=a;AccountKey=hidden!", ConnectionError::Key),
            (
                "BlobEndpoint=ftp://hidden;AccountName=a;AccountKey=aGk=",
                ConnectionError::Endpoint("BlobEndpoint"),
            ),
            (
                "DefaultEndpointsProtocol=hidden;AccountName=a;AccountKey=aGk=",
                ConnectionError::Endpoint("DefaultEndpointsProtocol"),
            ),
        ] {
            let error = Connection::parsed(text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "[A-Za-z=;:/?&% .]{0,120}") {
            drop(Connection::parsed(&text));
        }
    }
}
