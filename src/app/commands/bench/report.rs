//! What was measured, for people as a table and for programs as one JSON object.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::setup::Setup;
use super::sweep::{RULE, winner};
use super::upload::Run;
use crate::app::cli::OutputFormat;
use crate::app::version;
use crate::objstore::LatencyHistogram;

const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// The whole result. Its JSON keys are stable: new ones may come, none goes or changes its meaning.
#[derive(Debug, Serialize)]
struct Report {
    outrigger: Build,
    bucket: BucketFacts,
    engine: EngineFacts,
    files: FileFacts,
    runs: Vec<RunFacts>,
    /// Position of the best run of a sweep.
    winner: Option<usize>,
    rule: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Build {
    version: &'static str,
    revision: &'static str,
}

#[derive(Debug, Serialize)]
struct BucketFacts {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    payload_signing: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct EngineFacts {
    name: &'static str,
    reason: String,
    buffers: usize,
}

#[derive(Debug, Serialize)]
struct FileFacts {
    origin: &'static str,
    directory: String,
    count: usize,
    bytes: u64,
    in_memory: bool,
}

#[derive(Debug, Serialize)]
struct RunFacts {
    part_size_bytes: Option<u64>,
    concurrency: u32,
    objects: u64,
    bytes: u64,
    seconds: f64,
    gib_per_second: f64,
    cpu_seconds_per_gib: CpuFacts,
    peak_rss_bytes: u64,
    page_cache_bytes: Option<CacheFacts>,
    requests: u64,
    retries: u64,
    restarts: u64,
    integrity: Option<String>,
    latencies: Vec<LatencyFacts>,
}

#[derive(Debug, Serialize)]
struct CpuFacts {
    user: f64,
    system: f64,
    total: f64,
}

#[derive(Debug, Serialize)]
struct CacheFacts {
    before: u64,
    after: u64,
}

/// Of the objects as wholes (`object`, `confirm`) and of the requests for each operation.
#[derive(Debug, Serialize)]
struct LatencyFacts {
    kind: &'static str,
    count: u64,
    failed: u64,
    retried: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Prints the result to stdout in the form that was asked for.
pub(super) fn print(setup: &Setup, files: &FileSummary, runs: &[Run]) -> anyhow::Result<()> {
    let report = Report::new(setup, files, runs);
    let text = match setup.output() {
        OutputFormat::Json => serde_json::to_string_pretty(&report)? + "\n",
        OutputFormat::Table => report.table(),
    };
    io::stdout()
        .write_all(text.as_bytes())
        .context("print the result")
}

/// What is told of the files once they are gone.
#[derive(Clone, Debug)]
pub(super) struct FileSummary {
    pub(super) is_generated: bool,
    pub(super) directory: String,
    pub(super) count: usize,
    pub(super) size_bytes: u64,
    pub(super) is_in_memory: bool,
}

// === impl Report ===

impl Report {
    fn new(setup: &Setup, files: &FileSummary, runs: &[Run]) -> Self {
        let runs: Vec<RunFacts> = runs.iter().map(RunFacts::new).collect();
        let figures: Vec<(f64, f64)> = runs
            .iter()
            .map(|run| (run.gib_per_second, run.cpu_seconds_per_gib.total))
            .collect();
        Self {
            outrigger: Build {
                version: version::VERSION,
                revision: version::REVISION,
            },
            bucket: BucketFacts {
                kind: setup.provider(),
                name: setup.bucket_name(),
                payload_signing: setup.payload_signing(),
            },
            engine: EngineFacts {
                name: setup.engine.info().engine,
                reason: setup.engine.info().reason.clone(),
                buffers: setup.buffers(),
            },
            files: FileFacts {
                origin: if files.is_generated {
                    "generated"
                } else {
                    "given"
                },
                directory: files.directory.clone(),
                count: files.count,
                bytes: files.size_bytes,
                in_memory: files.is_in_memory,
            },
            winner: winner(&figures).filter(|_| setup.is_sweep()),
            rule: setup.is_sweep().then_some(RULE),
            runs,
        }
    }

