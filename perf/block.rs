//! Blocks to ship: real XOR chunks of about 500 bytes, written to disk as they come.

use std::f64::consts::TAU;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use outrigger::model::{BlockId, TimeRange, TimestampMs};
use outrigger::tsdb::testing::{BlockFile, BlockLayout, BlockWriter, Chunk, Series};

use crate::Bench;
use crate::child::ChildSlot;

/// 2023-11-14T22:00:00Z, a multiple of two hours; and a ULID's time part for it.
const START_MS: i64 = 1_699_999_200_000;
const ULID_TIME: u128 = 1_699_999_200_000;
const BLOCK_MS: i64 = 2 * 3600 * 1000;
/// Prometheus' usual chunk: 120 samples, here at 15 s, so four of them fill two hours.
const SCRAPE_MS: i64 = 15_000;
const CHUNK_SAMPLES: i64 = 120;
const CHUNKS_PER_SERIES: i64 = BLOCK_MS / SCRAPE_MS / CHUNK_SAMPLES;
/// Different series of samples; every series of a block has one of these.
const SHAPES: usize = 512;
/// Each target exposes that many metrics.
const METRICS: usize = 250;
/// The metric of [`BlockMaker::write_counter`], its jobs, and the time between two samples.
pub(crate) const COUNTER: &str = "m";
pub(crate) const JOBS: [&str; 5] = ["api", "kubelet", "node", "queue", "shop"];
/// Each rack has as many of its series.
pub(crate) const RACKS: usize = 10;
const COUNTER_MS: i64 = 30_000;
/// What one write to a block's file has.
const WRITE_BYTES: usize = 1 << 20;

/// A block on disk.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Its ULID.
    pub(crate) name: String,
    pub(crate) series: u64,
    pub(crate) chunks: u64,
    pub(crate) segments: usize,
    /// Of chunk segments, index and `meta.json`.
    pub(crate) size_bytes: u64,
}

/// The files of a block: segments in order, index, `meta.json`.
pub(crate) fn files(block: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<_>> = fs::read_dir(block.join("chunks"))?.collect();
    let mut files: Vec<PathBuf> = entries?.iter().map(fs::DirEntry::path).collect();
    files.sort();
    files.extend([block.join("index"), block.join("meta.json")]);
    Ok(files)
}

/// The blocks that are shipped in one run.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) blocks: Vec<Block>,
    /// What promtool said of them, for the head of the results.
    pub(crate) verdict: String,
}

/// Chunk bytes of one block: about what a Prometheus with a million series cuts every two hours.
const BLOCK_CHUNK_BYTES: u64 = 1 << 30;

impl Load {
    /// Writes as many blocks as hold `chunk_bytes`.
    pub(crate) fn write(bench: &Bench) -> anyhow::Result<Self> {
        let chunk_bytes = bench.settings.chunk_bytes;
        let count = chunk_bytes.div_ceil(BLOCK_CHUNK_BYTES);
        eprintln!(
            "perf: writing {count} blocks with {} MiB of chunks",
            chunk_bytes >> 20
        );
        let mut maker = BlockMaker::new(bench.scratch.join("made"), &bench.children);
        let blocks: anyhow::Result<Vec<Block>> = (0..count)
            .map(|_| maker.write(chunk_bytes / count))
            .collect();
        let blocks = blocks?;
        for block in &blocks {
            eprintln!(
                "perf: {} series, {} chunks, {} segments, {} bytes",
                block.series, block.chunks, block.segments, block.size_bytes
            );
            anyhow::ensure!(
                block.segments >= 2,
                "one segment only: nothing to interleave"
            );
        }
        let verdict = match blocks.first() {
            Some(block) => promtool_verdict(block)?,
            None => anyhow::bail!("PERF_GIB makes no block"),
        };
        Ok(Self { blocks, verdict })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.size_bytes).sum()
    }

    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let files: io::Result<Vec<Vec<PathBuf>>> =
            self.blocks.iter().map(|block| files(&block.path)).collect();
        Ok(files?.concat())
    }
}

