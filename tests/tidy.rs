//! House rules that the compiler does not know, as tests: layers, names, lengths, layout.
//!
//! Inside one crate nothing but this file stops modules from importing each other in circles, so
//! the table of allowed edges stands here. Every rule is a function from text to violations, and
//! is itself tested with a text that breaks it. Rules which speak of code see it without comments
//! and literals (`Code`), so prose and fixtures may name anything.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use code::{Code, is_word};

#[path = "tidy/code.rs"]
mod code;

/// Top-level modules, their layer, and what they may import. Imports go down only; a module
/// without a row fails. Rows may stand before their module does.
const LAYERS: &[(&str, u8, &str)] = &[
    ("main", 6, "app"),
    (
        "app",
        5,
        "api shipper store query reloader otlp objstore prometheus tsdb net disk confinement model \
         lifecycle proto trace",
    ),
    ("api", 4, "store query prometheus net proto model lifecycle"),
    ("shipper", 3, "objstore disk tsdb model lifecycle trace"),
    (
        "store",
        3,
        "prometheus tsdb disk proto model lifecycle trace",
    ),
    ("query", 3, "prometheus proto model lifecycle"),
    ("reloader", 3, "prometheus disk model lifecycle"),
    ("objstore", 2, "net disk model lifecycle trace"),
    ("otlp", 2, "net model lifecycle trace"),
    ("prometheus", 2, "net proto model lifecycle trace"),
    ("tsdb", 1, "model"),
    ("net", 1, "lifecycle trace"),
    ("disk", 1, "lifecycle"),
    ("confinement", 0, ""),
    ("model", 0, ""),
    ("lifecycle", 0, ""),
    ("proto", 0, ""),
    ("trace", 0, ""),
];

/// Façades below a top-level module: one for each protocol that `net` speaks, and what is there
/// for the tests of other modules.
const INNER_FACADES: &[&str] = &["net::http", "net::grpc", "tsdb::testing"];

/// Generated code, whose modules are the packages and messages of the protocol: all is façade.
const GENERATED: &str = "proto";

/// Words that may stand in code only in the named files.
const CONFINED: &[(&str, &[&str])] = &[
    ("tokio_uring", &["src/disk/uring.rs"]),
    ("io_uring", &["src/disk/uring.rs"]),
    ("memmap2", &["src/disk/mmap.rs"]),
    (
        "unsafe",
        &[
            "src/disk/uring.rs",
            "src/disk/mmap.rs",
            "src/disk/buffer.rs",
            "src/disk/residency.rs",
        ],
    ),
];

/// A helper belongs to a noun (style rule 7); these are not nouns of the field.
const BANNED_NAMES: &[&str] = &[
    "utils",
    "util",
    "common",
    "helpers",
    "helper",
    "misc",
    "util_test",
    "test_utils",
];

/// Files and directories that the root of the repository may hold; the first group must exist.
const ROOT_REQUIRED: &[&str] = &[
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "docs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "src",
    "tests",
];
const ROOT_OPTIONAL: &[&str] = &[
    ".cargo",
    ".dockerignore",
    ".gitattributes",
    ".github",
    "benches",
    "fuzz",
    "packages",
    "perf",
    "proto",
];
const ROOT_IGNORED: &[&str] = &[".git", "target"];

const COLUMNS_MAX: usize = 100;
const FN_LINES_MAX: usize = 70;
const TEST_FN_LINES_MAX: usize = 100;
const SRC_FILE_LINES_MAX: usize = 600;
const TEST_FILE_LINES_MAX: usize = 1000;

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

// === Layers and imports ===

