//! The calls to Prometheus' HTTP API that answer for its data: labels, series, rules, targets,
//! metadata, exemplars, statistics (contract `prometheus.md` §2).
//!
//! Series stream by; everything else is read whole under a named limit. Warnings are passed on
//! beside each answer.

mod answers;
mod json;
mod params;
mod query;
mod series;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

pub use answers::{
    ActiveTarget, AlertInstance, AlertingRule, ApiTime, DroppedTarget, Exemplar, ExemplarSeries,
    HeadStats, MetricMeta, RecordingRule, Rule, RuleGroup, Statistic, Targets, TsdbStatus,
};
pub use json::{JsonError, SERIES_OBJECT_BYTES_MAX};
pub use params::{API_TIME_MAX_MS, API_TIME_MIN_MS};
pub(super) use params::{URL_QUERY_BYTES_MAX, path_name, percent_encode};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use query::fuzz_query_answer;
pub use query::{QUERY_ELEMENT_BYTES_MAX, QueryEndpoint, QueryStream, ResultType};
pub use series::SeriesStream;

use super::client::{Agent, Client};
use super::error::PeerError;
use super::request::{Asked, Question};
use crate::model::Matcher;
use crate::net::http::BodyLimit;
use params::Params;

/// Label names and values: a million values of fifty bytes.
const LABELS_BODY_MAX: BodyLimit = BodyLimit {
    name: "LABELS_BODY_MAX",
    bytes: 64 << 20,
};
/// Rules, targets, metadata: tens of thousands of each have some ten MiB.
const STATE_BODY_MAX: BodyLimit = BodyLimit {
    name: "STATE_BODY_MAX",
    bytes: 64 << 20,
};
/// Exemplars: a Prometheus holds 100,000 of them unless told otherwise.
const EXEMPLARS_BODY_MAX: BodyLimit = BodyLimit {
    name: "EXEMPLARS_BODY_MAX",
    bytes: 64 << 20,
};
/// Statistics have ten entries a list by default, and no more than 10,000.
const STATISTICS_BODY_MAX: BodyLimit = BodyLimit {
    name: "STATISTICS_BODY_MAX",
    bytes: 16 << 20,
};

/// A value, and what Prometheus warns of beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// Warnings, then infos, such as `results truncated due to limit`.
    pub warnings: Vec<String>,
}

/// Which series a question is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// All of them hold; none means every series.
    pub matchers: &'a [Matcher],
    /// First instant, ms since the epoch; `None` leaves it out.
    pub start_ms: Option<i64>,
    /// Last instant, which is inside.
    pub end_ms: Option<i64>,
    /// The most that is answered; `None` and 0 mean no limit.
    pub limit: Option<u64>,
}

/// The order in which series come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesOrder {
    /// As Prometheus finds them.
    Any,
    /// By labels: the selector is sent twice, which makes Prometheus merge, hence sort.
    Sorted,
}

/// Which rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleType {
    /// Both.
    All,
    /// Alerting rules.
    Alert,
    /// Recording rules.
    Record,
}

/// Which targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Both.
    Any,
    /// Those that are scraped.
    Active,
    /// Those that relabelling dropped.
    Dropped,
}

