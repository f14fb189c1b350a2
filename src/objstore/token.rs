//! Tokens that prove in whose name requests are, for the stores that sign nothing: fetched when
//! they are first needed, kept until shortly before they expire, and fetched again then, or when
//! the store has refused them. Callers that need one at the same time share one fetch. No token is
//! in any message or `Debug` form.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::s3::{ExchangeError, S3Fault, SdkClient, uri_encoded};
use crate::model::{Clock, ErrorChain};

/// Longest waits for a connection to whoever gives tokens, and for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// A token is replaced this long before it expires, or a quarter of its time where that is less.
const RENEW_AHEAD_MAX: Duration = Duration::from_secs(300);
/// After a renewal that failed while the old token was still good.
const RENEW_PAUSE: Duration = Duration::from_secs(10);
/// Texts of servers are cut here.
const TEXT_CHARS_MAX: usize = 300;

/// A token and what came with it.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: String,
    /// `None`: it never does.
    pub(super) lifetime: Option<Duration>,
    /// Where the store is, where whoever gives tokens says so.
    pub(super) place: Option<String>,
}

/// Where tokens come from.
#[async_trait]
pub(super) trait TokenSource: fmt::Debug + Send + Sync {
    /// A new one.
    async fn fetch(&self) -> Result<Token, TokenError>;
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("asking {uri} for a token")]
    Exchange {
        uri: String,
        source: Box<ExchangeError>,
    },
    #[error("{uri} answered with status {status}{text}")]
    Status {
        uri: String,
        status: StatusCode,
        /// With `: ` before it, or empty.
        text: String,
    },
    #[error("{uri} answered with something that is no token: {missing}")]
    Answer { uri: String, missing: &'static str },
    #[error("{what} is not usable: {problem}")]
    Setting { what: String, problem: String },
    #[error("reading {what}")]
    File {
        what: String,
        source: std::io::Error,
    },
    #[error("no credentials were found: {tried}; {remedy}")]
    NotFound { tried: String, remedy: &'static str },
    #[error("signing the request for a token")]
    Sign(#[source] Box<dyn StdError + Send + Sync>),
}

/// Tokens of one source.
pub(super) struct Tokens {
    source: Box<dyn TokenSource>,
    component: &'static str,
    clock: Clock,
    held: Mutex<Option<Held>>,
    /// Held while the source is asked.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Held {
    token: Arc<Token>,
    renew_at_ns: Option<i128>,
    expires_at_ns: Option<i128>,
}

/// The answer of OAuth 2.0 (RFC 6749 §5.1); Azure's metadata service writes the number as a text.
/// No `Debug` form: it holds a secret.
#[derive(Deserialize)]
struct OAuthAnswer {
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
    /// A moment in seconds, which Azure's App Service gives instead.
    expires_on: Option<serde_json::Value>,
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn new(
        component: &'static str,
        source: impl TokenSource + 'static,
        clock: Clock,
    ) -> Self {
        Self {
            source: Box::new(source),
            component,
            clock,
            held: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The token to use now.
    pub(super) async fn current(&self) -> Result<Arc<Token>, S3Fault> {
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let _turn = self.fetching.lock().await;
        // Somebody else may have fetched one in the meantime.
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        match self.source.fetch().await {
            Ok(token) => Ok(self.keep(token)),
            Err(error) => self.despite(error),
        }
    }

    /// Adds `Authorization: Bearer`.
    pub(super) async fn bear(&self, headers: &mut HeaderMap) -> Result<(), S3Fault> {
        let token = self.current().await?;
        let value = secret_header(&format!("Bearer {}", token.text))?;
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// Forgets the token that the store has refused.
    pub(super) fn invalidate(&self) {
        *self.held() = None;
    }

    fn fresh(&self) -> Option<Arc<Token>> {
        let now = self.clock.now_ns();
        let held = self.held();
        let held = held.as_ref()?;
        let is_fresh = held.renew_at_ns.is_none_or(|at| now < at);
        is_fresh.then(|| Arc::clone(&held.token))
    }

    fn keep(&self, token: Token) -> Arc<Token> {
        let now = self.clock.now_ns();
        let token = Arc::new(token);
        let after = |duration: Duration| now.saturating_add(nanos(duration));
        let held = Held {
            renew_at_ns: token
                .lifetime
                .map(|lifetime| after(lifetime.saturating_sub(RENEW_AHEAD_MAX.min(lifetime / 4)))),
            expires_at_ns: token.lifetime.map(after),
            token: Arc::clone(&token),
        };
        let mut before = self.held();
        if before.is_none() {
            tracing::info!(component = self.component, source = ?self.source, "token obtained");
        }
        *before = Some(held);
        token
    }

    /// The old token, where it is still good; or the error.
    fn despite(&self, error: TokenError) -> Result<Arc<Token>, S3Fault> {
        let now = self.clock.now_ns();
        let mut held = self.held();
        if let Some(held) = held.as_mut()
            && held.expires_at_ns.is_none_or(|at| now < at)
        {
            tracing::warn!(
                component = self.component,
                err = %ErrorChain(&error),
                "the token could not be renewed, the old one is still valid"
            );
            held.renew_at_ns = Some(now.saturating_add(nanos(RENEW_PAUSE)));
            return Ok(Arc::clone(&held.token));
        }
        Err(S3Fault::Credentials(Box::new(error)))
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.source).finish()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut form = f.debug_struct("Token");
        form.field("place", &self.place).finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// A header that is told to nobody.
pub(super) fn secret_header(text: &str) -> Result<HeaderValue, S3Fault> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| S3Fault::Sign("a token that can't be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Pairs as `application/x-www-form-urlencoded`.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", uri_encoded(value, false)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A request about tokens.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) uri: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> Question<'a> {
    pub(super) fn get(uri: &'a str, header: Option<(&'static str, HeaderValue)>) -> Self {
        Self {
            method: Method::GET,
            uri,
            headers: header.map_or_else(HeaderMap::new, |(name, value)| {
                let mut headers = HeaderMap::new();
                headers.insert(name, value);
                headers
            }),
            body: Bytes::new(),
        }
    }

    pub(super) fn post(uri: &'a str, content_type: &'static str, body: String) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            method: Method::POST,
            uri,
            headers,
            body: body.into(),
        }
    }

    pub(super) fn form(uri: &'a str, pairs: &[(&str, &str)]) -> Self {
        Self::post(uri, "application/x-www-form-urlencoded", form(pairs))
    }

    /// The answer, which says yes.
    pub(super) async fn ask(self, client: &SdkClient) -> Result<Response<Bytes>, TokenError> {
        let uri = || without_query(self.uri).to_owned();
        let setting = |problem: String| TokenError::Setting {
            what: format!("the address {}", uri()),
            problem,
        };
        let parsed: Uri = self
            .uri
            .parse()
            .map_err(|error: http::uri::InvalidUri| setting(error.to_string()))?;
        let length = self.body.len();
        let mut request = Request::builder()
            .method(&self.method)
            .uri(parsed)
            .body(self.body)
            .map_err(|error| setting(error.to_string()))?;
        *request.headers_mut() = self.headers;
        if self.method == Method::POST {
            request
                .headers_mut()
                .insert("content-length", length.into());
        }
        let answer = client.exchange(request, CONNECT_TIMEOUT, READ_TIMEOUT);
        let answer = answer.await.map_err(|source| TokenError::Exchange {
            uri: uri(),
            source: Box::new(source),
        })?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(TokenError::Status {
                uri: uri(),
                status: answer.status(),
                text: told(answer.body()),
            }),
        }
    }

    /// The token of an OAuth 2.0 answer.
    pub(super) async fn ask_for_token(
        self,
        client: &SdkClient,
        clock: &Clock,
    ) -> Result<Token, TokenError> {
        let uri = without_query(self.uri).to_owned();
        let answer = self.ask(client).await?;
        let answer: OAuthAnswer = parsed(answer.body(), &uri)?;
        let lacks = |missing| TokenError::Answer {
            uri: uri.clone(),
            missing,
        };
        let text = answer.access_token.filter(|text| !text.is_empty());
        let now_s = u64::try_from(clock.now_ns() / 1_000_000_000).unwrap_or(0);
        let on = seconds(answer.expires_on.as_ref());
        let left = seconds(answer.expires_in.as_ref());
        let left = left.or(on.map(|on| on.saturating_sub(now_s)));
        Ok(Token {
            text: text.ok_or_else(|| lacks("no access_token"))?,
            lifetime: Some(Duration::from_secs(
                left.ok_or_else(|| lacks("no expires_in"))?,
            )),
            place: None,
        })
    }
}

/// A number, also where it is written as a text.
fn seconds(given: Option<&serde_json::Value>) -> Option<u64> {
    match given? {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// The JSON of an answer.
pub(super) fn parsed<T: DeserializeOwned>(body: &[u8], uri: &str) -> Result<T, TokenError> {
    serde_json::from_slice(body).map_err(|_| TokenError::Answer {
        uri: uri.to_owned(),
        missing: "not the JSON that was asked for",
    })
}

/// The time from now to the moment that an answer names; `None` where it names none.
pub(super) fn until(moment: &str, clock: &Clock) -> Option<Duration> {
    let at: jiff::Timestamp = moment.parse().ok()?;
    let left_ns = (at.as_nanosecond() - clock.now_ns()).max(0);
    Some(Duration::from_nanos(
        u64::try_from(left_ns).unwrap_or(u64::MAX),
    ))
}

fn without_query(uri: &str) -> &str {
    uri.split('?').next().unwrap_or_default()
}

/// What an answer that says no tells: the fields of OAuth 2.0, of Keystone, or its first words.
fn told(body: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Told {
        error: Option<serde_json::Value>,
        error_description: Option<String>,
    }
    let told: Told = serde_json::from_slice(body).unwrap_or_default();
    let text = match (told.error, told.error_description) {
        (Some(serde_json::Value::String(error)), Some(more)) => format!("{error}: {more}"),
        (Some(serde_json::Value::String(error)), None) => error,
        (Some(serde_json::Value::Object(error)), _) => {
            let message = error.get("message").and_then(|message| message.as_str());
            message.unwrap_or_default().to_owned()
        }
        (_, Some(more)) => more,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String = text.trim().chars().take(TEXT_CHARS_MAX).collect();
    match text.is_empty() {
        true => text,
        false => format!(": {}", text.replace(['\r', '\n'], " ")),
    }
}

#[cfg(test)]
mod tests;
