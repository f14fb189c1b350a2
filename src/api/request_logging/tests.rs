//! The document: what it turns on, and how what is wrong with it is told.

use super::*;

fn parse(yaml: &str) -> Result<(RequestLog, Vec<String>), String> {
    let outcome = request_log(yaml, &Clock::fixed(1_700_000_000_000_000_000));
    outcome.map_err(|error| crate::model::ErrorChain(&error).to_string())
}

fn rules(yaml: &str) -> Arc<RequestLogRules> {
    match parse(yaml).unwrap().0 {
        RequestLog::On(rules) => rules,
        RequestLog::Off => panic!("off: {yaml}"),
    }
}

#[test]
fn nothing_is_logged_unless_an_end_is_asked_for() {
    for off in [
        "",
        "{}",
        "options:\n  level: INFO\n",
        "options: {level: ERROR, decision: {log_start: false, log_end: false}}\n",
        "http: {options: {level: INFO, decision: {log_end: true}}}\n",
        "grpc: {config: [{service: thanos.Store, method: Series}]}\n",
        // Its own options count instead of those of all protocols.
        "options: {level: DEBUG, decision: {log_end: true}}\ngrpc: {options: {level: INFO}}\n",
    ] {
        let (log, _) = parse(off).unwrap();
        assert!(matches!(log, RequestLog::Off), "{off}");
    }
}

#[test]
fn options_of_all_protocols_count_and_grpcs_own_come_first() {
    let all = "options: {level: INFO, decision: {log_start: true, log_end: true}}\n";
    let found = rules(all);
    assert!(found.start && found.methods.is_empty());
    assert_eq!(found.severity_min, CallSeverity::Info);
    let own = "grpc: {options: {level: WARNING, decision: {log_end: true}}}\n";
    let found = rules(&format!("{all}{own}"));
    assert!(!found.start);
    assert_eq!(found.severity_min, CallSeverity::Warning);
    for (level, severity) in LEVELS {
        let yaml = format!("options: {{level: {level}, decision: {{log_end: true}}}}\n");
        assert_eq!(rules(&yaml).severity_min, severity);
    }
}

#[test]
fn methods_are_named_in_full_and_unknown_ones_are_a_warning() {
    let yaml = "options: {level: INFO, decision: {log_end: true}}\ngrpc:\n  config:\n  \
                - service: thanos.Store\n    method: Series\n  \
                - {service: thanos.Store, method: X}\n";
    assert_eq!(
        rules(yaml).methods,
        ["/thanos.Store/Series", "/thanos.Store/X"]
    );
    let (_, warnings) = parse(yaml).unwrap();
    assert_eq!(
        warnings,
        ["`grpc.config` in line 6: there is no method /thanos.Store/X here"]
    );
}

#[test]
fn the_part_about_http_is_checked_and_has_no_effect() {
    let yaml = "http:\n  options: {level: INFO, decision: {log_end: true}}\n  config:\n  \
                - {path: /metrics, port: 10902}\n";
    let (log, warnings) = parse(yaml).unwrap();
    assert!(matches!(log, RequestLog::Off));
    assert!(
        warnings[0].contains("`http` in line 1 has no effect"),
        "{warnings:?}"
    );
    let error = parse("http: {config: [{path: /, prt: 1}]}\n").unwrap_err();
    assert!(error.contains("`http.config.prt` in line 1"), "{error}");
    let error = parse("http: {config: [{port: ten}]}\n").unwrap_err();
    assert!(
        error.contains("`http.config.port` in line 1 must be a port"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_named_with_key_and_line() {
    for (yaml, said) in [
        ("\noption: {}\n", "unknown key `option` in line 2"),
        (
            "options: {levels: INFO}\n",
            "unknown key `options.levels` in line 1",
        ),
        (
            "options: {decision: {log_begin: true}}\n",
            "`options.decision.log_begin` in line 1",
        ),
        (
            "grpc: {option: {}}\n",
            "unknown key `grpc.option` in line 1",
        ),
        (
            "grpc:\n  config:\n  - servce: x\n",
            "unknown key `grpc.config.servce` in line 3",
        ),
        (
            "grpc:\n  config: x\n",
            "`grpc.config` in line 2 must be a list of mappings",
        ),
        (
            "grpc:\n  config: [x]\n",
            "`grpc.config` in line 2 must be a mapping",
        ),
        ("options: INFO\n", "`options` in line 1 must be a mapping"),
        (
            "options: {level: [INFO]}\n",
            "`options.level` in line 1 must be a single value",
        ),
        (
            "options: {level: INFO, decision: {log_end: 3}}\n",
            "`options.decision.log_end` in line 1 must be true or false",
        ),
        (
            "options: {level: info}\n",
            "the level is \"info\" and must be DEBUG, INFO, WARNING",
        ),
        (
            "\ngrpc:\n  options: {level: FATAL}\n",
            "`grpc.options.level` in line 3",
        ),
        (
            "options:\n  decision: {log_end: true}\n",
            "level field is empty: `options` in line 1",
        ),
        (
            "grpc:\n  options:\n    decision: {log_start: true}\n",
            "level field is empty: `grpc.options` in line 2",
        ),
        (
            "options: {level: INFO, decision: {log_start: true}}\n",
            "log decision combination is not supported: `options` in line 1",
        ),
        ("[]\n", "must be a mapping"),
        ("a: b: c\n", "not valid YAML"),
    ] {
        let error = parse(yaml).unwrap_err();
        assert!(error.contains(said), "{yaml:?}: {error}");
    }
}

#[test]
fn ids_are_ulids_of_the_time_and_never_the_same() {
    let rules = rules("options: {level: INFO, decision: {log_end: true}}\n");
    let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| (rules.new_id)()).collect();
    assert_eq!(ids.len(), 1000);
    for id in ids {
        let id = Ulid::from_string(&id).unwrap();
        assert_eq!(id.timestamp_ms(), 1_700_000_000_000);
    }
}
