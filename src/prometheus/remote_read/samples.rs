//! The answer in samples, which a Prometheus before 2.13, or something in its place, gives: one
//! message, compressed whole, so that nothing can be yielded before all of it is here.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::frame::FrameErrorKind;
use super::series::{RemoteSeries, label};
use super::wire::Fields;
use crate::net::http::BodyLimit;

/// What an answer may be decompressed, which is checked before anything is allocated for it: some
/// four million samples. It is held beside the answer as it came, by one call at a time.
pub const SAMPLES_BYTES_MAX: usize = 64 << 20;
/// How long a call waits for the one whose answer is held; without an end, one that is left behind
/// by those it shares a read with would wait for itself.
pub(super) const SAMPLES_WAIT_MAX: Duration = Duration::from_secs(60);
/// How many series it may have: what is held of each is 16 bytes.
pub const SAMPLES_SERIES_MAX: usize = 1 << 22;
/// What an answer may be as it comes.
pub(super) const SAMPLES_BODY_MAX: BodyLimit = BodyLimit {
    name: "SAMPLES_BYTES_MAX",
    bytes: SAMPLES_BYTES_MAX,
};

/// An answer in samples is unusable.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// It would not fit.
    #[error(
        "the answer in samples has {bytes} bytes, the limit is {SAMPLES_BYTES_MAX}; use a \
         Prometheus with streamed remote read (2.13 or later)"
    )]
    TooLarge {
        /// Decompressed.
        bytes: usize,
    },
    /// More series than are held.
    #[error(
        "the answer in samples has more than {SAMPLES_SERIES_MAX} series; use a Prometheus with \
         streamed remote read (2.13 or later)"
    )]
    TooManySeries,
    /// Only one is held at a time.
    #[error(
        "answers in samples are held one at a time, and there was one for {SAMPLES_WAIT_MAX:?}; \
         use a Prometheus with streamed remote read (2.13 or later)"
    )]
    Busy,
    /// The compression is broken.
    #[error("the answer in samples can't be decompressed")]
    Snappy {
        /// Why.
        source: snap::Error,
    },
    /// One query was asked.
    #[error("unexpected result size {results}")]
    Results {
        /// How many answers came.
        results: usize,
    },
    /// Not the message expected.
    #[error("the answer in samples is malformed: {kind}")]
    Message {
        /// Why.
        kind: FrameErrorKind,
    },
}

/// The series of an answer, by labels in order: Prometheus sorts only what it streams.
#[derive(Debug)]
pub(super) struct Sampled {
    message: Bytes,
    /// The rest of the series, each a `TimeSeries` in `message`.
    series: std::vec::IntoIter<Range<usize>>,
}

impl Sampled {
    /// Decompresses and sorts; takes as long as that takes.
    pub(super) fn read(body: &[u8]) -> Result<Self, SamplesError> {
        let snappy = |source| SamplesError::Snappy { source };
        let bytes = snap::raw::decompress_len(body).map_err(snappy)?;
        if bytes > SAMPLES_BYTES_MAX {
            return Err(SamplesError::TooLarge { bytes });
        }
        let message = snap::raw::Decoder::new()
            .decompress_vec(body)
            .map_err(snappy)?;
        let mut series = Vec::new();
        for range in series_of(&message)? {
            let range = range.map_err(|kind| SamplesError::Message { kind })?;
            if series.len() >= SAMPLES_SERIES_MAX {
                return Err(SamplesError::TooManySeries);
            }
            series.push(range);
        }
        series.sort_by(|a, b| labels(&message, a).cmp(labels(&message, b)));
        Ok(Self {
            message: Bytes::from(message),
            series: series.into_iter(),
        })
    }

    /// The next series; false at the end.
    pub(super) fn next_into(&mut self, series: &mut RemoteSeries) -> Result<bool, SamplesError> {
        let Some(range) = self.series.next() else {
            series.clear();
            return Ok(false);
        };
        let message = self.message.get(range).unwrap_or_default();
        let read = series.read_sampled(message);
        read.map_err(|kind| SamplesError::Message { kind })?;
        Ok(true)
    }
}

/// Where the series of the one result stand in the message.
fn series_of(
    message: &[u8],
) -> Result<impl Iterator<Item = Result<Range<usize>, FrameErrorKind>>, SamplesError> {
    let malformed = |kind| SamplesError::Message { kind };
    let (mut result, mut results) = ([].as_slice(), 0_usize);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next().map_err(malformed)? {
        if number == 1 {
            result = value.bytes().map_err(malformed)?;
            results = results.saturating_add(1);
        }
    }
    if results != 1 {
        return Err(SamplesError::Results { results });
    }
    let mut fields = Fields::new(result);
    Ok(std::iter::from_fn(move || {
        loop {
            return match fields.next() {
                Ok(None) => None,
                Ok(Some((1, value))) => Some(value.bytes().map(|series| place(message, series))),
                Ok(Some(_)) => continue,
                Err(kind) => Some(Err(kind)),
            };
        }
    }))
}

/// The place of a part of `whole`.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start.saturating_add(part.len())
}

/// The labels of a series as bytes, as far as they can be read: an error comes when it is yielded.
fn labels<'a>(
    message: &'a [u8],
    range: &Range<usize>,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let mut fields = Fields::new(message.get(range.clone()).unwrap_or_default());
    std::iter::from_fn(move || {
        loop {
            match fields.next().ok()?? {
                (1, value) => {
                    let (name, value) = label(value.bytes().ok()?).ok()?;
                    return Some((name.as_bytes(), value.as_bytes()));
                }
                _ => continue,
            }
        }
    })
}
