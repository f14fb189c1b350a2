//! Telling Prometheus to load its configuration again, and whether it did (contract
//! `prometheus.md` §7.5).

use http::StatusCode;
use serde::{Deserialize, Deserializer, de};

use super::client::{Agent, Client, STATUS_BODY_MAX};
use super::error::PeerError;
use super::request::{Question, refusal};
use crate::model::TimestampMs;

/// What Prometheus says about the configuration in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeInfo {
    /// Whether the last reload succeeded.
    pub reload_config_success: bool,
    /// When a configuration was last loaded with success, in whole seconds.
    #[serde(deserialize_with = "rfc3339")]
    pub last_config_time: TimestampMs,
}

impl Client {
    /// Asks for a reload; resolves once Prometheus has the new configuration in force.
    ///
    /// # Errors
    /// See [`PeerError`]: any status but 200 is [`PeerError::Status`].
    pub async fn reload(&self) -> Result<(), PeerError> {
        let path = "/-/reload";
        // A POST without a body.
        let question = Question::Form(String::new());
        let response = self.send(Agent::Thanos, path, question, false).await?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        Err(refusal(&self.shown(path), response).await)
    }

    /// What configuration is in force.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn runtime_info(&self) -> Result<RuntimeInfo, PeerError> {
        let path = "/api/v1/status/runtimeinfo";
        self.api(Agent::Thanos, path, STATUS_BODY_MAX).await
    }
}

fn rfc3339<'de, D: Deserializer<'de>>(reader: D) -> Result<TimestampMs, D::Error> {
    let text = String::deserialize(reader)?;
    let time: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
    Ok(TimestampMs(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{Reply, ScriptedServer, response};
    use crate::prometheus::{Config, HttpClientConfig};

    /// A client of a Prometheus under a path, with credentials.
    async fn beside(
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> (ScriptedServer, Client) {
        let server = ScriptedServer::start(move |seen| script(seen.path())).await;
        let url = server.url("/prom/").replace("http://", "http://me:hidden@");
        let client = Client::new(Config {
            url: url.parse().unwrap(),
            http_client: HttpClientConfig::default(),
            thanos_version: "0.42.4".to_owned(),
        });
        (server, client.unwrap())
    }

    #[tokio::test]
    async fn a_reload_is_a_post_without_a_body() {
        let (server, client) = beside(|_| Reply::Bytes(response("200 OK", &[], ""))).await;
        client.reload().await.unwrap();
        let seen = server.seen();
        assert_eq!(seen[0].line, "POST /prom/-/reload HTTP/1.1");
        assert_eq!(seen[0].body, b"");
        assert_eq!(seen[0].header("content-type"), None);
        assert!(seen[0].header("authorization").is_some());
    }

    #[tokio::test]
    async fn any_other_status_is_an_error_that_shows_no_credentials() {
        for (status, body) in [
            (
                "500 Internal Server Error",
                "failed to reload config: no such file",
            ),
            ("403 Forbidden", "Lifecycle API is not enabled."),
            ("404 Not Found", "404 page not found"),
            ("204 No Content", ""),
            ("302 Found", ""),
        ] {
            let reply = Reply::Bytes(response(status, &[("Location", "/elsewhere")], body));
            let (_server, client) = beside(move |_| reply.clone()).await;
            let error = client.reload().await.unwrap_err();
            let (seen, text) = error.status().unwrap();
            assert_eq!((seen.to_string(), text), (status.to_owned(), body));
            assert!(
                !format!("{error} {error:?}").contains("hidden"),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_state_of_the_configuration_is_read() {
        let (_server, client) = beside(|path| {
            assert_eq!(path, "/prom/api/v1/status/runtimeinfo");
            let body = r#"{"status":"success","data":{"startTime":"2026-01-02T03:04:05Z",
                "reloadConfigSuccess":true,"lastConfigTime":"2023-11-14T22:13:20Z"}}"#;
            Reply::Bytes(response("200 OK", &[], body))
        })
        .await;
        let expected = RuntimeInfo {
            reload_config_success: true,
            last_config_time: TimestampMs(1_700_000_000_000),
        };
        assert_eq!(client.runtime_info().await.unwrap(), expected);
    }
}
