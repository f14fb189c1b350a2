//! The sources of credentials in their order: environment, shared files, and by role: web
//! identity, container, instance metadata.
//!
//! A source that is not set up is passed over; one that is and fails ends the search, because
//! going on would hide why, and end in anonymous requests. Instance metadata is set up nowhere:
//! it is there or not.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::imds;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use http::Uri;

use super::CredentialsError;
use super::container::{Container, ContainerError};
use super::files::{self, shared_path};
use super::sdk::SdkClient;
use crate::model::Clock;
use crate::net::http::ClientConfig;
use crate::objstore::Variables;

/// A machine without the metadata service must not wait for it.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// In a container the token's answer may have too few hops to arrive.
const METADATA_READ_TIMEOUT: Duration = Duration::from_secs(2);
const METADATA_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const METADATA_OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
const METADATA_ATTEMPTS: u32 = 3;
/// What the reference asks for.
const METADATA_TOKEN_TTL: Duration = Duration::from_secs(21_600);
const METADATA_ENDPOINT: &str = "http://169.254.169.254";
const METADATA_ENDPOINT_V6: &str = "http://[fd00:ec2::254]";

/// Where to look for credentials and with what.
pub(in crate::objstore) struct ChainSettings {
    /// Instead of the address of STS, and of the container's and instance's service.
    pub(in crate::objstore) sts_endpoint: Option<Uri>,
    /// Whether none is an error.
    pub(in crate::objstore) required: bool,
    /// Whether some are an error.
    pub(in crate::objstore) signature_version2: bool,
    /// The environment.
    pub(in crate::objstore) variable: Variables,
    /// Decides what is expired.
    pub(in crate::objstore) clock: Clock,
    /// Towards STS. Link-local services are reached with the same TLS and without a proxy.
    pub(in crate::objstore) http: ClientConfig,
}

/// What a search came to.
#[derive(Debug)]
pub(super) enum Found {
    Credentials {
        origin: &'static str,
        credentials: Credentials,
    },
    /// Each source and why it has none.
    Nothing { tried: String },
}

/// The sources.
pub(super) struct Sources {
    settings: ChainSettings,
    client: SdkClient,
    /// Kept, as it goes on with old credentials while the service is away.
    metadata: Result<ImdsCredentialsProvider, Arc<dyn StdError + Send + Sync>>,
}

/// What one source says.
enum Answer {
    Some(Credentials),
    /// Not set up, or there are none.
    None(String),
    Failed(Arc<dyn StdError + Send + Sync>),
}

// === impl Sources ===

impl Sources {
    pub(super) fn new(settings: ChainSettings) -> Self {
        let client = SdkClient::new(settings.http.clone());
        let metadata = metadata(&settings, &client).map_err(Arc::from);
        Self {
            settings,
            client,
            metadata,
        }
    }

    /// Asks one source after the other.
    pub(super) async fn search(&self) -> Result<Found, CredentialsError> {
        let mut tried = Vec::new();
        for origin in [
            "environment",
            "shared file",
            "web identity",
            "container",
            "instance metadata",
        ] {
            let answer = match origin {
                "environment" => self.environment(),
                "shared file" => self.shared_file().await,
                "web identity" => self.web_identity().await,
                "container" => self.container().await,
                _ => self.instance_metadata().await,
            };
            match answer {
                Answer::Some(credentials) => {
                    return Ok(Found::Credentials {
                        origin,
                        credentials,
                    });
                }
                Answer::None(why) => tried.push(format!("{origin} ({why})")),
                Answer::Failed(source) => {
                    return Err(CredentialsError::Source {
                        origin,
                        tried: tried.join(", "),
                        source,
                    });
                }
            }
        }
        Ok(Found::Nothing {
            tried: tried.join(", "),
        })
    }

    /// The variable's value; one that is empty is not set.
    fn variable(&self, name: &str) -> Option<String> {
        variable(&self.settings, name)
    }

