//! What an upload to S3 costs besides reading and sending: signatures, plans, checksums.
//!
//! `cargo bench --features testing`; as a smoke test under `cargo test --benches`.

use std::num::NonZeroU64;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use outrigger::objstore::{PartPlan, signed_headers, summed};

fn main() {
    divan::main();
}

/// A default part in runs of the pool's size; small in a debug build, which only proves that the
/// benches run.
const RUN_BYTES: usize = 1 << 20;
const RUNS: usize = if cfg!(debug_assertions) { 1 } else { 8 };

#[divan::bench]
fn signature() -> http::HeaderMap {
    signed_headers(black_box(
        "https://bucket.s3.eu-west-1.amazonaws.com/01H/chunks/000001?partNumber=1&uploadId=u",
    ))
}

#[divan::bench]
fn plan_of_200_gib() -> u64 {
    let part_bytes = NonZeroU64::new(8 << 20).expect("not zero");
    let plan = PartPlan::new(black_box(200 << 30), part_bytes);
    plan.parts().map(|(_, range)| range.end - range.start).sum()
}

fn sums(bencher: Bencher<'_, '_>, md5: bool, sha256: bool) {
    let runs: Vec<_> = (0..RUNS)
        .map(|i| Bytes::from(vec![u8::try_from(i).unwrap_or(0); RUN_BYTES]))
        .collect();
    bencher
        .counter(BytesCount::new(RUN_BYTES * RUNS))
        .bench_local(|| summed(black_box(&runs), md5, sha256));
}

#[divan::bench]
fn crc64(bencher: Bencher<'_, '_>) {
    sums(bencher, false, false);
}

#[divan::bench]
fn crc64_and_sha256(bencher: Bencher<'_, '_>) {
    sums(bencher, false, true);
}

#[divan::bench]
fn crc64_and_md5(bencher: Bencher<'_, '_>) {
    sums(bencher, true, false);
}
