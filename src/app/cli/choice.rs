//! Flag values out of a closed list, with the reference's message for anything else.

use std::str::FromStr;

use crate::app::logging::{LogFormat, LogLevel};
use crate::disk::EngineRequest;
use crate::net::TlsVersion;
use crate::objstore::PayloadSigning;

/// The value is none of the flag's list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("enum value must be one of {}, got '{value}'", choices.join(","))]
pub struct InvalidChoice {
    value: String,
    choices: Vec<&'static str>,
}

/// `--hash-func`: the hash of each file that a block's meta.json notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunc {
    /// No hash is noted.
    None,
    /// SHA-256.
    Sha256,
}

/// `--reloader.method`: how Prometheus is told to reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadMethod {
    /// A POST to `/-/reload`.
    Http,
    /// SIGHUP.
    Signal,
}

impl FromStr for LogLevel {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(
            value,
            &[
                ("error", Self::Error),
                ("warn", Self::Warn),
                ("info", Self::Info),
                ("debug", Self::Debug),
            ],
        )
    }
}

impl FromStr for LogFormat {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(
            value,
            &[
                ("logfmt", Self::Logfmt),
                ("json", Self::Json),
                ("journald", Self::Journald),
            ],
        )
    }
}

impl FromStr for HashFunc {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(value, &[("SHA256", Self::Sha256), ("", Self::None)])
    }
}

impl FromStr for TlsVersion {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(
            value,
            &[
                ("1.0", Self::Tls10),
                ("1.1", Self::Tls11),
                ("1.2", Self::Tls12),
                ("1.3", Self::Tls13),
            ],
        )
    }
}

impl FromStr for ReloadMethod {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(value, &[("http", Self::Http), ("signal", Self::Signal)])
    }
}

impl FromStr for EngineRequest {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(
            value,
            &[
                ("auto", Self::Auto),
                ("uring", Self::Uring),
                ("pread", Self::Pread),
            ],
        )
    }
}

impl FromStr for PayloadSigning {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(
            value,
            &[
                ("auto", Self::Auto),
                ("always", Self::Always),
                ("never", Self::Never),
            ],
        )
    }
}

/// The choice that is spelt exactly like `value`.
pub(super) fn choose<T: Copy>(
    value: &str,
    choices: &[(&'static str, T)],
) -> Result<T, InvalidChoice> {
    let chosen = choices.iter().find(|(name, _)| *name == value);
    chosen
        .map(|(_, choice)| *choice)
        .ok_or_else(|| InvalidChoice {
            value: value.to_owned(),
            choices: choices.iter().map(|(name, _)| *name).collect(),
        })
}
