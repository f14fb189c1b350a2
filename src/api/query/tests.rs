//! The API before a scripted Prometheus: what it is asked, and what becomes of its answers.

use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::*;
use crate::model::{ExternalLabels, Labels};
use crate::net::http::{Reply, ScriptedServer, Seen, response};
use crate::prometheus::{Config, HttpClientConfig, PeerState};
use crate::query::EngineConfig;

struct Stand {
    api: QueryApi,
    server: ScriptedServer,
    _peer: (watch::Sender<PeerState>, watch::Sender<ExternalLabels>),
}

/// An answer: status, body, headers.
struct Answered {
    status: u16,
    body: String,
    headers: HeaderMap,
}

async fn stand(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Stand {
    stand_with(script, true).await
}

async fn stand_with(
    script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    is_loaded: bool,
) -> Stand {
    let server = ScriptedServer::start(script).await;
    let client = Client::new(Config {
        url: server.url("/").parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap();
    let labels = [("cluster", "eu"), ("replica", "0")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let labels = ExternalLabels(Labels::from_iter(labels));
    let mut state = PeerState::up_with(labels.clone());
    state.loaded = is_loaded;
    let (state, labels) = (watch::channel(state), watch::channel(labels));
    let peer = PeerWatch {
        state: state.1,
        labels: labels.1,
    };
    let engine = EngineConfig {
        client: client.clone(),
        peer: peer.clone(),
        max_concurrent: 2,
        timeout: Duration::from_secs(60),
        replica_labels: Vec::new(),
    };
    let api = QueryApi::new(QueryApiConfig {
        engine: Engine::new(engine, &mut Registry::default()),
        client,
        peer,
        timeout: Duration::from_secs(60),
        default_step: Duration::from_secs(1),
    });
    Stand {
        api,
        server,
        _peer: (state.0, labels.0),
    }
}

/// One that always answers this.
async fn answering(status: &'static str, body: &'static str) -> Stand {
    let json = [("Content-Type", "application/json")];
    stand(move |_| Reply::Bytes(response(status, &json, body))).await
}

impl Stand {
    async fn ask(&self, method: Method, path: &str) -> Answered {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(ORIGIN, "http://g").body(Full::default());
        let call = Call::of(path.split('?').next().unwrap()).unwrap();
        let response = self.api.answer(call, request.unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answered {
            status: parts.status.as_u16(),
            body: String::from_utf8(body.to_vec()).unwrap(),
            headers: parts.headers,
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answered = self.ask(Method::GET, path).await;
        (answered.status, answered.body)
    }

    /// What Prometheus was asked, decoded.
    fn asked(&self) -> Vec<String> {
        let seen = self.server.seen();
        seen.iter()
            .map(|seen| percent_decoded(seen.path()))
            .collect()
    }
}

#[test]
fn paths_lead_where_prometheus_have_them_lead() {
    let values = |label: &str| {
        let label = label.to_owned();
        Some(Call::LabelValues { label })
    };
    for (path, call) in [
        ("/api/v1/query", Some(Call::Query(EvaluationKind::Instant))),
        (
            "/api/v1/query_range",
            Some(Call::Query(EvaluationKind::Range)),
        ),
        ("/api/v1/label/job/values", values("job")),
        ("/api/v1/label/a.b%25/values", values("a.b%")),
        ("/api/v1/label/a%2Fb/values", None),
        ("/api/v1/label/%2e%2e/values", None),
        ("/api/v1/label//values", None),
        ("/api/v1/label/job", None),
        ("/api/v1/label/a/b/values", None),
        ("/api/v1/status", None),
        ("/api/v1/status/config", None),
        ("/api/v1/query/", None),
        ("/api/v1/admin/tsdb/snapshot", None),
        ("/api/v1/read", None),
        ("/query", None),
    ] {
        assert_eq!(Call::of(path), call, "{path}");
    }
}

#[tokio::test]
async fn scripts_of_other_origins_may_ask() {
    let stand = answering("200 OK", "{\"status\":\"success\",\"data\":[]}").await;
    for (method, path, status) in [
        (Method::OPTIONS, "/api/v1/query", 204),
        (Method::GET, "/api/v1/labels", 200),
        (Method::GET, "/api/v1/series", 200),
        (Method::HEAD, "/api/v1/query", 405),
        (Method::POST, "/api/v1/rules", 405),
        (Method::PUT, "/api/v1/query", 405),
    ] {
        let answered = stand.ask(method.clone(), path).await;
        assert_eq!(answered.status, status, "{method} {path}");
        let headers = &answered.headers;
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[VARY], "Origin");
        assert_eq!(headers.contains_key(ALLOW), status == 405);
    }
    let request = Request::get("/api/v1/labels").body(Full::<Bytes>::default());
    let response = stand.api.answer(Call::Labels, request.unwrap()).await;
    assert!(!response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn nothing_is_answered_before_the_labels_are_known() {
    let stand = stand_with(|_| Reply::Hang, false).await;
    for path in ["/api/v1/labels", "/api/v1/rules", "/api/v1/query?query=1"] {
        let (status, body) = stand.get(path).await;
        assert_eq!(status, 503, "{path}");
        assert!(body.contains("\"errorType\":\"unavailable\""), "{body}");
    }
    assert!(stand.asked().is_empty());
}

#[tokio::test]
async fn selectors_are_rewritten_and_ours_are_not_handed_on() {
    let stand = answering("200 OK", "{\"status\":\"success\",\"data\":[\"a\",\"z\"]}").await;
    for (query, asked) in [
        ("start=1&x=y", "start=1&x=y"),
        (
            "dedup=true&storeMatch[]={cluster=\"eu\"}&limit=9",
            "limit=9",
        ),
        ("match[]=up{cluster=\"eu\",a=\"b\"}", "match[]=up{a=\"b\"}"),
        (
            "match[]=up{cluster=\"us\"}&match[]=down&end=2",
            "end=2&match[]=down",
        ),
    ] {
        let before = stand.asked().len();
        let (status, body) = stand
            .get(&format!("/api/v1/labels?{}", encoded(query)))
            .await;
        let expected = "{\"status\":\"success\",\"data\":[\"a\",\"cluster\",\"replica\",\"z\"]}";
        assert_eq!((status, body.as_str()), (200, expected), "{query}");
        assert_eq!(stand.asked()[before], format!("/api/v1/labels?{asked}"));
    }
    // Nothing can match: Prometheus is asked for nothing, and says what else is wrong.
    for query in [
        "match[]={cluster=\"us\"}",
        "match[]=up&storeMatch[]={replica=\"1\"}",
        "storeMatch[]={replica=\"1\"}",
    ] {
        stand
            .get(&format!("/api/v1/labels?{}", encoded(query)))
            .await;
        let asked = stand.asked().pop().unwrap();
        assert_eq!(
            asked,
            format!("/api/v1/labels?match[]={}", selection::NOTHING)
        );
    }
}

fn encoded(query: &str) -> String {
    query
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22")
}

#[tokio::test]
async fn selectors_that_can_not_be_read_are_prometheus_to_judge() {
    let refusal = "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"1:2: so\"}";
    let refusing = answering("400 Bad Request", refusal).await;
    let taking = answering("200 OK", "{\"status\":\"success\",\"data\":[]}").await;
    for path in ["labels", "series", "label/a/values"] {
        let path = format!("/api/v1/{path}?match[]=%7Ba%3D&start=1");
        assert_eq!(refusing.get(&path).await, (400, refusal.to_owned()));
        let (status, body) = taking.get(&path).await;
        assert_eq!(status, 422);
        assert!(
            body.contains("\"error\":\"unsupported selector: "),
            "{body}"
        );
    }
    let asked = refusing.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.ends_with("match[]={a=&start=1")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn series_get_labels_as_they_stream_by() {
    let body = r#"{"status":"success","data":[{"__name__":"up","job":"a"},{"cluster":"own"}],
        "warnings":["w"]}"#;
    let stand = answering("200 OK", body).await;
    let (status, body) = stand.get("/api/v1/series?match[]=up").await;
    let expected = concat!(
        r#"{"status":"success","data":[{"__name__":"up","cluster":"eu","job":"a","replica":"0"},"#,
        r#"{"cluster":"eu","replica":"0"}],"warnings":["w"]}"#
    );
    assert_eq!((status, body.as_str()), (200, expected));
    let (status, body) = stand.get("/api/v1/series?match[]=up&x=%zz").await;
    assert_eq!(status, 400);
    assert!(
        body.contains("error parsing form values: invalid URL escape"),
        "{body}"
    );

    // Prometheus is to say that there is no selector, also where the store is not meant.
    for query in ["", "?storeMatch[]={cluster=\"us\"}"] {
        let path = format!("/api/v1/series{}", encoded(query));
        assert_eq!(stand.get(&path).await.0, 200);
        assert_eq!(
            stand.asked().pop().unwrap().trim_end_matches('?'),
            "/api/v1/series"
        );
    }

    let broken = answering("200 OK", "{\"status\":\"success\",\"data\":[{\"a\":\"b\"},").await;
    let (status, body) = broken.get("/api/v1/series?match[]=up").await;
    assert!(
        status >= 500 && body.contains("\"status\":\"error\""),
        "{status} {body}"
    );
}

#[tokio::test]
async fn an_external_label_has_its_one_value_if_anything_matches() {
    let script = |seen: &Seen| {
        let body = match percent_decoded(seen.path()) {
            path if path.starts_with("/api/v1/series") && path.contains("match[]=up") => {
                "{\"status\":\"success\",\"data\":[{\"a\":\"b\"},{\"a\":\"c\"}]}"
            }
            path if path.starts_with("/api/v1/series") => "{\"status\":\"success\",\"data\":[]}",
            _ => "{\"status\":\"success\",\"data\":[\"own\"]}",
        };
        Reply::Bytes(response("200 OK", &[], body))
    };
    let stand = stand(script).await;
    let eu = "{\"status\":\"success\",\"data\":[\"eu\"]}";
    let none = "{\"status\":\"success\",\"data\":[]}";
    for (query, expected) in [
        ("", eu),
        ("?start=1", eu),
        ("?match[]=up", eu),
        ("?match[]=none", none),
        ("?match[]=none&match[]=up&end=5", eu),
        ("?match[]=up{cluster=\"us\"}", none),
    ] {
        let path = format!("/api/v1/label/cluster/values{}", encoded(query));
        assert_eq!(
            stand.get(&path).await,
            (200, expected.to_owned()),
            "{query}"
        );
    }
    let asked = stand.asked();
    let series: Vec<_> = asked.iter().filter(|a| a.contains("series")).collect();
    let expected = [
        "/api/v1/series?match[]=up&limit=1",
        "/api/v1/series?match[]=none&limit=1",
        "/api/v1/series?match[]=none&match[]=up&end=5&limit=1",
    ];
    assert_eq!(series, expected, "one question each");
    let escaped = stand.get("/api/v1/label/U__cluster/values").await;
    assert_eq!(escaped, (200, eu.to_owned()));
    let own = "{\"status\":\"success\",\"data\":[\"own\"]}";
    assert_eq!(
        stand.get("/api/v1/label/a/values").await,
        (200, own.to_owned())
    );
}

#[tokio::test]
async fn what_is_passed_on_stays_as_it_is() {
    let body = "{\"status\":\"success\",\"data\": {\"version\":\"3\"}}";
    let stand = answering("200 OK", body).await;
    for path in [
        "status/buildinfo",
        "format_query?query=a",
        "parse_query?query=a",
        "metadata",
    ] {
        let (status, seen) = stand.get(&format!("/api/v1/{path}")).await;
        assert_eq!((status, seen.as_str()), (200, body), "{path}");
    }
    let gone = answering("404 Not Found", "404 page not found\n").await;
    let (status, body) = gone.get("/api/v1/parse_query?query=a").await;
    assert_eq!(status, 404);
    assert!(body.contains("\"errorType\":\"not_found\""), "{body}");
    let empty = answering("204 No Content", "").await;
    let answered = empty
        .ask(Method::GET, "/api/v1/query_exemplars?query=1")
        .await;
    assert_eq!((answered.status, answered.body.as_str()), (204, ""));
    let html = answering("200 OK", "<html>").await;
    let (status, body) = html.get("/api/v1/rules").await;
    assert_eq!(status, 503);
    assert!(body.contains("other than the API's JSON"), "{body}");
}

#[tokio::test]
async fn rules_are_selected_by_their_own_labels() {
    let stand = answering(
        "200 OK",
        "{\"status\":\"success\",\"data\":{\"groups\":[]}}",
    )
    .await;
    for (query, asked) in [
        ("?type=alert", "?type=alert"),
        ("?match[]={cluster=\"eu\"}", ""),
        ("?match[]={cluster=\"eu\",a=\"b\"}", "?match[]={a=\"b\"}"),
        (
            "?match[]={cluster=\"us\"}",
            "?match[]={__name__=\"a\",__name__=\"b\"}",
        ),
    ] {
        let (status, _) = stand.get(&format!("/api/v1/rules{}", encoded(query))).await;
        assert_eq!(status, 200);
        let seen = stand.asked().pop().unwrap();
        assert_eq!(seen, format!("/api/v1/rules{asked}"), "{query}");
    }
    let (status, body) = stand.get("/api/v1/rules?x=%zz").await;
    assert_eq!(status, 400);
    assert!(body.contains("error parsing form values: "), "{body}");
}

#[tokio::test]
async fn long_answers_are_sent_in_pieces_and_hold_their_turn() {
    let value = "x".repeat(3 << 20);
    let body = format!("{{\"status\":\"success\",\"data\":{{\"a\":\"{value}\"}}}}");
    let length = body.len();
    let stand = stand(move |_| Reply::Bytes(response("200 OK", &[], &body))).await;
    let request = Request::get("/api/v1/metadata").body(Full::<Bytes>::default());
    let call = Call::of("/api/v1/metadata").unwrap();
    let response = stand.api.answer(call, request.unwrap()).await;
    assert_eq!(stand.api.0.whole_answers.running(), 1);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), length);
    assert_eq!(stand.api.0.whole_answers.running(), 0);
}

#[tokio::test]
async fn a_long_form_of_a_short_query_needs_no_turn_while_it_is_evaluated() {
    let stand = stand(|_| Reply::Hang).await;
    let padding = "x".repeat(100_000);
    let ask = |query: &str| {
        let form = format!("pad={padding}&query={query}");
        let request = Request::post("/api/v1/query")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)));
        let call = Call::Query(EvaluationKind::Instant);
        Box::pin(stand.api.answer(call, request.unwrap()))
    };
    let long = format!("up{{a=\"{padding}\"}}").replace('=', "%3D");
    for (query, turns) in [("up", 0), (long.as_str(), 1)] {
        let mut asking = ask(query);
        assert!(
            futures_util::future::poll_immediate(&mut asking)
                .await
                .is_none()
        );
        assert_eq!(stand.api.0.long_forms.running(), turns);
    }
    assert_eq!(stand.api.0.long_forms.running(), 0);
}

#[tokio::test]
async fn too_many_calls_are_told_to_come_later() {
    let stand = stand(|_| Reply::Hang).await;
    let ask = || stand.get("/api/v1/rules");
    let mut waiting: Vec<_> = (0..WHOLE_ANSWERS_MAX + WAITING_MAX)
        .map(|_| Box::pin(ask()))
        .collect();
    for call in &mut waiting {
        assert!(futures_util::future::poll_immediate(call).await.is_none());
    }
    let (status, body) = ask().await;
    assert_eq!(status, 503);
    assert!(body.contains("too many calls of the query API"), "{body}");
}
