//! Documents of every provider: what is read, what is refused, and with which words.

use std::collections::HashMap;
use std::ffi::OsString;

use super::*;
use crate::model::ErrorChain;
use crate::trace::{Parents, QUEUED_SPANS_DEFAULT, QUEUED_SPANS_MAX, Root};

fn parse_with(yaml: &str, variables: &[(&str, &str)]) -> Result<TracingConfig, String> {
    let variables: HashMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let variable = |name: &str| variables.get(name).map(OsString::from);
    TracingConfig::parse(yaml, &variable).map_err(|error| ErrorChain(&error).to_string())
}

fn parse(yaml: &str) -> Result<TracingConfig, String> {
    parse_with(yaml, &[])
}

/// A document of type OTLP over gRPC with these lines below `config`.
fn otlp(lines: &str) -> Result<TracingConfig, String> {
    parse(&format!(
        "type: OTLP\nconfig:\n  client_type: grpc\n{lines}"
    ))
}

fn warnings(config: &TracingConfig) -> Vec<&str> {
    let texts = config.remarks.iter().filter_map(|remark| match remark {
        Remark::Warning(text) => Some(text.as_str()),
        Remark::Note(_) => None,
    });
    texts.collect()
}

fn resource_of(config: &TracingConfig) -> Vec<(&str, &str)> {
    let mut resource: Vec<_> = config
        .resource
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    resource.sort_unstable();
    resource
}

#[test]
fn the_least_document_sends_to_a_collector_here() {
    let grpc = otlp("").unwrap();
    assert_eq!(grpc.collector(), "localhost:4317");
    assert_eq!(grpc.sampling, Sampling::DEFAULT);
    assert_eq!(grpc.queued_spans_max, QUEUED_SPANS_DEFAULT);
    assert_eq!(
        resource_of(&grpc),
        [("service.name", "unknown_service:outrigger")]
    );
    assert_eq!(warnings(&grpc), [""; 0]);
    let destination = &grpc.destination;
    // As in the reference, unless `insecure` is set.
    assert_eq!(destination.tls, Some(ClientTls::default()));
    assert_eq!(destination.timeout, Duration::from_secs(10));
    assert_eq!(destination.retry, Retry::DEFAULT);
    assert!(!destination.is_compressed && destination.headers.is_empty());
    let http = parse("type: otlp\nconfig: {client_type: http, insecure: true}").unwrap();
    assert_eq!(http.collector(), "http://localhost:4318/v1/traces");
}

#[test]
fn every_key_of_otlp_is_read() {
    let yaml = r#"
type: OTLP
config:
  client_type: http
  service_name: thanos-sidecar
  resource_attributes: {k8s.namespace.name: monitoring, shard: 3}
  reconnection_period: 10s
  compression: gzip
  endpoint: otel.example:4318
  url_path: /custom/path
  timeout: 2500000000
  retry_config:
    retry_enabled: true
    retry_initial_interval: 1s
    retry_max_interval: 2s
    retry_max_elapsed_time: 3s
  headers: {Authorization: Bearer secret, X-Scope-OrgID: 7}
  tls_config:
    ca_file: /ca.pem
    cert_file: /cert.pem
    key_file: /key.pem
    server_name: otel
    insecure_skip_verify: true
  sampler_type: traceidratiobased
  sampler_param: 0.25
"#;
    let config = parse(yaml).unwrap();
    assert_eq!(warnings(&config), [""; 0]);
    let expected = [
        ("k8s.namespace.name", "monitoring"),
        ("service.name", "thanos-sidecar"),
        ("shard", "3"),
    ];
    assert_eq!(resource_of(&config), expected);
    assert_eq!(
        config.sampling,
        Sampling {
            root: Root::Ratio(0.25),
            parents: Parents::Ignored
        }
    );
    assert_eq!(config.collector(), "https://otel.example:4318/custom/path");
    let destination = &config.destination;
    assert!(destination.is_compressed);
    assert_eq!(destination.timeout, Duration::from_millis(2500));
    let [delay_min, delay_max, elapsed_max] = [1, 2, 3].map(Duration::from_secs);
    assert_eq!(
        destination.retry,
        Retry {
            delay_min,
            delay_max,
            elapsed_max
        }
    );
    assert_eq!(destination.headers["authorization"], "Bearer secret");
    assert_eq!(destination.headers["x-scope-orgid"], "7");
    assert!(!format!("{config:?}").contains("secret"));
    let tls = destination.tls.as_ref().unwrap();
    assert_eq!(tls.ca_file.as_deref().unwrap().to_str(), Some("/ca.pem"));
    assert_eq!(tls.server_name.as_deref(), Some("otel"));
    let files = ["/ca.pem", "/cert.pem", "/key.pem"].map(PathBuf::from);
    assert_eq!(config.files(), files);
    assert!(tls.insecure_skip_verify);
}

