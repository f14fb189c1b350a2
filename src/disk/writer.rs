//! Writing files: such as appear whole or not at all, and such as never have a name.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use rustix::fs::{Advice, AtFlags, FallocateFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::dir::{Dir, Root};
use super::direct::{self, Direct};
use super::engine::Pending;
use super::path::{retry, split};
use super::transfer::{Progress, errno_of};
use super::{DiskEngine, DiskError, DiskFile, RUN_BYTES};
use crate::lifecycle::blocking;

/// The end of the name of a file which is still being written. What stands before it is the
/// target's name, a dot and a [`stamp`] of the writer.
pub(super) const PARTIAL_SUFFIX: &str = ".outrigger-partial";

/// Direct writes in flight for one file. Each holds a buffer; more make no disk faster.
const WRITES_MAX: usize = 4;

/// A file that appears under its name only at [`AtomicWriter::commit`].
///
/// Every writer writes a file of its own, so two of one target never mix. The last to start wins:
/// it removes what other writers of the target have left, and the commit of one that still lived
/// fails. Dropped before the commit, what was written stays beside the target until then.
#[derive(Debug)]
pub struct AtomicWriter {
    dir: Dir,
    target: PathBuf,
    parent: Arc<OwnedFd>,
    partial_name: OsString,
    name: OsString,
    file: Arc<std::fs::File>,
    /// How many bytes were given.
    position: u64,
    past_cache: Option<PastCache>,
}

/// How a file's bytes go past the page cache.
#[derive(Debug)]
struct PastCache {
    engine: DiskEngine,
    /// `None` where there is no such way; the pages are then dropped once they are synced.
    direct: Option<Direct>,
    in_flight: VecDeque<Pending<()>>,
    has_written: bool,
    allocated_bytes: u64,
}

/// A partial file, open beside its target.
#[derive(Debug)]
struct Begun {
    parent: OwnedFd,
    partial_name: OsString,
    name: OsString,
    file: std::fs::File,
}

/// A file without a name, gone when it is dropped.
#[derive(Debug)]
pub struct TempFile {
    dir: Dir,
    relative: PathBuf,
    file: Arc<std::fs::File>,
    size_bytes: u64,
}

// === impl AtomicWriter ===

impl AtomicWriter {
    pub(super) async fn create(dir: &Dir, target: &Path) -> Result<Self, DiskError> {
        let begun = dir.call("create", target, Begun::create).await?;
        Ok(Self {
            dir: dir.clone(),
            target: target.to_owned(),
            parent: Arc::new(begun.parent),
            partial_name: begun.partial_name,
            name: begun.name,
            file: Arc::new(begun.file),
            position: 0,
            past_cache: None,
        })
    }

    /// Lets the bytes, of which `size_bytes` are expected, leave nothing in the page cache: they
    /// are written by `engine` past it, several runs at a time; where the file system or the
    /// memory they lie in is not fit for that, their pages are dropped at the commit.
    ///
    /// # Errors
    /// Where there is no room for that many bytes.
    pub async fn past_cache(
        mut self,
        engine: &DiskEngine,
        size_bytes: u64,
    ) -> Result<Self, DiskError> {
        let mut past_cache = PastCache {
            engine: engine.clone(),
            direct: None,
            in_flight: VecDeque::new(),
            has_written: false,
            allocated_bytes: 0,
        };
        // Of less than a run the page cache hardly notices.
        if size_bytes >= RUN_BYTES as u64 {
            let file = Arc::clone(&self.file);
            let prepared = blocking(move || prepare(&file, size_bytes)).await;
            (past_cache.direct, past_cache.allocated_bytes) =
                prepared.map_err(|error| self.dir.error("write", &self.target, error))?;
        }
        self.past_cache = Some(past_cache);
        Ok(self)
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// Where the disk refuses them, or has refused earlier ones.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), DiskError> {
        let (dir, target) = (self.dir.clone(), self.target.clone());
        dir.watched("write", &target, self.append(bytes)).await
    }

