//! `thanos.SeriesResponse` messages, written straight from what was received.
//!
//! By hand, because the length is wanted before the first byte (gRPC's frame header tells it) and
//! because labels are kept encoded: a message costs one copy of its labels and chunks, into the
//! buffer that goes to the socket, and no allocation.

use bytes::{BufMut, BytesMut};

use super::aggr_chunk::{chunk_len, delimited, put_chunk, put_head};
use super::{LabelSet, Part, Series};

/// Field tags (contract `grpc.md` §2.1, §2.3); all have one byte.
mod tag {
    pub(super) const RESPONSE_SERIES: u8 = 0x0A;
    pub(super) const RESPONSE_WARNING: u8 = 0x12;
    pub(super) const RESPONSE_BATCH: u8 = 0x22;
    pub(super) const BATCH_SERIES: u8 = 0x0A;
}

/// One message to be written.
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// One series.
    Series(&'a Measured),
    /// Several.
    Batch(&'a [Measured]),
    /// A text for whoever runs the query.
    Warning(&'a str),
}

/// A series, and how long it is with the labels that are added. Finding out takes a look at each
/// chunk, and the length is wanted several times.
#[derive(Debug)]
pub(super) struct Measured {
    series: Series,
    len: usize,
}

impl Measured {
    pub(super) fn new(series: Series, added: &LabelSet) -> Self {
        let len = series_len(&series, added);
        Self { series, len }
    }

    /// How many bytes it takes in a message.
    pub(super) fn encoded_len(&self) -> usize {
        delimited(self.len)
    }
}

impl Message<'_> {
    /// Exactly how many bytes [`Message::write`] appends.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Series(series) => series.encoded_len(),
            Self::Batch(batch) => delimited(batch_len(batch)),
            Self::Warning(text) => delimited(text.len()),
        }
    }

    /// Appends the message; every series gets the labels `added`, of whose names it has none.
    pub(super) fn write(&self, added: &LabelSet, out: &mut BytesMut) {
        out.reserve(self.len());
        match self {
            Self::Series(series) => write_series(tag::RESPONSE_SERIES, series, added, out),
            Self::Batch(batch) => {
                put_head(tag::RESPONSE_BATCH, batch_len(batch), out);
                for series in *batch {
                    write_series(tag::BATCH_SERIES, series, added, out);
                }
            }
            Self::Warning(text) => {
                put_head(tag::RESPONSE_WARNING, text.len(), out);
                out.put_slice(text.as_bytes());
            }
        }
    }
}

fn batch_len(batch: &[Measured]) -> usize {
    batch.iter().map(Measured::encoded_len).sum()
}

fn series_len(series: &Series, added: &LabelSet) -> usize {
    let labels = series.labels.wire().len() + added.wire().len();
    labels + series.chunks.iter().map(part_len).sum::<usize>()
}

fn part_len(part: &Part) -> usize {
    match part {
        Part::Chunk(chunk) => chunk_len(chunk),
        Part::Run(run) => run.wire().len(),
    }
}

fn write_series(tag: u8, measured: &Measured, added: &LabelSet, out: &mut BytesMut) {
    let Measured { series, len } = measured;
    put_head(tag, *len, out);
    write_labels(&series.labels, added, out);
    for part in &series.chunks {
        match part {
            Part::Chunk(chunk) => put_chunk(chunk, out),
            Part::Run(run) => out.put_slice(run.wire()),
        }
    }
}

