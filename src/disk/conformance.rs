//! What every engine must do, run on each of them.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use rustix::fs::Advice;
use tempfile::TempDir;

use super::residency::cached_pages;
use super::testing::{PAGE_TRIES_MAX, PAGE_TRY_PAUSE};
use super::{
    BufferPool, Containment, Dir, DiskEngine, DiskFile, EngineRequest, RUN_BYTES, ReadMode,
    SimFaults,
};

const PAGE: usize = 4096;
const MODES: [ReadMode; 2] = [ReadMode::Buffered, ReadMode::Direct];

/// All engines that can be had here, over pools of their own.
fn engines(buffers: usize) -> Vec<DiskEngine> {
    let pool = || BufferPool::new(buffers);
    let mut engines = vec![
        DiskEngine::build(EngineRequest::Pread, pool()).unwrap(),
        DiskEngine::simulated(SimFaults::default(), pool()),
    ];
    match DiskEngine::build(EngineRequest::Uring, pool()) {
        Ok(uring) => engines.push(uring),
        Err(error) => println!("LEFT OUT: {error}"),
    }
    engines
}

/// A directory beside the sources: on a disk, where the temporary one may be in memory.
fn on_disk() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    tempfile::tempdir_in(target).unwrap()
}

async fn opened(scratch: &TempDir, content: &[u8]) -> DiskFile {
    let path = scratch.path().join("f");
    std::fs::write(&path, content).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let dir = Dir::open(scratch.path(), Containment::Beneath);
    dir.await.unwrap().open_file("f").await.unwrap()
}

/// Bytes of which no run is like another.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at >> 16) as u8)
        .collect()
}

async fn whole(
    engine: &DiskEngine,
    file: &DiskFile,
    range: std::ops::Range<u64>,
    mode: ReadMode,
    within: u64,
) -> Result<Vec<u8>, super::DiskError> {
    let mut runs = engine.runs(file, range, mode);
    let mut read = Vec::new();
    while let Some(run) = runs.next(within).await? {
        assert!(!run.is_empty() && run.len() <= RUN_BYTES && run.len() as u64 <= within);
        read.extend_from_slice(&run);
    }
    assert_eq!(runs.next(within).await?, None, "the end stays the end");
    Ok(read)
}

/// Drops all pages of the file but those of `warm`, and says how many are cached; `None` where
/// that can't be told.
fn set_residency(file: &DiskFile, warm: std::ops::Range<usize>) -> Option<u64> {
    rustix::fs::fadvise(&*file.descriptor, 0, None, Advice::DontNeed).unwrap();
    // Without readahead, so that no page beyond comes along.
    rustix::fs::fadvise(&*file.descriptor, 0, None, Advice::Random).unwrap();
    let mut byte = [0];
    for at in warm.step_by(PAGE) {
        rustix::io::pread(&*file.descriptor, &mut byte, at as u64).unwrap();
    }
    cached(file)
}

fn cached(file: &DiskFile) -> Option<u64> {
    cached_pages(file.descriptor.as_fd(), 0, 0).ok()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_range_reads_the_same_whatever_is_cached(
        size in 0usize..5 * RUN_BYTES,
        (from, to) in (0.0f64..1.0, 0.0f64..1.1),
        (warm_from, warm_to) in (0.0f64..1.0, 0.0f64..1.0),
        within in prop_oneof![Just(u64::MAX), 1u64..3 << 20, (1u64..5).prop_map(|n| n << 20)],
        buffers in 1usize..12,
    ) {
        runtime().block_on(async {
            let content = pattern(size);
            let scratch = on_disk();
            let file = opened(&scratch, &content).await;
            let at = |part: f64| (size as f64 * part) as usize;
            let (start, end) = (at(from), at(to).max(at(from)));
            // A run for each byte would take hours.
            let within = within.max((end - start) as u64 / 64 + 1);
            for engine in engines(buffers) {
                for mode in MODES {
                    set_residency(&file, at(warm_from)..at(warm_to).max(at(warm_from)));
                    let range = start as u64..end as u64;
                    let read = whole(&engine, &file, range, mode, within).await.unwrap();
                    let name = engine.info().engine;
                    assert!(
                        read == content[start.min(size)..end.min(size)],
                        "{name} {mode:?} {start}..{end}"
                    );
                }
            }
        });
    }

    #[test]
    fn whoever_takes_other_amounts_each_time_gets_all_bytes(
        amounts in prop::collection::vec(1u64..3 << 20, 1..8),
        start in 0u64..2 << 20,
    ) {
        runtime().block_on(async {
            let content = pattern(5 * RUN_BYTES + 77);
            let scratch = on_disk();
            let file = opened(&scratch, &content).await;
            for engine in engines(6) {
                set_residency(&file, 0..0);
                let mut runs = engine.runs(&file, start..u64::MAX, ReadMode::Buffered);
                let mut read = Vec::new();
                let mut amounts = amounts.iter().cycle();
                while let Some(run) = runs.next(*amounts.next().unwrap()).await.unwrap() {
                    read.extend_from_slice(&run);
                }
                assert!(read == content[start as usize..]);
            }
        });
    }
}

