//! In whose name Google is asked: a service account's key, a user's login, a federated workload, or
//! the account of the machine ("How Application Default Credentials works").

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::document::{absolute, emulator};
use crate::model::Clock;
use crate::objstore::rsa::{RsaKey, RsaKeyError};
use crate::objstore::s3::SdkClient;
use crate::objstore::small_file;
use crate::objstore::token::{
    Question, Token, TokenError, TokenSource, Tokens, parsed, secret_header, until,
};

/// What is asked for: reading and writing objects.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const UNIVERSE: &str = "googleapis.com";
/// Longest life that Google gives an assertion.
const ASSERTION_SECONDS: i128 = 3600;
/// Google's metadata server, by its address: the name is the same on every machine.
const METADATA_HOST: &str = "169.254.169.254";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// Files with credentials are a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

const CREDENTIALS_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// `service_account`, or nothing.
#[derive(Clone, PartialEq, Eq)]
pub enum GcsAccess {
    /// These credentials.
    Given(Box<GoogleCredentials>),
    /// Those that the environment, the home directory or the machine has.
    Default,
}

/// A file with credentials can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ServiceAccountError {
    /// The file can't be read.
    #[error(
        "reading the credentials file {}: give the JSON itself or the path of a file",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not JSON.
    #[error(
        "the credentials are not JSON (line {line}, column {column}): paste the whole key file"
    )]
    Json {
        /// Of the JSON.
        line: usize,
        /// Of the JSON.
        column: usize,
    },
    /// A field that the type of credentials needs.
    #[error("the credentials of type {kind:?} have no `{field}`: paste the whole key file")]
    Missing {
        /// The type.
        kind: String,
        /// The field.
        field: &'static str,
    },
    /// A type that can't be used.
    #[error(
        "credentials of type {kind:?} are not supported: use a key of type service_account, \
         authorized_user or external_account with a file or URL as its source, or leave \
         `service_account` out where the machine has an account of its own"
    )]
    Kind {
        /// The type.
        kind: String,
    },
    /// The private key is none.
    #[error("`private_key` of the credentials")]
    Key(#[from] RsaKeyError),
}

/// Credentials out of a JSON file.
#[derive(Clone, PartialEq, Eq)]
pub struct GoogleCredentials {
    kind: Kind,
    universe: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    ServiceAccount {
        email: String,
        key_id: Option<String>,
        key: RsaKey,
        token_uri: String,
    },
    User {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        token_uri: String,
    },
    External {
        audience: String,
        subject_token_type: String,
        token_url: String,
        impersonation_url: Option<String>,
        source: Box<SubjectSource>,
    },
}

/// Where a federated workload has its own token.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct SubjectSource {
    file: Option<PathBuf>,
    url: Option<String>,
    headers: std::collections::BTreeMap<String, String>,
    format: Format,
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

/// The file's fields, of all types together.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(rename = "type")]
    kind: Option<String>,
    universe_domain: Option<String>,
    client_email: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<String>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<SubjectSource>,
}

// === impl GcsAccess ===

impl GcsAccess {
    /// What `service_account` says: JSON, or the path of a file with it.
    pub(super) fn parsed(
        given: Option<&str>,
        working_directory: &Path,
    ) -> Result<Self, ServiceAccountError> {
        let Some(given) = given.map(str::trim).filter(|given| !given.is_empty()) else {
            return Ok(Self::Default);
        };
        let credentials = match given.starts_with('{') {
            true => GoogleCredentials::parsed(given.as_bytes())?,
            false => GoogleCredentials::read(&absolute(given, working_directory))?,
        };
        Ok(Self::Given(Box::new(credentials)))
    }

    /// The file with a federated workload's own token, which is read again and again.
    pub(in crate::objstore) fn token_file(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Option<PathBuf> {
        let found = match self {
            Self::Given(credentials) => Some((**credentials).clone()),
            // What is wrong with them is told where they are used.
            Self::Default => from_files(variable).ok().flatten(),
        };
        match found?.kind {
            Kind::External { source, .. } => source.file,
            _ => None,
        }
    }
}

impl fmt::Debug for GcsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(credentials) => credentials.fmt(f),
            Self::Default => f.write_str("Default"),
        }
    }
}

