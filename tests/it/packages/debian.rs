//! The Debian package: its fields and files, and that it installs, runs and goes without a trace.
//!
//! It is installed by dpkg into a copy of this machine that is gone with the test: an overlay over
//! the root, in a mount namespace. That takes root and a Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::image::with_mounts;
use super::{completions, deb, has, man, printed, root, stripped_binary};
use crate::support::{Outrigger, Site, is_root, left_out};

/// The package of the binary under test, built once.
fn package() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let tools = ["dpkg-deb", "readelf"]
            .iter()
            .all(|tool| has(tool, "the Debian package"));
        tools.then(|| {
            let scratch = TempDir::with_prefix("outrigger-it-").unwrap();
            let binary = stripped_binary(scratch.path());
            let package = built(&binary, scratch.path());
            (scratch, package)
        })
    });
    built.as_ref().map(|(_, package)| package.as_path())
}

fn built(binary: &Path, scratch: &Path) -> PathBuf {
    let documents = scratch.join("documents");
    man::write(&documents.join("man")).unwrap();
    completions::write(&documents.join("completions")).unwrap();
    let sources = deb::Sources {
        root: root(),
        binary,
        documents: &documents,
    };
    deb::build(&sources, scratch, &["-Zgzip", "-z1"]).unwrap()
}

fn field(package: &Path, name: &str) -> String {
    let told = printed(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg(name),
    );
    told.trim_end().to_owned()
}

#[test]
fn its_fields_say_what_it_is() {
    let Some(package) = package() else { return };
    let version = outrigger::app::version::VERSION;
    assert_eq!(field(package, "Package"), "outrigger");
    assert_eq!(field(package, "Version"), format!("{version}-1"));
    let name = package.file_name().unwrap().to_str().unwrap();
    let architecture = field(package, "Architecture");
    assert_eq!(name, format!("outrigger_{version}-1_{architecture}.deb"));
    let depends = field(package, "Depends");
    assert!(
        depends.contains("libc6 (>= 2.") && depends.contains("libgcc-s1"),
        "{depends}"
    );
    assert!(depends.ends_with("systemd | systemd-standalone-sysusers | systemd-sysusers"));
    assert!(field(package, "Installed-Size").parse::<u64>().unwrap() > 1000);
    let description = field(package, "Description");
    assert!(
        description.lines().all(|line| line.len() <= 80),
        "{description}"
    );
}

#[test]
fn its_files_are_where_they_belong() {
    let Some(package) = package() else { return };
    let contents = printed(
        Command::new("dpkg-deb")
            .env("TZ", "UTC")
            .arg("--contents")
            .arg(package),
    );
    let rows: Vec<Vec<&str>> = contents
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(rows.iter().all(|row| row[1] == "root/root"), "{contents}");
    let mode = |path: &str| {
        let row = rows.iter().find(|row| row[5] == format!(".{path}"));
        row.unwrap_or_else(|| panic!("no {path}: {contents}"))[0]
    };
    assert_eq!(mode("/usr/bin/outrigger"), "-rwxr-xr-x");
    assert_eq!(mode("/usr/bin/"), "drwxr-xr-x");
    for path in [
        "/etc/default/outrigger",
        "/usr/lib/systemd/system/outrigger.service",
        "/usr/lib/sysusers.d/outrigger.conf",
        "/usr/share/bash-completion/completions/outrigger",
        "/usr/share/doc/outrigger/changelog.Debian.gz",
        "/usr/share/doc/outrigger/copyright",
        "/usr/share/doc/outrigger/examples/grafana/outrigger.json",
        "/usr/share/doc/outrigger/examples/prometheus/alerts.yml",
        "/usr/share/doc/outrigger/examples/seccomp/outrigger.json",
        "/usr/share/fish/vendor_completions.d/outrigger.fish",
        "/usr/share/man/man1/outrigger-sidecar.1.gz",
        "/usr/share/man/man1/outrigger.1.gz",
        "/usr/share/zsh/vendor-completions/_outrigger",
    ] {
        assert_eq!(mode(path), "-rw-r--r--", "{path}");
    }
    // The time of the changelog's last entry, wherever and whenever it is built.
    let changelog = super::text("deb/changelog");
    let trailer = changelog.lines().find_map(|line| line.strip_prefix(" -- "));
    let (_, changed) = trailer.unwrap().split_once(">  ").unwrap();
    let changed = printed(Command::new("date").args(["-u", "+%F %H:%M", "-d", changed]));
    assert!(
        contents.lines().all(|line| line.contains(changed.trim())),
        "{contents}"
    );
    let control = printed(
        Command::new("dpkg-deb")
            .arg("--info")
            .arg(package)
            .arg("conffiles"),
    );
    assert_eq!(control, "/etc/default/outrigger\n");
}

