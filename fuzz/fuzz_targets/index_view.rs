//! Harness only; what runs, and its seeds, are in `outrigger::tsdb` and `fuzz/corpus/index_view`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::tsdb::fuzz_view(data));
