//! The command line: the reference's flags and its parser's manners, on top of clap.
//!
//! Two steps. `argv` reads the words as the reference's flag library does (`@file`, `--no-x`,
//! repetition, what counts as a value) and rewrites them to `--name=value`; clap then checks and
//! stores the values of the structs here. Every error is a [`UsageError`], exit code 2
//! (contract `cli.md` §1, §5).

mod argv;
mod bench;
mod block;
mod byte_size;
mod choice;
mod help;
mod number;
mod query;
mod sidecar;
mod store;
mod text;
mod url;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::logging::{LogFormat, LogLevel};
use crate::app::version;
use crate::model::ErrorChain;

pub use argv::InvalidArguments;
pub use bench::{
    BenchCommand, EngineArgs, EngineChoice, InvalidEngine, LoadArgs, OptionalSize, OutputFormat,
    RunArgs, SweepAxes, UploadBenchArgs,
};
pub use block::{BlockCommand, BlockDumpArgs, BlockOutput, DumpOutput};
pub use byte_size::{ByteSize, InvalidByteSize};
pub use choice::{HashFunc, InvalidChoice, ReloadMethod};
pub use query::QueryArgs;
pub use sidecar::{
    ConfinementArgs, GrpcArgs, HttpArgs, IoArgs, ObjstoreArgs, PrometheusArgs, ReloaderArgs,
    RequestLoggingArgs, S3Args, ShipperArgs, SidecarArgs, StoreArgs, TsdbArgs,
};
pub use store::{StoreCommand, StoreOutput, StoreTarget, StoreTimes};
pub use text::{InlineYaml, OptionalPath};
pub use url::{InvalidUrl, PrometheusUrl};

/// A sidecar for one large Prometheus: ships its blocks to a bucket and answers for its data.
/// Takes the flags of the Thanos sidecar.
#[derive(Clone, Debug, Parser)]
#[command(name = "outrigger", version = version::VERSION, disable_help_subcommand = true)]
#[command(term_width = help::WIDTH)]
pub struct Cli {
    /// Flags that every command has.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Runs beside a Prometheus server: ships its blocks to a bucket and serves queriers.
    Sidecar(Box<SidecarArgs>),
    /// Measures what this machine and a bucket can do.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Looks into blocks on this machine's disk.
    #[command(subcommand)]
    Block(Box<BlockCommand>),
    /// Asks a StoreAPI server, of whatever component, what it has.
    #[command(subcommand)]
    Store(Box<StoreCommand>),
}

/// Flags that may stand before or after the command (contract `cli.md` §2).
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// What is logged, and how.
    #[command(flatten)]
    pub logging: LoggingArgs,
    /// Where traces go.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// The memory limit of a runtime that we do not have.
    #[command(flatten)]
    pub memory: MemoryArgs,
}

/// Flags of the log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LoggingArgs {
    /// Name that every log line carries as `name=`.
    #[arg(
        id = "debug.name",
        long = "debug.name",
        global = true,
        value_name = "NAME",
        default_value = "",
        hide = true
    )]
    pub name: String,

    /// Least severe level that is logged: error, warn, info or debug.
    #[arg(
        id = "log.level",
        long = "log.level",
        global = true,
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub level: LogLevel,

    /// Form of the log: logfmt or json lines on stderr, or journald.
    #[arg(
        id = "log.format",
        long = "log.format",
        global = true,
        value_name = "FORMAT",
        default_value = "logfmt"
    )]
    pub format: LogFormat,
}

/// Flags of tracing.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tracing")]
pub struct TracingArgs {
    /// YAML file that says where traces are sent. `$(VAR)` is replaced by the environment variable.
    #[arg(
        id = "tracing.config-file", long = "tracing.config-file", global = true,
        value_name = "PATH", default_value = "", value_parser = text::optional_path()
    )]
    pub config_file: OptionalPath,

    /// The same document as text instead of a file.
    #[arg(
        id = "tracing.config",
        long = "tracing.config",
        global = true,
        value_name = "YAML",
        default_value = ""
    )]
    pub config: InlineYaml,
}

