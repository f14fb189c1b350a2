//! Message encodings: `identity`, `gzip`, and `snappy`, which in Thanos means the *framed* format.
//!
//! What is decoded is bounded before it is produced, so a few bytes can't become gigabytes.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Crc, FlushCompress, Status as Deflated};

pub(super) const GRPC_ENCODING: &str = "grpc-encoding";
pub(super) const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// What we decode and encode, as announced.
pub(super) const ACCEPTED: &str = "identity,gzip,snappy";

/// The first chunk of every framed snappy stream.
const SNAPPY_STREAM_START: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// The most bytes of input that one chunk of a framed stream may stand for.
const SNAPPY_BLOCK_BYTES: usize = 65_536;
const SNAPPY_COMPRESSED: u8 = 0x00;
const SNAPPY_UNCOMPRESSED: u8 = 0x01;
/// Deflate, no flags, no time, no hint, system unknown.
const GZIP_HEADER: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff";

/// How messages are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    #[default]
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// The snappy framing format.
    Snappy,
}

/// Why a message can't be decoded or encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompressError {
    /// Marked as compressed, but the call has no encoding.
    #[error("message is marked as compressed, but grpc-encoding names no compression")]
    NoEncoding,
    /// Not in the encoding that it should be in.
    #[error("message is not valid {encoding}")]
    Corrupt {
        /// The encoding.
        encoding: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Decodes to more than allowed.
    #[error("message is longer than the limit of {limit} bytes once it is decompressed")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The encoder failed.
    #[error("compressing a message with {encoding}")]
    Encode {
        /// The encoding.
        encoding: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

// === impl Encoding ===

impl Encoding {
    /// The encoding of a `grpc-encoding` header; `None` for one we don't know.
    pub(super) fn parse(token: &[u8]) -> Option<Self> {
        match token {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" => Some(Self::Gzip),
            b"snappy" => Some(Self::Snappy),
            _ => None,
        }
    }

    /// The token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
        }
    }

    /// The message behind `payload`, of at most `limit` bytes.
    pub(super) fn decode(self, payload: &[u8], limit: usize) -> Result<Bytes, CompressError> {
        match self {
            Self::Identity => Err(CompressError::NoEncoding),
            Self::Gzip => self.read(flate2::read::MultiGzDecoder::new(payload), limit),
            Self::Snappy => self.read(snap::read::FrameDecoder::new(payload), limit),
        }
    }

    fn read(self, decoder: impl Read, limit: usize) -> Result<Bytes, CompressError> {
        let mut message = Vec::new();
        let bytes_max = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut bounded = decoder.take(bytes_max);
        bounded
            .read_to_end(&mut message)
            .map_err(|source| CompressError::Corrupt {
                encoding: self.name(),
                source,
            })?;
        match message.len() > limit {
            true => Err(CompressError::TooLong { limit }),
            false => Ok(Bytes::from(message)),
        }
    }
}

// === Encoding ===

/// Encodes messages of one call, keeping the tables of the encoder from message to message.
pub(super) enum Compressor {
    Identity,
    Gzip(Compress),
    Snappy {
        encoder: Box<snap::raw::Encoder>,
        block: Vec<u8>,
    },
}

impl Compressor {
    pub(super) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Identity => Self::Identity,
            Encoding::Gzip => Self::Gzip(Compress::new(Compression::fast(), false)),
            Encoding::Snappy => Self::Snappy {
                encoder: Box::new(snap::raw::Encoder::new()),
                block: Vec::new(),
            },
        }
    }

    /// Whether messages are changed at all.
    pub(super) fn is_identity(&self) -> bool {
        matches!(self, Self::Identity)
    }

    /// Appends `message` to `out`, encoded.
    pub(super) fn encode(
        &mut self,
        message: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), CompressError> {
        match self {
            Self::Identity => out.extend_from_slice(message),
            Self::Gzip(deflate) => {
                gzip(deflate, message, out).map_err(|source| failed("gzip", source))?
            }
            Self::Snappy { encoder, block } => {
                out.extend_from_slice(SNAPPY_STREAM_START);
                for input in message.chunks(SNAPPY_BLOCK_BYTES) {
                    snappy_chunk(encoder, block, input, out)
                        .map_err(|source| failed("snappy", source))?;
                }
            }
        }
        Ok(())
    }
}

