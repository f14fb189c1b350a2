//! Questions of others to Prometheus' API, handed on, and its answers as they are.
//!
//! What is right and wrong about a parameter is Prometheus' to say: names and values are bytes here
//! and go as they came.

use std::pin::pin;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::api::{SeriesStream, URL_QUERY_BYTES_MAX, path_name, percent_encode};
use super::client::{Agent, Client};
use super::error::PeerError;
use super::request::Question;
use crate::net::http::BodyLimit;

/// Rules, targets, metadata, names and values: tens of thousands of each have some ten MiB.
const FORWARDED_BODY_MAX: BodyLimit = BodyLimit {
    name: "FORWARDED_BODY_MAX",
    bytes: 64 << 20,
};

/// Parameters as they are sent.
#[derive(Clone, Debug, Default)]
pub struct ForwardedParams(String);

/// How an endpoint takes its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsPlace {
    /// In the URL only, which ends at 64 KiB.
    Url,
    /// In a form, too, which is where they go once there are many.
    UrlOrForm,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Its status.
    pub status: StatusCode,
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// Its body, whole.
    pub body: Bytes,
}

impl Client {
    /// Asks `path`, which is percent-encoded where it has to be, and reads the answer whole.
    ///
    /// # Errors
    /// See [`PeerError`]. A status of 400 or above is an answer, not an error.
    pub async fn forward(
        &self,
        path: &str,
        params: ForwardedParams,
        place: ParamsPlace,
    ) -> Result<Forwarded, PeerError> {
        let span = self.span(path);
        let asking = pin!(self.forward_in_span(path, params, place));
        let outcome = span.around(asking).await;
        if let Err(error) = &outcome {
            span.fail(error);
        }
        outcome
    }

    async fn forward_in_span(
        &self,
        path: &str,
        params: ForwardedParams,
        place: ParamsPlace,
    ) -> Result<Forwarded, PeerError> {
        let question = params.into_question(place);
        let accept_gzip = self.0.accept_gzip;
        let response = self
            .send(Agent::Thanos, path, question, accept_gzip)
            .await?;
        let (status, content_type) = (
            response.status(),
            response.headers().get(CONTENT_TYPE).cloned(),
        );
        // Such a one may say that it is compressed, and has nothing to decompress.
        let body = match status == StatusCode::NO_CONTENT {
            true => Ok(Bytes::new()),
            false => response.into_body().read(FORWARDED_BODY_MAX).await,
        };
        let body = body.map_err(|source| PeerError::Transport {
            url: self.shown(path),
            source,
        })?;
        Ok(Forwarded {
            status,
            content_type,
            body,
        })
    }

    /// Asks `/api/v1/series`, whose answer is read as a stream.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn forward_series(&self, params: ForwardedParams) -> Result<SeriesStream, PeerError> {
        SeriesStream::open(self, params.into_question(ParamsPlace::UrlOrForm)).await
    }
}

impl ForwardedParams {
    /// One more.
    pub fn put(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        percent_encode(&mut self.0, name.as_ref());
        self.0.push('=');
        percent_encode(&mut self.0, value.as_ref());
    }

    fn into_question(self, place: ParamsPlace) -> Question {
        match place {
            ParamsPlace::UrlOrForm if self.0.len() > URL_QUERY_BYTES_MAX => Question::Form(self.0),
            _ => Question::Query(self.0),
        }
    }
}

/// The path of a label's values, the name as it was asked for.
pub fn label_values_path(name: &str) -> String {
    let mut path = "/api/v1/label/".to_owned();
    percent_encode(&mut path, name.as_bytes());
    path.push_str("/values");
    path
}

/// Whether `asked`, as a path has it, means the label `name`: as it is, or escaped as newer
/// versions take it.
pub fn is_label_asked(asked: &str, name: &str) -> bool {
    asked == name || asked == path_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_as_bytes_and_long_ones_in_a_form() {
        let mut params = ForwardedParams::default();
        params.put("match[]", b"{a=\"\xff\"}");
        params.put("start", "1");
        assert_eq!(params.0, "match%5B%5D=%7Ba%3D%22%FF%22%7D&start=1");
        for (bytes, place, in_form) in [
            (10, ParamsPlace::UrlOrForm, false),
            (URL_QUERY_BYTES_MAX, ParamsPlace::UrlOrForm, true),
            (URL_QUERY_BYTES_MAX, ParamsPlace::Url, false),
        ] {
            let mut params = ForwardedParams::default();
            params.put("a", "x".repeat(bytes));
            let question = params.into_question(place);
            assert_eq!(matches!(question, Question::Form(_)), in_form, "{bytes}");
        }
    }

    #[test]
    fn labels_are_known_by_either_name() {
        assert!(is_label_asked("job", "job") && !is_label_asked("jo", "job"));
        assert!(is_label_asked("a.b", "a.b") && is_label_asked("U__a_2e_b", "a.b"));
        assert_eq!(label_values_path("a/b%"), "/api/v1/label/a%2Fb%25/values");
    }
}
