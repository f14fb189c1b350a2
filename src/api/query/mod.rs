//! Prometheus' HTTP API with the external labels in place: what Grafana's data source and other
//! clients of Prometheus ask, answered for by the Prometheus beside us.
//!
//! Queries go through the engine; everything else is handed on with its selectors rewritten, and
//! the labels are put into the answer. Errors, limits and orders are Prometheus' own.

mod answer;
mod body;
mod calls;
mod document;
mod error;
mod form;
mod label_text;
mod lists;
mod params;
mod selection;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CONTENT_TYPE, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Body;

pub use body::{AnswerBody, BrokenOff};

use form::LongForms;
use params::Defaults;

use crate::net::http::percent_decoded;
use crate::prometheus::{Client, ParamsPlace, PeerWatch};
use crate::query::{Engine, EvaluationKind};
use crate::store::Gate;

/// How many answers are held whole at a time, up to 64 MiB each and as much again for what is made
/// of it.
const WHOLE_ANSWERS_MAX: usize = 8;
/// How many lists of series are passed on at a time.
const SERIES_LISTS_MAX: usize = 8;
/// How many requests wait for either.
const WAITING_MAX: usize = 256;

const API: &str = "/api/v1/";

/// How to build a [`QueryApi`].
#[derive(Clone, Debug)]
pub struct QueryApiConfig {
    /// What evaluates queries.
    pub engine: Engine,
    /// Whom everything else is asked.
    pub client: Client,
    /// Where external labels come from.
    pub peer: PeerWatch,
    /// `--query.timeout`: the longest that anything may take.
    pub timeout: Duration,
    /// `--query.default-step`.
    pub default_step: Duration,
}

/// The API; cheap to clone.
#[derive(Clone, Debug)]
pub struct QueryApi(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: QueryApiConfig,
    defaults: Defaults,
    long_forms: LongForms,
    whole_answers: Gate,
    series_lists: Gate,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Query(EvaluationKind),
    Series,
    Labels,
    LabelValues {
        label: String,
    },
    Exemplars,
    Rules,
    Alerts,
    Targets,
    /// What is passed on as it is.
    Plain(&'static str, ParamsPlace),
}

// === impl Call ===

impl Call {
    /// What a path leads to; `None` where that is not of this API.
    pub(super) fn of(path: &str) -> Option<Self> {
        let call = match path.strip_prefix(API)? {
            "query" => Self::Query(EvaluationKind::Instant),
            "query_range" => Self::Query(EvaluationKind::Range),
            "series" => Self::Series,
            "labels" => Self::Labels,
            "query_exemplars" => Self::Exemplars,
            "format_query" => Self::Plain("/api/v1/format_query", ParamsPlace::UrlOrForm),
            "parse_query" => Self::Plain("/api/v1/parse_query", ParamsPlace::UrlOrForm),
            "metadata" => Self::Plain("/api/v1/metadata", ParamsPlace::Url),
            "status/buildinfo" => Self::Plain("/api/v1/status/buildinfo", ParamsPlace::Url),
            "rules" => Self::Rules,
            "alerts" => Self::Alerts,
            "targets" => Self::Targets,
            other => {
                let label = other.strip_prefix("label/")?.strip_suffix("/values")?;
                let label = percent_decoded(label);
                // Go's router takes these for other paths.
                if matches!(&*label, "" | "." | "..") || label.contains('/') {
                    return None;
                }
                Self::LabelValues { label }
            }
        };
        Some(call)
    }

    /// The methods that it knows, as `Allow` has them.
    fn methods(&self) -> &'static str {
        match self {
            Self::Query(_) | Self::Series | Self::Labels | Self::Exemplars => "GET, OPTIONS, POST",
            Self::Plain(_, ParamsPlace::UrlOrForm) => "GET, OPTIONS, POST",
            _ => "GET, OPTIONS",
        }
    }

    fn allows(&self, method: &Method) -> bool {
        let mut known = self.methods().split(", ");
        known.any(|known| known == method.as_str())
    }
}

// === impl QueryApi ===

impl QueryApi {
    /// An API over these.
    pub fn new(config: QueryApiConfig) -> Self {
        let defaults = Defaults {
            step: config.default_step,
        };
        Self(Arc::new(Inner {
            config,
            defaults,
            long_forms: LongForms::new(),
            whole_answers: Gate::new("calls of the query API", WHOLE_ANSWERS_MAX, WAITING_MAX),
            series_lists: Gate::new("lists of series", SERIES_LISTS_MAX, WAITING_MAX),
        }))
    }

    /// The answer to a call.
    pub(super) async fn answer<B>(&self, call: Call, request: Request<B>) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Send,
    {
        let origin = request.headers().contains_key(ORIGIN);
        let mut response = if !call.allows(request.method()) {
            not_allowed(&call)
        } else if request.method() == Method::OPTIONS {
            let mut response = Response::new(AnswerBody::from(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        } else {
            let answered = self.called(call, request).await;
            answered.unwrap_or_else(|error| error.response())
        };
        allow_origin(response.headers_mut(), origin);
        response
    }
}

/// As Prometheus' router answers.
fn not_allowed(call: &Call) -> Response<AnswerBody> {
    let text = Bytes::from_static(b"Method Not Allowed\n");
    let mut response = Response::new(AnswerBody::from(text));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(call.methods()));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// As Prometheus does unless it is told otherwise: scripts of every origin may read.
fn allow_origin(headers: &mut HeaderMap, has_origin: bool) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if !has_origin {
        return;
    }
    for (name, value) in [
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Accept, Authorization, Content-Type, Origin",
        ),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// An answer of success.
fn json(body: impl Into<AnswerBody>) -> Response<AnswerBody> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, error::JSON);
    response
}
