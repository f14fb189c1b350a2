//! The sidecar as it confines itself, and inside sandboxes of others: a container's profile of
//! system calls, another user without capabilities, a root that can't be written, a kernel whose
//! Landlock is old. All other tests run confined, too; here is what they don't look at.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde_json::Value;

use crate::support::{
    ACCESS_KEY, LABELS, Outrigger, SECRET_KEY, SignedS3, Site, arguments_with_bucket, assert_whole,
    eventually, get, is_root, left_out, logfmt_value,
};

/// What the child below puts itself into, and then becomes.
const SANDBOX: &str = "OUTRIGGER_TEST_SANDBOX";
const BECOMES: &str = "OUTRIGGER_TEST_BECOMES";

/// Whom a container runs as.
const USER: u32 = 1000;

const BINARY: &str = env!("CARGO_BIN_EXE_outrigger");

/// What the default profiles of Docker and containerd 2 answer with EPERM to a process without
/// capabilities, as far as anything of ours or our libraries' could ever ask.
const DENIED_IN_CONTAINERS: &[libc::c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_open_by_handle_at,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
    // `cachestat`, which older profiles don't know.
    451,
];

/// What they answer as a kernel would that does not have it.
const UNKNOWN_IN_CONTAINERS: &[libc::c_long] = &[libc::SYS_clone3];

/// A command that runs `program` with these arguments inside a sandbox: `container`, or
/// `landlock-1`. `through` is this test binary as the command can see it.
fn inside(sandbox: &str, through: &Path, program: &Path, arguments: &[String]) -> Command {
    let becomes = (program, arguments);
    let mut command = Command::new(through);
    command
        .args(["--exact", "confinement::becomes_another_program"])
        .args(["--ignored", "--nocapture"])
        .env(SANDBOX, sandbox)
        .env(BECOMES, serde_json::to_string(&becomes).unwrap());
    command
}

#[test]
#[ignore = "becomes another program; run by the tests of this file"]
fn becomes_another_program() {
    // Somebody runs all that is ignored.
    let Ok(sandbox) = std::env::var(SANDBOX) else {
        return;
    };
    match sandbox.as_str() {
        "container" => {
            deny(UNKNOWN_IN_CONTAINERS, libc::ENOSYS);
            deny(DENIED_IN_CONTAINERS, libc::EPERM);
        }
        "landlock-1" => {
            let all = AccessFs::from_all(ABI::V1);
            let ruleset = Ruleset::default().handle_access(all).unwrap();
            let ruleset = ruleset.create().unwrap();
            let ruleset = ruleset.add_rules(path_beneath_rules(["/"], all)).unwrap();
            ruleset.restrict_self().unwrap();
        }
        other => panic!("{other}"),
    }
    let becomes = std::env::var(BECOMES).unwrap();
    let (program, arguments): (String, Vec<String>) = serde_json::from_str(&becomes).unwrap();
    let error = Command::new(&program).args(arguments).exec();
    panic!("{program}: {error}");
}

fn deny(calls: &[libc::c_long], errno: i32) {
    let rules: BTreeMap<i64, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// The line that tells how it is confined: version of Landlock, and seccomp.
fn confined(outrigger: &Outrigger) -> (u8, String) {
    let line = outrigger
        .process
        .wait_for_line("how it is confined", |line| line.contains("landlock_abi="));
    let abi = logfmt_value(&line, "landlock_abi").unwrap().parse();
    let seccomp = logfmt_value(&line, "seccomp").unwrap().to_owned();
    (abi.unwrap(), seccomp)
}

/// A line of `status` in `/proc`, of the process and each of its threads.
fn of_all_threads(outrigger: &Outrigger, key: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", outrigger.process.id());
    let tasks = fs::read_dir(tasks).unwrap();
    let value = |status: String| {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        line.unwrap().to_owned()
    };
    // A thread may end while it is looked at.
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.map(value).collect()
}

#[test]
fn every_thread_is_confined_and_it_is_told() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let prometheus = site.prometheus_elsewhere();
    let outrigger = site.start(prometheus.address(), &[]);
    site.wait_for_ledger(&blocks[0]);
    for (key, value) in [("Seccomp", "2"), ("NoNewPrivs", "1")] {
        let seen = of_all_threads(&outrigger, key);
        assert!(
            seen.len() > 1 && seen.iter().all(|seen| seen == value),
            "{key}: {seen:?}"
        );
    }
    let (abi, seccomp) = confined(&outrigger);
    assert_eq!(seccomp, "listed");
    if abi == 0 {
        left_out("Landlock of the sidecar", "this kernel has none");
    }
    let series = format!("outrigger_confinement_info{{landlock_abi=\"{abi}\",seccomp=\"listed\"}}");
    assert_eq!(outrigger.metric(&series), Some(1.0));
    let (_, status) = get(outrigger.address(), "/api/v1/status").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["confinement"]["landlock_abi"], abi);
    assert_eq!(status["confinement"]["system_calls"], "listed");
}

