//! Values made from files, made anew once the files have changed: certificates and passwords are
//! renewed under a running process.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A value made from files. Asking for it looks whether one of them is another file by now, or has
/// changed (one `stat` each); only then they are read.
///
/// Where the value can't be made from what is there now, the last good one stays in force, and
/// that is told once for each change.
pub struct Reloading<T, E> {
    load: Load<T, E>,
    failed: fn(&E),
    current: Mutex<Loaded<T>>,
}

/// The files that a value is made from, each as it was before it was read: what is written in the
/// meantime counts as a change.
#[derive(Debug, Default)]
pub struct ReadFiles(Vec<(PathBuf, Option<FileStamp>)>);

type Load<T, E> = Box<dyn Fn(&mut ReadFiles) -> Result<T, E> + Send + Sync>;

struct Loaded<T> {
    files: ReadFiles,
    value: Arc<T>,
}

/// What changes when a file is written anew or a symlink is swapped, as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

// === impl Reloading ===

impl<T, E> Reloading<T, E> {
    /// Makes the first value. `load` tells each file before it reads it; `failed` is told why a
    /// later value can't be made.
    ///
    /// # Errors
    /// Where the first value can't be made.
    pub fn new(
        load: impl Fn(&mut ReadFiles) -> Result<T, E> + Send + Sync + 'static,
        failed: fn(&E),
    ) -> Result<Self, E> {
        let mut files = ReadFiles::default();
        let value = Arc::new(load(&mut files)?);
        Ok(Self {
            load: Box::new(load),
            failed,
            current: Mutex::new(Loaded { files, value }),
        })
    }

    /// The value of the files as they are now, or the last good one.
    pub fn current(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.files.have_changed() {
            let mut files = ReadFiles::default();
            match (self.load)(&mut files) {
                Ok(value) => current.value = Arc::new(value),
                Err(error) => (self.failed)(&error),
            }
            current.files = files;
        }
        Arc::clone(&current.value)
    }
}

impl<T, E> fmt::Debug for Reloading<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("Reloading").field(&current.files).finish()
    }
}

// === impl ReadFiles ===

impl ReadFiles {
    /// Takes down a file that is read next.
    pub fn add(&mut self, path: &Path) {
        self.0.push((path.to_owned(), FileStamp::of(path)));
    }

    /// Takes down files that are read next.
    pub fn add_all<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        paths.into_iter().for_each(|path| self.add(path));
    }

    /// Takes down files that were read by another one's account.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    fn have_changed(&self) -> bool {
        let mut files = self.0.iter();
        files.any(|(path, stamp)| FileStamp::of(path) != *stamp)
    }
}

impl FileStamp {
    /// `None` where there is no such file, or it can't be looked at.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static FAILURES: AtomicUsize = AtomicUsize::new(0);

    fn replace(path: &Path, text: &str) {
        let beside = path.with_extension("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    /// The file names another one, whose text is the value.
    fn load(first: &Path, files: &mut ReadFiles) -> Result<String, std::io::Error> {
        files.add(first);
        let second = first.with_file_name(fs::read_to_string(first)?);
        files.add(&second);
        fs::read_to_string(second)
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let [first, a, b] = ["first", "a", "b"].map(|name| directory.path().join(name));
        fs::write(&first, "a").unwrap();
        fs::write(&a, "one").unwrap();
        let path = first.clone();
        let reloading = Reloading::new(
            move |files| load(&path, files),
            |_| {
                FAILURES.fetch_add(1, Ordering::Relaxed);
            },
        )
        .unwrap();
        assert_eq!(*reloading.current(), "one");
        replace(&a, "three");
        assert_eq!(*reloading.current(), "three");
        // A file that is not there yet is told once, and found once it comes.
        replace(&first, "b");
        for _ in 0..3 {
            assert_eq!(*reloading.current(), "three");
        }
        assert_eq!(FAILURES.load(Ordering::Relaxed), 1);
        replace(&b, "four");
        assert_eq!(*reloading.current(), "four");
        fs::remove_file(&first).unwrap();
        assert_eq!(*reloading.current(), "four");
        assert_eq!(FAILURES.load(Ordering::Relaxed), 2);
        replace(&first, "a");
        assert_eq!(*reloading.current(), "three");
        assert_eq!(FAILURES.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_first_value_must_be_there() {
        let path = Path::new("/nonexistent/file");
        let outcome = Reloading::new(|files| load(path, files), |_| ());
        assert!(outcome.is_err());
    }
}
