//! The engine that misbehaves on purpose, for tests: seeded, so that a run can be repeated.
//!
//! It makes the calls of the blocking engine and bends what they give: less than was asked for,
//! "interrupted", "again", errors, delays, a file that ends too early.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::pread::{pread, pwrite, repeat};
use super::transfer::{Job, Progress, Work};

/// What goes wrong, and how often in a thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimFaults {
    /// Where the sequence of faults begins.
    pub seed: u64,
    /// Calls that do less than they were asked to.
    pub short_permille: u32,
    /// Calls that say "interrupted" or "again" and do nothing.
    pub passing_permille: u32,
    /// Calls that fail with an input/output error.
    pub broken_permille: u32,
    /// Jobs that begin up to [`SimFaults::delay_ms_max`] late.
    pub delayed_permille: u32,
    /// The longest delay, in milliseconds.
    pub delay_ms_max: u64,
    /// Where files end, however long they seem.
    pub ends_at: Option<u64>,
}

/// The engine.
#[derive(Debug)]
pub(super) struct Sim(Arc<State>);

#[derive(Debug)]
struct State {
    faults: SimFaults,
    drawn: AtomicU64,
}

impl Sim {
    pub(super) fn new(faults: SimFaults) -> Self {
        Self(Arc::new(State {
            faults,
            drawn: AtomicU64::new(faults.seed),
        }))
    }

    pub(super) fn submit(&self, job: Job) {
        let state = Arc::clone(&self.0);
        drop(tokio::spawn(async move {
            if state.happens(state.faults.delayed_permille) {
                let delay_ms = state.draw() % (state.faults.delay_ms_max + 1);
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            drop(tokio::task::spawn_blocking(move || state.run(job)));
        }));
    }
}

impl State {
    fn run(&self, job: Job) {
        let Job { file, work, slot } = job;
        match work {
            Work::Read(mut read) => {
                let outcome = repeat(&mut read.progress, |progress| {
                    self.bend(progress, || pread(&file, progress, read.buffer.whole_mut()))
                });
                drop((file, slot));
                read.finish(outcome);
            }
            Work::Write(mut write) => {
                let outcome = repeat(&mut write.progress, |progress| {
                    self.bend(progress, || pwrite(&file, progress, &write.bytes))
                });
                drop((file, slot));
                write.finish(outcome);
            }
        }
    }

    fn bend(
        &self,
        progress: &Progress,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.happens(self.faults.broken_permille) {
            return Err(Errno::IO.into());
        }
        if self.happens(self.faults.passing_permille) {
            let errno = if self.draw().is_multiple_of(2) {
                Errno::INTR
            } else {
                Errno::AGAIN
            };
            return Err(errno.into());
        }
        let mut count = call()?;
        if let Some(end) = self.faults.ends_at {
            let left = usize::try_from(end.saturating_sub(progress.at())).unwrap_or(usize::MAX);
            count = count.min(left);
        }
        if count > 0 && self.happens(self.faults.short_permille) {
            count = progress.shortened(count, self.draw());
        }
        Ok(count)
    }

    fn happens(&self, permille: u32) -> bool {
        self.draw() % 1000 < u64::from(permille)
    }

    /// The next number of the sequence (SplitMix64).
    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let seed = self.drawn.fetch_add(STEP, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
