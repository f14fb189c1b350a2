//! Flags that are taken and have no meaning here.
//!
//! A flag at its default says nothing. One that was set is told about at start, so that nobody
//! wonders.

use super::cli::{self, GlobalArgs};

/// One flag, and why nothing comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} is set, but {reason}")]
pub struct Finding {
    /// The flag's name without dashes.
    pub flag: &'static str,
    /// The rest of the sentence "… is set, but".
    pub reason: &'static str,
}

/// What a command does with the flags for tracing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traces {
    /// It obeys them.
    Sent,
    /// It has nothing to trace.
    None,
}

/// A flag that does nothing. `value` tells its value as text, to compare with the default's.
struct Row {
    flag: &'static str,
    reason: &'static str,
    value: fn(&GlobalArgs) -> String,
}

/// Looks through the flags.
pub fn findings(global: &GlobalArgs, traces: Traces) -> Vec<Finding> {
    let (default_global, _) = cli::defaults();
    let tracing = match traces {
        Traces::Sent => &[][..],
        Traces::None => TRACING,
    };
    let rows = NEVER.iter().chain(tracing);
    let set = rows.filter(|row| (row.value)(global) != (row.value)(&default_global));
    set.map(|row| Finding {
        flag: row.flag,
        reason: row.reason,
    })
    .collect()
}

const NO_GO_RUNTIME: &str = "it steers the Go runtime, which this program does not have; memory \
    is bounded without it";
const NO_TRACING: &str = "only the sidecar sends traces";

const NEVER: &[Row] = &[
    Row {
        flag: "enable-auto-gomemlimit",
        reason: NO_GO_RUNTIME,
        value: |global| global.memory.enable_auto_gomemlimit.to_string(),
    },
    Row {
        flag: "auto-gomemlimit.ratio",
        reason: NO_GO_RUNTIME,
        value: |global| global.memory.auto_gomemlimit_ratio.to_string(),
    },
];

const TRACING: &[Row] = &[
    Row {
        flag: "tracing.config-file",
        reason: NO_TRACING,
        value: |global| format!("{:?}", global.tracing.config_file),
    },
    Row {
        flag: "tracing.config",
        reason: NO_TRACING,
        value: |global| global.tracing.config.as_str().to_owned(),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::sidecar_args;

    fn found(flags: &[&str], traces: Traces) -> Vec<Finding> {
        findings(&sidecar_args(flags).0, traces)
    }

    #[test]
    fn defaults_say_nothing_however_they_are_spelt() {
        assert_eq!(found(&[], Traces::None), []);
        let spelt = [
            "--no-enable-auto-gomemlimit",
            "--auto-gomemlimit.ratio=0.90",
            "--tracing.config=",
        ];
        assert_eq!(found(&spelt, Traces::None), []);
    }

    /// Each row by a flag that is not at its default: the row must find its own flag, and only it.
    #[test]
    fn each_row_finds_its_flag() {
        let other_value = |flag: &str| match flag {
            "enable-auto-gomemlimit" => "",
            "auto-gomemlimit.ratio" => "=0.5",
            _ => "=x",
        };
        for row in NEVER.iter().chain(TRACING) {
            let given = format!("--{}{}", row.flag, other_value(row.flag));
            let finding = Finding {
                flag: row.flag,
                reason: row.reason,
            };
            assert_eq!(found(&[&given], Traces::None), [finding], "{given}");
        }
        assert_eq!(found(&["--tracing.config=x"], Traces::Sent), []);
    }
}
