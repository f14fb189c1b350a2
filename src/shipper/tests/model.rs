//! The shipper against a reference model: random operations, with a crash, a dropped future or a
//! bucket fault anywhere, and the same three promises after each: no bad block is published, none
//! is lost, the ledger can always be read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use proptest::prelude::*;

use super::scene::{Scene, block_id};
use crate::disk::Faults;
use crate::model::BlockId;
use crate::objstore::{Flaky, Outcome};
use crate::shipper::{Policy, Shipper};
use crate::tsdb::testing::BlockFile;

/// Slots for blocks; few, so that operations meet.
const SLOTS: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// Prometheus finishes a block.
    New(u8),
    /// Prometheus deletes a block.
    Vanish(u8),
    /// The disk flips a bit: which file, where in it.
    Corrupt {
        slot: u8,
        file: u8,
        at: u16,
        bit: u8,
    },
    /// Someone restores a block's files from a copy.
    Heal(u8),
    /// Someone removes or damages the ledger.
    HurtLedger(bool),
    /// A pass without faults.
    Sync,
    /// The process is started anew.
    Restart,
    /// A pass whose bucket fails at one operation.
    BucketFault { at: u32, outcome: Outcome },
    /// A new process that dies at one file operation, in the data directory or in the bucket.
    Crash { at: u64, takes_effect: bool },
    /// A new process whose pass is dropped at one of its await points.
    Dropped { polls: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    let outcome = prop_oneof![
        any::<bool>().prop_map(|retryable| Outcome::Refuse { retryable }),
        any::<bool>().prop_map(|retryable| Outcome::LoseAnswer { retryable }),
        Just(Outcome::LoseObject),
    ];
    prop_oneof![
        6 => slot.clone().prop_map(Step::New),
        2 => slot.clone().prop_map(Step::Vanish),
        2 => (slot.clone(), 0..8u8, any::<u16>(), 0..8u8)
            .prop_map(|(slot, file, at, bit)| Step::Corrupt { slot, file, at, bit }),
        1 => slot.prop_map(Step::Heal),
        1 => any::<bool>().prop_map(Step::HurtLedger),
        3 => Just(Step::Sync),
        1 => Just(Step::Restart),
        3 => (0..25u32, outcome).prop_map(|(at, outcome)| Step::BucketFault { at, outcome }),
        4 => (0..200u64, any::<bool>())
            .prop_map(|(at, takes_effect)| Step::Crash { at, takes_effect }),
        2 => (1..120u32).prop_map(|polls| Step::Dropped { polls }),
    ]
}

struct World {
    scene: Scene,
    shipper: Option<Shipper>,
    /// Blocks in the data directory now.
    present: BTreeSet<BlockId>,
    /// Blocks whose files are not what Prometheus wrote.
    damaged: BTreeSet<BlockId>,
    /// Blocks that were published once.
    must_be_published: BTreeSet<BlockId>,
    /// Blocks that vanished while all their files were staged.
    must_be_published_in_the_end: BTreeSet<BlockId>,
    /// Blocks that vanished with damaged files staged: the last copy is not ours to delete.
    may_stay_staged: BTreeSet<String>,
    ledger_hurt: bool,
    ledger_written: bool,
    runtime: tokio::runtime::Runtime,
}

