//! What the flags mean together: documents given as path or text, and combinations that are wrong.
//!
//! The parts own their configuration; this is what must be said about flags before the parts see
//! them. Everything here is an error of preparing the command: exit code 1.

mod checks;
mod documents;

use std::io;
use std::path::PathBuf;
use std::string::FromUtf8Error;

use crate::model::ExpandError;

pub use checks::check;
pub use documents::{Documents, PathOrContent};

/// The flags parse, and yet nothing can be started with them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A document was given as a file and as text.
    #[error("both {flag}-file and {flag} flags set.")]
    FileAndContent {
        /// The flag for the text.
        flag: &'static str,
    },
    /// The document's file can't be read.
    #[error("loading file {path} for {flag}-file", path = path.display())]
    Unreadable {
        /// The flag for the text.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The document's file is no text.
    #[error("loading file {path} for {flag}-file", path = path.display())]
    NotText {
        /// The flag for the text.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Where the bytes stop being UTF-8.
        source: FromUtf8Error,
    },
    /// The document's file is larger than any configuration.
    #[error(
        "loading file {path} for {flag}-file: larger than {bytes_max} bytes",
        path = path.display()
    )]
    TooLarge {
        /// The flag for the text.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The document names an environment variable that cannot be put in.
    #[error("expanding the content of {flag}")]
    Expand {
        /// The flag for the text.
        flag: &'static str,
        /// The variable.
        source: ExpandError,
    },
    /// `--auto-gomemlimit.ratio` outside (0, 1], which is checked even when it is not used.
    #[error(
        "auto-gomemlimit.ratio must be greater than 0 and less than or equal to 1, got {ratio}"
    )]
    MemoryRatio {
        /// What was given.
        ratio: f64,
    },
    /// A duration that must be longer than zero, because something happens that often.
    #[error("{flag} must be greater than 0, got {given}")]
    NotPositive {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: crate::model::GoDuration,
    },
    /// A duration that may be zero and not shorter.
    #[error("{flag} must not be negative, got {given}")]
    Negative {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: crate::model::GoDuration,
    },
    /// `--grpc-server-tls-cert` without `--grpc-server-tls-key`, or the other way round.
    #[error("setup gRPC server: both server key and certificate must be provided")]
    HalfKeyPair,
    /// `--grpc-server-tls-client-ca` alone.
    #[error(
        "setup gRPC server: when a client CA is used a server key and certificate must also be \
         provided"
    )]
    ClientCaAlone,
}
