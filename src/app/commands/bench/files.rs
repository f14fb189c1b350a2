//! What is uploaded: files that are generated for it, or files that are there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rustix::fs::Advice;

use super::report::FileSummary;
use crate::lifecycle::Drain;

/// Most files of one load, so that a directory named by mistake is not walked for ever.
pub(super) const FILES_MAX: usize = 100_000;

/// Bytes of one write, and between two looks at whether to stop.
const WRITE_BYTES: usize = 1 << 20;

/// File systems whose files are nowhere but in memory: `TMPFS_MAGIC`, `RAMFS_MAGIC` (statfs(2)).
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// One file to upload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LoadFile {
    /// Below the load's directory.
    pub(super) relative: PathBuf,
    pub(super) size_bytes: u64,
}

/// The files to upload.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) directory: PathBuf,
    pub(super) files: Vec<LoadFile>,
    scratch: Option<Scratch>,
}

/// A directory of ours that is removed with all that is in it.
#[derive(Debug)]
struct Scratch(PathBuf);

// === impl Load ===

impl Load {
    /// Plans files of `file_bytes` each, the last one shorter, and makes their directory.
    pub(super) fn plan(
        parent: &Path,
        name: &str,
        size_bytes: u64,
        file_bytes: u64,
    ) -> anyhow::Result<Self> {
        let count = size_bytes.div_ceil(file_bytes);
        anyhow::ensure!(
            count <= FILES_MAX as u64,
            "--size and --file-size make {count} files, {FILES_MAX} at most"
        );
        let files = (0..count).map(|number| LoadFile {
            relative: format!("{number:06}").into(),
            size_bytes: file_bytes.min(size_bytes - number * file_bytes),
        });
        let files: Vec<LoadFile> = files.collect();
        check_space(parent, size_bytes)?;
        let directory = parent.join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&directory);
        made.with_context(|| format!("create {}", directory.display()))?;
        Ok(Self {
            scratch: Some(Scratch(directory.clone())),
            directory,
            files,
        })
    }

    /// Writes the planned files; `written` counts the bytes.
    ///
    /// # Errors
    /// Where the disk refuses them, or `stop` has started.
    pub(super) fn generate(&self, written: &AtomicU64, stop: &Drain) -> anyhow::Result<()> {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let mut block = vec![0; WRITE_BYTES];
        for file in &self.files {
            let path = self.directory.join(&file.relative);
            let mut write = || -> io::Result<()> {
                let mut output = File::create_new(&path)?;
                let mut left = file.size_bytes;
                while left > 0 {
                    if stop.has_started() {
                        return Err(io::Error::other("interrupted"));
                    }
                    noise.fill(&mut block);
                    let length = usize::try_from(left).map_or(WRITE_BYTES, |l| l.min(WRITE_BYTES));
                    output.write_all(block.get(..length).unwrap_or(&block))?;
                    left -= length as u64;
                    written.fetch_add(length as u64, Ordering::Relaxed);
                }
                output.sync_all()
            };
            write().with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// The regular files below a directory, in the order of their names. Links are not followed.
    pub(super) fn given(directory: &Path) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        let mut directories = vec![PathBuf::new()];
        while let Some(relative) = directories.pop() {
            // Joined with nothing a path gets a slash at its end, which nobody gave.
            let path: PathBuf = directory
                .components()
                .chain(relative.components())
                .collect();
            let listing = || format!("list {}", path.display());
            for entry in fs::read_dir(&path).with_context(listing)? {
                let entry = entry.with_context(listing)?;
                let metadata = entry.metadata().with_context(listing)?;
                let relative = relative.join(entry.file_name());
                if metadata.is_dir() {
                    directories.push(relative);
                } else if metadata.is_file() {
                    files.push(LoadFile {
                        relative,
                        size_bytes: metadata.len(),
                    });
                }
                anyhow::ensure!(
                    files.len() + directories.len() <= FILES_MAX,
                    "--data has more than {FILES_MAX} files"
                );
            }
        }
        files.sort();
        let load = Self {
            directory: directory.to_owned(),
            files,
            scratch: None,
        };
        anyhow::ensure!(
            load.size_bytes() > 0,
            "there are no files with content below {}",
            directory.display()
        );
        Ok(load)
    }

    /// Bytes of all files.
    pub(super) fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// What is to be told of the files once they are gone.
    pub(super) fn summary(&self) -> FileSummary {
        FileSummary {
            is_generated: self.is_generated(),
            directory: self.directory.display().to_string(),
            count: self.files.len(),
            size_bytes: self.size_bytes(),
            is_in_memory: self.is_in_memory(),
        }
    }

    /// Whether the files were made for this.
    pub(super) fn is_generated(&self) -> bool {
        self.scratch.is_some()
    }

    /// Whether the files are on no disk at all.
    pub(super) fn is_in_memory(&self) -> bool {
        let known = rustix::fs::statfs(&self.directory);
        known.is_ok_and(|found| {
            MEMORY_FILE_SYSTEMS
                .iter()
                .any(|magic| i128::from(found.f_type) == i128::from(*magic))
        })
    }

    /// Drops the pages of generated files from the cache, so that the disk is measured. Given files
    /// may be somebody's: theirs stay.
    pub(super) fn make_cold(&self) -> anyhow::Result<()> {
        if !self.is_generated() {
            return Ok(());
        }
        for file in &self.files {
            let path = self.directory.join(&file.relative);
            let dropped = File::open(&path)
                .and_then(|file| Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?));
            dropped.with_context(|| format!("drop {} from the page cache", path.display()))?;
        }
        Ok(())
    }

    /// Removes what was generated.
    pub(super) fn remove(mut self) -> anyhow::Result<()> {
        match self.scratch.take() {
            Some(scratch) => scratch.remove(),
            None => Ok(()),
        }
    }
}

