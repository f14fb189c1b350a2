//! What of a block is in the bucket already, kept across restarts
//! (`thanos/upload/<ULID>.resume.json`).
//!
//! Nothing is trusted on its word: a file whose inode, size or modification time is another starts
//! over, and what is told to be in the bucket is read from the disk and verified again, only not
//! sent again. A lost or damaged document costs bytes, never a block.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::progress::Progress;
use super::stage::UploadDir;
use crate::disk::{Dir, DiskError, DiskFile};
use crate::model::{BlockId, ErrorChain};
use crate::objstore::{MultipartState, UploadProgress};

/// The end of the documents' names.
const EXTENSION: &str = "resume.json";

/// The one version there is.
const VERSION: u32 = 1;

/// Ten thousand parts take about 1.5 MiB.
const BYTES_MAX: u64 = 64 << 20;

/// The state of one block's upload.
#[derive(Clone, Debug)]
pub(super) struct Resume(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data: Dir,
    path: PathBuf,
    document: Mutex<Document>,
    progress: Progress,
    /// Whether it was said that the document can't be written: once is enough.
    is_unwritable: AtomicBool,
}

/// The state of one file's upload.
#[derive(Clone, Debug)]
pub(super) struct FileProgress {
    resume: Resume,
    rel_path: String,
    identity: Identity,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    block: BlockId,
    files: BTreeMap<String, FileState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FileState {
    file: Identity,
    reached: Reached,
}

/// How far a file got.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reached {
    /// The bucket has the object.
    Sent { crc64: u64 },
    /// The bucket has some parts of it.
    Parts(MultipartState),
}

/// What tells that a file is still the one that was sent. The device is left out: its number
/// changes when a volume is mounted elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    inode: u64,
    size_bytes: u64,
    mtime_ns: i64,
}

// === impl Resume ===

impl Resume {
    /// Reads what an earlier try kept of this block; nothing where there was none.
    pub(super) async fn open(data: &Dir, block: BlockId, progress: Progress) -> Self {
        let path = document_path(block);
        let document = match read(data, block, &path).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    %block, err = %ErrorChain(&*error),
                    "what was sent of this block before is not known; starting over"
                );
                None
            }
        };
        Self(Arc::new(Inner {
            data: data.clone(),
            path,
            document: Mutex::new(document.unwrap_or(Document {
                version: VERSION,
                block,
                files: BTreeMap::new(),
            })),
            progress,
            is_unwritable: AtomicBool::new(false),
        }))
    }

    /// The progress of one of the block's files.
    pub(super) fn file(&self, rel_path: &str, file: &DiskFile) -> FileProgress {
        FileProgress {
            resume: self.clone(),
            rel_path: rel_path.to_owned(),
            identity: Identity::of(file),
        }
    }

    /// Uploads in parts of files that have been replaced since; they will not be finished.
    pub(super) async fn take_stale(&self, current: &[FileProgress]) -> Vec<MultipartState> {
        let mut document = self.0.document.lock().await;
        let is_current = |rel_path: &String, state: &FileState| {
            current
                .iter()
                .any(|file| file.rel_path == *rel_path && file.identity == state.file)
        };
        let stale = document
            .files
            .extract_if(.., |rel_path, state| !is_current(rel_path, state));
        stale
            .filter_map(|(_, state)| state.reached.upload())
            .collect()
    }

    async fn set(&self, rel_path: &str, state: Option<FileState>) {
        let mut document = self.0.document.lock().await;
        match state {
            Some(state) => document.files.insert(rel_path.to_owned(), state),
            None => document.files.remove(rel_path),
        };
        let json = serde_json::to_vec(&*document).expect("a map of plain values is JSON");
        // Held while it is written, so that an older state never takes the place of a newer one.
        if let Err(error) = self.write(json).await
            && !self.0.is_unwritable.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                block = %document.block, err = %ErrorChain(&error), remedy = error.remedy(),
                "the progress of an upload can't be kept; after a restart it is sent again"
            );
        }
    }

    async fn write(&self, json: Vec<u8>) -> Result<(), DiskError> {
        let Inner { data, path, .. } = &*self.0;
        match data.write_atomic_unsynced(path, json.clone()).await {
            // Only before the first block is staged; not looked at each time.
            Err(error) if error.is_not_found() => UploadDir::make(data).await?,
            outcome => return outcome,
        }
        data.write_atomic_unsynced(path, json).await
    }
}

