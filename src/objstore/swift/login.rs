//! Tokens and the store's address: of Keystone ("Identity API v3", password and application
//! credentials), or of Swift itself (v1).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::Clock;
use crate::objstore::s3::SdkClient;
use crate::objstore::token::{Question, Token, TokenError, TokenSource, parsed, until};

/// In whose name, and where that is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct SwiftAccess {
    pub(super) auth_url: String,
    pub(super) login: SwiftLogin,
    /// Which region's store; empty for the first.
    pub(super) region: String,
}

/// A way to log in. No `Debug` form: it holds secrets.
#[expect(missing_debug_implementations, reason = "it holds secrets")]
#[derive(Clone, PartialEq, Eq)]
pub enum SwiftLogin {
    /// Swift's own, v1.
    Own {
        /// The user, often `account:user`.
        user: String,
        /// Its key.
        key: String,
    },
    /// Keystone's v3, with the body of the request; it holds the password.
    Keystone(Value),
}

impl fmt::Debug for SwiftAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.login {
            SwiftLogin::Own { .. } => "v1",
            SwiftLogin::Keystone(_) => "v3",
        };
        write!(f, "login {kind} at {}", self.auth_url)
    }
}

/// Asks for tokens.
pub(super) struct Asking {
    pub(super) access: SwiftAccess,
    pub(super) client: SdkClient,
    pub(super) clock: Clock,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.access.fmt(f)
    }
}

#[derive(Deserialize)]
struct Answer {
    token: TokenBody,
}

#[derive(Deserialize)]
struct TokenBody {
    expires_at: Option<String>,
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    region_id: Option<String>,
    url: String,
}

#[async_trait]
impl TokenSource for Asking {
    async fn fetch(&self) -> Result<Token, TokenError> {
        match &self.access.login {
            SwiftLogin::Own { user, key } => self.ask_swift(user, key).await,
            SwiftLogin::Keystone(body) => self.ask_keystone(body).await,
        }
    }
}

impl Asking {
    async fn ask_swift(&self, user: &str, key: &str) -> Result<Token, TokenError> {
        let uri = &self.access.auth_url;
        let mut question = Question::get(uri, None);
        for (name, value) in [("x-auth-user", user), ("x-auth-key", key)] {
            let value = HeaderValue::try_from(value).map_err(|_| TokenError::Setting {
                what: if name == "x-auth-user" {
                    "`username`"
                } else {
                    "`password`"
                }
                .to_owned(),
                problem: "it can't be sent in a header".to_owned(),
            })?;
            question.headers.insert(name, value);
        }
        let answer = question.ask(&self.client).await?;
        let header = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        let lacks = |missing| TokenError::Answer {
            uri: uri.clone(),
            missing,
        };
        let seconds = header("x-auth-token-expires").and_then(|text| text.parse().ok());
        let place = header("x-storage-url").ok_or_else(|| lacks("no X-Storage-Url"))?;
        Ok(Token {
            text: header("x-auth-token").ok_or_else(|| lacks("no X-Auth-Token"))?,
            lifetime: seconds.map(Duration::from_secs),
            place: Some(place.trim_end_matches('/').to_owned()),
        })
    }

    async fn ask_keystone(&self, body: &Value) -> Result<Token, TokenError> {
        let uri = format!("{}/auth/tokens", self.access.auth_url);
        let question = Question::post(&uri, "application/json", body.to_string());
        let answer = question.ask(&self.client).await?;
        let lacks = |missing| TokenError::Answer {
            uri: uri.clone(),
            missing,
        };
        let subject = answer.headers().get("x-subject-token");
        let subject = subject.and_then(|token| token.to_str().ok());
        let subject = subject
            .ok_or_else(|| lacks("no X-Subject-Token"))?
            .to_owned();
        let token = parsed::<Answer>(answer.body(), &uri)?.token;
        let place = place(&token.catalog, &self.access.region).ok_or_else(|| {
            lacks(
                "its catalog has no public endpoint of an object store (in `region_name`, where \
                 that is set, and for the project that the login is for)",
            )
        })?;
        let lifetime = match &token.expires_at {
            None => None,
            Some(at) => Some(until(at, &self.clock).ok_or_else(|| lacks("no usable expires_at"))?),
        };
        Ok(Token {
            text: subject,
            lifetime,
            place: Some(place),
        })
    }
}

/// The public address of the object store in `region`; empty for any.
fn place(catalog: &[Service], region: &str) -> Option<String> {
    let stores = catalog
        .iter()
        .filter(|service| service.kind == "object-store");
    let mut endpoints = stores.flat_map(|service| &service.endpoints);
    let endpoint = endpoints.find(|endpoint| {
        let regions = [&endpoint.region, &endpoint.region_id];
        let here = regions.iter().any(|known| known.as_deref() == Some(region));
        endpoint.interface == "public" && (region.is_empty() || here)
    })?;
    Some(endpoint.url.trim_end_matches('/').to_owned())
}

/// A name or an id, as Keystone's requests have them.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
}

impl Named {
    pub(super) fn is_some(&self) -> bool {
        self.id.is_some() || self.name.is_some()
    }

    fn json(&self) -> Option<Value> {
        match (&self.id, &self.name) {
            (Some(id), _) => Some(json!({ "id": id })),
            (None, Some(name)) => Some(json!({ "name": name })),
            (None, None) => None,
        }
    }

    /// With the domain that a name is of.
    fn json_in(&self, domain: &Self) -> Value {
        let mut value = self.json().unwrap_or_else(|| json!({}));
        if self.id.is_none()
            && let Some(domain) = domain.json()
        {
            value["domain"] = domain;
        }
        value
    }
}

/// A login by password.
pub(super) fn by_password(
    user: &Named,
    user_domain: &Named,
    password: &str,
    project: &Named,
    project_domain: &Named,
) -> Value {
    let mut who = user.json_in(user_domain);
    who["password"] = password.into();
    let mut body = json!({"auth": {"identity": {
        "methods": ["password"],
        "password": {"user": who},
    }}});
    if project.is_some() {
        body["auth"]["scope"] = json!({"project": project.json_in(project_domain)});
    }
    body
}

/// A login by an application credential, which has its project by itself.
pub(super) fn by_application(
    credential: &Named,
    secret: &str,
    user: &Named,
    user_domain: &Named,
) -> Value {
    let mut what = credential.json().unwrap_or_else(|| json!({}));
    what["secret"] = secret.into();
    if credential.id.is_none() {
        what["user"] = user.json_in(user_domain);
    }
    json!({"auth": {"identity": {
        "methods": ["application_credential"],
        "application_credential": what,
    }}})
}
