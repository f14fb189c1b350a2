//! LabelNames and LabelValues (contract `grpc.md` §3.6, §3.6b).
//!
//! Where the reference pulls all series to see whether there is one, or lists a name twice, this
//! asks for one and lists it once; Prometheus' warnings are passed on. A list is held as a whole,
//! so only few are asked for at a time ([`super::Gate`]).

use super::request::{check_names, positive, resolve};
use super::upstream::{ListQuery, Upstream};
use super::{QueryRange, Store, StoreError};
use crate::model::TimestampMs;
use crate::proto::thanos::{
    LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse,
};

impl<U: Upstream> Store<U> {
    /// The names of labels of the series that match, external ones included.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn label_names(
        &self,
        request: LabelNamesRequest,
    ) -> Result<LabelNamesResponse, StoreError> {
        check_names(&request.without_replica_labels)?;
        let external = self.state.borrow().labels.clone();
        let mut response = LabelNamesResponse::default();
        let Some(matchers) = resolve(request.matchers, &external)? else {
            return Ok(response);
        };
        let Some(range) = ranged(request.start, request.end) else {
            return Ok(response);
        };
        let limit = positive(request.limit);
        let query = ListQuery {
            range: Some(range),
            matchers,
            limit,
        };
        let _running = self.whole_answers.enter().await?;
        let listed = self.upstream.label_names(&query).await?;
        let mut names = sorted(listed.values, limit);
        if !names.is_empty() {
            let without = &request.without_replica_labels;
            let added = external.0.iter().map(|(name, _)| name.to_owned());
            names.extend(added.filter(|name| !without.contains(name)));
            names.sort_unstable();
            names.dedup();
        }
        response.names = names;
        response.warnings = listed.warnings;
        Ok(response)
    }

    /// The values of one label of the series that match.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn label_values(
        &self,
        request: LabelValuesRequest,
    ) -> Result<LabelValuesResponse, StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::EmptyLabelName);
        }
        check_names(&request.without_replica_labels)?;
        let mut response = LabelValuesResponse::default();
        let external = self.state.borrow().labels.clone();
        let unconditional = request.matchers.is_empty();
        let resolved = resolve(request.matchers, &external)?;
        if request.without_replica_labels.contains(&request.label) {
            return Ok(response);
        }
        let Some(matchers) = resolved else {
            return Ok(response);
        };
        let value = external.value(&request.label);
        let only_external = matchers.is_empty();
        if let Some(value) = value.filter(|_| unconditional || only_external) {
            response.values.push(value.to_owned());
            return Ok(response);
        }
        let Some(range) = ranged(request.start, request.end) else {
            return Ok(response);
        };
        let mut query = ListQuery {
            range: Some(range),
            matchers,
            limit: positive(request.limit),
        };
        let _running = self.whole_answers.enter().await?;
        if let Some(value) = value {
            query.limit = Some(1);
            if self.upstream.has_series(&query).await? {
                response.values.push(value.to_owned());
            }
            return Ok(response);
        }
        let listed = self.upstream.label_values(&request.label, &query).await?;
        response.values = sorted(listed.values, query.limit);
        response.warnings = listed.warnings;
        Ok(response)
    }
}

/// In order, each once, and no more than wanted: older versions of Prometheus know no limit.
fn sorted(mut values: Vec<String>, limit: Option<u64>) -> Vec<String> {
    values.sort_unstable();
    values.dedup();
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    values.truncate(limit.unwrap_or(usize::MAX));
    values
}

/// The closed range; `None` where it is inverted.
fn ranged(start: i64, end: i64) -> Option<QueryRange> {
    (start <= end).then_some(QueryRange {
        mint: TimestampMs(start),
        maxt: TimestampMs(end),
    })
}

#[cfg(test)]
mod tests;