    async fn append(&mut self, mut bytes: Bytes) -> io::Result<()> {
        let offset = self.position;
        self.position += bytes.len() as u64;
        let direct_bytes = match &mut self.past_cache {
            Some(past_cache) => past_cache.write(offset, &bytes).await?,
            None => 0,
        };
        let rest = bytes.split_off(direct_bytes);
        if rest.is_empty() {
            return Ok(());
        }
        let file = Arc::clone(&self.file);
        let offset = offset + direct_bytes as u64;
        blocking(move || file.write_all_at(&rest, offset)).await
    }

    /// Syncs what was written, gives it its name and syncs the directory.
    ///
    /// # Errors
    /// Where a step fails, or another writer of the target has started since. After a failed
    /// rename the old file stands; after a failed sync of the directory the new one does, and may
    /// not survive a power cut.
    pub async fn commit(mut self) -> Result<(), DiskError> {
        let (dir, target) = (self.dir.clone(), self.target.clone());
        dir.watched("sync", &target, self.sync()).await?;
        let parent = Arc::clone(&self.parent);
        let (from, to) = (self.partial_name, self.name);
        dir.call("rename", &target, {
            let parent = Arc::clone(&parent);
            move |_, _| Ok(rustix::fs::renameat(&*parent, from, &*parent, to)?)
        })
        .await?;
        dir.call("sync directory of", &target, move |_, _| {
            Ok(rustix::fs::fsync(&*parent)?)
        })
        .await
    }

    async fn sync(&mut self) -> io::Result<()> {
        let Some(past_cache) = &mut self.past_cache else {
            let file = Arc::clone(&self.file);
            return blocking(move || file.sync_all()).await;
        };
        past_cache.finish().await?;
        let is_longer = past_cache.allocated_bytes > self.position;
        let (file, position) = (Arc::clone(&self.file), self.position);
        blocking(move || {
            if is_longer {
                file.set_len(position)?;
            }
            file.sync_all()?;
            // These pages are this writer's own: nobody else can have read them yet.
            if let Err(error) = rustix::fs::fadvise(&*file, 0, None, Advice::DontNeed) {
                tracing::debug!(err = %error, "written pages stay in the page cache");
            }
            Ok(())
        })
        .await
    }

    /// Gives up: removes what was written, unless a later writer of the target already has.
    ///
    /// # Errors
    /// Where it can't be removed.
    pub async fn abandon(self) -> Result<(), DiskError> {
        let (parent, name) = (self.parent, self.partial_name);
        self.dir
            .call("remove", &self.target, move |_, _| {
                remove_if_there(&parent, &name)
            })
            .await
    }
}

/// Writes `bytes` to the file `target` and syncs nothing: a crash of this process leaves the old
/// content or the new, a power cut may leave neither. All on one blocking thread in one go: each
/// part of an upload that is confirmed is kept this way.
///
/// # Errors
/// Where another writer of the target has started since, or a step fails; the old file then
/// stands.
pub(super) async fn write_unsynced(
    dir: &Dir,
    target: &Path,
    bytes: Vec<u8>,
) -> Result<(), DiskError> {
    let target = target.to_owned();
    dir.at_once(move |root| {
        let Begun {
            parent,
            partial_name: from,
            name: to,
            file,
        } = root.perform("create", &target, Begun::create)?;
        root.perform("write", &target, |_, _| file.write_all_at(&bytes, 0))?;
        root.perform("rename", &target, |_, _| {
            Ok(rustix::fs::renameat(&parent, from, &parent, to)?)
        })
    })
    .await
}

// === impl Begun ===

impl Begun {
    /// A new partial file beside `target`, in the place of those that other writers have left.
    fn create(root: &Root, target: &Path) -> io::Result<Self> {
        let (parent, name) = split(target)?;
        let parent = root.open_directory(&parent)?;
        if let Err(error) = remove_leftovers(&parent, &name) {
            tracing::warn!(
                path = %root.path.join(target).display(), err = %error,
                "partial files of an earlier writer stay beside this one"
            );
        }
        let partial_name = partial_name(&name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&parent, &partial_name, flags, Mode::from(0o666));
        let file = std::fs::File::from(retry(open)?);
        Ok(Self {
            parent,
            partial_name,
            name,
            file,
        })
    }
}

