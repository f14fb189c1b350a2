//! The binary's exit codes and what it prints where (contract `cli.md` §5).

use std::process::{Command, Output};

/// Runs the binary with nothing of our environment but what a test sets.
pub(crate) fn outrigger(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.args(arguments).env_clear();
    command.envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text on stdout")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text on stderr")
}

#[test]
fn help_and_version_end_with_0() {
    for arguments in [&["--help"][..], &["sidecar", "-h"], &["help"]] {
        let output = outrigger(arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            stdout(&output).contains("Usage: outrigger"),
            "{arguments:?}"
        );
        assert_eq!(stderr(&output), "");
    }
    let output = outrigger(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("outrigger, version "));
}

#[test]
fn a_wrong_command_line_ends_with_2_usage_and_error() {
    for (arguments, problem) in [
        (&[][..], "command not specified"),
        (&["sidecar", "--foo"], "unknown long flag '--foo'"),
        (&["sidecar", "stray"], "unexpected stray"),
        (
            &["sidecar", "--shipper.upload-compacted=true"],
            "unexpected true",
        ),
        (
            &["sidecar", "--log.level=loud"],
            "enum value must be one of error,warn,info,debug, got 'loud'",
        ),
        (
            &["sidecar", "--tsdb.path=a", "--tsdb.path=b"],
            "flag 'tsdb.path' cannot be repeated",
        ),
        (
            &["sidecar", "--grpc-grace-period=1y"],
            "time: unknown unit \"y\" in duration \"1y\"",
        ),
        (
            &["sidecar", "@/nonexistent"],
            "failed to open arguments file \"/nonexistent\"",
        ),
    ] {
        let output = outrigger(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "");
        let text = stderr(&output);
        assert!(
            text.starts_with("usage: outrigger sidecar [<flags>]\n"),
            "{text}"
        );
        let last = text.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("error parsing commandline arguments: ["),
            "{text}"
        );
        assert!(last.contains(&format!("]: {problem}")), "{text}");
    }
}

#[test]
fn what_cannot_be_started_ends_with_1_and_says_why() {
    for (flags, problem) in [
        (
            &["--auto-gomemlimit.ratio=2"][..],
            "auto-gomemlimit.ratio must be greater than 0",
        ),
        (
            &["--prometheus.get_config_interval=0"],
            "prometheus.get_config_interval must be greater than 0",
        ),
        (
            &["--grpc-server-tls-cert=c"],
            "setup gRPC server: both server key and certificate must be provided",
        ),
        (
            &["--grpc-server-tls-client-ca=c"],
            "setup gRPC server: when a client CA is used a server key and certificate must also",
        ),
        (
            &["--http.config=/nonexistent.yml"],
            "server could not be started: reading web configuration file /nonexistent.yml: No such",
        ),
        (
            &["--grpc-server-tls-cert=c", "--grpc-server-tls-key=k"],
            "setup gRPC server: reading c: No such file",
        ),
        (
            &["--objstore.config=a", "--objstore.config-file=b"],
            "both objstore.config-file and objstore.config flags set.",
        ),
        (
            &["--objstore.config-file=/nonexistent"],
            "loading file /nonexistent for objstore.config-file: No such file",
        ),
        (
            &["--objstore.config=$(OUTRIGGER_TEST_UNSET)"],
            "found reference to unset environment variable \\\"OUTRIGGER_TEST_UNSET\\\"",
        ),
    ] {
        let arguments = [&["sidecar"], flags].concat();
        let output = outrigger(&arguments, &[]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{flags:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "");
        let text = stderr(&output);
        let line = text.lines().last().unwrap_or_default();
        assert!(
            line.starts_with("ts=") && line.contains(" level=error "),
            "{text}"
        );
        assert!(
            line.contains("err=\"preparing sidecar command failed: "),
            "{text}"
        );
        assert!(line.contains(problem), "{text}");
    }
}

/// A wrong bucket variable ends every one of these runs before anything is opened.
const ENDS_EARLY: &str = "--objstore.config=$(OUTRIGGER_TEST_UNSET)";

#[test]
fn a_flag_without_effect_is_told() {
    let flags = ["sidecar", "--auto-gomemlimit.ratio=0.5", ENDS_EARLY];
    let text = stderr(&outrigger(&flags, &[]));
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("flag has no effect"))
        .collect();
    assert_eq!(told.len(), 1, "{text}");
    assert!(
        told[0].contains("flag=auto-gomemlimit.ratio") && told[0].contains("level=info"),
        "{text}"
    );
}

#[test]
fn the_log_has_the_form_and_level_that_were_asked_for() {
    let json = [
        "sidecar",
        "--log.format=json",
        "--debug.name=me",
        "--auto-gomemlimit.ratio=0.5",
        ENDS_EARLY,
    ];
    for line in stderr(&outrigger(&json, &[])).lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object per line");
        assert_eq!(object["name"], "me", "{line}");
        assert!(
            object["ts"].is_string() && object["caller"].is_string(),
            "{line}"
        );
    }
    let hushed = [
        "sidecar",
        "--log.level=error",
        "--auto-gomemlimit.ratio=0.5",
        ENDS_EARLY,
    ];
    let text = stderr(&outrigger(&hushed, &[]));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(" level=error "), "{text}");
}

#[test]
fn a_journal_that_is_not_there_ends_with_1() {
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        return;
    }
    let output = outrigger(&["sidecar", "--log.format=journald"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "failed to create logger: journald log format requested but systemd journal is \
                    not available";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn variables_come_from_the_process_environment() {
    let flags = [
        "sidecar",
        "--objstore.config=$(OUTRIGGER_TEST_SET) $(OUTRIGGER_TEST_EMPTY) $(OUTRIGGER_TEST_UNSET)",
    ];
    let variables = [("OUTRIGGER_TEST_SET", "x"), ("OUTRIGGER_TEST_EMPTY", "")];
    let text = stderr(&outrigger(&flags, &variables));
    assert!(text.contains("\\\"OUTRIGGER_TEST_UNSET\\\""), "{text}");
    assert!(!text.contains("OUTRIGGER_TEST_SET"), "{text}");
}
