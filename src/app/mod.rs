//! The process: command line, configuration, logging, commands, exit code.
//!
//! The only module that reads the environment, the system clock and the arguments; all others get
//! them as values.

pub mod cli;
pub mod commands;
pub mod config;
pub mod logging;
pub mod no_effect;
pub mod version;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use self::cli::{
    BenchCommand, BlockCommand, Cli, Command, GlobalArgs, Invocation, SidecarArgs, StoreCommand,
    UploadBenchArgs,
};
use self::commands::CommandError;
use self::no_effect::Traces;
use crate::model::{Clock, ErrorChain};

/// Asks for the value of an environment variable.
pub type Variables = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// What surrounds the process.
#[derive(Clone)]
pub struct Environment {
    /// The command line, program name first.
    pub arguments: Vec<OsString>,
    /// Value of an environment variable; `None` where it is not set.
    pub variable: Arc<Variables>,
    /// The wall clock.
    pub clock: Clock,
}

/// Ended as asked: a signal, `--help`, `--version`.
const DONE: u8 = 0;
/// Could not be set up, or a part of it failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// A signal ended a bench before its time, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs the program and says how it ended (contract `cli.md` §5).
pub fn run(environment: &Environment) -> ExitCode {
    let code = match cli::parse(environment.arguments.iter().cloned()) {
        // The reference prints these to stderr. Whoever captures both streams sees no difference,
        // and a pager or a script that reads stdout gets what every other tool gives it there.
        Ok(Invocation::Print(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => DONE,
            Err(_) => FAILED,
        },
        Ok(Invocation::Run(cli)) => execute(&cli, environment),
        Err(error) => {
            say(format_args!("{}\n{}\n", error.usage, ErrorChain(&error)));
            USAGE
        }
    };
    ExitCode::from(code)
}

fn execute(cli: &Cli, environment: &Environment) -> u8 {
    let logging = logging::Config {
        level: cli.global.logging.level,
        format: cli.global.logging.format,
        name: cli.global.logging.name.clone(),
    };
    if let Err(error) = logging::install(&logging, environment.clock.clone()) {
        say(format_args!(
            "failed to create logger: {}\n",
            ErrorChain(&error)
        ));
        return FAILED;
    }
    let ended = match &cli.command {
        Command::Sidecar(sidecar) => run_sidecar(&cli.global, sidecar, environment),
        Command::Bench(BenchCommand::Upload(args)) => run_bench(&cli.global, args, environment),
        Command::Block(command) => run_block(&cli.global, command, environment),
        Command::Store(command) => run_store(&cli.global, command, environment),
    };
    ended.unwrap_or_else(|error| {
        tracing::error!(err = %ErrorChain(&error));
        FAILED
    })
}

fn run_sidecar(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    environment: &Environment,
) -> Result<u8, CommandError> {
    prepare(global, sidecar, Traces::Sent).map_err(|source| CommandError::Prepare {
        command: "sidecar",
        source,
    })?;
    commands::sidecar::run(global, sidecar, environment)?;
    tracing::info!("exiting");
    Ok(DONE)
}

fn run_bench(
    global: &GlobalArgs,
    args: &UploadBenchArgs,
    environment: &Environment,
) -> Result<u8, CommandError> {
    let (_, sidecar) = cli::defaults();
    prepare(global, &sidecar, Traces::None).map_err(|source| CommandError::Prepare {
        command: "bench upload",
        source,
    })?;
    Ok(match commands::bench::upload(args, environment)? {
        commands::bench::Ended::Done => DONE,
        commands::bench::Ended::Interrupted => INTERRUPTED,
    })
}

fn run_block(
    global: &GlobalArgs,
    command: &BlockCommand,
    environment: &Environment,
) -> Result<u8, CommandError> {
    let (_, sidecar) = cli::defaults();
    prepare(global, &sidecar, Traces::None).map_err(|source| CommandError::Prepare {
        command: "block",
        source,
    })?;
    Ok(match commands::block::run(command, environment)? {
        commands::block::Found::Sound => DONE,
        commands::block::Found::Faults => FAILED,
    })
}

fn run_store(
    global: &GlobalArgs,
    command: &StoreCommand,
    environment: &Environment,
) -> Result<u8, CommandError> {
    let (_, sidecar) = cli::defaults();
    prepare(global, &sidecar, Traces::None).map_err(|source| CommandError::Prepare {
        command: "store",
        source,
    })?;
    commands::store::run(command, environment)?;
    Ok(DONE)
}

/// Judges the flags as a whole, before anything is opened: wrong combinations end the start, flags
/// that do nothing are told about.
fn prepare(global: &GlobalArgs, sidecar: &SidecarArgs, traces: Traces) -> anyhow::Result<()> {
    config::check(global, sidecar)?;
    for finding in no_effect::findings(global, traces) {
        tracing::info!(
            flag = finding.flag,
            reason = finding.reason,
            "flag has no effect"
        );
    }
    Ok(())
}

/// Writes to stderr, where the log goes once there is one.
fn say(text: fmt::Arguments<'_>) {
    // With stderr gone there is nobody to tell; the exit code still says it.
    drop(io::stderr().write_fmt(text));
}

// === impl Environment ===

impl Environment {
    /// The process's own arguments and variables, and the system clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where they are read"
    )]
    pub fn system() -> Self {
        Self {
            arguments: std::env::args_os().collect(),
            variable: Arc::new(|name| std::env::var_os(name)),
            clock: Clock::new(|| nanoseconds_since_epoch(SystemTime::now())),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

fn nanoseconds_since_epoch(now: SystemTime) -> i128 {
    // 128 bits hold the nanoseconds of any system time, so the conversions below never saturate.
    let nanos = |duration: std::time::Duration| i128::try_from(duration.as_nanos());
    match now.duration_since(UNIX_EPOCH) {
        Ok(after) => nanos(after).unwrap_or(i128::MAX),
        Err(before) => nanos(before.duration()).map_or(i128::MIN, |nanos| -nanos),
    }
}
