//! Completions for bash, zsh and fish, each under the name that its shell looks for.

use std::io;
use std::path::Path;

use clap_complete::Shell;

use super::form::{Reader, command};

/// Shells, and the names of their files.
pub(crate) const FILES: &[(Shell, &str)] = &[
    (Shell::Bash, "outrigger.bash"),
    (Shell::Zsh, "_outrigger"),
    (Shell::Fish, "outrigger.fish"),
];

/// Writes all of them into the directory, which is made.
pub(crate) fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (shell, name) in FILES {
        let mut text = Vec::new();
        clap_complete::generate(*shell, &mut command(Reader::Shell), "outrigger", &mut text);
        std::fs::write(directory.join(name), text)?;
    }
    Ok(())
}
