//! Runs the commands of the pages: those marked `sh`, page by page and in order, beside a
//! Prometheus that scrapes itself and an outrigger that ships its blocks.
//!
//! The pages use the usual paths and ports. In place of these stand the test's own, which
//! [`Scene::own`] puts in; nothing else is changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::page::{Fence, Page, pages};
use crate::support::{
    Outrigger, Process, Prometheus, PrometheusSetup, Site, eventually, get, left_out, logfmt_value,
    outrigger_command, promtool_path,
};

/// The block of the pages.
const BLOCK: &str = "/prometheus/01M832Z2VM36AS85GBBFWHH438";

/// What a service is told beside what the page says, so that it takes ports of its own and ends
/// soon.
const OF_SERVICES: &str = " --http-address=127.0.0.1:0 --grpc-address=127.0.0.1:0 \
    --prometheus.get_config_interval=500ms --http-grace-period=10s --grpc-grace-period=10s";

const PAGES: &[&str] = &[
    "docs/metrics.md",
    "docs/migration.md",
    "docs/operations.md",
    "docs/security.md",
    "docs/troubleshooting.md",
    "docs/tuning.md",
];

/// Where the commands of one page run.
struct Scene {
    site: Site,
    block: PathBuf,
    prometheus: Prometheus,
    outrigger: Outrigger,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new();
        let blocks = site.backfill(2);
        let setup = PrometheusSetup {
            scrapes_itself: true,
            ..PrometheusSetup::default()
        };
        let prometheus = Prometheus::start(&site.data, &setup);
        let outrigger = site.start(prometheus.address(), &[]);
        for block in &blocks {
            site.wait_for_ledger(block);
        }
        // Commands ask StoreAPI for `up`.
        let query = "/api/v1/query?query=up";
        eventually("Prometheus has scraped itself", || {
            let (_, answer) = get(prometheus.address(), query).ok()?;
            answer.contains("\"value\"").then_some(())
        });
        let directory = site.scratch().join("bucket");
        let document = format!(
            "type: FILESYSTEM\nconfig:\n  directory: {}\n",
            directory.display()
        );
        fs::write(site.scratch().join("bucket.yml"), document).unwrap();
        let programs = site.scratch().join("bin");
        fs::create_dir(&programs).unwrap();
        fs::create_dir(site.scratch().join("here")).unwrap();
        let outrigger_path = PathBuf::from(outrigger_command::<&str>(&[]).get_program());
        symlink(outrigger_path, programs.join("outrigger")).unwrap();
        symlink(promtool_path(), programs.join("promtool")).unwrap();
        Self {
            block: blocks[0].clone(),
            site,
            prometheus,
            outrigger,
        }
    }

    /// The test's paths and addresses in place of the usual ones.
    fn own(&self, text: &str) -> String {
        let shown = |path: &Path| path.display().to_string();
        let scratch = self.site.scratch();
        let places = [
            (BLOCK, shown(&self.block)),
            ("/prometheus", shown(&self.site.data)),
            ("/etc/thanos/bucket.yml", shown(&scratch.join("bucket.yml"))),
            ("/var/tmp", shown(scratch)),
        ];
        let ports = [
            ("localhost:9090", self.prometheus.address()),
            ("localhost:10901", self.outrigger.grpc_address()),
            ("localhost:10902", self.outrigger.address()),
        ];
        let mut text = text.to_owned();
        for (usual, own) in places {
            text = with_path(&text, usual, &own);
        }
        for (usual, own) in ports {
            text = text.replace(usual, &own.to_string());
        }
        text
    }

    fn shell(&self, script: &str) -> Command {
        let programs = self.site.scratch().join("bin");
        let inherited = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .current_dir(self.site.scratch().join("here"))
            .env("PATH", format!("{}:{inherited}", programs.display()));
        command
    }

    fn run(&self, fence: &Fence) {
        let script = self.own(&fence.text);
        let mut process = Process::spawn("sh", &mut self.shell(&script));
        let status = process.wait();
        assert!(
            status.success(),
            "{}: {status}: {}",
            fence.place,
            process.log()
        );
    }

    /// Starts what goes on, waits until it is ready, and ends it.
    fn run_service(&self, fence: &Fence) {
        let command = self.own(fence.text.trim_end());
        assert!(command.starts_with("outrigger sidecar"), "{}", fence.place);
        let script = format!("exec {command}{OF_SERVICES}");
        let mut process = Process::spawn("outrigger", &mut self.shell(&script));
        let line = process.wait_for_line("its HTTP address", |line| {
            line.contains("listening for requests and metrics")
        });
        let address = logfmt_value(&line, "address").unwrap().parse().unwrap();
        eventually("the service is ready", || {
            let (status, _) = get(address, "/-/ready").ok()?;
            (status == 200).then_some(())
        });
        process.signal(Signal::TERM);
        let status = process.wait();
        assert!(
            status.success(),
            "{}: {status}: {}",
            fence.place,
            process.log()
        );
    }
}

/// `text` with `own` for `usual`, where that is a path by itself or the beginning of one.
fn with_path(text: &str, usual: &str, own: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(usual) {
        let (before, after) = (&rest[..at], &rest[at + usual.len()..]);
        let begins = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.');
        let ends = !after.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
        replaced.push_str(before);
        replaced.push_str(if begins && ends { own } else { usual });
        rest = after;
    }
    replaced + rest
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

fn run_page(path: &str) {
    let scene = Scene::new();
    let mut ran = 0;
    for fence in Page::read(path).fences() {
        match fence.info.as_str() {
            "sh" if fence.text.contains("curl") && !has_curl() => {
                left_out(&fence.place, "there is no curl to run it with");
            }
            "sh" => scene.run(&fence),
            "sh service" => scene.run_service(&fence),
            "console" | "yaml" | "ini" | "json" => continue,
            other => panic!("{}: what is `{other}`?", fence.place),
        }
        ran += 1;
    }
    assert!(ran > 0, "{path} has no command");
}

#[test]
fn the_commands_of_metrics_run() {
    run_page("docs/metrics.md");
}

#[test]
fn the_commands_of_migration_run() {
    run_page("docs/migration.md");
}

#[test]
fn the_commands_of_operations_run() {
    run_page("docs/operations.md");
}

#[test]
fn the_commands_of_security_run() {
    run_page("docs/security.md");
}

#[test]
fn the_commands_of_troubleshooting_run() {
    run_page("docs/troubleshooting.md");
}

#[test]
fn the_commands_of_tuning_run() {
    run_page("docs/tuning.md");
}

#[test]
fn each_page_is_run() {
    let all: Vec<String> = pages().into_iter().map(|page| page.path).collect();
    assert_eq!(all, PAGES);
}

#[test]
fn only_whole_paths_are_replaced() {
    let text = "a /prometheus b=/prometheus/x /etc/prometheus /prometheus.yml '/prometheus'";
    assert_eq!(
        with_path(text, "/prometheus", "/d"),
        "a /d b=/d/x /etc/prometheus /prometheus.yml '/d'"
    );
}
