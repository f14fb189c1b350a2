//! The mapping `config:` of `type: GCS`: every key of the reference and no other (contract
//! `objstore.md` §5).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::credentials::{GcsAccess, ServiceAccountError};
use crate::net::TlsError;
use crate::net::http::InvalidProxyVariable;
use crate::objstore::s3::{HttpConfig, HttpKeys, S3_PART_BYTES_DEFAULT, S3Config};

/// Parts but the last of an upload in parts ("Quotas & limits").
const PART_BYTES_MIN: u64 = 5 << 20;
const PART_BYTES_MAX: u64 = 5 << 30;
const HOST: &str = "storage.googleapis.com";
/// Where Google's own libraries look for an emulator.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

/// All that the document says about a bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsSettings {
    /// What is sent. The endpoint may be an emulator's.
    pub client: S3Config,
    /// In whose name.
    pub access: GcsAccess,
    /// Over which connections.
    pub http: HttpConfig,
}

/// The document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum GcsConfigError {
    /// An unknown key, or a value of the wrong type; the text has line and column.
    #[error("parsing the GCS configuration: {}", .0)]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// `bucket` is missing.
    #[error("missing Google Cloud Storage bucket name for stored blocks: set `bucket` to its name")]
    MissingBucket,
    /// `service_account` can't be used.
    #[error("`service_account`")]
    ServiceAccount(#[from] ServiceAccountError),
    /// `chunk_size_bytes` beyond Google's limits.
    #[error(
        "`chunk_size_bytes` {given} is out of range: a part has {PART_BYTES_MAX} bytes (5 GiB) at \
         most; without the key it has {S3_PART_BYTES_DEFAULT} (8 MiB)"
    )]
    ChunkSize {
        /// As given, in bytes.
        given: i64,
    },
    /// The emulator's address is none.
    #[error(
        "the environment variable {EMULATOR} {given:?} is not of the form [http://]host[:port]: \
         correct it, or unset it to reach Google itself"
    )]
    Emulator {
        /// As given.
        given: String,
    },
    /// A TLS file of `http_config` can't be used.
    #[error("`http_config`")]
    Tls(#[from] TlsError),
    /// A proxy of the environment can't be used.
    #[error("the proxy of the environment")]
    Proxy(#[from] InvalidProxyVariable),
}

/// The mapping. Absent, null and default are one.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::objstore) struct GcsKeys {
    bucket: Option<String>,
    service_account: Option<String>,
    use_grpc: Option<bool>,
    grpc_conn_pool_size: Option<i64>,
    http_config: Option<HttpKeys>,
    chunk_size_bytes: Option<i64>,
    max_retries: Option<i64>,
}

// === impl GcsKeys ===

impl GcsKeys {
    /// What the keys mean, and what is odd about them. A relative path is taken from
    /// `working_directory`.
    pub(in crate::objstore) fn settings(
        self,
        working_directory: &Path,
    ) -> Result<(GcsSettings, Vec<String>), GcsConfigError> {
        let bucket = self.bucket.filter(|bucket| !bucket.is_empty());
        let bucket = bucket.ok_or(GcsConfigError::MissingBucket)?;
        let access = GcsAccess::parsed(self.service_account.as_deref(), working_directory)?;
        let http = self.http_config.unwrap_or_default();
        let mut warnings = http.warnings();
        if self.use_grpc == Some(true) || self.grpc_conn_pool_size.is_some_and(|size| size != 0) {
            warnings.push(
                "`use_grpc` and `grpc_conn_pool_size` have no effect: the bucket is reached over \
                 HTTPS, which gives the same objects"
                    .to_owned(),
            );
        }
        let mut client = S3Config::plain(&bucket, HOST, self.max_retries);
        match self.chunk_size_bytes.unwrap_or(0) {
            0 => {}
            given => {
                let bytes = u64::try_from(given).ok().filter(|b| *b <= PART_BYTES_MAX);
                let bytes = bytes.ok_or(GcsConfigError::ChunkSize { given })?;
                if bytes < PART_BYTES_MIN {
                    warnings.push(format!(
                        "`chunk_size_bytes` {bytes} is raised to {PART_BYTES_MIN}, the smallest \
                         part that Google takes"
                    ));
                }
                client.set_part_bytes(bytes.max(PART_BYTES_MIN));
            }
        }
        let settings = GcsSettings {
            client,
            access,
            http: http.config(),
        };
        Ok((settings, warnings))
    }
}

// === impl GcsSettings ===

impl GcsSettings {
    /// What is sent, and where to: to the emulator that the environment names, to the universe of
    /// the service account, or to Google.
    ///
    /// # Errors
    /// Where the emulator's address is none.
    pub(in crate::objstore) fn placed(
        &self,
        universe: Option<&str>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<S3Config, GcsConfigError> {
        let mut client = self.client.clone();
        if let Some(universe) = universe {
            client.endpoint = format!("storage.{universe}");
        }
        let Some(given) = emulator(variable) else {
            return Ok(client);
        };
        let (insecure, rest) = match (
            given.strip_prefix("https://"),
            given.strip_prefix("http://"),
        ) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => (true, given.as_str()),
        };
        let host = rest.trim_end_matches('/');
        let is_usable = host.parse::<http::uri::Authority>().is_ok() && !host.contains('@');
        if !is_usable {
            return Err(GcsConfigError::Emulator { given });
        }
        client.insecure = insecure;
        host.clone_into(&mut client.endpoint);
        Ok(client)
    }
}

/// The emulator that the environment names.
pub(super) fn emulator(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let given = variable(EMULATOR)?.to_string_lossy().into_owned();
    (!given.is_empty()).then_some(given)
}

/// A path out of a document.
pub(super) fn absolute(path: &str, working_directory: &Path) -> PathBuf {
    working_directory.join(path)
}
