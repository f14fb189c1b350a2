//! A directory as a bucket (`type: FILESYSTEM`, contract `objstore.md` §4).
//!
//! Unlike the reference's, an upload here is atomic and durable: written beside, synced, renamed,
//! directory synced. A reader never sees half an object, not even after a crash.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use super::{
    Attributes, Bucket, BucketError, ErrorKind, ListEntry, Listing, ObjectKey, ObjectReader, Pace,
    UploadSource, Uploaded,
};
use crate::disk::{
    AtomicWriter, BufferPool, Containment, Dir, DiskEngine, DiskError, EntryKind, Faults, ReadMode,
};

/// Permissions of directories before the umask, as the reference's.
const DIRECTORY_MODE: u32 = 0o777;

/// Buffers for reading objects back: each run is copied out before the next is read.
const READ_BUFFERS: usize = 1;

/// A bucket in a directory. The directory is made at the first upload.
#[derive(Debug)]
pub struct FilesystemBucket {
    root: PathBuf,
    name: String,
    engine: DiskEngine,
    reader: DiskEngine,
    faults: Faults,
    pace: Option<Pace>,
}

impl FilesystemBucket {
    /// A bucket in `root`, an absolute path.
    pub fn new(root: PathBuf) -> Self {
        Self::with_faults(root, Faults::default())
    }

    /// As [`FilesystemBucket::new`], with faults to inject.
    pub fn with_faults(root: PathBuf, faults: Faults) -> Self {
        let name = format!("fs: {}", root.display());
        let reader = DiskEngine::new(BufferPool::new(READ_BUFFERS));
        Self {
            root,
            name,
            engine: reader.clone(),
            reader,
            faults,
            pace: None,
        }
    }

    /// The same bucket, read and written by `engine`.
    #[must_use]
    pub fn with_engine(self, engine: &DiskEngine) -> Self {
        Self {
            reader: engine.with_pool(BufferPool::new(READ_BUFFERS)),
            engine: engine.clone(),
            ..self
        }
    }

    /// The same bucket, written no faster than `pace` allows.
    #[must_use]
    pub fn with_pace(self, pace: Option<Pace>) -> Self {
        Self { pace, ..self }
    }

    async fn open_root(&self) -> Result<Dir, DiskError> {
        Dir::open_with_faults(&self.root, Containment::Unconfined, self.faults.clone()).await
    }

    /// The root, made where it is missing.
    async fn make_root(&self) -> Result<Dir, DiskError> {
        match self.open_root().await {
            Err(error) if error.is_not_found() => {
                let (from, relative) = self.nearest().await?;
                from.create_dirs(relative, DIRECTORY_MODE).await?;
                self.open_root().await
            }
            outcome => outcome,
        }
    }

    /// The nearest directory above the root that is there, and the root's path below it. Those
    /// above that one need not be open to us.
    async fn nearest(&self) -> Result<(Dir, &Path), DiskError> {
        let mut above = self.root.ancestors().skip(1).peekable();
        while let Some(path) = above.next() {
            let faults = self.faults.clone();
            match Dir::open_with_faults(path, Containment::Unconfined, faults).await {
                Err(error) if error.is_not_found() && above.peek().is_some() => {}
                opened => {
                    let relative = self.root.strip_prefix(path).unwrap_or(&self.root);
                    return Ok((opened?, relative));
                }
            }
        }
        // The root of the file system, which is always there.
        Ok((self.open_root().await?, Path::new("")))
    }

    async fn write(&self, key: &ObjectKey, source: &dyn UploadSource) -> Result<(), ErrorKind> {
        let root = self.make_root().await?;
        if let Some(parent) = Path::new(key.as_str()).parent() {
            root.create_dirs(parent, DIRECTORY_MODE).await?;
        }
        let writer = root.create_atomic(key.as_str()).await?;
        let mut writer = writer.past_cache(&self.engine, source.size_bytes()).await?;
        match copy(source, &mut writer, self.pace.as_ref()).await {
            Ok(()) => Ok(writer.commit().await?),
            Err(error) => {
                if let Err(leftover) = writer.abandon().await {
                    tracing::debug!(err = %leftover, "partial file stays until the next try");
                }
                Err(error)
            }
        }
    }

    async fn open(&self, key: &ObjectKey) -> Result<crate::disk::DiskFile, DiskError> {
        self.open_root().await?.open_file(key.as_str()).await
    }

