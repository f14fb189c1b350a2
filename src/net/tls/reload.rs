//! Values made from files, made anew once the files have changed.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::TlsError;

/// A value made from files, made anew once one of them is another file or has changed.
pub(super) struct Reloading<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    current: Mutex<Loaded<T>>,
}

type Load<T> = Box<dyn Fn(&[PathBuf]) -> Result<T, TlsError> + Send + Sync>;

struct Loaded<T> {
    stamps: Vec<Option<FileStamp>>,
    value: Arc<T>,
}

/// What changes when a file is written anew or a symlink is swapped, as Kubernetes does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl<T> Reloading<T> {
    pub(super) fn new(
        paths: Vec<PathBuf>,
        load: impl Fn(&[PathBuf]) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamps = stamps(&paths);
        let value = Arc::new(load(&paths)?);
        Ok(Self {
            paths,
            load: Box::new(load),
            current: Mutex::new(Loaded { stamps, value }),
        })
    }

    pub(super) fn current(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.paths);
        if stamps != current.stamps {
            match (self.load)(&self.paths) {
                Ok(value) => current.value = Arc::new(value),
                Err(error) => tracing::warn!(
                    err = %error,
                    cause = ?std::error::Error::source(&error),
                    "changed TLS files can't be used, keeping what was read before"
                ),
            }
            current.stamps = stamps;
        }
        Arc::clone(&current.value)
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloading").field(&self.paths).finish()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<FileStamp>> {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        fs::write(&path, "one").unwrap();
        let reloading = Reloading::new(vec![path.clone()], |paths| {
            let text = fs::read_to_string(&paths[0]).unwrap();
            match text.as_str() {
                "broken" => Err(TlsError::NoNativeRoots),
                _ => Ok(text),
            }
        })
        .unwrap();
        assert_eq!(*reloading.current(), "one");
        for (written, expected) in [("three", "three"), ("broken", "three"), ("four", "four")] {
            let beside = directory.path().join("beside");
            fs::write(&beside, written).unwrap();
            fs::rename(&beside, &path).unwrap();
            assert_eq!(*reloading.current(), expected);
        }
    }
}
