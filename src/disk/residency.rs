//! Asking the kernel which bytes of a file are in the page cache (`cachestat(2)`, Linux 6.5).
//!
//! Bytes that are there cost a copy and no disk; of all others a buffered read would leave a copy
//! behind and push out what Prometheus keeps there.
#![expect(
    unsafe_code,
    reason = "neither libc nor rustix has this system call yet, so it is called by number"
)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

/// Number of the system call, the same on all architectures but alpha (`cachestat(2)`).
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of `linux/mman.h`.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of `linux/mman.h`: numbers of pages.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// What can be told of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residency {
    /// All of it is in the page cache.
    Resident,
    /// Some of it is not.
    Absent,
    /// The kernel does not say: it is too old, a sandbox forbids the call, or the file belongs to
    /// someone else and may not be written.
    Unknown,
}

/// Whether `length` bytes of `file` at `offset` are in the page cache.
pub(super) fn residency(file: BorrowedFd<'_>, offset: u64, length: u64) -> Residency {
    if length == 0 {
        return Residency::Resident;
    }
    match cached_pages(file, offset, length) {
        Ok(cached) => {
            let page = page_bytes();
            let pages = (offset + length).div_ceil(page) - offset / page;
            if cached >= pages {
                Residency::Resident
            } else {
                Residency::Absent
            }
        }
        Err(error) => {
            tell_once(&error);
            Residency::Unknown
        }
    }
}

/// How many bytes of `file` are in the page cache, whole pages counted.
///
/// # Errors
/// As [`cached_pages`].
pub(super) fn cached_bytes(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(cached_pages(file, 0, 0)? * page_bytes())
}

/// How many pages of the range are in the page cache; a `length` of 0 means to the file's end.
///
/// # Errors
/// What `cachestat(2)` gives: ENOSYS before Linux 6.5, EPERM for another owner's file or in a
/// sandbox, EOPNOTSUPP for hugetlbfs.
pub(super) fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<u64> {
    let range = CachestatRange { offset, length };
    let mut found = Cachestat::default();
    let flags: libc::c_uint = 0;
    // SAFETY: cachestat reads one `cachestat_range` and writes one `cachestat`. Both are laid out
    // as in linux/mman.h (`repr(C)`, only u64 fields), live on this stack until the call returns
    // and are borrowed by nobody else; the kernel keeps neither pointer. The descriptor is open
    // for as long as it is borrowed. A kernel without the call answers ENOSYS and touches nothing.
    let answer = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut found,
            flags,
        )
    };
    if answer == 0 {
        Ok(found.cached)
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(super) fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointer and reads nothing that anyone writes.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096).max(1)
}

/// Says why the page cache can't be asked, once in the process: it costs only speed.
fn tell_once(error: &io::Error) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        let reason = match Errno::from_io_error(error) {
            Some(Errno::NOSYS) => "the kernel is older than 6.5",
            Some(Errno::PERM) => "the files belong to another user, or a sandbox forbids it",
            _ => "the file system does not tell",
        };
        tracing::info!(
            err = %error, reason,
            "what is in the page cache can't be told; all reads go past it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{PAGE_TRIES_MAX, PAGE_TRY_PAUSE};
    use std::os::fd::AsFd as _;

    #[test]
    fn a_written_file_is_resident_until_its_pages_are_dropped() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let page = page_bytes();
        let content = vec![1; usize::try_from(3 * page + 1).unwrap()];
        std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).unwrap();
        file.sync_all().unwrap();
        let ask = |offset, length| residency(file.as_fd(), offset, length);
        if cached_pages(file.as_fd(), 0, 0).is_err() {
            println!("LEFT OUT: cachestat is not allowed here");
            assert_eq!(ask(0, page), Residency::Unknown);
            return;
        }
        for (offset, length) in [
            (0, 1),
            (0, 3 * page + 1),
            (page - 1, 2),
            (3 * page, 1),
            (5, 0),
        ] {
            assert_eq!(
                ask(offset, length),
                Residency::Resident,
                "{offset} {length}"
            );
        }
        assert_eq!(ask(3 * page, page + 1), Residency::Absent, "past the end");
        let mut left = 0;
        for _ in 0..PAGE_TRIES_MAX {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            left = cached_pages(file.as_fd(), 0, 0).unwrap();
            if left == 0 {
                break;
            }
            std::thread::sleep(PAGE_TRY_PAUSE);
        }
        assert_eq!(left, 0);
        assert_eq!(ask(0, 1), Residency::Absent);
    }
}
