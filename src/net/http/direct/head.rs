//! The headers of an exchange: ours as bytes, the peer's as values.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::chunked::Chunked;

/// More header fields than this are an error; Prometheus sends about ten.
const HEADER_FIELDS_MAX: usize = 128;

/// A response's header.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Whether the connection may be used again after the body's end.
    pub(super) keeps_alive: bool,
}

/// Where a body ends (RFC 9112 §6.3).
#[derive(Debug)]
pub(super) enum Framing {
    /// After so many bytes more.
    Length(u64),
    /// Where the chunked coding says.
    Chunked(Chunked),
    /// Where the connection does.
    UntilClose,
}

/// Why a response's header is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadError {
    #[error(
        "the response's header is longer than {} bytes",
        super::HEADER_BYTES_MAX
    )]
    TooLarge,
    #[error("the response's header is malformed")]
    Malformed { source: httparse::Error },
    #[error("the response's header has an unusable {what}")]
    Field { what: &'static str },
}

/// The request line and header fields, without the empty line after them.
pub(super) fn request(request: &Request<Bytes>, absolute_form: bool) -> Vec<u8> {
    let uri = request.uri();
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    if absolute_form {
        out.extend_from_slice(uri.to_string().as_bytes());
    } else {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        out.extend_from_slice(target.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = uri.authority() {
        put_header(&mut out, HOST.as_str(), authority.as_str().as_bytes());
    }
    let length = request.body().len().to_string();
    put_header(&mut out, CONTENT_LENGTH.as_str(), length.as_bytes());
    for (name, value) in request.headers() {
        put_header(&mut out, name.as_str(), value.as_bytes());
    }
    out
}

pub(super) fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

// === impl Head ===

impl Head {
    /// Takes a whole header off the front; `None` while its end has not come.
    pub(super) fn split_from(received: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        // Looked for first, so that a header which comes byte by byte is parsed once.
        if !received.windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(None);
        }
        let mut fields = [httparse::EMPTY_HEADER; HEADER_FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(received);
        let header_bytes = match parsed.map_err(|source| HeadError::Malformed { source })? {
            httparse::Status::Complete(header_bytes) => header_bytes,
            httparse::Status::Partial => return Ok(None),
        };
        let status = response
            .code
            .and_then(|code| StatusCode::from_u16(code).ok());
        let mut headers = HeaderMap::with_capacity(response.headers.len());
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(HeadError::Field { what: "field" });
            };
            headers.append(name, value);
        }
        let head = Self {
            status: status.ok_or(HeadError::Field { what: "status" })?,
            keeps_alive: response.version == Some(1) && !has_token(&headers, CONNECTION, "close"),
            headers,
        };
        received.advance(header_bytes);
        Ok(Some(head))
    }

    /// Whether the real response is still to come.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// How the body is framed.
    pub(super) fn framing(&self) -> Result<Framing, HeadError> {
        let empty = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        if empty.contains(&self.status) {
            return Ok(Framing::Length(0));
        }
        if self.headers.contains_key(TRANSFER_ENCODING) {
            let mut codings = self.headers.get_all(TRANSFER_ENCODING).iter();
            let (only, more) = (codings.next(), codings.next());
            let is_chunked = |value: &HeaderValue| {
                let coding = value.as_bytes().trim_ascii();
                coding.eq_ignore_ascii_case(b"chunked")
            };
            return match only.is_some_and(is_chunked) && more.is_none() {
                true => Ok(Framing::Chunked(Chunked::default())),
                false => Err(HeadError::Field {
                    what: "transfer coding",
                }),
            };
        }
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let Some(first) = lengths.next() else {
            return Ok(Framing::UntilClose);
        };
        let length = first.to_str().ok().map(str::trim);
        // Without the sign that `parse` would take.
        let length = length.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = length.and_then(|text| text.parse().ok());
        match length.filter(|_| lengths.all(|other| other == first)) {
            Some(length) => Ok(Framing::Length(length)),
            None => Err(HeadError::Field { what: "length" }),
        }
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut parts = value.as_bytes().split(|byte| *byte == b',');
        parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

// === impl Framing ===

impl Framing {
    /// Decodes in place what stands in `buffer` from `start` on, and cuts off what is not body.
    /// Returns whether the body is at its end, and what, if anything, came after it.
    pub(super) fn decode(
        &mut self,
        buffer: &mut BytesMut,
        start: usize,
    ) -> io::Result<(bool, usize)> {
        let received = buffer.len().saturating_sub(start);
        match self {
            Self::UntilClose => Ok((false, 0)),
            Self::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(received);
                *left = left.saturating_sub(wanted as u64);
                buffer.truncate(start.saturating_add(wanted));
                Ok((*left == 0, received.saturating_sub(wanted)))
            }
            Self::Chunked(chunked) => {
                let raw = buffer.get_mut(start..).unwrap_or_default();
                let decoded = chunked.decode(raw)?;
                buffer.truncate(start.saturating_add(decoded.written));
                Ok((chunked.is_done(), decoded.left))
            }
        }
    }

    /// What the end of the connection means here.
    pub(super) fn at_eof(&self) -> io::Result<()> {
        match self {
            Self::UntilClose => Ok(()),
            Self::Length(_) | Self::Chunked(_) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed inside the body",
            )),
        }
    }
}