/// What the reference's documentation prints, with the two keys that have to be there.
#[test]
fn the_documented_defaults_are_the_defaults() {
    let yaml = "type: OTLP\nconfig:\n  client_type: grpc\n  service_name: \"\"\n  \
        resource_attributes: {}\n  reconnection_period: 0s\n  compression: \"\"\n  \
        insecure: false\n  endpoint: \"\"\n  url_path: \"\"\n  timeout: 0s\n  retry_config:\n    \
        retry_enabled: false\n    retry_initial_interval: 0s\n    retry_max_interval: 0s\n    \
        retry_max_elapsed_time: 0s\n  headers: {}\n  tls_config:\n    ca_file: \"\"\n    \
        cert_file: \"\"\n    key_file: \"\"\n    server_name: \"\"\n    \
        insecure_skip_verify: false\n  sampler_type: \"\"\n  sampler_param: \"\"\n";
    let (given, least) = (parse(yaml).unwrap(), otlp("").unwrap());
    assert_eq!(format!("{given:?}"), format!("{least:?}"));
}

#[test]
fn samplers_have_the_references_names_in_any_case() {
    use Root::{Always, Never, Ratio};
    let (alone, followed) = (Parents::Ignored, Parents::FOLLOWED);
    for (name, root, parents) in [
        ("AlwaysSample", Always, alone),
        ("neversample", Never, alone),
        ("traceidratiobased", Ratio(0.5), alone),
        ("parentbasedalwayssample", Always, followed),
        ("PARENTBASEDNEVERSAMPLE", Never, followed),
        ("parentbasedtraceidratiobased", Ratio(0.5), followed),
    ] {
        let lines = format!("  sampler_type: {name}\n  sampler_param: \"0.5\"\n");
        let config = otlp(&lines).unwrap();
        assert_eq!(config.sampling, Sampling { root, parents }, "{name}");
        assert_eq!(warnings(&config), [""; 0], "{name}");
    }
    // The reference goes on with all of them, too.
    for (lines, expected) in [
        (
            "  sampler_type: always_on\n",
            "none of alwayssample, neversample",
        ),
        (
            "  sampler_type: traceidratiobased\n",
            "`config.sampler_param` is missing",
        ),
        (
            "  sampler_type: traceidratiobased\n  sampler_param: x\n",
            "in line 5 is \"x\"",
        ),
        (
            "  sampler_type: traceidratiobased\n  sampler_param: nan\n",
            "no number",
        ),
    ] {
        let config = otlp(lines).unwrap();
        let warnings = warnings(&config);
        assert_eq!(config.sampling.root, Ratio(1.0), "{lines}");
        assert!(warnings[0].contains(expected), "{warnings:?}");
    }
}

