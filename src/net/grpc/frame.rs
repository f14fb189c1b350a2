//! The five bytes before each message: a flag and a length, refused before anything is allocated.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use bytes::{Buf as _, Bytes, BytesMut};

/// A flag and a big-endian length.
pub(super) const PREFIX_BYTES: usize = 5;

/// One message as it travelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Whether the payload is in the encoding that the headers named.
    pub(super) compressed: bool,
    /// What was sent.
    pub(super) payload: Bytes,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// A flag that the protocol does not know.
    #[error("message flag is {flag}, want 0 or 1")]
    Flag {
        /// As sent.
        flag: u8,
    },
    /// Longer than allowed.
    #[error("message of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// As sent.
        length: u32,
        /// The limit.
        limit: usize,
    },
}

/// Cuts a byte stream, given chunk by chunk, into messages. A message inside one chunk is a slice
/// of it; only one that spans chunks is copied, once, and grows as its bytes arrive.
#[derive(Debug)]
pub(super) struct FrameReader {
    length_max: usize,
    chunk: Bytes,
    partial: BytesMut,
    prefix: Option<(bool, usize)>,
}

impl FrameReader {
    pub(super) fn new(length_max: usize) -> Self {
        Self {
            length_max,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
            prefix: None,
        }
    }

    /// Gives the next chunk, once [`FrameReader::next_frame`] has said `None`.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the last chunk is used up");
        self.chunk = chunk;
    }

    /// Whether the stream may end here.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.chunk.is_empty() && self.partial.is_empty() && self.prefix.is_none()
    }

    /// Bytes of a message that is not whole yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// The next whole message; `None` where more bytes are needed.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let (compressed, length) = match self.prefix {
            Some(prefix) => prefix,
            None => {
                let Some(mut prefix) = self.take(PREFIX_BYTES) else {
                    return Ok(None);
                };
                let parsed = parse_prefix(&mut prefix, self.length_max)?;
                self.prefix = Some(parsed);
                parsed
            }
        };
        Ok(self.take(length).map(|payload| {
            self.prefix = None;
            Frame {
                compressed,
                payload,
            }
        }))
    }

    fn take(&mut self, wanted: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.chunk.len() >= wanted {
            return Some(self.chunk.split_to(wanted));
        }
        let missing = wanted.saturating_sub(self.partial.len());
        let run = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&run);
        (self.partial.len() >= wanted).then(|| self.partial.split().freeze())
    }
}

fn parse_prefix(prefix: &mut Bytes, limit: usize) -> Result<(bool, usize), FrameError> {
    let flag = prefix.get_u8();
    let length = prefix.get_u32();
    if flag > 1 {
        return Err(FrameError::Flag { flag });
    }
    match usize::try_from(length) {
        Ok(bytes) if bytes <= limit => Ok((flag == 1, bytes)),
        _ => Err(FrameError::TooLong { length, limit }),
    }
}

/// Appends a prefix of zeros, to be filled in by [`finish_prefix`]; returns where the message
/// begins.
pub(super) fn begin_prefix(out: &mut BytesMut) -> usize {
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.len()
}

/// Fills in the prefix of the message from `start` to the end of `out`; `None` where it is longer
/// than a prefix can say.
pub(super) fn finish_prefix(out: &mut BytesMut, start: usize, compressed: bool) -> Option<()> {
    let length = u32::try_from(out.len().checked_sub(start)?).ok()?;
    let prefix = out.get_mut(start.checked_sub(PREFIX_BYTES)?..start)?;
    let (flag, rest) = prefix.split_first_mut()?;
    *flag = u8::from(compressed);
    rest.copy_from_slice(&length.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(messages: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for (compressed, message) in messages {
            let start = begin_prefix(&mut out);
            out.extend_from_slice(message);
            finish_prefix(&mut out, start, *compressed).unwrap();
        }
        out.to_vec()
    }

    fn read(bytes: &[u8], split: usize, limit: usize) -> (Vec<Frame>, Result<bool, FrameError>) {
        let mut reader = FrameReader::new(limit);
        let mut frames = Vec::new();
        for chunk in bytes.chunks(split.max(1)) {
            reader.push(Bytes::copy_from_slice(chunk));
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        (frames, Ok(reader.is_at_boundary()))
    }

    proptest! {
        #[test]
        fn messages_come_back_however_they_are_split(
            messages in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..6),
            split in 1usize..300,
        ) {
            let bytes = framed(&messages);
            let (frames, end) = read(&bytes, split, 200);
            prop_assert_eq!(end, Ok(true));
            let frames: Vec<_> =
                frames.into_iter().map(|f| (f.compressed, f.payload.to_vec())).collect();
            prop_assert_eq!(frames, messages);
        }

        #[test]
        fn a_cut_stream_is_not_at_a_boundary(message: Vec<u8>, cut in 1usize..200) {
            let bytes = framed(&[(false, message)]);
            let end = bytes.len().saturating_sub(cut).max(1);
            let (frames, outcome) = read(&bytes[..end], 7, 1 << 20);
            prop_assert_eq!(frames.len(), 0);
            prop_assert_eq!(outcome, Ok(false));
        }
    }

    #[test]
    fn the_limit_is_met_before_a_byte_of_the_message_is_there() {
        assert_eq!(read(&framed(&[(false, vec![0; 10])]), 100, 10).1, Ok(true));
        let limit = read(&framed(&[(false, vec![0; 11])])[..5], 100, 10).1;
        assert_eq!(
            limit,
            Err(FrameError::TooLong {
                length: 11,
                limit: 10
            })
        );
        let huge = read(&[0, 0xff, 0xff, 0xff, 0xff], 1, 4 << 20).1;
        assert!(matches!(
            huge,
            Err(FrameError::TooLong {
                length: u32::MAX,
                ..
            })
        ));
        assert_eq!(
            read(&[2, 0, 0, 0, 0], 5, 9).1,
            Err(FrameError::Flag { flag: 2 })
        );
    }
}
