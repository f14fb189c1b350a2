//! Multipart uploads: parts filled one after another and sent side by side, kept across restarts,
//! completed only after the source has said that all of it was right.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::DATE;
use jiff::Timestamp;

use super::body::Kept;
use super::error::S3Fault;
use super::integrity::{
    Combined, S3Integrity, Summing, Sums, Wanted, crc32c_text, crc64_text, crc64_value,
};
use super::request::{Call, Client, Payload, Reply};
use super::response::http_date;
use super::upload::{Ended, Filled, Reason, Upload};
use super::wire::Parts;
use super::xml;
use crate::model::ErrorChain;
use crate::objstore::{ByteRuns, ErrorKind, MultipartState, PartPlan, SentPart, Uploaded};

/// By how much the clocks of a bucket's machines may differ: the one that answers requests, and the
/// one that stores objects.
const CLOCKS_DIFFER_SECONDS: i64 = 60;

/// A part that the bucket has confirmed.
struct Confirmed {
    number: u32,
    part: SentPart,
    length: u64,
}

impl<'a> Upload<'a> {
    /// All parts, then their completion. Where this future is dropped, the upload stays open in
    /// the bucket and its state stays kept, so that the next process goes on from there.
    pub(super) async fn in_parts(&self, plan: PartPlan) -> Result<Uploaded, Ended> {
        let mut state = self.begin(plan).await?;
        let sent = self.send(plan, &mut state).await;
        let outcome = match sent {
            Ok(whole) => {
                let completed = self.complete(&state, &whole).await;
                completed.map(|()| whole.crc64())
            }
            Err(ended) => Err(ended),
        };
        match outcome {
            Ok(crc64) => {
                self.source.progress().keep(None).await;
                Ok(Uploaded { crc64: Some(crc64) })
            }
            Err(ended) => {
                self.give_up(&state, &ended).await;
                Err(ended)
            }
        }
    }

    /// What an earlier try left, or a new upload.
    async fn begin(&self, plan: PartPlan) -> Result<MultipartState, Ended> {
        let destination = self.client.address.destination(self.key);
        let progress = self.source.progress();
        if let Some(earlier) = progress.earlier().await {
            let is_ours = earlier.destination == destination;
            let mut numbers = earlier.parts.keys();
            let in_plan = |number: &u32| (1..=plan.count()).contains(&u64::from(*number));
            if is_ours
                && earlier.part_bytes == plan.part_bytes()
                && earlier.integrity == self.check.name()
                && numbers.all(in_plan)
            {
                tracing::info!(
                    component = self.client.wire.component(),
                    key = self.key,
                    parts = earlier.parts.len(),
                    "going on with the upload of an earlier process"
                );
                return Ok(earlier);
            }
            self.abort_earlier().await;
        }
        let (upload_id, created) = self.begin_anew().await?;
        let state = MultipartState {
            destination,
            upload_id,
            part_bytes: plan.part_bytes(),
            integrity: self.check.name().to_owned(),
            created_seconds: created.map(Timestamp::as_second),
            parts: BTreeMap::new(),
        };
        progress.keep(Some(&state)).await;
        Ok(state)
    }

    /// The name of a new upload, and when it was begun, where the store tells.
    async fn begin_anew(&self) -> Result<(String, Option<Timestamp>), Ended> {
        let (client, wire) = (self.client, &self.client.wire);
        let Some(call) = wire.begin_call(&client.config, self.key, self.check) else {
            if let Some(call) = wire.clearing_call(&client.config, self.key) {
                client.call(&call).await.map_err(|kind| self.judge(kind))?;
            }
            return Ok((client.new_upload_id(), None));
        };
        let reply = client.call(&call).await.map_err(|kind| self.judge(kind))?;
        let upload_id = wire.upload_id(&reply.body).map_err(|error| {
            let fault = S3Fault::Xml(error);
            client.failed("CreateMultipartUpload", self.key, fault)
        })?;
        Ok((upload_id, date(&reply)))
    }

