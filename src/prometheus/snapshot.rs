//! Making Prometheus write its head as a block, for a shutdown that is to last.

use serde::Deserialize;

use super::client::{Agent, Client, STATUS_BODY_MAX};
use super::error::PeerError;
use super::request::Question;

/// The flag of Prometheus without which it makes no snapshots.
const ADMIN_API: &str = "web.enable-admin-api";

#[derive(Deserialize)]
struct Snapshot {
    name: String,
}

impl Client {
    /// Asks for a snapshot of all blocks and the head; the name of its directory below
    /// `snapshots` in the data directory. Writing a large head takes minutes, for which there is
    /// no limit here.
    ///
    /// # Errors
    /// See [`PeerError`]: 503 where `--web.enable-admin-api` is not set.
    pub async fn snapshot(&self) -> Result<String, PeerError> {
        let path = "/api/v1/admin/tsdb/snapshot";
        let question = Question::Form("skip_head=false".to_owned());
        let asked = self.ask::<Snapshot>(Agent::ControlPlane, path, question, STATUS_BODY_MAX);
        let data = asked.await?.data;
        data.map(|snapshot| snapshot.name)
            .ok_or_else(|| PeerError::Api {
                url: self.shown(path),
                message: "the answer has no data".to_owned(),
            })
    }

    /// Whether Prometheus makes snapshots; `None` where it does not tell its flags.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn has_admin_api(&self) -> Result<Option<bool>, PeerError> {
        let flags = self.flags().await?;
        Ok(flags.map(|flags| flags.get(ADMIN_API).is_some_and(|value| value == "true")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{Reply, ScriptedServer, response};
    use crate::prometheus::{Config, HttpClientConfig};

    async fn beside(status: &'static str, body: &'static str) -> (ScriptedServer, Client) {
        let reply = move || Reply::Bytes(response(status, &[], body));
        let server = ScriptedServer::start(move |_| reply()).await;
        let client = Client::new(Config {
            url: server.url("/prom").parse().unwrap(),
            http_client: HttpClientConfig::default(),
            thanos_version: "0.42.4".to_owned(),
        });
        (server, client.unwrap())
    }

    #[tokio::test]
    async fn the_head_is_asked_for() {
        let body = "{\"status\":\"success\",\"data\":{\"name\":\"20260102T030405Z-6f\"}}";
        let (server, client) = beside("200 OK", body).await;
        assert_eq!(client.snapshot().await.unwrap(), "20260102T030405Z-6f");
        let seen = server.seen();
        let line = "POST /prom/api/v1/admin/tsdb/snapshot HTTP/1.1";
        assert_eq!(seen[0].line, line);
        assert_eq!(seen[0].body, b"skip_head=false");
    }

    #[tokio::test]
    async fn what_prometheus_says_against_it_is_told() {
        let off = "{\"status\":\"error\",\"errorType\":\"unavailable\",\
            \"error\":\"admin APIs disabled\"}";
        for (status, body, told) in [
            ("503 Service Unavailable", off, "admin APIs disabled"),
            ("404 Not Found", "404 page not found", "404 page not found"),
            (
                "200 OK",
                "{\"status\":\"success\"}",
                "the answer has no data",
            ),
            ("200 OK", "<html>", "expected value"),
        ] {
            let (_server, client) = beside(status, body).await;
            let error = client.snapshot().await.unwrap_err();
            let text = crate::model::ErrorChain(&error).to_string();
            assert!(text.contains(told), "{text}");
        }
    }

    #[tokio::test]
    async fn the_flag_is_looked_up() {
        let on = "{\"status\":\"success\",\"data\":{\"web.enable-admin-api\":\"true\"}}";
        let off = "{\"status\":\"success\",\"data\":{\"web.enable-admin-api\":\"false\"}}";
        let none = "{\"status\":\"success\",\"data\":{}}";
        for (status, body, expected) in [
            ("200 OK", on, Some(true)),
            ("200 OK", off, Some(false)),
            ("200 OK", none, Some(false)),
            ("404 Not Found", "", None),
        ] {
            let (_server, client) = beside(status, body).await;
            assert_eq!(client.has_admin_api().await.unwrap(), expected, "{body}");
        }
    }
}
