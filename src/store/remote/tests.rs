//! Series of a loopback Prometheus that answers right and wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes};
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::{ExternalLabels, Labels, MatchOp, Matcher};
use crate::prometheus::{Config, HttpClientConfig};
use crate::proto::prometheus as wire;
use crate::store::testing::{pairs, range};
use crate::store::{ErrorClass, Overlay};

const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// A Prometheus that gives every connection the same answer, and how many connections it has.
async fn serve(answer: Vec<u8>) -> (PrometheusUpstream, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (answer, count) = (answer.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                count.fetch_add(1, Ordering::SeqCst);
                answer_once(socket, &answer).await;
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let client = Client::new(Config {
        url: url.parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: "0.42.4".to_owned(),
    });
    let metrics = StoreMetrics::register(&mut Registry::default());
    let upstream = PrometheusUpstream::new(client.unwrap(), &metrics);
    (upstream, connections)
}

/// Answers the first request, then waits until the client goes away.
async fn answer_once(mut socket: TcpStream, answer: &[u8]) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read_exact(&mut byte).await.is_ok() {
        head.push(byte[0]);
    }
    if socket.write_all(answer).await.is_ok() {
        let mut rest = Vec::new();
        let _end = socket.read_to_end(&mut rest).await;
    }
}

fn http(content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn frame(labels: &[(&str, &str)], chunks: &[(i64, i32, Bytes)]) -> Vec<u8> {
    let label = |(name, value): &(&str, &str)| wire::Label {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let chunk = |(time, encoding, data): &(i64, i32, Bytes)| wire::Chunk {
        min_time_ms: *time,
        max_time_ms: time + 1,
        r#type: *encoding,
        data: data.clone(),
    };
    let payload = wire::ChunkedReadResponse {
        chunked_series: vec![wire::ChunkedSeries {
            labels: labels.iter().map(label).collect(),
            chunks: chunks.iter().map(chunk).collect(),
        }],
        query_index: 0,
    };
    let payload = payload.encode_to_vec();
    let mut out = Vec::new();
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.put_u32(crc_fast::crc32_iscsi(&payload));
    out.extend(payload);
    out
}

fn external() -> ExternalLabels {
    ExternalLabels(pairs(&[("cluster", "eu")]).into_iter().collect::<Labels>())
}

fn select() -> Select {
    Select {
        range: range(0, 100),
        matchers: vec![Matcher {
            op: MatchOp::Equal,
            name: "job".to_owned(),
            value: "x".to_owned(),
        }],
        labels_only: false,
        limit: None,
        overlay: Arc::new(Overlay::for_chunks(&external(), &[]).unwrap()),
        conflicts_end: true,
    }
}

fn shown(series: &Series) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let labels = series
        .labels
        .iter()
        .map(|(n, v)| format!("{}={} ", text(n), text(v)));
    labels.collect()
}

async fn read(answer: Vec<u8>, select: &Select) -> Result<Vec<Series>, StoreError> {
    let (upstream, _) = serve(answer).await;
    let mut source = upstream.read(select).await?;
    let mut all = Vec::new();
    while let Some(series) = source.next().await? {
        all.push(series);
    }
    Ok(all)
}

#[tokio::test]
async fn chunks_keep_their_bytes_and_lose_the_merged_labels() {
    let data = Bytes::from_static(b"\x00\x01data");
    let chunks: Vec<_> = (1..=3)
        .map(|id| (i64::from(id), id, data.clone()))
        .collect();
    let body = frame(&[("cluster", "eu"), ("job", "x")], &chunks);
    let all = read(http(STREAMED, &body), &select()).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(shown(&all[0]), "job=x ");
    let encodings: Vec<_> = all[0].single_chunks().map(|c| c.encoding()).collect();
    let expected = [
        ChunkEncoding::Xor,
        ChunkEncoding::Histogram,
        ChunkEncoding::FloatHistogram,
    ];
    assert_eq!(encodings, expected);
    assert!(all[0].single_chunks().all(|chunk| chunk.data() == &data));
    assert_eq!(
        (all[0].chunks[1].min_ms(), all[0].chunks[1].max_ms()),
        (2, 3)
    );
}

#[tokio::test]
async fn unknown_encodings_and_conflicts_are_errors() {
    for id in [-1, 0, 7, 300] {
        let body = frame(&[("job", "x")], &[(1, id, Bytes::from_static(b"x"))]);
        let error = read(http(STREAMED, &body), &select()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Internal, "{id}");
        assert!(matches!(error, StoreError::Encoding { id: told } if told == id));
    }
    let body = frame(&[("cluster", "us")], &[(1, 1, Bytes::from_static(b"x"))]);
    let error = read(http(STREAMED, &body), &select()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict { name } if name == "cluster"));
    let allowed = Select {
        conflicts_end: false,
        ..select()
    };
    let all = read(http(STREAMED, &body), &allowed).await.unwrap();
    assert_eq!(shown(&all[0]), "");
}

