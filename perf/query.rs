//! What PromQL costs: a distributed querier on outrigger, a local one on the incumbent, which sends
//! it raw chunks, outrigger's HTTP API, and Prometheus (`PROMETHEUS`) asked directly.
//!
//! The block has one counter with series of several [`JOBS`] in [`RACKS`]. Everybody asks the same
//! Prometheus, one after another within a round; what flows between sidecar and querier is counted
//! in a run of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Bench;
use crate::block::{BlockMaker, COUNTER, JOBS, RACKS, files};
use crate::querier::{Meter, Querier};
use crate::sidecar::{Launch, Sidecar, Site};
use crate::store::{Peer, cpu_ms, free_port};
use crate::usage::{self, Usage};

/// What Prometheus must allow: a sample of each series at each step is held at once.
const PROMETHEUS_FLAGS: &[&str] = &["--query.max-samples=500000000", "--query.timeout=10m"];
const RANGE_S: i64 = 7200;
/// How long a querier may take to know its endpoint.
const KNOWN_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked whether it does.
const POLL: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// A number for each job and step, out of all series.
    Sum,
    /// All series of one rack, at 500 steps.
    Series,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Prometheus,
    /// Its HTTP API.
    Outrigger,
    QuerierOnOutrigger,
    QuerierOnIncumbent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueryCell {
    pub(crate) question: Question,
    pub(crate) asked: Asked,
}

/// What one answer cost; 0 for who had no part in it.
#[derive(Clone, Debug)]
pub(crate) struct QueryRun {
    pub(crate) cell: QueryCell,
    pub(crate) round: u32,
    pub(crate) total: Duration,
    pub(crate) answer_bytes: u64,
    pub(crate) querier_cpu_ms: u64,
    pub(crate) sidecar_cpu_ms: u64,
    pub(crate) prometheus_cpu_ms: u64,
    pub(crate) querier_rss_peak_bytes: u64,
    pub(crate) sidecar_rss_peak_bytes: u64,
    /// What the querier got from the sidecar.
    pub(crate) between_bytes: Option<u64>,
}

/// In the order of a round.
pub(crate) fn cells(has_incumbent: bool) -> Vec<QueryCell> {
    let cell = |question, asked| QueryCell { question, asked };
    let cells = [
        cell(Question::Sum, Asked::Prometheus),
        cell(Question::Sum, Asked::Outrigger),
        cell(Question::Sum, Asked::QuerierOnOutrigger),
        cell(Question::Sum, Asked::QuerierOnIncumbent),
        cell(Question::Series, Asked::Prometheus),
        cell(Question::Series, Asked::Outrigger),
        cell(Question::Series, Asked::QuerierOnOutrigger),
    ];
    let can = |cell: &QueryCell| has_incumbent || !cell.asked.has_querier();
    cells.into_iter().filter(can).collect()
}

impl Question {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Sum => "sum by (job) (rate(m[5m])), 15 s step",
            Self::Series => "rate(m{rack=\"03\"}[5m]), 500 steps",
        }
    }

    /// The path of the HTTP API, for a block that starts then.
    fn path(self, start_s: i64) -> String {
        let (query, step_s, steps) = match self {
            Self::Sum => (
                format!("sum+by+(job)+(rate({COUNTER}[5m]))"),
                15,
                RANGE_S / 15,
            ),
            Self::Series => (format!("rate({COUNTER}%7Brack%3D%2203%22%7D[5m])"), 14, 500),
        };
        // Until there are two samples, a rate has no value.
        let start = start_s + 60;
        let end = (start + step_s * (steps - 1)).min(start_s + RANGE_S - 1);
        let query = query.replace('[', "%5B").replace(']', "%5D");
        format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step_s}")
    }

    /// How many series the answer has.
    fn series(self, of: u64) -> u64 {
        match self {
            Self::Sum => JOBS.len() as u64,
            Self::Series => of / RACKS as u64,
        }
    }
}