/// The paths named below `crate::` (and `outrigger::` in the binary), braces unfolded.
fn crate_paths(code: &Code) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for (offset, word) in code.words() {
        let after = offset + word.len();
        if (word == "crate" || word == "outrigger") && code.bytes[after..].starts_with(b"::") {
            unfold(code, after + 2, &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// Reads one path, or a braced list of them, that starts at `at`.
fn unfold(code: &Code, at: usize, prefix: &mut Vec<String>, paths: &mut Vec<(usize, Vec<String>)>) {
    let at = skip_space(code, at);
    if code.bytes.get(at) == Some(&b'{') {
        let end = code.closing(at);
        let (mut start, mut depth) = (at + 1, 0usize);
        for i in at + 1..=end.min(code.bytes.len() - 1) {
            match code.bytes[i] {
                b'{' => depth += 1,
                b'}' if depth > 0 => depth -= 1,
                b',' | b'}' if depth == 0 => {
                    let from = skip_space(code, start);
                    if from < i {
                        unfold(code, from, &mut prefix.clone(), paths);
                    }
                    start = i + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let len = code.bytes[at..].iter().take_while(|b| is_word(**b)).count();
    if len > 0 {
        prefix.push(String::from_utf8_lossy(&code.bytes[at..at + len]).into_owned());
    }
    let next = skip_space(code, at + len);
    if len > 0 && code.bytes[next..].starts_with(b"::") {
        unfold(code, next + 2, prefix, paths);
    } else {
        paths.push((at, prefix.clone()));
    }
}

fn skip_space(code: &Code, at: usize) -> usize {
    let blanks = code.bytes[at.min(code.bytes.len())..].iter();
    at + blanks.take_while(|b| b.is_ascii_whitespace()).count()
}

/// The top-level module that a file under `src` belongs to.
fn module_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    let first = below.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then_some(name)
}

fn layer_violations(path: &str, text: &str) -> Vec<Violation> {
    let Some(module) = module_of(path) else {
        return Vec::new();
    };
    let Some((_, _, allowed)) = LAYERS.iter().find(|(name, _, _)| *name == module) else {
        let what = format!("module `{module}` has no row in the table of layers");
        return vec![Violation::new(path, 1, what)];
    };
    let code = Code::new(text);
    let mut found = Vec::new();
    for (offset, segments) in crate_paths(&code) {
        let Some(target) = segments.first() else {
            continue;
        };
        let line = code.line_of(offset);
        let is_module = LAYERS.iter().any(|(name, _, _)| name == target);
        if target == module || !is_module {
            continue;
        }
        if !allowed.split(' ').any(|name| name == target) {
            found.push(Violation::new(
                path,
                line,
                format!("`{module}` may not import `{target}`"),
            ));
        }
        if target == GENERATED {
            continue;
        }
        let named = segments.get(1).map(|inner| format!("{target}::{inner}"));
        let facade = match &named {
            Some(inner) if INNER_FACADES.contains(&inner.as_str()) => 2,
            _ => 1,
        };
        let inner = segments.get(facade).filter(|_| segments.len() > facade + 1);
        if let Some(inner) = inner.filter(|s| s.starts_with(|c: char| c.is_ascii_lowercase())) {
            let facade = segments[..facade].join("::");
            let what = format!("`{facade}::{inner}` is behind the façade of `{facade}`");
            found.push(Violation::new(path, line, what));
        }
    }
    found
}

fn import_form_violations(path: &str, text: &str) -> Vec<Violation> {
    let code = Code::new(text);
    let mut found = Vec::new();
    let words = code.words();
    for (i, (offset, word)) in words.iter().enumerate() {
        let line = code.line_of(*offset);
        let after = offset + word.len();
        if *word == "super" && code.bytes[after..].starts_with(b"::super") {
            found.push(Violation::new(
                path,
                line,
                "climbs two modules; name it from `crate::`",
            ));
        }
        if *word == "use" && i > 0 {
            let statement_end = code.bytes[after..].iter().position(|b| *b == b';');
            let statement = &code.bytes[after..after + statement_end.unwrap_or(0)];
            let before = &code.bytes[..*offset];
            let is_public = words[i - 1].1 == "pub" || before.trim_ascii_end().ends_with(b")");
            if is_public && statement.contains(&b'*') {
                found.push(Violation::new(
                    path,
                    line,
                    "re-exports by glob; name what is public",
                ));
            }
        }
    }
    found
}

// === Names and confined words ===

fn head_violations(path: &str, text: &str) -> Vec<Violation> {
    if text.starts_with("//! ") && text.lines().next().is_some_and(|l| l.len() > 20) {
        return Vec::new();
    }
    vec![Violation::new(
        path,
        1,
        "does not open with a `//!` line that says why it exists",
    )]
}

fn name_violations(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for part in path.split('/') {
        if BANNED_NAMES.contains(&part.strip_suffix(".rs").unwrap_or(part)) {
            found.push(Violation::new(
                path,
                1,
                format!("`{part}` names no noun of the field"),
            ));
        }
    }
    let code = Code::new(text);
    for pair in code.words().windows(2) {
        let [(_, keyword), (offset, name)] = pair else {
            continue;
        };
        let declares = ["mod", "fn", "struct", "enum", "trait", "type"].contains(keyword);
        if declares && BANNED_NAMES.contains(&name.to_ascii_lowercase().as_str()) {
            let what = format!("`{name}` names no noun of the field");
            found.push(Violation::new(path, code.line_of(*offset), what));
        }
    }
    found
}

fn confined_violations(path: &str, text: &str) -> Vec<Violation> {
    let code = Code::new(text);
    let mut found = Vec::new();
    for (offset, word) in code.words() {
        let rule = CONFINED.iter().find(|(confined, _)| *confined == word);
        if let Some((_, files)) = rule.filter(|(_, files)| !files.contains(&path)) {
            let what = format!("`{word}` may stand only in {}", files.join(", "));
            found.push(Violation::new(path, code.line_of(offset), what));
        }
    }
    found
}

/// Environment and clocks are read in `app` (and in the build script); elsewhere they are values.
fn ambient_violations(path: &str, text: &str) -> Vec<Violation> {
    // Chooses the disk engine of the test suite, from outside; not in the product.
    const OF_TESTS: &str = "src/disk/testing.rs";
    if !path.starts_with("src/") || path.starts_with("src/app/") {
        return Vec::new();
    }
    let code = Code::new(text);
    let dense: Vec<&str> = code.words().into_iter().map(|(_, word)| word).collect();
    let offsets: Vec<usize> = code.words().into_iter().map(|(offset, _)| offset).collect();
    let mut found = Vec::new();
    for (i, pair) in dense.windows(2).enumerate() {
        let [first, second] = pair else { continue };
        let tokio = i > 0 && ["time", "tokio"].contains(&dense[i - 1]);
        let reads = match (*first, *second) {
            ("std", "env") if path != OF_TESTS => "the environment",
            ("SystemTime" | "Zoned" | "Timestamp", "now") => "the wall clock",
            ("Instant", "now") if !tokio && !text.contains("tokio::time::") => "std's clock",
            _ => continue,
        };
        let what = format!("reads {reads}; only `app` may");
        found.push(Violation::new(path, code.line_of(offsets[i]), what));
    }
    found
}

/// Open questions and paths of somebody's machine, in any text of the repository.
fn text_violations(path: &str, text: &str) -> Vec<Violation> {
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let places = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/wo", "rk/"),
    ];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if markers.contains(&word) {
                let what = format!("`{word}`: answer it or file an issue");
                found.push(Violation::new(path, number + 1, what));
            }
        }
        for place in places {
            let own = line.find(place).filter(|at| {
                let before = line[..*at].chars().next_back();
                !before.is_some_and(|c| c.is_ascii_alphanumeric() || "._-}".contains(c))
            });
            if own.is_some() {
                found.push(Violation::new(
                    path,
                    number + 1,
                    format!("names `{place}…`"),
                ));
            }
        }
    }
    found
}

// === Lengths ===

/// Whether the whole file is test code.
fn is_test_file(path: &str) -> bool {
    !path.starts_with("src/") && path != "build.rs"
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
}

/// The line on which the file's trailing `#[cfg(test)] mod tests` begins, or past its end.
fn tests_start_line(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod tests")
    });
    start.map_or(lines.len() + 1, |at| at + 1)
}

fn length_violations(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let what = format!("{columns} columns, at most {COLUMNS_MAX}");
            found.push(Violation::new(path, number + 1, what));
        }
    }
    let is_test = is_test_file(path);
    let tests_start = tests_start_line(text);
    let (lines, lines_max) = if is_test {
        (text.lines().count(), TEST_FILE_LINES_MAX)
    } else {
        (tests_start - 1, SRC_FILE_LINES_MAX)
    };
    if lines > lines_max {
        found.push(Violation::new(
            path,
            1,
            format!("{lines} lines, at most {lines_max}"),
        ));
    }
    for function in functions(&Code::new(text)) {
        let in_tests = is_test || function.line >= tests_start;
        let max = if in_tests {
            TEST_FN_LINES_MAX
        } else {
            FN_LINES_MAX
        };
        if function.lines > max {
            let what = format!(
                "`{}` has {} lines, at most {max}",
                function.name, function.lines
            );
            found.push(Violation::new(path, function.line, what));
        }
    }
    found
}