// === impl GoogleCredentials ===

impl GoogleCredentials {
    fn read(path: &Path) -> Result<Self, ServiceAccountError> {
        let read = small_file::read(path, FILE_BYTES_MAX);
        let text = read.map_err(|source| ServiceAccountError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parsed(&text)
    }

    fn parsed(json: &[u8]) -> Result<Self, ServiceAccountError> {
        let fields: Fields =
            serde_json::from_slice(json).map_err(|error| ServiceAccountError::Json {
                line: error.line(),
                column: error.column(),
            })?;
        let kind = fields.kind.clone().unwrap_or_default();
        let universe = fields.universe_domain.clone();
        let lacks = |field| ServiceAccountError::Missing {
            kind: kind.clone(),
            field,
        };
        let token_uri = fields.token_uri.filter(|uri| !uri.is_empty());
        let token_uri = token_uri.unwrap_or_else(|| TOKEN_URI.to_owned());
        let of_kind = match kind.as_str() {
            "service_account" => Kind::ServiceAccount {
                email: fields.client_email.ok_or_else(|| lacks("client_email"))?,
                key_id: fields.private_key_id,
                key: RsaKey::from_pem(&fields.private_key.ok_or_else(|| lacks("private_key"))?)?,
                token_uri,
            },
            "authorized_user" => Kind::User {
                client_id: fields.client_id.ok_or_else(|| lacks("client_id"))?,
                client_secret: fields.client_secret.ok_or_else(|| lacks("client_secret"))?,
                refresh_token: fields.refresh_token.ok_or_else(|| lacks("refresh_token"))?,
                token_uri,
            },
            "external_account" => {
                let source = fields.credential_source;
                let source = source.ok_or_else(|| lacks("credential_source"))?;
                if source.file.is_none() && source.url.is_none() {
                    return Err(ServiceAccountError::Kind {
                        kind: "external_account, neither of a file nor of a URL".to_owned(),
                    });
                }
                let subject = fields.subject_token_type;
                Kind::External {
                    audience: fields.audience.ok_or_else(|| lacks("audience"))?,
                    subject_token_type: subject.ok_or_else(|| lacks("subject_token_type"))?,
                    token_url: fields.token_url.ok_or_else(|| lacks("token_url"))?,
                    impersonation_url: fields.service_account_impersonation_url,
                    source: Box::new(source),
                }
            }
            _ => return Err(ServiceAccountError::Kind { kind }),
        };
        Ok(Self {
            kind: of_kind,
            universe: universe.filter(|domain| !domain.is_empty() && domain != UNIVERSE),
        })
    }
}

impl fmt::Debug for GoogleCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::ServiceAccount { email, .. } => write!(f, "service account {email}"),
            Kind::User { client_id, .. } => write!(f, "user of client {client_id}"),
            Kind::External { audience, .. } => write!(f, "external account of {audience}"),
        }
    }
}

/// In whose name a bucket is used, found by the access and the environment.
#[derive(Debug)]
pub(in crate::objstore) struct GcsIdentity {
    /// `None` where nobody asks.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// Where Google's services are, if not at the usual place.
    pub(in crate::objstore) universe: Option<String>,
}

impl GcsIdentity {
    /// Nothing is asked yet, but files are read: one that is named and not there is told at once.
    pub(in crate::objstore) fn new(
        access: &GcsAccess,
        variable: &dyn Fn(&str) -> Option<OsString>,
        client: SdkClient,
        clock: Clock,
    ) -> Result<Self, ServiceAccountError> {
        let found = match access {
            GcsAccess::Given(credentials) => Some((**credentials).clone()),
            // As Google's libraries, which ask no emulator for proof.
            GcsAccess::Default if emulator(variable).is_some() => {
                return Ok(Self {
                    tokens: None,
                    universe: None,
                });
            }
            GcsAccess::Default => from_files(variable)?,
        };
        let universe = found.as_ref().and_then(|found| found.universe.clone());
        let source = match found {
            Some(credentials) => Google::Credentials(credentials),
            None => Google::Machine {
                host: text(variable, "GCE_METADATA_HOST"),
            },
        };
        let source = Asking {
            source,
            client,
            clock: clock.clone(),
        };
        Ok(Self {
            tokens: Some(Arc::new(Tokens::new("gcs", source, clock))),
            universe,
        })
    }
}