// === impl FileProgress ===

impl FileProgress {
    /// The checksum of what was sent, where the whole file was.
    pub(super) async fn sent(&self) -> Option<u64> {
        match self.reached().await? {
            Reached::Sent { crc64 } => Some(crc64),
            Reached::Parts(_) => None,
        }
    }

    /// The bucket has the whole file; without a checksum it can't be told from another one later.
    pub(super) async fn finished(&self, crc64: Option<u64>) {
        let Identity { size_bytes, .. } = self.identity;
        self.resume.0.progress.set(&self.rel_path, size_bytes);
        let state = crc64.map(|crc64| FileState {
            file: self.identity,
            reached: Reached::Sent { crc64 },
        });
        if state.is_some() || self.reached().await.is_some() {
            self.resume.set(&self.rel_path, state).await;
        }
    }

    async fn reached(&self) -> Option<Reached> {
        let document = self.resume.0.document.lock().await;
        let state = document.files.get(&self.rel_path)?;
        (state.file == self.identity).then(|| state.reached.clone())
    }
}

#[async_trait]
impl UploadProgress for FileProgress {
    async fn earlier(&self) -> Option<MultipartState> {
        self.reached().await?.upload()
    }

    async fn keep(&self, upload: Option<&MultipartState>) {
        if upload.is_none() {
            self.resume.0.progress.set(&self.rel_path, 0);
        }
        let state = upload.map(|upload| FileState {
            file: self.identity,
            reached: Reached::Parts(upload.clone()),
        });
        self.resume.set(&self.rel_path, state).await;
    }

    fn advanced(&self, bytes: u64) {
        self.resume.0.progress.add(&self.rel_path, bytes);
    }
}

// === impl Reached ===

impl Reached {
    /// The upload in parts that is open.
    fn upload(self) -> Option<MultipartState> {
        match self {
            Self::Parts(upload) => Some(upload),
            Self::Sent { .. } => None,
        }
    }
}

// === impl Identity ===

impl Identity {
    fn of(file: &DiskFile) -> Self {
        let identity = file.identity();
        Self {
            inode: identity.inode,
            size_bytes: identity.size_bytes,
            // 64 bits of nanoseconds reach to the year 2262.
            mtime_ns: i64::try_from(identity.mtime_ns).unwrap_or(i64::MAX),
        }
    }
}

fn document_path(block: BlockId) -> PathBuf {
    UploadDir::path(block).with_extension(EXTENSION)
}

/// Blocks of which a document is kept.
pub(super) async fn kept(data: &Dir) -> Result<BTreeSet<BlockId>, DiskError> {
    let entries = match data.list(UploadDir::root()).await {
        Err(error) if error.is_not_found() => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let names = entries.iter().filter_map(|entry| entry.name.to_str());
    let stems = names.filter_map(|name| Some(name.split_once(&format!(".{EXTENSION}"))?.0));
    let kept: BTreeSet<_> = stems.filter_map(BlockId::from_file_name).collect();
    Ok(kept)
}

/// The uploads in parts that the document of a block tells of: to be given up before it is removed,
/// where the block will not be sent any more.
pub(super) async fn left_open(data: &Dir, block: BlockId) -> Vec<MultipartState> {
    let found = read(data, block, &document_path(block)).await;
    let files = found.ok().flatten().map(|document| document.files);
    let states = files.unwrap_or_default().into_values();
    states.filter_map(|state| state.reached.upload()).collect()
}

/// Removes the document of a block, and what a crash left of one being written.
pub(super) async fn remove(data: &Dir, block: BlockId) -> Result<(), DiskError> {
    let root = UploadDir::root();
    let name = format!("{block}.{EXTENSION}");
    let entries = match data.list(root).await {
        Err(error) if error.is_not_found() => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        if entry
            .name
            .to_str()
            .is_some_and(|found| found.starts_with(&name))
        {
            data.remove_file(Path::new(root).join(entry.name)).await?;
        }
    }
    Ok(())
}

/// `None` where there is no document.
async fn read(
    data: &Dir,
    block: BlockId,
    path: &PathBuf,
) -> Result<Option<Document>, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = match data.read_small(path, BYTES_MAX).await {
        Ok((bytes, _)) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let document: Document = serde_json::from_slice(&bytes)?;
    if document.version != VERSION || document.block != block {
        return Err("it is of another version or of another block".into());
    }
    Ok(Some(document))
}

#[cfg(test)]
mod tests;
