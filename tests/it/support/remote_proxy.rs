//! A proxy before Prometheus that notes what is asked, does harm to the answers of remote read and
//! answers queries in its place.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of the answer to a remote read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Handed on as it is.
    None,
    /// Another status, without the answer.
    Status(u16),
    /// Half of the body, then a reset connection.
    Reset,
    /// The whole first frames up to half of the body, then the end of the connection, without the
    /// end of the body.
    CutBetweenFrames,
    /// A body that ends as it should, in the midst of a frame.
    Truncated,
    /// The whole body, and text after it, as Prometheus writes when it fails late.
    TextAfter,
    /// One bit of the last frame's payload.
    FlippedBit,
    /// Half of the frames, then a frame that says it has 4 GiB.
    HugeLength,
    /// Half of the frames, then a length that is no number.
    EndlessLength,
    /// The head and half of the body, then nothing for as long as the proxy lives.
    Stall,
    /// Another content type.
    ContentType,
    /// Held until [`RemoteProxy::release`], then handed on.
    Held,
}

/// What becomes of `/api/v1/query` and `/api/v1/query_range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Queries {
    /// Handed on.
    HandedOn,
    /// Answered with this status and body.
    Answered(u16, String),
    /// Answered with this and the end of the connection, though more was announced.
    CutAfter(String),
    /// Never answered.
    Held,
}

/// The proxy's port; closed when dropped.
pub(crate) struct RemoteProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    is_closing: AtomicBool,
    /// Held queries whose connection is still there.
    open_queries: AtomicUsize,
}

struct State {
    harm: Harm,
    queries: Queries,
    requests: Vec<String>,
    /// Line and headers of each.
    heads: Vec<(String, String)>,
}

impl RemoteProxy {
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::new(State {
                harm: Harm::None,
                queries: Queries::HandedOn,
                requests: Vec::new(),
                heads: Vec::new(),
            }),
            changed: Condvar::new(),
            is_closing: AtomicBool::new(false),
            open_queries: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.is_closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let serving = Arc::clone(&accepting);
                // A client that goes away, or Prometheus, is what tests are about.
                thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, harm: Harm) {
        self.shared.state.lock().unwrap().harm = harm;
        self.shared.changed.notify_all();
    }

    pub(crate) fn set_queries(&self, queries: Queries) {
        self.shared.state.lock().unwrap().queries = queries;
    }

    /// Held queries that nobody has given up yet.
    pub(crate) fn open_queries(&self) -> usize {
        self.shared.open_queries.load(Ordering::SeqCst)
    }

    /// Lets held answers go.
    pub(crate) fn release(&self) {
        self.set(Harm::None);
    }

    /// Line and body of the requests so far whose path begins so.
    pub(crate) fn requests(&self, path: &str) -> Vec<String> {
        let state = self.shared.state.lock().unwrap();
        let requests = state.requests.iter();
        let suits = |request: &&String| {
            let path_of = request.split(' ').nth(1);
            path_of.is_some_and(|of| of.starts_with(path))
        };
        requests.filter(suits).cloned().collect()
    }

    /// The values of a header in the requests so far whose path begins so.
    pub(crate) fn headers(&self, path: &str, name: &str) -> Vec<String> {
        let state = self.shared.state.lock().unwrap();
        let heads = state.heads.iter();
        let of_path = heads.filter(|(line, _)| {
            let path_of = line.split(' ').nth(1);
            path_of.is_some_and(|of| of.starts_with(path))
        });
        let headers = of_path.flat_map(|(_, headers)| headers.lines());
        let pairs = headers.filter_map(|header| header.split_once(": "));
        let named = pairs.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim().to_owned()).collect()
    }
}

