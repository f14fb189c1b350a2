//! The client against a Prometheus that answers right, wrong, too much or not at all.

use opentelemetry::KeyValue;
use prometheus_client::metrics::counter::Counter;

use super::*;
use crate::net::http::{Reply, ScriptedServer, response};
use crate::prometheus::request::{ERROR_TEXT_CHARS, REQUESTS_MAX};
use crate::trace::{Sampling, Tracer, span_queue};

fn client(url: &str) -> Client {
    Client::new(Config {
        url: url.parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap()
}

async fn lowest_timestamp(client: &Client) -> Result<Option<TimestampMs>, PeerError> {
    client.lowest_timestamp(&mut Gauges::default()).await
}

fn json(data: &str) -> Reply {
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    Reply::Bytes(response(
        "200 OK",
        &[("Content-Type", "application/json")],
        body,
    ))
}

fn config_with(yaml: &str) -> Reply {
    json(&serde_json::json!({ "yaml": yaml }).to_string())
}

/// Everything right, under a path prefix.
fn healthy(path: &str) -> Reply {
    match path {
        "/prom/api/v1/status/flags" => json(r#"{"storage.tsdb.min-block-duration":"2h"}"#),
        "/prom/api/v1/status/buildinfo" => json(r#"{"version":"3.9.0","revision":"x"}"#),
        "/prom/api/v1/status/config" => {
            config_with("global:\n  external_labels:\n    replica: 0\n")
        }
        "/prom/api/v1/status/walreplay" => {
            json(r#"{"min":1,"max":9,"current":4,"state":"in progress"}"#)
        }
        "/prom/metrics" => Reply::Endless(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n\
              a 1\nprometheus_tsdb_blocks_loaded 3\nprometheus_tsdb_head_max_time 2.5e+12\n\
              prometheus_tsdb_head_min_time 2e+12\n\
              prometheus_tsdb_lowest_timestamp_seconds 1.5e+09\n\
              prometheus_tsdb_storage_blocks_bytes 99\n"
                .to_vec(),
            b"zzz_metric 1\n".repeat(100),
        ),
        _ => Reply::Bytes(response("404 Not Found", &[], "404 page not found\n")),
    }
}

#[tokio::test]
async fn all_calls_are_made_as_the_contract_says() {
    let server = ScriptedServer::start(|seen| healthy(seen.path())).await;
    let client = client(&server.url("/prom/"));
    let flags = client.flags().await.unwrap().unwrap();
    assert_eq!(flags["storage.tsdb.min-block-duration"], "2h");
    assert_eq!(client.build_version().await.unwrap(), "3.9.0");
    let labels = client.external_labels().await.unwrap();
    assert_eq!(labels.0.to_string(), r#"{replica="0"}"#);
    let replay = client.wal_replay().await.unwrap();
    assert_eq!((replay.min, replay.max, replay.current), (1, 9, 4));
    let mut gauges = Gauges::default();
    let lowest = client.lowest_timestamp(&mut gauges).await.unwrap();
    assert_eq!(lowest, Some(TimestampMs(1_500_000_000_000)));
    assert_eq!(gauges.blocks_loaded(), Some(3));
    assert_eq!(gauges.head_min(), Some(TimestampMs(2_000_000_000_000)));
    server.hung_up(1).await;

    let seen = server.seen();
    let agents: Vec<_> = seen
        .iter()
        .map(|s| (s.path(), s.header("user-agent").unwrap()))
        .collect();
    assert_eq!(
        agents,
        [
            ("/prom/api/v1/status/flags", "Thanos/0.42.4"),
            ("/prom/api/v1/status/buildinfo", "thanos-sidecar"),
            ("/prom/api/v1/status/config", "thanos-sidecar"),
            ("/prom/api/v1/status/walreplay", "Thanos/0.42.4"),
            ("/prom/metrics", "Thanos/0.42.4"),
        ]
    );
    assert_eq!(seen[0].header("accept-encoding"), Some("gzip"));
    let metrics = &seen[4];
    assert_eq!(
        (metrics.header("accept"), metrics.header("accept-encoding")),
        (None, None)
    );
}

#[tokio::test]
async fn absent_endpoints_are_told_apart_from_failing_ones() {
    let server = ScriptedServer::start(|seen| {
        let status = seen.path().split('/').nth(1).unwrap().replace('_', " ");
        Reply::Bytes(response(&status, &[], "no"))
    })
    .await;
    let at = |status: &str| client(&server.url(&format!("/{status}/")));
    assert!(at("404_Not_Found").flags().await.unwrap().is_none());
    assert!(at("405_Method_Not_Allowed").flags().await.is_err());
    assert_eq!(at("404_Not_Found").build_version().await.unwrap(), "0");
    assert_eq!(
        at("405_Method_Not_Allowed").build_version().await.unwrap(),
        "0"
    );
    assert!(at("500_Oops").build_version().await.is_err());
    let error = at("404_Not_Found").external_labels().await.unwrap_err();
    assert!(error.to_string().contains("404 Not Found: no"), "{error}");
}

#[tokio::test]
async fn a_starting_prometheus_is_told_apart_from_a_stopping_or_proxied_one() {
    let server = ScriptedServer::start(|seen| {
        let stopping = [("X-Prometheus-Stopping", "true")];
        Reply::Bytes(match seen.path().split('/').nth(1).unwrap() {
            "starting" => response("503 Service Unavailable", &[], "Service Unavailable"),
            "stopping" => response("503 Service Unavailable", &stopping, "Service Unavailable"),
            _ => response(
                "503 Service Unavailable",
                &[],
                "<html>Service Unavailable</html>",
            ),
        })
    })
    .await;
    for (path, expected) in [("starting", true), ("stopping", false), ("proxy", false)] {
        let client = client(&server.url(&format!("/{path}")));
        let error = client.external_labels().await.unwrap_err();
        assert_eq!(error.is_replaying(), expected, "{path}: {error:?}");
        assert!(!error.is_unreachable());
    }
}

#[tokio::test]
async fn wrong_answers_are_errors_that_name_the_url() {
    let server = ScriptedServer::start(|seen| match seen.path().split('/').nth(1).unwrap() {
        "html" => Reply::Bytes(response("200 OK", &[], "<html><body>login</body></html>")),
        "garbage" => Reply::Bytes(response("200 OK", &[], b"\xff\x00{")),
        "error" => Reply::Bytes(response(
            "200 OK",
            &[],
            r#"{"status":"error","error":"boom"}"#,
        )),
        "nodata" => Reply::Bytes(response("200 OK", &[], r#"{"status":"success"}"#)),
        "array" => Reply::Bytes(response("200 OK", &[], "[]")),
        "forbidden" => Reply::Bytes(response(
            "403 Forbidden",
            &[],
            r#"{"status":"error","error":"no access"}"#,
        )),
        "yaml" => config_with("global: [\n"),
        "types" => config_with("global:\n  external_labels: [a]\n"),
        "cut" => Reply::Close(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":\"suc".to_vec(),
        ),
        "nothing" => Reply::Close(Vec::new()),
        "protocol" => Reply::Close(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        other => panic!("{other}"),
    })
    .await;
    for path in [
        "html",
        "garbage",
        "error",
        "nodata",
        "array",
        "forbidden",
        "yaml",
        "types",
        "cut",
        "nothing",
        "protocol",
    ] {
        let client = client(&server.url(&format!("/{path}")));
        let error = client.external_labels().await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("/{path}/api/v1/status/config")),
            "{path}: {text}"
        );
        assert!(!error.is_replaying() && !error.is_unreachable(), "{path}");
        let expected = match path {
            "html" | "garbage" | "array" => matches!(error, PeerError::Malformed { .. }),
            "error" => matches!(&error, PeerError::Api { message, .. } if message == "boom"),
            "nodata" => matches!(error, PeerError::Api { .. }),
            "forbidden" => {
                matches!(&error, PeerError::Status { message, .. } if message == "no access")
            }
            "yaml" | "types" => matches!(error, PeerError::Configuration { .. }),
            _ => matches!(error, PeerError::Transport { .. }),
        };
        assert!(expected, "{path}: {error:?}");
    }
}

#[tokio::test]
async fn errors_about_the_configuration_do_not_show_it() {
    let server =
        ScriptedServer::start(|_| config_with("password: hunter2\nglobal: {a: [hunter2\n")).await;
    let error = client(&server.url("/"))
        .external_labels()
        .await
        .unwrap_err();
    let chain = format!("{}", crate::model::ErrorChain(&error));
    assert!(!chain.contains("hunter2"), "{chain}");
}

#[tokio::test]
async fn bodies_past_their_limit_are_refused() {
    let server = ScriptedServer::start(|_| {
        Reply::Endless(
            b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"success\",\"data\":{\"yaml\":\"".to_vec(),
            vec![b'x'; 1 << 20],
        )
    })
    .await;
    let client = client(&server.url("/"));
    let limit_of = |error: PeerError| match error {
        PeerError::Transport {
            source: crate::net::http::HttpError::BodyTooLarge { limit, .. },
            ..
        } => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        limit_of(client.external_labels().await.unwrap_err()),
        "CONFIG_BODY_MAX"
    );
    assert_eq!(
        limit_of(client.flags().await.unwrap_err()),
        "STATUS_BODY_MAX"
    );
    assert_eq!(
        limit_of(lowest_timestamp(&client).await.unwrap_err()),
        "METRICS_SCAN_MAX"
    );
    server.hung_up(3).await;
}

#[tokio::test]
async fn a_huge_error_body_is_read_only_at_its_start() {
    let server = ScriptedServer::start(|_| {
        Reply::Endless(b"HTTP/1.1 500 Oops\r\n\r\n".to_vec(), vec![b'x'; 1 << 16])
    })
    .await;
    let error = client(&server.url("/")).build_version().await.unwrap_err();
    assert!(error.to_string().len() < 2 * ERROR_TEXT_CHARS, "{error}");
    server.hung_up(1).await;
}

#[tokio::test]
async fn a_missing_gauge_is_an_error_and_no_data_is_none() {
    let server = ScriptedServer::start(|seen| {
        let gauge = LOWEST_SECONDS;
        Reply::Bytes(match seen.path() {
            "/empty/metrics" => response("200 OK", &[], ""),
            "/html/metrics" => response("200 OK", &[], "<html></html>"),
            "/denied/metrics" => response("403 Forbidden", &[], "no"),
            "/nan/metrics" => response("200 OK", &[], format!("{gauge} NaN\n")),
            "/fresh/metrics" => response("200 OK", &[], format!("{gauge} 9.223372036854776e+15\n")),
            _ => response("500 Oops", &[], format!("{gauge} 1")),
        })
    })
    .await;
    let lowest = async |path: &str| lowest_timestamp(&client(&server.url(path))).await;
    for path in ["/empty", "/html", "/nan"] {
        let error = lowest(path).await.unwrap_err();
        assert!(
            matches!(error, PeerError::Metric { .. }),
            "{path}: {error:?}"
        );
    }
    let denied = lowest("/denied").await.unwrap_err();
    assert!(denied.to_string().contains("403"), "{denied}");
    assert_eq!(lowest("/fresh").await.unwrap(), None);
    assert_eq!(
        lowest("/status-is-not-looked-at").await.unwrap(),
        Some(TimestampMs(1000))
    );
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&url).build_version().await.unwrap_err();
    assert!(error.is_unreachable() && !error.is_replaying(), "{error:?}");
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let server = ScriptedServer::start(|seen| {
        let to = |location| response("302 Found", &[("Location", location)], "");
        match seen.path() {
            "/api/v1/status/buildinfo" => Reply::Bytes(to("/moved/here")),
            "/moved/here" => Reply::Bytes(to("there?x=1")),
            "/moved/there?x=1" => json(r#"{"version":"1"}"#),
            "/bad/api/v1/status/buildinfo" => Reply::Bytes(to("gopher://x")),
            "/none/api/v1/status/buildinfo" => Reply::Bytes(response("302 Found", &[], "")),
            other => Reply::Bytes(to(&format!("{other}x"))),
        }
    })
    .await;
    assert_eq!(client(&server.url("/")).build_version().await.unwrap(), "1");
    let before = server.seen().len();
    let error = client(&server.url("/loop"))
        .build_version()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            PeerError::Redirects {
                requests: REQUESTS_MAX,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(server.seen().len() - before, REQUESTS_MAX);
    let error = client(&server.url("/bad"))
        .build_version()
        .await
        .unwrap_err();
    assert!(matches!(error, PeerError::Location { .. }), "{error:?}");
    let error = client(&server.url("/none"))
        .build_version()
        .await
        .unwrap_err();
    assert!(matches!(error, PeerError::Status { .. }), "{error:?}");
}

#[tokio::test]
async fn credentials_stay_with_the_host_they_are_for() {
    let stranger = ScriptedServer::start(|_| json(r#"{"version":"2"}"#)).await;
    let elsewhere = stranger.url("/");
    let server = ScriptedServer::start(move |seen| match seen.path() {
        "/api/v1/status/buildinfo" => {
            Reply::Bytes(response("307 Moved", &[("Location", "/near")], ""))
        }
        _ => Reply::Bytes(response("307 Moved", &[("Location", &elsewhere)], "")),
    })
    .await;
    let url = format!("http://user:p%40ss@{}/", server.addr());
    assert_eq!(client(&url).build_version().await.unwrap(), "2");
    let expected = Some("Basic dXNlcjpwQHNz");
    let shown: Vec<_> = server
        .seen()
        .iter()
        .map(|s| s.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(
        shown,
        [expected.map(str::to_owned), expected.map(str::to_owned)]
    );
    assert_eq!(stranger.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn loaded_blocks_are_listed_or_not_known() {
    let server = ScriptedServer::start(|seen| match seen.path() {
        "/new/api/v1/status/tsdb/blocks" => json(
            r#"{"blocks":[{"ulid":"01HZXW7J7T3Q9V8N2M4K6B5A0C","minTime":1,"stats":{}},
                {"ulid":"01HZXW7J7T3Q9V8N2M4K6B5A0D","minTime":-5,"maxTime":7,"compaction":{}},
                {"ulid":"01HZXW7J7T3Q9V8N2M4K6B5A0E","minTime":7,"maxTime":7}]}"#,
        ),
        "/fresh/api/v1/status/tsdb/blocks" => json(r#"{"blocks":null}"#),
        "/bad/api/v1/status/tsdb/blocks" => json(r#"{"blocks":[{"ulid":"x"}]}"#),
        "/empty/api/v1/status/tsdb/blocks" => json("null"),
        "/ill/api/v1/status/tsdb/blocks" => {
            Reply::Bytes(response("500 Internal Server Error", &[], "no"))
        }
        _ => Reply::Bytes(response("404 Not Found", &[], "404 page not found\n")),
    })
    .await;
    let blocks = async |path: &str| client(&server.url(path)).loaded_blocks().await;
    let listed = blocks("/new").await.unwrap().unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|(id, range)| (id.to_string(), range.mint.0, range.maxt.0))
        .collect();
    let block = |id: &str, mint, maxt| (id.to_owned(), mint, maxt);
    assert_eq!(
        told,
        [
            block("01HZXW7J7T3Q9V8N2M4K6B5A0C", i64::MIN, i64::MAX),
            block("01HZXW7J7T3Q9V8N2M4K6B5A0D", -5, 7),
            block("01HZXW7J7T3Q9V8N2M4K6B5A0E", i64::MIN, i64::MAX),
        ]
    );
    assert_eq!(blocks("/fresh").await.unwrap(), Some(ListedBlocks::new()));
    assert_eq!(blocks("/old").await.unwrap(), None);
    for path in ["/bad", "/empty", "/ill"] {
        blocks(path).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_question_of_a_traced_call_tells_its_span_and_no_other_does() {
    let server = ScriptedServer::start(|seen| healthy(seen.path())).await;
    let client = client(&server.url("/"));
    client.flags().await.unwrap();
    let (queue, mut spans) = span_queue(8, Counter::default());
    let tracer = Tracer::new(Sampling::DEFAULT, queue);
    let call = tracer.root("call");
    call.around(client.flags()).await.unwrap();
    drop(call);
    let span = spans.try_recv().unwrap();
    assert_eq!(span.name, "/prom_flags HTTP[client]");
    let call = spans.try_recv().unwrap();
    assert_eq!(span.parent_span_id, call.span_context.span_id());
    let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
    let url = server.url("/api/v1/status/flags");
    assert!(span.attributes.contains(&KeyValue::new("http.url", url)));
    let seen = server.seen();
    assert_eq!(seen[0].header("traceparent"), None);
    let expected = format!("00-{trace}-{id}-01");
    assert_eq!(seen[1].header("traceparent"), Some(expected.as_str()));
}