/// Flags that steer the Go runtime's memory limit in the reference. Here they are only checked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Memory (for compatibility)")]
pub struct MemoryArgs {
    /// Accepted and without effect: there is no Go runtime to limit.
    #[arg(
        id = "enable-auto-gomemlimit", long = "enable-auto-gomemlimit", global = true,
        action = ArgAction::Set, default_value = "false"
    )]
    pub enable_auto_gomemlimit: bool,

    /// Accepted and without effect. Must be above 0 and at most 1.
    #[arg(
        id = "auto-gomemlimit.ratio", long = "auto-gomemlimit.ratio", global = true,
        value_name = "RATIO", default_value = "0.9", value_parser = number::parse_float
    )]
    pub auto_gomemlimit_ratio: f64,
}

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the command.
    Run(Box<Cli>),
    /// Print this text (`--help`, `--version`) and end with exit code 0.
    Print(String),
}

/// The command line is wrong: exit code 2.
#[derive(Debug)]
pub struct UsageError {
    /// How the command is called, to be printed before the error.
    pub usage: String,
    argv: Vec<OsString>,
    problem: CommandLineProblem,
}

#[derive(Debug, thiserror::Error)]
enum CommandLineProblem {
    #[error(transparent)]
    Arguments(#[from] InvalidArguments),
    /// The reference's message, to which it would not add the flag.
    #[error("{message} (flag '{flag}')")]
    Value { flag: String, message: String },
    #[error("{0}")]
    Other(String),
}

/// Reads a command line, program name first. Reads `@file` arguments from disk, nothing else.
///
/// # Errors
/// Where it does not say what to do; see [`UsageError`].
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let mut command = Cli::command();
    command.build();
    let words = argv.iter().skip(1).cloned();
    let parsed = match argv::normalize(&command, words) {
        Ok(normalized) => match normalized.request {
            Some(argv::Request::Help) => {
                return Ok(Invocation::Print(help::text(&normalized.commands)));
            }
            Some(argv::Request::Version) => return Ok(Invocation::Print(version::text())),
            None => checked(command, normalized.words),
        },
        Err(error) => Err(error.into()),
    };
    match parsed {
        Ok(cli) => Ok(Invocation::Run(Box::new(cli))),
        Err(problem) => Err(UsageError {
            usage: help::usage(),
            argv,
            problem,
        }),
    }
}

/// The flags of `outrigger sidecar` when none is given.
pub fn defaults() -> (GlobalArgs, SidecarArgs) {
    let words = ["outrigger", "sidecar"].map(OsString::from);
    let cli = Cli::try_parse_from(words).expect("every flag has a default that parses");
    let Command::Sidecar(sidecar) = cli.command else {
        unreachable!("the words name the sidecar");
    };
    (cli.global, *sidecar)
}

/// Lets clap check the values.
fn checked(command: clap::Command, words: Vec<OsString>) -> Result<Cli, CommandLineProblem> {
    let matches = command.try_get_matches_from(words);
    if let Some(flag) = matches.as_ref().ok().and_then(query::idle_flag) {
        return Err(CommandLineProblem::Value {
            flag: format!("--{flag}"),
            message: "it needs --query.enable".to_owned(),
        });
    }
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    cli.map_err(|error| {
        let flag = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) => flag.split([' ', '=']).next().map(str::to_owned),
            _ => None,
        };
        match (flag, error.source()) {
            (Some(flag), Some(source)) => CommandLineProblem::Value {
                flag,
                message: ErrorChain(source).to_string(),
            },
            _ => CommandLineProblem::Other(error.to_string()),
        }
    })
}

// === impl UsageError ===

impl fmt::Display for UsageError {
    /// The reference's form, with all arguments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error parsing commandline arguments: [")?;
        for (at, word) in self.argv.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{}", word.to_string_lossy())?;
        }
        f.write_str("]")
    }
}

impl Error for UsageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.problem)
    }
}

/// The flags of a sidecar's command line, for tests of what follows from them.
#[cfg(test)]
pub(super) fn sidecar_args(flags: &[&str]) -> (GlobalArgs, SidecarArgs) {
    let words = ["outrigger", "sidecar"].iter().chain(flags);
    match parse(words.map(OsString::from)) {
        Ok(Invocation::Run(cli)) => {
            let Command::Sidecar(sidecar) = cli.command else {
                panic!("the words name the sidecar");
            };
            (cli.global, *sidecar)
        }
        Ok(Invocation::Print(text)) => panic!("{text}"),
        Err(error) => panic!("{}", ErrorChain(&error)),
    }
}

#[cfg(test)]
mod tests;
