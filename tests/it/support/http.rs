//! A request over a plain socket: all that probes, metrics and Prometheus' API need here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any answer takes here, shorter than the deadline of a wait.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Status and body of `GET path`.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask("GET", address, path)
}

/// Status and body of `POST path` without a body.
pub(crate) fn post(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask("POST", address, path)
}

/// HTTP/1.0, so that the body ends with the connection.
fn ask(method: &str, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).map_err(|e| io::Error::other(e.to_string()))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("no end of the head"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    Ok((status, body.to_owned()))
}
