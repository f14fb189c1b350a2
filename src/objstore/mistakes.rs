//! Every key of every store's document: misspelt, of the wrong type, empty, and left out.

use std::path::Path;

use super::BucketConfig;
use crate::model::ErrorChain;

/// A store's keys with values that are right, and what the document needs.
struct Keys {
    kind: &'static str,
    /// Whether an unknown key is an error, as in the reference, or only told.
    strict: bool,
    keys: &'static [(&'static str, &'static str)],
    /// What must be there, and what the error says where it is not.
    needed: &'static [(&'static str, &'static str)],
}

const HTTP: (&str, &str) = (
    "http_config",
    "{idle_conn_timeout: 1m, response_header_timeout: 1m, tls_handshake_timeout: 1m, \
     expect_continue_timeout: 1s, max_idle_conns: 1, max_idle_conns_per_host: 1, \
     max_conns_per_host: 1, insecure_skip_verify: false, disable_compression: false, tls_config: \
     {ca_file: '', cert_file: '', key_file: '', server_name: '', insecure_skip_verify: false}}",
);

const STORES: [Keys; 7] = [
    Keys {
        kind: "GCS",
        strict: true,
        keys: &[
            ("bucket", "b"),
            ("service_account", "''"),
            ("use_grpc", "false"),
            ("grpc_conn_pool_size", "0"),
            ("chunk_size_bytes", "8388608"),
            ("max_retries", "3"),
            HTTP,
        ],
        needed: &[("bucket", "set `bucket`")],
    },
    Keys {
        kind: "AZURE",
        strict: true,
        keys: &[
            ("storage_account", "account"),
            ("container", "c"),
            ("az_tenant_id", "t"),
            ("client_id", "i"),
            ("client_secret", "s"),
            ("storage_account_key", "''"),
            ("storage_connection_string", "''"),
            ("storage_create_container", "true"),
            ("endpoint", "blob.core.windows.net"),
            ("user_assigned_id", "''"),
            ("max_retries", "3"),
            ("reader_config", "{max_retry_requests: 1}"),
            (
                "pipeline_config",
                "{max_tries: 1, try_timeout: 0s, retry_delay: 0s, max_retry_delay: 0s}",
            ),
            ("msi_resource", "''"),
            HTTP,
        ],
        needed: &[
            ("storage_account", "set `storage_account`"),
            ("container", "set `container`"),
            ("az_tenant_id", "az_tenant_id is empty"),
            ("client_id", "client_id is empty"),
            ("client_secret", "client_secret is empty"),
        ],
    },
    Keys {
        kind: "SWIFT",
        strict: true,
        keys: &[
            ("auth_version", "3"),
            ("auth_url", "https://k/v3"),
            ("username", "u"),
            ("user_domain_name", "d"),
            ("user_domain_id", "d"),
            ("user_id", "''"),
            ("password", "p"),
            ("domain_id", "d"),
            ("domain_name", "d"),
            ("application_credential_id", "''"),
            ("application_credential_name", "''"),
            ("application_credential_secret", "''"),
            ("project_id", "p"),
            ("project_name", "p"),
            ("project_domain_id", "p"),
            ("project_domain_name", "p"),
            ("region_name", "r"),
            ("container_name", "c"),
            ("large_object_chunk_size", "1073741824"),
            ("large_object_segments_container_name", "s"),
            ("retries", "3"),
            ("connect_timeout", "10s"),
            ("timeout", "5m"),
            ("use_dynamic_large_objects", "false"),
            HTTP,
        ],
        needed: &[
            ("auth_url", "`auth_url` is missing"),
            ("username", "`username` is missing"),
            ("password", "`password` is missing"),
            ("container_name", "`container_name` is missing"),
        ],
    },
    Keys {
        kind: "COS",
        strict: false,
        keys: &[
            ("bucket", "b"),
            ("region", "r"),
            ("app_id", "a"),
            ("endpoint", "''"),
            ("secret_key", "s"),
            ("secret_id", "i"),
            ("max_retries", "3"),
            HTTP,
        ],
        needed: &[
            ("bucket", "set `bucket`"),
            ("region", "set `region`"),
            ("app_id", "set `app_id`"),
            ("secret_id", "set `secret_id`"),
            ("secret_key", "set `secret_key`"),
        ],
    },
    Keys {
        kind: "ALIYUNOSS",
        strict: false,
        keys: &[
            ("endpoint", "oss-cn-hangzhou.aliyuncs.com"),
            ("bucket", "b"),
            ("access_key_id", "i"),
            ("access_key_secret", "s"),
        ],
        needed: &[
            ("endpoint", "set `endpoint`"),
            ("bucket", "set `bucket`"),
            ("access_key_id", "set `access_key_id`"),
            ("access_key_secret", "set `access_key_secret`"),
        ],
    },
    Keys {
        kind: "BOS",
        strict: false,
        keys: &[
            ("bucket", "b"),
            ("endpoint", "bj.bcebos.com"),
            ("access_key", "i"),
            ("secret_key", "s"),
        ],
        needed: &[
            ("bucket", "set `bucket`"),
            ("endpoint", "set `endpoint`"),
            ("access_key", "set `access_key`"),
            ("secret_key", "set `secret_key`"),
        ],
    },
    Keys {
        kind: "OBS",
        strict: true,
        keys: &[
            ("bucket", "b"),
            ("endpoint", "obs.cn-north-4.myhuaweicloud.com"),
            ("access_key", "i"),
            ("secret_key", "s"),
            ("max_retries", "3"),
            HTTP,
        ],
        needed: &[
            ("bucket", "set `bucket`"),
            ("endpoint", "set `endpoint`"),
            ("access_key", "set `access_key`"),
            ("secret_key", "set `secret_key`"),
        ],
    },
];

