//! The buffer pool: one budget for all bulk bytes in flight.
//!
//! Waiting for a buffer is the backpressure: a reader that is ahead of its consumer stops here.
//! A buffer can begin at a page or in the middle of one; both do for reads past the page cache
//! (`O_DIRECT`) on nearly all disks, and the middle is the better source for TLS (see [`Origin`]).
//!
//! All buffers of a pool lie in one mapping, which asks for huge pages: a direct read of 1 MiB then
//! has two pieces of memory instead of 257. Measured, that takes its CPU time from 0.07 to 0.015 s
//! per GiB and lets one disk give half as much again; buffers registered with a ring, from small
//! pages, come to 0.04.
#![expect(
    unsafe_code,
    reason = "memory in huge pages at chosen page offsets comes from no safe allocator"
)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Size of one buffer and of the longest run: 1 MiB, the cheapest read size measured per byte
/// (64 KiB costs 1.5 times as much, 16 MiB 1.3 times).
pub const RUN_BYTES: usize = 1 << 20;

/// The page size of most machines, and the most that `O_DIRECT` asks of an address on any disk.
const ALIGNMENT: usize = 4096;

/// From one buffer to the next: a run and room for beginning in the middle of a page.
const STRIDE_BYTES: usize = RUN_BYTES + ALIGNMENT;

/// Huge pages begin at multiples of this (x86-64, and arm64 with pages of 4 KiB).
const HUGE_PAGE_BYTES: usize = 2 << 20;

const _: () = assert!(RUN_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(HUGE_PAGE_BYTES.is_multiple_of(ALIGNMENT));

/// Where in a page a buffer's bytes begin.
///
/// Encryption writes its records at page starts, so that sources at page starts have nearly the
/// same offset in their pages as the destination; glibc's `memcpy` then takes a branch that AMD
/// processors execute at half the speed. A source in the middle of a page avoids it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// 2048 bytes after one.
    #[default]
    MidPage,
    /// At its start, for disks whose DMA asks for it.
    Page,
}

impl Origin {
    const MID_PAGE_BYTES: usize = ALIGNMENT / 2;

    /// How many bytes after a page's start.
    pub(super) fn page_offset(self) -> usize {
        match self {
            Self::MidPage => Self::MID_PAGE_BYTES,
            Self::Page => 0,
        }
    }

    /// The best origin for a disk that wants addresses aligned to `alignment` bytes; `None` where
    /// no buffer is aligned enough.
    pub(super) fn for_alignment(alignment: usize) -> Option<Self> {
        [Self::MidPage, Self::Page].into_iter().find(|origin| {
            let address = ALIGNMENT + origin.page_offset();
            alignment > 0 && address.is_multiple_of(alignment)
        })
    }
}

/// A bounded set of buffers of [`RUN_BYTES`] each; cheap to clone, every clone is the same pool.
/// Memory is taken at the first use of a buffer and kept as long as the pool.
#[derive(Clone)]
pub struct BufferPool {
    permits: Arc<Semaphore>,
    shelf: Arc<Shelf>,
    buffers_max: usize,
}

/// A buffer on loan from the pool; dropping it gives it back.
pub struct PooledBuf {
    /// Which buffer of the slab, this value's alone.
    index: usize,
    slab: Arc<Slab>,
    origin: Origin,
    length: usize,
    shelf: Arc<Shelf>,
    _permit: OwnedSemaphorePermit,
}

/// The buffers that nobody has.
struct Shelf {
    slab: OnceLock<Arc<Slab>>,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// Given back; the last is taken first, as it may still be in the processor's caches.
    returned: Vec<usize>,
    /// All from here on were never taken.
    unused_from: usize,
}

/// The memory of all buffers of a pool.
struct Slab {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    /// Where the first buffer's page begins in the mapping.
    first: usize,
    buffers: usize,
}

// === impl BufferPool ===

impl BufferPool {
    /// A pool of at most `buffers_max` buffers.
    ///
    /// # Panics
    /// Where `buffers_max` is 0: nothing could ever be read.
    pub fn new(buffers_max: usize) -> Self {
        assert!(buffers_max > 0, "a pool without buffers blocks for ever");
        Self {
            permits: Arc::new(Semaphore::new(buffers_max)),
            shelf: Arc::new(Shelf {
                slab: OnceLock::new(),
                free: Mutex::default(),
            }),
            buffers_max,
        }
    }

