//! A loopback HTTP/1.1 server for tests that answers with scripted bytes, right or wrong, and
//! remembers what it saw; with TLS by a throw-away authority.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `GET /path HTTP/1.1`
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which connection, from 0.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// What a request gets.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, then the connection is closed.
    Close(Vec<u8>),
    /// Nothing, until the peer goes away.
    Hang,
    /// These bytes after a pause.
    Late(Duration, Vec<u8>),
    /// The first bytes once, then the second for ever.
    Endless(Vec<u8>, Vec<u8>),
}

/// A whole response with a length.
pub(crate) fn response(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

#[derive(Default)]
struct Tally {
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

/// Serves until dropped.
pub(crate) struct ScriptedServer {
    addr: SocketAddr,
    tally: Arc<Tally>,
    hung_up: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl ScriptedServer {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, Arc::new(script)).await
    }

    pub(crate) async fn start_tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::serve(Some(acceptor), Arc::new(script)).await
    }

    async fn serve(tls: Option<tokio_rustls::TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tally = Arc::new(Tally::default());
        let (hang_up, hung_up) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let counts = Arc::clone(&tally);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = counts.accepted.fetch_add(1, Ordering::SeqCst);
                let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
                counts.open_max.fetch_max(open, Ordering::SeqCst);
                let (tls, script) = (tls.clone(), Arc::clone(&script));
                let (counts, hang_up) = (Arc::clone(&counts), hang_up.clone());
                connections.spawn(async move {
                    match tls {
                        None => converse(stream, connection, &script, &counts).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, connection, &script, &counts).await;
                            }
                        }
                    }
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                    hang_up.send_modify(|count| *count += 1);
                });
            }
        });
        Self {
            addr,
            tally,
            hung_up,
            _tasks: tasks,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.tally.seen.lock().unwrap().clone()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.tally.accepted.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    pub(crate) fn open_max(&self) -> usize {
        self.tally.open_max.load(Ordering::SeqCst)
    }

    /// Resolves once `count` connections have been closed by their peers.
    pub(crate) async fn hung_up(&self, count: usize) {
        let mut hung_up = self.hung_up.clone();
        hung_up.wait_for(|closed| *closed >= count).await.unwrap();
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: &Script,
    tally: &Tally,
) {
    while let Some(mut seen) = read_request(&mut stream).await {
        seen.connection = connection;
        tally.seen.lock().unwrap().push(seen.clone());
        let written = match script(&seen) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await,
            Reply::Late(pause, bytes) => {
                tokio::time::sleep(pause).await;
                stream.write_all(&bytes).await
            }
            Reply::Close(bytes) => {
                let written = stream.write_all(&bytes).await;
                written.and(stream.shutdown().await).ok();
                return;
            }
            Reply::Hang => {
                let mut rest = [0; 64];
                while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
                return;
            }
            Reply::Endless(head, piece) => {
                let mut written = stream.write_all(&head).await;
                while written.is_ok() {
                    written = stream.write_all(&piece).await;
                }
                written
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen {
        line,
        headers,
        ..Seen::default()
    };
    let length = seen
        .header("content-length")
        .map_or(0, |v| v.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

// === StoppedClock ===

/// tokio's clock at a stand: it moves only by `advance`. A merely paused clock jumps to the next
/// timer whenever all tasks wait, which beside real sockets means in the middle of an exchange.
pub(crate) struct StoppedClock {
    /// While a blocking task runs, the clock does not jump; this one runs until the drop.
    _blocking: std::sync::mpsc::Sender<()>,
}

impl StoppedClock {
    pub(crate) fn stop() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || receiver.recv().ok());
        tokio::time::pause();
        Self { _blocking: sender }
    }

    /// Moves the clock, letting the tasks whose timers are due run.
    pub(crate) async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}

/// Lets all tasks run until `condition` holds; real time, not the clock's, limits the wait.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "never came: {what}"
        );
        tokio::task::yield_now().await;
    }
}

// === TestCa ===

/// A throw-away authority with files for its certificate, a server's and a client's.
pub(crate) struct TestCa {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
    directory: tempfile::TempDir,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let ca = Self {
            issuer: rcgen::Issuer::new(params, key),
            certificate,
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(ca.ca_file(), ca.certificate.pem()).unwrap();
        ca
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Files of a certificate and key for `name`, signed by this authority.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let cert_file = self.directory.path().join(format!("{name}.pem"));
        let key_file = self.directory.path().join(format!("{name}.key"));
        // Another file each time, as what renews certificates does it: two of the same length
        // within one tick of the file system's clock look alike.
        let beside = self.directory.path().join("beside");
        for (file, text) in [
            (&cert_file, certificate.pem()),
            (&key_file, key.serialize_pem()),
        ] {
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, file).unwrap();
        }
        (cert_file, key_file)
    }

    /// A server that bears `name`, speaking HTTP/1.1; `client_auth`: only to clients with a
    /// certificate of this authority.
    pub(crate) fn server(&self, name: &str, client_auth: bool) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client_auth {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(self.certificate.der().clone()).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    provider,
                );
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        builder
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap()
    }
}
