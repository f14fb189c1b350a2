//! `thanos.Rules`: recording and alerting rules (contract `grpc.md` §2.5).
//!
//! The request's filters other than the type are the querier's to apply.

use super::labels::{label_set, with_external};
use super::peer::{Peer, timestamp};
use super::wire::{reply, request};
use crate::model::ExternalLabels;
use crate::net::grpc::{Call, Code, Status};
use crate::prometheus::{self, RuleType};
use crate::proto::thanos::rule::Result as RuleKind;
use crate::proto::thanos::rules_response::Result as Message;
use crate::proto::thanos::{
    Alert, AlertInstance, AlertState, PartialResponseStrategy, RecordingRule, Rule, RuleGroup,
    RulesRequest, RulesResponse, rules_request,
};

/// One message per group, then the warnings.
pub(super) async fn rules(peer: &Peer, mut call: Call) -> Result<(), Status> {
    let asked: RulesRequest = request(&mut call).await?;
    let which = match rules_request::Type::try_from(asked.r#type) {
        Ok(rules_request::Type::All) => RuleType::All,
        Ok(rules_request::Type::Alert) => RuleType::Alert,
        Ok(rules_request::Type::Record) => RuleType::Record,
        Err(_) => {
            let text = format!("unknown rule type {}", asked.r#type);
            return Err(Status::new(Code::InvalidArgument, text));
        }
    };
    let _turn = peer.turn().await?;
    let external = peer.external_labels();
    let answer = peer.answer(peer.client().rules(which)).await?;
    let groups = answer.value.into_iter();
    let groups: Result<Vec<RuleGroup>, Status> = groups.map(|g| group(g, &external)).collect();
    let groups = groups?.into_iter().map(Message::Group);
    for message in groups.chain(answer.warnings.into_iter().map(Message::Warning)) {
        let result = Some(message);
        reply(call.sink(), &RulesResponse { result }).await?;
    }
    Ok(())
}

fn group(group: prometheus::RuleGroup, external: &ExternalLabels) -> Result<RuleGroup, Status> {
    let rules = group.rules.into_iter().map(|of| rule(of, external));
    Ok(RuleGroup {
        rules: rules.collect::<Result<_, _>>()?,
        name: group.name,
        file: group.file,
        interval: group.interval,
        evaluation_duration_seconds: group.evaluation_time,
        last_evaluation: Some(timestamp(group.last_evaluation)),
        partial_response_strategy: PartialResponseStrategy::Abort.into(),
        limit: group.limit,
    })
}

fn rule(rule: prometheus::Rule, external: &ExternalLabels) -> Result<Rule, Status> {
    let kind = match rule {
        prometheus::Rule::Recording(rule) => RuleKind::Recording(RecordingRule {
            name: rule.name,
            query: rule.query,
            labels: Some(with_external(rule.labels, external)),
            health: rule.health,
            last_error: rule.last_error,
            evaluation_duration_seconds: rule.evaluation_time,
            last_evaluation: Some(timestamp(rule.last_evaluation)),
        }),
        prometheus::Rule::Alerting(rule) => {
            let alerts = rule.alerts.into_iter().map(alert);
            RuleKind::Alert(Alert {
                alerts: alerts.collect::<Result<_, _>>()?,
                state: alert_state(&rule.state)?.into(),
                name: rule.name,
                query: rule.query,
                duration_seconds: rule.duration,
                labels: Some(with_external(rule.labels, external)),
                annotations: Some(label_set(rule.annotations)),
                health: rule.health,
                last_error: rule.last_error,
                evaluation_duration_seconds: rule.evaluation_time,
                last_evaluation: Some(timestamp(rule.last_evaluation)),
                keep_firing_for_seconds: rule.keep_firing_for,
            })
        }
    };
    Ok(Rule { result: Some(kind) })
}

fn alert(alert: prometheus::AlertInstance) -> Result<AlertInstance, Status> {
    Ok(AlertInstance {
        labels: Some(label_set(alert.labels)),
        annotations: Some(label_set(alert.annotations)),
        state: alert_state(&alert.state)?.into(),
        active_at: alert.active_at.map(timestamp),
        value: alert.value,
        partial_response_strategy: PartialResponseStrategy::Warn.into(),
    })
}

fn alert_state(state: &str) -> Result<AlertState, Status> {
    AlertState::from_str_name(&state.to_ascii_uppercase()).ok_or_else(|| {
        let text = format!("Prometheus tells of an alert in the unknown state {state:?}");
        Status::new(Code::Internal, text)
    })
}
