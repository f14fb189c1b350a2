//! Remote read: Prometheus' series with their chunks, as a stream of bounded memory (contract
//! `grpc.md` §5).
//!
//! An answer ends in one of two ways: at a frame's boundary when the body does, or with an error.
//! Damage, truncation, text that Prometheus appends to what it has sent, and garbage are errors
//! with the frame's number and place, never a short success; a stream whose end would be that of
//! its connection is refused, as it may stop between two frames unnoticed. Dropping a
//! [`RemoteRead`] closes its connection at once, so that Prometheus stops working for nobody.

mod frame;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod samples;
mod series;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use frame::{FRAME_BYTES_MAX, FrameError, FrameErrorKind};
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::fuzz_remote_read;
pub use samples::{SAMPLES_BYTES_MAX, SAMPLES_SERIES_MAX, SamplesError};
pub use series::{FloatSample, RemoteChunk, RemoteSeries};

use super::client::Client;
use super::error::PeerError;
use super::request::{shortened, successful_direct};
use crate::lifecycle::blocking;
use crate::model::{MatchOp, Matcher};
use crate::net::http::{Coalesce, DirectBody};
use crate::proto::prometheus as wire_messages;
use frame::Frames;
use samples::Sampled;
use wire::{Fields, Value};

const PATH: &str = "/api/v1/read";
const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
const SAMPLED: &str = "application/x-protobuf";
const HEADERS: [(HeaderName, &str); 3] = [
    (CONTENT_ENCODING, "snappy"),
    (CONTENT_TYPE, "application/x-stream-protobuf"),
    (
        HeaderName::from_static("x-prometheus-remote-read-version"),
        "0.1.0",
    ),
];

/// Prometheus flushes after every frame of about 2 KB. The timer's grain is a millisecond, in
/// which it produces 150 KB or so.
pub(super) const COALESCE: Coalesce = Coalesce {
    pause: Duration::from_millis(1),
    enough_bytes: 32 << 10,
    eager_bytes: 256 << 10,
};

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteQuery {
    /// First instant, ms since the epoch.
    pub start_ms: i64,
    /// Last instant, which is inside.
    pub end_ms: i64,
    /// What series must match, all of it.
    pub matchers: Vec<Matcher>,
}

/// An answer as it comes.
#[derive(Debug)]
pub struct RemoteRead {
    url: String,
    source: Source,
    /// After an error there is no end.
    is_broken: bool,
}

#[derive(Debug)]
enum Source {
    Streamed(Box<Streamed>),
    Sampled {
        sampled: Sampled,
        /// Lets the next call hold an answer once it is dropped.
        _place: OwnedSemaphorePermit,
    },
}

#[derive(Debug)]
struct Streamed {
    body: DirectBody,
    /// Received, not yet taken as a frame.
    buffer: BytesMut,
    frames: Frames,
    /// The frame whose series are being yielded, and how much of its end is not read yet.
    frame: Bytes,
    frame_rest: usize,
}

// === impl Client ===

impl Client {
    /// Asks for the series that match, streamed where Prometheus can. Resolves at the answer's
    /// header, or where it comes in samples, once it is here. Dropping the future, or the
    /// answer, closes the connection.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn remote_read(&self, query: &RemoteQuery) -> Result<RemoteRead, PeerError> {
        let url = self.shown(PATH);
        let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let body = request_body(query).map_err(|source| PeerError::Samples {
            url: url.clone(),
            source,
        })?;
        let response = self
            .post_direct(PATH, HeaderMap::from_iter(headers), body)
            .await?;
        let response = successful_direct(&url, response).await?;
        RemoteRead::new(url, response, &self.0.samples).await
    }
}

/// The request, compressed as one block.
fn request_body(query: &RemoteQuery) -> Result<Bytes, SamplesError> {
    use wire_messages::label_matcher::Type;
    use wire_messages::read_request::ResponseType;
    let matchers = query.matchers.iter().map(|matcher| {
        let kind = match matcher.op {
            MatchOp::Equal => Type::Eq,
            MatchOp::NotEqual => Type::Neq,
            MatchOp::Regex => Type::Re,
            MatchOp::NotRegex => Type::Nre,
        };
        wire_messages::LabelMatcher {
            r#type: kind.into(),
            name: matcher.name.clone(),
            value: matcher.value.clone(),
        }
    });
    let request = wire_messages::ReadRequest {
        queries: vec![wire_messages::Query {
            start_timestamp_ms: query.start_ms,
            end_timestamp_ms: query.end_ms,
            matchers: matchers.collect(),
            hints: None,
        }],
        accepted_response_types: vec![
            ResponseType::StreamedXorChunks.into(),
            ResponseType::Samples.into(),
        ],
    };
    let compressed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec());
    compressed
        .map(Bytes::from)
        .map_err(|source| SamplesError::Snappy { source })
}

// === impl RemoteRead ===

impl RemoteRead {
    async fn new(
        url: String,
        response: Response<DirectBody>,
        samples: &Arc<Semaphore>,
    ) -> Result<Self, PeerError> {
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
        let source = if content_type.starts_with(STREAMED.as_bytes()) {
            let body = response.into_body();
            if !body.is_delimited() {
                return Err(PeerError::Undelimited { url });
            }
            Source::Streamed(Box::new(Streamed::new(body)))
        } else if content_type.starts_with(SAMPLED.as_bytes()) {
            let place = place(samples).await.map_err(|source| PeerError::Samples {
                url: url.clone(),
                source,
            })?;
            let (sampled, place) = read_sampled(&url, response.into_body(), place).await?;
            Source::Sampled {
                sampled,
                _place: place,
            }
        } else {
            return Err(PeerError::ContentType {
                content_type: shortened(&String::from_utf8_lossy(content_type)),
            });
        };
        Ok(Self {
            url,
            source,
            is_broken: false,
        })
    }

