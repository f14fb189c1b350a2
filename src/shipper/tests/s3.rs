//! The shipper and the real S3 client against a server, a disk and a process that fail by seed: in
//! the end every block is whole, and at no moment is there a `meta.json` before its block.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use super::scene::Scene;
use crate::disk::Faults;
use crate::model::{BlockId, Clock};
use crate::objstore::{
    Addressing, Bucket, Checksums, Encryption, FakeS3, Fault, ListVersion, PayloadSigning,
    PlainHttp, S3Config, S3Limits, SeenRequest,
};
use crate::shipper::{Policy, Shipper};

/// Runs of `make test`; PROPTEST_CASES makes it more.
const SEEDS: u64 = 1_024;

/// Passes with faults before the server, the disk and the process behave.
const BAD_PASSES: u64 = 4;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize]
    }
}

/// A bad server: single faults at random, and for a while one that lasts.
fn bad_server(mut dice: Dice) -> impl Fn(&SeenRequest) -> Fault + Send + Sync {
    let one_in = dice.of(&[5, 12, 40]);
    let lasting_from = dice.roll(60);
    let lasting = dice.of(&[
        Fault::Refuse(403, "AccessDenied", &[]),
        Fault::Refuse(503, "SlowDown", &[]),
        Fault::Refuse(507, "InsufficientStorage", &[]),
        Fault::Stall,
    ]);
    let state = Mutex::new((dice, 0));
    move |request| {
        let (dice, count) = &mut *state.lock().unwrap();
        *count += 1;
        let is_write = !["HeadObject", "GetObject"].contains(&request.operation);
        if is_write && (lasting_from..lasting_from + 25).contains(count) {
            return lasting;
        }
        let faults = [
            Fault::Reset,
            Fault::LoseAnswer,
            Fault::CutAnswer,
            Fault::Stall,
            Fault::LoseObject,
            Fault::Damage,
            Fault::Refuse(500, "InternalError", &[]),
            Fault::Refuse(503, "SlowDown", &[]),
            Fault::Refuse(403, "AccessDenied", &[]),
            Fault::Refuse(400, "ExpiredToken", &[]),
            Fault::Refuse(403, "RequestTimeTooSkewed", &[]),
            Fault::Refuse(404, "NoSuchUpload", &[]),
        ];
        match dice.roll(one_in) {
            0 => dice.of(&faults),
            _ => Fault::Pass,
        }
    }
}

fn config(server: &FakeS3, dice: &mut Dice) -> S3Config {
    S3Config {
        bucket: "b".to_owned(),
        endpoint: server.endpoint(),
        region: Some("us-east-1".to_owned()),
        dualstack: false,
        insecure: true,
        addressing: Addressing::Path,
        list_version: ListVersion::V2,
        put_headers: Vec::new(),
        storage_class: None,
        send_content_md5: dice.of(&[None, None, Some(true), Some(false)]),
        disable_multipart: dice.roll(6) == 0,
        // Small blocks in many parts.
        part_bytes: NonZeroU64::new(dice.of(&[50, 333, 4096])).unwrap(),
        encryption: Encryption::None,
        attempts_max: NonZeroU32::new(dice.of(&[1, 3, 10])).unwrap(),
        trace: false,
        // Whoever sends no checksum has nothing else that tells of a flipped bit.
        payload_signing: PayloadSigning::Always,
    }
}

struct World {
    scene: Scene,
    server: Arc<FakeS3>,
    config: S3Config,
    limits: S3Limits,
    http: PlainHttp,
}

