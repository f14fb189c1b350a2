//! What the files say, as digests: equal ones need no reload (contract `prometheus.md` §7.2).

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::{RULES_FLAG, ReloaderError};
use super::file;
use super::walk::{Found, walk};

/// Most bytes of one directory of rules. They are not held, but each look reads them all.
pub(super) const RULES_BYTES_MAX: u64 = 1 << 30;

/// How often a walk is begun that meets something which is gone at the next step: a volume that is
/// just being swapped.
const WALKS_MAX: usize = 3;

/// Divides paths from contents; in no path in UTF-8.
const DIVIDER: [u8; 1] = [0xff];

const BUFFER_BYTES: usize = 64 << 10;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

/// Configuration and rules, as they were last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    /// Of the configuration as it lies there; `None` where there is no such flag.
    pub(super) config: Option<Digest>,
    /// Of all rules.
    pub(super) rules: Digest,
}

// === impl Digest ===

impl Digest {
    /// Of one file with this content.
    pub(super) fn of_content(path: &Path, content: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        begin(&mut hasher, path);
        hasher.update(content);
        Self(hasher.finalize().into())
    }

    /// Of one file of at most `bytes_max`, without holding it.
    pub(super) fn of_file(
        path: &Path,
        flag: &'static str,
        bytes_max: u64,
    ) -> Result<Self, ReloaderError> {
        let mut hasher = Sha256::new();
        let mut bytes_left = bytes_max;
        match add_file(&mut hasher, path, flag, &mut bytes_left)? {
            true => Ok(Self(hasher.finalize().into())),
            false => Err(ReloaderError::TooLarge {
                path: path.to_owned(),
                flag,
                bytes_max,
            }),
        }
    }

    /// Of all files in all directories, in the order of the walk.
    pub(super) fn of_rules(dirs: &[PathBuf]) -> Result<Self, ReloaderError> {
        let mut hasher = Sha256::new();
        for dir in dirs {
            hasher = with_rule_dir(&hasher, dir)?;
        }
        Ok(Self(hasher.finalize().into()))
    }
}

