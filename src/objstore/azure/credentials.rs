//! In whose name Azure is asked: a key, a signature, an application's secret, or the identity of
//! the workload or machine, in the order of Microsoft's default credential.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderValue;

use super::connection::{Connection, Proof};
use super::sign::SharedKey;
use crate::model::Clock;
use crate::objstore::s3::SdkClient;
use crate::objstore::small_file;
use crate::objstore::token::{Question, Token, TokenError, TokenSource, Tokens, form};

/// What tokens are for: blob storage, in every cloud.
const RESOURCE: &str = "https://storage.azure.com/";
const SCOPE: &str = "https://storage.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The instance metadata service.
const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A federated token is one or two KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the document says about it.
#[derive(Clone, PartialEq, Eq)]
pub enum AzureAccess {
    /// A connection string or a key.
    Connection(AzureConnection),
    /// `az_tenant_id`, `client_id` and `client_secret`.
    Secret {
        /// The directory.
        tenant: String,
        /// The application.
        client_id: String,
        /// Its password.
        client_secret: String,
    },
    /// `user_assigned_id`: the client id of a managed identity.
    Managed {
        /// The identity.
        client_id: String,
    },
    /// None of these: whatever the environment or the machine has.
    Default,
}

/// An endpoint with a key or a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureConnection(pub(super) Connection);

/// What the environment says can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AzureCredentialsError {
    /// A way to have tokens that is not there.
    #[error(
        "{variable} is set, and {what} are not supported: use AZURE_CLIENT_SECRET, a workload \
         identity or a managed identity"
    )]
    Unsupported {
        /// The environment variable.
        variable: &'static str,
        /// What it asks for.
        what: &'static str,
    },
    /// Some variables of a way, and not all.
    #[error("{set} is set and {missing} is not: set both, or neither")]
    Half {
        /// The variable that is there.
        set: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
}

impl fmt::Debug for AzureAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(connection) => connection.0.fmt(f),
            Self::Secret { client_id, .. } => write!(f, "application {client_id}"),
            Self::Managed { client_id } => write!(f, "managed identity {client_id}"),
            Self::Default => f.write_str("Default"),
        }
    }
}

/// In whose name a container is used.
#[derive(Debug)]
pub(in crate::objstore) struct AzureIdentity {
    pub(super) proven: Proven,
}

/// How that is proven.
pub(super) enum Proven {
    Key(SharedKey),
    Signature(String),
    Tokens(Arc<Tokens>),
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Signature(_) => f.write_str("a shared access signature"),
            Self::Tokens(tokens) => tokens.fmt(f),
        }
    }
}

impl AzureIdentity {
    /// Nothing is asked yet.
    pub(in crate::objstore) fn new(
        access: &AzureAccess,
        variable: &dyn Fn(&str) -> Option<OsString>,
        client: SdkClient,
        clock: Clock,
    ) -> Result<Self, AzureCredentialsError> {
        let environment = Environment(variable);
        let source = match access {
            AzureAccess::Connection(connection) => {
                let proven = match &connection.0.proof {
                    Proof::Key(key) => Proven::Key(key.clone()),
                    Proof::Signature(query) => Proven::Signature(query.clone()),
                };
                return Ok(Self { proven });
            }
            AzureAccess::Secret {
                tenant,
                client_id,
                client_secret,
            } => Source::Application {
                uri: environment.token_uri(tenant),
                client_id: client_id.clone(),
                proof: ApplicationProof::Secret(client_secret.clone()),
            },
            AzureAccess::Managed { client_id } => environment.managed(Some(client_id.clone())),
            AzureAccess::Default => environment.default_source()?,
        };
        let source = Asking {
            source,
            client,
            clock: clock.clone(),
        };
        Ok(Self {
            proven: Proven::Tokens(Arc::new(Tokens::new("azure", source, clock))),
        })
    }
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    fn text(&self, name: &str) -> Option<String> {
        let value = (self.0)(name)?.into_string().ok()?;
        (!value.is_empty()).then_some(value)
    }

    fn token_uri(&self, tenant: &str) -> String {
        let authority = self.text("AZURE_AUTHORITY_HOST");
        let authority = authority.unwrap_or_else(|| AUTHORITY.to_owned());
        let authority = authority.trim_end_matches('/');
        format!("{authority}/{tenant}/oauth2/v2.0/token")
    }

    /// App Service and its like name a service of their own, all others have the link-local one.
    fn managed(&self, client_id: Option<String>) -> Source {
        let own = self
            .text("IDENTITY_ENDPOINT")
            .zip(self.text("IDENTITY_HEADER"));
        Source::Managed { client_id, own }
    }

