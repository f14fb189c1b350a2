//! Maps under truncation, at their limits, and the faults that are not theirs.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use tempfile::TempDir;

use super::*;
use crate::disk::Containment;

const PAGE: usize = 4096;

fn directory() -> (TempDir, Dir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::open_blocking(scratch.path(), Containment::Beneath).unwrap();
    (scratch, dir)
}

fn with_file(bytes: &[u8]) -> (TempDir, Dir, File) {
    let (scratch, dir) = directory();
    let path = scratch.path().join("f");
    std::fs::write(&path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    (scratch, dir, file)
}

#[test]
fn a_map_is_the_file() {
    let content: Vec<u8> = (0..3 * PAGE + 5)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    let (scratch, dir, _) = with_file(&content);
    let map = dir.map_blocking("f").unwrap();
    map.advise_random();
    for range in [
        0..1,
        1..PAGE,
        PAGE - 1..2 * PAGE + 7,
        5..5,
        0..usize::MAX,
        7 * PAGE..8 * PAGE,
    ] {
        map.will_need(range);
    }
    assert_eq!(map.bytes(), content);
    map.check().unwrap();
    assert_eq!(map.path(), scratch.path().join("f"));
    assert!(format!("{map:?}").contains("12293"), "{map:?}");
    std::fs::remove_file(scratch.path().join("f")).unwrap();
    assert_eq!(map.bytes(), content, "without its name");
}

#[test]
fn ranges_to_advise_are_clipped_and_begin_at_a_page() {
    for (range, expected) in [
        (0..0, 0..0),
        (0..1, 0..1),
        (PAGE + 3..PAGE + 4, PAGE..PAGE + 4),
        (PAGE - 1..9 * PAGE, 0..2 * PAGE + 1),
        (2 * PAGE + 1..3 * PAGE, 0..0),
        (usize::MAX..usize::MAX, 0..0),
        (3..usize::MAX, 0..2 * PAGE + 1),
    ] {
        assert_eq!(
            whole_pages(range.clone(), 2 * PAGE + 1, PAGE),
            expected,
            "{range:?}"
        );
    }
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "a caller's arithmetic may go wrong"
    )]
    let reversed = 9..3;
    assert!(whole_pages(reversed, PAGE, PAGE).is_empty());
}

#[test]
fn an_empty_file_is_an_empty_map() {
    let (_scratch, dir, file) = with_file(b"");
    let map = dir.map_blocking("f").unwrap();
    map.advise_random();
    map.will_need(0..10);
    assert_eq!(map.bytes(), b"");
    file.set_len(10).unwrap();
    file.set_len(0).unwrap();
    map.check().unwrap();
}

#[test]
fn a_file_that_grows_is_mapped_as_it_was() {
    let (scratch, dir, _) = with_file(b"abc");
    let map = dir.map_blocking("f").unwrap();
    std::fs::write(scratch.path().join("f"), vec![b'a'; 3 * PAGE]).unwrap();
    assert_eq!(map.bytes().len(), 3);
    map.check().unwrap();
    assert_eq!(dir.map_blocking("f").unwrap().bytes().len(), 3 * PAGE);
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let (scratch, dir, _) = with_file(b"abc");
    std::fs::create_dir(scratch.path().join("d")).unwrap();
    let refused = |name: &str| {
        let error = dir.map_blocking(name).unwrap_err();
        assert!(
            error.to_string().ends_with(name) && error.op == "map",
            "{error}"
        );
        error
    };
    assert!(refused("missing").is_not_found());
    assert!(!refused("d").is_not_found());
    if rustix::process::getuid().is_root() {
        println!("LEFT OUT: root may read everything");
        return;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(scratch.path().join("f"), mode).unwrap();
    assert_eq!(refused("f").source.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_file_cut_short_under_readers_is_zeros_and_an_error() {
    const BYTES: usize = 256 * PAGE;
    let (_scratch, dir, file) = with_file(&vec![7; BYTES]);
    let map = Arc::new(dir.map_blocking("f").unwrap());
    let rounds = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (map, rounds) = (Arc::clone(&map), Arc::clone(&rounds));
            std::thread::spawn(move || {
                // Each in its own order, so that faults meet at different pages.
                loop {
                    let broken_before = map.check().is_err();
                    let sum: usize = (0..BYTES / PAGE)
                        .map(|page| (page * (2 * reader + 1)) % (BYTES / PAGE) * PAGE)
                        .map(|at| usize::from(black_box(map.bytes())[at]))
                        .sum();
                    rounds.fetch_add(1, SeqCst);
                    let broken = map.check().is_err();
                    assert!(broken || sum == 7 * BYTES / PAGE, "zeros without a word");
                    if broken_before {
                        return sum;
                    }
                }
            })
        })
        .collect();
    while rounds.load(SeqCst) < 50 {
        std::thread::yield_now();
    }
    map.check().unwrap();
    file.set_len(3 * PAGE as u64 + 1).unwrap();
    for reader in readers {
        // Three whole pages, and the first byte of the fourth.
        assert_eq!(reader.join().unwrap(), 4 * 7);
    }
    let error = map.check().unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.source.to_string().contains("cut short"), "{error:?}");
    assert_eq!(map.bytes()[3 * PAGE..3 * PAGE + 2], [7, 0]);
    assert!(map.bytes()[4 * PAGE..].iter().all(|byte| *byte == 0));
    drop(map);
    file.set_len(BYTES as u64).unwrap();
    dir.map_blocking("f").unwrap().check().unwrap();
}

