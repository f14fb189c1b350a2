//! Each key, each error, and no secret in any of them.

use super::*;
use crate::model::ErrorChain;

const KEYS: &str = "bucket: b\nendpoint: s3.example\n";

fn parse(yaml: &str) -> Result<(S3Settings, Vec<String>), S3ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let keys: Option<S3Keys> = serde_saphyr::from_str_with_options(yaml, options)
        .map_err(|error| S3ConfigError::Yaml(Box::new(error)))?;
    keys.unwrap_or_default()
        .settings(Path::new("/srv/outrigger"))
}

/// The settings of the two keys that are needed and these.
fn with(more: &str) -> S3Settings {
    let (settings, warnings) = parse(&format!("{KEYS}{more}")).unwrap();
    assert_eq!(warnings, Vec::<String>::new(), "{more}");
    settings
}

/// The error of the two keys that are needed and these.
fn refused(more: &str) -> String {
    let error = parse(&format!("{KEYS}{more}")).unwrap_err();
    ErrorChain(&error).to_string()
}

#[test]
fn what_is_absent_has_the_defaults() {
    let settings = with("");
    let expected = S3Config {
        bucket: "b".to_owned(),
        endpoint: "s3.example".to_owned(),
        region: None,
        dualstack: true,
        insecure: false,
        addressing: Addressing::Auto,
        list_version: ListVersion::V2,
        put_headers: Vec::new(),
        storage_class: None,
        send_content_md5: None,
        disable_multipart: false,
        part_bytes: NonZeroU64::new(8 << 20).unwrap(),
        encryption: Encryption::None,
        attempts_max: NonZeroU32::new(10).unwrap(),
        trace: false,
        payload_signing: PayloadSigning::Auto,
    };
    assert_eq!(settings.client, expected);
    assert_eq!(settings.http, HttpConfig::default());
    let chain = CredentialsConfig::Chain {
        sts_endpoint: None,
        required: false,
        signature_version2: false,
    };
    assert_eq!(settings.credentials, chain);
    let nulls = "region:\ndisable_dualstack: ~\naws_sdk_auth:\naccess_key: \"\"\ninsecure:\n\
                 signature_version2: false\nsecret_key:\nsession_token: \"\"\n\
                 put_user_metadata: {}\nhttp_config:\ntrace: {}\nlist_objects_version: \"\"\n\
                 bucket_lookup_type: auto\ndisable_multipart: false\npart_size: 0\n\
                 sse_config:\n  type: \"\"\n  kms_key_id: \"\"\n  kms_encryption_context: {}\n  \
                 encryption_key: \"\"\nsts_endpoint: \"\"\nmax_retries: 0\nsend_content_md5:\n";
    assert_eq!(with(nulls), settings);
}

#[test]
fn each_key_arrives() {
    let client = |more: &str| with(more).client;
    assert_eq!(
        client("region: eu-west-1\n").region.as_deref(),
        Some("eu-west-1")
    );
    assert!(!client("disable_dualstack: true\n").dualstack);
    assert!(client("insecure: true\n").insecure);
    assert_eq!(
        client("bucket_lookup_type: virtual-hosted\n").addressing,
        Addressing::VirtualHosted
    );
    assert_eq!(
        client("bucket_lookup_type: path\n").addressing,
        Addressing::Path
    );
    assert_eq!(
        client("list_objects_version: v1\n").list_version,
        ListVersion::V1
    );
    assert_eq!(
        client("list_objects_version: v2\n").list_version,
        ListVersion::V2
    );
    assert_eq!(
        client("send_content_md5: true\n").send_content_md5,
        Some(true)
    );
    assert_eq!(
        client("send_content_md5: false\n").send_content_md5,
        Some(false)
    );
    assert!(client("disable_multipart: true\n").disable_multipart);
    assert!(client("trace: {enable: true}\n").trace);
    let put = client("put_user_metadata: {X-Amz-Storage-Class: GLACIER_IR, team: 7}\n");
    assert_eq!(put.storage_class.unwrap(), "GLACIER_IR");
    assert_eq!(put.put_headers.len(), 1);
    assert_eq!(put.put_headers[0].0, "x-amz-meta-team");
    assert_eq!(put.put_headers[0].1, "7");
}

#[test]
fn values_are_read_as_go_reads_them() {
    let settings = with("access_key: 0123\nsecret_key: 1_000\nsession_token: true\n");
    let expected = CredentialsConfig::Static {
        access_key: "0123".to_owned(),
        secret_key: "1_000".to_owned(),
        session_token: Some("true".to_owned()),
    };
    assert_eq!(settings.credentials, expected);
    assert!(with("insecure: yes\n").client.insecure);
    assert!(with("insecure: On\n").client.insecure);
    assert!(!with("insecure: off\n").client.insecure);
}