/// Has promtool (`PROMTOOL`, else of the path) read one block as Prometheus would.
fn promtool_verdict(block: &Block) -> anyhow::Result<String> {
    let program = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let directory = block.path.parent().context("a block is in a directory")?;
    let mut command = Command::new(&program);
    command
        .args(["tsdb", "analyze", "--limit=1"])
        .arg(directory)
        .arg(&block.name);
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok("not checked: there is no promtool".to_owned());
        }
        output => output.with_context(|| format!("run {program:?}"))?,
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let series = text.lines().find_map(|line| {
        // Version 3 says "Total Series".
        let line = line.strip_prefix("Total ").unwrap_or(line);
        let rest = line.strip_prefix("Series:")?;
        rest.trim().parse::<u64>().ok()
    });
    anyhow::ensure!(
        output.status.success() && series == Some(block.series),
        "promtool does not read the block: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok("one read by `promtool tsdb analyze`".to_owned())
}

/// Writes blocks below one directory, each later in time than the one before.
#[derive(Debug)]
pub(crate) struct BlockMaker<'a> {
    directory: PathBuf,
    children: &'a ChildSlot,
    number: i64,
}

impl<'a> BlockMaker<'a> {
    pub(crate) fn new(directory: PathBuf, children: &'a ChildSlot) -> Self {
        Self {
            directory,
            children,
            number: 0,
        }
    }

    /// Writes a block with about `chunk_bytes` in two or more segments.
    pub(crate) fn write(&mut self, chunk_bytes: u64) -> anyhow::Result<Block> {
        let shapes = shapes(self.next_start_ms());
        let pool_bytes: usize = shapes.iter().flatten().map(|chunk| chunk.data.len()).sum();
        let series = chunk_bytes * SHAPES as u64 / pool_bytes as u64;
        let targets = usize::try_from(series)?.div_ceil(METRICS).max(1);
        let all = (0..METRICS).flat_map(|metric| (0..targets).map(move |target| (metric, target)));
        let all = all.map(|(metric, target)| Series {
            labels: labels(metric, target),
            chunks: shapes[(metric * 31 + target * 7) % SHAPES].clone(),
        });
        self.write_series((chunk_bytes / 2).min(512 << 20), all)
    }

    /// Writes a block of one counter of so many series, which take two hours of samples every
    /// 30 s. When its first sample is, in seconds since the epoch.
    pub(crate) fn write_counter(&mut self, series: u64) -> anyhow::Result<(Block, i64)> {
        let start_ms = self.next_start_ms();
        let shapes = counter_shapes(start_ms);
        let series = usize::try_from(series)?;
        let per_job = series.div_ceil(JOBS.len());
        let all = (0..series).map(|number| Series {
            labels: counter_labels(number / per_job, number % per_job),
            chunks: shapes[number * 7 % SHAPES].clone(),
        });
        let block = self.write_series(512 << 20, all)?;
        Ok((block, start_ms / 1000))
    }

    fn next_start_ms(&self) -> i64 {
        START_MS + self.number * BLOCK_MS
    }

    /// Writes these series, which are in label order.
    fn write_series(
        &mut self,
        segment_bytes_max: u64,
        all: impl Iterator<Item = Series>,
    ) -> anyhow::Result<Block> {
        let start_ms = self.next_start_ms();
        let ulid = BlockId::from_u128((ULID_TIME << 80) | u128::try_from(self.number + 1)?);
        self.number += 1;
        let path = self.directory.join(ulid.to_string());
        fs::create_dir_all(path.join("chunks"))?;
        let mut files = FileSink::new(&path);
        let layout = BlockLayout {
            segment_bytes_max,
            ..BlockLayout::default()
        };
        let range = TimeRange {
            mint: TimestampMs(start_ms),
            maxt: TimestampMs(start_ms + BLOCK_MS),
        };
        let mut writer = BlockWriter::new(layout, ulid, range, |file, bytes: &[u8]| {
            files.take(file, bytes);
        });
        for (number, series) in all.enumerate() {
            if number % 1000 == 0 {
                self.children.check()?;
            }
            writer.add(series);
        }
        let meta = writer.finish();
        files.finish()?;
        let files = self::files(&path)?;
        let sizes: io::Result<Vec<u64>> = files
            .iter()
            .map(|file| Ok(fs::metadata(file)?.len()))
            .collect();
        Ok(Block {
            path,
            name: ulid.to_string(),
            series: meta.stats.num_series,
            chunks: meta.stats.num_chunks,
            segments: files.len() - 2,
            size_bytes: sizes?.iter().sum(),
        })
    }
}

