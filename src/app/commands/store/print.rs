//! What a StoreAPI server answered, on stdout: tables for people, JSON lines for programs.

use std::io::{self, BufWriter, Stdout, Write as _};

use serde_json::{Map, Value, json};

use crate::app::cli::StoreOutput;
use crate::model::Labels;
use crate::proto::thanos::chunk::Encoding;
use crate::proto::thanos::info::InfoResponse;
use crate::proto::thanos::series_response::Result as Message;
use crate::proto::thanos::{AggrChunk, Chunk, Label, Series, SeriesResponse, ZLabelSet};

/// Writes answers.
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    output: StoreOutput,
    skip_chunks: bool,
    limit: u64,
    totals: Totals,
}

/// Sums over series.
#[derive(Default)]
struct Totals {
    series: u64,
    chunks: u64,
    samples: u64,
    bytes: u64,
}

/// What the chunks of a series hold.
#[derive(Default)]
struct Held {
    chunks: u64,
    samples: u64,
    bytes: u64,
    min_time: Option<i64>,
    max_time: Option<i64>,
}

impl Printer {
    pub(super) fn new(output: StoreOutput) -> Self {
        Self {
            out: BufWriter::new(io::stdout()),
            output,
            skip_chunks: false,
            limit: 0,
            totals: Totals::default(),
        }
    }

