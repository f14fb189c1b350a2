//! The reloader against files that change in every way and a Prometheus that follows a script.
//! The clock stands still while anything is to be done, so what takes no time was heard, and what
//! takes an interval was not.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use super::follow::retry_pause;
use super::*;
use crate::lifecycle::{Drain, DrainTrigger};
use crate::model::{Clock, ErrorChain, ReloadStatus, TimestampMs};

const HOUR: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(5);
/// Far less than any interval here: what is done within was heard.
const AT_ONCE: Duration = Duration::from_secs(1);
const NOW: TimestampMs = TimestampMs(1_700_000_000_123);

#[derive(Clone, Copy)]
enum Answer {
    Reloaded,
    /// Prometheus is there and does not take it.
    Verdict,
    /// It is not there.
    Away,
    Never,
    /// After this many seconds.
    ReloadedAfter(u64),
}

/// A scratch directory, a scripted Prometheus, and a reloader between them.
struct Scene {
    scratch: tempfile::TempDir,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pulls: watch::Sender<usize>,
    metrics: ReloaderMetrics,
    began: Instant,
    /// Whether it answers as by HTTP.
    is_exact: bool,
}

struct Running {
    task: tokio::task::JoinHandle<Result<(), StartError>>,
    status: watch::Receiver<ReloadStatus>,
    drain: DrainTrigger,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            scratch: tempfile::tempdir().unwrap(),
            answers: Arc::default(),
            pulls: watch::Sender::new(0),
            metrics: ReloaderMetrics::default(),
            began: Instant::now(),
            is_exact: false,
        };
        for dir in ["etc", "out", "rules"] {
            fs::create_dir(scene.at(dir)).unwrap();
        }
        scene.write("etc/p.yml", "replica: $(REPLICA)\n");
        scene
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::write(self.at(path), content).unwrap();
    }

    fn output(&self) -> io::Result<String> {
        fs::read_to_string(self.at("out/p.yml"))
    }

    /// What the next pulls are answered with; later ones succeed.
    fn answer(&self, answers: &[Answer]) {
        *self.answers.lock().unwrap() = answers.iter().copied().collect();
    }

    fn everything(&self) -> Files {
        Files {
            config_file: Some(self.at("etc/p.yml")),
            output: Some(self.at("out/p.yml")),
            rule_dirs: vec![self.at("rules")],
        }
    }

    fn rules_only(&self) -> Files {
        Files {
            rule_dirs: vec![self.at("rules")],
            ..Files::default()
        }
    }

    fn start(&self, files: Files, watch_interval: Duration) -> Running {
        let (answers, pulls) = (Arc::clone(&self.answers), self.pulls.clone());
        let script = move || {
            pulls.send_modify(|pulls| *pulls += 1);
            let answer = answers.lock().unwrap().pop_front();
            let answer = answer.unwrap_or(Answer::Reloaded);
            let pulled = async move {
                match answer {
                    Answer::Reloaded => Ok(()),
                    Answer::Verdict => Err(TriggerError::Failed),
                    Answer::Away => Err(TriggerError::Refused {
                        status: http::StatusCode::SERVICE_UNAVAILABLE,
                        message: "Service Unavailable".to_owned(),
                        url: "http://h/-/reload".to_owned(),
                    }),
                    Answer::Never => std::future::pending().await,
                    Answer::ReloadedAfter(seconds) => {
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                        Ok(())
                    }
                }
            };
            Box::pin(pulled) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
        };
        let config = ReloaderConfig {
            files,
            watch_interval,
            retry_interval: RETRY,
        };
        let dependencies = Dependencies {
            trigger: Trigger::Scripted {
                script: Arc::new(script),
                is_exact: self.is_exact,
            },
            variable: Arc::new(|name| (name == "REPLICA").then(|| OsString::from("replica-0"))),
            clock: Clock::fixed(i128::from(NOW.0) * 1_000_000),
            metrics: self.metrics.clone(),
        };
        let reloader = Reloader::new(config, dependencies);
        let (drain, draining) = Drain::new();
        Running {
            status: reloader.status(),
            task: tokio::spawn(reloader.run(draining)),
            drain,
        }
    }

    /// Waits for so many reloads in all; how long that took.
    async fn pulled(&self, count: usize) -> Duration {
        let began = Instant::now();
        let mut pulls = self.pulls.subscribe();
        let pulled = pulls.wait_for(|pulls| *pulls >= count);
        let waited = tokio::time::timeout(HOUR * 24, pulled).await;
        assert_eq!(*waited.expect("a reload").unwrap(), count);
        began.elapsed()
    }

    async fn pulled_at_once(&self, count: usize) {
        let took = self.pulled(count).await;
        assert!(took < AT_ONCE, "reload {count} took {took:?}");
    }

    /// Lets what was done so far have its consequences.
    async fn settled(&self) {
        tokio::time::sleep(AT_ONCE).await;
    }
}

