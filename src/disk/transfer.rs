//! One read or write on its way through an engine: what is left of it, and when it has ended.
//!
//! The kernel may do less than it was asked for, or nothing, with "interrupted" or "again". What
//! that means is decided here, once, for all engines; an engine only makes the calls.

use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{PooledBuf, RUN_BYTES};

/// How often in a row the kernel may say "again" or "interrupted" before it is an error: a file
/// system that always says so must not hang us.
const AGAIN_MAX: u32 = 64;

/// A transfer and all it needs: whoever runs it owns the file and the memory until the kernel is
/// done with them, whatever became of the one who asked.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) file: Arc<OwnedFd>,
    pub(super) work: Work,
    /// The place among the transfers in flight, free again when the job is dropped.
    pub(super) slot: OwnedSemaphorePermit,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    Read(ReadJob),
    Write(WriteJob),
}

/// Fills a buffer from a file.
#[derive(Debug)]
pub(super) struct ReadJob {
    pub(super) progress: Progress,
    pub(super) buffer: PooledBuf,
    pub(super) reply: oneshot::Sender<io::Result<PooledBuf>>,
}

/// Writes bytes to a file.
#[derive(Debug)]
pub(super) struct WriteJob {
    pub(super) progress: Progress,
    pub(super) bytes: Bytes,
    pub(super) reply: oneshot::Sender<io::Result<()>>,
}

/// How far a transfer has come.
#[derive(Debug)]
pub(super) struct Progress {
    /// Where in the file the memory's first byte belongs.
    offset: u64,
    /// How many bytes there must be in the end.
    wanted: usize,
    /// How many bytes are asked for: of direct reads whole blocks.
    asked: usize,
    done: usize,
    /// The block that direct transfers come in.
    block: Option<usize>,
    ended_early: fn(u64) -> io::Error,
    again_left: u32,
}

impl Progress {
    /// A read of `wanted` bytes at `offset`; with a `block`, past the page cache in whole blocks.
    pub(super) fn read(offset: u64, wanted: usize, block: Option<usize>) -> Self {
        assert!(wanted <= RUN_BYTES, "a run is at most one buffer");
        Self {
            offset,
            wanted,
            asked: block.map_or(wanted, |block| wanted.next_multiple_of(block)),
            done: 0,
            block,
            ended_early,
            again_left: AGAIN_MAX,
        }
    }

    /// A write of `length` bytes at `offset`, past the page cache in whole blocks of `block`.
    pub(super) fn write(offset: u64, length: usize, block: usize) -> Self {
        Self {
            offset,
            wanted: length,
            asked: length,
            done: 0,
            block: Some(block),
            ended_early: no_room,
            again_left: AGAIN_MAX,
        }
    }

    /// Where in the file the next call begins.
    pub(super) fn at(&self) -> u64 {
        self.offset + self.done as u64
    }

    /// The part of the memory that the next call is about.
    pub(super) fn space(&self) -> Range<usize> {
        self.done..self.asked
    }

    /// What a call might have given instead of `count`: as little as a byte, or in direct
    /// transfers a block.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn shortened(&self, count: usize, random: u64) -> usize {
        let unit = self.block.unwrap_or(1);
        let units = u64::try_from(count / unit).unwrap_or_default().max(1);
        let kept = usize::try_from(random % units).unwrap_or_default() + 1;
        count.min(kept * unit)
    }

    /// Takes what a call gave. Breaks with how many bytes there are, as many as were wanted, or
    /// with why there are not.
    pub(super) fn absorb(
        &mut self,
        result: io::Result<usize>,
    ) -> ControlFlow<io::Result<usize>, ()> {
        let count = match result {
            Ok(count) => count,
            Err(error) if is_passing(&error) && self.again_left > 0 => {
                self.again_left -= 1;
                return ControlFlow::Continue(());
            }
            Err(error) => return ControlFlow::Break(Err(at_offset(self.at(), error))),
        };
        let reached = (self.done + count).min(self.asked);
        if reached >= self.wanted {
            self.done = self.wanted;
            return ControlFlow::Break(Ok(self.wanted));
        }
        // Direct calls begin at blocks: one that ended between two is repeated from the last, and
        // one that did not get through a single block has met the end of the file.
        let reached = reached - self.block.map_or(0, |block| reached % block);
        if reached <= self.done {
            return ControlFlow::Break(Err((self.ended_early)(self.at() + count as u64)));
        }
        self.done = reached;
        self.again_left = AGAIN_MAX;
        ControlFlow::Continue(())
    }
}

