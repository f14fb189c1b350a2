//! `outrigger sidecar`: builds the parts and runs them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;

use grpc::GrpcPart;
use query::QueryPart;
use reloader::ReloaderPart;
use shipping::{ShipperPart, ship};
use spans::TracingPart;

use super::CommandError;
use crate::api::{BuildInfo, Endpoints, ProcessCollector, WebAccess, request_log};
use crate::app::Environment;
use crate::app::cli::{GlobalArgs, HttpArgs, SidecarArgs};
use crate::app::config::Documents;
use crate::app::version;
use crate::lifecycle::{Drain, Probe, ProbeMetrics, Signals, Supervisor};
use crate::model::{Clock, ConfinementStatus};
use crate::net::grpc::RequestLog;
use crate::net::http::HttpServer;
use crate::objstore::BucketConfig;
use crate::otlp::TracingConfig;
use crate::prometheus::{
    BaseUrl, Client, FlagExpectations, Heartbeat, HeartbeatConfig, HttpClientConfig, PeerMetrics,
    PeerWatch,
};
use crate::reloader::Reloader;

mod confinement;
mod flush;
mod grpc;
mod query;
mod reloader;
mod shipping;
mod spans;
mod status;

/// Threads for the network: what two can't carry would take Prometheus' cores.
const WORKERS_MAX: usize = 2;

/// Threads for file operations, which block.
const BLOCKING_THREADS_MAX: usize = 16;

/// Runs until a signal or the first part's end.
///
/// # Errors
/// Where a part can't be built, or one ends with an error.
pub fn run(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    environment: &Environment,
) -> Result<(), CommandError> {
    raise_open_files_limit();
    let prepared = prepare(global, sidecar, environment);
    let (runtime, parts) = prepared.map_err(|source| CommandError::Prepare {
        command: "sidecar",
        source,
    })?;
    let ended = runtime.block_on(parts.run());
    // File operations that outlived the deadline must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended.map_err(|source| CommandError::Run {
        command: "sidecar",
        source,
    })
}

/// Everything that was built and not started yet.
struct Parts {
    signals: Signals,
    reloader: Reloader,
    http: HttpServer,
    access: WebAccess,
    endpoints: Endpoints,
    probe: Probe,
    heartbeat: Heartbeat,
    peer: PeerWatch,
    shipper: Option<ShipperPart>,
    grpc: GrpcPart,
    tracing: Option<TracingPart>,
    ready_timeout: Duration,
    grace: Duration,
}

/// What the documents of the flags say.
struct Settings {
    current_dir: PathBuf,
    bucket: Option<BucketConfig>,
    prometheus: BaseUrl,
    client: Client,
    access: WebAccess,
    request_log: RequestLog,
    tracing: Option<TracingConfig>,
}

fn prepare(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    environment: &Environment,
) -> anyhow::Result<(tokio::runtime::Runtime, Parts)> {
    let documents = Documents::load(global, sidecar, &*environment.variable)?;
    let current_dir = current_dir()?;
    let prometheus = BaseUrl::try_from(sidecar.prometheus.url.uri())?;
    let access = access(&sidecar.http)?;
    let mut files = access.files();
    let http_client = http_client(&documents.prometheus_http_client)?;
    files.extend(http_client.files().map(Path::to_owned));
    let tracing = spans::config(global, &documents.tracing, environment)?;
    files.extend(tracing.iter().flat_map(TracingConfig::files));
    let settings = Settings {
        bucket: bucket_config(&documents.objstore, &current_dir)?,
        client: client(prometheus.clone(), http_client)?,
        prometheus,
        access,
        request_log: request_logging(sidecar, &documents.request_logging, &environment.clock)?,
        tracing,
        current_dir,
    };
    // Everything below runs confined.
    let confined = confinement::apply(global, sidecar, (&settings, &files), environment);
    let runtime = runtime()?;
    let parts = build(global, sidecar, environment, settings, confined);
    let parts = runtime.block_on(parts);
    Ok((runtime, parts?))
}

