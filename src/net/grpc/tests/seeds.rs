//! The fuzz targets' seeds: replayed here, and made here.

use std::fs;
use std::path::{Path, PathBuf};

use super::raw::{begin_call, frame, opening};
use super::*;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

#[test]
fn corpus_seeds_replay() {
    replay("grpc_frames", fuzz_grpc_frames);
    replay("compress", fuzz_compress);
    replay("http2", fuzz_http2);
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut seeds = 0;
    for entry in fs::read_dir(corpus(target)).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "{target} has no seeds");
}

/// Writes the seeds anew.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn regenerate_net_fuzz_seeds() {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), bytes).unwrap();
    };
    put("grpc_frames", "two", b"\0\0\0\0\x03abc\x01\0\0\0\0");
    put("grpc_frames", "half", b"\0\0\0\0\x09ab");
    put("grpc_frames", "huge", b"\0\xff\xff\xff\xff");
    for (name, encoding) in [("gzip", Encoding::Gzip), ("snappy", Encoding::Snappy)] {
        let mut compressor = compress::Compressor::new(encoding);
        for (kind, message) in [
            ("text", &b"a text, a text, a text"[..]),
            ("bomb", &[0; 1 << 17]),
        ] {
            let mut out = bytes::BytesMut::new();
            compressor.encode(message, &mut out).unwrap();
            put("compress", &format!("{name}-{kind}"), &out);
        }
    }
    let (data, ping, reset, window) = (0, 6, 3, 8);
    let call = [opening(), begin_call("/e/E", 1)].concat();
    let message = frame(data, 1, 1, b"\0\0\0\0\x03abc");
    put("http2", "call", &[call.clone(), message].concat());
    put(
        "http2",
        "half",
        &[call.clone(), frame(data, 0, 1, b"\0\0\0\0\x09ab")].concat(),
    );
    put(
        "http2",
        "pings",
        &[call.clone(), frame(ping, 0, 0, &[0; 8]).repeat(9)].concat(),
    );
    put(
        "http2",
        "reset",
        &[call.clone(), frame(reset, 0, 1, &[0, 0, 0, 8])].concat(),
    );
    put(
        "http2",
        "window",
        &[call.clone(), frame(window, 0, 0, &[0x7f, 0xff, 0xff, 0xff])].concat(),
    );
    put(
        "http2",
        "unknown",
        &[opening(), begin_call("/e/None", 1)].concat(),
    );
    put("http2", "http1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}