fn runtime() -> tokio::runtime::Runtime {
    // Time stands still but for what is waited for: retries cost nothing.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

impl World {
    fn new(policy: Policy) -> Self {
        Self {
            scene: Scene::new(policy),
            shipper: None,
            present: BTreeSet::new(),
            damaged: BTreeSet::new(),
            must_be_published: BTreeSet::new(),
            must_be_published_in_the_end: BTreeSet::new(),
            may_stay_staged: BTreeSet::new(),
            ledger_hurt: false,
            ledger_written: false,
            runtime: runtime(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::New(slot) => self.new_block(slot),
            Step::Vanish(slot) => {
                if self.present.remove(&block_id(slot)) {
                    if self.scene.is_staged_whole(block_id(slot)) {
                        self.must_be_published_in_the_end.insert(block_id(slot));
                    } else {
                        self.may_stay_staged.insert(block_id(slot).to_string());
                    }
                    self.scene.vanish(block_id(slot));
                }
            }
            Step::Corrupt {
                slot,
                file,
                at,
                bit,
            } => self.corrupt(slot, file, at, bit),
            Step::Heal(slot) => self.heal(block_id(slot)),
            Step::HurtLedger(remove) => {
                let path = self.scene.data().join("thanos.shipper.json");
                if remove {
                    // It may not be there yet.
                    std::fs::remove_file(path).ok();
                } else {
                    std::fs::write(path, "{\"version\": 1, \"uploaded\": [").unwrap();
                }
                self.ledger_hurt = true;
            }
            Step::Sync => self.clean_sync(),
            Step::Restart => self.shipper = None,
            Step::BucketFault { at, outcome } => self.sync_with_bucket_fault(at, outcome),
            Step::Crash { at, takes_effect } => self.crash(at, takes_effect),
            Step::Dropped { polls } => self.dropped(polls),
        }
        self.check();
    }

    fn new_block(&mut self, slot: u8) {
        let id = block_id(slot);
        // A ULID is never used twice.
        if self.scene.pristine.contains_key(&id) {
            return;
        }
        self.scene.put(slot);
        self.present.insert(id);
    }

    fn corrupt(&mut self, slot: u8, file: u8, at: u16, bit: u8) {
        let id = block_id(slot);
        if !self.present.contains(&id) || self.damaged.contains(&id) {
            return;
        }
        let files = &self.scene.pristine[&id].files;
        let files: Vec<_> = files
            .iter()
            .filter(|(file, _)| **file != BlockFile::Meta)
            .collect();
        let (file, bytes) = files[usize::from(file) % files.len()];
        let at = usize::from(at) % bytes.len();
        // The one flip that no reader can notice: index version 2 to 3.
        if *file == BlockFile::Index && at == 4 {
            return;
        }
        self.scene.flip(id, &file.path(), at, bit);
        self.damaged.insert(id);
    }

    fn heal(&mut self, id: BlockId) {
        if self.present.contains(&id) && self.damaged.remove(&id) {
            for (file, bytes) in &self.scene.pristine[&id].files {
                self.scene.replace(id, &file.path(), bytes);
            }
        }
    }

    fn clean_sync(&mut self) {
        let mut shipper = match self.shipper.take() {
            Some(shipper) => shipper,
            None => self.runtime.block_on(self.scene.shipper()),
        };
        let report = self.runtime.block_on(shipper.sync());
        assert!(
            report.error.is_none(),
            "a pass without faults ended early: {report:?}"
        );
        self.shipper = Some(shipper);
        self.ledger_hurt = false;
        // Everything whole is in the bucket now, and the ledger tells exactly what is.
        let published: BTreeSet<BlockId> = self.scene.published().into_iter().collect();
        for id in &self.present {
            assert!(
                self.damaged.contains(id) || published.contains(id),
                "{id} is not shipped"
            );
        }
        self.must_be_published.extend(&published);
        let shipped: Vec<String> = self
            .present
            .intersection(&published)
            .map(ToString::to_string)
            .collect();
        assert_eq!(self.scene.ledger(), shipped);
    }

    fn sync_with_bucket_fault(&mut self, at: u32, outcome: Outcome) {
        let done = Arc::new(AtomicU32::new(0));
        self.runtime.block_on(async {
            let decorate = |bucket| -> Arc<dyn crate::objstore::Bucket> {
                let fault = move |_, _: &str| {
                    if done.fetch_add(1, Ordering::Relaxed) == at {
                        outcome
                    } else {
                        Outcome::Pass
                    }
                };
                let flaky = Arc::new(Flaky::new(bucket, fault));
                Arc::new(crate::objstore::Retrying::new(flaky, 3))
            };
            let mut shipper = self.scene.shipper_with(Faults::none(), decorate).await;
            shipper.sync().await;
        });
        self.shipper = None;
        self.ledger_hurt = false;
    }

    fn crash(&mut self, at: u64, takes_effect: bool) {
        self.shipper = None;
        let faults = Faults::crash_at(at, takes_effect);
        self.runtime.block_on(async {
            // The crash may come before there is a shipper.
            if let Ok(mut shipper) = self.scene.try_shipper_with(faults, |bucket| bucket).await {
                shipper.sync().await;
            }
        });
        // Whether the ledger was made good again before the crash is for the next look to say.
        self.ledger_hurt &= at < 16;
    }

    fn dropped(&mut self, polls: u32) {
        self.shipper = None;
        // A runtime of its own: dropping it waits for the file operation that is under way.
        let runtime = runtime();
        runtime.block_on(async {
            let mut shipper = self.scene.shipper().await;
            let mut pass = Box::pin(shipper.sync());
            let mut polls_left = polls;
            std::future::poll_fn(|context| {
                polls_left -= 1;
                match pass.as_mut().poll(context) {
                    Poll::Ready(_) => Poll::Ready(()),
                    Poll::Pending if polls_left == 0 => Poll::Ready(()),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
        });
        drop(runtime);
        self.ledger_hurt = false;
    }

    fn check(&mut self) {
        self.scene.assert_published_blocks_are_whole();
        let published: BTreeSet<BlockId> = self.scene.published().into_iter().collect();
        for id in &self.must_be_published {
            assert!(published.contains(id), "{id} is not in the bucket");
        }
        let ledger = self.scene.data().join("thanos.shipper.json");
        self.ledger_written |= ledger.exists();
        if self.ledger_written && !self.ledger_hurt {
            for id in self.scene.ledger() {
                let id: BlockId = id.parse().unwrap();
                assert!(
                    published.contains(&id),
                    "the ledger lists {id}, the bucket has it not"
                );
            }
        }
    }

    /// What is left at the end: heal everything, and it must all arrive.
    fn finish(&mut self) {
        for id in self.damaged.clone() {
            self.heal(id);
        }
        self.shipper = None;
        self.clean_sync();
        self.must_be_published
            .append(&mut self.must_be_published_in_the_end);
        self.check();
        let staged = std::fs::read_dir(self.scene.data().join("thanos/upload"));
        for entry in staged.into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                self.may_stay_staged.contains(&name),
                "staging of {name} outlived its block"
            );
        }
    }
}

fn hold(policy: Policy, steps: &[Step]) {
    let mut world = World::new(policy);
    for step in steps {
        world.take(step);
    }
    world.finish();
}

/// At least 2,000 lists in all; PROPTEST_CASES makes it more.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(512),
        max_shrink_iters: 2000,
        ..default
    }
}

const STRICT: Policy = Policy {
    upload_compacted: false,
    allow_out_of_order: false,
    skip_corrupted: false,
};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn strict_order(steps in proptest::collection::vec(step(), 1..16)) {
        hold(STRICT, &steps);
    }

    #[test]
    fn out_of_order(steps in proptest::collection::vec(step(), 1..16)) {
        hold(Policy { allow_out_of_order: true, ..STRICT }, &steps);
    }

    #[test]
    fn skipping_corrupted(steps in proptest::collection::vec(step(), 1..16)) {
        hold(Policy { skip_corrupted: true, ..STRICT }, &steps);
    }

    #[test]
    fn with_compacted(steps in proptest::collection::vec(step(), 1..16)) {
        hold(Policy { upload_compacted: true, ..STRICT }, &steps);
    }
}
