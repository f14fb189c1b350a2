//! Errors in the form of Prometheus' API: `{"status":"error","errorType":"…","error":"…"}`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::AnswerBody;
use super::form::FormError;
use super::lists::AskError;
use crate::model::ErrorChain;
use crate::prometheus::{Forwarded, PeerError};
use crate::query::{QueryError, RewriteError};
use crate::store::StoreError;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ApiError {
    status: StatusCode,
    kind: String,
    message: String,
}

/// An error as Prometheus writes it.
#[derive(Debug, Deserialize, Serialize)]
struct Told {
    status: String,
    #[serde(rename = "errorType")]
    kind: String,
    error: String,
}

// === impl ApiError ===

impl ApiError {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            message: message.into(),
        }
    }

    /// The request is wrong.
    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_data", message)
    }

    /// A parameter is wrong, in Prometheus' words.
    pub(super) fn parameter(name: &str, why: &str) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {why}"))
    }

    /// It can't be answered faithfully.
    pub(super) fn unsupported(what: impl std::fmt::Display) -> Self {
        let message = format!("unsupported {what}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "execution", message)
    }

    /// It can't be answered now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// What Prometheus answered, which is not success: its status, type and words where it tells
    /// them. `path` is what was asked.
    pub(super) fn refused(path: &str, answer: &Forwarded) -> Self {
        if let Ok(told) = serde_json::from_slice::<Told>(&answer.body) {
            return Self {
                status: answer.status,
                kind: told.kind,
                message: told.error,
            };
        }
        let message = format!("Prometheus answered {path} with {}", answer.status);
        match answer.status {
            StatusCode::NOT_FOUND => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            _ => Self::unavailable(message),
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<AnswerBody> {
        let told = Told {
            status: "error".to_owned(),
            kind: self.kind.clone(),
            error: self.message.clone(),
        };
        let body = serde_json::to_vec(&told);
        let body = body.expect("invariant: strings are JSON");
        let mut response = Response::new(AnswerBody::from(Bytes::from(body)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::new(
            error.status(),
            error.error_type(),
            ErrorChain(&error).to_string(),
        )
    }
}

impl From<PeerError> for ApiError {
    fn from(error: PeerError) -> Self {
        if let Some((status, body)) = error.status() {
            let told: Result<Told, _> = serde_json::from_str(body);
            if let Ok(told) = told {
                return Self::new(status, &told.kind, told.error);
            }
        }
        QueryError::from(error).into()
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Peer(error) => error.into(),
            AskError::TimedOut => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                error.to_string(),
            ),
        }
    }
}

impl From<RewriteError> for ApiError {
    fn from(error: RewriteError) -> Self {
        QueryError::from(error).into()
    }
}

impl From<StoreError> for ApiError {
    /// Of turns and of the size of what is asked.
    fn from(error: StoreError) -> Self {
        let message = ErrorChain(&error).to_string();
        match error {
            StoreError::TooManyCalls { .. } => Self::unavailable(message),
            _ => Self::unsupported(format_args!("query: {message}")),
        }
    }
}

impl From<FormError> for ApiError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::TimedOut => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", error.to_string())
            }
            FormError::BrokenOff => Self::bad_data(error.to_string()),
            FormError::NoTurn => Self::unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn errors_have_prometheus_form() {
        let error = ApiError::parameter("dedup", "no");
        let response = error.response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = "{\"status\":\"error\",\"errorType\":\"bad_data\",\
                        \"error\":\"invalid parameter \\\"dedup\\\": no\"}";
        assert_eq!(body, expected);
    }

    #[test]
    fn what_prometheus_says_is_passed_on() {
        let answer = |status: u16, body: &'static str| Forwarded {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        let told = "{\"status\":\"error\",\"errorType\":\"execution\",\"error\":\"so\",\"x\":1}";
        for (answer, status, kind, message) in [
            (answer(422, told), 422, "execution", "so"),
            (
                answer(404, "404 page not found\n"),
                404,
                "not_found",
                "Prometheus answered /p with 404 Not Found",
            ),
            (
                answer(503, "Service Unavailable"),
                503,
                "unavailable",
                "Prometheus answered /p with 503 Service Unavailable",
            ),
            (
                answer(302, "<html>"),
                503,
                "unavailable",
                "Prometheus answered /p with 302 Found",
            ),
        ] {
            let error = ApiError::refused("/p", &answer);
            assert_eq!(error.status, status);
            assert_eq!(
                (error.kind.as_str(), error.message.as_str()),
                (kind, message)
            );
        }
    }
}
