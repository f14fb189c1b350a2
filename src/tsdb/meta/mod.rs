//! `meta.json`: what a block is, as Prometheus writes it, and with the section that makes it a
//! block of the bucket.
//!
//! Both directions follow `contract/shipper.md` §6: [`BlockMeta::to_json`] gives, for the keys
//! known here, the bytes that Go's `encoding/json` gives. Unknown keys, which the reference drops,
//! are kept after the known ones of their object.

mod json;
mod thanos;

pub use json::{RawJson, UnknownKeys};
pub use thanos::{Downsample, FileHash, IndexStats, ThanosFile, ThanosMeta};

use json::{Document, Fields, ObjectWriter, Value, indented, push_string};

use crate::model::{BlockId, TimeRange, TimestampMs};

/// The one version of `meta.json` there is.
pub const META_VERSION: i64 = 1;

/// A block's `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// The block's identity.
    pub ulid: BlockId,
    /// First instant the block covers, ms.
    pub min_time: TimestampMs,
    /// First instant after the block, ms.
    pub max_time: TimestampMs,
    /// What the block holds, as counted by its writer.
    pub stats: BlockStats,
    /// How the block came to be.
    pub compaction: Compaction,
    /// Always [`META_VERSION`] in a parsed meta.
    pub version: i64,
    /// The section that Thanos' components add; absent from a block that Prometheus wrote.
    pub thanos: Option<ThanosMeta>,
    /// Other keys of the document.
    pub unknown: UnknownKeys,
}

/// The counts a block's writer left in `stats`. A missing count is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Samples of all kinds.
    pub num_samples: u64,
    /// Float samples; 0 where the writer did not tell them apart.
    pub num_float_samples: u64,
    /// Histogram samples; 0 where the writer did not tell them apart.
    pub num_histogram_samples: u64,
    /// Series.
    pub num_series: u64,
    /// Chunks.
    pub num_chunks: u64,
    /// Tombstones.
    pub num_tombstones: u64,
    /// Other keys of `stats`.
    pub unknown: UnknownKeys,
}

/// How a block came to be (`compaction`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// 1 for a block cut from the head, more for a merged one.
    pub level: u32,
    /// The level-1 blocks it was made of.
    pub sources: Vec<BlockId>,
    /// Whether nothing is left in it and it may be deleted.
    pub deletable: bool,
    /// The blocks that were merged into it.
    pub parents: Vec<ParentBlock>,
    /// Whether a compaction of it failed.
    pub failed: bool,
    /// `from-out-of-order` and the like.
    pub hints: Vec<String>,
    /// Other keys of `compaction`.
    pub unknown: UnknownKeys,
}

/// A block that was merged into another (`compaction.parents`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentBlock {
    /// Its identity.
    pub ulid: BlockId,
    /// First instant it covers, ms.
    pub min_time: TimestampMs,
    /// First instant after it, ms.
    pub max_time: TimestampMs,
    /// Other keys of the element.
    pub unknown: UnknownKeys,
}

/// A `meta.json` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Not one JSON object.
    #[error("line {line}, column {column}: {reason}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A key whose value cannot be used.
    #[error("key `{key}` (line {line}, column {column}): {reason}")]
    Invalid {
        /// Path of keys from the top, joined by dots.
        key: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A key without which the block has no meaning.
    #[error("key `{key}` is missing")]
    Missing {
        /// Path of keys from the top, joined by dots.
        key: String,
    },
    /// A later version than the one known.
    #[error("unexpected meta file version {version}")]
    Version {
        /// As found.
        version: i64,
    },
    /// A later version of the `thanos` section than those known.
    #[error("unexpected meta file thanos section version {version}")]
    ThanosVersion {
        /// As found.
        version: i64,
    },
}

