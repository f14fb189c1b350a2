//! An object on its way into the bucket: in one request or in parts, started over where the
//! server does not take the integrity check.

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::body::Kept;
use super::error::S3Fault;
use super::integrity::{S3Integrity, Summing, Sums, Verdict, Wanted};
use super::request::{Call, Client, Payload, Reply, Reread};
use crate::objstore::{ByteRuns, ErrorKind, PartPlan, UploadSource, Uploaded};

/// The largest object of one request (S3, "Uploading objects").
pub(super) const PUT_BYTES_MAX: u64 = 5 << 30;

/// How often an upload begins: once more for each reason there is to start over.
const ROUNDS_MAX: u32 = 4;

/// What uploads of one bucket share.
#[derive(Debug)]
pub(super) struct Uploads {
    pub(super) verdict: Verdict,
    /// One permit for each body in flight, being filled or being sent.
    permits: Semaphore,
    /// Whoever fills a body from the pool's buffers. Two that fill at once, each holding some
    /// buffers and waiting for more, could wait for each other for ever.
    filling: Mutex<()>,
    pub(super) body_bytes_max: u64,
}

/// An object to upload.
#[derive(Clone, Copy)]
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client,
    pub(super) shared: &'a Uploads,
    pub(super) key: &'a str,
    pub(super) source: &'a dyn UploadSource,
    pub(super) check: S3Integrity,
}

/// Why a round of an upload ended without an object.
#[derive(Debug)]
pub(super) enum Ended {
    Failed(ErrorKind),
    StartOver(Reason),
}

/// Why an upload starts over.
#[derive(Debug)]
pub(super) enum Reason {
    /// The server does not take the integrity check; this is what it said, if anything.
    Check(Option<ErrorKind>),
    /// The multipart upload is not there any more.
    Gone(ErrorKind),
    /// The source is not what an earlier process sent of it.
    Differs,
}

impl From<ErrorKind> for Ended {
    fn from(kind: ErrorKind) -> Self {
        Self::Failed(kind)
    }
}

/// A body that was read and summed, ready to be sent.
pub(super) struct Filled<'a> {
    pub(super) payload: Payload<'a>,
    pub(super) sums: Sums,
    pub(super) length: u64,
    /// Held until the body has been sent.
    pub(super) permit: SemaphorePermit<'a>,
}

impl Uploads {
    pub(super) fn new(verdict: Verdict, parts_in_flight: usize, body_bytes_max: u64) -> Self {
        Self {
            verdict,
            permits: Semaphore::new(parts_in_flight),
            filling: Mutex::new(()),
            body_bytes_max,
        }
    }
}

/// Uploads `source` as `key`.
pub(super) async fn upload(
    client: &Client,
    shared: &Uploads,
    key: &str,
    source: &dyn UploadSource,
) -> Result<Uploaded, ErrorKind> {
    let size_bytes = source.size_bytes();
    let in_one = client.config.disable_multipart || size_bytes <= client.config.part_bytes.get();
    if in_one && size_bytes > PUT_BYTES_MAX {
        let max_bytes = PUT_BYTES_MAX;
        let fault = S3Fault::TooLarge {
            size_bytes,
            max_bytes,
        };
        return Err(client.failed("PutObject", key, fault));
    }
    let mut check = first_check(client, shared, key, source).await;
    let mut was_gone = false;
    let mut refusal = None;
    for _ in 0..ROUNDS_MAX {
        let upload = Upload {
            client,
            shared,
            key,
            source,
            check,
        };
        let outcome = match in_one {
            true => upload.in_one().await,
            false => upload.in_parts(plan(client, key, size_bytes)).await,
        };
        let reason = match outcome {
            Ok(uploaded) => return Ok(uploaded),
            // What is wrong is told by the first refusal, which the one without checksum repeats.
            Err(Ended::Failed(kind)) => return Err(kind),
            Err(Ended::StartOver(reason)) => reason,
        };
        match reason {
            Reason::Check(told) => {
                let Some(next) = shared.verdict.instead_of(check) else {
                    break;
                };
                let component = client.wire.component();
                tracing::debug!(component, key, from = %check, to = %next, "starting over");
                check = next;
                refusal = told;
            }
            Reason::Gone(kind) if was_gone => return Err(kind),
            Reason::Gone(kind) => {
                was_gone = true;
                refusal = Some(kind);
            }
            Reason::Differs => {
                tracing::info!(
                    component = client.wire.component(),
                    key,
                    "the file changed since it was sent; all of it is sent again"
                );
            }
        }
    }
    Err(refusal.unwrap_or_else(|| {
        let name = "x-amz-checksum-crc64nvme";
        client.failed("PutObject", key, S3Fault::Header(name))
    }))
}

