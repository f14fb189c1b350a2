//! The mapping `config:` of `type: S3` (contract `objstore.md` §2 and §3): every key of the
//! reference and no other, as the store gateway and the compactor read the same file strictly.
//!
//! Errors name the key and what to do, never a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, uri};
use serde::Deserialize;

use super::config::{
    Addressing, Encryption, ListVersion, PayloadSigning, S3_PART_BYTES_DEFAULT, S3Config,
};
use super::metadata::{InvalidMetadata, PutHeaders};
use super::transport::{HttpConfig, HttpKeys};
use crate::net::TlsError;
use crate::net::http::InvalidProxyVariable;

/// Limits of S3 for a part ("multipart upload limits").
const PART_BYTES_MIN: u64 = 5 << 20;
const PART_BYTES_MAX: u64 = 5 << 30;
const _: () = assert!(
    PART_BYTES_MIN <= S3_PART_BYTES_DEFAULT.get() && S3_PART_BYTES_DEFAULT.get() <= PART_BYTES_MAX
);
/// Tries of a request where `max_retries` does not say: those of the reference.
const ATTEMPTS_DEFAULT: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// An SSE-C key is one of AES-256.
const CUSTOMER_KEY_BYTES: usize = 32;

/// All that the document says about an S3 bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// The type that the document names: S3, or a store that speaks it.
    pub kind: &'static str,
    /// The `bucket` metric label, where it is not the name in requests.
    pub label: Option<String>,
    /// What is sent.
    pub client: S3Config,
    /// In whose name.
    pub credentials: CredentialsConfig,
    /// Over which connections.
    pub http: HttpConfig,
}

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialsConfig {
    /// `access_key`, `secret_key` and `session_token`.
    Static {
        /// The access key id.
        access_key: String,
        /// The secret.
        secret_key: String,
        /// With temporary credentials.
        session_token: Option<String>,
    },
    /// Environment, shared file, web identity, container, instance metadata: the first that has
    /// some.
    Chain {
        /// Instead of the service's own address.
        sts_endpoint: Option<Uri>,
        /// `aws_sdk_auth`: having found none is an error; else requests are anonymous then.
        required: bool,
        /// `signature_version2`, which only anonymous requests can do without.
        signature_version2: bool,
    },
}

