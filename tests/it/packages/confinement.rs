//! What confines the process from outside: the seccomp profile for containers and the systemd unit.
//!
//! Their system calls become a filter (by seccompiler, with the numbers of the C headers) on a
//! thread of the test, whose children have it too; outrigger must ship by io_uring below it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde_json::Value;

use super::{file, has, printed, text};
use crate::support::{Outrigger, Site, get, left_out, run_to_end};

/// Calls of newer kernels than the headers may be of; these numbers are the same everywhere.
const NEWER: &[(&str, i64)] = &[
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("mseal", 462),
];

/// The numbers of system calls on this machine, as the C compiler knows them.
fn numbers() -> BTreeMap<String, i64> {
    let mut compiler = Command::new("cc")
        .args(["-E", "-dM", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut source = compiler.stdin.take().unwrap();
    source.write_all(b"#include <sys/syscall.h>\n").unwrap();
    drop(source);
    let output = compiler.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers: BTreeMap<String, i64> = NEWER
        .iter()
        .map(|(name, number)| ((*name).to_owned(), *number))
        .collect();
    numbers.extend(text.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    }));
    assert!(numbers.len() > 250, "{numbers:?}");
    numbers
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter(rules: Rules, otherwise: SeccompAction, answer: SeccompAction) -> BpfProgram {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, otherwise, answer, architecture).unwrap();
    BpfProgram::try_from(filter).unwrap()
}

fn errno(number: u64) -> SeccompAction {
    SeccompAction::Errno(number.try_into().unwrap())
}

fn condition(argument: &Value) -> SeccompCondition {
    let number = |key: &str| argument[key].as_u64().unwrap();
    let (operator, value) = match argument["op"].as_str().unwrap() {
        "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, number("value")),
        "SCMP_CMP_NE" => (SeccompCmpOp::Ne, number("value")),
        "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(number("value")), number("valueTwo")),
        other => panic!("{other}"),
    };
    let index = number("index").try_into().unwrap();
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).unwrap()
}

/// The filters that a container's runtime makes of the profile; `without` leaves calls out of it.
fn of_profile(without: &[&str]) -> Vec<BpfProgram> {
    let profile: Value = serde_json::from_str(&text("seccomp/outrigger.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let numbers = numbers();
    let mut allowed = Rules::new();
    let mut filters = Vec::new();
    for entry in profile["syscalls"].as_array().unwrap() {
        let names = entry["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap());
        for name in names.filter(|name| !without.contains(name)) {
            let Some(number) = numbers.get(name) else {
                // An x86-64 name that this architecture does not have.
                if std::env::consts::ARCH == "x86_64" {
                    panic!("nobody knows the call {name}");
                }
                continue;
            };
            let conditions = entry["args"].as_array().map_or(&[][..], Vec::as_slice);
            let rule = (!conditions.is_empty())
                .then(|| SeccompRule::new(conditions.iter().map(condition).collect()).unwrap());
            if entry["action"] == "SCMP_ACT_ERRNO" {
                let refused = Rules::from([(*number, Vec::from_iter(rule.clone()))]);
                let answer = errno(entry["errnoRet"].as_u64().unwrap());
                filters.push(filter(refused, SeccompAction::Allow, answer));
            }
            allowed.entry(*number).or_default().extend(rule);
        }
    }
    let otherwise = errno(profile["defaultErrnoRet"].as_u64().unwrap());
    filters.push(filter(allowed, otherwise, SeccompAction::Allow));
    filters
}

/// Does `work` on a thread below the filters, which its children inherit.
fn below<T: Send>(filters: &[BpfProgram], work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            for filter in filters {
                seccompiler::apply_filter(filter).unwrap();
            }
            work()
        });
        confined.join().unwrap()
    })
}

/// Whether the machine itself lets programs use io_uring.
fn has_io_uring(case: &str) -> bool {
    let site = Site::new();
    let bucket = site.bucket.root().display();
    let bucket = format!("--objstore.config=type: FILESYSTEM\nconfig:\n  directory: {bucket}\n");
    let tried = [
        "bench",
        "upload",
        &bucket,
        "--size=1MiB",
        "--io.engine=uring",
    ];
    let (code, log) = run_to_end(&tried);
    if code != 0 {
        left_out(case, log.lines().last().unwrap_or_default());
    }
    code == 0
}

