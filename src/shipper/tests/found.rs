//! Cases that once went wrong: what happens between two steps of a pass, and what another process
//! or an operator does meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::scene::{Scene, block_id, block_range, small_block, small_layout};
use crate::disk::Faults;
use crate::objstore::{Flaky, Operation, Outcome};
use crate::shipper::{Policy, Shipper};
use crate::tsdb::ParentBlock;
use crate::tsdb::testing::{BlockFile, Chunk, MemoryBlock, Series};

const STRICT: Policy = Policy {
    upload_compacted: false,
    allow_out_of_order: false,
    skip_corrupted: false,
};

/// A shipper whose bucket refuses every index as long as the switch is on.
async fn refusing_indexes(scene: &Scene) -> (Shipper, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&refuses);
    let shipper = scene.shipper_with(Faults::none(), |bucket| {
        Arc::new(Flaky::new(bucket, move |operation, key| {
            let is_index = operation == Operation::Upload && key.ends_with("/index");
            if is_index && asked.load(Ordering::SeqCst) {
                Outcome::Refuse { retryable: false }
            } else {
                Outcome::Pass
            }
        }))
    });
    (shipper.await, refuses)
}

/// A shipper that does `act` once, just before the first operation for which `when` holds.
async fn interrupted(
    scene: &Scene,
    when: impl Fn(Operation, &str) -> bool + Send + Sync + 'static,
    act: impl Fn() + Send + Sync + 'static,
) -> Shipper {
    let is_done = AtomicBool::new(false);
    let shipper = scene.shipper_with(Faults::none(), |bucket| {
        Arc::new(Flaky::new(bucket, move |operation, key| {
            if when(operation, key) && !is_done.swap(true, Ordering::SeqCst) {
                act();
            }
            Outcome::Pass
        }))
    });
    shipper.await
}

#[tokio::test]
async fn a_staged_block_survives_its_source_vanishing_within_the_pass() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let (mut shipper, _) = refusing_indexes(&scene).await;
    shipper.sync().await;
    assert!(scene.is_staged_whole(id));
    drop(shipper);
    let data = scene.data();
    let asks =
        |operation, key: &str| operation == Operation::Attributes && key.ends_with("meta.json");
    let mut shipper = interrupted(&scene, asks, move || {
        let doomed = data.join("doomed");
        std::fs::rename(data.join(id.to_string()), &doomed).unwrap();
        std::fs::remove_dir_all(doomed).unwrap();
    })
    .await;
    shipper.sync().await;
    assert_eq!(scene.published(), [id]);
    scene.assert_published_blocks_are_whole();
}

#[tokio::test]
async fn a_verdict_is_on_what_was_read_not_on_what_took_its_place() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    scene.flip(id, "chunks/000003", 60, 3);
    let good = scene.pristine[&id].files[&BlockFile::Segment(2)].clone();
    let path = scene.block_dir(id).join("chunks/000003");
    let sends = |operation, key: &str| operation == Operation::Upload && key.contains("000002");
    let mut shipper = interrupted(&scene, sends, move || {
        std::fs::write(path.with_extension("new"), &good).unwrap();
        std::fs::rename(path.with_extension("new"), &path).unwrap();
    })
    .await;
    shipper.sync().await;
    shipper.sync().await;
    assert_eq!(scene.published(), [id]);
}

#[tokio::test]
async fn a_restored_block_that_may_not_join_stays_out_alone() {
    for overlaps in [false, true] {
        let mut scene = Scene::new(STRICT);
        scene.put(1);
        // An out-of-order block of level 1 over the same range, as Prometheus makes them.
        let twin_of = |slot, id| {
            let labels = vec![("a".to_owned(), "b".to_owned())];
            let chunks = vec![Chunk::xor(&[(block_range(slot).mint.0, 1.0)])];
            let series = [Series { labels, chunks }];
            MemoryBlock::write(small_layout(), block_id(id), block_range(slot), series)
        };
        scene.put_block(twin_of(1, 8));
        scene.put(2);
        scene.flip(block_id(2), "index", 60, 3);
        if overlaps {
            scene.put_block(twin_of(2, 9));
        }
        let mut shipper = scene.shipper().await;
        shipper.sync().await;
        let index = scene.pristine[&block_id(2)].index().to_vec();
        scene.replace(block_id(2), "index", &index);
        scene.put(3);
        let report = shipper.sync().await;
        assert!(report.error.is_none(), "{report:?}");
        assert!(
            scene.published().contains(&block_id(3)),
            "holds back nobody"
        );
        assert_eq!(scene.published().contains(&block_id(2)), !overlaps);
    }
}

#[tokio::test]
async fn a_meta_json_that_the_bucket_kept_in_part_is_sent_again() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let path = scene.bucket_dir().join(id.to_string()).join("meta.json");
    let there = path.clone();
    let asks = move |operation, key: &str| {
        operation == Operation::Attributes && key.ends_with("meta.json") && there.exists()
    };
    let mut shipper = interrupted(&scene, asks, move || std::fs::write(&path, "{").unwrap()).await;
    assert!(shipper.sync().await.error.is_some());
    assert!(scene.ledger().is_empty());
    assert_eq!(shipper.sync().await.shipped, 1);
    scene.assert_published_blocks_are_whole();
}