#[tokio::test]
async fn encodings_without_a_name_in_storeapi_are_written_anew() {
    // XOR2, one sample: no start time, then its time and value as in XOR.
    let mut samples = XorEncoder::new();
    assert!(samples.append(7, 1.5));
    let xor = samples.finish();
    let xor2 = [&xor[..2], &[0][..], &xor[2..]].concat();
    let body = frame(&[("job", "x")], &[(7, 4, Bytes::from(xor2))]);
    let all = read(http(STREAMED, &body), &select()).await.unwrap();
    let chunk = all[0].single_chunks().next().unwrap();
    assert_eq!(chunk.encoding(), ChunkEncoding::Xor);
    assert_eq!(chunk.data()[..], xor[..]);

    let body = frame(&[("job", "x")], &[(7, 4, Bytes::from_static(b"\x00\x05"))]);
    let error = read(http(STREAMED, &body), &select()).await.unwrap_err();
    assert!(matches!(error, StoreError::Chunk(_)));
    assert_eq!(error.class(), ErrorClass::Internal);
}

#[tokio::test]
async fn samples_become_chunks() {
    let sample = |at: i64| wire::Sample {
        value: at as f64,
        timestamp: at * 10,
    };
    let label = |name: &str, value: &str| wire::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let series = |value: &str, count| wire::TimeSeries {
        labels: vec![label("cluster", "eu"), label("job", value)],
        samples: (0..count).map(sample).collect(),
        histograms: Vec::new(),
    };
    let answer = wire::ReadResponse {
        results: vec![wire::QueryResult {
            timeseries: vec![series("a", 250), series("b", 0), series("c", 1)],
        }],
    };
    let body = snap::raw::Encoder::new().compress_vec(&answer.encode_to_vec());
    let answer = http("application/x-protobuf", &body.unwrap());
    let all = read(answer, &select()).await.unwrap();
    let labels: Vec<_> = all.iter().map(shown).collect();
    assert_eq!(
        labels,
        ["job=a ", "job=c "],
        "one without samples is left out"
    );
    let ends: Vec<_> = all[0]
        .single_chunks()
        .map(|c| (c.min_ms, c.max_ms))
        .collect();
    assert_eq!(ends, [(0, 1190), (1200, 2390), (2400, 2490)]);
    let mut expected = XorEncoder::new();
    for at in 240..250 {
        assert!(expected.append(at * 10, at as f64));
    }
    assert_eq!(
        all[0].single_chunks().nth(2).unwrap().data()[..],
        expected.finish()[..]
    );
}

#[tokio::test]
async fn broken_streams_are_unavailable() {
    let whole = frame(&[("job", "x")], &[(1, 1, Bytes::from_static(b"x"))]);
    let text = [&whole[..], b"query failed: out of memory\n"].concat();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cut = whole[..whole.len() - 1].to_vec();
    let long = b"\xff\xff\xff\xff\x7f....".to_vec();
    for body in [text, flipped, cut, long] {
        let error = read(http(STREAMED, &body), &select()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error:?}");
    }
}

#[tokio::test]
async fn statuses_and_silence() {
    for (status, class) in [
        ("503 Service Unavailable", ErrorClass::Unavailable),
        ("400 Bad Request", ErrorClass::InvalidArgument),
        ("500 Internal Server Error", ErrorClass::Internal),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nwhy?");
        let error = read(answer.into_bytes(), &select()).await.unwrap_err();
        assert_eq!(error.class(), class);
    }
    let client = Client::new(Config {
        url: "http://127.0.0.1:1".parse().unwrap(),
        http_client: HttpClientConfig::default(),
        thanos_version: String::new(),
    });
    let metrics = StoreMetrics::register(&mut Registry::default());
    let upstream = PrometheusUpstream::new(client.unwrap(), &metrics);
    let error = upstream.read(&select()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable);
}

#[tokio::test]
async fn labels_only() {
    let body = br#"{"status":"success","data":[{"job":"x","a":""},{"job":"y","cluster":"us"}],
        "warnings":["w"]}"#;
    let answer = http("application/json", body);
    let labels_only = Select {
        labels_only: true,
        overlay: Arc::new(Overlay::for_labels(&external(), &[]).unwrap()),
        ..select()
    };
    let error = read(answer.clone(), &labels_only).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }));
    let allowed = Select {
        conflicts_end: false,
        ..labels_only
    };
    let (upstream, _) = serve(answer).await;
    let mut source = upstream.read(&allowed).await.unwrap();
    for expected in ["job=x ", "job=y "] {
        let series = source.next().await.unwrap().unwrap();
        assert_eq!(shown(&series), expected);
        assert!(series.chunks.is_empty());
    }
    assert!(source.next().await.unwrap().is_none());
    assert_eq!(source.take_warnings(), ["w"]);
    let all = ListQuery {
        range: None,
        matchers: Vec::new(),
        limit: None,
    };
    assert!(upstream.has_series(&all).await.unwrap());
}

#[tokio::test]
async fn a_dropped_source_closes_its_connection() {
    let body = frame(&[("job", "x")], &[(1, 1, Bytes::from_static(b"x"))]);
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\nContent-Length: 1000000\r\n\r\n")
            .into_bytes();
    answer.extend(body);
    let (upstream, connections) = serve(answer).await;
    let mut source = upstream.read(&select()).await.unwrap();
    assert!(source.next().await.unwrap().is_some());
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    drop(source);
    while connections.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}
