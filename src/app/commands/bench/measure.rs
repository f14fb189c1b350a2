//! What this process has used, as the kernel counts it.

use std::time::Duration;

use anyhow::Context as _;
use procfs::process::Process;

/// Resets the peak of the resident set to what is resident now (proc_pid_clear_refs(5)).
const RESET_PEAK: &str = "5";

/// CPU time since the process began, in ticks of 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    pub(super) user: Duration,
    pub(super) system: Duration,
}

impl CpuTime {
    /// Of all threads, those that have ended included.
    pub(super) fn now() -> anyhow::Result<Self> {
        let stat = Process::myself()?.stat()?;
        let per_second = procfs::ticks_per_second().max(1);
        let ticks = |count: u64| Duration::from_millis(count.saturating_mul(1000) / per_second);
        Ok(Self {
            user: ticks(stat.utime),
            system: ticks(stat.stime),
        })
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Begins a new peak, so that each run of a sweep has its own. A kernel without that keeps the old
/// one, which is then told for what it is: too high.
pub(super) fn reset_peak_rss() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", RESET_PEAK) {
        tracing::debug!(err = %error, "the peak of earlier runs is in that of this one");
    }
}

/// The most that was resident since the process began or [`reset_peak_rss`], in bytes.
pub(super) fn peak_rss_bytes() -> anyhow::Result<u64> {
    let status = Process::myself()?.status()?;
    let kib = status.vmhwm.context("the kernel tells no VmHWM")?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_show() {
        let before = CpuTime::now().unwrap();
        let mut sum = 0_u64;
        while CpuTime::now().unwrap().since(before).user < Duration::from_millis(20) {
            sum = (0..100_000_u64).fold(sum, |sum, i| sum.wrapping_mul(31).wrapping_add(i));
        }
        std::hint::black_box(sum);
        assert_eq!(before.since(CpuTime::now().unwrap()), CpuTime::default());
        let ballast = vec![1_u8; 64 << 20];
        assert!(peak_rss_bytes().unwrap() > std::hint::black_box(&ballast).len() as u64);
    }
}