#[test]
fn each_misspelt_key_gives_a_warning_below_config_and_an_error_above() {
    for key in [
        "client_typ",
        "servicename",
        "resource_attribute",
        "reconnect_period",
        "compressions",
        "insecured",
        "end_point",
        "urlpath",
        "time_out",
        "retries",
        "header",
        "tls",
        "sampler",
        "sampler_parameter",
    ] {
        let config = otlp(&format!("  {key}: x\n")).unwrap();
        let expected = format!("unknown key `config.{key}` in line 4 has no effect");
        assert_eq!(warnings(&config), [expected]);
    }
    for (lines, expected) in [
        (
            "  retry_config: {enabled: true}\n",
            "config.retry_config.enabled",
        ),
        ("  tls_config:\n    ca: x\n", "config.tls_config.ca"),
    ] {
        let config = otlp(lines).unwrap();
        assert!(
            warnings(&config)[0].contains(expected),
            "{:?}",
            config.remarks
        );
    }
    for (yaml, expected) in [
        (
            "typ: OTLP\n",
            "unknown key `typ` in line 1; known there are type, config",
        ),
        ("type: OTLP\nconfg: {}\n", "unknown key `confg` in line 2"),
    ] {
        let error = parse(yaml).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn values_of_a_wrong_type_are_errors_that_name_key_and_line() {
    for (key, value, wanted) in [
        ("client_type", "[grpc]", "must be a single value"),
        ("service_name", "{a: b}", "must be a single value"),
        ("resource_attributes", "x", "must be a mapping"),
        (
            "reconnection_period",
            "soon",
            "must be a duration such as 5s",
        ),
        ("compression", "[]", "must be a single value"),
        ("insecure", "maybe", "must be true or false"),
        ("endpoint", "[a, b]", "must be a single value"),
        ("url_path", "{}", "must be a single value"),
        ("timeout", "10", ""),
        ("timeout", "-5s", "must be a duration such as 5s"),
        ("timeout", "ten", "must be a duration such as 5s"),
        ("retry_config", "true", "must be a mapping"),
        ("headers", "[a]", "must be a mapping"),
        ("tls_config", "x", "must be a mapping"),
        ("sampler_type", "[x]", "must be a single value"),
        ("sampler_param", "{}", "must be a single value"),
    ] {
        let client = if key == "client_type" {
            ""
        } else {
            "  client_type: http\n"
        };
        let yaml = format!("type: OTLP\nconfig:\n{client}  {key}: {value}\n");
        let outcome = parse(&yaml);
        if wanted.is_empty() {
            assert!(outcome.is_ok(), "{yaml}");
            continue;
        }
        let error = outcome.unwrap_err();
        let line = if client.is_empty() { 3 } else { 4 };
        assert!(
            error.contains(&format!("`config.{key}` in line {line}")),
            "{error}"
        );
        assert!(error.contains(wanted), "{error}");
    }
    for (yaml, expected) in [
        ("- a\n", "the document in line 1 must be a mapping"),
        (
            "type: OTLP\nconfig: x\n",
            "`config` in line 2 must be a mapping",
        ),
        ("type: [OTLP]\n", "`type` in line 1 must be a single value"),
        ("type: OTLP\n  bad: [\n", "the document is not valid YAML"),
        ("# nothing\n", "tracing with type `` is not supported"),
        (
            "type: ZIPKIN\n",
            "tracing with type `ZIPKIN` is not supported, `type` must be one of \
            OTLP, JAEGER, ELASTIC_APM, LIGHTSTEP, GOOGLE_CLOUD, STACKDRIVER",
        ),
        (
            "type: OTLP\n",
            "`config.client_type` is missing, it must be `grpc` or `http`",
        ),
        (
            "type: OTLP\nconfig: {client_type: GRPC}\n",
            "`config.client_type` in line 2 is \"GRPC\"",
        ),
    ] {
        let error = parse(yaml).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn endpoints_and_headers_that_are_none_are_refused() {
    for (lines, expected) in [
        (
            "  endpoint: \"otel:\"\n",
            "`config.endpoint` in line 4 is \"otel:\", it must be HOST:PORT",
        ),
        ("  endpoint: unix:///otel.sock\n", "it must be HOST:PORT"),
        (
            "  headers: {\"a b\": c}\n",
            "`config.headers.a b` in line 4",
        ),
        ("  headers: {a: \"x\\ny\"}\n", "a header's name"),
    ] {
        let error = otlp(lines).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("x\ny"), "{error}");
    }
    let error = parse("type: OTLP\nconfig: {client_type: http, url_path: a b}\n").unwrap_err();
    assert!(error.contains("`config.url_path` in line 2"), "{error}");
}

#[test]
fn a_scheme_says_more_than_insecure() {
    for (endpoint, insecure, address, is_plain) in [
        ("otel:4317", "false", "otel:4317", false),
        ("otel:4317", "true", "otel:4317", true),
        ("http://otel:4317", "false", "otel:4317", true),
        ("https://otel", "true", "otel:443", false),
        ("dns:///otel:4317", "true", "otel:4317", true),
    ] {
        let lines = format!("  endpoint: {endpoint}\n  insecure: {insecure}\n");
        let config = otlp(&lines).unwrap();
        assert_eq!(config.destination.address, address);
        assert_eq!(
            config.destination.tls.is_none(),
            is_plain,
            "{endpoint} {insecure}"
        );
    }
}

#[test]
fn the_environment_may_name_the_endpoint() {
    let http = "type: OTLP\nconfig: {client_type: http}\n";
    for (variables, expected) in [
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318")][..],
            "http://otel:4318/v1/traces",
        ),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel/base/")],
            "https://otel/base/v1/traces",
        ),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:1"),
                (
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                    "http://otel:4318/spans",
                ),
            ],
            "http://otel:4318/spans",
        ),
        (
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel:4318")],
            "http://otel:4318/",
        ),
    ] {
        assert_eq!(parse_with(http, variables).unwrap().collector(), expected);
    }
}

