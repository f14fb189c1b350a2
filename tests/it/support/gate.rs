//! A port that stands for a Prometheus which is down, replaying its WAL, stuck, or there; and one
//! whose remote reads never end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::reads::write_endless;

/// What happens to a connection, decided when it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GateState {
    /// Closed at once, without a byte.
    Down,
    /// Every request is answered with 503, as Prometheus does while it replays its WAL.
    Replaying,
    /// Accepted and never answered.
    Stuck,
    /// Handed on to the Prometheus at this address.
    Open(SocketAddr),
}

/// What happens to remote reads and snapshots through an open gate, decided when they are asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reads {
    /// Handed on like everything else.
    HandedOn,
    /// Never answered.
    Held,
    /// Answered with series without end.
    Endless,
}

/// The port and its state; closed when dropped.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<GateState>,
    reads: Mutex<Reads>,
    /// Remote reads that were not handed on and whose connection is still there.
    open_reads: AtomicUsize,
    endless_bytes: AtomicU64,
    /// Their connections, and those of earlier ones.
    reading: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    is_closing: AtomicBool,
    /// Connections that nobody answers are held here, since dropping them would be an answer.
    stuck: Mutex<Vec<TcpStream>>,
}

impl Gate {
    pub(crate) fn new(state: GateState) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            reads: Mutex::new(Reads::HandedOn),
            open_reads: AtomicUsize::new(0),
            endless_bytes: AtomicU64::new(0),
            reading: Mutex::new(Vec::new()),
            connections: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            stuck: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.is_closing.load(Ordering::SeqCst) {
                    return;
                }
                // A client that is gone before it was accepted is no concern of ours.
                let Ok(stream) = stream else { continue };
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let state = *accepting.state.lock().unwrap();
                Shared::handle(&accepting, stream, state);
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, state: GateState) {
        *self.shared.state.lock().unwrap() = state;
    }

    pub(crate) fn set_reads(&self, reads: Reads) {
        *self.shared.reads.lock().unwrap() = reads;
    }

    /// Held or endless reads under way: those whose connection outrigger has not closed.
    pub(crate) fn open_reads(&self) -> usize {
        self.shared.open_reads.load(Ordering::SeqCst)
    }

    /// Bytes of endless reads that were taken so far.
    pub(crate) fn endless_bytes(&self) -> u64 {
        self.shared.endless_bytes.load(Ordering::SeqCst)
    }

    /// Closes the connections of held and endless reads.
    pub(crate) fn break_reads(&self) {
        for stream in self.shared.reading.lock().unwrap().drain(..) {
            // It may be gone already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; where even that fails, the thread ends with the process.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn handle(this: &Arc<Self>, stream: TcpStream, state: GateState) {
        match state {
            GateState::Down => drop(stream),
            GateState::Stuck => this.stuck.lock().unwrap().push(stream),
            GateState::Replaying => {
                thread::spawn(move || refuse_request(stream));
            }
            GateState::Open(upstream) => {
                let shared = Arc::clone(this);
                thread::spawn(move || hand_on(stream, upstream, &shared));
            }
        }
    }
}

/// Answers one request, which has no body here, with 503 and hangs up, so that the next one meets
/// the gate as it is then.
fn refuse_request(mut stream: TcpStream) {
    let mut received = Vec::new();
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        received.extend_from_slice(&bytes[..count]);
        if received.ends_with(b"\r\n\r\n") {
            let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 19\r\n\
                          Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
                          Service Unavailable";
            // A client that has gone meanwhile asks again.
            drop(stream.write_all(answer.as_bytes()));
            return;
        }
    }
}

fn hand_on(client: TcpStream, upstream: SocketAddr, shared: &Shared) {
    let Ok(server) = TcpStream::connect(upstream) else {
        return;
    };
    let (client_write, server_read) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let down = thread::spawn(move || pump(server_read, client_write));
    pump_requests(client, server, shared);
    down.join().unwrap();
}

/// As [`pump`], but a remote read or snapshot may be kept from the server. Requests are small and
/// written whole, so one begins where a read does.
fn pump_requests(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let reads = *shared.reads.lock().unwrap();
        if reads != Reads::HandedOn && is_long(&bytes[..count]) {
            let reading = client.try_clone().unwrap();
            shared.reading.lock().unwrap().push(reading);
            shared.open_reads.fetch_add(1, Ordering::SeqCst);
            if reads == Reads::Endless {
                drop(write_endless(&client, &shared.endless_bytes));
            }
            // Until it is closed, whatever else comes.
            while let Ok(1..) = client.read(&mut bytes) {}
            shared.open_reads.fetch_sub(1, Ordering::SeqCst);
            break;
        }
        if server.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    drop(server.shutdown(Shutdown::Write));
}

/// Whether a request is for a remote read or a snapshot, which take their time.
fn is_long(request: &[u8]) -> bool {
    let paths = ["/api/v1/read", "/api/v1/admin/tsdb/snapshot"];
    let mut heads = paths.map(|path| format!("POST {path} ")).into_iter();
    heads.any(|head| request.starts_with(head.as_bytes()))
}

/// Copies until either side is gone, then tells the other.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    // Either side may vanish at any moment, which is what the tests are about.
    let copied = std::io::copy(&mut from, &mut to);
    for side in [from, to] {
        drop(side.shutdown(if copied.is_ok() {
            Shutdown::Write
        } else {
            Shutdown::Both
        }));
    }
}
