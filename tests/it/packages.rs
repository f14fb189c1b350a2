//! What is in `packages/`: it says what is true of the program, and what can be run is run.
//!
//! The tool that makes manual pages, completions and the Debian package is part of this binary too,
//! so that its results are those of the sources being tested.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use outrigger::app::cli::{self, Cli, Invocation};
use serde_json::Value;

use crate::support::left_out;

#[path = "../../packages/tool/completions.rs"]
mod completions;
#[path = "../../packages/tool/deb.rs"]
mod deb;
#[path = "../../packages/tool/form.rs"]
mod form;
#[path = "../../packages/tool/man.rs"]
mod man;

mod confinement;
mod dashboard;
mod debian;
mod documents;
mod image;
mod kubernetes;
mod rules;

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of `packages/`.
fn file(path: &str) -> PathBuf {
    root().join("packages").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The text at a path such as `/spec/replicas`.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// What the arguments of `outrigger` ask for; they must parse.
fn parsed<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Box<Cli> {
    let words = std::iter::once(OsString::from("outrigger"));
    match cli::parse(words.chain(arguments.into_iter().map(Into::into))) {
        Ok(Invocation::Run(cli)) => cli,
        other => panic!("{other:?}"),
    }
}

/// Whether a program can be found; where not, `case` is told to be left out.
fn has(program: &str, case: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\" >/dev/null", "sh", program])
        .status()
        .unwrap()
        .success();
    if !found {
        left_out(case, &format!("no {program} here"));
    }
    found
}

/// Runs a command that must end well; what it prints.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    assert!(output.status.success(), "{command:?}: {out}\n{err}");
    out.into_owned()
}

/// The binary under test without its debug information, which would be copied again and again.
fn stripped_binary(directory: &Path) -> PathBuf {
    let binary = env!("CARGO_BIN_EXE_outrigger");
    let stripped = directory.join("outrigger");
    let done = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(binary)
        .status();
    if !done.is_ok_and(|status| status.success()) {
        std::fs::copy(binary, &stripped).unwrap();
    }
    stripped
}