/// The file that the environment names, or the one of the command line tool.
fn from_files(
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<GoogleCredentials>, ServiceAccountError> {
    if let Some(path) = variable(CREDENTIALS_FILE).filter(|path| !path.is_empty()) {
        return GoogleCredentials::read(Path::new(&path)).map(Some);
    }
    let Some(home) = variable("HOME").filter(|home| !home.is_empty()) else {
        return Ok(None);
    };
    let path = Path::new(&home).join(".config/gcloud/application_default_credentials.json");
    match GoogleCredentials::read(&path) {
        Ok(credentials) => Ok(Some(credentials)),
        Err(ServiceAccountError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn text(variable: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<String> {
    let value = variable(name)?.into_string().ok()?;
    (!value.is_empty()).then_some(value)
}

/// Who is asked for tokens.
enum Google {
    Credentials(GoogleCredentials),
    Machine { host: Option<String> },
}

struct Asking {
    source: Google,
    client: SdkClient,
    clock: Clock,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Google::Credentials(credentials) => credentials.fmt(f),
            Google::Machine { .. } => f.write_str("the machine's account"),
        }
    }
}

#[async_trait]
impl TokenSource for Asking {
    async fn fetch(&self) -> Result<Token, TokenError> {
        let credentials = match &self.source {
            Google::Credentials(credentials) => credentials,
            Google::Machine { host } => return self.ask_machine(host.as_deref()).await,
        };
        match &credentials.kind {
            Kind::ServiceAccount { token_uri, .. } => {
                let assertion = self.assertion(&credentials.kind)?;
                let pairs = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", assertion.as_str()),
                ];
                let question = Question::form(token_uri, &pairs);
                question.ask_for_token(&self.client, &self.clock).await
            }
            Kind::User {
                client_id,
                client_secret,
                refresh_token,
                token_uri,
            } => {
                let pairs = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret),
                    ("refresh_token", refresh_token),
                ];
                let question = Question::form(token_uri, &pairs);
                question.ask_for_token(&self.client, &self.clock).await
            }
            Kind::External { .. } => self.exchange(&credentials.kind).await,
        }
    }
}

impl Asking {
    /// The assertion of a service account: a JSON web token, signed with its key (RFC 7523).
    fn assertion(&self, kind: &Kind) -> Result<String, TokenError> {
        let Kind::ServiceAccount {
            email,
            key_id,
            key,
            token_uri,
        } = kind
        else {
            return Err(TokenError::Sign("no service account".into()));
        };
        let issued = self.clock.now_ns() / 1_000_000_000;
        let mut header = serde_json::json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = serde_json::json!({
            "iss": email,
            "scope": SCOPE,
            "aud": token_uri,
            "iat": i64::try_from(issued).unwrap_or(0),
            "exp": i64::try_from(issued + ASSERTION_SECONDS).unwrap_or(0),
        });
        let encoded = |part: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = key.sign(signed.as_bytes());
        let signature = signature.map_err(|error| TokenError::Sign(error.into()))?;
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        Ok(format!("{signed}.{signature}"))
    }

    async fn ask_machine(&self, host: Option<&str>) -> Result<Token, TokenError> {
        let uri = format!("http://{}{METADATA_PATH}", host.unwrap_or(METADATA_HOST));
        let flavor = ("metadata-flavor", HeaderValue::from_static("Google"));
        let answer = Question::get(&uri, Some(flavor)).ask_for_token(&self.client, &self.clock);
        answer.await.map_err(|error| match error {
            TokenError::Exchange { .. } => TokenError::NotFound {
                tried: format!(
                    "`service_account` is not set, nor is {CREDENTIALS_FILE}, and {uri} does not \
                     answer"
                ),
                remedy: "set `service_account`, or run where the machine has an account",
            },
            error => error,
        })
    }

