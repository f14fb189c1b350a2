//! The server: its connections, what it saw, and what goes wrong on them. It speaks HTTP by hand,
//! so that it can break off anywhere.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::azure::AzureService;
use super::store::{Answer, Checksums, Service, Store, refusal};
use super::swift::SwiftService;
use crate::net::http::percent_decoded;

/// Longest header and longest body that are taken.
const HEADER_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 128 << 20;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done.
    Pass,
    /// It is not done; this status, S3 code and further headers are the answer.
    Refuse(u16, &'static str, &'static [(&'static str, &'static str)]),
    /// It is not done; the answer is 200 with an error document.
    ErrorInside(&'static str),
    /// The connection breaks in the middle of the request's body.
    Reset,
    /// The request's body is not taken, and there is no answer.
    Stall,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
    /// It is done, and the answer lacks its last byte, which ends no document.
    Truncate,
    /// It is done, and the connection breaks after two thirds of the answer.
    CutAnswer,
    /// The answer is that it is done, and nothing is kept.
    LoseObject,
    /// A bit of the body flips on its way, unnoticed by the server unless a sum tells.
    Damage,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// The method.
    pub method: String,
    /// Its name in the S3 API, or "Other".
    pub operation: &'static str,
    /// What it is about: `bucket`, or `bucket/name` of an object.
    pub name: String,
    /// The pairs of the query, decoded.
    pub query: BTreeMap<String, String>,
    /// Headers.
    pub headers: HeaderMap,
    /// Length of the body as far as it was read.
    pub body_bytes: u64,
}

/// An S3 server in memory, with any bucket in path style, that misbehaves on request; or one of
/// another store. It checks the sums of bodies, not signatures. It ends when it is dropped.
pub struct FakeS3 {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _connections: JoinSet<()>,
}

type Decide = dyn Fn(&SeenRequest) -> Fault + Send + Sync;

struct Shared {
    store: Mutex<Box<dyn Service>>,
    traffic: Mutex<Traffic>,
    decide: Mutex<Arc<Decide>>,
}

#[derive(Default)]
struct Traffic {
    seen: Vec<SeenRequest>,
    body_bytes: u64,
    bodies: usize,
    bodies_max: usize,
}

/// A body on its way.
struct Counted<'a>(&'a Mutex<Traffic>, usize);

// === impl FakeS3 ===

impl FakeS3 {
    /// Starts a server on loopback. `decide` is asked before each request.
    ///
    /// # Errors
    /// Where loopback has no port.
    pub async fn start(
        checksums: Checksums,
        decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serving(Box::new(Store::new(checksums)), decide).await
    }

    /// As [`FakeS3::start`], a server that speaks Google's XML API and gives tokens at `/token` to
    /// whoever signs with the key whose public half this is. It has every bucket in path style.
    ///
    /// # Errors
    /// Where loopback has no port.
    pub async fn google(
        public_key: Vec<u8>,
        decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serving(Box::new(Store::google(public_key)), decide).await
    }

    /// As [`FakeS3::start`], a server that speaks Azure's Blob API, takes any signature, and has
    /// the account `account`.
    ///
    /// # Errors
    /// Where loopback has no port.
    pub async fn azure(
        decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serving(Box::new(AzureService::default()), decide).await
    }

    /// As [`FakeS3::start`], a server that speaks Swift and Keystone, with the containers `blocks`
    /// and `segments`, and the user `user` with the password `hidden`.
    ///
    /// # Errors
    /// Where loopback has no port.
    pub async fn swift(
        decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serving(Box::new(SwiftService::default()), decide).await
    }

    async fn serving(
        service: Box<dyn Service>,
        decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(service),
            traffic: Mutex::default(),
            decide: Mutex::new(Arc::new(decide)),
        });
        let mut connections = JoinSet::new();
        let state = Arc::clone(&shared);
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                open.spawn(async move {
                    // A connection that breaks is what half of the faults are.
                    state.converse(stream).await.ok();
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            addr,
            shared,
            _connections: connections,
        })
    }

    /// From now on `decide` is asked. It may look at this server's objects.
    pub fn decide_by(&self, decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static) {
        *lock(&self.shared.decide) = Arc::new(decide);
    }

    /// From now on parts but the last are at least so long; the real one wants 5 MiB.
    pub fn set_part_bytes_min(&self, bytes: usize) {
        lock(&self.shared.store).set_part_bytes_min(bytes);
    }

    /// `host:port`.
    pub fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    /// What was seen so far.
    pub fn seen(&self) -> Vec<SeenRequest> {
        lock(&self.shared.traffic).seen.clone()
    }

    /// How many requests of this name were seen.
    pub fn count(&self, operation: &str) -> usize {
        let seen = &lock(&self.shared.traffic).seen;
        seen.iter().filter(|one| one.operation == operation).count()
    }

    /// Bytes of request bodies that arrived so far, also of requests that failed or broke off.
    pub fn body_bytes(&self) -> u64 {
        lock(&self.shared.traffic).body_bytes
    }

    /// How many bodies are on their way now.
    pub fn bodies_now(&self) -> usize {
        lock(&self.shared.traffic).bodies
    }

    /// The most bodies that were on their way at once.
    pub fn bodies_max(&self) -> usize {
        lock(&self.shared.traffic).bodies_max
    }

    /// The content of every object, by `bucket/name`.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        lock(&self.shared.store).contents()
    }

    /// The content of an object, by `bucket/name`.
    pub fn object(&self, name: &str) -> Option<Bytes> {
        self.objects().remove(name)
    }

    /// Multipart uploads that were neither completed nor aborted.
    pub fn uploads(&self) -> usize {
        lock(&self.shared.store).uploads(0)
    }

    /// Those of them that hold parts. One without parts costs nothing, and a crash at its birth
    /// leaves it behind with a name that nobody has heard.
    pub fn open_uploads(&self) -> usize {
        lock(&self.shared.store).uploads(1)
    }
}