#[tokio::test]
async fn a_cold_file_leaves_nothing_in_the_page_cache_and_a_warm_one_stays() {
    let size = 6 * RUN_BYTES + 1234;
    let content = pattern(size);
    let scratch = on_disk();
    let file = opened(&scratch, &content).await;
    if set_residency(&file, 0..0).is_none() {
        println!("LEFT OUT: cachestat is not to be had");
        return;
    }
    for engine in engines(12) {
        let mut outcome = Ok(());
        for _ in 0..PAGE_TRIES_MAX {
            outcome = leaves_the_cache_alone(&engine, &file, &content).await;
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(PAGE_TRY_PAUSE).await;
        }
        assert_eq!(outcome, Ok(()), "{}", engine.info().engine);
    }
}

/// What was not as it should be in the page cache, if anything.
async fn leaves_the_cache_alone(
    engine: &DiskEngine,
    file: &DiskFile,
    content: &[u8],
) -> Result<(), String> {
    let read = async |mode| {
        let read = whole(engine, file, 0..u64::MAX, mode, u64::MAX).await;
        assert!(read.unwrap() == content);
    };
    let is = |what: &str, pages: u64| match cached(file) {
        Some(found) if found == pages => Ok(()),
        found => Err(format!("{what}: {found:?} pages instead of {pages}")),
    };
    set_residency(file, 0..0);
    is("at first", 0)?;
    for mode in MODES {
        read(mode).await;
        is("after a cold read", 0)?;
    }
    let warm = content.len().div_ceil(PAGE) as u64;
    set_residency(file, 0..content.len());
    is("warmed", warm)?;
    for mode in MODES {
        read(mode).await;
        is("after a warm read", warm)?;
    }
    let part = 2 * (RUN_BYTES / PAGE) as u64 + 1;
    set_residency(file, RUN_BYTES..3 * RUN_BYTES + PAGE);
    is("warmed in part", part)?;
    read(ReadMode::Buffered).await;
    is("what was there and no more", part)
}