struct Function {
    name: String,
    line: usize,
    /// Lines of the body that hold code: blank lines and comments are free.
    lines: usize,
}

fn functions(code: &Code) -> Vec<Function> {
    let mut functions = Vec::new();
    for pair in code.words().windows(2) {
        let [(offset, "fn"), (name_at, name)] = pair else {
            continue;
        };
        if code.bytes[offset + 2..*name_at].contains(&b'(') {
            continue; // a function pointer type
        }
        let Some(open) = body_start(code, name_at + name.len()) else {
            continue;
        };
        let body = &code.bytes[open..code.closing(open).min(code.bytes.len())];
        let lines = body
            .split(|b| *b == b'\n')
            .filter(|line| !line.trim_ascii().is_empty());
        functions.push(Function {
            name: (*name).to_owned(),
            line: code.line_of(*offset),
            lines: lines.count().saturating_sub(1),
        });
    }
    functions
}

/// The brace that opens the body of the function whose signature goes on at `at`; `None` where
/// the declaration has no body.
fn body_start(code: &Code, at: usize) -> Option<usize> {
    let mut at = at;
    while at < code.bytes.len() {
        match code.bytes[at] {
            b'(' | b'[' => at = code.closing(at),
            b'{' => return Some(at),
            b';' => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

// === Changelog and layout ===

fn changelog_violations(path: &str, text: &str) -> Vec<Violation> {
    const KINDS: &[&str] = &[
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    ];
    let mut found = Vec::new();
    let mut sections = Vec::new();
    if text.lines().next() != Some("# Changelog") {
        found.push(Violation::new(path, 1, "does not open with `# Changelog`"));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("### ") {
            if !KINDS.contains(&kind) {
                let what = format!("`{kind}` is not a kind of change ({})", KINDS.join(", "));
                found.push(Violation::new(path, number + 1, what));
            }
        } else if let Some(section) = line.strip_prefix("## ") {
            let ok = if sections.is_empty() {
                section == "[Unreleased]"
            } else {
                is_release_heading(section)
            };
            if !ok {
                let what = "sections are `[Unreleased]` first, then `[1.2.3] - 2026-01-31`";
                found.push(Violation::new(path, number + 1, what));
            }
            sections.push(section);
        }
    }
    if sections.is_empty() {
        found.push(Violation::new(path, 1, "has no `## [Unreleased]` section"));
    }
    found
}

fn is_release_heading(section: &str) -> bool {
    let Some((version, date)) = section.split_once(" - ") else {
        return false;
    };
    let numbers = |text: &str, separator: char, widths: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        parts.len() == 3
            && parts.iter().zip(widths).all(|(part, width)| {
                part.bytes().all(|b| b.is_ascii_digit())
                    && !part.is_empty()
                    && (*width == 0 || part.len() == *width)
            })
    };
    let bare = version.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
    bare.is_some_and(|v| numbers(v, '.', &[0, 0, 0])) && numbers(date, '-', &[4, 2, 2])
}

fn layout_violations(entries: &BTreeSet<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    for required in ROOT_REQUIRED {
        if !entries.contains(*required) {
            found.push(Violation::new(required, 0, "is missing"));
        }
    }
    for entry in entries {
        let known = [ROOT_REQUIRED, ROOT_OPTIONAL, ROOT_IGNORED].concat();
        if !known.contains(&entry.as_str()) {
            found.push(Violation::new(
                entry,
                0,
                "is not part of the top-level layout",
            ));
        }
    }
    found
}

// === The repository ===

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository with its path from the root.
fn texts() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut waiting = vec![root().to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("readable directory") {
            let path: PathBuf = entry.expect("readable entry").path();
            let relative = path.strip_prefix(root()).expect("below the root");
            let relative = relative.to_str().expect("UTF-8 path").to_owned();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .expect("UTF-8 name");
            if path.is_dir() {
                let generated = ["target", ".git", "corpus", "corpus-local", "artifacts"];
                if !generated.contains(&name) {
                    waiting.push(path);
                }
            } else if !["LICENSE", "Cargo.lock", ".git"].contains(&name)
                && let Ok(text) = fs::read_to_string(&path)
            {
                files.push((relative, text));
            }
        }
    }
    files.sort();
    assert!(
        files.iter().any(|(path, _)| path == "src/lib.rs"),
        "walks the wrong tree"
    );
    files
}

/// Applies a rule to every `.rs` file and fails with all that it finds.
fn check_sources(rule: fn(&str, &str) -> Vec<Violation>) {
    let sources = texts()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"));
    report(
        sources
            .flat_map(|(path, text)| rule(&path, &text))
            .collect(),
    );
}

fn report(violations: Vec<Violation>) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} violation(s)\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn imports_go_down_and_through_facades() {
    check_sources(layer_violations);
}

