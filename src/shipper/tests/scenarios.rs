//! Cases by name: each rule of the contract, each bad input.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::scene::{Scene, block_id, block_range, small_block, small_layout};
use crate::disk::Faults;
use crate::lifecycle::Drain;
use crate::model::{BlockId, BlockState, ExternalLabels, ShippingCounts};
use crate::objstore::{Flaky, Operation, Outcome};
use crate::shipper::sync::SyncError;
use crate::shipper::{HashFunc, Policy, Shipper};
use crate::tsdb::testing::{BlockFile, BlockLayout, Chunk, MemoryBlock, Series};
use crate::tsdb::{BlockMeta, ParentBlock};

const STRICT: Policy = Policy {
    upload_compacted: false,
    allow_out_of_order: false,
    skip_corrupted: false,
};
const OUT_OF_ORDER: Policy = Policy {
    allow_out_of_order: true,
    ..STRICT
};
const COMPACTED: Policy = Policy {
    upload_compacted: true,
    ..STRICT
};

fn ids(slots: &[u8]) -> Vec<BlockId> {
    slots.iter().map(|slot| block_id(*slot)).collect()
}

fn texts(slots: &[u8]) -> Vec<String> {
    ids(slots).iter().map(BlockId::to_string).collect()
}

/// A bucket that fails every operation on names containing `part`.
async fn shipper_failing(scene: &Scene, part: String, outcome: Outcome) -> Shipper {
    scene
        .shipper_with(Faults::none(), |bucket| {
            Arc::new(Flaky::new(bucket, move |operation, key| {
                let hit = operation == Operation::Upload && key.contains(&part);
                if hit { outcome } else { Outcome::Pass }
            }))
        })
        .await
}

#[tokio::test]
async fn blocks_are_shipped_oldest_first_and_recorded() {
    let mut scene = Scene::new(STRICT);
    scene.hash_func = HashFunc::Sha256;
    scene.concurrency = 4;
    for slot in [3, 1, 2] {
        scene.put(slot);
    }
    let mut shipper = scene.shipper().await;
    let report = shipper.sync().await;
    assert!(report.error.is_none() && report.shipped == 3, "{report:?}");
    assert_eq!(scene.published(), ids(&[1, 2, 3]));
    scene.assert_published_blocks_are_whole();
    assert_eq!(scene.ledger(), texts(&[1, 2, 3]));
    assert!(
        std::fs::read_dir(scene.data().join("thanos/upload"))
            .unwrap()
            .next()
            .is_none()
    );
    assert_eq!(shipper.sync().await.shipped, 0, "and not again");
    scene.vanish(block_id(2));
    shipper.sync().await;
    assert_eq!(
        scene.ledger(),
        texts(&[1, 3]),
        "a block that is gone leaves the ledger"
    );
    assert_eq!(
        scene.published(),
        ids(&[1, 2, 3]),
        "and stays in the bucket"
    );
}

#[tokio::test]
async fn meta_json_in_the_bucket_is_as_the_reference_writes_it() {
    let mut scene = Scene::new(STRICT);
    scene.hash_func = HashFunc::Sha256;
    let id = scene.put(1);
    scene.shipper().await.sync().await;
    let path = scene.bucket_dir().join(id.to_string()).join("meta.json");
    let text = std::fs::read_to_string(path).unwrap();
    let source = String::from_utf8(scene.pristine[&id].files[&BlockFile::Meta].clone()).unwrap();
    let upto_version = source.split_once("\t\"version\": 1").unwrap().0;
    assert!(text.starts_with(upto_version), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let thanos = &json["thanos"];
    let keys: Vec<_> = thanos
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "labels",
        "downsample",
        "source",
        "segment_files",
        "files",
        "index_stats",
        "upload_time",
    ];
    assert_eq!(keys, expected);
    assert_eq!(thanos["labels"], serde_json::json!({"cluster": "a"}));
    assert_eq!(thanos["upload_time"], "2026-01-01T00:00:00Z");
    let files = thanos["files"].as_array().unwrap();
    let last = files.len() - 1;
    assert_eq!(files[0]["rel_path"], "chunks/000001");
    assert_eq!(files[last - 1]["rel_path"], "index");
    assert_eq!(files[last], serde_json::json!({"rel_path": "meta.json"}));
    let index = scene.pristine[&id].index();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(index);
    assert_eq!(files[last - 1]["hash"]["hashFunc"], "SHA256");
    assert_eq!(files[last - 1]["hash"]["value"], hex::encode(hash));
}

