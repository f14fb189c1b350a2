//! What is left of blocks that were shipped or never will be: staging, and uploads begun.

use super::decide::{Decision, SkipReason, decide};
use super::resume;
use super::scan::{Candidate, Origin, Scan};
use super::shipper::Shipper;
use super::upload::{abandon, meta_key};
use crate::model::{BlockId, ErrorChain};
use crate::objstore::BucketError;

impl Shipper {
    /// Whether the data of a deleted block is in another one that is shipped or will be.
    pub(super) fn lives_on(&self, id: BlockId, scan: &Scan) -> bool {
        successors(id, scan).any(|other| self.ledger.contains(other.id) || self.waits(other))
    }

    /// Removes the staging of what needs none any more.
    pub(super) async fn clear_staging(&mut self, scan: &Scan) {
        let staged = match self.upload_dir.staged().await {
            Ok(staged) => staged,
            Err(error) => {
                tracing::warn!(err = %ErrorChain(&error), "staging can't be listed");
                return;
            }
        };
        for id in staged {
            let candidate = scan.candidates.iter().find(|candidate| candidate.id == id);
            let is_done = scan.remnants.contains(&id)
                || candidate.is_some_and(|candidate| self.needs_no_staging(candidate, scan));
            if is_done {
                self.unstage(id).await;
            }
        }
    }

    /// Gives up what was begun of blocks that will not be sent any more, and forgets it.
    pub(super) async fn clear_resume(&self, scan: &Scan) {
        let kept = match resume::kept(&self.data).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(err = %ErrorChain(&error), "kept uploads can't be listed");
                return;
            }
        };
        for id in kept {
            let mut candidates = scan.candidates.iter();
            if candidates.any(|candidate| candidate.id == id && self.waits(candidate)) {
                continue;
            }
            // Where parts are objects of their own, giving up what became a published object
            // would take it apart.
            match self.is_visible(id).await {
                Ok(true) => {}
                Ok(false) => {
                    if !self.abandon_all(id).await {
                        return;
                    }
                }
                Err(error) => {
                    let err = ErrorChain(&error);
                    tracing::warn!(block = %id, %err, "whether it was published is not known");
                    return;
                }
            }
            if let Err(error) = resume::remove(&self.data, id).await {
                let err = ErrorChain(&error);
                tracing::warn!(block = %id, %err, "a kept upload could not be removed");
            }
        }
    }

    async fn is_visible(&self, id: BlockId) -> Result<bool, BucketError> {
        match self.ledger.contains(id) {
            true => Ok(true),
            false => self.bucket.exists(&meta_key(id)).await,
        }
    }

    /// Gives up all that was begun of a block; false where the bucket is away. It is not asked
    /// again and again then; the next pass comes soon.
    async fn abandon_all(&self, id: BlockId) -> bool {
        for upload in resume::left_open(&self.data, id).await {
            if !abandon(&*self.bucket, id, &upload).await {
                return false;
            }
        }
        true
    }

    pub(super) async fn unstage(&self, block: BlockId) {
        if let Err(error) = self.upload_dir.remove(block).await {
            let err = ErrorChain(&error);
            tracing::warn!(%block, %err, "staging could not be removed");
        }
    }

    fn needs_no_staging(&self, candidate: &Candidate, scan: &Scan) -> bool {
        if self.ledger.contains(candidate.id) {
            return true;
        }
        let never_shipped = match decide(&candidate.meta, self.known(candidate.id), self.policy) {
            // The last copy is not ours to delete, even if damaged.
            Decision::Skip(SkipReason::Corrupt) => false,
            Decision::Skip(_) => true,
            Decision::Ship(_) | Decision::AlreadyShipped => false,
        };
        let is_shipped_in_another =
            successors(candidate.id, scan).any(|other| self.ledger.contains(other.id));
        candidate.origin == Origin::StagingOnly && (never_shipped || is_shipped_in_another)
    }
}

/// The blocks which say that they hold the data of `id`.
fn successors(id: BlockId, scan: &Scan) -> impl Iterator<Item = &Candidate> {
    scan.candidates.iter().filter(move |other| {
        let compaction = &other.meta.compaction;
        let holds = compaction.sources.contains(&id)
            || compaction.parents.iter().any(|parent| parent.ulid == id);
        other.id != id && holds
    })
}