    /// Prints what a server says of itself.
    pub(super) fn info(mut self, info: &InfoResponse) -> anyhow::Result<()> {
        let apis = apis(info);
        let sets: Vec<Value> = info.label_sets.iter().map(set_json).collect();
        let store = info.store.as_ref();
        match self.output {
            StoreOutput::Json => {
                let times = store.map(|store| {
                    json!({
                        "min_time_ms": store.min_time,
                        "max_time_ms": store.max_time,
                        "supports_sharding": store.supports_sharding,
                        "supports_without_replica_labels": store.supports_without_replica_labels,
                    })
                });
                let line = json!({
                    "component": info.component_type,
                    "label_sets": sets,
                    "store": times,
                    "apis": apis,
                });
                writeln!(self.out, "{line}")?;
            }
            StoreOutput::Table => {
                writeln!(self.out, "component   {}", info.component_type)?;
                for set in &info.label_sets {
                    writeln!(self.out, "labels      {}", shown(&set.labels))?;
                }
                if let Some(store) = store {
                    writeln!(self.out, "min time    {}", time(store.min_time))?;
                    writeln!(self.out, "max time    {}", time(store.max_time))?;
                }
                writeln!(self.out, "APIs        {}", apis.join(", "))?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Prints names or values, one a line.
    pub(super) fn list(mut self, values: &[String], warnings: &[String]) -> anyhow::Result<()> {
        for value in values {
            match self.output {
                StoreOutput::Json => writeln!(self.out, "{}", json!({ "value": value }))?,
                StoreOutput::Table => writeln!(self.out, "{value}")?,
            }
        }
        warnings.iter().for_each(|warning| warn(warning));
        Ok(self.out.flush()?)
    }

    /// Prints the head; `limit` is the most series to print, 0 for all.
    pub(super) fn begin_series(&mut self, skip_chunks: bool, limit: u64) -> anyhow::Result<()> {
        self.skip_chunks = skip_chunks;
        self.limit = limit;
        if self.output == StoreOutput::Table && !skip_chunks {
            let heads = ["CHUNKS", "SAMPLES", "BYTES"];
            let [chunks, samples, bytes] = heads;
            writeln!(
                self.out,
                "{chunks:>7} {samples:>9} {bytes:>10}  {:<24}  {:<24}  SERIES",
                "FROM", "TO"
            )?;
        }
        Ok(())
    }

    /// Prints the series of a message; warnings go to the log.
    pub(super) fn series(&mut self, response: SeriesResponse) -> anyhow::Result<()> {
        match response.result {
            Some(Message::Series(series)) => self.one(&series)?,
            Some(Message::Batch(batch)) => {
                for series in &batch.series {
                    // A batch may reach beyond the limit.
                    if self.is_full() {
                        break;
                    }
                    self.one(series)?;
                }
            }
            Some(Message::Warning(warning)) => warn(&warning),
            Some(Message::Hints(_)) | None => {}
        }
        Ok(())
    }

    /// Whether as many series were printed as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.limit > 0 && self.totals.series >= self.limit
    }

    pub(super) fn end_series(mut self) -> anyhow::Result<()> {
        if self.output == StoreOutput::Table {
            let Totals {
                series,
                chunks,
                samples,
                bytes,
            } = self.totals;
            match self.skip_chunks {
                true => writeln!(self.out, "{series} series")?,
                false => writeln!(
                    self.out,
                    "{series} series, {chunks} chunks, {samples} samples, {bytes} bytes"
                )?,
            }
        }
        Ok(self.out.flush()?)
    }

    fn one(&mut self, series: &Series) -> anyhow::Result<()> {
        let held = Held::of(&series.chunks);
        self.totals.series += 1;
        self.totals.chunks += held.chunks;
        self.totals.samples += held.samples;
        self.totals.bytes += held.bytes;
        let labels = &series.labels;
        match self.output {
            StoreOutput::Json => {
                let mut line = Map::new();
                line.insert("labels".to_owned(), labels_json(labels));
                if !self.skip_chunks {
                    let chunks = series.chunks.iter().map(chunk_json).collect();
                    line.insert("chunks".to_owned(), Value::Array(chunks));
                }
                writeln!(self.out, "{}", Value::Object(line))?;
            }
            StoreOutput::Table if self.skip_chunks => writeln!(self.out, "{}", shown(labels))?,
            StoreOutput::Table => writeln!(
                self.out,
                "{:>7} {:>9} {:>10}  {:<24}  {:<24}  {}",
                held.chunks,
                held.samples,
                held.bytes,
                held.min_time.map(time).unwrap_or_default(),
                held.max_time.map(time).unwrap_or_default(),
                shown(labels)
            )?,
        }
        Ok(())
    }
}

impl Held {
    fn of(chunks: &[AggrChunk]) -> Self {
        let mut held = Self::default();
        for chunk in chunks {
            held.chunks += 1;
            held.min_time = held
                .min_time
                .min(Some(chunk.min_time))
                .or(Some(chunk.min_time));
            held.max_time = held.max_time.max(Some(chunk.max_time));
            for raw in kinds(chunk).filter_map(|(_, chunk)| chunk) {
                held.samples += samples(raw);
                held.bytes += raw.data.len() as u64;
            }
        }
        held
    }
}

/// Raw data, and the aggregates of downsampled blocks.
fn kinds(chunk: &AggrChunk) -> impl Iterator<Item = (&'static str, Option<&Chunk>)> {
    [
        ("raw", chunk.raw.as_ref()),
        ("count", chunk.count.as_ref()),
        ("sum", chunk.sum.as_ref()),
        ("min", chunk.min.as_ref()),
        ("max", chunk.max.as_ref()),
        ("counter", chunk.counter.as_ref()),
    ]
    .into_iter()
}

/// Every encoding begins with the number of samples.
fn samples(chunk: &Chunk) -> u64 {
    let count = chunk
        .data
        .first_chunk()
        .map(|count| u16::from_be_bytes(*count));
    u64::from(count.unwrap_or_default())
}

fn apis(info: &InfoResponse) -> Vec<&'static str> {
    [
        ("store", info.store.is_some()),
        ("rules", info.rules.is_some()),
        ("targets", info.targets.is_some()),
        ("metadata", info.metric_metadata.is_some()),
        ("exemplars", info.exemplars.is_some()),
        ("query", info.query.is_some()),
        ("status", info.status.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| is_there.then_some(name))
    .collect()
}

fn shown(labels: &[Label]) -> String {
    let pairs = labels.iter().map(|l| (l.name.clone(), l.value.clone()));
    Labels::from_iter(pairs).to_string()
}

fn labels_json(labels: &[Label]) -> Value {
    let pairs = labels.iter();
    Value::Object(
        pairs
            .map(|label| (label.name.clone(), Value::from(label.value.clone())))
            .collect(),
    )
}

fn set_json(set: &ZLabelSet) -> Value {
    labels_json(&set.labels)
}

fn chunk_json(chunk: &AggrChunk) -> Value {
    let mut object = Map::new();
    object.insert("min_time_ms".to_owned(), chunk.min_time.into());
    object.insert("max_time_ms".to_owned(), chunk.max_time.into());
    for (kind, chunk) in kinds(chunk) {
        let Some(chunk) = chunk else { continue };
        let encoding = Encoding::try_from(chunk.r#type);
        let encoding = encoding.map_or("unknown", |encoding| encoding.as_str_name());
        let value = json!({
            "encoding": encoding,
            "samples": samples(chunk),
            "bytes": chunk.data.len(),
        });
        object.insert(kind.to_owned(), value);
    }
    Value::Object(object)
}

/// An instant for people; one that no calendar has is no bound.
fn time(time_ms: i64) -> String {
    if matches!(time_ms, i64::MIN | i64::MAX) {
        return "none".to_owned();
    }
    let at = jiff::Timestamp::from_millisecond(time_ms);
    at.map_or_else(|_| time_ms.to_string(), |at| at.to_string())
}

fn warn(warning: &str) {
    tracing::warn!(warning, "the server warns");
}
