//! The ledger: which blocks are in the bucket, told to Prometheus and to ourselves.
//!
//! Prometheus reads it to decide which blocks it may compact away
//! (`--storage.tsdb.delay-compact-file.path`) and takes a missing or unreadable file for "any".
//! So a valid one is written before anything else is done, replaced by rename alone and after
//! each block (contract `shipper.md` §3 and §8).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::disk::{Dir, DiskError};
use crate::model::{BlockId, ErrorChain};

/// The version this knows.
const LEDGER_VERSION: i64 = 1;

/// The longest ledger that is read: 64 MiB hold two million blocks.
const LEDGER_BYTES_MAX: u64 = 64 << 20;

/// A read that fails is tried again at once: the reason may be over in a moment.
const READ_RETRIES: u32 = 3;
const READ_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What a ledger that makes no sense is kept as, before a valid one takes its place.
const DAMAGED_SUFFIX: &str = ".damaged";

/// Why a ledger on disk is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// It can't be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not the JSON that it should be.
    #[error("parse the ledger")]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("unexpected meta file version {0}")]
    Version(i64),
}

/// The ledger's file, and what it is known to say.
#[derive(Debug)]
pub(super) struct Ledger {
    dir: Dir,
    name: PathBuf,
    uploaded: BTreeSet<BlockId>,
    /// What the file holds, so that an unchanged ledger is not written again.
    written: Option<Vec<u8>>,
    /// What could not be read is not overwritten.
    is_readable: bool,
}

#[derive(Deserialize)]
struct Document {
    version: i64,
    #[serde(default)]
    uploaded: Option<Vec<BlockId>>,
}

impl Ledger {
    /// The ledger `name` in `dir`, not read yet.
    pub(super) fn new(dir: &Dir, name: PathBuf) -> Self {
        Self {
            dir: dir.clone(),
            name,
            uploaded: BTreeSet::new(),
            written: None,
            is_readable: true,
        }
    }

    /// Reads the file, which an operator may have edited or removed since the last time.
    ///
    /// A missing one is replaced by a valid empty one at once. One that makes no sense is kept
    /// beside, and replaced by what is known. One that can't be read for once is left alone.
    pub(super) async fn reload(&mut self) {
        let mut read = self.read().await;
        for _ in 0..READ_RETRIES {
            match &read {
                Err(LedgerError::Disk(error)) if !error.is_not_found() => {
                    tokio::time::sleep(READ_RETRY_DELAY).await;
                    read = self.read().await;
                }
                _ => break,
            }
        }
        self.is_readable = true;
        match read {
            Ok((uploaded, bytes)) => {
                self.uploaded = uploaded;
                self.written = Some(bytes);
                return;
            }
            Err(LedgerError::Disk(error)) if error.is_not_found() => {
                tracing::info!(
                    file = %self.path().display(),
                    "no ledger of shipped blocks found, starting an empty one"
                );
                self.uploaded.clear();
            }
            Err(LedgerError::Disk(error)) => {
                tracing::error!(
                    err = %ErrorChain(&error), remedy = error.remedy(),
                    "the ledger of shipped blocks can't be read, and is left as it is"
                );
                self.is_readable = false;
                return;
            }
            Err(error) => self.keep_damaged(&error).await,
        }
        self.written = None;
        let known: Vec<BlockId> = self.uploaded.iter().copied().collect();
        self.write(&known).await;
    }

    /// Whether the ledger says that the block was shipped.
    pub(super) fn contains(&self, id: BlockId) -> bool {
        self.uploaded.contains(&id)
    }

    /// Notes that the block is in the bucket; in the file with the next write.
    pub(super) fn insert(&mut self, id: BlockId) {
        self.uploaded.insert(id);
    }

