//! The engine of blocking calls: `pread` and `pwrite` on the runtime's blocking threads.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use super::transfer::{Job, Progress, Work};

/// Transfers in flight: more threads than this make no disk faster.
pub(super) const IN_FLIGHT_MAX: usize = 8;

/// Runs the job on a blocking thread; it goes on there if nobody waits for it any more.
pub(super) fn submit(job: Job) {
    // The handle is not needed: the job answers by itself.
    drop(tokio::task::spawn_blocking(move || run(job)));
}

fn run(job: Job) {
    let Job { file, work, slot } = job;
    match work {
        Work::Read(mut read) => {
            let outcome = repeat(&mut read.progress, |progress| {
                pread(&file, progress, read.buffer.whole_mut())
            });
            drop((file, slot));
            read.finish(outcome);
        }
        Work::Write(mut write) => {
            let outcome = repeat(&mut write.progress, |progress| {
                pwrite(&file, progress, &write.bytes)
            });
            drop((file, slot));
            write.finish(outcome);
        }
    }
}

/// Calls until the transfer has ended.
pub(super) fn repeat(
    progress: &mut Progress,
    mut call: impl FnMut(&Progress) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let result = call(progress);
        if let ControlFlow::Break(outcome) = progress.absorb(result) {
            return outcome;
        }
    }
}

/// The next call of a read into `whole`.
pub(super) fn pread(file: &OwnedFd, progress: &Progress, whole: &mut [u8]) -> io::Result<usize> {
    let space = whole.get_mut(progress.space()).unwrap_or_default();
    Ok(rustix::io::pread(file, space, progress.at())?)
}

/// The next call of a write of `whole`.
pub(super) fn pwrite(file: &OwnedFd, progress: &Progress, whole: &[u8]) -> io::Result<usize> {
    let space = whole.get(progress.space()).unwrap_or_default();
    Ok(rustix::io::pwrite(file, space, progress.at())?)
}
