//! What any process that looks up names, speaks TLS and measures itself reads of its host.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use super::Grants;

/// Read as they are, where they are.
///
/// `/proc` whole, not `/proc/self`: the inodes in it come and go with the kernel's caches, and a
/// rule would go with them; the signal method looks for Prometheus' process there. Memory and
/// descriptors of other processes stay out of reach all the same: they are for those who may
/// trace them, and a confined process may trace none outside. Environments of processes of the
/// same user do not, on some kernels.
const KERNEL: [&str; 6] = [
    "/proc",
    // How many processors the runtime may use.
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    // Random numbers, and whether this machine is a copy of another one.
    "/dev/urandom",
    "/dev/sysgenid",
];

/// Where the C library's name services are loaded from when a name is first looked up.
const LIBRARIES: [&str; 7] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/nix/store",
];

/// The roots that are trusted, by what distributions call them; symlinks lead from one of these to
/// the other.
const CA_ROOTS: [&str; 12] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/openssl",
    "/etc/static/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/usr/local/share/certs",
    "/usr/share/ssl",
    "/usr/lib/ssl",
    "/var/lib/ca-certificates",
];

/// Directories of roots in which symlinks may lead to where an administrator keeps his own.
const CA_ROOTS_LINKED: [&str; 3] = [
    "/etc/ssl",
    "/etc/ssl/certs",
    "/etc/pki/ca-trust/extracted/pem",
];

const ETC: &str = "/etc";

/// Those that are changed under a running process.
const RESOLVER_REPLACED: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

const RESOLVER: [&str; 6] = [
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/hostname",
    "/etc/localtime",
];

/// What network managers and caches of names keep for the resolver.
const RESOLVER_RUN: [&str; 5] = [
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/nscd",
    "/var/lib/sss",
];

impl Grants {
    /// What the libraries below need of any host: the kernel's files, libraries that are loaded
    /// late, CA roots where distributions have them, and the resolver's files.
    pub fn read_system(&mut self) {
        for path in KERNEL.iter().chain(&LIBRARIES).chain(&CA_ROOTS) {
            self.read_as_it_is(Path::new(path));
        }
        for path in CA_ROOTS_LINKED.map(Path::new) {
            self.read_linked(path);
        }
        // Prints of where a panic came from.
        self.read_as_it_is(Path::new("/proc/self/exe"));
        self.write_as_it_is(Path::new("/dev/null"));
        for path in RESOLVER.iter().chain(&RESOLVER_RUN) {
            self.read_in_place(Path::new(path));
        }
        for path in RESOLVER_REPLACED.map(Path::new) {
            self.read_in_place(path);
            // In a container both are mounted, each by itself, and are written in place. On a host
            // they are replaced by new files, which no rule about the old ones would let us read;
            // then names would be looked up as if there were none.
            if is_replaceable(path) {
                self.read_as_it_is(Path::new(ETC));
            }
        }
    }

    /// What symlinks in a directory lead to, and its own.
    pub fn read_linked(&mut self, directory: &Path) {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            let path = entry.path();
            let target = path.canonicalize().ok();
            let is_known = |target: &Path| self.is_read(target);
            if path.is_symlink() && target.is_some_and(|target| !is_known(&target)) {
                self.read_in_place(&path);
            }
        }
    }
}

/// Whether processes outside of a Landlock domain are hidden from those inside: a process is shown
/// to whoever may trace it only (`hidepid` of `/proc`), and across the domain's border nobody may.
pub fn hides_processes() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(hides)
}

/// Of a line of `mountinfo`: the mount point is its fifth field, the options of the file system
/// are its last.
fn hides(mount: &str) -> bool {
    let is_proc = mount.split(' ').nth(4) == Some("/proc");
    let options = mount.rsplit(' ').next().unwrap_or_default();
    let hidden = options
        .split(',')
        .find_map(|option| option.strip_prefix("hidepid="));
    is_proc && hidden.is_some_and(|hidden| !["0", "off"].contains(&hidden))
}

/// Whether a plain file may take the place of this one.
fn is_replaceable(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS) {
        Ok(seen) => !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        // One that is not there may come.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_processes_show_in_the_options_of_proc() {
        let mount = |point: &str, options: &str| {
            format!("24 30 0:22 / {point} rw,nosuid - proc proc {options}")
        };
        assert!(hides(&mount("/proc", "rw,hidepid=invisible")));
        assert!(hides(&mount("/proc", "rw,gid=5,hidepid=2")));
        assert!(!hides(&mount("/proc", "rw,hidepid=off")) && !hides(&mount("/proc", "rw")));
        assert!(!hides(&mount("/other/proc", "rw,hidepid=2")) && !hides(""));
    }

    #[test]
    fn roots_that_links_lead_to_are_read() {
        let scratch = tempfile::tempdir().unwrap();
        let [certs, corp] = ["certs", "corp"].map(|name| scratch.path().join(name));
        std::fs::create_dir_all(&certs).unwrap();
        std::fs::create_dir_all(&corp).unwrap();
        std::fs::write(corp.join("ca.pem"), "x").unwrap();
        std::os::unix::fs::symlink(corp.join("ca.pem"), certs.join("corp.pem")).unwrap();
        std::os::unix::fs::symlink("nowhere", certs.join("dangling.pem")).unwrap();
        let mut grants = Grants::default();
        grants.read_linked(&certs);
        assert!(grants.is_read(&corp.join("ca.pem").canonicalize().unwrap()));
        assert!(!grants.is_read(&certs.canonicalize().unwrap()));
    }
}
