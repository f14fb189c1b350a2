//! Where series come from: the seam between what answers a call and what it reads.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

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
    pub chunks: Vec<Chunk>,
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
    /// In which StoreAPI carries chunks of this encoding.
    fn carrying(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Xor | Encoding::Xor2 => Self::Xor,
            Encoding::Histogram | Encoding::HistogramSt => Self::Histogram,
            Encoding::FloatHistogram | Encoding::FloatHistogramSt => Self::FloatHistogram,
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
        let data = match encoding {
            Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram => data,
            unknown => transcode(unknown, &data)?.1.into(),
        };
        Ok(Self::new(
            min_ms,
            max_ms,
            ChunkEncoding::carrying(encoding),
            data,
        ))
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

impl Series {
    /// Bytes of encoded samples.
    pub fn data_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data.len()).sum()
    }

    /// Bytes that the series keeps in memory, if its chunks share their buffers with no other.
    pub fn memory_bytes(&self) -> usize {
        let chunks = self.chunks.capacity() * size_of::<Chunk>();
        size_of::<Self>() + self.labels.memory_bytes() + chunks + self.data_bytes()
    }

    /// Moves the chunks into a buffer of their own. They are views of what was received, and a
    /// small one that is kept for long would keep all that came with it.
    pub(super) fn detach(&mut self) {
        let mut own = Vec::with_capacity(self.data_bytes());
        for chunk in &self.chunks {
            own.extend_from_slice(&chunk.data);
        }
        let own = Bytes::from(own);
        let mut start = 0;
        for chunk in &mut self.chunks {
            let end = start + chunk.data.len();
            chunk.data = own.slice(start..end);
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
        let chunk = |data| Chunk::new(1, 2, ChunkEncoding::Xor, data);
        let mut series = Series {
            chunks: vec![chunk(received.slice(2..5)), chunk(received.slice(5..8))],
            ..Series::default()
        };
        let before = series.clone();
        series.detach();
        assert_eq!(series, before);
        assert_ne!(
            series.chunks[0].data.as_ptr(),
            before.chunks[0].data.as_ptr()
        );
        assert_eq!(series.data_bytes(), 6);
        assert_eq!(series.chunks[0].hash(), xxh64(b"one", 0));
    }
}
