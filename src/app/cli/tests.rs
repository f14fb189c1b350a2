//! The command line: values, help, version, and any words at all.

mod arguments_file;
mod bench;
mod block;
mod errors;
mod flag_list;
mod operator;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::model::{Clock, GoDuration, PromDuration, TimeOrDuration, TimestampMs};

fn run(flags: &[&str]) -> Result<Invocation, UsageError> {
    parse(["outrigger"].iter().chain(flags).map(OsString::from))
}

fn sidecar(flags: &[&str]) -> (GlobalArgs, SidecarArgs) {
    sidecar_args(flags)
}

/// The error without the part that repeats the arguments.
fn problem(flags: &[&str]) -> String {
    match run(flags) {
        Err(error) => ErrorChain(&error.problem).to_string(),
        Ok(invocation) => panic!("{flags:?} parse: {invocation:?}"),
    }
}

fn printed(flags: &[&str]) -> String {
    match run(flags) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{flags:?}: {other:?}"),
    }
}

/// The flags of a command's commands against their committed list.
fn assert_flags(command: &str, list: &str) {
    let mut root = Cli::command();
    root.build();
    let command = root.find_subcommand(command).unwrap();
    let mut found = BTreeMap::<(String, String), Vec<&str>>::new();
    for command in command.get_subcommands() {
        let flags = command.get_arguments().filter(|arg| !arg.is_global_set());
        for arg in flags.filter(|arg| arg.get_id() != "help") {
            let Some(name) = arg.get_long() else {
                assert!(arg.is_positional());
                continue;
            };
            let default = match arg.get_default_values() {
                [] => "-",
                [value] if value.is_empty() => "\"\"",
                [value] => value.to_str().unwrap(),
                more => panic!("{name} has the defaults {more:?}"),
            };
            let row = found.entry((name.to_owned(), default.to_owned()));
            row.or_default().push(command.get_name());
        }
    }
    let rows = found.iter();
    let actual: Vec<String> = rows
        .map(|((name, default), commands)| format!("{}\t{name}\t{default}", commands.join(",")))
        .collect();
    let committed: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(actual, committed);
}

// === values ===

#[test]
fn every_value_arrives() {
    let (global, sidecar) = sidecar(&[
        "--log.level=debug",
        "--log.format=json",
        "--debug.name=a b",
        "--http-address=:1",
        "--http-grace-period=1y",
        "--grpc-grace-period=1.5m",
        "--prometheus.url=https://p/x",
        "--prometheus.ready_timeout=1w",
        "--tsdb.path=/prometheus",
        "--min-time=-2h",
        "--shipper.upload-concurrency=-1",
        "--hash-func=SHA256",
        "--shipper.upload-compacted",
        "--no-shipper.skip-corrupted-blocks",
        "--shipper.allow-out-of-order-uploads",
        "--reloader.rule-dir=a,b",
        "--reloader.rule-dir",
        "c",
        "--reloader.method=signal",
        "--grpc-server-tls-ciphers=A,B",
        "--grpc-server-tls-ciphers",
        "C",
        "--grpc-server-tls-curves=X25519",
        "--store.limits.request-series=0x10",
        "--objstore.config=type: FILESYSTEM",
        "--objstore.config-file=",
    ]);
    assert_eq!(global.logging.level, LogLevel::Debug);
    assert_eq!(global.logging.format, LogFormat::Json);
    assert_eq!(global.logging.name, "a b");
    assert_eq!(sidecar.http.address, ":1");
    assert_eq!(sidecar.http.grace_period.to_string(), "1y");
    assert_eq!(sidecar.grpc.grace_period.to_string(), "1m30s");
    assert_eq!(sidecar.prometheus.url.to_string(), "https://p/x");
    assert_eq!(sidecar.prometheus.ready_timeout.to_string(), "168h0m0s");
    assert_eq!(sidecar.tsdb.path, PathBuf::from("/prometheus"));
    let hour_ms = 3_600_000;
    let clock = Clock::fixed(i128::from(3 * hour_ms) * 1_000_000);
    assert_eq!(sidecar.tsdb.min_time.at(&clock), TimestampMs(hour_ms));
    assert_eq!(sidecar.shipper.upload_concurrency, -1);
    assert_eq!(sidecar.shipper.hash_func, HashFunc::Sha256);
    assert!(sidecar.shipper.upload_compacted && sidecar.shipper.allow_out_of_order_uploads);
    assert!(!sidecar.shipper.skip_corrupted_blocks);
    assert_eq!(sidecar.reloader.rule_dirs, ["a,b", "c"].map(PathBuf::from));
    assert_eq!(sidecar.reloader.method, ReloadMethod::Signal);
    assert_eq!(sidecar.grpc.tls_ciphers, ["A", "B", "C"]);
    assert_eq!(sidecar.grpc.tls_curves, ["X25519"]);
    assert_eq!(sidecar.store.request_series, 16);
    assert_eq!(sidecar.objstore.config.as_str(), "type: FILESYSTEM");
    assert_eq!(sidecar.objstore.config_file, None);
}

