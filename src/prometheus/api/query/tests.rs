//! Answers to queries in every layout and split, cut short, refused, or broken.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fuzz::{Whole, fuzz_query_answer, read_whole};
use super::*;
use crate::net::http::{Reply, ScriptedServer, response};
use crate::prometheus::{Config, HttpClientConfig, PeerErrorClass};

const MATRIX: &str = concat!(
    r#"{"status":"success","data":{"resultType":"matrix","result":["#,
    r#"{"metric":{"__name__":"up","job":"a\"]},{"},"#,
    r#""values":[[1435781430.781,"1"],[1435781445.781,"+Inf"]]},"#,
    r#"{"metric":{},"values":[[1,"2"]],"histograms":[[2,{"count":"1","sum":"0"}]]}],"#,
    r#""stats":{"samples":{"totalQueryableSamples":2}}},"warnings":["w"],"infos":["i"]}"#,
);

fn client(url: &str) -> Client {
    Client::new(Config {
        url: url.parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap()
}

async fn answering(status: &'static str, body: impl Into<String>) -> ScriptedServer {
    let body = body.into();
    ScriptedServer::start(move |_| Reply::Bytes(response(status, &[], &body))).await
}

async fn opened(server: &ScriptedServer) -> Result<QueryStream, PeerError> {
    let params = [("query", "up"), ("time", "1")];
    client(&server.url("/"))
        .query(QueryEndpoint::Instant, &params)
        .await
}

async fn all(server: &ScriptedServer) -> Result<(QueryStream, Vec<String>), PeerError> {
    let mut stream = opened(server).await?;
    let mut labels = LabelsText::default();
    let mut elements = Vec::new();
    while let Some(rest) = stream.next_into(&mut labels).await? {
        elements.push(format!("{} {}", shown(&labels), text(&rest)));
    }
    assert!(
        stream.next_into(&mut labels).await?.is_none(),
        "the end stays"
    );
    Ok((stream, elements))
}

fn shown(labels: &LabelsText) -> String {
    let shown: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
    shown.join(",")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn read(body: &str) -> Result<Whole, String> {
    read_whole(body.as_bytes(), body.len().max(1))
}

fn elements(body: &str) -> Vec<String> {
    let whole = read(body).unwrap();
    let elements = whole.elements.iter();
    elements
        .map(|(labels, rest)| format!("{} {}", shown(labels), text(rest)))
        .collect()
}

#[tokio::test]
async fn a_matrix_streams_by_as_it_was_written() {
    let server = answering("200 OK", MATRIX).await;
    let (stream, elements) = all(&server).await.unwrap();
    let expected = [
        r#"__name__=up,job=a"]},{ "values":[[1435781430.781,"1"],[1435781445.781,"+Inf"]]"#,
        r#" "values":[[1,"2"]],"histograms":[[2,{"count":"1","sum":"0"}]]"#,
    ];
    assert_eq!(elements, expected);
    assert_eq!(stream.result_type(), ResultType::Matrix);
    let stats = r#"{"samples":{"totalQueryableSamples":2}}"#;
    assert_eq!(stream.stats(), Some(&Bytes::from_static(stats.as_bytes())));
    assert_eq!(
        (stream.warnings(), stream.infos()),
        (&["w".to_owned()][..], &["i".to_owned()][..])
    );
    assert_eq!(
        server.seen()[0].line,
        "GET /api/v1/query?query=up&time=1 HTTP/1.1"
    );
}

#[tokio::test]
async fn long_queries_are_sent_as_a_form() {
    let server = answering("200 OK", MATRIX).await;
    let query = "x".repeat(1 << 20);
    let params = [("query", query.as_str()), ("step", "1 s&")];
    let client = client(&server.url("/p"));
    client.query(QueryEndpoint::Range, &params).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /p/api/v1/query_range HTTP/1.1");
    let form = format!("query={query}&step=1%20s%26");
    assert!(seen.body == form.as_bytes());
}

#[test]
fn every_split_and_every_cut() {
    let single = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}"#;
    for body in [MATRIX, single] {
        let whole = read(body).unwrap();
        for split in 1..body.len() {
            assert_eq!(
                read_whole(body.as_bytes(), split).unwrap(),
                whole,
                "{split}"
            );
        }
        for cut in 0..body.len() {
            assert!(read(&body[..cut]).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn scalars_and_strings_come_as_a_whole() {
    let body = |kind: &str, value: &str| {
        format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{value}}}}}"#)
    };
    for (kind, value) in [("scalar", "[1.5, \"NaN\"]"), ("string", r#"[1,"a\"],b"]"#)] {
        let whole = read(&body(kind, value)).unwrap();
        assert_eq!(whole.single.as_deref(), Some(value.as_bytes()));
        assert!(whole.elements.is_empty());
    }
    for value in ["1", "[1]", "[1,2]", "[1,\"2\",3]", "null", "{}"] {
        assert!(read(&body("scalar", value)).is_err(), "{value}");
    }
    assert!(read(&body("vector", "null")).unwrap().elements.is_empty());
    assert!(read(&body("vector", "[]")).unwrap().elements.is_empty());
    assert!(read(&body("vector", "{}")).is_err());
    assert!(read(&body("table", "[]")).is_err());
}

#[test]
fn keys_stand_in_any_order_but_the_type_before_the_result() {
    let body = " {\"infos\":[\"i\"] ,\n\"data\" : {\"stats\":{\"a\":[1]},\
                \"more\":[{\"result\":[]}],\
                \"resultType\":\"vector\",\"result\":[ { \"value\" : [1, \"2\"] , \"metric\" : \
                {\"b\":\"1\",\"a\":\"\\u00e4\"} } ,{\"value\":[1,\"3\"],\"metric\":{},\
                \"histogram\":[4,{}]}, {\"m\\u0065tric\":{},\"value\":[1,\"5\"]}] , \"x\":null},\
                \"status\":\"success\",\"data2\":{\"resultType\":1}}\n";
    let expected = [
        "a=ä,b=1 \"value\" : [1, \"2\"]",
        " \"value\":[1,\"3\"],\"histogram\":[4,{}]",
        " \"value\":[1,\"5\"]",
    ];
    assert_eq!(elements(body), expected);
    let whole = read(body).unwrap();
    assert_eq!(whole.stats.as_deref(), Some(&b"{\"a\":[1]}"[..]));
    assert_eq!(whole.infos, ["i"]);

    let late = r#"{"status":"success","data":{"result":[],"resultType":"vector"}}"#;
    let error = read(late).unwrap_err();
    assert!(
        error.contains("`resultType` does not stand before `result`"),
        "{error}"
    );
}

#[test]
fn broken_answers_are_errors() {
    for broken in [
        "",
        "[]",
        "null",
        "{}",
        "<html>502</html>",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":null}"#,
        r#"{"status":"success","data":[]}"#,
        r#"{"status":"success","data":{}}"#,
        r#"{"status":"success","data":{"resultType":"vector"}}"#,
        r#"{"status":"success","data":{"resultType":"vector","result":[],"result":[]}}"#,
        r#"{"status":"ok","data":{"resultType":"vector","result":[]}}"#,
        r#"{"data":{"resultType":"vector","result":[]}}"#,
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}x"#,
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}}"#,
        r#"{"status":"success","data":{"resultType":"vector","result":[]]}}"#,
    ] {
        assert!(read(broken).is_err(), "{broken}");
    }
    for element in [
        "1",
        "[]",
        "\"metric\"",
        "{}",
        r#"{"metric":{}}"#,
        r#"{"value":[1,"2"]}"#,
        r#"{"metric":{},"value":[1,"2"],"metric":{}}"#,
        r#"{"metric":{"a":"1","a":"2"},"value":[1,"2"]}"#,
        r#"{"metric":{"a":1},"value":[1,"2"]}"#,
        r#"{"metric":[],"value":[1,"2"]}"#,
        r#"{"metric":{},"value":}"#,
        r#"{"metric":{},}"#,
        r#"{"metric":{}:"value":[1,"2"]}"#,
        r#"{"metric":{},"value","x"}"#,
        r#"{"metric":{},value:[1,"2"]}"#,
        r#"{"metric":{} "value":[1,"2"]}"#,
    ] {
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{element}]}}}}"#
        );
        assert!(read(&body).is_err(), "{element}");
    }
}

