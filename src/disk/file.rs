//! An open file for reading, and what tells it from a later one of the same name.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Stat};

use super::direct::Ways;
use super::{Faults, residency};

/// What identifies a file's content without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// The device.
    pub device: u64,
    /// The inode; a hard link shares it.
    pub inode: u64,
    /// The size in bytes.
    pub size_bytes: u64,
    /// The last change of content, in nanoseconds since the Unix epoch.
    pub mtime_ns: i128,
}

impl FileIdentity {
    pub(super) fn of(stat: &Stat) -> io::Result<Self> {
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size_bytes: u64::try_from(stat.st_size).map_err(io::Error::other)?,
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        })
    }
}

/// What changes with every change of a file, even where size and modification time are made to
/// look as before: the kernel sets the change time, nobody else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileStamp {
    /// What identifies the content.
    pub identity: FileIdentity,
    /// The last change of content, names or attributes, in nanoseconds since the Unix epoch. A new
    /// hard link changes it too.
    pub ctime_ns: i128,
}

impl FileStamp {
    pub(super) fn of(stat: &Stat) -> io::Result<Self> {
        Ok(Self {
            identity: FileIdentity::of(stat)?,
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        })
    }
}

fn nanoseconds(seconds: impl Into<i128>, rest: impl Into<i128>) -> i128 {
    seconds.into() * 1_000_000_000 + rest.into()
}

/// A regular file held open for reading. It stays readable after its name is gone.
#[derive(Clone)]
pub struct DiskFile {
    pub(super) descriptor: Arc<OwnedFd>,
    pub(super) faults: Faults,
    pub(super) ways: Arc<Ways>,
    identity: FileIdentity,
    path: Arc<Path>,
}

impl DiskFile {
    pub(super) fn new(descriptor: OwnedFd, path: PathBuf, faults: Faults) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&descriptor)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is not a regular file"));
        }
        Ok(Self {
            descriptor: Arc::new(descriptor),
            faults,
            ways: Arc::default(),
            identity: FileIdentity::of(&stat)?,
            path: path.into(),
        })
    }

    /// The same file under another of its names, for messages.
    #[must_use]
    pub fn known_as(self, path: PathBuf) -> Self {
        Self {
            path: path.into(),
            ..self
        }
    }

    /// What identified the content when the file was opened.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// The size in bytes when the file was opened.
    pub fn size_bytes(&self) -> u64 {
        self.identity.size_bytes
    }

    /// How much of the file is in the page cache, in bytes, whole pages counted.
    ///
    /// # Errors
    /// Where the kernel does not tell: before Linux 6.5, in some sandboxes, and of another user's
    /// file that may not be written.
    pub fn cached_bytes(&self) -> io::Result<u64> {
        residency::cached_bytes(self.descriptor.as_fd())
    }

    /// The path it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskFile")
            .field("path", &self.path)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
