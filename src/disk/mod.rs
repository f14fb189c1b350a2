//! Files and directories: the only place where outrigger touches a file system.
//!
//! A [`Dir`] is a held directory; everything below it is reached relative to its descriptor.
//! A [`DiskEngine`] reads file contents as runs of at most [`RUN_BYTES`] out of one
//! [`BufferPool`], whose size bounds the memory of all bulk reading, and leaves the page cache as
//! it was. Calls that may wait for a disk never run on the network's threads. `disk` knows nothing
//! of TSDB blocks or buckets.

mod blocking;
mod buffer;
#[cfg(test)]
mod conformance;
mod dir;
mod direct;
mod engine;
mod faults;
mod file;
mod list;
mod metrics;
mod mmap;
mod path;
mod pread;
mod residency;
mod runs;
#[cfg(any(test, feature = "testing"))]
mod sim;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod transfer;
mod uring;
mod watch;
mod watch_set;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use buffer::{BufferPool, PooledBuf, RUN_BYTES};
pub use dir::{Containment, Dir};
pub use engine::{DiskEngine, EngineError, EngineInfo, EngineRequest};
pub use faults::Faults;
pub use file::{DiskFile, FileIdentity, FileStamp};
pub use list::{Entry, EntryKind};
pub use metrics::register_engine_info;
pub use mmap::MappedFile;
pub use runs::{FileRuns, ReadMode};
#[cfg(any(test, feature = "testing"))]
pub use sim::SimFaults;
pub use watch::{DirChange, DirWatch};
pub use watch_set::{WatchSet, WatchSetChange, WatchSetOutcome};
pub use writer::{AtomicWriter, TempFile};

/// A file-system call that failed: which, on what, why.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}", path.display())]
pub struct DiskError {
    /// The operation, as a verb: `open`, `read`, `link`.
    pub op: &'static str,
    /// What it was done to.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    fn new(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            op,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        // ENOTDIR: a parent became a file, so the thing below it does not exist either.
        matches!(
            self.source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    }

    /// Whether a symlink leads out of the directory that was to be kept to.
    pub fn leads_out(&self) -> bool {
        self.source
            .get_ref()
            .is_some_and(|inner| inner.is::<path::LeadsOut>())
    }

    /// Whether hard links can't be made here, so that held descriptors must do: another mount,
    /// too many links, another owner (`fs.protected_hardlinks`), no links at all.
    pub fn is_link_refused(&self) -> bool {
        use rustix::io::Errno;
        matches!(
            Errno::from_io_error(&self.source),
            Some(
                Errno::PERM
                    | Errno::ACCESS
                    | Errno::XDEV
                    | Errno::MLINK
                    | Errno::ROFS
                    | Errno::OPNOTSUPP
                    | Errno::NOSYS
            )
        )
    }

    /// Whether another try may succeed without anyone doing something.
    pub fn is_retryable(&self) -> bool {
        use io::ErrorKind::{
            Interrupted, ResourceBusy, StaleNetworkFileHandle, TimedOut, WouldBlock,
        };
        matches!(
            self.source.kind(),
            Interrupted | ResourceBusy | StaleNetworkFileHandle | TimedOut | WouldBlock
        )
    }

    /// What an operator can do about it, where the kernel's words alone don't say.
    pub fn remedy(&self) -> Option<&'static str> {
        use io::ErrorKind as Kind;
        match self.source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => {
                Some("free space on that file system; the upload is tried again by itself")
            }
            Kind::PermissionDenied => Some(
                "run outrigger with the user or group that Prometheus runs with, and anew \
                     where the directory was made after its start",
            ),
            Kind::ReadOnlyFilesystem => Some("mount that directory writable"),
            _ => None,
        }
    }
}
