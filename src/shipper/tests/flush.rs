//! The head's flush: what it puts into the bucket, and what becomes of it when Prometheus is back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::scene::{Scene, block_id, block_range, small_block, small_layout};
use crate::disk::Faults;
use crate::model::{BlockId, ErrorChain, ExternalLabels, TimeRange, TimestampMs};
use crate::objstore::{Bucket, Flaky, Operation, Outcome};
use crate::shipper::flushed::RECORD;
use crate::shipper::{FlushError, HeadSnapshot, Policy, Shipper};
use crate::tsdb::BlockMeta;
use crate::tsdb::testing::{Chunk, MemoryBlock, Series};

/// A snapshot that Prometheus makes at the scene's time.
const SNAPSHOT: &str = "20260101T000000Z-5eed";

/// The ULID of the head's block, after those of all slots.
const HEAD: u8 = 40;

/// A Prometheus that writes its head.
struct Head {
    data: PathBuf,
    block: Option<MemoryBlock>,
    name: &'static str,
}

#[async_trait]
impl HeadSnapshot for Head {
    async fn take(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let snapshot = self.data.join("snapshots").join(SNAPSHOT);
        std::fs::create_dir_all(&snapshot)?;
        for entry in std::fs::read_dir(&self.data)? {
            let name = entry?.file_name();
            if name.to_str().and_then(BlockId::from_file_name).is_some() {
                std::fs::create_dir(snapshot.join(name))?;
            }
        }
        if let Some(block) = &self.block {
            let directory = snapshot.join(block.meta.ulid.to_string());
            std::fs::create_dir_all(directory.join("chunks"))?;
            for (file, bytes) in &block.files {
                std::fs::write(directory.join(file.path()), bytes)?;
            }
        }
        Ok(self.name.to_owned())
    }
}

/// A head that holds slot 1 and the first third of slot 2.
fn head_of(scene: &mut Scene) -> Head {
    let range = TimeRange {
        mint: block_range(1).mint,
        maxt: TimestampMs(block_range(2).mint.0 + 2_400_000),
    };
    let value = |i: i64| {
        (
            range.mint.0 + i * 60_000,
            f64::from(u8::try_from(i).unwrap()),
        )
    };
    let chunks =
        [0..60, 60..120, 120..160].map(|of| Chunk::xor(&of.map(value).collect::<Vec<_>>()));
    let series = Series {
        labels: vec![("__name__".to_owned(), "m".to_owned())],
        chunks: chunks.to_vec(),
    };
    let block = MemoryBlock::write(small_layout(), block_id(HEAD), range, [series]);
    scene.pristine.insert(block_id(HEAD), block.clone());
    Head {
        data: scene.data(),
        block: Some(block),
        name: SNAPSHOT,
    }
}

/// Panics as soon as two blocks that overlap are visible in the bucket.
fn watched(scene: &Scene, bucket: Arc<dyn Bucket>) -> Arc<dyn Bucket> {
    let root = scene.bucket_dir();
    Arc::new(Flaky::new(bucket, move |_, _| {
        let entries = std::fs::read_dir(&root).into_iter().flatten();
        let metas = entries.filter_map(|entry| {
            let bytes = std::fs::read(entry.unwrap().path().join("meta.json")).ok()?;
            Some(BlockMeta::parse(&bytes).unwrap())
        });
        let metas: Vec<BlockMeta> = metas.collect();
        for (at, meta) in metas.iter().enumerate() {
            for other in &metas[at + 1..] {
                let (one, two) = (meta.ulid, other.ulid);
                assert!(
                    !meta.range().overlaps(other.range()),
                    "{one} overlaps {two}"
                );
            }
        }
        Outcome::Pass
    }))
}

async fn shipper(scene: &Scene, faults: Faults) -> Option<Shipper> {
    let opened = scene.try_shipper_with(faults, |bucket| watched(scene, bucket));
    let mut shipper = opened.await.ok()?;
    shipper.clear_flush().await;
    Some(shipper)
}

async fn healthy(scene: &Scene) -> Shipper {
    shipper(scene, Faults::none()).await.unwrap()
}

async fn flushed(scene: &mut Scene) -> Shipper {
    let head = head_of(scene);
    let mut shipper = healthy(scene).await;
    let block = shipper.flush(&head).await.unwrap();
    assert_eq!(block, Some(block_id(HEAD)));
    shipper
}

fn ids(slots: &[u8]) -> Vec<BlockId> {
    slots.iter().map(|slot| block_id(*slot)).collect()
}