    /// Environment, workload identity, managed identity.
    fn default_source(&self) -> Result<Source, AzureCredentialsError> {
        for (variable, what) in [
            ("AZURE_CLIENT_CERTIFICATE_PATH", "client certificates"),
            ("AZURE_USERNAME", "a user's name and password"),
        ] {
            if self.text(variable).is_some() {
                return Err(AzureCredentialsError::Unsupported { variable, what });
            }
        }
        let (tenant, client_id) = (self.text("AZURE_TENANT_ID"), self.text("AZURE_CLIENT_ID"));
        let proof = match (
            self.text("AZURE_CLIENT_SECRET"),
            self.text("AZURE_FEDERATED_TOKEN_FILE"),
        ) {
            (Some(secret), _) => ("AZURE_CLIENT_SECRET", ApplicationProof::Secret(secret)),
            (None, Some(path)) => (
                "AZURE_FEDERATED_TOKEN_FILE",
                ApplicationProof::File(path.into()),
            ),
            (None, None) => return Ok(self.managed(client_id)),
        };
        let (set, proof) = proof;
        let half = |missing| AzureCredentialsError::Half { set, missing };
        let tenant = tenant.ok_or_else(|| half("AZURE_TENANT_ID"))?;
        Ok(Source::Application {
            uri: self.token_uri(&tenant),
            client_id: client_id.ok_or_else(|| half("AZURE_CLIENT_ID"))?,
            proof,
        })
    }
}

/// Who gives tokens.
enum Source {
    Application {
        uri: String,
        client_id: String,
        proof: ApplicationProof,
    },
    Managed {
        client_id: Option<String>,
        /// Address and secret of a service of this machine's own.
        own: Option<(String, String)>,
    },
}

enum ApplicationProof {
    Secret(String),
    /// Read each time: it is renewed under the process.
    File(PathBuf),
}

struct Asking {
    source: Source,
    client: SdkClient,
    clock: Clock,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Application { client_id, .. } => write!(f, "application {client_id}"),
            Source::Managed { client_id, .. } => match client_id {
                Some(client_id) => write!(f, "managed identity {client_id}"),
                None => f.write_str("the machine's managed identity"),
            },
        }
    }
}

#[async_trait]
impl TokenSource for Asking {
    async fn fetch(&self) -> Result<Token, TokenError> {
        match &self.source {
            Source::Application {
                uri,
                client_id,
                proof,
            } => self.ask_directory(uri, client_id, proof).await,
            Source::Managed { client_id, own } => {
                self.ask_machine(client_id.as_deref(), own.as_ref()).await
            }
        }
    }
}

impl Asking {
    async fn ask_directory(
        &self,
        uri: &str,
        client_id: &str,
        proof: &ApplicationProof,
    ) -> Result<Token, TokenError> {
        let mut pairs = vec![
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("scope", SCOPE),
        ];
        let assertion;
        match proof {
            ApplicationProof::Secret(secret) => pairs.push(("client_secret", secret)),
            ApplicationProof::File(path) => {
                let read = small_file::read_beside(path.clone(), FILE_BYTES_MAX).await;
                let read = read.map_err(|source| TokenError::File {
                    what: format!("AZURE_FEDERATED_TOKEN_FILE {}", path.display()),
                    source,
                })?;
                assertion = String::from_utf8_lossy(&read).trim().to_owned();
                pairs.push(("client_assertion_type", ASSERTION_TYPE));
                pairs.push(("client_assertion", &assertion));
            }
        }
        Question::form(uri, &pairs)
            .ask_for_token(&self.client, &self.clock)
            .await
    }

    async fn ask_machine(
        &self,
        client_id: Option<&str>,
        own: Option<&(String, String)>,
    ) -> Result<Token, TokenError> {
        let (base, version, header) = match own {
            Some((endpoint, secret)) => {
                let secret = HeaderValue::try_from(secret).map_err(|_| TokenError::Setting {
                    what: "IDENTITY_HEADER".to_owned(),
                    problem: "it can't be sent in a header".to_owned(),
                })?;
                (
                    endpoint.as_str(),
                    "2019-08-01",
                    ("x-identity-header", secret),
                )
            }
            None => {
                let header = ("metadata", HeaderValue::from_static("true"));
                (METADATA, "2018-02-01", header)
            }
        };
        let mut pairs = vec![("api-version", version), ("resource", RESOURCE)];
        pairs.extend(client_id.map(|client_id| ("client_id", client_id)));
        let uri = format!("{base}?{}", form(&pairs));
        let answer = Question::get(&uri, Some(header)).ask_for_token(&self.client, &self.clock);
        answer.await.map_err(|error| match error {
            TokenError::Exchange { .. } => TokenError::NotFound {
                tried: format!(
                    "neither storage_account_key, storage_connection_string nor client_secret is \
                     set, the environment has no AZURE_CLIENT_SECRET and no \
                     AZURE_FEDERATED_TOKEN_FILE, and {base} does not answer"
                ),
                remedy: "set one of them, or run where the machine has a managed identity (a \
                         login of the command line tool is not used)",
            },
            error => error,
        })
    }
}
