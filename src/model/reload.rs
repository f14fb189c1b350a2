//! What a reloader tells of itself: values for whoever shows them, such as a status page.

use super::TimestampMs;

/// How it stands with the configuration that Prometheus is to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadStatus {
    /// Whether Prometheus has loaded what the files said when they were last looked at.
    pub is_current: bool,
    /// When Prometheus last loaded it; `None` before the first time.
    pub last_success: Option<TimestampMs>,
    /// What last went wrong, also where all is well again since.
    pub last_failure: Option<ReloadFailure>,
    /// How many directories are watched.
    pub watched_dirs: usize,
}

/// A look at the files, or a reload, that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadFailure {
    /// When.
    pub at: TimestampMs,
    /// The error and its causes, in one line. Without credentials.
    pub error: String,
    /// What an operator can do about it, where that is known.
    pub remedy: Option<&'static str>,
}
