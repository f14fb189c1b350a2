//! Hearing of changes in a changing set of directories, through one inotify instance: a user has
//! 128 of them, and configuration may lie in hundreds of directories.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};

use super::DiskError;
use super::watch::EVENT_BUFFER_BYTES;
use crate::lifecycle::blocking;

/// inotify on a set of directories. Events are hints: whoever gets one looks for itself.
pub struct WatchSet {
    events: EventStream<Vec<u8>>,
    /// By watch, the names of its directory: a bind mount may give it more than one.
    watched: Watched,
}

type Watched = HashMap<WatchDescriptor, Vec<PathBuf>>;

/// What happened in one of the directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchSetChange {
    /// An entry came, went, was written and closed, or got other attributes.
    Entry {
        /// The directory, by all the paths it was given under.
        dirs: Vec<PathBuf>,
        /// The entry; empty where it is the directory itself.
        name: OsString,
    },
    /// A directory was removed, renamed or unmounted: nothing more is heard of it until it is in
    /// the set anew.
    Gone {
        /// The directory, by all the paths it was given under.
        dirs: Vec<PathBuf>,
    },
    /// Events were lost, so anything may have happened.
    Lost,
}

/// What became of a new set.
#[derive(Debug, Default)]
pub struct WatchSetOutcome {
    /// How many directories were not watched before: what happened in them until now was not heard.
    pub added: usize,
    /// The directories that can't be watched.
    pub failed: Vec<DiskError>,
}

// === impl WatchSet ===

impl WatchSet {
    /// An empty set. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Where the kernel has no inotify or the user has too many instances of it.
    pub fn new() -> Result<Self, DiskError> {
        let start = || Inotify::init()?.into_event_stream(vec![0; EVENT_BUFFER_BYTES]);
        match start() {
            Ok(events) => Ok(Self {
                events,
                watched: Watched::new(),
            }),
            Err(source) => Err(DiskError::new("watch", Path::new("directories"), source)),
        }
    }

    /// Watches these directories and no others. One that was replaced by another directory under
    /// its name is watched anew.
    pub async fn set(&mut self, dirs: Vec<PathBuf>) -> WatchSetOutcome {
        let watches = self.events.watches();
        let (watched, failed) = {
            let mut watches = watches.clone();
            // A network file system may let a look-up wait.
            blocking(move || {
                let (mut watched, mut failed) = (Watched::new(), Vec::new());
                for dir in dirs {
                    match watches.add(&dir, mask()) {
                        Ok(watch) => watched.entry(watch).or_default().push(dir),
                        Err(source) => failed.push(DiskError::new("watch", &dir, source)),
                    }
                }
                (watched, failed)
            })
            .await
        };
        let known: HashSet<WatchDescriptor> = self.watched.keys().cloned().collect();
        let added = watched.keys().filter(|watch| !known.contains(watch));
        let added = added.count();
        for stale in known.into_iter().filter(|old| !watched.contains_key(old)) {
            // One whose directory is gone was removed by the kernel already.
            drop(watches.clone().remove(stale));
        }
        self.watched = watched;
        WatchSetOutcome { added, failed }
    }

    /// How many directories are watched.
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// The next change. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// Where the kernel's queue can't be read any more.
    pub async fn changed(&mut self) -> io::Result<WatchSetChange> {
        const ENDS: EventMask = EventMask::DELETE_SELF
            .union(EventMask::MOVE_SELF)
            .union(EventMask::UNMOUNT)
            .union(EventMask::IGNORED);
        loop {
            let event = match self.events.next().await {
                Some(event) => event?,
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            };
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                return Ok(WatchSetChange::Lost);
            }
            // What is left of a watch that is no more of the set is nobody's concern.
            let Some(dirs) = self.watched.get(&event.wd).cloned() else {
                continue;
            };
            if event.mask.intersects(ENDS) {
                // A directory that was renamed would go on to be heard of under its old name.
                self.watched.remove(&event.wd);
                drop(self.events.watches().remove(event.wd));
                return Ok(WatchSetChange::Gone { dirs });
            }
            let name = event.name.unwrap_or_default();
            return Ok(WatchSetChange::Entry { dirs, name });
        }
    }
}

impl std::fmt::Debug for WatchSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchSet")
            .field("watched", &self.watched.len())
            .finish_non_exhaustive()
    }
}

/// Not `MODIFY`: a file that is being written is looked at when its writer closes it.
fn mask() -> WatchMask {
    let comes_or_goes =
        WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE | WatchMask::MOVED_FROM;
    let changes = WatchMask::CLOSE_WRITE | WatchMask::ATTRIB;
    let ends = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    comes_or_goes | changes | ends | WatchMask::ONLYDIR
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn entry(dir: &Path, name: &str) -> WatchSetChange {
        WatchSetChange::Entry {
            dirs: vec![dir.to_owned()],
            name: name.into(),
        }
    }

    #[tokio::test]
    async fn changes_are_told_with_directory_and_name_and_only_of_the_set() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| scratch.path().join(name));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        let mut set = WatchSet::new().unwrap();
        assert!(set.is_empty());
        let outcome = set.set(vec![a.clone(), b.clone()]).await;
        assert_eq!((outcome.added, outcome.failed.len(), set.len()), (2, 0, 2));

        fs::write(a.join("x"), "1").unwrap();
        assert_eq!(set.changed().await.unwrap(), entry(&a, "x"), "created");
        assert_eq!(set.changed().await.unwrap(), entry(&a, "x"), "closed");
        fs::rename(a.join("x"), b.join("y")).unwrap();
        assert_eq!(set.changed().await.unwrap(), entry(&a, "x"));
        assert_eq!(set.changed().await.unwrap(), entry(&b, "y"));
        fs::remove_file(b.join("y")).unwrap();
        assert_eq!(set.changed().await.unwrap(), entry(&b, "y"));

        assert_eq!(set.set(vec![b.clone()]).await.added, 0);
        fs::write(a.join("unheard"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", b.join("..data")).unwrap();
        assert_eq!(set.changed().await.unwrap(), entry(&b, "..data"));
    }

    #[tokio::test]
    async fn a_directory_that_ends_is_told_and_its_successor_is_watched_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let mut set = WatchSet::new().unwrap();
        set.set(vec![dir.clone()]).await;
        fs::rename(&dir, scratch.path().join("old")).unwrap();
        let gone = WatchSetChange::Gone {
            dirs: vec![dir.clone()],
        };
        assert_eq!(set.changed().await.unwrap(), gone);
        fs::write(scratch.path().join("old/unheard"), "").unwrap();
        let outcome = set.set(vec![dir.clone()]).await;
        assert!(outcome.added == 0 && outcome.failed[0].is_not_found());
        assert!(outcome.failed[0].to_string().contains("dir"), "is named");

        fs::create_dir(&dir).unwrap();
        assert_eq!(set.set(vec![dir.clone()]).await.added, 1);
        fs::create_dir(dir.join("z")).unwrap();
        assert_eq!(set.changed().await.unwrap(), entry(&dir, "z"));
    }

    #[tokio::test]
    async fn one_directory_under_two_names_is_one_watch() {
        let scratch = tempfile::tempdir().unwrap();
        let (dir, link) = (scratch.path().join("dir"), scratch.path().join("link"));
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let mut set = WatchSet::new().unwrap();
        assert_eq!(set.set(vec![dir.clone(), link.clone()]).await.added, 1);
        fs::create_dir(dir.join("z")).unwrap();
        let heard = WatchSetChange::Entry {
            dirs: vec![dir, link],
            name: "z".into(),
        };
        assert_eq!(set.changed().await.unwrap(), heard);
    }
}
