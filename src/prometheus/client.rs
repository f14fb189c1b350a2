//! The calls to Prometheus' HTTP API that the heartbeat needs (contract `prometheus.md` §1–2).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::authorization::Authorization;
use super::error::PeerError;
use super::gauges::{GaugeScan, Gauges, LOWEST_SECONDS, Lowest};
use super::http_client::HttpClientConfig;
use super::labels::{self, WindowError};
use super::remote_read;
use super::request::Question;
use super::storage::ListedBlocks;
use super::url::BaseUrl;
use crate::model::{BlockId, ExternalLabels, PromDuration, TimeRange, TimestampMs};
use crate::net::TlsError;
use crate::net::http::{BodyLimit, DirectClient, HttpClient, ResponseBody};

/// Configurations of tens of thousands of targets have a few MiB.
const CONFIG_BODY_MAX: BodyLimit = BodyLimit {
    name: "CONFIG_BODY_MAX",
    bytes: 32 << 20,
};
/// Flags, versions and states have a few KiB.
pub(super) const STATUS_BODY_MAX: BodyLimit = BodyLimit {
    name: "STATUS_BODY_MAX",
    bytes: 1 << 20,
};
/// 10,000 blocks of 2 KiB: one that was merged from many lists them all.
const BLOCKS_BODY_MAX: BodyLimit = BodyLimit {
    name: "BLOCKS_BODY_MAX",
    bytes: 32 << 20,
};
/// How much of an exposition is looked through; it is not held.
const METRICS_SCAN_MAX: BodyLimit = BodyLimit {
    name: "METRICS_SCAN_MAX",
    bytes: 256 << 20,
};

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
pub struct Client(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) http: HttpClient,
    /// For remote read.
    pub(super) direct: DirectClient,
    pub(super) base: BaseUrl,
    pub(super) authorization: Authorization,
    pub(super) accept_gzip: bool,
    /// The one place of an answer in samples, which is held whole.
    pub(super) samples: Arc<Semaphore>,
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
pub(super) enum Agent {
    /// `thanos-sidecar`: configuration and build version.
    ControlPlane,
    /// `Thanos/<version>`: all else.
    Thanos,
}

#[derive(Deserialize)]
struct BuildInfo {
    #[serde(default)]
    version: String,
}

/// What the heartbeat needs of Prometheus' configuration.
#[derive(Debug)]
pub(super) struct Configuration {
    /// `global.external_labels`.
    pub(super) labels: ExternalLabels,
    /// `storage.tsdb.out_of_order_time_window`, a side matter.
    pub(super) out_of_order_window: Result<PromDuration, Arc<WindowError>>,
}

