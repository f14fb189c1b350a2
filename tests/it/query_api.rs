//! `--query.enable` over HTTP: Prometheus' API with external labels in place, compared with what
//! the Prometheus beside it answers itself; what is wrong in a request in its very words; clients
//! that others wrote, and those that go away.

mod client;
mod errors;
mod gone;
mod grafana;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    BACKFILL_START_S, Outrigger, Prometheus, PrometheusSetup, Site, eventually, get, get_plain,
    replace,
};

const FORM: &str = "application/x-www-form-urlencoded";
const TIMEOUT: Duration = Duration::from_secs(60);

/// In the middle of the data that is there.
const INSTANT_S: i64 = BACKFILL_START_S + 3600;

const RULES: &str = "groups:
- name: g
  interval: 1s
  rules:
  - record: r:up
    expr: up
    labels: {a: b}
  - record: r:bare
    expr: up
  - alert: Firing
    expr: vector(1)
    labels: {cluster: own}
";

/// A sidecar that answers queries beside a Prometheus with two blocks of 2023, and itself scraped.
struct Stand {
    outrigger: Outrigger,
    prometheus: Prometheus,
    _site: Site,
}

/// What was answered to a request.
#[derive(Clone, Debug, PartialEq)]
struct Answered {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

/// A request.
#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Ask {
    fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            content_type: "",
            body: Vec::new(),
        }
    }

    fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            content_type: FORM,
            body: body.into(),
        }
    }

    /// Over HTTP/1.0, so that the body ends with the connection.
    fn of(&self, address: SocketAddr) -> Answered {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let Self { method, path, .. } = self;
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: x\r\nOrigin: http://g\r\n");
        if *method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        if !self.content_type.is_empty() {
            head.push_str(&format!("Content-Type: {}\r\n", self.content_type));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // One that refuses early hangs up; it has answered.
        drop(stream.write_all(&self.body));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answered {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and what an error says; the data of success is left out.
    fn verdict(&self) -> (u16, Value) {
        let mut json = self.json();
        json.as_object_mut().unwrap().remove("data");
        (self.status, json)
    }
}

impl Stand {
    fn start(extra: &[&str]) -> Self {
        let site = Site::new();
        site.backfill(2);
        let setup = PrometheusSetup {
            scrapes_itself: true,
            rules: RULES,
            flags: vec!["--enable-feature=exemplar-storage".to_owned()],
            ..PrometheusSetup::default()
        };
        let prometheus = Prometheus::start(&site.data, &setup);
        let flags = [&["--query.enable"], extra].concat();
        let arguments = site.arguments_without_bucket(prometheus.address(), &flags);
        let outrigger = Outrigger::start(&arguments);
        eventually("the labels are known and rules evaluated", || {
            let (status, body) = get(outrigger.address(), "/api/v1/alerts").ok()?;
            (status == 200 && body.contains("Firing")).then_some(())
        });
        eventually("Prometheus has scraped itself", || {
            let (_, body) = get(prometheus.address(), "/api/v1/query?query=up==1").ok()?;
            body.contains("instance").then_some(())
        });
        Self {
            outrigger,
            prometheus,
            _site: site,
        }
    }

    fn ours(&self, ask: &Ask) -> Answered {
        ask.of(self.outrigger.address())
    }

    fn theirs(&self, ask: &Ask) -> Answered {
        ask.of(self.prometheus.address())
    }
}

/// Percent-encoded for a URL or a form.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let bytes = text.bytes().map(|byte| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// The document without the external labels, and how many label sets had both.
fn stripped(mut document: Value) -> (Value, usize) {
    fn strip(value: &mut Value, count: &mut usize) {
        match value {
            Value::Object(members) => {
                if members.get("replica").is_some_and(|replica| replica == "0") {
                    assert_eq!(members["cluster"], "eu-1", "{members:?}");
                    members.remove("replica");
                    members.remove("cluster");
                    *count += 1;
                }
                // A busy machine may fail a scrape between the two questions.
                for volatile in [
                    "lastScrape",
                    "lastScrapeDuration",
                    "lastEvaluation",
                    "lastError",
                    "health",
                ] {
                    members.remove(volatile);
                }
                members.remove("evaluationTime");
                if members.get("type").is_some_and(|kind| kind == "recording") {
                    // Some versions leave out what is empty.
                    let empty = || Value::Object(serde_json::Map::new());
                    members.entry("labels").or_insert_with(empty);
                }
                // Of the alert rule's own, which the external one takes the place of.
                members.retain(|name, value| name != "cluster" || value != "own");
                members.values_mut().for_each(|value| strip(value, count));
            }
            Value::Array(elements) => elements.iter_mut().for_each(|value| strip(value, count)),
            _ => {}
        }
    }
    let mut count = 0;
    strip(&mut document, &mut count);
    (document, count)
}

#[test]
fn the_api_is_off_unless_it_is_wanted() {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let outrigger = Outrigger::start(&site.arguments_without_bucket(prometheus.address(), &[]));
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    for path in [
        "query?query=1",
        "query_range",
        "labels",
        "rules",
        "status/buildinfo",
    ] {
        let (status, body) = get(outrigger.address(), &format!("/api/v1/{path}")).unwrap();
        assert_eq!(
            (status, body.as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
    }
    let (_, status) = get(outrigger.address(), "/api/v1/status").unwrap();
    assert!(status.contains("\"query\":null"), "{status}");
    assert_eq!(outrigger.metric("outrigger_query_in_flight"), None);
}

#[test]
fn each_answer_is_prometheus_own_with_labels_in_place() {
    let stand = Stand::start(&[]);
    let at = format!("time={INSTANT_S}");
    let range = format!("start={INSTANT_S}&end={}&step=60", INSTANT_S + 600);
    let all = format!("start={INSTANT_S}&end={}", INSTANT_S + 60);
    let query = encoded("http_requests_total");
    // Not a sum, whose last bits depend on an order that Prometheus leaves to chance.
    let max = encoded("max by (job) (rate(http_requests_total[5m]))");
    for (path, at_least) in [
        (format!("query?query={query}&{at}"), 50),
        (format!("query?query={max}&{at}"), 0),
        (format!("query?query=1.5&{at}"), 0),
        (format!("query?query=%22text%22&{at}"), 0),
        (format!("query?query=nothing&{at}"), 0),
        (format!("query_range?query={query}&{range}"), 50),
        (format!("query_range?query={max}&{range}"), 0),
        (format!("series?match[]={query}&{all}"), 50),
        (format!("series?match[]=nothing&{all}"), 0),
        (format!("label/instance/values?{all}"), 0),
        (format!("label/instance/values?match[]={query}&{all}"), 0),
        ("rules".to_owned(), 3),
        ("rules?type=record".to_owned(), 2),
        ("alerts".to_owned(), 1),
        ("targets".to_owned(), 1),
        ("targets?state=active".to_owned(), 1),
        ("query_exemplars?query=up".to_owned(), 0),
        ("query_exemplars?query=1".to_owned(), 0),
        ("metadata?metric=go_goroutines".to_owned(), 0),
        ("status/buildinfo".to_owned(), 0),
        (format!("format_query?query={max}"), 0),
    ] {
        let ask = Ask::get(format!("/api/v1/{path}"));
        let (ours, theirs) = (stand.ours(&ask), stand.theirs(&ask));
        assert_eq!(ours.status, theirs.status, "{path}: {ours:?} {theirs:?}");
        if theirs.body.is_empty() {
            assert_eq!((ours.status, ours.body.as_str()), (204, ""), "{path}");
            continue;
        }
        let ((ours, labelled), (theirs, _)) = (stripped(ours.json()), stripped(theirs.json()));
        assert_eq!(ours, theirs, "{path}");
        assert!(labelled >= at_least, "{path}: {labelled} label sets");
    }
}

/// Byte for byte where nothing is put in.
#[test]
fn samples_are_the_bytes_that_prometheus_wrote() {
    let stand = Stand::start(&[]);
    let expression = "max by (job) (rate(http_requests_total[5m])) / 3";
    let range = format!("&start={INSTANT_S}&end={}&step=60&stats=", INSTANT_S + 3600);
    let ask = Ask::post(
        "/api/v1/query_range",
        format!("query={}{range}", encoded(expression)),
    );
    assert_eq!(stand.ours(&ask).body, stand.theirs(&ask).body.trim_end());
    // With the labels of the data, theirs has only to get the external ones.
    let series = "http_requests_total{instance=\"10.0.0.7:9100\"}";
    let ask = Ask::get(format!(
        "/api/v1/query?query={}&time={INSTANT_S}",
        encoded(series)
    ));
    let theirs = stand.theirs(&ask).body.replace(
        "\"instance\":\"10.0.0.7:9100\",\"job\":\"node\"",
        "\"cluster\":\"eu-1\",\"instance\":\"10.0.0.7:9100\",\"job\":\"node\",\"replica\":\"0\"",
    );
    assert_eq!(stand.ours(&ask).body, theirs);
}

#[test]
fn names_and_values_of_external_labels_are_among_the_others() {
    let stand = Stand::start(&[]);
    let names =
        |path: &str| stand.ours(&Ask::get(format!("/api/v1/{path}"))).json()["data"].clone();
    let all = format!("start={INSTANT_S}&end={}", INSTANT_S + 60);
    let both = ["__name__", "cluster", "instance", "job", "replica"];
    assert_eq!(names(&format!("labels?{all}")), Value::from(both.to_vec()));
    let matched = |selector: &str| format!("match[]={}&{all}", encoded(selector));
    let some = matched("{cluster=\"eu-1\",job=\"node\"}");
    assert_eq!(names(&format!("labels?{some}")), Value::from(both.to_vec()));
    let only = matched("{replica=~\".+\"}");
    assert_eq!(names(&format!("labels?{only}")), Value::from(both.to_vec()));
    assert_eq!(
        names(&format!("label/cluster/values?{only}")),
        Value::from(vec!["eu-1"])
    );
    for none in [
        "{cluster=\"us\"}",
        "nothing",
        "{job=\"node\",replica!=\"0\"}",
    ] {
        let none = matched(none);
        for list in [
            "labels",
            "series",
            "label/cluster/values",
            "label/job/values",
        ] {
            assert_eq!(
                names(&format!("{list}?{none}")),
                Value::Array(Vec::new()),
                "{list}"
            );
        }
    }
    for (label, value) in [("cluster", "eu-1"), ("replica", "0")] {
        let values = format!("label/{label}/values");
        assert_eq!(names(&values), Value::from(vec![value]));
        assert_eq!(names(&format!("{values}?{some}")), Value::from(vec![value]));
    }
    let post = Ask::post("/api/v1/labels", some.clone());
    assert_eq!(stand.ours(&post).json()["data"], Value::from(both.to_vec()));
    let post = Ask::post("/api/v1/series", some);
    assert_eq!(
        stand.ours(&post).json()["data"].as_array().unwrap().len(),
        50
    );
}

#[test]
fn replica_labels_are_dropped_as_on_a_querier() {
    let stand = Stand::start(&["--query.replica-label=replica"]);
    let labels = |more: &str| {
        let path = format!("/api/v1/query?query=http_requests_total&time={INSTANT_S}{more}");
        let metric = stand.ours(&Ask::get(path)).json()["data"]["result"][0]["metric"].clone();
        let names = metric.as_object().unwrap().keys();
        names.cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(labels(""), "__name__ cluster instance job");
    assert_eq!(
        labels("&dedup=false"),
        "__name__ cluster instance job replica"
    );
    assert_eq!(
        labels("&replicaLabels[]=cluster&replicaLabels[]=replica"),
        "__name__ instance job"
    );
    let path = format!("/api/v1/query?query=http_requests_total&time={INSTANT_S}&storeMatch[]=");
    let other = Ask::get(path + &encoded("{cluster=\"us\"}"));
    assert_eq!(
        stand.ours(&other).json()["data"]["result"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_range_without_a_step_gets_one() {
    let stand = Stand::start(&["--query.default-step=30s"]);
    for (seconds, step, points) in [(600, 30.0, 21), (6000, 30.0, 201), (10_000, 40.0, 251)] {
        let ask = Ask::get(format!(
            "/api/v1/query_range?query=vector(1)&start={INSTANT_S}&end={}",
            INSTANT_S + seconds
        ));
        let json = stand.ours(&ask).json();
        let values = json["data"]["result"][0]["values"].as_array().unwrap();
        let seen = values[1][0].as_f64().unwrap() - values[0][0].as_f64().unwrap();
        assert_eq!((seen, values.len()), (step, points), "{seconds}");
    }
    let (_, status) = get(stand.outrigger.address(), "/api/v1/status").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["query"]["running_max"], 20);
    assert_eq!(status["query"]["answered"], 3);
    let (_, page) = get(stand.outrigger.address(), "/").unwrap();
    assert!(page.contains("0 of 20 running, 0 waiting"), "{page}");
}

#[tokio::test]
async fn the_web_configuration_protects_the_api_as_well() {
    let site = Site::new();
    let file = site.scratch().join("web.yml");
    // "secret"
    let hash = bcrypt::hash("secret", 4).unwrap();
    replace(&file, &format!("basic_auth_users:\n  ann: {hash}\n"));
    let prometheus = site.prometheus_elsewhere();
    let config = format!("--http.config={}", file.display());
    let flags = ["--query.enable", &config];
    let arguments = site.arguments_without_bucket(prometheus.address(), &flags);
    let outrigger = Outrigger::start(&arguments);
    let path = "/api/v1/query?query=1";
    for (credentials, status) in [(None, 401), (Some(("ann", "wrong")), 401)] {
        let answer = get_plain(outrigger.address(), path, credentials).await;
        assert_eq!(answer.unwrap().status, status);
    }
    let until = std::time::Instant::now() + TIMEOUT;
    loop {
        let answer = get_plain(outrigger.address(), path, Some(("ann", "secret")))
            .await
            .unwrap();
        if answer.status == 200 {
            assert!(
                answer.body.contains("\"resultType\":\"scalar\""),
                "{}",
                answer.body
            );
            return;
        }
        // Until the labels are known.
        assert_eq!(answer.status, 503);
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
