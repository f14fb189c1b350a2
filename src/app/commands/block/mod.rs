//! `outrigger block`: what is in blocks on this machine's disk, and whether they are whole.
//!
//! `verify` reads files once, as the shipper does, and leaves the page cache as it is, which the
//! Prometheus beside us lives on. What looks things up reads memory maps, and tells nothing that
//! was read from one before it has checked that the file was not cut short meanwhile.

mod deep;
mod dump;
mod files;
mod inspect;
mod ls;
mod samples;
mod statistics;
mod table;
mod verify;

use std::io;

use super::CommandError;
use super::sidecar::runtime;
use crate::app::Environment;
use crate::app::cli::BlockCommand;

const NAME: &str = "block";

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All that was looked at is in order.
    Sound,
    /// A block is not; it was told which.
    Faults,
}

/// Looks, and prints to stdout.
///
/// # Errors
/// Where there is no block to look at, or it can't be read.
pub fn run(command: &BlockCommand, environment: &Environment) -> Result<Found, CommandError> {
    match looked(command, environment) {
        // Whoever reads has read enough.
        Err(error) if is_broken_pipe(&error) => Ok(Found::Sound),
        outcome => outcome.map_err(|source| CommandError::Run {
            command: NAME,
            source,
        }),
    }
}

fn looked(command: &BlockCommand, environment: &Environment) -> anyhow::Result<Found> {
    match command {
        BlockCommand::Ls { directory, output } => ls::run(directory, output.format),
        BlockCommand::Inspect {
            block,
            limit,
            output,
        } => runtime()?.block_on(inspect::run(block, *limit, output.format)),
        BlockCommand::Verify {
            blocks,
            deep,
            output,
        } => runtime()?.block_on(verify::run(blocks, *deep, output.format, environment)),
        BlockCommand::Dump(args) => dump::run(args, environment),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_io = error.downcast_ref::<io::Error>();
    of_io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
