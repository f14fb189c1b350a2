//! `thanos.Query`: PromQL evaluated by the Prometheus beside us (contract `grpc.md` §2.10).
//!
//! The order of the answer is series, warnings, statistics: Prometheus tells warnings behind the
//! series, which leave as they come. The reference evaluates first and sends its warnings first;
//! its client takes the kinds in any order (`remoteQuery.Exec` in `pkg/query/remote_engine.go`).
//!
//! Left out of requests, as the reference's server does: `queryPlan`, since the text says the same,
//! and `skipChunks`, which means nothing to a query. `max_resolution_seconds` chooses among
//! downsampled blocks, which a Prometheus has none of.

mod asked;
mod encode;
mod histogram;
mod outbox;

use asked::Asked;
use encode::TimeSeries;
use http::StatusCode;
use outbox::SeriesOutbox;
use serde::Deserialize;

use super::store::store_status;
use super::wire::{reply, request};
use crate::model::ErrorChain;
use crate::net::grpc::{Call, Code, MessageSink, Status};
use crate::prometheus::PeerWatch;
use crate::proto::thanos::query_response::Result as Message;
use crate::proto::thanos::{QueryRangeRequest, QueryRequest, QueryResponse, QueryStats};
use crate::query::{Engine, EvaluationKind, QueryError, ResultType, Samples, Trailer};
use crate::store::StoreError;

/// What stands between warnings in the one message that holds them.
const WARNING_SEPARATOR: &str = ", ";

/// Answers by way of an engine.
#[derive(Debug)]
pub(super) struct QueryService {
    engine: Engine,
    /// For the version, which decides what can be asked.
    watch: PeerWatch,
}

/// `data.stats` of Prometheus' answer, as far as it is passed on. Versions before 2.33 count less.
#[derive(Debug, Default, Deserialize)]
struct Stats {
    #[serde(default)]
    samples: SampleStats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SampleStats {
    #[serde(default)]
    total_queryable_samples: i64,
    #[serde(default)]
    peak_samples: i64,
}

impl QueryService {
    pub(super) fn new(engine: Engine, watch: PeerWatch) -> Self {
        Self { engine, watch }
    }

    pub(super) async fn query(&self, mut call: Call) -> Result<(), Status> {
        let asked: QueryRequest = request(&mut call).await?;
        self.answer(Asked::from(asked), call.sink()).await
    }

    pub(super) async fn query_range(&self, mut call: Call) -> Result<(), Status> {
        let asked: QueryRangeRequest = request(&mut call).await?;
        self.answer(Asked::from(asked), call.sink()).await
    }

    /// `QueryRangeResponse` is `QueryResponse` on the wire.
    async fn answer(&self, asked: Asked, sink: &mut MessageSink) -> Result<(), Status> {
        // An error that the caller wants to be told as a warning. Once series are under way it
        // isn't any more: they would look whole.
        let errs_softly = asked.kind == EvaluationKind::Instant && asked.takes_partial;
        let batch_series = asked.response_batch_size;
        let evaluation = {
            let peer = self.watch.state.borrow();
            asked.into_evaluation(&peer.build_version)?
        };
        let mut evaluated = match self.engine.evaluate(evaluation).await {
            Ok(evaluated) => evaluated,
            Err(error) => {
                let status = query_status(error);
                return match errs_softly && status.code == Code::Aborted {
                    true => reply(sink, &warnings(status.message)).await,
                    false => Err(status),
                };
            }
        };
        let mut outbox = SeriesOutbox::new(sink, batch_series);
        let is_string = evaluated.result_type() == ResultType::String;
        while let Some(element) = evaluated.next().await.map_err(query_status)? {
            // There is no message for a string, and the reference sends none.
            if !is_string {
                let Samples { floats, histograms } = element.decode().map_err(query_status)?;
                let histograms = histograms.into_iter();
                let histograms = histograms.map(|(t_ms, of)| histogram::message(t_ms, of));
                let series = TimeSeries {
                    labels: element.labels.iter(),
                    floats: &floats,
                    histograms: &histograms.collect::<Result<Vec<_>, _>>()?,
                };
                outbox.push(&series).await?;
            }
        }
        outbox.finish().await?;
        for message in ending(evaluated.trailer())? {
            reply(sink, &message).await?;
        }
        Ok(())
    }
}

/// All warnings in one message, if there are any, then the statistics.
fn ending(trailer: &Trailer) -> Result<impl Iterator<Item = QueryResponse>, Status> {
    // The reference makes no difference between the two.
    let texts = trailer.warnings.iter().chain(&trailer.infos);
    let texts: Vec<&str> = texts.map(String::as_str).collect();
    let told = (!texts.is_empty()).then(|| warnings(texts.join(WARNING_SEPARATOR)));
    let stats = match &trailer.stats {
        Some(json) => serde_json::from_slice(json).map_err(|error| {
            let text = format!("the statistics that Prometheus gave can't be read: {error}");
            Status::new(Code::Internal, text)
        })?,
        None => Stats::default(),
    };
    let stats = Message::Stats(QueryStats {
        samples_total: stats.samples.total_queryable_samples,
        peak_samples: stats.samples.peak_samples,
    });
    let stats = QueryResponse {
        result: Some(stats),
    };
    Ok(told.into_iter().chain(std::iter::once(stats)))
}

fn warnings(text: String) -> QueryResponse {
    QueryResponse {
        result: Some(Message::Warnings(text)),
    }
}

/// The status that a failure means: `Aborted` where it is the evaluation that fails.
fn query_status(error: QueryError) -> Status {
    match error {
        QueryError::Peer(error) => store_status(&StoreError::from(error)),
        error => {
            let code = code(error.status(), error.error_type());
            Status::new(code, ErrorChain(&error).to_string())
        }
    }
}

/// The code for an error in the classes of Prometheus' API.
fn code(status: StatusCode, error_type: &str) -> Code {
    match (error_type, status.as_u16()) {
        // Its status is the one of a Prometheus that can't be asked.
        ("timeout", _) => Code::DeadlineExceeded,
        // Not by us: who cancels does not read the answer. It is about to end.
        ("canceled", _) => Code::Unavailable,
        (_, 422) => Code::Aborted,
        // The reference tells a query that can't be parsed as `Unknown`, which alerts take for a
        // failure of the server.
        (_, 400 | 405 | 406 | 414) => Code::InvalidArgument,
        (_, 404) => Code::NotFound,
        (_, 413 | 429) => Code::ResourceExhausted,
        (_, 502..=504) => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests;
