//! The gRPC server of the sidecar: built from the flags, open once Prometheus' labels are known.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::api::{GrpcDependencies, GrpcServices, QUERY_METHODS, THANOS_METHODS};
use crate::app::Environment;
use crate::app::cli::{GrpcArgs, SidecarArgs, StoreArgs};
use crate::lifecycle::{Drain, Probe};
use crate::net::grpc::{GrpcMetrics, GrpcServer, GrpcServerConfig, Method, RequestLog};
use crate::net::{ServerTls, TlsServer};
use crate::prometheus::{Client, PeerState, PeerWatch};
use crate::query::Engine;
use crate::store::{self, BlockMetrics, BlockSet, Gate, RequestLimits, Store};
use crate::trace::Tracer;

/// The gRPC server and what it serves, not yet listening.
pub(super) struct GrpcPart {
    address: String,
    config: GrpcServerConfig,
    metrics: GrpcMetrics,
    dependencies: GrpcDependencies,
    blocks: Option<BlockSet>,
    series_calls: Gate,
    list_calls: Gate,
    state: watch::Receiver<PeerState>,
    grace: Duration,
}

impl GrpcPart {
    /// Reads the TLS files and puts together what the services need.
    ///
    /// # Errors
    /// Where TLS can't be set up as the flags want it.
    pub(super) fn build(
        sidecar: &SidecarArgs,
        environment: &Environment,
        client: Client,
        peer: &PeerWatch,
        probe: &Probe,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let GrpcArgs {
            address,
            max_connection_age,
            grace_period,
            ..
        } = &sidecar.grpc;
        let blocks = sidecar.store.local_blocks.then(|| {
            let data_dir = sidecar.tsdb.path.clone();
            let metrics = BlockMetrics::register(registry);
            BlockSet::new(
                data_dir,
                environment.clock.clone(),
                peer.state.clone(),
                metrics,
            )
        });
        let config = store_config(&sidecar.store);
        let store = Store::over_prometheus(config, client.clone(), peer, blocks.clone(), registry);
        let series_calls = store.series_calls().clone();
        let list_calls = store.whole_answers().clone();
        let jitter_seed = u64::try_from(environment.clock.now_ns()).unwrap_or_default();
        Ok(Self {
            address: address.clone(),
            config: GrpcServerConfig {
                tls: tls(&sidecar.grpc).context("setup gRPC server")?,
                max_connection_age: max_connection_age.to_std_or_zero(),
                jitter_seed,
                request_log: RequestLog::Off,
                tracer: None,
            },
            metrics: GrpcMetrics::register(registry, &methods(sidecar.query.enable)),
            dependencies: GrpcDependencies {
                probe: probe.clone(),
                peer: peer.clone(),
                client,
                status_timeout: sidecar.prometheus.get_config_timeout.to_std_or_zero(),
                store,
                query: None,
            },
            blocks,
            series_calls,
            list_calls,
            state: peer.state.clone(),
            grace: grace_period.to_std_or_zero(),
        })
    }

    /// The same, answering queries where `--query.enable` made an engine.
    pub(super) fn with_query(mut self, engine: Option<Engine>) -> Self {
        self.dependencies.query = engine;
        self
    }

    /// The same, telling of calls in the log.
    pub(super) fn with_request_log(mut self, request_log: RequestLog) -> Self {
        self.config.request_log = request_log;
        self
    }

    /// The same, with a span for each call.
    pub(super) fn with_tracer(mut self, tracer: Option<Tracer>) -> Self {
        self.config.tracer = tracer;
        self
    }

    /// What has to be followed, so that local blocks can answer.
    pub(super) fn blocks(&self) -> Option<BlockSet> {
        self.blocks.clone()
    }

    /// How many Series calls run.
    pub(super) fn series_calls(&self) -> &Gate {
        &self.series_calls
    }

    /// How many calls for labels and other lists run.
    pub(super) fn list_calls(&self) -> &Gate {
        &self.list_calls
    }

    /// How long calls under way may go on at the end.
    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// Listens once labels were loaded, so that no querier sees a store without its labels; serves
    /// until the drain.
    ///
    /// # Errors
    /// Where the address can't be listened on.
    pub(super) async fn run(mut self, drain: Drain) -> anyhow::Result<()> {
        let loaded = async {
            let is_loaded = self.state.wait_for(|state| state.loaded).await.is_ok();
            // The heartbeat ends only when all does.
            if !is_loaded {
                std::future::pending::<()>().await;
            }
        };
        if drain.unless_started(loaded).await.is_none() {
            return Ok(());
        }
        let has_tls = self.config.tls.is_some();
        let server = GrpcServer::bind(&self.address, self.config, self.metrics).await?;
        tracing::info!(
            component = "grpc", address = %server.local_addr(), tls = has_tls,
            "listening for serving gRPC"
        );
        let services = Arc::new(GrpcServices::new(self.dependencies));
        server.serve(services, drain, self.grace).await;
        Ok(())
    }
}

/// The methods whose metrics are there from the start.
fn methods(has_query: bool) -> Vec<Method> {
    let query = if has_query { QUERY_METHODS } else { &[] };
    [THANOS_METHODS, query].concat()
}

fn store_config(args: &StoreArgs) -> store::Config {
    let limit = |value: u64| (value > 0).then_some(value);
    store::Config {
        sort_buffer_bytes: args.sort_buffer.bytes(),
        max_concurrent_series: args.max_concurrent_series,
        limits: RequestLimits {
            series: limit(args.request_series),
            samples: limit(args.request_samples),
        },
    }
}

fn tls(args: &GrpcArgs) -> anyhow::Result<Option<TlsServer>> {
    let asked = ServerTls {
        cert: args.tls_cert.clone(),
        key: args.tls_key.clone(),
        client_ca: args.tls_client_ca.clone(),
        min_version: args.tls_min_version,
        ciphers: args.tls_ciphers.clone(),
        curves: args.tls_curves.clone(),
    };
    let built = asked.build()?;
    for warning in built.iter().flat_map(|tls| tls.warnings()) {
        tracing::warn!(component = "grpc", "{warning}");
    }
    Ok(built)
}
