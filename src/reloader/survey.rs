//! Which directories must be watched, and for which names, so that no change is missed.
//!
//! A path changes its meaning wherever a symlink stands in it. Kubernetes swaps `..data`, another
//! tool `current`; so each directory in which a link of the chain stands is watched for that
//! link's name, and the last one for the file's. The directory of the first piece that is missing
//! is watched as well: that is how its coming is heard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::look::Files;
use super::normalise::partial_path;
use super::walk::{Found, walk};

/// Most directories that are watched. The kernel lets a user have 8192 watches at least; what is
/// not watched is looked at every `--reloader.watch-interval`.
pub(super) const DIRS_MAX: usize = 1024;

/// Symlinks that one path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;

/// The directories and what matters in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    dirs: BTreeMap<PathBuf, Interest>,
    /// The output's directory and the names that come and go there when it is written.
    own: Option<(PathBuf, [OsString; 2])>,
    /// Whether there are more directories than may be watched.
    pub(super) is_cut: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Interest {
    Names(BTreeSet<OsString>),
    All,
}

// === impl Files ===

impl Files {
    /// Symlinks among the rules: what they lead to is read as well.
    pub fn linked_rules(&self) -> Vec<PathBuf> {
        let mut links = Vec::new();
        for root in self
            .rule_dirs
            .iter()
            .filter_map(|dir| dir.canonicalize().ok())
        {
            let walked = walk(&root, &mut |found| {
                if let Found::LinkToFile(path) = found {
                    links.push(path);
                }
                Ok(())
            });
            // Told by the look at the contents, which meets it as well.
            drop(walked);
        }
        links
    }
}

// === impl Survey ===

impl Survey {
    /// Looks at all of it. What can't be found is left to the look at the contents, which says so.
    pub(super) fn of(files: &Files) -> Self {
        let mut survey = Self {
            own: files.output.as_deref().and_then(own_names),
            ..Self::default()
        };
        if let Some(path) = &files.config_file {
            // Where it leads nowhere, the directories up to there are known now.
            drop(survey.trace(path));
        }
        for dir in &files.rule_dirs {
            if let Ok(root) = survey.trace(dir) {
                survey.cover(&root);
            }
        }
        survey
    }

    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        self.dirs.keys().cloned().collect()
    }

    /// Whether a change of this name in this directory may matter. An empty name is the directory.
    pub(super) fn concerns(&self, dir: &Path, name: &OsStr) -> bool {
        match self.dirs.get(dir) {
            None => false,
            Some(Interest::All) => !self.is_own(dir, name),
            Some(Interest::Names(names)) => name.is_empty() || names.contains(name),
        }
    }

    /// Whether it is what writing the output does, where that lies among the rules. A rule that
    /// can't be told from it is found by the interval.
    fn is_own(&self, dir: &Path, name: &OsStr) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|(own_dir, names)| own_dir == dir && names.iter().any(|own| own == name))
    }

    /// Everything at and below a real directory of rules, and where its symlinks lead.
    fn cover(&mut self, root: &Path) {
        let covered = walk(root, &mut |found| {
            match found {
                Found::Dir(path) => self.add(&path, None),
                // Its own directory is covered, where it leads is not yet.
                Found::LinkToFile(path) => drop(self.trace(&path)),
                Found::File(_) | Found::LinkToDir(..) => {}
            }
            Ok(())
        });
        // Told by the look at the contents, which meets it as well.
        drop(covered);
    }

    /// Goes along a path as the kernel does, and returns what it leads to.
    fn trace(&mut self, path: &Path) -> io::Result<PathBuf> {
        let path = std::path::absolute(path)?;
        let mut ahead: VecDeque<OsString> = pieces(&path);
        let mut resolved = PathBuf::from("/");
        let mut links = 0;
        while let Some(piece) = ahead.pop_front() {
            if piece == ".." {
                resolved.pop();
                continue;
            }
            let next = resolved.join(&piece);
            match fs::read_link(&next) {
                Ok(target) => {
                    self.add(&resolved, Some(piece));
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::from(rustix::io::Errno::LOOP));
                    }
                    if target.is_absolute() {
                        resolved = PathBuf::from("/");
                    }
                    for piece in pieces(&target).into_iter().rev() {
                        ahead.push_front(piece);
                    }
                }
                // The kernel's way to say that it is no symlink.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    if ahead.is_empty() {
                        self.add(&resolved, Some(piece));
                    }
                    resolved = next;
                }
                Err(error) => {
                    self.add(&resolved, Some(piece));
                    return Err(error);
                }
            }
        }
        Ok(resolved)
    }

    /// `None` is every name.
    fn add(&mut self, dir: &Path, name: Option<OsString>) {
        if !self.dirs.contains_key(dir) && self.dirs.len() == DIRS_MAX {
            self.is_cut = true;
            return;
        }
        let none = Interest::Names(BTreeSet::new());
        let interest = self.dirs.entry(dir.to_owned()).or_insert(none);
        match (interest, name) {
            (Interest::Names(names), Some(name)) => {
                names.insert(name);
            }
            (interest, None) => *interest = Interest::All,
            (Interest::All, Some(_)) => {}
        }
    }
}

fn own_names(output: &Path) -> Option<(PathBuf, [OsString; 2])> {
    let name = output.file_name()?.to_owned();
    let partial = partial_path(output).file_name()?.to_owned();
    let output = std::path::absolute(output).ok()?;
    Some((output.parent()?.canonicalize().ok()?, [name, partial]))
}

