//! The disk engine: who makes the reads and writes that wait for a disk.
//!
//! Three engines do the same: io_uring on a thread of its own, blocking calls, and in tests one
//! that misbehaves. Which one it is was decided once, at the start, and is told.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::transfer::{Job, Progress, ReadJob, Work, WriteJob, ended_early};
use super::uring::{self, Uring};
use super::{BufferPool, DiskError, DiskFile, FileRuns, PooledBuf, ReadMode, pread};

/// Where the kernel tells whether it gives io_uring to anyone (`kernel.io_uring_disabled`).
const URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// Which engine is asked for (`--io.engine`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineRequest {
    /// io_uring where it works, else blocking calls, with a warning.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Blocking calls.
    Pread,
}

/// Which engine is in use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// The name, as `--io.engine` takes it: `uring` or `pread`.
    pub engine: &'static str,
    /// `requested`, `probed` where `auto` found io_uring to work, else the name of the error
    /// because of which it fell back, such as `EPERM`.
    pub reason: String,
}

/// Why an engine can't be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "io_uring can't be used ({errno}): likely cause: {cause}; {remedy}, or use --io.engine=pread"
)]
pub struct EngineError {
    /// The name of the error number, such as `EPERM`.
    pub errno: String,
    /// What most likely is behind it.
    pub cause: String,
    /// What an operator can do to have it.
    pub remedy: &'static str,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Reads and writes files for everyone; cheap to clone. When the last clone is dropped, what is in
/// flight is waited for, though not for ever.
#[derive(Clone, Debug)]
pub struct DiskEngine {
    pool: BufferPool,
    driver: Arc<Driver>,
}

/// The engine proper.
#[derive(Debug)]
pub(super) struct Driver {
    kind: DriverKind,
    info: EngineInfo,
    /// One permit for each transfer that may be in flight.
    slots: Arc<Semaphore>,
}

#[derive(Debug)]
enum DriverKind {
    Uring(Uring),
    Pread,
    #[cfg(any(test, feature = "testing"))]
    Sim(super::sim::Sim),
}

/// The right to have one transfer in flight.
#[derive(Debug)]
pub(super) struct Slot(OwnedSemaphorePermit);

/// The answer to a transfer that was begun. Dropping it does not stop the transfer.
#[derive(Debug)]
pub(super) struct Pending<T>(oneshot::Receiver<io::Result<T>>);

// === impl EngineError ===

impl EngineError {
    fn new(source: io::Error) -> Self {
        let (cause, remedy) = match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => refusal_cause(),
            Some(Errno::NOSYS) => (
                "a kernel or sandbox without io_uring".to_owned(),
                "run on Linux 5.11 or later outside such a sandbox",
            ),
            Some(Errno::NOMEM) => (
                "the limit of locked memory (ulimit -l)".to_owned(),
                "raise it (LimitMEMLOCK=, memlock)",
            ),
            _ => (
                "a kernel without what it needs of io_uring".to_owned(),
                "run on Linux 5.11 or later",
            ),
        };
        Self {
            errno: errno_name(&source),
            cause,
            remedy,
            source,
        }
    }
}

fn refusal_cause() -> (String, &'static str) {
    let disabled = std::fs::read_to_string(URING_DISABLED).unwrap_or_default();
    match disabled.trim() {
        level @ ("1" | "2") => (
            format!("kernel.io_uring_disabled={level}"),
            "set kernel.io_uring_disabled=0",
        ),
        _ => (
            "a seccomp filter, as containerd 2, Docker and GKE Autopilot have by default"
                .to_owned(),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile",
        ),
    }
}

fn errno_name(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => "EPERM".to_owned(),
        Some(Errno::ACCESS) => "EACCES".to_owned(),
        Some(Errno::NOSYS) => "ENOSYS".to_owned(),
        Some(Errno::NOMEM) => "ENOMEM".to_owned(),
        Some(Errno::INVAL) => "EINVAL".to_owned(),
        Some(Errno::MFILE) => "EMFILE".to_owned(),
        Some(Errno::NFILE) => "ENFILE".to_owned(),
        Some(errno) => format!("errno {}", errno.raw_os_error()),
        None => error.to_string(),
    }
}

// === impl DiskEngine ===

impl DiskEngine {
    /// The engine that is asked for, over the buffers of `pool`. It is tried out by reading a
    /// file. Under [`EngineRequest::Auto`] a refusal is logged here and is no error.
    ///
    /// # Errors
    /// Where io_uring is asked for and is not to be had.
    pub fn build(request: EngineRequest, pool: BufferPool) -> Result<Self, EngineError> {
        let driver = match request {
            EngineRequest::Pread => Driver::pread("requested".to_owned()),
            EngineRequest::Uring => Driver::uring("requested").map_err(EngineError::new)?,
            EngineRequest::Auto => match Driver::uring("probed") {
                Ok(driver) => driver,
                Err(error) => {
                    let refused = EngineError::new(error);
                    tracing::warn!(
                        errno = %refused.errno, cause = %refused.cause, remedy = refused.remedy,
                        err = %refused.source,
                        "io_uring can't be used; reading with blocking calls, which costs some \
                         more CPU"
                    );
                    Driver::pread(refused.errno)
                }
            },
        };
        Ok(Self::over(driver, pool))
    }

    /// An engine of blocking calls over the buffers of `pool`.
    pub fn new(pool: BufferPool) -> Self {
        Self::over(Driver::pread("requested".to_owned()), pool)
    }

