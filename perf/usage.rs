//! What the kernel says of a process and of the page cache.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use procfs::process::Process;
use rustix::fs::Advice;

/// What a process has used since its start. CPU comes in ticks of 10 ms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User time, ms.
    pub(crate) user_ms: u64,
    /// System time, ms.
    pub(crate) system_ms: u64,
    /// The most it ever had resident (`VmHWM`).
    pub(crate) rss_peak_bytes: u64,
    /// What it has resident now (`VmRSS`).
    pub(crate) rss_bytes: u64,
    /// What of that is its own memory and not pages of a file (`RssAnon`).
    pub(crate) rss_anon_bytes: u64,
}

/// Nanoseconds on a CPU of each thread that lives, which is finer than ticks.
pub(crate) type ThreadTimes = Vec<(i32, u64)>;

impl Usage {
    pub(crate) fn of(pid: i32) -> anyhow::Result<Self> {
        let process = Process::new(pid)?;
        let (stat, status) = (process.stat()?, process.status()?);
        let kib = |field: Option<u64>, name| field.map(|kib| kib << 10).context(name);
        Ok(Self {
            user_ms: stat.utime * 1000 / procfs::ticks_per_second(),
            system_ms: stat.stime * 1000 / procfs::ticks_per_second(),
            rss_peak_bytes: kib(status.vmhwm, "VmHWM")?,
            rss_bytes: kib(status.vmrss, "VmRSS")?,
            rss_anon_bytes: kib(status.rssanon, "RssAnon")?,
        })
    }

    /// Of this process, as [`FromStr`] reads it.
    pub(crate) fn line_of_self() -> anyhow::Result<String> {
        let usage = Self::of(Process::myself()?.pid)?;
        Ok(format!(
            "{} {} {} {} {}",
            usage.user_ms,
            usage.system_ms,
            usage.rss_peak_bytes,
            usage.rss_bytes,
            usage.rss_anon_bytes
        ))
    }
}

impl FromStr for Usage {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let [
            user_ms,
            system_ms,
            rss_peak_bytes,
            rss_bytes,
            rss_anon_bytes,
        ] = numbers?[..]
        else {
            anyhow::bail!("`{line}` is not what a copy tells of itself");
        };
        Ok(Self {
            user_ms,
            system_ms,
            rss_peak_bytes,
            rss_bytes,
            rss_anon_bytes,
        })
    }
}

/// The CPU times of the threads of a process.
pub(crate) fn thread_times(pid: i32) -> anyhow::Result<ThreadTimes> {
    let tasks = Process::new(pid)?.tasks()?;
    let mut times = Vec::new();
    for task in tasks {
        let task = task?;
        times.push((task.tid, task.schedstat()?.sum_exec_runtime));
    }
    Ok(times)
}

/// CPU time between two readings. What threads used that ended in between is not in it.
pub(crate) fn cpu_between(before: &ThreadTimes, after: &ThreadTimes) -> Duration {
    let used = after.iter().map(|(tid, now)| {
        let earlier = before.iter().find(|(known, _)| known == tid);
        now.saturating_sub(earlier.map_or(0, |(_, ns)| *ns))
    });
    Duration::from_nanos(used.sum())
}

/// Bytes of these files in the page cache, as `fincore` of util-linux tells; `None` without it.
pub(crate) fn cached_bytes(files: &[PathBuf]) -> anyhow::Result<Option<u64>> {
    let arguments = ["--bytes", "--noheadings", "--raw", "--output", "RES", "--"];
    let output = match Command::new("fincore").args(arguments).args(files).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        output => output.context("run fincore")?,
    };
    anyhow::ensure!(output.status.success(), "fincore: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let resident: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    Ok(Some(resident?.iter().sum()))
}

/// Drops the pages of these files from the cache, as far as they are clean.
pub(crate) fn drop_cached(files: &[PathBuf]) -> anyhow::Result<()> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads these files, so that they are in the cache.
pub(crate) fn fill_cache(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Writes out what earlier runs left to be written to the file system of `directory`.
pub(crate) fn settle(directory: &Path) -> anyhow::Result<()> {
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}