    /// Waits for a buffer. Whoever holds buffers already must not wait here, or all may wait for
    /// one another; see [`BufferPool::try_take`].
    pub async fn take(&self) -> PooledBuf {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the pool's semaphore is never closed");
        self.lend(permit)
    }

    /// A buffer, where one is free now and nobody waits for it.
    pub fn try_take(&self) -> Option<PooledBuf> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.lend(permit))
    }

    fn lend(&self, permit: OwnedSemaphorePermit) -> PooledBuf {
        let slab = self
            .shelf
            .slab
            .get_or_init(|| Arc::new(Slab::map(self.buffers_max)));
        let index = self.shelf.take();
        assert!(
            index < self.buffers_max,
            "there is a permit for each buffer"
        );
        PooledBuf {
            index,
            slab: Arc::clone(slab),
            origin: Origin::default(),
            length: 0,
            shelf: Arc::clone(&self.shelf),
            _permit: permit,
        }
    }

    /// How many buffers there are at most.
    pub fn buffers_max(&self) -> usize {
        self.buffers_max
    }

    /// How many bytes all buffers hold together.
    pub fn capacity_bytes(&self) -> usize {
        self.buffers_max * RUN_BYTES
    }

    /// How many buffers are on loan now.
    pub fn in_use(&self) -> usize {
        self.buffers_max
            .saturating_sub(self.permits.available_permits())
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("buffers_max", &self.buffers_max)
            .field("in_use", &self.in_use())
            .finish()
    }
}

// === impl PooledBuf ===

