//! Hearing at once that something got a name in a directory.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use futures_util::StreamExt as _;
use inotify::{EventMask, Inotify, WatchMask};

use super::DiskError;

/// inotify on one directory. Events are hints: whoever gets one looks for itself.
pub struct DirWatch(inotify::EventStream<Vec<u8>>);

/// Room for a burst of events; what does not fit stays in the kernel's queue.
const EVENT_BUFFER_BYTES: usize = 4096;

impl DirWatch {
    /// Watches `path` for names that appear in it by creation or rename.
    ///
    /// # Errors
    /// Where the kernel has no inotify, its limits are used up, or the directory can't be read.
    pub fn new(path: &Path) -> Result<Self, DiskError> {
        let start = || -> io::Result<_> {
            let inotify = Inotify::init()?;
            let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
            inotify.watches().add(path, mask)?;
            inotify.into_event_stream(vec![0; EVENT_BUFFER_BYTES])
        };
        start()
            .map(Self)
            .map_err(|source| DiskError::new("watch", path, source))
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

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = DirWatch::new(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all") && error.is_not_found());
    }
}