#[tokio::test]
async fn an_existing_thanos_section_is_merged() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    scene.edit_meta(id, |meta| {
        let text = r#"{"labels":{"cluster":"old","zone":"z"},"downsample":{"resolution":0},
            "source":"receive","extensions":{"k":1},"own":7}"#;
        let whole = format!(
            "{{\"ulid\":\"{id}\",\"minTime\":0,\"maxTime\":1,\"version\":1,\
             \"compaction\":{{\"level\":1}},\"thanos\":{text}}}"
        );
        meta.thanos = BlockMeta::parse(whole.as_bytes()).unwrap().thanos;
    });
    scene.shipper().await.sync().await;
    let path = scene.bucket_dir().join(id.to_string()).join("meta.json");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let thanos = &json["thanos"];
    assert_eq!(
        thanos["labels"],
        serde_json::json!({"cluster": "a", "zone": "z"})
    );
    assert_eq!(thanos["source"], "sidecar");
    assert_eq!(thanos["extensions"], serde_json::json!({"k": 1}));
    assert_eq!(thanos["own"], 7);
}

#[tokio::test]
async fn empty_compacted_and_downsampled_blocks_stay() {
    let mut scene = Scene::new(STRICT);
    for slot in 1..5 {
        scene.put(slot);
    }
    scene.put_block(MemoryBlock::write(
        small_layout(),
        block_id(5),
        block_range(5),
        [],
    ));
    scene.edit_meta(block_id(1), |meta| meta.compaction.level = 2);
    scene.edit_meta(block_id(2), |meta| {
        meta.thanos = Some(crate::tsdb::ThanosMeta {
            downsample: crate::tsdb::Downsample {
                resolution: 300_000,
                ..Default::default()
            },
            ..Default::default()
        });
    });
    let report = scene.shipper().await.sync().await;
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(scene.published(), ids(&[3, 4]));
    assert_eq!(
        scene.ledger(),
        texts(&[3, 4]),
        "what is not shipped is not in the ledger"
    );
}

#[tokio::test]
async fn a_compacted_block_must_not_overlap() {
    let mut scene = Scene::new(COMPACTED);
    scene.put(1);
    scene.shipper().await.sync().await;
    // The same range again, as a compacted block.
    let twin = MemoryBlock::write(
        small_layout(),
        block_id(9),
        block_range(1),
        [Series {
            labels: vec![("a".to_owned(), "b".to_owned())],
            chunks: vec![Chunk::xor(&[(block_range(1).mint.0, 1.0)])],
        }],
    );
    scene.put_block(twin);
    scene.edit_meta(block_id(9), |meta| meta.compaction.level = 2);
    scene.put(2);
    let report = scene.shipper().await.sync().await;
    let error = crate::model::ErrorChain(report.error.as_ref().unwrap()).to_string();
    let expected = "Found overlap or error during sync, cannot upload compacted block, details: \
        shipping compacted block";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(
        (scene.published(), report.held_back),
        (ids(&[1]), 2),
        "itself and the one after it"
    );

    scene.policy.allow_out_of_order = true;
    scene.shipper().await.sync().await;
    assert_eq!(scene.published(), ids(&[1, 2, 9]));

    scene.policy.allow_out_of_order = false;
    scene.put(4);
    scene.edit_meta(block_id(4), |meta| meta.compaction.level = 3);
    let report = scene.shipper().await.sync().await;
    assert!(
        matches!(report.error, Some(SyncError::Overlap(_))),
        "also where two others overlap"
    );
}

