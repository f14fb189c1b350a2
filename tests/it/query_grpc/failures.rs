//! What can't be answered, and who gives up.

use std::time::Duration;

use outrigger::proto::thanos::{
    QueryRangeRequest, QueryRequest, QueryResponse, ShardInfo, query_response,
};
use tonic::{Code, Request};

use super::{ENABLE, QUERY, QUERY_RANGE, Stand, instant, range};
use crate::support::{Queries, eventually};

/// Two series on either side of one match.
const AMBIGUOUS: &str = "requests_total * on (job) requests_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_failure_has_its_code_and_text() {
    let stand = Stand::new(&[ENABLE]);
    let error = stand.instant(instant(AMBIGUOUS)).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted, "{error:?}");
    assert!(error.message().contains("many-to-many"), "{error:?}");
    let error = stand.range(range(AMBIGUOUS)).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted, "{error:?}");

    let error = stand.instant(instant("sum(")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("parse error"), "{error:?}");
    let request = QueryRangeRequest {
        interval_seconds: 0,
        ..range("requests_total")
    };
    let error = stand.range(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("step"), "{error:?}");

    let request = QueryRequest {
        engine: 3,
        ..instant("requests_total")
    };
    let error = stand.instant(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.message(), "invalid engine parameter");
    let shard_info = Some(ShardInfo {
        total_shards: 2,
        ..ShardInfo::default()
    });
    let request = QueryRangeRequest {
        shard_info,
        ..range("requests_total")
    };
    let error = stand.range(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(
        error.message().starts_with("unsupported shard_info"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_instant_query_may_have_its_failure_told_as_a_warning() {
    let stand = Stand::new(&[ENABLE]);
    let request = QueryRequest {
        enable_partial_response: true,
        ..instant(AMBIGUOUS)
    };
    let client = stand.connect().await;
    let messages: Vec<QueryResponse> = client.messages(QUERY, request).await.unwrap();
    let [
        QueryResponse {
            result: Some(query_response::Result::Warnings(text)),
        },
    ] = &messages[..]
    else {
        panic!("more than a warning: {messages:?}");
    };
    assert!(text.contains("many-to-many"), "{text}");

    let request = QueryRangeRequest {
        enable_partial_response: true,
        ..range(AMBIGUOUS)
    };
    let error = stand.range(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    // What isn't the query's fault is no warning.
    stand
        .proxy
        .set_queries(Queries::Answered(500, "no".to_owned()));
    let request = QueryRequest {
        enable_partial_response: true,
        ..instant("requests_total")
    };
    let error = stand.instant(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_prometheus_says_keeps_its_class() {
    let stand = Stand::new(&[ENABLE]);
    let refusal = |error_type: &str| {
        format!(r#"{{"status":"error","errorType":"{error_type}","error":"its words"}}"#)
    };
    for (status, body, code) in [
        (503, "Service Unavailable".to_owned(), Code::Unavailable),
        (503, refusal("unavailable"), Code::Unavailable),
        (503, refusal("timeout"), Code::DeadlineExceeded),
        (503, refusal("canceled"), Code::Unavailable),
        (422, refusal("execution"), Code::Aborted),
        (500, refusal("internal"), Code::Internal),
        (
            502,
            "<html>Bad Gateway</html>".to_owned(),
            Code::Unavailable,
        ),
        (200, "<html>Welcome</html>".to_owned(), Code::Internal),
    ] {
        stand
            .proxy
            .set_queries(Queries::Answered(status, body.clone()));
        let error = stand.instant(instant("requests_total")).await.unwrap_err();
        assert_eq!(error.code(), code, "{status} {body}: {error:?}");
        if body.contains("its words") {
            assert_eq!(error.message(), "its words");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_breaks_off_is_no_answer() {
    let stand = Stand::new(&[ENABLE]);
    let half = r#"{"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"job":"a"},"values":[[1700000000,"1"]]},"#;
    for queries in [
        Queries::CutAfter(half.to_owned()),
        Queries::Answered(200, half.to_owned()),
    ] {
        stand.proxy.set_queries(queries.clone());
        let request = QueryRangeRequest {
            enable_partial_response: true,
            ..range("requests_total")
        };
        let error = stand.range(request).await.unwrap_err();
        assert!(
            matches!(error.code(), Code::Unavailable | Code::Internal),
            "{queries:?}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_gives_up_ends_the_query_at_prometheus() {
    let stand = Stand::new(&[ENABLE]);
    stand.proxy.set_queries(Queries::Held);
    for path in [QUERY, QUERY_RANGE] {
        let client = stand.connect().await;
        let call = match path {
            QUERY => tokio::spawn(async move {
                client
                    .messages::<_, QueryResponse>(QUERY, instant("requests_total"))
                    .await
            }),
            _ => tokio::spawn(async move {
                client
                    .messages::<_, QueryResponse>(QUERY_RANGE, range("requests_total"))
                    .await
            }),
        };
        eventually("Prometheus is asked", || {
            (stand.proxy.open_queries() == 1).then_some(())
        });
        assert!(!call.is_finished());
        call.abort();
        eventually("the question is taken back", || {
            (stand.proxy.open_queries() == 0).then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn deadlines_of_call_and_request_end_the_query_at_prometheus() {
    let stand = Stand::new(&[ENABLE]);
    stand.proxy.set_queries(Queries::Held);
    let client = stand.connect().await;
    let mut by_call = Request::new(instant("requests_total"));
    by_call.set_timeout(Duration::from_millis(300));
    let error = client
        .messages::<QueryRequest, QueryResponse>(QUERY, by_call)
        .await
        .unwrap_err();
    // tonic's own timer may be the quicker, which says so in its way.
    assert!(
        matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{error:?}"
    );
    eventually("the question is taken back", || {
        (stand.proxy.open_queries() == 0).then_some(())
    });
    let request = QueryRequest {
        timeout_seconds: 1,
        ..instant("requests_total")
    };
    let error = stand.instant(request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    eventually("the question is taken back", || {
        (stand.proxy.open_queries() == 0).then_some(())
    });
    assert!(!stand.proxy.requests("/api/v1/query").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_flag_limits_the_time_of_all_queries() {
    let stand = Stand::new(&[ENABLE, "--query.timeout=1s"]);
    stand.proxy.set_queries(Queries::Held);
    let error = stand.range(range("requests_total")).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
}