#[test]
fn the_document_goes_before_the_environment() {
    let http = "type: OTLP\nconfig: {client_type: http}\n";
    let variables = [
        ("OTEL_SERVICE_NAME", "from-environment"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=other,zone=a%20b,team=x",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb,x=1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "99"),
    ];
    let config = parse_with(http, &variables).unwrap();
    assert_eq!(config.flush_interval, Duration::from_millis(250));
    assert_eq!(config.queued_spans_max, 99);
    let expected = [
        ("service.name", "from-environment"),
        ("team", "x"),
        ("zone", "a b"),
    ];
    assert_eq!(resource_of(&config), expected);
    assert_eq!(config.destination.headers["api-key"], "a,b");
    assert_eq!(config.destination.timeout, Duration::from_millis(1500));
    assert!(config.destination.is_compressed);
    let yaml = "type: OTLP\nconfig: {client_type: http, service_name: mine, compression: none, \
        timeout: 1s, headers: {x: \"2\"}, resource_attributes: {team: y}, endpoint: \"here:1\"}\n";
    let config = parse_with(yaml, &variables).unwrap();
    assert_eq!(
        resource_of(&config),
        [("service.name", "mine"), ("team", "y"), ("zone", "a b")]
    );
    assert_eq!(config.destination.headers["x"], "2");
    assert_eq!(config.destination.timeout, Duration::from_secs(1));
    assert!(!config.destination.is_compressed);
    assert_eq!(config.collector(), "https://here:1/v1/traces");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "a b"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
    ] {
        let error = parse_with(http, &[(name, value)]).unwrap_err();
        assert!(
            error.contains(&format!("the environment variable {name} is")),
            "{error}"
        );
    }
}

#[test]
fn a_retry_that_is_asked_for_is_done() {
    for (lines, expected) in [
        (
            "retry_enabled: false, retry_initial_interval: 1s",
            Retry::DEFAULT,
        ),
        ("retry_enabled: true", Retry::DEFAULT),
        (
            "retry_enabled: true, retry_initial_interval: 1m",
            Retry {
                delay_min: Duration::from_secs(60),
                delay_max: Duration::from_secs(60),
                ..Retry::DEFAULT
            },
        ),
    ] {
        let config = otlp(&format!("  retry_config: {{{lines}}}\n")).unwrap();
        assert_eq!(config.destination.retry, expected, "{lines}");
    }
}

