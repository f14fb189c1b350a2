//! One request to S3 that succeeds if it can: signed at the moment it is sent, tried again when
//! that may help, moved to the bucket's region, corrected for a wrong clock, and judged by
//! progress.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_credential_types::Credentials;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use tokio::time::Instant;

use super::address::Address;
use super::body::{FaultSlot, Kept, Overdue, Patience, Progress, reread_body};
use super::credentials::S3Credentials;
use super::error::{Refusal, S3Error, S3Fault};
use super::mend::Tried;
use super::response::refusal;
use super::sign::{PayloadHash, empty_sha256, signed};
use super::trace::Redacted;
use super::wire::{S3Wire, Sending, Wire};
use super::xml::{self, XmlError};
use super::{PayloadSigning, S3Config, S3Limits};
use crate::lifecycle::Backoff;
use crate::model::Clock;
use crate::net::http::{BodyLimit, HttpClient, RequestBody, ResponseBody, empty_body};
use crate::objstore::{ErrorKind, RequestStats, UploadSource};

/// The first and the longest wait between two tries (contract `objstore.md` §2.2).
const DELAY_MIN: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(1);

/// A page of 1000 keys of 1024 bytes, each byte written as `%XX`, with what stands around them.
const ANSWER_LIMIT: BodyLimit = BodyLimit {
    name: "S3_ANSWER_BYTES_MAX",
    bytes: 8 << 20,
};

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION")));

/// What makes requests for one bucket.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: S3Config,
    pub(super) address: Address,
    pub(super) limits: S3Limits,
    pub(super) clock: Clock,
    http: HttpClient,
    pub(super) credentials: S3Credentials,
    /// Empty until it is known.
    pub(super) region: Mutex<String>,
    pub(super) discovery: tokio::sync::Mutex<()>,
    /// The server's clock minus ours.
    pub(super) skew_ms: AtomicI64,
    jitter: AtomicU64,
    /// What differs from S3.
    pub(super) wire: Arc<dyn Wire>,
    /// Whether HEAD may ask for checksums: some servers refuse the header.
    pub(super) asks_checksum: AtomicBool,
    /// Counts and times what is sent.
    pub(super) requests: RequestStats,
}

/// A request, to be signed and sent as often as it takes.
pub(in crate::objstore) struct Call<'a> {
    /// Its name in the store's API.
    pub(in crate::objstore) operation: &'static str,
    pub(in crate::objstore) method: Method,
    pub(in crate::objstore) key: Option<&'a str>,
    /// A path that the store understands, where it is neither the bucket's nor the object's.
    pub(in crate::objstore) elsewhere: Option<String>,
    /// Encoded already.
    pub(in crate::objstore) query: String,
    pub(in crate::objstore) headers: HeaderMap,
    pub(super) payload: Payload<'a>,
    /// What the answer's checksum must be where it has one.
    pub(super) echo: Option<String>,
    /// Refuses an answer that is not the document asked for.
    pub(in crate::objstore) check: Option<Check>,
    /// Whether the answer's body is read here, or by whoever asks.
    pub(super) is_streamed: bool,
}

/// Whether a document is the one asked for.
pub(in crate::objstore) type Check = fn(&[u8]) -> Result<(), XmlError>;

/// The body of a request.
pub(super) enum Payload<'a> {
    /// None.
    Empty,
    /// Bytes in memory, and their SHA-256 where it is to be signed.
    Kept(Kept, Option<[u8; 32]>),
    /// Bytes read while they are sent.
    Reread(Reread<'a>),
}

/// A range of a source that was read once already.
pub(super) struct Reread<'a> {
    pub(super) source: &'a dyn UploadSource,
    pub(super) range: std::ops::Range<u64>,
    /// What the first reading gave.
    pub(super) crc64: u64,
    pub(super) sha256: Option<[u8; 32]>,
}

/// A good answer.
#[derive(Debug, Default)]
pub(in crate::objstore) struct Reply {
    pub(in crate::objstore) headers: HeaderMap,
    /// The body, unless it is streamed.
    pub(super) body: Bytes,
    pub(super) stream: Option<ResponseBody>,
}

/// Why one try failed.
enum Failed {
    Fault(S3Fault),
    /// The source of the body, not S3.
    Source(ErrorKind),
}

impl<T: Into<S3Fault>> From<T> for Failed {
    fn from(fault: T) -> Self {
        Self::Fault(fault.into())
    }
}

// === impl Call ===

impl<'a> Call<'a> {
    pub(in crate::objstore) fn new(
        operation: &'static str,
        method: Method,
        key: Option<&'a str>,
    ) -> Self {
        Self {
            operation,
            method,
            key,
            elsewhere: None,
            query: String::new(),
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            echo: None,
            check: None,
            is_streamed: false,
        }
    }
}

impl Payload<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Kept(kept, _) => kept.length(),
            Self::Reread(reread) => reread.range.end - reread.range.start,
        }
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Empty => Some(empty_sha256()),
            Self::Kept(_, sha256) => *sha256,
            Self::Reread(reread) => reread.sha256,
        }
    }
}

// === impl Client ===

