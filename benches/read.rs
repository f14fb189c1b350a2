//! Reading and copying a file through each disk engine, from the page cache and past it.
//!
//! `cargo bench --features testing --bench read`; as a smoke test under `cargo test --benches`.
//! After the throughput comes what a measurement of time alone does not show: processor time per
//! GiB, and what is left in the page cache.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use divan::Bencher;
use divan::counter::BytesCount;
use outrigger::disk::{
    BufferPool, Containment, Dir, DiskEngine, DiskError, DiskFile, EngineRequest, ReadMode,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Small in a debug build, which only proves that the bench runs.
const FILE_BYTES: usize = if cfg!(debug_assertions) {
    4 << 20
} else {
    512 << 20
};
const BUFFERS: usize = 40;
const ENGINES: [EngineRequest; 2] = [EngineRequest::Uring, EngineRequest::Pread];

struct Scene {
    runtime: Runtime,
    engine: DiskEngine,
    file: DiskFile,
    written: std::fs::File,
    scratch: TempDir,
}

impl Scene {
    fn new(request: EngineRequest) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        let scratch = tempfile::tempdir_in(target).expect("a directory on a disk");
        let content: Vec<u8> = (0..=250).cycle().take(FILE_BYTES).collect();
        let path = scratch.path().join("f");
        std::fs::write(&path, content).expect("room on the disk");
        let written = std::fs::File::open(&path).expect("just written");
        written.sync_all().expect("a disk that takes it");
        // Never `auto`: a bench must not measure what it does not name.
        let engine = DiskEngine::build(request, BufferPool::new(BUFFERS)).expect("the engine");
        let file = runtime.block_on(async {
            let dir = Dir::open(scratch.path(), Containment::Beneath);
            let dir = dir.await.expect("just made");
            dir.open_file("f").await.expect("just written")
        });
        Self {
            runtime,
            engine,
            file,
            written,
            scratch,
        }
    }

    fn make(&self, is_warm: bool) {
        if is_warm {
            let path = self.scratch.path().join("f");
            black_box(std::fs::read(path).expect("just written"));
        } else {
            let advice = rustix::fs::Advice::DontNeed;
            rustix::fs::fadvise(&self.written, 0, None, advice).expect("advice is free");
        }
    }

    fn read(&self) {
        let mut runs = self
            .engine
            .runs(&self.file, 0..u64::MAX, ReadMode::Buffered);
        // On a worker, where the uploads run.
        let reading = self.runtime.spawn(async move {
            while let Some(run) = runs.next(u64::MAX).await.expect("a disk that works") {
                black_box(run);
            }
        });
        self.runtime.block_on(reading).expect("no panic");
    }
}

impl Scene {
    /// Copies the file past the page cache and syncs it; how many bytes of the copy are in the
    /// page cache then.
    fn copy(&self) -> Option<u64> {
        let (engine, file) = (self.engine.clone(), self.file.clone());
        let path = self.scratch.path().to_owned();
        let copying = self.runtime.spawn(async move {
            let dir = Dir::open(&path, Containment::Beneath).await?;
            let writer = dir.create_atomic("copy").await?;
            let mut writer = writer.past_cache(&engine, file.size_bytes()).await?;
            let mut runs = engine.runs(&file, 0..u64::MAX, ReadMode::Buffered);
            while let Some(run) = runs.next(u64::MAX).await? {
                writer.write(run).await?;
            }
            writer.commit().await?;
            Ok::<_, DiskError>(dir.open_file("copy").await?.cached_bytes().ok())
        });
        let copied = self.runtime.block_on(copying).expect("no panic");
        copied.expect("a disk that works")
    }
}

#[divan::bench(args = ENGINES, sample_count = 5, sample_size = 1)]
fn warm(bencher: Bencher<'_, '_>, request: EngineRequest) {
    run(bencher, request, true);
}

#[divan::bench(args = ENGINES, sample_count = 5, sample_size = 1)]
fn cold(bencher: Bencher<'_, '_>, request: EngineRequest) {
    run(bencher, request, false);
}

fn run(bencher: Bencher<'_, '_>, request: EngineRequest, is_warm: bool) {
    let scene = Scene::new(request);
    bencher
        .counter(BytesCount::new(FILE_BYTES))
        .with_inputs(|| scene.make(is_warm))
        .bench_local_values(|()| scene.read());
}

fn main() {
    divan::main();
    if cfg!(debug_assertions) {
        return;
    }
    let gib = FILE_BYTES as f64 / f64::from(1 << 30);
    eprintln!("\nengine  state  what  CPU s/GiB  GiB/s  bytes left in the page cache");
    let scenes: Vec<Scene> = ENGINES.into_iter().map(Scene::new).collect();
    for round in 0..12 {
        for scene in &scenes {
            let (is_warm, is_copy) = (round % 2 == 0, round % 4 > 1);
            scene.make(is_warm);
            let (cpu, start) = (cpu_time(), Instant::now());
            let left = if is_copy {
                scene.copy()
            } else {
                scene.read();
                scene.file.cached_bytes().ok()
            };
            eprintln!(
                "{:6}  {}  {}  {:9.3}  {:5.2}  {left:?}",
                scene.engine.info().engine,
                if is_warm { "warm " } else { "cold " },
                if is_copy { "copy" } else { "read" },
                (cpu_time() - cpu).as_secs_f64() / gib,
                gib / start.elapsed().as_secs_f64(),
            );
        }
    }
}

/// What all threads of this process have had of the processors, those of the kernel that work for
/// its ring included.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("there is a /proc");
    let times = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}
