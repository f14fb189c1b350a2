//! Requests with all that may be odd in them.

use super::*;
use crate::model::Labels;
use crate::proto::thanos::ShardInfo;
use crate::store::ErrorClass;

const EQ: i32 = 0;
const NEQ: i32 = 1;
const RE: i32 = 2;
const NRE: i32 = 3;

fn matcher(op: i32, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher {
        r#type: op,
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn external() -> ExternalLabels {
    let labels = [("cluster", "eu-1"), ("empty", ""), ("replica", "a")];
    let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ExternalLabels(owned.into_iter().collect::<Labels>())
}

fn request(matchers: &[LabelMatcher]) -> SeriesRequest {
    SeriesRequest {
        min_time: 10,
        max_time: 20,
        matchers: matchers.to_vec(),
        ..SeriesRequest::default()
    }
}

fn parse(request: SeriesRequest) -> Result<Parsed, StoreError> {
    SeriesQuery::parse(request, &external(), TimestampMs(5))
}

fn query(request: SeriesRequest) -> SeriesQuery {
    match parse(request).unwrap() {
        Parsed::Query(query) => query,
        Parsed::Empty => panic!("an empty answer"),
    }
}

fn refused(request: SeriesRequest) -> String {
    let error = parse(request).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument, "{error}");
    let source = std::error::Error::source(&error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

#[test]
fn external_matchers_are_resolved_and_dropped() {
    let job = || matcher(EQ, "job", "x");
    for (op, value, empty) in [
        (EQ, "eu-1", false),
        (EQ, "eu-2", true),
        (NEQ, "eu-2", false),
        (NEQ, "eu-1", true),
        (RE, "eu-.|us-.", false),
        (RE, "eu", true),
        (NRE, "us-.*", false),
        (NRE, ".*", true),
    ] {
        let parsed = parse(request(&[matcher(op, "cluster", value), job()])).unwrap();
        match parsed {
            Parsed::Empty => assert!(empty, "{op} {value}"),
            Parsed::Query(query) => {
                assert!(!empty, "{op} {value}");
                assert_eq!(query.matchers.len(), 1);
                assert_eq!(query.matchers[0].to_string(), "job=\"x\"");
            }
        }
    }
    let kept = query(request(&[matcher(EQ, "empty", "q"), matcher(NRE, "", "")]));
    assert_eq!(kept.matchers.len(), 2, "not external, and an empty name");
}

#[test]
fn bad_matchers_are_told_before_external_ones_are_judged() {
    let miss = matcher(EQ, "cluster", "no-match");
    assert_eq!(
        refused(request(&[miss.clone(), matcher(RE, "job", "(")])),
        "error parsing regexp: missing closing ): `(`"
    );
    assert!(refused(request(&[miss, matcher(4, "job", "")])).contains("[4]"));
    let only_external = request(&[matcher(EQ, "cluster", "eu-1")]);
    let text = "no matchers specified (excluding external labels)";
    assert_eq!(refused(only_external), text);
    assert_eq!(refused(request(&[])), text);
}

#[test]
fn ranges_are_raised_to_the_advertised_time_and_inverted_ones_are_empty() {
    let job = [matcher(EQ, "job", "x")];
    let ranged = |min_time, max_time| SeriesRequest {
        min_time,
        max_time,
        ..request(&job)
    };
    for (min, max, expected) in [
        (10, 20, Some((10, 20))),
        (i64::MIN, i64::MAX, Some((5, i64::MAX))),
        (20, 20, Some((20, 20))),
        (20, 19, None),
        (0, 4, None),
        (i64::MAX, i64::MIN, None),
    ] {
        let got = match parse(ranged(min, max)).unwrap() {
            Parsed::Query(query) => Some((query.range.mint.0, query.range.maxt.0)),
            Parsed::Empty => None,
        };
        assert_eq!(got, expected, "{min}..={max}");
    }
    let bad = matcher(RE, "job", "(");
    let error = parse(SeriesRequest {
        matchers: vec![bad],
        ..ranged(20, 10)
    });
    assert!(error.is_err(), "an inverted range hides no bad pattern");
}

#[test]
fn batches_limits_and_shards() {
    let job = [matcher(EQ, "job", "x")];
    for (size, batch) in [
        (i64::MIN, 1),
        (-1, 1),
        (0, 1),
        (1, 1),
        (64, 64),
        (i64::MAX, BATCH_SERIES_MAX),
    ] {
        let query = query(SeriesRequest {
            response_batch_size: size,
            ..request(&job)
        });
        assert_eq!(query.batch_series, batch, "{size}");
    }
    for (limit, expected) in [(-1, None), (0, None), (7, Some(7))] {
        let query = query(SeriesRequest {
            limit,
            ..request(&job)
        });
        assert_eq!(query.limit, expected);
    }
    for (total, sharded) in [(i64::MIN, false), (0, false), (1, true), (3, true)] {
        let shard = ShardInfo {
            total_shards: total,
            ..ShardInfo::default()
        };
        let query = query(SeriesRequest {
            shard_info: Some(shard),
            ..request(&job)
        });
        assert_eq!(query.shard.is_some(), sharded, "{total}");
    }
}

#[test]
fn the_size_of_a_request_is_bounded() {
    let many = vec![matcher(RE, "job", "a.*"); MATCHERS_MAX];
    assert_eq!(query(request(&many)).matchers.len(), MATCHERS_MAX);
    let one_more = vec![matcher(RE, "job", "a.*"); MATCHERS_MAX + 1];
    assert_eq!(
        refused(request(&one_more)),
        "10001 matchers, at most 10000 are taken"
    );
    let wide = "x".repeat(1 << 20);
    let wide = vec![matcher(EQ, "job", &wide); 5];
    assert!(refused(request(&wide)).contains("bytes of matchers"));
    let pattern = "x".repeat(PATTERNS_BYTES_MAX / 4);
    let patterns = |count| request(&vec![matcher(RE, "job", &pattern); count]);
    assert_eq!(query(patterns(4)).matchers.len(), 4);
    assert!(refused(patterns(5)).contains("bytes of patterns"));
    let run = |count| request(&vec![matcher(RE, "cluster", "a.*"); count]);
    assert_eq!(parse(run(EXTERNAL_PATTERNS_MAX)).unwrap(), Parsed::Empty);
    assert!(refused(run(EXTERNAL_PATTERNS_MAX + 1)).contains("external labels"));
    let names = SeriesRequest {
        without_replica_labels: vec![String::new(); LABEL_NAMES_MAX + 1],
        ..request(&[])
    };
    assert!(refused(names).contains("label names"));
}