impl World {
    async fn new(seed: u64, http: PlainHttp, dice: &mut Dice) -> Self {
        let checksums = dice.of(&[
            Checksums::Echo,
            Checksums::Echo,
            Checksums::Ignore,
            Checksums::NotImplemented,
        ]);
        let server = FakeS3::start(checksums, |_| Fault::Pass).await.unwrap();
        let mut scene = Scene::new(Policy::default());
        scene.concurrency = dice.of(&[1, 2, 4]);
        for slot in 0..1 + u8::try_from(seed % 2).unwrap() {
            scene.put(slot);
        }
        Self {
            config: config(&server, dice),
            limits: S3Limits {
                parts_in_flight: NonZeroUsize::new(dice.of(&[1, 4])).unwrap(),
                body_bytes_max: dice.of(&[40, 1 << 20]),
                pace: None,
                stall_timeout: Duration::from_secs(60),
                response_header_timeout: Some(Duration::from_secs(120)),
            },
            scene,
            server: Arc::new(server),
            http,
        }
    }

    /// A new process.
    async fn shipper(&self, faults: Faults) -> Option<Shipper> {
        let clock = Clock::fixed(1_767_225_600_000_000_000);
        let bucket = self
            .http
            .bucket(self.config.clone(), self.limits.clone(), clock);
        let bucket: Arc<dyn Bucket> = Arc::new(bucket);
        let shipper = self.scene.try_shipper_with(faults, |_| bucket).await;
        shipper.ok()
    }

    /// Something goes wrong: the server, maybe the disk, maybe the process ends.
    async fn bad_pass(&self, dice: &mut Dice) {
        self.server.decide_by(watching(
            &self.server,
            &self.scene,
            bad_server(Dice(dice.roll(u64::MAX))),
        ));
        let faults = match dice.roll(3) {
            0 => Faults::fail_once(dice.roll(60), Errno::IO),
            _ => Faults::none(),
        };
        let Some(mut shipper) = self.shipper(faults).await else {
            return;
        };
        let polls = match dice.roll(2) {
            0 => 1 + dice.roll(150),
            _ => u64::MAX,
        };
        dropped_after(polls, shipper.sync()).await;
    }

