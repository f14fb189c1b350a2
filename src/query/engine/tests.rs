//! Queries against a loopback Prometheus that answers right and wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join_all, poll_immediate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::model::{Labels, MatchOp};
use crate::prometheus::{Config, HttpClientConfig, PeerState};
use crate::query::gate::WAITING_QUERIES_MAX;
use crate::query::stored::{BELIEVED_FOR, REMEMBERED_MAX};

/// Far more than any exchange on the loopback takes.
const LONG: Duration = Duration::from_secs(60);

/// What a request gets.
enum Reply {
    /// Status and body, whole.
    Whole(u16, String),
    /// As much of an answer of success, then nothing more.
    Stuck(String),
    /// As much of an answer of success, then the end of the connection.
    Gone(String),
}

/// A Prometheus that runs until it is dropped.
struct Peer {
    url: String,
    /// Paths with their queries, as they came.
    asked: Arc<Mutex<Vec<String>>>,
    open: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Peer {
    async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (count, open) = watch::channel(0);
        let (log, script) = (Arc::clone(&asked), Arc::new(script));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (log, script, count) = (Arc::clone(&log), Arc::clone(&script), count.clone());
                count.send_modify(|open| *open += 1);
                tokio::spawn(async move {
                    converse(socket, &log, &*script).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            url,
            asked,
            open,
            task,
        }
    }

    /// One that stores no external label, and answers queries with this.
    async fn answering(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |asked| match asked {
            asked if asked.starts_with("/api/v1/label/") => {
                Reply::Whole(200, r#"{"status":"success","data":[]}"#.to_owned())
            }
            asked => script(asked),
        })
        .await
    }

    async fn with_result(kind: &'static str, result: &str) -> Self {
        let body = result_body(kind, result);
        Self::answering(move |_| Reply::Whole(200, body.clone())).await
    }

    fn engine(&self) -> Engine {
        self.engine_with(20, LONG)
    }

    fn engine_with(&self, max_concurrent: usize, timeout: Duration) -> Engine {
        let external = [("cluster", "c1"), ("empty", ""), ("replica", "r0")];
        let owned = external.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let labels = ExternalLabels(owned.into_iter().collect::<Labels>());
        self.engine_of(PeerState::up_with(labels), max_concurrent, timeout)
    }

    fn engine_of(&self, state: PeerState, max_concurrent: usize, timeout: Duration) -> Engine {
        let (_, labels) = watch::channel(state.labels.clone());
        let (_, state) = watch::channel(state);
        let config = EngineConfig {
            client: Client::new(Config {
                url: self.url.parse().unwrap(),
                http_client: HttpClientConfig::default(),
                thanos_version: "0.42.4".to_owned(),
            })
            .unwrap(),
            peer: PeerWatch { state, labels },
            max_concurrent,
            timeout,
            replica_labels: vec!["replica".to_owned()],
        };
        Engine::new(config, &mut Registry::default())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn questions(&self) -> Vec<String> {
        let mut asked = self.asked();
        asked.retain(|asked| !asked.starts_with("/api/v1/label/"));
        asked
    }

    /// Resolves once so many connections are open.
    async fn has_open(&self, wanted: usize) {
        let mut open = self.open.clone();
        let reached = tokio::time::timeout(LONG, open.wait_for(|open| *open == wanted));
        reached.await.unwrap().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut socket: TcpStream,
    log: &Mutex<Vec<String>>,
    script: &(dyn Fn(&str) -> Reply + Send + Sync),
) {
    while let Some(asked) = request(&mut socket).await {
        log.lock().unwrap().push(asked.clone());
        let (head, body) = match script(&asked) {
            Reply::Whole(status, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
                (head, body)
            }
            Reply::Stuck(body) | Reply::Gone(body) if body.is_empty() => (String::new(), body),
            Reply::Stuck(ref body) | Reply::Gone(ref body) => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_owned();
                (head, body.clone())
            }
        };
        if socket.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
        match script(&asked) {
            Reply::Whole(..) => {}
            Reply::Gone(_) => return,
            Reply::Stuck(_) => {
                let mut rest = [0; 64];
                while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
                return;
            }
        }
    }
}

/// The path of a GET, its percent-encoding undone; of a POST, its form behind it.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut path = head.split(' ').nth(1)?.to_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut form = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    socket.read_exact(&mut form).await.ok()?;
    if !form.is_empty() {
        path = format!("{path}?{}", String::from_utf8(form).unwrap());
    }
    let mut pieces = path.split('%');
    let mut decoded = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (byte, rest) = piece.split_at(2);
        decoded.push(u8::from_str_radix(byte, 16).unwrap());
        decoded.extend_from_slice(rest.as_bytes());
    }
    Some(String::from_utf8(decoded).unwrap())
}

