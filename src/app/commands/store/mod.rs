//! `outrigger store`: asks a StoreAPI server of whatever component what it has.
//!
//! Answers are printed as they come, so that a million series need no memory here either.

mod print;

use anyhow::Context as _;
use prost::Message;

use self::print::Printer;
use super::CommandError;
use super::sidecar::runtime;
use crate::app::Environment;
use crate::app::cli::{StoreCommand, StoreTarget, StoreTimes};
use crate::lifecycle::Signals;
use crate::net::ClientTls;
use crate::net::grpc::{CallOptions, Client};
use crate::proto::thanos::info::{InfoRequest, InfoResponse};
use crate::proto::thanos::{
    LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse, SeriesRequest,
    SeriesResponse,
};
use crate::store::selector_matchers;

const NAME: &str = "store";

/// The longest message that is taken: a batch of series with very many chunks.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// Asks and prints; a signal ends it.
///
/// # Errors
/// Where the selector is none, the server can't be reached, or it answers with an error.
pub fn run(command: &StoreCommand, environment: &Environment) -> Result<(), CommandError> {
    let runtime = runtime().map_err(|source| CommandError::Prepare {
        command: NAME,
        source,
    })?;
    let asking = async {
        let signals = Signals::catch().context("catch signals")?;
        tokio::select! {
            signal = signals.termination() => anyhow::bail!("interrupted by {signal}"),
            asked = ask(command, environment) => asked,
        }
    };
    runtime
        .block_on(asking)
        .map_err(|source| CommandError::Run {
            command: NAME,
            source,
        })
}

async fn ask(command: &StoreCommand, environment: &Environment) -> anyhow::Result<()> {
    match command {
        StoreCommand::Info { target } => {
            let server = Server::connect(target).await?;
            let info: InfoResponse = server
                .ask("/thanos.info.Info/Info", &InfoRequest {})
                .await?;
            server.printer().info(&info)
        }
        StoreCommand::Labels {
            target,
            selector,
            times,
        } => {
            let (start, end) = instants(times, environment);
            let request = LabelNamesRequest {
                start,
                end,
                matchers: selector_matchers(selector)?,
                limit: limit(times)?,
                ..LabelNamesRequest::default()
            };
            let server = Server::connect(target).await?;
            let found: LabelNamesResponse =
                server.ask("/thanos.Store/LabelNames", &request).await?;
            server.printer().list(&found.names, &found.warnings)
        }
        StoreCommand::Values {
            target,
            label,
            selector,
            times,
        } => {
            let (start, end) = instants(times, environment);
            let request = LabelValuesRequest {
                label: label.clone(),
                start,
                end,
                matchers: selector_matchers(selector)?,
                limit: limit(times)?,
                ..LabelValuesRequest::default()
            };
            let server = Server::connect(target).await?;
            let found: LabelValuesResponse =
                server.ask("/thanos.Store/LabelValues", &request).await?;
            server.printer().list(&found.values, &found.warnings)
        }
        StoreCommand::Series {
            target,
            selector,
            times,
            skip_chunks,
            without_replica_labels,
            batch_size,
        } => {
            let (min_time, max_time) = instants(times, environment);
            let request = SeriesRequest {
                min_time,
                max_time,
                matchers: selector_matchers(selector)?,
                skip_chunks: *skip_chunks,
                without_replica_labels: without_replica_labels.clone(),
                limit: limit(times)?,
                response_batch_size: *batch_size,
                ..SeriesRequest::default()
            };
            series(&Server::connect(target).await?, &request, times.limit).await
        }
    }
}

/// Prints series as they arrive, and no more than asked for: most servers know the limit for
/// labels only.
async fn series(server: &Server<'_>, request: &SeriesRequest, limit: u64) -> anyhow::Result<()> {
    let options = server.options();
    let body = request.encode_to_vec();
    let answering = server
        .client
        .server_streaming("/thanos.Store/Series", &body, options);
    let mut answer = answering.await?;
    let mut printer = server.printer();
    printer.begin_series(request.skip_chunks, limit)?;
    while let Some(message) = answer.message().await? {
        printer.series(SeriesResponse::decode(message)?)?;
        if printer.is_full() {
            break;
        }
    }
    printer.end_series()
}

/// A server that is connected.
struct Server<'a> {
    client: Client,
    target: &'a StoreTarget,
}

impl<'a> Server<'a> {
    async fn connect(target: &'a StoreTarget) -> anyhow::Result<Self> {
        let has_files = [&target.tls_ca, &target.tls_cert, &target.tls_key]
            .iter()
            .any(|file| file.is_some());
        let server_name = Some(target.tls_server_name.clone()).filter(|name| !name.is_empty());
        let wants_tls = target.tls || has_files || server_name.is_some() || target.tls_skip_verify;
        let tls = ClientTls {
            ca_file: target.tls_ca.clone(),
            cert_file: target.tls_cert.clone(),
            key_file: target.tls_key.clone(),
            server_name,
            insecure_skip_verify: target.tls_skip_verify,
        };
        let tls = wants_tls.then(|| tls.build()).transpose()?;
        let client = Client::connect(&target.address, tls).await?;
        Ok(Self { client, target })
    }

    fn options(&self) -> CallOptions {
        let timeout = self.target.timeout.to_std_or_zero();
        CallOptions {
            timeout: (!timeout.is_zero()).then_some(timeout),
            message_bytes_max: MESSAGE_BYTES_MAX,
            ..CallOptions::default()
        }
    }

    async fn ask<M: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
    ) -> anyhow::Result<M> {
        let body = request.encode_to_vec();
        let answer = self.client.unary(path, &body, self.options()).await?;
        Ok(M::decode(answer)?)
    }

    fn printer(&self) -> Printer {
        Printer::new(self.target.output)
    }
}

fn instants(times: &StoreTimes, environment: &Environment) -> (i64, i64) {
    let clock = &environment.clock;
    (times.start.at(clock).0, times.end.at(clock).0)
}

fn limit(times: &StoreTimes) -> anyhow::Result<i64> {
    i64::try_from(times.limit).context("--limit")
}
