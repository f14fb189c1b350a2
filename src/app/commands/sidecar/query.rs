//! The query APIs of the sidecar: one engine, which HTTP and gRPC share. Off unless
//! `--query.enable`.

use prometheus_client::registry::Registry;

use crate::api::{QueryApi, QueryApiConfig};
use crate::app::cli::QueryArgs;
use crate::prometheus::{Client, PeerWatch};
use crate::query::{Engine, EngineConfig};

/// What answers queries, where that is wanted.
pub(super) struct QueryPart {
    pub(super) engine: Option<Engine>,
    pub(super) api: Option<QueryApi>,
}

impl QueryPart {
    /// As the flags say. There are metrics only where there are queries.
    pub(super) fn build(
        args: &QueryArgs,
        client: &Client,
        peer: &PeerWatch,
        registry: &mut Registry,
    ) -> Self {
        if !args.enable {
            return Self {
                engine: None,
                api: None,
            };
        }
        let config = EngineConfig {
            client: client.clone(),
            peer: peer.clone(),
            max_concurrent: args.max_concurrent,
            timeout: args.timeout.to_std(),
            replica_labels: args.replica_labels.clone(),
        };
        let engine = Engine::new(config, registry);
        let api = QueryApi::new(QueryApiConfig {
            engine: engine.clone(),
            client: client.clone(),
            peer: peer.clone(),
            timeout: args.timeout.to_std(),
            default_step: args.default_step.to_std(),
        });
        Self {
            engine: Some(engine),
            api: Some(api),
        }
    }
}