impl Client {
    /// The names of labels.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn label_names(&self, scope: Scope<'_>) -> Result<Answer<Vec<String>>, PeerError> {
        let question = Params::of(scope).into_question();
        let path = "/api/v1/labels";
        self.whole(path, question, LABELS_BODY_MAX).await
    }

    /// The values of a label. Its name may be any text: what Prometheus' paths do not take is
    /// escaped (`U__…`), which servers since 3.0 undo. Prometheus takes no form here, so matchers
    /// of more than 64 KiB can't be asked for.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn label_values(
        &self,
        name: &str,
        scope: Scope<'_>,
    ) -> Result<Answer<Vec<String>>, PeerError> {
        let path = format!("/api/v1/label/{}/values", path_name(name));
        let question = Question::Query(Params::of(scope).into_query());
        self.whole(&path, question, LABELS_BODY_MAX).await
    }

    /// The label sets of series, as a stream.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn series(
        &self,
        scope: Scope<'_>,
        order: SeriesOrder,
    ) -> Result<SeriesStream, PeerError> {
        let mut params = Params::of(scope);
        if order == SeriesOrder::Sorted {
            params.selector(scope.matchers);
        }
        SeriesStream::open(self, params.into_question()).await
    }

    /// The rules, by group.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn rules(&self, which: RuleType) -> Result<Answer<Vec<RuleGroup>>, PeerError> {
        let mut params = Params::default();
        match which {
            RuleType::All => {}
            RuleType::Alert => params.put("type", "alert"),
            RuleType::Record => params.put("type", "record"),
        }
        let path = "/api/v1/rules";
        let answer = self.whole::<answers::Groups>(path, params.into(), STATE_BODY_MAX);
        Ok(answer.await?.map(|data| data.groups))
    }

    /// What is scraped.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn targets(&self, state: TargetState) -> Result<Answer<Targets>, PeerError> {
        let mut params = Params::default();
        match state {
            TargetState::Any => {}
            TargetState::Active => params.put("state", "active"),
            TargetState::Dropped => params.put("state", "dropped"),
        }
        let path = "/api/v1/targets";
        self.whole(path, params.into(), STATE_BODY_MAX).await
    }

    /// What is known of metrics, by name: of all, or of the one named. `None` is no limit, and 0
    /// gives none.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn metadata(
        &self,
        metric: &str,
        limit: Option<u32>,
    ) -> Result<Answer<BTreeMap<String, Vec<MetricMeta>>>, PeerError> {
        let mut params = Params::default();
        if !metric.is_empty() {
            params.put("metric", metric);
        }
        if let Some(limit) = limit {
            params.put("limit", &limit.to_string());
        }
        let path = "/api/v1/metadata";
        self.whole(path, params.into(), STATE_BODY_MAX).await
    }

    /// The exemplars of the series that a PromQL expression selects, from `start_ms` to `end_ms`.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn exemplars(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Answer<Vec<ExemplarSeries>>, PeerError> {
        let mut params = Params::default();
        params.put("query", query);
        params.time("start", start_ms);
        params.time("end", end_ms);
        let path = "/api/v1/query_exemplars";
        let question = params.into_question();
        self.whole(path, question, EXEMPLARS_BODY_MAX).await
    }

    /// Statistics of the head; `limit` entries a list, 0 for as many as Prometheus gives unasked.
    ///
    /// # Errors
    /// See [`PeerError`]; [`PeerError::Api`] where the answer has no data.
    pub async fn tsdb_status(&self, limit: u32) -> Result<Answer<TsdbStatus>, PeerError> {
        let mut params = Params::default();
        if limit > 0 {
            params.put("limit", &limit.to_string());
        }
        let path = "/api/v1/status/tsdb";
        let asked: Asked<TsdbStatus> = self
            .ask(Agent::Thanos, path, params.into(), STATISTICS_BODY_MAX)
            .await?;
        match asked.data {
            Some(value) => Ok(Answer {
                value,
                warnings: asked.warnings,
            }),
            None => Err(PeerError::Api {
                url: self.shown(path),
                message: "empty data field in TSDB status response".to_owned(),
            }),
        }
    }

    /// No data, which `204 No Content` and `null` are, means nothing of it.
    async fn whole<T: DeserializeOwned + Default>(
        &self,
        path: &str,
        question: Question,
        limit: BodyLimit,
    ) -> Result<Answer<T>, PeerError> {
        let asked: Asked<T> = self.ask(Agent::Thanos, path, question, limit).await?;
        Ok(Answer {
            value: asked.data.unwrap_or_default(),
            warnings: asked.warnings,
        })
    }
}

impl<T> Answer<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: change(self.value),
            warnings: self.warnings,
        }
    }
}

#[cfg(test)]
mod tests;
