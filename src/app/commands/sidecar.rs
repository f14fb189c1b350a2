//! `outrigger sidecar`: builds the parts and runs them.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use grpc::GrpcPart;

use super::CommandError;
use crate::api::{BuildInfo, Endpoints, ProcessCollector, WebAccess, request_log};
use crate::app::Environment;
use crate::app::cli::{self, GlobalArgs, HttpArgs, IoArgs, ShipperArgs, SidecarArgs};
use crate::app::config::Documents;
use crate::app::version;
use crate::disk::{BufferPool, DiskEngine, Faults, register_engine_info};
use crate::lifecycle::{Drain, Probe, ProbeMetrics, Signals, Supervisor};
use crate::model::Clock;
use crate::net::grpc::RequestLog;
use crate::net::http::HttpServer;
use crate::objstore::{self, BucketConfig, BucketDependencies, Pace, RequestStats};
use crate::prometheus::{
    BaseUrl, Client, FlagExpectations, Heartbeat, HeartbeatConfig, HttpClientConfig, PeerMetrics,
    PeerWatch, await_labels,
};
use crate::reloader::Reloader;
use crate::shipper::{Dependencies, HashFunc, Policy, Shipper, ShipperConfig, ShipperMetrics};

mod grpc;
mod reloader;

/// Threads for the network: what two can't carry would take Prometheus' cores.
const WORKERS_MAX: usize = 2;

/// Threads for file operations, which block.
const BLOCKING_THREADS_MAX: usize = 16;

/// Parts of files in flight where the flag does not say.
const UPLOAD_CONCURRENCY_DEFAULT: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// More at a time only take buffers from each other.
const UPLOAD_CONCURRENCY_MAX: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Segments of a block that are read and verified at a time. The parts of one keep a bucket busy;
/// a second one fills the gap at its end, and each needs buffers of its own.
const FILES_AT_A_TIME_MAX: usize = 2;

/// How often a data directory that is not there is looked for.
const DATA_DIR_INTERVAL: Duration = Duration::from_millis(500);

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
    shipper: Option<(ShipperConfig, Dependencies)>,
    grpc: GrpcPart,
    ready_timeout: Duration,
    grace: Duration,
}

/// What the documents of the flags say.
struct Settings {
    current_dir: PathBuf,
    bucket: Option<BucketConfig>,
    client: Client,
    access: WebAccess,
    request_log: RequestLog,
}

fn prepare(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    environment: &Environment,
) -> anyhow::Result<(tokio::runtime::Runtime, Parts)> {
    let documents = Documents::load(global, sidecar, &*environment.variable)?;
    let current_dir = current_dir()?;
    let settings = Settings {
        bucket: bucket_config(&documents.objstore, &current_dir)?,
        client: client(sidecar, &documents.prometheus_http_client)?,
        access: access(&sidecar.http)?,
        request_log: request_logging(sidecar, &documents.request_logging, &environment.clock)?,
        current_dir,
    };
    let runtime = runtime()?;
    let parts = runtime.block_on(async { build(sidecar, environment, settings).await });
    Ok((runtime, parts?))
}

