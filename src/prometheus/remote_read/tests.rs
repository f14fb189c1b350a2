//! Remote read against a peer that answers right, wrong, cut short, or never; and the reader of
//! messages against prost.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::net::http::{Reply, ScriptedServer, StoppedClock, response, until};
use crate::prometheus::{Config, HttpClientConfig, PeerErrorClass};
use wire_messages::{
    Chunk, ChunkedReadResponse, ChunkedSeries, Histogram, Label, QueryResult, ReadRequest,
    ReadResponse, Sample, TimeSeries,
};

fn client(url: &str) -> Client {
    Client::new(Config {
        url: url.parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    })
    .unwrap()
}

fn query() -> RemoteQuery {
    RemoteQuery {
        start_ms: -5,
        end_ms: 1_000,
        matchers: vec![Matcher {
            op: MatchOp::NotRegex,
            name: "job".to_owned(),
            value: "a|b".to_owned(),
        }],
    }
}

fn label(name: &str, value: &str) -> Label {
    Label {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn series(i: usize, data_bytes: usize) -> ChunkedSeries {
    let at = i as i64;
    ChunkedSeries {
        labels: vec![label("__name__", "up"), label("i", &format!("{i:06}"))],
        chunks: vec![Chunk {
            min_time_ms: at,
            max_time_ms: at + 5,
            r#type: 1,
            data: vec![i as u8; data_bytes].into(),
        }],
    }
}

fn frame(message: &impl prost::Message) -> Vec<u8> {
    let payload = message.encode_to_vec();
    let mut out = Vec::new();
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.put_u32(crc_fast::crc32_iscsi(&payload));
    out.extend(payload);
    out
}

fn frame_of(i: usize, data_bytes: usize) -> Vec<u8> {
    frame(&ChunkedReadResponse {
        chunked_series: vec![series(i, data_bytes)],
        query_index: 0,
    })
}

/// An answer in HTTP chunks of `step` bytes; `end`: with the last, empty one.
fn streamed(body: &[u8], step: usize, end: bool) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for piece in body.chunks(step) {
        out.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    if end {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    out
}

async fn read_all(client: &Client) -> Result<Vec<RemoteSeries>, PeerError> {
    let mut read = client.remote_read(&query()).await?;
    let mut all = Vec::new();
    while let Some(series) = read.next().await? {
        all.push(series);
    }
    Ok(all)
}

async fn outcome(reply: Reply) -> Result<Vec<RemoteSeries>, PeerError> {
    let server = ScriptedServer::start(move |_| reply.clone()).await;
    read_all(&client(&server.url("/"))).await
}

fn frame_error(outcome: Result<Vec<RemoteSeries>, PeerError>) -> FrameError {
    match outcome {
        Err(PeerError::Frame { source, .. }) => source,
        other => panic!("not a frame's error: {other:?}"),
    }
}

#[tokio::test]
async fn a_stream_is_read_whole_whatever_its_pieces_and_the_request_is_as_agreed() {
    let frames: Vec<u8> = (0..500).flat_map(|i| frame_of(i, i * 7)).collect();
    for step in [1, 7, 2048, 1 << 20] {
        let reply = Reply::Bytes(streamed(&frames, step, true));
        let server = ScriptedServer::start(move |_| reply.clone()).await;
        let client = client(&server.url("/prom/"));
        for _ in 0..2 {
            let all = read_all(&client).await.unwrap();
            assert_eq!(all.len(), 500);
            for (i, read) in all.iter().enumerate() {
                let number = format!("{i:06}");
                let labels: Vec<_> = read.labels().collect();
                assert_eq!(labels, [("__name__", "up"), ("i", number.as_str())]);
                let chunk = &read.chunks[0];
                assert_eq!(chunk.data, vec![i as u8; i * 7]);
                assert_eq!((chunk.min_ms, chunk.max_ms), (i as i64, i as i64 + 5));
                assert_eq!(chunk.encoding, 1);
            }
        }
        assert_eq!(server.accepted(), 1, "the connection is used again");
        let seen = &server.seen()[0];
        assert_eq!(seen.line, "POST /prom/api/v1/read HTTP/1.1");
        let header = |name| seen.header(name).unwrap().to_owned();
        assert_eq!(header("content-encoding"), "snappy");
        assert_eq!(header("content-type"), "application/x-stream-protobuf");
        assert_eq!(header("x-prometheus-remote-read-version"), "0.1.0");
        assert_eq!(header("user-agent"), "Thanos/0.42.4");
        assert_eq!(header("host"), server.addr().to_string());
        let body = snap::raw::Decoder::new().decompress_vec(&seen.body);
        let request = ReadRequest::decode(body.unwrap().as_slice()).unwrap();
        assert_eq!(request.accepted_response_types, [1, 0]);
        let asked = &request.queries[0];
        assert_eq!(
            (asked.start_timestamp_ms, asked.end_timestamp_ms),
            (-5, 1_000)
        );
        let matcher = &asked.matchers[0];
        assert_eq!(
            (
                matcher.r#type,
                matcher.name.as_str(),
                matcher.value.as_str()
            ),
            (3, "job", "a|b")
        );
        assert_eq!((request.queries.len(), asked.hints.is_none()), (1, true));
    }
}

#[tokio::test]
async fn no_answer_cut_short_or_damaged_is_a_success() {
    let frames = [frame_of(0, 100), frame_of(1, 300), frame_of(2, 50)].concat();
    let second = frame_of(0, 100).len() as u64;
    let third = second + frame_of(1, 300).len() as u64;

    // The body ends, as HTTP has it, inside the second frame.
    let cut = &frames[..second as usize + 40];
    let error = frame_error(outcome(Reply::Bytes(streamed(cut, 64, true))).await);
    let kind = FrameErrorKind::Truncated { bytes: 40 };
    assert_eq!((error.number, error.offset, error.kind), (2, second, kind));

    // The connection ends inside the second frame, or before the last HTTP chunk.
    for bytes in [&frames[..second as usize + 40], &frames] {
        let error = outcome(Reply::Close(streamed(bytes, 64, false)))
            .await
            .unwrap_err();
        assert_eq!(error.class(), PeerErrorClass::Interrupted, "{error:?}");
    }

    // Prometheus fails in the middle and appends the reason.
    let appended = [frames.as_slice(), b"remote: expanding series: compaction\n"].concat();
    let error = frame_error(outcome(Reply::Bytes(streamed(&appended, 64, true))).await);
    assert_eq!((error.number, error.offset), (4, frames.len() as u64));

    let mut damaged = frames.clone();
    damaged[second as usize + 60] ^= 1;
    let error = frame_error(outcome(Reply::Bytes(streamed(&damaged, 64, true))).await);
    assert_eq!((error.number, error.offset), (2, second));
    assert!(matches!(error.kind, FrameErrorKind::Checksum { .. }));
    let shown = error.to_string();
    assert!(shown.starts_with(&format!(
        "frame 2 of the remote read, at byte {second}: its checksum"
    )));

    for (garbage, kind) in [
        (vec![0xff; 11], FrameErrorKind::Length),
        (
            vec![0x81, 0xe1, 0xeb, 0x17, 0, 0],
            FrameErrorKind::TooLarge { length: 50_000_001 },
        ),
    ] {
        let body = [&frames[..third as usize], &garbage].concat();
        let error = frame_error(outcome(Reply::Bytes(streamed(&body, 64, true))).await);
        assert_eq!((error.number, error.offset, error.kind), (3, third, kind));
    }
}

#[tokio::test]
async fn a_stream_that_ends_with_its_connection_is_refused() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\n\r\n");
    // Whole frames: nothing in the bytes would tell that there should have been more.
    let answer = [head.into_bytes(), frame_of(0, 100), frame_of(1, 100)].concat();
    let error = outcome(Reply::Close(answer)).await.unwrap_err();
    assert!(matches!(error, PeerError::Undelimited { .. }), "{error:?}");
    assert_eq!(error.class(), PeerErrorClass::Invalid);

    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\n");
    let body = frame_of(0, 100);
    let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    let all = outcome(Reply::Close([head.into_bytes(), body].concat())).await;
    assert_eq!(all.unwrap().len(), 1);
}

#[tokio::test]
async fn a_frame_that_is_no_series_is_an_error() {
    let not_utf8 = b"\x0a\x06\x0a\x04\x0a\x02\xff\xfe";
    let past_the_end = b"\x0a\x09\x0a\x04";
    let other_query = b"\x10\x01";
    for payload in [
        &not_utf8[..],
        past_the_end,
        other_query,
        b"\x0f",
        b"\x00\x01",
    ] {
        let mut body = frame_of(0, 10);
        let offset = body.len() as u64;
        body.push(payload.len() as u8);
        body.put_u32(crc_fast::crc32_iscsi(payload));
        body.extend_from_slice(payload);
        let error = frame_error(outcome(Reply::Bytes(streamed(&body, 64, true))).await);
        assert_eq!((error.number, error.offset), (2, offset), "{payload:?}");
    }
}

#[tokio::test]
async fn after_an_error_there_is_no_end() {
    let body = [frame_of(0, 10), vec![0xff; 20]].concat();
    let reply = Reply::Bytes(streamed(&body, 64, true));
    let server = ScriptedServer::start(move |_| reply.clone()).await;
    let mut read = client(&server.url("/"))
        .remote_read(&query())
        .await
        .unwrap();
    assert!(read.next().await.unwrap().is_some());
    for _ in 0..3 {
        assert!(read.next().await.is_err());
    }
}

#[tokio::test]
async fn refusals_keep_status_and_text() {
    let long = "x".repeat(100_000);
    for (status, body) in [
        ("503 Service Unavailable", "Service Unavailable"),
        ("400 Bad Request", "parse error"),
        ("500 Internal Server Error", long.as_str()),
    ] {
        let error = outcome(Reply::Close(response(status, &[], body)))
            .await
            .unwrap_err();
        let (code, text) = error.status().unwrap();
        assert_eq!(code.as_str(), &status[..3]);
        assert_eq!(text, &body[..body.len().min(64 << 10)]);
        assert_eq!(error.class(), PeerErrorClass::Status(code));
        assert!(error.to_string().len() < 1000);
    }
    let html = response("200 OK", &[("Content-Type", "text/html")], "<html>");
    let error = outcome(Reply::Bytes(html)).await.unwrap_err();
    let expected = "not supported remote read content type: text/html";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.class(), PeerErrorClass::Invalid);

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let error = read_all(&client(&format!("http://{address}")))
        .await
        .unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::Unreachable);
}

