//! Block sets over real directories: births, deaths, compactions, damage, limits.

use std::fs;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::*;
use crate::disk::Containment;
use crate::lifecycle::DrainTrigger;
use crate::model::{ExternalLabels, TimeRange};
use crate::prometheus::{ListedBlocks, LoadedBlocks};
use crate::store::blocks::open::{OpenBlocks, RETRY_AFTER};
use crate::tsdb::ParentBlock;
use crate::tsdb::testing::{BlockFile, BlockLayout, Chunk, MemoryBlock, Series};

const HOUR: i64 = 3_600_000;
/// Longer than a listing takes to count as settled.
const SETTLED: Duration = Duration::from_secs(4);

struct Scene {
    scratch: TempDir,
    peer: watch::Sender<PeerState>,
    set: BlockSet,
    registry: Registry,
}

fn id(n: u128) -> BlockId {
    BlockId::from_u128(n)
}

fn unknown_peer() -> PeerState {
    PeerState::up_with(ExternalLabels::default())
}

/// What Prometheus has, with a head from hour 100 to hour 101.
fn storage(blocks: LoadedBlocks) -> PeerStorage {
    PeerStorage {
        sequence: 0,
        blocks,
        head_min: TimestampMs(100 * HOUR),
        head_max: TimestampMs(101 * HOUR),
        out_of_order_window_ms: 0,
        block_range_ms: 2 * HOUR,
    }
}

fn hour_range(from: i64, to: i64) -> TimeRange {
    TimeRange {
        mint: TimestampMs(from * HOUR),
        maxt: TimestampMs(to * HOUR),
    }
}

fn hours(from: i64, to: i64) -> QueryRange {
    QueryRange {
        mint: TimestampMs(from * HOUR),
        maxt: TimestampMs(to * HOUR - 1),
    }
}

/// A block of the hours from `from` to before `to`, with a sample at each.
fn block(n: u128, from: i64, to: i64) -> MemoryBlock {
    let samples: Vec<_> = (from..to).map(|hour| (hour * HOUR, 1.0)).collect();
    let range = hour_range(from, to);
    let series = Series {
        labels: vec![("__name__".to_owned(), "up".to_owned())],
        chunks: vec![Chunk::xor(&samples)],
    };
    MemoryBlock::write(BlockLayout::default(), id(n), range, [series])
}

impl Scene {
    fn new() -> Self {
        Self::in_scratch(tempfile::tempdir().unwrap())
    }

    fn in_scratch(scratch: TempDir) -> Self {
        fs::create_dir(scratch.path().join("data")).unwrap();
        let (peer, seen) = watch::channel(unknown_peer());
        let clock = Clock::fixed(i128::from(101 * HOUR) * 1_000_000);
        let mut registry = Registry::default();
        let metrics = BlockMetrics::register(&mut registry);
        let set = BlockSet::new(scratch.path().join("data"), clock, seen, metrics);
        Self {
            scratch,
            peer,
            set,
            registry,
        }
    }