/// The labels of one series of the counter; numbers are padded and jobs ascend, so that series come
/// in label order.
fn counter_labels(job: usize, instance: usize) -> Vec<(String, String)> {
    let job_name = JOBS.get(job).unwrap_or(&"other");
    [
        ("__name__", COUNTER.to_owned()),
        (
            "instance",
            format!("target-{job}-{instance:06}.example.internal:9100"),
        ),
        ("job", (*job_name).to_owned()),
        ("rack", format!("{:02}", instance % RACKS)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Samples of counters that grow by 0 to 40 each 30 s.
fn counter_shapes(start_ms: i64) -> Vec<Vec<Chunk>> {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let samples = BLOCK_MS / COUNTER_MS;
    let chunk_samples = usize::try_from(CHUNK_SAMPLES).expect("a chunk has some samples");
    (0..SHAPES)
        .map(|shape| {
            let mut value = shape as f64 * 1000.0;
            let samples: Vec<(i64, f64)> = (0..samples)
                .map(|step| {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    value += (noise % 41) as f64;
                    (start_ms + step * COUNTER_MS, value)
                })
                .collect();
            let chunks = samples.chunks(chunk_samples);
            chunks.map(Chunk::xor).collect()
        })
        .collect()
}

/// The labels of one series, sorted; numbers are padded so that series come in label order.
fn labels(metric: usize, target: usize) -> Vec<(String, String)> {
    let job = ["node", "kubelet", "api", "shop", "queue"]
        .get(target % 5)
        .unwrap_or(&"other");
    [
        (
            "__name__",
            format!("app_component_{metric:03}_seconds_total"),
        ),
        (
            "instance",
            format!("target-{target:06}.example.internal:9100"),
        ),
        ("job", (*job).to_owned()),
        ("namespace", format!("team-{}", target % 40)),
        ("node", format!("node-{:04}", target / 20)),
        (
            "pod",
            format!("{job}-{:x}", target * 2_654_435_761 % 0xffff_ffff),
        ),
        (
            "zone",
            format!("eu-1{}", ["a", "b", "c"].get(target % 3).unwrap_or(&"d")),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Samples of gauges whose values have few, many or all bits of noise, which makes chunks between
/// 250 and 900 bytes long.
fn shapes(start_ms: i64) -> Vec<Vec<Chunk>> {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    (0..SHAPES)
        .map(|shape| {
            let level = 10.0 + shape as f64;
            let unit = [8, 14, 22, 34]
                .get(shape % 4)
                .map_or(1.0, |bits| 2_f64.powi(*bits));
            (0..CHUNKS_PER_SERIES)
                .map(|chunk| {
                    let samples = (0..CHUNK_SAMPLES).map(|sample| {
                        noise ^= noise << 13;
                        noise ^= noise >> 7;
                        noise ^= noise << 17;
                        let step = chunk * CHUNK_SAMPLES + sample;
                        let wave = (TAU * step as f64 / 480.0).sin() * 0.3;
                        let jitter = noise as f64 / u64::MAX as f64 * 0.05;
                        let value = level * (1.0 + wave + jitter);
                        (start_ms + step * SCRAPE_MS, (value * unit).round() / unit)
                    });
                    Chunk::xor(&samples.collect::<Vec<_>>())
                })
                .collect()
        })
        .collect()
}

/// Takes a block's bytes to its files, one file open at a time. The first error is kept.
struct FileSink<'a> {
    block: &'a Path,
    open: Option<(BlockFile, BufWriter<File>)>,
    outcome: io::Result<()>,
}

impl<'a> FileSink<'a> {
    fn new(block: &'a Path) -> Self {
        Self {
            block,
            open: None,
            outcome: Ok(()),
        }
    }

    fn take(&mut self, file: BlockFile, bytes: &[u8]) {
        if self.outcome.is_ok() {
            self.outcome = self.write(file, bytes);
        }
    }

    fn write(&mut self, file: BlockFile, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some((open, writer)) if *open == file => writer.write_all(bytes),
            _ => {
                self.close()?;
                let created = File::create_new(self.block.join(file.path()))?;
                let writer = BufWriter::with_capacity(WRITE_BYTES, created);
                let (_, writer) = self.open.insert((file, writer));
                writer.write_all(bytes)
            }
        }
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((_, writer)) => writer.into_inner()?.sync_all(),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.outcome = std::mem::replace(&mut self.outcome, Ok(())).and_then(|()| self.close());
        self.outcome
            .with_context(|| format!("write {}", self.block.display()))
    }
}