#[tokio::test]
async fn a_failing_bucket_holds_back_newer_blocks_unless_told_otherwise() {
    for (policy, shipped, failed) in [(STRICT, vec![1], 0), (OUT_OF_ORDER, vec![1, 3], 1)] {
        let mut scene = Scene::new(policy);
        for slot in 1..4 {
            scene.put(slot);
        }
        let refuse = Outcome::Refuse { retryable: false };
        let mut shipper = shipper_failing(&scene, format!("{}/index", block_id(2)), refuse).await;
        let report = shipper.sync().await;
        assert_eq!(report.failed, failed);
        assert_eq!(report.error.is_some(), policy == STRICT);
        assert_eq!(scene.published(), ids(&shipped));
        assert_eq!(scene.ledger(), texts(&shipped), "written after each block");
        scene.shipper().await.sync().await;
        assert_eq!(scene.published(), ids(&[1, 2, 3]));
        scene.assert_published_blocks_are_whole();
    }
}

#[tokio::test]
async fn an_object_that_the_bucket_lost_is_noticed_before_meta_json() {
    for part in ["index", "chunks/000002"] {
        let mut scene = Scene::new(STRICT);
        scene.put(1);
        let mut shipper = shipper_failing(&scene, part.to_owned(), Outcome::LoseObject).await;
        assert!(shipper.sync().await.error.is_some());
        assert!(scene.published().is_empty());
        scene.shipper().await.sync().await;
        assert_eq!(scene.published(), ids(&[1]));
    }
}

#[tokio::test]
async fn a_meta_json_that_landed_despite_an_error_counts() {
    let mut scene = Scene::new(STRICT);
    scene.put(1);
    let lose = Outcome::LoseAnswer { retryable: false };
    let report = shipper_failing(&scene, "meta.json".to_owned(), lose)
        .await
        .sync()
        .await;
    assert!(report.error.is_none() && report.shipped == 1, "{report:?}");
    assert_eq!(scene.ledger(), texts(&[1]));
}

#[tokio::test]
async fn a_damaged_block_is_left_out_counted_once_and_holds_nothing_back() {
    for file in ["index", "chunks/000001", "chunks/000003"] {
        let mut scene = Scene::new(STRICT);
        for slot in 1..4 {
            scene.put(slot);
        }
        scene.flip(block_id(2), file, 60, 3);
        let mut shipper = scene.shipper().await;
        let report = shipper.sync().await;
        assert_eq!(
            (report.newly_corrupt, report.shipped),
            (1, 2),
            "{file}: {report:?}"
        );
        assert!(report.error.is_none());
        assert_eq!(scene.published(), ids(&[1, 3]));
        assert_eq!(scene.ledger(), texts(&[1, 3]));
        assert_eq!(shipper.sync().await.newly_corrupt, 0);
        // Whole again: shipped, after an overlap check.
        let bytes = match file {
            "index" => scene.pristine[&block_id(2)].index().to_vec(),
            segment => {
                let files = &scene.pristine[&block_id(2)].files;
                files
                    .iter()
                    .find(|(f, _)| f.path() == segment)
                    .unwrap()
                    .1
                    .clone()
            }
        };
        scene.replace(block_id(2), file, &bytes);
        let report = shipper.sync().await;
        assert!(
            report.error.is_none() && report.shipped == 1,
            "{file}: {report:?}"
        );
        assert_eq!(scene.published(), ids(&[1, 2, 3]));
        scene.assert_published_blocks_are_whole();
    }
}

