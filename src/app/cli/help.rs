//! The texts of `--help` and of a usage error.

use std::any::TypeId;

use clap::{Arg, ArgAction, CommandFactory};

use super::Cli;

/// Columns of the help text; fixed, so that it is the same wherever it is read.
pub(super) const WIDTH: usize = 100;

/// The help text of the command that the names lead to, of the program where there are none.
pub(super) fn text(commands: &[String]) -> String {
    let mut root = Cli::command();
    root.build();
    let mut chosen = &root;
    for name in commands {
        chosen = chosen.find_subcommand(name).unwrap_or(chosen);
    }
    let mut shown = chosen.clone().mut_args(as_given).next_line_help(true);
    shown.render_help().to_string()
}

/// What a usage error begins with.
pub(super) fn usage() -> String {
    "usage: outrigger sidecar [<flags>]\n       outrigger bench upload [<flags>]\n\
     \x20      outrigger block ls|inspect|verify|dump [<flags>] <directory> ...\n\
     \x20      outrigger store info|labels|values|series [<flags>] <host:port> ...\n\n\
     `outrigger sidecar --help` lists the flags.\n"
        .to_owned()
}

/// A flag as it is given: a bool flag as `--[no-]name`, `--version` without a short form; and
/// without a default that is no text at all.
fn as_given(arg: Arg) -> Arg {
    if matches!(arg.get_action(), ArgAction::Version) {
        return arg.short(None);
    }
    if arg.get_default_values() == [""] {
        return arg.default_value(None);
    }
    match arg.get_long().map(str::to_owned) {
        Some(name) if arg.get_value_parser().type_id() == TypeId::of::<bool>() => arg
            .long(format!("[no-]{name}"))
            .action(ArgAction::SetTrue)
            .num_args(0)
            .hide_possible_values(true)
            .default_value(None),
        _ => arg,
    }
}
