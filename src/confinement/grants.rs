//! What a confined process may still reach: paths as flags and files name them, made into
//! directories that the kernel can be told.
//!
//! A Landlock rule is about the inode that a path leads to when the rule is made, and all below
//! it. A file that is replaced by a rename, or a symlink that is swapped as Kubernetes swaps
//! `..data`, leads to another inode; so what is granted is the directory in which that happens.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Symlinks that one path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;

/// What the process needs; all else is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub(super) read: BTreeSet<PathBuf>,
    pub(super) write: BTreeSet<PathBuf>,
    absent: Vec<Absent>,
    /// TCP ports that may be listened on (0: one that the kernel chooses); `None` for any.
    pub listen: Option<Vec<u16>>,
    /// Whether processes outside get signals.
    pub signals: bool,
    /// Whether other programs are run. They are confined as we are, and nobody knows what they
    /// need: only dangerous calls are forbidden.
    pub programs: bool,
    /// Why there are no Landlock rules, which would keep from its work what must do it.
    pub without_rules: Option<&'static str>,
    /// Whether io_uring is used.
    pub ring: bool,
}

/// A path that was not there when it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The path.
    pub path: PathBuf,
    /// What was granted in its place, so that it can come: the nearest directory that is there.
    /// `None` where that is the root, which would be everything.
    pub granted: Option<PathBuf>,
}

/// Where a path leads.
struct Way {
    /// Where symlinks on the way lead into: another target may take the place of one.
    places: Vec<PathBuf>,
    /// What it leads to, without symlinks; as far as there is something.
    end: PathBuf,
    is_there: bool,
}

// === impl Grants ===

impl Grants {
    /// A file that is read, now or later: its directory, so that it may be replaced. Of a file in
    /// the root only the file itself, since its directory is everything.
    pub fn read_file(&mut self, path: &Path) {
        let way = Way::of(path);
        match way.end.parent().filter(|parent| !is_root(parent)) {
            Some(parent) if way.is_there && !way.end.is_dir() => {
                self.read.insert(parent.to_owned());
            }
            _ if way.is_there => {
                self.read.insert(way.end.clone());
            }
            // A directory that may still get the file.
            _ => self.read_nearest(path, &way),
        }
        self.read_places(&way);
    }

    /// A directory and all below it.
    pub fn read_directory(&mut self, path: &Path) {
        let way = Way::of(path).if_directory();
        if way.is_there {
            self.read.insert(way.end.clone());
        } else {
            self.read_nearest(path, &way);
        }
        self.read_places(&way);
    }

    /// A directory that may be replaced as a whole: also the one that it is in.
    pub fn read_replaceable_directory(&mut self, path: &Path) {
        self.read_directory(path);
        let end = Way::of(path).end;
        if let Some(parent) = end.parent().filter(|parent| !is_root(parent)) {
            self.read.insert(parent.to_owned());
        }
    }

    /// What this name leads to now, and nothing beside it. Nothing where nothing is there.
    pub(super) fn read_as_it_is(&mut self, path: &Path) {
        let way = Way::of(path);
        if way.is_there {
            self.read.insert(way.end);
        }
    }

    /// As [`Self::read_as_it_is`], and where symlinks lead, but for the directory it is in.
    pub(super) fn read_in_place(&mut self, path: &Path) {
        self.read_as_it_is(path);
        let places = Way::of(path).places.into_iter();
        self.read
            .extend(places.filter(|place| Some(place.as_path()) != path.parent()));
    }

    /// A directory in which files and directories are made, written, renamed and removed.
    pub fn write_directory(&mut self, path: &Path) {
        let way = Way::of(path).if_directory();
        if way.is_there {
            self.write.insert(way.end.clone());
        } else {
            let granted = self.absent(path, &way);
            self.write.extend(granted);
        }
        self.read_places(&way);
    }

    /// A file that is there and is written to as it is, such as a device.
    pub(super) fn write_as_it_is(&mut self, path: &Path) {
        if path.exists() {
            self.write.insert(path.to_owned());
        }
    }

