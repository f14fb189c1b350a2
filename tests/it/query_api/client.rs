//! Python's prometheus-api-client.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{INSTANT_S, Stand};
use crate::support::{Process, left_out};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/query_api/client.py");

#[test]
fn prometheus_api_client_is_answered() {
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch-prometheus-api-client");
    let found = Command::new(fetch).output().unwrap();
    if !found.status.success() {
        let why = "none here, see tests/fetch-prometheus-api-client";
        return left_out("prometheus-api-client", why);
    }
    let stand = Stand::start(&[]);
    let python = String::from_utf8(found.stdout).unwrap();
    let mut command = Command::new(python.trim());
    command.arg(SCRIPT);
    command.arg(format!("http://{}", stand.outrigger.address()));
    for time in [INSTANT_S, INSTANT_S, INSTANT_S + 600] {
        command.arg(time.to_string());
    }
    let mut process = Process::spawn("prometheus-api-client", &mut command);
    assert!(process.wait().success(), "{}", process.log());
    let log = process.log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let answers: BTreeMap<String, Value> = lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let question = line["question"].as_str().unwrap().to_owned();
            (question, line["answer"].clone())
        })
        .collect();
    assert_eq!(answers["connection"], true);
    let has = |question: &str, text: &str| {
        let list = answers[question].as_array().unwrap();
        assert!(list.contains(&text.into()), "{question}: {list:?}");
    };
    has("metrics", "http_requests_total");
    has("names", "cluster");
    assert_eq!(answers["values"], json!(["eu-1"]));
    assert_eq!(
        answers["query"][0]["metric"],
        json!({"cluster": "eu-1", "job": "node"})
    );
    let range = answers["range"].as_array().unwrap();
    assert_eq!(range.len(), 1);
    assert_eq!(range[0]["metric"]["replica"], "0");
    assert_eq!(range[0]["values"].as_array().unwrap().len(), 11);
    assert_eq!(answers["selector"].as_array().unwrap().len(), 50);
    assert_eq!(
        answers["targets"]["activeTargets"][0]["labels"]["cluster"],
        "eu-1"
    );
}
