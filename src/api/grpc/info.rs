//! `thanos.info.Info`: what we are, which labels and times we answer for (contract `grpc.md` §2.4).

use super::labels::label_set;
use super::wire::{reply, request};
use crate::lifecycle::Probe;
use crate::net::grpc::{Call, Code, Status};
use crate::prometheus::{PeerState, PeerWatch};
use crate::proto::thanos::ZLabelSet;
use crate::proto::thanos::info::{
    ExemplarsInfo, InfoRequest, InfoResponse, MetricMetadataInfo, RulesInfo, StatusInfo, StoreInfo,
    TargetsInfo, TsdbInfo,
};

/// What a querier takes us for.
const COMPONENT_TYPE: &str = "sidecar";

/// Answers from what the heartbeat knows.
#[derive(Debug)]
pub(super) struct InfoService {
    probe: Probe,
    peer: PeerWatch,
}

impl InfoService {
    pub(super) fn new(probe: Probe, peer: PeerWatch) -> Self {
        Self { probe, peer }
    }

    pub(super) async fn info(&self, mut call: Call) -> Result<(), Status> {
        let InfoRequest {} = request(&mut call).await?;
        if !self.probe.is_ready() {
            // The reference's code and text: queriers show them.
            return Err(Status::new(Code::Unknown, "Not ready").quiet());
        }
        let info = described(&self.peer.state.borrow());
        reply(call.sink(), &info).await
    }
}

fn described(peer: &PeerState) -> InfoResponse {
    let labels = external_set(peer);
    let (min_time, max_time) = (peer.mint.0, peer.maxt.0);
    InfoResponse {
        label_sets: labels.iter().cloned().collect(),
        component_type: COMPONENT_TYPE.to_owned(),
        store: Some(StoreInfo {
            min_time,
            max_time,
            supports_sharding: true,
            supports_without_replica_labels: true,
            tsdb_infos: labels
                .into_iter()
                .map(|labels| TsdbInfo {
                    labels: Some(labels),
                    min_time,
                    max_time,
                })
                .collect(),
            supports_projections: false,
        }),
        rules: Some(RulesInfo {}),
        metric_metadata: Some(MetricMetadataInfo {}),
        targets: Some(TargetsInfo {}),
        exemplars: Some(ExemplarsInfo { min_time, max_time }),
        query: None,
        status: Some(StatusInfo {}),
    }
}

/// The external labels; `None` where there is none.
fn external_set(peer: &PeerState) -> Option<ZLabelSet> {
    let labels = &peer.labels;
    (!labels.is_empty()).then(|| label_set(labels.0.as_map().clone()))
}
