//! `outrigger block verify`: whether blocks are whole, and where the first fault is if not.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Found;
use super::deep;
use super::files::{BlockDir, Named, named};
use super::table::{Table, size};
use crate::app::Environment;
use crate::app::cli::OutputFormat;
use crate::app::commands::progress::{Goal, watch};
use crate::disk::{BufferPool, Containment, Dir, DiskEngine, EngineRequest};
use crate::model::ErrorChain;
use crate::shipper::prove_block;

/// Buffers of 1 MiB: as many as one file is read ahead, and one being proven.
const BUFFERS: usize = 9;
/// Where chunk references are sorted that are out of order, without `TMPDIR`.
const SCRATCH_DEFAULT: &str = "/var/tmp";

/// What is proven of a block.
struct Proof {
    series: u64,
    chunks: u64,
    samples: u64,
    size_bytes: u64,
    /// Samples that were decoded, where they were.
    decoded: Option<u64>,
}

pub(super) async fn run(
    paths: &[PathBuf],
    is_deep: bool,
    format: OutputFormat,
    environment: &Environment,
) -> anyhow::Result<Found> {
    let mut blocks = Vec::new();
    for path in paths {
        match named(path)? {
            Named::Block(block) => blocks.push(block),
            Named::Directory(found) => {
                anyhow::ensure!(!found.is_empty(), "{} has no blocks", path.display());
                blocks.extend(found);
            }
        }
    }
    let engine = DiskEngine::build(EngineRequest::Auto, BufferPool::new(BUFFERS))?;
    let temporary = (environment.variable)("TMPDIR").filter(|value| !value.is_empty());
    let scratch = temporary.map_or_else(|| SCRATCH_DEFAULT.into(), PathBuf::from);
    let scratch = Dir::open(&scratch, Containment::Unconfined).await;
    let scratch = scratch.context("a place for temporary files")?;
    let mut proofs = Vec::new();
    let count = blocks.len();
    for (number, block) in (1..).zip(blocks) {
        let label = format!("{number}/{count} {}", block.name());
        let proof = prove(&engine, &scratch, &block, is_deep, &label).await;
        if proof.is_err() && block.is_gone() {
            tracing::info!(block = block.name(), "the block was deleted meanwhile");
            continue;
        }
        proofs.push((block.name(), proof));
    }
    print(&proofs, format)?;
    Ok(match proofs.iter().all(|(_, proof)| proof.is_ok()) {
        true => Found::Sound,
        false => Found::Faults,
    })
}

async fn prove(
    engine: &DiskEngine,
    scratch: &Dir,
    block: &BlockDir,
    is_deep: bool,
    label: &str,
) -> anyhow::Result<Proof> {
    let meta = block.meta()?;
    block.tombstones()?;
    let [index_bytes, segments_bytes, small_bytes] = block.sizes_bytes()?;
    let done = Arc::new(AtomicU64::new(0));
    let goal = Goal::Bytes(index_bytes + segments_bytes);
    let proving = prove_block(engine, scratch, &block.dir, meta.ulid, &done);
    let proven = watch(label, goal, &done, proving).await?;
    let mut proof = Proof {
        series: proven.index.series,
        chunks: proven.totals.chunks,
        samples: proven
            .totals
            .float_samples
            .saturating_add(proven.totals.histogram_samples),
        size_bytes: index_bytes + segments_bytes + small_bytes,
        decoded: None,
    };
    if is_deep {
        done.store(0, Ordering::Relaxed);
        let (block, counter) = (block.clone(), Arc::clone(&done));
        let decoding = tokio::task::spawn_blocking(move || deep::decode(&block, &counter));
        let label = format!("{label} decoding");
        let decoded = watch(&label, Goal::Bytes(segments_bytes), &done, decoding).await;
        proof.decoded = Some(decoded.context("decode the samples")??);
    }
    Ok(proof)
}

fn print(proofs: &[(String, anyhow::Result<Proof>)], format: OutputFormat) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if format == OutputFormat::Json {
        for (block, proof) in proofs {
            writeln!(out, "{}", as_json(block, proof))?;
        }
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&[
        ("BLOCK", false),
        ("RESULT", false),
        ("SERIES", true),
        ("CHUNKS", true),
        ("SAMPLES", true),
        ("SIZE", true),
    ]);
    for (block, proof) in proofs {
        let row = match proof {
            Ok(proof) => vec![
                block.clone(),
                if proof.decoded.is_some() {
                    "ok, decoded"
                } else {
                    "ok"
                }
                .to_owned(),
                proof.series.to_string(),
                proof.chunks.to_string(),
                proof.samples.to_string(),
                size(proof.size_bytes),
            ],
            Err(_) => vec![block.clone(), "FAULT".to_owned()],
        };
        table.push(row);
    }
    table.print(&mut out, "")?;
    for (block, proof) in proofs {
        if let Err(error) = proof {
            writeln!(out, "{block}: {}", ErrorChain(&**error))?;
        }
    }
    Ok(out.flush()?)
}

fn as_json(block: &str, proof: &anyhow::Result<Proof>) -> Value {
    match proof {
        Ok(proof) => json!({
            "block": block,
            "ok": true,
            "series": proof.series,
            "chunks": proof.chunks,
            "samples": proof.samples,
            "size_bytes": proof.size_bytes,
            "decoded_samples": proof.decoded,
        }),
        Err(error) => json!({
            "block": block,
            "ok": false,
            "error": ErrorChain(&**error).to_string(),
        }),
    }
}
