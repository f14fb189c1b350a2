//! The port as Python's grpcio sees it, which builds its messages from what reflection tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Beside;
use crate::support::{Ca, Process, Reads, Site, eventually, left_out, replace};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc/client.py");

/// A Python that has grpcio; `None` where there is none on this machine, which is said.
fn python(case: &str) -> Option<Command> {
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch-grpcio");
    let found = Command::new(fetch).output().unwrap();
    if !found.status.success() {
        left_out(case, "no grpcio here, see tests/fetch-grpcio");
        return None;
    }
    let program = String::from_utf8(found.stdout).unwrap();
    let mut command = Command::new(program.trim());
    command.arg(SCRIPT);
    Some(command)
}

/// What the script says to each question.
fn answers(log: &str) -> BTreeMap<String, Value> {
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let answers = lines.map(|line| {
        let answer: Value = serde_json::from_str(line).unwrap();
        (answer["question"].as_str().unwrap().to_owned(), answer)
    });
    answers.collect()
}

fn assert_calls(command: &mut Command) {
    let mut process = Process::spawn("grpcio", command);
    let status = process.wait();
    let log = process.log();
    assert!(status.success(), "{log}");
    let answers = answers(&log);
    let services = answers["services"]["names"].as_array().unwrap();
    for service in ["thanos.Store", "thanos.info.Info", "grpc.health.v1.Health"] {
        assert!(services.contains(&json!(service)), "{services:?}");
    }
    assert_eq!(answers["health"]["status"], "SERVING");
    assert_eq!(answers["unknown health"]["code"], "NOT_FOUND");
    let info = &answers["info"];
    assert_eq!(info["component"], "sidecar");
    assert_eq!(info["labels"], json!({"cluster": "eu-1", "replica": "0"}));
    assert_eq!(info["max_time"], i64::MAX);
    for question in ["series", "series in gzip"] {
        let series = &answers[question];
        assert_eq!(series["code"], "OK");
        assert!(series["count"].as_u64().unwrap() > 100, "{series}");
        assert!(
            series["chunks"].as_u64() >= series["count"].as_u64(),
            "{series}"
        );
        assert_eq!(series["is_sorted"], true);
    }
    assert_eq!(answers["bad pattern"]["code"], "INVALID_ARGUMENT");
    let details = answers["bad pattern"]["details"].as_str().unwrap();
    assert!(details.contains("job"), "{details}");
    let names = answers["label names"]["names"].as_array().unwrap();
    assert!(names.contains(&json!("cluster")) && names.contains(&json!("__name__")));
    assert_eq!(answers["unknown method"]["code"], "UNIMPLEMENTED");
}

#[test]
fn grpcio_is_answered_in_plain_text() {
    let Some(mut command) = python("grpcio in plain text") else {
        return;
    };
    let beside = Beside::start(&[]);
    let address = beside.grpc_address().to_string();
    assert_calls(command.args(["calls", &address]));
}

#[test]
fn grpcio_is_answered_over_tls_with_a_client_certificate_and_not_without() {
    let Some(mut command) = python("grpcio over TLS") else {
        return;
    };
    let (ca, files) = (Ca::new(), Site::new());
    let (cert, key) = ca.sign("localhost").write(files.scratch(), "server");
    let (client_cert, client_key) = ca.sign("querier").write(files.scratch(), "client");
    let ca_file = files.scratch().join("ca.pem");
    replace(&ca_file, ca.pem());
    let beside = Beside::start(&[
        &format!("--grpc-server-tls-cert={}", cert.display()),
        &format!("--grpc-server-tls-key={}", key.display()),
        &format!("--grpc-server-tls-client-ca={}", ca_file.display()),
    ]);
    let address = beside.grpc_address().to_string();
    command.args(["calls", &address]).arg(&ca_file);
    let mut refused = Process::spawn("grpcio", &mut command);
    assert!(!refused.wait().success());
    assert!(
        refused.log().contains("StatusCode.UNAVAILABLE"),
        "{}",
        refused.log()
    );
    assert_calls(command.args([client_cert, client_key]));
}

#[test]
fn grpcio_that_leaves_closes_its_reads() {
    let Some(mut command) = python("deadline and cancel of grpcio") else {
        return;
    };
    let beside = Beside::start(&[]);
    beside.gate.set_reads(Reads::Endless);
    let address = beside.grpc_address().to_string();
    let process = Process::spawn("grpcio", command.args(["leave", &address]));
    process.wait_for_line("its cancel", |line| line.contains("\"cancel\""));
    eventually("its reads are closed", || {
        (beside.gate.open_reads() == 0).then_some(())
    });
    let answers = answers(&process.log());
    assert_eq!(answers["deadline"]["code"], "DEADLINE_EXCEEDED");
    assert_eq!(answers["cancel"]["code"], "CANCELLED");
}
