//! Keeping a block's files while they are shipped.
//!
//! Prometheus may delete a block at any moment. Hard links below `thanos/upload/<ULID>` keep its
//! files until they are in the bucket, across restarts too; where links can't be made, held
//! descriptors keep them as long as the block is being sent. `meta.json` is linked last, so what is
//! staged and has one is whole. Staging is removed once the block is in the bucket.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::disk::{Dir, DiskError, DiskFile, Entry, EntryKind, FileIdentity, FileStamp};
use crate::model::BlockId;
use crate::tsdb::{BlockMeta, MetaError};

use super::overlap::META_BYTES_MAX;

/// Where blocks are staged, below the data directory; the reference's place.
const UPLOAD_DIR: &str = "thanos/upload";

/// Files without which there is no block, whatever else there is, in the order in which they are
/// linked.
const ESSENTIAL: [&str; 2] = ["index", "meta.json"];

/// The end of the name of a staging that is being made.
const NEXT: &str = "next";

/// Permissions of the staging directories before the umask.
const STAGING_MODE: u32 = 0o750;

/// A block's files, held open, in the order in which they are shipped.
#[derive(Debug)]
pub(super) struct BlockFiles {
    /// The block.
    pub(super) id: BlockId,
    /// Its `meta.json`.
    pub(super) meta: BlockMeta,
    /// Its chunk segments in name order; the position is the upper half of a chunk reference.
    pub(super) segments: Vec<SegmentFile>,
    /// Its index.
    pub(super) index: DiskFile,
    /// Its `meta.json` as a file, to be read once more before it is published.
    pub(super) meta_file: DiskFile,
}

/// A chunk segment.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    /// The bare name, `000001`.
    pub(super) name: String,
    /// The content.
    pub(super) file: DiskFile,
}

/// What tells the content of a block from a later one, without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, FileStamp>);

/// Why the files of a block can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum BlockFilesError {
    /// The block is gone: Prometheus deleted it.
    #[error("the block is gone")]
    Vanished,
    /// A file that every block has is not there.
    #[error("{} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file can't be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// `meta.json` is not what it should be.
    #[error("{}", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MetaError,
    },
    /// `meta.json` is that of another block.
    #[error("{} says it belongs to block {found}", path.display())]
    OtherBlock {
        /// The file.
        path: PathBuf,
        /// The ULID it tells.
        found: BlockId,
    },
}

impl BlockFilesError {
    /// Whether what is on the disk can't be shipped as it is, however often it is tried.
    pub(super) fn is_proven(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Meta { .. } | Self::OtherBlock { .. } => true,
            Self::Disk(error) => error.leads_out(),
            Self::Vanished => false,
        }
    }
}

/// The staging directory of one data directory.
#[derive(Clone, Debug)]
pub(super) struct UploadDir {
    data: Dir,
}

// === impl UploadDir ===

impl UploadDir {
    pub(super) fn new(data: Dir) -> Self {
        Self { data }
    }

