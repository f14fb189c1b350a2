//! `outrigger bench upload` against a bucket in a directory: what it tells, and that it leaves
//! nothing behind, however it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::support::{Process, eventually};

/// A bucket and a place for generated files.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        for name in ["bucket", "scratch"] {
            fs::create_dir(site.0.path().join(name)).unwrap();
        }
        site
    }

    fn command(&self, flags: &[&str]) -> Command {
        let (bucket, scratch) = (self.0.path().join("bucket"), self.0.path().join("scratch"));
        let document = format!(
            "type: FILESYSTEM\nconfig: {{directory: {}}}",
            bucket.display()
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command
            .env_clear()
            .args(["bench", "upload", "--io.engine=pread"])
            .arg(format!("--objstore.config={document}"))
            .arg(format!("--scratch={}", scratch.display()))
            .args(flags);
        command
    }

    fn run(&self, flags: &[&str]) -> Output {
        self.command(flags).output().unwrap()
    }

    fn is_clean(&self) -> bool {
        let is_empty = |name: &str| fs::read_dir(self.0.path().join(name)).unwrap().count() == 0;
        is_empty("bucket") && is_empty("scratch")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Files below `directory`, however deep.
fn files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let counts = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path) } else { 1 }
    });
    counts.sum()
}

#[test]
fn a_run_is_told_and_leaves_nothing() {
    let site = Site::new();
    let flags = ["--size=5MiB", "--file-size=2MiB"];
    let told = json(&site.run(&[&flags[..], &["--output=json"]].concat()));
    assert_eq!(told["engine"]["name"], "pread");
    assert_eq!(told["bucket"]["type"], "FILESYSTEM");
    assert_eq!(
        (&told["files"]["count"], &told["files"]["origin"]),
        (&3.into(), &"generated".into())
    );
    let run = &told["runs"][0];
    assert_eq!(
        (&run["objects"], &run["bytes"]),
        (&3.into(), &(5 << 20).into())
    );
    assert!(run["gib_per_second"].as_f64().unwrap() > 0.0);
    let kinds: Vec<_> = run["latencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["kind"])
        .collect();
    assert_eq!(kinds, ["object", "confirm"]);
    assert_eq!(told["winner"], serde_json::Value::Null);
    assert!(site.is_clean());
    let output = site.run(&flags);
    let table = text(&output.stdout);
    assert!(
        output.status.success() && table.contains("CPU s/GiB"),
        "{table}"
    );
    assert!(
        table.contains("engine     pread, 40 buffers of 1 MiB: requested"),
        "{table}"
    );
    assert!(site.is_clean());
}

#[test]
fn a_sweep_runs_every_setting_and_names_the_winner() {
    let site = Site::new();
    let flags = [
        "--size=1MiB",
        "--file-size=100KiB",
        "--sweep=concurrency",
        "--output=json",
    ];
    let told = json(&site.run(&flags));
    let runs = told["runs"].as_array().unwrap();
    let settings: Vec<_> = runs
        .iter()
        .map(|run| run["concurrency"].as_u64().unwrap())
        .collect();
    assert_eq!(settings, [1, 2, 4, 8]);
    assert!(told["winner"].as_u64().unwrap() < 4);
    assert!(site.is_clean());
}

#[test]
fn given_files_are_uploaded_again_and_again_and_stay() {
    let site = Site::new();
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("chunks")).unwrap();
    fs::write(data.path().join("chunks/000001"), vec![7; 300_000]).unwrap();
    fs::write(data.path().join("empty"), "").unwrap();
    let flag = format!("--data={}", data.path().display());
    let told = json(&site.run(&[&flag, "--duration=50ms", "--output=json"]));
    assert_eq!(told["files"]["origin"], "given");
    let run = &told["runs"][0];
    assert!(run["objects"].as_u64().unwrap() >= 2 && run["seconds"].as_f64().unwrap() >= 0.05);
    assert_eq!(files(data.path()), 2);
    assert!(site.is_clean());
}

#[test]
fn a_signal_ends_it_with_130_and_nothing_stays() {
    for signal in [Signal::INT, Signal::TERM] {
        let site = Site::new();
        let flags = ["--size=8MiB", "--file-size=1MiB", "--duration=1h"];
        let mut bench = Process::spawn("bench", &mut site.command(&flags));
        eventually("an object", || {
            (files(&site.0.path().join("bucket")) > 0).then_some(())
        });
        bench.signal(signal);
        let status = bench.wait();
        assert_eq!(status.code(), Some(130), "{}", bench.log());
        assert!(site.is_clean());
    }
}

#[test]
fn what_cannot_be_measured_is_told_with_the_remedy() {
    let site = Site::new();
    for (flags, code, problem) in [
        (
            &["--io.engine=auto"][..],
            2,
            "flag 'io.engine' cannot be repeated",
        ),
        (&["--part-size=8MiB"], 1, "a FILESYSTEM bucket has no parts"),
        (
            &["--sweep=part-size"],
            1,
            "a FILESYSTEM bucket has no parts",
        ),
        (
            &["--data=/nonexistent"],
            1,
            "list /nonexistent: No such file",
        ),
        (
            &["--size=1000TiB", "--file-size=1TiB"],
            1,
            "give a smaller --size or another --scratch",
        ),
    ] {
        let output = site.run(flags);
        assert_eq!(output.status.code(), Some(code), "{flags:?}");
        let error = text(&output.stderr);
        assert!(
            error.lines().last().unwrap().contains(problem),
            "{flags:?}: {error}"
        );
        assert_eq!(text(&output.stdout), "");
    }
    assert!(site.is_clean());
    let bare = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.env_clear().args(["bench", "upload"]).args(flags);
        command.output().unwrap()
    };
    let output = bare(&["--io.engine=auto"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("a bench names its engine"));
    let output = bare(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("a bench needs a bucket: give --objstore.config-file"));
}

#[test]
fn a_bucket_that_refuses_ends_it_with_1_and_the_files_are_removed() {
    let site = Site::new();
    fs::remove_dir(site.0.path().join("bucket")).unwrap();
    fs::write(site.0.path().join("bucket"), "no directory").unwrap();
    let output = site.run(&["--size=1MiB"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("bench upload command failed: upload object"),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(site.0.path().join("scratch")).unwrap().count(),
        0
    );
}
