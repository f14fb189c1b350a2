//! A scripted Prometheus: answers what a sidecar asks one, and costs nothing beside it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A scripted Prometheus whose state is told and whose reloads are heard.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    is_ready: Arc<AtomicBool>,
    /// When a reload was asked for.
    pub(crate) reloads: Receiver<Instant>,
}

#[derive(Debug)]
struct Script {
    is_ready: Arc<AtomicBool>,
    reloads: Mutex<Sender<Instant>>,
}

/// One that is ready. It listens on a port of the kernel's choice until the process ends.
pub(crate) fn start() -> anyhow::Result<SocketAddr> {
    let peer = Peer::start()?;
    peer.set_ready(true);
    Ok(peer.address)
}

impl Peer {
    /// One that replays its write-ahead log.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let is_ready = Arc::<AtomicBool>::default();
        let (sender, reloads) = mpsc::channel();
        let script = Arc::new(Script {
            is_ready: Arc::clone(&is_ready),
            reloads: Mutex::new(sender),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let script = Arc::clone(&script);
                match stream {
                    Ok(stream) => drop(std::thread::spawn(move || serve(stream, &script))),
                    Err(error) => eprintln!("perf: scripted Prometheus: {error}"),
                }
            }
        });
        Ok(Self {
            address,
            is_ready,
            reloads,
        })
    }

    /// Lets the replay end, or begin.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::SeqCst);
    }
}

fn serve(stream: TcpStream, script: &Script) {
    // A sidecar that ends or hangs up in the middle of an answer is no concern of ours.
    if let Err(error) = answer_all(stream, script)
        && !matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        )
    {
        eprintln!("perf: scripted Prometheus: {error}");
    }
}

/// Answers the requests of a connection, none of which has a body.
fn answer_all(stream: TcpStream, script: &Script) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    loop {
        let mut path = None;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
        }
        let path = path.unwrap_or_default();
        let (status, kind, body) = script.answer(path.split('?').next().unwrap_or_default());
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        answers.write_all((head + &body).as_bytes())?;
    }
}

impl Script {
    fn answer(&self, path: &str) -> (&'static str, &'static str, String) {
        if !self.is_ready.load(Ordering::SeqCst) {
            let body = "Service Unavailable".to_owned();
            return ("503 Service Unavailable", "text/plain", body);
        }
        if path == "/-/reload" {
            let reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody may listen.
            reloads.send(Instant::now()).ok();
            return ("200 OK", "text/plain", String::new());
        }
        answer(path)
    }
}

fn answer(path: &str) -> (&'static str, &'static str, String) {
    let data = match path {
        "/api/v1/status/flags" => {
            r#"{"storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"2h"}"#
        }
        "/api/v1/status/buildinfo" => r#"{"version":"3.5.0"}"#,
        "/api/v1/status/config" => {
            r#"{"yaml":"global:\n  external_labels:\n    cluster: perf\n    replica: \"0\"\n"}"#
        }
        "/metrics" => {
            let gauge = "prometheus_tsdb_lowest_timestamp_seconds";
            let text = format!("# TYPE {gauge} gauge\n{gauge} 1.6999992e+09\n");
            return ("200 OK", "text/plain; version=0.0.4", text);
        }
        _ => {
            return (
                "404 Not Found",
                "text/plain",
                "404 page not found\n".to_owned(),
            );
        }
    };
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    ("200 OK", "application/json", body)
}
