//! One pass over the data directory: what is there now, block by block, oldest first.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{Decision, OverlapCheck, SkipReason, Standing, decide};
use super::error::VerifyError;
use super::flushed::FlushedError;
use super::overlap::{BucketRanges, OverlapError};
use super::progress::Progress;
use super::resume::Resume;
use super::scan::{Candidate, Origin, Scan, Unreadable};
use super::schedule::Wait;
use super::shipper::Shipper;
use super::stage::{BlockFiles, BlockFilesError, Fingerprint};
use super::upload::{BlockUpload, UploadError, is_published};
use crate::disk::DiskError;
use crate::model::{BlockId, ErrorChain, ShippedBlock};
use crate::objstore::BucketError;

/// What to do about a block that can't be read.
const UNREADABLE_REMEDY: &str = "make the file readable for outrigger; younger blocks wait for it, \
    unless corrupted blocks are skipped";

/// Why one pass over the directory ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    /// The directory can't be listed.
    #[error("scan the data directory")]
    Scan(#[source] DiskError),
    /// The bucket does not tell whether it has a block.
    #[error("check exists")]
    Exists(#[source] BucketError),
    /// A block may not join those in the bucket.
    #[error("Found overlap or error during sync, cannot upload compacted block, details")]
    Overlap(#[from] OverlapError),
    /// It can't be told which flushed blocks are in the bucket, or one stands in the way for good.
    #[error("look after flushed blocks")]
    Flushed(#[from] FlushedError),
    /// A block could not be read or sent, and newer ones wait for it.
    #[error("upload {block}")]
    Upload {
        /// The block.
        block: BlockId,
        /// Why.
        source: Box<UploadError>,
    },
    /// A block has failed several times, and newer ones wait for its next try.
    #[error("upload {block}: the next try is in {} s; the last one: {reason}", left.as_secs())]
    Retry {
        /// The block.
        block: BlockId,
        /// The time until then.
        left: Duration,
        /// How the last try ended.
        reason: String,
    },
    /// Blocks whose `meta.json` can't be read hold back the blocks after them.
    #[error("read metadata for block {block}")]
    Metadata {
        /// The oldest of them.
        block: BlockId,
    },
}

/// What one pass did.
#[derive(Debug, Default)]
pub(super) struct SyncReport {
    /// Blocks published.
    pub(super) shipped: u64,
    /// Blocks that failed and did not end the pass (out-of-order mode).
    pub(super) failed: u64,
    /// Blocks found damaged for the first time.
    pub(super) newly_corrupt: u64,
    /// Blocks that wait for an older one.
    pub(super) held_back: u64,
    /// When a block that waits may be sent.
    pub(super) due: Option<Instant>,
    /// What ended the pass early.
    pub(super) error: Option<SyncError>,
}

/// The pass under way.
#[derive(Default)]
pub(super) struct Pass {
    /// The oldest block that could not be read; younger ones wait for it.
    held_back_by: Option<BlockId>,
    /// What the bucket holds, once asked for.
    ranges: Option<BucketRanges>,
    pub(super) report: SyncReport,
}

impl SyncError {
    pub(super) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Upload { source, .. } => source.remedy(),
            Self::Exists(error) => error.remedy(),
            Self::Flushed(error) => error.remedy(),
            Self::Scan(error) => error.remedy(),
            Self::Overlap(_) => {
                Some("find out which of the two blocks is wrong, and remove it from the bucket")
            }
            Self::Metadata { .. } | Self::Retry { .. } => None,
        }
    }
}

impl Shipper {
    /// One pass: ships what is there, keeps the ledger, counts.
    pub(super) async fn sync(&mut self) -> SyncReport {
        let report = self.pass().await;
        self.bulletin.looked(self.clock.now());
        let metrics = &self.metrics;
        metrics
            .held_back_now
            .set(i64::try_from(report.held_back).unwrap_or(i64::MAX));
        metrics
            .corrupt_now
            .set(i64::try_from(self.verdicts.count()).unwrap_or(i64::MAX));
        if let Some(error) = &report.error {
            metrics.dir_sync_failures.inc();
            self.post(error);
            tracing::warn!(
                err = %ErrorChain(error), remedy = error.remedy(), uploaded = report.shipped,
                held_back = report.held_back, "shipping stopped early; trying again soon"
            );
            return report;
        }
        metrics.dir_syncs.inc();
        metrics.upload_failures.inc_by(report.failed);
        let corrupted = self.verdicts.count();
        if report.failed > 0 || corrupted > 0 {
            tracing::warn!(
                failed = report.failed,
                corrupted,
                uploaded = report.shipped,
                "not all blocks could be shipped"
            );
        } else if report.held_back == 0 {
            metrics
                .upload_compacted_done
                .set(i64::from(self.policy.upload_compacted));
        }
        report
    }

    async fn pass(&mut self) -> SyncReport {
        self.ledger.reload().await;
        let looked = async {
            self.flushed.reload().await?;
            let scan = Scan::run(&self.data, &self.upload_dir).await;
            scan.map_err(SyncError::Scan)
        };
        let mut scan = match looked.await {
            Ok(scan) => scan,
            Err(error) => {
                return SyncReport {
                    error: Some(error),
                    ..SyncReport::default()
                };
            }
        };
        self.give_up_flush(&mut scan).await;
        self.find_unlinked(&mut scan).await;
        let mut pass = Pass::default();
        self.judge_unreadable(&scan, &mut pass).await;
        self.forget_gone(&scan);
        self.publish_blocks(&scan, pass.held_back_by);
        let outcome = self.ship_all(&scan, &mut pass).await;
        self.clear_staging(&scan).await;
        self.settle_flushed(&scan).await;
        self.ledger.write(&scan.present()).await;
        self.clear_resume(&scan).await;
        self.publish_blocks(&scan, pass.held_back_by);
        let held_back_by = pass.held_back_by.map(|block| SyncError::Metadata { block });
        SyncReport {
            error: outcome.err().or(held_back_by),
            ..pass.report
        }
    }

    async fn ship_all(&mut self, scan: &Scan, pass: &mut Pass) -> Result<(), SyncError> {
        let present = scan.present();
        for (position, candidate) in scan.candidates.iter().enumerate() {
            let shipped = pass.report.shipped;
            let considered = self.consider(candidate, scan, pass).await;
            if !matches!(considered, Ok(ControlFlow::Continue(()))) {
                let later = scan.candidates.iter().skip(position);
                let waiting = later.filter(|candidate| self.waits(candidate)).count();
                pass.report.held_back += u64::try_from(waiting).unwrap_or(u64::MAX);
                return considered.map(|_| ());
            }
            if pass.report.shipped > shipped {
                // Prometheus must learn at once that it may compact the block.
                self.ledger.write(&present).await;
                self.publish_blocks(scan, pass.held_back_by);
            }
        }
        Ok(())
    }

    /// Whether a block would be shipped if nothing held it back.
    pub(super) fn waits(&self, candidate: &Candidate) -> bool {
        let decision = decide(&candidate.meta, self.known(candidate.id), self.policy);
        matches!(decision, Decision::Ship(_))
    }

    pub(super) fn known(&self, id: BlockId) -> Standing {
        Standing {
            in_ledger: self.ledger.contains(id),
            is_corrupt: self.verdicts.is_corrupt(id),
            was_corrupt: self.verdicts.was_corrupt(id),
            held_back_by: None,
        }
    }

    async fn consider(
        &mut self,
        candidate: &Candidate,
        scan: &Scan,
        pass: &mut Pass,
    ) -> Result<ControlFlow<()>, SyncError> {
        let next = ControlFlow::Continue(());
        let id = candidate.id;
        self.look_again_if_changed(candidate).await;
        let held_back_by = pass.held_back_by.filter(|by| *by < id);
        let standing = Standing {
            held_back_by,
            ..self.known(id)
        };
        let check = match decide(&candidate.meta, standing, self.policy) {
            Decision::AlreadyShipped => return Ok(next),
            Decision::Skip(reason) => {
                pass.report.held_back += u64::from(matches!(reason, SkipReason::HeldBack { .. }));
                log_skip(id, reason);
                return Ok(next);
            }
            Decision::Ship(check) => check,
        };
        if candidate.origin == Origin::StagingOnly && self.lives_on(id, scan) {
            tracing::debug!(block = %id, "another block holds the data of this deleted one");
            return Ok(next);
        }
        if let Some(wait) = self.schedule.wait(id, self.clock.now()) {
            return self.put_off(id, wait, &mut pass.report);
        }
        let was_tried = scan.staged.contains(&id);
        let published = is_published(&*self.bucket, &candidate.meta, was_tried).await;
        if published.map_err(SyncError::Exists)? {
            tracing::info!(block = %id, "the bucket has this block already");
            self.ledger.insert(id);
            return Ok(next);
        }
        let leaving = match self.clear_way(candidate, scan, pass).await? {
            ControlFlow::Continue(leaving) => leaving,
            ControlFlow::Break(next) => return Ok(next),
        };
        if !self.may_join(candidate, (check, &leaving), pass).await? {
            return Ok(next);
        }
        match self.ship(candidate, &leaving).await {
            Ok(()) => {
                pass.report.shipped += 1;
                if let Some(ranges) = &mut pass.ranges {
                    ranges.add(id, candidate.meta.range());
                }
            }
            Err(error) => self.failed(candidate, error, &mut pass.report).await?,
        }
        Ok(next)
    }

    /// A block that has to wait holds back newer ones, unless the order does not count.
    fn put_off(
        &self,
        block: BlockId,
        wait: Wait,
        report: &mut SyncReport,
    ) -> Result<ControlFlow<()>, SyncError> {
        let (Wait::Jitter(left) | Wait::Retry { left, .. }) = wait;
        let due = Instant::now() + left;
        report.due = Some(report.due.map_or(due, |earlier| earlier.min(due)));
        tracing::debug!(%block, ?wait, "this block waits");
        match wait {
            _ if self.policy.allow_out_of_order => {
                report.held_back += 1;
                Ok(ControlFlow::Continue(()))
            }
            Wait::Jitter(_) => Ok(ControlFlow::Break(())),
            Wait::Retry { left, reason } => Err(SyncError::Retry {
                block,
                left,
                reason,
            }),
        }
    }

    /// A damaged block of which something changed gets another look.
    async fn look_again_if_changed(&mut self, candidate: &Candidate) {
        let Some(then) = self.verdicts.condemned_as(candidate.id) else {
            return;
        };
        let now = Fingerprint::take(&self.data, &candidate.origin.path(candidate.id)).await;
        if now != *then {
            tracing::info!(block = %candidate.id, "a damaged block has changed, looking again");
            self.verdicts.reopen(candidate.id);
        }
    }

    /// Whether the block may join those in the bucket. A block that was damaged holds back no
    /// other: where it may not join, it stays out alone.
    async fn may_join(
        &self,
        candidate: &Candidate,
        (check, leaving): (OverlapCheck, &[BlockId]),
        pass: &mut Pass,
    ) -> Result<bool, SyncError> {
        if check == OverlapCheck::None {
            return Ok(true);
        }
        let range = candidate.meta.range();
        let ranges = self
            .ranges(pass)
            .await
            .map(|ranges| ranges.without(leaving));
        let admitted = match (ranges, check) {
            (Err(error), _) => Err(error),
            (Ok(ranges), OverlapCheck::OwnOnly) => ranges.admit_alone(candidate.id, range),
            (Ok(ranges), _) => ranges.admit(candidate.id, range),
        };
        match admitted {
            Ok(()) => Ok(true),
            Err(error) if check == OverlapCheck::OwnOnly => {
                tracing::error!(
                    block = %candidate.id, err = %ErrorChain(&error),
                    "a block that was damaged is whole again and may not join the bucket"
                );
                pass.report.failed += 1;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn ranges<'p>(
        &self,
        pass: &'p mut Pass,
    ) -> Result<&'p BucketRanges, OverlapError> {
        match &mut pass.ranges {
            Some(ranges) => Ok(ranges),
            none => {
                let labels = self.labels.borrow().0.clone();
                Ok(none.insert(BucketRanges::read(&*self.bucket, &labels).await?))
            }
        }
    }

    /// See [`Shipper::ship`].
    pub(super) async fn ship_in_span(
        &mut self,
        candidate: &Candidate,
        leaving: &[BlockId],
    ) -> Result<(), UploadError> {
        let id = candidate.id;
        let labels = self.labels.borrow().clone();
        if labels.is_empty() {
            return Err(UploadError::NoLabels);
        }
        let files = match candidate.origin {
            Origin::DataDir => self.upload_dir.stage(id).await?,
            Origin::StagingOnly => self.open_staged(id).await?,
        };
        if self.clock.now() < files.meta.max_time {
            tracing::warn!(
                block = %id, now = self.clock.now().0, block_ends = files.meta.max_time.0,
                "the system clock is before the end of this block: check the clock of this host"
            );
        }
        let started = Instant::now();
        let progress = Progress::new(id, files.size_bytes(), &self.metrics, &self.bulletin);
        let resume = Resume::open(&self.data, id, progress.clone()).await;
        let upload = BlockUpload {
            bucket: &*self.bucket,
            engine: &self.engine,
            scratch: &self.data,
            files: &files,
            hash_func: self.hash_func,
            resume: &resume,
            concurrency: self.upload_concurrency,
        };
        let flushed = &mut self.flushed;
        let shipped = async {
            let uploaded = upload.upload().await?;
            // As late as can be: until the next step is done, only Prometheus has these samples.
            flushed.hide(upload.bucket, leaving).await?;
            upload.publish(uploaded, &labels, &self.clock).await
        };
        let bytes = match shipped.await {
            Err(UploadError::Corrupt(error)) => {
                return Err(self.condemn_read(candidate.origin, &files, error).await);
            }
            Err(error) => {
                let reason = ErrorChain(&error).to_string();
                self.schedule.failed(id, progress.sent_bytes(), reason);
                return Err(error);
            }
            Ok(bytes) => bytes,
        };
        self.ledger.insert(id);
        self.verdicts.close(id);
        self.metrics.uploads.inc();
        self.bulletin.shipped(ShippedBlock {
            id,
            at: self.clock.now(),
            size_bytes: bytes,
            took: started.elapsed(),
        });
        tracing::info!(
            block = %id, mint = files.meta.min_time.0, maxt = files.meta.max_time.0, bytes,
            seconds = started.elapsed().as_secs_f64(), "uploaded block"
        );
        Ok(())
    }

    /// The files that are open here were read and are damaged. The verdict is on them, not on what
    /// may have taken their place meanwhile.
    async fn condemn_read(
        &mut self,
        origin: Origin,
        files: &BlockFiles,
        error: VerifyError,
    ) -> UploadError {
        if origin == Origin::DataDir {
            // First, since taking links away changes the times that the fingerprint holds.
            self.unstage(files.id).await;
        }
        let fingerprint = Fingerprint::take(&self.data, &origin.path(files.id)).await;
        if !files.are_as_in(&fingerprint) {
            let path = files.meta_file.path().to_owned();
            return UploadError::Read(VerifyError::Changed { path });
        }
        let reason = ErrorChain(&error).to_string();
        self.condemn(files.id, origin, fingerprint, &reason);
        UploadError::Corrupt(error)
    }

    fn condemn(&mut self, block: BlockId, origin: Origin, fingerprint: Fingerprint, reason: &str) {
        let remedy = match origin {
            Origin::DataDir => "it is left out; restore its files from a copy, or delete it",
            Origin::StagingOnly => {
                "Prometheus deleted it, and this is the last copy; delete it when you are done"
            }
        };
        tracing::error!(
            %block, err = reason, directory = %self.data.path().join(origin.path(block)).display(),
            remedy, "a block is corrupted and will not be published"
        );
        self.post_failure(Some(block), reason.to_owned(), Some(remedy));
        if self.verdicts.condemn(block, fingerprint) {
            self.metrics.corrupted_blocks.inc();
        }
    }

    /// What a failed block means for the ones after it.
    async fn failed(
        &mut self,
        candidate: &Candidate,
        error: UploadError,
        report: &mut SyncReport,
    ) -> Result<(), SyncError> {
        let block = candidate.id;
        match error {
            UploadError::Corrupt(_) => {
                report.newly_corrupt += 1;
                Ok(())
            }
            UploadError::Files(BlockFilesError::Vanished) => {
                tracing::warn!(%block, "Prometheus deleted this block before it was shipped");
                Ok(())
            }
            UploadError::Files(error) if error.is_proven() => {
                self.judge_files(block, &error, report).await;
                Ok(())
            }
            source if self.policy.allow_out_of_order => {
                tracing::error!(
                    %block, err = %ErrorChain(&source), remedy = source.remedy(),
                    "shipping failed, going on with the next block"
                );
                let err = ErrorChain(&source).to_string();
                self.post_failure(Some(block), err, source.remedy());
                // Links keep the disk space of what Prometheus deletes: one block's at most.
                if report.failed > 0 && candidate.origin == Origin::DataDir {
                    self.unstage(block).await;
                }
                report.failed += 1;
                Ok(())
            }
            source => Err(SyncError::Upload {
                block,
                source: Box::new(source),
            }),
        }
    }

    /// Sorts out the blocks without a readable `meta.json`. Those proven to be no whole blocks are
    /// left out; a failure to read holds back the blocks that were made after it.
    async fn judge_unreadable(&mut self, scan: &Scan, pass: &mut Pass) {
        for Unreadable { id, error } in &scan.unreadable {
            if self.ledger.contains(*id) {
                let err = ErrorChain(error);
                tracing::debug!(block = %id, %err, "a shipped block is unreadable");
            } else if error.is_proven() {
                self.judge_files(*id, error, &mut pass.report).await;
            } else if !self.policy.skip_corrupted || self.verdicts.pass_over(*id) {
                let err = ErrorChain(error).to_string();
                let remedy = UNREADABLE_REMEDY;
                tracing::error!(block = %id, err, remedy, "a block can't be read");
                self.post_failure(Some(*id), err, Some(remedy));
                if self.policy.skip_corrupted {
                    self.metrics.corrupted_blocks.inc();
                } else if self.policy.allow_out_of_order {
                    pass.report.failed += 1;
                } else {
                    pass.report.held_back += 1;
                    let by = pass.held_back_by.map_or(*id, |by| by.min(*id));
                    pass.held_back_by = Some(by);
                }
            }
        }
    }

    /// Leaves out a block of which a file lacks or makes no sense, once it is sure that this is
    /// how it looks and not how it looked while it was being put there.
    async fn judge_files(&mut self, id: BlockId, error: &BlockFilesError, report: &mut SyncReport) {
        let source = Origin::DataDir.path(id);
        let fingerprint = Fingerprint::take(&self.data, &source).await;
        if self.verdicts.condemned_as(id) == Some(&fingerprint) {
            return;
        }
        match BlockFiles::open(&self.data, id, &source).await {
            Err(again) if again.is_proven() => {
                self.condemn(
                    id,
                    Origin::DataDir,
                    fingerprint,
                    &ErrorChain(error).to_string(),
                );
                report.newly_corrupt += 1;
            }
            _ => {
                tracing::info!(block = %id, "a block is changing, looking again with the next pass")
            }
        }
    }

    fn forget_gone(&mut self, scan: &Scan) {
        let mut there: BTreeSet<BlockId> = scan.present().into_iter().collect();
        there.extend(&scan.staged);
        let unreadable = scan
            .unreadable
            .iter()
            .map(|unreadable| unreadable.id)
            .collect();
        self.verdicts.keep(&there, &unreadable);
        let ledger = &self.ledger;
        self.schedule
            .keep(|id| there.contains(&id) && !ledger.contains(id));
    }
}

fn log_skip(block: BlockId, reason: SkipReason) {
    match reason {
        SkipReason::Downsampled { resolution_ms } => tracing::error!(
            %block, resolution_ms,
            "meta.json says that this block is downsampled, which store gateway and compactor \
             refuse from a sidecar; it is not shipped"
        ),
        SkipReason::HeldBack { by } => {
            tracing::info!(%block, %by, "an older block can't be read, so this one waits");
        }
        SkipReason::Empty | SkipReason::Compacted | SkipReason::Corrupt => {
            tracing::debug!(%block, ?reason, "not shipping this block");
        }
    }
}
