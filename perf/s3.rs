//! What shipping blocks to S3 costs: a server on loopback that discards them, over HTTP and HTTPS,
//! with the checks that a document without further keys gives and with the fewest, from cached
//! files and from the disk, by both engines; beside it the limit and whoever outrigger replaces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::block::{self, Load};
use crate::discard::{BEGIN, BUCKET, DiscardingS3, PUT};
use crate::sendfile;
use crate::ship::{Cache, Figures, prepare};
use crate::sidecar::{Launch, Sidecar, Site};
use crate::usage::{self, Usage};
use crate::{Bench, peer};

/// How long all blocks together may take; only reached where something is broken.
const DEADLINE: Duration = Duration::from_secs(1800);

/// How the bucket is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// What goes with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    /// What the document gives that says nothing about it.
    Defaults,
    /// `send_content_md5: false` and no signed payload.
    Fewest,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Uring,
    Pread,
    Sendfile,
    Incumbent,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) scheme: Scheme,
    pub(crate) checks: Checks,
    pub(crate) cache: Cache,
    pub(crate) sender: Sender,
}

/// One run of one cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct S3Run {
    pub(crate) cell: Cell,
    pub(crate) figures: Figures,
}

impl Cell {
    /// As `PERF_ONLY` is held against it.
    pub(crate) fn name(self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let checks = match self.checks {
            Checks::Defaults => "defaults",
            Checks::Fewest => "fewest",
        };
        let sender = match self.sender {
            Sender::Uring => "uring",
            Sender::Pread => "pread",
            Sender::Sendfile => "sendfile",
            Sender::Incumbent => "incumbent",
        };
        format!("s3 {scheme} {checks} {} {sender}", self.cache.name())
    }
}

/// Every cell, those next to each other that are to be compared.
pub(crate) fn cells(has_incumbent: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for scheme in [Scheme::Http, Scheme::Https] {
        for checks in [Checks::Defaults, Checks::Fewest] {
            for cache in [Cache::Warm, Cache::Cold] {
                let mut senders = vec![Sender::Uring, Sender::Pread];
                // It knows neither TLS nor checks: once is enough.
                if (scheme, checks) == (Scheme::Http, Checks::Fewest) {
                    senders.push(Sender::Sendfile);
                }
                if has_incumbent {
                    senders.push(Sender::Incumbent);
                }
                cells.extend(senders.into_iter().map(|sender| Cell {
                    scheme,
                    checks,
                    cache,
                    sender,
                }));
            }
        }
    }
    cells
}

pub(crate) fn measure(bench: &Bench, load: &Load) -> anyhow::Result<Vec<S3Run>> {
    let mut cells = cells(bench.settings.incumbent.is_some());
    cells.retain(|cell| bench.settings.wants(&cell.name()));
    let mut runs = Vec::new();
    if cells.is_empty() {
        return Ok(runs);
    }
    let peer = peer::start()?;
    let mut server = DiscardingS3::start(bench)?;
    for round in 1..=bench.settings.rounds {
        for cell in &cells {
            server.forget()?;
            prepare(bench, load, cell.cache)?;
            let figures = match cell.sender {
                Sender::Uring | Sender::Pread => ship(bench, load, *cell, peer, &server),
                Sender::Incumbent => ship_with_incumbent(bench, load, *cell, peer, &server),
                Sender::Sendfile => send(bench, load, &server),
            };
            let figures = figures.with_context(|| cell.name())?;
            eprintln!(
                "perf: round {round}: {}: {}",
                cell.name(),
                figures.summary()
            );
            runs.push(S3Run {
                cell: *cell,
                figures,
            });
        }
        // Every other round goes the other way, so that nobody always follows the same one.
        cells.reverse();
    }
    server.stop()?;
    Ok(runs)
}

/// The document, the same for whoever reads it.
fn document(cell: Cell, server: &DiscardingS3<'_>) -> String {
    let md5 = match cell.checks {
        Checks::Defaults => "",
        Checks::Fewest => "  send_content_md5: false\n",
    };
    let transport = match cell.scheme {
        Scheme::Http => format!("  endpoint: {}\n  insecure: true\n", server.http),
        Scheme::Https => format!(
            "  endpoint: {}\n  http_config:\n    tls_config:\n      ca_file: {}\n",
            server.https,
            server.ca_file.display()
        ),
    };
    format!(
        "type: S3\nconfig:\n  bucket: {BUCKET}\n  region: us-east-1\n  access_key: perf\n  \
         secret_key: perfperf\n  bucket_lookup_type: path\n{transport}{md5}"
    )
}

