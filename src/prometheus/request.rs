//! One request to Prometheus and its answer: redirects, credentials, the API's envelope, errors.

use std::pin::pin;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{Agent, Client};
use super::error::PeerError;
use super::url::{redirect_target, same_origin, without_userinfo};
use crate::net::http::{BodyLimit, DirectBody, ResponseBody, decoded, empty_body, full_body};
use crate::trace::inject;

/// Go's limit: the tenth redirect is not followed.
pub(super) const REQUESTS_MAX: usize = 10;
/// How much of an error's body is read, and how much of that is shown.
const ERROR_BODY_BYTES: usize = 64 << 10;
pub(super) const ERROR_TEXT_CHARS: usize = 512;
/// The whole text of a Prometheus that is not ready.
const STARTING_TEXT: &str = "Service Unavailable";
/// Its header `X-Prometheus-Stopping: true` tells stopping from starting.
const STOPPING_HEADER: &str = "x-prometheus-stopping";

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// The parameters of a question, percent-encoded, and how they go.
#[derive(Debug)]
pub(super) enum Question {
    /// In the URL of a GET.
    Query(String),
    /// As the body of a POST, which has none where there are no parameters.
    Form(String),
}

/// What every answer of the API is wrapped in.
#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(default)]
    status: String,
    data: Option<T>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

/// An answer of success.
pub(super) struct Asked<T> {
    /// `None` where it is null or missing.
    pub(super) data: Option<T>,
    /// Warnings, then infos.
    pub(super) warnings: Vec<String>,
}

impl Client {
    /// Asks the API, and reads the answer whole.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        agent: Agent,
        path: &str,
        question: Question,
        limit: BodyLimit,
    ) -> Result<Asked<T>, PeerError> {
        let span = self.span(path);
        let asking = pin!(self.ask_in_span(agent, path, question, limit));
        let outcome = span.around(asking).await;
        if let Err(error) = &outcome {
            span.fail(error);
        }
        outcome
    }

    async fn ask_in_span<T: DeserializeOwned>(
        &self,
        agent: Agent,
        path: &str,
        question: Question,
        limit: BodyLimit,
    ) -> Result<Asked<T>, PeerError> {
        let url = self.shown(path);
        let accept_gzip = self.0.accept_gzip;
        let response = self.send(agent, path, question, accept_gzip).await?;
        let response = successful(&url, response).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Asked {
                data: None,
                warnings: Vec::new(),
            });
        }
        let body = response.into_body().read(limit).await;
        let body = body.map_err(|source| PeerError::Transport {
            url: url.clone(),
            source,
        })?;
        let envelope: Envelope<T> = match serde_json::from_slice(&body) {
            Ok(envelope) => envelope,
            Err(source) => return Err(PeerError::Malformed { url, source }),
        };
        if envelope.status != "success" {
            let message = shortened(&envelope.error);
            return Err(PeerError::Api { url, message });
        }
        let mut warnings = envelope.warnings;
        warnings.extend(envelope.infos);
        Ok(Asked {
            data: envelope.data,
            warnings,
        })
    }

    /// A request under the base URL that follows redirects, but for those that would turn a POST
    /// into a GET, which are answers. Credentials are only shown to the host that they are
    /// configured for.
    pub(super) async fn send(
        &self,
        agent: Agent,
        path: &str,
        question: Question,
        accept_gzip: bool,
    ) -> Result<Response<ResponseBody>, PeerError> {
        let inner = &self.0;
        let (first, form) = self.asked(path, question)?;
        let mut target = first.clone();
        for _ in 0..REQUESTS_MAX {
            let headers = self.headers(agent, &first, &target).await?;
            let mut request = match &form {
                None => Request::new(empty_body()),
                Some(form) => Request::new(full_body(form.clone())),
            };
            *request.uri_mut() = target.clone();
            *request.headers_mut() = headers;
            if form.is_some() {
                *request.method_mut() = Method::POST;
            }
            if form.as_ref().is_some_and(|form| !form.is_empty()) {
                request.headers_mut().insert(CONTENT_TYPE, FORM);
            }
            if accept_gzip {
                let gzip = HeaderValue::from_static("gzip");
                request.headers_mut().insert(ACCEPT_ENCODING, gzip);
            }
            let sent = inner.http.send(request).await;
            let response = sent.map_err(|source| PeerError::Transport {
                url: shown_url(&target),
                source,
            })?;
            let status = response.status();
            match next_hop(&target, status, response.headers())? {
                Some(next) if form.is_none() || keeps_method(status) => target = next,
                _ => return Ok(decoded(response)),
            }
        }
        Err(too_many_redirects(&target))
    }

    /// A POST whose answer is read straight from the connection.
    pub(super) async fn post_direct(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<DirectBody>, PeerError> {
        let first = self.target(path, "")?;
        self.direct(Method::POST, first, headers, body).await
    }

    /// A question whose answer is read straight from the connection.
    pub(super) async fn ask_direct(
        &self,
        path: &str,
        question: Question,
    ) -> Result<Response<DirectBody>, PeerError> {
        let (first, form) = self.asked(path, question)?;
        let mut headers = HeaderMap::new();
        let Some(form) = form else {
            return self.direct(Method::GET, first, headers, Bytes::new()).await;
        };
        headers.insert(CONTENT_TYPE, FORM);
        self.direct(Method::POST, first, headers, form).await
    }

    /// A question's URL, and its form where it has one.
    fn asked(&self, path: &str, question: Question) -> Result<(Uri, Option<Bytes>), PeerError> {
        match question {
            Question::Query(query) => Ok((self.target(path, &query)?, None)),
            Question::Form(form) => Ok((self.target(path, "")?, Some(form.into()))),
        }
    }

    /// Follows redirects as Go does, but for those that would turn a POST into a GET, which are
    /// answers.
    async fn direct(
        &self,
        method: Method,
        first: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<DirectBody>, PeerError> {
        let mut target = first.clone();
        for _ in 0..REQUESTS_MAX {
            let mut request = Request::new(body.clone());
            *request.method_mut() = method.clone();
            *request.uri_mut() = target.clone();
            *request.headers_mut() = self.headers(Agent::Thanos, &first, &target).await?;
            request.headers_mut().extend(headers.clone());
            let sent = self.0.direct.send(&request).await;
            let response = sent.map_err(|source| PeerError::Transport {
                url: shown_url(&target),
                source,
            })?;
            let status = response.status();
            match next_hop(&target, status, response.headers())? {
                Some(next) if method == Method::GET || keeps_method(status) => target = next,
                _ => return Ok(response),
            }
        }
        Err(too_many_redirects(&target))
    }

    fn target(&self, path: &str, query: &str) -> Result<Uri, PeerError> {
        let joined = self.0.base.join(path, query);
        joined.ok_or_else(|| PeerError::Unaskable {
            url: self.shown(path),
            query_bytes: query.len(),
        })
    }

    async fn headers(
        &self,
        agent: Agent,
        first: &Uri,
        target: &Uri,
    ) -> Result<HeaderMap, PeerError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, self.0.agent(agent));
        if same_origin(first, target)
            && let Some(value) = self.0.authorization.header().await?
        {
            headers.insert(AUTHORIZATION, value);
        }
        inject(&mut headers);
        Ok(headers)
    }
}