    fn environment(&self) -> Answer {
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| self.variable(name));
        let access_key = first(["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]);
        let secret_key = first(["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]);
        match (access_key, secret_key) {
            (Some(access_key), Some(secret_key)) => Answer::Some(Credentials::new(
                access_key,
                secret_key,
                self.variable("AWS_SESSION_TOKEN"),
                None,
                "environment",
            )),
            (None, _) => Answer::None("AWS_ACCESS_KEY_ID is not set".to_owned()),
            (Some(_), None) => Answer::None("AWS_SECRET_ACCESS_KEY is not set".to_owned()),
        }
    }

    #[expect(
        deprecated,
        reason = "the names that replace these are in a crate which aws-config does not re-export"
    )]
    async fn shared_file(&self) -> Answer {
        use aws_config::profile::profile_file::{Builder, ProfileFileKind};
        let files = [
            ("AWS_CONFIG_FILE", "config", ProfileFileKind::Config),
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                "credentials",
                ProfileFileKind::Credentials,
            ),
        ];
        let mut profiles = Builder::new();
        let mut read = Vec::new();
        for (name, default, kind) in files {
            let variable = |name: &str| self.variable(name);
            let Some(path) = shared_path(&variable, name, default) else {
                continue;
            };
            match read_shared(path.clone()).await {
                Ok(None) => {}
                Ok(Some(text)) => {
                    profiles = profiles.with_contents(kind, text);
                    read.push(path.display().to_string());
                }
                Err(error) => return Answer::Failed(Arc::new(error)),
            }
        }
        if read.is_empty() {
            return Answer::None("there is none".to_owned());
        }
        let profile = self.variable("AWS_PROFILE");
        let profile = profile.unwrap_or_else(|| "default".to_owned());
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&self.client.provider_config(&self.settings, None))
            .profile_name(profile.clone())
            .profile_files(profiles.build())
            .build();
        match provider.provide_credentials().await {
            Ok(credentials) => Answer::Some(credentials),
            Err(SdkError::CredentialsNotLoaded(_)) => Answer::None(format!(
                "no credentials in profile {profile:?} of {}",
                read.join(" and ")
            )),
            Err(error) => Answer::Failed(Arc::new(error)),
        }
    }

    /// Where a shared file is: as the variable says, else in the home directory.
    async fn web_identity(&self) -> Answer {
        let Some(token_file) = self.variable("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Answer::None("AWS_WEB_IDENTITY_TOKEN_FILE is not set".to_owned());
        };
        let Some(role_arn) = self.variable("AWS_ROLE_ARN") else {
            return Answer::None("AWS_ROLE_ARN is not set".to_owned());
        };
        let session_name = self.variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| {
            let now_ms = self.settings.clock.now().0;
            format!("outrigger-{now_ms}")
        });
        let endpoint = match self.sts_endpoint() {
            Ok(endpoint) => endpoint,
            Err(error) => return Answer::Failed(Arc::new(error)),
        };
        let provider = WebIdentityTokenCredentialsProvider::builder()
            .configure(&self.client.provider_config(&self.settings, Some(endpoint)))
            .static_configuration(StaticConfiguration {
                web_identity_token_file: PathBuf::from(token_file),
                role_arn,
                session_name,
            })
            .build();
        match provider.provide_credentials().await {
            Ok(credentials) => Answer::Some(credentials),
            Err(error) => Answer::Failed(Arc::new(error)),
        }
    }

    /// Where STS is: as configured, else that of the region, else the global one.
    pub(super) fn sts_endpoint(&self) -> Result<Uri, http::uri::InvalidUri> {
        if let Some(endpoint) = &self.settings.sts_endpoint {
            return Ok(endpoint.clone());
        }
        match self.variable("AWS_REGION") {
            None => Ok(Uri::from_static("https://sts.amazonaws.com")),
            Some(region) if region.starts_with("cn-") => {
                format!("https://sts.{region}.amazonaws.com.cn").parse()
            }
            Some(region) => format!("https://sts.{region}.amazonaws.com").parse(),
        }
    }

    async fn container(&self) -> Answer {
        let variable = |name: &str| self.variable(name);
        let container = Container::new(self.settings.sts_endpoint.as_ref(), &variable);
        match container {
            Ok(None) => Answer::None("AWS_CONTAINER_CREDENTIALS_… is not set".to_owned()),
            Ok(Some(container)) => match container.fetch(&self.client).await {
                Ok(credentials) => Answer::Some(credentials),
                Err(error) => Answer::Failed(Arc::new(error)),
            },
            Err(error) => Answer::Failed(Arc::<ContainerError>::new(error)),
        }
    }

    async fn instance_metadata(&self) -> Answer {
        let disabled = self.variable("AWS_EC2_METADATA_DISABLED");
        if disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Answer::None("AWS_EC2_METADATA_DISABLED is true".to_owned());
        }
        let provider = match &self.metadata {
            Ok(provider) => provider,
            Err(error) => return Answer::Failed(Arc::clone(error)),
        };
        match provider.provide_credentials().await {
            Ok(credentials) => Answer::Some(credentials),
            Err(SdkError::CredentialsNotLoaded(_)) => {
                Answer::None("it does not answer, or has no role for this instance".to_owned())
            }
            Err(error) => Answer::Failed(Arc::new(error)),
        }
    }
}

/// The instance metadata service: IMDSv2 only.
fn metadata(
    settings: &ChainSettings,
    client: &SdkClient,
) -> Result<ImdsCredentialsProvider, Box<dyn StdError + Send + Sync>> {
    let endpoint = match &settings.sts_endpoint {
        Some(endpoint) => endpoint.to_string(),
        None => variable(settings, "AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| {
            let mode = variable(settings, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
            match mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6")) {
                true => METADATA_ENDPOINT_V6.to_owned(),
                false => METADATA_ENDPOINT.to_owned(),
            }
        }),
    };
    let config = client.provider_config(settings, None);
    let imds_client = imds::Client::builder()
        .configure(&config)
        .endpoint(endpoint)?
        .max_attempts(METADATA_ATTEMPTS)
        .token_ttl(METADATA_TOKEN_TTL)
        .connect_timeout(METADATA_CONNECT_TIMEOUT)
        .read_timeout(METADATA_READ_TIMEOUT)
        .operation_attempt_timeout(METADATA_ATTEMPT_TIMEOUT)
        .operation_timeout(METADATA_OPERATION_TIMEOUT)
        .build();
    Ok(ImdsCredentialsProvider::builder()
        .configure(&config)
        .imds_client(imds_client)
        .build())
}

fn variable(settings: &ChainSettings, name: &str) -> Option<String> {
    let value = (settings.variable)(name)?.into_string().ok()?;
    (!value.is_empty()).then_some(value)
}

/// A shared file could not be read, although it is there.
#[derive(Debug, thiserror::Error)]
#[error("reading {}", path.display())]
struct SharedFileError {
    path: PathBuf,
    source: std::io::Error,
}

/// `None` where there is no such file.
async fn read_shared(path: PathBuf) -> Result<Option<String>, SharedFileError> {
    let named = path.clone();
    let read = tokio::task::spawn_blocking(move || files::read_shared(&path));
    let read = read.await.map_err(std::io::Error::other).flatten();
    read.map_err(|source| SharedFileError {
        path: named,
        source,
    })
}
