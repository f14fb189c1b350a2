//! A remote-read answer that never ends: what a stalled querier holds up.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut as _, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use outrigger::proto::prometheus::{Chunk, ChunkedReadResponse, ChunkedSeries, Label};
use prost::Message as _;

/// Bytes of one chunk; those of Prometheus have some hundreds.
const CHUNK_BYTES: usize = 700;
/// Series of one write.
const SERIES_PER_WRITE: usize = 16;

/// Answers a remote read with sorted series for as long as somebody reads them; the error is how
/// that ended. No other error can come from here.
pub(super) fn write_endless(mut to: impl Write, taken: &AtomicU64) -> io::Result<()> {
    to.write_all(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
          Content-Type: application/x-streamed-protobuf; \
          proto=prometheus.ChunkedReadResponse\r\n\r\n",
    )?;
    for first in (0..).step_by(SERIES_PER_WRITE) {
        let mut body = BytesMut::new();
        for n in first..first + SERIES_PER_WRITE {
            put_frame(&mut body, &series(n));
        }
        write!(to, "{:x}\r\n", body.len())?;
        to.write_all(&body)?;
        to.write_all(b"\r\n")?;
        taken.fetch_add(body.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn put_frame(body: &mut BytesMut, message: &ChunkedReadResponse) {
    let payload = message.encode_to_vec();
    prost::encode_length_delimiter(payload.len(), body).unwrap();
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &payload);
    body.put_u32(u32::try_from(crc).unwrap());
    body.put_slice(&payload);
}

fn series(n: usize) -> ChunkedReadResponse {
    let label = |name: &str, value: String| Label {
        name: name.to_owned(),
        value,
    };
    ChunkedReadResponse {
        chunked_series: vec![ChunkedSeries {
            labels: vec![
                label("__name__", "endless".to_owned()),
                label("series", format!("{n:012}")),
            ],
            chunks: vec![Chunk {
                min_time_ms: 0,
                max_time_ms: 1000,
                r#type: 1,
                // Not decoded on the way.
                data: vec![0xa5; CHUNK_BYTES].into(),
            }],
        }],
        query_index: 0,
    }
}
