//! The document: what it may say, and how what it may not is told.

use super::*;
use crate::model::ErrorChain;
use crate::net::{ClientAuth, PemSource, TlsVersion};

const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
const CERT: &str = "tls_server_config:\n  cert_file: c.pem\n  key_file: /k.pem\n";

fn parse(yaml: &str) -> WebConfig {
    WebConfig::parse(yaml, Path::new("/etc/web")).unwrap()
}

fn tls(more: &str) -> HttpsTls {
    parse(&format!("{CERT}{more}")).tls.unwrap()
}

fn problem(yaml: &str) -> String {
    let error = WebConfig::parse(yaml, Path::new("/etc/web")).unwrap_err();
    ErrorChain(&error).to_string()
}

#[track_caller]
fn assert_refused(yaml: &str, said: &[&str]) {
    let text = problem(yaml);
    for part in said {
        assert!(text.contains(part), "{yaml:?} did not say {part:?}: {text}");
    }
}

#[test]
fn an_empty_document_asks_for_nothing_and_says_so() {
    for empty in [
        "",
        "\n",
        "# nothing\n",
        "{}\n",
        "tls_server_config:\nbasic_auth_users: {}\n",
    ] {
        let config = parse(empty);
        assert!(config.tls.is_none() && config.users.is_empty() && config.rate.is_none());
        assert!(config.http2 && config.headers.is_empty());
        assert!(config.warnings[0].contains("is open"), "{empty:?}");
    }
}

#[test]
fn every_key_is_taken() {
    let config = parse(&format!(
        "tls_server_config:\n  cert_file: c.pem\n  key_file: /k.pem\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ../ca.pem\n  \
         client_allowed_sans: [a.example.com, 10.0.0.1]\n  min_version: TLS12\n  \
         max_version: TLS12\n  cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\n  \
         - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n  prefer_server_cipher_suites: false\n  \
         curve_preferences: [CurveP256, X25519]\n\
         http_server_config:\n  http2: false\n  headers:\n    \
         Content-Security-Policy: \"default-src 'self'\"\n    X-Frame-Options: deny\n    \
         X-Content-Type-Options: nosniff\n    X-XSS-Protection: 1; mode=block\n    \
         Strict-Transport-Security: max-age=31536000\n\
         basic_auth_users:\n  alice: {HASH}\n  7: {HASH}\n\
         rate_limit:\n  interval: 100ms\n  burst: 20\n"
    ));
    assert_eq!(config.warnings, [""; 0]);
    let tls = config.tls.unwrap();
    assert_eq!(tls.cert, PemSource::File("/etc/web/c.pem".into()));
    assert_eq!(tls.key, PemSource::File("/k.pem".into()));
    assert_eq!(
        tls.client_ca,
        Some(PemSource::File("/etc/web/../ca.pem".into()))
    );
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerifyClientCert);
    let sans = tls.client_allowed_sans.unwrap();
    assert_eq!(sans, ["a.example.com", "10.0.0.1"]);
    assert_eq!(
        (tls.min_version, tls.max_version),
        (TlsVersion::Tls12, TlsVersion::Tls12)
    );
    assert_eq!((tls.ciphers.len(), tls.curves.len()), (2, 2));
    assert!(!tls.prefer_server_ciphers && !tls.http2 && !config.http2);
    assert_eq!(config.headers.len(), 5);
    assert_eq!(config.headers["x-frame-options"], "deny");
    assert_eq!(config.headers["x-xss-protection"], "1; mode=block");
    assert_eq!(format!("{:?}", config.users), "{\"7\", \"alice\"}");
    assert!(config.rate.is_some());
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let tls = tls("");
    assert_eq!(tls.client_auth, ClientAuth::NoClientCert);
    assert_eq!(
        (tls.min_version, tls.max_version),
        (TlsVersion::Tls12, TlsVersion::Tls13)
    );
    assert!(tls.prefer_server_ciphers && tls.http2);
    assert!(tls.ciphers.is_empty() && tls.curves.is_empty());
    assert_eq!((tls.client_ca, tls.client_allowed_sans), (None, None));
}

#[test]
fn certificates_may_stand_in_the_document_and_a_file_wins() {
    let inline = "tls_server_config:\n  cert: |\n    PEM C\n  key: |\n    PEM K\n";
    let config = parse(inline);
    let Some(PemSource::Inline { text, name }) = config.tls.map(|tls| tls.key) else {
        panic!("not inline");
    };
    assert_eq!(text, "PEM K\n");
    assert_eq!(name, "`tls_server_config.key` in line 4");
    let both = parse(&format!("{inline}  cert_file: c.pem\n"));
    assert!(
        both.warnings[0].contains("`tls_server_config.cert_file`"),
        "{:?}",
        both.warnings
    );
    assert!(both.tls.unwrap().cert.file().is_some());
}

