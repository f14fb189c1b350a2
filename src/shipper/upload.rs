//! One block into the bucket: segments, index, confirmation, then `meta.json`
//! (contract `shipper.md` §5, with the verification that the reference lacks).

use std::pin::pin;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::error::VerifyError;
use super::flushed::FlushedError;
use super::overlap::read_object;
use super::resume::{FileProgress, Resume};
use super::source::{HashFunc, IndexSource, Outcome, SegmentSource};
use super::stage::{BlockFiles, BlockFilesError, SegmentFile};
use super::verify::{VerifiedIndex, check_totals, file_digest, verify_index};
use crate::disk::{Dir, DiskEngine, DiskFile, ReadMode};
use crate::model::{BlockId, Clock, ErrorChain, ExternalLabels};
use crate::objstore::{
    Bucket, BucketError, ErrorKind, MemorySource, MultipartState, ObjectKey, UploadSource,
};
use crate::trace::Span;
use crate::tsdb::{BlockMeta, BlockTotals, FileHash, ThanosFile};

/// Why a block was not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The external labels are not known, or Prometheus has none any more.
    #[error("empty external labels are not allowed for Thanos block.")]
    NoLabels,
    /// Its files can't be had.
    #[error(transparent)]
    Files(#[from] BlockFilesError),
    /// Its files could not be read, or looked damaged and were whole at the second look.
    #[error("read the block")]
    Read(#[source] VerifyError),
    /// Its files are damaged, which a second read past the page cache confirmed.
    #[error("the block is corrupted")]
    Corrupt(#[source] VerifyError),
    /// The bucket failed.
    #[error("send the block")]
    Bucket(#[from] BucketError),
    /// A flushed block could not be taken out of its way.
    #[error("make way for the block")]
    MakeWay(#[from] FlushedError),
    /// The bucket says "done" and has not what was sent.
    #[error("object `{key}` has {found_bytes} bytes in the bucket instead of {expected_bytes}")]
    NotConfirmed {
        /// The object.
        key: ObjectKey,
        /// What was sent.
        expected_bytes: u64,
        /// What the bucket has.
        found_bytes: u64,
    },
    /// The bucket says "done" and its checksum is not that of what was sent.
    #[error("object `{key}` has another checksum in the bucket than what was sent")]
    OtherContent {
        /// The object.
        key: ObjectKey,
    },
}

impl UploadError {
    /// What an operator can do about it, where the text alone does not say.
    pub(super) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoLabels => Some("set global.external_labels in Prometheus' configuration"),
            Self::Bucket(error) => error.remedy(),
            Self::MakeWay(error) => error.remedy(),
            Self::Files(BlockFilesError::Disk(error)) => error.remedy(),
            Self::Read(VerifyError::Disk(error)) => error.remedy(),
            _ => None,
        }
    }
}

/// The upload of one block.
#[derive(Debug)]
pub(super) struct BlockUpload<'a> {
    pub(super) bucket: &'a dyn Bucket,
    pub(super) engine: &'a DiskEngine,
    /// Where temporary files may be made.
    pub(super) scratch: &'a Dir,
    pub(super) files: &'a BlockFiles,
    pub(super) hash_func: HashFunc,
    /// What is in the bucket already.
    pub(super) resume: &'a Resume,
    /// Segments sent at a time.
    pub(super) concurrency: usize,
}

/// A block of which everything but `meta.json` is in the bucket, proven and confirmed.
pub(super) struct Uploaded(Vec<Sent>);

/// An object that was sent, to be confirmed and then listed in `meta.json`.
pub(super) struct Sent {
    key: ObjectKey,
    file: ThanosFile,
    /// CRC-64/NVME of what was sent, where the bucket told.
    crc64: Option<u64>,
}

/// The name of a block's `meta.json` in the bucket, whose presence makes the block visible.
pub(super) fn meta_key(id: BlockId) -> ObjectKey {
    object_key(id, "meta.json")
}

/// The name of a block's index, in its directory and in the bucket.
const INDEX: &str = "index";

pub(super) fn object_key(id: BlockId, rel_path: &str) -> ObjectKey {
    ObjectKey::new(format!("{id}/{rel_path}")).expect("a ULID and a block's file name are a key")
}

impl BlockUpload<'_> {
    /// Uploads the block but for its `meta.json`, and confirms what was sent.
    pub(super) async fn upload(&self) -> Result<Uploaded, UploadError> {
        self.abandon_stale().await;
        let sent = match self.send(ReadMode::Buffered).await {
            Err(UploadError::Read(error)) if error.is_damage() => self.send_again(error).await?,
            outcome => outcome?,
        };
        for Sent { key, file, crc64 } in &sent {
            self.confirm(key, file.size_bytes, *crc64).await?;
        }
        self.check_meta().await?;
        Ok(Uploaded(sent))
    }

    /// Publishes what was uploaded; how many bytes the block has.
    pub(super) async fn publish(
        &self,
        Uploaded(sent): Uploaded,
        labels: &ExternalLabels,
        clock: &Clock,
    ) -> Result<u64, UploadError> {
        self.put_meta(&published_meta(self.files, labels, &sent, clock))
            .await?;
        Ok(sent.iter().map(|sent| sent.file.size_bytes).sum())
    }

    /// A second opinion on bytes that looked damaged: the same once more, past the page cache.
    /// Damage there is damage on the disk.
    async fn send_again(&self, first: VerifyError) -> Result<Vec<Sent>, UploadError> {
        self.check_meta().await?;
        match self.send(ReadMode::Direct).await {
            Ok(sent) => {
                tracing::warn!(
                    block = %self.files.id, err = %ErrorChain(&first),
                    "a block looked damaged and is whole on the disk: \
                     memory or the path to the disk may be failing"
                );
                Ok(sent)
            }
            Err(UploadError::Read(second)) if second.is_damage() => {
                Err(UploadError::Corrupt(second))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads `meta.json` once more, past the page cache: no checksum guards it.
    async fn check_meta(&self) -> Result<(), UploadError> {
        let file = &self.files.meta_file;
        let read = self
            .engine
            .read_exact(file, 0..file.size_bytes(), ReadMode::Direct)
            .await;
        let bytes = read.map_err(|error| UploadError::Read(error.into()))?;
        if BlockMeta::parse(&bytes).is_ok_and(|meta| meta == self.files.meta) {
            return Ok(());
        }
        Err(UploadError::Read(VerifyError::Changed {
            path: file.path().to_owned(),
        }))
    }

    /// Sends everything but `meta.json`.
    async fn send(&self, mode: ReadMode) -> Result<Vec<Sent>, UploadError> {
        // Before the first byte is sent: an index that is damaged would make the rest pointless.
        let index = verify_index(self.engine, self.scratch, self.files, mode).await;
        let index = index.map_err(UploadError::Read)?;
        let mut segments = Vec::new();
        for (position, segment) in (0..).zip(&self.files.segments) {
            let source = SegmentSource {
                engine: self.engine,
                segment,
                position,
                refs: &index.refs,
                mode,
                hash_func: self.hash_func,
                progress: self.progress_of(&segment_path(segment), &segment.file),
                outcome: Outcome::default(),
            };
            segments.push(self.send_segment(source).boxed());
        }
        let segments: Vec<(Sent, BlockTotals)> = stream::iter(segments)
            .buffered(self.concurrency)
            .try_collect()
            .await?;
        let mut totals = BlockTotals::default();
        let mut sent = Vec::new();
        for (segment, segment_totals) in segments {
            totals.add(segment_totals);
            sent.push(segment);
        }
        check_totals(self.files, &index, &totals).map_err(UploadError::Read)?;
        sent.push(self.send_index(&index, mode).await?);
        Ok(sent)
    }

    async fn send_segment(
        &self,
        source: SegmentSource<'_>,
    ) -> Result<(Sent, BlockTotals), UploadError> {
        let rel_path = segment_path(source.segment);
        let key = object_key(self.files.id, &rel_path);
        let crc64 = self.send_source(&key, &source, &source.progress).await?;
        let (totals, hash) = source.outcome.take().ok_or_else(|| unread(&key))?;
        let file = thanos_file(rel_path, source.size_bytes(), hash);
        Ok((Sent { key, file, crc64 }, totals))
    }

    async fn send_index(&self, index: &VerifiedIndex, mode: ReadMode) -> Result<Sent, UploadError> {
        let key = object_key(self.files.id, INDEX);
        let source = IndexSource {
            engine: self.engine,
            index: &self.files.index,
            crc64: index.crc64,
            mode,
            hash_func: self.hash_func,
            progress: self.progress_of(INDEX, &self.files.index),
            outcome: Outcome::default(),
        };
        let crc64 = self.send_source(&key, &source, &source.progress).await?;
        let hash = source.outcome.take().ok_or_else(|| unread(&key))?;
        let file = thanos_file(INDEX.to_owned(), source.size_bytes(), hash);
        Ok(Sent { key, file, crc64 })
    }

    fn progress_of(&self, rel_path: &str, file: &DiskFile) -> FileProgress {
        self.resume.file(rel_path, file)
    }

    /// Gives up what was begun with files that have been replaced since.
    async fn abandon_stale(&self) {
        let segments = self.files.segments.iter();
        let mut current: Vec<_> = segments
            .map(|segment| self.progress_of(&segment_path(segment), &segment.file))
            .collect();
        current.push(self.progress_of(INDEX, &self.files.index));
        for upload in self.resume.take_stale(&current).await {
            abandon(self.bucket, self.files.id, &upload).await;
        }
    }

    /// Sends a file, or only reads and verifies it where an earlier try has sent it.
    async fn send_source(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
        progress: &FileProgress,
    ) -> Result<Option<u64>, UploadError> {
        let span = Span::child("ship_file");
        span.note_with("name", || key.to_string());
        span.count("size_bytes", source.size_bytes());
        let sending = pin!(self.send_source_in_span(key, source, progress));
        let outcome = span.around(sending).await;
        if let Err(error) = &outcome {
            span.fail(&ErrorChain(error));
        }
        outcome
    }

    async fn send_source_in_span(
        &self,
        key: &ObjectKey,
        source: &dyn UploadSource,
        progress: &FileProgress,
    ) -> Result<Option<u64>, UploadError> {
        if let Some(crc64) = progress.sent().await
            && self.has(key, source.size_bytes(), crc64).await?
            && read_through(key, source).await? == crc64
        {
            tracing::debug!(%key, "this object is in the bucket already");
            progress.finished(Some(crc64)).await;
            return Ok(Some(crc64));
        }
        let uploaded = self.bucket.upload(key, source).await.map_err(of_source)?;
        progress.finished(uploaded.crc64).await;
        Ok(uploaded.crc64)
    }

    async fn has(&self, key: &ObjectKey, size_bytes: u64, crc64: u64) -> Result<bool, UploadError> {
        match self.bucket.attributes(key).await {
            Ok(found) => Ok(found.size_bytes == size_bytes && is_same(found.crc64, Some(crc64))),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the bucket for size and, where it keeps one, checksum of what was sent.
    async fn confirm(
        &self,
        key: &ObjectKey,
        expected_bytes: u64,
        expected_crc64: Option<u64>,
    ) -> Result<(), UploadError> {
        let found = self.bucket.attributes(key).await?;
        if found.size_bytes != expected_bytes {
            return Err(UploadError::NotConfirmed {
                key: key.clone(),
                expected_bytes,
                found_bytes: found.size_bytes,
            });
        }
        if !is_same(found.crc64, expected_crc64) {
            return Err(UploadError::OtherContent { key: key.clone() });
        }
        Ok(())
    }

    /// Makes the block visible. An error may hide a success, so the bucket is asked what it has;
    /// nothing is deleted.
    async fn put_meta(&self, meta: &BlockMeta) -> Result<(), UploadError> {
        let key = meta_key(self.files.id);
        let bytes = meta.to_json();
        let source = MemorySource(bytes.clone().into());
        let Err(error) = self.bucket.upload(&key, &source).await else {
            // Prometheus may delete the block once it is recorded: not on an answer alone.
            return self.confirm(&key, bytes.len() as u64, None).await;
        };
        match read_object(self.bucket, &key).await {
            Ok(Some(found)) if found == bytes => {
                tracing::info!(
                    block = %self.files.id, err = %ErrorChain(&error),
                    "meta.json is in the bucket although sending it gave an error"
                );
                Ok(())
            }
            _ => Err(error.into()),
        }
    }
}

/// Two checksums differ only where both are known.
fn is_same(found: Option<u64>, expected: Option<u64>) -> bool {
    found
        .zip(expected)
        .is_none_or(|(found, expected)| found == expected)
}

fn segment_path(segment: &SegmentFile) -> String {
    format!("chunks/{}", segment.name)
}

/// Reads and verifies a source to its end; the checksum of its bytes.
async fn read_through(key: &ObjectKey, source: &dyn UploadSource) -> Result<u64, UploadError> {
    let failed = |error| {
        let kind = ErrorKind::Source(error);
        let key = key.to_string();
        of_source(BucketError {
            op: "read",
            key,
            kind,
        })
    };
    let mut digest = file_digest();
    let mut runs = source.open().await.map_err(failed)?;
    while let Some(run) = runs.next(source.size_bytes()).await.map_err(failed)? {
        digest.update(&run);
    }
    Ok(digest.finalize())
}

/// Gives up an upload in parts; where that fails, the bucket's own rules remove it some day.
pub(super) async fn abandon(bucket: &dyn Bucket, block: BlockId, upload: &MultipartState) -> bool {
    let Err(error) = bucket.abandon(upload).await else {
        return true;
    };
    tracing::warn!(
        %block, err = %ErrorChain(&error), remedy = error.remedy(),
        "an upload in parts that will not be finished stays open in the bucket"
    );
    false
}

/// Whether the bucket has this block as it should be: a `meta.json` that tells of it and, where
/// `check_sizes`, every object that it lists. A try of ours that failed in its last step may have
/// left one that promises too much.
pub(super) async fn is_published(
    bucket: &dyn Bucket,
    local: &BlockMeta,
    check_sizes: bool,
) -> Result<bool, BucketError> {
    let id = local.ulid;
    if !bucket.exists(&meta_key(id)).await? {
        return Ok(false);
    }
    let bytes = read_object(bucket, &meta_key(id))
        .await?
        .unwrap_or_default();
    let Ok(meta) = BlockMeta::parse(&bytes) else {
        return Ok(false);
    };
    if (meta.ulid, meta.range()) != (id, local.range()) {
        return Ok(false);
    }
    let files = meta.thanos.map(|thanos| thanos.files).unwrap_or_default();
    for file in files
        .iter()
        .filter(|file| check_sizes && file.rel_path != "meta.json")
    {
        let Ok(key) = ObjectKey::new(format!("{id}/{}", file.rel_path)) else {
            return Ok(false);
        };
        match bucket.attributes(&key).await {
            Ok(found) if found.size_bytes == file.size_bytes => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// An upload which ended well must have read its source to the end.
fn unread(key: &ObjectKey) -> UploadError {
    let kind = ErrorKind::Source("the bucket did not read the source to its end".into());
    UploadError::Bucket(BucketError {
        op: "upload",
        key: key.to_string(),
        kind,
    })
}

/// Takes the source's own error out of the bucket's.
fn of_source(error: BucketError) -> UploadError {
    match error.kind {
        ErrorKind::Source(source) => match source.downcast::<VerifyError>() {
            Ok(source) => UploadError::Read(*source),
            Err(source) => {
                let kind = ErrorKind::Source(source);
                UploadError::Bucket(BucketError { kind, ..error })
            }
        },
        kind => UploadError::Bucket(BucketError { kind, ..error }),
    }
}

fn thanos_file(rel_path: String, size_bytes: u64, sha256: Option<String>) -> ThanosFile {
    let hash = sha256.map(|value| FileHash {
        func: "SHA256".to_owned(),
        value,
        ..FileHash::default()
    });
    ThanosFile {
        rel_path,
        size_bytes,
        hash,
        ..ThanosFile::default()
    }
}

/// The `meta.json` that goes into the bucket (contract `shipper.md` §6): what Prometheus wrote,
/// and the thanos section. Of a section that is there already, labels are merged and what belongs
/// to the upload is replaced.
fn published_meta(
    files: &BlockFiles,
    labels: &ExternalLabels,
    sent: &[Sent],
    clock: &Clock,
) -> BlockMeta {
    let mut meta = files.meta.clone();
    let mut thanos = meta.thanos.take().unwrap_or_default();
    for (name, value) in labels.0.iter() {
        thanos.labels.insert(name.to_owned(), value.to_owned());
    }
    "sidecar".clone_into(&mut thanos.source);
    thanos.segment_files = files
        .segments
        .iter()
        .map(|segment| segment.name.clone())
        .collect();
    thanos.files = sent.iter().map(|sent| sent.file.clone()).collect();
    thanos
        .files
        .push(thanos_file("meta.json".to_owned(), 0, None));
    thanos.files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    let now = Timestamp::from_nanosecond(clock.now_ns());
    thanos.upload_time = Some(now.unwrap_or(Timestamp::UNIX_EPOCH));
    meta.thanos = Some(thanos);
    meta
}
