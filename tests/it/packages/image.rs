//! The image: what the Dockerfile says, and the same steps done in a root of our own.
//!
//! No container engine is asked for. What could go wrong in one is tried instead: that the base has
//! every library, that the program runs as 1001 on a read-only root without a file but those, and
//! under the name that charts call.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{has, printed, root, stripped_binary, text};
use crate::support::{Outrigger, Site, is_root, left_out, outrigger_command};

/// What the packages of `distroless/cc-debian12` hold that a program may be linked with (libc6 and
/// libgcc-s1; libstdc++ and libgomp are there too, and not for us).
const LIBRARIES_OF_BASE: &[&str] = &[
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
];

/// The libc of Debian 12; a test build is linked with this machine's, which may be newer.
const GLIBC_OF_BASE: u32 = 36;

/// The instructions of the Dockerfile, its continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let dockerfile = text("docker/Dockerfile").replace("\\\n", " ");
    let lines = dockerfile.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            line.split_once(' ')
                .expect("an instruction and its arguments")
        })
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// Arguments of an instruction in the last stage.
fn of_last_stage(instruction: &str) -> Vec<String> {
    let all = instructions();
    let stage = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
    let here = all[stage..].iter().filter(|(name, _)| name == instruction);
    here.map(|(_, arguments)| arguments.clone()).collect()
}

#[test]
fn the_image_is_what_the_operator_runs() {
    assert_eq!(of_last_stage("ENTRYPOINT"), ["[\"/bin/outrigger\"]"]);
    assert_eq!(of_last_stage("USER"), ["1001:1001"]);
    assert_eq!(of_last_stage("EXPOSE"), ["10901 10902"]);
    // The base has no shell that could run anything.
    assert_eq!(of_last_stage("RUN"), Vec::<String>::new());
    let built = instructions();
    let (_, run) = built.iter().find(|(name, _)| name == "RUN").unwrap();
    assert!(
        run.contains("cargo build --release --locked --bin outrigger"),
        "{run}"
    );
    assert!(run.contains("ln -s outrigger /image/bin/thanos"), "{run}");
}

/// Libraries by the paths at which the loader found them.
fn libraries(binary: &Path) -> Vec<PathBuf> {
    let listed = printed(Command::new("ldd").arg(binary));
    let words = listed.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap()
}

#[test]
fn the_base_has_every_library() {
    if !has("ldd", "libraries of the image") || !has("readelf", "libraries of the image") {
        return;
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_outrigger"));
    let found = libraries(binary);
    assert!(found.len() >= 3, "{found:?}");
    for library in &found {
        assert!(LIBRARIES_OF_BASE.contains(&name_of(library)), "{library:?}");
    }
    let symbols = printed(Command::new("readelf").args(["-W", "-V"]).arg(binary));
    let newest = symbols.split_whitespace().filter_map(|word| {
        word.strip_prefix("GLIBC_2.")?
            .split('.')
            .next()?
            .parse::<u32>()
            .ok()
    });
    let newest = newest.max().unwrap();
    let machine = printed(Command::new("ldd").arg("--version"));
    let machine: Option<u32> = machine
        .lines()
        .next()
        .and_then(|line| line.rsplit("2.").next()?.trim().parse().ok());
    match machine {
        Some(machine) if machine > GLIBC_OF_BASE => {
            left_out(
                "libc of the image",
                &format!("2.{machine} here, 2.{GLIBC_OF_BASE} there"),
            );
        }
        _ => assert!(newest <= GLIBC_OF_BASE, "needs 2.{newest}"),
    }
}

/// A directory with what the image has: the base's libraries, the program and its link.
fn image(scratch: &Path) -> PathBuf {
    let image = scratch.join("image");
    for directory in ["bin", "proc", "prometheus", "bucket"] {
        fs::create_dir_all(image.join(directory)).unwrap();
    }
    let binary = stripped_binary(scratch);
    for library in libraries(&binary) {
        let target = image.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&library, &target).unwrap();
    }
    fs::copy(&binary, image.join("bin/outrigger")).unwrap();
    symlink("outrigger", image.join("bin/thanos")).unwrap();
    image
}

