//! The mapping `config:` of `type: AZURE`: every key of the reference and no other (contract
//! `objstore.md` §5).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::connection::{Connection, ConnectionError, Proof};
use super::credentials::{AzureAccess, AzureConnection, AzureCredentialsError};
use super::sign::SharedKey;
use crate::model::PromDuration;
use crate::net::TlsError;
use crate::net::http::InvalidProxyVariable;
use crate::objstore::s3::{HttpConfig, HttpKeys, S3Config};

const ENDPOINT: &str = "blob.core.windows.net";

/// All that the document says about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureSettings {
    /// What is sent.
    pub client: S3Config,
    /// The account's URL, without a final `/`.
    pub base: String,
    /// In whose name.
    pub access: AzureAccess,
    /// `storage_create_container`: whether a container that is not there is made.
    pub creates: bool,
    /// Over which connections.
    pub http: HttpConfig,
}

/// The document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AzureConfigError {
    /// An unknown key, or a value of the wrong type; the text has line and column.
    #[error("parsing the AZURE configuration: {}", .0)]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// A key that must be there.
    #[error("{problem}: set `{key}`")]
    Missing {
        /// What the reference says.
        problem: &'static str,
        /// The key.
        key: &'static str,
    },
    /// Two ways to prove an identity.
    #[error("{one} cannot be set when using {other} authentication: remove one of them")]
    Both {
        /// A key.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// One of three keys is missing.
    #[error("az_tenant_id, client_id, and client_secret must be set together: {missing} is empty")]
    Half {
        /// The key that is not there.
        missing: &'static str,
    },
    /// The key is not base64.
    #[error("`storage_account_key` is not base64: copy it whole from the account's access keys")]
    Key,
    /// The connection string can't be used.
    #[error("`storage_connection_string`")]
    Connection(#[from] ConnectionError),
    /// `endpoint` is a URL or nonsense.
    #[error(
        "`endpoint` {endpoint:?} is not a host such as {ENDPOINT}: write it without a scheme, a \
         path and the account's name (another address altogether goes into \
         storage_connection_string as BlobEndpoint)"
    )]
    Endpoint {
        /// As given.
        endpoint: String,
    },
    /// A number below zero.
    #[error("the value of {key} must be greater than or equal to 0: correct it, or remove it")]
    Negative {
        /// The key.
        key: &'static str,
    },
    /// The environment's credentials can't be used.
    #[error("the environment")]
    Environment(#[from] AzureCredentialsError),
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
pub(in crate::objstore) struct AzureKeys {
    az_tenant_id: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    storage_account: Option<String>,
    storage_account_key: Option<String>,
    storage_connection_string: Option<String>,
    storage_create_container: Option<bool>,
    container: Option<String>,
    endpoint: Option<String>,
    user_assigned_id: Option<String>,
    max_retries: Option<i64>,
    reader_config: Option<ReaderKeys>,
    pipeline_config: Option<PipelineKeys>,
    http_config: Option<HttpKeys>,
    msi_resource: Option<String>,
}

/// Of downloads that break off; ours are read again as a whole.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReaderKeys {
    max_retry_requests: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PipelineKeys {
    max_tries: Option<i64>,
    try_timeout: Option<PromDuration>,
    retry_delay: Option<PromDuration>,
    max_retry_delay: Option<PromDuration>,
}

// === impl AzureKeys ===

impl AzureKeys {
    /// What the keys mean, and what is odd about them.
    pub(in crate::objstore) fn settings(
        mut self,
    ) -> Result<(AzureSettings, Vec<String>), AzureConfigError> {
        let account = text(self.storage_account.take()).ok_or(AzureConfigError::Missing {
            problem: "storage_account_name is required but not configured",
            key: "storage_account",
        })?;
        let container = text(self.container.take()).ok_or(AzureConfigError::Missing {
            problem: "no container specified",
            key: "container",
        })?;
        let http = self.http_config.take().unwrap_or_default();
        let mut warnings = http.warnings();
        let tries = self.tries(&mut warnings)?;
        let host = endpoint(text(self.endpoint.take()))?;
        let mut base = format!("https://{account}.{host}");
        let access = self.access(&account, &base)?;
        if let AzureAccess::Connection(connection) = &access {
            base.clone_from(&connection.0.blob_endpoint);
        }
        if text(self.msi_resource.take()).is_some() {
            warnings.push("`msi_resource` has been deprecated and has no effect".to_owned());
        }
        let authority = base.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        let mut client = S3Config::plain(&container, authority, tries);
        client.insecure = base.starts_with("http://");
        let settings = AzureSettings {
            client,
            base,
            access,
            creates: self.storage_create_container.unwrap_or(true),
            http: http.config(),
        };
        Ok((settings, warnings))
    }

    /// Tries of a request, the first included.
    fn tries(&mut self, warnings: &mut Vec<String>) -> Result<Option<i64>, AzureConfigError> {
        let reader = self.reader_config.take().unwrap_or_default();
        if reader.max_retry_requests.is_some_and(|max| max < 0) {
            let key = "reader_config.max_retry_requests";
            return Err(AzureConfigError::Negative { key });
        }
        let pipeline = self.pipeline_config.take().unwrap_or_default();
        if pipeline.max_tries.is_some_and(|max| max < 0) {
            let key = "pipeline_config.max_tries";
            return Err(AzureConfigError::Negative { key });
        }
        let is_set = |given: &Option<PromDuration>| given.is_some_and(|d| !d.to_std().is_zero());
        for (key, given) in [
            ("try_timeout", &pipeline.try_timeout),
            ("retry_delay", &pipeline.retry_delay),
            ("max_retry_delay", &pipeline.max_retry_delay),
        ] {
            if is_set(given) {
                warnings.push(format!(
                    "`pipeline_config.{key}` has no effect: a request is given up when nothing \
                     moves any more, and tried again within a second"
                ));
            }
        }
        let retries = pipeline.max_tries.filter(|max| *max > 0);
        let retries = retries.or(self.max_retries.filter(|max| *max > 0));
        Ok(retries.map(|retries| retries.saturating_add(1)))
    }

    fn access(&mut self, account: &str, base: &str) -> Result<AzureAccess, AzureConfigError> {
        let key = text(self.storage_account_key.take());
        let connection = text(self.storage_connection_string.take());
        let managed = text(self.user_assigned_id.take());
        let tenant = text(self.az_tenant_id.take());
        let client_id = text(self.client_id.take());
        let secret = text(self.client_secret.take());
        for (is_set, other) in [
            (key.is_some(), "storage_account_key"),
            (connection.is_some(), "storage_connection_string"),
            (client_id.is_some(), "client_id"),
        ] {
            if managed.is_some() && is_set {
                let one = "user_assigned_id";
                return Err(AzureConfigError::Both { one, other });
            }
        }
        if key.is_some() && connection.is_some() {
            return Err(AzureConfigError::Both {
                one: "storage_account_key",
                other: "storage_connection_string",
            });
        }
        let application = match (tenant, client_id, secret) {
            (None, None, None) => None,
            (Some(tenant), Some(client_id), Some(client_secret)) => Some(AzureAccess::Secret {
                tenant,
                client_id,
                client_secret,
            }),
            (None, ..) => return Err(half("az_tenant_id")),
            (_, None, _) => return Err(half("client_id")),
            (.., None) => return Err(half("client_secret")),
        };
        if let Some(text) = connection {
            let connection = AzureConnection(Connection::parsed(&text)?);
            return Ok(AzureAccess::Connection(connection));
        }
        if let Some(key) = key {
            let key = BASE64_STANDARD.decode(key.trim());
            let key = key.map_err(|_| AzureConfigError::Key)?;
            return Ok(AzureAccess::Connection(AzureConnection(Connection {
                blob_endpoint: base.to_owned(),
                proof: Proof::Key(SharedKey::new(account, &key)),
            })));
        }
        Ok(match (application, managed) {
            (Some(application), _) => application,
            (None, Some(client_id)) => AzureAccess::Managed { client_id },
            (None, None) => AzureAccess::Default,
        })
    }
}

fn half(missing: &'static str) -> AzureConfigError {
    AzureConfigError::Half { missing }
}

/// An empty value is none.
fn text(given: Option<String>) -> Option<String> {
    given.filter(|text| !text.is_empty())
}

fn endpoint(given: Option<String>) -> Result<String, AzureConfigError> {
    let endpoint = given.unwrap_or_else(|| ENDPOINT.to_owned());
    let is_host = !endpoint.contains(['/', '?', '#', '@'])
        && endpoint.parse::<http::uri::Authority>().is_ok();
    match is_host {
        true => Ok(endpoint),
        false => Err(AzureConfigError::Endpoint { endpoint }),
    }
}
