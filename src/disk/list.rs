//! What a directory holds.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, FileType, RawDir};
use std::os::fd::{AsFd, OwnedFd};

use super::writer::PARTIAL_SUFFIX;

/// The most names one listing returns: far above any data directory or bucket of blocks, and a
/// bound on what a runaway directory can cost (about 100 bytes each).
const ENTRIES_MAX: usize = 1_000_000;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The bare name; may be any bytes but `/`.
    pub name: OsString,
    /// What it is; a symlink is told as what it leads to.
    pub kind: EntryKind,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else, and symlinks that lead nowhere.
    Other,
}

impl Entry {
    /// Whether this is a file that [`super::AtomicWriter`] is still writing, or was when a crash
    /// came; it is no content yet.
    pub fn is_partial(&self) -> bool {
        self.name
            .as_encoded_bytes()
            .ends_with(PARTIAL_SUFFIX.as_bytes())
    }
}

/// Everything in `directory`, sorted by name.
pub(super) fn list(directory: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut raw = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            return Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")));
        }
        let kind = match entry.file_type() {
            FileType::Unknown | FileType::Symlink => {
                match rustix::fs::statat(directory.as_fd(), entry.file_name(), AtFlags::empty()) {
                    Ok(stat) => kind_of(FileType::from_raw_mode(stat.st_mode)),
                    Err(_) => EntryKind::Other,
                }
            }
            known => kind_of(known),
        };
        entries.push(Entry {
            name: OsString::from_vec(name.to_vec()),
            kind,
        });
    }
    entries.sort();
    Ok(entries)
}

pub(super) fn kind_of(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        _ => EntryKind::Other,
    }
}