/// The document, each key on a line of its own from the third; `change` may drop or change a key.
fn document(
    store: &Keys,
    change: impl Fn(&'static str, &'static str) -> Option<(String, String)>,
) -> String {
    let mut text = format!("type: {}\nconfig:\n", store.kind);
    for (key, value) in store.keys {
        match change(key, value) {
            Some((key, value)) => text.push_str(&format!("  {key}: {value}\n")),
            None => text.push_str("  # left out\n"),
        }
    }
    text
}

fn parsed(yaml: &str) -> Result<BucketConfig, String> {
    let config = BucketConfig::parse(yaml, Path::new("/"));
    config.map_err(|error| ErrorChain(&error).to_string())
}

fn unchanged(key: &str, value: &str) -> Option<(String, String)> {
    Some((key.to_owned(), value.to_owned()))
}

fn instead(
    which: &'static str,
    other: impl Fn(&str, &str) -> Option<(String, String)>,
) -> impl Fn(&'static str, &'static str) -> Option<(String, String)> {
    move |key, value| match key == which {
        true => other(key, value),
        false => unchanged(key, value),
    }
}

#[test]
fn every_key_is_taken() {
    for store in &STORES {
        let config = parsed(&document(store, unchanged)).unwrap();
        assert_eq!(config.provider.kind(), store.kind);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let with_prefix = format!("{}prefix: /p/\n", document(store, unchanged));
        assert_eq!(parsed(&with_prefix).unwrap().prefix, "/p/");
    }
}

