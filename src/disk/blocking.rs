//! A held directory for those who are on a blocking thread already, as readers of maps are.
//!
//! The same operations as their namesakes without `_blocking`, and under the same rules.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::dir::Root;
use super::path::retry;
use super::{Containment, Dir, DiskError, Entry, Faults, FileIdentity, FileStamp};

impl Dir {
    /// Holds `path`. Blocks.
    ///
    /// # Errors
    /// Where it does not exist or is no directory.
    pub fn open_blocking(path: &Path, containment: Containment) -> Result<Self, DiskError> {
        Self::hold(path.to_owned(), containment, Faults::default())
    }

    /// Holds the directory `relative`. Blocks.
    ///
    /// # Errors
    /// Where it does not exist or is no directory.
    pub fn subdir_blocking(&self, relative: impl AsRef<Path>) -> Result<Self, DiskError> {
        self.call_blocking("open directory", relative.as_ref(), |root, relative| {
            Ok(self.below(relative, root.open_directory(relative)?))
        })
    }

    /// The names in the directory `relative`, sorted; `""` is this directory. Blocks.
    ///
    /// # Errors
    /// Where it can't be listed.
    pub fn list_blocking(&self, relative: impl AsRef<Path>) -> Result<Vec<Entry>, DiskError> {
        self.call_blocking("list", relative.as_ref(), Root::list)
    }

    /// What identifies the content of `relative`, which may be anything that has a name, and the
    /// time of its last change of any kind; `""` is this directory. Blocks.
    ///
    /// # Errors
    /// Where it can't be told.
    pub fn stamp_blocking(&self, relative: impl AsRef<Path>) -> Result<FileStamp, DiskError> {
        self.call_blocking("stat", relative.as_ref(), Root::stamp)
    }

    /// A whole small file, and what identified it. Blocks.
    ///
    /// # Errors
    /// Where it can't be read or is longer than `bytes_max`.
    pub fn read_small_blocking(
        &self,
        relative: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<(Vec<u8>, FileIdentity), DiskError> {
        self.call_blocking("read", relative.as_ref(), |root, relative| {
            root.read_small(relative, bytes_max)
        })
    }

    /// Whether the path this directory was opened by still leads to it. Blocks.
    ///
    /// # Errors
    /// Where nothing is there any more, or it can't be told.
    pub fn is_in_place_blocking(&self) -> Result<bool, DiskError> {
        self.call_blocking("stat", Path::new(""), Root::is_in_place)
    }
}

impl Root {
    pub(super) fn is_in_place(&self, relative: &Path) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let there = retry(|| rustix::fs::open(&self.path, flags, Mode::empty()))?;
        let there = FileStamp::of(&rustix::fs::fstat(&there)?)?.identity;
        let held = self.stamp(relative)?.identity;
        Ok((there.device, there.inode) == (held.device, held.inode))
    }
}
