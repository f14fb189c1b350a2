//! Harness only; what runs is in `outrigger::net::grpc`, its seeds are in `fuzz/corpus/compress`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::net::grpc::fuzz_compress(data));
