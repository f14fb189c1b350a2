//! The flags of `outrigger store`, a client of StoreAPI for people who look for something.
//!
//! Listed in `tests/golden/store_flags.txt`.

use std::str::FromStr;

use clap::{ArgAction, Args, Subcommand};

use super::choice::{InvalidChoice, choose};
use super::number;
use super::text::{OptionalPath, optional_path};
use crate::model::{GoDuration, TimeOrDuration};

/// What can be asked.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// What the server is, its labels and times, and which APIs it has.
    Info {
        /// Whom to ask.
        #[command(flatten)]
        target: StoreTarget,
    },
    /// The names of labels, of the series that the selector matches.
    Labels {
        /// Whom to ask.
        #[command(flatten)]
        target: StoreTarget,
        /// Which series.
        #[arg(value_name = "SELECTOR", default_value = "")]
        selector: String,
        /// When.
        #[command(flatten)]
        times: StoreTimes,
    },
    /// The values of a label, of the series that the selector matches.
    Values {
        /// Whom to ask.
        #[command(flatten)]
        target: StoreTarget,
        /// The label.
        #[arg(value_name = "LABEL")]
        label: String,
        /// Which series.
        #[arg(value_name = "SELECTOR", default_value = "")]
        selector: String,
        /// When.
        #[command(flatten)]
        times: StoreTimes,
    },
    /// The series that the selector matches, each with what its chunks hold.
    Series {
        /// Whom to ask.
        #[command(flatten)]
        target: StoreTarget,
        /// Which series, such as up{job="node"}.
        #[arg(value_name = "SELECTOR")]
        selector: String,
        /// When.
        #[command(flatten)]
        times: StoreTimes,
        /// Ask for labels only, which costs the server less.
        #[arg(
            id = "skip-chunks",
            long = "skip-chunks",
            action = ArgAction::Set,
            default_value = "false"
        )]
        skip_chunks: bool,
        /// Label that tells replicas apart and is to be left out, as deduplication asks for. May
        /// be repeated.
        #[arg(
            id = "without-replica-label", long = "without-replica-label", value_name = "NAME",
            action = ArgAction::Append
        )]
        without_replica_labels: Vec<String>,
        /// Series per message that are asked for.
        #[arg(
            id = "batch-size", long = "batch-size", value_name = "COUNT",
            default_value = "64", value_parser = number::parse_int
        )]
        batch_size: i64,
    },
}

/// Whom to ask, and how to tell the answer.
#[derive(Clone, Debug, Args)]
pub struct StoreTarget {
    /// The server's gRPC address.
    #[arg(value_name = "HOST:PORT")]
    pub address: String,

    /// How long the answer may take.
    #[arg(
        id = "timeout",
        long = "timeout",
        value_name = "DURATION",
        default_value = "2m"
    )]
    pub timeout: GoDuration,

    /// How the answer is told: table, for people, or json, one object a line.
    #[arg(
        id = "output",
        long = "output",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: StoreOutput,

    /// Speak TLS.
    #[arg(
        id = "tls",
        long = "tls",
        action = ArgAction::Set,
        default_value = "false",
        help_heading = "TLS"
    )]
    pub tls: bool,

    /// File with the CA that the server's certificate must come from (PEM), instead of the
    /// system's.
    #[arg(
        id = "tls-ca", long = "tls-ca", value_name = "PATH", default_value = "",
        value_parser = optional_path(), help_heading = "TLS"
    )]
    pub tls_ca: OptionalPath,

    /// File with our certificate chain (PEM), for servers that want one. Needs the key too.
    #[arg(
        id = "tls-cert", long = "tls-cert", value_name = "PATH", default_value = "",
        value_parser = optional_path(), help_heading = "TLS"
    )]
    pub tls_cert: OptionalPath,

    /// File with our private key (PEM).
    #[arg(
        id = "tls-key", long = "tls-key", value_name = "PATH", default_value = "",
        value_parser = optional_path(), help_heading = "TLS"
    )]
    pub tls_key: OptionalPath,

    /// Name that the server's certificate must have, instead of the address' host.
    #[arg(
        id = "tls-server-name",
        long = "tls-server-name",
        value_name = "NAME",
        default_value = "",
        help_heading = "TLS"
    )]
    pub tls_server_name: String,

    /// Take any certificate.
    #[arg(
        id = "tls-skip-verify",
        long = "tls-skip-verify",
        action = ArgAction::Set,
        default_value = "false",
        help_heading = "TLS"
    )]
    pub tls_skip_verify: bool,
}

/// When, and how much.
#[derive(Clone, Debug, Args)]
pub struct StoreTimes {
    /// Earliest time: an RFC 3339 time, or a distance from now such as -2h.
    #[arg(
        id = "start",
        long = "start",
        value_name = "TIME|DURATION",
        default_value = "-1h"
    )]
    pub start: TimeOrDuration,

    /// Latest time.
    #[arg(
        id = "end",
        long = "end",
        value_name = "TIME|DURATION",
        default_value = "0s"
    )]
    pub end: TimeOrDuration,

    /// Most results. 0 is no limit.
    #[arg(
        id = "limit", long = "limit", value_name = "COUNT", default_value = "0",
        value_parser = number::parse_uint
    )]
    pub limit: u64,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutput {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
}

impl FromStr for StoreOutput {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(value, &[("table", Self::Table), ("json", Self::Json)])
    }
}
