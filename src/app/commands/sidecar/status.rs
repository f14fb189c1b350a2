//! What the status page of the sidecar shows, gathered from its parts.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::grpc::GrpcPart;
use super::shipping::ShipperPart;
use crate::api::{IoReading, ShippingSource, StatusSources};
use crate::app::Environment;
use crate::app::version;
use crate::lifecycle::Probe;
use crate::model::{ConfinementStatus, IoStatus, ReloadStatus};
use crate::prometheus::{BaseUrl, PeerWatch};
use crate::query::Engine;

/// The parts that are shown.
pub(super) struct Shown<'a> {
    pub(super) environment: &'a Environment,
    /// When the process started.
    pub(super) started: Instant,
    pub(super) prometheus: &'a BaseUrl,
    pub(super) peer: &'a PeerWatch,
    pub(super) probe: &'a Probe,
    pub(super) grpc: &'a GrpcPart,
    pub(super) query: Option<&'a Engine>,
    pub(super) shipper: Option<&'a ShipperPart>,
    pub(super) reloader: Option<watch::Receiver<ReloadStatus>>,
    pub(super) confined: ConfinementStatus,
}

/// Where the page gets what it shows.
pub(super) fn sources(shown: Shown<'_>) -> StatusSources {
    let Shown {
        environment,
        started,
        prometheus,
        peer,
        probe,
        grpc,
        query,
        shipper,
        reloader,
        confined,
    } = shown;
    StatusSources {
        version: version::VERSION,
        revision: version::REVISION,
        stands_in_for: version::STANDS_IN_FOR,
        clock: environment.clock.clone(),
        started,
        probe: probe.clone(),
        prometheus_url: prometheus.to_string(),
        peer: peer.state.clone(),
        shipping: shipper.map(|part| ShippingSource {
            bucket: part.dependencies.bucket.name().to_owned(),
            status: part.dependencies.status.subscribe(),
        }),
        io: shipper.map(io_reading),
        local_blocks: grpc.blocks().map(|blocks| blocks.status()),
        reloader,
        confinement: confined,
        series_calls: grpc.series_calls().clone(),
        list_calls: grpc.list_calls().clone(),
        query: query.cloned(),
    }
}

fn io_reading(part: &ShipperPart) -> IoReading {
    let engine = part.dependencies.engine.clone();
    let requests = part.requests.clone();
    Arc::new(move || {
        let (info, pool) = (engine.info(), engine.pool());
        IoStatus {
            engine: info.engine,
            engine_reason: info.reason.clone(),
            buffers_in_use: pool.in_use(),
            buffers_max: pool.buffers_max(),
            buffers_bytes: pool.capacity_bytes(),
            integrity: requests.integrity_in_use(),
        }
    })
}
