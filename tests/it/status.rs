//! The status page and its document, of a process that ships, waits, fails and reloads.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{
    Gate, GateState, Outrigger, Prometheus, PrometheusSetup, Site, eventually, get,
};

fn page(outrigger: &Outrigger) -> String {
    let (status, page) = get(outrigger.address(), "/").unwrap();
    assert_eq!(status, 200);
    page
}

fn document(outrigger: &Outrigger) -> Value {
    let (status, text) = get(outrigger.address(), "/api/v1/status").unwrap();
    assert_eq!(status, 200);
    serde_json::from_str(&text).unwrap()
}

/// Waits until the document is as wanted.
fn wait_for(outrigger: &Outrigger, what: &str, suits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        Some(document(outrigger)).filter(|seen| suits(seen))
    })
}

fn ulid(block: &Path) -> &str {
    block.file_name().unwrap().to_str().unwrap()
}

#[test]
fn shipped_blocks_are_told_and_labels_stay_text() {
    let site = Site::new();
    let blocks = site.backfill(2);
    let setup = PrometheusSetup {
        external_labels: vec![("cluster", "<script>alert(1)</script>")],
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let outrigger = site.start(prometheus.address(), &[]);
    let told = wait_for(&outrigger, "both blocks are told as shipped", |seen| {
        seen["shipping"]["shipped"] == 2 && seen["prometheus"]["oldest_sample_ms"].is_i64()
    });
    let shipping = &told["shipping"];
    assert_eq!(shipping["state"], "running");
    assert_eq!(shipping["last_shipped"]["block"], ulid(&blocks[1]));
    assert!(shipping["last_shipped"]["size_bytes"].as_u64().unwrap() > 0);
    assert_eq!(shipping["failures"], Value::Array(Vec::new()));
    let listed = shipping["blocks"].as_array().unwrap();
    let listed: Vec<_> = listed.iter().map(|b| (&b["block"], &b["state"])).collect();
    // Newest first.
    for (seen, block) in listed.iter().zip(blocks.iter().rev()) {
        assert_eq!((seen.0, seen.1), (&ulid(block).into(), &"shipped".into()));
    }
    let peer = &told["prometheus"];
    assert_eq!(peer["state"], "up");
    assert_eq!(
        peer["external_labels"]["cluster"],
        "<script>alert(1)</script>"
    );
    assert_eq!(told["io"]["buffers_in_use"], 0);
    assert_eq!(told["reloader"], Value::Null);
    assert_eq!(told["store_calls"]["series"]["running_max"], 50);
    let engine = told["io"]["engine"].as_str().unwrap().to_owned();
    let metric = outrigger
        .process
        .wait_for_line("the engine", |line| line.contains("disk engine"));
    assert!(metric.contains(&format!("engine={engine}")), "{metric}");

    let page = page(&outrigger);
    assert!(
        page.contains(ulid(&blocks[0])) && page.contains("2 in the bucket"),
        "{page}"
    );
    assert!(
        page.contains("&lt;script&gt;") && !page.contains("<script"),
        "{page}"
    );
    assert!(page.len() <= 30 << 10);
}

#[test]
fn a_prometheus_that_is_down_or_replays_is_told() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let gate = Gate::new(GateState::Down);
    let outrigger = site.start(gate.address(), &[]);
    let told = wait_for(&outrigger, "down", |seen| {
        seen["prometheus"]["state"] == "down"
    });
    assert_eq!(told["process"]["ready"], false);
    assert_eq!(told["shipping"]["state"], "starting");
    let failure = &told["prometheus"]["last_failure"];
    assert!(
        failure["error"].as_str().unwrap().contains("/api/v1/"),
        "{failure}"
    );
    assert!(
        failure["remedy"]
            .as_str()
            .unwrap()
            .contains("--prometheus.url"),
        "{failure}"
    );
    let shown = page(&outrigger);
    assert!(shown.contains("Prometheus does not answer"), "{shown}");

    gate.set(GateState::Replaying);
    wait_for(&outrigger, "replaying", |seen| {
        seen["prometheus"]["state"] == "replaying"
    });
    gate.set(GateState::Open(prometheus.address()));
    wait_for(&outrigger, "up", |seen| {
        seen["prometheus"]["state"] == "up" && seen["process"]["ready"] == true
    });
    gate.set(GateState::Down);
    let told = wait_for(&outrigger, "down again", |seen| {
        seen["prometheus"]["state"] == "down"
    });
    assert_eq!(
        told["prometheus"]["external_labels"]["cluster"], "eu-1",
        "what is known is kept"
    );
}

