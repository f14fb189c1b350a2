//! An S3 server in memory for tests, that misbehaves on request: it can refuse or ignore
//! checksums, lose answers, cut them short, stall, and remembers what it saw. It checks the sums
//! of bodies, not signatures.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, ETAG, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::integrity::{Combined, Summing, Sums, Wanted, crc64_text, md5_text};
use super::object::{CHECKSUM_CRC64NVME, CHECKSUM_TYPE};
use crate::net::http::percent_decoded;

/// What the server does about `x-amz-checksum-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Checks and echoes, as AWS does.
    Echo,
    /// Takes no notice of them, as old servers do.
    Ignore,
    /// 501 NotImplemented, as R2 does.
    NotImplemented,
    /// 400 InvalidArgument, as B2 does.
    InvalidArgument,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done.
    Pass,
    /// It is not done; this status, S3 code and further headers are the answer.
    Refuse(u16, &'static str, Vec<(&'static str, String)>),
    /// It is not done; the answer is 200 with an error document.
    ErrorInside(&'static str),
    /// The connection breaks inside the request's body.
    Reset,
    /// The request's body is not taken, and there is no answer.
    Stall,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
    /// It is done, and the answer's body is cut short.
    Truncate,
    /// The body is damaged on its way, unnoticed by the server unless a sum tells.
    Damage,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// Its name in the S3 API.
    pub operation: &'static str,
    /// Method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Headers.
    pub headers: HeaderMap,
    /// Length of the body as far as it was read.
    pub body_bytes: u64,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    uploads_ever: u32,
    bodies: usize,
    bodies_max: usize,
    seen: Vec<SeenRequest>,
}

type Decide = Arc<dyn Fn(&SeenRequest) -> Fault + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Serves until dropped, any bucket in path style.
pub struct FakeS3 {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for FakeS3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeS3")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// One connection's view.
#[derive(Clone)]
struct Server {
    state: Arc<Mutex<State>>,
    checksums: Checksums,
    decide: Decide,
}

impl FakeS3 {
    /// Starts a server on loopback. `decide` is asked before each request.
    ///
    /// # Errors
    /// Where loopback has no port.
    pub async fn start(
        checksums: Checksums,
        decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server {
            state: Arc::clone(&state),
            checksums,
            decide: Arc::new(decide),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| server.clone().answer(request));
                    let io = TokioIo::new(stream);
                    // A connection that breaks is what half of the faults are.
                    http1::Builder::new()
                        .serve_connection(io, service)
                        .await
                        .ok();
                });
            }
        });
        Ok(Self {
            addr,
            state,
            _tasks: tasks,
        })
    }

    /// `host:port`.
    pub fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    /// What was seen so far.
    pub fn seen(&self) -> Vec<SeenRequest> {
        lock(&self.state).seen.clone()
    }

    /// How many requests of this name were seen.
    pub fn count(&self, operation: &str) -> usize {
        let seen = &lock(&self.state).seen;
        seen.iter().filter(|one| one.operation == operation).count()
    }

    /// An object, by bucket and name: `bucket/name`.
    pub fn object(&self, name: &str) -> Option<Bytes> {
        lock(&self.state).objects.get(name).cloned()
    }

    /// Multipart uploads that are open.
    pub fn open_uploads(&self) -> usize {
        lock(&self.state).uploads.len()
    }

    /// How many bodies are on their way now.
    pub fn bodies_now(&self) -> usize {
        lock(&self.state).bodies
    }

    /// The most bodies that were on their way at once.
    pub fn bodies_max(&self) -> usize {
        lock(&self.state).bodies_max
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body on its way.
struct Counted<'a>(&'a Mutex<State>, usize);

impl<'a> Counted<'a> {
    fn new(state: &'a Mutex<State>, seen: &SeenRequest) -> Self {
        let is_body = ["PutObject", "UploadPart"].contains(&seen.operation);
        let counted = Self(state, usize::from(is_body));
        let mut state = lock(state);
        state.bodies += counted.1;
        state.bodies_max = state.bodies_max.max(state.bodies);
        counted
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        lock(self.0).bodies -= self.1;
    }
}

// === impl Server ===