    /// Whether a path without symlinks was granted for reading.
    pub(super) fn is_read(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.read.contains(above))
    }

    /// Whether the root was granted for writing, which is everything.
    pub fn is_everything_written(&self) -> bool {
        self.write.iter().any(|path| is_root(path))
    }

    /// What was not there, and what was granted instead.
    pub fn absences(&self) -> &[Absent] {
        &self.absent
    }

    fn read_nearest(&mut self, path: &Path, way: &Way) {
        let granted = self.absent(path, way);
        self.read.extend(granted);
    }

    fn read_places(&mut self, way: &Way) {
        self.read.extend(way.places.iter().cloned());
    }

    fn absent(&mut self, path: &Path, way: &Way) -> Option<PathBuf> {
        let granted = Some(way.end.clone()).filter(|end| !is_root(end));
        self.absent.push(Absent {
            path: path.to_owned(),
            granted: granted.clone(),
        });
        granted
    }
}

// === impl Way ===

impl Way {
    /// Goes along a path as the kernel does.
    fn of(path: &Path) -> Self {
        let mut way = Self {
            places: Vec::new(),
            end: PathBuf::from("/"),
            is_there: false,
        };
        // Fails for an empty path, or where there is no working directory.
        let Ok(path) = std::path::absolute(path) else {
            return way;
        };
        let mut ahead = pieces(&path);
        let mut links = 0;
        while let Some(piece) = ahead.pop_front() {
            if piece == ".." {
                way.end.pop();
                continue;
            }
            let next = way.end.join(&piece);
            match fs::read_link(&next) {
                Ok(target) if links < LINKS_MAX => {
                    links += 1;
                    let target = way.end.join(target);
                    way.places.extend(target.parent().map(Path::to_owned));
                    for piece in pieces(&target).into_iter().rev() {
                        ahead.push_front(piece);
                    }
                    way.end = PathBuf::from("/");
                }
                // The kernel's way to say that it is no symlink.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => way.end = next,
                _ => return way.with_real_places(),
            }
        }
        way.is_there = true;
        way.with_real_places()
    }

    /// The same, for who wants a directory: something else in its place is as good as nothing.
    fn if_directory(mut self) -> Self {
        if self.is_there && !self.end.is_dir() {
            self.is_there = false;
            self.end.pop();
        }
        self
    }

    /// Without what is not there and what would be everything.
    fn with_real_places(mut self) -> Self {
        let real = |place: PathBuf| place.canonicalize().ok();
        let places = std::mem::take(&mut self.places).into_iter();
        self.places = places.filter_map(real).filter(|p| !is_root(p)).collect();
        self
    }
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
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

