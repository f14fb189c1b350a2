//! The command line as `clap` should describe it: as `app::cli::argv` reads it.
//!
//! The product declares a bool flag with a value, because its own reader turns `--x` and `--no-x`
//! into one; manual pages and completions must show what is typed.

use std::any::TypeId;
use std::error::Error;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, CommandFactory, ValueHint};
use outrigger::app::cli::Cli;

/// Who reads the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A human: `--[no-]x` is one flag.
    Human,
    /// A shell: `--x` and `--no-x` are two, and values from a closed list are known.
    Shell,
}

/// The whole command line, with every command below it.
pub(crate) fn command(reader: Reader) -> Command {
    described(Cli::command(), reader)
}

fn described(command: Command, reader: Reader) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let opposites: Vec<Arg> = match reader {
        Reader::Human => Vec::new(),
        Reader::Shell => command.get_arguments().filter_map(opposite).collect(),
    };
    let mut command = command
        .mut_args(|arg| as_typed(arg, reader))
        .args(opposites);
    for name in names {
        command = command.mut_subcommand(name, |command| described(command, reader));
    }
    command
}

fn is_bool(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set)
        && arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

fn as_typed(arg: Arg, reader: Reader) -> Arg {
    if matches!(arg.get_action(), ArgAction::Version) {
        return arg.short(None);
    }
    if is_bool(&arg) {
        let name = arg.get_long().unwrap_or_default().to_owned();
        let arg = arg.action(ArgAction::SetTrue).default_value(None);
        let arg = arg.num_args(0);
        return match reader {
            Reader::Human => arg.long(format!("[no-]{name}")),
            Reader::Shell => arg,
        };
    }
    let arg = if arg.get_default_values() == [""] {
        arg.default_value(None)
    } else {
        arg
    };
    if reader == Reader::Human {
        return arg;
    }
    if let Some(choices) = choices(&arg) {
        return arg.value_parser(PossibleValuesParser::new(choices));
    }
    let names: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    match names.first().map(String::as_str) {
        Some("PATH" | "FILE") => arg.value_hint(ValueHint::FilePath),
        Some("DIR" | "DIRECTORY") => arg.value_hint(ValueHint::DirPath),
        _ => arg,
    }
}

/// `--no-x` of a bool flag `--x`.
fn opposite(arg: &Arg) -> Option<Arg> {
    let name = arg.get_long().filter(|_| is_bool(arg))?;
    let name = format!("no-{name}");
    let opposite = Arg::new(name.clone())
        .long(name)
        .action(ArgAction::SetTrue)
        .global(arg.is_global_set())
        .hide(arg.is_hide_set())
        .help(format!(
            "The opposite of --{}",
            arg.get_long().unwrap_or_default()
        ));
    Some(opposite)
}

/// The values that a flag with a closed list of them takes: its parser tells them when it refuses.
pub(crate) fn choices(arg: &Arg) -> Option<Vec<String>> {
    const NONE_OF_THEM: &str = "no such choice";
    let arg = arg.clone().global(false).required(false);
    let given = format!("--{}={NONE_OF_THEM}", arg.get_long()?);
    let refused = Command::new("one flag")
        .arg(arg)
        .try_get_matches_from(["one flag", &given]);
    let refused = refused.err()?;
    let text = refused.source()?.to_string();
    let list = text.strip_prefix("enum value must be one of ")?;
    let (list, _) = list.split_once(", got ")?;
    Some(list.split(',').map(str::to_owned).collect())
}