#[tokio::test]
async fn whoever_goes_away_closes_the_connection_at_once() {
    let server = ScriptedServer::start(|seen| match seen.path() {
        "/stalled/api/v1/read" => Reply::Hang,
        _ => Reply::Endless(streamed(&[], 1, false), {
            let piece = frame_of(1, 2000);
            let head = format!("{:x}\r\n", piece.len()).into_bytes();
            [head, piece, b"\r\n".to_vec()].concat()
        }),
    })
    .await;
    // Before the answer's header.
    let stalled = client(&server.url("/stalled/"));
    let asked = query();
    let asking = tokio::spawn(async move { stalled.remote_read(&asked).await.map(drop) });
    until("the request arrives", || server.seen().len() == 1).await;
    asking.abort();
    let started = Instant::now();
    server.hung_up(1).await;
    assert!(started.elapsed() < Duration::from_millis(100) * SLOW_MACHINE);

    // In the middle of the answer.
    let mut read = client(&server.url("/"))
        .remote_read(&query())
        .await
        .unwrap();
    for _ in 0..1000 {
        assert!(read.next().await.unwrap().is_some());
    }
    drop(read);
    let started = Instant::now();
    server.hung_up(2).await;
    assert!(started.elapsed() < Duration::from_millis(100) * SLOW_MACHINE);
}

