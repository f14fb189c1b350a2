//! Makes what a package holds besides the binary, and the `.deb` itself; see the usage below.
//!
//! A program of its own, and not a command of the product, so that the product does not carry what
//! is needed once. Everything it writes is the same whenever and wherever it is written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod completions;
mod deb;
mod form;
mod man;

const USAGE: &str = "\
usage: package documents <directory>       manual pages and completions
       package deb <binary> <directory>    the Debian package; prints its path
";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let words: Vec<&Path> = arguments.iter().map(PathBuf::as_path).collect();
    let done = match words[..] {
        [what, directory] if what == Path::new("documents") => documents(directory),
        [what, binary, directory] if what == Path::new("deb") => package(binary, directory),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}", problem.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn documents(directory: &Path) -> Result<(), String> {
    man::write(&directory.join("man")).map_err(|error| error.to_string())?;
    completions::write(&directory.join("completions")).map_err(|error| error.to_string())
}

#[expect(clippy::print_stdout, reason = "the path is what this prints")]
fn package(binary: &Path, directory: &Path) -> Result<(), String> {
    let documents = directory.join("documents");
    self::documents(&documents)?;
    let sources = deb::Sources {
        root: Path::new(env!("CARGO_MANIFEST_DIR")),
        binary,
        documents: &documents,
    };
    let package = deb::build(&sources, directory, &["-Zxz"])?;
    println!("{}", package.display());
    Ok(())
}