fn result_body(kind: &str, result: &str) -> String {
    let data = format!(r#"{{"resultType":"{kind}","result":{result}}}"#);
    format!(r#"{{"status":"success","data":{data}}}"#)
}

fn refusal(error_type: &str, error: &str) -> String {
    format!(r#"{{"status":"error","errorType":"{error_type}","error":"{error}"}}"#)
}

fn evaluation(kind: EvaluationKind, query: &str) -> Evaluation {
    Evaluation {
        kind,
        query: query.to_owned(),
        params: Vec::new(),
        replica_labels: None,
        store_matchers: Vec::new(),
        timeout: None,
    }
}

fn instant(query: &str) -> Evaluation {
    evaluation(EvaluationKind::Instant, query)
}

async fn all(evaluated: &mut Evaluated) -> Result<Vec<String>, QueryError> {
    let mut all = Vec::new();
    while let Some(element) = evaluated.next().await? {
        let labels: Vec<_> = element
            .labels
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        let samples = String::from_utf8(element.samples.to_vec()).unwrap();
        all.push(format!("{} {samples}", labels.join(",")));
    }
    assert!(evaluated.next().await?.is_none(), "the end stays");
    Ok(all)
}

async fn answer(engine: &Engine, evaluation: Evaluation) -> Result<Vec<String>, QueryError> {
    all(&mut engine.evaluate(evaluation).await?).await
}

fn ended(engine: &Engine, outcome: Outcome) -> u64 {
    let metrics = &engine.0.metrics;
    metrics.queries(EvaluationKind::Instant, outcome)
        + metrics.queries(EvaluationKind::Range, outcome)
}

// === Answers ===

#[tokio::test]
async fn a_vector_gets_its_labels_and_the_parameters_go_as_given() {
    let peer = Peer::answering(|_| {
        let body = concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":["#,
            r#"{"metric":{"__name__":"up","job":"a"},"value":[1.5,"NaN"]},"#,
            r#"{"metric":{},"value":[1.5,"2"]}],"stats":{"x":1}},"#,
            r#""warnings":["w (1:1)"],"infos":["i"]}"#,
        );
        Reply::Whole(200, body.to_owned())
    })
    .await;
    let engine = peer.engine();
    let mut asked = instant("up");
    asked.params = vec![("time", "abc".to_owned()), ("timeout", "7h".to_owned())];
    let mut evaluated = engine.evaluate(asked).await.unwrap();
    assert_eq!(evaluated.result_type(), ResultType::Vector);
    assert_eq!(engine.status().running, 1);
    let elements = all(&mut evaluated).await.unwrap();
    let expected = [
        r#"__name__=up,cluster=c1,job=a "value":[1.5,"NaN"]"#,
        r#"cluster=c1 "value":[1.5,"2"]"#,
    ];
    assert_eq!(elements, expected);
    let trailer = evaluated.trailer();
    assert_eq!(trailer.stats.as_deref(), Some(&br#"{"x":1}"#[..]));
    assert_eq!(
        (&trailer.warnings[..], &trailer.infos[..]),
        (&["w (1:1)".to_owned()][..], &["i".to_owned()][..])
    );
    assert_eq!(
        peer.questions(),
        ["/api/v1/query?query=up&time=abc&timeout=7h"]
    );
    let status = engine.status();
    assert_eq!(
        (status.running, status.answered, status.not_answered),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn replica_labels_are_dropped_as_asked() {
    let peer = Peer::with_result("vector", r#"[{"metric":{"a":"1"},"value":[1,"2"]}]"#).await;
    let engine = peer.engine();
    let labels = |replica: Option<&[&str]>| {
        let mut asked = instant("up");
        asked.replica_labels =
            replica.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        answer(&engine, asked)
    };
    for (replica, expected) in [
        (None, "a=1,cluster=c1"),
        (Some(&[][..]), "a=1,cluster=c1,replica=r0"),
        (Some(&["cluster", "other"][..]), "a=1,replica=r0"),
        (Some(&["cluster", "replica"][..]), "a=1"),
    ] {
        let elements = labels(replica).await.unwrap();
        assert_eq!(elements, [format!("{expected} \"value\":[1,\"2\"]")]);
    }
    let many: Vec<String> = (0..=REPLICA_LABELS_MAX).map(|n| format!("r{n}")).collect();
    let mut asked = instant("up");
    asked.replica_labels = Some(many);
    let error = answer(&engine, asked.clone()).await.unwrap_err();
    assert!(matches!(error, QueryError::Parameter(_)), "{error:?}");
    asked.replica_labels.as_mut().unwrap().pop();
    answer(&engine, asked).await.unwrap();
}

#[tokio::test]
async fn a_matrix_is_sorted_by_all_its_labels() {
    let series = |labels: &str| format!(r#"{{"metric":{{{labels}}},"values":[[1,"1"]]}}"#);
    let all = [
        series(r#""a":"1""#),
        series(r#""a":"1","b":"1""#),
        series(r#""a":"1","z":"1""#),
    ];
    let peer = Peer::with_result("matrix", &format!("[{}]", all.join(","))).await;
    let mut asked = evaluation(EvaluationKind::Range, "up");
    asked.params = vec![("step", "0".to_owned())];
    let elements = answer(&peer.engine(), asked).await.unwrap();
    let samples = r#""values":[[1,"1"]]"#;
    let expected = ["a=1,b=1,cluster=c1", "a=1,cluster=c1", "a=1,cluster=c1,z=1"];
    assert_eq!(
        elements,
        expected.map(|labels| format!("{labels} {samples}"))
    );
    let question = &peer.questions()[0];
    assert!(
        question.starts_with("/api/v1/query_range?query=up&step=0&timeout=59.9"),
        "{question}"
    );
}

#[tokio::test]
async fn scalars_and_strings_have_no_labels() {
    for kind in ["scalar", "string"] {
        let peer = Peer::with_result(kind, r#"[1.5,"2"]"#).await;
        let elements = answer(&peer.engine(), instant("1")).await.unwrap();
        assert_eq!(elements, [r#" [1.5,"2"]"#]);
    }
}

#[tokio::test]
async fn a_query_for_other_stores_has_an_empty_answer() {
    let peer = Peer::with_result("vector", r#"[{"metric":{},"value":[1,"2"]}]"#).await;
    let engine = peer.engine();
    let matcher = |op, name: &str, value: &str| Matcher {
        op,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let ours = matcher(MatchOp::Regex, "cluster", "c.");
    let others = matcher(MatchOp::NotEqual, "cluster", "c1");
    let unknown = matcher(MatchOp::Equal, "__address__", "elsewhere");
    for (sets, is_meant) in [
        (vec![vec![ours.clone(), unknown.clone()]], true),
        (vec![vec![]], true),
        (vec![vec![others.clone()], vec![ours.clone()]], true),
        (vec![vec![ours, others.clone()]], false),
        (vec![vec![others, unknown]], false),
    ] {
        for kind in [EvaluationKind::Instant, EvaluationKind::Range] {
            let mut asked = evaluation(kind, "up");
            asked.store_matchers = sets.clone();
            let mut evaluated = engine.evaluate(asked).await.unwrap();
            let elements = all(&mut evaluated).await.unwrap();
            assert_eq!(elements.len(), usize::from(is_meant));
            if !is_meant && kind == EvaluationKind::Range {
                assert_eq!(evaluated.result_type(), ResultType::Matrix);
            }
        }
    }
    let mut asked = instant("up");
    asked.store_matchers = vec![vec![matcher(MatchOp::Regex, "cluster", "(")]];
    let error = engine.evaluate(asked).await.unwrap_err();
    assert!(matches!(error, QueryError::Parameter(_)), "{error:?}");
}

#[tokio::test]
async fn nothing_is_asked_before_external_labels_are_known() {
    let peer = Peer::with_result("vector", "[]").await;
    let state = PeerState {
        loaded: false,
        ..PeerState::up_with(ExternalLabels::default())
    };
    let engine = peer.engine_of(state, 1, LONG);
    let error = answer(&engine, instant("up")).await.unwrap_err();
    assert!(matches!(error, QueryError::Unavailable(_)), "{error:?}");
    assert!(peer.asked().is_empty());
    assert_eq!(ended(&engine, Outcome::unavailable), 1);
    // None at all are known, too.
    let engine = peer.engine_of(PeerState::up_with(ExternalLabels::default()), 1, LONG);
    answer(&engine, instant("up")).await.unwrap();
}

// === Labels of their own ===

#[tokio::test]
async fn stored_labels_are_asked_for_once_in_a_while() {
    let peer = Peer::with_result("vector", "[]").await;
    let engine = peer.engine();
    let queries = (0..20).map(|_| answer(&engine, instant("up")));
    for outcome in join_all(queries).await {
        outcome.unwrap();
    }
    let about = |peer: &Peer| {
        let mut asked = peer.asked();
        asked.retain(|asked| asked.starts_with("/api/v1/label/"));
        asked.sort();
        asked
    };
    let once = [
        "/api/v1/label/cluster/values?limit=1",
        "/api/v1/label/replica/values?limit=1",
    ];
    assert_eq!(about(&peer), once, "none about a label without a value");
    tokio::time::pause();
    tokio::time::advance(BELIEVED_FOR - Duration::from_secs(1)).await;
    tokio::time::resume();
    answer(&engine, instant("up")).await.unwrap();
    assert_eq!(about(&peer).len(), 2);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    answer(&engine, instant("up")).await.unwrap();
    assert_eq!(about(&peer).len(), 4);
}

#[tokio::test]
async fn a_stored_label_is_replaced_by_prometheus() {
    let peer = Peer::start(|asked| match asked {
        "/api/v1/label/cluster/values?limit=1" => {
            Reply::Whole(200, r#"{"status":"success","data":["","own"]}"#.to_owned())
        }
        // A router that does not take the name.
        asked if asked.starts_with("/api/v1/label/") => Reply::Whole(404, "no".to_owned()),
        _ => Reply::Whole(200, result_body("vector", "[]")),
    })
    .await;
    let engine = peer.engine();
    answer(&engine, instant("up")).await.unwrap();
    let question = peer.questions().remove(0);
    assert!(question.contains("label_replace"), "{question}");
    assert!(
        question.contains("cluster") && question.contains("replica"),
        "{question}"
    );
    assert_eq!(engine.status().rewritten, 1);
}

#[tokio::test]
async fn native_histograms_are_not_lost_by_old_versions() {
    for (version, features, is_asked) in [
        ("2.42.0", "native-histograms,exemplar-storage", false),
        ("2.42.0", "exemplar-storage", true),
        ("2.44.0", "native-histograms", true),
    ] {
        let flags = format!(r#"{{"status":"success","data":{{"enable-feature":"{features}"}}}}"#);
        let peer = Peer::start(move |asked| match asked {
            "/api/v1/status/flags" => Reply::Whole(200, flags.clone()),
            asked if asked.starts_with("/api/v1/label/") => {
                Reply::Whole(200, r#"{"status":"success","data":[]}"#.to_owned())
            }
            _ => Reply::Whole(200, result_body("vector", "[]")),
        })
        .await;
        let labels = [("cluster".to_owned(), "c1".to_owned())];
        let mut state = PeerState::up_with(ExternalLabels(labels.into_iter().collect::<Labels>()));
        state.build_version = version.to_owned();
        let engine = peer.engine_of(state, 1, LONG);
        let outcome = answer(&engine, instant("up or vector(0)")).await;
        assert_eq!(
            outcome.is_ok(),
            is_asked,
            "{version} {features} {outcome:?}"
        );
        if let Err(error) = outcome {
            assert_eq!(error.status(), 422);
            assert!(
                error.to_string().contains("2.42.0 loses native histograms"),
                "{error}"
            );
        }
        // Nothing is put in here.
        answer(&engine, instant("up")).await.unwrap();
    }
}

#[tokio::test]
async fn a_label_that_is_stored_since_a_moment_ends_the_answer_and_is_known_then() {
    let own = r#"[{"metric":{"cluster":"own"},"value":[1,"2"]}]"#;
    let peer = Peer::with_result("vector", own).await;
    let engine = peer.engine();
    let error = answer(&engine, instant("up")).await.unwrap_err();
    assert!(matches!(error, QueryError::Unavailable(_)), "{error:?}");
    answer(&engine, instant("up")).await.unwrap();
    assert!(peer.questions()[1].contains("label_replace"));
    // Others are asked about as before.
    assert_eq!(peer.asked().len(), 2 + 2);
}

#[tokio::test]
async fn remembered_names_are_limited() {
    let peer = Peer::with_result("vector", "[]").await;
    let engine = peer.engine();
    for n in 0..=REMEMBERED_MAX {
        engine.0.stored.note(&format!("l{n}")).await;
    }
    let client = &engine.0.config.client;
    assert!(
        engine
            .0
            .stored
            .has(client, &format!("l{REMEMBERED_MAX}"))
            .await
            .unwrap()
    );
    assert!(peer.asked().is_empty());
    assert!(
        !engine.0.stored.has(client, "l0").await.unwrap(),
        "it was asked for anew"
    );
}

// === Refusals ===

#[tokio::test]
async fn what_prometheus_says_is_passed_on() {
    for (status, error_type) in [(400, "bad_data"), (422, "execution"), (503, "timeout")] {
        let peer = Peer::answering(move |_| Reply::Whole(status, refusal(error_type, "no"))).await;
        let engine = peer.engine();
        let error = answer(&engine, instant("up")).await.unwrap_err();
        assert!(matches!(error, QueryError::Refused { .. }), "{error:?}");
        assert_eq!(
            (error.status().as_u16(), error.error_type()),
            (status, error_type)
        );
        assert_eq!(error.to_string(), "no");
        assert_eq!(peer.questions().len(), 1, "the text was the user's");
        let outcome = if status == 503 {
            Outcome::timeout
        } else {
            Outcome::refused
        };
        assert_eq!(ended(&engine, outcome), 1);
    }
    let peer = Peer::answering(|_| Reply::Whole(200, refusal("execution", "no"))).await;
    let error = answer(&peer.engine(), instant("up")).await.unwrap_err();
    assert_eq!(
        (error.status().as_u16(), error.error_type()),
        (422, "execution")
    );
}

#[tokio::test]
async fn a_rewritten_text_that_is_refused_is_judged_by_the_users_own() {
    let rewritten = r#"up{cluster="c1"}"#;
    for (own_is_taken, expected) in [(false, "of the text"), (true, "of the parameters")] {
        let peer = Peer::answering(move |asked| match asked {
            asked if asked.starts_with(&format!("/api/v1/query?query={rewritten}")) => {
                Reply::Whole(400, refusal("bad_data", "of the text"))
            }
            asked if asked.starts_with("/api/v1/query?") => {
                Reply::Whole(400, refusal("bad_data", "of the parameters"))
            }
            asked => {
                assert_eq!(asked, format!("/api/v1/format_query?query={rewritten}"));
                match own_is_taken {
                    true => Reply::Whole(200, r#"{"status":"success","data":"x"}"#.to_owned()),
                    false => Reply::Whole(400, refusal("bad_data", "of the format")),
                }
            }
        })
        .await;
        let error = answer(&peer.engine(), instant(rewritten))
            .await
            .unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.to_string()),
            (400, expected.to_owned())
        );
    }
}

#[tokio::test]
async fn what_we_can_not_read_is_shown_to_prometheus() {
    let peer = Peer::answering(|asked| match asked {
        "/api/v1/format_query?query=up{" => Reply::Whole(400, refusal("bad_data", "no")),
        "/api/v1/query?query=up{" => Reply::Whole(400, refusal("bad_data", "1:4: eof")),
        "/api/v1/format_query?query=of the future" => {
            Reply::Whole(200, r#"{"status":"success","data":"x"}"#.to_owned())
        }
        asked => panic!("{asked}"),
    })
    .await;
    let engine = peer.engine();
    let error = answer(&engine, instant("up{")).await.unwrap_err();
    assert_eq!(
        (error.error_type(), error.to_string().as_str()),
        ("bad_data", "1:4: eof")
    );
    let error = answer(&engine, instant("of the future")).await.unwrap_err();
    assert!(
        error.to_string().starts_with("unsupported expression: "),
        "{error}"
    );
    assert_eq!(
        (error.status().as_u16(), error.error_type()),
        (422, "execution")
    );
    assert_eq!(
        (
            ended(&engine, Outcome::refused),
            ended(&engine, Outcome::unsupported)
        ),
        (1, 1)
    );
    assert_eq!(engine.status().unsupported, 1);
}

// === Faults ===

#[tokio::test]
async fn a_prometheus_that_is_not_there_or_answers_nonsense() {
    let peer = Peer::start(|asked| panic!("{asked}")).await;
    let engine = peer.engine();
    drop(peer);
    let error = answer(&engine, instant("up")).await.unwrap_err();
    assert_eq!(
        (error.status().as_u16(), error.error_type()),
        (503, "unavailable")
    );
    for (status, body, error_type) in [
        (502, "<html>bad gateway</html>", "unavailable"),
        (503, "Service Unavailable", "unavailable"),
        (504, "", "timeout"),
        (401, "no", "internal"),
        (200, "<html>hello</html>", "internal"),
        (200, "", "internal"),
    ] {
        let peer = Peer::answering(move |_| Reply::Whole(status, body.to_owned())).await;
        let error = answer(&peer.engine(), instant("up")).await.unwrap_err();
        assert!(matches!(error, QueryError::Peer(_)), "{error:?}");
        assert_eq!(error.error_type(), error_type, "{status} {body}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_wherever_it_does() {
    let whole = result_body(
        "matrix",
        r#"[{"metric":{"a":"1"},"values":[[1,"1"]]},{"metric":{"b":"1"},"values":[[1,"1"]]}]"#,
    );
    for cut in [0, 1, 40, 60, 90, whole.len() - 1] {
        let body = whole[..cut].to_owned();
        let peer = Peer::answering(move |_| Reply::Gone(body.clone())).await;
        let engine = peer.engine();
        let error = answer(&engine, instant("up")).await.unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.error_type()),
            (503, "unavailable"),
            "{cut}"
        );
        assert_eq!(
            (ended(&engine, Outcome::failed), engine.status().running),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn a_broken_answer_stays_broken_and_lets_the_next_query_run() {
    let first = result_body("vector", r#"[{"metric":{},"value":[1,"1"]},"#);
    let first = first.trim_end_matches('}').to_owned();
    let peer = Peer::answering(move |_| Reply::Gone(first.clone())).await;
    let engine = peer.engine_with(1, LONG);
    let mut evaluated = engine.evaluate(instant("up")).await.unwrap();
    assert!(evaluated.next().await.unwrap().is_some());
    assert!(evaluated.next().await.is_err());
    assert!(evaluated.next().await.is_err());
    assert_eq!(engine.status().running, 0);
    // The one that labels were asked for over is kept.
    peer.has_open(1).await;
}

#[tokio::test]
async fn slow_answers_end_at_the_deadline() {
    let begun = result_body("vector", r#"[{"metric":{},"value":[1,"1"]},"#);
    let begun = begun.trim_end_matches('}').to_owned();
    for (body, limit, own) in [
        (String::new(), Duration::from_millis(50), None),
        (String::new(), LONG, Some(Duration::from_millis(50))),
        (String::new(), Duration::from_millis(50), Some(LONG)),
        (begun, Duration::from_millis(300), None),
    ] {
        let peer = Peer::answering(move |_| Reply::Stuck(body.clone())).await;
        let engine = peer.engine_with(1, limit);
        let mut asked = instant("up");
        asked.timeout = own;
        let error = answer(&engine, asked).await.unwrap_err();
        assert!(matches!(error, QueryError::TimedOut), "{error:?}");
        assert_eq!(
            (error.status().as_u16(), error.error_type()),
            (503, "timeout")
        );
        assert_eq!(
            (ended(&engine, Outcome::timeout), engine.status().running),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn dropping_a_query_closes_its_connection() {
    let begun = result_body("vector", r#"[{"metric":{},"value":[1,"1"]},"#);
    let begun = begun.trim_end_matches('}').to_owned();
    for body in [String::new(), begun] {
        let is_begun = !body.is_empty();
        let peer = Peer::answering(move |_| Reply::Stuck(body.clone())).await;
        let engine = peer.engine();
        let asking = tokio::spawn({
            let engine = engine.clone();
            async move {
                let mut evaluated = engine.evaluate(instant("up")).await.unwrap();
                assert!(evaluated.next().await.unwrap().is_some());
                drop(evaluated);
            }
        });
        match is_begun {
            true => asking.await.unwrap(),
            false => {
                while peer.questions().is_empty() {
                    tokio::task::yield_now().await;
                }
                asking.abort();
                assert!(asking.await.unwrap_err().is_cancelled());
            }
        }
        assert_eq!(
            (ended(&engine, Outcome::canceled), engine.status().running),
            (1, 0)
        );
        drop(engine);
        peer.has_open(0).await;
    }
}

// === The gate ===

#[tokio::test]
async fn queries_wait_for_their_turn_and_their_deadline_counts() {
    let peer = Peer::answering(|_| Reply::Stuck(String::new())).await;
    let engine = peer.engine_with(1, LONG);
    let mut first = Box::pin(engine.evaluate(instant("up")));
    while peer.questions().is_empty() {
        assert!(poll_immediate(&mut first).await.is_none());
        tokio::task::yield_now().await;
    }
    let mut second = instant("up");
    second.timeout = Some(Duration::from_millis(30));
    let error = engine.evaluate(second).await.unwrap_err();
    assert!(matches!(error, QueryError::TimedOut), "{error:?}");
    assert_eq!(peer.questions().len(), 1, "it never ran");

    let mut waiting: Vec<_> = (0..WAITING_QUERIES_MAX)
        .map(|_| Box::pin(engine.evaluate(instant("up"))))
        .collect();
    for query in &mut waiting {
        assert!(poll_immediate(query).await.is_none());
    }
    let status = engine.status();
    assert_eq!((status.running, status.waiting), (1, WAITING_QUERIES_MAX));
    let error = engine.evaluate(instant("up")).await.unwrap_err();
    assert_eq!(
        (error.status().as_u16(), error.error_type()),
        (503, "unavailable")
    );
    drop((first, waiting));
    let status = engine.status();
    assert_eq!((status.running, status.waiting), (0, 0));
    assert_eq!(status.not_answered, 1 + 512 + 2);
}

#[tokio::test]
async fn a_large_answer_streams_by() {
    const SERIES: usize = 2_000;
    let point = r#"[1435781430.781,"0.30000000000000004"]"#;
    let points = vec![point; 100].join(",");
    let body: Vec<String> = (0..SERIES)
        .map(|n| format!(r#"{{"metric":{{"n":"{n:06}"}},"values":[{points}]}}"#))
        .collect();
    let body = result_body("matrix", &format!("[{}]", body.join(",")));
    let peer = Peer::answering(move |_| Reply::Whole(200, body.clone())).await;
    let mut evaluated = peer
        .engine()
        .evaluate(evaluation(EvaluationKind::Range, "up"))
        .await
        .unwrap();
    let read = AtomicUsize::new(0);
    while let Some(element) = evaluated.next().await.unwrap() {
        let n = read.fetch_add(1, Ordering::Relaxed);
        let last = element
            .labels
            .iter()
            .last()
            .map(|(_, value)| value.to_owned());
        assert_eq!(last.as_deref(), Some(format!("{n:06}").as_str()));
        assert_eq!(element.samples.len(), r#""values":[]"#.len() + points.len());
    }
    assert_eq!(read.into_inner(), SERIES);
}
