//! Multipart uploads: parts filled one after another and sent side by side, kept across restarts,
//! completed only after the source has said that all of it was right.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{DATE, ETAG};
use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::address::uri_encoded;
use super::body::Kept;
use super::error::S3Fault;
use super::integrity::{Combined, S3Integrity, Summing, Wanted, crc64_text, crc64_value};
use super::object::{
    CHECKSUM_CRC64NVME, CHECKSUM_TYPE, creation_headers, key_headers, text_header,
};
use super::request::{Call, Client, Payload, Reply};
use super::response::http_date;
use super::upload::{Ended, Filled, Reason, Upload};
use super::xml;
use crate::model::ErrorChain;
use crate::objstore::{ByteRuns, ErrorKind, MultipartState, PartPlan, SentPart, Uploaded};

const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
const FULL_OBJECT: HeaderValue = HeaderValue::from_static("FULL_OBJECT");

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
            Ok(crc64) => self.complete(&state, crc64).await.map(|()| crc64),
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
                    component = "s3",
                    key = self.key,
                    parts = earlier.parts.len(),
                    "going on with the upload of an earlier process"
                );
                return Ok(earlier);
            }
            self.abort_earlier().await;
        }
        let mut call = Call::new("CreateMultipartUpload", Method::POST, Some(self.key));
        call.query = "uploads=".to_owned();
        call.headers = creation_headers(&self.client.config);
        if self.check == S3Integrity::Crc64Nvme {
            let algorithm = HeaderValue::from_static("CRC64NVME");
            call.headers.insert(CHECKSUM_ALGORITHM, algorithm);
            call.headers.insert(CHECKSUM_TYPE, FULL_OBJECT);
        }
        call.check = Some(|body| xml::initiated(body).map(drop));
        let reply = self
            .client
            .call(&call)
            .await
            .map_err(|kind| self.judge(kind))?;
        let upload_id = xml::initiated(&reply.body).map_err(|error| {
            let fault = S3Fault::Xml(error);
            self.client.failed("CreateMultipartUpload", self.key, fault)
        })?;
        let state = MultipartState {
            destination,
            upload_id,
            part_bytes: plan.part_bytes(),
            integrity: self.check.name().to_owned(),
            created_seconds: date(&reply).map(Timestamp::as_second),
            parts: BTreeMap::new(),
        };
        progress.keep(Some(&state)).await;
        Ok(state)
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
    async fn send(&self, plan: PartPlan, state: &mut MultipartState) -> Result<u64, Ended> {
        let upload_id = state.upload_id.clone();
        let mut runs = self.open().await?;
        let mut whole = Combined::default();
        let mut sending = FuturesUnordered::new();
        for (number, range) in plan.parts() {
            let length = range.end - range.start;
            let crc64 = match state.parts.get(&number).map(|part| part.crc64) {
                Some(crc64) => {
                    let sum = self.skip(&mut *runs, length, crc64);
                    self.beside(sum, &mut sending, state).await?
                }
                None => {
                    let filled = self.fill(&mut *runs, range);
                    let filled = self.beside(filled, &mut sending, state).await?;
                    let crc64 = filled.sums.crc64;
                    sending.push(self.send_part(&upload_id, number, filled));
                    crc64
                }
            };
            whole.append(crc64, length);
        }
        self.beside(self.finish(&mut *runs), &mut sending, state)
            .await?;
        drop(runs);
        while let Some(confirmed) = sending.next().await {
            self.confirm(confirmed?, state).await;
        }
        Ok(whole.crc64())
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
    async fn skip(&self, runs: &mut dyn ByteRuns, length: u64, crc64: u64) -> Result<u64, Ended> {
        let wanted = Wanted {
            md5: false,
            sha256: false,
        };
        let sums = self.sum(runs, length, wanted, drop).await?;
        if sums.crc64 != crc64 {
            return Err(Ended::StartOver(Reason::Differs));
        }
        self.source.progress().advanced(length);
        Ok(crc64)
    }

    async fn send_part(
        &self,
        upload_id: &str,
        number: u32,
        filled: Filled<'a>,
    ) -> Result<Confirmed, Ended> {
        let length = filled.length;
        let crc64 = filled.sums.crc64;
        let mut call = Call::new("UploadPart", Method::PUT, Some(self.key));
        call.query = format!(
            "partNumber={number}&uploadId={}",
            uri_encoded(upload_id, false)
        );
        call.headers = key_headers(&self.client.config);
        self.protect(&mut call, &filled.sums);
        // Moved piece by piece: the permit goes when the part is confirmed.
        let Filled {
            payload,
            permit: _permit,
            ..
        } = filled;
        call.payload = payload;
        let reply = self.client.call(&call).await;
        let reply = reply.map_err(|kind| gone_or(kind, |kind| self.judge(kind)))?;
        self.is_echoed(&reply)?;
        let etag = reply.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        let Some(etag) = etag else {
            let fault = S3Fault::Header("etag");
            return Err(self.client.failed("UploadPart", self.key, fault).into());
        };
        let part = SentPart {
            etag: etag.to_owned(),
            crc64,
        };
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
    async fn complete(&self, state: &MultipartState, crc64: u64) -> Result<(), Ended> {
        let with_crc = self.check == S3Integrity::Crc64Nvme;
        let parts = state.parts.iter().map(|(number, part)| {
            let crc = with_crc.then(|| crc64_text(part.crc64));
            (*number, part.etag.as_str(), crc)
        });
        let body = Bytes::from(xml::complete_request(parts));
        let mut call = Call::new("CompleteMultipartUpload", Method::POST, Some(self.key));
        call.query = format!("uploadId={}", uri_encoded(&state.upload_id, false));
        call.headers = key_headers(&self.client.config);
        if with_crc {
            let text = text_header(&crc64_text(crc64));
            call.headers.insert(CHECKSUM_CRC64NVME, text);
            call.headers.insert(CHECKSUM_TYPE, FULL_OBJECT);
        }
        let mut summing = Summing::new(Wanted {
            md5: false,
            sha256: self.client.signs_payload(),
        });
        summing.update(&body);
        call.payload = Payload::Kept(Kept::new(vec![body]), summing.finish().sha256);
        call.check = Some(|body| xml::completed(body).map(drop));
        let reply = match self.client.call(&call).await {
            Ok(reply) => reply,
            Err(kind) => return self.resolve(kind, state, crc64).await,
        };
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

    /// After a completion that failed: the object may be there all the same.
    async fn resolve(
        &self,
        kind: ErrorKind,
        state: &MultipartState,
        crc64: u64,
    ) -> Result<(), Ended> {
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
            return Err(gone_or(kind, |kind| self.judge(kind)));
        }
        let found = match self.check {
            S3Integrity::Crc64Nvme => self.client.look(self.key).await,
            S3Integrity::ContentMd5 | S3Integrity::None => self.client.head(self.key, false).await,
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
                    component = "s3",
                    key = self.key,
                    err = %ErrorChain(&kind),
                    "the answer said no, and the object is there and whole"
                );
                Ok(())
            }
            Ok(_) | Err(ErrorKind::NotFound) => Err(gone_or(kind, Ended::Failed)),
            Err(looked) => Err(Ended::Failed(looked)),
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
                component = "s3",
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
    let mut call = Call::new("AbortMultipartUpload", Method::DELETE, Some(key));
    call.query = format!("uploadId={}", uri_encoded(upload_id, false));
    match client.call(&call).await {
        Ok(_) => Ok(()),
        Err(ErrorKind::S3(error)) if error.has_code("NoSuchUpload") => Ok(()),
        Err(ErrorKind::S3(error)) if error.has_code("AccessDenied") => {
            tracing::debug!(
                component = "s3",
                key,
                err = %ErrorChain(&*error),
                "an unfinished upload stays in the bucket until its lifecycle rule removes it"
            );
            Ok(())
        }
        Err(kind) => Err(kind),
    }
}

/// An upload, or a part of it, that the bucket does not know any more, begins again.
fn gone_or(kind: ErrorKind, otherwise: impl FnOnce(ErrorKind) -> Ended) -> Ended {
    let is_gone = match &kind {
        ErrorKind::S3(error) => ["NoSuchUpload", "InvalidPart"]
            .iter()
            .any(|code| error.has_code(code)),
        _ => false,
    };
    match is_gone {
        true => Ended::StartOver(Reason::Gone(kind)),
        false => otherwise(kind),
    }
}
