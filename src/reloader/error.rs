//! What goes wrong between the files and Prometheus.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use crate::disk::DiskError;
use crate::model::ExpandError;
use crate::prometheus::{PeerError, PeerErrorClass};

/// The flag that names the file at fault.
pub(super) const CONFIG_FLAG: &str = "reloader.config-file";
/// The flag that names where the configuration is written.
pub(super) const OUTPUT_FLAG: &str = "reloader.config-envsubst-file";
/// The flag that names the directory of rules at fault.
pub(super) const RULES_FLAG: &str = "reloader.rule-dir";

/// Why the files can't be looked at or the configuration can't be written.
#[derive(Debug, thiserror::Error)]
pub enum ReloaderError {
    /// A file or directory can't be read.
    #[error("{op} {}, of --{flag}", path.display())]
    Unreadable {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The flag it belongs to.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is something else where a file should be.
    #[error("{} of --{flag} is {kind}, not a file", path.display())]
    NotAFile {
        /// What should be a file.
        path: PathBuf,
        /// The flag it belongs to.
        flag: &'static str,
        /// What it is.
        kind: &'static str,
    },
    /// A file, or all of them, are larger than is read.
    #[error("{} of --{flag} is more than the {bytes_max} bytes that are read", path.display())]
    TooLarge {
        /// The file, or the directory of all files.
        path: PathBuf,
        /// The flag it belongs to.
        flag: &'static str,
        /// The limit.
        bytes_max: u64,
    },
    /// A directory of rules has more in it than is looked at.
    #[error("{} of --{flag} has more than {entries_max} entries", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The flag it belongs to.
        flag: &'static str,
        /// The limit.
        entries_max: usize,
    },
    /// Directories lie deeper in each other than is looked at.
    #[error("{} of --{flag} lies more than {depth_max} directories deep", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
        /// The flag it belongs to.
        flag: &'static str,
        /// The limit.
        depth_max: usize,
    },
    /// There is nothing in the configuration.
    #[error("{} of --{CONFIG_FLAG} is empty", path.display())]
    Empty {
        /// The configuration.
        path: PathBuf,
    },
    /// The configuration begins as gzip and does not go on as such.
    #[error("gunzip {} of --{CONFIG_FLAG}", path.display())]
    Gzip {
        /// The configuration.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration is not UTF-8.
    #[error("{} of --{CONFIG_FLAG} is not text, in line {line}", path.display())]
    NotText {
        /// The configuration.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Where.
        source: std::str::Utf8Error,
    },
    /// The configuration names a variable that can't be put in.
    #[error("expand environment variables: {}, line {}", path.display(), source.line())]
    Expand {
        /// The configuration.
        path: PathBuf,
        /// Which, and why.
        source: ExpandError,
    },
    /// The output can't be written; what stood there still does.
    #[error("{op} {}, for --{OUTPUT_FLAG}", path.display())]
    Output {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why Prometheus did not reload, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// Prometheus can't be asked.
    #[error("trigger reload")]
    Ask(#[source] PeerError),
    /// Prometheus refused.
    #[error("received non-200 response: {status}: {message}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// And this text.
        message: String,
        /// The request's URL, without credentials.
        url: String,
    },
    /// The state of Prometheus before or after the signal can't be asked for.
    #[error("ask for the time of the last reload")]
    Watch(#[source] PeerError),
    /// No process has the name.
    #[error("find the process to signal: there is none with the name {name:?}")]
    NoProcess {
        /// `--reloader.process-name`.
        name: String,
    },
    /// The processes can't be listed.
    #[error("find the process to signal")]
    Processes(#[source] procfs::ProcError),
    /// The signal can't be sent.
    #[error("send SIGHUP to process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Prometheus says that it could not load the configuration.
    #[error("configuration reload has failed")]
    Failed,
    /// Neither success nor failure was seen in time.
    #[error("no reload was seen within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
}

/// The first look at the files failed, and nobody waits for a second.
#[derive(Debug, thiserror::Error)]
#[error("applying the configuration at start failed; {remedy}")]
pub struct StartError {
    pub(super) remedy: &'static str,
    pub(super) source: ReloaderError,
}

// === impl ReloaderError ===

impl ReloaderError {
    /// The file or directory that is to be read and not there.
    pub(super) fn missing(&self) -> Option<&PathBuf> {
        match self {
            Self::Unreadable { source, path, .. } => {
                let kinds = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                kinds.contains(&source.kind()).then_some(path)
            }
            _ => None,
        }
    }

    /// Whether a file is there and may not be read.
    pub(super) fn is_denied(&self) -> bool {
        let denied = io::ErrorKind::PermissionDenied;
        matches!(self, Self::Unreadable { source, .. } if source.kind() == denied)
    }

    /// Whether the configuration names a variable that is not set.
    pub fn is_unset_variable(&self) -> bool {
        let Self::Expand { source, .. } = self else {
            return false;
        };
        matches!(source, ExpandError::Unset { .. })
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        use io::ErrorKind as Kind;
        match self {
            Self::Unreadable { source, .. } => match source.kind() {
                Kind::NotFound | Kind::NotADirectory => {
                    "make the path exist for outrigger, with no symlink in it that leads nowhere: \
                     in a pod, mount the same volume in both containers"
                }
                Kind::PermissionDenied => {
                    "let the user that outrigger runs as read it and enter its directories"
                }
                _ => "look after the file system that it lies on",
            },
            Self::NotAFile { .. } => "name a file, and keep only files and directories with rules",
            Self::TooLarge { .. } | Self::TooMany { .. } | Self::TooDeep { .. } => {
                "name a directory that has nothing but rules in it, and a file that is one"
            }
            Self::Empty { .. } => "write the configuration, or remove the flag",
            Self::Gzip { .. } => "compress the configuration again, or store it uncompressed",
            Self::NotText { .. } => "write the configuration in UTF-8",
            Self::Expand { source, .. } => match source {
                ExpandError::Unset { .. } => {
                    "set the variable for outrigger and restart it, or take it out of the \
                     configuration"
                }
                ExpandError::NotText { .. } => "give the variable a value in UTF-8",
                ExpandError::TooLarge { .. } => "give the variable a shorter value",
            },
            Self::Output { source, .. } => match source.kind() {
                Kind::NotFound | Kind::NotADirectory => {
                    "make the output's directory: in a pod, an emptyDir for both containers"
                }
                Kind::PermissionDenied => {
                    "let the user that outrigger runs as write to the output's directory"
                }
                Kind::ReadOnlyFilesystem => "mount the output's directory writable",
                Kind::IsADirectory => "name a file, not a directory",
                Kind::StorageFull | Kind::QuotaExceeded => "free space for the output",
                _ => "look after the file system of the output",
            },
        }
    }
}

// === impl TriggerError ===

impl TriggerError {
    /// Whether Prometheus was there and did not reload: trying again costs it something, and hardly
    /// helps as long as nothing changes. Not so where it was not there to be asked.
    pub fn is_verdict(&self) -> bool {
        match self {
            Self::Ask(error) | Self::Watch(error) => match error.class() {
                PeerErrorClass::Unreachable
                | PeerErrorClass::TimedOut
                | PeerErrorClass::Interrupted => false,
                PeerErrorClass::Status(status) => status != StatusCode::SERVICE_UNAVAILABLE,
                _ => true,
            },
            Self::Refused { status, .. } => *status != StatusCode::SERVICE_UNAVAILABLE,
            Self::NoProcess { .. }
            | Self::Processes(_)
            | Self::Signal { .. }
            | Self::Failed
            | Self::TimedOut { .. } => true,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Refused { status, .. } => match *status {
                StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => {
                    "have you set `--web.enable-lifecycle` Prometheus flag?"
                }
                StatusCode::NOT_FOUND => {
                    "have you set `--web.enable-lifecycle` Prometheus flag, and does \
                     --prometheus.url have its path prefix?"
                }
                StatusCode::UNAUTHORIZED => {
                    "give credentials that Prometheus accepts in --prometheus.http-client"
                }
                StatusCode::SERVICE_UNAVAILABLE => "wait until Prometheus is ready",
                _ => CORRECT,
            },
            Self::Ask(_) | Self::Watch(_) => {
                "let --prometheus.url lead to a Prometheus that runs; one that starts is waited for"
            }
            Self::NoProcess { .. } => {
                "share the process namespace (shareProcessNamespace: true in a pod, no hidepid \
                 for /proc), and let --reloader.process-name be the name in /proc/<pid>/comm"
            }
            Self::Processes(_) => "let outrigger read /proc",
            Self::Signal { .. } => {
                "run outrigger as the user that Prometheus runs as, or with CAP_KILL"
            }
            Self::Failed => CORRECT,
            Self::TimedOut { .. } => {
                "look into Prometheus' log: it may refuse the configuration, or take long to load \
                 it"
            }
        }
    }
}

const CORRECT: &str = "correct what Prometheus names, here or in its log: it still runs with the \
    configuration it had";

/// What an operator can do about directories that can't be watched.
pub(super) fn watch_remedy(error: &DiskError) -> &'static str {
    match error.source.kind() {
        io::ErrorKind::StorageFull => "raise the sysctl fs.inotify.max_user_watches",
        io::ErrorKind::PermissionDenied => "let the user that outrigger runs as read the directory",
        _ if rustix::io::Errno::from_io_error(&error.source) == Some(rustix::io::Errno::MFILE) => {
            "raise the sysctl fs.inotify.max_user_instances"
        }
        _ => "changes are still found every --reloader.watch-interval",
    }
}