/// The machine under the tests may be busy with other things: what is checked is that nothing
/// waits for a timer of seconds.
const SLOW_MACHINE: u32 = 20;

#[tokio::test]
async fn a_wait_that_is_given_up_loses_nothing() {
    let (first, second) = (frame_of(0, 10), frame_of(1, 10));
    let body = [first.as_slice(), &second, &second[..9]].concat();
    let server = ScriptedServer::start(move |_| Reply::Bytes(streamed(&body, 999, false))).await;
    let mut read = client(&server.url("/"))
        .remote_read(&query())
        .await
        .unwrap();
    assert!(read.is_streamed());
    for _ in 0..2 {
        assert!(read.next().await.unwrap().is_some());
    }
    assert_eq!(read.frames_and_reads().0, 2);
    // Of the third there is a part.
    for _ in 0..2 {
        let waited = tokio::time::timeout(Duration::from_millis(10), read.next()).await;
        assert!(waited.is_err());
    }
    assert_eq!(read.frames_and_reads().0, 2);
}

#[tokio::test]
async fn a_frame_of_many_series_and_a_large_one_are_read() {
    let many = ChunkedReadResponse {
        chunked_series: (0..5).map(|i| series(i, 10)).collect(),
        query_index: 0,
    };
    let body = [
        frame(&many),
        frame(&ChunkedReadResponse::default()),
        frame_of(5, 5 << 20),
    ];
    let all = outcome(Reply::Bytes(streamed(&body.concat(), 2048, true)))
        .await
        .unwrap();
    assert_eq!(all.len(), 6);
    assert_eq!(all[5].chunks[0].data.len(), 5 << 20);
    assert!(!all[0].labels().eq(all[1].labels()));
}