/// The document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum S3ConfigError {
    /// An unknown key, or a value of the wrong type; the text has line and column.
    #[error("parsing the S3 configuration: {}", .0)]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// `endpoint` is missing.
    #[error("no s3 endpoint in config file")]
    MissingEndpoint,
    /// `bucket` is missing.
    #[error("no s3 bucket in config file: set `bucket` to its name")]
    MissingBucket,
    /// `endpoint` is a URL or nonsense.
    #[error("`endpoint` {endpoint:?} is not of the form host[:port]: {remedy}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// `sts_endpoint` is not a URL.
    #[error("`sts_endpoint` {endpoint:?} is not a URL such as https://sts.example.com")]
    StsEndpoint {
        /// As given.
        endpoint: String,
    },
    /// Both ways to have credentials.
    #[error("aws_sdk_auth and access_key are mutually exclusive configurations")]
    SdkAuthAndKeys,
    /// One of the keys without the other.
    #[error(
        "no {missing} in config file although {given} is there: set both, or none to have them \
         from the environment or IAM"
    )]
    HalfKeys {
        /// The key that is not there.
        missing: &'static str,
        /// The key that is there.
        given: &'static str,
    },
    /// `signature_version2: true`.
    #[error(
        "signature version 2 is not supported: remove `signature_version2`, every maintained S3 \
         server takes version 4"
    )]
    SignatureVersion2,
    /// A value out of a closed list.
    #[error("`{key}` must be one of {choices}, not {given:?}")]
    Choice {
        /// The key.
        key: &'static str,
        /// As given.
        given: String,
        /// The list.
        choices: &'static str,
    },
    /// `part_size` beyond S3's limits.
    #[error(
        "`part_size` {given} is out of range: S3 takes {PART_BYTES_MIN} (5 MiB) to \
         {PART_BYTES_MAX} (5 GiB); without the key it is {S3_PART_BYTES_DEFAULT} (8 MiB)"
    )]
    PartSize {
        /// As given, in bytes.
        given: u64,
    },
    /// `put_user_metadata` has something that can't be sent.
    #[error("`put_user_metadata`")]
    Metadata(#[from] InvalidMetadata),
    /// An unknown `sse_config.type`.
    #[error("Unsupported type {given:?} in sse_config: supported are SSE-S3, SSE-KMS and SSE-C")]
    EncryptionType {
        /// As given.
        given: String,
    },
    /// A key that the type of encryption needs.
    #[error("{key} must be set in sse_config, as its type is {kind}")]
    EncryptionKeyMissing {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// `kms_key_id` can't be sent.
    #[error("kms_key_id in sse_config has characters that can't be sent in a header")]
    KmsKeyId,
    /// The file with the SSE-C key can't be read.
    #[error("reading the encryption_key file {}", path.display())]
    CustomerKeyUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file with the SSE-C key holds something else.
    #[error(
        "the encryption_key file {} must hold the raw key of exactly {CUSTOMER_KEY_BYTES} bytes \
         (not hex, not base64, no line end), but {found}",
        path.display()
    )]
    CustomerKeyLength {
        /// The file.
        path: PathBuf,
        /// How many bytes it has instead.
        found: String,
    },
    /// SSE-C over plain HTTP would send the key for everyone to read.
    #[error(
        "sse_config of type SSE-C sends the key with each request: remove `insecure`, it needs TLS"
    )]
    CustomerKeyInPlain,
    /// A TLS file of `http_config` can't be used.
    #[error("`http_config`")]
    Tls(#[from] TlsError),
    /// A proxy of the environment can't be used.
    #[error("the proxy of the environment")]
    Proxy(#[from] InvalidProxyVariable),
}

/// The mapping. Absent, null and default are one, but for `send_content_md5`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::objstore) struct S3Keys {
    bucket: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    disable_dualstack: Option<bool>,
    aws_sdk_auth: Option<bool>,
    access_key: Option<String>,
    insecure: Option<bool>,
    signature_version2: Option<bool>,
    secret_key: Option<String>,
    session_token: Option<String>,
    put_user_metadata: Option<BTreeMap<String, String>>,
    http_config: Option<HttpKeys>,
    trace: Option<TraceKeys>,
    list_objects_version: Option<String>,
    bucket_lookup_type: Option<String>,
    send_content_md5: Option<bool>,
    disable_multipart: Option<bool>,
    part_size: Option<u64>,
    sse_config: Option<EncryptionKeys>,
    sts_endpoint: Option<String>,
    max_retries: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TraceKeys {
    enable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EncryptionKeys {
    #[serde(rename = "type")]
    kind: Option<String>,
    kms_key_id: Option<String>,
    kms_encryption_context: Option<BTreeMap<String, String>>,
    encryption_key: Option<PathBuf>,
}

// === impl S3Keys ===

impl S3Keys {
    /// What the keys mean, and what is odd about them. A relative path is taken from
    /// `working_directory`.
    pub(in crate::objstore) fn settings(
        mut self,
        working_directory: &Path,
    ) -> Result<(S3Settings, Vec<String>), S3ConfigError> {
        let endpoint = endpoint(text(self.endpoint.take()))?;
        let http_keys = self.http_config.take().unwrap_or_default();
        let mut warnings = http_keys.warnings();
        let (credentials, warning) = self.credentials()?;
        warnings.extend(warning);
        let insecure = self.insecure.unwrap_or(false);
        let encryption = self.sse_config.take().unwrap_or_default();
        let encryption = encryption.parsed(working_directory)?;
        if insecure && matches!(encryption, Encryption::Customer { .. }) {
            return Err(S3ConfigError::CustomerKeyInPlain);
        }
        let metadata = self.put_user_metadata.take().unwrap_or_default();
        let put = PutHeaders::new(&metadata, encryption != Encryption::None)?;
        let client = S3Config {
            bucket: text(self.bucket.take()).ok_or(S3ConfigError::MissingBucket)?,
            endpoint,
            region: text(self.region.take()),
            dualstack: !self.disable_dualstack.unwrap_or(false),
            insecure,
            addressing: addressing(text(self.bucket_lookup_type.take()))?,
            list_version: list_version(text(self.list_objects_version.take()))?,
            put_headers: put.headers,
            storage_class: put.storage_class,
            send_content_md5: self.send_content_md5,
            disable_multipart: self.disable_multipart.unwrap_or(false),
            part_bytes: part_bytes(self.part_size)?,
            encryption,
            attempts_max: attempts(self.max_retries),
            trace: self.trace.and_then(|trace| trace.enable).unwrap_or(false),
            payload_signing: PayloadSigning::default(),
        };
        let settings = S3Settings {
            kind: "S3",
            label: None,
            client,
            credentials,
            http: http_keys.config(),
        };
        Ok((settings, warnings))
    }

    fn credentials(&mut self) -> Result<(CredentialsConfig, Option<String>), S3ConfigError> {
        let required = self.aws_sdk_auth.unwrap_or(false);
        let signature_version2 = self.signature_version2.unwrap_or(false);
        let sts_endpoint = sts_endpoint(text(self.sts_endpoint.take()))?;
        let session_token = text(self.session_token.take());
        let (access_key, secret_key) = (text(self.access_key.take()), text(self.secret_key.take()));
        if required && access_key.is_some() {
            return Err(S3ConfigError::SdkAuthAndKeys);
        }
        if signature_version2 && (required || access_key.is_some()) {
            return Err(S3ConfigError::SignatureVersion2);
        }
        let half = |missing, given| S3ConfigError::HalfKeys { missing, given };
        match (access_key, secret_key) {
            (Some(access_key), Some(secret_key)) => {
                let keys = CredentialsConfig::Static {
                    access_key,
                    secret_key,
                    session_token,
                };
                Ok((keys, None))
            }
            (Some(_), None) => Err(half("secret_key", "access_key")),
            (None, Some(_)) => Err(half("access_key", "secret_key")),
            (None, None) => {
                let warning = session_token.map(|_| {
                    "`session_token` is ignored: it goes with `access_key` and `secret_key`"
                        .to_owned()
                });
                let chain = CredentialsConfig::Chain {
                    sts_endpoint,
                    required,
                    signature_version2,
                };
                Ok((chain, warning))
            }
        }
    }
}

/// An empty value is none.
fn text(given: Option<String>) -> Option<String> {
    given.filter(|text| !text.is_empty())
}

fn endpoint(given: Option<String>) -> Result<String, S3ConfigError> {
    let endpoint = given.ok_or(S3ConfigError::MissingEndpoint)?;
    let remedy = if endpoint.contains("://") {
        Some("remove the scheme; TLS is used unless `insecure` is true")
    } else if endpoint.contains(['/', '?', '#']) {
        Some("remove the path; the bucket's name goes into `bucket`")
    } else if endpoint.contains('@') {
        Some("remove the user; keys go into `access_key` and `secret_key`")
    } else {
        let parsed: Result<Authority, uri::InvalidUri> = endpoint.parse();
        let is_usable = parsed.is_ok_and(|authority| {
            let written_port = endpoint.strip_prefix(authority.host()).unwrap_or_default();
            !authority.host().is_empty()
                && (written_port.is_empty() || authority.port_u16().is_some_and(|port| port > 0))
        });
        (!is_usable).then_some("give the host's name or address, with a port where it needs one")
    };
    match remedy {
        Some(remedy) => Err(S3ConfigError::Endpoint { endpoint, remedy }),
        None => Ok(endpoint),
    }
}

fn sts_endpoint(given: Option<String>) -> Result<Option<Uri>, S3ConfigError> {
    let Some(endpoint) = given else {
        return Ok(None);
    };
    let parsed: Result<Uri, _> = endpoint.parse();
    let is_url = |uri: &Uri| {
        let is_http = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        is_http && uri.host().is_some_and(|host| !host.is_empty())
    };
    match parsed.ok().filter(is_url) {
        Some(uri) => Ok(Some(uri)),
        None => Err(S3ConfigError::StsEndpoint { endpoint }),
    }
}

fn addressing(given: Option<String>) -> Result<Addressing, S3ConfigError> {
    match given.as_deref() {
        None | Some("auto") => Ok(Addressing::Auto),
        Some("virtual-hosted") => Ok(Addressing::VirtualHosted),
        Some("path") => Ok(Addressing::Path),
        Some(other) => Err(S3ConfigError::Choice {
            key: "bucket_lookup_type",
            given: other.to_owned(),
            choices: "auto, virtual-hosted, path",
        }),
    }
}

fn list_version(given: Option<String>) -> Result<ListVersion, S3ConfigError> {
    match given.as_deref() {
        None | Some("v2") => Ok(ListVersion::V2),
        Some("v1") => Ok(ListVersion::V1),
        Some(other) => Err(S3ConfigError::Choice {
            key: "list_objects_version",
            given: other.to_owned(),
            choices: "v1, v2",
        }),
    }
}

fn part_bytes(given: Option<u64>) -> Result<NonZeroU64, S3ConfigError> {
    let Some(given) = given.and_then(NonZeroU64::new) else {
        return Ok(S3_PART_BYTES_DEFAULT);
    };
    match (PART_BYTES_MIN..=PART_BYTES_MAX).contains(&given.get()) {
        true => Ok(given),
        false => Err(S3ConfigError::PartSize { given: given.get() }),
    }
}

/// Zero and below mean the default, as in the reference.
pub(super) fn attempts(given: Option<i64>) -> NonZeroU32 {
    let given = given.unwrap_or(0).max(0);
    NonZeroU32::new(u32::try_from(given).unwrap_or(u32::MAX)).unwrap_or(ATTEMPTS_DEFAULT)
}

// === impl EncryptionKeys ===

impl EncryptionKeys {
    fn parsed(self, working_directory: &Path) -> Result<Encryption, S3ConfigError> {
        let missing = |key, kind| S3ConfigError::EncryptionKeyMissing { key, kind };
        match text(self.kind).as_deref() {
            None => Ok(Encryption::None),
            Some("SSE-S3") => Ok(Encryption::S3),
            Some("SSE-KMS") => {
                let key_id = text(self.kms_key_id).ok_or(missing("kms_key_id", "SSE-KMS"))?;
                Ok(Encryption::Kms {
                    key_id: HeaderValue::from_str(&key_id)
                        .ok()
                        .filter(|_| key_id.is_ascii())
                        .ok_or(S3ConfigError::KmsKeyId)?,
                    context: self.kms_encryption_context.unwrap_or_default(),
                })
            }
            Some("SSE-C") => {
                let path = self.encryption_key.filter(|p| !p.as_os_str().is_empty());
                let path = path.ok_or(missing("encryption_key", "SSE-C"))?;
                let key = customer_key(&working_directory.join(path))?;
                Ok(Encryption::Customer { key })
            }
            Some(other) => Err(S3ConfigError::EncryptionType {
                given: other.to_owned(),
            }),
        }
    }
}

fn customer_key(path: &Path) -> Result<[u8; CUSTOMER_KEY_BYTES], S3ConfigError> {
    let mut bytes = Vec::new();
    let limit = CUSTOMER_KEY_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| S3ConfigError::CustomerKeyUnreadable {
            path: path.to_owned(),
            source,
        })?;
    <[u8; CUSTOMER_KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| {
        let found = match bytes.len() > CUSTOMER_KEY_BYTES {
            true => "it has more".to_owned(),
            false => format!("it has {}", bytes.len()),
        };
        S3ConfigError::CustomerKeyLength {
            path: path.to_owned(),
            found,
        }
    })
}

// === impl CredentialsConfig ===

impl fmt::Debug for CredentialsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { access_key, .. } => f
                .debug_struct("Static")
                .field("access_key", access_key)
                .finish_non_exhaustive(),
            Self::Chain {
                sts_endpoint,
                required,
                signature_version2,
            } => f
                .debug_struct("Chain")
                .field("sts_endpoint", sts_endpoint)
                .field("required", required)
                .field("signature_version2", signature_version2)
                .finish(),
        }
    }
}

#[cfg(test)]
mod tests;