#[test]
fn every_key_misspelt_is_named_with_its_line() {
    assert_refused(
        "tls_config: {}\n",
        &["`tls_config` in line 1", "tls_server_config"],
    );
    for (section, keys) in [
        (
            "tls_server_config",
            &[
                "cert_fil",
                "key_fle",
                "Cert",
                "keys",
                "client_auth",
                "client_ca_files",
                "client_cas",
                "client_allowed_san",
                "min_versions",
                "maxversion",
                "ciphers",
                "curves",
                "prefer_server_ciphers",
            ][..],
        ),
        ("http_server_config", &["http_2", "header"]),
        ("rate_limit", &["intervall", "bursts"]),
    ] {
        for key in keys {
            let named = format!("`{section}.{key}` in line 3");
            assert_refused(
                &format!("\n{section}:\n  {key}: x\n"),
                &[&named, "known there are"],
            );
        }
    }
    assert_refused(
        "http_server_config:\n  headers:\n    X-Powered-By: x\n",
        &[
            "`http_server_config.headers.X-Powered-By` in line 3",
            "can't be set",
            "X-Frame-Options",
        ],
    );
    assert_refused(
        "http_server_config:\n  headers: {x-frame-options: deny}\n",
        &["can't be set"],
    );
}

#[test]
fn every_key_of_a_wrong_kind_is_named_with_its_line() {
    for section in [
        "tls_server_config",
        "http_server_config",
        "basic_auth_users",
        "rate_limit",
    ] {
        let named = format!("`{section}` in line 2 must be a mapping");
        assert_refused(&format!("\n{section}: x\n"), &[&named]);
        assert_refused(&format!("\n{section}: [x]\n"), &[&named]);
    }
    for key in [
        "cert",
        "key",
        "client_ca",
        "cert_file",
        "key_file",
        "client_ca_file",
        "client_auth_type",
        "min_version",
        "max_version",
        "prefer_server_cipher_suites",
    ] {
        let named = format!("`tls_server_config.{key}` in line 2 must be a single value");
        assert_refused(&format!("tls_server_config:\n  {key}: [x]\n"), &[&named]);
        assert_refused(
            &format!("tls_server_config:\n  {key}: {{x: y}}\n"),
            &[&named],
        );
    }
    for key in ["client_allowed_sans", "cipher_suites", "curve_preferences"] {
        let named = format!("`tls_server_config.{key}` in line 2 must be a list of texts");
        assert_refused(&format!("tls_server_config:\n  {key}: x\n"), &[&named]);
        let inner = format!("`tls_server_config.{key}` in line 3 must be a single value");
        assert_refused(
            &format!("tls_server_config:\n  {key}:\n  - [x]\n"),
            &[&inner],
        );
    }
    assert_refused(
        "tls_server_config:\n  prefer_server_cipher_suites: maybe\n",
        &["`tls_server_config.prefer_server_cipher_suites` in line 2 must be true or false"],
    );
    assert_refused(
        "http_server_config: {http2: maybe}\n",
        &["`http_server_config.http2` in line 1 must be true or false"],
    );
    assert_refused(
        "http_server_config: {headers: x}\n",
        &["`http_server_config.headers` in line 1 must be a mapping"],
    );
    assert_refused("[1]\n", &["must be a mapping"]);
    assert_refused("a: b: c\n", &["not valid YAML", "line 1"]);
    assert_refused(
        "rate_limit: {}\nrate_limit: {}\n",
        &["not valid YAML", "line 2"],
    );
}

#[test]
fn what_can_not_be_done_is_refused_with_a_remedy() {
    for (more, said) in [
        (
            "client_auth_type: Always",
            &["client_auth_type` in line 4", "NoClientCert"][..],
        ),
        (
            "min_version: TLS10",
            &["min_version` in line 4", "want TLS12"],
        ),
        (
            "min_version: TLS11",
            &["min_version` in line 4", "want TLS12"],
        ),
        (
            "max_version: TLS11",
            &["max_version` in line 4", "want TLS12"],
        ),
        (
            "min_version: 1.2",
            &["min_version` in line 4", "\"1.2\"", "TLS12, TLS13"],
        ),
        (
            "{min_version: TLS13, max_version: TLS12}",
            &["min_version` in line 4", "newer"],
        ),
        (
            "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]",
            &[
                "cipher_suites` in line 4",
                "not available here, take it out",
            ],
        ),
        (
            "cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]",
            &[
                "cipher_suites` in line 4",
                "invalid cipher suite",
                "TLS_AES_128_GCM_SHA256",
            ],
        ),
        (
            "curve_preferences: [CurveP521]",
            &[
                "curve_preferences` in line 4",
                "not available here, take it out",
            ],
        ),
        (
            "curve_preferences: [P256]",
            &["curve_preferences` in line 4", "CurveP256"],
        ),
        (
            "client_ca_file: ca",
            &["tls_server_config` in line 1", "RequireAndVerifyClientCert"],
        ),
        (
            "client_allowed_sans: [a]",
            &["tls_server_config` in line 1", "RequireAnyClientCert"],
        ),
        (
            "{client_auth_type: VerifyClientCertIfGiven, client_allowed_sans: []}",
            &["client_auth_type` in line 4", "client_allowed_sans"],
        ),
    ] {
        let more = more.trim_matches(['{', '}']).replace(", max", "\n  max");
        let more = more.replace(", client", "\n  client");
        assert_refused(&format!("{CERT}  {more}\n"), said);
    }
}

