//! The bytes of a file range as runs, without disturbing the page cache.
//!
//! Bytes that are in the page cache are copied from it on the spot: that waits for no disk, and
//! leaves the cache as it was. All others are read past it, several runs ahead. Dropping cached
//! pages after reading them would evict what Prometheus keeps there, so that is never done.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::direct::Alignment;
use super::engine::{Pending, Slot};
use super::residency::{Residency, residency};
use super::transfer::{Progress, at_offset, ended_early};
use super::{DiskEngine, DiskError, DiskFile, PooledBuf, RUN_BYTES};

/// How many runs of a range are read at a time where they come from the disk.
const AHEAD_MAX: usize = 8;

/// How bytes come off the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// From the page cache what is there, all else past it: the cache stays as it is.
    Buffered,
    /// From the disk itself, past the page cache, where the file system can; elsewhere the file's
    /// clean cached pages are dropped first. For a second opinion on bytes that looked damaged.
    Direct,
}

/// The bytes of a file range, as runs of at most [`RUN_BYTES`] in file order.
#[derive(Debug)]
pub struct FileRuns {
    engine: DiskEngine,
    file: DiskFile,
    mode: ReadMode,
    /// How far the bytes were handed out.
    position: u64,
    end: u64,
    /// What of the last run was more than its taker wanted.
    held: Bytes,
    /// Reads on their way, in file order; the first begins at `position` plus what is held.
    ahead: VecDeque<Ahead>,
    /// Whether the kernel tells what is cached, as far as is known.
    has_residency: bool,
    has_dropped_cache: bool,
}

/// A read on its way: these bytes of the file, and in its buffer some before them.
#[derive(Debug)]
struct Ahead {
    start: u64,
    end: u64,
    skipped: usize,
    is_direct: bool,
    pending: Pending<PooledBuf>,
}

/// How the next bytes are had through the engine.
struct Way {
    descriptor: Arc<OwnedFd>,
    direct: Option<Alignment>,
}

impl FileRuns {
    pub(super) fn new(
        engine: DiskEngine,
        file: DiskFile,
        range: std::ops::Range<u64>,
        mode: ReadMode,
    ) -> Self {
        Self {
            mode,
            position: range.start,
            end: range.end.min(file.size_bytes()),
            held: Bytes::new(),
            ahead: VecDeque::new(),
            has_residency: engine.takes_cached_bytes_inline(),
            has_dropped_cache: false,
            engine,
            file,
        }
    }

    /// The next run, of at most `within` bytes; `None` at the end of the range.
    ///
    /// What comes from the disk is read ahead within those bytes, into buffers that are free now.
    /// So the caller takes all of them before it waits for a buffer of the pool itself.
    ///
    /// # Errors
    /// Where the disk can't be read, or the file has become shorter than it was. The next call
    /// tries again.
    pub async fn next(&mut self, within: u64) -> Result<Option<Bytes>, DiskError> {
        if self.position >= self.end {
            return Ok(None);
        }
        assert!(within > 0, "a run has at least one byte");
        let limit = self.end.min(self.position.saturating_add(within));
        let refused = self.file.faults.before();
        let outcome = match refused {
            Ok(()) => self.take(limit).await,
            Err(error) => Err(at_offset(self.position, error)),
        };
        let run = self
            .file
            .faults
            .after(outcome)
            .map_err(|source| DiskError::new("read", self.file.path(), source))?;
        self.position += run.len() as u64;
        Ok(Some(run))
    }

    /// Some bytes from `position` on, none at or after `limit`.
    async fn take(&mut self, limit: u64) -> io::Result<Bytes> {
        if self.held.is_empty() {
            self.held = self.read(limit).await?;
        }
        let room = usize::try_from(limit - self.position).unwrap_or(usize::MAX);
        Ok(self.held.split_to(room.min(self.held.len())))
    }

