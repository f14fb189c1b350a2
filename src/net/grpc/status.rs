//! What a call ended with: the seventeen codes of gRPC, a text, and how both travel in trailers.

use std::fmt;
use std::str::FromStr as _;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// The longest text that is sent, before percent-encoding; the rest is cut. C-core clients refuse
/// metadata above 8 KiB, and a text may grow threefold on the wire.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 2 * 1024;

pub(super) const GRPC_STATUS: &str = "grpc-status";
pub(super) const GRPC_MESSAGE: &str = "grpc-message";

/// The codes of gRPC, numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// How a call ended, or ends: a code and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text; empty with `Ok`.
    pub message: String,
    /// Whether it is nothing that whoever runs this server has to know of; does not travel.
    is_quiet: bool,
}

// === impl Code ===

impl Code {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The name as Go writes it, which is what the metrics carry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Canceled => "Canceled",
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::PermissionDenied => "PermissionDenied",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::Aborted => "Aborted",
            Self::OutOfRange => "OutOfRange",
            Self::Unimplemented => "Unimplemented",
            Self::Internal => "Internal",
            Self::Unavailable => "Unavailable",
            Self::DataLoss => "DataLoss",
            Self::Unauthenticated => "Unauthenticated",
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of a number; `None` above 16.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Status ===

impl Status {
    /// A status of any code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            is_quiet: false,
        }
    }

    /// Success.
    pub const fn ok() -> Self {
        Self {
            code: Code::Ok,
            message: String::new(),
            is_quiet: false,
        }
    }

    /// The same, but logged at debug whatever its code: it tells of the request's own bytes, or of
    /// a state that is logged elsewhere, so that no peer can fill the log with it.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self {
            is_quiet: true,
            ..self
        }
    }

    /// Whether something is wrong on this side, for all that is known.
    pub(super) fn is_failure(&self) -> bool {
        let is_ours = matches!(self.code, Code::Internal | Code::Unknown | Code::DataLoss);
        is_ours && !self.is_quiet
    }

    /// What a sender gets once nobody listens any more.
    pub(super) fn client_gone() -> Self {
        Self::new(Code::Canceled, "the client is gone")
    }

    /// Puts the status where it travels: into trailers, or into headers where those are all.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(
            GRPC_STATUS,
            HeaderValue::from(u16::from(self.code.number())),
        );
        if self.message.is_empty() {
            return;
        }
        let encoded = percent_encoded(cut(&self.message, STATUS_MESSAGE_BYTES_MAX));
        let value = HeaderValue::from_maybe_shared(encoded.freeze())
            .expect("invariant: percent-encoded text is visible ASCII");
        headers.insert(GRPC_MESSAGE, value);
    }

    /// The status in trailers; `None` without a usable `grpc-status`.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let number = headers.get(GRPC_STATUS)?.to_str().ok()?;
        // A number that no one has defined yet means Unknown, as the protocol says.
        let code = i32::from_str(number).ok()?;
        let code = u8::try_from(code).ok().and_then(Code::from_number);
        let message = headers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
        Some(Self {
            code: code.unwrap_or(Code::Unknown),
            message: percent_decoded(message.unwrap_or_default()),
            is_quiet: false,
        })
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or(text)
}

/// Everything outside of printable ASCII, and `%` itself, as `%XX`.
fn percent_encoded(text: &str) -> BytesMut {
    let mut encoded = BytesMut::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => {
                encoded.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 0xf)]);
            }
            byte => encoded.extend_from_slice(&[byte]),
        }
    }
    encoded
}

fn hex(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0'.saturating_add(nibble),
        _ => b'A'.saturating_add(nibble.saturating_sub(10)),
    }
}

/// Lenient, as the protocol asks: what is not an escape stays as it is.
fn percent_decoded(mut text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        if byte == b'%'
            && let Some((&[high, low], rest)) = rest.split_first_chunk()
            && let (Some(high), Some(low)) = (nibble(high), nibble(low))
        {
            decoded.push((high << 4) | low);
            text = rest;
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn nibble(digit: u8) -> Option<u8> {
    let digit = char::from(digit).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_short_text_survives_the_trailers(text in "\\PC{0,300}|[\\x00-\\xff]{0,300}") {
            let status = Status::new(Code::NotFound, text);
            let mut headers = HeaderMap::new();
            status.write(&mut headers);
            prop_assert_eq!(Status::read(&headers).unwrap(), status);
        }

        #[test]
        fn any_escape_decodes_to_something(text: Vec<u8>) {
            drop(percent_decoded(&text));
        }
    }

    #[test]
    fn text_is_escaped_as_the_protocol_says_and_cut_between_characters() {
        let encoded = |text: &str| String::from_utf8(percent_encoded(text).to_vec()).unwrap();
        assert_eq!(encoded("a b~%\n\u{e9}\u{7f}"), "a b~%25%0A%C3%A9%7F");
        assert_eq!(percent_decoded(b"%4x%41%"), "%4xA%");
        let long = "\u{e9}".repeat(STATUS_MESSAGE_BYTES_MAX);
        let mut headers = HeaderMap::new();
        Status::new(Code::Internal, format!("x{long}")).write(&mut headers);
        let read = Status::read(&headers).unwrap();
        assert_eq!(read.message.len(), STATUS_MESSAGE_BYTES_MAX - 1);
        assert!(!read.message.contains('\u{fffd}'));
    }

    #[test]
    fn codes_have_gos_numbers_and_names() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
        }
        assert_eq!(Code::from_number(17), None);
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from_static("99"));
        assert_eq!(Status::read(&headers).unwrap().code, Code::Unknown);
        headers.insert(GRPC_STATUS, HeaderValue::from_static("x"));
        assert_eq!(Status::read(&headers), None);
    }
}
