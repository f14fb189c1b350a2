//! `outrigger block inspect`: what one block holds.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Found;
use super::files::{BlockDir, one_block, segment_names};
use super::statistics::Statistics;
use super::table::{Table, duration, size, time};
use crate::app::cli::OutputFormat;
use crate::app::commands::progress::{Goal, watch};
use crate::disk::{BufferPool, DiskEngine, EngineRequest, ReadMode};
use crate::tsdb::{BlockMeta, Encoding, SegmentVerifier};

/// Buffers of 1 MiB: as many as one file is read ahead, and one being walked over.
const BUFFERS: usize = 9;
/// The most rows of each list.
const ROWS_MAX: u64 = 100_000;

/// A block, looked at.
struct Inspected {
    block: BlockDir,
    meta: BlockMeta,
    /// Index, segments, other files.
    sizes_bytes: [u64; 3],
    statistics: Statistics,
    /// Chunks and samples by encoding.
    encodings: BTreeMap<u8, (Encoding, u64, u64)>,
}

pub(super) async fn run(path: &Path, limit: u64, format: OutputFormat) -> anyhow::Result<Found> {
    let block = one_block(path)?;
    let meta = block.meta()?;
    let sizes_bytes = block.sizes_bytes()?;
    let limit = usize::try_from(limit.min(ROWS_MAX)).unwrap_or(usize::MAX);
    let done = Arc::new(AtomicU64::new(0));
    let looking = async {
        let walked = walk_segments(&block, &done).await?;
        let counted = block.clone();
        let counting = move || Statistics::of(&counted.open()?, limit);
        let counted = tokio::task::spawn_blocking(counting).await;
        anyhow::Ok((counted.context("count the series")??, walked))
    };
    let goal = Goal::Bytes(sizes_bytes[0] + sizes_bytes[1]);
    let (statistics, encodings) = watch("reading", goal, &done, looking).await?;
    let inspected = Inspected {
        block,
        meta,
        sizes_bytes,
        statistics,
        encodings,
    };
    let mut out = BufWriter::new(io::stdout());
    match format {
        OutputFormat::Json => writeln!(out, "{}", inspected.json())?,
        OutputFormat::Table => inspected.print(&mut out)?,
    }
    out.flush()?;
    Ok(Found::Sound)
}

/// Counts chunks and samples by encoding.
async fn walk_segments(
    block: &BlockDir,
    done_bytes: &AtomicU64,
) -> anyhow::Result<BTreeMap<u8, (Encoding, u64, u64)>> {
    let engine = DiskEngine::build(EngineRequest::Auto, BufferPool::new(BUFFERS))?;
    let mut encodings = BTreeMap::new();
    let mut found = Vec::new();
    for (position, name) in (0..).zip(segment_names(&block.dir)?) {
        let file = block.dir.open_file(&name).await?;
        let path = || file.path().display().to_string();
        let size_bytes = file.size_bytes();
        let mut verifier = SegmentVerifier::new(position, size_bytes);
        let mut runs = engine.runs(&file, 0..size_bytes, ReadMode::Buffered);
        while let Some(run) = runs.next(u64::MAX).await? {
            found.clear();
            verifier.feed(&run, &mut found).with_context(path)?;
            for chunk in &found {
                let row = encodings.entry(chunk.encoding.id());
                let (_, chunks, samples) = row.or_insert((chunk.encoding, 0, 0));
                *chunks += 1;
                *samples += u64::from(chunk.samples);
            }
            done_bytes.fetch_add(run.len() as u64, Ordering::Relaxed);
        }
        verifier.finish().with_context(path)?;
    }
    Ok(encodings)
}

fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Xor => "xor",
        Encoding::Xor2 => "xor2",
        Encoding::Histogram => "histogram",
        Encoding::HistogramSt => "histogram-st",
        Encoding::FloatHistogram => "float-histogram",
        Encoding::FloatHistogramSt => "float-histogram-st",
    }
}

// === impl Inspected ===

impl Inspected {
    fn samples(&self) -> u64 {
        self.encodings.values().map(|(_, _, samples)| samples).sum()
    }