async fn build(
    sidecar: &SidecarArgs,
    environment: &Environment,
    settings: Settings,
) -> anyhow::Result<Parts> {
    let Settings {
        current_dir,
        bucket,
        client,
        access,
        request_log,
    } = settings;
    let signals = Signals::catch().context("catch signals")?;
    let http = HttpServer::bind(&sidecar.http.address).await?;
    let mut registry = Registry::default();
    build_info().register(&mut registry);
    ProcessCollector.register(&mut registry);
    let probe = Probe::new(ProbeMetrics::register(&mut registry));
    let peer_metrics = PeerMetrics::register(&mut registry);
    let heartbeat_config = HeartbeatConfig {
        interval: sidecar.prometheus.get_config_interval.to_std_or_zero(),
        timeout: sidecar.prometheus.get_config_timeout.to_std_or_zero(),
        min_time: sidecar.tsdb.min_time,
        clock: environment.clock.clone(),
        uploads: bucket.is_some().then(|| expectations(sidecar, current_dir)),
    };
    let (heartbeat, peer) = Heartbeat::new(
        heartbeat_config,
        client.clone(),
        probe.clone(),
        peer_metrics,
    );
    let reloader = reloader::build(
        &sidecar.reloader,
        environment,
        client.clone(),
        &mut registry,
    );
    let grpc = GrpcPart::build(sidecar, environment, client, &peer, &probe, &mut registry)?
        .with_request_log(request_log);
    let shipper = match bucket {
        Some(config) => Some(shipper(
            sidecar,
            environment,
            &config,
            &peer,
            &mut registry,
        )?),
        None => {
            tracing::info!("no supported bucket was configured, uploads will be disabled");
            None
        }
    };
    Ok(Parts {
        signals,
        reloader,
        endpoints: Endpoints::new(probe.clone(), Arc::new(registry)),
        http,
        access,
        probe,
        heartbeat,
        peer,
        shipper,
        grpc,
        ready_timeout: sidecar.prometheus.ready_timeout.to_std_or_zero(),
        grace: sidecar.http.grace_period.to_std(),
    })
}

fn shipper(
    sidecar: &SidecarArgs,
    environment: &Environment,
    config: &BucketConfig,
    peer: &PeerWatch,
    registry: &mut Registry,
) -> anyhow::Result<(ShipperConfig, Dependencies)> {
    let ShipperArgs {
        hash_func,
        upload_concurrency,
        upload_jitter,
        max_rate,
        meta_file_name,
        ..
    } = &sidecar.shipper;
    let clock = &environment.clock;
    let jitter_seed = u64::try_from(clock.now_ns()).unwrap_or_default();
    let parts_in_flight = concurrency(*upload_concurrency);
    let engine = disk_engine(&sidecar.io, registry)?;
    let bucket = BucketDependencies {
        engine: engine.clone(),
        registry,
        clock: clock.clone(),
        jitter_seed,
        variable: Arc::clone(&environment.variable),
        parts_in_flight,
        // Half of the buffers, as others need some, too.
        body_bytes_max: engine.pool().capacity_bytes() as u64 / 2,
        pace: max_rate
            .and_then(|rate| NonZeroU64::new(rate.bytes()))
            .map(Pace::new),
        payload_signing: sidecar.s3.payload_signing,
        requests: RequestStats::default(),
    };
    let dependencies = Dependencies {
        bucket: objstore::build(config, bucket)?,
        engine,
        labels: peer.labels.clone(),
        clock: clock.clone(),
        metrics: ShipperMetrics::register(registry),
        faults: Faults::default(),
    };
    let config = ShipperConfig {
        data_dir: sidecar.tsdb.path.clone(),
        ledger_name: meta_file_name.clone(),
        policy: Policy {
            upload_compacted: sidecar.shipper.upload_compacted,
            allow_out_of_order: sidecar.shipper.allow_out_of_order_uploads,
            skip_corrupted: sidecar.shipper.skip_corrupted_blocks,
        },
        hash_func: match hash_func {
            cli::HashFunc::None => HashFunc::None,
            cli::HashFunc::Sha256 => HashFunc::Sha256,
        },
        upload_concurrency: parts_in_flight.get().min(FILES_AT_A_TIME_MAX),
        upload_jitter: upload_jitter.to_std_or_zero(),
        jitter_seed,
    };
    Ok((config, dependencies))
}

fn disk_engine(io: &IoArgs, registry: &mut Registry) -> anyhow::Result<DiskEngine> {
    let engine = DiskEngine::build(io.engine, BufferPool::new(io.buffers))?;
    let info = engine.info();
    tracing::info!(
        engine = info.engine, reason = %info.reason, buffers = io.buffers,
        "disk engine"
    );
    register_engine_info(info, registry);
    Ok(engine)
}

