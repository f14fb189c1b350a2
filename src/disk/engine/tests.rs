//! Choosing an engine where the kernel refuses, as sandboxes make it do.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::Mutex;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::*;
use crate::disk::residency::{Residency, cached_pages, residency};
use crate::disk::testing::{PAGE_TRIES_MAX, PAGE_TRY_PAUSE};
use crate::disk::{Containment, Dir, RUN_BYTES};

const RING: [libc::c_long; 3] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];
const CACHESTAT: libc::c_long = 451;

/// Runs `test` on a thread for which, and for whose threads, `denied` give `errno`.
fn confined<T: Send>(denied: &[libc::c_long], errno: Errno, test: impl FnOnce() -> T + Send) -> T {
    let architecture = if cfg!(target_arch = "aarch64") {
        TargetArch::aarch64
    } else {
        TargetArch::x86_64
    };
    let answer = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    let rules: BTreeMap<i64, _> = denied.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&program).unwrap();
            test()
        });
        thread.join().unwrap()
    })
}

/// Collects the fields of warnings, one line each.
#[derive(Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Reads a file of two runs, cold, through `engine`; the bytes and what is cached afterwards.
fn read_cold(engine: &DiskEngine) -> (Vec<u8>, io::Result<u64>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        let scratch = tempfile::tempdir_in(target).unwrap();
        let path = scratch.path().join("f");
        std::fs::write(&path, vec![7; 2 * RUN_BYTES]).unwrap();
        let written = std::fs::File::open(&path).unwrap();
        written.sync_all().unwrap();
        let dir = Dir::open(scratch.path(), Containment::Beneath);
        let file = dir.await.unwrap().open_file("f").await.unwrap();
        rustix::fs::fadvise(&written, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let size = file.size_bytes();
        let read = engine.read_exact(&file, 0..size, ReadMode::Buffered);
        (read.await.unwrap(), cached_pages(written.as_fd(), 0, 0))
    })
}

#[test]
fn where_the_ring_is_refused_auto_falls_back_with_one_warning_and_reads_all_the_same() {
    for (errno, name) in [
        (Errno::PERM, "EPERM"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::NOMEM, "ENOMEM"),
    ] {
        let warnings = Warnings::default();
        let told = Arc::clone(&warnings.0);
        let (engine, read) = confined(&RING, errno, || {
            let engine = tracing::subscriber::with_default(warnings, || {
                // Another thread that is at the same place for the first time, without anybody
                // who listens, may just have noted that nobody does.
                for _ in 0..PAGE_TRIES_MAX {
                    tracing::callsite::rebuild_interest_cache();
                    let engine = DiskEngine::build(EngineRequest::Auto, BufferPool::new(2));
                    if !told.lock().unwrap().is_empty() {
                        return engine.unwrap();
                    }
                }
                panic!("{errno}: no warning");
            });
            let read = read_cold(&engine).0;
            (engine, read)
        });
        let info = EngineInfo {
            engine: "pread",
            reason: name.to_owned(),
        };
        assert_eq!(*engine.info(), info);
        assert!(read == vec![7; 2 * RUN_BYTES]);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        for word in [&format!("errno={name} "), "cause=", "remedy="] {
            assert!(told[0].contains(word), "{word}: {told:?}");
        }
    }
}

#[test]
fn uring_never_falls_back_and_says_what_to_do() {
    for (errno, words) in [
        (Errno::PERM, ["EPERM", "seccomp"]),
        (Errno::NOSYS, ["ENOSYS", "Linux 5.11"]),
        (Errno::NOMEM, ["ENOMEM", "memlock"]),
    ] {
        let error = confined(&RING, errno, || {
            DiskEngine::build(EngineRequest::Uring, BufferPool::new(1)).unwrap_err()
        });
        let text = error.to_string();
        assert!(text.contains("--io.engine=pread"), "{text}");
        let disabled = std::fs::read_to_string(URING_DISABLED).unwrap_or_default();
        let is_disabled = matches!(disabled.trim(), "1" | "2");
        for word in words {
            let is_other_cause = is_disabled && word == "seccomp";
            assert!(text.contains(word) || is_other_cause, "{text}");
        }
        assert_eq!(Errno::from_io_error(&error.source), Some(errno));
    }
}

#[test]
fn without_cachestat_and_openat2_all_is_read_past_the_page_cache() {
    for errno in [Errno::NOSYS, Errno::PERM] {
        let (answer, read) = confined(&[CACHESTAT, libc::SYS_openat2], errno, || {
            let file = tempfile::tempfile().unwrap();
            let answer = residency(file.as_fd(), 0, 1);
            let engine = DiskEngine::build(EngineRequest::Auto, BufferPool::new(2)).unwrap();
            (answer, read_cold(&engine).0)
        });
        assert_eq!(answer, Residency::Unknown);
        assert!(read == vec![7; 2 * RUN_BYTES]);
    }
}

#[test]
fn an_engine_that_works_says_why_it_was_chosen() {
    let build = |request| DiskEngine::build(request, BufferPool::new(1)).unwrap();
    let pread = build(EngineRequest::Pread);
    assert_eq!(
        (pread.info().engine, &*pread.info().reason),
        ("pread", "requested")
    );
    let auto = build(EngineRequest::Auto);
    let mut cached = Ok(0);
    for _ in 0..PAGE_TRIES_MAX {
        let (read, left) = read_cold(&auto);
        assert!(read == vec![7; 2 * RUN_BYTES]);
        cached = left;
        if !matches!(cached, Ok(1..)) {
            break;
        }
        std::thread::sleep(PAGE_TRY_PAUSE);
    }
    if auto.info().engine == "uring" {
        assert_eq!(auto.info().reason, "probed");
        assert_eq!(build(EngineRequest::Uring).info().reason, "requested");
    }
    if let Ok(cached) = cached {
        assert_eq!(cached, 0);
    }
}