    async fn children(&self, directory: Option<&ObjectKey>) -> Result<Vec<ListEntry>, DiskError> {
        let root = self.open_root().await?;
        let path = directory.map_or("", ObjectKey::as_str);
        let mut children = Vec::new();
        for entry in root.list(path).await? {
            let Some(name) = entry.name.to_str() else {
                tracing::warn!(
                    directory = %self.root.join(path).display(), name = ?entry.name,
                    "a name in the bucket is not UTF-8, so no object can have it; ignored"
                );
                continue;
            };
            let whole = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            };
            match entry.kind {
                EntryKind::File if entry.is_partial() => {}
                EntryKind::File => children.push(ListEntry::Object(whole)),
                EntryKind::Directory if !root.list(&whole).await?.is_empty() => {
                    children.push(ListEntry::Directory(whole));
                }
                EntryKind::Directory | EntryKind::Other => {}
            }
        }
        Ok(children)
    }

    /// Removes the file, then the directories that this leaves empty.
    async fn remove(&self, key: &ObjectKey) -> Result<(), DiskError> {
        let root = match self.open_root().await {
            Err(error) if error.is_not_found() => return Ok(()),
            root => root?,
        };
        match root.remove_file(key.as_str()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            outcome => outcome?,
        }
        for parent in Path::new(key.as_str()).ancestors().skip(1) {
            if parent.as_os_str().is_empty() || !root.remove_empty(parent).await? {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Bucket for FilesystemBucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
    ) -> Result<Uploaded, BucketError> {
        let written = self.write(key, source).await;
        written.map_err(|kind| BucketError::new("upload", key.as_str(), kind))?;
        source.progress().advanced(source.size_bytes());
        Ok(Uploaded::default())
    }

    async fn attributes(&self, key: &ObjectKey) -> Result<Attributes, BucketError> {
        let failed = |kind| BucketError::new("stat", key.as_str(), kind);
        // A directory is not an object: what is no regular file is "not found".
        let root = self
            .open_root()
            .await
            .map_err(|error| failed(error.into()))?;
        match root
            .kind(key.as_str())
            .await
            .map_err(|error| failed(error.into()))?
        {
            Some(EntryKind::File) => {}
            _ => return Err(failed(ErrorKind::NotFound)),
        }
        let file = root
            .open_file(key.as_str())
            .await
            .map_err(|error| failed(error.into()))?;
        let last_modified = Timestamp::from_nanosecond(file.identity().mtime_ns);
        Ok(Attributes {
            size_bytes: file.size_bytes(),
            last_modified: last_modified.unwrap_or(Timestamp::UNIX_EPOCH),
            crc64: None,
        })
    }

    async fn get(&self, key: &ObjectKey) -> Result<ObjectReader, BucketError> {
        let failed = |error: DiskError| BucketError::new("get", key.as_str(), error);
        let file = self.open(key).await.map_err(failed)?;
        let runs = self
            .reader
            .runs(&file, 0..file.size_bytes(), ReadMode::Buffered);
        let key = key.as_str().to_owned();
        Ok(
            stream::try_unfold((runs, key), |(mut runs, key)| async move {
                match runs.next(u64::MAX).await {
                    // Copied out of the pool: whoever collects the runs must not starve the next
                    // read. Only metadata is read back.
                    Ok(run) => Ok(run.map(|run| (Bytes::copy_from_slice(&run), (runs, key)))),
                    Err(error) => Err(BucketError::new("get", &key, error)),
                }
            })
            .boxed(),
        )
    }

    async fn list(&self, directory: Option<&ObjectKey>) -> Result<Listing, BucketError> {
        let children = match self.children(directory).await {
            Ok(children) => children,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => {
                let key = directory.map_or("", ObjectKey::as_str);
                return Err(BucketError::new("list", key, error));
            }
        };
        Ok(stream::iter(children.into_iter().map(Ok)).boxed())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        let removed = self.remove(key).await;
        removed.map_err(|error| BucketError::new("delete", key.as_str(), error))
    }
}

/// Copies the source run by run; the length must be what the source said.
async fn copy(
    source: &dyn UploadSource,
    writer: &mut AtomicWriter,
    pace: Option<&Pace>,
) -> Result<(), ErrorKind> {
    let expected_bytes = source.size_bytes();
    let mut given_bytes: u64 = 0;
    let mut runs = source.open().await.map_err(ErrorKind::Source)?;
    // One byte more than there should be shows a source that gives too many.
    while let Some(run) = runs
        .next(expected_bytes - given_bytes + 1)
        .await
        .map_err(ErrorKind::Source)?
    {
        given_bytes += run.len() as u64;
        if given_bytes > expected_bytes {
            break;
        }
        if let Some(pace) = pace {
            pace.pass(run.len() as u64).await;
        }
        writer.write(run).await?;
    }
    if given_bytes == expected_bytes {
        Ok(())
    } else {
        Err(ErrorKind::SourceLength {
            expected_bytes,
            given_bytes,
        })
    }
}
