//! The io_uring engine: one thread with a ring of its own, fed by a bounded channel.
//!
//! tokio-uring hands its submissions to the kernel only when its thread has nothing else to do, so
//! beside busy tasks its operations wait for seconds; and an operation whose future is dropped is
//! not cancelled but goes on with its buffer. Hence this thread does nothing but run transfers:
//! each is a task that owns its file and its memory to the end, and answers by a oneshot. Nobody
//! else ever holds one of its futures.
//!
//! Buffers are not registered with the ring. That halves the CPU time of a direct read into small
//! pages, but huge pages, which the pool has where the system gives them, quarter it without (see
//! the pool). And registering would tie every buffer to this thread and count against the limit of
//! locked memory, which as non-root is 8 MiB on most systems and less than the pool.
#![expect(
    unsafe_code,
    reason = "handing memory to the kernel for longer than a call is an unsafe contract"
)]

use std::convert::Infallible;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{self as blocking_mpsc, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::MemfdFlags;
use tokio::sync::{Semaphore, mpsc};
use tokio_uring::buf::{IoBuf, IoBufMut};
use tokio_uring::fs::File;

use super::PooledBuf;
use super::transfer::{Job, ReadJob, Work, WriteJob};

/// Transfers in flight: as deep as a disk profits from, and no more than the usual pool allows.
pub(super) const IN_FLIGHT_MAX: usize = 32;

/// Entries of the submission queue; the completion queue has twice as many.
const RING_ENTRIES: u32 = 64;

const _: () = assert!(IN_FLIGHT_MAX <= RING_ENTRIES as usize);

/// What the probe reads.
const PROBE: &[u8] = b"outrigger reads this through the ring before it relies on it";

/// How long what is in flight is waited for when the engine is dropped. A read from a disk that has
/// gone away (NFS, a detached volume) never ends, and must not keep the process from its own end.
const END_WAIT: Duration = Duration::from_secs(2);

/// The thread with the ring. Dropping it lets the thread finish what is in flight, and waits
/// [`END_WAIT`] for its end.
#[derive(Debug)]
pub(super) struct Uring {
    /// `None` only while it is dropped: closing the channel must come before waiting.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread is at its end, however it came to it.
    ended: Mutex<blocking_mpsc::Receiver<Infallible>>,
}

impl Uring {
    /// Starts the thread, makes a ring and reads a file through it.
    ///
    /// # Errors
    /// What the kernel said to one of these: EPERM, ENOSYS and ENOMEM where io_uring is not to be
    /// had.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(IN_FLIGHT_MAX);
        let (started, outcome) = blocking_mpsc::channel();
        let (at_end, ended) = blocking_mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("disk-uring".to_owned())
            .spawn(move || {
                let _at_end = at_end;
                serve(queue, &started);
            })?;
        let uring = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            ended: Mutex::new(ended),
        };
        let ended = |_| io::Error::other("the io_uring thread ended while it started");
        outcome.recv().map_err(ended)??;
        Ok(uring)
    }

    /// Queues a job. It holds one of [`IN_FLIGHT_MAX`] slots, so there is room for it.
    pub(super) fn submit(&self, job: Job) {
        let Some(jobs) = &self.jobs else { return };
        if let Err(refused) = jobs.try_send(job) {
            // Dropping the job tells whoever waits for its answer.
            tracing::error!(err = %refused, "the io_uring thread is gone");
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // No job holds an engine, so this is never the ring's own thread; but waiting for oneself
        // would be in vain.
        if thread.thread().id() == std::thread::current().id() {
            return;
        }
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(END_WAIT) == Err(RecvTimeoutError::Timeout) {
            // It owns all that its transfers need, so it can be let go.
            tracing::warn!(
                waited = ?END_WAIT,
                remedy = "check the disk, or the file server, that the data directory is on",
                "reads or writes in flight do not end; not waiting for them any longer"
            );
        } else if thread.join().is_err() {
            tracing::error!("the io_uring thread has panicked");
        }
    }
}

/// The thread: probes, says how that went, then runs jobs until the channel is closed and the last
/// one has ended.
fn serve(queue: mpsc::Receiver<Job>, started: &blocking_mpsc::Sender<io::Result<()>>) {
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES);
    // Not `start`, which panics where the kernel refuses.
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => {
            drop(started.send(Err(error)));
            return;
        }
    };
    runtime.block_on(async {
        let probed = probe().await;
        let is_usable = probed.is_ok();
        if started.send(probed).is_ok() && is_usable {
            run_jobs(queue).await;
        }
    });
}

