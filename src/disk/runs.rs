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

/// How many bytes are copied from the page cache before they are looked at: little enough that
/// they and what they were copied from are in a core's own cache then.
const LOOK_BYTES: usize = 256 << 10;

/// Whoever looks at bytes, piece by piece, while they are in the processor's cache.
type Look<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

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
    /// What from `position` on was looked at and then could not be copied to the end of its run.
    /// It is read once more, and must be the same.
    seen: Bytes,
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

/// A run, and whether it was shown already.
enum Run {
    Seen(Bytes),
    Unseen(Bytes),
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
            seen: Bytes::new(),
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
        self.next_seen(within, &mut |_| {}).await
    }

    /// As [`FileRuns::next`], and shows the run's bytes to `look`, all of them once and in order,
    /// soon after they were copied: what is done with them then finds them in the processor's
    /// cache. After an error, what was shown of the run that failed may be shown again.
    ///
    /// # Errors
    /// As [`FileRuns::next`].
    pub async fn next_seen(
        &mut self,
        within: u64,
        look: Look<'_>,
    ) -> Result<Option<Bytes>, DiskError> {
        if self.position >= self.end {
            return Ok(None);
        }
        assert!(within > 0, "a run has at least one byte");
        let limit = self.end.min(self.position.saturating_add(within));
        let refused = self.file.faults.before();
        let outcome = match refused {
            Ok(()) => self.take(limit, look).await,
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
    async fn take(&mut self, limit: u64, look: Look<'_>) -> io::Result<Bytes> {
        if self.held.is_empty() {
            match self.read(limit, look).await? {
                Run::Seen(run) => return Ok(run),
                Run::Unseen(run) => self.held = run,
            }
        }
        let room = usize::try_from(limit - self.position).unwrap_or(usize::MAX);
        let run = self.held.split_to(room.min(self.held.len()));
        let seen = self.seen.split_to(self.seen.len().min(run.len()));
        if !run.starts_with(&seen) {
            // Whoever asks again starts afresh from here.
            self.held = Bytes::new();
            self.seen = Bytes::new();
            self.ahead.clear();
            return Err(at_offset(self.position, changed()));
        }
        look(run.get(seen.len()..).unwrap_or_default());
        Ok(run)
    }

    /// The bytes from `position` on. Dropped half-way, nothing is lost: what was begun stays in
    /// the queue.
    async fn read(&mut self, limit: u64, look: Look<'_>) -> io::Result<Run> {
        loop {
            if self.ahead.is_empty() {
                let run_end = limit.min(self.position + RUN_BYTES as u64);
                let mut buffer = self.engine.pool().take().await;
                let is_cached = self.is_resident(self.position, run_end);
                // What was seen already is not shown again.
                let may_look = self.seen.is_empty();
                if is_cached && may_look && self.file.ways.has_nowait() {
                    buffer = match self.copy_cached(buffer, run_end, &mut *look)? {
                        Ok(run) => return Ok(Run::Seen(run)),
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
                    let run = run.slice(first.skipped..first.skipped + length);
                    return Ok(Run::Unseen(run));
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

    /// Copies the bytes from `position` to `run_end` out of the page cache, and shows them; gives
    /// the buffer back where that would have to wait, since some were evicted just now or the file
    /// system does not have such reads.
    fn copy_cached(
        &mut self,
        mut buffer: PooledBuf,
        run_end: u64,
        look: Look<'_>,
    ) -> io::Result<Result<Bytes, PooledBuf>> {
        let length = usize::try_from(run_end - self.position).expect("at most one buffer");
        let mut filled = 0;
        while filled < length {
            let at = self.position + filled as u64;
            let piece_end = length.min(filled + LOOK_BYTES);
            let space = buffer.whole_mut().get_mut(filled..piece_end);
            let mut space = [IoSliceMut::new(space.unwrap_or_default())];
            let read = rustix::io::preadv2(
                &*self.file.descriptor,
                &mut space,
                at,
                ReadWriteFlags::NOWAIT,
            );
            match read {
                Ok(0) => return Err(ended_early(at)),
                Ok(count) => {
                    let piece = buffer.whole().get(filled..filled + count);
                    look(piece.unwrap_or_default());
                    filled += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                    self.file.ways.set_no_nowait();
                    break;
                }
                Err(errno) => return Err(at_offset(at, errno.into())),
            }
        }
        if filled < length {
            let seen = buffer.whole().get(..filled).unwrap_or_default();
            self.seen = Bytes::copy_from_slice(seen);
            return Ok(Err(buffer));
        }
        buffer.set_length(length);
        Ok(Ok(buffer.into_bytes()))
    }
}

/// The error for a file whose bytes were others a moment ago.
fn changed() -> io::Error {
    io::Error::other("the file gave other bytes when it was read once more")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BufferPool, Containment, Dir};

    const LENGTH: usize = 2 * RUN_BYTES + 12_345;

    async fn written() -> (tempfile::TempDir, DiskFile, Vec<u8>) {
        let scratch = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let content: Vec<u8> = (0..LENGTH).map(|i| (i * 31 % 251) as u8).collect();
        std::fs::write(scratch.path().join("f"), &content).unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        (scratch, dir.open_file("f").await.unwrap(), content)
    }

    fn runs_of(file: &DiskFile, mode: ReadMode) -> FileRuns {
        let engine = DiskEngine::new(BufferPool::new(4));
        engine.runs(file, 0..u64::MAX, mode)
    }

    #[tokio::test]
    async fn every_byte_is_shown_once_in_order_from_the_cache_and_past_it() {
        let (_scratch, file, content) = written().await;
        for mode in [ReadMode::Buffered, ReadMode::Direct] {
            let mut runs = runs_of(&file, mode);
            let (mut shown, mut given) = (Vec::new(), Vec::new());
            let mut look = |piece: &[u8]| shown.extend_from_slice(piece);
            // An odd limit: what is held for the next taker is shown when it is taken.
            while let Some(run) = runs.next_seen(300_001, &mut look).await.unwrap() {
                given.extend_from_slice(&run);
            }
            assert!(given == content, "{mode:?}");
            assert!(shown == content, "{mode:?}");
        }
    }

    #[tokio::test]
    async fn cached_bytes_are_shown_in_pieces_that_fit_a_cores_cache() {
        let (_scratch, file, _) = written().await;
        let mut runs = runs_of(&file, ReadMode::Buffered);
        if !runs.is_resident(0, RUN_BYTES as u64) {
            // This kernel does not tell what is cached.
            return;
        }
        let mut longest = 0;
        let mut look = |piece: &[u8]| longest = longest.max(piece.len());
        runs.next_seen(u64::MAX, &mut look).await.unwrap();
        assert!(longest <= LOOK_BYTES, "{longest}");
    }

    #[tokio::test]
    async fn what_was_seen_before_it_was_evicted_is_read_once_more_and_not_shown_again() {
        let (_scratch, file, content) = written().await;
        let seen = RUN_BYTES / 2;
        let mut runs = runs_of(&file, ReadMode::Buffered);
        runs.seen = Bytes::copy_from_slice(&content[..seen]);
        let (mut shown, mut given) = (Vec::new(), Vec::new());
        let mut look = |piece: &[u8]| shown.extend_from_slice(piece);
        while let Some(run) = runs.next_seen(100_000, &mut look).await.unwrap() {
            given.extend_from_slice(&run);
        }
        assert!(given == content);
        assert!(shown == content[seen..]);
    }

    #[tokio::test]
    async fn other_bytes_than_were_seen_are_an_error() {
        let (_scratch, file, content) = written().await;
        let mut runs = runs_of(&file, ReadMode::Buffered);
        let mut seen = content[..5000].to_vec();
        seen[4999] ^= 1;
        runs.seen = seen.into();
        let error = runs.next(u64::MAX).await.unwrap_err();
        let reason = format!("{error:?}");
        assert!(reason.contains("other bytes"), "{reason}");
        // The next call tries again, from the same place.
        let run = runs.next(u64::MAX).await.unwrap().unwrap();
        assert!(content.starts_with(&run));
    }
}
