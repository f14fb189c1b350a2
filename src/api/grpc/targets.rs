//! `thanos.Targets`: what is scraped (contract `grpc.md` §2.6).

use super::labels::with_external;
use super::peer::{Peer, timestamp};
use super::wire::{reply, request};
use crate::model::ExternalLabels;
use crate::net::grpc::{Call, Code, Status};
use crate::prometheus::{self, TargetState};
use crate::proto::thanos::active_target::TargetHealth;
use crate::proto::thanos::targets_request::State;
use crate::proto::thanos::targets_response::Result as Message;
use crate::proto::thanos::{
    ActiveTarget, DroppedTarget, TargetDiscovery, TargetsRequest, TargetsResponse,
};

/// One message, then the warnings.
pub(super) async fn targets(peer: &Peer, mut call: Call) -> Result<(), Status> {
    let asked: TargetsRequest = request(&mut call).await?;
    let state = match State::try_from(asked.state) {
        Ok(State::Any) => Some(TargetState::Any),
        Ok(State::Active) => Some(TargetState::Active),
        Ok(State::Dropped) => Some(TargetState::Dropped),
        // No target is in a state that does not exist; the reference's answer is empty, too.
        Err(_) => None,
    };
    let Some(state) = state else {
        let result = Some(Message::Targets(TargetDiscovery::default()));
        return reply(call.sink(), &TargetsResponse { result }).await;
    };
    let _turn = peer.turn().await?;
    let external = peer.external_labels();
    let answer = peer.answer(peer.client().targets(state)).await?;
    let active = answer.value.active_targets.into_iter();
    let dropped = answer.value.dropped_targets.into_iter();
    let targets = TargetDiscovery {
        active_targets: active
            .map(|target| active_target(target, &external))
            .collect::<Result<_, _>>()?,
        dropped_targets: dropped
            .map(|target| DroppedTarget {
                discovered_labels: Some(with_external(target.discovered_labels, &external)),
            })
            .collect(),
    };
    let warnings = answer.warnings.into_iter().map(Message::Warning);
    for message in std::iter::once(Message::Targets(targets)).chain(warnings) {
        let result = Some(message);
        reply(call.sink(), &TargetsResponse { result }).await?;
    }
    Ok(())
}

fn active_target(
    target: prometheus::ActiveTarget,
    external: &ExternalLabels,
) -> Result<ActiveTarget, Status> {
    let health = TargetHealth::from_str_name(&target.health.to_ascii_uppercase());
    let health = health.ok_or_else(|| {
        let text = format!(
            "Prometheus tells of a target of unknown health {:?}",
            target.health
        );
        Status::new(Code::Internal, text)
    })?;
    Ok(ActiveTarget {
        discovered_labels: Some(with_external(target.discovered_labels, external)),
        labels: Some(with_external(target.labels, external)),
        scrape_pool: target.scrape_pool,
        scrape_url: target.scrape_url,
        global_url: target.global_url,
        last_error: target.last_error,
        last_scrape: Some(timestamp(target.last_scrape)),
        last_scrape_duration: target.last_scrape_duration,
        health: health.into(),
    })
}
