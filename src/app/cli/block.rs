//! The flags of `outrigger block`, which looks into blocks on this machine's disk.
//!
//! Listed in `tests/golden/block_flags.txt`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Subcommand};

use super::OutputFormat;
use super::choice::{InvalidChoice, choose};
use super::number;
use super::text::path;
use crate::model::TimeOrDuration;

/// What can be done with blocks.
#[derive(Clone, Debug, Subcommand)]
pub enum BlockCommand {
    /// Lists the blocks of a data directory, oldest first. Exit code 1 if one is unreadable.
    Ls {
        /// Directory with blocks, such as Prometheus' --storage.tsdb.path.
        #[arg(value_name = "DIR", value_parser = path())]
        directory: PathBuf,
        /// Form of the list.
        #[command(flatten)]
        output: BlockOutput,
    },
    /// Tells what a block holds: counts, the labels that make the most series, churn, sizes.
    Inspect {
        /// Directory of the block.
        #[arg(value_name = "BLOCK", value_parser = path())]
        block: PathBuf,
        /// Most rows of each list of labels.
        #[arg(
            id = "limit", long = "limit", value_name = "COUNT", default_value = "10",
            value_parser = number::parse_uint
        )]
        limit: u64,
        /// Form of the result.
        #[command(flatten)]
        output: BlockOutput,
    },
    /// Proves blocks whole: every byte of index and chunks, and that they agree with each other
    /// and with meta.json. Exit code 1 if one is not, with file and offset of its first fault.
    Verify {
        /// Directories of blocks, or a directory with blocks.
        #[arg(value_name = "BLOCK", required = true, value_parser = path())]
        blocks: Vec<PathBuf>,
        /// Decode every sample as well: how many there are, that they ascend, lie in the range of
        /// their chunk and block, and that histograms are valid.
        #[arg(
            id = "deep",
            long = "deep",
            action = ArgAction::Set,
            default_value = "false"
        )]
        deep: bool,
        /// Form of the result.
        #[command(flatten)]
        output: BlockOutput,
    },
    /// Prints the samples of a block's series as OpenMetrics text, deletions applied and stale
    /// markers left out: `promtool tsdb create-blocks-from openmetrics` takes it.
    Dump(BlockDumpArgs),
}

/// Everything that follows `block dump`.
#[derive(Clone, Debug, Args)]
pub struct BlockDumpArgs {
    /// Directory of the block.
    #[arg(value_name = "BLOCK", value_parser = path())]
    pub block: PathBuf,

    /// Series to print, such as up{job="node"}. May be repeated; without it all.
    #[arg(id = "match", long = "match", value_name = "SELECTOR", action = ArgAction::Append)]
    pub selectors: Vec<String>,

    /// Earliest sample: an RFC 3339 time, or a distance from now such as -2h.
    #[arg(
        id = "min-time",
        long = "min-time",
        value_name = "TIME|DURATION",
        default_value = "0000-01-01T00:00:00Z"
    )]
    pub min_time: TimeOrDuration,

    /// Latest sample.
    #[arg(
        id = "max-time",
        long = "max-time",
        value_name = "TIME|DURATION",
        default_value = "9999-12-31T23:59:59Z"
    )]
    pub max_time: TimeOrDuration,

    /// Form of the samples: openmetrics, which has no native histograms, or json, one object for
    /// each chunk, which has everything.
    #[arg(
        id = "output",
        long = "output",
        value_name = "FORMAT",
        default_value = "openmetrics"
    )]
    pub output: DumpOutput,
}

/// The flag that all commands but `dump` have alike.
#[derive(Clone, Copy, Debug, Args)]
pub struct BlockOutput {
    /// Form of the result on stdout: table, for people, or json, one object a line.
    #[arg(
        id = "output",
        long = "output",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub format: OutputFormat,
}

/// `--output` of `block dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpOutput {
    /// The text format.
    OpenMetrics,
    /// One JSON object a line.
    Json,
}

impl FromStr for DumpOutput {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let choices = [("openmetrics", Self::OpenMetrics), ("json", Self::Json)];
        choose(value, &choices)
    }
}
