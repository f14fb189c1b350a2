//! What answering Series costs, beside a real Prometheus (`PROMETHEUS`, else of the path): CPU of
//! the sidecar and of Prometheus, time to the first message and to the last, memory.
//!
//! The block is Prometheus' own; the sidecar gets it by remote read, or reads it by itself.
//! Upstream alone is the same remote read drained by the harness: by that way nobody is quicker.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use outrigger::model::{MatchOp, Matcher};
use outrigger::net::grpc::{CallOptions, Client};
use outrigger::prometheus::{self, BaseUrl, HttpClientConfig, RemoteQuery, RemoteSeries};
use outrigger::proto::thanos::series_response::Result as Message;
use outrigger::proto::thanos::{LabelMatcher, SeriesRequest, SeriesResponse, label_matcher};
use prost::Message as _;

use crate::Bench;
use crate::block::{BlockMaker, files};
use crate::sidecar::{Launch, Sidecar, Site, read_lines};
use crate::usage::{self, Usage};

/// Chunk bytes of a series of the blocks: four chunks of 455 bytes.
const SERIES_BYTES: u64 = 1_820;
/// What a querier asks for.
const BATCH_SERIES: i64 = 64;
/// How long Prometheus may take to open a block.
const READY_DEADLINE: Duration = Duration::from_secs(120);
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// How the files are read without the cache.
const READERS: usize = 8;
const PIECE_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// What outrigger says once it answers from blocks.
const BLOCKS_PROVEN: &str = "blocks of the data directory answer from now on";
/// A series that every block has.
const ONE_METRIC: &str = "app_component_007_seconds_total";
const ONE_INSTANCE: &str = "target-000042.example.internal:9100";

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answerer {
    /// Out of the block.
    Blocks,
    /// Through Prometheus.
    Outrigger,
    Incumbent,
    /// Prometheus itself, by remote read.
    Upstream,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreCell {
    pub(crate) answerer: Answerer,
    pub(crate) skip_chunks: bool,
    pub(crate) extent: Extent,
}

/// What is asked for, in which state of the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything, from the cache.
    All,
    /// Everything, after the block was dropped from the cache.
    Cold,
    /// One series, by equality.
    One,
}

/// What one answer cost.
#[derive(Clone, Debug)]
pub(crate) struct StoreRun {
    pub(crate) cell: StoreCell,
    pub(crate) series_asked: u64,
    pub(crate) series: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) prometheus_cpu_ms: u64,
    pub(crate) idle_rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
    /// Without pages of files, at the end.
    pub(crate) rss_anon_bytes: u64,
    pub(crate) first: Duration,
    pub(crate) total: Duration,
}

/// The cells in the order of the table, which is the order of a round: what Prometheus has read
/// stays in the cache, so the cold one is first.
pub(crate) fn cells(has_incumbent: bool) -> Vec<StoreCell> {
    use Answerer::{Blocks, Incumbent, Outrigger, Upstream};
    let cell = |answerer, skip_chunks, extent| StoreCell {
        answerer,
        skip_chunks,
        extent,
    };
    let cells = [
        cell(Blocks, false, Extent::Cold),
        cell(Blocks, false, Extent::All),
        cell(Outrigger, false, Extent::All),
        cell(Incumbent, false, Extent::All),
        cell(Upstream, false, Extent::All),
        cell(Blocks, true, Extent::All),
        cell(Outrigger, true, Extent::All),
        cell(Incumbent, true, Extent::All),
        cell(Blocks, false, Extent::One),
        cell(Incumbent, false, Extent::One),
    ];
    let can = |cell: &StoreCell| has_incumbent || cell.answerer != Incumbent;
    cells.into_iter().filter(can).collect()
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<StoreRun>> {
    let mut runs = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for series in &bench.settings.store_series {
        eprintln!("perf: StoreAPI over {series} series");
        let site = Site::new(bench, "store")?;
        let mut maker = BlockMaker::new(site.bucket.clone(), &bench.children);
        let block = maker.write(series * SERIES_BYTES)?;
        let data = site.data.clone();
        fs::rename(&block.path, data.join(&block.name))?;
        let files = files(&data.join(&block.name))?;
        for round in 0..bench.settings.rounds {
            eprintln!("perf: round {}", round + 1);
            let peer = Peer::start(bench, &site.bucket, &data)?;
            for cell in cells(bench.settings.incumbent.is_some()) {
                match cell.extent {
                    Extent::Cold => {
                        usage::drop_cached(&files)?;
                        let floor = read_directly(&files)?;
                        eprintln!("perf: the files by {READERS} direct readers: {floor:?}");
                    }
                    _ => usage::fill_cache(&files)?,
                }
                let run = match cell.answerer {
                    Answerer::Upstream => runtime.block_on(upstream(cell, block.series, &peer))?,
                    _ => answered(bench, &site, &runtime, cell, block.series, &peer)?,
                };
                let expected = match cell.extent {
                    Extent::One => 1,
                    _ => block.series,
                };
                anyhow::ensure!(
                    run.series == expected,
                    "{cell:?} answered {} of {expected} series",
                    run.series,
                );
                runs.push(run);
            }
            peer.stop()?;
        }
        site.remove()?;
    }
    Ok(runs)
}

/// How long it takes to read the files past the cache, which is the least for whoever reads them
/// cold.
fn read_directly(files: &[PathBuf]) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let pieces = std::sync::Mutex::new(Vec::new());
    for path in files {
        let bytes = fs::metadata(path)?.len();
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)?;
        let file = std::sync::Arc::new(file);
        let starts = (0..bytes).step_by(PIECE_BYTES).map(|at| (file.clone(), at));
        pieces.lock().expect("no reader panics").extend(starts);
    }
    std::thread::scope(|scope| {
        let reader = || -> std::io::Result<()> {
            let mut buffer = vec![0_u8; PIECE_BYTES + PAGE_BYTES];
            let aligned = buffer.as_ptr().align_offset(PAGE_BYTES);
            let buffer = &mut buffer[aligned..aligned + PIECE_BYTES];
            loop {
                let piece = pieces.lock().expect("no reader panics").pop();
                let Some((file, at)) = piece else {
                    return Ok(());
                };
                file.read_at(buffer, at)?;
            }
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        for reader in readers {
            reader.join().expect("no reader panics")?;
        }
        anyhow::Ok(())
    })?;
    Ok(started.elapsed())
}