// === Samples ===

fn sampled(results: Vec<QueryResult>) -> Reply {
    let message = ReadResponse { results }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let headers = [("Content-Type", SAMPLED), ("Content-Encoding", "snappy")];
    Reply::Bytes(response("200 OK", &headers, body))
}

fn sampled_series(labels: Vec<Label>, samples: &[(i64, f64)], histograms: usize) -> TimeSeries {
    let samples = samples
        .iter()
        .map(|&(timestamp, value)| Sample { value, timestamp });
    TimeSeries {
        labels,
        samples: samples.collect(),
        histograms: vec![Histogram::default(); histograms],
    }
}

#[tokio::test]
async fn an_answer_in_samples_comes_sorted() {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let timeseries = vec![
        sampled_series(vec![label("a", "2")], &[(1, 0.5), (2, stale)], 0),
        sampled_series(vec![label("a", "1"), label("b", "1")], &[], 3),
        sampled_series(vec![label("a", "1")], &[(-7, -1.0)], 0),
    ];
    let all = outcome(sampled(vec![QueryResult { timeseries }]))
        .await
        .unwrap();
    let labels: Vec<Vec<_>> = all.iter().map(|read| read.labels().collect()).collect();
    let expected = [
        vec![("a", "1")],
        vec![("a", "1"), ("b", "1")],
        vec![("a", "2")],
    ];
    assert_eq!(labels, expected);
    assert_eq!(
        all[0].samples,
        [FloatSample {
            t_ms: -7,
            value: -1.0
        }]
    );
    assert_eq!((all[1].samples.len(), all[1].histograms), (0, 3));
    assert_eq!(all[2].samples[1].value.to_bits(), stale.to_bits());
}

#[tokio::test]
async fn answers_in_samples_are_held_one_at_a_time() {
    let timeseries = vec![sampled_series(vec![label("a", "1")], &[(1, 1.0)], 0)];
    let reply = sampled(vec![QueryResult { timeseries }]);
    let server = ScriptedServer::start(move |_| reply.clone()).await;
    let client = client(&server.url("/"));
    let first = client.remote_read(&query()).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { read_all(&client).await.map(|all| all.len()) }
    });
    until("both are answered", || server.seen().len() == 2).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);

    // It does not wait for ever.
    let _held = client.remote_read(&query()).await.unwrap();
    let clock = StoppedClock::stop();
    let waiting = tokio::spawn(async move { client.remote_read(&query()).await.map(drop) });
    until("the last is asked for", || server.seen().len() == 4).await;
    let started = tokio::time::Instant::now();
    while !waiting.is_finished() {
        assert!(
            started.elapsed() < samples::SAMPLES_WAIT_MAX * 1000,
            "never ends"
        );
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        clock.advance(samples::SAMPLES_WAIT_MAX / 4).await;
    }
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("reading the answer of"));
    assert_eq!(error.class(), PeerErrorClass::TooLarge);
}

