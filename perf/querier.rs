//! A Thanos Querier (`INCUMBENT`, which has it as a command of its own), and
//! what flows between it and its sidecar.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Context as _;

use crate::Bench;
use crate::sidecar::read_lines;
use crate::store::free_port;

/// A running querier, held by the bench's slot for queriers.
#[derive(Debug)]
pub(crate) struct Querier<'a> {
    bench: &'a Bench,
    pub(crate) pid: i32,
    pub(crate) address: SocketAddr,
}

impl<'a> Querier<'a> {
    /// Starts one that knows this endpoint, in this `--query.mode`.
    pub(crate) fn start(
        bench: &'a Bench,
        mode: &str,
        endpoint: SocketAddr,
    ) -> anyhow::Result<Self> {
        let (http, grpc) = (free_port()?, free_port()?);
        let mut command = Command::new(bench.incumbent()?);
        command
            .args([
                "query",
                "--query.promql-engine=thanos",
                "--query.replica-label=replica",
                "--log.level=warn",
                "--http-grace-period=1s",
                "--grpc-grace-period=1s",
            ])
            .arg(format!("--query.mode={mode}"))
            .arg(format!("--http-address=127.0.0.1:{http}"))
            .arg(format!("--grpc-address=127.0.0.1:{grpc}"))
            .arg(format!("--endpoint={endpoint}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (pid, stderr) = bench
            .queriers
            .spawn(&mut command, |child| (child.id(), child.stderr.take()))?;
        let lines = read_lines(stderr.context("its log")?);
        // Its log is read to the end, or it would wait for room in the pipe.
        thread::spawn(move || {
            while let Ok((_, line)) = lines.recv() {
                eprintln!("perf: querier: {line}");
            }
        });
        Ok(Self {
            bench,
            pid: i32::try_from(pid)?,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, http)),
        })
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.bench.queriers.stop().map(drop)
    }
}

/// Hands on connections and counts what comes back. Its time is not charged to anybody, so it has
/// a run of its own.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Meter {
    /// Before the server at `upstream`; ends with the harness.
    pub(crate) fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // An end that goes away ends the other.
                thread::spawn(move || drop(hand_on(client, upstream, &counted)));
            }
        });
        Ok(Self { address, bytes })
    }

    /// All that the server has sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

fn hand_on(client: TcpStream, upstream: SocketAddr, bytes: &AtomicU64) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let (mut asking, mut asked) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let copied = std::io::copy(&mut asking, &mut asked);
        drop(asked.shutdown(Shutdown::Write));
        copied
    });
    let (mut from, mut to) = (server, client);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        bytes.fetch_add(count as u64, Ordering::SeqCst);
        to.write_all(&buffer[..count])?;
    }
    to.shutdown(Shutdown::Write)?;
    drop(up.join());
    Ok(())
}