    /// The bytes from `position` on. Dropped half-way, nothing is lost: what was begun stays in
    /// the queue.
    async fn read(&mut self, limit: u64) -> io::Result<Bytes> {
        loop {
            if self.ahead.is_empty() {
                let run_end = limit.min(self.position + RUN_BYTES as u64);
                let mut buffer = self.engine.pool().take().await;
                let is_cached = self.is_resident(self.position, run_end);
                if is_cached && self.file.ways.has_nowait() {
                    buffer = match self.copy_cached(buffer, run_end)? {
                        Ok(run) => return Ok(run),
                        Err(buffer) => buffer,
                    };
                }
                // Cached, but not to be had without the danger of waiting: on another thread.
                let way = if is_cached && !self.file.ways.has_nowait() {
                    self.cached_way()
                } else {
                    self.way().await
                };
                let slot = self.engine.slot().await;
                self.begin(&way, slot, buffer, limit);
            }
            self.read_ahead(limit).await;
            let Some(first) = self.ahead.front_mut() else {
                continue;
            };
            let outcome = first.pending.wait().await;
            let Some(first) = self.ahead.pop_front() else {
                continue;
            };
            match outcome {
                Ok(buffer) => {
                    let length = usize::try_from(first.end - first.start)
                        .expect("a run is at most one buffer");
                    let run = buffer.into_bytes();
                    return Ok(run.slice(first.skipped..first.skipped + length));
                }
                Err(error) => {
                    self.ahead.clear();
                    if !(first.is_direct && self.file.ways.is_refusal(&error)) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Begins reads of what follows, as long as it comes from the disk and nobody else waits for
    /// the means. Cached bytes are not copied ahead: they would leave the processor's caches
    /// before anyone looks at them.
    async fn read_ahead(&mut self, limit: u64) {
        while self.ahead.len() < AHEAD_MAX {
            let Some(last) = self.ahead.back() else {
                return;
            };
            let start = last.end;
            if start >= limit || self.is_resident(start, limit.min(start + RUN_BYTES as u64)) {
                return;
            }
            let Some(slot) = self.engine.try_slot() else {
                return;
            };
            let Some(buffer) = self.engine.pool().try_take() else {
                return;
            };
            let way = self.way().await;
            self.begin(&way, slot, buffer, limit);
        }
    }

    /// Begins the read that follows all others.
    fn begin(&mut self, way: &Way, slot: Slot, mut buffer: PooledBuf, limit: u64) {
        let start = self.ahead.back().map_or(self.position, |last| last.end);
        let block = way.direct.map(|alignment| alignment.block_bytes);
        let aligned = block.map_or(start, |block| start - start % block as u64);
        let end = limit.min(aligned + RUN_BYTES as u64);
        let wanted = usize::try_from(end - aligned).expect("at most one buffer");
        if let Some(alignment) = way.direct {
            buffer.set_origin(alignment.origin);
        }
        let progress = Progress::read(aligned, wanted, block);
        let file = Arc::clone(&way.descriptor);
        let pending = self.engine.begin_read(slot, file, progress, buffer);
        self.ahead.push_back(Ahead {
            start,
            end,
            skipped: usize::try_from(start - aligned).expect("less than a block"),
            is_direct: block.is_some(),
            pending,
        });
    }

    async fn way(&mut self) -> Way {
        if let Some(direct) = self.file.ways.direct(&self.file.descriptor).await {
            return Way {
                descriptor: Arc::clone(&direct.descriptor),
                direct: Some(direct.alignment),
            };
        }
        if self.mode == ReadMode::Direct && !self.has_dropped_cache {
            self.has_dropped_cache = true;
            drop_cached(&self.file);
        }
        self.cached_way()
    }

    fn cached_way(&self) -> Way {
        Way {
            descriptor: Arc::clone(&self.file.descriptor),
            direct: None,
        }
    }

    fn is_resident(&mut self, start: u64, end: u64) -> bool {
        if self.mode == ReadMode::Direct || !self.has_residency {
            return false;
        }
        match residency(self.file.descriptor.as_fd(), start, end - start) {
            Residency::Resident => true,
            Residency::Absent => false,
            Residency::Unknown => {
                self.has_residency = false;
                false
            }
        }
    }

    /// Copies the bytes from `position` to `run_end` out of the page cache; gives the buffer back
    /// where that would have to wait, since some were evicted just now or the file system does not
    /// have such reads.
    fn copy_cached(
        &self,
        mut buffer: PooledBuf,
        run_end: u64,
    ) -> io::Result<Result<Bytes, PooledBuf>> {
        let length = usize::try_from(run_end - self.position).expect("at most one buffer");
        let mut filled = 0;
        while filled < length {
            let at = self.position + filled as u64;
            let space = buffer.whole_mut().get_mut(filled..length);
            let mut space = [IoSliceMut::new(space.unwrap_or_default())];
            let read = rustix::io::preadv2(
                &*self.file.descriptor,
                &mut space,
                at,
                ReadWriteFlags::NOWAIT,
            );
            match read {
                Ok(0) => return Err(ended_early(at)),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Err(buffer)),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                    self.file.ways.set_no_nowait();
                    return Ok(Err(buffer));
                }
                Err(errno) => return Err(at_offset(at, errno.into())),
            }
        }
        buffer.set_length(length);
        Ok(Ok(buffer.into_bytes()))
    }
}

/// Drops the clean cached pages of a file, for Prometheus too: only for bytes that looked damaged,
/// never for the bulk.
fn drop_cached(file: &DiskFile) {
    // A refusal only means that the cached pages stay and are read once more.
    if let Err(error) = rustix::fs::fadvise(file.descriptor.as_fd(), 0, None, Advice::DontNeed) {
        tracing::debug!(
            path = %file.path().display(), err = %error,
            "cached pages were kept"
        );
    }
}