#[test]
fn part_size_has_the_limits_of_s3() {
    for good in [5 << 20, 64 << 20, 5 << 30] {
        let part = with(&format!("part_size: {good}\n")).client.part_bytes;
        assert_eq!(part.get(), good);
    }
    for bad in [1, (5 << 20) - 1, (5u64 << 30) + 1] {
        let text = refused(&format!("part_size: {bad}\n"));
        assert!(
            text.contains(&bad.to_string())
                && text.contains("5 MiB")
                && text.contains("5 GiB")
                && text.contains("`part_size`"),
            "{text}"
        );
    }
    for bad in ["-1", "8MiB", "1.5"] {
        let text = refused(&format!("part_size: {bad}\n"));
        assert!(text.contains("line 3"), "{text}");
    }
}

#[test]
fn retries_are_counted_as_in_the_reference() {
    for (given, attempts) in [
        ("0", 10),
        ("1", 1),
        ("3", 3),
        ("-4", 10),
        ("9999999999", u32::MAX),
    ] {
        let max = with(&format!("max_retries: {given}\n")).client.attempts_max;
        assert_eq!(max.get(), attempts, "{given}");
    }
}

#[test]
fn an_endpoint_is_a_host_and_maybe_a_port() {
    for good in [
        "s3.example",
        "localhost:9000",
        "minio_1:9000",
        "10.0.0.1",
        "[::1]:9000",
        "[fd00::1]",
    ] {
        let (settings, _) = parse(&format!("bucket: b\nendpoint: \"{good}\"\n")).unwrap();
        assert_eq!(settings.client.endpoint, good);
    }
    for (bad, remedy) in [
        ("https://s3.example", "remove the scheme"),
        ("http://s3.example/b", "remove the scheme"),
        ("s3.example/", "remove the path"),
        ("s3.example/bucket", "remove the path"),
        ("s3.example?x", "remove the path"),
        ("key:hidden@s3.example", "remove the user"),
        ("s3.example:", "with a port"),
        ("s3.example:0", "with a port"),
        ("s3.example:99999", "with a port"),
        ("s3 example", "host"),
        (":9000", "host"),
        ("fd00::1", "host"),
    ] {
        let error = parse(&format!("bucket: b\nendpoint: \"{bad}\"\n")).unwrap_err();
        assert!(
            matches!(error, S3ConfigError::Endpoint { .. }),
            "{bad}: {error:?}"
        );
        assert!(error.to_string().contains(remedy), "{bad}: {error}");
    }
    for yaml in ["bucket: b\n", "bucket: b\nendpoint: \"\"\n", "{}", ""] {
        let text = parse(yaml).unwrap_err().to_string();
        assert_eq!(text, "no s3 endpoint in config file");
    }
    let error = parse("endpoint: e\n").unwrap_err();
    assert!(matches!(error, S3ConfigError::MissingBucket), "{error:?}");
}

#[test]
fn keys_go_together_and_not_with_aws_sdk_auth() {
    let keys = "access_key: AK\nsecret_key: hidden\nsession_token: hidden too\n";
    let settings = with(keys);
    let shown = format!("{settings:?}");
    assert!(shown.contains("AK") && !shown.contains("hidden"), "{shown}");
    for (more, said) in [
        (
            "access_key: AK\n",
            "no secret_key in config file although access_key is there",
        ),
        (
            "secret_key: hidden\n",
            "no access_key in config file although secret_key is there",
        ),
        (
            "aws_sdk_auth: true\naccess_key: AK\nsecret_key: hidden\n",
            "aws_sdk_auth and access_key are mutually exclusive configurations",
        ),
    ] {
        let text = refused(more);
        assert!(text.contains(said) && !text.contains("hidden"), "{text}");
    }
    let chain = with("aws_sdk_auth: true\nsts_endpoint: https://sts.example/x\n").credentials;
    let expected = CredentialsConfig::Chain {
        sts_endpoint: Some("https://sts.example/x".parse().unwrap()),
        required: true,
        signature_version2: false,
    };
    assert_eq!(chain, expected);
    for bad in ["sts.example", "ftp://sts.example", "/x", "https://"] {
        let text = refused(&format!("sts_endpoint: {bad}\n"));
        assert!(text.contains("`sts_endpoint`"), "{text}");
    }
}