fn is_empty(directory: PathBuf) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

fn assert_tidy(scene: &Scene) {
    assert!(is_empty(scene.data().join("snapshots")));
    assert!(is_empty(scene.data().join("thanos/upload")));
}

fn has_record(scene: &Scene) -> bool {
    scene.data().join(RECORD).exists()
}

const STRICT: Policy = Policy {
    upload_compacted: false,
    allow_out_of_order: false,
    skip_corrupted: false,
};

#[tokio::test]
async fn the_head_goes_in_after_all_that_is_older() {
    let mut scene = Scene::new(STRICT);
    scene.put(0);
    flushed(&mut scene).await;
    assert_eq!(scene.published(), ids(&[0, HEAD]));
    scene.assert_published_blocks_are_whole();
    assert_tidy(&scene);
    assert!(has_record(&scene));
}

#[tokio::test]
async fn an_empty_head_leaves_nothing() {
    let mut scene = Scene::new(STRICT);
    scene.put(0);
    let mut head = head_of(&mut scene);
    head.block = None;
    let flushed = healthy(&scene).await.flush(&head).await;
    assert_eq!(flushed.unwrap(), None);
    assert_tidy(&scene);
    assert!(!has_record(&scene));
}

#[tokio::test]
async fn prometheus_own_blocks_take_its_place_once_they_hold_all_of_it() {
    let mut scene = Scene::new(STRICT);
    scene.put(0);
    flushed(&mut scene).await;
    let mut shipper = healthy(&scene).await;
    scene.put(1);
    let report = shipper.sync().await;
    assert!(
        report.error.is_none() && report.held_back == 1,
        "{report:?}"
    );
    assert_eq!(
        scene.published(),
        ids(&[0, HEAD]),
        "half of it is in the head still"
    );
    scene.put(2);
    let report = shipper.sync().await;
    assert!(report.error.is_none() && report.shipped == 2, "{report:?}");
    assert_eq!(scene.published(), ids(&[0, 1, 2]));
    scene.assert_published_blocks_are_whole();
    let left = scene.bucket_dir().join(block_id(HEAD).to_string());
    assert!(!left.exists(), "nothing of it is left");
    assert!(!has_record(&scene));
}

#[tokio::test]
async fn a_second_flush_takes_the_place_of_the_first() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    let first = scene.pristine[&block_id(HEAD)].clone();
    let range = first.meta.range();
    let id = block_id(HEAD + 1);
    let sample = |i: i64| (range.mint.0 + i * 30_000, 1.0);
    let chunk = Chunk::xor(&(0..200).map(sample).collect::<Vec<_>>());
    let labels = vec![("__name__".to_owned(), "m".to_owned())];
    let series = Series {
        labels,
        chunks: vec![chunk],
    };
    let second = MemoryBlock::write(small_layout(), id, range, [series]);
    scene.pristine.insert(id, second.clone());
    let mut head = head_of(&mut scene);
    head.block = Some(second);
    let flushed = healthy(&scene).await.flush(&head).await;
    assert_eq!(flushed.unwrap(), Some(id));
    assert_eq!(scene.published(), [id]);
    assert_tidy(&scene);
}

#[tokio::test]
async fn what_prometheus_lost_stays_in_the_bucket() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    for slot in [1, 2] {
        let mut block = small_block(slot, small_layout());
        block.meta.stats.num_samples = 70;
        scene.put_block(block);
        scene.edit_meta(block_id(slot), |meta| meta.stats.num_samples = 70);
    }
    let mut shipper = healthy(&scene).await;
    let error = shipper.sync().await.error.unwrap();
    let text = ErrorChain(&error).to_string();
    assert!(
        text.contains("holds 160 samples") && text.contains("of this range 140"),
        "{text}"
    );
    assert!(error.remedy().is_some());
    assert_eq!(scene.published(), ids(&[HEAD]));
    std::fs::remove_file(scene.data().join(RECORD)).unwrap();
    scene.edit_meta(block_id(1), |meta| meta.stats.num_samples = 200);
    assert!(healthy(&scene).await.flushed.blocks().is_empty());
}

#[tokio::test]
async fn a_flushed_block_that_nothing_overlaps_stays() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    scene.put(3);
    let mut shipper = healthy(&scene).await;
    assert_eq!(shipper.sync().await.shipped, 1);
    assert_eq!(scene.published(), ids(&[3, HEAD]));
    assert!(
        !has_record(&scene),
        "the log was lost, nothing can come any more"
    );
}