impl Drop for RemoteProxy {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    /// One request per connection, since the answer says that it closes.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some((line, headers, body)) = read_request(&mut client)? else {
            return Ok(());
        };
        let shown = format!("{line} {}", String::from_utf8_lossy(&body));
        {
            let mut state = self.state.lock().unwrap();
            state.requests.push(shown);
            state.heads.push((line.clone(), headers.clone()));
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        if matches!(path, "/api/v1/query" | "/api/v1/query_range") {
            let queries = self.state.lock().unwrap().queries.clone();
            if queries != Queries::HandedOn {
                return self.answer_query(client, queries);
            }
        }
        let (status, mut head, answer) = ask(self.upstream, &line, &headers, &body)?;
        let is_read = line.contains("/api/v1/read");
        let harm = if is_read { self.harm() } else { Harm::None };
        if harm == Harm::ContentType {
            head = "Content-Type: text/plain\r\n".to_owned();
        }
        let status = match harm {
            Harm::Status(other) => other,
            _ => status,
        };
        write!(
            client,
            "HTTP/1.1 {status} Proxied\r\n{head}Transfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n"
        )?;
        self.answer(client, harm, answer)
    }

    fn answer_query(&self, mut client: TcpStream, queries: Queries) -> io::Result<()> {
        let (status, body, missing) = match queries {
            Queries::HandedOn => return Ok(()),
            Queries::Answered(status, body) => (status, body, 0),
            Queries::CutAfter(body) => (200, body, 1),
            Queries::Held => {
                self.open_queries.fetch_add(1, Ordering::SeqCst);
                // Until the client goes away, in whichever way.
                let mut nothing = [0; 1];
                drop(client.read(&mut nothing));
                self.open_queries.fetch_sub(1, Ordering::SeqCst);
                return Ok(());
            }
        };
        write!(
            client,
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len() + missing
        )
    }

    /// The harm to do now, once nothing holds answers any more.
    fn harm(&self) -> Harm {
        let state = self.state.lock().unwrap();
        let is_held =
            |state: &mut State| state.harm == Harm::Held && !self.is_closing.load(Ordering::SeqCst);
        self.changed.wait_while(state, is_held).unwrap().harm
    }

    fn answer(&self, mut client: TcpStream, harm: Harm, mut body: Vec<u8>) -> io::Result<()> {
        let half = body.len() / 2;
        let frames = frame_ends(&body);
        let whole_frames = frames.iter().rev().find(|end| **end <= half).copied();
        match harm {
            Harm::None | Harm::Held | Harm::ContentType => {}
            Harm::Status(_) => body = b"no".to_vec(),
            Harm::TextAfter => body.extend_from_slice(b"remote_read: broken off\n"),
            Harm::Truncated => body.truncate(body.len() - 7),
            Harm::FlippedBit => *body.last_mut().unwrap() ^= 4,
            Harm::HugeLength | Harm::EndlessLength => {
                body.truncate(whole_frames.unwrap());
                let length: &[u8] = match harm {
                    Harm::HugeLength => &[0x80, 0x80, 0x80, 0x80, 0x10],
                    _ => &[0xff; 12],
                };
                body.extend_from_slice(length);
                body.extend_from_slice(&[0; 100]);
            }
            Harm::Reset | Harm::Stall => body.truncate(half),
            Harm::CutBetweenFrames => body.truncate(whole_frames.unwrap()),
        }
        for piece in body.chunks(1000) {
            write!(client, "{:x}\r\n", piece.len())?;
            client.write_all(piece)?;
            client.write_all(b"\r\n")?;
        }
        match harm {
            Harm::Reset => {
                let none = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&client, none)?;
                Ok(())
            }
            Harm::CutBetweenFrames => client.shutdown(Shutdown::Both),
            Harm::Stall => {
                // Until the client goes away.
                let mut nothing = [0; 1];
                client.read(&mut nothing).map(|_| ())
            }
            _ => client.write_all(b"0\r\n\r\n"),
        }
    }
}

/// Line, headers and body of a request; `None` where the client only connected.
fn read_request(client: &mut TcpStream) -> io::Result<Option<(String, String, Vec<u8>)>> {
    let mut received = Vec::new();
    let mut bytes = [0; 4096];
    let head_end = loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        match client.read(&mut bytes)? {
            0 => return Ok(None),
            count => received.extend_from_slice(&bytes[..count]),
        }
    };
    let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
    let mut body = received.split_off(head_end + 4);
    let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let length = headers.lines().find_map(|header| {
        let (name, value) = header.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    while body.len() < length.unwrap_or(0) {
        match client.read(&mut bytes)? {
            0 => return Ok(None),
            count => body.extend_from_slice(&bytes[..count]),
        }
    }
    Ok(Some((line.to_owned(), headers.to_owned(), body)))
}

/// The whole answer of Prometheus: status, the headers that matter, body. By HTTP/1.0, so that the
/// body is not chunked.
fn ask(
    upstream: SocketAddr,
    line: &str,
    headers: &str,
    body: &[u8],
) -> io::Result<(u16, String, Vec<u8>)> {
    let mut server = TcpStream::connect(upstream)?;
    let line = line.replace("HTTP/1.1", "HTTP/1.0");
    let headers = headers
        .lines()
        .filter(|header| !header.to_ascii_lowercase().starts_with("connection:"));
    let headers: Vec<&str> = headers.collect();
    write!(server, "{line}\r\n{}\r\n\r\n", headers.join("\r\n"))?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let bad = || io::Error::other("no answer of Prometheus");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.ok_or_else(bad)? + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let kept = head.lines().skip(1).filter(|header| {
        let header = header.to_ascii_lowercase();
        header.starts_with("content-type:") || header.starts_with("content-encoding:")
    });
    let kept = kept.map(|header| format!("{header}\r\n")).collect();
    Ok((status.ok_or_else(bad)?, kept, body))
}

/// Where the frames of a streamed remote read end: length, checksum, payload.
fn frame_ends(body: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let (mut length, mut shift) = (0_usize, 0);
        while let Some(byte) = body.get(at) {
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += 4 + length;
        if at <= body.len() {
            ends.push(at);
        }
    }
    ends
}
