//! The mapping `config:` of `type: SWIFT`: every key of the reference and no other (contract
//! `objstore.md` §5).

use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use serde::Deserialize;

use super::login::{Named, SwiftAccess, SwiftLogin, by_application, by_password};
use crate::model::PromDuration;
use crate::net::TlsError;
use crate::net::http::InvalidProxyVariable;
use crate::objstore::s3::{HttpConfig, HttpKeys, S3Config};

/// `large_object_chunk_size` where the document does not say.
const CHUNK_BYTES_DEFAULT: u64 = 1 << 30;
/// What a cluster takes in one request where its operator has not said otherwise.
const CHUNK_BYTES_MAX: u64 = 5 << 30;
/// Tries where the document does not say.
const RETRIES_DEFAULT: i64 = 3;
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

/// All that the document says about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwiftSettings {
    /// What is sent.
    pub client: S3Config,
    /// In whose name.
    pub access: SwiftAccess,
    /// The container of segments, maybe the same as the other.
    pub segments: String,
    /// `use_dynamic_large_objects`.
    pub dynamic: bool,
    /// How long a server may take to be connected.
    pub connect_timeout: Duration,
    /// How long it may take no byte and give none.
    pub timeout: Duration,
    /// Over which connections.
    pub http: HttpConfig,
}

/// The document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SwiftConfigError {
    /// An unknown key, or a value of the wrong type; the text has line and column.
    #[error("parsing the SWIFT configuration: {}", .0)]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// A key that must be there.
    #[error("`{key}` is missing: {remedy}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// Not a URL.
    #[error("`auth_url` {given:?} is not a URL such as https://keystone.example.com:5000/v3")]
    AuthUrl {
        /// As given.
        given: String,
    },
    /// A version of the login that is not there.
    #[error(
        "version {version} of the login is not supported: use Keystone's version 3 (`auth_url` \
         ending in /v3) or Swift's own version 1 (ending in /v1.0), which every maintained release \
         of OpenStack has one of; or set `auth_version` to the one that `auth_url` is of"
    )]
    AuthVersion {
        /// As given, or as the URL says.
        version: String,
    },
    /// `large_object_chunk_size` out of range.
    #[error(
        "`large_object_chunk_size` {given} is out of range: 1 MiB (1048576) to 5 GiB (5368709120) \
         are taken; without the key it is 1 GiB"
    )]
    ChunkSize {
        /// As given, in bytes.
        given: i64,
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
pub(in crate::objstore) struct SwiftKeys {
    auth_version: Option<i64>,
    auth_url: Option<String>,
    username: Option<String>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    user_id: Option<String>,
    password: Option<String>,
    domain_id: Option<String>,
    domain_name: Option<String>,
    application_credential_id: Option<String>,
    application_credential_name: Option<String>,
    application_credential_secret: Option<String>,
    project_id: Option<String>,
    project_name: Option<String>,
    project_domain_id: Option<String>,
    project_domain_name: Option<String>,
    region_name: Option<String>,
    container_name: Option<String>,
    large_object_chunk_size: Option<i64>,
    large_object_segments_container_name: Option<String>,
    retries: Option<i64>,
    connect_timeout: Option<PromDuration>,
    timeout: Option<PromDuration>,
    use_dynamic_large_objects: Option<bool>,
    http_config: Option<HttpKeys>,
}

// === impl SwiftKeys ===

impl SwiftKeys {
    /// What the keys mean, and what is odd about them.
    pub(in crate::objstore) fn settings(
        mut self,
    ) -> Result<(SwiftSettings, Vec<String>), SwiftConfigError> {
        let container = text(self.container_name.take()).ok_or(SwiftConfigError::Missing {
            key: "container_name",
            remedy: "name a container that exists",
        })?;
        let http = self.http_config.take().unwrap_or_default();
        let warnings = http.warnings();
        let auth_url = auth_url(text(self.auth_url.take()))?;
        let version = version(self.auth_version.unwrap_or(0), &auth_url)?;
        let retries = self.retries.filter(|retries| *retries > 0);
        let host = auth_url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default().to_owned();
        let retries = Some(retries.unwrap_or(RETRIES_DEFAULT).saturating_add(1));
        let mut client = S3Config::plain(&container, &host, retries);
        client.insecure = auth_url.starts_with("http://");
        client.set_part_bytes(chunk_bytes(self.large_object_chunk_size)?);
        let segments = text(self.large_object_segments_container_name.take());
        let duration = |given: Option<PromDuration>, default| {
            let given = given.map(PromDuration::to_std).filter(|d| !d.is_zero());
            given.unwrap_or(default)
        };
        let settings = SwiftSettings {
            client,
            segments: segments.unwrap_or(container),
            dynamic: self.use_dynamic_large_objects.unwrap_or(false),
            connect_timeout: duration(self.connect_timeout.take(), CONNECT_TIMEOUT_DEFAULT),
            timeout: duration(self.timeout.take(), TIMEOUT_DEFAULT),
            http: http.config(),
            access: SwiftAccess {
                region: text(self.region_name.take()).unwrap_or_default(),
                login: self.login(version)?,
                auth_url,
            },
        };
        Ok((settings, warnings))
    }

    fn login(&mut self, version: Version) -> Result<SwiftLogin, SwiftConfigError> {
        let missing = |key, remedy| SwiftConfigError::Missing { key, remedy };
        let name = text(self.username.take());
        let password = text(self.password.take());
        if version == Version::V1 {
            let user = name.ok_or_else(|| missing("username", "the user, as account:user"))?;
            let key = password.ok_or_else(|| missing("password", "the user's key"))?;
            return Ok(SwiftLogin::Own { user, key });
        }
        let user = Named {
            id: text(self.user_id.take()),
            name,
        };
        let domain = Named {
            id: text(self.domain_id.take()),
            name: text(self.domain_name.take()),
        };
        let or = |named: Named, other: &Named| {
            if named.is_some() {
                named
            } else {
                other.clone()
            }
        };
        let user_domain = Named {
            id: text(self.user_domain_id.take()),
            name: text(self.user_domain_name.take()),
        };
        // Keystone's own first domain.
        let default = Named {
            id: Some("default".to_owned()),
            name: None,
        };
        let user_domain = or(or(user_domain, &domain), &default);
        let project_domain = Named {
            id: text(self.project_domain_id.take()),
            name: text(self.project_domain_name.take()),
        };
        let project_domain = or(or(project_domain, &domain), &user_domain);
        let credential = Named {
            id: text(self.application_credential_id.take()),
            name: text(self.application_credential_name.take()),
        };
        if credential.is_some() {
            let secret = text(self.application_credential_secret.take()).ok_or_else(|| {
                missing(
                    "application_credential_secret",
                    "it goes with application_credential_id",
                )
            })?;
            if credential.id.is_none() && !user.is_some() {
                return Err(missing(
                    "username",
                    "a credential's name is of a user; or write application_credential_id",
                ));
            }
            let body = by_application(&credential, &secret, &user, &user_domain);
            return Ok(SwiftLogin::Keystone(body));
        }
        if !user.is_some() {
            return Err(missing(
                "username",
                "or user_id, or an application credential",
            ));
        }
        let password = password.ok_or_else(|| missing("password", "the user's password"))?;
        let project = Named {
            id: text(self.project_id.take()),
            name: text(self.project_name.take()),
        };
        let body = by_password(&user, &user_domain, &password, &project, &project_domain);
        Ok(SwiftLogin::Keystone(body))
    }
}

/// Who is asked for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V3,
}