/// Its names and `..`s, without the root.
fn pieces(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scene {
        _scratch: tempfile::TempDir,
        root: PathBuf,
    }

    impl Scene {
        fn new() -> Self {
            let scratch = tempfile::tempdir().unwrap();
            let root = scratch.path().canonicalize().unwrap();
            Self {
                _scratch: scratch,
                root,
            }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.join(path)
        }

        fn dir(&self, path: &str) {
            fs::create_dir_all(self.at(path)).unwrap();
        }

        fn file(&self, path: &str) {
            fs::write(self.at(path), path).unwrap();
        }

        fn link(&self, target: &str, path: &str) {
            symlink(target, self.at(path)).unwrap();
        }

        /// The directories below the scene, with the names that matter; `*` is all.
        fn surveyed(&self, config_file: Option<&str>, rule_dirs: &[&str]) -> Vec<String> {
            let survey = Survey::of(&Files {
                config_file: config_file.map(|path| self.at(path)),
                output: None,
                rule_dirs: rule_dirs.iter().map(|dir| self.at(dir)).collect(),
            });
            let shown = survey.dirs.iter().filter_map(|(dir, interest)| {
                let dir = dir.strip_prefix(&self.root).ok()?.display();
                Some(match interest {
                    Interest::All => format!("{dir}: *"),
                    Interest::Names(names) => {
                        let names: Vec<_> = names.iter().filter_map(|n| n.to_str()).collect();
                        format!("{dir}: {}", names.join(" "))
                    }
                })
            });
            shown.collect()
        }
    }

    #[test]
    fn a_config_map_is_watched_at_each_of_its_links() {
        let scene = Scene::new();
        scene.dir("etc/..2026_01");
        scene.file("etc/..2026_01/p.yml");
        scene.link("..2026_01", "etc/..data");
        scene.link("..data/p.yml", "etc/p.yml");
        assert_eq!(
            scene.surveyed(Some("etc/p.yml"), &[]),
            ["etc: ..data p.yml", "etc/..2026_01: p.yml"]
        );
    }

    #[test]
    fn links_in_the_middle_and_across_directories_count() {
        let scene = Scene::new();
        scene.dir("v1/conf");
        scene.dir("elsewhere");
        scene.file("elsewhere/real.yml");
        scene.link("v1", "current");
        scene.link("../../elsewhere/./real.yml", "v1/conf/p.yml");
        assert_eq!(
            scene.surveyed(Some("v1/../current/conf/p.yml"), &[]),
            [": current", "elsewhere: real.yml", "v1/conf: p.yml"]
        );
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_will_come() {
        let scene = Scene::new();
        scene.dir("etc");
        assert_eq!(scene.surveyed(Some("etc/p.yml"), &[]), ["etc: p.yml"]);
        assert_eq!(
            scene.surveyed(Some("etc/deep/er/p.yml"), &[]),
            ["etc: deep"]
        );
        assert_eq!(scene.surveyed(None, &["rules"]), [": rules"]);
        scene.link("gone/p.yml", "etc/p.yml");
        assert_eq!(scene.surveyed(Some("etc/p.yml"), &[]), ["etc: gone p.yml"]);
        scene.link("loop.yml", "etc/loop.yml");
        assert_eq!(scene.surveyed(Some("etc/loop.yml"), &[]), ["etc: loop.yml"]);
    }

    #[test]
    fn rules_are_watched_whole_and_where_their_links_lead() {
        let scene = Scene::new();
        scene.dir("rules/sub/..1");
        scene.file("rules/sub/..1/r.yml");
        scene.link("..1", "rules/sub/..data");
        scene.link("..data/r.yml", "rules/sub/r.yml");
        scene.dir("shared");
        scene.file("shared/s.yml");
        scene.link("../shared/s.yml", "rules/s.yml");
        scene.link("rules", "link-to-rules");
        assert_eq!(
            scene.surveyed(None, &["link-to-rules"]),
            [
                ": link-to-rules rules",
                "rules: *",
                "rules/sub: *",
                "rules/sub/..1: *",
                "shared: s.yml"
            ]
        );
    }

    #[test]
    fn only_names_of_interest_concern() {
        let scene = Scene::new();
        scene.dir("etc");
        scene.file("etc/p.yml");
        let etc = scene.at("etc");
        let mut files = Files {
            config_file: Some(etc.join("p.yml")),
            output: Some(scene.at("etc/../etc/out.yml")),
            rule_dirs: Vec::new(),
        };
        let survey = Survey::of(&files);
        assert!(survey.concerns(&etc, OsStr::new("p.yml")));
        assert!(survey.concerns(&etc, OsStr::new("")));
        assert!(!survey.concerns(&etc, OsStr::new("p.yml.tmp")));
        assert!(!survey.concerns(&scene.at("other"), OsStr::new("p.yml")));
        files.rule_dirs.push(etc.clone());
        let survey = Survey::of(&files);
        assert!(survey.concerns(&etc, OsStr::new("new.yml")));
        assert!(!survey.concerns(&etc, OsStr::new("out.yml")), "our own");
        assert!(!survey.concerns(&etc, OsStr::new("out.yml.tmp")), "our own");
    }

    #[test]
    fn more_directories_than_may_be_watched_are_told() {
        let scene = Scene::new();
        for n in 0..DIRS_MAX {
            scene.dir(&format!("rules/{n}"));
        }
        let files = Files {
            rule_dirs: vec![scene.at("rules")],
            ..Files::default()
        };
        let survey = Survey::of(&files);
        assert!(survey.is_cut);
        assert_eq!(survey.dirs().len(), DIRS_MAX);
        fs::remove_dir(scene.at("rules/0")).unwrap();
        fs::remove_dir(scene.at("rules/1")).unwrap();
        // With the directory that `rules` lies in, that is all.
        let survey = Survey::of(&files);
        assert!(!survey.is_cut);
        assert_eq!(survey.dirs().len(), DIRS_MAX);
    }
}
