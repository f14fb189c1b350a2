//! Manual pages and completions: they show every flag, and their readers can read them.

use std::path::Path;
use std::process::Command;

use clap::{Arg, ArgAction};
use tempfile::TempDir;

use super::form::{Reader, choices, command};
use super::{completions, has, man, printed};

fn written() -> TempDir {
    let directory = TempDir::with_prefix("outrigger-it-").unwrap();
    man::write(&directory.path().join("man")).unwrap();
    completions::write(&directory.path().join("completions")).unwrap();
    directory
}

/// Every command that is no group, by its words, with its flags.
fn commands(reader: Reader) -> Vec<(Vec<String>, Vec<Arg>)> {
    fn collect(
        command: &clap::Command,
        words: &[String],
        found: &mut Vec<(Vec<String>, Vec<Arg>)>,
    ) {
        let words = [words, &[command.get_name().to_owned()]].concat();
        let flags = command
            .get_arguments()
            .filter(|arg| arg.get_long().is_some());
        found.push((words.clone(), flags.cloned().collect()));
        for below in command.get_subcommands() {
            collect(below, &words, found);
        }
    }
    let mut root = command(reader);
    root.build();
    let mut found = Vec::new();
    collect(&root, &[], &mut found);
    found
}

#[test]
fn each_command_has_a_page_with_all_its_flags() {
    let written = written();
    let commands = commands(Reader::Human);
    assert!(commands.len() > 12);
    for (words, flags) in commands {
        let path = written
            .path()
            .join("man")
            .join(format!("{}.1", words.join("-")));
        let page = std::fs::read_to_string(&path).unwrap();
        // As it is read: roff writes each dash with a backslash.
        let page = page.replace('\\', "");
        let title = format!(".TH {} 1 ", words.join("-").to_uppercase());
        assert!(page.contains(&title), "{page}");
        for flag in flags {
            let name = format!("fB--{}fR", flag.get_long().unwrap());
            assert_eq!(
                page.contains(&name),
                !flag.is_hide_set(),
                "{words:?} {name}"
            );
            let default = flag
                .get_default_values()
                .first()
                .and_then(|value| value.to_str());
            let takes_value = matches!(flag.get_action(), ArgAction::Set);
            if let Some(default) = default.filter(|_| takes_value && !flag.is_hide_set()) {
                assert!(
                    page.contains(&format!("[default: {default}]")),
                    "{words:?} {name}"
                );
            }
        }
    }
}

#[test]
fn pages_are_the_same_whenever_they_are_written() {
    let (first, second) = (written(), written());
    for directory in ["man", "completions"] {
        let names = std::fs::read_dir(first.path().join(directory)).unwrap();
        for name in names.map(|entry| entry.unwrap().file_name()) {
            let read = |from: &Path| std::fs::read(from.join(directory).join(&name)).unwrap();
            assert_eq!(read(first.path()), read(second.path()), "{name:?}");
        }
    }
}

#[test]
fn groff_has_nothing_to_say() {
    if !has("groff", "manual pages rendered") {
        return;
    }
    let written = written();
    for entry in std::fs::read_dir(written.path().join("man")).unwrap() {
        let path = entry.unwrap().path();
        let output = Command::new("groff")
            .args(["-man", "-Tascii", "-ww", "-rLL=80n"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // Long names of flags can't be broken; that is no fault of the page.
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.contains("break, p"))
            .collect();
        let said: Vec<&&str> = said
            .iter()
            .filter(|line| !line.contains("adjust line"))
            .collect();
        assert!(
            output.status.success() && said.is_empty(),
            "{path:?}: {said:?}"
        );
    }
}

/// What bash offers for the words, the last of which is being typed.
fn bash_offers(script: &Path, words: &[&str]) -> Vec<String> {
    let ask = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _outrigger "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask, "bash"])
        .arg(script)
        .args(words);
    printed(&mut bash).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let written = written();
    let script = written.path().join("completions/outrigger.bash");
    let offers = |words: &[&str]| bash_offers(&script, words);
    assert!(offers(&["outrigger", "bl"]).contains(&"block".to_owned()));
    assert_eq!(
        offers(&["outrigger", "sidecar", "--no-store.l"]),
        ["--no-store.local-blocks"]
    );
    assert_eq!(
        offers(&["outrigger", "sidecar", "--io.engine", ""]),
        ["auto", "uring", "pread"]
    );
    let all = offers(&["outrigger", "sidecar", "--"]);
    let of_sidecar = commands(Reader::Shell)
        .into_iter()
        .find(|(words, _)| words[1..] == ["sidecar"]);
    let (_, flags) = of_sidecar.unwrap();
    assert!(flags.len() > 60);
    for flag in flags.iter().filter(|flag| !flag.is_hide_set()) {
        let name = format!("--{}", flag.get_long().unwrap());
        assert!(all.contains(&name), "{name}");
    }
}

#[test]
fn closed_lists_of_values_are_known() {
    let (_, flags) = commands(Reader::Human)
        .into_iter()
        .find(|(words, _)| words.len() == 1)
        .unwrap();
    let level = flags
        .iter()
        .find(|flag| flag.get_long() == Some("log.level"))
        .unwrap();
    assert_eq!(choices(level).unwrap(), ["error", "warn", "info", "debug"]);
    let name = flags
        .iter()
        .find(|flag| flag.get_long() == Some("debug.name"))
        .unwrap();
    assert_eq!(choices(name), None);
}

#[test]
fn zsh_and_fish_can_read_theirs() {
    let written = written();
    for (shell, name) in [("zsh", "_outrigger"), ("fish", "outrigger.fish")] {
        let script = written.path().join("completions").join(name);
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.contains("no-store.local-blocks"), "{name}");
        if has(shell, &format!("completions read by {shell}")) {
            printed(Command::new(shell).arg("-n").arg(&script));
        }
    }
}

#[test]
fn fish_finds_the_command_behind_flags() {
    if !has("fish", "completions asked of fish") {
        return;
    }
    let written = written();
    let script = written.path().join("completions/outrigger.fish");
    let offers = |line: &str| {
        let ask = format!("source {}; complete -C '{line}'", script.display());
        printed(Command::new("fish").args(["--no-config", "-c", &ask]))
    };
    assert!(
        offers("outrigger --log.level debug sidecar --no-store")
            .starts_with("--no-store.local-blocks")
    );
    assert!(offers("outrigger sidecar --log.level ").contains("debug"));
    assert!(offers("outrigger blo").starts_with("block"));
}
