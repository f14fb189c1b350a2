//! The log: the reference's lines, out of tracing events.
//!
//! `ts=… caller=shipper.rs:120 level=info component=shipper block=… msg="…" key=value err="…"`:
//! the keys, their order and the quoting are go-kit's, as pipelines that parse the reference's log
//! expect (contract `cli.md` §2). A field of a surrounding span is on the line of every event
//! within. Lines go to stderr, each in one write.

mod filter;
mod json;
mod layer;
mod logfmt;
mod record;

use std::io;

use tracing::Subscriber;
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use crate::model::Clock;
use filter::Verbosity;
use layer::{LineFormat, LineLayer};

/// `--log.level`: the least severe level that is logged, and with it all more severe ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what went wrong and was given up.
    Error,
    /// And what went wrong and is tried again or worked around.
    Warn,
    /// And what happens.
    Info,
    /// And how it happens.
    Debug,
}

/// `--log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` lines.
    Logfmt,
    /// One JSON object per line.
    Json,
    /// Entries of the systemd journal instead of lines.
    Journald,
}

/// How the process logs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Least severe level.
    pub level: LogLevel,
    /// Form of the log.
    pub format: LogFormat,
    /// The field `name` of every line; empty for none.
    pub name: String,
}

/// The log cannot be set up: exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The journal's socket is not there.
    #[error("journald log format requested but systemd journal is not available")]
    NoJournal(#[source] io::Error),
    /// The process logs already.
    #[error("a logger is already set")]
    AlreadySet(#[from] dispatcher::SetGlobalDefaultError),
}

/// Makes the whole process log to stderr or the journal, timed by `clock`.
///
/// # Errors
/// Where the journal is wanted and not there, or this is called a second time.
pub fn install(config: &Config, clock: Clock) -> Result<(), LoggingError> {
    let dispatch = match config.format {
        LogFormat::Logfmt => lines(config, LineFormat::Logfmt, clock, io::stderr()),
        LogFormat::Json => lines(config, LineFormat::Json, clock, io::stderr()),
        LogFormat::Journald => Dispatch::new(journal(config)?),
    };
    dispatcher::set_global_default(dispatch)?;
    Ok(())
}

fn lines<W>(config: &Config, format: LineFormat, clock: Clock, out: W) -> Dispatch
where
    W: io::Write + Send + 'static,
{
    let layer = LineLayer::new(format, &config.name, clock, out);
    let layer = layer.with_filter(Verbosity(config.level));
    Dispatch::new(Registry::default().with(layer))
}

fn journal(config: &Config) -> Result<impl Subscriber + Send + Sync + 'static, LoggingError> {
    let layer = tracing_journald::layer().map_err(LoggingError::NoJournal)?;
    let layer = layer.with_field_prefix(None);
    let layer = if config.name.is_empty() {
        layer
    } else {
        layer.with_custom_fields([("NAME", config.name.as_bytes())])
    };
    Ok(Registry::default().with(layer.with_filter(Verbosity(config.level))))
}

#[cfg(test)]
mod tests;