async fn build(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    environment: &Environment,
    settings: Settings,
    confined: ConfinementStatus,
) -> anyhow::Result<Parts> {
    let Settings {
        current_dir,
        bucket,
        prometheus,
        client,
        access,
        request_log,
        tracing,
    } = settings;
    let started = Instant::now();
    let signals = Signals::catch().context("catch signals")?;
    let http = HttpServer::bind(&sidecar.http.address).await?;
    let mut registry = registry(&confined);
    let (tracing, tracer) = spans::build(global, tracing.as_ref(), environment, &mut registry)?;
    let probe = Probe::new(ProbeMetrics::register(&mut registry));
    let peer_metrics = PeerMetrics::register(&mut registry);
    let uploads = bucket.is_some().then(|| expectations(sidecar, current_dir));
    let (heartbeat, peer) = Heartbeat::new(
        heartbeat_config(sidecar, environment, uploads),
        client.clone(),
        probe.clone(),
        peer_metrics,
    );
    let ReloaderPart { reloader, status } = reloader::build(
        &sidecar.reloader,
        environment,
        client.clone(),
        &mut registry,
    );
    let shipper = shipping::build(sidecar, environment, bucket.as_ref(), &peer, &mut registry)?;
    let shipper = shipper.map(|shipper| {
        shipper
            .with_flush(&sidecar.shipper, &client)
            .with_tracer(tracer.clone())
    });
    let query = QueryPart::build(&sidecar.query, &client, &peer, &mut registry);
    let grpc = GrpcPart::build(sidecar, environment, client, &peer, &probe, &mut registry)?
        .with_query(query.engine.clone())
        .with_request_log(request_log)
        .with_tracer(tracer);
    let sources = status::sources(status::Shown {
        environment,
        started,
        prometheus: &prometheus,
        peer: &peer,
        probe: &probe,
        grpc: &grpc,
        query: query.engine.as_ref(),
        shipper: shipper.as_ref(),
        reloader: status,
        confined,
    });
    let endpoints = Endpoints::new(probe.clone(), Arc::new(registry)).with_status(sources);
    Ok(Parts {
        signals,
        reloader,
        endpoints: endpoints.with_query(query.api),
        http,
        access,
        probe,
        heartbeat,
        peer,
        shipper,
        grpc,
        tracing,
        ready_timeout: sidecar.prometheus.ready_timeout.to_std_or_zero(),
        grace: sidecar.http.grace_period.to_std(),
    })
}

fn bucket_config(yaml: &str, current_dir: &Path) -> anyhow::Result<Option<BucketConfig>> {
    if yaml.is_empty() {
        return Ok(None);
    }
    let config = BucketConfig::parse(yaml, current_dir)?;
    for warning in &config.warnings {
        tracing::warn!(flag = "objstore.config", "{warning}");
    }
    Ok(Some(config))
}

fn http_client(yaml: &str) -> anyhow::Result<HttpClientConfig> {
    let (http_client, unknown) =
        HttpClientConfig::parse(yaml).context("parsing Prometheus HTTP client config")?;
    for key in unknown {
        tracing::warn!(flag = "prometheus.http-client", "{key}");
    }
    Ok(http_client)
}

fn client(url: BaseUrl, http_client: HttpClientConfig) -> anyhow::Result<Client> {
    let config = crate::prometheus::Config {
        url,
        http_client,
        thanos_version: version::STANDS_IN_FOR.to_owned(),
    };
    Ok(Client::new(config)?)
}

/// The web configuration, whose errors the reference tells under this name.
fn access(http: &HttpArgs) -> anyhow::Result<WebAccess> {
    match &http.config {
        None => Ok(WebAccess::open()),
        Some(path) => WebAccess::from_file(path).context("server could not be started"),
    }
}

fn request_logging(sidecar: &SidecarArgs, yaml: &str, clock: &Clock) -> anyhow::Result<RequestLog> {
    let (request_log, warnings) =
        request_log(yaml, clock).with_context(|| match &sidecar.request_logging.config_file {
            Some(path) => format!("parsing request.logging-config-file {}", path.display()),
            None => "parsing request.logging-config".to_owned(),
        })?;
    for warning in warnings {
        tracing::warn!(flag = "request.logging-config", "{warning}");
    }
    Ok(request_log)
}

fn heartbeat_config(
    sidecar: &SidecarArgs,
    environment: &Environment,
    uploads: Option<FlagExpectations>,
) -> HeartbeatConfig {
    HeartbeatConfig {
        interval: sidecar.prometheus.get_config_interval.to_std_or_zero(),
        timeout: sidecar.prometheus.get_config_timeout.to_std_or_zero(),
        min_time: sidecar.tsdb.min_time,
        clock: environment.clock.clone(),
        uploads,
    }
}

fn expectations(sidecar: &SidecarArgs, current_dir: PathBuf) -> FlagExpectations {
    FlagExpectations {
        data_dir: sidecar.tsdb.path.clone(),
        meta_file_name: sidecar.shipper.meta_file_name.clone(),
        ignore_unequal_block_size: sidecar.shipper.ignore_unequal_block_size,
        current_dir,
    }
}