#[tokio::test]
async fn truncated_missing_and_swapped_files_are_never_published() {
    type Damage = fn(&Scene, BlockId);
    let damages: [(&str, Damage); 7] = [
        ("short segment", |scene, id| {
            let path = scene.block_dir(id).join("chunks/000002");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 7]).unwrap();
        }),
        ("missing segment", |scene, id| {
            std::fs::remove_file(scene.block_dir(id).join("chunks/000002")).unwrap();
        }),
        ("missing last segment", |scene, id| {
            let last = std::fs::read_dir(scene.block_dir(id).join("chunks")).unwrap();
            let last = last.map(|entry| entry.unwrap().path()).max().unwrap();
            std::fs::remove_file(last).unwrap();
        }),
        ("empty segment", |scene, id| {
            std::fs::write(scene.block_dir(id).join("chunks/000001"), "").unwrap();
        }),
        ("index of another block", |scene, id| {
            let other = small_block(77, small_layout());
            std::fs::write(scene.block_dir(id).join("index"), other.index()).unwrap();
        }),
        ("missing index", |scene, id| {
            std::fs::remove_file(scene.block_dir(id).join("index")).unwrap();
        }),
        ("missing chunks", |scene, id| {
            std::fs::remove_dir_all(scene.block_dir(id).join("chunks")).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let mut scene = Scene::new(STRICT);
        let (bad, good) = (scene.put(1), scene.put(2));
        damage(&scene, bad);
        let report = scene.shipper().await.sync().await;
        assert_eq!(report.newly_corrupt, 1, "{name}: {report:?}");
        assert!(report.error.is_none(), "{name}: {report:?}");
        assert_eq!(scene.published(), [good], "{name}");
    }
}

#[tokio::test]
async fn wrong_counts_in_meta_json_are_damage() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    scene.edit_meta(id, |meta| meta.stats.num_samples += 1);
    let report = scene.shipper().await.sync().await;
    assert_eq!((report.newly_corrupt, scene.published().len()), (1, 0));
}

#[tokio::test]
async fn unreadable_meta_json() {
    for (content, name) in [
        ("", "empty"),
        ("{", "half"),
        ("{\"version\": 2}", "later version"),
        (
            &String::from_utf8(small_block(3, small_layout()).meta.to_json()).unwrap(),
            "other block",
        ),
    ] {
        let mut scene = Scene::new(STRICT);
        let (bad, good) = (scene.put(1), scene.put(2));
        scene.replace(bad, "meta.json", content.as_bytes());
        let mut shipper = scene.shipper().await;
        let report = shipper.sync().await;
        assert!(
            report.error.is_none() && report.newly_corrupt == 1,
            "{name}: {report:?}"
        );
        assert_eq!(scene.published(), [good], "{name}");
        assert_eq!(
            shipper.sync().await.newly_corrupt,
            0,
            "{name}: counted once"
        );
        scene.replace(bad, "meta.json", &scene.pristine[&bad].meta.to_json());
        shipper.sync().await;
        assert_eq!(scene.published(), [bad, good], "{name}: whole again");
    }
    let mut scene = Scene::new(STRICT);
    let (bad, good) = (scene.put(1), scene.put(2));
    std::fs::remove_file(scene.block_dir(bad).join("meta.json")).unwrap();
    assert_eq!(
        scene.shipper().await.sync().await.newly_corrupt,
        1,
        "half-written block"
    );
    assert_eq!(scene.published(), [good]);
}

#[tokio::test]
async fn a_block_that_can_not_be_read_holds_back_those_made_after_it() {
    for (policy, expected) in [
        (STRICT, vec![1]),
        (OUT_OF_ORDER, vec![1, 3]),
        (
            Policy {
                skip_corrupted: true,
                ..STRICT
            },
            vec![1, 3],
        ),
    ] {
        let mut scene = Scene::new(policy);
        for slot in 1..4 {
            scene.put(slot);
        }
        // A directory in place of the file: reading fails, for root as well.
        let meta = scene.block_dir(block_id(2)).join("meta.json");
        std::fs::remove_file(&meta).unwrap();
        std::fs::create_dir(&meta).unwrap();
        let report = scene.shipper().await.sync().await;
        assert_eq!(scene.published(), ids(&expected), "{policy:?}");
        assert_eq!(report.error.is_some(), policy == STRICT, "{report:?}");
    }
}