impl PooledBuf {
    /// Decides where in a page the bytes begin. What was in the buffer is lost.
    pub(super) fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
        self.length = 0;
    }

    /// The whole buffer, [`RUN_BYTES`] long, whatever is in it.
    pub(super) fn whole(&self) -> &[u8] {
        let start = self.slab.start(self.index, self.origin);
        // SAFETY: `start` gives an address inside the mapping with RUN_BYTES behind it. The
        // mapping lives as long as the slab, of which this value holds a share, and all of it was
        // initialised with zeros by the kernel. An index is lent to one PooledBuf at a time and
        // buffers don't overlap, so only this value's `whole_mut` could write here, and that
        // borrows it exclusively.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), RUN_BYTES) }
    }

    /// The whole buffer, [`RUN_BYTES`] long, for reading into.
    pub(super) fn whole_mut(&mut self) -> &mut [u8] {
        let start = self.slab.start(self.index, self.origin);
        // SAFETY: as in `whole`, and this value is borrowed exclusively, so nobody else has a
        // reference to these bytes. The mapping is writable.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), RUN_BYTES) }
    }

    /// Says how many bytes at the front are meant.
    pub(super) fn set_length(&mut self, length: usize) {
        assert!(length <= RUN_BYTES, "a run is at most one buffer");
        self.length = length;
    }

    /// The bytes as a shared run, without a copy; the last clone gives the buffer back.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PooledBuf {
    fn as_ref(&self) -> &[u8] {
        self.whole()
            .get(..self.length)
            .expect("checked when the length was set")
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        // Before the permit, which is dropped after this: who gets it finds a buffer.
        self.shelf.give_back(self.index);
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuf")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

// === impl Shelf ===

impl Shelf {
    fn take(&self) -> usize {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.pop().unwrap_or_else(|| {
            let index = free.unused_from;
            free.unused_from += 1;
            index
        })
    }

    fn give_back(&self, index: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.push(index);
    }
}

// === impl Slab ===

// SAFETY: a slab is an address range that is unmapped when the slab is dropped, wherever that is.
// It gives out addresses and never looks behind them.
unsafe impl Send for Slab {}
// SAFETY: nothing of a slab changes after it was made; who may look behind an address is decided
// by who holds its index.
unsafe impl Sync for Slab {}

impl Slab {
    /// Reserves addresses; memory comes with the first touch, already zeroed.
    fn map(buffers: usize) -> Self {
        let mapping_bytes = buffers * STRIDE_BYTES + HUGE_PAGE_BYTES;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choosing touches nothing that
        // exists.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapping_bytes, protection, flags)
        };
        let mapping = mapped
            .ok()
            .and_then(|mapped| NonNull::new(mapped.cast::<u8>()));
        // As for any allocation, there is no going on without.
        let mapping = mapping.expect("the system gives address space for the buffers");
        let first = mapping.addr().get().next_multiple_of(HUGE_PAGE_BYTES) - mapping.addr().get();
        let slab = Self {
            mapping,
            mapping_bytes,
            first,
            buffers,
        };
        // A pool of one or two would fill a page that is larger than itself.
        if buffers * RUN_BYTES <= HUGE_PAGE_BYTES {
            return slab;
        }
        let start = slab.start(0, Origin::Page).as_ptr().cast();
        // SAFETY: the range lies in the mapping made above, at a page's start; the advice only says
        // in what pages its memory may come.
        let advised =
            unsafe { rustix::mm::madvise(start, buffers * STRIDE_BYTES, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            tracing::debug!(err = %error, "buffers lie in small pages");
        }
        slab
    }

    /// Where buffer `index` begins.
    fn start(&self, index: usize, origin: Origin) -> NonNull<u8> {
        assert!(index < self.buffers, "of this slab");
        let offset = self.first + index * STRIDE_BYTES + origin.page_offset();
        // SAFETY: `first` is less than HUGE_PAGE_BYTES, `index` less than `buffers` and the page
        // offset less than the ALIGNMENT that a stride has beyond a run: so this and the RUN_BYTES
        // behind it lie in the mapping of `buffers` strides and a huge page.
        unsafe { self.mapping.add(offset) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the mapping is this slab's, whole as it was made, and every PooledBuf, from which
        // alone references into it come, holds a share of the slab.
        let unmapped =
            unsafe { rustix::mm::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
        if let Err(error) = unmapped {
            tracing::debug!(err = %error, "the buffers' memory stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_taker_waits_until_a_buffer_comes_back() {
        let pool = BufferPool::new(2);
        let first = pool.take().await.into_bytes();
        let second = pool.take().await;
        assert_eq!(pool.in_use(), 2);
        let short = Duration::from_millis(1);
        assert!(tokio::time::timeout(short, pool.take()).await.is_err());
        drop(second);
        let third = pool.take().await;
        assert!(tokio::time::timeout(short, pool.take()).await.is_err());
        let clone = first.clone();
        drop(first);
        assert!(
            tokio::time::timeout(short, pool.take()).await.is_err(),
            "a clone holds it"
        );
        drop(clone);
        drop(pool.take().await);
        drop(third);
        assert_eq!(pool.in_use(), 0);
    }

    #[tokio::test]
    async fn buffers_begin_where_they_were_told_to_and_are_a_run_long() {
        let pool = BufferPool::new(3);
        assert_eq!((pool.buffers_max(), pool.capacity_bytes()), (3, 3 << 20));
        for origin in [Origin::MidPage, Origin::Page, Origin::MidPage] {
            let mut buffer = pool.take().await;
            assert_eq!(buffer.origin, Origin::MidPage, "the default");
            buffer.set_origin(origin);
            assert_eq!(buffer.whole_mut().len(), RUN_BYTES);
            let address = buffer.whole().as_ptr().addr();
            assert_eq!(address % ALIGNMENT, origin.page_offset());
            buffer.set_length(17);
            assert_eq!(buffer.as_ref().len(), 17);
            assert_eq!(buffer.into_bytes().as_ptr().addr(), address);
        }
    }

    #[tokio::test]
    async fn a_buffer_is_tried_for_without_waiting() {
        let pool = BufferPool::new(1);
        let only = pool.try_take().unwrap();
        assert!(pool.try_take().is_none());
        drop(only);
        assert!(pool.try_take().is_some());
    }

    #[tokio::test]
    async fn no_two_buffers_share_a_byte_and_they_outlive_the_pool() {
        let pool = BufferPool::new(5);
        let mut buffers = Vec::new();
        for number in 0..5u8 {
            let mut buffer = pool.take().await;
            let origins = [Origin::Page, Origin::MidPage];
            buffer.set_origin(origins[usize::from(number % 2)]);
            assert!(buffer.whole().iter().all(|byte| *byte == 0), "never used");
            buffer.whole_mut().fill(number + 1);
            buffer.set_length(RUN_BYTES);
            buffers.push(buffer.into_bytes());
        }
        drop(pool);
        for (number, buffer) in (1..).zip(&buffers) {
            assert!(buffer.iter().all(|byte| *byte == number));
        }
    }

    #[test]
    fn the_middle_of_a_page_is_taken_where_the_disk_allows_it() {
        for alignment in [1, 4, 512, 2048] {
            assert_eq!(Origin::for_alignment(alignment), Some(Origin::MidPage));
        }
        assert_eq!(Origin::for_alignment(4096), Some(Origin::Page));
        assert_eq!(Origin::for_alignment(8192), None);
        assert_eq!(Origin::for_alignment(0), None);
    }
}
