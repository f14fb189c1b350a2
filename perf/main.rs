//! `make perf`: measures the sidecar binary from outside, as a process of its own.
//!
//! Six questions (each in its module): what shipping costs in CPU, time and memory, to S3 beside
//! plain `sendfile` ([`s3`]) and to a directory beside a plain copy ([`ship`]), how soon
//! a new block is in the bucket ([`latency`]), what answering queriers costs ([`store`]), what
//! PromQL costs ([`query`]), and what start and idling cost ([`start`]). Nothing is asserted about
//! figures; a run that did not do what it claims to have measured is an error.
//! `perf/RESULTS.md` says how to read and repeat it.
//!
//! The measuring runs on a thread of its own; the main thread waits for it or for a signal. Either
//! way the children that may be running end by their ids and the scratch directory is removed.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own: it reads its environment and measures with real clocks"
)]

mod block;
mod child;
mod copy;
mod discard;
mod follow;
mod latency;
mod machine;
mod peer;
mod querier;
mod query;
mod report;
mod s3;
mod sendfile;
mod settings;
mod ship;
mod sidecar;
mod start;
mod store;
mod usage;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use block::Load;
use child::ChildSlot;
use report::Report;
use settings::Settings;

/// As shells have it for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// What every measurement needs.
#[derive(Debug)]
struct Bench {
    settings: Settings,
    /// The outrigger that is measured.
    binary: PathBuf,
    /// On a disk; removed at the end.
    scratch: PathBuf,
    /// Holds whatever is measured now.
    children: Arc<ChildSlot>,
    /// Holds the S3 server that it sends to.
    servers: Arc<ChildSlot>,
    /// Holds the querier that asks it.
    queriers: Arc<ChildSlot>,
}

impl Bench {
    /// The program that outrigger replaces.
    fn incumbent(&self) -> anyhow::Result<PathBuf> {
        self.settings
            .incumbent
            .clone()
            .context("INCUMBENT is not set")
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [mode, bucket, blocks @ ..] if mode == copy::MODE => {
            copy::run(Path::new(bucket), blocks).map(|()| ExitCode::SUCCESS)
        }
        [mode, server, blocks @ ..] if mode == sendfile::MODE => {
            sendfile::run(&server.to_string_lossy(), blocks).map(|()| ExitCode::SUCCESS)
        }
        [mode, ca_file] if mode == discard::MODE => {
            discard::run(Path::new(ca_file)).map(|()| ExitCode::SUCCESS)
        }
        [binary] => measure(Path::new(binary)),
        _ => Err(anyhow::anyhow!("usage: perf <outrigger binary>")),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("perf: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure(binary: &Path) -> anyhow::Result<ExitCode> {
    let settings = Settings::from_environment()?;
    let directory = &settings.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    machine::refuse_memory(directory)?;
    let scratch = tempfile::Builder::new()
        .prefix("outrigger-perf.")
        .tempdir_in(directory)?;
    let bench = Bench {
        binary: std::path::absolute(binary)?,
        scratch: std::path::absolute(scratch.path())?,
        children: Arc::default(),
        servers: Arc::default(),
        queriers: Arc::default(),
        settings,
    };
    let slots = [&bench.queriers, &bench.children, &bench.servers].map(Arc::clone);
    let (done, ended) = oneshot::channel::<()>();
    let worker = std::thread::spawn(move || {
        // Its end, a panic's too, is what the other end of the channel hears.
        let _done = done;
        run(&bench)
    });
    let interrupted = wait(ended)?;
    if interrupted {
        slots.iter().for_each(|slot| slot.close());
    }
    let outcome = worker.join();
    // A measurement that failed has left its children.
    slots.iter().for_each(|slot| slot.close());
    scratch.close().context("remove the scratch directory")?;
    if interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    match outcome {
        Ok(outcome) => outcome.map(|()| ExitCode::SUCCESS),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Waits for the worker's end or a signal; whether it was a signal.
fn wait(ended: oneshot::Receiver<()>) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(tokio::select! {
            // Never sent to: it closes when the worker ends.
            _ = ended => false,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        })
    })
}

fn run(bench: &Bench) -> anyhow::Result<()> {
    let head = machine::describe(bench)?;
    let settings = &bench.settings;
    let start = settings
        .wants("start")
        .then(|| start::measure(bench).context("measure start and idling"))
        .transpose()?;
    let latency = settings
        .wants("latency")
        .then(|| latency::measure(bench).context("measure latency"))
        .transpose()?;
    let follow = settings
        .wants("follow")
        .then(|| follow::measure(bench).context("measure following Prometheus"))
        .transpose()?;
    let store = match settings.wants("store series") {
        true => store::measure(bench).context("measure StoreAPI")?,
        false => Vec::new(),
    };
    let query = match settings.wants("query") {
        true => query::measure(bench).context("measure queries")?,
        false => Vec::new(),
    };
    if !query.is_empty() && settings.only.iter().any(|word| word == "query") {
        report::print_query(&head, &query);
        return Ok(());
    }
    if !store.is_empty() && settings.only.iter().any(|word| word == "store") {
        report::print_store(&head, &store);
        return Ok(());
    }
    let load = Load::write(bench)?;
    let s3 = s3::measure(bench, &load).context("measure shipping to S3")?;
    let shipping = ship::measure(bench, &load).context("measure shipping")?;
    report::print(&Report {
        head: &head,
        load: &load,
        store: &store,
        query: &query,
        s3: &s3,
        shipping: &shipping,
        latency: latency.as_ref(),
        start: start.as_ref(),
        follow: follow.as_ref(),
    });
    Ok(())
}