    /// The staging directory, below the data directory.
    pub(super) fn root() -> &'static str {
        UPLOAD_DIR
    }

    /// Makes the staging directory where it is missing.
    pub(super) async fn make(data: &Dir) -> Result<(), DiskError> {
        data.create_dirs(UPLOAD_DIR, STAGING_MODE).await
    }

    /// The path of a staged block, below the data directory.
    pub(super) fn path(id: BlockId) -> PathBuf {
        Path::new(UPLOAD_DIR).join(id.to_string())
    }

    /// Blocks that are staged. What a crash left half-way is finished or removed.
    pub(super) async fn staged(&self) -> Result<Vec<BlockId>, DiskError> {
        let entries = match self.data.list(UPLOAD_DIR).await {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ids = Vec::new();
        for entry in entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
        {
            let path = Path::new(&entry.name);
            let name = path.file_stem().and_then(OsStr::to_str);
            let Some(id) = name.and_then(BlockId::from_file_name) else {
                continue;
            };
            match path.extension().and_then(OsStr::to_str) {
                None => ids.push(id),
                Some(NEXT) if self.finish(id, &entries).await? => ids.push(id),
                Some(_) => {}
            }
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// A crash came while `<ULID>.next` was to take the place of `<ULID>`; whether there is a
    /// staging now.
    async fn finish(&self, id: BlockId, entries: &[Entry]) -> Result<bool, DiskError> {
        let (staging, next) = (Self::path(id), Self::path(id).with_extension(NEXT));
        let is_staged = entries.iter().any(|entry| entry.name == *id.to_string());
        if is_staged || self.data.kind(next.join("meta.json")).await?.is_none() {
            self.data.remove_tree(&next).await?;
            return Ok(is_staged);
        }
        self.data.rename(&next, &staging).await?;
        Ok(true)
    }

    /// Links the files of a block of the data directory and opens them. Where no links can be
    /// made, they are opened where they are.
    ///
    /// What is staged whole is never given up before something whole takes its place: Prometheus
    /// may delete the source at any moment, and the links are then the only copy.
    pub(super) async fn stage(&self, id: BlockId) -> Result<BlockFiles, BlockFilesError> {
        let source = PathBuf::from(id.to_string());
        let staged = Fingerprint::take(&self.data, &Self::path(id)).await;
        let there = Fingerprint::take(&self.data, &source).await;
        if staged.is_staging_of(&there) {
            return self.open(id).await;
        }
        match self.link(id, &source).await {
            Ok(()) => self.open(id).await,
            Err(error) if error.is_link_refused() => {
                tracing::info!(
                    block = %id, err = %crate::model::ErrorChain(&error),
                    "hard links can't be made here, so the block's files are held open instead"
                );
                BlockFiles::open(&self.data, id, &source).await
            }
            Err(error) => match whether_vanished(&self.data, &source, error).await {
                BlockFilesError::Vanished if staged.is_whole() => self.open(id).await,
                error => Err(error),
            },
        }
    }

    /// Opens what is staged.
    pub(super) async fn open(&self, id: BlockId) -> Result<BlockFiles, BlockFilesError> {
        BlockFiles::open(&self.data, id, &Self::path(id)).await
    }

    /// Whether what is staged surely lacks a file that every block has.
    pub(super) async fn is_remnant(&self, id: BlockId) -> bool {
        for name in ESSENTIAL {
            // An error tells nothing: only what is certainly not there is missing.
            if matches!(self.data.kind(Self::path(id).join(name)).await, Ok(None)) {
                return true;
            }
        }
        false
    }

    /// Removes the staging of a block.
    pub(super) async fn remove(&self, id: BlockId) -> Result<(), DiskError> {
        self.data.remove_tree(Self::path(id)).await
    }

    /// Links into a directory beside, which takes the place of what is staged only when it is
    /// whole.
    pub(super) async fn link(&self, id: BlockId, source: &Path) -> Result<(), DiskError> {
        let staging = Self::path(id);
        let next = staging.with_extension(NEXT);
        self.data.remove_tree(&next).await?;
        self.data
            .create_dirs(next.join("chunks"), STAGING_MODE)
            .await?;
        for name in segment_names(&self.data, source).await? {
            let (from, to) = (
                source.join("chunks").join(&name),
                next.join("chunks").join(name),
            );
            self.data.hard_link(from, to).await?;
        }
        for name in ESSENTIAL {
            self.data
                .hard_link(source.join(name), next.join(name))
                .await?;
        }
        self.data.remove_tree(&staging).await?;
        self.data.rename(&next, &staging).await
    }
}

// === impl BlockFiles ===

impl BlockFiles {
    /// Opens every file of the block in `base`, a directory below `data`. Messages name the files
    /// of a staged block as what they are to Prometheus.
    pub(super) async fn open(
        data: &Dir,
        id: BlockId,
        base: &Path,
    ) -> Result<Self, BlockFilesError> {
        match Self::try_open(data, id, base).await {
            Err(BlockFilesError::Disk(error)) => Err(whether_vanished(data, base, error).await),
            outcome => outcome,
        }
    }

    async fn try_open(data: &Dir, id: BlockId, base: &Path) -> Result<Self, BlockFilesError> {
        let source = PathBuf::from(id.to_string());
        // A block that is only staged any more has no other place to be named by.
        let is_in_place = data.kind(&source).await?.is_some();
        let known_as = data.path().join(if is_in_place { &source } else { base });
        let meta = read_meta(data, id, base).await?;
        let mut segments = Vec::new();
        for name in segment_names(data, base).await? {
            let relative = Path::new("chunks").join(&name);
            let file = data.open_file(base.join(&relative)).await?;
            segments.push(SegmentFile {
                name,
                file: file.known_as(known_as.join(relative)),
            });
        }
        let index = data
            .open_file(base.join("index"))
            .await?
            .known_as(known_as.join("index"));
        let meta_file = data.open_file(base.join("meta.json")).await?;
        let meta_file = meta_file.known_as(known_as.join("meta.json"));
        Ok(Self {
            id,
            meta,
            segments,
            index,
            meta_file,
        })
    }

    /// Bytes of segments and index.
    pub(super) fn size_bytes(&self) -> u64 {
        let segments = self
            .segments
            .iter()
            .map(|segment| segment.file.size_bytes());
        segments.sum::<u64>() + self.index.size_bytes()
    }

    /// Whether `fingerprint` is of the files which are open here.
    pub(super) fn are_as_in(&self, fingerprint: &Fingerprint) -> bool {
        let segments = self.segments.iter().map(|segment| {
            (
                Path::new("chunks").join(&segment.name),
                segment.file.identity(),
            )
        });
        let others = [("index", &self.index), ("meta.json", &self.meta_file)];
        let others = others.map(|(name, file)| (PathBuf::from(name), file.identity()));
        let open: BTreeMap<PathBuf, FileIdentity> = segments.chain(others).collect();
        open == fingerprint.identities()
    }
}

/// The `meta.json` of the block in `base`.
pub(super) async fn read_meta(
    data: &Dir,
    id: BlockId,
    base: &Path,
) -> Result<BlockMeta, BlockFilesError> {
    let relative = base.join("meta.json");
    let path = data.path().join(&relative);
    let (bytes, _) = match data.read_small(&relative, META_BYTES_MAX).await {
        Ok(read) => read,
        Err(error) => return Err(whether_vanished(data, base, error).await),
    };
    let meta = BlockMeta::parse(&bytes).map_err(|source| BlockFilesError::Meta {
        path: path.clone(),
        source,
    })?;
    if meta.ulid != id {
        return Err(BlockFilesError::OtherBlock {
            path,
            found: meta.ulid,
        });
    }
    Ok(meta)
}

/// Tells a block that is gone from one that lacks a file. Only Prometheus' own directory can tell:
/// what lacks in our staging was removed by someone else, and is there again at the next try.
async fn whether_vanished(data: &Dir, base: &Path, error: DiskError) -> BlockFilesError {
    if !error.is_not_found() || base.starts_with(UPLOAD_DIR) {
        return BlockFilesError::Disk(error);
    }
    match data.kind(base).await {
        Ok(None) => BlockFilesError::Vanished,
        Ok(Some(_)) => BlockFilesError::Missing { path: error.path },
        Err(error) => BlockFilesError::Disk(error),
    }
}

/// The names of the chunk segments, sorted. Other names are no part of a block: Prometheus reads
/// numbers only (contract `tsdb.md` §4).
async fn segment_names(data: &Dir, base: &Path) -> Result<Vec<String>, DiskError> {
    let mut names = Vec::new();
    for entry in data.list(base.join("chunks")).await? {
        match entry.name.into_string() {
            Ok(name) if is_segment_name(name.as_ref()) => names.push(name),
            other => tracing::debug!(
                directory = %base.display(), name = ?other,
                "ignoring a file among the chunk segments that is none"
            ),
        }
    }
    Ok(names)
}

fn is_segment_name(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

// === impl Fingerprint ===

impl Fingerprint {
    /// What is there now of the block in `base`: each file that is part of a block, and what
    /// identifies its content. What can't be looked at is left out.
    pub(super) async fn take(data: &Dir, base: &Path) -> Self {
        let mut stamps = BTreeMap::new();
        let mut names = vec![PathBuf::from("meta.json"), PathBuf::from("index")];
        let chunks = data.list(base.join("chunks")).await.unwrap_or_default();
        let segments = chunks
            .into_iter()
            .filter(|entry| is_segment_name(&entry.name));
        names.extend(segments.map(|entry| Path::new("chunks").join(entry.name)));
        for name in names {
            if let Ok(stamp) = data.stamp(base.join(&name)).await {
                stamps.insert(name, stamp);
            }
        }
        Self(stamps)
    }

    /// Whether this, of a staging, is of links to all that `source` is of, or of a whole block
    /// whose source is gone.
    fn is_staging_of(&self, source: &Self) -> bool {
        let source_is_gone = source.0.is_empty();
        self.is_whole() && (source_is_gone || self.identities() == source.identities())
    }

    /// `meta.json` is linked last here, and before the index by the reference.
    fn is_whole(&self) -> bool {
        ["meta.json", "index"]
            .iter()
            .all(|name| self.0.contains_key(Path::new(name)))
    }

    /// Without the times of the last change of status, which links of ours change too.
    fn identities(&self) -> BTreeMap<PathBuf, FileIdentity> {
        self.0
            .iter()
            .map(|(name, stamp)| (name.clone(), stamp.identity))
            .collect()
    }
}
