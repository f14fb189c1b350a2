//! The flags and words of `outrigger store`, and what they lead to.

use super::*;

fn store(words: &[&str]) -> StoreCommand {
    let words = ["store"].iter().chain(words).copied();
    match run(&words.collect::<Vec<_>>()) {
        Ok(Invocation::Run(cli)) => match cli.command {
            Command::Store(command) => *command,
            other => panic!("leads to {other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn store_problem(words: &[&str]) -> String {
    problem(&[&["store"], words].concat())
}

#[test]
fn every_value_arrives() {
    let command = store(&[
        "series",
        "--start=-2h",
        "host:10901",
        "--end",
        "2023-11-14T22:00:00Z",
        "--limit=7",
        "up{job=\"a b\"}",
        "--skip-chunks",
        "--without-replica-label=replica",
        "--without-replica-label",
        "rule_replica",
        "--batch-size=-1",
        "--timeout=3s",
        "--output=json",
        "--tls",
        "--tls-ca=/ca",
        "--tls-cert=/cert",
        "--tls-key=/key",
        "--tls-server-name=name",
        "--tls-skip-verify",
    ]);
    let StoreCommand::Series {
        target,
        selector,
        times,
        skip_chunks,
        without_replica_labels,
        batch_size,
    } = command
    else {
        panic!("the words name series");
    };
    assert_eq!(
        (target.address.as_str(), selector.as_str()),
        ("host:10901", "up{job=\"a b\"}")
    );
    let hours_ms = -2 * 3_600_000;
    let two_hours_ago = TimeOrDuration::FromNow {
        offset_ms: hours_ms,
    };
    assert_eq!(times.start, two_hours_ago);
    assert_eq!(
        times.end,
        TimeOrDuration::Time(TimestampMs(1_699_999_200_000))
    );
    assert_eq!((times.limit, batch_size, skip_chunks), (7, -1, true));
    assert_eq!(without_replica_labels, ["replica", "rule_replica"]);
    assert_eq!(target.timeout.to_string(), "3s");
    assert_eq!(target.output, StoreOutput::Json);
    assert!(target.tls && target.tls_skip_verify);
    let path = |path: &str| Some(PathBuf::from(path));
    assert_eq!(
        [&target.tls_ca, &target.tls_cert, &target.tls_key],
        [&path("/ca"), &path("/cert"), &path("/key")]
    );
    assert_eq!(target.tls_server_name, "name");
}

#[test]
fn words_stand_in_their_order_anywhere_and_some_may_be_left_out() {
    for words in [
        &["values", "host:1", "job", "up"][..],
        &[
            "values",
            "host:1",
            "--limit=1",
            "job",
            "--output=json",
            "up",
        ],
        &["--", "values", "host:1", "job", "up"],
        &["values", "--limit", "1", "--", "host:1", "job", "up"],
    ] {
        let StoreCommand::Values {
            target,
            label,
            selector,
            ..
        } = store(words)
        else {
            panic!("{words:?}");
        };
        let found = [target.address, label, selector];
        assert_eq!(found, ["host:1", "job", "up"], "{words:?}");
    }
    // After `--` a word may look like a flag, and a file is not read.
    let StoreCommand::Values { label, .. } = store(&["values", "--", "host:1", "--limit=1"]) else {
        panic!("values");
    };
    assert_eq!(label, "--limit=1");
    let StoreCommand::Labels { selector, .. } = store(&["labels", "--", "host:1", "@x"]) else {
        panic!("labels");
    };
    assert_eq!(selector, "@x");
    for words in [&["labels", "host:1"][..], &["values", "host:1", "job"]] {
        match store(words) {
            StoreCommand::Labels { selector, .. } | StoreCommand::Values { selector, .. } => {
                assert_eq!(selector, "");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    for (words, text) in [
        (&[][..], "command not specified"),
        (&["info"], "required argument 'HOST:PORT' not provided"),
        (&["labels"], "required argument 'HOST:PORT' not provided"),
        (&["values", "h:1"], "required argument 'LABEL' not provided"),
        (
            &["series", "h:1"],
            "required argument 'SELECTOR' not provided",
        ),
        (&["series", "h:1", "up", "more"], "unexpected more"),
        (&["info", "h:1", "up"], "unexpected up"),
        (&["drop"], "expected command but got \"drop\""),
        (
            &["info", "--start=-1h", "h:1"],
            "unknown long flag '--start'",
        ),
        (
            &["info", "h:1", "--output=xml"],
            "enum value must be one of table,json, got 'xml' (flag '--output')",
        ),
        (&["info", "h:1", "--tls=true"], "unexpected true"),
    ] {
        assert_eq!(store_problem(words), text, "{words:?}");
    }
    for flag in [
        "--limit=-1",
        "--batch-size=x",
        "--start=then",
        "--timeout=1",
    ] {
        let text = store_problem(&["series", "h:1", "up", flag]);
        let (name, _) = flag.split_once('=').unwrap();
        assert!(text.ends_with(&format!("(flag '{name}')")), "{text}");
    }
}

#[test]
fn the_help_of_each_command_tells_its_words() {
    let program = printed(&["--help"]);
    assert!(program.contains("store"), "{program}");
    let store = printed(&["store", "--help"]);
    for (name, words) in [
        ("info", "<HOST:PORT>"),
        ("labels", "<HOST:PORT> [SELECTOR]"),
        ("values", "<HOST:PORT> <LABEL> [SELECTOR]"),
        ("series", "<HOST:PORT> <SELECTOR>"),
    ] {
        assert!(store.contains(&format!("  {name}\n")), "{store}");
        // Asking for help, nothing is missing.
        let help = printed(&["store", name, "--help"]);
        let usage = format!("Usage: outrigger store {name} [OPTIONS] {words}\n");
        assert!(help.contains(&usage), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= help::WIDTH));
    }
    assert!(help::usage().contains("outrigger store "));
}

#[test]
fn the_flags_are_those_of_the_committed_list() {
    let list = include_str!("../../../../tests/golden/store_flags.txt");
    assert_flags("store", list);
}
