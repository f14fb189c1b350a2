//! Page and document over parts that say what a test wants.

use std::time::Duration;

use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::facts::QueryFacts;
use super::page::PAGE_BYTES_MAX;
use super::*;
use crate::api::Endpoints;
use crate::lifecycle::ProbeMetrics;
use crate::model::{
    BlockId, BlockState, ExternalLabels, ReloadFailure, SHIPPING_BLOCKS_NAMED_MAX,
    SHIPPING_FAILURES_MAX, ShippedBlock, ShippingBlock, ShippingCounts, ShippingFailure,
    ShippingStanding, TimeRange, TimestampMs, UploadStatus,
};
use crate::prometheus::PeerFailure;
use crate::query::QueryStatus;
use crate::store::{LocalStanding, UNREADABLE_NAMED_MAX, UnreadableBlock};

const NOW_MS: i64 = 1_700_000_100_000;
const HOUR_MS: i64 = 3_600_000;
const EVIL: &str = "<script>alert('\"&')</script>";

/// What the parts publish; all of it may be changed before the question.
struct Scene {
    peer: PeerState,
    shipping: ShippingStatus,
    local_blocks: LocalBlocks,
    reloader: ReloadStatus,
    io: IoStatus,
    bucket: String,
    url: String,
}

fn id(n: u128) -> BlockId {
    BlockId::from_u128(n)
}

fn block(n: u16, state: BlockState) -> ShippingBlock {
    let mint = 1_700_000_000_000 + i64::from(n) * 2 * HOUR_MS;
    let range = TimeRange {
        mint: TimestampMs(mint),
        maxt: TimestampMs(mint + 2 * HOUR_MS),
    };
    ShippingBlock {
        id: id(n.into()),
        range: Some(range),
        state,
    }
}

fn labels(pairs: impl IntoIterator<Item = (String, String)>) -> ExternalLabels {
    ExternalLabels(pairs.into_iter().collect())
}

impl Scene {
    /// A sidecar in the middle of its work.
    fn new() -> Self {
        let pair = ("cluster".to_owned(), "eu-1".to_owned());
        Self {
            peer: PeerState {
                build_version: "3.5.0".to_owned(),
                lowest: Some(TimestampMs(1_600_000_000_000)),
                ..PeerState::up_with(labels([pair]))
            },
            shipping: ShippingStatus {
                standing: ShippingStanding::Running,
                last_look: Some(TimestampMs(NOW_MS - 5000)),
                counts: ShippingCounts {
                    shipped: 7,
                    waiting: 2,
                    damaged: 0,
                    left_out: 1,
                },
                blocks: vec![
                    block(1, BlockState::Waiting),
                    block(2, BlockState::HeldBack),
                    block(0, BlockState::Shipped),
                ],
                last_shipped: Some(ShippedBlock {
                    id: id(0),
                    at: TimestampMs(NOW_MS - 60_000),
                    size_bytes: 3 << 20,
                    took: Duration::from_millis(2500),
                }),
                ..ShippingStatus::default()
            },
            local_blocks: LocalBlocks {
                standing: LocalStanding::On,
                on_disk: 10,
                local: 9,
                cut: Some(TimestampMs(1_700_000_000_000)),
                ..LocalBlocks::default()
            },
            reloader: ReloadStatus {
                is_current: true,
                last_success: Some(TimestampMs(NOW_MS - 1000)),
                last_failure: None,
                watched_dirs: 3,
            },
            io: IoStatus {
                engine: "uring",
                engine_reason: "probed".to_owned(),
                buffers_in_use: 4,
                buffers_max: 40,
                buffers_bytes: 40 << 20,
                integrity: Some("crc64nvme".to_owned()),
            },
            bucket: "metrics".to_owned(),
            url: "http://localhost:9090/".to_owned(),
        }
    }

