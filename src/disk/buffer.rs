//! The buffer pool: one budget for all bulk bytes in flight.
//!
//! Waiting for a buffer is the backpressure: a reader that is ahead of its consumer stops here.
//! Buffers are page-aligned, so that reads past the page cache (`O_DIRECT`) can fill them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Size of one buffer and of the longest run: 1 MiB, the cheapest read size measured per byte
/// (64 KiB costs 1.5 times as much, 16 MiB 1.3 times).
pub const RUN_BYTES: usize = 1 << 20;

/// Alignment of every buffer: the page size, the most that `O_DIRECT` asks for on any disk.
const ALIGNMENT: usize = 4096;

const _: () = assert!(RUN_BYTES.is_multiple_of(ALIGNMENT));

/// A bounded set of buffers of [`RUN_BYTES`] each; cheap to clone, every clone is the same pool.
/// Buffers are allocated at first use and kept.
#[derive(Clone)]
pub struct BufferPool {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Storage>>>,
    buffers_max: usize,
}

/// A buffer on loan from the pool; dropping it gives it back.
pub struct PooledBuf {
    storage: Option<Storage>,
    length: usize,
    free: Arc<Mutex<Vec<Storage>>>,
    _permit: OwnedSemaphorePermit,
}

struct Storage {
    bytes: Box<[u8]>,
    /// Where the aligned part starts in `bytes`.
    start: usize,
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
            free: Arc::new(Mutex::new(Vec::new())),
            buffers_max,
        }
    }

    /// Waits for a buffer.
    pub async fn take(&self) -> PooledBuf {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the pool's semaphore is never closed");
        let free = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        PooledBuf {
            storage: Some(free.unwrap_or_else(Storage::allocate)),
            length: 0,
            free: Arc::clone(&self.free),
            _permit: permit,
        }
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
    /// The whole buffer, [`RUN_BYTES`] long, for reading into.
    pub(super) fn whole_mut(&mut self) -> &mut [u8] {
        let storage = self.storage.as_mut().expect("taken only by drop");
        storage
            .bytes
            .get_mut(storage.start..storage.start + RUN_BYTES)
            .expect("allocated so")
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
        let storage = self.storage.as_ref().expect("taken only by drop");
        storage
            .bytes
            .get(storage.start..storage.start + self.length)
            .expect("allocated so")
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        if let Some(storage) = self.storage.take() {
            self.free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(storage);
        }
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuf")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

// === impl Storage ===

impl Storage {
    fn allocate() -> Self {
        let bytes = vec![0; RUN_BYTES + ALIGNMENT].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        // `align_offset` may give up (it promises nothing); an unaligned buffer still works for
        // all but O_DIRECT, which then falls back.
        Self {
            start: if start <= ALIGNMENT { start } else { 0 },
            bytes,
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
    async fn buffers_are_page_aligned_and_a_run_long() {
        let pool = BufferPool::new(3);
        for _ in 0..3 {
            let mut buffer = pool.take().await;
            assert_eq!(buffer.whole_mut().len(), RUN_BYTES);
            assert_eq!(buffer.whole_mut().as_ptr().align_offset(ALIGNMENT), 0);
            buffer.set_length(17);
            assert_eq!(buffer.as_ref().len(), 17);
        }
    }
}
