//! `thanos.Exemplars`: exemplars of the series of a query (contract `grpc.md` §2.8).

use super::labels::{label_set, with_external};
use super::peer::Peer;
use super::store::store_status;
use super::wire::{reply, request};
use crate::net::grpc::{Call, Status};
use crate::proto::thanos::exemplars_response::Result as Message;
use crate::proto::thanos::{Exemplar, ExemplarData, ExemplarsRequest, ExemplarsResponse};
use crate::store::exemplars_query;

/// One message per series, then the warnings.
pub(super) async fn exemplars(peer: &Peer, mut call: Call) -> Result<(), Status> {
    let asked: ExemplarsRequest = request(&mut call).await?;
    let external = peer.external_labels();
    let query = exemplars_query(&asked.query, &external).map_err(|e| store_status(&e))?;
    let Some(query) = query else {
        return Ok(());
    };
    let _turn = peer.turn().await?;
    let asking = peer.client().exemplars(&query, asked.start, asked.end);
    let answer = peer.answer(asking).await?;
    let series = answer.value.into_iter().map(|series| {
        let exemplars = series.exemplars.into_iter().map(|exemplar| Exemplar {
            labels: Some(label_set(exemplar.labels)),
            value: exemplar.value,
            ts: exemplar.t_ms,
        });
        Message::Data(ExemplarData {
            series_labels: Some(with_external(series.series_labels, &external)),
            exemplars: exemplars.collect(),
        })
    });
    for message in series.chain(answer.warnings.into_iter().map(Message::Warning)) {
        let result = Some(message);
        reply(call.sink(), &ExemplarsResponse { result }).await?;
    }
    Ok(())
}
