//! Files that can't be used end the start, and say which, where and why.

use std::fs;

use super::*;

#[track_caller]
fn assert_refused(site: &Site, said: &[&str]) {
    let (code, log) = run_to_end(&arguments(site, &[]));
    assert_eq!(code, 1, "{log}");
    let line = log.lines().last().unwrap_or_default();
    assert!(line.contains("server could not be started"), "{log}");
    for part in said {
        assert!(line.contains(part), "did not say {part:?}: {log}");
    }
    assert!(!log.contains("listening"), "{log}");
}

#[test]
fn a_file_that_is_none_ends_the_start() {
    let site = Site::new();
    assert_refused(&site, &["web.yml", "No such file"]);
    fs::create_dir(file(&site)).unwrap();
    assert_refused(&site, &["web.yml", "it is a directory"]);
}

#[test]
fn a_document_that_is_wrong_ends_the_start_with_file_key_and_line() {
    let site = Site::new();
    for (document, said) in [
        (
            "\ntls_config: {}\n",
            &["tls_config", "line 2", "tls_server_config"][..],
        ),
        (
            "tls_server_config:\n  cert: [1]\n",
            &["tls_server_config.cert", "line 2"],
        ),
        (
            "tls_server_config:\n  min_version: TLS10\n",
            &["min_version", "TLS12"],
        ),
        (
            "http_server_config:\n  htt2: true\n",
            &["http_server_config.htt2", "line 2"],
        ),
        (
            "basic_auth_users:\n  alice: hunter2\n",
            &["basic_auth_users.alice", "line 2"],
        ),
        (
            "rate_limit: {interval: 1s}\n",
            &["rate_limit.burst", "line 1"],
        ),
        ("a: b: c\n", &["not valid YAML", "line 1"]),
        (
            "tls_server_config: {cert_file: no.pem, key_file: no.key}\n",
            &["no.pem", "No such"],
        ),
    ] {
        // What lacks a certificate is complete otherwise.
        let document = document.replace(
            "  min_version",
            "  cert_file: c\n  key_file: k\n  min_version",
        );
        replace(&file(&site), &document);
        let said: Vec<&str> = [&["web.yml"], said].concat();
        assert_refused(&site, &said);
    }
    let (_, log) = run_to_end(&arguments(&site, &[]));
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn certificate_and_key_that_do_not_fit_end_the_start() {
    let (site, ca) = (Site::new(), Ca::new());
    let (cert, _) = ca.sign("localhost").write(site.scratch(), "server");
    ca.sign("localhost").write(site.scratch(), "other");
    let document = "tls_server_config: {cert_file: server.pem, key_file: other.key}\n";
    replace(&file(&site), document);
    assert_refused(&site, &["server.pem", "other.key", "can't be used"]);
    replace(&cert, "");
    assert_refused(&site, &["server.pem holds no usable certificate"]);
}

/// As in the reference; it is told, because somebody meant something by the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_empty_file_asks_for_nothing_and_is_told() {
    let web = Web::start("");
    let answer = get_plain(web.address(), "/-/healthy", None).await.unwrap();
    assert_eq!(answer.status, 200);
    web.outrigger.process.wait_for_line("a warning", |line| {
        line.contains("level=warn") && line.contains("the HTTP server is open")
    });
}