#[test]
fn jaegers_collector_is_reached_by_otlp() {
    let yaml = "type: JAEGER\nconfig:\n  service_name: sidecar\n  sampler_type: const\n  \
        sampler_param: 1\n  tags: \"zone = a, host=${HOST:unknown},pod=${POD:none}\"\n  \
        reporter_max_queue_size: 100000\n  reporter_flush_interval: 2s\n  user: me\n  \
        password: secret\n  traceid_128bit: true\n  \
        endpoint: http://jaeger-collector:14268/api/traces\n";
    let config = parse_with(yaml, &[("HOST", "db-1")]).unwrap();
    assert_eq!(config.collector(), "http://jaeger-collector:4318/v1/traces");
    let always = Sampling {
        root: Root::Always,
        parents: Parents::FOLLOWED,
    };
    assert_eq!(config.sampling, always);
    assert_eq!(config.queued_spans_max, QUEUED_SPANS_MAX);
    assert_eq!(config.flush_interval, Duration::from_secs(2));
    let expected = [
        ("host", "db-1"),
        ("pod", "none"),
        ("service.name", "sidecar"),
        ("zone", "a"),
    ];
    assert_eq!(resource_of(&config), expected);
    assert_eq!(
        config.destination.headers["authorization"],
        "Basic bWU6c2VjcmV0"
    );
    assert!(!format!("{config:?}").contains("bWU6c2VjcmV0"));
    assert_eq!(warnings(&config), [""; 0]);
    let note = "Jaeger's collector gets its spans by OTLP, at \
        http://jaeger-collector:4318/v1/traces";
    assert_eq!(config.remarks, [Remark::Note(note.to_owned())]);
}

#[test]
fn jaegers_samplers_are_those_of_the_reference() {
    let sampled = |lines: &str| {
        let yaml = format!("type: JAEGER\nconfig:\n  endpoint: http://j:14268/x\n{lines}");
        let config = parse(&yaml).unwrap();
        (config.sampling.root, warnings(&config).len())
    };
    for (lines, expected) in [
        (
            "  sampler_type: const\n  sampler_param: 0.4\n",
            (Root::Never, 0),
        ),
        (
            "  sampler_type: const\n  sampler_param: 7\n",
            (Root::Always, 0),
        ),
        ("  sampler_type: const\n", (Root::Never, 0)),
        (
            "  sampler_type: probabilistic\n  sampler_param: .25\n",
            (Root::Ratio(0.25), 0),
        ),
        ("", (Root::Ratio(0.001), 1)),
        (
            "  sampler_type: ratelimiting\n  sampler_param: 2\n",
            (Root::Ratio(0.001), 1),
        ),
        (
            "  sampler_type: remote\n  initial_sampler_rate: 0.5\n",
            (Root::Ratio(0.5), 1),
        ),
    ] {
        assert_eq!(sampled(lines), expected, "{lines}");
    }
    let yaml = "type: JAEGER\nconfig: {endpoint: \"http://j:14268/\", sampler_type: const, \
        sampler_parent_config: {local_parent_sampled: true, remote_parent_sampled: true}}\n";
    let parents = Parents::Followed {
        local_anew: true,
        remote_anew: true,
    };
    assert_eq!(parse(yaml).unwrap().sampling.parents, parents);
}