#[tokio::test]
async fn one_that_a_compactor_took_is_not_shipped_over() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    // The compactor's block of it, and its deletion.
    let flushed_dir = scene.bucket_dir().join(block_id(HEAD).to_string());
    let compacted = scene.bucket_dir().join(block_id(HEAD + 5).to_string());
    std::fs::create_dir(&compacted).unwrap();
    let meta = std::fs::read_to_string(flushed_dir.join("meta.json")).unwrap();
    let meta = meta.replacen(
        &block_id(HEAD).to_string(),
        &block_id(HEAD + 5).to_string(),
        1,
    );
    std::fs::write(compacted.join("meta.json"), meta).unwrap();
    std::fs::remove_dir_all(&flushed_dir).unwrap();
    scene.put(1);
    scene.put(2);
    let error = healthy(&scene).await.sync().await.error.unwrap();
    let text = ErrorChain(&error).to_string();
    assert!(text.contains(&block_id(HEAD + 5).to_string()), "{text}");
    assert_eq!(scene.published(), ids(&[HEAD + 5]));
    std::fs::remove_dir_all(&compacted).unwrap();
    healthy(&scene).await.sync().await;
    assert_eq!(scene.published(), ids(&[1, 2]));
}

#[tokio::test]
async fn blocks_of_other_labels_are_no_overlap() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    scene.put(1);
    let labels = [("cluster".to_owned(), "b".to_owned())]
        .into_iter()
        .collect();
    scene.labels.send_replace(ExternalLabels(labels));
    let mut shipper = scene.shipper().await;
    assert_eq!(shipper.sync().await.shipped, 1);
    assert_eq!(scene.published(), ids(&[1, HEAD]));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_does_not_delete_holds_the_block_back() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    scene.put(1);
    scene.put(2);
    let refuse = |operation: Operation, _: &str| match operation {
        Operation::Delete => Outcome::Refuse { retryable: false },
        _ => Outcome::Pass,
    };
    let bucket = |bucket| Arc::new(Flaky::new(bucket, refuse)) as Arc<dyn Bucket>;
    let mut refused = scene.shipper_with(Faults::none(), bucket).await;
    let error = refused.sync().await.error.unwrap();
    let text = ErrorChain(&error).to_string();
    let block = block_id(HEAD);
    assert!(
        text.contains(&format!("remove flushed block {block} from the bucket")),
        "{text}"
    );
    assert_eq!(scene.published(), ids(&[HEAD]));
    drop(refused);
    healthy(&scene).await.sync().await;
    assert_eq!(scene.published(), ids(&[1, 2]));
}

#[tokio::test]
async fn odd_answers_and_records_are_refused() {
    let mut scene = Scene::new(STRICT);
    for name in ["../../etc", "", "a/b", ".."] {
        let mut head = head_of(&mut scene);
        head.name = name;
        let error = healthy(&scene).await.flush(&head).await.unwrap_err();
        assert!(
            matches!(error, FlushError::SnapshotName { .. }),
            "{error:?}"
        );
        assert_tidy(&scene);
    }
    for (record, told) in [
        ("{", "parse the record"),
        ("{\"version\":2,\"flushed\":[]}", "unknown version 2"),
    ] {
        std::fs::write(scene.data().join(RECORD), record).unwrap();
        scene.put(0);
        let mut shipper = healthy(&scene).await;
        let error = shipper.sync().await.error.unwrap();
        assert!(ErrorChain(&error).to_string().contains(told), "{error:?}");
        let head = head_of(&mut scene);
        assert!(shipper.flush(&head).await.is_err());
        assert!(
            scene.published().is_empty(),
            "nothing is shipped over what is not known"
        );
        scene.vanish(block_id(0));
    }
}