#[tokio::test]
async fn odd_names_and_symlinks_in_the_data_directory_do_no_harm() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut scene = Scene::new(STRICT);
    let good = scene.put(2);
    let outside = tempfile::tempdir().unwrap();
    let other = small_block(1, small_layout());
    std::fs::create_dir(outside.path().join("chunks")).unwrap();
    for (file, bytes) in &other.files {
        std::fs::write(outside.path().join(file.path()), bytes).unwrap();
    }
    symlink(outside.path(), scene.block_dir(block_id(1))).unwrap();
    std::fs::create_dir(scene.data().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    std::fs::write(
        scene.data().join(block_id(7).to_string()),
        "a file, no block",
    )
    .unwrap();
    std::fs::create_dir(
        scene
            .data()
            .join(format!("{}.tmp-for-creation", block_id(6))),
    )
    .unwrap();
    std::fs::create_dir(scene.data().join(block_id(5).to_string().to_lowercase())).unwrap();
    let report = scene.shipper().await.sync().await;
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(scene.published(), [good]);
}

#[tokio::test]
async fn a_block_deleted_while_the_bucket_is_away_is_finished_from_staging() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let refuse = Outcome::Refuse { retryable: false };
    shipper_failing(&scene, "index".to_owned(), refuse)
        .await
        .sync()
        .await;
    scene.vanish(id);
    let mut shipper = scene.shipper().await;
    let report = shipper.sync().await;
    assert_eq!((scene.published(), report.shipped), (vec![id], 1));
    scene.assert_published_blocks_are_whole();
    assert!(
        !scene
            .data()
            .join("thanos/upload")
            .join(id.to_string())
            .exists()
    );
    assert!(scene.ledger().is_empty());
}

#[tokio::test]
async fn where_links_are_refused_held_files_are_shipped_even_when_deleted_meanwhile() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let deleted = Arc::new(AtomicU32::new(0));
    let (seen, data) = (Arc::clone(&deleted), scene.data());
    let mut shipper = scene
        .shipper_with(Faults::refusing_links(), |bucket| {
            Arc::new(Flaky::new(bucket, move |operation, _| {
                // Prometheus deletes the block just as the first object is sent.
                if operation == Operation::Upload && seen.fetch_add(1, Ordering::Relaxed) == 0 {
                    let doomed = data.join("doomed");
                    std::fs::rename(data.join(id.to_string()), &doomed).unwrap();
                    std::fs::remove_dir_all(doomed).unwrap();
                }
                Outcome::Pass
            }))
        })
        .await;
    let report = shipper.sync().await;
    assert!(
        deleted.load(Ordering::Relaxed) > 1 && report.shipped == 1,
        "{report:?}"
    );
    assert_eq!(scene.published(), [id]);
    scene.assert_published_blocks_are_whole();
}

#[tokio::test]
async fn a_staged_block_whose_data_lives_on_in_another_is_dropped() {
    let mut scene = Scene::new(STRICT);
    let id = scene.put(1);
    let refuse = Outcome::Refuse { retryable: false };
    shipper_failing(&scene, "index".to_owned(), refuse)
        .await
        .sync()
        .await;
    scene.vanish(id);
    // As `clean_tombstones` does: the same data, a new ULID, the old one as parent.
    let mut rewritten = small_block(1, small_layout());
    rewritten.meta.ulid = block_id(9);
    let range = block_range(1);
    rewritten.meta.compaction.parents = vec![ParentBlock {
        ulid: id,
        min_time: range.mint,
        max_time: range.maxt,
        unknown: Default::default(),
    }];
    rewritten
        .files
        .insert(BlockFile::Meta, rewritten.meta.to_json());
    scene.put_block(rewritten);
    scene.shipper().await.sync().await;
    assert_eq!(
        scene.published(),
        ids(&[9]),
        "never both: they would overlap"
    );
    assert!(
        !scene
            .data()
            .join("thanos/upload")
            .join(id.to_string())
            .exists()
    );
}

