//! The binary under test.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::process::Signal;

use super::process::logfmt_value;
use super::{Process, eventually, get};

const BINARY: &str = env!("CARGO_BIN_EXE_outrigger");

/// The arguments of a sidecar that ships `data` to a FILESYSTEM bucket at `bucket`, on ports that
/// the kernel chooses, with a heartbeat quick enough for a test.
pub(crate) fn sidecar_arguments(prometheus: SocketAddr, data: &Path, bucket: &Path) -> Vec<String> {
    let bucket = format!(
        "type: FILESYSTEM\nconfig:\n  directory: {}\n",
        bucket.display()
    );
    arguments_with_bucket(prometheus, data, &bucket)
}

/// As [`sidecar_arguments`], for a bucket that this document names.
pub(crate) fn arguments_with_bucket(
    prometheus: SocketAddr,
    data: &Path,
    bucket: &str,
) -> Vec<String> {
    let mut arguments = vec![
        "sidecar".to_owned(),
        "--http-address=127.0.0.1:0".to_owned(),
        "--grpc-address=127.0.0.1:0".to_owned(),
        "--http-grace-period=10s".to_owned(),
        "--grpc-grace-period=10s".to_owned(),
        "--prometheus.get_config_interval=500ms".to_owned(),
        format!("--prometheus.url=http://{prometheus}/"),
        format!("--tsdb.path={}", data.display()),
        format!("--objstore.config={bucket}"),
    ];
    // `make test` runs what reads and ships once with each disk engine.
    if let Ok(engine) = std::env::var("OUTRIGGER_TEST_IO") {
        // Before the bucket, which some tests append to.
        arguments.insert(1, format!("--io.engine={engine}"));
    }
    arguments
}

/// A running outrigger; it ends with its test.
pub(crate) struct Outrigger {
    pub(crate) process: Process,
    address: SocketAddr,
}

impl Outrigger {
    /// Starts it and waits until its HTTP port answers.
    pub(crate) fn start(arguments: &[impl AsRef<str>]) -> Self {
        let arguments = arguments.iter().map(AsRef::as_ref);
        Self::start_command(Command::new(BINARY).args(arguments))
    }

    /// As [`Self::start`], with these variables in its environment.
    pub(crate) fn start_with_environment(
        variables: &[(&str, &str)],
        arguments: &[impl AsRef<str>],
    ) -> Self {
        let mut command = Command::new(BINARY);
        command.envs(variables.iter().copied());
        Self::start_command(command.args(arguments.iter().map(AsRef::as_ref)))
    }

    /// As [`Self::start`], below `unshare` so that it sees mounts of its own, which `prepare`
    /// (shell commands) makes first. They are gone with the process.
    pub(crate) fn start_with_mounts(prepare: &str, arguments: &[String]) -> Self {
        let mut command = Command::new("unshare");
        command.arg(if super::is_root() { "-m" } else { "-rm" });
        command.args([
            "--",
            "sh",
            "-c",
            &format!("{prepare} && exec \"$@\""),
            "sh",
            BINARY,
        ]);
        Self::start_command(command.args(arguments))
    }

    /// As [`Self::start`], by a command that becomes it in the end.
    pub(crate) fn start_command(command: &mut Command) -> Self {
        let process = Process::spawn("outrigger", command);
        let line = process.wait_for_line("its HTTP address", |line| {
            line.contains("listening for requests and metrics")
        });
        let address = logfmt_value(&line, "address").unwrap().parse().unwrap();
        Self { process, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves gRPC, once it does.
    pub(crate) fn grpc_address(&self) -> SocketAddr {
        let line = self.process.wait_for_line("its gRPC address", |line| {
            line.contains("listening for serving gRPC")
        });
        logfmt_value(&line, "address").unwrap().parse().unwrap()
    }

    /// What `/proc` tells of the process: a line of `status`, such as `VmRSS`, in its unit.
    pub(crate) fn proc_status(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        value.unwrap().parse().unwrap()
    }

    /// How many files and sockets it has open.
    pub(crate) fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// The value of the series that is written exactly so (name, and labels if any) at `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let (status, body) = get(self.address, "/metrics").unwrap();
        assert_eq!(status, 200);
        let line = body.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        line.map(|line| line[series.len() + 1..].trim().parse().unwrap())
    }

    /// Waits until the series has a value that `suits`.
    pub(crate) fn wait_for_metric(&self, series: &str, suits: impl Fn(f64) -> bool) -> f64 {
        let what = format!("{series} has the value waited for");
        eventually(&what, || self.metric(series).filter(|value| suits(*value)))
    }

    /// Status of a probe endpoint.
    pub(crate) fn probe(&self, path: &str) -> u16 {
        get(self.address, path).unwrap().0
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        (status, self.process.log())
    }
}

/// The binary with these arguments, not started yet.
pub(crate) fn outrigger_command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    command
}

/// Runs the binary until it ends by itself; exit code and all that it wrote to either stream.
pub(crate) fn run_to_end<A: AsRef<OsStr>>(arguments: &[A]) -> (i32, String) {
    run_command_to_end(&mut outrigger_command(arguments))
}

/// As [`run_to_end`].
pub(crate) fn run_command_to_end(command: &mut Command) -> (i32, String) {
    let mut process = Process::spawn("outrigger", command);
    let status = process.wait();
    let code = status.code().unwrap_or_else(|| panic!("ended by {status}"));
    (code, process.log())
}
