//! The metadata calls against answers right, wrong and cut short; the scanner against serde_json.

use bytes::BytesMut;
use http::StatusCode;
use proptest::prelude::*;

use super::json::{EnvelopeScanner, Item, SERIES};
use super::*;
use crate::model::{MatchOp, Selector};
use crate::net::http::{Reply, ScriptedServer, response};
use crate::prometheus::{Config, HttpClientConfig, LabelsText, PeerErrorClass};

fn client(url: &str) -> Client {
    Client::new(Config {
        url: url.parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap()
}

async fn answering(body: impl Into<String>) -> ScriptedServer {
    let body = body.into();
    ScriptedServer::start(move |_| Reply::Bytes(response("200 OK", &[], &body))).await
}

fn matchers() -> Vec<Matcher> {
    vec![Matcher {
        op: MatchOp::Equal,
        name: "a.b".to_owned(),
        value: "x".to_owned(),
    }]
}

fn scope(matchers: &[Matcher]) -> Scope<'_> {
    Scope {
        matchers,
        start_ms: Some(1_500),
        end_ms: Some(i64::MAX),
        limit: Some(3),
    }
}

const SELECTOR: &str = "match%5B%5D=%7B%22a.b%22%3D%22x%22%7D";

async fn all_series(stream: &mut SeriesStream) -> Result<Vec<String>, PeerError> {
    let mut labels = LabelsText::default();
    let mut all = Vec::new();
    while stream.next_into(&mut labels).await? {
        let shown: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        all.push(shown.join(","));
    }
    Ok(all)
}

async fn series_of(body: &str) -> Result<Vec<String>, PeerError> {
    let server = answering(body).await;
    let mut stream = client(&server.url("/"))
        .series(Scope::default(), SeriesOrder::Any)
        .await?;
    all_series(&mut stream).await
}

#[tokio::test]
async fn labels_are_asked_for_as_agreed() {
    let body = r#"{"status":"success","data":["a","b"],"warnings":["w"],"infos":["i"]}"#;
    let server = answering(body).await;
    let client = client(&server.url("/p/"));
    let matchers = matchers();
    let names = client.label_names(scope(&matchers)).await.unwrap();
    assert_eq!(names.value, ["a", "b"]);
    assert_eq!(names.warnings, ["w", "i"]);
    client.label_values("a/b", Scope::default()).await.unwrap();
    client.label_values("job", scope(&matchers)).await.unwrap();
    let seen: Vec<_> = server.seen().iter().map(|s| s.path().to_owned()).collect();
    let rest = format!("{SELECTOR}&start=1.5&end=9223309901257974&limit=3");
    let expected = [
        format!("/p/api/v1/labels?{rest}"),
        "/p/api/v1/label/U__a_2f_b/values".to_owned(),
        format!("/p/api/v1/label/job/values?{rest}"),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn nothing_is_an_answer() {
    let server = ScriptedServer::start(|_| Reply::Bytes(response("204 No Content", &[], ""))).await;
    let none = client(&server.url("/"));
    assert!(
        none.label_names(Scope::default())
            .await
            .unwrap()
            .value
            .is_empty()
    );
    let mut stream = none
        .series(Scope::default(), SeriesOrder::Any)
        .await
        .unwrap();
    assert!(all_series(&mut stream).await.unwrap().is_empty());
    let null = answering(r#"{"status":"success","data":null}"#).await;
    let null = client(&null.url("/"));
    assert!(null.rules(RuleType::All).await.unwrap().value.is_empty());
    let error = null.tsdb_status(0).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("empty data field in TSDB status response")
    );
}

#[tokio::test]
async fn refusals_tell_status_body_and_error() {
    let body = r#"{"status":"error","errorType":"bad_data","error":"no"}"#;
    let refusing =
        ScriptedServer::start(move |_| Reply::Bytes(response("400 Bad Request", &[], body))).await;
    let refusing = client(&refusing.url("/"));
    let whole = refusing.label_names(Scope::default()).await.unwrap_err();
    let streamed = refusing.series(Scope::default(), SeriesOrder::Any).await;
    for error in [whole, streamed.unwrap_err()] {
        assert_eq!(error.status(), Some((StatusCode::BAD_REQUEST, body)));
        assert_eq!(
            error.class(),
            PeerErrorClass::Status(StatusCode::BAD_REQUEST)
        );
    }
    let failing = answering(body).await;
    let failing = client(&failing.url("/"));
    let whole = failing.label_names(Scope::default()).await.unwrap_err();
    let mut stream = failing
        .series(Scope::default(), SeriesOrder::Any)
        .await
        .unwrap();
    for error in [whole, all_series(&mut stream).await.unwrap_err()] {
        assert!(
            matches!(&error, PeerError::Api { message, .. } if message == "no"),
            "{error:?}"
        );
        assert_eq!((error.class(), error.status()), (PeerErrorClass::Api, None));
    }
}

#[tokio::test]
async fn a_question_that_no_url_holds_is_refused() {
    let server = answering("{}").await;
    let many = vec![matchers()[0].clone(); 10_000];
    let scope = Scope {
        matchers: &many,
        ..Scope::default()
    };
    let error = client(&server.url("/"))
        .label_values("job", scope)
        .await
        .unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::TooLarge);
    assert!(error.to_string().len() < 200, "{error}");
}

#[tokio::test]
async fn a_long_question_is_asked_as_a_form() {
    let server = answering(r#"{"status":"success","data":[]}"#).await;
    let client = client(&server.url("/p/"));
    let many = vec![matchers()[0].clone(); 10_000];
    let long = Scope {
        matchers: &many,
        ..Scope::default()
    };
    client.label_names(long).await.unwrap();
    let mut stream = client.series(long, SeriesOrder::Sorted).await.unwrap();
    assert!(all_series(&mut stream).await.unwrap().is_empty());
    let expression = Selector(&many).to_string();
    client.exemplars(&expression, 0, 1).await.unwrap();

    let selector = Params::of(long).into_query();
    assert!(selector.len() > 65_536, "more than a URL holds");
    let exemplars = format!(
        "query={}&start=0&end=0.001",
        &selector["match%5B%5D=".len()..]
    );
    let expected = [
        ("/p/api/v1/labels", selector.clone()),
        ("/p/api/v1/series", format!("{selector}&{selector}")),
        ("/p/api/v1/query_exemplars", exemplars),
    ];
    for (seen, (path, form)) in server.seen().iter().zip(&expected) {
        assert_eq!(seen.line, format!("POST {path} HTTP/1.1"));
        let content_type = seen.header("content-type");
        assert_eq!(content_type, Some("application/x-www-form-urlencoded"));
        assert!(seen.body == form.as_bytes(), "{path}");
    }
    assert_eq!(server.seen().len(), expected.len());

    // One that is short stays a GET, and so does any of which Prometheus takes no form.
    let few = vec![matchers()[0].clone(); 200];
    let short = Scope {
        matchers: &few[..1],
        ..Scope::default()
    };
    let few = Scope {
        matchers: &few,
        ..Scope::default()
    };
    client.label_names(short).await.unwrap();
    client.label_values("job", few).await.unwrap();
    let seen = server.seen();
    let later = seen.iter().skip(expected.len());
    assert!(later.clone().count() == 2 && later.clone().all(|s| s.line.starts_with("GET ")));
}

#[tokio::test]
async fn a_form_is_sent_on_only_where_the_method_stays() {
    for (status, requests) in [("307 Temporary Redirect", 2), ("302 Found", 1)] {
        let server = ScriptedServer::start(move |seen| {
            Reply::Bytes(match seen.path() {
                "/api/v1/labels" => response(status, &[("Location", "/elsewhere")], ""),
                _ => response("200 OK", &[], r#"{"status":"success","data":["a"]}"#),
            })
        })
        .await;
        let many = vec![matchers()[0].clone(); 1_000];
        let scope = Scope {
            matchers: &many,
            ..Scope::default()
        };
        let answer = client(&server.url("/")).label_names(scope).await;
        assert_eq!(answer.is_ok(), requests == 2, "{answer:?}");
        let seen = server.seen();
        assert_eq!(seen.len(), requests);
        assert!(
            seen.iter()
                .all(|s| s.line.starts_with("POST ") && !s.body.is_empty())
        );
    }
}

// === Series ===

#[tokio::test]
async fn series_stream_with_escapes_and_in_any_layout() {
    let body = " {\n\"infos\" : [\"i\"], \
                \"data\":[ {\"b\":\"2\",\"a\":\"\\u00e4\\n\\\"]},{\"} , {} ,\
                {\"__name__\":\"up\"}\n],\"warnings\":[\"w\"],\"more\":{\"x\":[1,\"]\"]},\
                \"status\":\"success\"} \n";
    let server = answering(body).await;
    let matchers = matchers();
    let client = client(&server.url("/"));
    let mut stream = client
        .series(scope(&matchers), SeriesOrder::Sorted)
        .await
        .unwrap();
    let all = all_series(&mut stream).await.unwrap();
    assert_eq!(all, ["a=ä\n\"]},{,b=2", "", "__name__=up"]);
    assert_eq!(stream.warnings(), ["w"], "no infos");
    let path = server.seen()[0].path().to_owned();
    let rest = "start=1.5&end=9223309901257974&limit=3";
    assert_eq!(path, format!("/api/v1/series?{SELECTOR}&{rest}&{SELECTOR}"));
}

#[tokio::test]
async fn a_series_answer_that_is_broken_is_an_error() {
    for broken in [
        "",
        "[]",
        r#"{"status":"success","data":[{"a":"b"}"#,
        r#"{"status":"success","data":[{"a":"b"}]"#,
        r#"{"status":"success","data":[{"a":"b"} {"a":"b"}]}"#,
        r#"{"status":"success","data":[{"a":"b"},]}"#,
        r#"{"status":"success","data":[{"a":1}]}"#,
        r#"{"status":"success","data":[{"a":"1","a":"2"}]}"#,
        r#"{"status":"success","data":["a"]}"#,
        r#"{"status":"success","data":{"a":"b"}}"#,
        r#"{"status":"success","data":[]}x"#,
        r#"{"status":"success" "data":[]}"#,
        r#"{"status":"success","data":[{"a":"b"}]}{}"#,
        r#"{"data":[{"a":"b"}]}"#,
        r#"{status:"success"}"#,
        "<html>502 Bad Gateway</html>",
    ] {
        assert!(series_of(broken).await.is_err(), "{broken}");
    }
    let whole = r#"{"status":"success","data":[{"a":"b"}],"warnings":["w"]}"#;
    assert_eq!(series_of(whole).await.unwrap(), ["a=b"]);
    for cut in 0..whole.len() {
        assert!(series_of(&whole[..cut]).await.is_err(), "cut at {cut}");
    }
    let error = series_of(r#"{"status":"success","data":[{"a":1}]}"#)
        .await
        .unwrap_err();
    let PeerError::Json { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.offset, 35);
}

#[tokio::test]
async fn a_label_set_has_a_limit() {
    let with = |bytes: usize| {
        let value = "x".repeat(bytes - r#"{"a":""}"#.len());
        format!(r#"{{"status":"success","data":[{{"a":"{value}"}}]}}"#)
    };
    assert_eq!(
        series_of(&with(SERIES_OBJECT_BYTES_MAX))
            .await
            .unwrap()
            .len(),
        1
    );
    let error = series_of(&with(SERIES_OBJECT_BYTES_MAX + 1))
        .await
        .unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::Invalid);
}

proptest! {
    #[test]
    fn any_series_in_any_pieces_come_as_serde_reads_them(
        all in proptest::collection::vec(
            proptest::collection::btree_map("\\PC{0,8}", "(?s).{0,12}", 0..4), 0..6),
        pretty: bool, first: bool, step in 1usize..40,
    ) {
        let mut envelope = serde_json::Map::new();
        if first {
            envelope.insert("data".to_owned(), serde_json::json!(all));
        }
        envelope.insert("status".to_owned(), "success".into());
        envelope.insert("data".to_owned(), serde_json::json!(all));
        let text = match pretty {
            true => serde_json::to_string_pretty(&envelope).unwrap(),
            false => serde_json::to_string(&envelope).unwrap(),
        };
        let mut scanner = EnvelopeScanner::new(&SERIES);
        let mut buffer = BytesMut::new();
        let mut pieces = text.as_bytes().chunks(step);
        let (mut read, mut labels) = (Vec::new(), LabelsText::default());
        loop {
            match scanner.next(&mut buffer).unwrap() {
                Some(Item::Element(object)) => {
                    series::read_labels(&object, &mut labels).unwrap();
                    let owned = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
                    read.push(owned.collect::<BTreeMap<_, _>>());
                }
                Some(Item::List) => {}
                Some(Item::Beside { key, value, .. }) => {
                    prop_assert_eq!((key.as_str(), &value[..]), ("status", &b"\"success\""[..]));
                }
                Some(Item::End) => break,
                None => buffer.extend_from_slice(pieces.next().unwrap()),
            }
        }
        prop_assert!(pieces.next().is_none() && buffer.is_empty());
        prop_assert_eq!(read, all);
    }

    #[test]
    fn garbage_never_panics(text in "[{}\\[\\],:\" a-z\\\\]{0,60}", step in 1usize..9) {
        let mut scanner = EnvelopeScanner::new(&SERIES);
        let mut buffer = BytesMut::new();
        let mut pieces = text.as_bytes().chunks(step);
        loop {
            match scanner.next(&mut buffer) {
                Ok(Some(Item::End)) | Err(_) => break,
                Ok(Some(_)) => {}
                Ok(None) => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => break,
                },
            }
        }
    }
}

// === Whole answers ===

#[tokio::test]
async fn rules_are_read_with_what_versions_leave_out() {
    let body = r#"{"status":"success","data":{"groups":[{"name":"g","file":"f","interval":1.5,
        "limit":3,"evaluationTime":0.25,"lastEvaluation":"2024-05-01T12:00:00.5+02:00","rules":[
        {"type":"Alerting","name":"A","query":"up","state":"firing","duration":60,
         "keepFiringFor":5,"labels":{"s":"p"},"annotations":null,"health":"ok","lastError":"",
         "evaluationTime":0.1,"lastEvaluation":"1969-12-31T23:59:59.75Z","alerts":[{"labels":{},
         "annotations":{"x":"y"},"state":"firing","activeAt":"1970-01-01T00:00:01Z",
         "value":"1e+00"},{"activeAt":null}]},
        {"type":"recording","name":"r","query":"q","unknown":[1]}]}]}}"#;
    let server = answering(body).await;
    let peer = client(&server.url("/"));
    let groups = peer.rules(RuleType::Record).await.unwrap().value;
    let group = &groups[0];
    let at = |seconds, nanos| ApiTime { seconds, nanos };
    assert_eq!(group.last_evaluation, at(1_714_557_600, 500_000_000));
    assert_eq!((group.interval, group.limit), (1.5, 3));
    let Rule::Alerting(alerting) = &group.rules[0] else {
        panic!("{group:?}");
    };
    assert_eq!(alerting.last_evaluation, at(-1, 750_000_000));
    assert_eq!((alerting.duration, alerting.keep_firing_for), (60.0, 5.0));
    assert!(alerting.annotations.is_empty());
    assert_eq!(alerting.alerts[0].active_at, Some(at(1, 0)));
    assert_eq!(
        (alerting.alerts[1].active_at, alerting.alerts.len()),
        (None, 2)
    );
    let Rule::Recording(recording) = &group.rules[1] else {
        panic!("{group:?}");
    };
    assert_eq!(recording.last_evaluation, ApiTime::default());
    assert_eq!(server.seen()[0].path(), "/api/v1/rules?type=record");

    let odd = r#"{"status":"success","data":{"groups":[{"rules":[{"type":"other"}]}]}}"#;
    let server = answering(odd).await;
    let error = client(&server.url("/"))
        .rules(RuleType::All)
        .await
        .unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::Invalid);
}