    /// Everything works: now it must all arrive.
    async fn good_pass(&self, seed: u64) {
        self.server
            .decide_by(watching(&self.server, &self.scene, |_| Fault::Pass));
        let mut shipper = self.shipper(Faults::none()).await.unwrap();
        let report = shipper.sync().await;
        assert!(report.error.is_none(), "seed {seed}: {report:?}");
        let objects = self.server.objects();
        for id in self.scene.pristine.keys() {
            assert_whole(&objects, &self.scene, *id, true, seed);
        }
        let ids: Vec<String> = self
            .scene
            .pristine
            .keys()
            .map(ToString::to_string)
            .collect();
        assert_eq!(self.scene.ledger(), ids, "seed {seed}");
        let left = std::fs::read_dir(self.scene.data().join("thanos/upload"));
        let left: Vec<_> = left.into_iter().flatten().collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
}

/// Runs a future until it ends or was polled so often, and drops it: the process ends there.
async fn dropped_after<T>(polls: u64, future: impl Future<Output = T>) {
    let mut polls_left = polls;
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| {
        polls_left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if polls_left > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// Looks, whenever a `meta.json` is about to arrive, whether its block is there.
fn watching(
    server: &Arc<FakeS3>,
    scene: &Scene,
    decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
) -> impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static {
    let server = Arc::downgrade(server);
    let pristine: BTreeMap<String, Vec<(String, Bytes)>> = scene
        .pristine
        .iter()
        .map(|(id, block)| {
            let files = block.files.iter();
            let files = files.map(|(file, bytes)| (file.path(), Bytes::from(bytes.clone())));
            (format!("b/{id}"), files.collect())
        })
        .collect();
    move |request| {
        if let Some(id) = request.name.strip_suffix("/meta.json")
            && request.operation == "PutObject"
            && let Some(server) = server.upgrade()
        {
            let objects = server.objects();
            for (file, bytes) in pristine[id].iter().filter(|(file, _)| file != "meta.json") {
                let there = objects.get(&format!("{id}/{file}"));
                if there != Some(bytes) {
                    // A panic here would end a connection of the server and no test.
                    eprintln!("meta.json of {id} came before {file}");
                    std::process::abort();
                }
            }
        }
        decide(request)
    }
}

fn assert_whole(
    objects: &BTreeMap<String, Bytes>,
    scene: &Scene,
    id: BlockId,
    is_published: bool,
    seed: u64,
) {
    assert_eq!(
        objects.contains_key(&format!("b/{id}/meta.json")),
        is_published
    );
    for (file, bytes) in &scene.pristine[&id].files {
        let path = file.path();
        if path != "meta.json" {
            let there = objects.get(&format!("b/{id}/{path}"));
            assert!(
                there.is_some_and(|there| there == bytes),
                "seed {seed}: {path} of {id} is not whole"
            );
        }
    }
}

/// Waits between tries cost nothing: time goes on when there is nothing else to do.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

fn seeds() -> u64 {
    u64::from(proptest::prelude::ProptestConfig::default().cases).max(SEEDS)
}

fn run(seeds: impl Iterator<Item = u64>) {
    let runtime = runtime();
    let http = PlainHttp::new().unwrap();
    for seed in seeds {
        runtime.block_on(async {
            let mut dice = Dice(seed);
            let world = World::new(seed, http.clone(), &mut dice).await;
            for _ in 0..1 + dice.roll(BAD_PASSES) {
                world.bad_pass(&mut dice).await;
            }
            world.good_pass(seed).await;
        });
    }
}

// Four tests, so that they run beside each other.

#[test]
fn whatever_fails_blocks_arrive_whole_first_quarter() {
    run((0..seeds()).step_by(4));
}

#[test]
fn whatever_fails_blocks_arrive_whole_second_quarter() {
    run((1..seeds()).step_by(4));
}

#[test]
fn whatever_fails_blocks_arrive_whole_third_quarter() {
    run((2..seeds()).step_by(4));
}

#[test]
fn whatever_fails_blocks_arrive_whole_fourth_quarter() {
    run((3..seeds()).step_by(4));
}

/// A crash costs the part that was in flight, whatever checks the server knows.
#[test]
fn what_was_sent_before_a_restart_is_not_sent_again() {
    const CRASHES: u64 = 9;
    const PART_BYTES: u64 = 50;
    let runtime = runtime();
    let http = PlainHttp::new().unwrap();
    for checksums in [
        Checksums::Echo,
        Checksums::Ignore,
        Checksums::NotImplemented,
    ] {
        runtime.block_on(async {
            let mut dice = Dice(7);
            let mut world = World::new(0, http.clone(), &mut dice).await;
            world.server = Arc::new(FakeS3::start(checksums, |_| Fault::Pass).await.unwrap());
            world.config = S3Config {
                endpoint: world.server.endpoint(),
                send_content_md5: None,
                disable_multipart: false,
                part_bytes: NonZeroU64::new(PART_BYTES).unwrap(),
                ..world.config
            };
            world.scene.concurrency = 1;
            world.limits.parts_in_flight = NonZeroUsize::MIN;
            for crash in 1..=CRASHES {
                let mut shipper = world.shipper(Faults::none()).await.unwrap();
                dropped_after(40 * crash, shipper.sync()).await;
            }
            world.good_pass(0).await;
            let is_content = |name: &str| !name.ends_with("/meta.json");
            let seen = world.server.seen();
            let bodies = seen.iter().filter(|seen| {
                is_content(&seen.name) && ["UploadPart", "PutObject"].contains(&seen.operation)
            });
            let sent: u64 = bodies.map(|seen| seen.body_bytes).sum();
            let objects = world.server.objects();
            let objects = objects.iter().filter(|(name, _)| is_content(name));
            let size: u64 = objects.map(|(_, bytes)| bytes.len() as u64).sum();
            // Each process asks once whether the server knows checksums.
            let asked = match checksums {
                Checksums::Echo => 0,
                _ => (CRASHES + 1) * PART_BYTES,
            };
            let allowed = size + CRASHES * PART_BYTES + asked;
            assert!(sent <= allowed, "{checksums:?}: {sent} of {size}");
            assert!(sent >= size);
        });
    }
}
