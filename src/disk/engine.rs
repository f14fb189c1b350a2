//! Reading file contents: runs in file order, out of the pool, off the network's threads.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Advice, Mode, OFlags};

use super::{BufferPool, DiskError, DiskFile, PooledBuf, RUN_BYTES, blocking};
use crate::disk::path::retry;

/// `O_DIRECT` wants offset, length and address aligned to the disk's logical block, at most a page.
const DIRECT_ALIGNMENT: u64 = 4096;
const DIRECT_BLOCK: usize = 4096;

const _: () = assert!(RUN_BYTES.is_multiple_of(DIRECT_BLOCK));

/// How bytes come off the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Through the page cache.
    Buffered,
    /// From the disk itself, past the page cache, where the file system can; elsewhere the file's
    /// clean cached pages are dropped first. For a second opinion on bytes that looked damaged.
    Direct,
}

/// Reads files for everyone; cheap to clone.
#[derive(Clone, Debug)]
pub struct DiskEngine {
    pool: BufferPool,
}

/// The bytes of a file range, as runs of at most [`RUN_BYTES`] in file order.
#[derive(Debug)]
pub struct FileRuns {
    file: DiskFile,
    direct: Option<DiskFile>,
    pool: BufferPool,
    mode: ReadMode,
    position: u64,
    end: u64,
}

// === impl DiskEngine ===

impl DiskEngine {
    /// An engine which reads into buffers of `pool`.
    pub fn new(pool: BufferPool) -> Self {
        Self { pool }
    }

    /// The runs of `range` of `file`. Past the size the file had when it was opened there is
    /// nothing; a file that has shrunk since gives an error, never zeros or a short success.
    pub fn runs(&self, file: &DiskFile, range: Range<u64>, mode: ReadMode) -> FileRuns {
        FileRuns {
            file: file.clone(),
            direct: None,
            pool: self.pool.clone(),
            mode,
            position: range.start,
            end: range.end.min(file.size_bytes()),
        }
    }

    /// A short range in one piece.
    ///
    /// # Errors
    /// Where it can't be read, or the file ends before the range does.
    pub async fn read_exact(
        &self,
        file: &DiskFile,
        range: Range<u64>,
        mode: ReadMode,
    ) -> Result<Vec<u8>, DiskError> {
        if range.end > file.size_bytes() {
            return Err(DiskError::new(
                "read",
                file.path(),
                ended_early(file.size_bytes()),
            ));
        }
        let mut runs = self.runs(file, range, mode);
        let mut bytes = Vec::new();
        while let Some(run) = runs.next(u64::MAX).await? {
            bytes.extend_from_slice(&run);
        }
        Ok(bytes)
    }
}

// === impl FileRuns ===

impl FileRuns {
    /// The next run, of at most `within` bytes; `None` at the end of the range.
    ///
    /// # Errors
    /// Where the disk can't be read, or the file has become shorter than it was.
    pub async fn next(&mut self, within: u64) -> Result<Option<Bytes>, DiskError> {
        if self.position >= self.end {
            return Ok(None);
        }
        assert!(within > 0, "a run has at least one byte");
        if self.mode == ReadMode::Direct && self.direct.is_none() {
            let file = self.file.clone();
            self.direct = Some(blocking(move || reopen_past_cache(&file)).await);
        }
        let buffer = self.pool.take().await;
        let file = self.direct.as_ref().unwrap_or(&self.file).clone();
        let position = self.position;
        let end = self.end.min(position.saturating_add(within));
        // A buffered run starts where the last one ended; a direct one at an aligned offset before.
        let aligned = match self.mode {
            ReadMode::Buffered => position,
            ReadMode::Direct => position - position % DIRECT_ALIGNMENT,
        };
        let direct = self.mode == ReadMode::Direct;
        let path = self.file.path().to_owned();
        let read = move || {
            let refused = file.faults.before();
            let outcome = refused.map_err(|error| at_offset(aligned, error));
            let outcome = outcome.and_then(|()| fill(&file, aligned, end, direct, buffer));
            file.faults.after(outcome)
        };
        let (buffer, filled) = blocking(read)
            .await
            .map_err(|source| DiskError::new("read", &path, source))?;
        let skipped = usize::try_from(position - aligned).expect("less than a page");
        let run = buffer.into_bytes();
        let run = run.slice(skipped..filled.max(skipped));
        if run.is_empty() {
            return Err(DiskError::new("read", &path, ended_early(position)));
        }
        self.position += run.len() as u64;
        Ok(Some(run))
    }
}

/// Fills the buffer from `offset`, as far as it, `end` and the file go; how many bytes there are.
fn fill(
    file: &DiskFile,
    offset: u64,
    end: u64,
    direct: bool,
    mut buffer: PooledBuf,
) -> io::Result<(PooledBuf, usize)> {
    let wanted = usize::try_from(end - offset)
        .unwrap_or(usize::MAX)
        .min(RUN_BYTES);
    // Direct reads need whole blocks; of anything else, only what is wanted.
    let asked = if direct {
        wanted.next_multiple_of(DIRECT_BLOCK)
    } else {
        wanted
    };
    let mut filled = 0;
    while filled < wanted {
        let at = offset + filled as u64;
        let space = &mut buffer.whole_mut()[filled..asked];
        match retry(|| rustix::io::pread(&*file.descriptor, &mut *space, at)) {
            Ok(0) => return Err(ended_early(at)),
            Ok(count) => filled += count,
            Err(errno) => return Err(at_offset(at, errno.into())),
        }
        // A direct read ends off a block boundary only at the end of the file.
        if direct && filled < wanted && !(filled as u64).is_multiple_of(DIRECT_ALIGNMENT) {
            return Err(ended_early(offset + filled as u64));
        }
    }
    let filled = filled.min(wanted);
    buffer.set_length(filled);
    Ok((buffer, filled))
}

