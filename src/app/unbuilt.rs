//! Flags that are taken and not obeyed: parts of the reference that do not exist here yet.
//!
//! A flag at its default says nothing. One that was set gives a warning at start, so that nobody
//! wonders. A part that gets built deletes its rows.

use std::path::PathBuf;

use super::cli::{self, GlobalArgs, SidecarArgs};

/// What to say about the flags that were set and do nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Flags that are ignored although somebody counts on them.
    pub warnings: Vec<Finding>,
    /// Flags that have no meaning here and never will.
    pub notes: Vec<Finding>,
}

/// One flag and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} is set, but {reason}")]
pub struct Finding {
    /// The flag's name without dashes.
    pub flag: &'static str,
    /// The rest of the sentence "… is set, but".
    pub reason: &'static str,
}

#[derive(Clone, Copy)]
enum Consequence {
    Warn,
    Note,
}

/// A flag that does nothing yet. `value` tells its value as text, to compare with the default's.
struct Row {
    flag: &'static str,
    consequence: Consequence,
    reason: &'static str,
    value: fn(&GlobalArgs, &SidecarArgs) -> String,
}

/// Looks through the flags.
pub fn findings(global: &GlobalArgs, sidecar: &SidecarArgs) -> Findings {
    let (default_global, default_sidecar) = cli::defaults();
    let mut findings = Findings::default();
    for row in ROWS {
        if (row.value)(global, sidecar) == (row.value)(&default_global, &default_sidecar) {
            continue;
        }
        let list = match row.consequence {
            Consequence::Warn => &mut findings.warnings,
            Consequence::Note => &mut findings.notes,
        };
        list.push(Finding {
            flag: row.flag,
            reason: row.reason,
        });
    }
    findings
}

const fn warn(flag: &'static str, reason: &'static str, value: Value) -> Row {
    Row {
        flag,
        consequence: Consequence::Warn,
        reason,
        value,
    }
}

const fn note(flag: &'static str, reason: &'static str, value: Value) -> Row {
    Row {
        flag,
        consequence: Consequence::Note,
        reason,
        value,
    }
}

type Value = fn(&GlobalArgs, &SidecarArgs) -> String;

fn path(path: Option<&PathBuf>) -> String {
    format!("{path:?}")
}

const NO_TRACING: &str = "tracing is not built yet: no traces are sent";
const NO_GO_RUNTIME: &str = "it steers the Go runtime, which this program does not have; memory \
    is bounded without it";

const ROWS: &[Row] = &[
    warn("tracing.config-file", NO_TRACING, |g, _| {
        path(g.tracing.config_file.as_ref())
    }),
    warn("tracing.config", NO_TRACING, |g, _| {
        g.tracing.config.as_str().to_owned()
    }),
    note("enable-auto-gomemlimit", NO_GO_RUNTIME, |g, _| {
        g.memory.enable_auto_gomemlimit.to_string()
    }),
    note("auto-gomemlimit.ratio", NO_GO_RUNTIME, |g, _| {
        g.memory.auto_gomemlimit_ratio.to_string()
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::sidecar_args;

    fn found(flags: &[&str]) -> Findings {
        let (global, sidecar) = sidecar_args(flags);
        findings(&global, &sidecar)
    }

    #[test]
    fn defaults_say_nothing_however_they_are_spelt() {
        assert_eq!(found(&[]), Findings::default());
        let spelt = [
            "--no-enable-auto-gomemlimit",
            "--auto-gomemlimit.ratio=0.90",
            "--tracing.config=",
        ];
        assert_eq!(found(&spelt), Findings::default());
    }

    /// Each row by a flag that is not at its default: the row must find its own flag, and only it.
    #[test]
    fn each_row_finds_its_flag() {
        let other_value = |flag: &str| match flag {
            "enable-auto-gomemlimit" => "",
            "auto-gomemlimit.ratio" => "=0.5",
            _ => "=x",
        };
        for row in ROWS {
            let given = format!("--{}{}", row.flag, other_value(row.flag));
            let Findings { warnings, notes } = found(&[&given]);
            let (expected, others) = match row.consequence {
                Consequence::Warn => (warnings, notes),
                Consequence::Note => (notes, warnings),
            };
            let finding = Finding {
                flag: row.flag,
                reason: row.reason,
            };
            assert_eq!(expected, [finding], "{given}");
            assert_eq!(others, [], "{given}");
        }
    }
}