#[tokio::test]
async fn references_out_of_order_and_older_index_layouts_are_shipped() {
    for layout in [
        BlockLayout {
            swap_references: true,
            ..small_layout()
        },
        BlockLayout {
            index_version: 1,
            ..small_layout()
        },
        BlockLayout {
            index_version: 3,
            ..small_layout()
        },
        BlockLayout {
            label_indices: true,
            ..small_layout()
        },
    ] {
        let mut scene = Scene::new(STRICT);
        let id = scene.put_block(small_block(1, layout));
        let report = scene.shipper().await.sync().await;
        assert_eq!(scene.published(), [id], "{layout:?}: {report:?}");
        scene.assert_published_blocks_are_whole();
        // The lock-step check holds for each of them.
        let mut scene = Scene::new(STRICT);
        let id = scene.put_block(small_block(1, layout));
        std::fs::remove_file(scene.block_dir(id).join("chunks/000003")).unwrap();
        assert_eq!(
            scene.shipper().await.sync().await.newly_corrupt,
            1,
            "{layout:?}"
        );
    }
}

#[tokio::test]
async fn without_labels_nothing_is_published() {
    let mut scene = Scene::new(STRICT);
    scene.put(1);
    let labels = scene.labels.send_replace(ExternalLabels::default());
    let mut shipper = scene.shipper().await;
    let report = shipper.sync().await;
    let error = crate::model::ErrorChain(report.error.as_ref().unwrap()).to_string();
    assert!(
        error.contains("empty external labels are not allowed for Thanos block."),
        "{error}"
    );
    assert!(scene.published().is_empty());
    scene.labels.send_replace(labels);
    assert_eq!(shipper.sync().await.shipped, 1);
}

#[tokio::test]
async fn a_lost_ledger_is_made_again_from_the_bucket() {
    let mut scene = Scene::new(STRICT);
    scene.put(1);
    scene.put(2);
    let mut shipper = scene.shipper().await;
    shipper.sync().await;
    for damage in ["", "{\"version\":9}"] {
        std::fs::write(scene.data().join("thanos.shipper.json"), damage).unwrap();
        let report = shipper.sync().await;
        assert_eq!((report.shipped, scene.ledger()), (0, texts(&[1, 2])));
    }
}

#[tokio::test]
async fn a_valid_ledger_is_there_before_anything_is_shipped() {
    let mut scene = Scene::new(STRICT);
    scene.put(1);
    let _shipper = scene.shipper().await;
    assert!(scene.ledger().is_empty());
}

