//! Harness only; what runs, and its seeds, are in `outrigger::net::grpc` and `fuzz/corpus/http2`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::net::grpc::fuzz_http2(data));
