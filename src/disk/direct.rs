//! Opening a file a second time for transfers past the page cache (`O_DIRECT`).
//!
//! Not every file system has that: some refuse at opening, some at the first read. What was found
//! out of a file is kept with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use tokio::sync::OnceCell;

use super::RUN_BYTES;
use super::buffer::Origin;
use super::transfer::errno_of;
use crate::lifecycle::blocking;

/// Offsets and lengths of direct transfers are multiples of this or of a larger block that the
/// disk asks for: the page size, so that no transfer covers half a page of the page cache.
const BLOCK_BYTES_MIN: usize = 4096;

const _: () = assert!(RUN_BYTES.is_multiple_of(BLOCK_BYTES_MIN));

/// What is known of the ways to a file's bytes; shared by all who hold the file.
#[derive(Debug, Default)]
pub(super) struct Ways {
    direct: OnceCell<Option<Direct>>,
    direct_refused: AtomicBool,
    nowait_refused: AtomicBool,
}

/// A descriptor for direct transfers, and what they must keep to.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    pub(super) descriptor: Arc<OwnedFd>,
    pub(super) alignment: Alignment,
}

/// What direct transfers of a file must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Offsets and lengths are multiples of this.
    pub(super) block_bytes: usize,
    /// Memory begins at multiples of this.
    pub(super) memory_bytes: usize,
    /// Where buffers begin in their page.
    pub(super) origin: Origin,
}

impl Ways {
    /// The way past the page cache; `None` where there is none, or none now.
    pub(super) async fn direct(&self, file: &Arc<OwnedFd>) -> Option<&Direct> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        let file = Arc::clone(file);
        self.direct_by(|| blocking(move || reopen(file.as_fd(), OFlags::RDONLY)))
            .await
    }

    /// As [`direct`](Self::direct); `open` is called where nothing is known yet.
    async fn direct_by<F: Future<Output = io::Result<Direct>>>(
        &self,
        open: impl FnOnce() -> F,
    ) -> Option<&Direct> {
        let open = || async {
            match open().await {
                Ok(direct) => Ok(Some(direct)),
                Err(error) if is_shortage(&error) => Err(error),
                Err(error) => {
                    refused(&error);
                    Ok(None)
                }
            }
        };
        match self.direct.get_or_try_init(open).await {
            Ok(direct) => direct.as_ref(),
            Err(error) => {
                tracing::debug!(err = %error, "no descriptor for reads past the page cache now");
                None
            }
        }
    }

    /// Whether `error` of a direct transfer means that there is no such way; none is tried again.
    pub(super) fn is_refusal(&self, error: &io::Error) -> bool {
        let is_refusal = matches!(errno_of(error), Some(Errno::INVAL | Errno::OPNOTSUPP));
        if is_refusal && !self.direct_refused.swap(true, Ordering::Relaxed) {
            refused(error);
        }
        is_refusal
    }

    /// Whether reads that never wait are possible, as far as is known.
    pub(super) fn has_nowait(&self) -> bool {
        !self.nowait_refused.load(Ordering::Relaxed)
    }

    /// Remembers that reads that never wait are not possible.
    pub(super) fn set_no_nowait(&self) {
        self.nowait_refused.store(true, Ordering::Relaxed);
    }
}

/// Whether `error` of opening tells of this moment, not of the file system.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN)
    )
}

fn refused(error: &io::Error) {
    tracing::debug!(err = %error, "the file system has no way past the page cache");
}

/// Opens what `file` is, once more, for direct transfers.
pub(super) fn reopen(file: BorrowedFd<'_>, access: OFlags) -> io::Result<Direct> {
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = access | OFlags::DIRECT | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(Path::new(&by_descriptor), flags, Mode::empty())?;
    Ok(Direct {
        alignment: alignment(descriptor.as_fd())?,
        descriptor: Arc::new(descriptor),
    })
}

/// What the file system asks for. Where it does not say (before Linux 6.1), what satisfies all
/// disks is assumed.
fn alignment(file: BorrowedFd<'_>) -> io::Result<Alignment> {
    let told = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|statx| StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::DIOALIGN))
        .map(|statx| (statx.stx_dio_offset_align, statx.stx_dio_mem_align));
    keep_to(told).ok_or_else(|| Errno::INVAL.into())
}

/// From what is told (offset and memory alignment) to what is kept; `None` where buffers can't.
fn keep_to(told: Option<(u32, u32)>) -> Option<Alignment> {
    let (offset_align, memory_align) = match told {
        Some((offset, memory)) => (usize::try_from(offset).ok()?, usize::try_from(memory).ok()?),
        None => (BLOCK_BYTES_MIN, BLOCK_BYTES_MIN),
    };
    let block_bytes = offset_align.max(BLOCK_BYTES_MIN);
    let is_kept = offset_align.is_power_of_two() && RUN_BYTES.is_multiple_of(block_bytes);
    let origin = Origin::for_alignment(memory_align)?;
    is_kept.then_some(Alignment {
        block_bytes,
        memory_bytes: memory_align,
        origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_direct() -> Direct {
        Direct {
            descriptor: Arc::new(tempfile::tempfile().unwrap().into()),
            alignment: keep_to(None).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_want_of_descriptors_passes_and_a_refusal_stays() {
        for (errno, passes) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::INVAL, false),
            (Errno::OPNOTSUPP, false),
        ] {
            let ways = Ways::default();
            let none = ways.direct_by(|| async { Err(errno.into()) }).await;
            assert!(none.is_none());
            let later = ways.direct_by(|| async { Ok(any_direct()) }).await;
            assert_eq!(later.is_some(), passes, "{errno}");
        }
    }

    #[test]
    fn a_disk_gets_the_alignment_it_asks_for_or_none() {
        let kept = |told| keep_to(told).map(|kept| (kept.block_bytes, kept.origin));
        assert_eq!(kept(Some((512, 512))), Some((4096, Origin::MidPage)));
        assert_eq!(kept(Some((512, 4))), Some((4096, Origin::MidPage)));
        assert_eq!(kept(Some((4096, 4096))), Some((4096, Origin::Page)));
        assert_eq!(kept(Some((65_536, 512))), Some((65_536, Origin::MidPage)));
        assert_eq!(kept(None), Some((4096, Origin::Page)));
        assert_eq!(kept(Some((0, 0))), None, "no direct transfers at all");
        assert_eq!(kept(Some((2 << 20, 512))), None, "larger than a run");
        assert_eq!(kept(Some((512, 8192))), None);
    }
}
