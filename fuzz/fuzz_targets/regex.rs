//! Harness only; what runs, and its seeds, are in `outrigger::store` and `fuzz/corpus/regex`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::store::fuzz_regex(data));