    /// 512 MiB of 2 GiB, sent within the last 4 s.
    fn uploading(mut self) -> Self {
        let now = Instant::now();
        self.shipping.upload = Some(UploadStatus {
            block: id(1),
            total_bytes: 2 << 30,
            sent_bytes: 512 << 20,
            started: now,
            measured_from: now,
            measured_from_bytes: 0,
        });
        self
    }

    fn endpoints(self) -> Endpoints {
        let sources = self.sources();
        let registry = Arc::new(Registry::default());
        Endpoints::new(sources.probe.clone(), registry).with_status(sources)
    }

    fn sources(self) -> StatusSources {
        let probe = Probe::new(ProbeMetrics::register(&mut Registry::default()));
        probe.healthy();
        probe.ready();
        let io = self.io;
        StatusSources {
            version: "1.2.3",
            revision: "abcdef",
            stands_in_for: "0.42.4",
            clock: Clock::fixed(i128::from(NOW_MS) * 1_000_000),
            started: Instant::now(),
            probe,
            prometheus_url: self.url,
            peer: watch::channel(self.peer).1,
            shipping: Some(ShippingSource {
                bucket: self.bucket,
                status: watch::channel(self.shipping).1,
            }),
            io: Some(Arc::new(move || io.clone())),
            local_blocks: Some(watch::channel(self.local_blocks).1),
            reloader: Some(watch::channel(self.reloader).1),
            confinement: ConfinementStatus {
                landlock_abi: 6,
                calls: "listed",
                reason: None,
            },
            series_calls: Gate::new("calls", 50, 512),
            list_calls: Gate::new("lists", 8, 256),
            query: None,
        }
    }

    async fn page(self) -> String {
        get(&self.endpoints(), "/").await.1
    }

    async fn document(self) -> Value {
        let (_, text) = get(&self.endpoints(), "/api/v1/status").await;
        serde_json::from_str(&text).unwrap()
    }
}