#[test]
fn imports_have_the_house_form() {
    check_sources(import_form_violations);
}

#[test]
fn every_source_says_why_it_exists() {
    check_sources(head_violations);
}

#[test]
fn names_are_nouns_of_the_field() {
    check_sources(name_violations);
}

#[test]
fn dangerous_words_stay_in_their_files() {
    check_sources(confined_violations);
}

#[test]
fn only_app_reads_environment_and_clock() {
    check_sources(ambient_violations);
}

#[test]
fn lines_functions_and_files_are_short() {
    check_sources(length_violations);
}

#[test]
fn no_open_questions_and_no_machine_paths() {
    let found = texts()
        .into_iter()
        .flat_map(|(path, text)| text_violations(&path, &text));
    report(found.collect());
}

#[test]
fn the_changelog_keeps_its_form() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md");
    report(changelog_violations("CHANGELOG.md", &text));
}

#[test]
fn the_top_level_holds_what_it_should() {
    let entries = fs::read_dir(root()).expect("readable root");
    let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
    report(layout_violations(&names.collect()));
}

#[test]
fn the_table_of_layers_goes_down() {
    for (module, layer, imports) in LAYERS {
        for import in imports.split_whitespace() {
            let row = LAYERS.iter().find(|(name, _, _)| *name == import);
            let (_, below, _) = row.unwrap_or_else(|| panic!("`{import}` has no row"));
            assert!(below < layer, "`{module}` → `{import}` does not go down");
        }
    }
}