/// The hasher with a directory of rules added.
fn with_rule_dir(before: &Sha256, dir: &Path) -> Result<Sha256, ReloaderError> {
    let mut walks_left = WALKS_MAX;
    loop {
        let root = fs::canonicalize(dir);
        let root = root.map_err(|source| file::unreadable("look for", dir, RULES_FLAG, source))?;
        walks_left -= 1;
        let mut hasher = before.clone();
        match add_tree(&mut hasher, &root) {
            Ok(()) => return Ok(hasher),
            Err(error) if error.missing().is_some() && walks_left > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

fn add_tree(hasher: &mut Sha256, root: &Path) -> Result<(), ReloaderError> {
    let mut bytes_left = RULES_BYTES_MAX;
    walk(root, &mut |found| {
        match found {
            Found::Dir(_) => {}
            Found::File(ref path) | Found::LinkToFile(ref path) => {
                let added = add_file(hasher, path, RULES_FLAG, &mut bytes_left);
                let is_link = matches!(found, Found::LinkToFile(_));
                match added {
                    Ok(true) => {}
                    Ok(false) => {
                        return Err(ReloaderError::TooLarge {
                            path: root.to_owned(),
                            flag: RULES_FLAG,
                            bytes_max: RULES_BYTES_MAX,
                        });
                    }
                    // Prometheus may be allowed to read what it leads to.
                    Err(error) if is_link && error.is_denied() => add_unread(hasher, path)?,
                    Err(error) => return Err(error),
                }
            }
            // What is behind it is not looked at, as in the reference; but where it leads decides
            // what a pattern of `rule_files` finds.
            Found::LinkToDir(path, target) => {
                begin(hasher, &path);
                hasher.update(target.as_os_str().as_bytes());
            }
        }
        Ok(())
    })
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

fn begin(hasher: &mut Sha256, path: &Path) {
    hasher.update(DIVIDER);
    hasher.update(path.as_os_str().as_bytes());
    hasher.update(DIVIDER);
}

/// What can be told of a file that may not be read, and is not begun: a change shows all the same.
fn add_unread(hasher: &mut Sha256, path: &Path) -> Result<(), ReloaderError> {
    let seen = fs::metadata(path);
    let seen = seen.map_err(|source| file::unreadable("look at", path, RULES_FLAG, source))?;
    begin(hasher, path);
    for number in [seen.dev(), seen.ino(), seen.len()] {
        hasher.update(number.to_be_bytes());
    }
    for number in [seen.mtime(), seen.mtime_nsec()] {
        hasher.update(number.to_be_bytes());
    }
    Ok(())
}

/// Whether it was no more than what was left. Nothing is added where it can't be opened.
fn add_file(
    hasher: &mut Sha256,
    path: &Path,
    flag: &'static str,
    bytes_left: &mut u64,
) -> Result<bool, ReloaderError> {
    let file = file::open(path, flag)?;
    begin(hasher, path);
    // One byte more than is left tells that there is more.
    let mut file = file.take(bytes_left.saturating_add(1));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer);
        let count = read.map_err(|source| file::unreadable("read", path, flag, source))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(true);
        };
        match bytes_left.checked_sub(bytes.len() as u64) {
            Some(left) => *bytes_left = left,
            None => return Ok(false),
        }
        hasher.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reloader::error::CONFIG_FLAG;
    use landlock::{
        ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
        path_beneath_rules,
    };
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn of_file(path: &Path) -> Digest {
        Digest::of_file(path, CONFIG_FLAG, 1 << 20).unwrap()
    }

    fn of_rules(dir: &Path) -> Digest {
        Digest::of_rules(&[dir.to_owned()]).unwrap()
    }

    #[test]
    fn a_file_is_its_path_and_its_content_between_dividers() {
        let expected = Sha256::digest(b"\xff/etc/p.yml\xffglobal: {}\n");
        let digest = Digest::of_content(Path::new("/etc/p.yml"), b"global: {}\n");
        assert_eq!(digest.0, <[u8; 32]>::from(expected));
        assert!(format!("{digest:?}").len() == 64);
    }

    #[test]
    fn what_changes_a_tree_changes_its_digest() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        fs::create_dir_all(at("rules/sub")).unwrap();
        fs::create_dir_all(at("v1")).unwrap();
        fs::create_dir_all(at("v2")).unwrap();
        fs::write(at("far.yml"), "far").unwrap();
        let mut seen = vec![of_rules(&at("rules"))];
        let mut changes = |what: &str| {
            let digest = of_rules(&at("rules"));
            assert!(!seen.contains(&digest), "{what} went unnoticed");
            assert_eq!(digest, of_rules(&at("rules")), "{what} is told once");
            seen.push(digest);
        };
        fs::write(at("rules/a.yml"), "").unwrap();
        changes("an empty file");
        fs::write(at("rules/a.yml"), "a").unwrap();
        changes("its content");
        fs::rename(at("rules/a.yml"), at("rules/sub/a.yml")).unwrap();
        changes("its move");
        symlink("../far.yml", at("rules/far.yml")).unwrap();
        changes("a symlink");
        fs::write(at("far.yml"), "changed").unwrap();
        changes("the content behind it");
        symlink("../v1", at("rules/current")).unwrap();
        changes("a symlink to a directory");
        fs::remove_file(at("rules/current")).unwrap();
        symlink("../v2", at("rules/current")).unwrap();
        changes("another directory behind it");
    }

    #[test]
    fn the_directory_is_looked_at_behind_its_symlink() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/r.yml"), "r").unwrap();
        symlink("real", at("link")).unwrap();
        assert_eq!(of_rules(&at("link")), of_rules(&at("real")));
        let error = Digest::of_rules(&[at("none")]).unwrap_err();
        assert!(error.missing().is_some());
        assert!(
            error.to_string().contains("/none, of --reloader.rule-dir"),
            "{error}"
        );
    }

    #[test]
    fn a_file_at_the_limit_is_read_and_one_beyond_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        // More than one buffer, and a boundary in it.
        let content = vec![b'x'; BUFFER_BYTES + 7];
        fs::write(&path, &content).unwrap();
        let bytes = content.len() as u64;
        let whole = Digest::of_file(&path, CONFIG_FLAG, bytes).unwrap();
        assert_eq!(whole, Digest::of_content(&path, &content));
        for bytes_max in [bytes - 1, BUFFER_BYTES as u64, 0] {
            let error = Digest::of_file(&path, CONFIG_FLAG, bytes_max).unwrap_err();
            assert!(matches!(error, ReloaderError::TooLarge { .. }), "{error}");
        }
    }

    #[test]
    fn a_file_that_may_not_be_read_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let pipe = scratch.path().join("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let error = Digest::of_rules(&[scratch.path().to_owned()]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/pipe of --reloader.rule-dir is a named pipe")
        );
    }

    #[test]
    fn what_a_symlink_leads_to_and_may_not_be_read_is_told_by_its_looks() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        fs::create_dir(at("rules")).unwrap();
        fs::write(at("far.yml"), "far").unwrap();
        symlink("../far.yml", at("rules/far.yml")).unwrap();
        let confined = || {
            std::thread::scope(|scope| {
                let look = || {
                    let read = AccessFs::from_read(ABI::V1);
                    let ruleset = Ruleset::default().handle_access(read).unwrap();
                    let ruleset = ruleset.create().unwrap();
                    let below = path_beneath_rules([at("rules")], read);
                    let status = ruleset.add_rules(below).unwrap().restrict_self().unwrap();
                    let denied = status.ruleset == RulesetStatus::FullyEnforced;
                    denied.then(|| (fs::read(at("far.yml")).is_err(), of_rules(&at("rules"))))
                };
                scope.spawn(look).join().unwrap()
            })
        };
        let Some((is_denied, before)) = confined() else {
            println!("LEFT OUT: there is no Landlock here");
            return;
        };
        assert!(is_denied);
        assert_eq!(confined(), Some((true, before)));
        fs::write(at("far.yml"), "longer").unwrap();
        assert_ne!(confined(), Some((true, before)));
    }

    proptest! {
        #[test]
        fn streaming_makes_no_difference(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("f");
            fs::write(&path, &content).unwrap();
            prop_assert_eq!(of_file(&path), Digest::of_content(&path, &content));
        }

        #[test]
        fn trees_are_equal_where_their_digests_are(
            one in prop::collection::btree_map("[ab]{1,2}", "[xy]{0,3}", 0..4),
            other in prop::collection::btree_map("[ab]{1,2}", "[xy]{0,3}", 0..4),
        ) {
            // In one place, one after the other, since paths are a part of it.
            let scratch = tempfile::tempdir().unwrap();
            let mut digests = Vec::new();
            for tree in [&one, &other] {
                let dir = scratch.path().join("rules");
                fs::create_dir(&dir).unwrap();
                for (name, content) in tree {
                    fs::write(dir.join(name), content).unwrap();
                }
                digests.push(of_rules(&dir));
                fs::remove_dir_all(&dir).unwrap();
            }
            prop_assert_eq!(one == other, digests[0] == digests[1]);
        }
    }
}