/// Fails where the file system has no room for so many bytes, before any is written.
fn check_space(directory: &Path, size_bytes: u64) -> anyhow::Result<()> {
    let found = rustix::fs::statvfs(directory)
        .with_context(|| format!("look at the file system of {}", directory.display()))?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    anyhow::ensure!(
        free_bytes >= size_bytes,
        "{} has {} MiB free and the files need {} MiB: give a smaller --size or another --scratch",
        directory.display(),
        free_bytes >> 20,
        size_bytes.div_ceil(1 << 20)
    );
    Ok(())
}

// === impl Scratch ===

impl Scratch {
    fn remove(self) -> anyhow::Result<()> {
        let removed = fs::remove_dir_all(&self.0);
        let removed = removed.with_context(|| format!("remove {}", self.0.display()));
        std::mem::forget(self);
        removed
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(
                path = %self.0.display(), err = %error,
                "generated files stay; remove them by hand"
            );
        }
    }
}

/// Bytes that do not compress, the same in every run (xorshift64*).
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            word.copy_from_slice(value.get(..word.len()).unwrap_or(&value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(parent: &Path, size: u64, file: u64) -> anyhow::Result<Load> {
        Load::plan(parent, "load", size, file)
    }

    #[test]
    fn generated_files_have_their_sizes_do_not_compress_and_differ() {
        let parent = tempfile::tempdir().unwrap();
        let load = plan(parent.path(), (5 << 20) + 7, 2 << 20).unwrap();
        let (written, (_trigger, stop)) = (AtomicU64::new(0), Drain::new());
        load.generate(&written, &stop).unwrap();
        assert_eq!(written.into_inner(), load.size_bytes());
        let contents: Vec<Vec<u8>> = load
            .files
            .iter()
            .map(|file| fs::read(load.directory.join(&file.relative)).unwrap())
            .collect();
        let sizes: Vec<usize> = contents.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2 << 20, 2 << 20, (1 << 20) + 7]);
        assert!(contents[0] != contents[1]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&contents[0]).unwrap();
        assert!(packed.finish().unwrap().len() > 2 << 20);
        load.make_cold().unwrap();
        load.remove().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_begun_is_removed_when_stopped_or_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let load = plan(parent.path(), 8 << 20, 1 << 20).unwrap();
        let (trigger, stop) = Drain::new();
        trigger.start();
        let error = load.generate(&AtomicU64::new(0), &stop).unwrap_err();
        assert!(format!("{error:#}").ends_with("interrupted"), "{error:#}");
        drop(load);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn too_many_files_and_too_little_room_are_told_before_anything_is_written() {
        let parent = tempfile::tempdir().unwrap();
        let text = |size, file| plan(parent.path(), size, file).unwrap_err().to_string();
        assert!(text(1 << 30, 1).contains("100000 at most"));
        assert!(text(1 << 62, 1 << 60).contains("give a smaller --size"));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        assert!(plan(&parent.path().join("none"), 1, 1).is_err());
    }

    #[test]
    fn given_files_are_found_below_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("b/chunks")).unwrap();
        fs::write(parent.path().join("b/chunks/000001"), "12345").unwrap();
        fs::write(parent.path().join("b/index"), "123").unwrap();
        std::os::unix::fs::symlink("index", parent.path().join("b/link")).unwrap();
        let load = Load::given(parent.path()).unwrap();
        let names: Vec<_> = load
            .files
            .iter()
            .map(|file| file.relative.clone())
            .collect();
        assert_eq!(names, ["b/chunks/000001", "b/index"].map(PathBuf::from));
        assert_eq!((load.size_bytes(), load.is_generated()), (8, false));
        load.remove().unwrap();
        assert!(parent.path().join("b/index").exists());
        let empty = tempfile::tempdir().unwrap();
        assert!(Load::given(empty.path()).is_err());
    }
}
