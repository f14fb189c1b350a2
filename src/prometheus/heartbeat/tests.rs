//! The state machine against a Prometheus that comes, goes, replays and changes.

use std::sync::Mutex;

use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::lifecycle::{DrainTrigger, ProbeMetrics};
use crate::model::TimeRange;
use crate::net::http::{Reply, ScriptedServer, StoppedClock, response, until};
use crate::prometheus::{Config, HttpClientConfig, LabelsError, LoadedBlocks, await_labels};

const INTERVAL: Duration = Duration::from_secs(30);
/// tokio rounds timers up to whole milliseconds.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// A `--min-time` before any sample.
const FROM_THE_FIRST: &str = "0001-01-01T00:00:00Z";
const NOW_MS: i64 = 1_700_000_000_000;

/// What the scripted Prometheus does next.
#[derive(Clone)]
struct Script {
    status: Status,
    yaml: String,
    metrics: Vec<u8>,
    flags: &'static str,
    /// `None` is a Prometheus before 3.6.
    blocks: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Up,
    /// 503 to all but the replay's progress and `/metrics`.
    Replaying,
    /// Connections are closed without an answer.
    Gone,
}

struct Bench {
    clock: StoppedClock,
    script: Arc<Mutex<Script>>,
    server: ScriptedServer,
    watch: PeerWatch,
    probe: Probe,
    metrics: PeerMetrics,
    trigger: DrainTrigger,
    task: JoinHandle<Result<(), HeartbeatError>>,
}

fn yaml(labels: &str) -> String {
    format!("global:\n  external_labels: {labels}\n")
}

fn gauge(seconds: &str) -> Vec<u8> {
    let text = format!("prometheus_tsdb_lowest_timestamp_seconds {seconds}\n");
    response("200 OK", &[], text)
}