impl Server {
    async fn answer(self, request: Request<Incoming>) -> Result<Answer, io::Error> {
        let (parts, mut incoming) = request.into_parts();
        let mut seen = SeenRequest {
            operation: operation(&parts.method, &parts.uri),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body_bytes: 0,
        };
        let fault = (self.decide)(&seen);
        if fault == Fault::Stall {
            lock(&self.state).seen.push(seen);
            return std::future::pending().await;
        }
        let _counted = Counted::new(&self.state, &seen);
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let data = frame.map_err(io::Error::other)?.into_data();
            body.extend_from_slice(&data.unwrap_or_default());
            if fault == Fault::Reset {
                break;
            }
        }
        seen.body_bytes = body.len() as u64;
        lock(&self.state).seen.push(seen.clone());
        if fault == Fault::Damage
            && let Some(first) = body.first_mut()
        {
            *first ^= 1;
        }
        let body = Bytes::from(body);
        match fault {
            Fault::Refuse(status, code, headers) => {
                let status = StatusCode::from_u16(status).map_err(io::Error::other)?;
                return Ok(refusal(status, code, &headers, &seen.method));
            }
            Fault::ErrorInside(code) => {
                return Ok(refusal(StatusCode::OK, code, &[], &seen.method));
            }
            Fault::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        let answer = self.perform(&seen, body);
        match fault {
            Fault::LoseAnswer => Err(io::ErrorKind::ConnectionReset.into()),
            Fault::Truncate => Ok(truncated(answer).await),
            _ => Ok(answer),
        }
    }