    /// With blocks 1, 2, 3 of ten hours each from hour 70 on, all proven.
    fn with_three() -> Self {
        let scene = Self::new();
        for n in 1..=3_u8 {
            let from = 60 + 10 * i64::from(n);
            scene.add(&block(n.into(), from, from + 10));
        }
        scene.list(&[1, 2, 3]);
        scene
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn path(&self, n: u128) -> PathBuf {
        self.data().join(id(n).to_string())
    }

    /// As Prometheus makes a block: beside, then renamed.
    fn add(&self, block: &MemoryBlock) {
        let path = self.data().join(block.meta.ulid.to_string());
        let beside = path.with_extension("tmp-for-creation");
        fs::create_dir_all(beside.join("chunks")).unwrap();
        for (file, bytes) in &block.files {
            fs::write(beside.join(file.path()), bytes).unwrap();
        }
        fs::rename(beside, path).unwrap();
    }

    /// As Prometheus deletes a block: renamed, then removed.
    fn delete(&self, n: u128) {
        let path = self.path(n);
        let beside = path.with_extension("tmp-for-deletion");
        fs::rename(path, &beside).unwrap();
        fs::remove_dir_all(beside).unwrap();
    }

    fn storage(&self) -> PeerStorage {
        self.peer.borrow().storage.clone().unwrap()
    }

    fn tell(&self, storage: PeerStorage) {
        self.peer.send_modify(|state| {
            let before = state.storage.as_ref().map_or(0, |storage| storage.sequence);
            state.storage = Some(PeerStorage {
                sequence: before + 1,
                ..storage
            });
        });
    }

    /// A heartbeat that lists these blocks.
    fn list(&self, blocks: &[u128]) {
        // As `with_three` makes them; it only matters where we can't read them.
        let ten = |block: &u128| {
            let n = i64::try_from(*block).unwrap();
            (id(*block), hour_range(60 + 10 * n, 70 + 10 * n))
        };
        self.list_as(blocks.iter().map(ten).collect());
    }

    fn list_as(&self, blocks: ListedBlocks) {
        self.tell(storage(LoadedBlocks::Listed(Arc::new(blocks))));
    }

    /// The blocks that answer and the hours that Prometheus does, of hours 60 to 110.
    fn plan(&self) -> (Vec<BlockId>, Vec<(i64, i64)>) {
        let plan = self.set.plan(hours(60, 110));
        let local = plan.local.iter().map(|local| local.block.id());
        let remote = plan.remote.iter();
        let remote = remote.map(|range| (range.mint.0 / HOUR, (range.maxt.0 + 1) / HOUR));
        (local.collect(), remote.collect())
    }

    fn assert_plan(&self, local: &[u128], remote: &[(i64, i64)]) {
        let local: Vec<_> = local.iter().copied().map(id).collect();
        assert_eq!(self.plan(), (local, remote.to_vec()));
    }

    fn status(&self) -> LocalBlocks {
        self.set.status().borrow().clone()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    fn opened(&self, n: u128) -> Weak<Block> {
        let plan = self.set.plan(hours(0, 200));
        let found = plan.local.iter().find(|local| local.block.id() == id(n));
        Arc::downgrade(&found.unwrap().block)
    }
}

#[tokio::test(start_paused = true)]
async fn proven_blocks_answer_up_to_the_head() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    let plan = scene.set.plan(hours(75, 85));
    assert_eq!(
        (plan.remote.len(), &plan.covered[..]),
        (0, &[hours(75, 85)][..])
    );
    let parts: Vec<_> = plan
        .local
        .iter()
        .map(|local| local.ranges.clone())
        .collect();
    assert_eq!(parts, [[hours(75, 80)], [hours(80, 85)]]);
    assert_eq!(scene.set.plan(hours(105, 106)).remote, [hours(105, 106)]);
    let status = scene.status();
    assert_eq!(status.standing, LocalStanding::On);
    assert_eq!((status.on_disk, status.local, status.unreadable), (3, 3, 0));
    assert_eq!(status.cut, Some(TimestampMs(100 * HOUR)));
    let metrics = scene.metrics();
    for line in [
        "outrigger_store_local_blocks_enabled 1",
        "outrigger_store_local_blocks 3",
        "outrigger_store_local_cut_timestamp_seconds 360000.0",
        "outrigger_store_local_plans_total{kind=\"local\"} 1",
        "outrigger_store_local_plans_total{kind=\"mixed\"} 1",
        "outrigger_store_local_plans_total{kind=\"remote\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn until_prometheus_tells_its_blocks_all_is_asked_of_it() {
    let scene = Scene::new();
    scene.add(&block(1, 70, 80));
    scene.assert_plan(&[], &[(60, 110)]);
    assert_eq!(scene.status().standing, LocalStanding::Waiting);
}

#[tokio::test(start_paused = true)]
async fn storage_that_is_not_told_any_more_leaves_all_to_prometheus() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    let told = scene.storage();
    scene.peer.send_modify(|state| state.storage = None);
    scene.assert_plan(&[], &[(60, 110)]);
    scene.set.0.look(false);
    let status = scene.status();
    assert_eq!(
        (status.standing, status.cut),
        (LocalStanding::Waiting, None)
    );
    scene.peer.send_modify(|state| state.storage = Some(told));
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_new_block_is_prometheus_until_the_next_proof() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    tokio::time::advance(SETTLED).await;
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    tokio::time::advance(SETTLED).await;
    // Backfilled.
    scene.add(&block(4, 74, 78));
    scene.assert_plan(&[1, 2, 3], &[(74, 78), (100, 110)]);
    scene.list(&[1, 2, 3, 4]);
    scene.assert_plan(&[1, 4, 2, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_block_is_let_go_at_once_but_for_reads_in_flight() {
    let scene = Scene::with_three();
    let (first, second) = (scene.opened(1), scene.opened(2));
    let in_flight = second.upgrade().unwrap();
    tokio::time::advance(SETTLED).await;
    scene.delete(1);
    scene.delete(2);
    scene.assert_plan(&[3], &[(70, 90), (100, 110)]);
    assert!(first.upgrade().is_none(), "its disk space is free");
    assert!(second.upgrade().is_some());
    drop(in_flight);
    assert!(second.upgrade().is_none());
    scene.list(&[3]);
    scene.assert_plan(&[3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_compaction_is_followed_without_a_gap_or_a_double() {
    let scene = Scene::with_three();
    let mut merged = block(4, 70, 90);
    let parents = [(1, 70), (2, 80)].map(|(n, from)| ParentBlock {
        ulid: id(n),
        min_time: TimestampMs(from * HOUR),
        max_time: TimestampMs((from + 10) * HOUR),
        unknown: block(9, 0, 1).meta.unknown,
    });
    merged.meta.compaction.parents = parents.to_vec();
    merged.files.insert(BlockFile::Meta, merged.meta.to_json());
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    scene.add(&merged);
    scene.assert_plan(&[3], &[(70, 90), (100, 110)]);
    scene.list(&[3, 4]);
    scene.assert_plan(&[4, 3], &[(100, 110)]);
    scene.delete(1);
    scene.assert_plan(&[4, 3], &[(100, 110)]);
    scene.delete(2);
    scene.list(&[3, 4]);
    scene.assert_plan(&[4, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_compaction_between_a_heartbeat_and_its_listing_is_forgiven() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    scene.list(&[1, 2, 3]);
    scene.delete(2);
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    assert_eq!(scene.status().standing, LocalStanding::On);
}

#[tokio::test(start_paused = true)]
async fn hinted_blocks_answer_too_but_never_move_the_cut() {
    let scene = Scene::with_three();
    let mut hinted = block(4, 95, 104);
    hinted.meta.compaction.hints = vec!["from-out-of-order".to_owned()];
    hinted.files.insert(BlockFile::Meta, hinted.meta.to_json());
    scene.add(&hinted);
    scene.list(&[1, 2, 3, 4]);
    scene.assert_plan(&[1, 2, 3, 4], &[(100, 110)]);
    let empty_head = PeerStorage {
        head_min: TimestampMs(i64::MAX),
        ..scene.storage()
    };
    scene.tell(empty_head);
    scene.assert_plan(&[1, 2, 3, 4], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn tombstones_are_looked_at_in_every_plan() {
    let scene = Scene::with_three();
    let tombstones = scene.path(2).join("tombstones");
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    fs::write(&tombstones, [0; 9]).unwrap();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    fs::write(&tombstones, [0; 10]).unwrap();
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    fs::remove_file(&tombstones).unwrap();
    fs::create_dir(&tombstones).unwrap();
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    fs::remove_dir(&tombstones).unwrap();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_cannot_be_opened_is_prometheus_and_told() {
    let scene = Scene::with_three();
    let index = scene.path(2).join("index");
    let content = fs::read(&index).unwrap();
    fs::write(&index, b"too short").unwrap();
    for _ in 0..3 {
        scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    }
    let status = scene.status();
    assert_eq!((status.local, status.unreadable), (3, 1));
    assert_eq!(status.unreadable_blocks[0].id, id(2));
    assert!(!status.unreadable_blocks[0].reason.is_empty());
    assert!(
        scene
            .metrics()
            .contains("outrigger_store_local_unreadable_blocks 1")
    );
    // Written in place, which the directory does not show: only time tells.
    fs::write(&index, &content).unwrap();
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    tokio::time::advance(RETRY_AFTER).await;
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    assert_eq!(scene.status().unreadable, 0);

    let scene = Scene::with_three();
    fs::remove_file(scene.path(2).join("index")).unwrap();
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    fs::write(scene.path(2).join("index"), &content).unwrap();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_block_of_unknown_range_leaves_all_to_prometheus_until_it_is_discounted() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    for (n, content) in [(4, "{"), (5, ""), (6, "{\"version\":1}")] {
        fs::create_dir(scene.path(n)).unwrap();
        fs::write(scene.path(n).join("meta.json"), content).unwrap();
    }
    fs::create_dir(scene.path(7)).unwrap();
    let mut other = block(9, 0, 1);
    other.meta.ulid = id(8);
    scene.add(&other);
    scene.assert_plan(&[], &[(60, 110)]);
    let status = scene.status();
    assert_eq!((status.on_disk, status.unreadable), (3, 5));
    let reasons: Vec<_> = status.unreadable_blocks.iter().map(|b| &b.reason).collect();
    assert!(reasons[4].contains(&id(9).to_string()), "{reasons:?}");
    scene.list(&[1, 2, 3]);
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    // Prometheus can read it, we can't: it answers for what it says that the block covers.
    let told: Vec<_> = (1..=3)
        .map(|n| (id(n), hour_range(0, 0)))
        .chain([(id(4), hour_range(84, 87))])
        .collect();
    for _ in 0..2 {
        scene.list_as(told.iter().copied().collect());
        scene.assert_plan(&[1, 2, 3], &[(84, 87), (100, 110)]);
    }
    // Gone, but Prometheus may still answer from it until the next proof.
    fs::remove_dir_all(scene.path(4)).unwrap();
    scene.assert_plan(&[1, 2, 3], &[(84, 87), (100, 110)]);
    for _ in 0..2 {
        scene.list_as(told.iter().copied().collect());
        scene.plan();
    }
    scene.assert_plan(&[], &[(60, 110)]);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_becomes_readable_answers_after_the_next_proof() {
    let scene = Scene::with_three();
    let meta = scene.path(2).join("meta.json");
    let content = fs::read(&meta).unwrap();
    fs::write(&meta, "{").unwrap();
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    assert_eq!(scene.status().standing, LocalStanding::On);
    fs::write(&meta, content).unwrap();
    scene.set.0.look(true);
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    scene.list(&[1, 2, 3]);
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn another_data_directory_turns_local_blocks_off_with_a_reason() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    scene.list(&[77]);
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    scene.list(&[77]);
    scene.assert_plan(&[], &[(60, 110)]);
    let LocalStanding::Off { reason } = scene.status().standing else {
        panic!("{:?}", scene.status());
    };
    assert!(reason.contains(&id(77).to_string()), "{reason}");
    assert!(
        scene
            .metrics()
            .contains("outrigger_store_local_blocks_enabled 0")
    );
    scene.list(&[1, 2, 3]);
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
}

#[tokio::test(start_paused = true)]
async fn an_older_prometheus_is_proven_by_numbers() {
    let scene = Scene::with_three();
    fs::write(scene.path(2).join("tombstones"), [0; 9]).unwrap();
    let bytes: u64 = (1..=3)
        .flat_map(|n| {
            let files = ["index", "meta.json", "tombstones", "chunks/000001"];
            files.map(|file| fs::metadata(scene.path(n).join(file)).map_or(0, |m| m.len()))
        })
        .sum();
    let counted = |blocks, bytes| {
        let lowest = TimestampMs(70 * HOUR);
        let lowest_ms = (lowest, lowest);
        scene.tell(storage(LoadedBlocks::Counted {
            blocks,
            bytes,
            lowest_ms,
        }));
    };
    for _ in 0..2 {
        counted(3, bytes + 1);
        scene.plan();
    }
    scene.assert_plan(&[], &[(60, 110)]);
    counted(3, bytes);
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    scene.add(&block(4, 90, 95));
    for _ in 0..2 {
        counted(3, bytes);
        scene.plan();
    }
    scene.assert_plan(&[], &[(60, 110)]);
}

#[tokio::test(start_paused = true)]
async fn out_of_order_samples_keep_their_time_with_prometheus() {
    let scene = Scene::with_three();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    fs::create_dir(scene.data().join("wbl")).unwrap();
    fs::write(scene.data().join("wbl/00000000"), "").unwrap();
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
    let proven = scene.storage();
    scene.tell(PeerStorage {
        out_of_order_window_ms: 2 * HOUR,
        ..proven.clone()
    });
    // Head max, less the window, less two block ranges.
    scene.assert_plan(&[1, 2, 3], &[(95, 110)]);
    scene.tell(PeerStorage {
        head_min: TimestampMs(101 * HOUR),
        ..proven.clone()
    });
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);

    let scene = Scene::with_three();
    fs::create_dir(scene.data().join("wbl")).unwrap();
    fs::write(scene.data().join("wbl/00000007"), "left over").unwrap();
    scene.assert_plan(&[], &[(60, 110)]);
    assert_eq!(scene.status().cut, None);
}

#[tokio::test(start_paused = true)]
async fn a_data_directory_that_is_replaced_is_opened_anew() {
    let scene = Scene::with_three();
    let before = scene.opened(1);
    tokio::time::advance(SETTLED).await;
    let elsewhere = scene.scratch.path().join("elsewhere");
    fs::rename(scene.data(), &elsewhere).unwrap();
    scene.assert_plan(&[], &[(60, 110)]);
    assert!(before.upgrade().is_none());
    fs::create_dir(scene.data()).unwrap();
    scene.assert_plan(&[], &[(60, 110)]);
    for n in 1..=2 {
        fs::rename(elsewhere.join(id(n).to_string()), scene.path(n)).unwrap();
    }
    scene.assert_plan(&[1, 2], &[(90, 110)]);
    fs::remove_dir_all(scene.data()).unwrap();
    scene.assert_plan(&[], &[(60, 110)]);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_told_and_left_to_prometheus() {
    if rustix::process::getuid().is_root() {
        println!("LEFT OUT: root may read everything");
        return;
    }
    let scene = Scene::with_three();
    let deny = |path: &Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        fs::set_permissions(path, mode).unwrap();
    };
    deny(&scene.path(2).join("index"));
    scene.assert_plan(&[1, 3], &[(80, 90), (100, 110)]);
    assert_eq!(scene.status().unreadable_blocks[0].id, id(2));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_blocks_are_planned_and_the_newest_answer() {
    const BLOCKS: u128 = 10_000;
    // In memory where there is such a place: removing so many directories takes a disk a minute.
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let scene = Scene::in_scratch(scratch.unwrap());
    let model = block(0, 0, 1);
    let shared = scene.scratch.path().join("model");
    fs::create_dir_all(shared.join("chunks")).unwrap();
    for (file, bytes) in &model.files {
        fs::write(shared.join(file.path()), bytes).unwrap();
    }
    for n in 1..=BLOCKS {
        let (mut meta, path) = (model.meta.clone(), scene.path(n));
        meta.ulid = id(n);
        meta.min_time = TimestampMs(i64::try_from(n).unwrap() * HOUR);
        meta.max_time = TimestampMs(meta.min_time.0 + HOUR);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("meta.json"), meta.to_json()).unwrap();
        if n < 20 || n > BLOCKS - OPEN_BLOCKS_MAX as u128 {
            // Of the others nothing more is ever looked at.
            fs::create_dir(path.join("chunks")).unwrap();
            for file in ["index", "chunks/000001"] {
                fs::hard_link(shared.join(file), path.join(file)).unwrap();
            }
        }
    }
    let all: Vec<_> = (1..=BLOCKS).collect();
    scene.list(&all);
    let head = PeerStorage {
        head_min: TimestampMs(i64::MAX),
        ..scene.storage()
    };
    scene.tell(head);
    let plan = scene.set.plan(hours(0, 20_000));
    let local: Vec<_> = plan.local.iter().map(|local| local.block.id()).collect();
    let newest: Vec<_> = (BLOCKS + 1 - OPEN_BLOCKS_MAX as u128..=BLOCKS)
        .map(id)
        .collect();
    assert_eq!(local, newest);
    let open = format!("outrigger_store_local_open_blocks {OPEN_BLOCKS_MAX}");
    assert!(scene.metrics().contains(&open), "a plan trims, and tells");
    let first_local = 10_001 - i64::try_from(OPEN_BLOCKS_MAX).unwrap();
    assert_eq!(plan.remote, [hours(0, first_local), hours(10_001, 20_000)]);
    drop(plan);
    tokio::time::advance(SETTLED).await;
    scene.plan();
    let old = scene.set.plan(hours(17, 20));
    assert_eq!((old.local.len(), old.remote.len()), (3, 0));
    assert!(scene.set.0.known().open.len() <= OPEN_BLOCKS_MAX);
    let started = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(scene.set.plan(hours(17, 20)).local.len(), 3);
    }
    println!("a plan among {BLOCKS} blocks: {:?}", started.elapsed() / 10);
}

#[test]
fn the_least_recently_used_are_closed_over_either_limit() {
    let scene = Scene::with_three();
    let dir = Dir::open_blocking(&scene.data(), Containment::Beneath).unwrap();
    let mut open = OpenBlocks::default();
    let blocks: Vec<_> = [1, 2, 3, 1]
        .map(|n| open.get(id(n)).block(&dir, id(n)).unwrap())
        .into_iter()
        .collect();
    assert!(Arc::ptr_eq(&blocks[0], &blocks[3]), "opened once");
    let weight = open::weight(&blocks[0]);
    assert_eq!(
        weight,
        blocks[0].memory_bytes() + 2 * (16 << 10),
        "two maps"
    );
    open.trim(3, 3 * weight);
    assert_eq!(open.len(), 3);
    open.trim(2, usize::MAX);
    assert_eq!(open.len(), 2);
    assert!(!Arc::ptr_eq(
        &open.get(id(2)).block(&dir, id(2)).unwrap(),
        &blocks[1]
    ));
    open.trim(9, 2 * weight);
    assert_eq!(open.len(), 2);
    assert!(Arc::ptr_eq(
        &open.get(id(1)).block(&dir, id(1)).unwrap(),
        &blocks[0]
    ));
    open.trim(9, 0);
    assert_eq!(open.len(), 0);
}

#[test]
fn plans_beside_changes_always_cover_the_request() {
    let scene = Scene::with_three();
    let done = AtomicBool::new(false);
    let request = hours(60, 110);
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                let mut local = 0;
                while !done.load(Ordering::SeqCst) {
                    let plan = scene.set.plan(request);
                    let mut parts = [plan.covered.clone(), plan.remote.clone()].concat();
                    parts.sort_by_key(|part| part.mint);
                    assert_eq!(parts[0].mint, request.mint);
                    assert_eq!(parts[parts.len() - 1].maxt, request.maxt);
                    for pair in parts.windows(2) {
                        assert_eq!(pair[0].maxt.0 + 1, pair[1].mint.0, "{plan:?}");
                    }
                    local += plan.local.len();
                }
                assert!(local > 0, "blocks answered");
            });
        }
        for round in 0..40 {
            scene.add(&block(4, 74, 76));
            scene.list(&[1, 2, 3, 4]);
            if round % 2 == 0 {
                scene.set.plan(request);
            }
            scene.delete(4);
            scene.list(&[1, 2, 3]);
            scene.set.plan(request);
        }
        done.store(true, Ordering::SeqCst);
    });
    scene.assert_plan(&[1, 2, 3], &[(100, 110)]);
}

// === follow ===

async fn until(set: &BlockSet, what: &str, reached: impl Fn(&LocalBlocks) -> bool) {
    let mut status = set.status();
    let waited = tokio::time::timeout(Duration::from_secs(120), status.wait_for(reached)).await;
    waited
        .unwrap_or_else(|_| panic!("never came: {what}"))
        .unwrap();
}

fn following(scene: &Scene) -> (DrainTrigger, tokio::task::JoinHandle<()>) {
    let (trigger, drain) = Drain::new();
    (trigger, tokio::spawn(scene.set.clone().follow(drain)))
}

#[tokio::test]
async fn events_and_heartbeats_are_followed_without_a_plan() {
    let scene = Scene::with_three();
    let (trigger, task) = following(&scene);
    until(&scene.set, "proof", |status| status.local == 3).await;
    let open = scene.opened(1);
    assert!(open.upgrade().is_some());
    scene.delete(1);
    until(&scene.set, "deletion", |status| status.on_disk == 2).await;
    assert!(open.upgrade().is_none());
    scene.add(&block(4, 60, 70));
    until(&scene.set, "birth", |status| status.on_disk == 3).await;
    scene.list(&[2, 3, 4]);
    until(&scene.set, "heartbeat", |status| status.local == 3).await;
    drop(scene.peer);
    fs::remove_dir_all(scene.scratch.path().join("data")).unwrap();
    until(&scene.set, "the end of the directory", |status| {
        status.on_disk == 0
    })
    .await;
    trigger.start();
    task.await.unwrap();
}

#[tokio::test]
async fn the_newest_blocks_are_opened_before_they_are_asked_for() {
    let scene = Scene::with_three();
    fs::write(scene.path(1).join("tombstones"), [0; 10]).unwrap();
    fs::write(scene.path(2).join("index"), "too short").unwrap();
    for n in 4..=40_u8 {
        let from = i64::from(n);
        scene.add(&block(n.into(), from, from + 1));
    }
    let all: Vec<_> = (1..=40).collect();
    scene.list(&all);
    let (trigger, task) = following(&scene);
    until(&scene.set, "the damaged block", |status| {
        status.unreadable == 1
    })
    .await;
    let held = || scene.set.0.known().open.len();
    let waited = tokio::time::timeout(Duration::from_secs(120), async {
        while held() < 38 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
    trigger.start();
    task.await.unwrap();
    assert_eq!(held(), 38, "all but those that may not or can't be read");
    let line = "outrigger_store_local_open_blocks 38";
    assert!(scene.metrics().contains(line), "{}", scene.metrics());
}

#[tokio::test(start_paused = true)]
async fn without_events_the_tick_finds_what_changed() {
    let scene = Scene::with_three();
    // Nothing to watch yet.
    let data = scene.data();
    let hidden = scene.scratch.path().join("hidden");
    fs::rename(&data, &hidden).unwrap();
    let (trigger, task) = following(&scene);
    until(&scene.set, "the first look", |status| status.on_disk == 0).await;
    fs::rename(&hidden, &data).unwrap();
    until(&scene.set, "the tick", |status| status.local == 3).await;
    trigger.start();
    task.await.unwrap();
}