    /// The same engine over the buffers of another pool.
    #[must_use]
    pub fn with_pool(&self, pool: BufferPool) -> Self {
        Self {
            driver: Arc::clone(&self.driver),
            pool,
        }
    }

    fn over(driver: Driver, pool: BufferPool) -> Self {
        Self {
            pool,
            driver: Arc::new(driver),
        }
    }

    /// Which engine this is, and why.
    pub fn info(&self) -> &EngineInfo {
        &self.driver.info
    }

    /// The buffers it reads into.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// The runs of `range` of `file`. Past the size the file had when it was opened there is
    /// nothing; a file that has shrunk since gives an error, never zeros or a short success.
    pub fn runs(&self, file: &DiskFile, range: Range<u64>, mode: ReadMode) -> FileRuns {
        FileRuns::new(self.clone(), file.clone(), range, mode)
    }

    /// A short range in one piece.
    ///
    /// # Errors
    /// Where it can't be read, or the file ends before the range does.
    pub async fn read_exact(
        &self,
        file: &DiskFile,
        range: Range<u64>,
        mode: ReadMode,
    ) -> Result<Vec<u8>, DiskError> {
        if range.end > file.size_bytes() {
            return Err(DiskError::new(
                "read",
                file.path(),
                ended_early(file.size_bytes()),
            ));
        }
        let mut runs = self.runs(file, range, mode);
        let mut bytes = Vec::new();
        while let Some(run) = runs.next(u64::MAX).await? {
            bytes.extend_from_slice(&run);
        }
        Ok(bytes)
    }

    /// Waits for a place among the transfers in flight. These end by themselves, so one who holds
    /// buffers may wait here.
    pub(super) async fn slot(&self) -> Slot {
        let permit = Arc::clone(&self.driver.slots).acquire_owned().await;
        Slot(permit.expect("the engine's semaphore is never closed"))
    }

    /// A place among the transfers in flight, where one is free now.
    pub(super) fn try_slot(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.driver.slots).try_acquire_owned();
        permit.ok().map(Slot)
    }

    /// Begins a read, which goes on whether or not its answer is waited for.
    pub(super) fn begin_read(
        &self,
        slot: Slot,
        file: Arc<OwnedFd>,
        progress: Progress,
        buffer: PooledBuf,
    ) -> Pending<PooledBuf> {
        let (reply, answer) = oneshot::channel();
        let work = Work::Read(ReadJob {
            progress,
            buffer,
            reply,
        });
        self.submit(slot, file, work);
        Pending(answer)
    }

    /// Begins a write, which goes on whether or not its answer is waited for.
    pub(super) fn begin_write(
        &self,
        slot: Slot,
        file: Arc<OwnedFd>,
        progress: Progress,
        bytes: Bytes,
    ) -> Pending<()> {
        let (reply, answer) = oneshot::channel();
        let work = Work::Write(WriteJob {
            progress,
            bytes,
            reply,
        });
        self.submit(slot, file, work);
        Pending(answer)
    }

    fn submit(&self, Slot(slot): Slot, file: Arc<OwnedFd>, work: Work) {
        let job = Job { file, work, slot };
        match &self.driver.kind {
            DriverKind::Uring(uring) => uring.submit(job),
            DriverKind::Pread => pread::submit(job),
            #[cfg(any(test, feature = "testing"))]
            DriverKind::Sim(sim) => sim.submit(job),
        }
    }

    /// Whether bytes in the page cache are copied from it without asking the engine.
    pub(super) fn takes_cached_bytes_inline(&self) -> bool {
        match &self.driver.kind {
            DriverKind::Uring(_) | DriverKind::Pread => true,
            // Its faults would never be met.
            #[cfg(any(test, feature = "testing"))]
            DriverKind::Sim(_) => false,
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl DiskEngine {
    /// An engine which misbehaves as `faults` say.
    pub fn simulated(faults: super::SimFaults, pool: BufferPool) -> Self {
        let driver = Driver {
            kind: DriverKind::Sim(super::sim::Sim::new(faults)),
            info: EngineInfo {
                engine: "sim",
                reason: "requested".to_owned(),
            },
            slots: Arc::new(Semaphore::new(pread::IN_FLIGHT_MAX)),
        };
        Self::over(driver, pool)
    }
}

// === impl Driver ===

impl Driver {
    fn uring(reason: &str) -> io::Result<Self> {
        Ok(Self {
            kind: DriverKind::Uring(Uring::start()?),
            info: EngineInfo {
                engine: "uring",
                reason: reason.to_owned(),
            },
            slots: Arc::new(Semaphore::new(uring::IN_FLIGHT_MAX)),
        })
    }

    fn pread(reason: String) -> Self {
        Self {
            kind: DriverKind::Pread,
            info: EngineInfo {
                engine: "pread",
                reason,
            },
            slots: Arc::new(Semaphore::new(pread::IN_FLIGHT_MAX)),
        }
    }
}

// === impl Pending ===

impl<T> Pending<T> {
    /// Waits for the answer; to be called again only where the wait before was given up.
    pub(super) async fn wait(&mut self) -> io::Result<T> {
        match (&mut self.0).await {
            Ok(answer) => answer,
            Err(_) => Err(io::Error::other("the disk engine has ended")),
        }
    }
}

#[cfg(test)]
mod tests;