/// Makes room for `size_bytes`, so that writes of all of it can run side by side, and opens the
/// way past the page cache. What can't be had is done without; only a full disk is an error.
fn prepare(file: &std::fs::File, size_bytes: u64) -> io::Result<(Option<Direct>, u64)> {
    let direct = match direct::reopen(file.as_fd(), OFlags::WRONLY) {
        Ok(direct) => direct,
        Err(error) => {
            tracing::debug!(err = %error, "the file system has no way past the page cache");
            return Ok((None, 0));
        }
    };
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok((Some(direct), size_bytes)),
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(errno.into()),
        Err(errno) => {
            tracing::debug!(err = %errno, "the file system allocates nothing beforehand");
            Ok((Some(direct), 0))
        }
    }
}

// === impl PastCache ===

impl PastCache {
    /// Begins to write what of `bytes` is fit for it, and says how many that are.
    async fn write(&mut self, offset: u64, bytes: &Bytes) -> io::Result<usize> {
        let Some(direct) = self.direct.clone() else {
            return Ok(0);
        };
        let length = fit_bytes(&direct, offset, bytes);
        if length == 0 {
            return Ok(0);
        }
        while self.in_flight.len() >= WRITES_MAX {
            self.finish_one().await?;
        }
        let slot = self.engine.slot().await;
        let file = direct.descriptor;
        let part = bytes.slice(..length);
        let progress = Progress::write(offset, length, direct.alignment.block_bytes);
        let mut pending = self.engine.begin_write(slot, file, progress, part);
        if self.has_written {
            self.in_flight.push_back(pending);
            return Ok(length);
        }
        // Some file systems take the flag and then refuse the first write.
        match pending.wait().await {
            Ok(()) => {
                self.has_written = true;
                Ok(length)
            }
            Err(error) if matches!(errno_of(&error), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                tracing::debug!(err = %error, "the file system has no way past the page cache");
                self.direct = None;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    async fn finish_one(&mut self) -> io::Result<()> {
        let Some(first) = self.in_flight.front_mut() else {
            return Ok(());
        };
        let outcome = first.wait().await;
        self.in_flight.pop_front();
        outcome
    }

    async fn finish(&mut self) -> io::Result<()> {
        while !self.in_flight.is_empty() {
            self.finish_one().await?;
        }
        Ok(())
    }
}

/// How many of `bytes`, from the first, can be written directly at `offset`.
fn fit_bytes(direct: &Direct, offset: u64, bytes: &Bytes) -> usize {
    let alignment = direct.alignment;
    let is_fit = offset.is_multiple_of(alignment.block_bytes as u64)
        && bytes.as_ptr().addr().is_multiple_of(alignment.memory_bytes);
    if is_fit {
        bytes.len() - bytes.len() % alignment.block_bytes
    } else {
        0
    }
}

/// What no other writer has, in this process or another: `<pid>-<counter>-<random>`. The random
/// part tells processes apart which have one pid, as two containers on one volume do.
fn stamp() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{counter}-{:016x}", std::process::id(), *PROCESS)
}

/// Whether `text` has the form of a [`stamp`].
fn is_stamp(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'-');
    let mut next = |digit: fn(&u8) -> bool| {
        parts
            .next()
            .is_some_and(|part| !part.is_empty() && part.iter().all(digit))
    };
    next(u8::is_ascii_digit)
        && next(u8::is_ascii_digit)
        && next(u8::is_ascii_hexdigit)
        && parts.next().is_none()
}

fn partial_name(target: &OsStr) -> OsString {
    let mut name = target.to_owned();
    name.push(format!(".{}{PARTIAL_SUFFIX}", stamp()));
    name
}

fn is_partial_of(target: &OsStr, name: &[u8]) -> bool {
    name.strip_prefix(target.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(PARTIAL_SUFFIX.as_bytes()))
        .is_some_and(is_stamp)
}

/// Removes what other writers of `target` have not committed.
fn remove_leftovers(parent: &OwnedFd, target: &OsStr) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut raw = RawDir::new(parent, buffer.spare_capacity_mut());
    let mut leftovers = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if is_partial_of(target, name) {
            leftovers.push(OsStr::from_bytes(name).to_owned());
        }
    }
    for name in leftovers {
        remove_if_there(parent, &name)?;
    }
    Ok(())
}