/// The same file for reading past the page cache. Where the file system has no such way, the
/// clean pages of the file are dropped, which evicts them for Prometheus too: this is for bytes
/// that looked damaged, never for the bulk.
fn reopen_past_cache(file: &DiskFile) -> DiskFile {
    use std::os::fd::AsRawFd;
    let by_descriptor = format!("/proc/self/fd/{}", file.descriptor.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(Path::new(&by_descriptor), flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|descriptor| {
            DiskFile::new(descriptor, file.path().to_owned(), file.faults.clone())
        });
    match opened {
        Ok(direct) if probe_direct(&direct) => direct,
        _ => {
            // A refusal only means that the cached pages stay and are read once more.
            let dropped = rustix::fs::fadvise(file.descriptor.as_fd(), 0, None, Advice::DontNeed);
            if let Err(error) = dropped {
                tracing::debug!(
                    path = %file.path().display(), err = %error,
                    "cached pages were kept"
                );
            }
            file.clone()
        }
    }
}

/// Whether the first block can be read directly: some file systems take the flag and then refuse.
fn probe_direct(file: &DiskFile) -> bool {
    let mut block = vec![0u8; 2 * DIRECT_BLOCK];
    let start = block.as_ptr().align_offset(DIRECT_BLOCK);
    let Some(aligned) = block.get_mut(start..start + DIRECT_BLOCK) else {
        return false;
    };
    rustix::io::pread(&*file.descriptor, aligned, 0).is_ok()
}

/// Says where a read failed; the kind of the error stays what it was.
fn at_offset(offset: u64, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), ReadFailed { offset, source })
}

#[derive(Debug, thiserror::Error)]
#[error("at offset {offset}")]
struct ReadFailed {
    offset: u64,
    source: io::Error,
}

fn ended_early(offset: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the file ends at offset {offset}, before the size it had when it was opened"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Containment, Dir};
    use proptest::prelude::*;

    async fn opened(content: &[u8]) -> (tempfile::TempDir, DiskFile) {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), content).unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        let file = dir.open_file("f").await.unwrap();
        (scratch, file)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_range_reads_the_same_in_both_modes(
            size in 0usize..3 * RUN_BYTES, from in 0.0f64..1.0, to in 0.0f64..1.1,
        ) {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let content = pattern(size);
                let (_scratch, file) = opened(&content).await;
                let engine = DiskEngine::new(BufferPool::new(1));
                let start = (size as f64 * from) as usize;
                let end = ((size as f64 * to) as usize).max(start);
                for mode in [ReadMode::Buffered, ReadMode::Direct] {
                    let mut runs = engine.runs(&file, start as u64..end as u64, mode);
                    let mut read = Vec::new();
                    while let Some(run) = runs.next(u64::MAX).await.unwrap() {
                        assert!(run.len() <= RUN_BYTES);
                        read.extend_from_slice(&run);
                    }
                    assert!(read == content[start..end.min(size)], "{mode:?} {start}..{end}");
                }
            });
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_and_not_zeros() {
        for mode in [ReadMode::Buffered, ReadMode::Direct] {
            let (scratch, file) = opened(&pattern(2 * RUN_BYTES)).await;
            let engine = DiskEngine::new(BufferPool::new(2));
            let mut runs = engine.runs(&file, 0..u64::MAX, mode);
            runs.next(u64::MAX).await.unwrap().unwrap();
            let writer = std::fs::OpenOptions::new()
                .write(true)
                .open(scratch.path().join("f"));
            writer.unwrap().set_len(RUN_BYTES as u64 + 10).unwrap();
            let error = runs.next(u64::MAX).await.unwrap_err();
            assert_eq!(
                error.source.kind(),
                io::ErrorKind::UnexpectedEof,
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_short_range_reads_no_more_than_itself() {
        let (_scratch, file) = opened(&pattern(2 * RUN_BYTES)).await;
        let pool = BufferPool::new(1);
        let read = |mut buffer: PooledBuf, direct| {
            buffer.whole_mut().fill(0xff);
            let (mut buffer, filled) = fill(&file, 4096, 4104, direct, buffer).unwrap();
            let touched = buffer.whole_mut().iter().take_while(|byte| **byte != 0xff);
            (filled, touched.count())
        };
        assert_eq!(read(pool.take().await, false), (8, 8));
        assert_eq!(read(pool.take().await, true), (8, DIRECT_BLOCK));
    }

    #[tokio::test]
    async fn exact_reads_refuse_a_range_past_the_end() {
        let (_scratch, file) = opened(&pattern(100)).await;
        let engine = DiskEngine::new(BufferPool::new(1));
        let tail = engine
            .read_exact(&file, 90..100, ReadMode::Buffered)
            .await
            .unwrap();
        assert_eq!(tail, pattern(100)[90..]);
        assert!(
            engine
                .read_exact(&file, 90..101, ReadMode::Buffered)
                .await
                .is_err()
        );
    }
}