#[test]
fn signature_version_2_is_for_the_anonymous() {
    for more in ["access_key: a\nsecret_key: b\n", "aws_sdk_auth: true\n"] {
        let text = refused(&format!("signature_version2: true\n{more}"));
        assert!(text.contains("remove `signature_version2`"), "{text}");
    }
    let chain = with("signature_version2: true\n").credentials;
    assert!(matches!(
        chain,
        CredentialsConfig::Chain {
            signature_version2: true,
            ..
        }
    ));
}

#[test]
fn what_has_no_effect_is_told() {
    let (_, warnings) = parse(&format!("{KEYS}session_token: hidden\n")).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("`session_token`") && !warnings[0].contains("hidden"));
    let nested = "http_config: {tls_config: {insecure_skip_verify: true}}\n";
    let (_, warnings) = parse(&format!("{KEYS}{nested}")).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("`http_config.insecure_skip_verify`"));
}

#[test]
fn unknown_keys_are_errors_with_their_line() {
    for (more, key, line) in [
        ("acces_key: a\n", "acces_key", 3),
        ("http_config:\n  idle: 1m\n", "idle", 4),
        ("http_config:\n  tls_config:\n    ca: /x\n", "ca", 5),
        ("trace:\n  enabled: true\n", "enabled", 4),
        ("sse_config:\n  kind: SSE-S3\n", "kind", 4),
        ("S3: x\n", "S3", 3),
        ("Region: x\n", "Region", 3),
    ] {
        let text = refused(more);
        assert!(
            text.contains(&format!("`{key}`")) && text.contains(&format!("line {line}")),
            "{text}"
        );
    }
}

#[test]
fn wrong_types_are_errors_with_their_line_and_without_secrets() {
    for (more, line) in [
        ("secret_key: [hidden]\naccess_key: a\n", 3),
        ("secret_key: {hidden: hidden}\n", 3),
        ("insecure: maybe\n", 3),
        ("put_user_metadata: [hidden]\n", 3),
        ("http_config:\n  idle_conn_timeout: 5 minutes\n", 4),
        ("http_config:\n  max_idle_conns: many\n", 4),
        ("trace: true\n", 3),
        ("bucket: again\n", 3),
    ] {
        let text = refused(more);
        assert!(
            text.contains(&format!("line {line}")) && !text.contains("hidden"),
            "{more}: {text}"
        );
    }
}

#[test]
fn choices_are_named() {
    for (more, key) in [
        ("list_objects_version: v3\n", "list_objects_version"),
        ("list_objects_version: V1\n", "list_objects_version"),
        ("bucket_lookup_type: dns\n", "bucket_lookup_type"),
    ] {
        let text = refused(more);
        assert!(text.contains(&format!("`{key}` must be one of")), "{text}");
    }
}

#[test]
fn encryption_has_what_its_type_needs() {
    let encryption = |more: &str| with(&format!("sse_config: {{{more}}}\n")).client.encryption;
    assert_eq!(encryption("type: SSE-S3"), Encryption::S3);
    assert_eq!(
        encryption("type: SSE-KMS, kms_key_id: k, kms_encryption_context: {a: b}"),
        Encryption::Kms {
            key_id: HeaderValue::from_static("k"),
            context: [("a".to_owned(), "b".to_owned())].into(),
        }
    );
    for (more, said) in [
        ("type: SSE-KMS", "kms_key_id must be set"),
        ("type: SSE-C", "encryption_key must be set"),
        ("type: sse-s3", "Unsupported type \"sse-s3\""),
        ("type: SSE-KMS, kms_key_id: \"k\\n\"", "kms_key_id"),
        (
            "type: SSE-C, encryption_key: /nonexistent",
            "reading the encryption_key file /nonexistent: No such file",
        ),
    ] {
        let text = refused(&format!("sse_config: {{{more}}}\n"));
        assert!(text.contains(said), "{text}");
    }
    let text = refused(
        "sse_config: {type: SSE-S3}\nput_user_metadata: {x-amz-server-side-encryption: AES256}\n",
    );
    assert!(text.contains("`put_user_metadata`"), "{text}");
}

