//! What the two requests have in common, and how it is asked.

use std::time::Duration;

use super::store_status;
use crate::net::grpc::{Code, Status};
use crate::proto::thanos::{EngineType, QueryRangeRequest, QueryRequest, ShardInfo, StoreMatchers};
use crate::query::{Evaluation, EvaluationKind};
use crate::store::matcher_sets;

/// The first version of Prometheus that knows the parameter `lookback_delta` (its changelog).
const LOOKBACK_DELTA_SINCE: (u64, u64) = (2, 43);

/// Either request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) kind: EvaluationKind,
    /// `enablePartialResponse`
    pub(super) takes_partial: bool,
    pub(super) response_batch_size: i64,
    query: String,
    /// Parameters of Prometheus' API, in seconds as it takes them.
    times: Vec<(&'static str, String)>,
    timeout_seconds: i64,
    replica_labels: Vec<String>,
    enable_dedup: bool,
    store_matchers: Vec<StoreMatchers>,
    shard_info: Option<ShardInfo>,
    lookback_delta_seconds: i64,
    engine: i32,
}

impl From<QueryRequest> for Asked {
    fn from(request: QueryRequest) -> Self {
        // Without a time it is now, for Prometheus as for the reference.
        let time = request.time_seconds;
        let times = (time != 0).then(|| ("time", time.to_string()));
        Self {
            kind: EvaluationKind::Instant,
            takes_partial: request.enable_partial_response,
            response_batch_size: request.response_batch_size,
            query: request.query,
            times: times.into_iter().collect(),
            timeout_seconds: request.timeout_seconds,
            replica_labels: request.replica_labels,
            enable_dedup: request.enable_dedup,
            store_matchers: request.store_matchers,
            shard_info: request.shard_info,
            lookback_delta_seconds: request.lookback_delta_seconds,
            engine: request.engine,
        }
    }
}

impl From<QueryRangeRequest> for Asked {
    fn from(request: QueryRangeRequest) -> Self {
        let times = [
            ("start", request.start_time_seconds),
            ("end", request.end_time_seconds),
            ("step", request.interval_seconds),
        ];
        Self {
            kind: EvaluationKind::Range,
            takes_partial: request.enable_partial_response,
            response_batch_size: request.response_batch_size,
            query: request.query,
            times: times.map(|(name, value)| (name, value.to_string())).into(),
            timeout_seconds: request.timeout_seconds,
            replica_labels: request.replica_labels,
            enable_dedup: request.enable_dedup,
            store_matchers: request.store_matchers,
            shard_info: request.shard_info,
            lookback_delta_seconds: request.lookback_delta_seconds,
            engine: request.engine,
        }
    }
}

impl Asked {
    /// What a Prometheus of this version is asked.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown engine and `Unknown` for a bad matcher, as the reference
    /// has it; `Aborted` for what Prometheus can't do.
    pub(super) fn into_evaluation(self, prometheus_version: &str) -> Result<Evaluation, Status> {
        // Either engine is asked for the same results, and there is one here.
        if EngineType::try_from(self.engine).is_err() {
            let text = "invalid engine parameter";
            return Err(Status::new(Code::InvalidArgument, text));
        }
        check_shard(self.shard_info.as_ref())?;
        let mut params = self.times;
        params.push(("stats", "true".to_owned()));
        if self.lookback_delta_seconds > 0 {
            check_lookback(prometheus_version)?;
            params.push(("lookback_delta", self.lookback_delta_seconds.to_string()));
        }
        let sets = self.store_matchers.into_iter();
        let sets = matcher_sets(sets.map(|set| set.label_matchers).collect());
        let store_matchers = sets.map_err(|error| {
            let text = store_status(&error).message;
            Status::new(Code::Unknown, text).quiet()
        })?;
        Ok(Evaluation {
            kind: self.kind,
            query: self.query,
            params,
            replica_labels: match (self.enable_dedup, self.replica_labels.is_empty()) {
                (false, _) => Some(Vec::new()),
                (true, true) => None,
                (true, false) => Some(self.replica_labels),
            },
            store_matchers,
            // The call's own deadline drops the evaluation without our help. Less than nothing is
            // over at once, as it is in the reference.
            timeout: (self.timeout_seconds != 0).then(|| {
                let seconds = u64::try_from(self.timeout_seconds).unwrap_or_default();
                Duration::from_secs(seconds)
            }),
        })
    }
}