#[test]
fn members_are_limited() {
    let with = |members: usize| {
        let more: String = (1..members)
            .map(|n| format!(r#","m{n}":[1,"2"]"#))
            .collect();
        let element = format!(r#"{{"metric":{{}}{more}}}"#);
        read(&format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{element}]}}}}"#
        ))
    };
    let max = crate::prometheus::api::json::MEMBERS_MAX;
    assert_eq!(with(max).unwrap().elements.len(), 1);
    assert!(with(max + 1).is_err());
    assert!(with(10 * max).is_err());
}

#[test]
fn an_element_has_a_limit() {
    let body = |bytes: usize| {
        let start = r#"{"metric":{},"values":[[1,""#;
        let end = r#""]]}"#;
        let value = "1".repeat(bytes - start.len() - end.len());
        let element = format!("{start}{value}{end}");
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{element}]}}}}"#)
    };
    assert_eq!(
        read(&body(QUERY_ELEMENT_BYTES_MAX)).unwrap().elements.len(),
        1
    );
    let error = read(&body(QUERY_ELEMENT_BYTES_MAX + 1)).unwrap_err();
    assert!(error.contains("longer than 67108864 bytes"), "{error}");
}

#[tokio::test]
async fn refusals_are_passed_on_and_other_failures_have_a_status() {
    let long = "x".repeat(1 << 20);
    for (status, code) in [
        ("400 Bad Request", 400),
        ("422 Unprocessable Entity", 422),
        ("503 Service Unavailable", 503),
        ("200 OK", 200),
    ] {
        let body = json!({"status": "error", "errorType": "execution", "error": long});
        let server = answering(status, body.to_string()).await;
        let PeerError::Refused {
            status,
            error_type,
            message,
            ..
        } = opened(&server).await.unwrap_err()
        else {
            panic!("{status}");
        };
        assert_eq!((status.as_u16(), error_type.as_str()), (code, "execution"));
        assert!(message == long);
    }
    for (status, code, body) in [
        ("502 Bad Gateway", 502, "<html>no</html>"),
        ("503 Service Unavailable", 503, "Service Unavailable"),
        (
            "400 Bad Request",
            400,
            r#"{"status":"error","error":"no type"}"#,
        ),
        ("404 Not Found", 404, ""),
    ] {
        let server = answering(status, body).await;
        let error = opened(&server).await.unwrap_err();
        assert!(matches!(error, PeerError::Status { .. }), "{error:?}");
        let status = StatusCode::from_u16(code).unwrap();
        assert_eq!(error.class(), PeerErrorClass::Status(status));
    }
    // A page under a status of success.
    let server = answering("200 OK", "<html>hello</html>").await;
    let error = opened(&server).await.unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::Invalid);
    // An error that shows only at the end.
    let late = concat!(
        r#"{"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]},"#,
        r#""status":"error","errorType":"timeout","error":"late"}"#,
    );
    let server = answering("200 OK", late).await;
    let mut stream = opened(&server).await.unwrap();
    let mut labels = LabelsText::default();
    assert!(stream.next_into(&mut labels).await.unwrap().is_some());
    let error = stream.next_into(&mut labels).await.unwrap_err();
    assert!(matches!(&error, PeerError::Refused { message, .. } if message == "late"));
    assert!(
        stream.next_into(&mut labels).await.is_err(),
        "it stays broken"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error() {
    for (cut, status) in [(30, "200 OK"), (MATRIX.len() - 1, "200 OK")] {
        // With a length that is not reached, and with an end that would be the connection's.
        let whole = response(status, &[], MATRIX);
        let header = whole.len() - MATRIX.len();
        let delimited = whole[..header + cut].to_vec();
        let mut undelimited = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        undelimited.extend_from_slice(&MATRIX.as_bytes()[..cut]);
        for bytes in [delimited, undelimited] {
            let server = ScriptedServer::start(move |_| Reply::Close(bytes.clone())).await;
            let error = all(&server)
                .await
                .map(|(_, elements)| elements)
                .unwrap_err();
            let class = error.class();
            let expected = [PeerErrorClass::Interrupted, PeerErrorClass::Invalid];
            assert!(expected.contains(&class), "{error:?}");
        }
    }
}

#[tokio::test]
async fn dropping_a_stream_closes_its_connection() {
    let start = response("200 OK", &[], "");
    drop(start);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = r#"{"status":"success","data":{"resultType":"vector","result":["#;
    let head = format!("{head}{:x}\r\n{body}\r\n", body.len());
    let element = r#"{"metric":{"a":"b"},"value":[1,"2"]},"#;
    let element = format!("{:x}\r\n{element}\r\n", element.len());
    let server = ScriptedServer::start(move |_| {
        Reply::Endless(head.clone().into_bytes(), element.clone().into_bytes())
    })
    .await;
    let mut stream = opened(&server).await.unwrap();
    let mut labels = LabelsText::default();
    for _ in 0..1000 {
        let rest = stream.next_into(&mut labels).await.unwrap().unwrap();
        assert_eq!(
            (shown(&labels).as_str(), text(&rest)),
            ("a=b", r#""value":[1,"2"]"#)
        );
    }
    drop(stream);
    server.hung_up(1).await;
}

#[tokio::test]
async fn expressions_are_checked_by_formatting_or_else_by_evaluating() {
    let server = ScriptedServer::start(|seen| {
        let bad = r#"{"status":"error","errorType":"bad_data","error":"1:1: parse error"}"#;
        let good = r#"{"status":"success","data":"up"}"#;
        Reply::Bytes(match seen.path() {
            "/api/v1/format_query?query=up" => response("200 OK", &[], good),
            "/old/api/v1/format_query?query=up" | "/old/api/v1/format_query?query=%28" => {
                response("404 Not Found", &[], "404 page not found\n")
            }
            "/old/api/v1/query?query=up&time=0" => response("200 OK", &[], MATRIX),
            _ => response("400 Bad Request", &[], bad),
        })
    })
    .await;
    for path in ["/", "/old"] {
        let client = client(&server.url(path));
        client.check_expression("up").await.unwrap();
        let error = client.check_expression("(").await.unwrap_err();
        assert!(
            matches!(&error, PeerError::Refused { message, .. } if message == "1:1: parse error"),
            "{error:?}"
        );
    }
}

// === Against serde_json ===

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_map(|value| json!(value.to_string())),
        Just(json!("NaN")),
        Just(json!("+Inf")),
    ]
}