/// The response, unless its status is not one of success.
pub(super) async fn successful(
    url: &str,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, PeerError> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refusal(url, response).await)
}

/// A response whose status is not the one of success, as an error.
pub(super) async fn refusal(url: &str, response: Response<ResponseBody>) -> PeerError {
    let (parts, mut body) = response.into_parts();
    let mut start = Vec::new();
    // As far as it comes: the status is the error, the text only explains it.
    while start.len() < ERROR_BODY_BYTES {
        match body.chunk().await {
            Ok(Some(piece)) => start.extend_from_slice(&piece),
            Ok(None) | Err(_) => break,
        }
    }
    status_error(url, parts.status, &parts.headers, &start)
}

/// As [`successful`].
pub(super) async fn successful_direct(
    url: &str,
    response: Response<DirectBody>,
) -> Result<Response<DirectBody>, PeerError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (parts, mut body) = response.into_parts();
    let mut start = bytes::BytesMut::new();
    while start.len() < ERROR_BODY_BYTES && body.fill(&mut start).await.unwrap_or(false) {}
    Err(status_error(url, parts.status, &parts.headers, &start))
}

/// A status that is not one of success, with the start of its body, as an error.
pub(super) fn status_error(
    url: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> PeerError {
    let body = body.get(..ERROR_BODY_BYTES).unwrap_or(body);
    let stopping = headers.get(STOPPING_HEADER);
    let stopping = stopping.is_some_and(|value| value == "true");
    let text = String::from_utf8_lossy(body);
    let message = match serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(body) {
        Ok(envelope) if !envelope.error.is_empty() => shortened(&envelope.error),
        _ => shortened(text.trim()),
    };
    let is_starting_text = text.trim() == STARTING_TEXT;
    PeerError::Status {
        url: url.to_owned(),
        status,
        message,
        body: text.into_owned(),
        starting: status == StatusCode::SERVICE_UNAVAILABLE && !stopping && is_starting_text,
    }
}

fn next_hop(from: &Uri, status: StatusCode, headers: &HeaderMap) -> Result<Option<Uri>, PeerError> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = headers.get(LOCATION).filter(|_| redirects) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    match redirect_target(from, &location) {
        Some(target) => Ok(Some(target)),
        None => Err(PeerError::Location {
            url: shown_url(from),
            location: shortened(&without_userinfo(&location)),
        }),
    }
}

/// Whether a redirect asks for the same method again.
fn keeps_method(status: StatusCode) -> bool {
    matches!(status.as_u16(), 307 | 308)
}

fn too_many_redirects(last: &Uri) -> PeerError {
    PeerError::Redirects {
        url: shown_url(last),
        requests: REQUESTS_MAX,
    }
}

/// A URL as errors show it: without its query, which may hold a hundred matchers.
fn shown_url(url: &Uri) -> String {
    let text = url.to_string();
    match text.split_once('?') {
        Some((before, _)) => before.to_owned(),
        None => text,
    }
}

/// The start of a text, for an error.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(ERROR_TEXT_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
