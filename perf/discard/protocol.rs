//! As much of HTTP/1.1 as S3 clients speak to a server that keeps nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustix::net::RecvFlags;

use super::objects::{Answer, Objects};

/// What a read of a body takes.
const RUN_BYTES: usize = 1 << 20;
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bodies up to here are kept until they are answered: `meta.json` and the lists of parts.
const KEPT_BYTES_MAX: u64 = 1 << 20;

/// A stream that can lose bytes for less than reading them.
pub(super) trait Wire: Read + Write {
    /// Takes up to as many bytes as `scratch` has and drops them; how many there were, 0 at the
    /// end. What is in `scratch` afterwards means nothing.
    fn lose(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.read(scratch)
    }
}

/// A connection without TLS.
#[derive(Debug)]
pub(super) struct Plain(pub(super) TcpStream);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Plain {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Wire for Plain {
    /// With `MSG_TRUNC` the kernel drops the bytes of a TCP stream without copying (tcp(7)).
    fn lose(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let (_, count) = rustix::net::recv(&self.0, scratch, RecvFlags::TRUNC)?;
        Ok(count)
    }
}

impl Wire for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {}

/// A request without its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Path, decoded, without the leading `/`.
    pub(super) path: String,
    /// Query, decoded, in order.
    pub(super) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// `None` where it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let headers = lines.filter_map(|line| line.split_once(':'));
        Some(Self {
            method: method.to_owned(),
            path: decoded(path.strip_prefix('/')?),
            query: pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
        })
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// As headers have it (RFC 9110, "Date/Time Formats").
pub(super) fn http_date(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Text with its `%xx`; what is no such pair stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| hex::decode(pair).ok());
        match pair.as_deref() {
            Some([byte]) if *first == b'%' => {
                bytes.push(*byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection<W> {
    wire: W,
    /// Read and not used yet: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<W: Wire> Connection<W> {
    pub(super) fn new(wire: W) -> Self {
        Self {
            wire,
            buffer: vec![0; RUN_BYTES],
            start: 0,
            end: 0,
        }
    }

    /// Answers requests until the client hangs up.
    pub(super) fn serve(mut self, objects: &Objects) -> io::Result<()> {
        while let Some(head) = self.head()? {
            if head.header("expect").is_some() {
                self.wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                self.wire.flush()?;
            }
            objects.begin(&head)?;
            let length = head.header("content-length").map_or(Ok(0), str::parse);
            let length: u64 = length.map_err(io::Error::other)?;
            let body = if length <= KEPT_BYTES_MAX {
                Some(self.keep(length)?)
            } else {
                self.lose(length)?;
                None
            };
            let answer = objects.answer(&head, length, body)?;
            self.write(&head, answer)?;
        }
        Ok(())
    }

    /// The next request's head; `None` where the client is done.
    fn head(&mut self) -> io::Result<Option<Head>> {
        let mut text = Vec::new();
        loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let searched = text.len().saturating_sub(3);
            text.extend_from_slice(unread);
            let tail = text.get(searched..).unwrap_or_default();
            if let Some(at) = tail.windows(4).position(|four| four == b"\r\n\r\n") {
                let length = searched + at + 4;
                self.start = self.end - (text.len() - length);
                text.truncate(length - 4);
                let parsed = std::str::from_utf8(&text).ok().and_then(Head::parse);
                return parsed
                    .map(Some)
                    .ok_or_else(|| io::Error::other("no request"));
            }
            if text.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the head of a request has no end"));
            }
            (self.start, self.end) = (0, self.wire.read(&mut self.buffer)?);
            if self.end == 0 {
                return if text.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn keep(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut body = vec![0; length];
        let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
        let at_hand = unread.len().min(length);
        let (first, rest) = body.split_at_mut(at_hand);
        first.copy_from_slice(unread.get(..at_hand).unwrap_or_default());
        self.start += at_hand;
        self.wire.read_exact(rest)?;
        Ok(body)
    }

    fn lose(&mut self, length: u64) -> io::Result<()> {
        let at_hand = (self.end - self.start).min(usize::try_from(length).unwrap_or(usize::MAX));
        self.start += at_hand;
        let mut left = length - at_hand as u64;
        while left > 0 {
            let most = usize::try_from(left).map_or(RUN_BYTES, |left| left.min(RUN_BYTES));
            let scratch = self.buffer.get_mut(..most).unwrap_or_default();
            match self.wire.lose(scratch)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left -= count as u64,
            }
            // The unread bytes are used up, else there would be no more to lose.
            (self.start, self.end) = (0, 0);
        }
        Ok(())
    }

    fn write(&mut self, head: &Head, answer: Answer) -> io::Result<()> {
        let length = answer.length.unwrap_or(answer.body.len() as u64);
        let mut text = format!(
            "HTTP/1.1 {}\r\nServer: discard\r\nDate: {}\r\nx-amz-request-id: 0\r\n",
            answer.status,
            http_date(jiff::Timestamp::now()),
        );
        for (name, value) in &answer.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !answer.status.starts_with("204") {
            text.push_str(&format!("Content-Length: {length}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if head.method != "HEAD" {
            bytes.extend_from_slice(&answer.body);
        }
        self.wire.write_all(&bytes)?;
        self.wire.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A client that has sent all it will.
    struct Said(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Said {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // A few at a time, so that every boundary is met.
            let most = buffer.len().min(5);
            self.0.read(&mut buffer[..most])
        }
    }

    impl Write for Said {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.1.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Wire for &mut Said {}

    fn answers(said: &str) -> String {
        let mut said = Said(Cursor::new(said.as_bytes().to_vec()), Vec::new());
        let connection = Connection::new(&mut said);
        connection.serve(&Objects::silent()).unwrap();
        let text = String::from_utf8(said.1).unwrap();
        let dull = [
            "Date: ",
            "Server: ",
            "x-amz-request-id: ",
            "Last-Modified: ",
        ];
        let lines = text
            .lines()
            .filter(|line| !dull.iter().any(|d| line.starts_with(d)));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_was_put_is_told_and_no_body_is_taken_for_a_request() {
        let large = "x".repeat(3 << 20);
        let text = answers(&format!(
            "PUT /perf/a/b HTTP/1.1\r\nContent-Length: {}\r\nx-amz-checksum-crc64nvme: AAA=\r\n\
             \r\n{large}PUT /perf/a/c HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\
             HEAD /perf/a/b HTTP/1.1\r\n\r\nHEAD /perf/none HTTP/1.1\r\n\r\n\
             GET /perf/a/c HTTP/1.1\r\n\r\n",
            large.len()
        ));
        let expected = "HTTP/1.1 200 OK\nETag: \"put-3145728\"\nx-amz-checksum-crc64nvme: AAA=\n\
            Content-Length: 0\n\nHTTP/1.1 200 OK\nETag: \"put-2\"\nContent-Length: 0\n\n\
            HTTP/1.1 200 OK\nETag: \"put-3145728\"\nx-amz-checksum-crc64nvme: AAA=\n\
            x-amz-checksum-type: FULL_OBJECT\nContent-Length: 3145728\n\n\
            HTTP/1.1 404 Not Found\nContent-Length: 0\n\n\
            HTTP/1.1 200 OK\nETag: \"put-2\"\nContent-Length: 2\n\nhi";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_upload_in_parts_has_the_size_of_its_parts_and_the_checksum_it_ends_with() {
        let text = answers(
            "POST /perf/k?uploads HTTP/1.1\r\nx-amz-checksum-algorithm: CRC64NVME\r\n\r\n\
             PUT /perf/k?partNumber=1&uploadId=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
             PUT /perf/k?partNumber=2&uploadId=1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nde\
             PUT /perf/k?partNumber=2&uploadId=1 HTTP/1.1\r\nContent-Length: 1\r\n\r\nd\
             POST /perf/k?uploadId=1 HTTP/1.1\r\nx-amz-checksum-crc64nvme: BBB=\r\n\r\n\
             HEAD /perf/k HTTP/1.1\r\n\r\n",
        );
        assert!(text.contains("<UploadId>1</UploadId>"), "{text}");
        assert!(
            text.contains("<ChecksumCRC64NVME>BBB=</ChecksumCRC64NVME>"),
            "{text}"
        );
        let end = "x-amz-checksum-crc64nvme: BBB=\nx-amz-checksum-type: FULL_OBJECT\n\
            Content-Length: 4";
        assert!(text.trim_end().ends_with(end), "{text}");
    }

    #[test]
    fn names_are_listed_directory_by_directory() {
        let put = |key| format!("PUT /perf/{key} HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        let puts: String = ["b/meta.json", "b/chunks/1", "a%20b"].map(put).concat();
        let text = answers(&format!(
            "{puts}GET /perf/?list-type=2&delimiter=%2F&prefix= HTTP/1.1\r\n\r\n\
             GET /perf/?list-type=2&delimiter=/&prefix=b/ HTTP/1.1\r\n\r\n"
        ));
        let whole = "<Key>a b</Key>";
        assert_eq!(text.matches(whole).count(), 1, "{text}");
        assert!(text.contains("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"));
        assert!(text.contains("<Key>b/meta.json</Key>"));
        assert!(text.contains("<CommonPrefixes><Prefix>b/chunks/</Prefix></CommonPrefixes>"));
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        for bad in [
            "nonsense\r\n\r\n",
            "GET /\r\n",
            "PUT /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n1",
        ] {
            let mut said = Said(Cursor::new(bad.as_bytes().to_vec()), Vec::new());
            assert!(
                Connection::new(&mut said)
                    .serve(&Objects::silent())
                    .is_err(),
                "{bad}"
            );
        }
    }
}
