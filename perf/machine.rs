//! The machine a run was made on, for the head of its results.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use jiff::Timestamp;
use procfs::process::{MountInfo, Process};

use crate::Bench;

/// Refuses to measure on a file system in memory: nothing is written out there.
pub(crate) fn refuse_memory(directory: &Path) -> anyhow::Result<()> {
    let kind = mount_of(directory)?.fs_type;
    anyhow::ensure!(
        !["tmpfs", "ramfs"].contains(&kind.as_str()),
        "{} is on {kind}; set PERF_DIR to a directory on a disk",
        directory.display()
    );
    Ok(())
}

/// Machine, date, binary and sizes, one line each.
pub(crate) fn describe(bench: &Bench) -> anyhow::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory_kib = memory.lines().find_map(|line| {
        let rest = line.strip_prefix("MemTotal:")?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let mount = mount_of(&bench.scratch)?;
    let version = Command::new(&bench.binary).arg("--version").output()?;
    anyhow::ensure!(version.status.success(), "--version: {}", version.status);
    // The reference prints its version to stderr; either will do here.
    let version = [version.stdout, version.stderr].concat();
    let version = String::from_utf8(version)?;
    let build = if cfg!(debug_assertions) {
        "\n- **debug build of the harness: these figures mean nothing**"
    } else {
        ""
    };
    let date = Timestamp::now().strftime("%F").to_string();
    Ok(format!(
        "- date: {date}\n- binary: {}\n- CPU: {} × {}\n- memory: {} GiB\n- kernel: {}\n\
         - file system: {} on {}\n- rounds: {}, interleaved{build}",
        version.lines().next().unwrap_or_default(),
        std::thread::available_parallelism()?,
        model.context("no model name in /proc/cpuinfo")?,
        memory_kib.context("no MemTotal in /proc/meminfo")? >> 20,
        kernel.trim(),
        mount.fs_type,
        mount.mount_source.as_deref().unwrap_or("?"),
        bench.settings.rounds,
    ))
}

/// The mount that holds a directory: of those above it the longest, of equal ones the last.
fn mount_of(directory: &Path) -> anyhow::Result<MountInfo> {
    let directory = fs::canonicalize(directory)?;
    let mounts = Process::myself()?.mountinfo()?;
    let above = mounts
        .0
        .into_iter()
        .filter(|mount| directory.starts_with(&mount.mount_point));
    let found = above.max_by_key(|mount| mount.mount_point.as_os_str().len());
    found.with_context(|| format!("no mount holds {}", directory.display()))
}
