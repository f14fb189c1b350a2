//! Tries to get out: each case confines itself in a process of its own, which is this test binary
//! once more, and tries what it must not be able to do, and what it must.
//!
//! System calls that no crate wraps are made by Python, where there is one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::landlock::ABI;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Signal, getppid, kill_process, test_kill_process};

use super::{Confined, Grants, Seccomp, calls, confine, domain, lists};

/// Where a child finds what its parent made.
const SCENE: &str = "OUTRIGGER_TEST_SCENE";

/// A child ends with this where the kernel has no Landlock.
const LEFT_OUT: &str = "LEFT OUT: this kernel has no Landlock";

/// Runs a test of this file that is ignored otherwise, in a process of its own.
fn in_a_process(test: &str) {
    let scene = tempfile::tempdir().unwrap();
    for dir in ["data/block", "data/other", "conf", "outside"] {
        fs::create_dir_all(scene.path().join(dir)).unwrap();
    }
    for file in ["data/block/index", "conf/a.yml", "outside/secret"] {
        fs::write(scene.path().join(file), "text").unwrap();
    }
    let name = format!("confinement::tests::{test}");
    let child = Command::new("/proc/self/exe")
        .args([
            "--exact",
            &name,
            "--ignored",
            "--test-threads=1",
            "--nocapture",
        ])
        .env(SCENE, scene.path().canonicalize().unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    let failed = String::from_utf8_lossy(&child.stderr);
    assert!(told.contains("running 1 test"), "{told}");
    assert!(child.status.success(), "{told}\n{failed}");
    if let Some(line) = told.lines().find(|line| line.contains(LEFT_OUT)) {
        // Straight to stderr, since what a passing test prints is kept back.
        io::stderr()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }
}

/// The scene, where [`in_a_process`] runs this and not somebody who runs all that is ignored.
fn scene() -> Option<PathBuf> {
    let environment = fs::read("/proc/self/environ").unwrap();
    let mut variables = environment.split(|byte| *byte == 0);
    let named = variables.find_map(|set| set.strip_prefix(format!("{SCENE}=").as_bytes()));
    named.map(|path| PathBuf::from(OsStr::from_bytes(path)))
}

/// What a sidecar would be granted in the scene.
fn grants(scene: &Path) -> Grants {
    let mut grants = Grants::default();
    grants.read_system();
    grants.read_file(&scene.join("conf/a.yml"));
    grants.write_directory(&scene.join("data"));
    grants.listen = Some(vec![0]);
    grants.ring = true;
    grants
}

/// Rules of at most this version, and no filter; `false` where there is no Landlock.
fn restricted(scene: &Path, newest: ABI) -> bool {
    match domain::enforce(&grants(scene), newest) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_absence(), "{error}");
            println!("{LEFT_OUT}");
            false
        }
    }
}

fn errno<T>(outcome: io::Result<T>) -> Option<Errno> {
    outcome.err().and_then(|error| Errno::from_io_error(&error))
}

// === files ===

#[test]
fn files_outside_are_out_of_reach_and_others_are_not() {
    in_a_process("child_that_opens_files");
}

#[test]
#[ignore = "confines the process; run by files_outside_are_out_of_reach_and_others_are_not"]
fn child_that_opens_files() {
    let Some(scene) = scene() else { return };
    let held = File::open(scene.join("outside/secret")).unwrap();
    let outside = File::open(scene.join("outside")).unwrap();
    if !restricted(&scene, domain::NEWEST) {
        return;
    }
    let denied = Some(Errno::ACCESS);
    assert_eq!(errno(fs::read(scene.join("outside/secret"))), denied);
    assert_eq!(errno(fs::read_dir(scene.join("outside"))), denied);
    assert_eq!(errno(fs::read_dir("/root")), denied);
    assert_eq!(errno(fs::read_dir("/")), denied);
    assert_eq!(errno(fs::write(scene.join("outside/new"), "")), denied);
    assert_eq!(errno(fs::write(scene.join("conf/a.yml"), "")), denied);
    assert_eq!(errno(fs::remove_file(scene.join("conf/a.yml"))), denied);
    assert_eq!(errno(fs::create_dir("/tmp/outrigger-escaped")), denied);
    // Around the path: by a symlink, by `..`, by a directory or a file that is still open.
    std::os::unix::fs::symlink("x", scene.join("data/link")).unwrap_err();
    let around = scene.join("data/../outside/secret");
    assert_eq!(errno(fs::read(around)), denied);
    let (flags, none) = (OFlags::RDONLY, Mode::empty());
    let at = rustix::fs::openat(&outside, "secret", flags, none);
    assert_eq!(at.err(), denied);
    let beneath = rustix::fs::openat2(&outside, "secret", flags, none, ResolveFlags::BENEATH);
    assert!(matches!(
        beneath,
        Err(Errno::ACCESS | Errno::NOSYS | Errno::PERM)
    ));
    let held_again = format!("/proc/self/fd/{}", held.as_raw_fd());
    assert_eq!(errno(File::open(held_again)), denied);
    // What moves in from outside would change what may be done with it.
    let moved = fs::rename(scene.join("outside/secret"), scene.join("data/secret"));
    assert!(matches!(errno(moved), Some(Errno::ACCESS | Errno::XDEV)));
    // Devices and sockets are not made, other programs are not started.
    let node = rustix::fs::mknodat(
        CWD,
        scene.join("data/fifo"),
        rustix::fs::FileType::Fifo,
        none,
        0,
    );
    assert_eq!(node.err(), denied);
    assert_eq!(errno(Command::new("/bin/true").spawn()), denied);
    assert_eq!(errno(Command::new("/proc/self/exe").spawn()), denied);

    assert_eq!(fs::read(scene.join("conf/a.yml")).unwrap(), b"text");
    fs::read("/proc/self/stat").unwrap();
    let data = |name: &str| scene.join("data").join(name);
    fs::create_dir(data("thanos")).unwrap();
    fs::write(data("thanos/ledger.tmp"), "ledger").unwrap();
    fs::rename(data("thanos/ledger.tmp"), data("thanos/ledger")).unwrap();
    fs::write(data("thanos/ledger"), "shorter").unwrap();
    fs::hard_link(data("block/index"), data("other/index")).unwrap();
    fs::remove_dir_all(data("other")).unwrap();
}