    /// Gives up the upload in parts that an earlier try left, where there is one.
    pub(super) async fn abort_earlier(&self) {
        let progress = self.source.progress();
        let Some(earlier) = progress.earlier().await else {
            return;
        };
        if earlier.destination == self.client.address.destination(self.key) {
            self.abort(&earlier.upload_id).await;
        }
        progress.keep(None).await;
    }

    /// Sends what is not there yet; the checksum of the whole.
    async fn send(&self, plan: PartPlan, state: &mut MultipartState) -> Result<Combined, Ended> {
        let upload_id = state.upload_id.clone();
        let mut runs = self.open().await?;
        let mut whole = Combined::default();
        let mut sending = FuturesUnordered::new();
        for (number, range) in plan.parts() {
            let length = range.end - range.start;
            let sums = match state.parts.get(&number).map(|part| part.crc64) {
                Some(crc64) => {
                    let sums = self.skip(&mut *runs, length, crc64);
                    self.beside(sums, &mut sending, state).await?
                }
                None => {
                    let filled = self.fill(&mut *runs, range);
                    let filled = self.beside(filled, &mut sending, state).await?;
                    let sums = filled.sums;
                    sending.push(self.send_part(&upload_id, number, filled));
                    sums
                }
            };
            whole.append(sums.crc64, length);
            whole.append_crc32c(sums.crc32c, length);
        }
        self.beside(self.finish(&mut *runs), &mut sending, state)
            .await?;
        drop(runs);
        while let Some(confirmed) = sending.next().await {
            self.confirm(confirmed?, state).await;
        }
        Ok(whole)
    }

    /// Does `act` while the parts in flight go on.
    async fn beside<T, E: Into<Ended>>(
        &self,
        act: impl Future<Output = Result<T, E>>,
        sending: &mut FuturesUnordered<impl Future<Output = Result<Confirmed, Ended>>>,
        state: &mut MultipartState,
    ) -> Result<T, Ended> {
        tokio::pin!(act);
        loop {
            tokio::select! {
                outcome = &mut act => return outcome.map_err(Into::into),
                Some(confirmed) = sending.next() => self.confirm(confirmed?, state).await,
            }
        }
    }

    /// Reads a part that is in the bucket already, and holds it against what was sent.
    async fn skip(&self, runs: &mut dyn ByteRuns, length: u64, crc64: u64) -> Result<Sums, Ended> {
        let wanted = Wanted {
            md5: false,
            ..self.wanted()
        };
        let sums = self.sum(runs, length, wanted, drop).await?;
        if sums.crc64 != crc64 {
            return Err(Ended::StartOver(Reason::Differs));
        }
        self.source.progress().advanced(length);
        Ok(sums)
    }

    async fn send_part(
        &self,
        upload_id: &str,
        number: u32,
        filled: Filled<'a>,
    ) -> Result<Confirmed, Ended> {
        let length = filled.length;
        let crc64 = filled.sums.crc64;
        let (client, wire) = (self.client, &self.client.wire);
        let mut call = wire.part_call(&client.config, self.key, upload_id, number);
        self.protect(&mut call, &filled.sums);
        // Moved piece by piece: the permit goes when the part is confirmed.
        let Filled {
            payload,
            permit: _permit,
            ..
        } = filled;
        call.payload = payload;
        let reply = client.call(&call).await;
        let reply = reply.map_err(|kind| self.gone_or(kind, |kind| self.judge(kind)))?;
        self.is_echoed(&reply)?;
        let etag = wire.part_tag(upload_id, number, &reply);
        let etag = etag.map_err(|fault| client.failed("UploadPart", self.key, fault))?;
        let part = SentPart { etag, crc64 };
        Ok(Confirmed {
            number,
            part,
            length,
        })
    }

    async fn confirm(&self, confirmed: Confirmed, state: &mut MultipartState) {
        state.parts.insert(confirmed.number, confirmed.part);
        let progress = self.source.progress();
        progress.keep(Some(state)).await;
        progress.advanced(confirmed.length);
    }