impl ReadJob {
    /// Tells whoever asked, if they still want to know.
    pub(super) fn finish(mut self, outcome: io::Result<usize>) {
        let outcome = outcome.map(|length| {
            self.buffer.set_length(length);
            self.buffer
        });
        // The one who asked has gone away; the buffer goes back to the pool with the answer.
        drop(self.reply.send(outcome));
    }
}

impl WriteJob {
    /// Tells whoever asked, if they still want to know.
    pub(super) fn finish(self, outcome: io::Result<usize>) {
        drop(self.reply.send(outcome.map(drop)));
    }
}

/// Whether the same call may succeed at once. "Cancelled" is what an operation in a ring gives
/// when a signal met the thread that submitted it.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INTR | Errno::AGAIN | Errno::CANCELED)
    )
}

/// Says where a transfer failed; the kind of the error stays what it was.
pub(super) fn at_offset(offset: u64, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), TransferFailed { offset, source })
}

/// The kernel's own error below [`at_offset`].
pub(super) fn errno_of(error: &io::Error) -> Option<Errno> {
    let inner = error.get_ref().and_then(|inner| {
        let failed = inner.downcast_ref::<TransferFailed>()?;
        Errno::from_io_error(&failed.source)
    });
    inner.or_else(|| Errno::from_io_error(error))
}

#[derive(Debug, thiserror::Error)]
#[error("at offset {offset}")]
struct TransferFailed {
    offset: u64,
    source: io::Error,
}

/// The error for a file that has shrunk.
pub(super) fn ended_early(offset: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the file ends at offset {offset}, before the size it had when it was opened"),
    )
}

fn no_room(offset: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::WriteZero,
        format!("the disk takes no more bytes at offset {offset}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(flow: ControlFlow<io::Result<usize>>) -> io::Result<usize> {
        flow.break_value().expect("has ended")
    }

    #[test]
    fn short_reads_go_on_where_they_ended() {
        let mut read = Progress::read(100, 10, None);
        assert_eq!((read.at(), read.space()), (100, 0..10));
        assert!(read.absorb(Ok(4)).is_continue());
        assert_eq!((read.at(), read.space()), (104, 4..10));
        assert_eq!(broken(read.absorb(Ok(6))).unwrap(), 10);
    }

    #[test]
    fn direct_reads_go_on_at_blocks_and_end_with_the_file() {
        let mut read = Progress::read(0, 10_000, Some(4096));
        assert_eq!(read.space(), 0..12_288);
        assert!(read.absorb(Ok(4608)).is_continue());
        assert_eq!((read.at(), read.space()), (4096, 4096..12_288));
        assert_eq!(broken(read.absorb(Ok(5904))).unwrap(), 10_000);

        let mut shrunk = Progress::read(0, 10_000, Some(4096));
        assert!(shrunk.absorb(Ok(5000)).is_continue());
        let error = broken(shrunk.absorb(Ok(904))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("offset 5000"), "{error}");
    }

    #[test]
    fn nothing_read_is_an_end_and_nothing_written_a_refusal() {
        let read = broken(Progress::read(7, 1, None).absorb(Ok(0))).unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::UnexpectedEof);
        let written = broken(Progress::write(0, 4096, 4096).absorb(Ok(0))).unwrap_err();
        assert_eq!(written.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn passing_errors_are_passed_over_but_not_for_ever() {
        let mut read = Progress::read(0, 2, None);
        for errno in [Errno::INTR, Errno::AGAIN, Errno::CANCELED] {
            assert!(read.absorb(Err(errno.into())).is_continue());
        }
        assert!(read.absorb(Ok(1)).is_continue());
        for _ in 0..AGAIN_MAX {
            assert!(read.absorb(Err(Errno::AGAIN.into())).is_continue());
        }
        let error = broken(read.absorb(Err(Errno::AGAIN.into()))).unwrap_err();
        assert_eq!(errno_of(&error), Some(Errno::AGAIN));
        assert_eq!(error.to_string(), "at offset 1");
    }
}
