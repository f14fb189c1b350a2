//! Harness only; what runs is in `outrigger::query`, its seeds are in `fuzz/corpus/rewrite`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::query::fuzz_rewrite(data));