/// Before its second version Landlock lets no file get a second name in another directory.
#[test]
fn without_links_across_directories_the_error_is_the_one_that_staging_knows() {
    in_a_process("child_that_links");
}

#[test]
#[ignore = "confines the process; run by without_links_across_directories_…"]
fn child_that_links() {
    let Some(scene) = scene() else { return };
    if !restricted(&scene, ABI::V1) {
        return;
    }
    let data = |name: &str| scene.join("data").join(name);
    let linked = fs::hard_link(data("block/index"), data("other/index"));
    assert_eq!(errno(linked), Some(Errno::XDEV));
    // What is left is all that staging and ledger do then.
    let held = File::open(data("block/index")).unwrap();
    fs::remove_dir_all(data("block")).unwrap();
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    assert_eq!(fs::read(again).unwrap(), b"text");
    assert_eq!(io::read_to_string(held).unwrap(), "text");
    fs::write(data("l.tmp"), "ledger").unwrap();
    fs::rename(data("l.tmp"), data("l")).unwrap();
}

// === ports, sockets, signals ===

#[test]
fn only_granted_ports_are_listened_on() {
    in_a_process("child_that_listens");
}

#[test]
#[ignore = "confines the process; run by only_granted_ports_are_listened_on"]
fn child_that_listens() {
    let Some(scene) = scene() else { return };
    let before = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let free = taken.local_addr().unwrap();
    drop(taken);
    let Confined { landlock, seccomp } = confine(&grants(&scene));
    assert_eq!(seccomp.unwrap(), Seccomp::Listed);
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let ours = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    TcpStream::connect(ours.local_addr().unwrap()).unwrap();
    let names = ("localhost", 1).to_socket_addrs().unwrap();
    assert!(names.count() > 0);
    // What names and trust are looked up in.
    for file in [
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/nsswitch.conf",
        "/etc/ssl/certs",
    ] {
        if Path::new(file).exists() {
            File::open(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
    TcpStream::connect(before.local_addr().unwrap()).unwrap();
    UnixStream::pair().unwrap();
    match landlock {
        Ok(landlock) if landlock.abi >= 4 => {
            assert_eq!(errno(TcpListener::bind(free)), Some(Errno::ACCESS));
        }
        _ => println!("{LEFT_OUT} of ports"),
    }
}

#[test]
fn signals_do_not_leave_unless_they_are_granted() {
    in_a_process("child_that_signals");
    in_a_process("child_that_may_signal");
}

#[test]
#[ignore = "confines the process; run by signals_do_not_leave_unless_they_are_granted"]
fn child_that_signals() {
    let Some(scene) = scene() else { return };
    let parent = getppid().unwrap();
    let listed = confine(&grants(&scene)).seccomp.unwrap();
    assert_eq!(listed, Seccomp::Listed);
    assert_eq!(test_kill_process(parent).err(), Some(Errno::PERM));
    assert_eq!(kill_process(parent, Signal::CONT).err(), Some(Errno::PERM));
}

#[test]
#[ignore = "confines the process; run by signals_do_not_leave_unless_they_are_granted"]
fn child_that_may_signal() {
    let Some(scene) = scene() else { return };
    let parent = getppid().unwrap();
    let mut grants = grants(&scene);
    grants.signals = true;
    let Confined { landlock, seccomp } = confine(&grants);
    seccomp.unwrap();
    test_kill_process(parent).unwrap();
    // What may be signalled may not be looked into.
    let parent = format!("/proc/{}", parent.as_raw_nonzero());
    fs::read(format!("{parent}/stat")).unwrap();
    match landlock {
        Ok(_) => {
            let memory = File::open(format!("{parent}/mem"));
            assert_eq!(errno(memory), Some(Errno::ACCESS));
            assert_eq!(
                errno(fs::read_dir(format!("{parent}/cwd"))),
                Some(Errno::ACCESS)
            );
        }
        Err(_) => println!("{LEFT_OUT}"),
    }
}

// === system calls ===

#[test]
fn the_filter_alone_lets_no_program_start_and_threads_and_rings_work() {
    in_a_process("child_that_is_filtered");
}

#[test]
#[ignore = "confines the process; run by the_filter_alone_…"]
fn child_that_is_filtered() {
    let Some(scene) = scene() else { return };
    // Landlock is not in force here: what is refused, the filter refuses.
    assert_eq!(calls::enforce(&grants(&scene)).unwrap(), Seccomp::Listed);
    let denied = Some(Errno::PERM);
    assert_eq!(errno(Command::new("/bin/true").spawn()), denied);
    assert_eq!(rustix::process::chroot(&scene).err(), denied);
    let (data, none) = (scene.join("data"), rustix::mount::MountFlags::empty());
    let mounted = rustix::mount::mount("none", &data, c"tmpfs", none, None);
    assert_eq!(mounted.err(), denied);
    let own = File::open("/proc/self/ns/net").unwrap();
    let moved = rustix::thread::move_into_link_name_space(own.as_fd(), None);
    assert_eq!(moved.err(), denied);
    assert_eq!(rustix::system::sethostname(b"escaped").err(), denied);
    assert_eq!(
        rustix::fs::mknodat(
            CWD,
            scene.join("f"),
            rustix::fs::FileType::Fifo,
            Mode::empty(),
            0
        )
        .err(),
        denied
    );
    let raw = rustix::net::socket(
        rustix::net::AddressFamily::PACKET,
        rustix::net::SocketType::RAW,
        None,
    );
    assert_eq!(raw.err(), denied);
    // Not dangerous and not made either: as in a kernel that does not have it.
    assert_eq!(
        rustix::fs::chown(&scene, None, None).err(),
        Some(Errno::NOSYS)
    );

    // Threads of a runtime, its timers, names that are looked up, files on all ways.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let looked_up = tokio::net::lookup_host("localhost:1").await.unwrap();
        assert!(looked_up.count() > 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let text = tokio::fs::read_to_string(scene.join("outside/secret"))
            .await
            .unwrap();
        assert_eq!(text, "text");
    });
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"));
}

#[test]
fn a_credential_process_runs_where_it_is_granted() {
    in_a_process("child_that_runs_a_program");
}

#[test]
#[ignore = "confines the process; run by a_credential_process_runs_where_it_is_granted"]
fn child_that_runs_a_program() {
    let Some(scene) = scene() else { return };
    let mut grants = grants(&scene);
    grants.programs = true;
    grants.listen = None;
    grants.without_rules = Some("a program needs what it needs");
    let Confined { landlock, seccomp } = confine(&grants);
    assert_eq!(seccomp.unwrap(), Seccomp::Dangerous);
    assert!(landlock.unwrap_err().is_absence());
    let script = "cat \"$0\" && echo x > \"$1\"";
    let ran = Command::new("sh")
        .args(["-c", script])
        .args([scene.join("outside/secret"), scene.join("outside/new")])
        .output()
        .unwrap();
    assert_eq!(ran.stdout, b"text");
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(rustix::process::chroot(&scene).err(), Some(Errno::PERM));
    let Ok(probe) = Command::new("python3")
        .args(["-c", "import ctypes"])
        .output()
    else {
        println!("LEFT OUT: system calls without a wrapper: there is no Python here");
        return;
    };
    assert!(probe.status.success(), "{probe:?}");
    for (name, call) in [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("init_module", libc::SYS_init_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("mount", libc::SYS_mount),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ] {
        let script = format!(
            "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n\
             print(c.syscall({call}, 0, 0, 0, 0, 0), ctypes.get_errno())"
        );
        let ran = Command::new("python3")
            .args(["-c", &script])
            .output()
            .unwrap();
        let expected = format!("-1 {}\n", libc::EPERM);
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            expected,
            "{name}: {ran:?}"
        );
    }
}

/// Whatever a call is, its meaning is one: no call is both made and dangerous, no list repeats one.
#[test]
fn lists_do_not_contradict_each_other() {
    let mut seen = std::collections::BTreeSet::new();
    let made = lists::MADE.concat();
    let others = [
        lists::DANGEROUS,
        lists::DANGEROUS_OLDER,
        lists::STEWARDSHIP,
        lists::PROGRAMS,
    ];
    let others = [
        &others.concat(),
        lists::PROCESSES_OLDER,
        &lists::RING[..],
        &[lists::KILL],
    ];
    for call in made.into_iter().chain(others.concat()) {
        assert!(seen.insert(call), "{call} is listed twice");
    }
}