/// A real Prometheus over one block, held by the bench's slot for servers.
pub(crate) struct Peer<'a> {
    bench: &'a Bench,
    pub(crate) pid: i32,
    pub(crate) address: SocketAddr,
}

impl<'a> Peer<'a> {
    pub(crate) fn start(bench: &'a Bench, directory: &Path, data: &Path) -> anyhow::Result<Self> {
        Self::start_with(bench, directory, data, &[])
    }

    /// As [`Self::start`], with further flags.
    pub(crate) fn start_with(
        bench: &'a Bench,
        directory: &Path,
        data: &Path,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let config = directory.join("prometheus.yml");
        let labels = "global:\n  external_labels:\n    cluster: perf\n    replica: \"0\"\n";
        fs::write(&config, labels)?;
        let program = std::env::var_os("PROMETHEUS").unwrap_or_else(|| "prometheus".into());
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .args([
                "--storage.tsdb.retention.time=90y",
                "--storage.tsdb.min-block-duration=2h",
                "--storage.tsdb.max-block-duration=2h",
                "--web.listen-address=127.0.0.1:0",
            ])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (pid, stderr) = bench
            .servers
            .spawn(&mut command, |child| (child.id(), child.stderr.take()))?;
        let lines = read_lines(stderr.context("its log")?);
        let mut address = None;
        let started = Instant::now();
        while started.elapsed() < READY_DEADLINE {
            let Ok((_, line)) = lines.recv_timeout(Duration::from_millis(100)) else {
                bench.servers.check()?;
                continue;
            };
            if line.contains("Listening on") {
                address = line.split("address=").nth(1).map(str::to_owned);
            }
            if line.contains("Server is ready to receive web requests") {
                break;
            }
        }
        // Its log is read to the end, or it would wait for room in the pipe.
        std::thread::spawn(move || while lines.recv().is_ok() {});
        let address = address.context("Prometheus did not say where it listens")?;
        Ok(Self {
            bench,
            pid: i32::try_from(pid)?,
            address: address.trim().parse()?,
        })
    }

    pub(crate) fn cpu_ms(&self) -> anyhow::Result<u64> {
        cpu_ms(self.pid)
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.bench.servers.stop().map(drop)
    }
}

pub(crate) fn cpu_ms(pid: i32) -> anyhow::Result<u64> {
    let usage = Usage::of(pid)?;
    Ok(usage.user_ms + usage.system_ms)
}