fn failed(
    encoding: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CompressError {
    CompressError::Encode {
        encoding,
        source: source.into(),
    }
}

fn gzip(
    deflate: &mut Compress,
    message: &[u8],
    out: &mut BytesMut,
) -> Result<(), flate2::CompressError> {
    deflate.reset();
    out.extend_from_slice(GZIP_HEADER);
    let mut rest = message;
    let mut piece = [0; 16 * 1024];
    loop {
        let (read, written) = (deflate.total_in(), deflate.total_out());
        let status = deflate.compress(rest, &mut piece, FlushCompress::Finish)?;
        let taken = usize::try_from(deflate.total_in().saturating_sub(read)).unwrap_or(usize::MAX);
        let made = usize::try_from(deflate.total_out().saturating_sub(written));
        rest = rest.get(taken..).unwrap_or_default();
        out.extend_from_slice(piece.get(..made.unwrap_or(usize::MAX)).unwrap_or_default());
        if status == Deflated::StreamEnd {
            break;
        }
    }
    let mut crc = Crc::new();
    crc.update(message);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(())
}

/// One chunk of the framing format: type, 24-bit length, masked CRC-32C of the input, the block;
/// the input itself where compression would not save an eighth.
fn snappy_chunk(
    encoder: &mut snap::raw::Encoder,
    block: &mut Vec<u8>,
    input: &[u8],
    out: &mut BytesMut,
) -> Result<(), snap::Error> {
    block.resize(snap::raw::max_compress_len(input.len()), 0);
    let length = encoder.compress(input, block)?;
    let compressed = block.get(..length).unwrap_or_default();
    let (kind, body) = match length < input.len().saturating_sub(input.len() / 8) {
        true => (SNAPPY_COMPRESSED, compressed),
        false => (SNAPPY_UNCOMPRESSED, input),
    };
    let chunk_bytes = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    let [low, middle, high, _] = chunk_bytes.to_le_bytes();
    out.extend_from_slice(&[kind, low, middle, high]);
    let crc = crc_fast::crc32_iscsi(input);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    out.extend_from_slice(&masked.to_le_bytes());
    out.extend_from_slice(body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use proptest::prelude::*;

    const COMPRESSIONS: [Encoding; 2] = [Encoding::Gzip, Encoding::Snappy];

    fn encoded(encoding: Encoding, message: &[u8]) -> BytesMut {
        let mut compressor = Compressor::new(encoding);
        let mut out = BytesMut::new();
        compressor.encode(b"a message before", &mut out).unwrap();
        out.clear();
        compressor.encode(message, &mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_by_us_and_by_others(
            message in prop::collection::vec(0u8..4, 0..200_000)
                .boxed().prop_union(prop::collection::vec(any::<u8>(), 0..200_000).boxed()),
        ) {
            for encoding in COMPRESSIONS {
                let bytes = encoded(encoding, &message);
                let decoded = encoding.decode(&bytes, message.len()).unwrap();
                prop_assert!(decoded == message, "{:?}", encoding);
            }
            let mut read = Vec::new();
            let bytes = encoded(Encoding::Snappy, &message);
            snap::read::FrameDecoder::new(&bytes[..]).read_to_end(&mut read).unwrap();
            prop_assert!(read == message);
            let mut writer = snap::write::FrameEncoder::new(Vec::new());
            writer.write_all(&message).unwrap();
            let bytes = writer.into_inner().unwrap();
            prop_assert!(Encoding::Snappy.decode(&bytes, message.len()).unwrap() == message);
            let mut read = Vec::new();
            let bytes = encoded(Encoding::Gzip, &message);
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut read).unwrap();
            prop_assert!(read == message);
        }

        #[test]
        fn any_bytes_decode_within_the_limit_or_fail(bytes: Vec<u8>) {
            for encoding in COMPRESSIONS {
                if let Ok(message) = encoding.decode(&bytes, 100) {
                    prop_assert!(message.len() <= 100);
                }
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let limit = 1 << 20;
        let zeros = vec![0; limit + 1];
        for encoding in COMPRESSIONS {
            let bomb = encoded(encoding, &zeros);
            assert!(bomb.len() < limit / 10);
            let outcome = encoding.decode(&bomb, limit);
            assert!(
                matches!(outcome, Err(CompressError::TooLong { .. })),
                "{encoding:?}"
            );
            assert_eq!(encoding.decode(&bomb, limit + 1).unwrap().len(), limit + 1);
        }
    }

    #[test]
    fn cut_and_changed_bytes_are_corrupt() {
        let message: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        for encoding in COMPRESSIONS {
            let good = encoded(encoding, &message);
            for cut in [1, 2, good.len() / 2] {
                let outcome = encoding.decode(&good[..good.len() - cut], message.len());
                assert!(
                    matches!(outcome, Err(CompressError::Corrupt { .. })),
                    "{encoding:?} {cut}"
                );
            }
            let mut changed = good.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 0x10;
            assert!(
                encoding.decode(&changed, message.len()).is_err(),
                "{encoding:?}"
            );
        }
        assert!(matches!(
            Encoding::Identity.decode(b"x", 1),
            Err(CompressError::NoEncoding)
        ));
    }

    #[test]
    fn tokens_are_exact() {
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Snappy] {
            assert_eq!(Encoding::parse(encoding.name().as_bytes()), Some(encoding));
            assert!(ACCEPTED.split(',').any(|name| name == encoding.name()));
        }
        for token in ["Snappy", "deflate", "gzip,snappy", "x-snappy-framed"] {
            assert_eq!(Encoding::parse(token.as_bytes()), None);
        }
    }
}
