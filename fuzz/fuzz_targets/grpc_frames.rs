//! Harness only; what runs is in `outrigger::net::grpc`, its seeds in `fuzz/corpus/grpc_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::net::grpc::fuzz_grpc_frames(data));
