//! What is wrong with a request is told as Prometheus tells it.

use super::{Ask, FORM, INSTANT_S, Stand, encoded};

/// What is no PromQL.
const EXPRESSIONS: &[&str] = &[
    "",
    "up{",
    "up{job=}",
    "sum(",
    "1 +",
    "up{job=~\"(\"}",
    "no_such_function(up)",
    "rate(up)",
    "up{cluster=\"eu-1\"} + on(",
    "sum by (cluster) (up) )",
    "  up{cluster=\"eu-1\"} + {}",
    "up{cluster=\"us\"} == \"text\"",
    "up[5m] + 1",
    "\"open",
    "up offset",
    "up @ soon",
    "label_replace(up, \"a\")",
    "count_values(\"~\", up)",
    "{cluster=\"eu-1\"",
    "up ° up",
];

/// What is wrong in other ways.
const PATHS: &[&str] = &[
    "query?query=up&time=soon",
    "query?query=up&timeout=soon",
    "query?query=up&lookback_delta=soon",
    "query?query=up&no_such_parameter=1",
    "query?query=up&stats=all&limit=x",
    "query?query=%ff",
    "query?query=up%7Bjob%3D%22%ff%22%7D",
    "query?query=up&time=%ff",
    "query?query=up;time=3",
    "query?query=%zz",
    "query",
    "series",
    "series?match[]=",
    "series?match[]=%7B%7D",
    "series?match[]=up%7B",
    "series?match[]=up&start=soon",
    "series?match[]=up%7Bcluster%3D%22us%22%7D&start=soon",
    "series?match[]=up&x=%zz",
    "series?match[]=rate(up%5B1m%5D)",
    "labels?start=soon",
    "labels?end=soon",
    "labels?match[]=up%7B",
    "label/a-b/values?match[]=up%7B",
    "label/job/values?start=soon",
    "label/job/values?match[]=%7B%7D",
    "label/cluster/values?start=soon",
    "label/1job/values",
    "query_exemplars?query=)",
    "query_exemplars?query=up&start=soon",
    "query_exemplars?query=up&start=9&end=1",
    "query_exemplars?query=%ff",
    "format_query?query=)",
    "format_query",
    "rules?type=none",
    "targets?state=none",
    "metadata?limit=soon",
];

/// Paths with their queries.
fn wrong() -> Vec<String> {
    let range = |query: &str, rest: &str| format!("query_range?query={}&{rest}", encoded(query));
    let (start, end) = (INSTANT_S, INSTANT_S + 600);
    let mut paths = Vec::new();
    for query in EXPRESSIONS {
        paths.push(format!("query?query={}", encoded(query)));
        paths.push(range(query, &format!("start={start}&end={end}&step=60")));
    }
    for rest in [
        format!("start={start}&end={end}&step=0"),
        format!("start={start}&end={end}&step=-1"),
        format!("start={start}&end={end}&step=soon"),
        format!("start={start}&end={}&step=1", start + 11_001),
        format!("start={end}&end={start}&step=60"),
        format!("end={end}&step=60"),
        format!("start={start}&step=60"),
        format!("start=soon&end={end}&step=60"),
        format!("start={start}&end={end}&step=60&timeout=soon"),
        format!("start={start}&end={end}&step=60&lookback_delta=soon"),
        format!("start={start}&end={end}&step=60&limit=-1"),
    ] {
        paths.push(range("up", &rest));
    }
    paths.extend(PATHS.iter().map(|&path| path.to_owned()));
    paths
}

#[test]
fn what_is_wrong_is_told_in_prometheus_words() {
    let stand = Stand::start(&[]);
    for path in wrong() {
        let ask = Ask::get(format!("/api/v1/{path}"));
        let (ours, theirs) = (stand.ours(&ask), stand.theirs(&ask));
        assert_eq!(ours.verdict(), theirs.verdict(), "{path}");
        assert!(
            ours.head.contains("content-type: application/json"),
            "{}",
            ours.head
        );
    }
}

