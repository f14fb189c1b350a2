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
    /// Whether native histograms are kept, where a version has the key for it; before, a feature
    /// flag did the same.
    pub(crate) scrapes_histograms: bool,
    /// Further targets, of the job `extra`.
    pub(crate) targets: Vec<SocketAddr>,
    /// The text of a file with rules; none where empty.
    pub(crate) rules: &'static str,
    pub(crate) min_block_duration: &'static str,
    pub(crate) max_block_duration: &'static str,
    pub(crate) retention: &'static str,
    /// How old samples may be that are older than others of their series; none where empty.
    pub(crate) out_of_order: &'static str,
    pub(crate) flags: Vec<String>,
}

impl Default for PrometheusSetup {
    /// Two external labels, compaction off, nothing scraped.
    fn default() -> Self {
        Self {
            external_labels: vec![("cluster", "eu-1"), ("replica", "0")],
            scrapes_itself: false,
            scrapes_histograms: false,
            targets: Vec::new(),
            rules: "",
            min_block_duration: "2h",
            max_block_duration: "2h",
            retention: "90y",
            out_of_order: "",
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
        // The flag is of the versions that have the key.
        if self.scrapes_histograms && Prometheus::has_flag("storage.tsdb.delay-compact-file.path") {
            text.push_str("  scrape_native_histograms: true\n");
        }
        if !self.external_labels.is_empty() {
            text.push_str("  external_labels:\n");
        }
        for (name, value) in &self.external_labels {
            text.push_str(&format!("    {name}: \"{value}\"\n"));
        }
        if !self.out_of_order.is_empty() {
            let window = self.out_of_order;
            text.push_str(&format!(
                "storage:\n  tsdb:\n    out_of_order_time_window: {window}\n"
            ));
        }
        if !self.rules.is_empty() {
            text.push_str(&format!("rule_files:\n  - {RULES_FILE}\n"));
        }
        text.push_str("scrape_configs:\n");
        if self.scrapes_itself {
            text.push_str(&scrape_config("prometheus", address));
        }
        for &target in &self.targets {
            text.push_str(&scrape_config("extra", Some(target)));
        }
        text
    }
}

/// Beside the configuration, which names it.
const RULES_FILE: &str = "rules.yml";

/// A job of one target, or of none yet.
fn scrape_config(job: &str, target: Option<SocketAddr>) -> String {
    let target = target
        .map(|target| format!("\"{target}\""))
        .unwrap_or_default();
    format!("  - job_name: {job}\n    static_configs:\n      - targets: [{target}]\n")
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
        let this = Self::spawn(data, setup);
        eventually("Prometheus is ready", || this.answers("/-/ready"));
        if setup.scrapes_itself {
            this.reload(setup);
        }
        this
    }

    /// As [`Self::start`], and waits until it listens: for one that lets in not everybody.
    pub(crate) fn spawn(data: &Path, setup: &PrometheusSetup) -> Self {
        let config = data.with_extension("prometheus.yml");
        fs::write(&config, setup.config(None)).unwrap();
        fs::write(config.with_file_name(RULES_FILE), setup.rules).unwrap();
        Self::run(&programs().prometheus, data, &config, setup)
    }

    /// As [`Self::start`], with a configuration that is there already, as a process of this name.
    pub(crate) fn start_with_config(
        name: &str,
        data: &Path,
        config: &Path,
        setup: &PrometheusSetup,
    ) -> Self {
        // The kernel takes the name from the path.
        let program = data.with_extension("program").join(name);
        fs::create_dir(program.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&programs().prometheus, &program).unwrap();
        let this = Self::run(&program, data, config, setup);
        eventually("Prometheus is ready", || this.answers("/-/ready"));
        this
    }

    fn run(program: &Path, data: &Path, config: &Path, setup: &PrometheusSetup) -> Self {
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(flag("storage.tsdb.retention.time", setup.retention))
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
        Self {
            process,
            address,
            config: config.to_owned(),
        }
    }

    /// Loads the configuration that `setup` means, and waits until it is in force.
    pub(crate) fn reload(&self, setup: &PrometheusSetup) {
        self.load(&setup.config(Some(self.address)));
    }

    /// Takes away what it scrapes and keeps the job, so that the series get stale markers.
    pub(crate) fn stop_scraping(&self, setup: &PrometheusSetup) {
        self.load(&setup.config(None));
    }

    fn load(&self, config: &str) {
        let loads = || {
            self.process
                .log()
                .matches("Completed loading of configuration")
                .count()
        };
        let before = loads();
        fs::write(&self.config, config).unwrap();
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

/// Where promtool is.
pub(crate) fn promtool_path() -> &'static Path {
    &programs().promtool
}

/// Whether promtool ends well.
pub(crate) fn promtool_accepts(arguments: &[&str]) -> bool {
    let output = Command::new(&programs().promtool).args(arguments).output();
    output.unwrap().status.success()
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