    /// Of index and chunks.
    fn bytes_per_sample(&self) -> Option<f64> {
        let [index, chunks, _] = self.sizes_bytes;
        let samples = self.samples();
        (samples > 0).then(|| (index + chunks) as f64 / samples as f64)
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let (meta, counts) = (&self.meta, &self.statistics);
        let (from, until) = (meta.min_time.0, meta.max_time.0);
        let compaction = &meta.compaction;
        let mut lines = vec![
            ("block", self.block.path.display().to_string()),
            ("ulid", meta.ulid.to_string()),
            ("from", time(from)),
            (
                "until",
                format!("{} ({})", time(until), duration(from, until)),
            ),
            ("level", compaction.level.to_string()),
            ("sources", compaction.sources.len().to_string()),
            ("parents", compaction.parents.len().to_string()),
        ];
        if !compaction.hints.is_empty() {
            lines.push(("hints", compaction.hints.join(", ")));
        }
        if let Some(thanos) = &meta.thanos {
            let labels = thanos.labels.iter().map(|(n, v)| format!("{n}={v:?}"));
            lines.push(("labels", labels.collect::<Vec<_>>().join(", ")));
            lines.push(("source", thanos.source.clone()));
        }
        let per_sample = self
            .bytes_per_sample()
            .map(|bytes| format!(", {bytes:.2} bytes each"));
        lines.extend([
            ("series", counts.series.to_string()),
            ("chunks", counts.chunks.to_string()),
            (
                "samples",
                format!("{}{}", self.samples(), per_sample.unwrap_or_default()),
            ),
            ("index", size(self.sizes_bytes[0])),
            ("chunk files", size(self.sizes_bytes[1])),
            ("label names", counts.label_names.to_string()),
            ("label pairs", counts.label_pairs.to_string()),
            ("symbols", counts.symbols.to_string()),
            (
                "churn",
                format!(
                    "{} series come or go within the block: {} begin late, {} end early",
                    counts.churning, counts.begin_late, counts.end_early
                ),
            ),
        ]);
        for (name, value) in lines {
            writeln!(out, "{name:<12} {value}")?;
        }
        self.print_tables(out)
    }

    fn print_tables(&self, out: &mut impl Write) -> io::Result<()> {
        let counts = &self.statistics;
        let head = [("ENCODING", false), ("CHUNKS", true), ("SAMPLES", true)];
        let mut encodings = Table::new(&head);
        for (encoding, chunks, samples) in self.encodings.values() {
            let name = encoding_name(*encoding).to_owned();
            encodings.push(vec![name, chunks.to_string(), samples.to_string()]);
        }
        writeln!(out)?;
        encodings.print(out, "")?;
        let mut sections = Table::new(&[("INDEX SECTION", false), ("SIZE", true)]);
        for (section, bytes) in &counts.sections {
            sections.push(vec![section.to_string(), size(*bytes)]);
        }
        writeln!(out)?;
        sections.print(out, "")?;
        for (name, count, rows) in [
            ("LABEL NAME", "VALUES", &counts.names_by_values),
            ("METRIC", "SERIES", &counts.metrics_by_series),
            ("LABEL PAIR", "SERIES", &counts.pairs_by_series),
            (
                "LABEL PAIR",
                "SERIES THAT COME OR GO",
                &counts.pairs_by_churn,
            ),
        ] {
            if rows.is_empty() {
                continue;
            }
            let mut table = Table::new(&[(name, false), (count, true)]);
            for (name, count) in rows {
                table.push(vec![name.clone(), count.to_string()]);
            }
            writeln!(out)?;
            table.print(out, "")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let counts = &self.statistics;
        let rows = |rows: &[(String, u64)]| -> Vec<Value> {
            let rows = rows.iter();
            rows.map(|(name, count)| json!({ "name": name, "count": count }))
                .collect()
        };
        let encodings = self.encodings.values().map(|(encoding, chunks, samples)| {
            let counts = json!({ "chunks": chunks, "samples": samples });
            (encoding_name(*encoding).to_owned(), counts)
        });
        let sections = counts.sections.iter();
        let sections = sections.map(|(section, bytes)| (section.to_string(), (*bytes).into()));
        let compaction = &self.meta.compaction;
        json!({
            "ulid": self.meta.ulid.to_string(),
            "min_time_ms": self.meta.min_time,
            "max_time_ms": self.meta.max_time,
            "level": compaction.level,
            "sources": compaction.sources.len(),
            "parents": compaction.parents.len(),
            "hints": compaction.hints,
            "labels": self.meta.thanos.as_ref().map(|thanos| &thanos.labels),
            "series": counts.series,
            "series_without_chunks": counts.series_without_chunks,
            "chunks": counts.chunks,
            "samples": self.samples(),
            "bytes_per_sample": self.bytes_per_sample(),
            "index_bytes": self.sizes_bytes[0],
            "chunks_bytes": self.sizes_bytes[1],
            "encodings": encodings.collect::<Map<_, _>>(),
            "label_names": counts.label_names,
            "label_pairs": counts.label_pairs,
            "symbols": counts.symbols,
            "churn": {
                "series": counts.churning,
                "begin_late": counts.begin_late,
                "end_early": counts.end_early,
            },
            "index_sections_bytes": sections.collect::<Map<_, _>>(),
            "label_names_by_values": rows(&counts.names_by_values),
            "metrics_by_series": rows(&counts.metrics_by_series),
            "label_pairs_by_series": rows(&counts.pairs_by_series),
            "label_pairs_by_churn": rows(&counts.pairs_by_churn),
        })
    }
}
