//! What is refused, and in which words.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn errors_have_the_references_texts() {
    for (flags, text) in WRONG_WORDS {
        assert_eq!(problem(flags), *text, "{flags:?}");
    }
}

#[test]
fn bad_values_have_the_references_texts_and_name_the_flag() {
    for (flag, text) in WRONG_VALUES {
        let name = flag.split('=').next().unwrap();
        assert_eq!(
            problem(&["sidecar", flag]),
            format!("{text} (flag '{name}')")
        );
    }
}

#[test]
fn flags_of_queries_need_the_one_that_enables_them() {
    let idle = "it needs --query.enable (flag '--query.partial-response')";
    for off in [&[][..], &["--no-query.enable"]] {
        let flags = [&["sidecar", "--no-query.partial-response"], off].concat();
        assert_eq!(problem(&flags), idle);
    }
    let (_, args) = sidecar(&[
        "--query.replica-label=a",
        "--query.enable",
        "--query.replica-label=b",
        "--no-query.partial-response",
        "--query.timeout=90s",
    ]);
    assert!(args.query.enable && !args.query.partial_response);
    assert_eq!(args.query.replica_labels, ["a", "b"]);
    assert_eq!(args.query.timeout, PromDuration::from_millis(90_000));
    let (_, args) = sidecar(&["--no-query.enable"]);
    assert!(!args.query.enable);
}

#[test]
fn an_error_repeats_the_arguments_after_the_usage() {
    let error = run(&["sidecar", "--foo", "a b"]).unwrap_err();
    assert_eq!(
        ErrorChain(&error).to_string(),
        "error parsing commandline arguments: [outrigger sidecar --foo a b]: \
         unknown long flag '--foo'"
    );
    assert!(
        error
            .usage
            .starts_with("usage: outrigger sidecar [<flags>]\n")
    );
}

#[test]
fn bytes_that_are_no_text_are_a_path_or_an_error() {
    let bytes = |prefix: &str| {
        let mut word = prefix.as_bytes().to_vec();
        word.push(0xff);
        OsString::from_vec(word)
    };
    let parse = |word| parse([OsString::from("outrigger"), "sidecar".into(), word]);
    for flag in [
        "--tsdb.path=",
        "--objstore.config-file=",
        "--reloader.rule-dir=",
    ] {
        assert!(
            matches!(parse(bytes(flag)), Ok(Invocation::Run(_))),
            "{flag}"
        );
    }
    for (word, text) in [
        (
            "--http-address=",
            "value of flag '--http-address' is not valid UTF-8",
        ),
        (
            "--objstore.config=",
            "value of flag '--objstore.config' is not valid UTF-8",
        ),
        (
            "--log.level=",
            "value of flag '--log.level' is not valid UTF-8",
        ),
        (
            "--grpc-server-tls-curves=",
            "value of flag '--grpc-server-tls-curves' is not valid UTF-8",
        ),
        ("--", "unknown long flag '--\u{fffd}'"),
        ("x", "unexpected x\u{fffd}"),
        ("-", "unknown short flag '-\u{fffd}'"),
    ] {
        let error = parse(bytes(word)).unwrap_err();
        assert_eq!(ErrorChain(&error.problem).to_string(), text);
    }
}