#[test]
fn a_misspelt_key_is_named_with_its_line_or_told() {
    for store in &STORES {
        for (number, (key, _)) in (3..).zip(store.keys) {
            let misspelt = format!("{key}_x");
            // Beside the right one: what is missing would be told first otherwise.
            let yaml = document(store, unchanged).replacen(
                &format!("  {key}: "),
                &format!("  {misspelt}: 1\n  {key}: "),
                1,
            );
            let outcome = parsed(&yaml);
            if store.strict {
                let error = outcome.unwrap_err();
                let begin = format!("create {} client: ", store.kind);
                assert!(error.starts_with(&begin), "{error}");
                let line = format!("line {number}");
                assert!(
                    error.contains(&misspelt) && error.contains(&line),
                    "{error}"
                );
            } else {
                let warnings = outcome.unwrap().warnings;
                assert!(
                    warnings.iter().any(|w| w.contains(&misspelt)),
                    "{warnings:?}"
                );
            }
        }
        let error = parsed(&format!("{}prefx: p\n", document(store, unchanged))).unwrap_err();
        assert!(error.contains("prefx") && error.contains("line"), "{error}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line() {
    for store in &STORES {
        for (number, (key, _)) in (3..).zip(store.keys) {
            let yaml = document(
                store,
                instead(key, |key, _| {
                    Some((key.to_owned(), "[hidden, [2]]".to_owned()))
                }),
            );
            let error = parsed(&yaml).unwrap_err();
            let begin = format!("create {} client: parsing the {}", store.kind, store.kind);
            assert!(error.starts_with(&begin), "{error}");
            assert!(error.contains(&format!("line {number}")), "{key}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
        let error = parsed(&format!("type: {}\nconfig: [1]\n", store.kind)).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}

#[test]
fn what_must_be_there_is_missed_by_its_key() {
    for store in &STORES {
        for (key, expected) in store.needed {
            for yaml in [
                document(store, instead(key, |_, _| None)),
                document(
                    store,
                    instead(key, |key, _| Some((key.to_owned(), "''".to_owned()))),
                ),
                document(
                    store,
                    instead(key, |key, _| Some((key.to_owned(), "~".to_owned()))),
                ),
            ] {
                let error = parsed(&yaml).unwrap_err();
                let begin = format!("create {} client: ", store.kind);
                assert!(
                    error.starts_with(&begin) && error.contains(expected),
                    "{error}"
                );
            }
        }
        for empty in ["", "config:\n", "config: {}\n"] {
            let error = parsed(&format!("type: {}\n{empty}", store.kind)).unwrap_err();
            assert!(
                error.starts_with(&format!("create {} client: ", store.kind)),
                "{error}"
            );
        }
    }
}

#[test]
fn what_else_may_be_empty_or_null() {
    for store in &STORES {
        let needed = |key| store.needed.iter().any(|(needed, _)| *needed == key);
        for (key, _) in store.keys.iter().filter(|(key, _)| !needed(*key)) {
            let yaml = document(
                store,
                instead(key, |key, _| Some((key.to_owned(), "~".to_owned()))),
            );
            parsed(&yaml).unwrap();
        }
    }
}

#[test]
fn what_azure_cannot_have_together_is_named() {
    let with = |more: &str| {
        let yaml = format!("type: AZURE\nconfig:\n  storage_account: a\n  container: c\n{more}");
        parsed(&yaml)
    };
    for (more, expected) in [
        (
            "  user_assigned_id: u\n  storage_account_key: aGk=\n",
            "user_assigned_id cannot be set when using storage_account_key",
        ),
        (
            "  user_assigned_id: u\n  storage_connection_string: x\n",
            "user_assigned_id cannot be set when using storage_connection_string",
        ),
        (
            "  storage_account_key: aGk=\n  storage_connection_string: x\n",
            "storage_account_key cannot be set when using storage_connection_string",
        ),
        (
            "  storage_account_key: '!hidden'\n",
            "`storage_account_key` is not base64",
        ),
        (
            "  storage_connection_string: hidden\n",
            "`storage_connection_string`: part 1",
        ),
        ("  endpoint: https://x/\n", "`endpoint` \"https://x/\""),
        (
            "  pipeline_config: {max_tries: -1}\n",
            "pipeline_config.max_tries",
        ),
        (
            "  reader_config: {max_retry_requests: -1}\n",
            "reader_config.max_retry_requests",
        ),
    ] {
        let error = with(more).unwrap_err();
        assert!(
            error.contains(expected) && !error.contains("hidden"),
            "{error}"
        );
    }
    let config = with("  msi_resource: x\n  pipeline_config: {try_timeout: 1m}\n").unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn what_has_no_effect_is_told() {
    let yaml = "type: GCS\nconfig: {bucket: b, use_grpc: true, chunk_size_bytes: 1}\n";
    let warnings = parsed(yaml).unwrap().warnings;
    assert!(
        warnings.iter().any(|w| w.contains("`use_grpc`")),
        "{warnings:?}"
    );
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("`chunk_size_bytes` 1 is raised")),
        "{warnings:?}"
    );
    for bytes in ["-1", "5368709121"] {
        let error = parsed(&format!(
            "type: GCS\nconfig: {{bucket: b, chunk_size_bytes: {bytes}}}\n"
        ));
        assert!(error.unwrap_err().contains("`chunk_size_bytes`"));
    }
}
