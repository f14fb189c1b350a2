//! Harness only; what runs, and its seeds, are in `outrigger::prometheus` and
//! `fuzz/corpus/query_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::prometheus::fuzz_query_answer(data));