#[tokio::test]
async fn a_missing_data_directory_is_an_error_that_names_it() {
    let scene = Scene::new(STRICT);
    std::fs::remove_dir_all(scene.data()).unwrap();
    let config = crate::shipper::ShipperConfig {
        data_dir: scene.data(),
        ledger_name: "l".into(),
        policy: STRICT,
        hash_func: HashFunc::None,
        upload_concurrency: 1,
        upload_jitter: Duration::ZERO,
        jitter_seed: 0,
    };
    let dependencies = crate::shipper::Dependencies {
        bucket: Arc::new(crate::objstore::FilesystemBucket::new(scene.bucket_dir())),
        engine: crate::disk::DiskEngine::for_tests(crate::disk::BufferPool::new(1)),
        labels: scene.labels.subscribe(),
        clock: crate::model::Clock::fixed(0),
        metrics: crate::shipper::ShipperMetrics::default(),
        status: scene.status.clone(),
        faults: Faults::none(),
        tracer: None,
    };
    let error = Shipper::open(config, dependencies).await.unwrap_err();
    let text = crate::model::ErrorChain(&error).to_string();
    assert!(text.starts_with("opening tsdb directory: "), "{text}");
    assert!(text.contains(scene.data().to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_new_block_wakes_the_shipper_and_the_drain_ends_it() {
    let mut scene = Scene::new(STRICT);
    scene.put(1);
    let mut shipper = scene.shipper().await;
    let (trigger, drain) = Drain::new();
    let task = tokio::spawn(async move { shipper.run(drain).await.unwrap() });
    // Far less than the tick, far more than it takes.
    let deadline = Duration::from_secs(20);
    let until = async |scene: &Scene, count: usize| {
        while scene.ledger().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(deadline, until(&scene, 1))
        .await
        .unwrap();
    scene.put(2);
    tokio::time::timeout(deadline, until(&scene, 2))
        .await
        .expect("woken by the rename");
    trigger.start();
    tokio::time::timeout(deadline, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn counters_follow_the_contract() {
    let mut scene = Scene::new(STRICT);
    scene.put(1);
    scene.put(2);
    let uploads = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&uploads);
    let mut shipper = scene
        .shipper_with(Faults::none(), |bucket| {
            Arc::new(Flaky::new(bucket, move |operation, key| {
                let second = key.starts_with(&block_id(2).to_string());
                if operation == Operation::Upload
                    && second
                    && seen.fetch_add(1, Ordering::Relaxed) == 0
                {
                    Outcome::Refuse { retryable: false }
                } else {
                    Outcome::Pass
                }
            }))
        })
        .await;
    shipper.sync().await;
    let metrics = shipper.metrics().clone();
    let read = || {
        (
            metrics.dir_syncs.get(),
            metrics.dir_sync_failures.get(),
            metrics.uploads.get(),
            metrics.upload_failures.get(),
            metrics.corrupted_blocks.get(),
        )
    };
    assert_eq!(read(), (0, 1, 1, 0, 0));
    shipper.sync().await;
    assert_eq!(read(), (1, 1, 2, 0, 0));
    shipper.sync().await;
    assert_eq!(read(), (2, 1, 2, 0, 0));
}

#[tokio::test]
async fn the_status_tells_what_becomes_of_each_block() {
    let mut scene = Scene::new(STRICT);
    let blocks: Vec<BlockId> = (1..=5).map(|slot| scene.put(slot)).collect();
    scene.flip(blocks[1], "index", 40, 3);
    scene.edit_meta(blocks[2], |meta| meta.compaction.level = 2);
    std::fs::write(scene.block_dir(blocks[4]).join("meta.json"), "{").unwrap();
    let status = scene.status.subscribe();
    let mut shipper = scene.shipper().await;
    shipper.sync().await;
    let status = status.borrow().clone();
    let states: Vec<_> = status.blocks.iter().map(|b| (b.id, b.state)).collect();
    assert_eq!(
        states,
        [
            (blocks[4], BlockState::Corrupt),
            (blocks[1], BlockState::Corrupt),
            (blocks[2], BlockState::Compacted),
            (blocks[3], BlockState::Shipped),
            (blocks[0], BlockState::Shipped),
        ]
    );
    let counts = ShippingCounts {
        shipped: 2,
        waiting: 0,
        damaged: 2,
        left_out: 1,
    };
    assert_eq!(status.counts, counts);
    assert_eq!(status.last_shipped.map(|last| last.id), Some(blocks[3]));
    assert_eq!(status.upload, None);
    assert!(status.last_look.is_some());
    let failed: Vec<_> = status.failures.iter().map(|f| f.block).collect();
    assert_eq!(failed, [Some(blocks[1]), Some(blocks[4])]);
    assert!(
        status
            .failures
            .iter()
            .all(|failure| failure.remedy.is_some())
    );
}

/// The bucket is away: the oldest block's failure is told once and counted, and all wait.
#[tokio::test]
async fn the_status_tells_of_a_bucket_that_is_away() {
    let mut scene = Scene::new(STRICT);
    let blocks: Vec<BlockId> = (1..=2).map(|slot| scene.put(slot)).collect();
    std::fs::write(scene.bucket_dir(), "").unwrap();
    let status = scene.status.subscribe();
    let mut shipper = scene.shipper().await;
    for _ in 0..2 {
        shipper.sync().await;
    }
    let seen = status.borrow().clone();
    assert_eq!(seen.counts.waiting, 2);
    let (id, states) = (seen.failures[0].block, seen.blocks.len());
    assert!(
        states == 2 && id.is_none_or(|id| id == blocks[0]),
        "{seen:?}"
    );
    assert_eq!(
        (seen.failures.len(), seen.failures[0].times),
        (1, 2),
        "{seen:?}"
    );
}
