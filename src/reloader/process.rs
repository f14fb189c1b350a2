//! Finding the process that gets the signal, by its name in `/proc`.

use std::path::Path;

use procfs::ProcResult;
use procfs::process::{ProcState, all_processes_with_root};
use rustix::process::{Pid, Signal, kill_process};

use super::error::TriggerError;

/// The kernel keeps no more of a name (`TASK_COMM_LEN` without its final zero).
const NAME_BYTES_MAX: usize = 15;

/// Where processes are listed.
pub(super) const PROC: &str = "/proc";

/// Sends SIGHUP to the first process that has the name, in the order of process ids.
pub(super) fn hang_up(proc: &Path, name: &str) -> Result<Pid, TriggerError> {
    let found = named(proc, name).map_err(TriggerError::Processes)?;
    let &[pid, ref others @ ..] = found.as_slice() else {
        return Err(TriggerError::NoProcess {
            name: name.to_owned(),
        });
    };
    if !others.is_empty() {
        let others: Vec<i32> = others
            .iter()
            .map(|pid| pid.as_raw_nonzero().get())
            .collect();
        tracing::warn!(
            component = "reloader",
            name, pid = %pid.as_raw_nonzero(), ?others,
            "several processes have the name, only the first gets the signal; give Prometheus \
             another name, or use --reloader.method=http"
        );
    }
    kill_process(pid, Signal::HUP).map_err(|error| TriggerError::Signal {
        pid: pid.as_raw_nonzero().get(),
        source: error.into(),
    })?;
    Ok(pid)
}

/// The processes that have the name, in the order of their ids. One that has ended and is not
/// collected yet does not count, nor does one that may not be looked at.
fn named(proc: &Path, name: &str) -> ProcResult<Vec<Pid>> {
    let name = name.as_bytes();
    let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
    let mut found = Vec::new();
    for process in all_processes_with_root(proc)? {
        // It may end at any moment.
        let Ok(stat) = process.and_then(|process| process.stat()) else {
            continue;
        };
        let has_ended = matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead));
        let is_named = stat.comm.as_bytes() == name && !has_ended;
        if let Some(pid) = Pid::from_raw(stat.pid).filter(|_| is_named) {
            found.push(pid);
        }
    }
    found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A process list with names, by id; the letter is the state.
    fn proc_of(processes: &[(i32, &str, char)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, state) in processes {
            let dir = proc.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            let numbers = "1 ".repeat(49);
            fs::write(
                dir.join("stat"),
                format!("{pid} ({name}) {state} {numbers}\n"),
            )
            .unwrap();
        }
        proc
    }

    fn pids(proc: &tempfile::TempDir, name: &str) -> Vec<i32> {
        let found = named(proc.path(), name).unwrap();
        found.iter().map(|pid| pid.as_raw_nonzero().get()).collect()
    }

    #[test]
    fn processes_are_found_by_their_whole_name_lowest_id_first() {
        let proc = proc_of(&[
            (12, "prometheus", 'S'),
            (9, "prometheus", 'R'),
            (3, "prometheus", 'Z'),
            (4, "prometheus-x", 'S'),
            (5, "prom) S 1 (x", 'S'),
            (6, "a-name-of-sixte", 'S'),
        ]);
        assert_eq!(pids(&proc, "prometheus"), [9, 12]);
        assert_eq!(pids(&proc, "prom) S 1 (x"), [5]);
        assert_eq!(pids(&proc, "a-name-of-sixteen"), [6], "the kernel cuts it");
        assert_eq!(pids(&proc, "a-name-of-sixt"), [0_i32; 0]);
        assert_eq!(pids(&proc, "prom"), [0_i32; 0]);
        assert_eq!(pids(&proc, ""), [0_i32; 0]);
    }

    #[test]
    fn no_process_and_no_list_are_errors_with_a_remedy() {
        let proc = proc_of(&[(9, "other", 'R')]);
        let error = hang_up(proc.path(), "prometheus").unwrap_err();
        assert_eq!(
            error.to_string(),
            "find the process to signal: there is none with the name \"prometheus\""
        );
        assert!(error.remedy().contains("shareProcessNamespace"));
        let error = hang_up(Path::new("/nowhere"), "prometheus").unwrap_err();
        assert!(matches!(error, TriggerError::Processes(_)), "{error}");
    }
}