fn answer(script: &Script, path: &str) -> Reply {
    let ok = |data: String| {
        let body = format!(r#"{{"status":"success","data":{data}}}"#);
        Reply::Bytes(response("200 OK", &[], body))
    };
    let replay = r#"{"min":0,"max":7,"current":3}"#;
    match (script.status, path) {
        (Status::Gone, _) => Reply::Close(Vec::new()),
        (_, "/metrics") => Reply::Bytes(script.metrics.clone()),
        (Status::Replaying, path) if !path.ends_with("/walreplay") => Reply::Bytes(response(
            "503 Service Unavailable",
            &[],
            "Service Unavailable",
        )),
        (_, "/api/v1/status/walreplay") => ok(replay.to_owned()),
        (_, "/api/v1/status/buildinfo") => ok(r#"{"version":"3.9.0"}"#.to_owned()),
        (_, "/api/v1/status/config") => ok(serde_json::json!({"yaml": script.yaml}).to_string()),
        (_, "/api/v1/status/flags") => ok(script.flags.to_owned()),
        (_, "/api/v1/status/tsdb/blocks") => match script.blocks {
            Some(blocks) => ok(blocks.to_owned()),
            None => Reply::Bytes(response("404 Not Found", &[], "404 page not found\n")),
        },
        (_, other) => panic!("{other}"),
    }
}

async fn start(
    status: Status,
    labels: &str,
    min_time: &str,
    uploads: Option<FlagExpectations>,
) -> Bench {
    let clock = StoppedClock::stop();
    let script = Arc::new(Mutex::new(Script {
        status,
        yaml: yaml(labels),
        metrics: gauge("1.6e+09"),
        flags: r#"{"storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"2h"}"#,
        blocks: None,
    }));
    let shared = Arc::clone(&script);
    let server =
        ScriptedServer::start(move |seen| answer(&shared.lock().unwrap(), seen.path())).await;
    let client = Client::new(Config {
        url: server.url("/").parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    });
    let mut registry = Registry::default();
    let probe = Probe::new(ProbeMetrics::register(&mut registry));
    let metrics = PeerMetrics::register(&mut registry);
    let config = HeartbeatConfig {
        interval: INTERVAL,
        // The clock only moves between exchanges, so this never ends one by chance.
        timeout: INTERVAL,
        min_time: min_time.parse().unwrap(),
        clock: Clock::fixed(i128::from(NOW_MS) * 1_000_000),
        uploads,
    };
    let (heartbeat, watch) =
        Heartbeat::new(config, client.unwrap(), probe.clone(), metrics.clone());
    let (trigger, drain) = Drain::new();
    let task = tokio::spawn(heartbeat.run(drain));
    Bench {
        clock,
        script,
        server,
        watch,
        probe,
        metrics,
        trigger,
        task,
    }
}

/// Starts one that checks Prometheus' flags before the labels.
async fn start_uploading(status: Status) -> Bench {
    start(status, "{a: b}", FROM_THE_FIRST, Some(uploads(false))).await
}

impl Bench {
    fn state(&self) -> PeerState {
        self.watch.state.borrow().clone()
    }

    fn script(&self) -> Script {
        self.script.lock().unwrap().clone()
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn requests(&self, path: &str) -> usize {
        self.server
            .seen()
            .iter()
            .filter(|seen| seen.path() == path)
            .count()
    }

    /// One interval passes; `path` is the last that the iteration asks for.
    async fn tick(&self, path: &str) {
        let before = self.requests(path);
        self.clock.advance(INTERVAL + TIMER_STEP).await;
        until(path, || self.requests(path) > before).await;
        self.settle().await;
    }

    /// The iteration has its answer: the heartbeat has nothing left but its timer.
    async fn settle(&self) {
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
    }

    async fn loaded(&self) {
        until("labels", || self.state().loaded).await;
        until("metrics", || self.requests("/metrics") > 0).await;
        self.settle().await;
    }

    async fn drained(self) {
        self.trigger.start();
        self.task.await.unwrap().unwrap();
        assert!(!self.probe.is_ready());
    }
}

#[tokio::test]
async fn a_healthy_prometheus_is_loaded_at_once() {
    let bench = start(Status::Up, "{replica: 0}", FROM_THE_FIRST, None).await;
    assert_eq!(bench.metrics.up.get(), 0);
    bench.loaded().await;
    let state = bench.state();
    assert_eq!(state.labels.0.to_string(), r#"{replica="0"}"#);
    assert_eq!(*bench.watch.labels.borrow(), state.labels);
    assert_eq!(state.mint, TimestampMs(1_600_000_000_000));
    assert_eq!(state.maxt, TimestampMs(i64::MAX));
    assert_eq!(state.build_version, "3.9.0");
    assert!(state.up && state.flags_accepted && !state.replaying);
    assert!(bench.probe.is_ready());
    assert_eq!(bench.metrics.up.get(), 1);
    assert_eq!(
        bench.requests("/api/v1/status/flags"),
        0,
        "only asked for uploads"
    );
    for beats in 2..5 {
        bench.tick("/metrics").await;
        assert_eq!(bench.requests("/api/v1/status/config"), beats);
        assert_eq!(bench.requests("/api/v1/status/buildinfo"), 1);
    }
    bench.drained().await;
}

#[tokio::test]
async fn no_external_labels_at_first_are_fatal() {
    let bench = start(Status::Up, "{}", FROM_THE_FIRST, None).await;
    let error = bench.task.await.unwrap().unwrap_err();
    assert!(
        error.to_string().starts_with(
            "no external labels configured on Prometheus server, uniquely identifying external \
             labels must be configured; see "
        ),
        "{error}"
    );
    assert!(!bench.probe.is_ready());
}

#[tokio::test]
async fn half_an_hour_of_replay_ends_nothing_and_its_end_is_seen_at_once() {
    let bench = start_uploading(Status::Replaying).await;
    let budget = Duration::from_secs(600);
    let labels = tokio::spawn(await_labels(bench.watch.state.clone(), budget));
    until("replay", || bench.state().replaying).await;
    // The clock makes larger steps than the flags are asked at.
    for _ in 0..30 * 30 {
        bench.clock.advance(Duration::from_secs(2)).await;
        bench.settle().await;
        assert!(bench.state().replaying);
    }
    until("progress", || {
        bench.requests("/api/v1/status/walreplay") > 0
    })
    .await;
    assert!(!bench.task.is_finished() && !labels.is_finished());
    assert_eq!(bench.metrics.up.get(), 0);
    assert!(!bench.probe.is_ready());
    assert!(bench.state().replaying && !bench.state().up);

    bench.set(|script| script.status = Status::Up);
    let moved = Instant::now();
    while !bench.state().loaded {
        assert!(moved.elapsed() < Duration::from_secs(1), "seen at once");
        bench.clock.advance(Duration::from_millis(40)).await;
        bench.settle().await;
    }
    assert_eq!(labels.await.unwrap().unwrap().0.to_string(), r#"{a="b"}"#);
    assert!(bench.probe.is_ready() && !bench.state().replaying);
    assert_eq!(bench.metrics.up.get(), 1);
    bench.drained().await;
}

#[tokio::test]
async fn a_replay_after_a_restart_is_told_and_keeps_what_is_known() {
    let bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.loaded().await;
    bench.set(|script| script.status = Status::Replaying);
    bench.tick("/api/v1/status/walreplay").await;
    let state = bench.state();
    assert!(state.replaying && !state.up && !bench.probe.is_ready());
    assert_eq!(state.labels.0.to_string(), r#"{a="b"}"#);
    bench.set(|script| script.status = Status::Up);
    bench.tick("/metrics").await;
    assert!(bench.state().up && !bench.state().replaying && bench.probe.is_ready());
    bench.drained().await;
}

#[tokio::test]
async fn a_prometheus_that_goes_away_is_down_until_it_is_back() {
    let mut bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.loaded().await;
    bench.watch.labels.mark_unchanged();
    bench.set(|script| script.status = Status::Gone);
    for _ in 0..3 {
        bench.tick("/api/v1/status/config").await;
        assert!(!bench.state().up && !bench.state().replaying && !bench.probe.is_ready());
        assert_eq!(bench.metrics.up.get(), 0);
        assert_eq!(bench.state().labels.0.to_string(), r#"{a="b"}"#);
        assert_eq!(bench.state().mint, TimestampMs(1_600_000_000_000));
    }
    bench.set(|script| script.status = Status::Up);
    bench.tick("/metrics").await;
    assert!(bench.state().up && bench.probe.is_ready());
    assert!(
        !bench.watch.labels.has_changed().unwrap(),
        "the labels never changed"
    );
    bench.drained().await;
}

#[tokio::test]
async fn a_prometheus_that_is_away_at_start_is_waited_for() {
    let bench = start(Status::Gone, "{a: b}", FROM_THE_FIRST, None).await;
    until("first try", || {
        bench.requests("/api/v1/status/buildinfo") > 0
    })
    .await;
    bench.settle().await;
    for _ in 0..20 {
        bench.tick("/api/v1/status/buildinfo").await;
    }
    assert!(!bench.task.is_finished() && !bench.state().loaded);
    bench.set(|script| script.status = Status::Up);
    bench.tick("/metrics").await;
    assert!(bench.state().loaded && bench.probe.is_ready());
    bench.drained().await;
}

#[tokio::test]
async fn a_change_of_labels_is_published_once_and_their_loss_accepted() {
    let mut bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.loaded().await;
    bench.watch.labels.mark_unchanged();
    bench.tick("/metrics").await;
    assert!(!bench.watch.labels.has_changed().unwrap());
    bench.set(|script| script.yaml = yaml("{a: c}"));
    bench.tick("/metrics").await;
    assert!(bench.watch.labels.has_changed().unwrap());
    assert_eq!(
        bench.watch.labels.borrow_and_update().0.to_string(),
        r#"{a="c"}"#
    );
    bench.tick("/metrics").await;
    assert!(!bench.watch.labels.has_changed().unwrap());
    bench.set(|script| script.yaml = yaml("{}"));
    bench.tick("/metrics").await;
    assert!(bench.watch.labels.borrow_and_update().is_empty());
    assert!(bench.probe.is_ready() && bench.state().up);
    bench.drained().await;
}

#[tokio::test]
async fn a_stale_or_missing_lowest_time_makes_nothing_unready() {
    let bench = start(Status::Up, "{a: b}", "2020-01-01T00:00:00Z", None).await;
    let min_time = TimestampMs(1_577_836_800_000);
    bench.set(|script| script.metrics = response("500 Oops", &[], "no"));
    bench.loaded().await;
    assert!(bench.probe.is_ready());
    assert_eq!((bench.state().mint, bench.state().lowest), (min_time, None));
    let known = TimestampMs(1_600_000_000_000);
    for (metrics, expected) in [
        (gauge("1.6e+09"), known),
        (response("200 OK", &[], "<html></html>"), known),
        (gauge("9.223372036854776e+15"), min_time),
        (gauge("1"), min_time),
    ] {
        bench.set(|script| script.metrics = metrics);
        bench.tick("/metrics").await;
        assert_eq!(bench.state().mint, expected);
        assert!(bench.probe.is_ready() && bench.state().up);
    }
    bench.drained().await;
}

#[tokio::test]
async fn a_relative_min_time_bounds_the_oldest_sample() {
    let bench = start(Status::Up, "{a: b}", "-1d", None).await;
    bench.loaded().await;
    assert_eq!(bench.state().mint, TimestampMs(NOW_MS - 86_400_000));
    bench.drained().await;
}

#[tokio::test]
async fn an_iteration_that_takes_too_long_is_a_failure() {
    let bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.loaded().await;
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec();
    bench.set(|script| script.metrics = endless);
    bench.tick("/metrics").await;
    assert!(bench.probe.is_ready(), "the labels were there in time");
    let configs = bench.requests("/api/v1/status/config");
    bench.clock.advance(INTERVAL + TIMER_STEP).await;
    until("the next beat", || {
        bench.requests("/api/v1/status/config") > configs
    })
    .await;
    assert!(
        bench.probe.is_ready(),
        "a slow exposition does not hold up the labels"
    );
    bench.drained().await;
}

fn uploads(ignore_unequal_block_size: bool) -> FlagExpectations {
    FlagExpectations {
        data_dir: "/data".into(),
        meta_file_name: "thanos.shipper.json".into(),
        ignore_unequal_block_size,
        current_dir: "/".into(),
    }
}

#[tokio::test]
async fn flags_that_forbid_uploads_are_retried_and_end_the_wait_for_labels() {
    let bench = start_uploading(Status::Up).await;
    bench.set(|script| {
        script.flags =
            r#"{"storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"31d"}"#;
    });
    let budget = Duration::from_secs(600);
    let labels = tokio::spawn(await_labels(bench.watch.state.clone(), budget));
    until("flags", || bench.requests("/api/v1/status/flags") > 0).await;
    bench.settle().await;
    for _ in 0..20 {
        bench.tick("/api/v1/status/flags").await;
        assert!(!bench.state().flags_accepted && !bench.probe.is_ready());
    }
    let error = labels.await.unwrap().unwrap_err();
    assert!(matches!(error, LabelsError::NoneFound { .. }), "{error:?}");
    assert_eq!(bench.requests("/api/v1/status/config"), 0);
    bench.drained().await;
}

#[tokio::test]
async fn flags_put_right_let_the_start_go_on() {
    let bench = start_uploading(Status::Up).await;
    bench.set(|script| {
        script.flags =
            r#"{"storage.tsdb.delay-compact-file.path":"/elsewhere/thanos.shipper.json"}"#;
    });
    until("flags", || bench.requests("/api/v1/status/flags") > 0).await;
    bench.settle().await;
    bench.tick("/api/v1/status/flags").await;
    assert!(!bench.state().loaded);
    bench.set(|script| {
        script.flags = r#"{"storage.tsdb.delay-compact-file.path":"/data/thanos.shipper.json"}"#;
    });
    bench.tick("/metrics").await;
    assert!(bench.state().loaded && bench.state().flags_accepted);
    bench.drained().await;
}

#[test]
fn a_file_that_does_not_exist_yet_is_resolved_by_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    std::fs::create_dir(real.join("data")).unwrap();
    std::os::unix::fs::symlink(real.join("data"), real.join("link")).unwrap();
    assert_eq!(
        resolved(&real.join("link/ledger")),
        real.join("data/ledger")
    );
    std::fs::write(real.join("data/ledger"), "").unwrap();
    assert_eq!(
        resolved(&real.join("link/ledger")),
        real.join("data/ledger")
    );
    assert_eq!(
        resolved(Path::new("/no/such/dir/x")),
        Path::new("/no/such/dir/x")
    );
}

/// The gauges of a Prometheus with three blocks.
fn storage_gauges(without: &str) -> Vec<u8> {
    let text: String = [
        "prometheus_tsdb_blocks_loaded 3",
        "prometheus_tsdb_head_max_time 1.7000072e+12",
        "prometheus_tsdb_head_min_time 1.7e+12",
        "prometheus_tsdb_lowest_timestamp_seconds 1.6e+09",
        "prometheus_tsdb_storage_blocks_bytes 777",
    ]
    .into_iter()
    .filter(|line| without.is_empty() || !line.contains(without))
    .map(|line| format!("{line}\n"))
    .collect();
    response("200 OK", &[], text)
}

/// What [`storage_gauges`] tell.
fn counted() -> PeerStorage {
    PeerStorage {
        sequence: 1,
        blocks: LoadedBlocks::Counted {
            blocks: 3,
            bytes: 777,
            lowest_ms: (
                TimestampMs(1_600_000_000_000),
                TimestampMs(1_600_000_000_999),
            ),
        },
        head_min: TimestampMs(1_700_000_000_000),
        head_max: TimestampMs(1_700_007_200_000),
        out_of_order_window_ms: 0,
        block_range_ms: 7_200_000,
    }
}

fn with_window(window: &str) -> String {
    let labels = yaml("{a: b}");
    format!("{labels}storage:\n  tsdb:\n    out_of_order_time_window: {window}\n")
}

#[tokio::test]
async fn storage_is_told_at_every_beat_that_learns_all_of_it() {
    let bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.loaded().await;
    assert_eq!(bench.state().storage, None, "gauges are missing");
    bench.set(|script| script.metrics = storage_gauges(""));
    bench.tick("/metrics").await;
    assert_eq!(bench.state().storage, Some(counted()));

    bench.set(|script| {
        script.blocks = Some(
            r#"{"blocks":[
                {"ulid":"01HZXW7J7T3Q9V8N2M4K6B5A0C","minTime":5,"maxTime":9}]}"#,
        );
        // With a list, the counts are not needed.
        script.metrics = storage_gauges("blocks");
    });
    bench.tick("/metrics").await;
    let block = "01HZXW7J7T3Q9V8N2M4K6B5A0C".parse().unwrap();
    let range = TimeRange {
        mint: TimestampMs(5),
        maxt: TimestampMs(9),
    };
    let listed = PeerStorage {
        sequence: 2,
        blocks: LoadedBlocks::Listed(Arc::new([(block, range)].into())),
        ..counted()
    };
    assert_eq!(bench.state().storage, Some(listed.clone()));
    assert_eq!(
        bench.requests("/api/v1/status/flags"),
        0,
        "without a window the flags do not matter"
    );

    bench.set(|script| {
        script.yaml = with_window("30m");
        script.flags = r#"{"storage.tsdb.min-block-duration":"1h"}"#;
    });
    bench.tick("/metrics").await;
    let with_window = PeerStorage {
        sequence: 3,
        out_of_order_window_ms: 1_800_000,
        block_range_ms: 3_600_000,
        ..listed
    };
    assert_eq!(bench.state().storage, Some(with_window));
    bench.drained().await;
}

#[tokio::test]
async fn storage_that_is_not_told_twice_is_forgotten_and_makes_nothing_unready() {
    let bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.set(|script| script.metrics = storage_gauges(""));
    bench.loaded().await;
    let good = bench.script();
    let script = |change: fn(&mut Script)| {
        let mut script = good.clone();
        change(&mut script);
        script
    };
    for (what, failing) in [
        ("list", script(|script| script.blocks = Some("[]"))),
        (
            "head",
            script(|script| script.metrics = storage_gauges("head_min")),
        ),
        (
            "count",
            script(|script| script.metrics = storage_gauges("blocks_loaded")),
        ),
        (
            "body",
            script(|script| script.metrics = response("500 Oops", &[], "no")),
        ),
        ("window", script(|script| script.yaml = with_window("soon"))),
        (
            "block range",
            script(|script| {
                script.yaml = with_window("30m");
                script.flags = r#"{"storage.tsdb.min-block-duration":"x"}"#;
            }),
        ),
    ] {
        // What failed before leaves nothing behind: the second also takes back the window.
        for _ in 0..2 {
            bench.set(|script| *script = good.clone());
            bench.tick("/metrics").await;
        }
        let known = bench.state().storage.expect(what);
        bench.set(|script| *script = failing);
        bench.tick("/metrics").await;
        let window_ms = if what == "block range" { 1_800_000 } else { 0 };
        let kept = PeerStorage {
            out_of_order_window_ms: window_ms,
            ..known
        };
        assert_eq!(bench.state().storage, Some(kept), "{what}");
        bench.tick("/metrics").await;
        assert_eq!(bench.state().storage, None, "{what}");
        assert!(bench.state().up && bench.probe.is_ready(), "{what}");
    }
    bench.drained().await;
}

#[tokio::test]
async fn a_larger_window_is_told_at_once_and_survives_failed_looks() {
    let bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.set(|script| script.metrics = storage_gauges(""));
    bench.loaded().await;
    bench.tick("/metrics").await;
    let window = || {
        let storage = bench.state().storage;
        storage.map(|storage| storage.out_of_order_window_ms)
    };
    assert_eq!(window(), Some(0));
    let failing = response("500 Oops", &[], "no");
    bench.set(|script| {
        script.yaml = with_window("30m");
        script.metrics.clone_from(&failing);
    });
    bench.tick("/metrics").await;
    assert_eq!(window(), Some(1_800_000), "though the look failed");
    bench.set(|script| script.yaml = with_window("10m"));
    bench.tick("/metrics").await;
    assert_eq!(window(), None, "two looks failed");
    bench.set(|script| script.metrics = storage_gauges(""));
    bench.tick("/metrics").await;
    assert_eq!(window(), Some(1_800_000), "the largest meanwhile");
    bench.tick("/metrics").await;
    assert_eq!(window(), Some(600_000));
    bench.drained().await;
}

#[tokio::test]
async fn storage_is_kept_while_prometheus_is_down() {
    let bench = start(Status::Up, "{a: b}", FROM_THE_FIRST, None).await;
    bench.set(|script| script.metrics = storage_gauges(""));
    bench.loaded().await;
    bench.tick("/metrics").await;
    let known = bench.state().storage;
    assert!(known.is_some());
    bench.set(|script| script.status = Status::Gone);
    for _ in 0..4 {
        bench.tick("/api/v1/status/config").await;
        assert_eq!(bench.state().storage, known);
    }
    assert!(!bench.state().up);
    bench.drained().await;
}