    /// Makes the parts an object. An answer that was lost, or an upload that is gone because an
    /// earlier request completed it, is resolved by looking.
    async fn complete(&self, state: &MultipartState, whole: &Combined) -> Result<(), Ended> {
        let (client, wire, crc64) = (self.client, &self.client.wire, whole.crc64());
        let parts = Parts {
            state,
            size_bytes: self.source.size_bytes(),
            crc64,
        };
        let (mut call, body) = wire.complete_call(&client.config, self.key, &parts);
        let mut summing = Summing::new(Wanted {
            sha256: client.signs_payload(),
            ..Wanted::default()
        });
        summing.update(&body);
        call.payload = Payload::Kept(Kept::new(vec![body]), summing.finish().sha256);
        let reply = match client.call(&call).await {
            Ok(reply) => reply,
            Err(kind) => self.resolve(kind, state, crc64).await?,
        };
        self.is_whole(&reply, whole).await
    }

    /// Holds what the store says of the whole object against what was read.
    async fn is_whole(&self, reply: &Reply, whole: &Combined) -> Result<(), Ended> {
        if let Some(crc32c) = whole.crc32c() {
            return self.has_crc32c(reply, crc32c).await;
        }
        let crc64 = whole.crc64();
        let completed = xml::completed(&reply.body).unwrap_or_default();
        let is_whole = completed
            .checksum_type
            .is_none_or(|kind| kind == "FULL_OBJECT");
        let stored = completed.crc64nvme.filter(|_| is_whole);
        match stored {
            Some(stored) if crc64_value(&stored).is_some_and(|value| value != crc64) => {
                let sent = crc64_text(crc64);
                let fault = S3Fault::ChecksumDiffers { sent, stored };
                let operation = "CompleteMultipartUpload";
                let kind = self.client.failed(operation, self.key, fault);
                // The parts are not what they should be: none of them may be used again.
                Err(Ended::StartOver(Reason::Gone(kind)))
            }
            _ => Ok(()),
        }
    }

    /// The answer bears the sum of the whole object, or the object itself does.
    async fn has_crc32c(&self, reply: &Reply, crc32c: u64) -> Result<(), Ended> {
        let client = self.client;
        let sent = crc32c_text(crc32c);
        let stored = match client.wire.echoed(&reply.headers) {
            Some(stored) => Some(stored),
            None => {
                let headers = client.head_headers(self.key, false).await?;
                client.wire.echoed(&headers)
            }
        };
        match stored {
            Some(stored) if stored != sent => {
                let fault = S3Fault::ChecksumDiffers { sent, stored };
                let operation = "CompleteMultipartUpload";
                let kind = client.failed(operation, self.key, fault);
                Err(Ended::StartOver(Reason::Gone(kind)))
            }
            _ => Ok(()),
        }
    }

    /// After a completion that failed: the object may be there all the same.
    async fn resolve(
        &self,
        kind: ErrorKind,
        state: &MultipartState,
        crc64: u64,
    ) -> Result<Reply, Ended> {
        let ErrorKind::S3(error) = &kind else {
            return Err(kind.into());
        };
        if error.has_code("BadDigest") {
            // What the parts make is not what was read, and asking again won't change it: they
            // must not be gone on with.
            return Err(Ended::StartOver(Reason::Gone(kind)));
        }
        let is_gone = error.has_code("NoSuchUpload");
        if !is_gone && !error.is_retryable() {
            return Err(self.gone_or(kind, |kind| self.judge(kind)));
        }
        let found = match self.check {
            S3Integrity::Crc64Nvme => self.client.look(self.key).await,
            S3Integrity::ContentMd5 | S3Integrity::Crc32c | S3Integrity::None => {
                self.client.head(self.key, false).await
            }
        };
        match found {
            Ok(found)
                if found.size_bytes == self.source.size_bytes()
                    && match found.crc64 {
                        Some(found) => found == crc64,
                        None => may_be_of(state, found.last_modified),
                    } =>
            {
                tracing::info!(
                    component = self.client.wire.component(),
                    key = self.key,
                    err = %ErrorChain(&kind),
                    "the answer said no, and the object is there and whole"
                );
                Ok(Reply::default())
            }
            Ok(_) | Err(ErrorKind::NotFound) => Err(self.gone_or(kind, Ended::Failed)),
            Err(looked) => Err(Ended::Failed(looked)),
        }
    }