#[tokio::test]
async fn an_object_lost_after_a_failed_try_is_found_missing_behind_its_meta_json() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let block = scene.bucket_dir().join(id.to_string());
    let (index, meta) = (block.join("index"), block.join("meta.json"));
    let asks = move |operation, key: &str| {
        operation == Operation::Attributes && key.ends_with("meta.json") && meta.exists()
    };
    let ledger = scene.data().join("thanos.shipper.json");
    let mut shipper = interrupted(&scene, asks, move || {
        // The process dies here, before it records the block, and the bucket loses an object.
        std::fs::remove_file(&index).unwrap();
        std::fs::remove_file(&ledger).unwrap();
    })
    .await;
    shipper.sync().await;
    std::fs::remove_file(scene.data().join("thanos.shipper.json")).unwrap();
    // Staged anew, as after a crash.
    let staged = scene.data().join("thanos/upload").join(id.to_string());
    std::fs::create_dir_all(staged.join("chunks")).unwrap();
    for file in scene.pristine[&id].files.keys() {
        let path = file.path();
        std::fs::hard_link(scene.block_dir(id).join(&path), staged.join(&path)).unwrap();
    }
    assert_eq!(scene.shipper().await.sync().await.shipped, 1);
    scene.assert_published_blocks_are_whole();
}

#[tokio::test]
async fn a_staged_block_outlives_a_successor_that_is_damaged() {
    let mut scene = Scene::new(Policy {
        upload_compacted: true,
        ..STRICT
    });
    let id = scene.put(1);
    let (mut shipper, refuses) = refusing_indexes(&scene).await;
    shipper.sync().await;
    let range = block_range(1);
    let mut merged = small_block(1, small_layout());
    merged.meta.ulid = block_id(9);
    merged.meta.compaction.level = 2;
    merged.meta.compaction.parents = vec![ParentBlock {
        ulid: id,
        min_time: range.mint,
        max_time: range.maxt,
        unknown: Default::default(),
    }];
    merged.files.insert(BlockFile::Meta, merged.meta.to_json());
    scene.put_block(merged);
    scene.flip(block_id(9), "index", 60, 3);
    scene.vanish(id);
    refuses.store(false, Ordering::SeqCst);
    shipper.sync().await;
    shipper.sync().await;
    assert_eq!(scene.published(), [id]);
}

#[tokio::test]
async fn the_last_copy_of_a_damaged_block_is_not_ours_to_delete() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let (mut shipper, refuses) = refusing_indexes(&scene).await;
    shipper.sync().await;
    scene.flip(id, "chunks/000003", 60, 3);
    scene.vanish(id);
    refuses.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        shipper.sync().await;
        assert!(
            scene
                .data()
                .join("thanos/upload")
                .join(id.to_string())
                .exists()
        );
    }
    assert!(scene.published().is_empty());
}

#[tokio::test]
async fn a_file_restored_in_place_with_its_times_is_looked_at_again() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let path = scene.block_dir(id).join("index");
    let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
    let keep_mtime = || {
        let times = std::fs::FileTimes::new().set_modified(mtime);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
    };
    scene.flip(id, "index", 60, 3);
    keep_mtime();
    let mut shipper = scene.shipper().await;
    assert_eq!(shipper.sync().await.newly_corrupt, 1);
    std::fs::write(&path, scene.pristine[&id].index()).unwrap();
    keep_mtime();
    shipper.sync().await;
    assert_eq!(scene.published(), [id]);
}

#[tokio::test]
async fn a_ledger_damaged_while_we_run_sends_nothing_again() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let mut shipper = scene.shipper().await;
    shipper.sync().await;
    // The compactor has merged and deleted it.
    std::fs::remove_dir_all(scene.bucket_dir().join(id.to_string())).unwrap();
    std::fs::write(scene.data().join("thanos.shipper.json"), "{").unwrap();
    assert_eq!(shipper.sync().await.shipped, 0);
    assert_eq!(scene.ledger(), [id.to_string()]);
}

#[tokio::test]
async fn out_of_order_failures_keep_one_staging_not_all() {
    let mut scene = Scene::new(Policy {
        allow_out_of_order: true,
        ..STRICT
    });
    for slot in 1..6 {
        scene.put(slot);
    }
    let (mut shipper, _) = refusing_indexes(&scene).await;
    assert_eq!(shipper.sync().await.failed, 5);
    let staged = std::fs::read_dir(scene.data().join("thanos/upload"))
        .unwrap()
        .count();
    assert_eq!(
        staged, 1,
        "the others would hold the space that retention wants to free"
    );
}

#[tokio::test]
async fn a_meta_json_that_changes_while_the_block_is_sent_is_not_published() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let path = scene.block_dir(id).join("meta.json");
    let sends = |operation, key: &str| operation == Operation::Upload && key.ends_with("index");
    let mut shipper = interrupted(&scene, sends, move || {
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            text.replacen("\"maxTime\": 17", "\"maxTime\": 27", 1),
        )
        .unwrap();
    })
    .await;
    assert!(shipper.sync().await.error.is_some());
    assert!(scene.published().is_empty());
}

#[tokio::test]
async fn a_half_made_staging_of_a_deleted_block_holds_nothing_back() {
    for missing in ["index", "meta.json"] {
        let mut scene = Scene::new(STRICT);
        let (gone, newer) = (scene.put(1), scene.put(2));
        let staged = scene.data().join("thanos/upload").join(gone.to_string());
        std::fs::create_dir_all(staged.join("chunks")).unwrap();
        for file in scene.pristine[&gone].files.keys().map(|file| file.path()) {
            if file != missing {
                std::fs::hard_link(scene.block_dir(gone).join(&file), staged.join(&file)).unwrap();
            }
        }
        scene.vanish(gone);
        let report = scene.shipper().await.sync().await;
        assert!(report.error.is_none(), "{missing}: {report:?}");
        assert_eq!(scene.published(), [newer]);
        assert!(!staged.exists(), "{missing}: nothing can come of it");
    }
}
