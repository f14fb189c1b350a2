//! `thanos.Status`: how large Prometheus' head is, and what makes it so (contract `grpc.md` §2.9).

use std::time::Duration;

use super::peer::Peer;
use super::store::store_status;
use super::wire::{reply, request};
use crate::lifecycle::Probe;
use crate::net::grpc::{Call, Code, Status};
use crate::prometheus;
use crate::proto::thanos::tsdb_statistics_response::Result as Message;
use crate::proto::thanos::{
    HeadStatistics, Statistic, TsdbStatistics, TsdbStatisticsEntry, TsdbStatisticsRequest,
    TsdbStatisticsResponse,
};
use crate::store::matches_external;

/// Answers once Prometheus is ready, and within a time of its own.
#[derive(Debug)]
pub(super) struct StatusService {
    probe: Probe,
    timeout: Duration,
}

impl StatusService {
    pub(super) fn new(probe: Probe, timeout: Duration) -> Self {
        Self { probe, timeout }
    }

    /// One message, then the warnings. It is empty where the external labels do not match, or
    /// another tenant's numbers are asked for.
    pub(super) async fn tsdb_statistics(&self, peer: &Peer, mut call: Call) -> Result<(), Status> {
        let asked: TsdbStatisticsRequest = request(&mut call).await?;
        if !self.probe.is_ready() {
            return Err(Status::new(Code::Unknown, "not ready").quiet());
        }
        #[expect(deprecated, reason = "old queriers send it")]
        let is_ours = asked.tenant.is_empty();
        let matches = matches_external(asked.matchers, &peer.external_labels());
        let mut statistics = TsdbStatistics::default();
        let mut warnings = Vec::new();
        if matches.map_err(|error| store_status(&error))? && is_ours {
            let _turn = peer.turn().await?;
            let limit = u32::try_from(asked.limit).unwrap_or_default();
            let asking = peer.answer(peer.client().tsdb_status(limit));
            let answer = tokio::time::timeout(self.timeout, asking).await;
            let answer = answer.map_err(|_| {
                let text = format!("no answer from Prometheus within {:?}", self.timeout);
                Status::new(Code::DeadlineExceeded, text)
            })??;
            let entry = entry(answer.value, limit);
            statistics.statistics.insert(String::new(), entry);
            warnings = answer.warnings;
        }
        let warnings = warnings.into_iter().map(Message::Warning);
        for message in std::iter::once(Message::Statistics(statistics)).chain(warnings) {
            let result = Some(message);
            reply(call.sink(), &TsdbStatisticsResponse { result }).await?;
        }
        Ok(())
    }
}

fn entry(status: prometheus::TsdbStatus, limit: u32) -> TsdbStatisticsEntry {
    let head = status.head_stats;
    let list = |list| statistics(list, limit);
    TsdbStatisticsEntry {
        head_statistics: Some(HeadStatistics {
            num_series: head.num_series,
            num_label_pairs: head.num_label_pairs,
            chunk_count: head.chunk_count,
            min_time: head.min_time,
            max_time: head.max_time,
        }),
        series_count_by_metric_name: list(status.series_count_by_metric_name),
        label_value_count_by_label_name: list(status.label_value_count_by_label_name),
        memory_in_bytes_by_label_name: list(status.memory_in_bytes_by_label_name),
        series_count_by_label_value_pair: list(status.series_count_by_label_value_pair),
    }
}

/// Older versions of Prometheus know no limit.
fn statistics(list: Vec<prometheus::Statistic>, limit: u32) -> Vec<Statistic> {
    let limit = match limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let list = list.into_iter().take(limit);
    list.map(|prometheus::Statistic { name, value }| Statistic { name, value })
        .collect()
}