    fn perform(&self, seen: &SeenRequest, body: Bytes) -> Answer {
        let refuse = |status, code| refusal(status, code, &[], &seen.method);
        let writes = matches!(
            seen.operation,
            "PutObject" | "UploadPart" | "CreateMultipartUpload" | "CompleteMultipartUpload"
        );
        let has_checksum = seen
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("x-amz-checksum-"));
        if has_checksum && writes {
            match self.checksums {
                Checksums::NotImplemented => {
                    return refuse(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
                }
                Checksums::InvalidArgument => {
                    return refuse(StatusCode::BAD_REQUEST, "InvalidArgument");
                }
                Checksums::Echo | Checksums::Ignore => {}
            }
        }
        let sums = sums(&body);
        if let Some(code) = self.mismatch(seen, &sums) {
            return refuse(StatusCode::BAD_REQUEST, code);
        }
        let name = percent_decoded(seen.uri.path().trim_start_matches('/'));
        let mut state = lock(&self.state);
        match seen.operation {
            "PutObject" => {
                state.objects.insert(name, body);
                self.stored(seen, &sums)
            }
            "CreateMultipartUpload" => {
                state.uploads_ever += 1;
                let id = format!("upload/{}+", state.uploads_ever);
                state.uploads.insert(id.clone(), BTreeMap::new());
                document(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                ))
            }
            "UploadPart" => match state.uploads.get_mut(&upload_id(seen)) {
                None => refuse(StatusCode::NOT_FOUND, "NoSuchUpload"),
                Some(parts) => {
                    let number = parameter(seen, "partNumber").parse().unwrap_or(0);
                    parts.insert(number, body);
                    self.stored(seen, &sums)
                }
            },
            "CompleteMultipartUpload" => self.complete(&mut state, seen, &name, &body),
            "AbortMultipartUpload" => match state.uploads.remove(&upload_id(seen)) {
                None => refuse(StatusCode::NOT_FOUND, "NoSuchUpload"),
                Some(_) => plain(StatusCode::NO_CONTENT, Bytes::new()),
            },
            "HeadObject" | "GetObject" => match state.objects.get(&name) {
                None => refuse(StatusCode::NOT_FOUND, "NoSuchKey"),
                Some(object) => self.object(seen, object),
            },
            "DeleteObject" => {
                state.objects.remove(&name);
                plain(StatusCode::NO_CONTENT, Bytes::new())
            }
            "GetBucketLocation" => document("<LocationConstraint/>"),
            _ => document(&listing(&state, seen, &name)),
        }
    }

    /// What is wrong with the sums that came with a body.
    fn mismatch(&self, seen: &SeenRequest, sums: &Sums) -> Option<&'static str> {
        let differs = |name: &str, expected: &str| {
            let value = seen.headers.get(name);
            value.is_some_and(|value| value.as_bytes() != expected.as_bytes())
        };
        let md5 = md5_text(&sums.md5.unwrap_or_default());
        let is_body = seen.operation != "CompleteMultipartUpload";
        let crc = is_body
            && self.checksums == Checksums::Echo
            && differs(CHECKSUM_CRC64NVME.as_str(), &crc64_text(sums.crc64));
        if crc || differs("content-md5", &md5) {
            return Some("BadDigest");
        }
        let signed = seen.headers.get("x-amz-content-sha256")?;
        let sha256 = hex::encode(sums.sha256.unwrap_or_default());
        let is_right = signed == "UNSIGNED-PAYLOAD" || signed.as_bytes() == sha256.as_bytes();
        (!is_right).then_some("XAmzContentSHA256Mismatch")
    }

    fn stored(&self, seen: &SeenRequest, sums: &Sums) -> Answer {
        let mut answer = plain(StatusCode::OK, Bytes::new());
        let md5 = hex::encode(sums.md5.unwrap_or_default());
        let headers = answer.headers_mut();
        headers.insert(
            ETAG,
            super::object::text_header(&format!("\"{md5}<&>-of-its-own\"")),
        );
        if self.checksums == Checksums::Echo
            && let Some(value) = seen.headers.get(CHECKSUM_CRC64NVME)
        {
            headers.insert(CHECKSUM_CRC64NVME, value.clone());
        }
        answer
    }

    fn complete(&self, state: &mut State, seen: &SeenRequest, name: &str, body: &[u8]) -> Answer {
        let id = upload_id(seen);
        let Some(parts) = state.uploads.get(&id) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchUpload", &[], &seen.method);
        };
        let mut whole = Vec::new();
        let mut combined = Combined::default();
        for (number, part) in parts {
            let etag = format!(
                "<ETag>&quot;{}&lt;&amp;&gt;-of-its-own&quot;</ETag>\
                 <PartNumber>{number}</PartNumber>",
                hex::encode(sums(part).md5.unwrap_or_default())
            );
            if !String::from_utf8_lossy(body).contains(&etag) {
                return refusal(StatusCode::BAD_REQUEST, "InvalidPart", &[], &seen.method);
            }
            combined.append(sums(part).crc64, part.len() as u64);
            whole.extend_from_slice(part);
        }
        let crc = crc64_text(combined.crc64());
        let given = seen.headers.get(CHECKSUM_CRC64NVME);
        if self.checksums == Checksums::Echo && given.is_some_and(|given| given != crc.as_str()) {
            return refusal(StatusCode::BAD_REQUEST, "BadDigest", &[], &seen.method);
        }
        state.uploads.remove(&id);
        state.objects.insert(name.to_owned(), Bytes::from(whole));
        let told = match (self.checksums, given) {
            (Checksums::Echo, Some(_)) => format!(
                "<ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME>\
                 <ChecksumType>FULL_OBJECT</ChecksumType>"
            ),
            _ => String::new(),
        };
        document(&format!(
            "<CompleteMultipartUploadResult>{told}</CompleteMultipartUploadResult>"
        ))
    }

    fn object(&self, seen: &SeenRequest, object: &Bytes) -> Answer {
        let range = seen.headers.get(RANGE).and_then(|range| {
            let (start, end) = range
                .to_str()
                .ok()?
                .strip_prefix("bytes=")?
                .split_once('-')?;
            let end = end.parse().unwrap_or(usize::MAX).min(object.len() - 1);
            Some(start.parse().ok()?..=end)
        });
        let mut answer = match range {
            Some(range) => plain(StatusCode::PARTIAL_CONTENT, object.slice(range)),
            None if seen.method == Method::HEAD => {
                let mut answer = plain(StatusCode::OK, Bytes::new());
                answer
                    .headers_mut()
                    .insert(CONTENT_LENGTH, object.len().into());
                answer
            }
            None => plain(StatusCode::OK, object.clone()),
        };
        if self.checksums == Checksums::Echo && seen.headers.contains_key("x-amz-checksum-mode") {
            let crc = super::object::text_header(&crc64_text(sums(object).crc64));
            let full = http::HeaderValue::from_static("FULL_OBJECT");
            answer.headers_mut().insert(CHECKSUM_CRC64NVME, crc);
            answer.headers_mut().insert(CHECKSUM_TYPE, full);
        }
        answer
    }
}

fn operation(method: &Method, uri: &Uri) -> &'static str {
    let query = uri.query().unwrap_or_default();
    let is_bucket = uri.path().trim_matches('/').split('/').count() == 1;
    let has = |name: &str| {
        query
            .split('&')
            .any(|one| one.split('=').next() == Some(name))
    };
    match method.as_str() {
        "PUT" if has("partNumber") => "UploadPart",
        "PUT" => "PutObject",
        "POST" if has("uploads") => "CreateMultipartUpload",
        "POST" => "CompleteMultipartUpload",
        "DELETE" if has("uploadId") => "AbortMultipartUpload",
        "DELETE" => "DeleteObject",
        "HEAD" => "HeadObject",
        _ if has("location") => "GetBucketLocation",
        _ if is_bucket && has("list-type") => "ListObjectsV2",
        _ if is_bucket => "ListObjects",
        _ => "GetObject",
    }
}