fn remove_if_there(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

// === impl TempFile ===

impl TempFile {
    pub(super) async fn create(dir: &Dir, relative: &Path) -> Result<Self, DiskError> {
        let create = dir.call("create temporary file in", relative, |root, relative| {
            let unnamed = OFlags::RDWR | OFlags::TMPFILE;
            match root.open(relative, unnamed, Mode::from(0o600)) {
                Ok(descriptor) => Ok(std::fs::File::from(descriptor)),
                // Overlay and network file systems lack O_TMPFILE: name it, then take the name
                // away.
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                        let parent = root.open_directory(relative)?;
                        let name = partial_name(OsStr::new("sort"));
                        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                        let mode = Mode::from(0o600);
                        let descriptor = rustix::fs::openat(&parent, &name, flags, mode)?;
                        rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?;
                        Ok(std::fs::File::from(descriptor))
                    }
                    _ => Err(error),
                },
            }
        });
        let file = Arc::new(create.await?);
        Ok(Self {
            dir: dir.clone(),
            relative: relative.to_owned(),
            file,
            size_bytes: 0,
        })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// Where the disk refuses them.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), DiskError> {
        let file = Arc::clone(&self.file);
        let length = bytes.len() as u64;
        self.dir
            .call("write temporary file in", &self.relative, move |_, _| {
                io::Write::write_all(&mut &*file, &bytes)
            })
            .await?;
        self.size_bytes += length;
        Ok(())
    }

    /// Ends the writing; what was appended can be read any number of times at once.
    ///
    /// # Errors
    /// Where the file can't be looked at.
    pub async fn into_file(self) -> Result<DiskFile, DiskError> {
        let file = self.file;
        self.dir
            .call(
                "read temporary file in",
                &self.relative,
                move |root, relative| {
                    let descriptor = rustix::io::dup(&*file)?;
                    DiskFile::new(descriptor, root.path.join(relative), root.faults.clone())
                },
            )
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BufferPool, Containment, DiskEngine, Faults, ReadMode};

    #[tokio::test]
    async fn a_crash_at_any_operation_leaves_the_old_content_or_the_new() {
        for takes_effect in [false, true] {
            for at in 0.. {
                let scratch = tempfile::tempdir().unwrap();
                let path = scratch.path();
                std::fs::write(path.join("ledger"), "old").unwrap();
                let faults = Faults::crash_at(at, takes_effect);
                let dir = Dir::open_with_faults(path, Containment::Beneath, faults.clone());
                let outcome = dir
                    .await
                    .unwrap()
                    .write_atomic("ledger", b"new".to_vec())
                    .await;
                let content = std::fs::read_to_string(path.join("ledger")).unwrap();
                assert!(
                    content == "old" || content == "new",
                    "operation {at}: {content}"
                );
                assert_eq!(outcome.is_ok(), !faults.has_crashed());
                if outcome.is_ok() {
                    assert_eq!(content, "new");
                    assert!(at >= 5, "create, write, sync, rename, sync directory");
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn unsynced_content_survives_a_crash_of_the_process_whole() {
        for takes_effect in [false, true] {
            for at in 0..5 {
                let scratch = tempfile::tempdir().unwrap();
                std::fs::write(scratch.path().join("state"), "old").unwrap();
                let faults = Faults::crash_at(at, takes_effect);
                let dir = Dir::open_with_faults(scratch.path(), Containment::Beneath, faults);
                let dir = dir.await.unwrap();
                let outcome = dir.write_atomic_unsynced("state", b"new".to_vec()).await;
                let content = std::fs::read_to_string(scratch.path().join("state")).unwrap();
                // Create, write, rename; nothing after.
                assert_eq!(outcome.is_ok(), at >= 3);
                let is_renamed = at >= 3 || (at == 2 && takes_effect);
                assert_eq!(
                    content,
                    if is_renamed { "new" } else { "old" },
                    "operation {at}"
                );
            }
        }
    }

    async fn scratch() -> (tempfile::TempDir, Dir) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        (scratch, dir)
    }

    #[tokio::test]
    async fn of_two_writers_of_one_target_whatever_commits_is_whole() {
        for first_commits_first in [false, true] {
            let (scratch, dir) = scratch().await;
            let path = scratch.path().join("f");
            std::fs::write(&path, "old").unwrap();
            let mut first = dir.create_atomic("f").await.unwrap();
            first.write(Bytes::from_static(b"first,")).await.unwrap();
            let mut second = dir.create_atomic("f").await.unwrap();
            second.write(Bytes::from_static(b"second")).await.unwrap();
            first.write(Bytes::from_static(b" whole")).await.unwrap();
            let content = || std::fs::read_to_string(&path).unwrap();
            if first_commits_first {
                assert!(first.commit().await.unwrap_err().is_not_found());
                assert_eq!(content(), "old");
                second.commit().await.unwrap();
            } else {
                second.commit().await.unwrap();
                assert!(first.commit().await.is_err());
            }
            assert_eq!(content(), "second");
            assert_eq!(dir.list("").await.unwrap().len(), 1, "nothing is left");
        }
    }

    #[tokio::test]
    async fn a_leftover_is_removed_by_the_next_writer_of_its_target_and_of_no_other() {
        let (scratch, dir) = scratch().await;
        let names = || -> Vec<_> {
            let entries = std::fs::read_dir(scratch.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        let mut dead = dir.create_atomic("f").await.unwrap();
        dead.write(Bytes::from_static(b"half")).await.unwrap();
        drop(dead);
        let leftover = names().pop().unwrap();
        drop(dir.create_atomic("f.g").await.unwrap());
        std::fs::write(scratch.path().join("f.1-2-x.outrigger-partial"), "").unwrap();
        dir.write_atomic("other", b"1".to_vec()).await.unwrap();
        assert!(names().contains(&leftover));
        let writer = dir.create_atomic("f").await.unwrap();
        assert!(!names().contains(&leftover) && names().len() == 4);
        writer.commit().await.unwrap();
        let partial = |name: &OsString| name.as_bytes().ends_with(PARTIAL_SUFFIX.as_bytes());
        assert_eq!(names().iter().filter(|name| partial(name)).count(), 2);
    }

    #[tokio::test]
    async fn one_who_gives_up_after_another_has_started_gives_up_well() {
        let (_scratch, dir) = scratch().await;
        let first = dir.create_atomic("f").await.unwrap();
        let second = dir.create_atomic("f").await.unwrap();
        first.abandon().await.unwrap();
        second.commit().await.unwrap();
    }

    #[tokio::test]
    async fn temporary_files_have_no_name_and_read_back() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        let mut temp = dir.temp_file("").await.unwrap();
        temp.append(Bytes::from_static(b"12345")).await.unwrap();
        temp.append(Bytes::from_static(b"678")).await.unwrap();
        assert_eq!(temp.size_bytes, 8);
        let file = temp.into_file().await.unwrap();
        assert!(std::fs::read_dir(scratch.path()).unwrap().next().is_none());
        let engine = DiskEngine::new(BufferPool::new(1));
        let read = engine
            .read_exact(&file, 3..8, ReadMode::Buffered)
            .await
            .unwrap();
        assert_eq!(read, b"45678");
    }

    #[tokio::test]
    async fn an_abandoned_file_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        let mut writer = dir.create_atomic("f").await.unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        assert!(dir.list("").await.unwrap()[0].is_partial());
        writer.abandon().await.unwrap();
        assert!(dir.list("").await.unwrap().is_empty());
    }
}
