//! The `thanos` section of `meta.json`: what makes a block one of the bucket's.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::json::{ObjectWriter, Value, push_string};
use super::{MetaError, RawJson, UnknownKeys, elements};

/// The `thanos` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThanosMeta {
    /// 0 (not written) or 1; sidecars write 0, other components 1.
    pub version: i64,
    /// The external labels of the block's Prometheus.
    pub labels: BTreeMap<String, String>,
    /// Resolution of the samples.
    pub downsample: Downsample,
    /// The component that wrote the block: `sidecar`, `compactor`, `receive` …
    pub source: String,
    /// Names of the files in `chunks/`, sorted.
    pub segment_files: Vec<String>,
    /// The files of the block, sorted by path.
    pub files: Vec<ThanosFile>,
    /// Rewrites of the block, kept as they are. Never written by a sidecar.
    pub rewrites: Option<RawJson>,
    /// Sizes the compactor plans with.
    pub index_stats: IndexStats,
    /// Free for its users, kept as it is. Never written by a sidecar.
    pub extensions: Option<RawJson>,
    /// When the upload of the block was complete; `None` stands as Go's zero time.
    pub upload_time: Option<Timestamp>,
    /// Other keys of the section.
    pub unknown: UnknownKeys,
}

/// `thanos.downsample`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downsample {
    /// Milliseconds between samples; 0 for raw data.
    pub resolution: i64,
    /// Other keys of the object.
    pub unknown: UnknownKeys,
}

/// One element of `thanos.files`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThanosFile {
    /// Path inside the block: `chunks/000001`, `index`, `meta.json`.
    pub rel_path: String,
    /// Size in bytes; 0 (not written) for `meta.json`.
    pub size_bytes: u64,
    /// Digest of the content, where the uploader was asked for one.
    pub hash: Option<FileHash>,
    /// Other keys of the element.
    pub unknown: UnknownKeys,
}

/// The digest of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHash {
    /// Name of the function: `SHA256`.
    pub func: String,
    /// The digest in hexadecimal.
    pub value: String,
    /// Other keys of the object.
    pub unknown: UnknownKeys,
}

/// `thanos.index_stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Size of the largest series entry, bytes; 0 where unknown.
    pub series_max_size: u64,
    /// Size of the largest chunk, bytes; 0 where unknown.
    pub chunk_max_size: u64,
    /// Other keys of the object.
    pub unknown: UnknownKeys,
}

/// How Go prints a time that was never set.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl ThanosMeta {
    pub(super) fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        let version = fields.optional("version")?;
        if !matches!(version, 0 | 1) {
            return Err(MetaError::ThanosVersion { version });
        }
        let files = elements(&mut fields, "files")?;
        let downsample = fields.take("downsample").map(|v| Downsample::read(&v));
        let index_stats = fields.take("index_stats").map(|v| IndexStats::read(&v));
        let upload_time = fields.take("upload_time").map(|v| read_time(&v));
        let rewrites = fields.take("rewrites").map(|v| v.raw()).transpose()?;
        Ok(Self {
            version,
            labels: fields.optional("labels")?,
            downsample: downsample.transpose()?.unwrap_or_default(),
            source: fields.optional("source")?,
            segment_files: fields.optional("segment_files")?,
            files: files
                .iter()
                .map(ThanosFile::read)
                .collect::<Result<_, _>>()?,
            rewrites: rewrites.filter(|list| list.text() != "[]"),
            index_stats: index_stats.transpose()?.unwrap_or_default(),
            extensions: fields.take("extensions").map(|v| v.raw()).transpose()?,
            upload_time: upload_time.transpose()?.flatten(),
            unknown: fields.unknown()?,
        })
    }

    pub(super) fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        if self.version != 0 {
            object.display("version", self.version);
        }
        let mut labels = ObjectWriter::begin(object.key("labels"));
        for (name, value) in &self.labels {
            labels.string(name, value);
        }
        labels.end(&UnknownKeys::default());
        self.downsample.write(object.key("downsample"));
        object.string("source", &self.source);
        object.nonempty_list("segment_files", &self.segment_files, |out, name| {
            push_string(out, name);
        });
        object.nonempty_list("files", &self.files, |out, file| file.write(out));
        if let Some(rewrites) = &self.rewrites {
            object.raw("rewrites", rewrites);
        }
        self.index_stats.write(object.key("index_stats"));
        if let Some(extensions) = &self.extensions {
            object.raw("extensions", extensions);
        }
        match self.upload_time {
            Some(time) => object.string("upload_time", &time.to_string()),
            None => object.string("upload_time", ZERO_TIME),
        }
        object.end(&self.unknown);
    }
}

impl Downsample {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        Ok(Self {
            resolution: fields.optional("resolution")?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.display("resolution", self.resolution);
        object.end(&self.unknown);
    }
}

impl ThanosFile {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        let hash = fields.take("hash").map(|value| FileHash::read(&value));
        Ok(Self {
            rel_path: fields.optional("rel_path")?,
            size_bytes: fields.optional("size_bytes")?,
            hash: hash.transpose()?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.string("rel_path", &self.rel_path);
        object.nonzero("size_bytes", self.size_bytes);
        if let Some(hash) = &self.hash {
            hash.write(object.key("hash"));
        }
        object.end(&self.unknown);
    }
}

impl FileHash {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        Ok(Self {
            func: fields.optional("hashFunc")?,
            value: fields.optional("value")?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.string("hashFunc", &self.func);
        object.string("value", &self.value);
        object.end(&self.unknown);
    }
}

impl IndexStats {
    fn read(value: &Value<'_>) -> Result<Self, MetaError> {
        let mut fields = value.fields()?;
        Ok(Self {
            series_max_size: fields.optional("series_max_size")?,
            chunk_max_size: fields.optional("chunk_max_size")?,
            unknown: fields.unknown()?,
        })
    }

    fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::begin(out);
        object.nonzero("series_max_size", self.series_max_size);
        object.nonzero("chunk_max_size", self.chunk_max_size);
        object.end(&self.unknown);
    }
}

/// Reads an RFC 3339 time; `None` for Go's zero time.
fn read_time(value: &Value<'_>) -> Result<Option<Timestamp>, MetaError> {
    let text: String = value.read()?;
    if text == ZERO_TIME {
        return Ok(None);
    }
    let time: Timestamp = text
        .parse()
        .map_err(|_| value.invalid(format!("`{text}` is not an RFC 3339 time")))?;
    if time.to_string().starts_with('-') {
        return Err(value.invalid(format!("`{text}` is before the year 0")));
    }
    Ok((time.to_string() != ZERO_TIME).then_some(time))
}
