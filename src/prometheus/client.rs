//! The calls to Prometheus' HTTP API that the heartbeat needs (contract `prometheus.md` §1–2).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::authorization::Authorization;
use super::error::PeerError;
use super::http_client::HttpClientConfig;
use super::labels;
use super::lowest::{self, Lowest, LowestScan};
use super::url::{BaseUrl, redirect_target, same_origin};
use crate::model::{ExternalLabels, TimestampMs};
use crate::net::TlsError;
use crate::net::http::{BodyLimit, HttpClient, ResponseBody, decoded, empty_body};

/// Go's limit: the tenth redirect is not followed.
const REQUESTS_MAX: usize = 10;
/// Configurations of tens of thousands of targets have a few MiB.
const CONFIG_BODY_MAX: BodyLimit = BodyLimit {
    name: "CONFIG_BODY_MAX",
    bytes: 32 << 20,
};
/// Flags, versions and states have a few KiB.
const STATUS_BODY_MAX: BodyLimit = BodyLimit {
    name: "STATUS_BODY_MAX",
    bytes: 1 << 20,
};
/// How much of an exposition is looked through; it is not held.
const METRICS_SCAN_MAX: BodyLimit = BodyLimit {
    name: "METRICS_SCAN_MAX",
    bytes: 256 << 20,
};
/// How much of an error's body is read, and how much of that is shown.
const ERROR_BODY_BYTES: usize = 64 << 10;
const ERROR_TEXT_CHARS: usize = 512;
/// The whole text of a Prometheus that is not ready.
const STARTING_TEXT: &str = "Service Unavailable";
/// Its header `X-Prometheus-Stopping: true` tells stopping from starting.
const STOPPING_HEADER: &str = "x-prometheus-stopping";

/// How to build a [`Client`].
#[derive(Clone, Debug)]
pub struct Config {
    /// `--prometheus.url`.
    pub url: BaseUrl,
    /// `--prometheus.http-client`.
    pub http_client: HttpClientConfig,
    /// The version of Thanos we stand in for, told in `User-Agent`.
    pub thanos_version: String,
}

/// A client of one Prometheus; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: HttpClient,
    base: BaseUrl,
    authorization: Authorization,
    accept_gzip: bool,
    /// `Thanos/<version>`.
    agent: HeaderValue,
}

/// How far the replay of the write-ahead log is, in segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct WalReplay {
    /// First segment.
    pub min: i64,
    /// Last segment.
    pub max: i64,
    /// The one being read.
    pub current: i64,
}

/// Who asks: the reference's agents differ by call.
#[derive(Clone, Copy, Debug)]
enum Agent {
    /// `thanos-sidecar`: configuration and build version.
    ControlPlane,
    /// `Thanos/<version>`: all else.
    Thanos,
}

