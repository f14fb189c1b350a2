//! Runs a program for which io_uring is forbidden, as under the default profile of containerd 2,
//! Docker or GKE Autopilot: `under-seccomp [--deny=openat2,cachestat] PROGRAM [ARGUMENT…]`.
//!
//! Cargo can run test binaries through it (`CARGO_TARGET_…_RUNNER`). The filter answers EPERM, and
//! is inherited by all that the program starts.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Number of `cachestat(2)`, which libc does not have yet.
const CACHESTAT: i64 = 451;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let mut denied = vec![
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    let more = arguments.next_if(|first| first.to_string_lossy().starts_with("--deny="));
    let more = more.map(|flag| flag.to_string_lossy().into_owned());
    for name in more
        .iter()
        .flat_map(|flag| flag["--deny=".len()..].split(','))
    {
        match name {
            "openat2" => denied.push(libc::SYS_openat2),
            "cachestat" => denied.push(CACHESTAT),
            other => return failed(&format!("{other} can't be denied by name")),
        }
    }
    let Some(program) = arguments.next() else {
        return failed("which program?");
    };
    if let Err(error) = confine(&denied) {
        return failed(&error);
    }
    let error = Command::new(&program).args(arguments).exec();
    failed(&format!("{}: {error}", program.display()))
}

/// Lets the system calls `denied` answer EPERM from now on.
fn confine(denied: &[i64]) -> Result<(), String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH);
    let architecture = architecture.map_err(|error| error.to_string())?;
    let rules: BTreeMap<i64, _> = denied.iter().map(|call| (*call, Vec::new())).collect();
    let answer = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture);
    let program = filter.and_then(BpfProgram::try_from);
    let program = program.map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("under-seccomp: {reason}");
    ExitCode::FAILURE
}