impl Asked {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Prometheus => "Prometheus directly",
            Self::Outrigger => "outrigger's HTTP API",
            Self::QuerierOnOutrigger => "querier on outrigger",
            Self::QuerierOnIncumbent => "querier on incumbent",
        }
    }

    fn has_querier(self) -> bool {
        matches!(self, Self::QuerierOnOutrigger | Self::QuerierOnIncumbent)
    }
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<QueryRun>> {
    let series = bench.settings.query_series;
    eprintln!("perf: queries over {series} series");
    let site = Site::new(bench, "query")?;
    let mut maker = BlockMaker::new(site.bucket.clone(), &bench.children);
    let (block, start_s) = maker.write_counter(series)?;
    let path = site.data.join(&block.name);
    fs::rename(&block.path, &path)?;
    usage::fill_cache(&files(&path)?)?;
    let has_incumbent = bench.settings.incumbent.is_some();
    let stand = Stand {
        bench,
        site: &site,
        start_s,
        series,
        peer: Peer::start_with(bench, &site.bucket, &site.data, PROMETHEUS_FLAGS)?,
    };
    let mut runs = Vec::new();
    // The first of all is thrown away: Prometheus maps the block and grows its heap.
    eprintln!("perf: warming up, and counting bytes");
    for cell in cells(has_incumbent) {
        let run = stand.run(cell, 0, true)?;
        eprintln!("perf: {cell:?}: {:?} between", run.between_bytes);
        runs.push(run);
    }
    let counted = std::mem::take(&mut runs);
    for round in 1..=bench.settings.rounds {
        eprintln!("perf: round {round}");
        for cell in cells(has_incumbent) {
            let mut run = stand.run(cell, round, false)?;
            let same = counted.iter().find(|run| run.cell == cell);
            run.between_bytes = same.and_then(|run| run.between_bytes);
            eprintln!("perf: {run:?}");
            runs.push(run);
        }
    }
    stand.peer.stop()?;
    site.remove()?;
    Ok(runs)
}

struct Stand<'a> {
    bench: &'a Bench,
    site: &'a Site,
    start_s: i64,
    series: u64,
    peer: Peer<'a>,
}