async fn run_jobs(mut queue: mpsc::Receiver<Job>) {
    let in_flight = Rc::new(Semaphore::new(IN_FLIGHT_MAX));
    while let Some(Job { file, work, slot }) = queue.recv().await {
        let held = Rc::clone(&in_flight);
        let permit = in_flight.acquire().await.map(|permit| permit.forget());
        assert!(permit.is_ok(), "never closed");
        drop(tokio_uring::spawn(async move {
            match work {
                Work::Read(read) => run_read(&file, read).await,
                Work::Write(write) => run_write(&file, write).await,
            }
            drop((file, slot));
            held.add_permits(1);
        }));
    }
    let all = u32::try_from(IN_FLIGHT_MAX).expect("a small constant");
    drop(in_flight.acquire_many(all).await);
}

async fn run_read(file: &Arc<OwnedFd>, mut read: ReadJob) {
    let file = match own(file) {
        Ok(file) => file,
        Err(error) => return read.finish(Err(error)),
    };
    loop {
        let memory = RingBuf {
            range: read.progress.space(),
            buffer: read.buffer,
        };
        let (result, memory) = file.read_at(memory, read.progress.at()).await;
        read.buffer = memory.buffer;
        if let ControlFlow::Break(outcome) = read.progress.absorb(result) {
            return read.finish(outcome);
        }
    }
}

async fn run_write(file: &Arc<OwnedFd>, mut write: WriteJob) {
    let file = match own(file) {
        Ok(file) => file,
        Err(error) => return write.finish(Err(error)),
    };
    loop {
        let left = RingBytes(write.bytes.slice(write.progress.space()));
        let call = file.write_at(left, write.progress.at()).submit();
        let (result, _) = call.await;
        if let ControlFlow::Break(outcome) = write.progress.absorb(result) {
            return write.finish(outcome);
        }
    }
}

/// A descriptor that the ring's operation can own.
fn own(file: &OwnedFd) -> io::Result<File> {
    Ok(File::from_std(file.try_clone()?.into()))
}

/// Reads a real file through the ring: a sandbox may allow the ring and refuse its use.
async fn probe() -> io::Result<()> {
    let file = rustix::fs::memfd_create("outrigger-probe", MemfdFlags::CLOEXEC)?;
    rustix::io::pwrite(&file, PROBE, 0)?;
    let file = File::from_std(file.into());
    let (result, read) = file.read_at(vec![0; PROBE.len()], 0).await;
    if result? == PROBE.len() && read == PROBE {
        Ok(())
    } else {
        Err(io::Error::other("the probe read other bytes than it wrote"))
    }
}

/// The part of a pooled buffer that one call fills.
struct RingBuf {
    buffer: PooledBuf,
    range: Range<usize>,
}

// SAFETY: IoBuf wants a pointer that stays valid and at its place while the value is moved, and
// counts of bytes that can be read behind it. The memory is on the heap, owned by the pooled
// buffer, which neither grows nor frees it while it is on loan; moving the value moves only the
// handle. `space` never gives more than lies in the buffer, and all of that was initialised (with
// zeros) when it was allocated.
unsafe impl IoBuf for RingBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.space().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.space().len()
    }

    fn bytes_total(&self) -> usize {
        self.space().len()
    }
}

// SAFETY: IoBufMut wants the same of a pointer for writing. The buffer is owned, so nobody else
// reads or writes it while the kernel does. `set_init` has nothing to do: all bytes are
// initialised from the start, and how many of them mean something is told by the result.
unsafe impl IoBufMut for RingBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        let range = self.range.clone();
        let space = self.buffer.whole_mut().get_mut(range).unwrap_or_default();
        space.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

impl RingBuf {
    fn space(&self) -> &[u8] {
        let range = self.range.clone();
        self.buffer.whole().get(range).unwrap_or_default()
    }
}

/// Bytes that one call writes to a file.
struct RingBytes(Bytes);

// SAFETY: a `Bytes` keeps its memory alive, unchanged and at its place until its last clone is
// dropped, and this value is one; all `len` bytes are initialised.
unsafe impl IoBuf for RingBytes {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::transfer::Progress;
    use crate::disk::{BufferPool, RUN_BYTES};

    #[test]
    fn a_read_that_never_ends_does_not_keep_the_engine_from_its_end() {
        let Ok(uring) = Uring::start() else {
            println!("LEFT OUT: io_uring is not to be had");
            return;
        };
        // Nothing is written to this pipe for as long as the engine lives.
        let (empty, silent) = io::pipe().unwrap();
        let pool = BufferPool::new(1);
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        uring.submit(Job {
            file: Arc::new(empty.into()),
            work: Work::Read(ReadJob {
                progress: Progress::read(0, RUN_BYTES, None),
                buffer: pool.try_take().unwrap(),
                reply,
            }),
            slot: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        });
        let (dropped, is_dropped) = blocking_mpsc::channel();
        std::thread::spawn(move || {
            drop(uring);
            dropped.send(()).unwrap();
        });
        is_dropped.recv_timeout(30 * END_WAIT).unwrap();
        assert!(answer.try_recv().is_err(), "the read goes on");
        assert_eq!(pool.in_use(), 1, "and its memory is still its own");

        // Its end is that of the thread, too.
        drop(silent);
        let error = answer.blocking_recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