#[test]
fn what_is_missing_or_out_of_range_is_refused() {
    for (yaml, said) in [
        (
            "tls_server_config: {cert_file: c}\n",
            &["line 1: key_file (or key) is missing"][..],
        ),
        (
            "tls_server_config: {key: k}\n",
            &["line 1: cert_file (or cert) is missing"],
        ),
        (
            "tls_server_config: {client_auth_type: NoClientCert}\n",
            &["cert_file", "missing"],
        ),
        (
            "tls_server_config: {client_allowed_sans: [a]}\n",
            &["cert_file", "missing"],
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: DENY}}\n",
            &["deny, sameorigin"],
        ),
        (
            "http_server_config: {headers: {X-Content-Type-Options: sniff}}\n",
            &["nosniff"],
        ),
        (
            "http_server_config: {headers: {X-XSS-Protection: \"\\x01\"}}\n",
            &["no control characters"],
        ),
        (
            "rate_limit: {interval: 1s}\n",
            &["rate_limit.burst` in line 1", "1 or more"],
        ),
        (
            "rate_limit: {interval: 1s, burst: 0}\n",
            &["rate_limit.burst` in line 1"],
        ),
        (
            "rate_limit: {interval: 1s, burst: -3}\n",
            &["rate_limit.burst` in line 1"],
        ),
        (
            "rate_limit: {interval: soon, burst: 1}\n",
            &["rate_limit.interval` in line 1", "1s"],
        ),
        (
            "rate_limit: {interval: -1s, burst: 1}\n",
            &["rate_limit.interval` in line 1"],
        ),
    ] {
        assert_refused(yaml, said);
    }
}

#[test]
fn hashes_are_checked_and_never_shown() {
    for bad in [
        "hunter2",
        "",
        "$2y$10$short",
        "$1$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG",
        "$2y$03$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG",
        "$2y$32$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG",
    ] {
        let text = problem(&format!("basic_auth_users:\n  bob: \"{bad}\"\n"));
        assert!(
            text.contains("`basic_auth_users.bob` in line 2: not a bcrypt hash"),
            "{text}"
        );
        assert!(bad.is_empty() || !text.contains(bad), "{text}");
    }
    for kind in ["2a", "2b", "2y"] {
        let hash = HASH.replace("2y", kind);
        assert!(
            parse(&format!("basic_auth_users: {{bob: {hash}}}\n"))
                .warnings
                .is_empty()
        );
    }
    let costly = HASH.replace("$10$", "$15$");
    let warnings = parse(&format!("basic_auth_users: {{bob: {costly}}}\n")).warnings;
    assert!(
        warnings[0].contains("`basic_auth_users.bob` in line 1"),
        "{warnings:?}"
    );
}

#[test]
fn headers_that_are_blank_are_not_set_and_lines_become_one() {
    let config = parse(
        "http_server_config:\n  headers:\n    X-Frame-Options: \"\"\n    X-XSS-Protection:\n    \
         Content-Security-Policy: |\n      default-src 'self';\n      img-src *\n",
    );
    assert_eq!(config.headers.len(), 1);
    let policy = &config.headers["content-security-policy"];
    assert_eq!(policy, "default-src 'self'; img-src *");
}

#[test]
fn a_limit_of_no_interval_is_none() {
    for off in [
        "{}",
        "{interval: 0}",
        "{interval: 0s, burst: 0}",
        "{burst: 5}",
        "~",
    ] {
        assert!(
            parse(&format!("rate_limit: {off}\n")).rate.is_none(),
            "{off}"
        );
    }
    // Nanoseconds.
    assert!(
        parse("rate_limit: {interval: 1000, burst: 1}\n")
            .rate
            .is_some()
    );
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let config = parse("tls_server_config: {min_version: TLS13}\n");
    assert!(config.tls.is_none());
    assert!(
        config.warnings[0].contains("plain text"),
        "{:?}",
        config.warnings
    );
    for (more, said) in [
        (
            "  client_auth_type: RequireAnyClientCert\n  client_ca_file: ca\n",
            "has no effect",
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n",
            "root of this system",
        ),
    ] {
        let config = parse(&format!("{CERT}{more}"));
        assert!(config.warnings[0].contains(said), "{:?}", config.warnings);
    }
    // An old name that the reference still takes.
    let old = tls("  client_auth_type: RequireClientCert\n");
    assert_eq!(old.client_auth, ClientAuth::RequireAnyClientCert);
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_configuration_or_an_error(
        yaml in "((tls_server_config|rate_limit|basic_auth_users|http_server_config):|\
            [ \n\\[\\]{}:,a-z-]){0,40}"
    ) {
        drop(WebConfig::parse(&yaml, Path::new("/")));
    }
}