    /// Writes those of `present` which were shipped, in this order, where that differs from what
    /// the file says. Blocks that are gone from the disk leave the ledger here.
    ///
    /// Where it can't be written, the file says what it said before, which is logged: what is in
    /// the bucket will be found there again.
    pub(super) async fn write(&mut self, present: &[BlockId]) {
        let shipped: Vec<BlockId> = present
            .iter()
            .copied()
            .filter(|id| self.uploaded.contains(id))
            .collect();
        let bytes = encode(&shipped);
        if self.is_readable && self.written.as_ref() != Some(&bytes) {
            match self.dir.write_atomic(&self.name, bytes.clone()).await {
                Ok(()) => self.written = Some(bytes),
                Err(error) => tracing::warn!(
                    err = %ErrorChain(&error), remedy = error.remedy(),
                    "the ledger of shipped blocks could not be written"
                ),
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    async fn read(&self) -> Result<(BTreeSet<BlockId>, Vec<u8>), LedgerError> {
        let (bytes, _) = self.dir.read_small(&self.name, LEDGER_BYTES_MAX).await?;
        let document: Document = serde_json::from_slice(&bytes)?;
        if document.version != LEDGER_VERSION {
            return Err(LedgerError::Version(document.version));
        }
        Ok((
            document.uploaded.unwrap_or_default().into_iter().collect(),
            bytes,
        ))
    }

    async fn keep_damaged(&self, error: &LedgerError) {
        let mut kept = self.name.clone().into_os_string();
        kept.push(DAMAGED_SUFFIX);
        let keep = async {
            self.dir.remove_file(&kept).await?;
            self.dir.hard_link(&self.name, &kept).await
        };
        let kept_as = match keep.await {
            Ok(()) => kept.to_string_lossy().into_owned(),
            Err(error) => format!("nothing ({})", ErrorChain(&error)),
        };
        tracing::error!(
            file = %self.path().display(), err = %ErrorChain(error), kept_as,
            known = self.uploaded.len(),
            "the ledger of shipped blocks makes no sense; it is kept beside and written anew, \
             blocks that are in the bucket are found there again"
        );
    }
}

/// Tab-indented JSON with a final newline; an empty list is `null`, as the reference writes it.
fn encode(shipped: &[BlockId]) -> Vec<u8> {
    let mut text = format!("{{\n\t\"version\": {LEDGER_VERSION},\n\t\"uploaded\": ");
    if shipped.is_empty() {
        text.push_str("null");
    } else {
        let entries: Vec<String> = shipped.iter().map(|id| format!("\n\t\t\"{id}\"")).collect();
        text.push('[');
        text.push_str(&entries.join(","));
        text.push_str("\n\t]");
    }
    text.push_str("\n}\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Containment;

    async fn scratch() -> (tempfile::TempDir, Dir) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        (scratch, dir)
    }

    async fn opened(dir: &Dir) -> Ledger {
        let mut ledger = Ledger::new(dir, "l.json".into());
        ledger.reload().await;
        ledger
    }

    fn id(n: u128) -> BlockId {
        BlockId::from_u128(n)
    }

    #[tokio::test]
    async fn a_missing_ledger_is_written_at_once_and_is_byte_exact() {
        let (scratch, dir) = scratch().await;
        let mut ledger = opened(&dir).await;
        let text = || std::fs::read_to_string(scratch.path().join("l.json")).unwrap();
        assert_eq!(text(), "{\n\t\"version\": 1,\n\t\"uploaded\": null\n}\n");
        ledger.insert(id(2));
        ledger.insert(id(1));
        ledger.write(&[id(2), id(3), id(1)]).await;
        let (one, two) = (id(1), id(2));
        let expected = format!(
            "{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{two}\",\n\t\t\"{one}\"\n\t]\n}}\n"
        );
        assert_eq!(text(), expected);
        let mut again = opened(&dir).await;
        assert!(again.contains(id(1)) && again.contains(id(2)) && !again.contains(id(3)));
        again.write(&[id(1)]).await;
        again.reload().await;
        assert!(
            !again.contains(id(2)),
            "a block that is gone leaves the ledger"
        );
    }

    #[tokio::test]
    async fn an_unreadable_ledger_is_kept_and_a_valid_one_takes_its_place() {
        for damaged in [
            "",
            "{",
            "{\"version\": 2, \"uploaded\": []}",
            "[]",
            "{\"uploaded\":null}",
        ] {
            let (scratch, dir) = scratch().await;
            let path = scratch.path().join("l.json");
            std::fs::write(&path, damaged).unwrap();
            std::fs::write(scratch.path().join("l.json.damaged"), "older").unwrap();
            opened(&dir).await;
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"uploaded\": null"), "{text}");
            let kept = std::fs::read_to_string(scratch.path().join("l.json.damaged")).unwrap();
            assert_eq!(kept, damaged);
        }
    }

    #[tokio::test]
    async fn a_ledger_damaged_while_we_run_is_written_anew_from_what_is_known() {
        let (scratch, dir) = scratch().await;
        let mut ledger = opened(&dir).await;
        ledger.insert(id(1));
        ledger.write(&[id(1)]).await;
        std::fs::write(scratch.path().join("l.json"), "{\"version\": 1,").unwrap();
        ledger.reload().await;
        assert!(opened(&dir).await.contains(id(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_can_not_be_read_for_once_is_not_forgotten() {
        let (scratch, dir) = scratch().await;
        let path = scratch.path().join("l.json");
        let mut ledger = opened(&dir).await;
        ledger.insert(id(1));
        ledger.write(&[id(1)]).await;
        std::fs::rename(&path, scratch.path().join("aside")).unwrap();
        std::fs::create_dir(&path).unwrap();
        ledger.reload().await;
        assert!(ledger.contains(id(1)));
        ledger.insert(id(2));
        ledger.write(&[id(1), id(2)]).await;
        assert!(path.is_dir(), "what can't be read is not overwritten");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(scratch.path().join("aside"), &path).unwrap();
        ledger.reload().await;
        assert!(ledger.contains(id(1)));
    }

    #[tokio::test]
    async fn an_unchanged_ledger_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let (scratch, dir) = scratch().await;
        let mut ledger = opened(&dir).await;
        ledger.insert(id(1));
        ledger.write(&[id(1)]).await;
        let inode = || {
            std::fs::metadata(scratch.path().join("l.json"))
                .unwrap()
                .ino()
        };
        let before = inode();
        ledger.reload().await;
        ledger.write(&[id(1)]).await;
        assert_eq!(inode(), before);
        std::fs::remove_file(scratch.path().join("l.json")).unwrap();
        ledger.reload().await;
        assert!(
            !ledger.contains(id(1)),
            "an operator who removes it wants a fresh look"
        );
        assert!(scratch.path().join("l.json").exists());
    }
}