#[tokio::test]
async fn a_wrong_answer_in_samples_is_an_error() {
    for results in [0, 2] {
        let error = outcome(sampled(vec![QueryResult::default(); results]))
            .await
            .unwrap_err();
        let PeerError::Samples { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(
            source.to_string(),
            format!("unexpected result size {results}")
        );
        assert_eq!(error.class(), PeerErrorClass::Invalid);
    }
    // It claims one byte more than is let through, and has none.
    let mut bomb = Vec::new();
    prost::encoding::encode_varint(SAMPLES_BYTES_MAX as u64 + 1, &mut bomb);
    let headers = [("Content-Type", SAMPLED)];
    let error = outcome(Reply::Bytes(response("200 OK", &headers, &bomb)))
        .await
        .unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::TooLarge);
    let PeerError::Samples { source, .. } = error else {
        panic!("not of samples");
    };
    assert!(
        source
            .to_string()
            .contains("use a Prometheus with streamed remote read")
    );
    let error = outcome(Reply::Bytes(response("200 OK", &headers, "\u{5}x")))
        .await
        .unwrap_err();
    assert_eq!(error.class(), PeerErrorClass::Invalid);
}

// === Against prost ===

fn decoded(frame: &Bytes) -> Result<Vec<RemoteSeries>, FrameErrorKind> {
    check_frame(frame)?;
    let mut all = Vec::new();
    let mut fields = Fields::new(frame);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            let mut series = RemoteSeries::default();
            series.read_chunked(frame, value.bytes()?)?;
            all.push(series);
        }
    }
    Ok(all)
}

/// A series as both readers have it.
type Plain = (Vec<(String, String)>, Vec<RemoteChunk>);

fn expected(message: ChunkedReadResponse) -> Vec<Plain> {
    let chunk = |chunk: Chunk| RemoteChunk {
        min_ms: chunk.min_time_ms,
        max_ms: chunk.max_time_ms,
        encoding: chunk.r#type,
        data: chunk.data,
    };
    let all = message.chunked_series.into_iter().map(|series| {
        let labels = series
            .labels
            .into_iter()
            .map(|label| (label.name, label.value));
        (
            labels.collect(),
            series.chunks.into_iter().map(chunk).collect(),
        )
    });
    all.collect()
}

fn same_as_prost(frame: Bytes) -> Result<(), TestCaseError> {
    let theirs = ChunkedReadResponse::decode(frame.clone());
    let theirs = theirs.ok().filter(|message| message.query_index == 0);
    let ours = decoded(&frame).ok().map(|all| {
        let owned = |read: RemoteSeries| {
            let labels = read
                .labels()
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            (labels.collect::<Vec<_>>(), read.chunks)
        };
        all.into_iter().map(owned).collect::<Vec<_>>()
    });
    prop_assert_eq!(ours, theirs.map(expected));
    Ok(())
}

/// A field that no message has: number from 5 on, any type.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![5u32..200, 1u32 << 28..1 << 29];
    (
        number,
        0u8..4,
        any::<u64>(),
        proptest::collection::vec(any::<u8>(), 0..20),
    )
        .prop_map(|(number, kind, value, bytes)| {
            let mut out = Vec::new();
            let wire_type = [0, 1, 2, 5][usize::from(kind)];
            prost::encoding::encode_varint(u64::from(number) << 3 | wire_type, &mut out);
            match wire_type {
                0 => prost::encoding::encode_varint(value, &mut out),
                1 => out.put_u64_le(value),
                2 => {
                    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
                    out.extend_from_slice(&bytes);
                }
                _ => out.put_u32_le(value as u32),
            }
            out
        })
}