/// Prometheus cuts a block of its head while the flush waits for the bucket: the head's block goes
/// in all the same, stays, and is not taken for its own successor.
#[tokio::test(start_paused = true)]
async fn a_block_cut_meanwhile_waits_for_the_return() {
    for allow_out_of_order in [false, true] {
        let policy = Policy {
            allow_out_of_order,
            ..STRICT
        };
        let mut scene = Scene::new(policy);
        scene.put(0);
        let head = head_of(&mut scene);
        let cut = scene.put(1);
        let aside = scene.data().join("cut.tmp");
        std::fs::rename(scene.block_dir(cut), &aside).unwrap();
        let failures = Arc::new(AtomicU32::new(0));
        let failing = Arc::clone(&failures);
        let decorate = |bucket| {
            let flaky = Flaky::new(bucket, move |operation, key: &str| {
                let is_head = key.starts_with(&block_id(HEAD).to_string());
                let fails = is_head
                    && operation == Operation::Upload
                    && failing.fetch_add(1, Ordering::SeqCst) < 2;
                match fails {
                    true => Outcome::Refuse { retryable: false },
                    false => Outcome::Pass,
                }
            });
            watched(&scene, Arc::new(flaky))
        };
        let mut shipper = scene.shipper_with(Faults::none(), decorate).await;
        let (flush, ()) = tokio::join!(shipper.flush(&head), async {
            while failures.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            std::fs::rename(&aside, scene.block_dir(cut)).unwrap();
        });
        assert_eq!(flush.unwrap(), Some(block_id(HEAD)));
        assert!(failures.load(Ordering::SeqCst) > 2);
        shipper.sync().await;
        assert_eq!(scene.published(), ids(&[0, HEAD]), "{allow_out_of_order}");
        assert!(has_record(&scene));
        scene.put(2);
        healthy(&scene).await.sync().await;
        assert_eq!(scene.published(), ids(&[0, 1, 2]));
    }
}

#[tokio::test]
async fn where_links_are_refused_the_head_goes_in_from_the_snapshot() {
    let mut scene = Scene::new(STRICT);
    scene.put(0);
    let head = head_of(&mut scene);
    let mut shipper = shipper(&scene, Faults::refusing_links()).await.unwrap();
    let flushed = shipper.flush(&head).await.unwrap();
    assert_eq!(flushed, Some(block_id(HEAD)));
    assert_eq!(scene.published(), ids(&[0, HEAD]));
    scene.assert_published_blocks_are_whole();
    assert_tidy(&scene);
}

#[tokio::test]
async fn a_flushed_block_that_is_not_there_holds_back_nothing() {
    let mut scene = Scene::new(STRICT);
    flushed(&mut scene).await;
    let in_bucket = scene.bucket_dir().join(block_id(HEAD).to_string());
    std::fs::remove_dir_all(in_bucket).unwrap();
    scene.put(1);
    assert_eq!(healthy(&scene).await.sync().await.shipped, 1);
    assert_eq!(scene.published(), ids(&[1]));
    assert!(!has_record(&scene));
}

#[tokio::test]
async fn snapshots_of_others_stay() {
    let mut scene = Scene::new(STRICT);
    scene.put(0);
    let head = head_of(&mut scene);
    let foreign = scene.data().join("snapshots/20260101T000001Z-0ther");
    let mut shipper = healthy(&scene).await;
    std::fs::create_dir_all(&foreign).unwrap();
    shipper.flush(&head).await.unwrap();
    assert!(foreign.exists());
}

/// A flush that dies at any file operation, and a return that dies at any: the bucket never shows
/// two blocks that overlap, and in the end holds what Prometheus wrote.
#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_leads_to_the_same_bucket() {
    for takes_effect in [false, true] {
        for dies_on_return in [false, true] {
            let mut at = 0;
            while dies_at(at, takes_effect, dies_on_return).await {
                at += 1;
            }
            assert!(at > 30, "{at} operations");
        }
    }
}

/// Whether there was such an operation.
async fn dies_at(at: u64, takes_effect: bool, dies_on_return: bool) -> bool {
    let faults = Faults::crash_at(at, takes_effect);
    let of = |dies| if dies { faults.clone() } else { Faults::none() };
    let mut scene = Scene::new(STRICT);
    scene.put(0);
    let head = head_of(&mut scene);
    if let Some(mut shipper) = shipper(&scene, of(!dies_on_return)).await {
        // It goes on trying where it can't go on.
        let flush = tokio::time::timeout(Duration::from_secs(60), shipper.flush(&head));
        let _ended = flush.await;
    }
    scene.put(1);
    scene.put(2);
    if let Some(mut shipper) = shipper(&scene, of(dies_on_return)).await {
        shipper.sync().await;
    }
    let has_crashed = faults.has_crashed();
    healthy(&scene).await.sync().await;
    assert_eq!(
        scene.published(),
        ids(&[0, 1, 2]),
        "{at} {takes_effect} {dies_on_return}"
    );
    scene.assert_published_blocks_are_whole();
    assert_tidy(&scene);
    assert!(!has_record(&scene));
    has_crashed
}