impl std::fmt::Debug for FakeS3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeS3")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some((seen, length)) = read_head(&mut stream).await? {
            let decide = Arc::clone(&*lock(&self.decide));
            let fault = decide(&seen);
            if fault == Fault::Stall {
                lock(&self.traffic).seen.push(seen);
                return std::future::pending().await;
            }
            let is_head = seen.method == "HEAD";
            let answer = self.answer(&mut stream, seen, length, fault).await?;
            let mut bytes = wire(&answer, is_head);
            let whole = bytes.len();
            match fault {
                Fault::Reset | Fault::LoseAnswer => bytes.clear(),
                Fault::Truncate => bytes.truncate(whole - 1),
                Fault::CutAnswer => bytes.truncate(whole * 2 / 3),
                _ => {}
            }
            stream.get_mut().write_all(&bytes).await?;
            if bytes.len() < whole {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a request's body and answers.
    async fn answer(
        &self,
        stream: &mut BufReader<TcpStream>,
        mut seen: SeenRequest,
        length: usize,
        fault: Fault,
    ) -> io::Result<Answer> {
        let _counted = Counted::new(&self.traffic, &seen);
        let wanted = if fault == Fault::Reset {
            length / 2
        } else {
            length
        };
        let mut body = Vec::with_capacity(wanted);
        while body.len() < wanted {
            let mut rest = (&mut *stream).take((wanted - body.len()) as u64);
            let read = rest.read_buf(&mut body).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            lock(&self.traffic).body_bytes += read as u64;
        }
        seen.body_bytes = body.len() as u64;
        lock(&self.traffic).seen.push(seen.clone());
        let middle = body.len() / 2;
        if let (Fault::Damage, Some(byte)) = (fault, body.get_mut(middle)) {
            *byte ^= 0x10;
        }
        Ok(match fault {
            Fault::Refuse(status, code, headers) => refusal(status, code, headers),
            Fault::ErrorInside(code) => refusal(200, code, &[]),
            Fault::Reset => Answer::default(),
            _ => {
                let keeps = fault != Fault::LoseObject;
                lock(&self.store).answer(&seen, body.into(), keeps)
            }
        })
    }
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn new(traffic: &'a Mutex<Traffic>, seen: &SeenRequest) -> Self {
        let is_body = ["PutObject", "UploadPart"].contains(&seen.operation);
        let counted = Self(traffic, usize::from(is_body));
        let mut traffic = lock(traffic);
        traffic.bodies += counted.1;
        traffic.bodies_max = traffic.bodies_max.max(traffic.bodies);
        counted
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        lock(self.0).bodies -= self.1;
    }
}

/// The next request without its body, and the body's length; `None` where the peer is done.
async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(SeenRequest, usize)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(_) if head.len() == HEADER_BYTES_MAX => {
                return Err(io::Error::other("the header is too long"));
            }
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let malformed = || io::Error::other("not a request");
    let text = String::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = first.next().zip(first.next()).ok_or_else(malformed)?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        let value = HeaderValue::from_str(value.trim()).map_err(io::Error::other)?;
        headers.append(name, value);
    }
    let length = headers
        .get("content-length")
        .map_or(Ok("0"), |n| n.to_str());
    let length = length.map_err(io::Error::other)?.parse();
    let length = length.map_err(io::Error::other)?;
    if length > BODY_BYTES_MAX {
        return Err(io::Error::other("the body is too long"));
    }
    Ok(Some((seen(method, target, headers), length)))
}

fn seen(method: &str, target: &str, headers: HeaderMap) -> SeenRequest {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query: BTreeMap<String, String> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (percent_decoded(name), percent_decoded(value)))
        .collect();
    let name = path.trim_matches('/');
    let has = |name: &str| query.contains_key(name);
    let operation = match (method, name.contains('/')) {
        ("PUT", true) if has("uploadId") => "UploadPart",
        ("PUT", true) => "PutObject",
        ("POST", true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true) if has("uploadId") => "CompleteMultipartUpload",
        ("DELETE", true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("HEAD", true) => "HeadObject",
        ("GET", true) if has("uploadId") => "ListParts",
        ("GET", true) => "GetObject",
        ("POST", false) if name == "token" => "Token",
        ("GET", false) if has("location") => "GetBucketLocation",
        ("GET", false) if has("list-type") => "ListObjectsV2",
        ("GET", false) => "ListObjects",
        _ => "Other",
    };
    SeenRequest {
        method: method.to_owned(),
        operation,
        name: percent_decoded(name),
        query,
        headers,
        body_bytes: 0,
    }
}

/// An answer as it goes over the wire; that to HEAD has no body and its length all the same.
fn wire(answer: &Answer, is_head: bool) -> Vec<u8> {
    let (status, length) = (answer.status().as_u16(), answer.body().len());
    let mut bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n").into_bytes();
    for (name, value) in answer.headers() {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        bytes.extend(line.concat());
    }
    bytes.extend_from_slice(b"\r\n");
    if !is_head {
        bytes.extend_from_slice(answer.body());
    }
    bytes
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