#[tokio::test]
async fn the_other_answers_are_read() {
    let server = ScriptedServer::start(|seen| {
        let data = match seen.path().split('?').next().unwrap() {
            "/api/v1/targets" => {
                r#"{"activeTargets":[{"discoveredLabels":{"__address__":"h"},"labels":{"job":"j"},
                "scrapePool":"p","scrapeUrl":"u","globalUrl":"g","lastError":"",
                "lastScrape":"0001-01-01T00:00:00Z","lastScrapeDuration":0.5,"health":"up"}],
                "droppedTargets":null,"droppedTargetCounts":{"p":1}}"#
            }
            "/api/v1/metadata" => r#"{"up":[{"type":"gauge","help":"h","unit":"s"}]}"#,
            "/api/v1/query_exemplars" => {
                r#"[{"seriesLabels":{"a":"b"},"exemplars":[{"labels":{"t":"1"},"value":"+Inf",
                "timestamp":1600096945.479}]}]"#
            }
            _ => {
                r#"{"headStats":{"numSeries":5,"numLabelPairs":6,"chunkCount":7,"minTime":-1,
                "maxTime":9},"seriesCountByMetricName":[{"name":"up","value":2}],
                "memoryInBytesByLabelName":[{"name":"job","value":99}]}"#
            }
        };
        let body = format!(r#"{{"status":"success","data":{data}}}"#);
        Reply::Bytes(response("200 OK", &[], body))
    })
    .await;
    let client = client(&server.url("/"));
    let targets = client.targets(TargetState::Active).await.unwrap().value;
    assert_eq!(targets.active_targets[0].last_scrape, ApiTime::default());
    assert_eq!(
        (targets.active_targets.len(), targets.dropped_targets.len()),
        (1, 0)
    );
    let metadata = client.metadata("up", Some(0)).await.unwrap().value;
    assert_eq!(metadata["up"][0].r#type, "gauge");
    client.metadata("", None).await.unwrap();
    let exemplars = client.exemplars("up{}", 0, 1_001).await.unwrap().value;
    let exemplar = &exemplars[0].exemplars[0];
    assert_eq!(
        (exemplar.value, exemplar.t_ms),
        (f64::INFINITY, 1_600_096_945_479)
    );
    let status = client.tsdb_status(4).await.unwrap().value;
    assert_eq!(
        (status.head_stats.num_series, status.head_stats.min_time),
        (5, -1)
    );
    assert_eq!(status.memory_in_bytes_by_label_name[0].value, 99);
    assert!(status.label_value_count_by_label_name.is_empty());
    let seen: Vec<_> = server.seen().iter().map(|s| s.path().to_owned()).collect();
    let expected = [
        "/api/v1/targets?state=active",
        "/api/v1/metadata?metric=up&limit=0",
        "/api/v1/metadata",
        "/api/v1/query_exemplars?query=up%7B%7D&start=0&end=1.001",
        "/api/v1/status/tsdb?limit=4",
    ];
    assert_eq!(seen, expected);
}
