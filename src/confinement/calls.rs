//! The seccomp filter.
//!
//! Two filters, of which the kernel obeys the stricter: a list of what is made, which lets
//! everything else fail as "not implemented", and on top of it a list of what is dangerous, which
//! fails as "not permitted".
//!
//! A list of what is allowed, since the kernel grows calls faster than anybody forbids them; and
//! it must not break what a library does tomorrow. Hence `ENOSYS`: that is what an older kernel
//! says to a new call, and what libraries go back to the older one upon; no call kills. Where
//! other programs must run (an AWS profile with a `credential_process`) nobody knows what they
//! make, so only the dangerous calls are forbidden then.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::lists::{
    DANGEROUS, DANGEROUS_OLDER, KILL, MADE, PROCESSES_OLDER, PROGRAMS, RING, STEWARDSHIP,
};
use super::{ConfinementError, Grants};

/// A filter in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Only the calls that are made are allowed.
    Listed,
    /// Only dangerous calls are forbidden, as other programs are run.
    Dangerous,
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls of the x32 form of x86-64, which have numbers of their own and the same meaning.
#[cfg(target_arch = "x86_64")]
const OTHER_FORM: Option<c_long> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const OTHER_FORM: Option<c_long> = None;

/// The `ioctl`s that put words into the mouth of whoever sits at our terminal.
/// (`TIOCSTI`, `TIOCLINUX`, whose types differ from one C library to the next.)
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541C];

/// Makes memory executable and writable: code of one's own.
const WRITE_AND_EXECUTE: u64 = (libc::PROT_WRITE | libc::PROT_EXEC).unsigned_abs() as u64;
const EXECUTE: u64 = libc::PROT_EXEC.unsigned_abs() as u64;

const CLONE_THREAD: u64 = libc::CLONE_THREAD.unsigned_abs() as u64;

/// Local sockets, the internet, and the kernel's answers about interfaces and routes that the
/// resolver sorts addresses by.
const FAMILIES: [u64; 4] = [
    libc::AF_UNIX.unsigned_abs() as u64,
    libc::AF_INET.unsigned_abs() as u64,
    libc::AF_INET6.unsigned_abs() as u64,
    libc::AF_NETLINK.unsigned_abs() as u64,
];

/// Puts the filters in force, in all threads.
pub(super) fn enforce(grants: &Grants) -> Result<Seccomp, ConfinementError> {
    let architecture = architecture().ok_or(ConfinementError::Architecture)?;
    let errno = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let (others, refused) = (SeccompAction::Allow, errno(libc::EPERM));
    let dangerous = program(dangerous_rules(grants)?, others, refused, architecture)?;
    if !grants.programs {
        let (unknown, allowed) = (errno(libc::ENOSYS), SeccompAction::Allow);
        let made = program(made_rules(grants), unknown, allowed, architecture)?;
        seccompiler::apply_filter_all_threads(&made)?;
    }
    // The later one's error counts where both refuse.
    seccompiler::apply_filter_all_threads(&dangerous)?;
    Ok(match grants.programs {
        true => Seccomp::Dangerous,
        false => Seccomp::Listed,
    })
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
    architecture: TargetArch,
) -> Result<BpfProgram, ConfinementError> {
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture)?;
    Ok(BpfProgram::try_from(filter)?)
}

fn architecture() -> Option<TargetArch> {
    match () {
        () if cfg!(target_arch = "x86_64") => Some(TargetArch::x86_64),
        () if cfg!(target_arch = "aarch64") => Some(TargetArch::aarch64),
        () => None,
    }
}

/// What is made.
fn made_rules(grants: &Grants) -> Rules {
    let mut calls: Vec<c_long> = MADE.concat();
    if grants.ring {
        calls.extend(RING);
    }
    if grants.signals {
        calls.push(KILL);
    }
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}

/// What is dangerous, always or with these arguments.
fn dangerous_rules(grants: &Grants) -> Result<Rules, ConfinementError> {
    let mut calls = [DANGEROUS, DANGEROUS_OLDER].concat();
    let mut rules = Rules::new();
    if grants.programs {
        // Some keep credentials there.
        calls.retain(|call| *call != libc::SYS_keyctl);
    }
    if !grants.programs {
        calls.extend([PROGRAMS, PROCESSES_OLDER, STEWARDSHIP].concat());
        if !grants.signals {
            calls.push(KILL);
        }
        rules.insert(libc::SYS_clone, vec![rule([masked(0, CLONE_THREAD, 0)?])?]);
        let executable = masked(2, WRITE_AND_EXECUTE, WRITE_AND_EXECUTE)?;
        rules.insert(libc::SYS_mmap, vec![rule([executable])?]);
        for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            rules.insert(call, vec![rule([masked(2, EXECUTE, EXECUTE)?])?]);
        }
        let other_families = FAMILIES.map(|family| condition(0, SeccompCmpOp::Ne, family));
        let other_families: Result<Vec<_>, _> = other_families.into_iter().collect();
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(other_families?)?]);
    }
    let input = TERMINAL_INPUT.map(|request| rule([condition(1, SeccompCmpOp::Eq, request)?]));
    let input: Result<Vec<_>, _> = input.into_iter().collect();
    rules.insert(libc::SYS_ioctl, input?);
    rules.extend(calls.into_iter().map(|call| (call, Vec::new())));
    if let Some(other_form) = OTHER_FORM {
        let others = rules
            .iter()
            .map(|(call, rules)| (call | other_form, rules.clone()));
        let others: Vec<_> = others.collect();
        rules.extend(others);
    }
    Ok(rules)
}

fn rule<const N: usize>(
    conditions: [SeccompCondition; N],
) -> Result<SeccompRule, ConfinementError> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// Of an argument that is 32 bits wide.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, ConfinementError> {
    let width = SeccompCmpArgLen::Dword;
    Ok(SeccompCondition::new(argument, width, operator, value)?)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, ConfinementError> {
    let (width, operator) = (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask));
    Ok(SeccompCondition::new(argument, width, operator, value)?)
}