#[test]
fn what_jaeger_can_not_be_asked_for_is_refused_with_a_remedy() {
    for (config, expected) in [
        (
            "{agent_host: jaeger-agent, agent_port: 6831}",
            "`config.agent_host` in line 2",
        ),
        (
            "{service_name: s}",
            "`config.endpoint` is missing with type JAEGER: spans go to an agent",
        ),
        (
            "{endpoint: \"https://jaeger.example/api/traces\"}",
            "`config.endpoint` in line 2 is",
        ),
    ] {
        let error = parse(&format!("type: JAEGER\nconfig: {config}\n")).unwrap_err();
        assert!(error.contains(expected), "{error}");
        // The document in the remedy is one that works.
        let (_, remedy) = error.split_once("`config: ").unwrap();
        let (remedy, _) = remedy.split_once('`').unwrap();
        let mended = parse(&format!("type: OTLP\nconfig: {remedy}\n")).unwrap();
        assert!(mended.collector().ends_with(":4318/v1/traces"));
    }
    let error = parse("type: JAEGER\nconfig: {endpoint: \"j:14268\"}\n").unwrap_err();
    assert!(
        error.contains("it must be a URL such as http://jaeger"),
        "{error}"
    );
    for (key, value, wanted) in [
        ("sampler_param", "x", "a number"),
        ("reporter_max_queue_size", "many", "a whole number"),
        ("reporter_flush_interval", "often", "a duration such as 5s"),
        ("disabled", "7", "true or false"),
        ("agent_port", "x", "a whole number"),
    ] {
        let error = parse(&format!("type: JAEGER\nconfig:\n  {key}: {value}\n")).unwrap_err();
        let expected = format!("`config.{key}` in line 3 must be {wanted}");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn apm_server_is_where_the_environment_says() {
    let yaml = "type: ELASTIC_APM\nconfig: {service_name: s, service_version: \"1\", \
        service_environment: prod, sample_rate: 0.5}\n";
    let config = parse(yaml).unwrap();
    assert_eq!(config.collector(), "http://localhost:8200/v1/traces");
    assert!(config.destination.tls.is_none());
    let half = Sampling {
        root: Root::Ratio(0.5),
        parents: Parents::FOLLOWED,
    };
    assert_eq!(config.sampling, half);
    let expected = [
        ("deployment.environment", "prod"),
        ("service.name", "s"),
        ("service.version", "1"),
    ];
    assert_eq!(resource_of(&config), expected);
    let variables = [
        ("ELASTIC_APM_SERVER_URL", "https://apm.example:8200/"),
        ("ELASTIC_APM_SECRET_TOKEN", "token"),
        ("ELASTIC_APM_VERIFY_SERVER_CERT", "false"),
    ];
    let config = parse_with(yaml, &variables).unwrap();
    assert_eq!(config.collector(), "https://apm.example:8200/v1/traces");
    assert_eq!(config.destination.headers["authorization"], "Bearer token");
    assert!(config.destination.tls.unwrap().insecure_skip_verify);
    let key = [
        ("ELASTIC_APM_SECRET_TOKEN", "token"),
        ("ELASTIC_APM_API_KEY", "key"),
    ];
    let config = parse_with(yaml, &key).unwrap();
    assert_eq!(config.destination.headers["authorization"], "ApiKey key");
    let wrong = [("ELASTIC_APM_SERVER_URL", "apm:8200")];
    assert!(
        parse_with(yaml, &wrong)
            .unwrap_err()
            .contains("ELASTIC_APM_SERVER_URL")
    );
    let none = parse("type: ELASTIC_APM\n").unwrap();
    assert!(warnings(&none)[0].contains("`config.sample_rate` is 0"));
}

#[test]
fn lightstep_is_reached_unless_it_is_a_satellite() {
    let yaml = "type: LIGHTSTEP\nconfig: {access_token: secret, \
        tags: \"lightstep.component_name=sidecar,zone=a\"}\n";
    let config = parse(yaml).unwrap();
    assert_eq!(config.collector(), "ingest.lightstep.com:443");
    assert!(config.destination.tls.is_some());
    assert_eq!(
        config.destination.headers["lightstep-access-token"],
        "secret"
    );
    assert_eq!(
        resource_of(&config),
        [("service.name", "sidecar"), ("zone", "a")]
    );
    let error = parse("type: LIGHTSTEP\nconfig: {collector: {port: 1}}\n").unwrap_err();
    assert!(
        error.contains("`config.access_token` is missing"),
        "{error}"
    );
    let yaml = "type: LIGHTSTEP\nconfig: {access_token: secret, collector: {host: sat}}\n";
    let error = parse(yaml).unwrap_err();
    assert!(
        error.contains("`config.collector.host` in line 2 is \"sat\""),
        "{error}"
    );
    assert!(
        error.contains("type: OTLP") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn cloud_trace_is_refused_with_the_document_to_write() {
    for kind in ["GOOGLE_CLOUD", "stackdriver"] {
        let yaml =
            format!("type: {kind}\nconfig: {{service_name: s, project_id: p, sample_factor: 16}}");
        let error = parse(&yaml).unwrap_err();
        assert!(error.starts_with(&format!("`type` is {kind}: ")), "{error}");
        let (_, remedy) = error.split_once("`config: ").unwrap();
        let (remedy, _) = remedy.split_once('`').unwrap();
        let mended = parse(&format!("type: OTLP\nconfig: {remedy}\n")).unwrap();
        let expected = Sampling {
            root: Root::Ratio(0.0625),
            parents: Parents::FOLLOWED,
        };
        assert_eq!(mended.sampling, expected);
        assert_eq!(resource_of(&mended), [("service.name", "s")]);
    }
    let error = parse("type: GOOGLE_CLOUD\nconfig: {sample_factor: x}\n").unwrap_err();
    assert!(
        error.contains("`config.sample_factor` in line 2"),
        "{error}"
    );
}