/// A port that was free a moment ago: the incumbent does not tell which one the kernel chose.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn answered(
    bench: &Bench,
    site: &Site,
    runtime: &tokio::runtime::Runtime,
    cell: StoreCell,
    series_asked: u64,
    peer: &Peer<'_>,
) -> anyhow::Result<StoreRun> {
    let program: PathBuf = match cell.answerer {
        Answerer::Incumbent => bench.incumbent()?,
        _ => bench.binary.clone(),
    };
    let launch = Launch {
        program,
        objstore: String::new(),
        flags: match cell.answerer {
            Answerer::Outrigger => vec!["--no-store.local-blocks".to_owned()],
            _ => Vec::new(),
        },
        peer: peer.address,
    };
    let port = free_port()?;
    let mut sidecar = Sidecar::spawn_with_grpc(bench, site, &launch, port)?;
    sidecar.wait_until("its gRPC port is open", || {
        Ok(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    })?;
    if cell.answerer == Answerer::Blocks {
        sidecar.wait_for_line(BLOCKS_PROVEN)?;
    }
    let before = Usage::of(sidecar.pid)?;
    let prometheus_before = peer.cpu_ms()?;
    let mut run = runtime.block_on(ask(cell, series_asked, port))?;
    let after = Usage::of(sidecar.pid)?;
    run.cpu_ms = (after.user_ms + after.system_ms) - (before.user_ms + before.system_ms);
    run.prometheus_cpu_ms = peer.cpu_ms()? - prometheus_before;
    run.idle_rss_bytes = before.rss_bytes;
    run.rss_peak_bytes = after.rss_peak_bytes;
    run.rss_anon_bytes = after.rss_anon_bytes;
    sidecar.stop()?;
    Ok(run)
}

impl StoreRun {
    fn empty(cell: StoreCell, series_asked: u64) -> Self {
        Self {
            cell,
            series_asked,
            series: 0,
            chunks: 0,
            bytes: 0,
            cpu_ms: 0,
            prometheus_cpu_ms: 0,
            idle_rss_bytes: 0,
            rss_peak_bytes: 0,
            rss_anon_bytes: 0,
            first: Duration::ZERO,
            total: Duration::ZERO,
        }
    }
}

fn matchers(extent: Extent) -> Vec<LabelMatcher> {
    let matcher = |r#type: label_matcher::Type, name: &str, value: &str| LabelMatcher {
        r#type: r#type.into(),
        name: name.to_owned(),
        value: value.to_owned(),
    };
    match extent {
        Extent::All | Extent::Cold => vec![matcher(label_matcher::Type::Re, "__name__", ".+")],
        Extent::One => vec![
            matcher(label_matcher::Type::Eq, "__name__", ONE_METRIC),
            matcher(label_matcher::Type::Eq, "instance", ONE_INSTANCE),
        ],
    }
}

/// Reads the whole answer; messages are decoded, as a querier has to.
async fn ask(cell: StoreCell, series_asked: u64, port: u16) -> anyhow::Result<StoreRun> {
    let client = Client::connect(&format!("127.0.0.1:{port}"), None).await?;
    let request = SeriesRequest {
        min_time: 0,
        max_time: i64::MAX / 2,
        matchers: matchers(cell.extent),
        skip_chunks: cell.skip_chunks,
        response_batch_size: BATCH_SERIES,
        ..SeriesRequest::default()
    };
    let options = CallOptions {
        message_bytes_max: MESSAGE_BYTES_MAX,
        ..CallOptions::default()
    };
    let started = Instant::now();
    let body = request.encode_to_vec();
    let answering = client.server_streaming("/thanos.Store/Series", &body, options);
    let mut answer = answering.await?;
    let mut run = StoreRun::empty(cell, series_asked);
    while let Some(message) = answer.message().await? {
        if run.series == 0 {
            run.first = started.elapsed();
        }
        run.bytes += message.len() as u64;
        match SeriesResponse::decode(message)?.result {
            Some(Message::Series(series)) => run.count(&series),
            Some(Message::Batch(batch)) => batch.series.iter().for_each(|s| run.count(s)),
            other => anyhow::bail!("not a series: {other:?}"),
        }
    }
    run.total = started.elapsed();
    Ok(run)
}

impl StoreRun {
    fn count(&mut self, series: &outrigger::proto::thanos::Series) {
        self.series += 1;
        self.chunks += series.chunks.len() as u64;
    }
}

async fn upstream(cell: StoreCell, series_asked: u64, peer: &Peer<'_>) -> anyhow::Result<StoreRun> {
    let url: http::Uri = format!("http://{}", peer.address).parse()?;
    let client = prometheus::Client::new(prometheus::Config {
        url: BaseUrl::try_from(&url)?,
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })?;
    let query = RemoteQuery {
        start_ms: 0,
        end_ms: i64::MAX / 2,
        matchers: vec![Matcher {
            op: MatchOp::Regex,
            name: "__name__".to_owned(),
            value: ".+".to_owned(),
        }],
    };
    let before = peer.cpu_ms()?;
    let started = Instant::now();
    let mut read = client.remote_read(&query).await?;
    let mut run = StoreRun::empty(cell, series_asked);
    let mut series = RemoteSeries::default();
    while read.next_into(&mut series).await? {
        if run.series == 0 {
            run.first = started.elapsed();
        }
        run.series += 1;
        run.chunks += series.chunks.len() as u64;
        run.bytes += series
            .chunks
            .iter()
            .map(|c| c.data.len() as u64)
            .sum::<u64>();
    }
    run.total = started.elapsed();
    run.prometheus_cpu_ms = peer.cpu_ms()? - before;
    Ok(run)
}