/// Arguments, and what is said about them.
const WRONG_WORDS: &[(&[&str], &str)] = &[
    (&[], "command not specified"),
    (&["nope"], "expected command but got \"nope\""),
    (&[""], "expected command but got \"\""),
    (&["sidecar", "--foo"], "unknown long flag '--foo'"),
    (&["sidecar", "--foo=bar"], "unknown long flag '--foo'"),
    (&["sidecar", "--no-foo"], "unknown long flag '--no-foo'"),
    (&["sidecar", "--=x"], "unknown long flag '--'"),
    (&["sidecar", "--é"], "unknown long flag '--é'"),
    (
        &["--http-address=x", "sidecar"],
        "unknown long flag '--http-address'",
    ),
    (
        &["sidecar", "--no-http-address"],
        "unknown long flag '--no-http-address'",
    ),
    (&["sidecar", "--no-help"], "unknown long flag '--no-help'"),
    (&["sidecar", "-x"], "unknown short flag '-x'"),
    (&["sidecar", "-2h"], "unknown short flag '-2'"),
    (&["sidecar", "-V"], "unknown short flag '-V'"),
    (
        &["sidecar", "--http-address"],
        "expected argument for flag '--http-address'",
    ),
    (
        &["sidecar", "--http-address", "--log.level=x"],
        "expected argument for flag '--http-address'",
    ),
    (
        &["sidecar", "--http-address", "-h"],
        "expected argument for flag '--http-address'",
    ),
    (
        &["sidecar", "--http-address", "--"],
        "expected argument for flag '--http-address'",
    ),
    (&["sidecar", "extra"], "unexpected extra"),
    (&["sidecar", "sidecar"], "unexpected sidecar"),
    (&["sidecar", "--", "--log.level"], "unexpected --log.level"),
    (
        &["sidecar", "--shipper.upload-compacted=true"],
        "unexpected true",
    ),
    (
        &["sidecar", "--shipper.upload-compacted", "true"],
        "unexpected true",
    ),
    (
        &["sidecar", "--no-shipper.upload-compacted=x"],
        "unexpected x",
    ),
    (
        &["--enable-auto-gomemlimit=false", "sidecar"],
        "unexpected false",
    ),
    (
        &["sidecar", "--tsdb.path=a", "--tsdb.path=a"],
        "flag 'tsdb.path' cannot be repeated",
    ),
    (
        &["--log.level=info", "sidecar", "--log.level=info"],
        "flag 'log.level' cannot be repeated",
    ),
    (
        &[
            "sidecar",
            "--shipper.upload-compacted",
            "--no-shipper.upload-compacted",
        ],
        "flag 'shipper.upload-compacted' cannot be repeated",
    ),
    (
        &["sidecar", "@"],
        "expected @ file to expand arguments from",
    ),
];

/// A flag with a value, and what is said about it.
const WRONG_VALUES: &[(&str, &str)] = &[
    ("--query.max-concurrent=20", "it needs --query.enable"),
    ("--query.timeout=1m", "it needs --query.enable"),
    ("--query.default-step=1s", "it needs --query.enable"),
    ("--query.replica-label=replica", "it needs --query.enable"),
    ("--query.partial-response", "it needs --query.enable"),
    ("--query.timeout=0s", "must be more than 0"),
    ("--query.default-step=0s", "must be more than 0"),
    ("--query.max-concurrent=0", "must be from 1 to 1000, got 0"),
    (
        "--log.level=x",
        "enum value must be one of error,warn,info,debug, got 'x'",
    ),
    (
        "--log.level=INFO",
        "enum value must be one of error,warn,info,debug, got 'INFO'",
    ),
    (
        "--log.format=",
        "enum value must be one of logfmt,json,journald, got ''",
    ),
    (
        "--hash-func=SHA1",
        "enum value must be one of SHA256,, got 'SHA1'",
    ),
    (
        "--reloader.method=tcp",
        "enum value must be one of http,signal, got 'tcp'",
    ),
    (
        "--grpc-server-tls-min-version=1.4",
        "enum value must be one of 1.0,1.1,1.2,1.3, got '1.4'",
    ),
    (
        "--http-grace-period=1.5m",
        "unknown unit \".\" in duration \"1.5m\"",
    ),
    (
        "--http-grace-period=-1m",
        "not a valid duration string: \"-1m\"",
    ),
    ("--http-grace-period=", "empty duration string"),
    ("--http-grace-period=300y", "duration out of range"),
    (
        "--grpc-grace-period=1y",
        "time: unknown unit \"y\" in duration \"1y\"",
    ),
    (
        "--grpc-grace-period=5",
        "time: missing unit in duration \"5\"",
    ),
    ("--grpc-grace-period=", "time: invalid duration \"\""),
    (
        "--grpc-grace-period=99999999999h",
        "time: invalid duration \"99999999999h\"",
    ),
    ("--min-time=", "empty duration string"),
    (
        "--min-time=yesterday",
        "not a valid duration string: \"yesterday\"",
    ),
    (
        "--auto-gomemlimit.ratio=x",
        "strconv.ParseFloat: parsing \"x\": invalid syntax",
    ),
    (
        "--shipper.upload-concurrency=x",
        "strconv.ParseFloat: parsing \"x\": invalid syntax",
    ),
    (
        "--store.limits.request-series=-1",
        "strconv.ParseUint: parsing \"-1\": invalid syntax",
    ),
    (
        "--prometheus.url=:9090",
        "parse \":9090\": missing protocol scheme",
    ),
];
