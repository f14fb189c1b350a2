//! Resolving paths below a held directory, so that no symlink leads out of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Containment;

/// Opens `relative` below `root`.
pub(super) fn open_below(
    root: BorrowedFd<'_>,
    containment: Containment,
    relative: &Path,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let flags = flags | OFlags::CLOEXEC;
    match containment {
        Containment::Unconfined => Ok(retry(|| rustix::fs::openat(root, relative, flags, mode))?),
        Containment::Beneath => {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match retry(|| rustix::fs::openat2(root, relative, flags, mode, resolve)) {
                // Kernels before 5.6 and sandboxes without openat2: step by step, no symlink at
                // all.
                Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(root, relative, flags, mode),
                Err(Errno::XDEV) => Err(io::Error::other(LeadsOut)),
                outcome => Ok(outcome?),
            }
        }
    }
}

pub(super) fn open_step_by_step(
    root: BorrowedFd<'_>,
    relative: &Path,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let mut names = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(io::Error::other(LeadsOut)),
        }
    }
    let Some(last) = names.pop() else {
        return Ok(rustix::fs::openat(root, ".", flags, mode)?);
    };
    let mut held: Option<OwnedFd> = None;
    for name in names {
        let parent = held.as_ref().map_or(root, AsFd::as_fd);
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        held = Some(open_here(parent, name, step, Mode::empty())?);
    }
    let parent = held.as_ref().map_or(root, AsFd::as_fd);
    open_here(parent, last, flags | OFlags::NOFOLLOW, mode)
}

/// Opens a name of `parent` that is no symlink.
fn open_here(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    match retry(|| rustix::fs::openat(parent, name, flags, mode)) {
        Err(Errno::LOOP) => Err(io::Error::other(LeadsOut)),
        // With DIRECTORY a symlink is told as "not a directory".
        Err(Errno::NOTDIR) if is_symlink(parent, name) => Err(io::Error::other(LeadsOut)),
        outcome => Ok(outcome?),
    }
}

fn is_symlink(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// A path that may not be followed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a symlink leads out of the directory, and is not followed")]
pub(super) struct LeadsOut;

/// Splits into the directory that holds the last name, and that name.
pub(super) fn split(relative: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = relative.file_name().map(OsStr::to_owned);
    let name = name.ok_or_else(|| io::Error::other("the path names no file"))?;
    Ok((relative.parent().unwrap_or(Path::new("")).to_owned(), name))
}

/// Calls again while the kernel says "interrupted" or, as openat2 may, "again".
pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    // openat2 answers EAGAIN when a rename elsewhere raced with resolving "..": bounded, since a
    // file system that always says so must not hang us.
    let mut again_left = 64;
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if again_left > 0 => again_left -= 1,
            outcome => return outcome,
        }
    }
}