#[test]
fn a_flag_turns_it_off() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let prometheus = site.prometheus_elsewhere();
    let outrigger = site.start(prometheus.address(), &["--no-sandbox"]);
    site.wait_for_ledger(&blocks[0]);
    let outside = of_all_threads(&outrigger, "Seccomp");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("Seccomp:\t"));
    // That of the tests, which may run in a sandbox themselves.
    assert!(
        outside.iter().all(|seen| Some(seen.as_str()) == own),
        "{outside:?}"
    );
    let series = "outrigger_confinement_info{landlock_abi=\"0\",seccomp=\"all\"}";
    assert_eq!(outrigger.metric(series), Some(1.0));
}

/// Kernels from 5.13 to 5.18 let no file get a second name in another directory.
#[test]
fn blocks_are_shipped_where_landlock_forbids_links_across_directories() {
    let site = Site::new();
    let blocks = site.backfill(2);
    let prometheus = site.prometheus_elsewhere();
    let arguments = site.arguments(prometheus.address(), &[]);
    let through = std::env::current_exe().unwrap();
    let mut command = inside("landlock-1", &through, BINARY.as_ref(), &arguments);
    let outrigger = Outrigger::start_command(&mut command);
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    let log = outrigger.process.log();
    match confined(&outrigger) {
        (0, _) => left_out("Landlock without links", "this kernel has no Landlock"),
        _ => assert!(log.contains("hard links can't be made here"), "{log}"),
    }
}

/// A configuration for the reloader.
fn config(replica: &str) -> String {
    format!("global:\n  external_labels: {{replica: {replica}}}\n")
}

/// A version of a ConfigMap in `etc`, put in force as kubelet does.
fn swap_config(site: &Site, version: &str, replica: &str) {
    let etc = site.scratch().join("etc");
    fs::create_dir_all(etc.join(version)).unwrap();
    fs::write(etc.join(version).join("p.yml"), config(replica)).unwrap();
    std::os::unix::fs::symlink(version, etc.join("..data_tmp")).unwrap();
    fs::rename(etc.join("..data_tmp"), etc.join("..data")).unwrap();
}

fn wait_for_output(site: &Site, replica: &str) {
    let output = site.scratch().join("out/p.yml");
    eventually("the output is written", || {
        let text = fs::read_to_string(&output).unwrap_or_default();
        (text == config(replica)).then_some(())
    });
}

/// Shell commands that leave only the site writable. The programs are bound below it, where every
/// user finds them.
fn read_only_root(site: &Site) -> String {
    let tests = std::env::current_exe().unwrap();
    format!(
        "mount --make-rprivate / && mount --bind {site} {site} \
         && mount --bind {bin} {site}/bin && mount --bind {tests} {site}/tests \
         && mount -o remount,bind,ro / && ! touch /etc/outrigger-not-read-only 2>/dev/null",
        site = site.scratch().display(),
        bin = Path::new(BINARY).parent().unwrap().display(),
        tests = tests.parent().unwrap().display(),
    )
}

/// Outrigger behind these mounts, as user 1000 without capabilities, under a container's filter.
fn in_container(site: &Site, mounts: &str, arguments: &[String]) -> Command {
    let at = |dir: &str, program: &Path| {
        let name = program.file_name().unwrap();
        site.scratch().join(dir).join(name)
    };
    let tests = std::env::current_exe().unwrap();
    let program = at("bin", Path::new(BINARY));
    let inner = inside("container", &at("tests", &tests), &program, arguments);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c"])
        .arg(format!("{mounts}; exec \"$@\""))
        .args(["sh", "setpriv"])
        .args([format!("--reuid={USER}"), format!("--regid={USER}")])
        .args(["--clear-groups", "--no-new-privs", "--inh-caps=-all"])
        .args(["--ambient-caps=-all", "--bounding-set=-all"])
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

/// As the Prometheus operator runs it: RuntimeDefault, user 1000, no capability, read-only root.
#[test]
fn all_works_in_a_container_without_any_right() {
    const CASE: &str = "a container's sandbox";
    if !is_root() {
        left_out(CASE, "only root can become another user and mount");
        return;
    }
    let site = Site::new();
    let blocks = site.backfill(2);
    for dir in ["bucket", "etc", "out", "bin", "tests"] {
        fs::create_dir(site.scratch().join(dir)).unwrap();
    }
    swap_config(&site, "..2024_01", "a");
    std::os::unix::fs::symlink("..data/p.yml", site.scratch().join("etc/p.yml")).unwrap();
    give_to(site.scratch(), USER);
    let mounts = read_only_root(&site);
    let probe = Command::new("unshare")
        .args(["-m", "sh", "-c", &mounts])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        left_out(CASE, "no mounts of one's own can be made here");
        return;
    }
    let prometheus = site.prometheus_elsewhere();
    let mut arguments = site.arguments(prometheus.address(), &[]);
    arguments.retain(|argument| !argument.starts_with("--io.engine"));
    for (flag, path) in [
        ("config-file", "etc/p.yml"),
        ("config-envsubst-file", "out/p.yml"),
    ] {
        let path = site.scratch().join(path);
        arguments.push(format!("--reloader.{flag}={}", path.display()));
    }
    let outrigger = Outrigger::start_command(&mut in_container(&site, &mounts, &arguments));
    for (key, value) in [
        ("CapEff", "0000000000000000"),
        ("Seccomp", "2"),
        ("Uid", "1000\t1000\t1000\t1000"),
    ] {
        let seen = of_all_threads(&outrigger, key);
        assert!(seen.iter().all(|seen| seen == value), "{key}: {seen:?}");
    }
    assert_eq!(confined(&outrigger).1, "listed");
    for block in &blocks {
        site.wait_for_ledger(block);
        assert_whole(&site.bucket, block, LABELS);
    }
    let engine = outrigger.process.log();
    assert!(
        engine.contains("engine=pread") && engine.contains("EPERM"),
        "{engine}"
    );
    wait_for_output(&site, "a");
    swap_config(&site, "..2024_02", "b");
    wait_for_output(&site, "b");
    let (status, log) = outrigger.stop();
    assert!(status.success(), "{status}: {log}");
}

