//! Harness only; what runs, and its seeds, are in `outrigger::tsdb` and `fuzz/corpus/chunk_access`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::tsdb::fuzz_chunk_access(data));