#[test]
fn defaults_are_those_of_an_empty_command_line() {
    let given = sidecar(&[]);
    assert_eq!(format!("{given:?}"), format!("{:?}", defaults()));
    let min_time = given.1.tsdb.min_time;
    assert_eq!(
        min_time,
        TimeOrDuration::Time(TimestampMs(-62_167_219_200_000))
    );
}

#[test]
fn documents_are_not_in_debug_output() {
    let args = sidecar(&[
        "--objstore.config=secret_key: s3cr3t",
        "--prometheus.url=http://u:s3cr3t@h",
    ]);
    assert!(!format!("{args:?}").contains("s3cr3t"));
}

#[test]
fn global_flags_stand_anywhere() {
    for flags in [
        &[
            "--log.level=warn",
            "--enable-auto-gomemlimit",
            "sidecar",
            "--http-address=x",
        ][..],
        &[
            "sidecar",
            "--http-address=x",
            "--log.level=warn",
            "--enable-auto-gomemlimit",
        ],
        &[
            "--log.level",
            "warn",
            "sidecar",
            "--enable-auto-gomemlimit",
            "--http-address",
            "x",
        ],
        &[
            "--enable-auto-gomemlimit",
            "sidecar",
            "--http-address=x",
            "--log.level=warn",
            "--",
        ],
        &[
            "--enable-auto-gomemlimit",
            "--log.level=warn",
            "--",
            "sidecar",
        ],
    ] {
        let Ok(Invocation::Run(cli)) = run(flags) else {
            panic!("{flags:?}");
        };
        assert_eq!(cli.global.logging.level, LogLevel::Warn, "{flags:?}");
        assert!(cli.global.memory.enable_auto_gomemlimit, "{flags:?}");
    }
}

#[test]
fn a_separate_value_may_be_negative_or_empty() {
    for value in ["-2h", "--min-time=-2h"] {
        let flags = match value.strip_prefix("--") {
            Some(_) => vec![value],
            None => vec!["--min-time", value],
        };
        let (_, sidecar) = sidecar(&flags);
        assert_eq!(
            sidecar.tsdb.min_time,
            TimeOrDuration::FromNow {
                offset_ms: -7_200_000
            }
        );
    }
    let (_, args) = sidecar(&[
        "--http-address",
        "",
        "--tsdb.path",
        "-.5",
        "--http.config",
        "-",
    ]);
    assert_eq!(args.http.address, "");
    assert_eq!(args.tsdb.path, PathBuf::from("-.5"));
    assert_eq!(args.http.config, Some(PathBuf::from("-")));
}

// === help, version ===

#[test]
fn help_and_version_win_unless_a_flag_is_wrong() {
    let program = printed(&["--help"]);
    assert!(
        program.contains("Commands:\n") && program.contains("sidecar"),
        "{program}"
    );
    assert!(
        program.contains("--version\n") && !program.contains("-V"),
        "{program}"
    );
    for flags in [&["-h"][..], &["help"], &["--help", "--version"]] {
        assert_eq!(printed(flags), program, "{flags:?}");
    }
    let help = printed(&["sidecar", "--help"]);
    for flags in [
        &["sidecar", "-h"][..],
        &["--help", "sidecar"],
        &["help", "sidecar"],
        &["sidecar", "--tsdb.path=x", "-h", "--log.level=unchecked"],
    ] {
        assert_eq!(printed(flags), help, "{flags:?}");
    }
    for flags in [
        &["--version"][..],
        &["sidecar", "--version"],
        &["--version", "--help"],
    ] {
        assert_eq!(printed(flags), version::text(), "{flags:?}");
    }
    assert_eq!(
        problem(&["sidecar", "-h", "--foo"]),
        "unknown long flag '--foo'"
    );
}

#[test]
fn the_version_names_both_programs() {
    let text = version::text();
    let first = text.lines().next().unwrap();
    let begin = format!("outrigger, version {} (branch: ", env!("CARGO_PKG_VERSION"));
    assert!(
        first.starts_with(&begin) && first.contains(", revision: "),
        "{first}"
    );
    assert!(
        text.contains("rustc ") && text.contains("thanos sidecar 0.42.4"),
        "{text}"
    );
}

// === anything ===

proptest! {
    #[test]
    fn any_words_parse_or_are_refused(words in proptest::collection::vec(
        "(sidecar|help|--|-h|-|.{0,6}|\
          --(no-)?(log\\.level|min-time|enable-auto-gomemlimit|tsdb\\.path|x)(=.{0,4})?)",
        0..8,
    )) {
        // Files named at random are left alone.
        let words = words.into_iter().filter(|word| !word.contains('@'));
        let argv = std::iter::once("outrigger".into()).chain(words.map(OsString::from));
        if let Err(error) = parse(argv) {
            let text = ErrorChain(&error).to_string();
            prop_assert!(text.starts_with("error parsing commandline arguments: [outrigger"));
            prop_assert!(!text.ends_with("]: "));
        }
    }
}
