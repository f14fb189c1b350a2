//! A held directory: everything below it is named relative to its descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::path::{open_below, retry, split};
use super::{
    AtomicWriter, DiskError, DiskFile, Entry, EntryKind, Faults, FileIdentity, FileStamp, TempFile,
    list, writer,
};
use crate::lifecycle::blocking;

/// How deep a tree may be that [`Dir::remove_tree`] removes: a block is two levels.
const TREE_DEPTH_MAX: u32 = 16;

/// Whether symlinks may lead out of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// Nothing outside is ever reached; a symlink that leads out is an error.
    Beneath,
    /// Symlinks are followed wherever they lead.
    Unconfined,
}

/// A directory held by descriptor; cheap to clone. It stays the same directory when it is renamed.
#[derive(Clone, Debug)]
pub struct Dir(Arc<Root>);

#[derive(Debug)]
pub(super) struct Root {
    pub(super) descriptor: OwnedFd,
    pub(super) path: PathBuf,
    containment: Containment,
    pub(super) faults: Faults,
}

impl Dir {
    /// Holds `path`.
    ///
    /// # Errors
    /// Where it does not exist or is no directory.
    pub async fn open(path: &Path, containment: Containment) -> Result<Self, DiskError> {
        Self::open_with_faults(path, containment, Faults::default()).await
    }

    /// As [`Dir::open`], with faults to inject.
    ///
    /// # Errors
    /// Where it does not exist or is no directory.
    pub async fn open_with_faults(
        path: &Path,
        containment: Containment,
        faults: Faults,
    ) -> Result<Self, DiskError> {
        let path = path.to_owned();
        blocking(move || Self::hold(path, containment, faults)).await
    }

