//! A port that stands for a Prometheus which is down, replaying its WAL, stuck, or there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

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

/// The port and its state; closed when dropped.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<GateState>,
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
                accepting.handle(stream, state);
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
    fn handle(&self, stream: TcpStream, state: GateState) {
        match state {
            GateState::Down => drop(stream),
            GateState::Stuck => self.stuck.lock().unwrap().push(stream),
            GateState::Replaying => {
                thread::spawn(move || refuse_request(stream));
            }
            GateState::Open(upstream) => {
                thread::spawn(move || hand_on(stream, upstream));
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

fn hand_on(client: TcpStream, upstream: SocketAddr) {
    let Ok(server) = TcpStream::connect(upstream) else {
        return;
    };
    let (client_read, server_write) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = thread::spawn(move || pump(client_read, server_write));
    pump(server, client);
    up.join().unwrap();
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