impl Client {
    pub(super) fn new(
        config: S3Config,
        http: HttpClient,
        credentials: S3Credentials,
        limits: S3Limits,
        clock: Clock,
        jitter_seed: u64,
    ) -> Self {
        let address = Address::new(&config);
        let known = config.region.clone().or_else(|| address.region());
        Self {
            address,
            limits,
            http,
            credentials,
            region: Mutex::new(known.unwrap_or_default()),
            discovery: tokio::sync::Mutex::new(()),
            skew_ms: AtomicI64::new(0),
            jitter: AtomicU64::new(jitter_seed),
            asks_checksum: AtomicBool::new(true),
            wire: Arc::new(S3Wire {
                remedy: Refusal::s3_remedy,
            }),
            requests: RequestStats::default(),
            config,
            clock,
        }
    }

    /// Whether signatures cover a SHA-256 of the body.
    pub(super) fn signs_payload(&self) -> bool {
        !self.credentials.is_anonymous()
            && match self.config.payload_signing {
                PayloadSigning::Auto => !self.address.tls,
                PayloadSigning::Always => true,
                PayloadSigning::Never => false,
            }
    }

    /// Makes the request, in the bucket's region.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply, ErrorKind> {
        let region = self.region().await?;
        self.attempts(call, region, None).await
    }

    /// Tries until it succeeds, can't succeed, or has been tried often enough. `url` is one that
    /// does not depend on the region.
    pub(super) async fn attempts(
        &self,
        call: &Call<'_>,
        mut region: String,
        url: Option<&str>,
    ) -> Result<Reply, ErrorKind> {
        let seed = self.jitter.fetch_add(0x9e37_79b9, Ordering::Relaxed);
        let mut backoff = Backoff::new(DELAY_MIN, DELAY_MAX, seed);
        let mut tried = Tried::default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let fault = match self.credentials.current().await {
                Err(error) => S3Fault::Credentials(error.into()),
                Ok(credentials) => {
                    match self
                        .timed(call, url, &region, credentials.as_ref(), attempts)
                        .await
                    {
                        Ok(reply) => return Ok(reply),
                        Err(Failed::Source(kind)) => return Err(kind),
                        Err(Failed::Fault(fault)) => {
                            if self
                                .mend(&fault, &mut tried, &mut region, credentials)
                                .await?
                            {
                                continue;
                            }
                            fault
                        }
                    }
                }
            };
            let operation = call.operation;
            if !fault.is_retryable() || attempts >= self.config.attempts_max.get() {
                let told = match url {
                    Some(url) => url.to_owned(),
                    None => self.address.url(&region, call.key, &call.query),
                };
                return Err(ErrorKind::S3(Box::new(S3Error {
                    store: self.wire.component(),
                    operation,
                    place: told.split('?').next().unwrap_or_default().to_owned(),
                    attempts,
                    fault,
                })));
            }
            let wanted = fault.refusal().and_then(|refusal| refusal.retry_after);
            let delay = backoff.next_delay().max(wanted.unwrap_or_default());
            let named = (self.wire.component(), operation);
            tried.say(named, attempts, delay, &fault);
            tokio::time::sleep(delay).await;
        }
    }

    /// A name for an upload in parts that no other upload has.
    pub(super) fn new_upload_id(&self) -> String {
        let drawn = self.jitter.fetch_add(0x9e37_79b9, Ordering::Relaxed);
        format!("{:016x}{drawn:016x}", self.clock.now_ns())
    }

    /// The time for signatures.
    fn signing_time_ns(&self) -> i128 {
        let skew_ms = self.skew_ms.load(Ordering::Relaxed);
        self.clock.now_ns() + i128::from(skew_ms) * 1_000_000
    }

    /// One try, counted.
    async fn timed(
        &self,
        call: &Call<'_>,
        url: Option<&str>,
        region: &str,
        credentials: Option<&Credentials>,
        attempts: u32,
    ) -> Result<Reply, Failed> {
        if attempts > 1 {
            self.requests.retried(call.operation);
        }
        let began = Instant::now();
        let url = match url {
            Some(url) => url.to_owned(),
            None => match self.wire.url(call).await? {
                Some(url) => url,
                None => self.address.url(region, call.key, &call.query),
            },
        };
        let outcome = self.attempt(call, url, region, credentials).await;
        let took = began.elapsed();
        self.requests.record(call.operation, took, outcome.is_ok());
        outcome
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        mut url: String,
        region: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Reply, Failed> {
        let mut uri: Uri = url.parse().map_err(http::Error::from)?;
        let progress = Progress::new(call.payload.length());
        let fault = FaultSlot::default();
        let body = self.body(call, &progress, &fault).await?;
        let mut headers = call.headers.clone();
        headers.insert(USER_AGENT, AGENT);
        if call.method != Method::GET && call.method != Method::HEAD {
            headers.insert(CONTENT_LENGTH, call.payload.length().into());
        }
        if let Some(credentials) = credentials {
            let hash = match call.payload.sha256() {
                Some(hash) if self.signs_payload() => PayloadHash::Sha256(hash),
                _ => PayloadHash::Unsigned,
            };
            let now_ns = self.signing_time_ns();
            signed(
                &call.method,
                &url,
                &mut headers,
                &hash,
                credentials,
                region,
                now_ns,
            )?;
        }
        let told = url.clone();
        let mut sending = Sending {
            method: &call.method,
            url: &mut url,
            headers: &mut headers,
            length: call.payload.length(),
            now_ns: self.signing_time_ns(),
        };
        self.wire.authorize(&mut sending).await?;
        if url != told {
            uri = url.parse().map_err(http::Error::from)?;
        }
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .body(body)?;
        *request.headers_mut() = headers;
        if self.config.trace {
            let headers = Redacted(request.headers());
            let (component, url) = (self.wire.component(), told);
            tracing::debug!(component, method = %call.method, url, %headers, "request");
        }
        let response = match self.exchange(request, &progress).await {
            Ok(response) => response,
            Err(error) => {
                let told = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(told.map_or(Failed::Fault(error), Failed::Source));
            }
        };
        if self.config.trace {
            let headers = Redacted(response.headers());
            let component = self.wire.component();
            tracing::debug!(component, status = %response.status(), %headers, "response");
        }
        Ok(self.judge(call, response, credentials).await?)
    }

    async fn body(
        &self,
        call: &Call<'_>,
        progress: &Arc<Progress>,
        fault: &FaultSlot,
    ) -> Result<RequestBody, Failed> {
        let (tls, pace) = (self.address.tls, self.limits.pace.clone());
        Ok(match &call.payload {
            Payload::Kept(kept, _) if kept.length() > 0 => kept.body(tls, pace, progress),
            Payload::Empty | Payload::Kept(..) => empty_body(),
            Payload::Reread(reread) => {
                let runs = reread.source.reread(reread.range.clone()).await;
                let runs = runs.map_err(|e| Failed::Source(ErrorKind::Source(e)))?;
                let length = call.payload.length();
                reread_body(runs, length, reread.crc64, fault, (tls, pace, progress))
            }
        })
    }

    /// Sends, and gives up when nothing moves any more.
    async fn exchange(
        &self,
        request: Request<RequestBody>,
        progress: &Progress,
    ) -> Result<Response<ResponseBody>, S3Fault> {
        let patience = Patience {
            stall: self.limits.stall_timeout,
            answer: self.limits.response_header_timeout,
        };
        tokio::select! {
            outcome = self.http.send(request) => {
                outcome.map_err(|error| S3Fault::http(error, self.address.tls))
            }
            overdue = progress.overdue(patience) => Err(match overdue {
                Overdue::Frame(after) => S3Fault::Stalled { after },
                Overdue::Answer(after) => S3Fault::NoAnswer { after },
            }),
        }
    }

    /// Takes the answer for good or bad.
    async fn judge(
        &self,
        call: &Call<'_>,
        response: Response<ResponseBody>,
        credentials: Option<&Credentials>,
    ) -> Result<Reply, S3Fault> {
        let (parts, body) = response.into_parts();
        let refused = |body: &[u8]| {
            let now_ns = self.clock.now_ns();
            let mut refusal = refusal(parts.status, &parts.headers, body, credentials, now_ns);
            refusal.remedies = self.wire.remedy();
            S3Fault::Refused(Box::new(refusal))
        };
        if !parts.status.is_success() {
            // An answer that breaks off has still said its status.
            let body = self.read(body).await.unwrap_or_default();
            return Err(refused(&body));
        }
        if let Some(sent) = &call.echo
            && let Some(stored) = self.wire.echoed(&parts.headers)
            && stored != *sent
        {
            let sent = sent.clone();
            return Err(S3Fault::ChecksumDiffers { sent, stored });
        }
        if call.is_streamed {
            return Ok(Reply {
                headers: parts.headers,
                body: Bytes::new(),
                stream: Some(body),
            });
        }
        let body = self.read(body).await?;
        if let Some(check) = call.check
            && let Err(error) = check(&body)
        {
            // CompleteMultipartUpload begins its answer before it knows how it ends.
            return Err(match xml::error_document(&body) {
                Some(_) => refused(&body),
                None => error.into(),
            });
        }
        Ok(Reply {
            headers: parts.headers,
            body,
            stream: None,
        })
    }

    /// The whole answer. A server that is at work on CompleteMultipartUpload sends blanks for
    /// minutes, so what counts is that something comes.
    async fn read(&self, mut body: ResponseBody) -> Result<Bytes, S3Fault> {
        let after = self.limits.stall_timeout;
        let failed = |error| S3Fault::http(error, self.address.tls);
        let mut whole = BytesMut::new();
        loop {
            let chunk = match tokio::time::timeout(after, body.chunk()).await {
                Ok(chunk) => chunk.map_err(failed)?,
                Err(_) => return Err(S3Fault::NoAnswer { after }),
            };
            let Some(chunk) = chunk else {
                return Ok(whole.freeze());
            };
            if chunk.len() > ANSWER_LIMIT.bytes.saturating_sub(whole.len()) {
                return Err(failed(ANSWER_LIMIT.exceeded()));
            }
            whole.extend_from_slice(&chunk);
        }
    }
}
