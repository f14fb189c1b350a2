//! The flags and words of `outrigger block`, and what they lead to.

use super::*;

fn block(words: &[&str]) -> BlockCommand {
    let words = ["block"].iter().chain(words).copied();
    match run(&words.collect::<Vec<_>>()) {
        Ok(Invocation::Run(cli)) => match cli.command {
            Command::Block(command) => *command,
            other => panic!("leads to {other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_value_arrives() {
    let BlockCommand::Dump(dump) = block(&[
        "dump",
        "--match=up",
        "/data/01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "--match",
        "{job=~\"a,b\"}",
        "--min-time=2023-11-14T22:00:00Z",
        "--max-time",
        "-2h",
        "--output=json",
    ]) else {
        panic!("the words name dump");
    };
    assert_eq!(
        dump.block,
        PathBuf::from("/data/01ARZ3NDEKTSV4RRFFQ69G5FAV")
    );
    assert_eq!(dump.selectors, ["up", "{job=~\"a,b\"}"]);
    let clock = Clock::fixed(i128::from(7_200_000) * 1_000_000);
    assert_eq!(dump.min_time.at(&clock), TimestampMs(1_699_999_200_000));
    assert_eq!(dump.max_time.at(&clock), TimestampMs(0));
    assert_eq!(dump.output, DumpOutput::Json);

    let BlockCommand::Verify {
        blocks,
        deep,
        output,
    } = block(&["verify", "a", "--deep", "b", "--output=json", "c"])
    else {
        panic!("the words name verify");
    };
    assert_eq!(blocks, ["a", "b", "c"].map(PathBuf::from));
    assert!(deep);
    assert_eq!(output.format, OutputFormat::Json);

    let BlockCommand::Inspect {
        block: inspected,
        limit,
        ..
    } = block(&["inspect", "--limit=3", "d"])
    else {
        panic!("the words name inspect");
    };
    assert_eq!((inspected, limit), (PathBuf::from("d"), 3));

    let BlockCommand::Ls { directory, output } = block(&["ls", "e"]) else {
        panic!("the words name ls");
    };
    assert_eq!(
        (directory, output.format),
        (PathBuf::from("e"), OutputFormat::Table)
    );
}

#[test]
fn bad_words_say_what_is_good() {
    for (words, text) in [
        (&["ls"][..], "required argument 'DIR' not provided"),
        (&["ls", "a", "b"], "unexpected b"),
        (&["verify"], "required argument 'BLOCK' not provided"),
        (&["dump"], "required argument 'BLOCK' not provided"),
        (&["dump", "a", "--deep"], "unknown long flag '--deep'"),
        (&["prune"], "expected command but got \"prune\""),
        (&[], "command not specified"),
        (
            &["dump", "a", "--output=table"],
            "enum value must be one of openmetrics,json, got 'table' (flag '--output')",
        ),
        (
            &["verify", "a", "--output=xml"],
            "enum value must be one of table,json, got 'xml' (flag '--output')",
        ),
    ] {
        let words = [&["block"], words].concat();
        assert_eq!(problem(&words), text, "{words:?}");
    }
}

#[test]
fn the_help_of_each_command_tells_its_words() {
    assert!(printed(&["--help"]).contains("  block\n"));
    for (name, words) in [
        ("ls", "<DIR>"),
        ("inspect", "<BLOCK>"),
        ("verify", "<BLOCK>..."),
        ("dump", "<BLOCK>"),
    ] {
        let help = printed(&["block", name, "--help"]);
        let usage = format!("Usage: outrigger block {name} [OPTIONS] {words}\n");
        assert!(help.contains(&usage), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= help::WIDTH));
    }
    assert!(help::usage().contains("outrigger block "));
}

#[test]
fn the_flags_are_those_of_the_committed_list() {
    let list = include_str!("../../../../tests/golden/block_flags.txt");
    assert_flags("block", list);
}