/// A message as a field, and fields that are unknown beside it.
fn field(number: u8, message: &[u8], unknown: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint((message.len() + unknown.len()) as u64, &mut out);
    out.extend_from_slice(message);
    out.extend_from_slice(unknown);
    out
}

prop_compose! {
    fn any_frame()(
        all in proptest::collection::vec((
            proptest::collection::vec((".{0,6}", ".{0,200}", unknown()), 0..5),
            proptest::collection::vec(
                (
                    any::<(i64, i64)>(), 0i32..8,
                    proptest::collection::vec(any::<u8>(), 0..300), unknown(),
                ),
                0..5,
            ),
            unknown(),
        ), 0..4),
        unknown in unknown(),
        query_index in prop_oneof![9 => Just(0i64), 1 => any::<i64>()],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        for (labels, chunks, unknown) in all {
            let mut series = Vec::new();
            for (name, value, unknown) in labels {
                series.extend(field(1, &Label { name, value }.encode_to_vec(), &unknown));
            }
            for ((min_time_ms, max_time_ms), kind, data, unknown) in chunks {
                let chunk = Chunk { min_time_ms, max_time_ms, r#type: kind, data: data.into() };
                series.extend(field(2, &chunk.encode_to_vec(), &unknown));
            }
            out.extend(field(1, &series, &unknown));
        }
        out.extend(unknown);
        let rest = ChunkedReadResponse { query_index, ..ChunkedReadResponse::default() };
        out.extend(rest.encode_to_vec());
        out
    }
}

proptest! {
    #[test]
    fn frames_are_read_as_prost_reads_them(frame in any_frame(), cut: prop::sample::Index) {
        same_as_prost(frame.clone().into())?;
        let cut = cut.index(frame.len() + 1);
        same_as_prost(frame[..cut].to_vec().into())?;
    }

    #[test]
    fn damaged_frames_are_judged_as_prost_does(
        mut frame in any_frame(), at: prop::sample::Index, bit in 0u8..8,
    ) {
        if !frame.is_empty() {
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
        }
        // What differs by intent: an encoding's id that 32 bits do not hold is kept apart.
        same_as_prost_but_ids(frame.into())?;
    }
}

fn same_as_prost_but_ids(frame: Bytes) -> Result<(), TestCaseError> {
    match decoded(&frame) {
        Ok(all)
            if all
                .iter()
                .any(|s| s.chunks.iter().any(|c| c.encoding == i32::MAX)) =>
        {
            Ok(())
        }
        _ => same_as_prost(frame),
    }
}

// === Fuzzing ===

proptest! {
    #[test]
    fn damaged_bodies_have_one_verdict(
        mut frames in proptest::collection::vec(any_frame(), 0..3),
        at: prop::sample::Index, byte: u8,
    ) {
        let mut body = Vec::new();
        for payload in frames.drain(..) {
            prost::encoding::encode_varint(payload.len() as u64, &mut body);
            body.put_u32(crc_fast::crc32_iscsi(&payload));
            body.extend(payload);
        }
        fuzz_remote_read(&body);
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        fuzz_remote_read(&body);
    }
}

fn corpus() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/remote_read")
}

#[test]
fn the_fuzz_corpus_replays() {
    let mut seeds = 0;
    for entry in std::fs::read_dir(corpus()).unwrap() {
        fuzz_remote_read(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0);
}

#[test]
#[ignore = "writes into fuzz/corpus"]
fn regenerate_fuzz_seeds() {
    std::fs::create_dir_all(corpus()).unwrap();
    let body = [frame_of(0, 30), frame_of(1, 5)].concat();
    std::fs::write(corpus().join("frames"), &body).unwrap();
    std::fs::write(corpus().join("cut"), &body[..body.len() - 3]).unwrap();
    let timeseries = vec![sampled_series(vec![label("a", "1")], &[(1, 2.0)], 1)];
    let samples = ReadResponse {
        results: vec![QueryResult { timeseries }],
    };
    std::fs::write(corpus().join("samples"), samples.encode_to_vec()).unwrap();
}