/// Gives a directory and all in it to a user, and lets others in.
fn give_to(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.is_symlink() {
        return;
    }
    chown(path, Some(user), Some(user)).unwrap();
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to(&entry.unwrap().path(), user);
        }
    }
}

/// The one program that is run: a profile's, which gives credentials.
#[test]
fn a_credential_process_is_run_and_nothing_else_is_let_loose() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let prometheus = site.prometheus_elsewhere();
    let server = SignedS3::start(&site.scratch().join("s3"));
    let home = site.scratch().join("home");
    fs::create_dir_all(home.join(".aws")).unwrap();
    let answer = format!(
        "{{\"Version\": 1, \"AccessKeyId\": \"{ACCESS_KEY}\", \
         \"SecretAccessKey\": \"{SECRET_KEY}\"}}"
    );
    fs::write(site.scratch().join("answer"), answer).unwrap();
    // It keeps what it was asked, and can't write elsewhere; `/tmp`, where the site is, is granted.
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let escaped = outside.path().join("escaped");
    let script = site.scratch().join("credentials.sh");
    let text = format!(
        "echo asked >> {home}/.aws/asked\necho x 2>/dev/null > {escaped}\ncat {site}/answer\n",
        home = home.display(),
        site = site.scratch().display(),
        escaped = escaped.display(),
    );
    fs::write(&script, text).unwrap();
    let profile = format!("[default]\ncredential_process = sh {}\n", script.display());
    fs::write(home.join(".aws/config"), profile).unwrap();
    let yaml = format!(
        "type: S3\nconfig:\n  bucket: blocks\n  endpoint: {}\n  insecure: true\n",
        server.address
    );
    let arguments = arguments_with_bucket(prometheus.address(), &site.data, &yaml);
    let home = home.to_str().unwrap();
    let outrigger = Outrigger::start_with_environment(&[("HOME", home)], &arguments);
    site.wait_for_ledger(&blocks[0]);
    assert_whole(&server.bucket(), &blocks[0], LABELS);
    let asked = fs::read_to_string(Path::new(home).join(".aws/asked")).unwrap();
    assert!(asked.starts_with("asked"));
    let (abi, seccomp) = confined(&outrigger);
    assert_eq!(seccomp, "not-dangerous");
    match abi {
        0 => left_out("a program that is confined", "this kernel has no Landlock"),
        _ => assert!(!escaped.exists()),
    }
}

#[test]
fn a_data_directory_that_comes_later_is_reached() {
    let site = Site::new();
    let made = site.backfill(1);
    let prometheus = site.prometheus_elsewhere();
    let later = site.scratch().join("later/prometheus/data");
    let yaml = format!(
        "type: FILESYSTEM\nconfig: {{directory: {}}}\n",
        site.bucket.root().display()
    );
    let outrigger = Outrigger::start(&arguments_with_bucket(prometheus.address(), &later, &yaml));
    let line = outrigger
        .process
        .wait_for_line("what is not there", |line| {
            line.contains("is not there; what it would come in was granted")
        });
    assert_eq!(logfmt_value(&line, "path"), later.to_str());
    fs::create_dir_all(later.parent().unwrap()).unwrap();
    fs::rename(&site.data, &later).unwrap();
    let block = later.join(made[0].file_name().unwrap());
    eventually("the block is shipped", || {
        site.bucket.has(&block).then_some(())
    });
    assert_whole(&site.bucket, &block, LABELS);
}