/// A page of three names, to see pages turned.
fn listing(state: &State, seen: &SeenRequest, bucket: &str) -> String {
    const PAGE: usize = 3;
    let v1 = seen.operation == "ListObjects";
    let prefix = parameter(seen, "prefix");
    let after = parameter(seen, if v1 { "marker" } else { "continuation-token" });
    let base = format!("{}/", bucket.trim_end_matches('/'));
    let mut names: Vec<String> = state
        .objects
        .keys()
        .filter_map(|name| name.strip_prefix(&base)?.strip_prefix(&prefix))
        .map(|name| match name.split_once('/') {
            Some((directory, _)) => format!("{prefix}{directory}/"),
            None => format!("{prefix}{name}"),
        })
        .collect();
    names.dedup();
    let rest: Vec<_> = names.into_iter().filter(|name| *name > after).collect();
    let mut text = format!(
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>",
        rest.len() > PAGE
    );
    for name in rest.iter().take(PAGE) {
        let encoded = super::address::uri_encoded(name, false);
        text.push_str(&match name.ends_with('/') {
            true => format!("<CommonPrefixes><Prefix>{encoded}</Prefix></CommonPrefixes>"),
            false => format!("<Contents><Key>{encoded}</Key></Contents>"),
        });
    }
    if let Some(last) = rest.get(PAGE - 1).filter(|_| rest.len() > PAGE) {
        // Markers are encoded like names, tokens are opaque.
        text.push_str(&match v1 {
            true => format!(
                "<NextMarker>{}</NextMarker>",
                super::address::uri_encoded(last, false)
            ),
            false => format!("<NextContinuationToken>{last}</NextContinuationToken>"),
        });
    }
    text.push_str("</ListBucketResult>");
    text
}

fn sums(body: &[u8]) -> Sums {
    let mut summing = Summing::new(Wanted {
        md5: true,
        sha256: true,
    });
    summing.update(body);
    summing.finish()
}

fn upload_id(seen: &SeenRequest) -> String {
    parameter(seen, "uploadId")
}

fn parameter(seen: &SeenRequest, name: &str) -> String {
    let query = seen.uri.query().unwrap_or_default();
    let found = query.split('&').find_map(|one| {
        let (key, value) = one.split_once('=')?;
        (key == name).then(|| percent_decoded(value))
    });
    found.unwrap_or_default()
}

fn plain(status: StatusCode, body: Bytes) -> Answer {
    let body = Full::new(body).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer
}

fn document(text: &str) -> Answer {
    plain(StatusCode::OK, Bytes::from(text.to_owned()))
}

fn refusal(
    status: StatusCode,
    code: &str,
    headers: &[(&'static str, String)],
    method: &Method,
) -> Answer {
    let text = format!(
        "<Error><Code>{code}</Code><Message>as the test wants it</Message>\
         <RequestId>R-1</RequestId></Error>"
    );
    let body = match method == Method::HEAD || code.is_empty() {
        true => Bytes::new(),
        false => Bytes::from(text),
    };
    let mut answer = plain(status, body);
    for (name, value) in headers {
        let value = super::object::text_header(value);
        answer.headers_mut().insert(*name, value);
    }
    answer
}

/// The answer, ending before its announced length.
async fn truncated(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let whole = body.collect().await;
    let whole = whole.map(|body| body.to_bytes()).unwrap_or_default();
    parts
        .headers
        .insert(CONTENT_LENGTH, (whole.len() + 10).into());
    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
    let frames = [Ok(Frame::data(whole)), Err(cut)];
    Response::from_parts(parts, StreamBody::new(stream::iter(frames)).boxed_unsync())
}

/// The headers that a signed request to `url` bears, for measuring what a signature costs.
///
/// # Panics
/// Where `url` is none.
pub fn signed_headers(url: &str) -> HeaderMap {
    let keys = aws_credential_types::Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let mut headers = HeaderMap::new();
    let payload = super::sign::PayloadHash::Unsigned;
    let now_ns = 1_369_353_600_000_000_000;
    super::sign::signed(
        &Method::PUT,
        url,
        &mut headers,
        &payload,
        &keys,
        "us-east-1",
        now_ns,
    )
    .expect("a good URL is signed");
    headers
}

/// The CRC-64/NVME of `runs`, and the other sums too where they are wanted, for measuring.
pub fn summed(runs: &[Bytes], md5: bool, sha256: bool) -> u64 {
    let mut summing = Summing::new(Wanted { md5, sha256 });
    for run in runs {
        summing.update(run);
    }
    summing.finish().crc64
}
