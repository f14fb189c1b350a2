//! A real Prometheus and promtool.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Signal;

use super::process::logfmt_value;
use super::{Process, eventually, get};

/// How a Prometheus is to be started.
#[derive(Clone, Debug)]
pub(crate) struct PrometheusSetup {
    pub(crate) external_labels: Vec<(&'static str, &'static str)>,
    /// Whether it scrapes itself, four times a second.
    pub(crate) scrapes_itself: bool,
    pub(crate) min_block_duration: &'static str,
    pub(crate) max_block_duration: &'static str,
    pub(crate) flags: Vec<String>,
}

impl Default for PrometheusSetup {
    /// Two external labels, compaction off, nothing scraped.
    fn default() -> Self {
        Self {
            external_labels: vec![("cluster", "eu-1"), ("replica", "0")],
            scrapes_itself: false,
            min_block_duration: "2h",
            max_block_duration: "2h",
            flags: Vec::new(),
        }
    }
}

impl PrometheusSetup {
    /// Cuts a block of its own metrics every two seconds.
    pub(crate) fn cutting_blocks() -> Self {
        Self {
            scrapes_itself: true,
            min_block_duration: "2s",
            max_block_duration: "2s",
            ..Self::default()
        }
    }

    fn config(&self, address: Option<SocketAddr>) -> String {
        let mut text = "global:\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\n".to_owned();
        if !self.external_labels.is_empty() {
            text.push_str("  external_labels:\n");
        }
        for (name, value) in &self.external_labels {
            text.push_str(&format!("    {name}: \"{value}\"\n"));
        }
        if let Some(address) = address.filter(|_| self.scrapes_itself) {
            text.push_str("scrape_configs:\n  - job_name: prometheus\n    static_configs:\n");
            text.push_str(&format!("      - targets: [\"{address}\"]\n"));
        }
        text
    }
}

/// A running Prometheus; it ends with its test.
pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    config: PathBuf,
}

impl Prometheus {
    /// Starts one over `data`, on a port that the kernel chooses, and waits until it is ready.
    pub(crate) fn start(data: &Path, setup: &PrometheusSetup) -> Self {
        let config = data.with_extension("prometheus.yml");
        fs::write(&config, setup.config(None)).unwrap();
        let mut command = Command::new(&programs().prometheus);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=90y")
            .arg(flag(
                "storage.tsdb.min-block-duration",
                setup.min_block_duration,
            ))
            .arg(flag(
                "storage.tsdb.max-block-duration",
                setup.max_block_duration,
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .args(&setup.flags);
        let process = Process::spawn("prometheus", &mut command);
        // The line before it repeats the address that was asked for, whose port is 0.
        let line = process.wait_for_line("its address", |line| {
            line.contains("Listening on") && line.contains("address=")
        });
        let address = logfmt_value(&line, "address").unwrap().parse().unwrap();
        let this = Self {
            process,
            address,
            config,
        };
        eventually("Prometheus is ready", || this.answers("/-/ready"));
        if setup.scrapes_itself {
            this.reload(setup);
        }
        this
    }

    /// Loads the configuration that `setup` means, and waits until it is in force.
    pub(crate) fn reload(&self, setup: &PrometheusSetup) {
        let loads = || {
            self.process
                .log()
                .matches("Completed loading of configuration")
                .count()
        };
        let before = loads();
        fs::write(&self.config, setup.config(Some(self.address))).unwrap();
        self.process.signal(Signal::HUP);
        eventually("Prometheus has reloaded", || {
            (loads() > before).then_some(())
        });
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    fn answers(&self, path: &str) -> Option<()> {
        get(self.address, path)
            .is_ok_and(|(status, _)| status == 200)
            .then_some(())
    }

    /// Whether it has the flag `--name`. Not its version is asked, which a build of one's own may
    /// not tell.
    pub(crate) fn has_flag(name: &str) -> bool {
        let output = Command::new(&programs().prometheus)
            .arg("--help")
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let mut flags = text.split_whitespace().filter_map(|word| {
            let word = word.strip_prefix("--")?;
            word.split(['=', ',']).next()
        });
        assert!(flags.clone().any(|flag| flag == "config.file"), "{text}");
        flags.any(|flag| flag == name)
    }
}

/// Runs promtool and returns what it prints; a failure is the test's.
pub(crate) fn promtool(arguments: &[&str]) -> String {
    let output = Command::new(&programs().promtool)
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

struct Programs {
    prometheus: PathBuf,
    promtool: PathBuf,
}

/// Where the programs are: the script decides, so that tests, demo and make agree.
fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch-prometheus");
        let output = Command::new(script).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "no Prometheus to test against: {stderr}"
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines().map(PathBuf::from);
        Programs {
            prometheus: lines.next().unwrap(),
            promtool: lines.next().unwrap(),
        }
    })
}