/// Each rule, against texts that break it and texts that look as if they did.
mod rules {
    use super::*;

    fn whats(violations: Vec<Violation>) -> Vec<String> {
        violations
            .into_iter()
            .map(|v| format!("{}: {}", v.line, v.what))
            .collect()
    }

    #[test]
    fn code_is_seen_without_comments_and_literals() {
        let text = "let a = \"x // \\\" y\"; /* b /* c */ d */ e('\"', '\\'', b'z');\n\
                    f(r#\"g \" h\"#); // i\nfn j<'k>(l: &'k str) {} let m = '\u{e4}'; n";
        let code = Code::new(text);
        let words: Vec<&str> = code.words().into_iter().map(|(_, word)| word).collect();
        let expected = "let a e b f fn j k l k str let m n";
        assert_eq!(words.join(" "), expected);
        assert_eq!(code.line_of(code.text().find("fn j").unwrap()), 3);
    }

    #[test]
    fn upward_and_sideways_imports_fail() {
        let text = "use crate::model::{\n    BlockId,\n    TimeRange,\n};\nuse crate::{\n    \
                    disk::DiskEngine, shipper::{Shipper, Config},\n};\nfn f() { crate::app::x() }";
        let found = whats(layer_violations("src/tsdb/meta.rs", text));
        assert_eq!(
            found,
            [
                "6: `tsdb` may not import `disk`",
                "6: `tsdb` may not import `shipper`",
                "6: `tsdb` may not import `shipper`",
                "8: `tsdb` may not import `app`",
            ]
        );
        assert_eq!(
            whats(layer_violations(
                "src/app/build.rs",
                "use crate::tsdb::Meta;"
            )),
            [""; 0]
        );
        assert_eq!(
            whats(layer_violations(
                "src/main.rs",
                "fn main() { outrigger::app::x() }"
            )),
            [""; 0]
        );
        let main = whats(layer_violations(
            "src/main.rs",
            "use outrigger::disk::DiskEngine;",
        ));
        assert_eq!(main, ["1: `main` may not import `disk`"]);
    }