#[test]
fn forms_are_read_as_prometheus_reads_them() {
    let stand = Stand::start(&[]);
    let at = format!("time={INSTANT_S}");
    let name = "x".repeat(1 << 20);
    let selector = encoded(&format!("up{{job=\"{name}\"}}"));
    let path = "/api/v1/query";
    for ask in [
        Ask::post(path, format!("query=vector(1)&{at}")),
        Ask::post("/api/v1/query?query=2", format!("query=vector(1)&{at}")),
        Ask::post("/api/v1/query?query=vector(2)", at.clone()),
        Ask::post(path, format!("query={name}&{at}")),
        Ask::post(path, format!("query={selector}&{at}")),
        Ask::post(path, format!("query={}{at}", ")".repeat(1 << 20))),
        Ask::post(path, format!("query=up&x={}", "x".repeat(10 << 20))),
        Ask::post(path, b"query=\xff\xfe".to_vec()),
        Ask::post(path, Vec::new()),
        Ask {
            content_type: "application/json",
            ..Ask::post(path, "{\"query\":\"up\"}")
        },
        Ask {
            content_type: "",
            ..Ask::post(path, "query=up")
        },
        Ask {
            content_type: "application/x-www-form-urlencoded; charset=latin1",
            ..Ask::post(path, format!("query=vector(1)&{at}"))
        },
        Ask::post("/api/v1/format_query", "query=a%2Bb"),
        Ask::post("/api/v1/query_exemplars", "query=up"),
        Ask::post("/api/v1/series", "start=1"),
    ] {
        let (ours, theirs) = (stand.ours(&ask), stand.theirs(&ask));
        let shown: String = String::from_utf8_lossy(&ask.body)
            .chars()
            .take(60)
            .collect();
        let path = &ask.path;
        let ours = (ours.status, ours.json());
        assert_eq!(
            ours,
            (theirs.status, theirs.json()),
            "{path} {shown} {FORM}"
        );
    }
}

#[test]
fn methods_and_origins_are_as_prometheus_has_them() {
    let stand = Stand::start(&[]);
    for (method, path) in [
        ("OPTIONS", "query"),
        ("OPTIONS", "rules"),
        ("OPTIONS", "label/job/values"),
        ("GET", "query?query=1"),
        ("GET", "query?query=("),
        ("GET", "labels"),
        ("GET", "series"),
        ("GET", "status/buildinfo"),
    ] {
        let ask = Ask {
            method,
            ..Ask::get(format!("/api/v1/{path}"))
        };
        let headers = |head: &str| {
            let lines = head
                .lines()
                .filter(|line| line.starts_with("access-control"));
            // Newer versions repeat the origin, which lets in the same.
            let lines = lines.map(|line| line.replace("origin: http://g", "origin: *"));
            let mut lines: Vec<String> = lines.collect();
            lines.sort();
            lines
        };
        let (ours, theirs) = (stand.ours(&ask), stand.theirs(&ask));
        assert_eq!(ours.status, theirs.status, "{method} {path}");
        assert_eq!(
            headers(&ours.head),
            headers(&theirs.head),
            "{method} {path}"
        );
        assert_eq!(headers(&ours.head).len(), 4);
    }
    for (method, path) in [("DELETE", "query"), ("PUT", "series"), ("POST", "rules")] {
        let ask = Ask {
            method,
            ..Ask::get(format!("/api/v1/{path}"))
        };
        let (ours, theirs) = (stand.ours(&ask), stand.theirs(&ask));
        assert_eq!(
            (ours.status, &ours.body),
            (theirs.status, &theirs.body),
            "{method} {path}"
        );
    }
}

#[test]
fn our_own_parameters_are_checked() {
    let stand = Stand::start(&[]);
    for wrong in [
        "dedup=maybe",
        "partial_response=2x",
        "max_source_resolution=soon",
        "engine=none",
        "storeMatch[]=up%7B",
    ] {
        let ask = Ask::get(format!("/api/v1/query?query=up&{wrong}"));
        let (status, told) = stand.ours(&ask).verdict();
        let name = wrong.split('=').next().unwrap();
        let words = format!("invalid parameter \"{name}\": ");
        assert_eq!(
            (status, &told["errorType"]),
            (400, &"bad_data".into()),
            "{wrong}"
        );
        assert!(
            told["error"].as_str().unwrap().starts_with(&words),
            "{told}"
        );
    }
}