#[test]
fn the_same_sources_make_the_same_bytes() {
    let Some(package) = package() else { return };
    let scratch = TempDir::with_prefix("outrigger-it-").unwrap();
    let again = built(&stripped_binary(scratch.path()), scratch.path());
    assert!(
        fs::read(package).unwrap() == fs::read(again).unwrap(),
        "they differ"
    );
}

#[test]
fn lintian_finds_no_errors() {
    let Some(package) = package() else { return };
    if !has("lintian", "the Debian package judged by lintian") {
        return;
    }
    // A debug build is not what is shipped, and Debian has no bug that asks for the package.
    let output = Command::new("lintian")
        .args(["--allow-root", "--fail-on=error,warning", "--suppress-tags"])
        .arg("unstripped-binary-or-object,initial-upload-closes-no-bugs")
        .arg(package)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn shellcheck_has_nothing_to_say_about_its_scripts() {
    if !has("shellcheck", "maintainer scripts read by shellcheck") {
        return;
    }
    for script in ["postinst", "prerm", "postrm"] {
        printed(Command::new("shellcheck").arg(super::file("deb").join(script)));
    }
}

/// Shell: an overlay over the root at `$root`, whose changes are kept in memory. systemd is not
/// there for it, as in any container.
const COPY_OF_THIS_MACHINE: &str = r#"
    scratch=$1 package=$2; shift 2
    root=$scratch/root; mkdir -p "$scratch/over" "$root"
    mount -t tmpfs tmpfs "$scratch/over"
    mkdir "$scratch/over/upper" "$scratch/over/work"
    mount -t overlay overlay \
        -o "lowerdir=/,upperdir=$scratch/over/upper,workdir=$scratch/over/work" "$root"
    mount -t tmpfs tmpfs "$root/run"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mkdir -p "$root/var/tmp/package"
    cp "$package" "$root/var/tmp/package/outrigger.deb"
    inside() { chroot "$root" "$@"; }
    installed() { inside dpkg --force-unsafe-io -i /var/tmp/package/outrigger.deb; }
    inside getent group prometheus >/dev/null || inside groupadd --system prometheus
"#;

/// The script behind a copy of this machine, or `None` where there can't be one.
fn in_a_copy(case: &str, script: &str, scratch: &Path) -> Option<Command> {
    let package = package()?;
    for tool in [
        "dpkg",
        "systemd-sysusers",
        "deb-systemd-helper",
        "groupadd",
        "chroot",
    ] {
        if !has(tool, case) {
            return None;
        }
    }
    if !is_root() {
        left_out(case, "only root can be the users of a package");
        return None;
    }
    // A root that is an overlay of an overlay, or a kernel without them: no copy.
    let tried = with_mounts(case, &format!("{COPY_OF_THIS_MACHINE}\ntrue"));
    let output = tried?.arg(scratch).arg(package).output().unwrap();
    if !output.status.success() {
        left_out(case, String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    let mut command = with_mounts(case, &format!("{COPY_OF_THIS_MACHINE}\n{script}"))?;
    command.arg(scratch).arg(package);
    Some(command)
}

#[test]
fn it_comes_and_goes_as_packages_do() {
    let scratch = TempDir::with_prefix("outrigger-it-").unwrap();
    let script = r#"
        installed
        echo user $(inside id -nG outrigger)
        echo shell $(inside getent passwd outrigger | cut -d: -f7)
        echo version $(inside /usr/bin/outrigger --version | head -n 1)
        echo enabled $(ls "$root/etc/systemd/system/multi-user.target.wants" | grep -c outrigger)
        if command -v systemd-analyze >/dev/null; then
            inside systemd-analyze verify /usr/lib/systemd/system/outrigger.service 2>&1 |
                grep -i outrigger.service | sed 's/^/verify /' || true
        fi
        echo '# mine' >> "$root/etc/default/outrigger"
        inside ln -s /usr/lib/systemd/system/outrigger.service \
            /etc/systemd/system/multi-user.target.wants/
        installed
        echo kept $(tail -n 1 "$root/etc/default/outrigger")
        echo status $(inside dpkg-query -W -f '${Status}' outrigger)
        echo changed $(inside dpkg --verify outrigger | grep -v /usr/share/)
        inside dpkg --remove outrigger
        echo removed $(ls "$root/etc/default/outrigger")
        installed
        inside dpkg --purge outrigger
        echo left $(inside find /etc /usr /var/lib -xdev -name 'outrigger*' \
            -newer /var/tmp/package 2>/dev/null | grep -v /var/lib/systemd/)
        echo end
    "#;
    let Some(mut command) = in_a_copy("the Debian package installed", script, scratch.path())
    else {
        return;
    };
    let told = printed(&mut command);
    let lines = |key: &str| -> Vec<&str> {
        let lines = told.lines().filter_map(|line| line.strip_prefix(key));
        lines
            .filter(|rest| rest.is_empty() || rest.starts_with(' '))
            .map(str::trim)
            .collect()
    };
    assert_eq!(lines("end"), [""], "{told}");
    let groups: Vec<&str> = lines("user")[0].split(' ').collect();
    assert!(
        groups.contains(&"outrigger") && groups.contains(&"prometheus"),
        "{told}"
    );
    assert_eq!(lines("shell"), ["/usr/sbin/nologin"], "{told}");
    assert!(
        lines("version")[0].starts_with("outrigger, version "),
        "{told}"
    );
    assert_eq!(
        lines("enabled"),
        ["0"],
        "it starts before it is configured: {told}"
    );
    assert_eq!(lines("verify"), Vec::<&str>::new(), "{told}");
    assert_eq!(lines("kept"), ["# mine"], "{told}");
    assert_eq!(lines("status"), ["install ok installed"], "{told}");
    assert_eq!(
        lines("changed"),
        ["??5?????? c /etc/default/outrigger"],
        "{told}"
    );
    assert_eq!(
        lines("removed"),
        [format!(
            "{}/root/etc/default/outrigger",
            scratch.path().display()
        )]
    );
    assert_eq!(lines("left"), [""], "{told}");
}

/// As its own user, in the group of Prometheus, started as the unit does.
#[test]
fn it_ships_as_its_own_user() {
    if !has("setpriv", "the Debian package run") {
        return;
    }
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let blocks = site.backfill(1);
    fs::create_dir_all(site.bucket.root()).unwrap();
    let unit = super::text("deb/outrigger.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let script = format!(
        r#"
        data=$1 bucket=$2 url=$3
        installed >&2
        mkdir -p "$root/var/lib/prometheus/metrics2" "$root/var/lib/bucket"
        mount --bind "$data" "$root/var/lib/prometheus/metrics2"
        mount --bind "$bucket" "$root/var/lib/bucket"
        # As Debian's Prometheus has it, and as /etc/default/outrigger asks for.
        inside chown -R daemon:prometheus /var/lib/prometheus/metrics2
        inside chmod g+w /var/lib/prometheus/metrics2
        inside chown outrigger /var/lib/bucket
        chmod a+rx "$(dirname "$data")"
        printf 'type: FILESYSTEM\nconfig: {{directory: /var/lib/bucket}}\n' >"$root/etc/bucket.yml"
        cat >>"$root/etc/default/outrigger" <<DEFAULTS
ARGS="--prometheus.url=$url --tsdb.path=/var/lib/prometheus/metrics2 \
      --objstore.config-file=/etc/bucket.yml --prometheus.get_config_interval=500ms \
      --http-address=127.0.0.1:0 --grpc-address=127.0.0.1:0"
DEFAULTS
        exec env -i PATH=/usr/sbin:/usr/bin chroot "$root" setpriv --reuid=outrigger \
            --regid=outrigger --init-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
            sh -c '. /etc/default/outrigger; exec {start}'
        "#
    );
    let case = "the Debian package run";
    let Some(mut command) = in_a_copy(case, &script, &site.scratch().join("copy")) else {
        return;
    };
    command.arg(&site.data).arg(site.bucket.root());
    command.arg(format!("http://{}/", prometheus.address()));
    let outrigger = Outrigger::start_command(&mut command);
    site.wait_for_ledger(&blocks[0]);
    assert!(outrigger.proc_status("Uid") > 0);
    let ledger = fs::metadata(site.ledger()).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(
        ledger.mode() & 0o777,
        0o644,
        "Prometheus must be able to read it"
    );
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}