async fn get(endpoints: &Endpoints, path: &str) -> (http::HeaderMap, String) {
    let uri = path.parse().unwrap();
    let response = endpoints.answer(&http::Method::GET, &uri, &http::HeaderMap::new());
    assert_eq!(response.status(), 200, "{path}");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

/// The names are a promise to those who read the document by program.
#[tokio::test(start_paused = true)]
async fn the_document_has_this_form() {
    let mut scene = Scene::new().uploading();
    scene.shipping.failures = vec![ShippingFailure {
        at: TimestampMs(NOW_MS - 9000),
        times: 3,
        block: Some(id(1)),
        error: "the bucket is away".to_owned(),
        remedy: Some("bring it back"),
    }];
    let endpoints = scene.endpoints();
    tokio::time::advance(Duration::from_secs(4)).await;
    let (headers, text) = get(&endpoints, "/api/v1/status").await;
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert_eq!(headers[CACHE_CONTROL], "no-store");
    let document: Value = serde_json::from_str(&text).unwrap();
    let listed = |n: u16, state: &str| {
        let range = block(n, BlockState::Waiting).range.unwrap();
        json!({
            "block": id(n.into()).to_string(), "mint_ms": range.mint.0, "maxt_ms": range.maxt.0,
            "state": state,
        })
    };
    let expected = json!({
        "process": {
            "version": "1.2.3", "revision": "abcdef", "stands_in_for": "0.42.4",
            "now_ms": NOW_MS, "uptime_seconds": 4, "healthy": true, "ready": true,
        },
        "prometheus": {
            "url": "http://localhost:9090/", "state": "up", "version": "3.5.0",
            "flags_accepted": true, "external_labels": {"cluster": "eu-1"},
            "oldest_sample_ms": 1_600_000_000_000_i64, "last_failure": null,
        },
        "shipping": {
            "bucket": "metrics", "state": "running", "last_look_ms": NOW_MS - 5000,
            "shipped": 7, "waiting": 2, "damaged": 0, "left_out": 1,
            "upload": {
                "block": id(1).to_string(), "total_bytes": 2_147_483_648_u64,
                "sent_bytes": 536_870_912, "seconds": 4, "bytes_per_second": 134_217_728,
                "seconds_left": 12,
            },
            "last_shipped": {
                "block": id(0).to_string(), "at_ms": NOW_MS - 60_000, "size_bytes": 3_145_728,
                "milliseconds": 2500,
            },
            "blocks": [listed(1, "uploading"), listed(2, "held_back"), listed(0, "shipped")],
            "blocks_unlisted": 7,
            "integrity": "crc64nvme",
            "failures": [{
                "at_ms": NOW_MS - 9000, "times": 3, "block": id(1).to_string(),
                "error": "the bucket is away", "remedy": "bring it back",
            }],
        },
        "local_blocks": {
            "state": "on", "reason": null, "on_disk": 10, "serving": 9,
            "cut_ms": 1_700_000_000_000_i64, "unreadable": 0, "unreadable_blocks": [],
        },
        "store_calls": {
            "series": {"running": 0, "waiting": 0, "running_max": 50},
            "lists": {"running": 0, "waiting": 0, "running_max": 8},
        },
        "query": null, "reloader": {
            "current": true, "last_success_ms": NOW_MS - 1000, "watched_directories": 3,
            "last_failure": null,
        },
        "io": {
            "engine": "uring", "reason": "probed", "buffers_in_use": 4, "buffers_max": 40,
            "buffers_bytes": 41_943_040,
        },
        "confinement": {"landlock_abi": 6, "system_calls": "listed", "reason": null},
    });
    assert_eq!(document, expected);
}

#[tokio::test(start_paused = true)]
async fn the_page_tells_the_same_in_words() {
    let endpoints = Scene::new().uploading().endpoints();
    tokio::time::advance(Duration::from_secs(4)).await;
    let (_, page) = get(&endpoints, "/").await;
    for part in [
        "<title>blocks wait – outrigger</title>",
        "512.0 MiB of 2.0 GiB, 128.0 MiB/s, 12 s left",
        "<progress max=\"2147483648\" value=\"536870912\">",
        "<code>cluster=&quot;eu-1&quot;</code>",
        "<dd>uring <span class=\"dim\">(probed)</span>",
        "4 of 40 in use, 40.0 MiB in all",
        "7 in the bucket, 2 waiting, 0 damaged, 1 left out",
        "9 of 10 answer",
        "crc64nvme",
        "0 of 50 running, 0 waiting",
        "2023-11-14 22:13:20 UTC",
        "Prometheus has loaded what the files say",
        "version 1.2.3 (abcdef)",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
}

#[tokio::test]
async fn queries_are_told_of_where_they_are_answered() {
    let (_, page) = get(&Scene::new().endpoints(), "/").await;
    assert!(!page.contains("<h2>Queries</h2>"));
    let mut facts = Facts::of(&Scene::new().sources());
    facts.query = Some(QueryFacts::of(QueryStatus {
        running: 3,
        waiting: 4,
        max_concurrent: 20,
        timeout: Duration::from_secs(120),
        answered: 5,
        not_answered: 6,
        rewritten: 7,
        unsupported: 8,
    }));
    let page = page::page(&facts, true);
    for part in [
        "<h2>Queries</h2>",
        "3 of 20 running, 4 waiting",
        "<dt>Longest</dt><dd>2 min",
        "5 answered, 6 not",
        "7 rewritten, 8 unsupported",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let document = serde_json::to_value(&facts).unwrap();
    let expected = json!({
        "running": 3, "waiting": 4, "running_max": 20, "timeout_ms": 120_000, "answered": 5,
        "not_answered": 6, "rewritten": 7, "unsupported": 8,
    });
    assert_eq!(document["query"], expected);
}

/// No script, no frame, nothing of another address; and the policy lets in this style alone.
#[tokio::test]
async fn the_page_is_whole_and_its_policy_is_strict() {
    let endpoints = Scene::new().endpoints();
    let (headers, page) = get(&endpoints, "/").await;
    assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    for foreign in [
        "<script", "src=", "@import", "url(", "style=\"", "onload", "<iframe",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let style = page.split_once("<style>").unwrap().1;
    let style = style.split_once("</style>").unwrap().0;
    let hash = BASE64_STANDARD.encode(Sha256::digest(style));
    let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'; "), "{policy}");
    assert!(
        policy.contains(&format!("style-src 'sha256-{hash}'; ")),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(page.contains("http-equiv=\"refresh\""));
    assert!(!page.contains("href=\"/"), "links are relative");
    let (_, still) = get(&endpoints, "/?refresh=off").await;
    assert!(!still.contains("http-equiv"));
}

/// Every place that a text from outside gets to.
#[tokio::test]
async fn texts_from_outside_stay_texts() {
    let mut scene = Scene::new();
    let evil = || EVIL.to_owned();
    scene.peer.labels = labels([(evil(), evil())]);
    scene.peer.build_version = evil();
    scene.peer.up = false;
    scene.peer.last_failure = Some(PeerFailure {
        at: TimestampMs(0),
        error: evil(),
        remedy: Some("look after it"),
    });
    scene.shipping.failures = vec![ShippingFailure {
        at: TimestampMs(0),
        times: 1,
        block: None,
        error: evil(),
        remedy: None,
    }];
    scene.local_blocks.standing = LocalStanding::Off { reason: evil() };
    scene.local_blocks.unreadable_blocks = vec![UnreadableBlock {
        id: id(1),
        reason: evil(),
    }];
    scene.reloader.last_failure = Some(ReloadFailure {
        at: TimestampMs(0),
        error: evil(),
        remedy: None,
    });
    scene.io.engine_reason = evil();
    scene.io.integrity = Some(evil());
    (scene.bucket, scene.url) = (evil(), evil());
    let page = scene.page().await;
    assert!(!page.contains("<script"), "{page}");
    let escaped = "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;";
    assert_eq!(page.matches(escaped).count(), 12, "{page}");
}

/// As much of everything as there can be, and each character one that grows when it is escaped.
#[tokio::test]
async fn the_page_is_small_whatever_it_has_to_tell() {
    let long = |n: usize| "\"".repeat(n);
    let mut scene = Scene::new().uploading();
    let many = (0..1000).map(|n| (format!("{n}{}", long(2000)), long(5000)));
    scene.peer.labels = labels(many);
    scene.peer.build_version = long(9000);
    scene.peer.up = false;
    scene.peer.last_failure = Some(PeerFailure {
        at: TimestampMs(1),
        error: long(90_000),
        remedy: Some("look after it"),
    });
    let blocks = (0..1000).map(|n| block(n, BlockState::HeldBack));
    scene.shipping.blocks = blocks.take(SHIPPING_BLOCKS_NAMED_MAX).collect();
    scene.shipping.counts.waiting = 1000;
    let failure = ShippingFailure {
        at: TimestampMs(1),
        times: u64::MAX,
        block: Some(id(1)),
        error: long(90_000),
        remedy: Some("find out which of the two blocks is wrong, and remove it from the bucket"),
    };
    scene.shipping.failures = vec![failure; SHIPPING_FAILURES_MAX];
    scene.local_blocks.standing = LocalStanding::Off { reason: long(9000) };
    let unreadable = UnreadableBlock {
        id: id(1),
        reason: long(9000),
    };
    scene.local_blocks.unreadable = 1000;
    scene.local_blocks.unreadable_blocks = vec![unreadable; UNREADABLE_NAMED_MAX];
    scene.reloader.is_current = false;
    scene.reloader.last_failure = Some(ReloadFailure {
        at: TimestampMs(1),
        error: long(90_000),
        remedy: Some("correct the file"),
    });
    scene.io.engine_reason = long(9000);
    scene.io.integrity = Some(long(9000));
    (scene.bucket, scene.url) = (long(9000), long(9000));
    let page = scene.page().await;
    assert!(page.len() <= PAGE_BYTES_MAX, "{} bytes", page.len());
    for part in ["and 968 more", "and 980 more", "and 990 more", "and 5 more"] {
        assert!(page.contains(part), "{part}");
    }
}

#[tokio::test]
async fn what_there_is_not_is_said() {
    let mut registry = Registry::default();
    let probe = Probe::new(ProbeMetrics::register(&mut registry));
    let sources = StatusSources {
        version: "1",
        revision: "r",
        stands_in_for: "2",
        clock: Clock::fixed(0),
        started: Instant::now(),
        probe: probe.clone(),
        prometheus_url: "http://h/".to_owned(),
        peer: watch::channel(PeerState {
            up: false,
            ..PeerState::up_with(ExternalLabels::default())
        })
        .1,
        shipping: None,
        io: None,
        local_blocks: None,
        reloader: None,
        confinement: ConfinementStatus {
            landlock_abi: 0,
            calls: "all",
            reason: Some("--no-sandbox".to_owned()),
        },
        series_calls: Gate::new("calls", 1, 1),
        list_calls: Gate::new("lists", 1, 1),
        query: None,
    };
    let endpoints = Endpoints::new(probe, Arc::new(registry)).with_status(sources);
    let (_, page) = get(&endpoints, "/").await;
    for part in [
        "No bucket is configured",
        "--no-store.local-blocks",
        "Nothing is watched",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let (_, text) = get(&endpoints, "/api/v1/status").await;
    let document: Value = serde_json::from_str(&text).unwrap();
    for part in ["shipping", "local_blocks", "reloader", "io"] {
        assert_eq!(document[part], Value::Null, "{part}");
    }
    assert_eq!(document["prometheus"]["state"], "unknown");
}

#[tokio::test]
async fn the_gravest_matter_gives_the_verdict() {
    let verdict = async |change: fn(&mut Scene)| {
        let mut scene = Scene::new();
        scene.shipping.blocks.clear();
        change(&mut scene);
        let page = scene.page().await;
        let title = page.split_once("<title>").unwrap().1;
        title.split_once(" – ").unwrap().0.to_owned()
    };
    assert_eq!(verdict(|_| {}).await, "all is well");
    assert_eq!(
        verdict(|scene| scene.reloader.is_current = false).await,
        "configuration not loaded"
    );
    assert_eq!(
        verdict(|scene| scene.shipping.counts.damaged = 1).await,
        "damaged blocks"
    );
    let replaying = verdict(|scene| (scene.peer.up, scene.peer.replaying) = (false, true));
    assert_eq!(replaying.await, "Prometheus replays its WAL");
    let down = verdict(|scene| {
        scene.peer.up = false;
        scene.peer.last_failure = Some(PeerFailure {
            at: TimestampMs(0),
            error: "refused".to_owned(),
            remedy: Some("look after it"),
        });
    });
    assert_eq!(down.await, "Prometheus does not answer");
}

#[tokio::test]
async fn only_reading_is_allowed_and_other_paths_are_not_there() {
    let endpoints = Scene::new().endpoints();
    let status = |method, path: &str| {
        let uri = path.parse().unwrap();
        let answer = endpoints.answer(&method, &uri, &http::HeaderMap::new());
        answer.status().as_u16()
    };
    for path in ["/", "/api/v1/status", "/api/v1/status?x=1"] {
        assert_eq!(status(http::Method::HEAD, path), 200);
        assert_eq!(status(http::Method::POST, path), 405);
    }
    for path in ["/index.html", "/api/v1/status/", "/api/v1", "/favicon.ico"] {
        assert_eq!(status(http::Method::GET, path), 404);
    }
    let document = Scene::new().document().await;
    assert_eq!(document["process"]["ready"], true);
}