/// Ships a block by io_uring below the filters.
fn ships_by_io_uring(filters: &[BpfProgram]) {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let arguments = site.arguments(prometheus.address(), &[]);
    let mut arguments: Vec<String> = arguments
        .into_iter()
        .filter(|flag| !flag.starts_with("--io.engine"))
        .collect();
    arguments.push("--io.engine=uring".to_owned());
    let blocks = site.backfill(1);
    let outrigger = below(filters, || Outrigger::start(&arguments));
    site.wait_for_ledger(&blocks[0]);
    let (_, metrics) = get(outrigger.address(), "/metrics").unwrap();
    assert!(
        metrics.contains("outrigger_io_engine_info{engine=\"uring\""),
        "{metrics}"
    );
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn outrigger_ships_by_io_uring_below_the_profile() {
    if has_io_uring("the seccomp profile") {
        ships_by_io_uring(&of_profile(&[]));
    }
}

#[test]
fn without_its_entry_for_io_uring_there_is_none() {
    let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    let site = Site::new();
    let arguments = site.arguments("127.0.0.1:1".parse().unwrap(), &[]);
    let mut arguments: Vec<String> = arguments
        .into_iter()
        .filter(|flag| !flag.starts_with("--io.engine"))
        .collect();
    arguments.push("--io.engine=uring".to_owned());
    let (code, log) = below(&of_profile(&calls), || run_to_end(&arguments));
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("EPERM"), "{log}");
}

/// What the default profiles of container runtimes deny stays denied.
#[test]
fn the_profile_denies_what_containers_must_not_do() {
    let profile: Value = serde_json::from_str(&text("seccomp/outrigger.json")).unwrap();
    let entries = profile["syscalls"].as_array().unwrap();
    let mut names: Vec<&str> = entries
        .iter()
        .flat_map(|entry| entry["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    for denied in [
        "add_key",
        "bpf",
        "delete_module",
        "finit_module",
        "init_module",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "mount",
        "move_mount",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "reboot",
        "request_key",
        "setns",
        "settimeofday",
        "swapoff",
        "swapon",
        "umount2",
        "unshare",
        "userfaultfd",
    ] {
        assert!(!names.contains(&denied), "{denied} is allowed");
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    // `personality` has one entry for each value.
    assert_eq!(names.len(), all - 4, "a call is named twice");
    let refused = below(&of_profile(&[]), || {
        Command::new("unshare").args(["-U", "true"]).output()
    });
    let refused = refused.unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("Operation not permitted"), "{said}");
}

// === The unit ===

/// The values of a key of the unit, as many as it has.
fn unit(key: &str) -> Vec<String> {
    let unit = text("deb/outrigger.service");
    let lines = unit
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

/// The calls of a set of systemd, such as `@system-service`; sets may hold others.
fn calls_of_set(set: &str, found: &mut Vec<String>) {
    let listed = printed(Command::new("systemd-analyze").args(["syscall-filter", set]));
    for name in listed.lines().skip(1).map(str::trim) {
        if name.starts_with('@') {
            calls_of_set(name, found);
        } else if !name.is_empty() && !name.starts_with('#') {
            found.push(name.to_owned());
        }
    }
}

#[test]
fn outrigger_ships_by_io_uring_below_the_units_filter() {
    let case = "the systemd unit's filter";
    if !has("systemd-analyze", case) || !has_io_uring(case) {
        return;
    }
    let mut allowed = Vec::new();
    for value in unit("SystemCallFilter") {
        let (takes_away, names) = match value.strip_prefix('~') {
            Some(names) => (true, names.to_owned()),
            None => (false, value),
        };
        let mut calls = Vec::new();
        for name in names.split(' ') {
            match name.starts_with('@') {
                true => calls_of_set(name, &mut calls),
                false => calls.push(name.to_owned()),
            }
        }
        match takes_away {
            true => allowed.retain(|call| !calls.contains(call)),
            false => allowed.extend(calls),
        }
    }
    assert!(
        allowed.iter().any(|call| call == "io_uring_setup"),
        "{allowed:?}"
    );
    let numbers = numbers();
    let known = allowed.iter().filter_map(|name| numbers.get(name));
    // systemd itself runs the program, below the filter already.
    let rules: Rules = known.map(|number| (*number, Vec::new())).collect();
    ships_by_io_uring(&[filter(rules, errno(1), SeccompAction::Allow)]);
}

#[test]
fn the_unit_is_confined() {
    let case = "the systemd unit's exposure";
    if !has("systemd-analyze", case) {
        return;
    }
    let help = printed(Command::new("systemd-analyze").arg("--help"));
    if !help.contains("--offline") {
        left_out(case, "systemd-analyze is older than 250");
        return;
    }
    let unit = file("deb/outrigger.service");
    let mut asked = Command::new("systemd-analyze");
    // In tenths: what is left is the network, other users' names and the umask of the ledger.
    asked
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(&unit);
    printed(&mut asked);
}

#[test]
fn the_unit_starts_what_the_defaults_say() {
    let defaults = text("deb/outrigger.default");
    let line = defaults
        .lines()
        .find_map(|line| line.strip_prefix("ARGS="))
        .unwrap();
    let arguments = line.trim_matches('"').split(' ');
    assert_eq!(unit("EnvironmentFile"), ["/etc/default/outrigger"]);
    let [start] = &unit("ExecStart")[..] else {
        panic!("one line that starts it");
    };
    let words = start.strip_suffix(" $ARGS").unwrap().split(' ');
    super::parsed(words.skip(1).chain(arguments));
    assert_eq!(
        unit("Type"),
        ["exec"],
        "nobody tells systemd that it is ready"
    );
    assert!(!text("deb/postinst").contains("systemctl enable"));
}
