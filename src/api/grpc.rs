//! The gRPC services: which there are, and who answers them (contract `grpc.md` §1).

mod exemplars;
mod health;
mod info;
mod labels;
mod metadata;
mod peer;
mod query;
mod reflection;
mod rules;
mod status;
mod store;
mod targets;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use health::HealthService;
use info::InfoService;
use peer::Peer;
use query::QueryService;
use reflection::ReflectionService;
use status::StatusService;
use store::StoreService;

use crate::lifecycle::Probe;
use crate::net::grpc::{Call, Code, Method, MethodKind, Service, Status};
use crate::prometheus::{Client, PeerWatch};
use crate::query::Engine;
use crate::store::{LocalUpstream, Store};

/// Everything that gRPC clients can ask us.
#[derive(Debug)]
pub struct GrpcServices {
    health: HealthService,
    info: InfoService,
    /// With `--query.enable`.
    query: Option<QueryService>,
    reflection: ReflectionService,
    status: StatusService,
    store: StoreService,
    peer: Peer,
}

/// What the services answer from.
#[derive(Debug)]
pub struct GrpcDependencies {
    /// Readiness, for Info, Status and health.
    pub probe: Probe,
    /// Prometheus as the heartbeat sees it.
    pub peer: PeerWatch,
    /// Prometheus itself, for rules, targets and the like.
    pub client: Client,
    /// How long its statistics may take: `--prometheus.get_config_timeout`.
    pub status_timeout: Duration,
    /// Series and labels.
    pub store: Store<LocalUpstream>,
    /// PromQL, with `--query.enable`.
    pub query: Option<Engine>,
}

const STORE: &str = "thanos.Store";
const INFO: &str = "thanos.info.Info";
const RULES: &str = "thanos.Rules";
const TARGETS: &str = "thanos.Targets";
const METADATA: &str = "thanos.Metadata";
const EXEMPLARS: &str = "thanos.Exemplars";
const STATUS: &str = "thanos.Status";
const QUERY: &str = "thanos.Query";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

const fn unary(service: &'static str, name: &'static str) -> Method {
    Method {
        service,
        name,
        kind: MethodKind::Unary,
    }
}

const fn stream(service: &'static str, name: &'static str) -> Method {
    Method {
        service,
        name,
        kind: MethodKind::ServerStream,
    }
}

const fn bidi(service: &'static str, name: &'static str) -> Method {
    Method {
        service,
        name,
        kind: MethodKind::BidiStream,
    }
}

/// The methods of Thanos, whose metrics are there from the start.
pub const THANOS_METHODS: &[Method] = &[
    stream(STORE, "Series"),
    unary(STORE, "LabelNames"),
    unary(STORE, "LabelValues"),
    unary(INFO, "Info"),
    stream(RULES, "Rules"),
    stream(TARGETS, "Targets"),
    stream(METADATA, "MetricMetadata"),
    stream(EXEMPLARS, "Exemplars"),
    stream(STATUS, "TSDBStatistics"),
];

/// Those of Thanos that are there with `--query.enable`.
pub const QUERY_METHODS: &[Method] = &[stream(QUERY, "Query"), stream(QUERY, "QueryRange")];

/// Those that every gRPC server has; their metrics come with the first call.
const GENERAL_METHODS: &[Method] = &[
    unary(HEALTH, "Check"),
    unary(HEALTH, "List"),
    stream(HEALTH, "Watch"),
    bidi(REFLECTION, "ServerReflectionInfo"),
    bidi(REFLECTION_ALPHA, "ServerReflectionInfo"),
];

fn methods(has_query: bool) -> impl Iterator<Item = &'static Method> {
    let query = if has_query { QUERY_METHODS } else { &[] };
    let all = THANOS_METHODS.iter().chain(query);
    all.chain(GENERAL_METHODS)
}

/// Whether there can be a method at `/service/name`.
pub(super) fn is_served(path: &str) -> bool {
    method_at(path, true).is_some()
}

fn method_at(path: &str, has_query: bool) -> Option<Method> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    let mut methods = methods(has_query);
    let found = methods.find(|method| method.service == service && method.name == name);
    found.copied()
}

// === impl GrpcServices ===

impl GrpcServices {
    /// The services over these dependencies.
    pub fn new(dependencies: GrpcDependencies) -> Self {
        let GrpcDependencies {
            probe,
            peer,
            client,
            status_timeout,
            store,
            query,
        } = dependencies;
        let served = methods(query.is_some());
        let whole_answers = store.whole_answers().clone();
        Self {
            health: HealthService::new(probe.clone()),
            info: InfoService::new(probe.clone(), peer.clone(), query.is_some()),
            reflection: ReflectionService::new(served.map(|method| method.service).collect()),
            query: query.map(|engine| QueryService::new(engine, peer.clone())),
            status: StatusService::new(probe, status_timeout),
            store: StoreService::new(store),
            peer: Peer::new(client, peer, whole_answers),
        }
    }
}

impl Service for GrpcServices {
    fn method(&self, path: &str) -> Option<Method> {
        method_at(path, self.query.is_some())
    }

    fn has_service(&self, service: &str) -> bool {
        methods(self.query.is_some()).any(|method| method.service == service)
    }

    async fn call(self: Arc<Self>, method: Method, call: Call) -> Result<(), Status> {
        if let Some(query) = &self.query {
            match (method.service, method.name) {
                (QUERY, "Query") => return query.query(call).await,
                (QUERY, "QueryRange") => return query.query_range(call).await,
                _ => {}
            }
        }
        match (method.service, method.name) {
            (STORE, "Series") => self.store.series(call).await,
            (STORE, "LabelNames") => self.store.label_names(call).await,
            (STORE, "LabelValues") => self.store.label_values(call).await,
            (INFO, "Info") => self.info.info(call).await,
            (RULES, "Rules") => rules::rules(&self.peer, call).await,
            (TARGETS, "Targets") => targets::targets(&self.peer, call).await,
            (METADATA, "MetricMetadata") => metadata::metric_metadata(&self.peer, call).await,
            (EXEMPLARS, "Exemplars") => exemplars::exemplars(&self.peer, call).await,
            (STATUS, "TSDBStatistics") => self.status.tsdb_statistics(&self.peer, call).await,
            (HEALTH, "Check") => self.health.check(call).await,
            (HEALTH, "List") => self.health.list(call).await,
            (HEALTH, "Watch") => self.health.watch(call).await,
            (REFLECTION | REFLECTION_ALPHA, _) => self.reflection.info(call).await,
            (service, name) => {
                let text = format!("{service}/{name} is listed and not served");
                Err(Status::new(Code::Unimplemented, text))
            }
        }
    }
}