    /// A federated workload's own token for one of Google's (RFC 8693), and that for one of the
    /// account it may speak for, where there is one.
    async fn exchange(&self, kind: &Kind) -> Result<Token, TokenError> {
        let Kind::External {
            audience,
            subject_token_type,
            token_url,
            impersonation_url,
            source,
        } = kind
        else {
            return Err(TokenError::Sign("no external account".into()));
        };
        let subject = self.subject_token(source).await?;
        let scope = match impersonation_url {
            Some(_) => "https://www.googleapis.com/auth/cloud-platform",
            None => SCOPE,
        };
        let pairs = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("audience", audience.as_str()),
            ("scope", scope),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("subject_token_type", subject_token_type),
            ("subject_token", &subject),
        ];
        let federated = Question::form(token_url, &pairs);
        let federated = federated.ask_for_token(&self.client, &self.clock).await?;
        match impersonation_url {
            None => Ok(federated),
            Some(url) => self.impersonate(url, &federated).await,
        }
    }

    async fn impersonate(&self, url: &str, federated: &Token) -> Result<Token, TokenError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            access_token: String,
            expire_time: String,
        }
        let wanted = serde_json::json!({"scope": [SCOPE], "lifetime": "3600s"});
        let mut question = Question::post(url, "application/json", wanted.to_string());
        let bearer = secret_header(&format!("Bearer {}", federated.text));
        let bearer = bearer.map_err(|fault| TokenError::Sign(Box::new(fault)))?;
        question.headers.insert(AUTHORIZATION, bearer);
        let answer = question.ask(&self.client).await?;
        let answer: Answer = parsed(answer.body(), url)?;
        let lifetime = until(&answer.expire_time, &self.clock);
        let lifetime = lifetime.ok_or_else(|| TokenError::Answer {
            uri: url.to_owned(),
            missing: "no usable expireTime",
        })?;
        Ok(Token {
            text: answer.access_token,
            lifetime: Some(lifetime),
            place: None,
        })
    }

    /// What the workload has to show; read each time, as it is renewed under the process.
    async fn subject_token(&self, source: &SubjectSource) -> Result<String, TokenError> {
        let (name, body) = match (&source.file, &source.url) {
            (Some(path), _) => {
                let what = format!("the subject token file {}", path.display());
                let read = small_file::read_beside(path.clone(), FILE_BYTES_MAX).await;
                let read = read.map_err(|source| TokenError::File {
                    what: what.clone(),
                    source,
                })?;
                (what, Bytes::from(read))
            }
            (None, Some(url)) => {
                let mut headers = HeaderMap::new();
                for (name, value) in &source.headers {
                    let pair = HeaderName::try_from(name).ok();
                    let pair = pair.zip(HeaderValue::try_from(value).ok());
                    let (name, value) = pair.ok_or_else(|| TokenError::Setting {
                        what: format!("the header {name:?} of credential_source"),
                        problem: "it can't be sent".to_owned(),
                    })?;
                    headers.insert(name, value);
                }
                let question = Question {
                    method: Method::GET,
                    uri: url,
                    headers,
                    body: Bytes::new(),
                };
                (url.clone(), question.ask(&self.client).await?.into_body())
            }
            (None, None) => {
                let missing = "neither file nor url in credential_source";
                let uri = "external_account".to_owned();
                return Err(TokenError::Answer { uri, missing });
            }
        };
        let is_json = source.format.kind.as_deref() == Some("json");
        let token = match (is_json, &source.format.subject_token_field_name) {
            (true, Some(field)) => {
                let value: serde_json::Value = parsed(&body, &name)?;
                let field = value.get(field).and_then(|field| field.as_str());
                field.map(str::to_owned)
            }
            _ => Some(String::from_utf8_lossy(&body).trim().to_owned()),
        };
        token
            .filter(|token| !token.is_empty())
            .ok_or(TokenError::Answer {
                uri: name,
                missing: "no subject token",
            })
    }
}