    fn table(&self) -> String {
        let mut text = self.head();
        let runs = self.runs.iter().map(RunFacts::row);
        text.push('\n');
        push_table(&mut text, &RUN_COLUMNS, runs.collect());
        if let Some((at, rule)) = self.winner.zip(self.rule)
            && let Some(run) = self.runs.get(at)
        {
            let part = run
                .part_size_bytes
                .map_or_else(String::new, |bytes| format!("--part-size={} ", size(bytes)));
            let concurrency = run.concurrency;
            text.push_str(&format!(
                "\nwinner: {part}--concurrency={concurrency} ({rule})\n"
            ));
        }
        for run in &self.runs {
            text.push('\n');
            if self.runs.len() > 1 {
                text.push_str(&format!("{}\n", run.label()));
            }
            let rows = run.latencies.iter().map(LatencyFacts::row).collect();
            push_table(&mut text, &LATENCY_COLUMNS, rows);
        }
        text
    }

    fn head(&self) -> String {
        let integrity = self.runs.iter().find_map(|run| run.integrity.as_deref());
        let signing = self.bucket.payload_signing;
        let memory = if self.files.in_memory {
            ", in memory: no disk was measured"
        } else {
            ""
        };
        let cache = match self.files.origin {
            "generated" => "generated, dropped from the page cache before each run",
            _ => "given, cached or not as they were",
        };
        let lines = [
            (
                "bucket",
                format!("{} ({})", self.bucket.name, self.bucket.kind),
            ),
            (
                "engine",
                format!(
                    "{}, {} buffers of 1 MiB: {}",
                    self.engine.name, self.engine.buffers, self.engine.reason
                ),
            ),
            (
                "files",
                format!(
                    "{} with {:.3} GiB below {} ({cache}{memory})",
                    self.files.count,
                    self.files.bytes as f64 / GIB,
                    self.files.directory
                ),
            ),
            ("integrity", integrity.unwrap_or("sizes").to_owned()),
            ("signing", signing.unwrap_or("–").to_owned()),
        ];
        let mut text = String::new();
        for (name, value) in lines {
            text.push_str(&format!("{name:<10} {value}\n"));
        }
        text
    }
}

/// Heads of the table of runs, and whether a column is text.
const RUN_COLUMNS: [(&str, bool); 12] = [
    ("part size", false),
    ("concurrency", false),
    ("GiB", false),
    ("GiB/s", false),
    ("CPU s/GiB", false),
    ("user", false),
    ("system", false),
    ("peak RSS MiB", false),
    ("cache left MiB", false),
    ("requests", false),
    ("retries", false),
    ("restarts", false),
];

const LATENCY_COLUMNS: [(&str, bool); 7] = [
    ("what", true),
    ("count", false),
    ("failed", false),
    ("retried", false),
    ("p50 ms", false),
    ("p99 ms", false),
    ("max ms", false),
];

impl RunFacts {
    fn new(run: &Run) -> Self {
        let gib = run.size_bytes as f64 / GIB;
        let per_gib = |time: Duration| time.as_secs_f64() / gib;
        let mut latencies = vec![
            LatencyFacts::new("object", &run.uploads, 0, run.restarts),
            LatencyFacts::new("confirm", &run.confirmations, 0, 0),
        ];
        latencies.extend(run.requests.iter().map(|totals| {
            LatencyFacts::new(
                totals.operation,
                &totals.latency,
                totals.failed,
                totals.retried,
            )
        }));
        Self {
            part_size_bytes: run.setting.part_bytes.map(std::num::NonZero::get),
            concurrency: run.setting.concurrency.get(),
            objects: run.objects,
            bytes: run.size_bytes,
            seconds: run.wall.as_secs_f64(),
            gib_per_second: gib / run.wall.as_secs_f64(),
            cpu_seconds_per_gib: CpuFacts {
                user: per_gib(run.cpu.user),
                system: per_gib(run.cpu.system),
                total: per_gib(run.cpu.user + run.cpu.system),
            },
            peak_rss_bytes: run.rss_peak_bytes,
            page_cache_bytes: run
                .cached_bytes
                .map(|(before, after)| CacheFacts { before, after }),
            requests: run.requests.iter().map(|t| t.latency.count()).sum(),
            retries: run.requests.iter().map(|t| t.retried).sum(),
            restarts: run.restarts,
            integrity: run.integrity.clone(),
            latencies,
        }
    }

