//! The chunked transfer coding (RFC 9112 §7.1), taken out in place.
//!
//! What is left of a buffer after decoding is the body alone, contiguous, whatever the chunks
//! were: so a message that the peer's small buffers cut into several chunks needs no joining. The
//! price is one move of each byte by the length of the framing before it, within the cache.

use std::io;

/// The longest line of a chunk's size with its extensions.
const SIZE_LINE_BYTES_MAX: usize = 4096;
/// The longest trailer section.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Where in the coding the last byte stood.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the line, or of the trailers, that is being read.
    line_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a chunk's size.
    Size {
        bytes: u64,
        digits: u8,
    },
    /// After them, up to the line's end.
    Extension {
        bytes: u64,
    },
    /// At the line feed after a size.
    SizeEnd {
        bytes: u64,
    },
    /// In the data, so many bytes before its end.
    Data {
        left: u64,
    },
    /// At the carriage return, then the line feed, after the data.
    DataCr,
    DataLf,
    /// At the start of a trailer's line, in one, at its line feed.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// At the line feed of the empty line that ends it all.
    EndLf,
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size {
            bytes: 0,
            digits: 0,
        }
    }
}

/// What became of a run of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Bytes of body, which now stand at the front.
    pub(super) written: usize,
    /// Bytes after the end of the body.
    pub(super) left: usize,
}

impl Chunked {
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Moves the body's bytes in `raw` to its front.
    pub(super) fn decode(&mut self, raw: &mut [u8]) -> io::Result<Decoded> {
        let (mut read, mut written) = (0_usize, 0_usize);
        while let Some(&byte) = raw.get(read) {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let here = raw.len().saturating_sub(read);
                    let run = usize::try_from(left).unwrap_or(usize::MAX).min(here);
                    // In range: `read + run` is at most the length, and `written` is below `read`.
                    raw.copy_within(read..read.saturating_add(run), written);
                    written = written.saturating_add(run);
                    read = read.saturating_add(run);
                    self.state = match left.saturating_sub(run as u64) {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                }
                state => {
                    self.state = self.step(state, byte)?;
                    read = read.saturating_add(1);
                }
            }
        }
        let left = raw.len().saturating_sub(read);
        Ok(Decoded { written, left })
    }

    /// One byte of framing.
    fn step(&mut self, state: State, byte: u8) -> io::Result<State> {
        let next = match (state, byte) {
            (State::Size { bytes, digits }, byte) => self.size(bytes, digits, byte)?,
            (State::Extension { bytes }, b'\r') => State::SizeEnd { bytes },
            (State::Extension { bytes }, _) => {
                self.count(SIZE_LINE_BYTES_MAX)?;
                State::Extension { bytes }
            }
            (State::SizeEnd { bytes }, b'\n') => {
                self.line_bytes = 0;
                match bytes {
                    0 => State::TrailerStart,
                    left => State::Data { left },
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::default(),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, _) => {
                self.count(TRAILER_BYTES_MAX)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            (State::Data { .. } | State::Done, _) => state,
            (State::SizeEnd { .. }, _) => return Err(invalid("a chunk's size has no line feed")),
            (State::DataCr | State::DataLf, _) => {
                return Err(invalid("a chunk is longer than its size"));
            }
            (State::TrailerLf | State::EndLf, _) => {
                return Err(invalid("a trailer has no line feed"));
            }
        };
        Ok(next)
    }

    fn size(&mut self, bytes: u64, digits: u8, byte: u8) -> io::Result<State> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if bytes >> 60 != 0 {
                return Err(invalid("a chunk's size is out of range"));
            }
            self.count(SIZE_LINE_BYTES_MAX)?;
            return Ok(State::Size {
                bytes: bytes << 4 | u64::from(digit),
                digits: 1,
            });
        }
        match byte {
            _ if digits == 0 => Err(invalid("a chunk has no size")),
            b'\r' => Ok(State::SizeEnd { bytes }),
            b';' | b' ' | b'\t' => Ok(State::Extension { bytes }),
            _ => Err(invalid("a chunk's size is no number")),
        }
    }

    fn count(&mut self, max: usize) -> io::Result<()> {
        self.line_bytes = self.line_bytes.saturating_add(1);
        match self.line_bytes > max {
            true => Err(invalid("the framing of the chunks is too long")),
            false => Ok(()),
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(raw: &[u8], step: usize) -> io::Result<(Vec<u8>, bool, usize)> {
        let mut chunked = Chunked::default();
        let mut body = Vec::new();
        let mut left = 0;
        for run in raw.chunks(step) {
            let mut run = run.to_vec();
            let decoded = chunked.decode(&mut run)?;
            body.extend_from_slice(&run[..decoded.written]);
            left += decoded.left;
        }
        Ok((body, chunked.is_done(), left))
    }

    proptest! {
        #[test]
        fn any_chunks_in_any_runs_give_the_body(
            chunks in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 1..300), "(;[a-z=]{0,9})?"), 0..8),
            step in 1usize..400,
            trailer in "([a-z]{1,9}: [a-z]{0,9}\r\n)?",
            after in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut raw = Vec::new();
            let mut body = Vec::new();
            for (data, extension) in &chunks {
                raw.extend(format!("{:x}{extension}\r\n", data.len()).into_bytes());
                raw.extend_from_slice(data);
                raw.extend_from_slice(b"\r\n");
                body.extend_from_slice(data);
            }
            raw.extend(format!("0\r\n{trailer}\r\n").into_bytes());
            let whole = raw.len();
            raw.extend_from_slice(&after);
            let decoded = decode(&raw, step).unwrap();
            prop_assert_eq!(decoded, (body.clone(), true, after.len()));
            for cut in 0..whole {
                let (start, done, _) = decode(&raw[..cut], step).unwrap();
                prop_assert!(!done && body.starts_with(&start));
            }
        }

        #[test]
        fn garbage_never_panics(
            raw in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..99,
        ) {
            if let Ok((body, _, left)) = decode(&raw, step) {
                prop_assert!(body.len() + left <= raw.len());
            }
        }
    }

    #[test]
    fn broken_framing_is_an_error() {
        for broken in [
            "\r\n",
            "x\r\n",
            "1x\r\n",
            "1\n",
            "1\r\nab",
            "1\r\na\r\r",
            "11111111111111111\r\n",
            "0\r\n\rx",
            "0\r\na\rx",
            "-1\r\n",
        ] {
            assert!(decode(broken.as_bytes(), 99).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn lines_have_limits() {
        let size = |extra: usize| format!("1;{}\r\n", "x".repeat(extra));
        assert!(decode(size(SIZE_LINE_BYTES_MAX - 1).as_bytes(), 99).is_ok());
        assert!(decode(size(SIZE_LINE_BYTES_MAX).as_bytes(), 99).is_err());
        let zeros = format!("{}\r\n", "0".repeat(SIZE_LINE_BYTES_MAX + 1));
        assert!(decode(zeros.as_bytes(), 99).is_err());
        let trailer = |bytes: usize| format!("0\r\n{}\r\n\r\n", "t".repeat(bytes));
        assert!(decode(trailer(TRAILER_BYTES_MAX).as_bytes(), 99).is_ok());
        assert!(decode(trailer(TRAILER_BYTES_MAX + 1).as_bytes(), 99).is_err());
    }
}