    /// Reads the next series, or the next part of one, in place of the content of `series`, whose
    /// buffers are used again; false at the end. A series that Prometheus split over frames comes
    /// in as many parts, one after the other, each with all labels.
    ///
    /// May be dropped and called again without loss.
    ///
    /// # Errors
    /// See [`PeerError`]; every later call is an error, too.
    pub async fn next_into(&mut self, series: &mut RemoteSeries) -> Result<bool, PeerError> {
        let outcome = match (&mut self.source, self.is_broken) {
            (Source::Streamed(streamed), false) => streamed.next_into(series, &self.url).await,
            (Source::Sampled { sampled, .. }, false) => {
                let url = self.url.clone();
                let read = sampled.next_into(series);
                read.map_err(|source| PeerError::Samples { url, source })
            }
            (_, true) => Err(self.already_broken()),
        };
        self.is_broken = outcome.is_err();
        outcome
    }

    /// The next series, or part of one, in buffers of its own; `None` at the end. See
    /// [`Self::next_into`].
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn next(&mut self) -> Result<Option<RemoteSeries>, PeerError> {
        let mut series = RemoteSeries::default();
        let found = self.next_into(&mut series).await?;
        Ok(found.then_some(series))
    }

    /// Whether the answer is a stream of chunks, rather than samples.
    pub fn is_streamed(&self) -> bool {
        matches!(self.source, Source::Streamed(_))
    }

    /// How many frames came, and how often the connection was read for them.
    pub fn frames_and_reads(&self) -> (u64, u64) {
        match &self.source {
            Source::Streamed(streamed) => (streamed.frames.taken(), streamed.body.reads()),
            Source::Sampled { .. } => (0, 0),
        }
    }

    fn already_broken(&self) -> PeerError {
        let kind = FrameErrorKind::Message("an earlier error ended the answer");
        let frames = match &self.source {
            Source::Streamed(streamed) => streamed.frames.at_next(kind),
            Source::Sampled { .. } => Frames::default().at_next(kind),
        };
        PeerError::Frame {
            url: self.url.clone(),
            source: frames,
        }
    }
}

/// Waits for the place of an answer in samples, of which nothing is read before.
async fn place(samples: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, SamplesError> {
    let acquiring = Arc::clone(samples).acquire_owned();
    match tokio::time::timeout(samples::SAMPLES_WAIT_MAX, acquiring).await {
        Ok(place) => Ok(place.expect("invariant: nobody closes this semaphore")),
        Err(_) => Err(SamplesError::Busy),
    }
}

async fn read_sampled(
    url: &str,
    body: DirectBody,
    place: OwnedSemaphorePermit,
) -> Result<(Sampled, OwnedSemaphorePermit), PeerError> {
    let body = body.read(samples::SAMPLES_BODY_MAX).await;
    let body = body.map_err(|source| PeerError::Transport {
        url: url.to_owned(),
        source,
    })?;
    // A few hundred milliseconds of work where the answer is large.
    let read = blocking(move || {
        // The place goes along, as nothing stops this when the call is dropped.
        Sampled::read(&body).map(|sampled| (sampled, place))
    });
    read.await.map_err(|source| PeerError::Samples {
        url: url.to_owned(),
        source,
    })
}

// === impl Streamed ===

impl Streamed {
    fn new(body: DirectBody) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            frames: Frames::default(),
            frame: Bytes::new(),
            frame_rest: 0,
        }
    }

    async fn next_into(&mut self, series: &mut RemoteSeries, url: &str) -> Result<bool, PeerError> {
        let frame_error = |source| PeerError::Frame {
            url: url.to_owned(),
            source,
        };
        loop {
            if self.series_of_frame(series).map_err(frame_error)? {
                return Ok(true);
            }
            // Views that are let go of make the buffer free for the next read.
            self.frame = Bytes::new();
            series.clear();
            if let Some(frame) = self.frames.next(&mut self.buffer).map_err(frame_error)? {
                check_frame(&frame).map_err(|kind| frame_error(self.frames.at_last(kind)))?;
                self.frame_rest = frame.len();
                self.frame = frame;
                continue;
            }
            let filled = self.body.fill(&mut self.buffer).await;
            let filled = filled.map_err(|source| PeerError::Transport {
                url: url.to_owned(),
                source,
            })?;
            if !filled {
                self.frames.finish(&self.buffer).map_err(frame_error)?;
                return Ok(false);
            }
        }
    }

    /// The next series of the frame at hand; false where it has no more.
    fn series_of_frame(&mut self, series: &mut RemoteSeries) -> Result<bool, FrameError> {
        let read = self.frame.len().saturating_sub(self.frame_rest);
        let mut fields = Fields::new(self.frame.get(read..).unwrap_or_default());
        loop {
            let field = fields.next().map_err(|kind| self.frames.at_last(kind))?;
            self.frame_rest = fields.rest_bytes();
            let message = match field {
                None => return Ok(false),
                Some((1, Value::Bytes(message))) => message,
                Some(_) => continue,
            };
            let read = series.read_chunked(&self.frame, message);
            read.map_err(|kind| self.frames.at_last(kind))?;
            return Ok(true);
        }
    }
}

/// Checks a `ChunkedReadResponse` as a whole, before anything of it is yielded.
fn check_frame(frame: &[u8]) -> Result<(), FrameErrorKind> {
    let mut fields = Fields::new(frame);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => drop(value.bytes()?),
            2 if value.int64()? != 0 => {
                return Err(FrameErrorKind::Message("it answers a query never asked"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
