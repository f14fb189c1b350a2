//! A child process whose output is kept line by line, and which ends with its test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, eventually};

/// A running child. Dropped, it is killed; its log is printed where the test fails.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<LogLines>,
    changed: Condvar,
}

#[derive(Default)]
struct LogLines {
    lines: Vec<String>,
    is_closed: bool,
}

impl Process {
    pub(crate) fn spawn(name: &'static str, command: &mut Command) -> Self {
        let (output, input) = std::io::pipe().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(input.try_clone().unwrap())
            .stderr(input)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        // The command holds its ends of the pipe, which would keep the log open for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let log = Arc::new(Log::default());
        let sink = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                sink.push(String::from_utf8_lossy(&line).into_owned());
            }
            sink.close();
        });
        Self {
            name,
            child,
            log,
            reader: Some(reader),
        }
    }

    /// The first line of the log that `matches`, waiting for it.
    pub(crate) fn wait_for_line(&self, what: &str, matches: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = 0;
        let mut lines = self.log.lock();
        loop {
            if let Some(line) = lines.lines[seen..].iter().find(|line| matches(line)) {
                return line.clone();
            }
            seen = lines.lines.len();
            assert!(!lines.is_closed, "{} ended without {what}", self.name);
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} did not log {what}", self.name);
            lines = self.log.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Everything logged so far; everything ever once the process has ended.
    pub(crate) fn log(&self) -> String {
        self.log.lock().lines.join("\n")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the process to end by itself, and for the last line of its log.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let status = eventually(&what, || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Asks the process to end and waits for it.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Ends the process without a chance to do anything about it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let killed = self.child.kill().and_then(|()| self.child.wait());
            if let Err(error) = killed {
                eprintln!("could not end {}: {error}", self.name);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}\n---", self.name, self.log());
        }
    }
}

impl Log {
    /// Readable also after a test has failed while it held the lock.
    fn lock(&self) -> MutexGuard<'_, LogLines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: String) {
        self.lock().lines.push(line);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

/// The value of `key` in a logfmt line.
pub(crate) fn logfmt_value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let key = format!(" {key}=");
    let rest = &line[line.find(&key)? + key.len()..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(' ').next(),
    }
}