fn ship(
    bench: &Bench,
    load: &Load,
    cell: Cell,
    peer: SocketAddr,
    server: &DiscardingS3<'_>,
) -> anyhow::Result<Figures> {
    let site = Site::new(bench, "s3")?;
    let mut launch = Launch::outrigger(bench, &site, peer);
    launch.objstore = document(cell, server);
    let engine = match cell.sender {
        Sender::Pread => "pread",
        _ => "uring",
    };
    launch.flags.push(format!("--io.engine={engine}"));
    if cell.checks == Checks::Fewest {
        launch.flags.push("--s3.payload-signing=never".to_owned());
    }
    let mut sidecar = Sidecar::start_idle(bench, &site, &launch)?;
    let before = Usage::of(sidecar.pid)?;
    let started = site.put_all(load)?;
    let published = wait_for_blocks(&mut sidecar, load, server)?;
    let after = Usage::of(sidecar.pid)?;
    for block in &load.blocks {
        sidecar.wait_until("the block is recorded", || site.is_recorded(block))?;
    }
    published.check(load, &site)?;
    let wall = published.last.duration_since(started);
    site.finish(load, sidecar, |cached| {
        Figures::between(wall, &before, &after, cached)
    })
}

/// It looks for blocks only every 30 s, so it finds them there when it starts. The clock runs from
/// its first request; its start is in its CPU time.
fn ship_with_incumbent(
    bench: &Bench,
    load: &Load,
    cell: Cell,
    peer: SocketAddr,
    server: &DiscardingS3<'_>,
) -> anyhow::Result<Figures> {
    let site = Site::new(bench, "s3-incumbent")?;
    let launch = Launch {
        program: bench.incumbent()?,
        objstore: document(cell, server),
        flags: Vec::new(),
        peer,
    };
    site.put_all(load)?;
    let mut sidecar = Sidecar::spawn(bench, &site, &launch)?;
    let published = wait_for_blocks(&mut sidecar, load, server)?;
    let after = Usage::of(sidecar.pid)?;
    for block in &load.blocks {
        sidecar.wait_until("the block is recorded", || site.is_recorded(block))?;
    }
    published.check(load, &site)?;
    let wall = published.last.duration_since(published.first);
    site.finish(load, sidecar, |cached| {
        Figures::between(wall, &Usage::default(), &after, cached)
    })
}

fn send(bench: &Bench, load: &Load, server: &DiscardingS3<'_>) -> anyhow::Result<Figures> {
    let (wall, usage) = sendfile::measure(bench, load, server.http)?;
    let cached_bytes = usage::cached_bytes(&load.files()?)?;
    Ok(Figures::between(
        wall,
        &Usage::default(),
        &usage,
        cached_bytes,
    ))
}

/// What the server heard.
#[derive(Debug)]
struct Published {
    first: Instant,
    last: Instant,
    /// Sizes of what it was given, by object.
    objects: BTreeMap<String, u64>,
}

/// Waits until the server has every block's `meta.json`.
fn wait_for_blocks(
    sidecar: &mut Sidecar<'_>,
    load: &Load,
    server: &DiscardingS3<'_>,
) -> anyhow::Result<Published> {
    let started = Instant::now();
    let mut first = None;
    let mut objects = BTreeMap::new();
    let is_there = |objects: &BTreeMap<String, u64>| {
        let names = load
            .blocks
            .iter()
            .map(|block| format!("{}/meta.json", block.name));
        names.into_iter().all(|name| objects.contains_key(&name))
    };
    loop {
        sidecar.check()?;
        let Some((when, event)) = server.event()? else {
            if started.elapsed() > DEADLINE {
                return sidecar.fail("blocks were not published in time");
            }
            continue;
        };
        if event.starts_with(BEGIN) {
            first.get_or_insert(when);
        }
        if let Some((key, size)) = event.strip_prefix(PUT).and_then(|e| e.rsplit_once(' ')) {
            objects.insert(key.to_owned(), size.parse()?);
            if is_there(&objects) {
                return Ok(Published {
                    first: first.context("something was put, so it began")?,
                    last: when,
                    objects,
                });
            }
        }
    }
}

impl Published {
    /// Fails unless every file of every block came in its size.
    fn check(&self, load: &Load, site: &Site) -> anyhow::Result<()> {
        for block in &load.blocks {
            let source = site.data.join(&block.name);
            for path in block::files(&source)? {
                let relative = path.strip_prefix(&source)?;
                let key = format!("{}/{}", block.name, relative.display());
                let (ours, theirs) = (path.metadata()?.len(), self.objects.get(&key));
                let is_meta = relative.ends_with("meta.json");
                anyhow::ensure!(
                    theirs.is_some_and(|theirs| *theirs == ours || is_meta),
                    "{key} has {theirs:?} bytes in the bucket and {ours} in its source"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_cell_of_its_own_name() {
        for (has_incumbent, count) in [(false, 18), (true, 26)] {
            let mut names: Vec<String> = cells(has_incumbent).into_iter().map(Cell::name).collect();
            assert_eq!(names.len(), count);
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }
}
