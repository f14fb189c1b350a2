//! `outrigger block ls`: the blocks of a data directory.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use super::Found;
use super::files::{BlockDir, Named, named};
use super::table::{Table, duration, size, time};
use crate::app::cli::OutputFormat;
use crate::model::ErrorChain;
use crate::tsdb::BlockMeta;

/// A block of the list.
struct Row {
    meta: BlockMeta,
    size_bytes: u64,
    has_tombstones: bool,
}

pub(super) fn run(directory: &Path, format: OutputFormat) -> anyhow::Result<Found> {
    let blocks = match named(directory)? {
        Named::Directory(blocks) => blocks,
        Named::Block(block) => vec![block],
    };
    let mut rows = Vec::new();
    let mut unreadable = Vec::new();
    for block in blocks {
        match Row::read(&block) {
            Ok(row) => rows.push(row),
            Err(_) if block.is_gone() => {
                tracing::info!(block = block.name(), "the block was deleted meanwhile");
            }
            Err(error) => unreadable.push((block, ErrorChain(&*error).to_string())),
        }
    }
    rows.sort_by_key(|row| (row.meta.min_time, row.meta.max_time, row.meta.ulid));
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        OutputFormat::Json => {
            for row in &rows {
                writeln!(out, "{}", row.json())?;
            }
            for (block, error) in &unreadable {
                writeln!(out, "{}", json!({ "ulid": block.name(), "error": error }))?;
            }
        }
        OutputFormat::Table => {
            let mut table = Table::new(HEAD);
            rows.iter().for_each(|row| table.push(row.cells()));
            table.print(&mut out, "")?;
            for (block, error) in &unreadable {
                writeln!(out, "{}  unreadable: {error}", block.name())?;
            }
        }
    }
    out.flush()?;
    Ok(match unreadable.is_empty() {
        true => Found::Sound,
        false => Found::Faults,
    })
}

const HEAD: &[(&str, bool)] = &[
    ("ULID", false),
    ("FROM", false),
    ("UNTIL", false),
    ("RANGE", true),
    ("SERIES", true),
    ("SAMPLES", true),
    ("CHUNKS", true),
    ("SIZE", true),
    ("LEVEL", true),
    ("SOURCES", true),
    ("PARENTS", true),
    ("TOMBSTONES", false),
    ("HINTS", false),
    ("LABELS", false),
];

// === impl Row ===

impl Row {
    fn read(block: &BlockDir) -> anyhow::Result<Self> {
        let meta = block.meta()?;
        let sizes = block.sizes_bytes()?;
        // Counted as nothing where it is missing, which no block may be.
        block.dir.stamp_blocking("index")?;
        Ok(Self {
            meta,
            size_bytes: sizes.iter().sum(),
            has_tombstones: !block.tombstones()?.is_empty(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let Self { meta, .. } = self;
        let (from, until) = (meta.min_time.0, meta.max_time.0);
        let labels = meta.thanos.iter().flat_map(|thanos| &thanos.labels);
        let labels: Vec<String> = labels.map(|(n, v)| format!("{n}={v:?}")).collect();
        vec![
            meta.ulid.to_string(),
            time(from),
            time(until),
            duration(from, until),
            meta.stats.num_series.to_string(),
            meta.stats.num_samples.to_string(),
            meta.stats.num_chunks.to_string(),
            size(self.size_bytes),
            meta.compaction.level.to_string(),
            meta.compaction.sources.len().to_string(),
            meta.compaction.parents.len().to_string(),
            if self.has_tombstones { "yes" } else { "no" }.to_owned(),
            meta.compaction.hints.join(","),
            labels.join(","),
        ]
    }

    fn json(&self) -> Value {
        let Self { meta, .. } = self;
        let compaction = &meta.compaction;
        let parents: Vec<String> = compaction
            .parents
            .iter()
            .map(|parent| parent.ulid.to_string())
            .collect();
        let sources: Vec<String> = compaction.sources.iter().map(ToString::to_string).collect();
        json!({
            "ulid": meta.ulid.to_string(),
            "min_time_ms": meta.min_time,
            "max_time_ms": meta.max_time,
            "series": meta.stats.num_series,
            "samples": meta.stats.num_samples,
            "chunks": meta.stats.num_chunks,
            "size_bytes": self.size_bytes,
            "level": compaction.level,
            "sources": sources,
            "parents": parents,
            "deletable": compaction.deletable,
            "failed": compaction.failed,
            "hints": compaction.hints,
            "has_tombstones": self.has_tombstones,
            "labels": meta.thanos.as_ref().map(|thanos| &thanos.labels),
        })
    }
}
