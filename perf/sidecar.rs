//! The outrigger that is measured: started over an empty data directory, with a bucket beside it.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::block::{self, Block, Load};
use crate::ship::Figures;
use crate::{Bench, usage};

/// How long anything may take; only reached where something is broken.
const DEADLINE: Duration = Duration::from_secs(1800);
/// How often the bucket is looked at: the error of a latency.
const POLL: Duration = Duration::from_millis(1);
/// After the labels are known the first pass looks through the empty directory.
const FIRST_PASS: Duration = Duration::from_millis(500);
/// Log lines shown where it fails.
const LOG_LINES: usize = 12;

/// A data directory and a bucket, removed with all that is in them at [`Site::remove`].
#[derive(Debug)]
pub(crate) struct Site {
    root: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) bucket: PathBuf,
}

impl Site {
    pub(crate) fn new(bench: &Bench, name: &str) -> anyhow::Result<Self> {
        let root = bench.scratch.join(name);
        let (data, bucket) = (root.join("data"), root.join("bucket"));
        fs::create_dir_all(data.join("wal"))?;
        fs::create_dir_all(&bucket)?;
        Ok(Self { root, data, bucket })
    }

    /// Puts a block into the data directory as Prometheus does: by one rename. When that was.
    pub(crate) fn put(&self, block: &Block) -> anyhow::Result<Instant> {
        let started = Instant::now();
        fs::rename(&block.path, self.data.join(&block.name))?;
        Ok(started)
    }

    /// The YAML document of the bucket in this site.
    pub(crate) fn objstore(&self) -> String {
        let bucket = self.bucket.display();
        format!("type: FILESYSTEM\nconfig:\n  directory: {bucket}\n")
    }

    /// Puts all blocks into the data directory. When that was.
    pub(crate) fn put_all(&self, load: &Load) -> anyhow::Result<Instant> {
        let started = Instant::now();
        for block in &load.blocks {
            self.put(block)?;
        }
        Ok(started)
    }

    /// Ends a run: what is cached of the files, the sidecar's end, the blocks back in their place.
    pub(crate) fn finish(
        self,
        load: &Load,
        sidecar: Sidecar<'_>,
        figures: impl FnOnce(Option<u64>) -> Figures,
    ) -> anyhow::Result<Figures> {
        let mut files = Vec::new();
        for block in &load.blocks {
            files.extend(block::files(&self.data.join(&block.name))?);
        }
        let figures = figures(usage::cached_bytes(&files)?);
        sidecar.stop()?;
        for block in &load.blocks {
            self.take_back(block)?;
        }
        self.remove()?;
        Ok(figures)
    }

    /// Takes it out again, for another run.
    pub(crate) fn take_back(&self, block: &Block) -> anyhow::Result<()> {
        Ok(fs::rename(self.data.join(&block.name), &block.path)?)
    }

    /// Where the block's `meta.json` will be.
    pub(crate) fn published(&self, block: &Block) -> PathBuf {
        self.bucket.join(&block.name).join("meta.json")
    }

    /// Whether the ledger has the block: outrigger is done with it.
    pub(crate) fn is_recorded(&self, block: &Block) -> anyhow::Result<bool> {
        // The incumbent has none until it is done with a block.
        match fs::read_to_string(self.data.join("thanos.shipper.json")) {
            Ok(ledger) => Ok(ledger.contains(&block.name)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails unless the bucket has every file of the block in its size.
    pub(crate) fn check_sizes(&self, block: &Block) -> anyhow::Result<()> {
        let source = self.data.join(&block.name);
        for path in block::files(&source)? {
            let relative = path.strip_prefix(&source)?;
            let copy = self.bucket.join(&block.name).join(relative);
            let (ours, theirs) = (fs::metadata(&path)?.len(), fs::metadata(&copy)?.len());
            let grows = relative == Path::new("meta.json");
            anyhow::ensure!(
                if grows { theirs > ours } else { theirs == ours },
                "{} has {theirs} bytes in the bucket and {ours} in its source",
                relative.display()
            );
        }
        Ok(())
    }

    pub(crate) fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(self.root)?)
    }
}

/// A running outrigger, held by the bench's child slot.
#[derive(Debug)]
pub(crate) struct Sidecar<'a> {
    bench: &'a Bench,
    pub(crate) pid: i32,
    pub(crate) address: SocketAddr,
    lines: Receiver<(Instant, String)>,
    recent: VecDeque<String>,
}

/// How a sidecar is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    /// The bucket's YAML document.
    pub(crate) objstore: String,
    /// What its command line has besides.
    pub(crate) flags: Vec<String>,
    pub(crate) peer: SocketAddr,
}

impl Launch {
    /// The outrigger that is measured, with the bucket of the site.
    pub(crate) fn outrigger(bench: &Bench, site: &Site, peer: SocketAddr) -> Self {
        Self {
            program: bench.binary.clone(),
            objstore: site.objstore(),
            flags: Vec::new(),
            peer,
        }
    }
}

impl<'a> Sidecar<'a> {
    /// Starts it, whoever it is.
    pub(crate) fn spawn(bench: &'a Bench, site: &Site, launch: &Launch) -> anyhow::Result<Self> {
        Self::spawn_with_grpc(bench, site, launch, 0)
    }

