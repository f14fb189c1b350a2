//! An S3 server in memory that checks what it is sent and fails when it is told to.
//!
//! For tests of what must hold whatever a server does. It speaks HTTP by hand, so that it can break
//! off anywhere. Signatures are not checked here; other tests have servers which do.

mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use store::{Answer, Store};

use super::{S3Bucket, S3Config, S3Credentials, S3Limits};
use crate::model::Clock;
use crate::net::http::{ClientConfig, HttpClient};
use crate::net::{ClientTls, TlsError};

/// Longest header and longest body that are taken.
const HEADER_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 128 << 20;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct S3Request {
    /// What is asked for.
    pub kind: S3RequestKind,
    /// The object's name; empty for a listing.
    pub key: String,
    /// `key=value` of the query, decoded.
    pub query: BTreeMap<String, String>,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The bytes sent with it.
    pub body: Bytes,
}

/// The requests that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3RequestKind {
    /// PutObject.
    Put,
    /// CreateMultipartUpload.
    Create,
    /// UploadPart.
    Part,
    /// CompleteMultipartUpload.
    Complete,
    /// AbortMultipartUpload.
    Abort,
    /// HeadObject.
    Head,
    /// GetObject.
    Get,
    /// DeleteObject.
    Delete,
    /// ListObjects or ListObjectsV2.
    List,
    /// GetBucketLocation.
    Location,
    /// Anything else.
    Other,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Failure {
    /// The connection ends in the middle of the request's body.
    ResetInBody,
    /// The request is done, and the connection ends without an answer.
    LoseAnswer,
    /// The request is done, and the connection ends within the answer.
    CutAnswer,
    /// Nothing is done, and no answer ever comes.
    Stall,
    /// Nothing is done, and the answer is an error: status and code.
    Refuse(u16, &'static str),
    /// The answer is "done" and nothing is kept.
    LoseObject,
    /// One bit of the body is another on arrival than it was when it was sent.
    FlipBit,
}

/// How the server is.
#[derive(Clone, Copy, Debug)]
pub struct S3Manners {
    /// Whether `x-amz-checksum-*` is understood: checked, kept and told.
    pub checksums: S3Checksums,
    /// Parts but the last are at least so long; the real one wants 5 MiB.
    pub part_bytes_min: usize,
}

/// What becomes of `x-amz-checksum-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Checksums {
    /// Checked, kept and told.
    Honoured,
    /// Not looked at.
    Ignored,
    /// An error.
    Refused,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct FlakyS3 {
    address: SocketAddr,
    shared: Arc<Shared>,
    _connections: JoinSet<()>,
}

type Decide = dyn Fn(&S3Request) -> Option<S3Failure> + Send + Sync;

struct Shared {
    store: Mutex<Store>,
    decide: Mutex<Arc<Decide>>,
    body_bytes: AtomicU64,
}

/// A client for any number of buckets without TLS.
#[derive(Clone, Debug)]
pub struct PlainHttp(HttpClient);

impl PlainHttp {
    /// A client without connections. They belong to the runtime that they are made in.
    ///
    /// # Errors
    /// Where TLS, which it never uses, can't be set up.
    pub fn new() -> Result<Self, TlsError> {
        let config = ClientConfig {
            tls: ClientTls::default().build()?,
            proxy: None,
            connect_timeout: Some(Duration::from_secs(30)),
            tls_handshake_timeout: None,
            response_header_timeout: None,
            idle_timeout: Some(Duration::from_secs(90)),
            idle_per_host_max: 4,
            connections_per_host_max: None,
        };
        Ok(Self(HttpClient::new(config)))
    }

    /// A bucket whose requests somebody signs.
    pub fn bucket(&self, config: S3Config, limits: S3Limits, clock: Clock) -> S3Bucket {
        let somebody = S3Credentials::fixed("AKIAANYBODY", "secret", None);
        S3Bucket::new(config, self.0.clone(), somebody, limits, clock, 1)
    }
}

// === impl FlakyS3 ===

impl FlakyS3 {
    /// Starts a server on a loopback port that holds one bucket, whose name does not matter.
    pub async fn start(manners: S3Manners) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(manners)),
            decide: Mutex::new(Arc::new(|_| None)),
            body_bytes: AtomicU64::new(0),
        });
        let mut connections = JoinSet::new();
        let state = Arc::clone(&shared);
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                open.spawn(async move {
                    // A peer that goes away, or a fault that ends the connection.
                    drop(state.converse(stream).await);
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            shared,
            _connections: connections,
        })
    }

    /// `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// From now on `decide` tells what goes wrong with each request.
    pub fn fail(&self, decide: impl Fn(&S3Request) -> Option<S3Failure> + Send + Sync + 'static) {
        *locked(&self.shared.decide) = Arc::new(decide);
    }

    /// The content of every object.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        locked(&self.shared.store).objects()
    }

    /// Puts an object there, past every check.
    pub fn put(&self, key: &str, content: Bytes) {
        locked(&self.shared.store).insert(key, content, None);
    }

    /// Uploads that hold parts and were neither completed nor aborted. One without parts costs
    /// nothing, and a crash at its birth leaves it behind with a name that nobody has heard.
    pub fn open_uploads(&self) -> usize {
        locked(&self.shared.store).open_uploads()
    }

    /// Bytes of request bodies that arrived so far, of requests that failed too.
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some((mut request, length)) = read_header(&mut stream).await? {
            let decide = Arc::clone(&*locked(&self.decide));
            let fault = decide(&request);
            if fault == Some(S3Failure::ResetInBody) {
                let mut half = vec![0; length / 2];
                stream.read_exact(&mut half).await?;
                self.body_bytes
                    .fetch_add(half.len() as u64, Ordering::Relaxed);
                return Ok(());
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            self.body_bytes
                .fetch_add(body.len() as u64, Ordering::Relaxed);
            let middle = body.len() / 2;
            if let (Some(S3Failure::FlipBit), Some(byte)) = (fault, body.get_mut(middle)) {
                *byte ^= 0x10;
            }
            request.body = body.into();
            let answer = match fault {
                Some(S3Failure::Refuse(status, code)) => Answer::error(status, code),
                Some(S3Failure::Stall) => return std::future::pending().await,
                fault => locked(&self.store).answer(&request, fault),
            };
            let is_head = request.kind == S3RequestKind::Head;
            let mut bytes = answer.to_bytes(is_head);
            match fault {
                Some(S3Failure::LoseAnswer) => return Ok(()),
                Some(S3Failure::CutAnswer) => bytes.truncate(bytes.len() * 2 / 3),
                _ => {}
            }
            stream.get_mut().write_all(&bytes).await?;
            if fault == Some(S3Failure::CutAnswer) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The next request without its body, and the body's length; `None` where the peer is done.
async fn read_header(
    stream: &mut BufReader<TcpStream>,
) -> std::io::Result<Option<(S3Request, usize)>> {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if header.len() < HEADER_BYTES_MAX => header.push(byte),
            Err(error)
                if header.is_empty() && error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                return Ok(None);
            }
            Ok(_) => return Err(std::io::Error::other("the header is too long")),
            Err(error) => return Err(error),
        }
    }
    let malformed = || std::io::Error::other("not a request");
    let text = String::from_utf8(header).map_err(|_| malformed())?;
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next(), first.next());
    let (method, target) = method.zip(target).ok_or_else(malformed)?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = match headers.get("content-length") {
        Some(length) => length.parse().map_err(|_| malformed())?,
        None => 0,
    };
    if length > BODY_BYTES_MAX {
        return Err(std::io::Error::other("the body is too long"));
    }
    Ok(Some((request(method, target, headers), length)))
}

fn request(method: &str, target: &str, headers: BTreeMap<String, String>) -> S3Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query: BTreeMap<String, String> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    // Path style: the bucket is the first element.
    let (_, key) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_default();
    let (has_id, has_uploads) = (
        query.contains_key("uploadId"),
        query.contains_key("uploads"),
    );
    let kind = match (method, key.is_empty()) {
        ("PUT", false) if has_id => S3RequestKind::Part,
        ("PUT", false) => S3RequestKind::Put,
        ("POST", false) if has_uploads => S3RequestKind::Create,
        ("POST", false) if has_id => S3RequestKind::Complete,
        ("DELETE", false) if has_id => S3RequestKind::Abort,
        ("DELETE", false) => S3RequestKind::Delete,
        ("HEAD", false) => S3RequestKind::Head,
        ("GET", false) => S3RequestKind::Get,
        ("GET", true) if query.contains_key("location") => S3RequestKind::Location,
        ("GET", true) => S3RequestKind::List,
        _ => S3RequestKind::Other,
    };
    S3Request {
        kind,
        key: decoded(key),
        query,
        headers,
        body: Bytes::new(),
    }
}

fn decoded(text: &str) -> String {
    crate::net::http::percent_decoded(text)
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
