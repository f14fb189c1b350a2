//! The engine that the tests of all modules read with.
//!
//! The suite runs once for each engine, and which one it is comes from outside: this is the only
//! file below `app` that reads the environment, and no part of the product.

use std::sync::OnceLock;

use super::{BufferPool, DiskEngine, EngineInfo, EngineRequest};

/// Tries of what is claimed of pages: some kernels reclaim a few ahead of need, at any moment, and
/// a page that is just being written back can't be dropped.
#[cfg(test)]
pub(super) const PAGE_TRIES_MAX: usize = 40;
/// What lies between two of them.
#[cfg(test)]
pub(super) const PAGE_TRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl DiskEngine {
    /// The engine that tests run with: what the environment variable `OUTRIGGER_TEST_IO` says
    /// (`uring`, `pread` or `auto`), else io_uring where it works. All tests of a process share
    /// one ring.
    ///
    /// # Panics
    /// Where the variable asks for what can't be had.
    pub fn for_tests(pool: BufferPool) -> Self {
        static ENGINE: OnceLock<DiskEngine> = OnceLock::new();
        let engine = ENGINE.get_or_init(|| {
            #[expect(
                clippy::disallowed_methods,
                reason = "the test suite runs more than once, and nothing else tells it how"
            )]
            let asked = std::env::var("OUTRIGGER_TEST_IO").ok();
            let request = match asked.as_deref() {
                None | Some("" | "auto") => EngineRequest::Auto,
                Some("uring") => EngineRequest::Uring,
                Some("pread") => EngineRequest::Pread,
                Some(other) => panic!("OUTRIGGER_TEST_IO={other} is no engine"),
            };
            let engine = Self::build(request, BufferPool::new(1)).expect("the engine asked for");
            let EngineInfo {
                engine: name,
                reason,
            } = engine.info();
            if asked.is_none() && *name != "uring" {
                // Past the capture of the tests' output, for the end of `make test`.
                let line = format!("LEFT OUT: io_uring in all tests: {reason}\n");
                std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes())
                    .expect("stderr takes a line");
            }
            engine
        });
        engine.with_pool(pool)
    }
}