    #[test]
    fn innards_of_another_module_fail() {
        let text = "use crate::disk::uring::Ring;\nuse crate::disk::{DiskEngine, pread::Pread};\n\
                    fn f() { crate::disk::DiskEngine::new(); crate::disk::open_root(); }";
        let found = whats(layer_violations("src/shipper/stage.rs", text));
        assert_eq!(
            found,
            [
                "1: `disk::uring` is behind the façade of `disk`",
                "2: `disk::pread` is behind the façade of `disk`",
            ]
        );
        assert_eq!(whats(layer_violations("src/disk/engine.rs", text)), [""; 0]);
        let text = "use crate::net::http::Client;\nuse crate::net::http::client::Pool;";
        let found = whats(layer_violations("src/prometheus/client.rs", text));
        let expected = ["2: `net::http::client` is behind the façade of `net::http`"];
        assert_eq!(found, expected);
        let text =
            "use crate::proto::thanos::series_response::Result;\nuse crate::store::wire::Tag;";
        let found = whats(layer_violations("src/api/grpc/store.rs", text));
        let expected = ["2: `store::wire` is behind the façade of `store`"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_module_without_a_row_fails() {
        let found = whats(layer_violations("src/toolbox/mod.rs", ""));
        assert_eq!(
            found,
            ["1: module `toolbox` has no row in the table of layers"]
        );
    }

    #[test]
    fn climbing_twice_and_glob_re_exports_fail() {
        let text = "use super::super::Block;\npub use meta::*;\npub(crate) use a::{b::*, c};\n\
                    use super::*;\npub use meta::Meta;";
        let found = whats(import_form_violations("src/tsdb/x.rs", text));
        let lines: Vec<&str> = found.iter().map(|f| &f[..2]).collect();
        assert_eq!(lines, ["1:", "2:", "3:"], "{found:?}");
    }

    #[test]
    fn a_file_without_a_head_fails() {
        assert_eq!(head_violations("src/a.rs", "use std::fs;\n").len(), 1);
        assert_eq!(head_violations("src/a.rs", "//! Disk.\n").len(), 1);
        assert_eq!(
            head_violations("src/a.rs", "//! Reads blocks past the page cache.\n").len(),
            0
        );
    }

    #[test]
    fn empty_names_fail() {
        assert_eq!(name_violations("src/tsdb/utils.rs", "").len(), 1);
        assert_eq!(name_violations("tests/common/mod.rs", "").len(), 1);
        let found = name_violations("src/a.rs", "// mod misc\nmod helpers;\nfn misc() {}");
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(
            name_violations("src/a.rs", "fn misc_bytes() { common(1) }").len(),
            0
        );
    }

    #[test]
    fn confined_words_fail_elsewhere() {
        let text = "// unsafe\nunsafe { tokio_uring::start(f) }\n#![deny(unsafe_code)]";
        let found = confined_violations("src/disk/pread.rs", text);
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(confined_violations("src/disk/uring.rs", text).len(), 0);
        assert_eq!(
            confined_violations("src/disk/uring.rs", "use memmap2::Mmap;").len(),
            1
        );
        assert_eq!(
            confined_violations("tests/it/main.rs", "unsafe {}").len(),
            1
        );
    }

    #[test]
    fn ambient_reads_fail_outside_app() {
        let text = "use std::env;\nlet a = SystemTime::now();\nlet b = Instant::now();";
        let found = ambient_violations("src/shipper/upload.rs", text);
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(ambient_violations("src/app/cli.rs", text).len(), 0);
        let found = ambient_violations("src/disk/testing.rs", text);
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [2, 3]);
        let tokio = "use tokio::time::Instant;\nlet a = Instant::now();";
        assert_eq!(ambient_violations("src/shipper/upload.rs", tokio).len(), 0);
    }

    #[test]
    fn open_questions_and_machine_paths_fail() {
        let line = concat!("// TO", "DO: ask\n// see /ho", "me/me/notes and X", "XX");
        let found = text_violations("README.md", line);
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [1, 2, 2]);
        let harmless = concat!("mktemp demo.XXXXXX; METHODO", " LOGY; $x/ho", "me/y; TODOS");
        assert_eq!(text_violations("tests/demo", harmless), []);
    }

