//! `thanos.info.Info`: what we are, which labels and times we answer for (contract `grpc.md` §2.4).

use super::labels::label_set;
use super::wire::{reply, request};
use crate::lifecycle::Probe;
use crate::net::grpc::{Call, Code, Status};
use crate::prometheus::{PeerState, PeerWatch};
use crate::proto::thanos::ZLabelSet;
use crate::proto::thanos::info::{
    ExemplarsInfo, InfoRequest, InfoResponse, MetricMetadataInfo, QueryApiInfo, RulesInfo,
    StatusInfo, StoreInfo, TargetsInfo, TsdbInfo,
};

/// What a querier takes us for.
const COMPONENT_TYPE: &str = "sidecar";

/// Answers from what the heartbeat knows.
#[derive(Debug)]
pub(super) struct InfoService {
    probe: Probe,
    peer: PeerWatch,
    /// Whether `thanos.Query` is served: queriers push whole aggregations to who says so.
    has_query: bool,
}

impl InfoService {
    pub(super) fn new(probe: Probe, peer: PeerWatch, has_query: bool) -> Self {
        Self {
            probe,
            peer,
            has_query,
        }
    }

    pub(super) async fn info(&self, mut call: Call) -> Result<(), Status> {
        let InfoRequest {} = request(&mut call).await?;
        if !self.probe.is_ready() {
            // The reference's code and text: queriers show them.
            return Err(Status::new(Code::Unknown, "Not ready").quiet());
        }
        let info = described(&self.peer.state.borrow(), self.has_query);
        reply(call.sink(), &info).await
    }
}

fn described(peer: &PeerState, has_query: bool) -> InfoResponse {
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
        query: has_query.then_some(QueryApiInfo {}),
        status: Some(StatusInfo {}),
    }
}

/// The external labels; `None` where there is none.
fn external_set(peer: &PeerState) -> Option<ZLabelSet> {
    let labels = &peer.labels;
    (!labels.is_empty()).then(|| label_set(labels.0.as_map().clone()))
}
