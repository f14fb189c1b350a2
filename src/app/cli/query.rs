//! The flags of the query APIs, named as on `thanos query` where that has them. None but the first
//! may be given without it.

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args};

use super::number;
use crate::model::{InvalidPromDuration, PromDuration};

/// The flag that the others need.
const ENABLE: &str = "query.enable";

/// Flags of the query APIs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queries")]
pub struct QueryArgs {
    /// Answer PromQL over HTTP (Prometheus' API) and gRPC (thanos.Query), with external labels in
    /// place, evaluated by the Prometheus beside us.
    #[arg(
        id = "query.enable", long = "query.enable", action = ArgAction::Set,
        default_value = "false"
    )]
    pub enable: bool,

    /// Queries that are evaluated at once, from 1 to 1000; more wait. Prometheus by itself
    /// evaluates 20 at a time (`--query.max-concurrency`).
    #[arg(
        id = "query.max-concurrent", long = "query.max-concurrent", value_name = "COUNT",
        default_value = "20", value_parser = number::parse_concurrency
    )]
    pub max_concurrent: usize,

    /// How long a query may take at most, waiting included.
    #[arg(
        id = "query.timeout",
        long = "query.timeout",
        value_name = "DURATION",
        default_value = "2m",
        value_parser = more_than_zero
    )]
    pub timeout: PromDuration,

    /// The shortest step of a range query that names none: it gets a 250th of its range, and no
    /// less than this.
    #[arg(
        id = "query.default-step",
        long = "query.default-step",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = more_than_zero
    )]
    pub default_step: PromDuration,

    /// Label that tells replicas apart, which deduplicated answers do not carry. A request may
    /// name others. May be repeated.
    #[arg(
        id = "query.replica-label", long = "query.replica-label", value_name = "NAME",
        action = ArgAction::Append
    )]
    pub replica_labels: Vec<String>,

    /// Taken for the sake of configurations that are shared with a querier: one Prometheus
    /// answers whole or not at all.
    #[arg(
        id = "query.partial-response", long = "query.partial-response", action = ArgAction::Set,
        default_value = "true"
    )]
    pub partial_response: bool,
}

/// Why a duration is no timeout and no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidSpan {
    #[error(transparent)]
    Duration(#[from] InvalidPromDuration),
    #[error("must be more than 0")]
    Zero,
}

fn more_than_zero(text: &str) -> Result<PromDuration, InvalidSpan> {
    let span: PromDuration = text.parse()?;
    match span.as_millis() {
        0 => Err(InvalidSpan::Zero),
        _ => Ok(span),
    }
}

/// The first flag of these that was given though nothing is to be queried.
pub(super) fn idle_flag(matches: &ArgMatches) -> Option<String> {
    let sidecar = matches.subcommand_matches("sidecar")?;
    if sidecar.get_one::<bool>(ENABLE) == Some(&true) {
        return None;
    }
    let given = sidecar.ids().map(clap::Id::as_str).find(|id| {
        let is_given = sidecar.value_source(id) == Some(ValueSource::CommandLine);
        id.starts_with("query.") && *id != ENABLE && is_given
    });
    given.map(str::to_owned)
}
