//! Harness only; what runs is in `outrigger::store`, seeds in `fuzz/corpus/series_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::store::fuzz_series_request(data));