    #[test]
    fn long_lines_functions_and_files_fail() {
        let body = |lines: usize| "    x();\n    // free\n\n".repeat(lines);
        let function = |lines| format!("fn long(a: [u8; 4]) {{\n{}}}\n", body(lines));
        assert_eq!(length_violations("src/a.rs", &function(70)), []);
        let found = whats(length_violations("src/a.rs", &function(71)));
        assert_eq!(found, ["1: `long` has 71 lines, at most 70"]);
        assert_eq!(length_violations("tests/it/a.rs", &function(100)), []);
        assert_eq!(length_violations("tests/it/a.rs", &function(101)).len(), 1);
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(71));
        assert_eq!(length_violations("src/a.rs", &in_tests), []);
        assert_eq!(length_violations("src/a.rs", &"//\n".repeat(601)).len(), 1);
        assert_eq!(
            length_violations("src/a/tests.rs", &"//\n".repeat(1000)),
            []
        );
        assert_eq!(
            length_violations("tests/it/a.rs", &"//\n".repeat(1001)).len(),
            1
        );
        assert_eq!(length_violations("src/a.rs", &"ä".repeat(100)), []);
        assert_eq!(length_violations("src/a.rs", &"ä".repeat(101)).len(), 1);
        assert_eq!(
            length_violations("src/a.rs", "trait A { fn b(c: fn(u8) -> u8); }"),
            []
        );
    }

    #[test]
    fn a_changelog_of_another_form_fails() {
        let good = "# Changelog\n\n## [Unreleased]\n### Added\n- x\n\n## [0.1.0] - 2026-01-31\n";
        assert_eq!(changelog_violations("CHANGELOG.md", good), []);
        for (bad, line) in [
            ("# Changes\n## [Unreleased]\n", 1),
            ("# Changelog\n", 1),
            ("# Changelog\n## [0.1.0] - 2026-01-31\n", 2),
            ("# Changelog\n## [Unreleased]\n## 0.1.0\n", 3),
            ("# Changelog\n## [Unreleased]\n## [0.1.0] - 31.1.2026\n", 3),
            ("# Changelog\n## [Unreleased]\n### New\n", 3),
        ] {
            let found = changelog_violations("CHANGELOG.md", bad);
            assert_eq!(
                found.iter().map(|v| v.line).collect::<Vec<_>>(),
                [line],
                "{bad}"
            );
        }
    }

    #[test]
    fn a_missing_or_stray_top_level_entry_fails() {
        let whole = || {
            ROOT_REQUIRED
                .iter()
                .map(|name| (*name).to_owned())
                .collect()
        };
        assert_eq!(layout_violations(&whole()), []);
        let mut stray: BTreeSet<String> = whole();
        stray.insert("notes.txt".to_owned());
        stray.remove("deny.toml");
        let found = layout_violations(&stray);
        assert_eq!(
            found.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(),
            ["deny.toml", "notes.txt"]
        );
    }
}