#[test]
fn a_bucket_that_fails_and_a_damaged_block_are_told_with_their_remedy() {
    let site = Site::new();
    let blocks = site.backfill(2);
    // Cut off, so that the index can't be whole.
    let index = blocks[0].join("index");
    let bytes = fs::read(&index).unwrap();
    // A Prometheus over a broken block does not start.
    let prometheus = site.prometheus_elsewhere();
    fs::write(&index, &bytes[..bytes.len() / 2]).unwrap();
    // Where the bucket's directory should be there is a file.
    fs::write(site.bucket.root(), "").unwrap();
    let arguments = site.arguments(prometheus.address(), &["--shipper.skip-corrupted-blocks"]);
    let outrigger = Outrigger::start(&arguments);
    let told = wait_for(&outrigger, "a failure", |seen| {
        seen["shipping"]["failures"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    });
    assert_eq!(told["shipping"]["shipped"], 0);
    let shown = page(&outrigger);
    assert!(shown.contains("Last failures"), "{shown}");

    fs::remove_file(site.bucket.root()).unwrap();
    let told = wait_for(&outrigger, "damaged and shipped", |seen| {
        seen["shipping"]["damaged"] == 1 && seen["shipping"]["shipped"] == 1
    });
    let failures = told["shipping"]["failures"].as_array().unwrap();
    let damage = failures
        .iter()
        .find(|f| f["block"] == ulid(&blocks[0]))
        .unwrap();
    assert!(
        damage["error"].as_str().unwrap().contains("index"),
        "{damage}"
    );
    assert!(
        damage["remedy"].as_str().unwrap().contains("restore"),
        "{damage}"
    );
    let shown = page(&outrigger);
    assert!(shown.contains("1 damaged</b>"), "{shown}");
}

#[test]
fn a_reload_that_fails_is_told_and_no_password_is() {
    let site = Site::new();
    let rules = site.scratch().join("rules");
    fs::create_dir(&rules).unwrap();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let plain = format!("--prometheus.url=http://{}/", prometheus.address());
    let secret = format!(
        "--prometheus.url=http://user:hunter2@{}/",
        prometheus.address()
    );
    let rules_flag = format!("--reloader.rule-dir={}", rules.display());
    let flags = [&*rules_flag, "--reloader.retry-interval=200ms"];
    let arguments = site.arguments_without_bucket(prometheus.address(), &flags);
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|argument| {
            if argument == plain {
                secret.clone()
            } else {
                argument
            }
        })
        .collect();
    assert!(arguments.contains(&secret));
    let outrigger = Outrigger::start(&arguments);
    // It is not allowed to reload.
    let told = wait_for(&outrigger, "the refusal", |seen| {
        seen["reloader"]["last_failure"].is_object()
    });
    assert_eq!(told["reloader"]["current"], false);
    let failure = &told["reloader"]["last_failure"];
    assert!(
        failure["error"].as_str().unwrap().contains("403"),
        "{failure}"
    );
    assert!(failure["remedy"].is_string(), "{failure}");
    assert_eq!(told["shipping"], Value::Null);
    let told = wait_for(&outrigger, "up", |seen| seen["prometheus"]["state"] == "up");
    let url = format!("http://{}/", prometheus.address());
    assert_eq!(told["prometheus"]["url"], url);
    let shown = page(&outrigger);
    assert!(
        shown.contains("has not loaded what the files say"),
        "{shown}"
    );
    assert!(shown.contains("configuration not loaded"), "{shown}");
    for text in [shown, told.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
