//! Where series come from: the seam between what answers a call and what it reads.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

use super::aggr_chunk::{ChunkHead, ChunkRun};
use super::{LabelSet, StoreError};
use crate::tsdb::{DecodeError, Encoding, transcode};

/// Chunk encodings that StoreAPI has a name for (contract `grpc.md` §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkEncoding {
    /// Floats.
    Xor,
    /// Native histograms with whole counts.
    Histogram,
    /// Native histograms with float counts.
    FloatHistogram,
}

/// Encoded samples of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Time of the first sample, in milliseconds since the epoch.
    pub min_ms: i64,
    /// Time of the last.
    pub max_ms: i64,
    encoding: ChunkEncoding,
    data: Bytes,
    /// xxHash64 (seed 0) of `data`: queriers drop chunks of equal hash (contract `grpc.md` §3.3).
    hash: u64,
}

/// A series, or one of the consecutive pieces of a long one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// Without external labels.
    pub labels: LabelSet,
    /// In the order of time.
    pub chunks: Vec<Part>,
}

/// One chunk, or several that are encoded already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it was received.
    Chunk(Chunk),
    /// Of a local block.
    Run(ChunkRun),
}

/// A stream of series, sorted by the labels that they have here unless the source says otherwise.
/// Dropping it closes what it reads from.
pub trait SeriesSource: Send {
    /// A series, owned or shared with others.
    type Item: AsRef<Series> + Into<Series> + Send;

    /// The next series, or the next piece of the one before; `None` at the end. May be dropped
    /// and called again without loss.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Item>, StoreError>> + Send;

    /// What Prometheus wanted to be known beside the data; each warning once.
    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

impl AsRef<Self> for Series {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl From<Arc<Self>> for Series {
    /// A copy of labels and of references to chunks, unless nobody else has it.
    fn from(shared: Arc<Self>) -> Self {
        Arc::unwrap_or_clone(shared)
    }
}

impl ChunkEncoding {
    /// In which StoreAPI carries chunks of this encoding as they are; `None` where they have to be
    /// written anew.
    pub(super) fn of(encoding: Encoding) -> Option<Self> {
        match encoding {
            Encoding::Xor => Some(Self::Xor),
            Encoding::Histogram => Some(Self::Histogram),
            Encoding::FloatHistogram => Some(Self::FloatHistogram),
            Encoding::Xor2 | Encoding::HistogramSt | Encoding::FloatHistogramSt => None,
        }
    }

    /// As which chunks of this encoding are stored.
    pub(super) fn stored(self) -> Encoding {
        match self {
            Self::Xor => Encoding::Xor,
            Self::Histogram => Encoding::Histogram,
            Self::FloatHistogram => Encoding::FloatHistogram,
        }
    }
}

impl Chunk {
    /// A chunk as StoreAPI can carry it: what has no name there is written anew.
    ///
    /// # Errors
    /// Where what has to be written anew is broken.
    pub fn carried(
        min_ms: i64,
        max_ms: i64,
        encoding: Encoding,
        data: Bytes,
    ) -> Result<Self, DecodeError> {
        if let Some(known) = ChunkEncoding::of(encoding) {
            return Ok(Self::new(min_ms, max_ms, known, data));
        }
        let (encoding, data) = transcode(encoding, &data)?;
        let known = ChunkEncoding::of(encoding).expect("what a chunk is written anew in");
        Ok(Self::new(min_ms, max_ms, known, data.into()))
    }

    /// A chunk of these samples, with its hash.
    pub fn new(min_ms: i64, max_ms: i64, encoding: ChunkEncoding, data: Bytes) -> Self {
        Self {
            min_ms,
            max_ms,
            encoding,
            hash: xxh64(&data, 0),
            data,
        }
    }

    pub(super) fn head(&self) -> ChunkHead {
        ChunkHead {
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            encoding: self.encoding,
        }
    }

    /// How the samples are encoded.
    pub fn encoding(&self) -> ChunkEncoding {
        self.encoding
    }

    /// The encoded samples.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Of the encoded samples.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl Part {
    /// Time of the first sample, in milliseconds since the epoch.
    pub fn min_ms(&self) -> i64 {
        match self {
            Self::Chunk(chunk) => chunk.min_ms,
            Self::Run(run) => run.min_ms,
        }
    }

    /// Time of the last sample.
    pub fn max_ms(&self) -> i64 {
        match self {
            Self::Chunk(chunk) => chunk.max_ms,
            Self::Run(run) => run.max_ms,
        }
    }

    /// How many chunks it is.
    pub fn count(&self) -> usize {
        match self {
            Self::Chunk(_) => 1,
            Self::Run(run) => run.count(),
        }
    }

    /// How many bytes it keeps.
    pub(super) fn data_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// The bytes that it keeps: of a chunk's samples, or of a run's whole encoding.
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Chunk(chunk) => &chunk.data,
            Self::Run(run) => run.wire(),
        }
    }

    fn set_bytes(&mut self, same: Bytes) {
        match self {
            Self::Chunk(chunk) => chunk.data = same,
            Self::Run(run) => run.set_wire(same),
        }
    }
}

impl From<Chunk> for Part {
    fn from(chunk: Chunk) -> Self {
        Self::Chunk(chunk)
    }
}

impl Series {
    /// The chunks, each for itself.
    pub fn single_chunks(&self) -> impl Iterator<Item = Chunk> {
        self.chunks.iter().flat_map(|part| match part {
            Part::Chunk(chunk) => vec![chunk.clone()],
            Part::Run(run) => run.chunks(),
        })
    }

    /// Bytes of encoded samples.
    pub fn data_bytes(&self) -> usize {
        self.chunks.iter().map(Part::data_bytes).sum()
    }

    /// Bytes that the series keeps in memory, if its chunks share their buffers with no other.
    pub fn memory_bytes(&self) -> usize {
        let chunks = self.chunks.capacity() * size_of::<Part>();
        size_of::<Self>() + self.labels.memory_bytes() + chunks + self.data_bytes()
    }

    /// Moves the chunks into a buffer of their own. They are views of what was received, and a
    /// small one that is kept for long would keep all that came with it.
    pub(super) fn detach(&mut self) {
        let mut own = Vec::with_capacity(self.data_bytes());
        for part in &self.chunks {
            own.extend_from_slice(part.bytes());
        }
        let own = Bytes::from(own);
        let mut start = 0;
        for part in &mut self.chunks {
            let end = start + part.bytes().len();
            part.set_bytes(own.slice(start..end));
            start = end;
        }
        self.chunks.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detached_chunks_are_the_same_and_stand_elsewhere() {
        let received = Bytes::from_static(b"..onetwo..");
        let chunk = |data| Part::Chunk(Chunk::new(1, 2, ChunkEncoding::Xor, data));
        let mut series = Series {
            chunks: vec![chunk(received.slice(2..5)), chunk(received.slice(5..8))],
            ..Series::default()
        };
        let before = series.clone();
        series.detach();
        assert_eq!(series, before);
        assert_ne!(
            series.chunks[0].bytes().as_ptr(),
            before.chunks[0].bytes().as_ptr()
        );
        assert_eq!(series.data_bytes(), 6);
        let first = series.single_chunks().next().unwrap();
        assert_eq!(first.hash(), xxh64(b"one", 0));
    }
}