#[test]
fn maps_that_come_and_go_beside_faults_never_mix() {
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            std::thread::spawn(move || {
                for round in 0..100_u8 {
                    let (_scratch, dir, file) = with_file(&vec![thread + 1; 8 * PAGE]);
                    let whole = dir.map_blocking("f").unwrap();
                    assert_eq!(whole.bytes()[8 * PAGE - 1], thread + 1);
                    let left = usize::from(round % 8) * PAGE;
                    file.set_len(left as u64).unwrap();
                    assert_eq!(whole.bytes()[8 * PAGE - 1], 0);
                    whole.check().unwrap_err();
                    assert!(whole.bytes()[..left].iter().all(|byte| *byte == thread + 1));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn ten_thousand_maps_live_side_by_side() {
    let (_scratch, dir, _) = with_file(b"abc");
    let maps: Vec<_> = (0..10_000)
        .map(|_| dir.map_blocking("f").unwrap())
        .collect();
    assert!(maps.iter().all(|map| map.bytes() == b"abc"));
    drop(maps);
    let used = MAPS.used.load(SeqCst);
    assert!((10_000..MAPS_MAX).contains(&used), "{used}");
}

#[test]
fn a_sparse_file_of_64_gib_costs_nothing() {
    let (scratch, dir, file) = with_file(b"");
    file.set_len(64 << 30).unwrap();
    let map = dir.map_blocking("f").unwrap();
    map.advise_random();
    assert_eq!(map.bytes().len(), 64 << 30);
    assert_eq!(map.bytes().last(), Some(&0));
    map.check().unwrap();
    assert_eq!(
        std::fs::metadata(scratch.path().join("f"))
            .unwrap()
            .blocks(),
        0
    );
}

// === the registry ===

#[test]
fn places_are_limited_and_used_again() {
    let slots = [const { Slot::free() }; 3];
    let registry = Registry::new(&slots);
    let mut places: Vec<_> = (1..=3)
        .map(|n| registry.claim(n * PAGE..n * PAGE + 1).unwrap())
        .collect();
    assert!(registry.claim(9 * PAGE..10 * PAGE).is_none());
    drop(places.remove(1));
    assert!(!registry.heal(2 * PAGE, |_| panic!("nothing is there")));
    let again = registry.claim(9 * PAGE..10 * PAGE).unwrap();
    assert!(registry.claim(0..1).is_none());
    assert!(!again.is_broken());
    assert!(registry.heal(9 * PAGE + 9, |_| true));
    assert!(again.is_broken() && !places[0].is_broken());
    drop(again);
    assert!(
        !registry.claim(5 * PAGE..6 * PAGE).unwrap().is_broken(),
        "a new map is whole"
    );
}

#[test]
fn the_missing_end_is_covered_or_else_the_whole() {
    let slots = [const { Slot::free() }; 2];
    let registry = Registry::new(&slots);
    let addresses = 10 * PAGE..13 * PAGE + 5;
    let place = registry.claim(addresses.clone()).unwrap();
    for outside in [0, 10 * PAGE - 1, 14 * PAGE, usize::MAX] {
        assert!(!registry.heal(outside, |_| panic!("{outside}")));
    }
    assert!(!place.is_broken());
    let seen = Mutex::new(Vec::new());
    let cover = |pages: Range<usize>| {
        seen.lock().unwrap().push(pages);
        false
    };
    assert!(!registry.heal(12 * PAGE + 77, cover));
    assert_eq!(
        *seen.lock().unwrap(),
        [12 * PAGE..14 * PAGE, 10 * PAGE..14 * PAGE]
    );
    assert!(place.is_broken());
}

#[test]
fn a_lookup_never_joins_the_start_of_one_map_and_the_end_of_another() {
    static SLOTS: [Slot; 4] = [const { Slot::free() }; 4];
    static REGISTRY: Registry<'static> = Registry::new(&SLOTS);
    // Each range lies inside of the one that the next number would end.
    let range = |n: usize| n << 20..(n << 20) + n * PAGE;
    let held = REGISTRY.claim(range(200)).unwrap();
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            std::thread::spawn(move || {
                for n in 1..100_000 {
                    drop(REGISTRY.claim(range(1 + (n * 7 + writer) % 199)).unwrap());
                }
            })
        })
        .collect();
    let seen = AtomicU64::new(0);
    while writers.iter().any(|writer| !writer.is_finished()) {
        assert!(REGISTRY.heal(200 << 20, |pages| pages == range(200)));
        for n in 1..200 {
            REGISTRY.heal(n << 20, |pages| {
                assert_eq!(pages, range(n));
                seen.fetch_add(1, SeqCst);
                true
            });
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(held.is_broken());
    println!("{seen:?} lookups met a map that came or went");
}

// === faults of others ===

/// Runs a test of this file that is ignored otherwise, in a process of its own; the signal that
/// ended it.
fn signal_of_child(test: &str) -> Option<i32> {
    let name = format!("disk::mmap::tests::{test}");
    let child = Command::new("/proc/self/exe")
        .args(["--exact", &name, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains("running 1 test"), "{told}");
    assert!(!child.status.success(), "{told}");
    child.status.signal()
}

/// Whether [`signal_of_child`] runs this, and not somebody who runs all that is ignored.
fn is_child() -> bool {
    let line = std::fs::read("/proc/self/cmdline").unwrap();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == b"--exact")
}

fn without_core_dump() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).unwrap();
}

#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    assert_eq!(
        signal_of_child("child_that_faults_elsewhere"),
        Some(libc::SIGBUS)
    );
}

#[test]
#[ignore = "ends the process; run by a_fault_elsewhere_still_ends_the_process"]
fn child_that_faults_elsewhere() {
    if !is_child() {
        return;
    }
    without_core_dump();
    let (scratch, dir, file) = with_file(&[1; 2 * PAGE]);
    let ours = dir.map_blocking("f").unwrap();
    let readable = File::open(scratch.path().join("f")).unwrap();
    let other = unregistered(&readable);
    file.set_len(0).unwrap();
    assert_eq!(ours.bytes()[PAGE], 0);
    ours.check().unwrap_err();
    println!("{}", black_box(&other)[PAGE]);
}

#[test]
fn a_signal_that_is_sent_still_ends_the_process() {
    assert_eq!(
        signal_of_child("child_that_is_sent_a_signal"),
        Some(libc::SIGBUS)
    );
}

#[test]
#[ignore = "ends the process; run by a_signal_that_is_sent_still_ends_the_process"]
fn child_that_is_sent_a_signal() {
    if !is_child() {
        return;
    }
    without_core_dump();
    let (_scratch, dir, _) = with_file(b"abc");
    let _map = dir.map_blocking("f").unwrap();
    kill_process(getpid(), Signal::BUS).unwrap();
}
