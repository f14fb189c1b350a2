//! `outrigger store` as a process: tables, json lines, TLS, and what it says when there is nothing.

use std::fs;

use serde_json::Value;

use super::{Stand, exposition};
use crate::cli::{outrigger, stderr, stdout};
use crate::support::Site;

const TIMES: [&str; 2] = ["--start=2023-11-14T22:00:00Z", "--end=2023-11-15T00:00:00Z"];

/// Standard output of a run that ends well.
fn told(words: &[&str]) -> String {
    let output = outrigger(&[&["store"], words].concat(), &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{words:?}: {}",
        stderr(&output)
    );
    stdout(&output)
}

/// Standard error of a run that ends with 1.
fn refused(words: &[&str]) -> String {
    let output = outrigger(&[&["store"], words].concat(), &[]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{words:?}: {}",
        stdout(&output)
    );
    stderr(&output)
}

fn json(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_store_command_tells_what_a_sidecar_has() {
    let stand = Stand::new(&exposition(), &[]);
    let address = stand.outrigger.grpc_address().to_string();
    let ask = |command: &str, words: &[&str]| {
        let times = if command == "info" { &[][..] } else { &TIMES };
        told(&[&[command, &address], words, times].concat())
    };

    let info = ask("info", &[]);
    assert!(info.contains("component   sidecar\n"), "{info}");
    assert!(info.contains("cluster=\"eu-1\", replica=\"0\""), "{info}");
    assert!(info.contains("APIs        store, rules, targets"), "{info}");
    let info = &json(&ask("info", &["--output=json"]))[0];
    assert_eq!(info["component"], "sidecar");
    assert_eq!(info["label_sets"][0]["cluster"], "eu-1");
    assert_eq!(info["store"]["supports_sharding"], true);

    let labels = ask("labels", &[]);
    assert_eq!(labels, "__name__\na\ncluster\njob\nreplica\nzz\n");
    let labels = json(&ask(
        "labels",
        &["--output=json", "m0{zz=\"\",job=\"\",a=\"1\"}"],
    ));
    let names: Vec<_> = labels
        .iter()
        .map(|line| line["value"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["__name__", "a", "cluster", "replica"]);

    assert_eq!(ask("values", &["a"]), "1\n2\n3\n4\n");
    assert_eq!(ask("values", &["a", "m0{a=~\"[23]\"}"]), "2\n3\n");
    assert_eq!(ask("values", &["a", "--limit=2"]), "1\n2\n");
    assert_eq!(ask("values", &["cluster", "m0"]), "eu-1\n");
    assert_eq!(ask("values", &["nope"]), "");

    let series = ask("series", &["m1{a=\"1\"}"]);
    assert!(series.starts_with(" CHUNKS   SAMPLES"), "{series}");
    assert_eq!(series.lines().count(), 24 + 2, "{series}");
    let last = series.lines().last().unwrap();
    assert!(
        last.starts_with("24 series, ") && last.contains(" samples, "),
        "{last}"
    );
    assert!(series.contains("cluster=\"eu-1\""), "{series}");
    let labels_only = ask("series", &["m1{a=\"1\"}", "--skip-chunks"]);
    assert!(labels_only.ends_with("\n24 series\n"), "{labels_only}");
    let lines = json(&ask("series", &["m1{a=\"1\"}", "--output=json"]));
    assert_eq!(lines.len(), 24);
    for line in &lines {
        assert_eq!(line["labels"]["cluster"], "eu-1");
        assert_eq!(line["chunks"][0]["raw"]["encoding"], "XOR");
        assert!(line["chunks"][0]["min_time_ms"].as_i64() >= Some(super::START_MS));
    }
    let without = ask(
        "series",
        &["m1{a=\"1\"}", "--without-replica-label=replica"],
    );
    assert!(!without.contains("replica="), "{without}");

    // No more than asked for, however the server packs them.
    for batch in ["--batch-size=0", "--batch-size=64"] {
        let series = ask("series", &["m1", "--limit=5", "--output=json", batch]);
        assert_eq!(series.lines().count(), 5, "{batch}: {series}");
        let series = ask("series", &["m1", "--limit=5", batch]);
        assert!(series.contains("\n5 series, "), "{batch}: {series}");
    }
    // Outside of the data there is nothing, which is no failure.
    assert_eq!(told(&["series", &address, "m1", "--output=json"]), "");
}

#[test]
fn the_store_command_says_what_is_wrong() {
    let stand = Stand::new(&exposition(), &[]);
    let address = stand.outrigger.grpc_address().to_string();
    let text = refused(&["series", &address, "up{"]);
    assert!(
        text.contains("up{") && text.contains("level=error"),
        "{text}"
    );
    let text = refused(&["series", &address, "up{job=~\"(\"}"]);
    assert!(text.contains("up{") || text.contains("job"), "{text}");
    let text = refused(&["series", &address, "{cluster=\"eu-1\"}"]);
    assert!(text.contains("no matchers specified"), "{text}");
    // Nobody listens on port 1.
    let text = refused(&["info", "127.0.0.1:1"]);
    assert!(text.contains("127.0.0.1:1"), "{text}");
    let text = refused(&["info", "no-port"]);
    assert!(text.contains("no-port"), "{text}");
    // The HTTP port speaks no gRPC.
    refused(&[
        "info",
        &stand.outrigger.address().to_string(),
        "--timeout=5s",
    ]);
    let text = refused(&["info", &address, "--tls", "--timeout=5s"]);
    assert!(text.contains("level=error"), "{text}");
    let text = refused(&["info", &address, "--tls-ca=/nonexistent"]);
    assert!(text.contains("/nonexistent"), "{text}");
}

#[test]
fn the_store_command_speaks_tls() {
    let site = Site::new();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (
        site.scratch().join("cert.pem"),
        site.scratch().join("key.pem"),
    );
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let prometheus = site.prometheus_elsewhere();
    let flag = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let flags = [
        flag("grpc-server-tls-cert", &cert),
        flag("grpc-server-tls-key", &key),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = site.start(prometheus.address(), &flags);
    let address = sidecar.grpc_address().to_string();
    let ca = flag("tls-ca", &cert);
    let info = told(&["info", &address, &ca]);
    assert!(info.contains("component   sidecar"), "{info}");
    told(&["info", &address, &ca, "--tls-server-name=localhost"]);
    told(&["info", &address, "--tls-skip-verify"]);
    let text = refused(&["info", &address, &ca, "--tls-server-name=other"]);
    assert!(text.contains("other"), "{text}");
    let text = refused(&["info", &address, "--tls"]);
    assert!(text.contains("certificate"), "{text}");
    // Without TLS nothing is understood.
    refused(&["info", &address, "--timeout=5s"]);
}

#[test]
fn help_of_the_store_command() {
    for words in [&["--help"][..], &["series", "--help"], &["info", "-h"]] {
        assert!(told(words).contains("Usage: outrigger store"), "{words:?}");
    }
}
