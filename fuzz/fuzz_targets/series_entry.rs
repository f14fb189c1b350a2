//! Harness only; what runs, and its seeds, are in `outrigger::tsdb` and `fuzz/corpus/series_entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::tsdb::fuzz_series_entry(data));
