//! What Prometheus says where it does not answer a query: its API's JSON, or something else.

use bytes::BytesMut;
use http::Response;
use serde::Deserialize;

use crate::net::http::DirectBody;
use crate::prometheus::client::Client;
use crate::prometheus::error::PeerError;
use crate::prometheus::request::{Question, status_error};

/// How much of a refusal is read: it may show a parameter of the question.
const REFUSAL_BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    status: String,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
}

/// Asks, and takes any status but one of success for an error: [`PeerError::Refused`] where the
/// API says why.
pub(super) async fn ask_successfully(
    client: &Client,
    path: &str,
    question: Question,
) -> Result<Response<DirectBody>, PeerError> {
    let url = client.shown(path);
    let response = client.ask_direct(path, question).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let (parts, mut body) = response.into_parts();
    let mut text = BytesMut::new();
    // As far as it comes: the status is the error, the text only explains it.
    while text.len() < REFUSAL_BYTES_MAX && body.fill(&mut text).await.unwrap_or(false) {}
    match serde_json::from_slice::<Refusal>(&text) {
        Ok(refusal) if refusal.status == "error" && !refusal.error_type.is_empty() => {
            Err(PeerError::Refused {
                url,
                status: parts.status,
                error_type: refusal.error_type,
                message: refusal.error,
            })
        }
        _ => Err(status_error(&url, parts.status, &parts.headers, &text)),
    }
}
