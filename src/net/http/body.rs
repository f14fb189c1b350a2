//! Bodies: what is sent, and what is received, as a stream or read whole under a named limit.
//!
//! Dropping a [`ResponseBody`] before its end closes the connection (HTTP/1) or resets the stream
//! (HTTP/2), so the peer stops producing.

use std::fmt;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};

use super::error::{BoxError, HttpError};

/// What a request carries.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Compressed input is fed in slices of this size: DEFLATE grows at most about 1032-fold, so one
/// step yields about 1 MiB whatever the peer sends.
const GZIP_STEP_BYTES: usize = 1024;

/// A body's greatest length, by the name that errors show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    /// The limit's name.
    pub name: &'static str,
    /// Bytes after decompression.
    pub bytes: usize,
}

impl BodyLimit {
    /// The error of a body past this limit.
    pub fn exceeded(self) -> HttpError {
        HttpError::BodyTooLarge {
            limit: self.name,
            limit_bytes: self.bytes,
        }
    }
}

/// A response's body as it arrives.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    gzip: Option<Gzip>,
}

/// A request without a body.
pub fn empty_body() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A request with these bytes.
pub fn full_body(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The response with its body decompressed on the way, where it says it is gzip.
pub fn decoded(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip")) {
        response.headers_mut().remove(CONTENT_ENCODING);
        response.headers_mut().remove(CONTENT_LENGTH);
        response.body_mut().gzip = Some(Gzip::new());
    }
    response
}

// === impl ResponseBody ===

impl ResponseBody {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            gzip: None,
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Where the connection breaks, the body is cut short, or gzip is broken.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Self::chunk`], and [`HttpError::BodyTooLarge`] past `limit`; no more than the limit
    /// and one chunk is ever held.
    pub async fn read(mut self, limit: BodyLimit) -> Result<Bytes, HttpError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > limit.bytes.saturating_sub(whole.len()) {
                return Err(limit.exceeded());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            if let Some(gzip) = &mut self.gzip
                && let Some(decoded) = gzip.step().transpose()
            {
                return Poll::Ready(Some(decoded.map(Frame::data)));
            }
            let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(frame) => frame.map_err(|source| HttpError::Body { source })?,
                None => {
                    let rest = match self.gzip.as_mut() {
                        Some(gzip) => gzip.finish().transpose(),
                        None => None,
                    };
                    return Poll::Ready(rest.map(|decoded| decoded.map(Frame::data)));
                }
            };
            match (&mut self.gzip, frame.into_data()) {
                (Some(gzip), Ok(data)) => gzip.input = data,
                (None, Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                // Trailers carry nothing that any caller asks for.
                (_, Err(_)) => {}
            }
        }
    }
}

// === Gzip ===

/// Decompresses what arrives, one bounded step at a time.
struct Gzip {
    input: Bytes,
    /// `None` once the end was checked.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
}

impl Gzip {
    fn new() -> Self {
        Self {
            input: Bytes::new(),
            decoder: Some(MultiGzDecoder::new(Vec::new())),
        }
    }

    /// What the next slices of input yield; `None` when the input is used up.
    fn step(&mut self) -> Result<Option<Bytes>, HttpError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        while !self.input.is_empty() {
            let slice_bytes = self.input.len().min(GZIP_STEP_BYTES);
            let slice = self.input.get(..slice_bytes).unwrap_or_default();
            let written = decoder.write_all(slice);
            self.input.advance(slice_bytes);
            written.map_err(|source| HttpError::Gzip { source })?;
            if !decoder.get_ref().is_empty() {
                return Ok(Some(Bytes::from(std::mem::take(decoder.get_mut()))));
            }
        }
        Ok(None)
    }

    /// Checks that the stream ended as gzip streams do; yields what was still held back.
    fn finish(&mut self) -> Result<Option<Bytes>, HttpError> {
        let Some(decoder) = self.decoder.take() else {
            return Ok(None);
        };
        let rest = decoder
            .finish()
            .map_err(|source| HttpError::Gzip { source })?;
        Ok((!rest.is_empty()).then(|| Bytes::from(rest)))
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip")
            .field("input", &self.input.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(compressed: &[u8], chunk_bytes: usize) -> Result<Vec<u8>, HttpError> {
        let mut gzip = Gzip::new();
        let mut out = Vec::new();
        for chunk in compressed.chunks(chunk_bytes) {
            gzip.input = Bytes::copy_from_slice(chunk);
            while let Some(step) = gzip.step()? {
                assert!(step.len() <= 2 << 20, "a step is bounded");
                out.extend_from_slice(&step);
            }
        }
        out.extend_from_slice(&gzip.finish()?.unwrap_or_default());
        Ok(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn gzip_survives_any_chunking_and_no_truncation(
            data in proptest::collection::vec(any::<u8>(), 0..4096),
            chunk in 1usize..300,
            cut: prop::sample::Index,
        ) {
            let compressed = gzip(&data);
            prop_assert_eq!(decode(&compressed, chunk).unwrap(), data);
            let cut = cut.index(compressed.len());
            if cut > 0 {
                prop_assert!(decode(&compressed[..cut], chunk).is_err(), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn a_bomb_comes_out_in_bounded_steps() {
        let data = vec![0u8; 32 << 20];
        assert_eq!(decode(&gzip(&data), usize::MAX).unwrap().len(), data.len());
    }
}
