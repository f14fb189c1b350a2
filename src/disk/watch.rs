//! Hearing at once that something got a name in a directory, or lost it.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use futures_util::StreamExt as _;
use inotify::{EventMask, Inotify, WatchMask};

use super::DiskError;

/// inotify on one directory. Events are hints: whoever gets one looks for itself.
pub struct DirWatch(inotify::EventStream<Vec<u8>>);

/// What happened in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirChange {
    /// This name came, by creation or rename.
    Appeared(OsString),
    /// This name went, by removal or rename.
    Vanished(OsString),
    /// The directory itself was removed, renamed or unmounted: nothing more will be heard.
    Gone,
    /// Events were lost, so anything may have happened.
    Lost,
}

/// Room for a burst of events; what does not fit stays in the kernel's queue.
pub(super) const EVENT_BUFFER_BYTES: usize = 4096;

impl DirWatch {
    /// Watches `path` for names that appear in it by creation or rename.
    ///
    /// # Errors
    /// Where the kernel has no inotify, its limits are used up, or the directory can't be read.
    pub fn new(path: &Path) -> Result<Self, DiskError> {
        Self::with_mask(path, WatchMask::CREATE | WatchMask::MOVED_TO)
    }

    /// Watches `path` for names that appear in it or vanish from it, and for its own end.
    ///
    /// # Errors
    /// As [`DirWatch::new`].
    pub fn of_changes(path: &Path) -> Result<Self, DiskError> {
        let appears = WatchMask::CREATE | WatchMask::MOVED_TO;
        let vanishes = WatchMask::DELETE | WatchMask::MOVED_FROM;
        let ends = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        Self::with_mask(path, appears | vanishes | ends)
    }

    fn with_mask(path: &Path, mask: WatchMask) -> Result<Self, DiskError> {
        let start = || -> io::Result<_> {
            let inotify = Inotify::init()?;
            inotify.watches().add(path, mask | WatchMask::ONLYDIR)?;
            inotify.into_event_stream(vec![0; EVENT_BUFFER_BYTES])
        };
        start()
            .map(Self)
            .map_err(|source| DiskError::new("watch", path, source))
    }

    /// The next change, of a watch made by [`DirWatch::of_changes`].
    ///
    /// # Errors
    /// Where the kernel's queue can't be read any more.
    pub async fn changed(&mut self) -> io::Result<DirChange> {
        const APPEARS: EventMask = EventMask::CREATE.union(EventMask::MOVED_TO);
        const VANISHES: EventMask = EventMask::DELETE.union(EventMask::MOVED_FROM);
        // IGNORED: the kernel took the watch away, since its directory or file system is gone.
        const ENDS: EventMask = EventMask::DELETE_SELF
            .union(EventMask::MOVE_SELF)
            .union(EventMask::UNMOUNT)
            .union(EventMask::IGNORED);
        loop {
            let event = match self.0.next().await {
                Some(event) => event?,
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            };
            match event.name {
                _ if event.mask.contains(EventMask::Q_OVERFLOW) => return Ok(DirChange::Lost),
                _ if event.mask.intersects(ENDS) => return Ok(DirChange::Gone),
                Some(name) if event.mask.intersects(APPEARS) => {
                    return Ok(DirChange::Appeared(name));
                }
                Some(name) if event.mask.intersects(VANISHES) => {
                    return Ok(DirChange::Vanished(name));
                }
                _ => {}
            }
        }
    }

    /// The next name that appeared; `None` where events were lost, so anything may have.
    ///
    /// # Errors
    /// Where the kernel's queue can't be read any more.
    pub async fn appeared(&mut self) -> io::Result<Option<OsString>> {
        match self.0.next().await {
            Some(Ok(event)) if event.mask.contains(EventMask::Q_OVERFLOW) => Ok(None),
            Some(Ok(event)) => Ok(event.name),
            Some(Err(error)) => Err(error),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}

impl std::fmt::Debug for DirWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirWatch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rename_into_the_directory_is_heard() {
        let scratch = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(scratch.path()).unwrap();
        std::fs::create_dir(scratch.path().join("x.tmp-for-creation")).unwrap();
        std::fs::rename(
            scratch.path().join("x.tmp-for-creation"),
            scratch.path().join("x"),
        )
        .unwrap();
        assert_eq!(
            watch.appeared().await.unwrap().unwrap(),
            "x.tmp-for-creation"
        );
        assert_eq!(watch.appeared().await.unwrap().unwrap(), "x");
    }

    #[tokio::test]
    async fn names_that_vanish_are_heard_and_the_end_of_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut watch = DirWatch::of_changes(&data).unwrap();
        std::fs::create_dir(data.join("x")).unwrap();
        std::fs::write(data.join("x/f"), "deeper is not heard").unwrap();
        std::fs::rename(data.join("x"), data.join("x.tmp-for-deletion")).unwrap();
        std::fs::remove_dir_all(data.join("x.tmp-for-deletion")).unwrap();
        for expected in [
            DirChange::Appeared("x".into()),
            DirChange::Vanished("x".into()),
            DirChange::Appeared("x.tmp-for-deletion".into()),
            DirChange::Vanished("x.tmp-for-deletion".into()),
        ] {
            assert_eq!(watch.changed().await.unwrap(), expected);
        }
        std::fs::remove_dir(&data).unwrap();
        assert_eq!(watch.changed().await.unwrap(), DirChange::Gone);

        std::fs::create_dir(&data).unwrap();
        let mut watch = DirWatch::of_changes(&data).unwrap();
        std::fs::rename(&data, scratch.path().join("elsewhere")).unwrap();
        assert_eq!(watch.changed().await.unwrap(), DirChange::Gone);
    }

    #[tokio::test]
    async fn a_watch_for_names_that_appear_hears_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(scratch.path()).unwrap();
        std::fs::write(scratch.path().join("x"), "").unwrap();
        std::fs::remove_file(scratch.path().join("x")).unwrap();
        std::fs::write(scratch.path().join("y"), "").unwrap();
        assert_eq!(watch.appeared().await.unwrap().unwrap(), "x");
        assert_eq!(watch.appeared().await.unwrap().unwrap(), "y");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = DirWatch::new(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all") && error.is_not_found());
    }
}