    /// An upload, or a part of it, that the bucket does not know any more, begins again.
    fn gone_or(&self, kind: ErrorKind, otherwise: impl FnOnce(ErrorKind) -> Ended) -> Ended {
        let is_gone = match &kind {
            ErrorKind::S3(error) => error
                .fault
                .refusal()
                .is_some_and(|refusal| self.client.wire.is_gone(error.operation, refusal)),
            _ => false,
        };
        match is_gone {
            true => Ended::StartOver(Reason::Gone(kind)),
            false => otherwise(kind),
        }
    }

    /// What happens to an upload that ended: one that may succeed later stays open.
    async fn give_up(&self, state: &MultipartState, ended: &Ended) {
        match ended {
            Ended::Failed(ErrorKind::S3(error)) if error.may_pass() => return,
            Ended::StartOver(Reason::Gone(ErrorKind::S3(error)))
                if error.has_code("NoSuchUpload") => {}
            _ => self.abort(&state.upload_id).await,
        }
        self.source.progress().keep(None).await;
    }

    async fn abort(&self, upload_id: &str) {
        if let Err(kind) = abort(self.client, self.key, upload_id).await {
            tracing::warn!(
                component = self.client.wire.component(),
                key = self.key,
                err = %ErrorChain(&kind),
                "an unfinished upload stays in the bucket"
            );
        }
    }
}

/// Whether an object may have come of this upload, by when it was last modified: on AWS that is
/// when its upload was begun. What is not known speaks for it.
fn may_be_of(state: &MultipartState, last_modified: Timestamp) -> bool {
    let Some(created) = state.created_seconds else {
        return true;
    };
    last_modified == Timestamp::UNIX_EPOCH
        || last_modified.as_second() >= created.saturating_sub(CLOCKS_DIFFER_SECONDS)
}

/// The server's time as the answer tells it.
fn date(reply: &Reply) -> Option<Timestamp> {
    http_date(reply.headers.get(DATE)?.to_str().ok()?)
}

/// Frees what the bucket holds of an upload. The usual policy does not allow it, and nothing
/// depends on it.
pub(super) async fn abort(client: &Client, key: &str, upload_id: &str) -> Result<(), ErrorKind> {
    if let Some(call) = client.wire.leftovers_call(key, upload_id) {
        return remove_leftovers(client, &call).await;
    }
    let Some(call) = client.wire.abort_call(key, upload_id) else {
        return Ok(());
    };
    match client.call(&call).await {
        Ok(_) => Ok(()),
        Err(ErrorKind::S3(error)) if error.has_code("NoSuchUpload") => Ok(()),
        Err(ErrorKind::S3(error)) if error.has_code("AccessDenied") => {
            tracing::debug!(
                component = client.wire.component(),
                key,
                err = %ErrorChain(&*error),
                "an unfinished upload stays in the bucket until its lifecycle rule removes it"
            );
            Ok(())
        }
        Err(kind) => Err(kind),
    }
}

/// Removes parts that are objects of their own. A page has more names than an object has parts.
async fn remove_leftovers(client: &Client, call: &Call<'_>) -> Result<(), ErrorKind> {
    let page = match client.call(call).await {
        Ok(reply) => client.wire.list_page(&reply.body),
        Err(kind) => return Err(kind),
    };
    let page = page.map_err(|error| client.failed(call.operation, "", S3Fault::Xml(error)))?;
    for name in &page.keys {
        match client.call(&client.wire.leftover_call(name)).await {
            Ok(_) => {}
            Err(ErrorKind::S3(error)) if error.has_code("NoSuchKey") => {}
            Err(kind) => return Err(kind),
        }
    }
    Ok(())
}