        fn file(&self, path: &str) -> PathBuf {
            let path = self.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.display().to_string()).unwrap();
            path
        }

        fn paths(&self, paths: &[&str]) -> BTreeSet<PathBuf> {
            paths.iter().map(|path| self.at(path)).collect()
        }
    }

    #[test]
    fn a_file_is_granted_with_its_directory() {
        let scene = Scene::new();
        let file = scene.file("etc/thanos/bucket.yml");
        let mut grants = Grants::default();
        grants.read_file(&file);
        assert_eq!(grants.read, scene.paths(&["etc/thanos"]));
        assert_eq!(grants.absences(), []);
        assert!(grants.write.is_empty());
    }

    #[test]
    fn a_file_in_the_root_is_granted_alone() {
        let mut grants = Grants::default();
        let there = fs::read_dir("/").unwrap();
        let mut there = there.map(|entry| entry.unwrap().path());
        if let Some(file) = there.find(|path| fs::symlink_metadata(path).unwrap().is_file()) {
            grants.read_file(&file);
            assert_eq!(grants.read, BTreeSet::from([file]));
        }
        let mut grants = Grants::default();
        grants.read_file(Path::new("/no-such-file-here"));
        assert!(grants.read.is_empty());
        assert_eq!(grants.absences()[0].granted, None);
    }

    #[test]
    fn a_volume_of_kubernetes_is_granted_where_it_is_swapped() {
        let scene = Scene::new();
        scene.file("etc/conf/..2024_01/cfg.yml");
        symlink("..2024_01", scene.at("etc/conf/..data")).unwrap();
        symlink("..data/cfg.yml", scene.at("etc/conf/cfg.yml")).unwrap();
        let mut grants = Grants::default();
        grants.read_file(&scene.at("etc/conf/cfg.yml"));
        assert!(grants.read.contains(&scene.at("etc/conf")), "{grants:?}");
        let all = grants.read.iter();
        assert!(all.into_iter().all(|p| p.starts_with(scene.at("etc/conf"))));
    }

    #[test]
    fn releases_beside_the_one_that_a_symlink_leads_to_are_granted() {
        let scene = Scene::new();
        scene.file("releases/v1/rules/a.yml");
        symlink(scene.at("releases/v1"), scene.at("current")).unwrap();
        let mut grants = Grants::default();
        grants.read_directory(&scene.at("current/rules"));
        assert_eq!(grants.read, scene.paths(&["releases", "releases/v1/rules"]));
    }

    #[test]
    fn a_directory_that_may_be_replaced_is_granted_with_its_place() {
        let scene = Scene::new();
        scene.file("prometheus/rules/a.yml");
        let mut grants = Grants::default();
        grants.read_replaceable_directory(&scene.at("prometheus/rules"));
        assert_eq!(
            grants.read,
            scene.paths(&["prometheus", "prometheus/rules"])
        );
        let mut grants = Grants::default();
        grants.read_replaceable_directory(Path::new("/proc"));
        assert_eq!(grants.read, BTreeSet::from([PathBuf::from("/proc")]));
    }

    #[test]
    fn what_is_not_there_may_come_where_it_will_be() {
        let scene = Scene::new();
        scene.file("var/x");
        let mut grants = Grants::default();
        grants.write_directory(&scene.at("var/prometheus/data"));
        grants.read_file(&scene.at("var/token"));
        assert_eq!(grants.write, scene.paths(&["var"]));
        assert_eq!(grants.read, scene.paths(&["var"]));
        let absent = grants.absences();
        assert_eq!(absent.len(), 2);
        assert_eq!(absent[0].path, scene.at("var/prometheus/data"));
        assert_eq!(absent[0].granted, Some(scene.at("var")));
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_may_make_room_for_it() {
        let scene = Scene::new();
        let file = scene.file("mnt/bucket");
        let mut grants = Grants::default();
        grants.write_directory(&file);
        assert_eq!(grants.write, scene.paths(&["mnt"]));
    }

    #[test]
    fn the_root_is_never_granted_for_what_is_not_there() {
        let mut grants = Grants::default();
        grants.write_directory(Path::new("/no-such-directory/data"));
        grants.read_directory(Path::new("/no-such-directory"));
        assert!(grants.read.is_empty() && grants.write.is_empty());
        assert!(
            grants
                .absences()
                .iter()
                .all(|absent| absent.granted.is_none())
        );
    }

    #[test]
    fn symlinks_in_a_circle_end() {
        let scene = Scene::new();
        symlink("b", scene.at("a")).unwrap();
        symlink("a", scene.at("b")).unwrap();
        let mut grants = Grants::default();
        grants.read_file(&scene.at("a"));
        assert_eq!(grants.absences().len(), 1);
    }

    #[test]
    fn what_is_granted_as_it_is_leaves_its_directory_alone() {
        let scene = Scene::new();
        scene.file("run/resolve/stub.conf");
        scene.file("etc/hosts");
        symlink("../run/resolve/stub.conf", scene.at("etc/resolv.conf")).unwrap();
        let mut grants = Grants::default();
        grants.read_in_place(&scene.at("etc/resolv.conf"));
        grants.read_as_it_is(&scene.at("etc/hosts"));
        grants.read_as_it_is(&scene.at("etc/nothing"));
        let expected = ["run/resolve", "run/resolve/stub.conf", "etc/hosts"];
        assert_eq!(grants.read, scene.paths(&expected));
    }
}
