//! The shipper of a sidecar: from its flags, and run once there are labels to ship with.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::flush::HeadFlush;
use crate::app::Environment;
use crate::app::cli::{self, IoArgs, ShipperArgs, SidecarArgs};
use crate::disk::{BufferPool, DiskEngine, Faults, register_engine_info};
use crate::lifecycle::Drain;
use crate::objstore::{self, BucketConfig, BucketDependencies, Pace, RequestStats};
use crate::prometheus::{Client, PeerWatch, await_labels};
use crate::shipper::{Dependencies, HashFunc, Policy, Shipper, ShipperConfig, ShipperMetrics};
use crate::trace::Tracer;

/// Parts of files in flight where the flag does not say.
const UPLOAD_CONCURRENCY_DEFAULT: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// More at a time only take buffers from each other.
const UPLOAD_CONCURRENCY_MAX: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Segments of a block that are read and verified at a time. The parts of one keep a bucket busy;
/// a second one fills the gap at its end, and each needs buffers of its own.
const FILES_AT_A_TIME_MAX: usize = 2;

/// How often a data directory that is not there is looked for.
const DATA_DIR_INTERVAL: Duration = Duration::from_millis(500);

/// A shipper that has not opened its data directory.
#[derive(Debug)]
pub(super) struct ShipperPart {
    pub(super) config: ShipperConfig,
    pub(super) dependencies: Dependencies,
    /// What is counted of requests to the bucket.
    pub(super) requests: RequestStats,
    flush: Option<HeadFlush>,
}

/// Builds it where there is a bucket; nothing is opened yet.
///
/// # Errors
/// Where disk engine or bucket can't be built.
pub(super) fn build(
    sidecar: &SidecarArgs,
    environment: &Environment,
    config: Option<&BucketConfig>,
    peer: &PeerWatch,
    registry: &mut Registry,
) -> anyhow::Result<Option<ShipperPart>> {
    let Some(config) = config else {
        tracing::info!("no supported bucket was configured, uploads will be disabled");
        return Ok(None);
    };
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
    let requests = RequestStats::default();
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
        requests: requests.clone(),
    };
    let dependencies = Dependencies {
        bucket: objstore::build(config, bucket)?,
        engine,
        labels: peer.labels.clone(),
        clock: clock.clone(),
        metrics: ShipperMetrics::register(registry),
        status: watch::Sender::default(),
        faults: Faults::default(),
        tracer: None,
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
    Ok(Some(ShipperPart {
        config,
        dependencies,
        requests,
        flush: None,
    }))
}

impl ShipperPart {
    /// The same, with a span for each block.
    pub(super) fn with_tracer(mut self, tracer: Option<Tracer>) -> Self {
        self.dependencies.tracer = tracer;
        self
    }
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

/// Ships once there are labels to ship with. The data directory is opened and its ledger written
/// before that; one that is not there may still be made by a Prometheus that starts for the first
/// time, so it is waited for as long as there are no labels either.
pub(super) async fn ship(
    part: ShipperPart,
    peer: PeerWatch,
    ready_timeout: Duration,
    drain: Drain,
) -> anyhow::Result<()> {
    let ShipperPart {
        config,
        dependencies,
        flush,
        ..
    } = part;
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
        let (mut shipper, labels) = started?;
        tracing::info!(labels = %labels.0, "shipping blocks with these external labels");
        if let Some(flush) = &flush {
            let looked = drain.unless_started(flush.warn_if_impossible());
            looked.await.unwrap_or_default();
        }
        shipper.run(drain).await?;
        if let Some(flush) = flush {
            flush.run(&mut shipper).await?;
        }
    }
    Ok(())
}

// === impl ShipperPart ===

impl ShipperPart {
    /// The head is flushed at the end where the flags say so.
    pub(super) fn with_flush(mut self, args: &ShipperArgs, client: &Client) -> Self {
        let flush = || HeadFlush::new(client.clone(), args.flush_timeout.to_std_or_zero());
        self.flush = args.flush_on_shutdown.then(flush);
        self
    }

    /// How long the end may take because of this part.
    pub(super) fn grace(&self) -> Duration {
        self.flush.as_ref().map_or(Duration::ZERO, HeadFlush::grace)
    }
}