/// A shell script that runs with mounts of its own, or `None` where the machine has none.
pub(super) fn with_mounts(case: &str, script: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    command.arg(if is_root() { "-m" } else { "-rm" });
    command.args(["--", "sh", "-euc"]);
    let mut tried = Command::new("unshare");
    tried
        .args(command.get_args())
        .arg("mount -t tmpfs tmpfs /tmp");
    match tried.output() {
        Ok(output) if output.status.success() => {
            command.args([script, "sh"]);
            Some(command)
        }
        Ok(output) => {
            left_out(case, String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            left_out(case, &format!("unshare: {error}"));
            None
        }
    }
}

#[test]
fn it_runs_as_the_operator_has_it_on_a_read_only_root() {
    if !has("ldd", "the image in a chroot") {
        return;
    }
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let blocks = site.backfill(1);
    fs::create_dir_all(site.bucket.root()).unwrap();
    let image = image(site.scratch());
    // Only root can become another user, whom files below must then let in.
    let user = if is_root() {
        "--userspec=1001:1001 --groups="
    } else {
        ""
    };
    let script = format!(
        "image=$1 data=$2 bucket=$3; shift 3
        if [ -n '{user}' ]; then chown -R 1001:1001 \"$data\" \"$bucket\"; fi
        mount --bind \"$image\" \"$image\"
        mount --rbind /proc \"$image/proc\"
        mount --bind \"$data\" \"$image/prometheus\"
        mount --bind \"$bucket\" \"$image/bucket\"
        mount -o remount,bind,ro \"$image\"
        exec env -i PATH=/usr/sbin:/usr/bin chroot {user} \"$image\" /bin/thanos \"$@\""
    );
    let Some(mut command) = with_mounts("the image in a chroot", &script) else {
        return;
    };
    command.arg(image).arg(&site.data).arg(site.bucket.root());
    // The operator's list; ports are the kernel's choice, for tests run beside each other.
    command.args([
        "sidecar",
        &format!("--prometheus.url=http://{}/", prometheus.address()),
        "--grpc-address=127.0.0.1:0",
        "--http-address=127.0.0.1:0",
        "--objstore.config=type: FILESYSTEM\nconfig:\n  directory: /bucket\n",
        "--tsdb.path=/prometheus",
        "--log.level=info",
        "--log.format=logfmt",
        "--prometheus.get_config_interval=500ms",
    ]);
    let outrigger = Outrigger::start_command(&mut command);
    site.wait_for_ledger(&blocks[0]);
    assert_eq!(outrigger.metric("thanos_sidecar_prometheus_up"), Some(1.0));
    if is_root() {
        assert_eq!(outrigger.proc_status("Uid"), 1001);
        let status = format!("/proc/{}/status", outrigger.process.id());
        let status = fs::read_to_string(status).unwrap();
        assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
    }
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panic"), "{log}");
}

#[test]
fn its_name_changes_nothing() {
    let scratch = tempfile::TempDir::with_prefix("outrigger-it-").unwrap();
    let thanos = scratch.path().join("thanos");
    symlink(env!("CARGO_BIN_EXE_outrigger"), &thanos).unwrap();
    for arguments in [
        &["--version"][..],
        &["--help"],
        &["sidecar", "--help"],
        &["sidecar", "--no-such-flag"],
        &["sidecar", "--auto-gomemlimit.ratio=7"],
        &[],
    ] {
        let as_thanos = Command::new(&thanos).args(arguments).output().unwrap();
        let as_outrigger = outrigger_command(arguments).output().unwrap();
        assert_eq!(
            as_thanos.status.code(),
            as_outrigger.status.code(),
            "{arguments:?}"
        );
        assert_eq!(as_thanos.stdout, as_outrigger.stdout, "{arguments:?}");
        // Both tell how they were called, and when.
        let said = |output: &[u8], name: &str| {
            let text = String::from_utf8_lossy(output).replace(name, "NAME");
            let words = text.split(' ').filter(|word| !word.starts_with("ts="));
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            said(&as_thanos.stderr, thanos.to_str().unwrap()),
            said(&as_outrigger.stderr, env!("CARGO_BIN_EXE_outrigger")),
            "{arguments:?}"
        );
    }
}

/// The context that `.dockerignore` leaves is enough for cargo, and has nothing that is built.
#[test]
fn the_context_has_what_cargo_needs() {
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let lines = ignored
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let ignored: BTreeSet<&str> = lines
        .map(|line| line.strip_prefix('/').expect("a path from the root"))
        .collect();
    for unwanted in [".git", "target"] {
        assert!(ignored.contains(unwanted));
    }
    let scratch = tempfile::TempDir::with_prefix("outrigger-it-").unwrap();
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !ignored.contains(name.as_str()) {
            printed(
                Command::new("cp")
                    .arg("-r")
                    .arg(entry.path())
                    .arg(scratch.path()),
            );
        }
    }
    for path in ignored.iter().filter(|path| path.contains('/')) {
        fs::remove_dir_all(scratch.path().join(path)).unwrap();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let told: serde_json::Value =
        serde_json::from_str(&printed(cargo.current_dir(scratch.path()))).unwrap();
    for target in told
        .pointer("/packages/0/targets")
        .unwrap()
        .as_array()
        .unwrap()
    {
        let source = Path::new(target["src_path"].as_str().unwrap());
        assert!(
            source.starts_with(scratch.path()) && source.exists(),
            "{source:?}"
        );
    }
    for needed in ["Cargo.lock", "proto/thanos", "src/api/status/page.css"] {
        assert!(scratch.path().join(needed).exists(), "{needed}");
    }
}