/// The check to begin with: that of the upload an earlier try has left open, where it is the one
/// that a server without checksums gets, or was begun with checksums before the server turned out
/// to ignore them and no other check is wanted. What was found out need not cost its parts.
async fn first_check(
    client: &Client,
    shared: &Uploads,
    key: &str,
    source: &dyn UploadSource,
) -> S3Integrity {
    let current = shared.verdict.current();
    let first = shared.verdict.first;
    let other = match current {
        S3Integrity::None => Some(first),
        current if current == first => shared.verdict.instead_of(current),
        _ => None,
    };
    match (other, source.progress().earlier().await) {
        (Some(other), Some(earlier))
            if earlier.integrity == other.name()
                && earlier.destination == client.address.destination(key) =>
        {
            other
        }
        _ => current,
    }
}

/// How the object is cut. A part size that would make too many parts is raised, and said.
fn plan(client: &Client, key: &str, size_bytes: u64) -> PartPlan {
    let parts_max = client.wire.parts_max();
    let plan = PartPlan::within(size_bytes, client.config.part_bytes, parts_max);
    if plan.part_bytes() != client.config.part_bytes {
        tracing::info!(
            component = client.wire.component(),
            key,
            part_size = client.config.part_bytes,
            raised_to = plan.part_bytes(),
            parts_max,
            "the store takes no more parts, so this object's are larger"
        );
    }
    plan
}

// === impl Upload ===

impl<'a> Upload<'a> {
    /// One PutObject.
    async fn in_one(&self) -> Result<Uploaded, Ended> {
        // Begun when parts were smaller, or allowed.
        self.abort_earlier().await;
        let length = self.source.size_bytes();
        let mut runs = self.open().await?;
        let filled = self.fill(&mut *runs, 0..length).await?;
        self.finish(&mut *runs).await?;
        // Nothing of the source is read any more; what it holds must not wait for the network.
        drop(runs);
        let wire = &self.client.wire;
        let mut call = wire.put_call(&self.client.config, self.key);
        let crc64 = filled.sums.crc64;
        self.protect(&mut call, &filled.sums);
        call.payload = filled.payload;
        let reply = self
            .client
            .call(&call)
            .await
            .map_err(|kind| self.judge(kind))?;
        self.is_echoed(&reply)?;
        self.source.progress().advanced(length);
        Ok(Uploaded { crc64: Some(crc64) })
    }

    pub(super) async fn open(&self) -> Result<Box<dyn ByteRuns>, ErrorKind> {
        self.source.open().await.map_err(ErrorKind::Source)
    }

