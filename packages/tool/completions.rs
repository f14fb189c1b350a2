//! Completions for bash, zsh and fish, each under the name that its shell looks for.

use std::io;
use std::path::Path;

use clap::ArgAction;
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
        if *shell == Shell::Fish {
            text = with_dotted_flags(&String::from_utf8_lossy(&text)).into_bytes();
        }
        std::fs::write(directory.join(name), text)?;
    }
    Ok(())
}

/// fish's `argparse`, by which the generated script looks for the command, takes no flag that has
/// a dot in its name. The search is written anew; what it is for stays as it is.
fn with_dotted_flags(script: &str) -> String {
    const FIRST: &str = "# Print an optspec";
    const BEHIND: &str = "function __fish_outrigger_using_subcommand";
    let first = script
        .find(FIRST)
        .expect("the script begins with its search");
    let behind = script.find(BEHIND).expect("the search is used below it");
    let (head, tail) = (&script[..first], &script[behind..]);
    let command = command(Reader::Shell);
    let with_value = command
        .get_arguments()
        .filter(|arg| matches!(arg.get_action(), ArgAction::Set));
    let flags: Vec<String> = with_value
        .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    let flags = flags.join(" ");
    format!(
        "{head}# Print the command of the line so far, if it has one: the first word that is\n\
         # neither a flag nor its value.\n\
         function __fish_outrigger_needs_command\n\
         \x20   set -l cmd (commandline -opc)\n\
         \x20   set -l before\n\
         \x20   for word in $cmd[2..]\n\
         \x20       if not string match -q -- '-*' $word\n\
         \x20               and not contains -- \"$before\" {flags}\n\
         \x20           echo $word\n\
         \x20           return 1\n\
         \x20       end\n\
         \x20       set before $word\n\
         \x20   end\n\
         \x20   return 0\n\
         end\n\n{tail}"
    )
}