/// A share of the series that a query looks at can't be had from Prometheus; the only share can.
fn check_shard(shard: Option<&ShardInfo>) -> Result<(), Status> {
    let is_all = shard.is_none_or(|shard| {
        shard.total_shards < 1 || (shard.total_shards == 1 && shard.shard_index == 0)
    });
    match is_all {
        true => Ok(()),
        false => Err(unsupported("shard_info: Prometheus evaluates all series")),
    }
}

/// An older Prometheus, or one that does not tell its version, may ignore the parameter, and its
/// answer would be one to another question.
fn check_lookback(version: &str) -> Result<(), Status> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version_known = numbers.next().flatten().zip(numbers.next().flatten());
    match version_known.is_some_and(|version| version >= LOOKBACK_DELTA_SINCE) {
        true => Ok(()),
        false => {
            let (major, minor) = LOOKBACK_DELTA_SINCE;
            let text = format!(
                "lookback_delta_seconds: it takes Prometheus {major}.{minor}, and this one tells \
                 the version {version:?}"
            );
            Err(unsupported(&text))
        }
    }
}

fn unsupported(what: &str) -> Status {
    Status::new(Code::Aborted, format!("unsupported {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MatchOp, Matcher};
    use crate::proto::thanos::LabelMatcher;

    const VERSION: &str = "3.14.0";

    fn asked(request: QueryRequest) -> Result<Evaluation, (Code, String)> {
        let evaluation = Asked::from(request).into_evaluation(VERSION);
        evaluation.map_err(|status| (status.code, status.message))
    }

    fn param<'a>(evaluation: &'a Evaluation, name: &str) -> Option<&'a str> {
        let mut params = evaluation.params.iter().filter(|(known, _)| *known == name);
        let found = params.next().map(|(_, value)| value.as_str());
        assert!(params.next().is_none(), "{name} stands there twice");
        found
    }

    #[test]
    fn an_instant_query_asks_for_now_or_for_its_time() {
        let request = QueryRequest {
            query: "up".to_owned(),
            ..QueryRequest::default()
        };
        let now = asked(request.clone()).unwrap();
        assert_eq!(now.kind, EvaluationKind::Instant);
        assert_eq!(now.query, "up");
        assert_eq!(now.params, [("stats", "true".to_owned())]);
        assert_eq!((now.timeout, now.replica_labels), (None, Some(Vec::new())));
        for time_seconds in [1_700_000_000, -5] {
            let then = asked(QueryRequest {
                time_seconds,
                ..request.clone()
            });
            let expected = time_seconds.to_string();
            assert_eq!(param(&then.unwrap(), "time"), Some(expected.as_str()));
        }
    }

    #[test]
    fn a_range_query_has_all_its_times_also_where_they_are_zero() {
        let request = QueryRangeRequest {
            end_time_seconds: 60,
            timeout_seconds: 7,
            lookback_delta_seconds: 90,
            ..QueryRangeRequest::default()
        };
        let evaluation = Asked::from(request).into_evaluation(VERSION).unwrap();
        assert_eq!(evaluation.kind, EvaluationKind::Range);
        for (name, value) in [("start", "0"), ("end", "60"), ("step", "0")] {
            assert_eq!(param(&evaluation, name), Some(value));
        }
        assert_eq!(param(&evaluation, "lookback_delta"), Some("90"));
        assert_eq!(evaluation.timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn replica_labels_are_those_of_the_request_of_the_flag_or_none() {
        let named = vec!["replica".to_owned()];
        for (enable_dedup, replica_labels, expected) in [
            (false, &named, Some(Vec::new())),
            (true, &named, Some(named.clone())),
            (true, &Vec::new(), None),
        ] {
            let evaluation = asked(QueryRequest {
                enable_dedup,
                replica_labels: replica_labels.clone(),
                ..QueryRequest::default()
            });
            assert_eq!(evaluation.unwrap().replica_labels, expected);
        }
    }

    #[test]
    fn store_matchers_are_sets_of_matchers_or_unknown() {
        let set = |r#type: i32, value: &str| StoreMatchers {
            label_matchers: vec![LabelMatcher {
                r#type,
                name: "a".to_owned(),
                value: value.to_owned(),
            }],
        };
        let with = |store_matchers| {
            asked(QueryRequest {
                store_matchers,
                ..QueryRequest::default()
            })
        };
        let sets = with(vec![set(0, "x"), set(2, "x|y")])
            .unwrap()
            .store_matchers;
        let matcher = |op, value: &str| {
            vec![Matcher {
                op,
                name: "a".to_owned(),
                value: value.to_owned(),
            }]
        };
        let expected = [matcher(MatchOp::Equal, "x"), matcher(MatchOp::Regex, "x|y")];
        assert_eq!(sets, expected);
        for bad in [set(2, "("), set(9, "x")] {
            assert_eq!(with(vec![bad]).unwrap_err().0, Code::Unknown);
        }
        let (code, text) = with(vec![set(2, "x"); 101]).unwrap_err();
        assert_eq!(code, Code::Unknown);
        assert!(text.contains("at most 100"), "{text}");
    }

    #[test]
    fn what_can_not_be_answered_is_refused() {
        for engine in 0..3 {
            let request = QueryRequest {
                engine,
                ..QueryRequest::default()
            };
            assert!(asked(request).is_ok(), "{engine}");
        }
        let (code, text) = asked(QueryRequest {
            engine: 3,
            ..QueryRequest::default()
        })
        .unwrap_err();
        assert_eq!(
            (code, text.as_str()),
            (Code::InvalidArgument, "invalid engine parameter")
        );
        for (total_shards, shard_index, taken) in [
            (0, 0, true),
            (-1, 5, true),
            (1, 0, true),
            (1, 1, false),
            (2, 0, false),
        ] {
            let outcome = asked(QueryRequest {
                shard_info: Some(ShardInfo {
                    total_shards,
                    shard_index,
                    ..ShardInfo::default()
                }),
                ..QueryRequest::default()
            });
            match outcome {
                Ok(_) => assert!(taken),
                Err((code, text)) => {
                    assert!(
                        !taken && text.starts_with("unsupported shard_info"),
                        "{text}"
                    );
                    assert_eq!(code, Code::Aborted);
                }
            }
        }
    }

    #[test]
    fn a_lookback_is_asked_only_of_who_knows_it() {
        for (version, knows) in [
            ("2.42.0+ds", false),
            ("2.43.0", true),
            ("2.43.0-rc.1", true),
            ("2.100.0", true),
            ("3.0.0", true),
            ("1.99", false),
            ("0", false),
            ("", false),
            ("new", false),
        ] {
            let request = QueryRequest {
                lookback_delta_seconds: 60,
                ..QueryRequest::default()
            };
            let outcome = Asked::from(request).into_evaluation(version);
            assert_eq!(outcome.is_ok(), knows, "{version}");
            if let Err(status) = outcome {
                assert_eq!(status.code, Code::Aborted);
                assert!(status.message.starts_with("unsupported lookback_delta"));
            }
        }
    }

    #[test]
    fn a_timeout_below_zero_is_over() {
        let request = QueryRequest {
            timeout_seconds: -1,
            ..QueryRequest::default()
        };
        assert_eq!(asked(request).unwrap().timeout, Some(Duration::ZERO));
    }
}