#[test]
fn a_customer_key_is_32_raw_bytes_and_needs_tls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let more = format!(
        "sse_config: {{type: SSE-C, encryption_key: {}}}\n",
        path.display()
    );
    std::fs::write(&path, [7; 32]).unwrap();
    let settings = with(&more);
    assert_eq!(
        settings.client.encryption,
        Encryption::Customer { key: [7; 32] }
    );
    assert!(!format!("{settings:?}").contains("7, 7"), "{settings:?}");
    let relative = parse("bucket: b\nendpoint: e\nsse_config: {type: SSE-C, encryption_key: k}\n");
    let text = ErrorChain(&relative.unwrap_err()).to_string();
    assert!(text.contains("/srv/outrigger/k"), "{text}");
    let text = refused(&format!("insecure: true\n{more}"));
    assert!(text.contains("remove `insecure`"), "{text}");
    for (bytes, found) in [
        (&[7; 31][..], "it has 31"),
        (&[7; 33], "it has more"),
        (&[], "it has 0"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let text = refused(&more);
        assert!(text.contains("32 bytes") && text.contains(found), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_value_of_any_key_is_taken_or_refused(
        key in proptest::sample::select(vec![
            "endpoint", "sts_endpoint", "part_size", "max_retries", "put_user_metadata",
            "sse_config", "http_config", "access_key", "bucket_lookup_type",
        ]),
        value in "[ -~äß]{0,40}",
    ) {
        let quoted = serde_json::to_string(&value).unwrap();
        for value in [value, quoted] {
            // Either is fine, as long as it is one of both.
            drop(parse(&format!("bucket: b\nendpoint: e\n{key}: {value}\n")));
            drop(parse(&format!("bucket: b\n{key}: {value}\n")));
        }
    }
}

mod http {
    //! The mapping `http_config`.

    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;
    use crate::net::http::ClientConfig;

    fn client(more: &str) -> ClientConfig {
        let client = config(more).client(None).unwrap();
        assert_eq!(client.response_header_timeout, None, "the bucket counts it");
        client
    }

    fn config(more: &str) -> HttpConfig {
        with(&format!("http_config: {{{more}}}\n")).http
    }

    #[test]
    fn defaults_are_the_reference_s() {
        let client = client("");
        assert_eq!(client.connect_timeout, Some(Duration::from_secs(30)));
        assert_eq!(client.tls_handshake_timeout, Some(Duration::from_secs(10)));
        let header = config("").response_header_timeout();
        assert_eq!(header, Some(Duration::from_secs(120)));
        assert_eq!(client.idle_timeout, Some(Duration::from_secs(90)));
        assert_eq!(client.idle_per_host_max, 100);
        assert_eq!(client.connections_per_host_max, None);
    }

    #[test]
    fn each_key_arrives() {
        let client = client(
            "idle_conn_timeout: 1m30s, tls_handshake_timeout: 0s, \
             expect_continue_timeout: 1s, max_idle_conns: 7, max_idle_conns_per_host: 9, \
             max_conns_per_host: 3, disable_compression: true, insecure_skip_verify: true",
        );
        assert_eq!(client.idle_timeout, Some(Duration::from_secs(90)));
        for (given, limit) in [("1d", Some(Duration::from_secs(86_400))), ("0s", None)] {
            let config = config(&format!("response_header_timeout: {given}"));
            assert_eq!(config.response_header_timeout(), limit);
        }
        assert_eq!(client.tls_handshake_timeout, None);
        assert_eq!(client.idle_per_host_max, 7);
        assert_eq!(client.connections_per_host_max, NonZeroUsize::new(3));
    }

    #[test]
    fn numbers_below_one_mean_what_they_mean_to_go() {
        assert_eq!(client("max_idle_conns: 0").idle_per_host_max, 100);
        assert_eq!(client("max_idle_conns: -1").idle_per_host_max, 100);
        assert_eq!(client("max_idle_conns_per_host: 0").idle_per_host_max, 2);
        assert_eq!(client("max_idle_conns_per_host: -1").idle_per_host_max, 0);
        assert_eq!(
            client("max_conns_per_host: -1").connections_per_host_max,
            None
        );
        assert_eq!(client("idle_conn_timeout: 0").idle_timeout, None);
    }

    #[test]
    fn tls_files_are_named_where_they_are_at_fault() {
        for (more, said) in [
            ("ca_file: /nonexistent/ca.pem", "/nonexistent/ca.pem"),
            ("cert_file: /nonexistent/cert.pem", "key_file is missing"),
            ("key_file: /nonexistent/key.pem", "cert_file is missing"),
            ("server_name: \"a b\"", "server name `a b`"),
        ] {
            let settings = with(&format!("http_config: {{tls_config: {{{more}}}}}\n"));
            let error = settings.http.client(None).unwrap_err();
            let text = ErrorChain(&error).to_string();
            assert!(text.contains(said), "{text}");
        }
    }
}