    fn label(&self) -> String {
        let part = self
            .part_size_bytes
            .map_or_else(String::new, |bytes| format!("part size {}, ", size(bytes)));
        format!("{part}concurrency {}", self.concurrency)
    }

    fn row(&self) -> Vec<String> {
        let cpu = &self.cpu_seconds_per_gib;
        let cache = self.page_cache_bytes.as_ref();
        vec![
            self.part_size_bytes.map_or_else(|| "–".to_owned(), size),
            self.concurrency.to_string(),
            format!("{:.3}", self.bytes as f64 / GIB),
            format!("{:.3}", self.gib_per_second),
            format!("{:.3}", cpu.total),
            format!("{:.3}", cpu.user),
            format!("{:.3}", cpu.system),
            format!("{:.1}", self.peak_rss_bytes as f64 / MIB),
            cache.map_or_else(
                || "?".to_owned(),
                |cache| format!("{:.0}", cache.after as f64 / MIB),
            ),
            self.requests.to_string(),
            self.retries.to_string(),
            self.restarts.to_string(),
        ]
    }
}

impl LatencyFacts {
    fn new(kind: &'static str, latency: &LatencyHistogram, failed: u64, retried: u64) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        Self {
            kind,
            count: latency.count(),
            failed,
            retried,
            p50_ms: ms(latency.percentile(50)),
            p99_ms: ms(latency.percentile(99)),
            max_ms: ms(latency.max()),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.kind.to_owned(),
            self.count.to_string(),
            self.failed.to_string(),
            self.retried.to_string(),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.max_ms),
        ]
    }
}

/// Rows below heads, text to the left and numbers to the right.
fn push_table(text: &mut String, columns: &[(&str, bool)], rows: Vec<Vec<String>>) {
    let heads = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for line in &lines {
        let mut joined = String::new();
        for ((cell, width), (_, is_text)) in line.iter().zip(&widths).zip(columns) {
            let padded = if *is_text {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            };
            if !joined.is_empty() {
                joined.push_str("  ");
            }
            joined.push_str(&padded);
        }
        text.push_str(joined.trim_end());
        text.push('\n');
    }
}

/// As `--part-size` takes it.
fn size(bytes: u64) -> String {
    match bytes {
        mib if mib.is_multiple_of(1 << 20) => format!("{}MiB", mib >> 20),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::commands::bench::measure::CpuTime;
    use crate::app::commands::bench::sweep::Setting;
    use crate::objstore::RequestStats;
    use std::num::{NonZeroU32, NonZeroU64};

    fn run(part_mib: u64, seconds: u64) -> Run {
        let stats = RequestStats::default();
        stats.record("UploadPart", Duration::from_millis(20), true);
        stats.record("UploadPart", Duration::from_millis(40), false);
        stats.retried("UploadPart");
        let mut uploads = LatencyHistogram::default();
        uploads.record(Duration::from_millis(100));
        Run {
            setting: Setting {
                part_bytes: NonZeroU64::new(part_mib << 20),
                concurrency: NonZeroU32::MIN,
            },
            objects: 1,
            size_bytes: 2 << 30,
            wall: Duration::from_secs(seconds),
            cpu: CpuTime {
                user: Duration::from_millis(500),
                system: Duration::from_millis(1500),
            },
            rss_peak_bytes: 30 << 20,
            cached_bytes: Some((0, 3 << 20)),
            uploads,
            confirmations: LatencyHistogram::default(),
            restarts: 0,
            requests: stats.totals(),
            integrity: Some("crc64nvme".to_owned()),
        }
    }

    fn report(runs: &[Run]) -> Report {
        let runs: Vec<RunFacts> = runs.iter().map(RunFacts::new).collect();
        let is_sweep = runs.len() > 1;
        Report {
            outrigger: Build {
                version: "1",
                revision: "r",
            },
            bucket: BucketFacts {
                kind: "S3",
                name: "b".to_owned(),
                payload_signing: Some("never"),
            },
            engine: EngineFacts {
                name: "uring",
                reason: "asked for".to_owned(),
                buffers: 40,
            },
            files: FileFacts {
                origin: "generated",
                directory: "/d".to_owned(),
                count: 1,
                bytes: 2 << 30,
                in_memory: false,
            },
            runs,
            winner: is_sweep.then_some(1),
            rule: is_sweep.then_some(RULE),
        }
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        let object = value.as_object().unwrap();
        object.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_keys_are_stable() {
        let json = serde_json::to_value(report(&[run(8, 4)])).unwrap();
        let expected = [
            "outrigger",
            "bucket",
            "engine",
            "files",
            "runs",
            "winner",
            "rule",
        ];
        assert_eq!(keys(&json), expected);
        assert_eq!(keys(&json["bucket"]), ["type", "name", "payload_signing"]);
        assert_eq!(keys(&json["engine"]), ["name", "reason", "buffers"]);
        let expected = ["origin", "directory", "count", "bytes", "in_memory"];
        assert_eq!(keys(&json["files"]), expected);
        let expected = [
            "part_size_bytes",
            "concurrency",
            "objects",
            "bytes",
            "seconds",
            "gib_per_second",
            "cpu_seconds_per_gib",
            "peak_rss_bytes",
            "page_cache_bytes",
            "requests",
            "retries",
            "restarts",
            "integrity",
            "latencies",
        ];
        let run = &json["runs"][0];
        assert_eq!(keys(run), expected);
        assert_eq!(
            keys(&run["cpu_seconds_per_gib"]),
            ["user", "system", "total"]
        );
        assert_eq!(keys(&run["page_cache_bytes"]), ["before", "after"]);
        let expected = [
            "kind", "count", "failed", "retried", "p50_ms", "p99_ms", "max_ms",
        ];
        assert_eq!(keys(&run["latencies"][0]), expected);
        assert_eq!(run["gib_per_second"], 0.5);
        assert_eq!(run["cpu_seconds_per_gib"]["total"], 1.0);
        assert_eq!((&run["requests"], &run["retries"]), (&2.into(), &1.into()));
    }

    #[test]
    fn the_table_lines_up_and_a_sweep_names_its_winner() {
        let text = report(&[run(8, 4)]).table();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "bucket     b (S3)");
        assert_eq!(lines[3], "integrity  crc64nvme");
        let (heads, row) = (lines[6], lines[7]);
        assert!(heads.starts_with("part size  concurrency  "), "{heads}");
        assert_eq!(heads.chars().count(), row.chars().count(), "{text}");
        assert!(
            row.starts_with("     8MiB            1  2.000  0.500"),
            "{row}"
        );
        assert!(
            text.contains("UploadPart      2       1        1   20.4"),
            "{text}"
        );
        assert!(!text.contains("winner"));
        let text = report(&[run(8, 4), run(16, 2)]).table();
        let expected = "winner: --part-size=16MiB --concurrency=1 (of the runs";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("\npart size 16MiB, concurrency 1\nwhat "),
            "{text}"
        );
    }
}
