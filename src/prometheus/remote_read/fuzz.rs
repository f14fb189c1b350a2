//! What the fuzz target of remote read runs.
//!
//! Beyond "no panic": the verdict on a body is the same however its bytes are split, and what is
//! read of a frame lies within it.

#![allow(
    clippy::indexing_slicing,
    reason = "test support: nothing here reaches the product"
)]

use bytes::{Bytes, BytesMut};

use super::frame::{FrameError, Frames};
use super::samples::Sampled;
use super::series::RemoteSeries;
use super::{check_frame, wire::Fields};

/// The input as a streamed body, as payloads with right checksums, and as an answer in samples.
pub fn fuzz_remote_read(data: &[u8]) {
    let split = data.first().map_or(1, |&byte| usize::from(byte % 61) + 1);
    assert_eq!(body(data, split), body(data, data.len().max(1)));

    let mut repaired = Vec::new();
    for payload in data.chunks(split * 4) {
        repaired.push(u8::try_from(payload.len() & 0x7f).unwrap_or(0));
        let payload = &payload[..payload.len() & 0x7f];
        repaired.extend(crc_fast::crc32_iscsi(payload).to_be_bytes());
        repaired.extend_from_slice(payload);
    }
    assert_eq!(
        body(&repaired, split),
        body(&repaired, repaired.len().max(1))
    );

    let compressed = snap::raw::Encoder::new().compress_vec(data);
    for answer in [Ok(data.to_vec()), compressed] {
        let answer = answer.expect("an input of the fuzzer can be compressed");
        if let Ok(mut sampled) = Sampled::read(&answer) {
            let mut series = RemoteSeries::default();
            while sampled.next_into(&mut series).unwrap_or(false) {}
        }
    }
}

/// The series, or the first error.
fn body(data: &[u8], split: usize) -> Result<Vec<RemoteSeries>, FrameError> {
    let mut frames = Frames::default();
    let mut buffer = BytesMut::new();
    let mut all = Vec::new();
    for piece in data.chunks(split) {
        buffer.extend_from_slice(piece);
        loop {
            let Some(frame) = frames.next(&mut buffer)? else {
                break;
            };
            read_frame(&frame, &mut all).map_err(|kind| frames.at_last(kind))?;
        }
    }
    frames.finish(&buffer)?;
    Ok(all)
}

fn read_frame(
    frame: &Bytes,
    all: &mut Vec<RemoteSeries>,
) -> Result<(), super::frame::FrameErrorKind> {
    check_frame(frame)?;
    let mut fields = Fields::new(frame);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            let mut series = RemoteSeries::default();
            series.read_chunked(frame, value.bytes()?)?;
            let chunk_bytes: usize = series.chunks.iter().map(|chunk| chunk.data.len()).sum();
            assert!(chunk_bytes + series.label_bytes() <= frame.len());
            all.push(series);
        }
    }
    Ok(())
}