#[tokio::test]
async fn a_file_that_shrinks_is_an_error_that_names_file_and_offset() {
    for engine in engines(4) {
        for mode in MODES {
            for warm in [0..0, 0..4 * RUN_BYTES] {
                let scratch = on_disk();
                let file = opened(&scratch, &pattern(4 * RUN_BYTES)).await;
                set_residency(&file, warm);
                let mut runs = engine.runs(&file, 0..u64::MAX, mode);
                runs.next(RUN_BYTES as u64).await.unwrap().unwrap();
                let path = scratch.path().join("f");
                let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                writer.set_len(RUN_BYTES as u64 + 10).unwrap();
                let error = runs.next(u64::MAX).await.unwrap_err();
                assert_eq!(
                    error.source.kind(),
                    io::ErrorKind::UnexpectedEof,
                    "{error:?}"
                );
                assert_eq!(error.path, path);
                let text = error.source.to_string();
                assert!(
                    text.contains(&format!("offset {}", RUN_BYTES + 10)),
                    "{text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn one_buffer_is_enough_and_one_who_leaves_gives_all_back() {
    let content = pattern(9 * RUN_BYTES);
    let scratch = on_disk();
    let file = opened(&scratch, &content).await;
    for engine in engines(1) {
        set_residency(&file, 0..0);
        let read = whole(&engine, &file, 0..u64::MAX, ReadMode::Buffered, u64::MAX);
        assert!(read.await.unwrap() == content);
        let many = engine.with_pool(BufferPool::new(8));
        let mut runs = many.runs(&file, 0..u64::MAX, ReadMode::Buffered);
        drop(runs.next(u64::MAX).await.unwrap());
        assert!(many.pool().in_use() > 0, "some were read ahead");
        // Polled once and given up, then gone altogether.
        drop(futures_util::poll!(std::pin::pin!(runs.next(u64::MAX))));
        drop(runs);
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(many.pool().take().await);
        }
    }
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_no_byte() {
    let content = pattern(5 * RUN_BYTES + 5);
    let scratch = on_disk();
    let file = opened(&scratch, &content).await;
    for engine in engines(3) {
        set_residency(&file, 0..0);
        let mut runs = engine.runs(&file, 3..u64::MAX, ReadMode::Buffered);
        let mut read = Vec::new();
        loop {
            let given_up = futures_util::poll!(std::pin::pin!(runs.next(2 << 20)));
            let run = match given_up {
                std::task::Poll::Ready(run) => run,
                std::task::Poll::Pending => runs.next(2 << 20).await,
            };
            let Some(run) = run.unwrap() else { break };
            read.extend_from_slice(&run);
        }
        assert!(read == content[3..]);
    }
}

#[tokio::test]
async fn a_file_system_without_direct_reads_is_read_all_the_same() {
    let shm = Path::new("/dev/shm");
    let Ok(scratch) = tempfile::tempdir_in(shm) else {
        println!("LEFT OUT: there is no /dev/shm");
        return;
    };
    let content = pattern(3 * RUN_BYTES + 17);
    for engine in engines(2) {
        let file = opened(&scratch, &content).await;
        for mode in MODES {
            let read = whole(&engine, &file, 5..u64::MAX, mode, u64::MAX);
            assert!(read.await.unwrap() == content[5..]);
        }
        written(&engine, &content, content.len(), RUN_BYTES).await;
    }
}

#[tokio::test]
async fn what_is_written_past_the_page_cache_arrives_and_leaves_nothing_there() {
    let content = pattern(5 * RUN_BYTES + 4097);
    for engine in engines(8) {
        for piece in [RUN_BYTES, 4096, 70_000] {
            let mut left = None;
            for _ in 0..PAGE_TRIES_MAX {
                // More is announced than comes.
                let announced = content.len() + 3 * RUN_BYTES;
                left = written(&engine, &content, announced, piece).await;
                if left.is_none_or(|pages| pages == 0) {
                    break;
                }
                tokio::time::sleep(PAGE_TRY_PAUSE).await;
            }
            assert!(
                left.is_none_or(|pages| pages == 0),
                "{left:?} pages: {} {piece}",
                engine.info().engine
            );
        }
        written(&engine, &content[..100], 100, 100).await;
        written(&engine, &[], 0, 1).await;
    }
}

/// Writes `content` in pieces past the page cache and compares; the pages that are cached
/// afterwards, where the kernel tells.
async fn written(
    engine: &DiskEngine,
    content: &[u8],
    announced: usize,
    piece: usize,
) -> Option<u64> {
    let scratch = on_disk();
    let dir = Dir::open(scratch.path(), Containment::Beneath)
        .await
        .unwrap();
    let mut writer = dir.create_atomic("w").await.unwrap();
    writer = writer.past_cache(engine, announced as u64).await.unwrap();
    for piece in content.chunks(piece) {
        let mut buffer = engine.pool().take().await;
        buffer.whole_mut()[..piece.len()].copy_from_slice(piece);
        buffer.set_length(piece.len());
        writer.write(buffer.into_bytes()).await.unwrap();
    }
    writer.commit().await.unwrap();
    let left = cached(&dir.open_file("w").await.unwrap());
    assert!(std::fs::read(scratch.path().join("w")).unwrap() == content);
    left
}

fn simulated(faults: SimFaults) -> DiskEngine {
    DiskEngine::simulated(faults, BufferPool::new(6))
}

#[tokio::test]
async fn short_and_interrupted_and_late_transfers_give_the_same_bytes() {
    let content = pattern(4 * RUN_BYTES + 99);
    for seed in 0..20 {
        let engine = simulated(SimFaults {
            seed,
            short_permille: 500,
            passing_permille: 300,
            delayed_permille: 500,
            delay_ms_max: 3,
            ..SimFaults::default()
        });
        let scratch = on_disk();
        let file = opened(&scratch, &content).await;
        for mode in MODES {
            let read = whole(&engine, &file, 1..u64::MAX, mode, u64::MAX).await;
            assert!(read.unwrap() == content[1..], "seed {seed}");
        }
        written(&engine, &content, content.len(), RUN_BYTES).await;
    }
}

#[tokio::test]
async fn a_broken_disk_is_an_error_with_its_offset_and_the_next_call_tries_again() {
    let content = pattern(4 * RUN_BYTES);
    let mut failed = 0;
    for seed in 0..20 {
        let engine = simulated(SimFaults {
            seed,
            broken_permille: 300,
            ..SimFaults::default()
        });
        let scratch = on_disk();
        let file = opened(&scratch, &content).await;
        let mut runs = engine.runs(&file, 0..u64::MAX, ReadMode::Buffered);
        let mut read = Vec::new();
        loop {
            match runs.next(u64::MAX).await {
                Ok(Some(run)) => read.extend_from_slice(&run),
                Ok(None) => break,
                Err(error) => {
                    failed += 1;
                    let text = error.source.to_string();
                    assert_eq!(text, format!("at offset {}", read.len()));
                }
            }
        }
        assert!(read == content, "seed {seed}");
    }
    assert!(failed > 0);
}

#[tokio::test]
async fn a_write_that_fails_late_fails_the_commit_and_the_old_file_stands() {
    let mut failed = 0;
    for seed in 0..20 {
        let scratch = on_disk();
        std::fs::write(scratch.path().join("w"), "old").unwrap();
        let engine = simulated(SimFaults {
            seed,
            broken_permille: 150,
            ..SimFaults::default()
        });
        let dir = Dir::open(scratch.path(), Containment::Beneath)
            .await
            .unwrap();
        let writer = dir.create_atomic("w").await.unwrap();
        let size = 6 * RUN_BYTES;
        let mut writer = writer.past_cache(&engine, size as u64).await.unwrap();
        let outcome = async {
            for _ in 0..6 {
                let mut buffer = engine.pool().take().await;
                buffer.set_length(RUN_BYTES);
                writer.write(buffer.into_bytes()).await?;
            }
            writer.commit().await
        };
        let written = std::fs::metadata(scratch.path().join("w")).map(|is| is.len());
        drop(written);
        match outcome.await {
            Ok(()) => {}
            Err(_) => {
                failed += 1;
                let old = std::fs::read(scratch.path().join("w")).unwrap();
                assert_eq!(old, b"old");
            }
        }
    }
    assert!(failed > 0);
}

#[tokio::test]
async fn a_file_that_ends_too_early_on_the_disk_is_no_short_success() {
    let engine = simulated(SimFaults {
        ends_at: Some(RUN_BYTES as u64 + 700),
        ..SimFaults::default()
    });
    let scratch = on_disk();
    let file = opened(&scratch, &pattern(3 * RUN_BYTES)).await;
    for mode in MODES {
        let read = whole(&engine, &file, 0..u64::MAX, mode, u64::MAX).await;
        let error = read.unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::UnexpectedEof);
        assert!(
            error
                .source
                .to_string()
                .contains(&format!("{}", RUN_BYTES + 700))
        );
    }
}

#[tokio::test]
async fn exact_reads_refuse_a_range_past_the_end() {
    let scratch = on_disk();
    let file = opened(&scratch, &pattern(100)).await;
    for engine in engines(1) {
        let read = |range| engine.read_exact(&file, range, ReadMode::Buffered);
        assert_eq!(read(90..100).await.unwrap(), pattern(100)[90..]);
        assert!(read(90..101).await.is_err());
    }
}

#[tokio::test]
async fn the_ring_finishes_what_is_in_flight_before_it_ends() {
    let Ok(engine) = DiskEngine::build(EngineRequest::Uring, BufferPool::new(8)) else {
        println!("LEFT OUT: io_uring is not to be had");
        return;
    };
    let scratch = on_disk();
    let file = opened(&scratch, &pattern(8 * RUN_BYTES)).await;
    set_residency(&file, 0..0);
    let pool = engine.pool().clone();
    let mut runs = engine.runs(&file, 0..u64::MAX, ReadMode::Buffered);
    drop(runs.next(u64::MAX).await.unwrap());
    drop(engine);
    drop(runs);
    assert_eq!(pool.in_use(), 0, "joined, so nothing is in flight");
}

#[tokio::test]
async fn bytes_begin_in_the_middle_of_a_page_where_the_disk_allows_it() {
    let scratch = on_disk();
    let file = opened(&scratch, &pattern(2 * RUN_BYTES)).await;
    let direct = file.ways.direct(&file.descriptor).await;
    let expected = direct.map_or(2048, |direct| direct.alignment.origin.page_offset());
    for engine in engines(2) {
        for (warm, expected) in [(0..0, expected), (0..2 * RUN_BYTES, 2048)] {
            if set_residency(&file, warm).is_none() {
                println!("LEFT OUT: cachestat is not to be had");
                continue;
            }
            let mut runs = engine.runs(&file, 0..u64::MAX, ReadMode::Buffered);
            let run: Bytes = runs.next(u64::MAX).await.unwrap().unwrap();
            if engine.takes_cached_bytes_inline() {
                assert_eq!(run.as_ptr().addr() % PAGE, expected);
            }
        }
    }
}