impl Stand<'_> {
    fn run(&self, cell: QueryCell, round: u32, is_counted: bool) -> anyhow::Result<QueryRun> {
        if cell.asked == Asked::Prometheus {
            return self.ask(cell, round, self.peer.address, [None, None]);
        }
        let launch = Launch {
            program: match cell.asked {
                Asked::QuerierOnIncumbent => self.bench.incumbent()?,
                _ => self.bench.binary.clone(),
            },
            objstore: String::new(),
            flags: match cell.asked {
                Asked::QuerierOnIncumbent => Vec::new(),
                _ => vec![
                    "--query.enable".to_owned(),
                    "--query.timeout=10m".to_owned(),
                ],
            },
            peer: self.peer.address,
        };
        let port = free_port()?;
        let mut sidecar = Sidecar::spawn_with_grpc(self.bench, self.site, &launch, port)?;
        if cell.asked != Asked::QuerierOnIncumbent {
            sidecar.wait_for_address()?;
        }
        sidecar.wait_until("its gRPC port is open", || {
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })?;
        let run = match cell.asked.has_querier() {
            false => self.ask(cell, round, sidecar.address, [None, Some(sidecar.pid)])?,
            true => {
                let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                self.ask_querier(cell, round, is_counted, endpoint, sidecar.pid)?
            }
        };
        sidecar.stop()?;
        Ok(run)
    }

    fn ask_querier(
        &self,
        cell: QueryCell,
        round: u32,
        is_counted: bool,
        endpoint: SocketAddr,
        sidecar: i32,
    ) -> anyhow::Result<QueryRun> {
        let meter = is_counted.then(|| Meter::start(endpoint)).transpose()?;
        let endpoint = meter.as_ref().map_or(endpoint, |meter| meter.address);
        let mode = match cell.asked {
            // One that knows nobody to push down to.
            Asked::QuerierOnIncumbent => "local",
            _ => "distributed",
        };
        let querier = Querier::start(self.bench, mode, endpoint)?;
        self.wait_until_known(querier.address)?;
        let before = meter.as_ref().map(Meter::bytes);
        let pids = [Some(querier.pid), Some(sidecar)];
        let mut run = self.ask(cell, round, querier.address, pids)?;
        run.between_bytes = meter
            .as_ref()
            .zip(before)
            .map(|(meter, before)| meter.bytes() - before);
        querier.stop()?;
        Ok(run)
    }

    /// Until the querier finds a series by way of its endpoint.
    fn wait_until_known(&self, querier: SocketAddr) -> anyhow::Result<()> {
        let instance = "target-3-000000.example.internal:9100";
        let time = self.start_s + 600;
        let path =
            format!("/api/v1/query?query={COUNTER}%7Binstance%3D%22{instance}%22%7D&time={time}");
        let empty = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.len();
        let started = Instant::now();
        loop {
            self.bench.queriers.check()?;
            // It may not listen yet; an answer with a series is longer than one without, and than
            // any head.
            if get_body(querier, &path)
                .is_ok_and(|(body, series)| body > empty as u64 && series > 0)
            {
                return Ok(());
            }
            let waited = started.elapsed();
            anyhow::ensure!(
                waited < KNOWN_DEADLINE,
                "the querier does not find its endpoint"
            );
            std::thread::sleep(POLL);
        }
    }

    /// Asks, with what querier and sidecar use meanwhile.
    fn ask(
        &self,
        cell: QueryCell,
        round: u32,
        address: SocketAddr,
        [querier, sidecar]: [Option<i32>; 2],
    ) -> anyhow::Result<QueryRun> {
        let cpu = |pid: Option<i32>| pid.map_or(Ok(0), cpu_ms);
        let rss = |pid: Option<i32>| -> anyhow::Result<u64> {
            Ok(pid
                .map(Usage::of)
                .transpose()?
                .unwrap_or_default()
                .rss_peak_bytes)
        };
        let before = [cpu(querier)?, cpu(sidecar)?, self.peer.cpu_ms()?];
        let started = Instant::now();
        let (answer_bytes, series) = get_body(address, &cell.question.path(self.start_s))?;
        let total = started.elapsed();
        let expected = cell.question.series(self.series);
        anyhow::ensure!(
            series == expected,
            "{cell:?} answered {series} of {expected} series"
        );
        Ok(QueryRun {
            cell,
            round,
            total,
            answer_bytes,
            querier_cpu_ms: cpu(querier)? - before[0],
            sidecar_cpu_ms: cpu(sidecar)? - before[1],
            prometheus_cpu_ms: self.peer.cpu_ms()? - before[2],
            querier_rss_peak_bytes: rss(querier)?,
            sidecar_rss_peak_bytes: rss(sidecar)?,
            between_bytes: None,
        })
    }
}

/// Length of the answer's body, and how many series it has; by HTTP/1.0, and held nowhere.
fn get_body(address: SocketAddr, path: &str) -> anyhow::Result<(u64, u64)> {
    const NEEDLE: &[u8] = b"\"metric\":";
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut buffer = vec![0; 256 << 10];
    let (mut bytes, mut series, mut kept) = (0_u64, 0_u64, 0);
    let mut head = None;
    loop {
        let count = stream.read(&mut buffer[kept..])?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        let filled = &buffer[..kept + count];
        if head.is_none() {
            let status = filled.split(|byte| *byte == b' ').nth(1);
            let status = status.map(|status| String::from_utf8_lossy(status).into_owned());
            let text = String::from_utf8_lossy(filled).into_owned();
            anyhow::ensure!(status.as_deref() == Some("200"), "{path} answered {text}");
            head = text.find("\r\n\r\n");
        }
        series += memchr::memmem::find_iter(filled, NEEDLE).count() as u64;
        // The beginning of another one may be at the end.
        let end = filled.len();
        kept = end.min(NEEDLE.len() - 1);
        buffer.copy_within(end - kept..end, 0);
    }
    let head = head.context("no end of the head")? as u64 + 4;
    Ok((bytes - head, series))
}