/// The labels in order: runs of the series' own between those that are added.
fn write_labels(own: &LabelSet, added: &LabelSet, out: &mut BytesMut) {
    let mut written = 0;
    for (at, (name, _)) in added.iter().enumerate() {
        let until = own.position_after(name);
        out.put_slice(own.wire_of(written, until));
        out.put_slice(added.wire_of(at, at + 1));
        written = until;
    }
    out.put_slice(own.wire_of(written, own.len()));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;
    use xxhash_rust::xxh64::xxh64;

    use super::*;
    use crate::proto::thanos::{self, series_response};
    use crate::store::{Chunk, ChunkEncoding};

    type Labels = std::collections::BTreeMap<String, String>;

    fn set(labels: &Labels) -> LabelSet {
        let mut set = LabelSet::default();
        for (name, value) in labels {
            set.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        set
    }

    fn chunk() -> impl Strategy<Value = Chunk> {
        let encodings = [
            ChunkEncoding::Xor,
            ChunkEncoding::Histogram,
            ChunkEncoding::FloatHistogram,
        ];
        let times = prop_oneof![Just(0), Just(-1), any::<i64>(), 0..2_000_000_000_000i64];
        (
            times.clone(),
            times,
            prop::sample::select(encodings.to_vec()),
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(min, max, encoding, data)| Chunk::new(min, max, encoding, data.into()))
    }

    prop_compose! {
        fn series()(
            labels in prop::collection::btree_map("[a-z]{1,3}", "\\PC{1,40}", 0..6),
            chunks in prop::collection::vec(chunk(), 0..4),
        ) -> (Labels, Vec<Chunk>) {
            (labels, chunks)
        }
    }

    fn expected(labels: &Labels, added: &Labels, chunks: &[Chunk]) -> thanos::Series {
        let mut all = labels.clone();
        all.extend(added.clone());
        let label = |(name, value): (String, String)| thanos::Label { name, value };
        let chunk = |chunk: &Chunk| thanos::AggrChunk {
            min_time: chunk.min_ms,
            max_time: chunk.max_ms,
            raw: Some(thanos::Chunk {
                r#type: chunk.encoding() as i32,
                data: chunk.data().clone(),
                hash: xxh64(chunk.data(), 0),
            }),
            ..thanos::AggrChunk::default()
        };
        thanos::Series {
            labels: all.into_iter().map(label).collect(),
            chunks: chunks.iter().map(chunk).collect(),
        }
    }

    fn written(message: &Message<'_>, added: &LabelSet) -> Bytes {
        let mut out = BytesMut::from(&b"before"[..]);
        message.write(added, &mut out);
        assert_eq!(out.len(), 6 + message.len());
        out.split_off(6).freeze()
    }

    fn response(result: series_response::Result) -> Vec<u8> {
        let result = Some(result);
        thanos::SeriesResponse { result }.encode_to_vec()
    }

    proptest! {
        /// Byte for byte what prost writes.
        #[test]
        fn as_prost(
            all in prop::collection::vec(series(), 0..5),
            added in prop::collection::btree_map("[A-Z]|[a-z]{4}|~", "\\PC{1,9}", 0..4),
        ) {
            let added_set = set(&added);
            let own: Vec<Measured> = all
                .iter()
                .map(|(labels, chunks)| Series {
                    labels: set(labels),
                    chunks: chunks.iter().cloned().map(Part::Chunk).collect(),
                })
                .map(|series| Measured::new(series, &added_set))
                .collect();
            let theirs: Vec<thanos::Series> =
                all.iter().map(|(labels, chunks)| expected(labels, &added, chunks)).collect();
            for (own, theirs) in own.iter().zip(&theirs) {
                let message = Message::Series(own);
                let expected = response(series_response::Result::Series(theirs.clone()));
                prop_assert_eq!(&written(&message, &added_set)[..], &expected[..]);
                prop_assert_eq!(own.encoded_len(), expected.len());
            }
            let batch = thanos::SeriesBatch { series: theirs };
            let expected = response(series_response::Result::Batch(batch));
            prop_assert_eq!(&written(&Message::Batch(&own), &added_set)[..], &expected[..]);
        }
    }

    #[test]
    fn warnings() {
        let text = "results truncated";
        let expected = response(series_response::Result::Warning(text.to_owned()));
        let message = Message::Warning(text);
        assert_eq!(written(&message, &LabelSet::default())[..], expected[..]);
    }
}