impl BlockMeta {
    /// Parses a `meta.json`. The caller limits its size.
    ///
    /// # Errors
    /// Names the key, line and column that cannot be used, or the version that is not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetaError> {
        let text = str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to()))?;
        let mut fields = Document::new(text).fields()?;
        let version = fields.require("version")?.read()?;
        if version != META_VERSION {
            return Err(MetaError::Version { version });
        }
        let stats = fields.take("stats");
        let compaction = fields.take("compaction");
        let thanos = fields.take("thanos");
        Ok(Self {
            ulid: fields.require("ulid")?.read()?,
            min_time: fields.require("minTime")?.read()?,
            max_time: fields.require("maxTime")?.read()?,
            stats: stats.map_or_else(|| Ok(BlockStats::default()), |v| BlockStats::read(&v))?,
            compaction: compaction
                .map_or_else(|| Ok(Compaction::default()), |v| Compaction::read(&v))?,
            version,
            thanos: thanos.map(|value| ThanosMeta::read(&value)).transpose()?,
            unknown: fields.unknown()?,
        })
    }

    /// The document as Go prints it: indented by tabs, ended by a newline.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = String::new();
        let mut object = ObjectWriter::begin(&mut text);
        object.string("ulid", &self.ulid.to_string());
        object.display("minTime", self.min_time);
        object.display("maxTime", self.max_time);
        self.stats.write(object.key("stats"));
        self.compaction.write(object.key("compaction"));
        object.display("version", self.version);
        if let Some(thanos) = &self.thanos {
            thanos.write(object.key("thanos"));
        }
        object.end(&self.unknown);
        indented(&text)
    }

    /// The half-open range that the block covers.
    pub fn range(&self) -> TimeRange {
        TimeRange {
            mint: self.min_time,
            maxt: self.max_time,
        }
    }
}

impl BlockStats {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        Ok(Self {
            num_samples: fields.optional("numSamples")?,
            num_float_samples: fields.optional("numFloatSamples")?,
            num_histogram_samples: fields.optional("numHistogramSamples")?,
            num_series: fields.optional("numSeries")?,
            num_chunks: fields.optional("numChunks")?,
            num_tombstones: fields.optional("numTombstones")?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.nonzero("numSamples", self.num_samples);
        object.nonzero("numFloatSamples", self.num_float_samples);
        object.nonzero("numHistogramSamples", self.num_histogram_samples);
        object.nonzero("numSeries", self.num_series);
        object.nonzero("numChunks", self.num_chunks);
        object.nonzero("numTombstones", self.num_tombstones);
        object.end(&self.unknown);
    }
}

impl Compaction {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        let parents = elements(&mut fields, "parents")?;
        Ok(Self {
            level: fields.optional("level")?,
            sources: fields.optional("sources")?,
            deletable: fields.optional("deletable")?,
            parents: parents
                .iter()
                .map(ParentBlock::read)
                .collect::<Result<_, _>>()?,
            failed: fields.optional("failed")?,
            hints: fields.optional("hints")?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.display("level", self.level);
        object.nonempty_list("sources", &self.sources, |out, ulid| {
            push_string(out, &ulid.to_string());
        });
        if self.deletable {
            object.display("deletable", true);
        }
        object.nonempty_list("parents", &self.parents, |out, parent| parent.write(out));
        if self.failed {
            object.display("failed", true);
        }
        object.nonempty_list("hints", &self.hints, |out, hint| push_string(out, hint));
        object.end(&self.unknown);
    }
}

impl ParentBlock {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        Ok(Self {
            ulid: fields.require("ulid")?.read()?,
            min_time: fields.require("minTime")?.read()?,
            max_time: fields.require("maxTime")?.read()?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.string("ulid", &self.ulid.to_string());
        object.display("minTime", self.min_time);
        object.display("maxTime", self.max_time);
        object.end(&self.unknown);
    }
}

/// The elements of the list `key`, none where it is absent.
fn elements<'a>(fields: &mut Fields<'a>, key: &str) -> Result<Vec<Value<'a>>, MetaError> {
    let list = fields.take(key);
    list.map_or_else(|| Ok(Vec::new()), |value| value.elements())
}

fn not_utf8(bytes: &[u8], valid: usize) -> MetaError {
    let lines = bytes
        .get(..valid)
        .unwrap_or_default()
        .split(|&b| b == b'\n');
    let column = lines.clone().next_back().map_or(0, <[u8]>::len);
    MetaError::Syntax {
        line: lines.count(),
        column: column.saturating_add(1),
        reason: "not UTF-8".to_owned(),
    }
}

#[cfg(test)]
mod tests;