fn point() -> impl Strategy<Value = Value> {
    (-1_000_000_i64..2_000_000_000_000, number())
        .prop_map(|(ms, value)| json!([ms as f64 / 1000.0, value]))
}

fn element() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("\\PC{0,8}", "(?s).{0,12}", 0..4);
    let values = prop::collection::vec(point(), 0..4);
    (labels, values, any::<bool>(), 0..3_usize).prop_map(|(labels, values, more, place)| {
        let mut members = vec![("values", json!(values))];
        if more {
            let buckets = json!([[0, "0.5", "1", "2"]]);
            members.push((
                "histograms",
                json!([[1.5, {"count": "1", "buckets": buckets}]]),
            ));
        }
        members.insert(place.min(members.len()), ("metric", json!(labels)));
        let members = members.into_iter();
        members
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

proptest! {
    #[test]
    fn any_answer_in_any_pieces_comes_as_serde_reads_it(
        all in prop::collection::vec(element(), 0..5),
        stats: bool, stats_first: bool, data_first: bool, pretty: bool, step in 1_usize..60,
    ) {
        let mut data = serde_json::Map::new();
        let stats = stats.then(|| json!({"samples": {"result": [1, "]}"]}}));
        if let Some(stats) = stats.clone().filter(|_| stats_first) {
            data.insert("stats".to_owned(), stats);
        }
        data.insert("resultType".to_owned(), "matrix".into());
        data.insert("result".to_owned(), json!(all));
        if let Some(stats) = &stats {
            data.insert("stats".to_owned(), stats.clone());
        }
        let mut envelope = serde_json::Map::new();
        if data_first {
            envelope.insert("data".to_owned(), data.clone().into());
        }
        envelope.insert("status".to_owned(), "success".into());
        envelope.insert("data".to_owned(), data.into());
        envelope.insert("warnings".to_owned(), json!(["a \"warning\""]));
        let text = match pretty {
            true => serde_json::to_string_pretty(&envelope).unwrap(),
            false => serde_json::to_string(&envelope).unwrap(),
        };
        let whole = read_whole(text.as_bytes(), step).unwrap();
        prop_assert_eq!(&whole.warnings, &["a \"warning\""]);
        let read_stats = whole.stats.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        prop_assert_eq!(read_stats, stats);
        prop_assert_eq!(whole.elements.len(), all.len());
        for ((labels, rest), expected) in whole.elements.iter().zip(&all) {
            let read: serde_json::Map<String, Value> =
                serde_json::from_str(&format!("{{{}}}", text_of(rest))).unwrap();
            for (key, value) in expected.as_object().unwrap() {
                match key.as_str() {
                    "metric" => {
                        let read: serde_json::Map<String, Value> = labels
                            .iter()
                            .map(|(name, value)| (name.to_owned(), value.into()))
                            .collect();
                        prop_assert_eq!(&Value::from(read), value);
                    }
                    key => prop_assert_eq!(&read[key], value),
                }
            }
            prop_assert_eq!(read.len() + 1, expected.as_object().unwrap().len());
        }
        fuzz_query_answer(text.as_bytes());
    }

    #[test]
    fn garbage_never_panics(text in "[{}\\[\\],:\" a-z\\\\]{0,60}") {
        fuzz_query_answer(text.as_bytes());
        let inside = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{text}]}}}}"#
        );
        fuzz_query_answer(inside.as_bytes());
        fuzz_query_answer(inside.replace(r#"[{"#, r#"[{"metric":{},"#).as_bytes());
    }
}

fn text_of(bytes: &[u8]) -> String {
    text(bytes).to_owned()
}

// === The corpus ===

fn corpus() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/query_answer")
}

fn seeds() -> [(&'static str, &'static str); 5] {
    [
        ("matrix", MATRIX),
        ("cut", &MATRIX[..MATRIX.len() - 40]),
        (
            "vector",
            concat!(
                r#"{"status":"success","data":{"resultType":"vector","result":["#,
                r#"{"metric":{"a":"b"},"value":[1.5,"2"]},{"value":[1,"NaN"],"metric":{}}]}}"#,
            ),
        ),
        (
            "string",
            r#"{"status":"success","data":{"resultType":"string","result":[1,"a\"],b"]}}"#,
        ),
        (
            "refusal",
            r#"{"status":"error","errorType":"execution","error":"too many samples"}"#,
        ),
    ]
}

#[test]
fn the_fuzz_corpus_replays() {
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus()).unwrap() {
        fuzz_query_answer(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= seeds().len());
}

#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_fuzz_corpus() {
    std::fs::create_dir_all(corpus()).unwrap();
    for (name, text) in seeds() {
        std::fs::write(corpus().join(name), text).unwrap();
    }
}
