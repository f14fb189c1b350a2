//! An S3 server that forgets: answers what an uploader asks and throws the bodies away.
//!
//! It runs as a child, so that its CPU is nobody else's, and takes as little of it as can be: over
//! plain HTTP the kernel drops the bytes of a body without copying them. Sizes and checksums are
//! remembered as they were told, since uploaders ask for them; nothing is checked. What happens is
//! told on stdout, a line each.

mod objects;
mod protocol;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Bench;
use crate::child::ChildSlot;
use objects::Objects;
use protocol::{Connection, Plain};

/// First argument of the harness when it is started as the server.
pub(crate) const MODE: &str = "discard-s3";

/// What the server tells of an object whose request has been answered: `put <key>
/// <bytes>`, and when the first request of an upload comes: `begin <key>`.
pub(crate) const PUT: &str = "put ";
pub(crate) const BEGIN: &str = "begin ";

/// Said once the server has forgotten its objects.
const FORGOTTEN: &str = "forgotten";

/// The bucket that every request names.
pub(crate) const BUCKET: &str = "perf";

/// How long the server may take to do what it is told.
const ANSWER: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub(crate) struct DiscardingS3<'a> {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    /// The certificate that HTTPS is served with.
    pub(crate) ca_file: PathBuf,
    events: Receiver<(Instant, String)>,
    servers: &'a ChildSlot,
    /// Each line makes it forget its objects; it ends when this is closed.
    stdin: ChildStdin,
}

// === the child ===

/// The child: listens on two ports and serves until its stdin is closed.
pub(crate) fn run(ca_file: &Path) -> anyhow::Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    std::fs::write(ca_file, certified.cert.pem())?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let key = key.map_err(|error| anyhow::anyhow!("its key: {error}"))?;
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    let objects = Arc::new(Objects::default());
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let secure = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(
        io::stdout(),
        "{} {}",
        plain.local_addr()?,
        secure.local_addr()?
    )?;
    let (of_plain, of_secure) = (Arc::clone(&objects), Arc::clone(&objects));
    accept(plain, move |stream| {
        Connection::new(Plain(stream)).serve(&of_plain)
    });
    let tls = Arc::new(tls);
    accept(secure, move |stream| {
        let session = ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?;
        Connection::new(StreamOwned::new(session, stream)).serve(&of_secure)
    });
    for line in io::stdin().lines() {
        line?;
        objects.forget();
        writeln!(io::stdout(), "{FORGOTTEN}")?;
    }
    Ok(())
}

/// A thread for each connection; there are a handful.
fn accept(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            let handled = stream.and_then(|stream| {
                stream.set_nodelay(true)?;
                std::thread::Builder::new().spawn(move || match serve(stream) {
                    Err(error) if !is_hang_up(&error) => eprintln!("perf: discarding S3: {error}"),
                    _ => {}
                })
            });
            if let Err(error) = handled {
                eprintln!("perf: discarding S3: {error}");
            }
        }
    });
}

/// Whether the client just went away.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted
    )
}

// === impl DiscardingS3 ===

impl<'a> DiscardingS3<'a> {
    pub(crate) fn start(bench: &'a Bench) -> anyhow::Result<Self> {
        let ca_file = bench.scratch.join("discard-s3.pem");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(MODE)
            .arg(&ca_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let (stdin, stdout) = bench.servers.spawn(&mut command, |child| {
            (child.stdin.take(), child.stdout.take())
        })?;
        let events = crate::sidecar::read_lines(stdout.context("its stdout")?);
        let (_, ports) = events
            .recv_timeout(ANSWER)
            .context("the discarding S3 server did not start")?;
        let (http, https) = ports.split_once(' ').context("two addresses")?;
        Ok(Self {
            http: http.parse()?,
            https: https.parse()?,
            ca_file,
            events,
            servers: &bench.servers,
            stdin: stdin.context("its stdin")?,
        })
    }

    /// The next event and when it was heard of; `None` where there is none for a while.
    pub(crate) fn event(&self) -> anyhow::Result<Option<(Instant, String)>> {
        match self.events.recv_timeout(Duration::from_millis(20)) {
            Ok(event) => Ok(Some(event)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.servers.check().context("the discarding S3 server")?;
                Ok(None)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                anyhow::bail!("the discarding S3 server has ended")
            }
        }
    }

    /// Empties the bucket, so that the next run finds nothing of the one before.
    pub(crate) fn forget(&mut self) -> anyhow::Result<()> {
        writeln!(self.stdin)?;
        let started = Instant::now();
        loop {
            match self.event()? {
                Some((_, event)) if event == FORGOTTEN => return Ok(()),
                _ if started.elapsed() > ANSWER => anyhow::bail!("the server does not forget"),
                _ => {}
            }
        }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        drop(self.stdin);
        let status = self.servers.wait(ANSWER)?;
        anyhow::ensure!(status.success(), "the discarding S3 server: {status}");
        Ok(())
    }
}