impl Running {
    async fn wait_for(&mut self, suits: impl FnMut(&ReloadStatus) -> bool) -> ReloadStatus {
        let waited = tokio::time::timeout(HOUR * 24, self.status.wait_for(suits)).await;
        waited.expect("the status").unwrap().clone()
    }

    async fn fails(self) -> String {
        let ended = tokio::time::timeout(HOUR * 24, self.task).await;
        let error = ended.expect("an end").unwrap().unwrap_err();
        ErrorChain(&error).to_string()
    }

    async fn stops(self) {
        assert!(!self.task.is_finished(), "it ended by itself");
        self.drain.start();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_output_is_written_and_changes_are_reloaded_at_once() {
    let scene = Scene::new();
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    assert_eq!(scene.output().unwrap(), "replica: replica-0\n");
    let status = running.wait_for(|status| status.is_current).await;
    assert_eq!(status.last_success, Some(NOW));
    assert_eq!((status.last_failure, status.watched_dirs), (None, 3));
    assert_eq!(scene.metrics.last_reload_success.get(), 1_700_000_000);

    scene.write("etc/p.yml", "changed: $(REPLICA)\n");
    scene.pulled_at_once(2).await;
    assert_eq!(scene.output().unwrap(), "changed: replica-0\n");
    scene.write("rules/r.yml", "groups: []\n");
    scene.pulled_at_once(3).await;
    fs::remove_file(scene.at("rules/r.yml")).unwrap();
    scene.pulled_at_once(4).await;
    running.wait_for(|status| status.is_current).await;

    // The same again, another file, and a touch: nothing that Prometheus should know.
    let applies = scene.metrics.applies.get();
    scene.write("etc/p.yml", "changed: $(REPLICA)\n");
    scene.write("etc/other.yml", "");
    scene.settled().await;
    assert!(scene.metrics.applies.get() > applies, "it was looked at");
    scene.pulled(4).await;
    assert_eq!(scene.metrics.reloads.get(), 4);
    assert_eq!(scene.metrics.reloads_failed.get(), 0);
    assert_eq!(scene.metrics.watches.get(), 3);
    assert_eq!(scene.metrics.watch_errors.get(), 0);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn swaps_of_mounted_volumes_are_heard() {
    let scene = Scene::new();
    let volume = |dir: &str, version: &str, file: &str, content: &str| {
        let root = scene.at(dir);
        fs::create_dir_all(root.join(version)).unwrap();
        fs::write(root.join(version).join(file), content).unwrap();
        symlink(version, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    fs::remove_file(scene.at("etc/p.yml")).unwrap();
    volume("etc", "..1", "p.yml", "one\n");
    symlink("..data/p.yml", scene.at("etc/p.yml")).unwrap();
    volume("rules/team", "..1", "r.yml", "one\n");
    symlink("..data/r.yml", scene.at("rules/team/r.yml")).unwrap();
    let running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    assert_eq!(scene.output().unwrap(), "one\n");

    for (at, version) in (2..).step_by(2).zip(["..2", "..3"]) {
        volume("etc", version, "p.yml", version);
        fs::remove_dir_all(
            scene
                .at("etc")
                .join(if version == "..2" { "..1" } else { "..2" }),
        )
        .unwrap();
        scene.pulled_at_once(at).await;
        scene.settled().await;
        assert_eq!(scene.output().unwrap(), version);
        volume("rules/team", version, "r.yml", version);
        scene.pulled_at_once(at + 1).await;
        scene.settled().await;
    }
    assert_eq!(*scene.pulls.borrow(), 5, "one reload each");
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn rules_are_heard_in_new_directories_and_behind_symlinks() {
    let scene = Scene::new();
    scene.write("far.yml", "1");
    symlink("../far.yml", scene.at("rules/far.yml")).unwrap();
    let running = scene.start(scene.rules_only(), HOUR);
    scene.pulled_at_once(1).await;
    scene.write("far.yml", "2");
    scene.pulled_at_once(2).await;
    scene.settled().await;
    fs::create_dir_all(scene.at("rules/a/b")).unwrap();
    scene.settled().await;
    scene.write("rules/a/b/r.yml", "1");
    scene.pulled_at_once(3).await;
    scene.settled().await;
    // Replaced by a directory with other rules under the same name.
    fs::create_dir(scene.at("new")).unwrap();
    fs::write(scene.at("new/r.yml"), "2").unwrap();
    fs::rename(scene.at("rules"), scene.at("old")).unwrap();
    fs::rename(scene.at("new"), scene.at("rules")).unwrap();
    scene.pulled_at_once(4).await;
    scene.settled().await;
    scene.write("rules/r.yml", "3");
    scene.pulled_at_once(5).await;
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_heard_is_found_by_the_interval() {
    let scene = Scene::new();
    // The reference does not follow these either.
    fs::create_dir(scene.at("unheard")).unwrap();
    scene.write("unheard/r.yml", "1");
    let mut renamed = scene.at("unheard");
    symlink(&renamed, scene.at("link")).unwrap();
    let files = Files {
        rule_dirs: vec![scene.at("link")],
        ..Files::default()
    };
    let running = scene.start(files, HOUR);
    scene.pulled_at_once(1).await;
    scene.settled().await;
    // A writer that does not close its file.
    renamed.push("r.yml");
    let mut open = fs::OpenOptions::new().append(true).open(&renamed).unwrap();
    io::Write::write_all(&mut open, b"2").unwrap();
    let took = scene.pulled(2).await;
    assert!(took > HOUR / 2 && took <= HOUR, "{took:?}");
    drop(open);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_prometheus_that_is_not_there_is_asked_every_retry_interval() {
    let scene = Scene::new();
    scene.answer(&[Answer::Away; 30]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    let status = running
        .wait_for(|status| status.last_failure.is_some())
        .await;
    assert!(!status.is_current && status.last_success.is_none());
    let failure = status.last_failure.unwrap();
    assert_eq!(failure.at, NOW);
    let expected = "received non-200 response: 503 Service Unavailable: Service Unavailable";
    assert_eq!(failure.error, expected);
    assert_eq!(failure.remedy, Some("wait until Prometheus is ready"));
    assert_eq!(scene.metrics.last_reload_successful.get(), 0);
    for count in 2..=31 {
        let took = scene.pulled(count).await;
        assert!(took.abs_diff(RETRY) < AT_ONCE, "{count}: {took:?}");
    }
    let status = running.wait_for(|status| status.is_current).await;
    assert!(
        status.last_failure.is_some(),
        "the last one stays to be seen"
    );
    assert_eq!(scene.metrics.reloads.get(), 31);
    assert_eq!(scene.metrics.reloads_failed.get(), 30);
    assert_eq!(scene.metrics.last_reload_successful.get(), 1);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_prometheus_refuses_is_tried_less_often_until_it_changes() {
    let scene = Scene::new();
    scene.answer(&[Answer::Verdict; 4]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    for (count, pause) in [(2, RETRY), (3, RETRY * 2), (4, RETRY * 4)] {
        let took = scene.pulled(count).await;
        assert!(took.abs_diff(pause) < AT_ONCE, "{count}: {took:?}");
    }
    scene.write("etc/p.yml", "corrected\n");
    scene.pulled_at_once(5).await;
    running.wait_for(|status| status.is_current).await;
    // What is loaded is not loaded again.
    tokio::time::sleep(HOUR * 3).await;
    assert_eq!(*scene.pulls.borrow(), 5);
    assert!(scene.metrics.applies.get() >= 3);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_without_end_is_given_up_for_a_change_and_for_nothing_less() {
    let scene = Scene::new();
    scene.answer(&[Answer::Never, Answer::Reloaded]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    scene.write("rules/r.yml", "");
    fs::remove_file(scene.at("rules/r.yml")).unwrap();
    scene.settled().await;
    scene.write("etc/p.yml", "replica: $(REPLICA)\n");
    scene.settled().await;
    assert_eq!(*scene.pulls.borrow(), 1, "nothing new was found");
    scene.write("etc/p.yml", "changed\n");
    // The first success may be that of the reload before, so there is a second one.
    scene.pulled_at_once(3).await;
    running.wait_for(|status| status.is_current).await;
    scene.settled().await;
    assert_eq!(*scene.pulls.borrow(), 3);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_by_http_is_waited_for_and_a_change_meanwhile_is_reloaded_once() {
    let mut scene = Scene::new();
    scene.is_exact = true;
    scene.answer(&[Answer::ReloadedAfter(30)]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    for change in 0..5 {
        scene.write("rules/r.yml", &format!("# {change}\n"));
        scene.settled().await;
    }
    // Back to what the reload under way began with, which may have read any of the others.
    fs::remove_file(scene.at("rules/r.yml")).unwrap();
    scene.settled().await;
    assert_eq!(*scene.pulls.borrow(), 1, "Prometheus works off each");
    scene.pulled(2).await;
    running.wait_for(|status| status.is_current).await;
    scene.settled().await;
    assert_eq!(*scene.pulls.borrow(), 2);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_while_files_are_missing_is_not_taken_for_that_of_the_files() {
    let mut scene = Scene::new();
    scene.is_exact = true;
    scene.answer(&[Answer::ReloadedAfter(30)]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    fs::rename(scene.at("rules"), scene.at("away")).unwrap();
    running
        .wait_for(|status| status.last_failure.is_some())
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*scene.pulls.borrow(), 1, "nothing to reload meanwhile");
    assert!(!running.status.borrow().is_current);
    fs::rename(scene.at("away"), scene.at("rules")).unwrap();
    scene.pulled_at_once(2).await;
    running.wait_for(|status| status.is_current).await;
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_while_files_are_missing() {
    let scene = Scene::new();
    scene.answer(&[Answer::Away]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    fs::rename(scene.at("rules"), scene.at("away")).unwrap();
    let missing = |status: &ReloadStatus| {
        let failure = status.last_failure.as_ref();
        failure.is_some_and(|failure| failure.error.contains("rule-dir"))
    };
    running.wait_for(missing).await;
    tokio::time::sleep(RETRY * 4).await;
    assert_eq!(*scene.pulls.borrow(), 1);
    fs::rename(scene.at("away"), scene.at("rules")).unwrap();
    scene.pulled_at_once(2).await;
    running.wait_for(|status| status.is_current).await;
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_without_end_ends_after_a_while() {
    let scene = Scene::new();
    scene.answer(&[Answer::Never]);
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    // It may have succeeded after all, so the success of the next one is not believed.
    let took = scene.pulled(3).await;
    assert!(
        took.abs_diff(trigger::RELOAD_MAX + RETRY) < AT_ONCE,
        "{took:?}"
    );
    let status = running.wait_for(|status| status.is_current).await;
    assert_eq!(
        status.last_failure.unwrap().error,
        "no reload was seen within 180s"
    );
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn errors_at_run_time_keep_the_output_and_heal() {
    let scene = Scene::new();
    let mut running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    running.wait_for(|status| status.is_current).await;
    let mut failed = 0;
    let mut healed = 1;
    type Step<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn(), &'a str);
    let steps: [Step<'_>; 5] = [
        (
            "an unset variable",
            &|| scene.write("etc/p.yml", "\n$(NOT_SET)\n"),
            &|| scene.write("etc/p.yml", "set\n"),
            "/etc/p.yml, line 2: found reference to unset environment variable \"NOT_SET\"",
        ),
        (
            "an empty file",
            &|| scene.write("etc/p.yml", ""),
            &|| scene.write("etc/p.yml", "not empty\n"),
            "/etc/p.yml of --reloader.config-file is empty",
        ),
        (
            "a configuration that vanishes with its directory",
            &|| fs::remove_dir_all(scene.at("etc")).unwrap(),
            &|| {
                fs::create_dir(scene.at("etc")).unwrap();
                scene.write("etc/p.yml", "there again\n");
            },
            "/etc/p.yml, of --reloader.config-file: No such file",
        ),
        (
            "a symlink that leads nowhere",
            &|| symlink("nowhere", scene.at("rules/r.yml")).unwrap(),
            &|| scene.write("rules/nowhere", "now somewhere\n"),
            "/rules/r.yml, of --reloader.rule-dir: No such file",
        ),
        (
            "rules that vanish",
            &|| fs::remove_dir_all(scene.at("rules")).unwrap(),
            &|| fs::create_dir(scene.at("rules")).unwrap(),
            "/rules, of --reloader.rule-dir: No such file",
        ),
    ];
    for (what, harm, heal, error) in steps {
        let (output, before) = (scene.output().unwrap(), scene.metrics.applies_failed.get());
        harm();
        scene.settled().await;
        let status = running.wait_for(|status| !status.is_current).await;
        let told = status.last_failure.unwrap();
        assert!(told.error.contains(error), "{what}: {}", told.error);
        assert!(told.remedy.is_some_and(|remedy| !remedy.is_empty()));
        assert!(scene.metrics.applies_failed.get() > before, "{what}");
        let is_unset = i64::from(what == "an unset variable");
        assert_eq!(scene.metrics.expansion_errors.get(), is_unset, "{what}");
        assert_eq!(scene.output().unwrap(), output, "{what}");
        failed += 1;
        heal();
        healed += 1;
        scene.pulled_at_once(healed).await;
        running.wait_for(|status| status.is_current).await;
        assert_eq!(scene.metrics.expansion_errors.get(), 0, "{what}");
    }
    assert_eq!(failed, 5);
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn errors_at_start_end_it_with_file_and_remedy() {
    let unset = |scene: &Scene| scene.write("etc/p.yml", "$(NOT_SET)");
    let no_file = |scene: &Scene| fs::remove_file(scene.at("etc/p.yml")).unwrap();
    let a_dir = |scene: &Scene| {
        no_file(scene);
        fs::create_dir(scene.at("etc/p.yml")).unwrap();
    };
    let no_output_dir = |scene: &Scene| fs::remove_dir(scene.at("out")).unwrap();
    let no_rules = |scene: &Scene| fs::remove_dir(scene.at("rules")).unwrap();
    type Case<'a> = (&'a dyn Fn(&Scene), &'a str, &'a str);
    let cases: [Case<'_>; 5] = [
        (
            &unset,
            "set the variable",
            "line 1: found reference to unset",
        ),
        (
            &no_file,
            "make the path exist",
            "/etc/p.yml, of --reloader.config-file",
        ),
        (
            &a_dir,
            "name a file",
            "/etc/p.yml of --reloader.config-file is a directory",
        ),
        (
            &no_output_dir,
            "make the output's directory",
            "/out/p.yml.tmp, for --reloader.config-e",
        ),
        (
            &no_rules,
            "make the path exist",
            "/rules, of --reloader.rule-dir",
        ),
    ];
    for (harm, remedy, error) in cases {
        let scene = Scene::new();
        harm(&scene);
        let text = scene.start(scene.everything(), HOUR).fails().await;
        let expected = format!("applying the configuration at start failed; {remedy}");
        assert!(
            text.starts_with(&expected) && text.contains(error),
            "{text}"
        );
        assert_eq!(*scene.pulls.borrow(), 0);
    }
    let scene = Scene::new();
    no_rules(&scene);
    let text = scene.start(scene.rules_only(), HOUR).fails().await;
    assert!(text.contains("/rules, of --reloader.rule-dir"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn without_a_configuration_odd_rules_are_waited_out() {
    let scene = Scene::new();
    symlink("nowhere", scene.at("rules/r.yml")).unwrap();
    let mut running = scene.start(scene.rules_only(), HOUR);
    running
        .wait_for(|status| status.last_failure.is_some())
        .await;
    assert_eq!(*scene.pulls.borrow(), 0);
    fs::remove_file(scene.at("rules/r.yml")).unwrap();
    scene.pulled_at_once(1).await;
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_interval_of_zero_writes_once_and_ends() {
    let scene = Scene::new();
    fs::remove_dir(scene.at("rules")).unwrap();
    let running = scene.start(scene.everything(), Duration::ZERO);
    running.task.await.unwrap().unwrap();
    assert_eq!(scene.output().unwrap(), "replica: replica-0\n");
    assert_eq!(*scene.pulls.borrow(), 0);
    scene.write("etc/p.yml", "$(NOT_SET)");
    let text = scene
        .start(scene.everything(), Duration::ZERO)
        .fails()
        .await;
    assert!(text.contains("NOT_SET"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn with_nothing_to_watch_it_waits_for_the_drain() {
    let scene = Scene::new();
    let files = Files {
        output: Some(scene.at("out/p.yml")),
        ..Files::default()
    };
    for interval in [HOUR, Duration::ZERO] {
        let running = scene.start(files.clone(), interval);
        scene.settled().await;
        running.stops().await;
    }
    assert!(scene.output().is_err() && *scene.pulls.borrow() == 0);
}

#[tokio::test(start_paused = true)]
async fn an_output_among_the_rules_and_one_that_cannot_be_written_do_not_go_round() {
    let scene = Scene::new();
    let mut files = scene.everything();
    files.output = Some(scene.at("rules/p.yml"));
    let running = scene.start(files.clone(), HOUR);
    scene.pulled_at_once(1).await;
    scene.write("etc/p.yml", "changed\n");
    scene.pulled_at_once(2).await;
    tokio::time::sleep(RETRY).await;
    assert_eq!(*scene.pulls.borrow(), 2);
    fs::remove_file(scene.at("rules/p.yml")).unwrap();
    fs::create_dir(scene.at("rules/p.yml")).unwrap();
    scene.write("etc/p.yml", "changed again\n");
    scene.settled().await;
    let applies = scene.metrics.applies.get();
    tokio::time::sleep(RETRY * 10).await;
    assert!(
        scene.metrics.applies.get() <= applies + 1,
        "looks without end"
    );
    running.stops().await;
}

#[tokio::test(start_paused = true)]
async fn constant_changes_are_looked_at_a_few_times_a_second() {
    let scene = Scene::new();
    let running = scene.start(scene.everything(), HOUR);
    scene.pulled_at_once(1).await;
    for n in 0..500 {
        scene.write("rules/noise.yml", &n.to_string());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.settled().await;
    let (applies, took) = (scene.metrics.applies.get(), scene.began.elapsed());
    let looks_max = took.as_millis() / 200 + 1;
    assert!(
        u128::from(applies) <= looks_max,
        "{applies} looks in {took:?}"
    );
    assert!(applies >= 5, "{applies} looks in {took:?}");
    running.stops().await;
}

proptest! {
    #[test]
    fn pauses_lie_between_the_intervals_and_never_shrink(
        retry_ms in 1_u64..100_000, watch_ms in 1_u64..10_000_000, count in 1_u32..100,
    ) {
        let config = ReloaderConfig {
            files: Files::default(),
            watch_interval: Duration::from_millis(watch_ms),
            retry_interval: Duration::from_millis(retry_ms),
        };
        let longest = config.watch_interval.max(config.retry_interval);
        prop_assert_eq!(retry_pause(&config, 0), config.retry_interval);
        prop_assert_eq!(retry_pause(&config, 1), config.retry_interval);
        let pauses: Vec<Duration> = (1..=count).map(|n| retry_pause(&config, n)).collect();
        prop_assert!(pauses.is_sorted());
        for pause in pauses {
            prop_assert!(config.retry_interval <= pause && pause <= longest);
        }
    }
}
