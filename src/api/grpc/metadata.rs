//! `thanos.Metadata`: type, help and unit of metrics (contract `grpc.md` §2.7).

use super::peer::Peer;
use super::wire::{reply, request};
use crate::net::grpc::{Call, Status};
use crate::proto::thanos::metric_metadata_response::Result as Message;
use crate::proto::thanos::{
    Meta, MetricMetadata, MetricMetadataEntry, MetricMetadataRequest, MetricMetadataResponse,
};

/// One message, then the warnings.
pub(super) async fn metric_metadata(peer: &Peer, mut call: Call) -> Result<(), Status> {
    let asked: MetricMetadataRequest = request(&mut call).await?;
    let limit = u32::try_from(asked.limit).ok();
    let _turn = peer.turn().await?;
    let answer = peer
        .answer(peer.client().metadata(&asked.metric, limit))
        .await?;
    let entries = answer.value.into_iter().map(|(metric, metas)| {
        let metas = metas.into_iter().map(|meta| Meta {
            r#type: meta.r#type,
            help: meta.help,
            unit: meta.unit,
        });
        let metas = metas.collect();
        (metric, MetricMetadataEntry { metas })
    });
    let metadata = entries.collect();
    let warnings = answer.warnings.into_iter().map(Message::Warning);
    let first = Message::Metadata(MetricMetadata { metadata });
    for message in std::iter::once(first).chain(warnings) {
        let result = Some(message);
        reply(call.sink(), &MetricMetadataResponse { result }).await?;
    }
    Ok(())
}