/// A registry with what there is to tell of the process itself.
fn registry(confined: &ConfinementStatus) -> Registry {
    let mut registry = Registry::default();
    build_info().register(&mut registry);
    ProcessCollector.register(&mut registry);
    confinement::register(confined, &mut registry);
    registry
}

fn build_info() -> BuildInfo {
    let (goos, goarch) = version::go_platform();
    BuildInfo {
        branch: version::BRANCH.to_owned(),
        goarch: goarch.to_owned(),
        goos: goos.to_owned(),
        goversion: version::COMPILER.to_owned(),
        revision: version::REVISION.to_owned(),
        tags: "unknown".to_owned(),
        version: version::VERSION.to_owned(),
    }
}

/// The runtime of everything that waits for the network.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKERS_MAX))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    runtime.context("start the runtime")
}

/// Allows as many open files as the system permits. The soft limit, often 1024, is kept low for
/// programs that use `select`; held blocks with their segments need more.
fn raise_open_files_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = ?current, to = ?maximum, "raised the open files limit"),
        Err(error) => tracing::warn!(
            err = %error, limit = ?current, wanted = ?maximum,
            "the open files limit can't be raised"
        ),
    }
}

fn current_dir() -> anyhow::Result<PathBuf> {
    std::env::current_dir().context("find the working directory")
}

// === impl Parts ===

impl Parts {
    /// Starts everything and waits for the end: a signal, or the first part that ends.
    async fn run(self) -> anyhow::Result<()> {
        let Self {
            signals,
            reloader,
            http,
            access,
            endpoints,
            probe,
            heartbeat,
            peer,
            shipper,
            grpc,
            tracing,
            ready_timeout,
            grace,
        } = self;
        let exporter = tracing.map(TracingPart::start);
        let mut supervisor = Supervisor::new();
        let drain = supervisor.drain();
        supervisor.spawn("signal handler", async move {
            // Waiting on would hold up the end that another part began.
            if let Some(signal) = drain.unless_started(signals.termination()).await {
                tracing::info!(signal, "caught signal. Exiting.");
            }
            Ok::<_, std::convert::Infallible>(())
        });
        // Before all else: Prometheus may be waiting for the configuration that this writes.
        supervisor.spawn("reloader", reloader.run(supervisor.drain()));
        tracing::info!(
            component = "http", address = %http.local_addr(),
            "listening for requests and metrics"
        );
        probe.healthy();
        let drain = supervisor.drain();
        supervisor.spawn("HTTP server", async move {
            let transport = access.clone();
            let handler = access.guarded(endpoints.handler());
            http.serve_over(move || transport.transport(), handler, drain, grace)
                .await;
            Ok::<_, std::convert::Infallible>(())
        });
        let drain = supervisor.drain();
        supervisor.spawn("heartbeat", heartbeat.run(drain));
        if let Some(blocks) = grpc.blocks() {
            let drain = supervisor.drain();
            supervisor.spawn("local blocks", async move {
                blocks.follow(drain).await;
                Ok::<_, std::convert::Infallible>(())
            });
        }
        let drain = supervisor.drain();
        let grpc_grace = grpc.grace();
        supervisor.spawn("gRPC server", grpc.run(drain));
        let mut grace = grace.max(grpc_grace);
        if let Some(shipper) = shipper {
            grace = grace.max(shipper.grace());
            let drain = supervisor.drain();
            supervisor.spawn("shipper", ship(shipper, peer, ready_timeout, drain));
        }
        let told = tokio::spawn(tell_the_end(supervisor.drain(), probe));
        let ended = supervisor.run(grace).await;
        let began = told.await?;
        if let Some(exporter) = exporter {
            // After all who record spans.
            spans::finish(exporter, grace.saturating_sub(began.elapsed())).await;
        }
        Ok(ended?)
    }
}

/// Tells of the end when it begins, so that nobody is sent here while calls under way are finished;
/// when that was.
async fn tell_the_end(drain: Drain, probe: Probe) -> Instant {
    drain.started().await;
    let began = Instant::now();
    probe.not_ready(&"shutting down");
    probe.not_healthy(&"shutting down");
    began
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_files_limit_is_raised_as_far_as_it_goes() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let lowered = Rlimit {
            current: Some(maximum.unwrap_or(1 << 20) - 1),
            maximum,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        assert_eq!(getrlimit(Resource::Nofile), lowered);
        raise_open_files_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
