//! Harness only; what runs, and its seeds, are in `outrigger::prometheus` and
//! `fuzz/corpus/remote_read`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::prometheus::fuzz_remote_read(data));