/// As the reference finds it: what is set, or what the URL has in it.
fn version(given: i64, auth_url: &str) -> Result<Version, SwiftConfigError> {
    let version = match given {
        0 if auth_url.contains("v3") => 3,
        0 if auth_url.contains("v2") => 2,
        0 if auth_url.contains("v1") => 1,
        given => given,
    };
    match version {
        1 => Ok(Version::V1),
        3 => Ok(Version::V3),
        0 => Err(SwiftConfigError::AuthVersion {
            version: format!("unknown (`auth_url` {auth_url:?} does not tell)"),
        }),
        other => Err(SwiftConfigError::AuthVersion {
            version: other.to_string(),
        }),
    }
}

fn auth_url(given: Option<String>) -> Result<String, SwiftConfigError> {
    let given = given.ok_or(SwiftConfigError::Missing {
        key: "auth_url",
        remedy: "the address of Keystone, such as https://keystone.example.com:5000/v3",
    })?;
    let parsed: Result<Uri, _> = given.parse();
    let is_url = parsed.is_ok_and(|uri| {
        [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme())
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    match is_url {
        true => Ok(given.trim_end_matches('/').to_owned()),
        false => Err(SwiftConfigError::AuthUrl { given }),
    }
}

fn chunk_bytes(given: Option<i64>) -> Result<u64, SwiftConfigError> {
    let given = given.unwrap_or(0);
    if given == 0 {
        return Ok(CHUNK_BYTES_DEFAULT);
    }
    let bytes = u64::try_from(given).ok();
    let bytes = bytes.filter(|bytes| (1 << 20..=CHUNK_BYTES_MAX).contains(bytes));
    bytes.ok_or(SwiftConfigError::ChunkSize { given })
}

/// An empty value is none.
fn text(given: Option<String>) -> Option<String> {
    given.filter(|text| !text.is_empty())
}