    /// Reads and sums the next body: kept in buffers where it fits, else read again when sent.
    pub(super) async fn fill(
        &self,
        runs: &mut dyn ByteRuns,
        range: std::ops::Range<u64>,
    ) -> Result<Filled<'a>, ErrorKind> {
        let permit = self.shared.permits.acquire().await;
        let permit = permit.expect("the permits are never closed");
        let wanted = Wanted {
            sha256: self.client.signs_payload(),
            ..self.wanted()
        };
        let length = range.end - range.start;
        let fits = length <= self.shared.body_bytes_max;
        let _one_fills = match fits {
            true => Some(self.shared.filling.lock().await),
            false => None,
        };
        let mut kept = Vec::new();
        let sums = self
            .sum(runs, length, wanted, |run| {
                if fits {
                    kept.push(run);
                }
            })
            .await?;
        let payload = match fits {
            true => Payload::Kept(Kept::new(kept), sums.sha256),
            false => Payload::Reread(Reread {
                source: self.source,
                range,
                crc64: sums.crc64,
                sha256: sums.sha256,
            }),
        };
        Ok(Filled {
            payload,
            sums,
            length,
            permit,
        })
    }

    /// Reads the next `length` bytes and sums them while they are in cache.
    pub(super) async fn sum(
        &self,
        runs: &mut dyn ByteRuns,
        length: u64,
        wanted: Wanted,
        mut each: impl FnMut(Bytes),
    ) -> Result<Sums, ErrorKind> {
        let mut summing = Summing::new(wanted);
        let mut left = length;
        while left > 0 {
            let mut look = |piece: &[u8]| summing.update(piece);
            let run = runs.next_seen(left, &mut look).await;
            let run = run.map_err(ErrorKind::Source)?;
            let run = run.unwrap_or_default();
            let taken = run.len() as u64;
            if taken == 0 || taken > left {
                return Err(ErrorKind::SourceLength {
                    expected_bytes: self.source.size_bytes(),
                    given_bytes: self.source.size_bytes() - left + taken,
                });
            }
            left -= taken;
            each(run);
        }
        Ok(summing.finish())
    }

    /// Makes sure that the source has nothing more: it says last whether all was right.
    pub(super) async fn finish(&self, runs: &mut dyn ByteRuns) -> Result<(), ErrorKind> {
        match runs.next(1).await.map_err(ErrorKind::Source)? {
            None => Ok(()),
            Some(run) => Err(ErrorKind::SourceLength {
                expected_bytes: self.source.size_bytes(),
                given_bytes: self.source.size_bytes() + run.len() as u64,
            }),
        }
    }

    /// The sums that the check in use takes.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            md5: self.check == S3Integrity::ContentMd5,
            sha256: false,
            crc32c: self.check == S3Integrity::Crc32c,
        }
    }

    /// Adds the check in use.
    pub(super) fn protect(&self, call: &mut Call<'_>, sums: &Sums) {
        if let Some(protection) = self.client.wire.protection(self.check, sums) {
            let (name, value) = protection.header;
            call.headers.insert(name, value);
            call.echo = protection.echo;
        }
    }

    /// Holds the bucket to the check: what a server does not echo, it did not check.
    pub(super) fn is_echoed(&self, reply: &Reply) -> Result<(), Ended> {
        let bucket = &self.client.config.bucket;
        let verdict = &self.shared.verdict;
        let echoes = |headers: &HeaderMap| self.client.wire.echoed(headers).is_some();
        if self.check != verdict.first
            || self.check == S3Integrity::ContentMd5
            || echoes(&reply.headers)
        {
            verdict.settle(self.check, bucket);
            self.client.requests.integrity(self.check.name());
            return Ok(());
        }
        match verdict.instead_of(self.check) {
            // The user wants no other check, so what was sent may stay.
            Some(S3Integrity::None) => {
                verdict.settle(S3Integrity::None, bucket);
                self.client.requests.integrity(S3Integrity::None.name());
                Ok(())
            }
            _ => Err(Ended::StartOver(Reason::Check(None))),
        }
    }

    /// Whether a refusal may come from the check, which is then left out.
    pub(super) fn judge(&self, kind: ErrorKind) -> Ended {
        let about_check = match &kind {
            ErrorKind::S3(error) => error
                .fault
                .refusal()
                .is_some_and(super::error::Refusal::may_be_about_checksums),
            _ => false,
        };
        match self.shared.verdict.instead_of(self.check) {
            Some(_) if about_check => Ended::StartOver(Reason::Check(Some(kind))),
            _ => Ended::Failed(kind),
        }
    }
}
