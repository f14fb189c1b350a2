//! The limit: the same files sent with `sendfile(2)` as bodies of plain PUT requests, by a child
//! process. Nothing is read into user space, verified, hashed, signed or retried.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Bench;
use crate::block::{self, Load};
use crate::copy;
use crate::discard::BUCKET;
use crate::usage::Usage;

/// First argument of the harness when it is started as the sending child.
pub(crate) const MODE: &str = "sendfile-blocks";

/// Requests in flight, as outrigger has parts.
const CONNECTIONS: usize = 4;
/// Bytes of one request, as outrigger's parts have.
const PART_BYTES: u64 = 8 << 20;

/// A range of a file that is sent in one request.
type Part = (PathBuf, u64, u64);

/// Sends the blocks with a child, and tells how long that took and what it used.
pub(crate) fn measure(
    bench: &Bench,
    load: &Load,
    server: SocketAddr,
) -> anyhow::Result<(Duration, Usage)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(MODE).arg(server.to_string());
    command.args(load.blocks.iter().map(|block| &block.path));
    copy::measured(bench, &mut command)
}

/// The child.
pub(crate) fn run(server: &str, blocks: &[OsString]) -> anyhow::Result<()> {
    let started = Instant::now();
    let server: SocketAddr = server.parse().context("the server's address")?;
    let mut parts = Vec::new();
    for block in blocks.iter().map(Path::new) {
        for file in block::files(block)? {
            let size_bytes = file.metadata()?.len();
            parts.extend(cut(&file, size_bytes));
        }
    }
    parts.reverse();
    let parts = Mutex::new(parts);
    let outcomes: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                scope.spawn({
                    let parts = &parts;
                    move || send(server, number, parts)
                })
            })
            .collect();
        let joined = senders.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|outcome| outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("a sender panicked"))))
            .collect()
    });
    outcomes.into_iter().collect::<anyhow::Result<()>>()?;
    copy::tell(started)
}

fn cut(file: &Path, size_bytes: u64) -> impl Iterator<Item = Part> {
    let starts = (0..size_bytes.div_ceil(PART_BYTES)).map(|number| number * PART_BYTES);
    starts.map(move |start| {
        let length = PART_BYTES.min(size_bytes - start);
        (file.to_owned(), start, length)
    })
}

/// Sends parts over one connection until there is none left.
fn send(server: SocketAddr, number: usize, parts: &Mutex<Vec<Part>>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    loop {
        let part = parts.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some((path, start, length)) = part else {
            return Ok(());
        };
        let file = File::open(&path)?;
        let head = format!(
            "PUT /{BUCKET}/sendfile/{number} HTTP/1.1\r\nHost: {server}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let (mut offset, end) = (start, start + length);
        while offset < end {
            let left = usize::try_from(end - offset)?;
            let sent = rustix::fs::sendfile(&stream, &file, Some(&mut offset), left)?;
            anyhow::ensure!(sent > 0, "{} became shorter", path.display());
        }
        read_answer(&mut answers)?;
    }
}

fn read_answer(answers: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let mut status = String::new();
    answers.read_line(&mut status)?;
    anyhow::ensure!(status.starts_with("HTTP/1.1 200"), "the server: {status}");
    let mut length = 0;
    loop {
        let mut line = String::new();
        anyhow::ensure!(answers.read_line(&mut line)? > 0, "the server hung up");
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    Ok(answers.read_exact(&mut body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_parts_that_cover_it() {
        let parts_of = |size| -> Vec<(u64, u64)> {
            let parts = cut(Path::new("f"), size);
            parts.map(|(_, start, length)| (start, length)).collect()
        };
        assert_eq!(parts_of(0), []);
        assert_eq!(parts_of(PART_BYTES), [(0, PART_BYTES)]);
        assert_eq!(parts_of(PART_BYTES + 1), [(0, PART_BYTES), (PART_BYTES, 1)]);
    }
}
