//! Flags that the pages name, against the golden lists, which the command line is compared with.

use std::collections::{BTreeMap, BTreeSet};

use super::page::{Page, pages};

const SIDECAR: &str = include_str!("../../golden/flags.txt");
const OWN: &str = include_str!("../../golden/own_flags.txt");
const BLOCK: &str = include_str!("../../golden/block_flags.txt");
const STORE: &str = include_str!("../../golden/store_flags.txt");
const BENCH: &str = include_str!("../../golden/bench_flags.txt");

/// Flags of other programs that the pages speak of.
const FOREIGN: &[&str] = &[
    "compact.enable-vertical-compaction",
    "query.max-concurrency",
    "storage.remote.read-concurrent-limit",
    "storage.tsdb.delay-compact-file.path",
    "storage.tsdb.min-block-duration",
    "storage.tsdb.max-block-duration",
    "web.cors.origin",
    "web.enable-admin-api",
    "web.enable-lifecycle",
];

/// Those that every command has.
const GLOBAL: &[&str] = &["help", "version", "debug.name", "log.level", "log.format"];

/// The flags of each command.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::<String, BTreeSet<String>>::new();
    let mut add = |command: String, flag: &str| {
        let flags = known.entry(command).or_default();
        flags.insert(flag.to_owned());
        flags.insert(format!("no-{flag}"));
    };
    let lines = |text: &'static str| {
        let lines = text.lines();
        lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    for line in lines(SIDECAR).chain(lines(OWN)) {
        add("sidecar".to_owned(), line.split('\t').next().unwrap());
    }
    for line in lines(BENCH) {
        add("bench upload".to_owned(), line.split('\t').next().unwrap());
    }
    for (group, text) in [("block", BLOCK), ("store", STORE)] {
        for line in lines(text) {
            let (commands, rest) = line.split_once('\t').unwrap();
            for command in commands.split(',') {
                add(
                    format!("{group} {command}"),
                    rest.split('\t').next().unwrap(),
                );
            }
        }
    }
    known
}

/// The name of the flag that a word is.
fn flag(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--")?;
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || ".-_".contains(c)));
    let name = name[..end.unwrap_or(name.len())].trim_end_matches('.');
    // `--[no-]x` is a form of prose, `--` of shells.
    (!name.is_empty()).then_some(name)
}

/// Calls of outrigger in a fence: the command, and its flags.
fn calls(text: &str) -> Vec<(String, Vec<String>)> {
    let joined = text.replace("\\\n", " ");
    let mut calls = Vec::new();
    for line in joined.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_program = |word: &&str| *word == "outrigger" || word.ends_with("/outrigger");
        let Some(at) = words.iter().position(is_program) else {
            continue;
        };
        let is_command = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
        let command = words[at + 1..].iter().take_while(is_command);
        let most = match words.get(at + 1) {
            Some(&("block" | "store" | "bench")) => 2,
            Some(&"sidecar") => 1,
            _ => continue,
        };
        let command: Vec<&str> = command.copied().take(most).collect();
        let flags = words[at + 1..].iter().filter_map(|word| flag(word));
        calls.push((command.join(" "), flags.map(str::to_owned).collect()));
    }
    calls
}

/// Names of flags that there are not.
fn unknown(page: &Page) -> Vec<String> {
    let known = known();
    let is_global = |flag: &str| GLOBAL.contains(&flag);
    let is_any = |flag: &str| is_global(flag) || known.values().any(|flags| flags.contains(flag));
    let mut found = Vec::new();
    for fence in page.fences() {
        for (command, flags) in calls(&fence.text) {
            let has = known.get(&command);
            let has = has.unwrap_or_else(|| panic!("{}: no `{command}`", fence.place));
            let flags = flags.iter();
            let wrong = flags.filter(|flag| !has.contains(*flag) && !is_global(flag));
            found.extend(wrong.map(|flag| format!("{}: {command} --{flag}", fence.place)));
        }
        if fence.info != "yaml" {
            continue;
        }
        // Arguments of a container, and those that the operator is given without dashes.
        for word in fence.text.split_whitespace() {
            if flag(word).is_some_and(|flag| !is_any(flag) && !FOREIGN.contains(&flag)) {
                found.push(format!("{}: {word}", fence.place));
            }
        }
        let names = fence
            .text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- name: "));
        for name in names.filter(|name| name.contains('.')) {
            if !is_any(name) {
                found.push(format!("{}: {name}", fence.place));
            }
        }
    }
    for (place, span) in page.spans() {
        for flag in span.split_whitespace().filter_map(flag) {
            if !is_any(flag) && !FOREIGN.contains(&flag) {
                found.push(format!("{place}: --{flag}"));
            }
        }
    }
    found
}

#[test]
fn each_flag_that_is_named_is_there() {
    let found: Vec<String> = pages().iter().flat_map(unknown).collect();
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(unknown(&Page::read("README.md")), Vec::<String>::new());
}

#[test]
fn own_flags_are_documented_and_foreign_ones_named() {
    let table = Page::read("docs/migration.md").rows(&["Flag", "Default", "For", "More"]);
    let rows: BTreeSet<&str> = table
        .iter()
        .map(|cells| cells[0].trim_matches('`'))
        .collect();
    let lines = OWN.lines().filter(|line| !line.starts_with('#'));
    let own: Vec<String> = lines
        .map(|line| format!("--{}", line.split('\t').next().unwrap()))
        .collect();
    assert_eq!(rows, own.iter().map(String::as_str).collect());
    let all = pages().into_iter().chain([Page::read("README.md")]);
    let text: String = all.map(|page| page.text).collect();
    for foreign in FOREIGN {
        assert!(
            text.contains(foreign),
            "{foreign} is not spoken of any more"
        );
    }
}

#[test]
fn a_flag_that_is_not_there_is_found() {
    let page = Page {
        path: "p.md".to_owned(),
        text: "Set `--no-such-flag` or `--log.level=debug`.\n\n```console\noutrigger store info \
               x:1 \\\n  --tls-cert=a --deep\noutrigger block verify --deep /x\n```\n\n```yaml\n\
               - name: shipper.max-speed\n- --tsdb.pathh=/x\n```\n"
            .to_owned(),
    };
    assert_eq!(unknown(&page).len(), 4, "{:?}", unknown(&page));
}