#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(default)]
    status: String,
    data: Option<T>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct BuildInfo {
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct ConfigAnswer {
    #[serde(default)]
    yaml: String,
}

// === impl Client ===

impl Client {
    /// A client; reads the TLS files.
    ///
    /// # Errors
    /// Where a TLS file can't be used.
    pub fn new(config: Config) -> Result<Self, TlsError> {
        let authorization = match config.http_client.authorization.clone() {
            Authorization::None => config.url.authorization(),
            configured => configured,
        };
        let agent = HeaderValue::try_from(format!("Thanos/{}", config.thanos_version));
        Ok(Self(Arc::new(Inner {
            http: HttpClient::new(config.http_client.client()?),
            accept_gzip: config.http_client.accept_gzip,
            base: config.url,
            authorization,
            agent: agent.unwrap_or(HeaderValue::from_static("Thanos")),
        })))
    }

    /// The command line flags by name; `None` where this Prometheus does not tell them.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn flags(&self) -> Result<Option<BTreeMap<String, String>>, PeerError> {
        let call = self.api(Agent::Thanos, "/api/v1/status/flags", STATUS_BODY_MAX);
        match call.await {
            Err(PeerError::Status { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// The version of Prometheus; `0` where it does not tell.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn build_version(&self) -> Result<String, PeerError> {
        let path = "/api/v1/status/buildinfo";
        let call = self.api::<BuildInfo>(Agent::ControlPlane, path, STATUS_BODY_MAX);
        match call.await {
            Err(error) if error.is_absent() => Ok("0".to_owned()),
            outcome => outcome.map(|info| info.version),
        }
    }

    /// The external labels of the configuration in force.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn external_labels(&self) -> Result<ExternalLabels, PeerError> {
        let path = "/api/v1/status/config";
        let call = self.api::<ConfigAnswer>(Agent::ControlPlane, path, CONFIG_BODY_MAX);
        let answer = call.await?;
        labels::external_labels(&answer.yaml).map_err(|source| PeerError::Configuration {
            url: self.shown(path),
            source: Box::new(source),
        })
    }

    /// The time of the oldest sample; `None` where there is none yet. `/metrics` is read only up
    /// to that line, uncompressed, since compressing costs Prometheus more than the loopback
    /// saves. The status is not looked at unless the gauge is missing, as in the reference.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn lowest_timestamp(&self) -> Result<Option<TimestampMs>, PeerError> {
        let url = self.shown("/metrics");
        let response = self.get(Agent::Thanos, "/metrics", false).await?;
        let status = response.status();
        let unusable = |detail| PeerError::Metric {
            url: url.clone(),
            metric: lowest::METRIC,
            detail,
        };
        match scan(response, &url).await? {
            Some(Lowest::At(time)) => Ok(Some(time)),
            Some(Lowest::NoData) => Ok(None),
            Some(Lowest::Garbage(value)) => Err(unusable(format!(", its value is `{value}`"))),
            None if status.is_success() => Err(unusable(String::new())),
            None => Err(unusable(format!(", the answer is {status}"))),
        }
    }

    /// How far the replay of the write-ahead log is; answered while everything else is 503.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn wal_replay(&self) -> Result<WalReplay, PeerError> {
        let path = "/api/v1/status/walreplay";
        self.api(Agent::Thanos, path, STATUS_BODY_MAX).await
    }

    async fn api<T: DeserializeOwned>(
        &self,
        agent: Agent,
        path: &str,
        limit: BodyLimit,
    ) -> Result<T, PeerError> {
        let url = self.shown(path);
        let response = self.get(agent, path, self.0.accept_gzip).await?;
        if !response.status().is_success() {
            return Err(status_error(url, response).await);
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
        match (envelope.status.as_str(), envelope.data) {
            ("success", Some(data)) => Ok(data),
            ("success", None) => Err(PeerError::Api {
                url,
                message: "the answer has no data".to_owned(),
            }),
            _ => Err(PeerError::Api {
                url,
                message: shortened(&envelope.error),
            }),
        }
    }

    /// A GET under the base URL that follows redirects. Credentials are only shown to the host
    /// that they are configured for.
    async fn get(
        &self,
        agent: Agent,
        path: &str,
        accept_gzip: bool,
    ) -> Result<Response<ResponseBody>, PeerError> {
        let inner = &self.0;
        let unusable = || PeerError::Location {
            url: self.shown(path),
            location: path.to_owned(),
        };
        let first = inner.base.join(path, "").ok_or_else(unusable)?;
        let mut target = first.clone();
        for _ in 0..REQUESTS_MAX {
            let mut request = Request::get(target.clone())
                .body(empty_body())
                .map_err(|_| unusable())?;
            let headers = request.headers_mut();
            headers.insert(USER_AGENT, inner.agent(agent));
            if accept_gzip {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            if same_origin(&first, &target)
                && let Some(value) = inner.authorization.header().await?
            {
                headers.insert(AUTHORIZATION, value);
            }
            let sent = inner.http.send(request).await;
            let response = sent.map_err(|source| PeerError::Transport {
                url: target.to_string(),
                source,
            })?;
            match next_hop(&target, &response)? {
                Some(next) => target = next,
                None => return Ok(decoded(response)),
            }
        }
        Err(PeerError::Redirects {
            url: target.to_string(),
            requests: REQUESTS_MAX,
        })
    }

    fn shown(&self, path: &str) -> String {
        let url = self.0.base.join(path, "");
        url.map_or_else(|| path.to_owned(), |url| url.to_string())
    }
}

impl Inner {
    fn agent(&self, agent: Agent) -> HeaderValue {
        match agent {
            Agent::ControlPlane => HeaderValue::from_static("thanos-sidecar"),
            Agent::Thanos => self.agent.clone(),
        }
    }
}

fn next_hop<B>(from: &Uri, response: &Response<B>) -> Result<Option<Uri>, PeerError> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| redirects) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    match redirect_target(from, &location) {
        Some(target) => Ok(Some(target)),
        None => Err(PeerError::Location {
            url: from.to_string(),
            location: shortened(&location),
        }),
    }
}

async fn scan(response: Response<ResponseBody>, url: &str) -> Result<Option<Lowest>, PeerError> {
    let failed = |source| PeerError::Transport {
        url: url.to_owned(),
        source,
    };
    let mut body = response.into_body();
    let mut scan = LowestScan::default();
    let mut scanned_bytes = 0_usize;
    while let Some(piece) = body.chunk().await.map_err(failed)? {
        if let Some(found) = scan.push(&piece) {
            return Ok(Some(found));
        }
        scanned_bytes = scanned_bytes.saturating_add(piece.len());
        if scanned_bytes > METRICS_SCAN_MAX.bytes {
            return Err(failed(METRICS_SCAN_MAX.exceeded()));
        }
    }
    Ok(scan.finish())
}

async fn status_error(url: String, response: Response<ResponseBody>) -> PeerError {
    let status = response.status();
    let stopping = response.headers().get(STOPPING_HEADER);
    let stopping = stopping.is_some_and(|value| value == "true");
    let body = start_of(response.into_body()).await;
    let text = String::from_utf8_lossy(&body);
    let message = match serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(&body) {
        Ok(envelope) if !envelope.error.is_empty() => shortened(&envelope.error),
        _ => shortened(text.trim()),
    };
    PeerError::Status {
        url,
        status,
        message,
        starting: status == StatusCode::SERVICE_UNAVAILABLE
            && !stopping
            && text.trim() == STARTING_TEXT,
    }
}

/// The start of an error's body, as far as it comes: the status is the error, the text only
/// explains it.
async fn start_of(mut body: ResponseBody) -> Bytes {
    let mut start = Vec::new();
    while start.len() < ERROR_BODY_BYTES {
        match body.chunk().await {
            Ok(Some(piece)) => start.extend_from_slice(&piece),
            Ok(None) | Err(_) => break,
        }
    }
    start.truncate(ERROR_BODY_BYTES);
    Bytes::from(start)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ERROR_TEXT_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