/// How many parts may be in flight; zero and below mean the default.
fn concurrency(asked: i64) -> NonZeroUsize {
    let asked = usize::try_from(asked).ok().and_then(NonZeroUsize::new);
    let asked = asked.unwrap_or(UPLOAD_CONCURRENCY_DEFAULT);
    if asked > UPLOAD_CONCURRENCY_MAX {
        tracing::warn!(
            flag = "shipper.upload-concurrency",
            asked,
            used = UPLOAD_CONCURRENCY_MAX,
            "more at a time would only cost memory"
        );
    }
    asked.min(UPLOAD_CONCURRENCY_MAX)
}

fn bucket_config(
    yaml: &str,
    current_dir: &std::path::Path,
) -> anyhow::Result<Option<BucketConfig>> {
    if yaml.is_empty() {
        return Ok(None);
    }
    let config = BucketConfig::parse(yaml, current_dir)?;
    for warning in &config.warnings {
        tracing::warn!(flag = "objstore.config", "{warning}");
    }
    Ok(Some(config))
}

fn client(sidecar: &SidecarArgs, http_client_yaml: &str) -> anyhow::Result<Client> {
    let (http_client, unknown) = HttpClientConfig::parse(http_client_yaml)
        .context("parsing Prometheus HTTP client config")?;
    for key in unknown {
        tracing::warn!(flag = "prometheus.http-client", "{key}");
    }
    let config = crate::prometheus::Config {
        url: BaseUrl::try_from(sidecar.prometheus.url.uri())?,
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

fn expectations(sidecar: &SidecarArgs, current_dir: PathBuf) -> FlagExpectations {
    FlagExpectations {
        data_dir: sidecar.tsdb.path.clone(),
        meta_file_name: sidecar.shipper.meta_file_name.clone(),
        ignore_unequal_block_size: sidecar.shipper.ignore_unequal_block_size,
        current_dir,
    }
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
            ready_timeout,
            grace,
        } = self;
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
        if let Some(shipper) = shipper {
            let drain = supervisor.drain();
            supervisor.spawn("shipper", ship(shipper, peer, ready_timeout, drain));
        }
        // At once, so that nobody is sent here while calls under way are finished.
        let (drain, ending) = (supervisor.drain(), probe.clone());
        let told = tokio::spawn(async move {
            drain.started().await;
            ending.not_ready(&"shutting down");
            ending.not_healthy(&"shutting down");
        });
        let ended = supervisor.run(grace.max(grpc_grace)).await;
        told.await?;
        Ok(ended?)
    }
}

/// Ships once there are labels to ship with. The data directory is opened and its ledger written
/// before that; one that is not there may still be made by a Prometheus that starts for the first
/// time, so it is waited for as long as there are no labels either.
async fn ship(
    (config, dependencies): (ShipperConfig, Dependencies),
    peer: PeerWatch,
    ready_timeout: Duration,
    drain: Drain,
) -> anyhow::Result<()> {
    let open = || Shipper::open(config.clone(), dependencies.clone());
    let starting = async {
        let labels = await_labels(peer.state, ready_timeout);
        let opened = async {
            loop {
                match open().await {
                    Err(error) if error.is_not_found() => {
                        tokio::time::sleep(DATA_DIR_INTERVAL).await
                    }
                    outcome => return outcome,
                }
            }
        };
        tokio::pin!(labels);
        tokio::select! {
            shipper = opened => {
                let shipper = shipper?;
                anyhow::Ok((shipper, labels.await?))
            }
            labels = &mut labels => {
                let labels = labels?;
                Ok((open().await?, labels))
            }
        }
    };
    if let Some(started) = drain.unless_started(starting).await {
        let (shipper, labels) = started?;
        tracing::info!(labels = %labels.0, "shipping blocks with these external labels");
        shipper.run(drain).await;
    }
    Ok(())
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