#[derive(Deserialize)]
struct BlocksAnswer {
    blocks: Option<Vec<LoadedBlock>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoadedBlock {
    ulid: BlockId,
    #[serde(default)]
    min_time: Option<i64>,
    #[serde(default)]
    max_time: Option<i64>,
}

impl LoadedBlock {
    /// What it covers; all times where that is not told or makes no sense.
    fn range(&self) -> TimeRange {
        let (mint, maxt) = match (self.min_time, self.max_time) {
            (Some(mint), Some(maxt)) if mint < maxt => (mint, maxt),
            _ => (i64::MIN, i64::MAX),
        };
        TimeRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        }
    }
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
        let http_client = config.http_client.client()?;
        Ok(Self(Arc::new(Inner {
            direct: DirectClient::new(http_client.clone(), remote_read::COALESCE),
            http: HttpClient::new(http_client),
            accept_gzip: config.http_client.accept_gzip,
            samples: Arc::new(Semaphore::new(1)),
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
        Ok(self.configuration().await?.labels)
    }

    /// What is needed of the configuration in force.
    pub(super) async fn configuration(&self) -> Result<Configuration, PeerError> {
        let path = "/api/v1/status/config";
        let call = self.api::<ConfigAnswer>(Agent::ControlPlane, path, CONFIG_BODY_MAX);
        let answer = call.await?;
        let labels = labels::external_labels(&answer.yaml);
        Ok(Configuration {
            labels: labels.map_err(|source| PeerError::Configuration {
                url: self.shown(path),
                source: Box::new(source),
            })?,
            out_of_order_window: labels::out_of_order_window(&answer.yaml).map_err(Arc::new),
        })
    }

    /// The blocks that Prometheus has loaded; `None` where it does not tell, as before 3.6.
    pub(super) async fn loaded_blocks(&self) -> Result<Option<ListedBlocks>, PeerError> {
        let path = "/api/v1/status/tsdb/blocks";
        let call = self.api::<BlocksAnswer>(Agent::Thanos, path, BLOCKS_BODY_MAX);
        match call.await {
            Err(error) if error.is_absent() => Ok(None),
            outcome => {
                let blocks = outcome?.blocks.unwrap_or_default();
                Ok(Some(
                    blocks
                        .iter()
                        .map(|block| (block.ulid, block.range()))
                        .collect(),
                ))
            }
        }
    }

    /// The time of the oldest sample; `None` where there is none yet. Beside it, `seen` gets what
    /// else was seen, also where the call fails or is dropped. `/metrics` is read only as far as
    /// needed, uncompressed, since compressing costs Prometheus more than the loopback saves. The
    /// status is not looked at unless the gauge is missing, as in the reference.
    pub(super) async fn lowest_timestamp(
        &self,
        seen: &mut Gauges,
    ) -> Result<Option<TimestampMs>, PeerError> {
        let url = self.shown("/metrics");
        let question = Question::Query(String::new());
        let response = self
            .send(Agent::Thanos, "/metrics", question, false)
            .await?;
        let status = response.status();
        let unusable = |detail| PeerError::Metric {
            url: url.clone(),
            metric: LOWEST_SECONDS,
            detail,
        };
        let scanned = scan(response, &url, seen).await;
        match (seen.lowest(), scanned) {
            (Some(Lowest::At(time)), _) => Ok(Some(time)),
            (Some(Lowest::NoData), _) => Ok(None),
            (Some(Lowest::Garbage(value)), _) => Err(unusable(format!(", its value is `{value}`"))),
            (None, Err(error)) => Err(error),
            (None, Ok(())) if status.is_success() => Err(unusable(String::new())),
            (None, Ok(())) => Err(unusable(format!(", the answer is {status}"))),
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

    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        agent: Agent,
        path: &str,
        limit: BodyLimit,
    ) -> Result<T, PeerError> {
        let question = Question::Query(String::new());
        let answer = self.ask(agent, path, question, limit).await?;
        answer.data.ok_or_else(|| PeerError::Api {
            url: self.shown(path),
            message: "the answer has no data".to_owned(),
        })
    }

    pub(super) fn shown(&self, path: &str) -> String {
        let url = self.0.base.join(path, "");
        url.map_or_else(|| path.to_owned(), |url| url.to_string())
    }
}

impl Inner {
    pub(super) fn agent(&self, agent: Agent) -> HeaderValue {
        match agent {
            Agent::ControlPlane => HeaderValue::from_static("thanos-sidecar"),
            Agent::Thanos => self.agent.clone(),
        }
    }
}

/// Reads until all gauges are known, or to the end.
async fn scan(
    response: Response<ResponseBody>,
    url: &str,
    seen: &mut Gauges,
) -> Result<(), PeerError> {
    let failed = |source| PeerError::Transport {
        url: url.to_owned(),
        source,
    };
    let mut body = response.into_body();
    let mut scan = GaugeScan::default();
    let mut scanned_bytes = 0_usize;
    while let Some(piece) = body.chunk().await.map_err(failed)? {
        if scan.push(&piece, seen) {
            return Ok(());
        }
        scanned_bytes = scanned_bytes.saturating_add(piece.len());
        if scanned_bytes > METRICS_SCAN_MAX.bytes {
            return Err(failed(METRICS_SCAN_MAX.exceeded()));
        }
    }
    scan.finish(seen);
    Ok(())
}

#[cfg(test)]
mod tests;