    /// As [`Self::spawn`], with gRPC on this port.
    pub(crate) fn spawn_with_grpc(
        bench: &'a Bench,
        site: &Site,
        launch: &Launch,
        grpc_port: u16,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&launch.program);
        command
            .args([
                "sidecar",
                "--http-address=127.0.0.1:0",
                "--http-grace-period=5s",
                "--grpc-grace-period=5s",
            ])
            .arg(format!("--grpc-address=127.0.0.1:{grpc_port}"))
            .arg(format!("--prometheus.url=http://{}", launch.peer))
            .arg(format!("--tsdb.path={}", site.data.display()))
            .arg(format!("--objstore.config={}", launch.objstore))
            .args(&launch.flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let (pid, stderr) = bench
            .children
            .spawn(&mut command, |child| (child.id(), child.stderr.take()))?;
        Ok(Self {
            bench,
            pid: i32::try_from(pid)?,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            lines: read_lines(stderr.context("its log")?),
            recent: VecDeque::new(),
        })
    }

    /// Starts outrigger and waits until it has said where it listens.
    pub(crate) fn start(bench: &'a Bench, site: &Site, launch: &Launch) -> anyhow::Result<Self> {
        let mut sidecar = Self::spawn(bench, site, launch)?;
        sidecar.wait_for_address()?;
        Ok(sidecar)
    }

    /// Waits until outrigger has said where it listens.
    pub(crate) fn wait_for_address(&mut self) -> anyhow::Result<()> {
        let line = self.wait_for_line("listening for requests and metrics")?;
        let address = line.split(" address=").nth(1).context("no address there")?;
        let address = address.trim_start_matches('"').split(['"', ' ']).next();
        self.address = address.unwrap_or_default().parse()?;
        Ok(())
    }

    /// As [`Self::start`], and waits until it idles over the empty data directory.
    pub(crate) fn start_idle(
        bench: &'a Bench,
        site: &Site,
        launch: &Launch,
    ) -> anyhow::Result<Self> {
        let mut sidecar = Self::start(bench, site, launch)?;
        sidecar.wait_for_labels()?;
        std::thread::sleep(FIRST_PASS);
        Ok(sidecar)
    }

    /// Waits until every part of it has begun its work, which the start of shipping is the last of.
    pub(crate) fn wait_for_labels(&mut self) -> anyhow::Result<()> {
        self.wait_for_line("shipping blocks with these external labels")
            .map(drop)
    }

    /// Waits until `path` exists.
    pub(crate) fn wait_for_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let what = path.display().to_string();
        self.wait_until(&what, || Ok(fs::exists(path)?))
    }

    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        holds: impl Fn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        while !holds()? {
            let checked = self.bench.children.check();
            self.with_log(checked)?;
            if started.elapsed() > DEADLINE {
                return self.with_log(Err(anyhow::anyhow!("within {DEADLINE:?} not: {what}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// SIGTERM; it must end well.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let status = self.bench.children.stop()?;
        let outcome = if status.success() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("outrigger ended with {status}"))
        };
        self.with_log(outcome)
    }

    /// An error where it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let checked = self.bench.children.check();
        self.with_log(checked)
    }

    /// An error with the last lines of its log.
    pub(crate) fn fail<T>(&mut self, what: &'static str) -> anyhow::Result<T> {
        self.with_log(Err(anyhow::anyhow!(what)))
    }

    pub(crate) fn wait_for_line(&mut self, text: &str) -> anyhow::Result<String> {
        let started = Instant::now();
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok((_, line)) if line.contains(text) => return Ok(line),
                Ok((_, line)) => self.remember(line),
                Err(RecvTimeoutError::Timeout) => self.bench.children.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    let ended = Err(anyhow::anyhow!("the sidecar ended and did not say: {text}"));
                    return self.with_log(ended);
                }
            }
            if started.elapsed() > DEADLINE {
                return self.with_log(Err(anyhow::anyhow!("no line in its log with: {text}")));
            }
        }
    }

    fn remember(&mut self, line: String) {
        self.recent.push_back(line);
        if self.recent.len() > LOG_LINES {
            self.recent.pop_front();
        }
    }

    /// Puts the last lines of the log to an error.
    fn with_log<T>(&mut self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        outcome.map_err(|error| {
            while let Ok((_, line)) = self.lines.try_recv() {
                self.remember(line);
            }
            let log = self.recent.make_contiguous().join("\n");
            error.context(format!("the last lines of its log:\n{log}\n"))
        })
    }
}

/// The lines that a child writes, and when they came.
pub(crate) fn read_lines(
    output: impl std::io::Read + Send + 'static,
) -> Receiver<(Instant, String)> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// `GET path` over a connection of its own; the body's length once all of it came.
pub(crate) fn get(address: SocketAddr, path: &str) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = String::from_utf8_lossy(&answer);
    anyhow::ensure!(
        head.split(' ').nth(1) == Some("200"),
        "{path} answered {head}"
    );
    Ok(answer.len())
}