    pub(super) fn hold(
        path: PathBuf,
        containment: Containment,
        faults: Faults,
    ) -> Result<Self, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match retry(|| rustix::fs::open(&path, flags, Mode::empty())) {
            Ok(descriptor) => Ok(Self(Arc::new(Root {
                descriptor,
                path,
                containment,
                faults,
            }))),
            Err(errno) => Err(DiskError::new("open directory", &path, errno.into())),
        }
    }

    /// The directory `relative`, held by the descriptor `directory`, under the same rules.
    pub(super) fn below(&self, relative: &Path, directory: OwnedFd) -> Self {
        Self(Arc::new(Root {
            descriptor: directory,
            path: self.0.path.join(relative),
            containment: self.0.containment,
            faults: self.0.faults.clone(),
        }))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The names in the directory `relative`, sorted; `""` is this directory.
    ///
    /// # Errors
    /// Where it can't be listed.
    pub async fn list(&self, relative: impl AsRef<Path>) -> Result<Vec<Entry>, DiskError> {
        self.call("list", relative.as_ref(), Root::list).await
    }

    /// What `relative` is; `None` where there is nothing.
    ///
    /// # Errors
    /// Where it can't be told.
    pub async fn kind(&self, relative: impl AsRef<Path>) -> Result<Option<EntryKind>, DiskError> {
        let kind = self.call("stat", relative.as_ref(), |root, relative| {
            let descriptor = root.open(relative, OFlags::PATH, Mode::empty())?;
            let stat = rustix::fs::fstat(&descriptor)?;
            Ok(list::kind_of(FileType::from_raw_mode(stat.st_mode)))
        });
        match kind.await {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What identifies the content of `relative`, which may be anything that has a name, and the
    /// time of its last change of any kind.
    ///
    /// # Errors
    /// Where it can't be told.
    pub async fn stamp(&self, relative: impl AsRef<Path>) -> Result<FileStamp, DiskError> {
        self.call("stat", relative.as_ref(), Root::stamp).await
    }

    /// Whether the path this directory was opened by still leads to it.
    ///
    /// # Errors
    /// Where nothing is there any more, or it can't be told.
    pub async fn is_in_place(&self) -> Result<bool, DiskError> {
        self.call("stat", Path::new(""), Root::is_in_place).await
    }

    /// Takes this directory for this [`Dir`] and its clones alone, until the last one is dropped
    /// or the process ends; `false` where another process, or another opening in this one, has it.
    /// It keeps out only those who ask as well. A file system that knows no such lock counts as
    /// free, with a warning.
    ///
    /// # Errors
    /// Where the kernel refuses for another reason.
    pub async fn try_lock(&self) -> Result<bool, DiskError> {
        self.call("lock", Path::new(""), |root, _| {
            let exclusive = FlockOperation::NonBlockingLockExclusive;
            let lock = || rustix::fs::flock(&root.descriptor, exclusive);
            lock_taken(&root.path, rustix::io::retry_on_intr(lock))
        })
        .await
    }

    /// Opens the regular file `relative` for reading.
    ///
    /// # Errors
    /// Where it can't be opened or is no regular file.
    pub async fn open_file(&self, relative: impl AsRef<Path>) -> Result<DiskFile, DiskError> {
        self.call("open", relative.as_ref(), Root::open_file).await
    }

    /// A whole small file, and what identified it.
    ///
    /// # Errors
    /// Where it can't be read or is longer than `bytes_max`.
    pub async fn read_small(
        &self,
        relative: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<(Vec<u8>, FileIdentity), DiskError> {
        self.call("read", relative.as_ref(), move |root, relative| {
            root.read_small(relative, bytes_max)
        })
        .await
    }

    /// Makes `relative` hold `bytes`: written beside, synced, renamed over, directory synced. A
    /// reader sees the old content or the new, whole, at every moment.
    ///
    /// # Errors
    /// Where a step fails; the old content then stands.
    pub async fn write_atomic(
        &self,
        relative: impl AsRef<Path>,
        bytes: Vec<u8>,
    ) -> Result<(), DiskError> {
        let mut writer = self.create_atomic(relative).await?;
        writer.write(bytes.into()).await?;
        writer.commit().await
    }

    /// As [`Dir::write_atomic`], but nothing is synced: what was written survives the end of this
    /// process, however sudden, and may be lost in a power cut. For what only saves work.
    ///
    /// # Errors
    /// Where a step fails; the old content then stands.
    pub async fn write_atomic_unsynced(
        &self,
        relative: impl AsRef<Path>,
        bytes: Vec<u8>,
    ) -> Result<(), DiskError> {
        writer::write_unsynced(self, relative.as_ref(), bytes).await
    }

    /// Starts a file that appears under its name only when it is committed.
    ///
    /// # Errors
    /// Where the file beside it can't be created.
    pub async fn create_atomic(
        &self,
        relative: impl AsRef<Path>,
    ) -> Result<AtomicWriter, DiskError> {
        AtomicWriter::create(self, relative.as_ref()).await
    }

    /// A file without a name, for sorting what does not fit into memory.
    ///
    /// # Errors
    /// Where it can't be created in the directory `relative`.
    pub async fn temp_file(&self, relative: impl AsRef<Path>) -> Result<TempFile, DiskError> {
        TempFile::create(self, relative.as_ref()).await
    }

    /// Makes the directory `relative` and its parents, with permissions `mode` less the umask.
    ///
    /// # Errors
    /// Where one can't be made, or a part of the path is no directory.
    pub async fn create_dirs(
        &self,
        relative: impl AsRef<Path>,
        mode: u32,
    ) -> Result<(), DiskError> {
        self.call(
            "create directory",
            relative.as_ref(),
            move |root, relative| {
                let mut made = PathBuf::new();
                for component in relative.components() {
                    let parent = root.open_directory(&made)?;
                    made.push(component);
                    match rustix::fs::mkdirat(&parent, component.as_os_str(), Mode::from(mode)) {
                        Ok(()) => rustix::fs::fsync(&parent)?,
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                root.open_directory(relative).map(drop)
            },
        )
        .await
    }

    /// Gives the file `from` a second name.
    ///
    /// # Errors
    /// Where that fails; [`DiskError::is_link_refused`] tells when it never will work.
    pub async fn hard_link(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
    ) -> Result<(), DiskError> {
        let to = to.as_ref().to_owned();
        self.call("link", from.as_ref(), move |root, from| {
            let ((from_parent, from_name), (to_parent, to_name)) = (split(from)?, split(&to)?);
            let from_parent = root.open_directory(&from_parent)?;
            let to_parent = root.open_directory(&to_parent)?;
            root.faults.before_link()?;
            rustix::fs::linkat(
                &from_parent,
                from_name,
                &to_parent,
                to_name,
                AtFlags::empty(),
            )?;
            Ok(())
        })
        .await
    }

    /// Gives what is called `from` the name `to`, both below this directory; what had that name
    /// before is gone, a directory only where it was empty. Nothing is synced.
    ///
    /// # Errors
    /// Where that fails; everything then has the name it had.
    pub async fn rename(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
    ) -> Result<(), DiskError> {
        let to = to.as_ref().to_owned();
        self.call("rename", from.as_ref(), move |root, from| {
            let ((from_parent, from_name), (to_parent, to_name)) = (split(from)?, split(&to)?);
            let from_parent = root.open_directory(&from_parent)?;
            let to_parent = root.open_directory(&to_parent)?;
            Ok(rustix::fs::renameat(
                &from_parent,
                from_name,
                &to_parent,
                to_name,
            )?)
        })
        .await
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// Where it can't be removed.
    pub async fn remove_file(&self, relative: impl AsRef<Path>) -> Result<(), DiskError> {
        self.call("remove", relative.as_ref(), |root, relative| {
            let (parent, name) = split(relative)?;
            absent_is_fine(
                root.open_directory(&parent)
                    .and_then(|parent| Ok(rustix::fs::unlinkat(&parent, name, AtFlags::empty())?)),
            )
        })
        .await
    }

    /// Removes a directory and all in it; one that is not there is no error. Symlinks in it are
    /// removed, never followed.
    ///
    /// # Errors
    /// Where something can't be removed.
    pub async fn remove_tree(&self, relative: impl AsRef<Path>) -> Result<(), DiskError> {
        self.call("remove", relative.as_ref(), |root, relative| {
            let (parent, name) = split(relative)?;
            absent_is_fine(
                root.open_directory(&parent)
                    .and_then(|parent| remove_below(&parent, name.as_ref(), TREE_DEPTH_MAX)),
            )
        })
        .await
    }

    /// Removes the directory `relative` where it is empty; `false` where it is not. One that is
    /// not there counts as removed.
    ///
    /// # Errors
    /// Where it can't be removed for another reason.
    pub async fn remove_empty(&self, relative: impl AsRef<Path>) -> Result<bool, DiskError> {
        self.call("remove", relative.as_ref(), |root, relative| {
            let (parent, name) = split(relative)?;
            let removed = root
                .open_directory(&parent)
                .and_then(|parent| Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?));
            match removed {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
                outcome => absent_is_fine(outcome).map(|()| true),
            }
        })
        .await
    }

    /// Runs one operation on `relative` off the network's threads, with faults and error context.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        op: &'static str,
        relative: &Path,
        operation: impl FnOnce(&Root, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let relative = relative.to_owned();
        self.at_once(move |root| root.perform(op, &relative, operation))
            .await
    }

    /// As [`Dir::call`], here and now.
    pub(super) fn call_blocking<T>(
        &self,
        op: &'static str,
        relative: &Path,
        operation: impl FnOnce(&Root, &Path) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.0.perform(op, relative, operation)
    }

    /// Runs several operations in one go off the network's threads.
    pub(super) async fn at_once<T: Send + 'static>(
        &self,
        operations: impl FnOnce(&Root) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let root = Arc::clone(&self.0);
        blocking(move || operations(&root)).await
    }
}

impl Dir {
    /// Counts `operation` on `relative` as one operation, with faults and error context. It must
    /// not block.
    pub(super) async fn watched<T>(
        &self,
        op: &'static str,
        relative: &Path,
        operation: impl Future<Output = io::Result<T>>,
    ) -> Result<T, DiskError> {
        let faults = &self.0.faults;
        let outcome = match faults.before() {
            Ok(()) => operation.await,
            Err(error) => Err(error),
        };
        faults
            .after(outcome)
            .map_err(|error| self.error(op, relative, error))
    }

    /// An error of `op` on `relative`.
    pub(super) fn error(&self, op: &'static str, relative: &Path, source: io::Error) -> DiskError {
        DiskError::new(op, &self.0.path.join(relative), source)
    }
}

impl Root {
    /// One operation on `relative`, with faults and error context. It blocks.
    pub(super) fn perform<T>(
        &self,
        op: &'static str,
        relative: &Path,
        operation: impl FnOnce(&Self, &Path) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let outcome = self.faults.before();
        self.faults
            .after(outcome.and_then(|()| operation(self, relative)))
            .map_err(|source| DiskError::new(op, &self.path.join(relative), source))
    }

    pub(super) fn open(&self, relative: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        open_below(
            self.descriptor.as_fd(),
            self.containment,
            relative,
            flags,
            mode,
        )
    }

    pub(super) fn list(&self, relative: &Path) -> io::Result<Vec<Entry>> {
        list::list(&self.open_directory(relative)?)
    }

    pub(super) fn stamp(&self, relative: &Path) -> io::Result<FileStamp> {
        let descriptor = self.open(relative, OFlags::PATH, Mode::empty())?;
        FileStamp::of(&rustix::fs::fstat(&descriptor)?)
    }

    pub(super) fn read_small(
        &self,
        relative: &Path,
        bytes_max: u64,
    ) -> io::Result<(Vec<u8>, FileIdentity)> {
        let file = self.open_file(relative)?;
        let identity = file.identity();
        let mut bytes = Vec::new();
        let reader = std::fs::File::from(rustix::io::dup(&*file.descriptor)?);
        io::Read::read_to_end(&mut io::Read::take(&reader, bytes_max + 1), &mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            let reason = format!("is longer than the {bytes_max} bytes it may have");
            return Err(io::Error::other(reason));
        }
        Ok((bytes, identity))
    }

    pub(super) fn open_directory(&self, relative: &Path) -> io::Result<OwnedFd> {
        self.open(relative, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    pub(super) fn open_file(&self, relative: &Path) -> io::Result<DiskFile> {
        // NONBLOCK: opening a FIFO that someone left in a block must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        DiskFile::new(
            self.open(relative, flags, Mode::empty())?,
            self.path.join(relative),
            self.faults.clone(),
        )
    }
}

/// What the answer of `flock` means for `path`.
fn lock_taken(path: &Path, answer: rustix::io::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        // BADF: over NFS the lock is one on bytes, for which a directory can't be opened.
        Err(errno @ (Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF)) => {
            tracing::warn!(
                path = %path.display(), err = %errno,
                "the file system has no locks, so a second user of the directory goes unnoticed"
            );
            Ok(true)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn remove_below(parent: &OwnedFd, name: &Path, depth_left: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match retry(|| rustix::fs::openat(parent, name, flags, Mode::empty())) {
        Ok(directory) => directory,
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?);
        }
        Err(errno) => return Err(errno.into()),
    };
    if depth_left == 0 {
        return Err(io::Error::other(format!(
            "is nested deeper than {TREE_DEPTH_MAX} levels"
        )));
    }
    for entry in list::list(&directory)? {
        absent_is_fine(remove_below(
            &directory,
            Path::new(&entry.name),
            depth_left - 1,
        ))?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests;
