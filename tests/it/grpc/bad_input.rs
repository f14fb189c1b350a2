//! Requests that no querier sends: a clear status each, bounded work, and a process that lives.

use http::Request;
use outrigger::proto::thanos::info::{InfoRequest, InfoResponse};
use outrigger::proto::thanos::{
    LabelNamesRequest, LabelNamesResponse, SeriesRequest, SeriesResponse, ShardInfo,
    series_response,
};
use prost::Message as _;
use tonic::Code;

use super::{Beside, everything, framed, raw};
use crate::support::{StoreApi, all_series, matcher};

const SERIES: &str = "/thanos.Store/Series";

async fn assert_alive(beside: &mut Beside) {
    assert!(beside.outrigger.process.is_running());
    let client = beside.connect().await;
    let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    info.await.unwrap();
}

/// A request with these bytes as the name of a matcher, and as its value.
fn with_matcher_bytes(name: &[u8], value: &[u8]) -> Vec<u8> {
    // The fields are put together by hand: a `String` can't hold them.
    let field = |tag: u8, bytes: &[u8]| {
        let mut field = vec![tag << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend_from_slice(bytes);
        field
    };
    let matcher = [field(2, name), field(3, value)].concat();
    let request = field(3, &matcher);
    framed(0, u32::try_from(request.len()).unwrap(), &request)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_that_are_no_message_end_the_call_with_a_status() {
    let mut beside = Beside::start(&[]);
    let address = beside.grpc_address();
    let valid = InfoRequest {}.encode_to_vec();
    let twice = [framed(0, 0, &valid), framed(0, 0, &valid)].concat();
    let cases: Vec<(&str, Vec<u8>, bool, Code)> = vec![
        // Refused before a byte of it has come, and before any more is allocated.
        (
            "4 GiB",
            framed(0, u32::MAX, b"abc"),
            false,
            Code::ResourceExhausted,
        ),
        (
            "5 MiB",
            framed(0, 5 << 20, b""),
            false,
            Code::ResourceExhausted,
        ),
        ("half a frame", framed(0, 100, b"abc"), true, Code::Internal),
        ("half a prefix", vec![0, 0], true, Code::Internal),
        ("no frame", Vec::new(), true, Code::Internal),
        ("two frames", twice, true, Code::Internal),
        ("garbage", framed(0, 3, &[0xff; 3]), true, Code::Internal),
        ("unknown flag", framed(7, 0, b""), true, Code::Internal),
        (
            "compressed by nothing",
            framed(1, 3, b"abc"),
            true,
            Code::Internal,
        ),
        (
            "a name of no UTF-8",
            with_matcher_bytes(b"\xff", b"x"),
            true,
            Code::Internal,
        ),
        (
            "a value of no UTF-8",
            with_matcher_bytes(b"job", b"a\xc3"),
            true,
            Code::Internal,
        ),
    ];
    for (case, bytes, ends, expected) in cases {
        let (code, message) = raw(address, SERIES, None, bytes, ends).await;
        assert_eq!(code, expected, "{case}: {message}");
        assert!(!message.is_empty(), "{case}");
    }
    // Nothing of that is a warning's or an error's concern but what the client was told.
    let log = beside.outrigger.process.log();
    assert!(!log.contains("panic"), "{log}");
    assert_alive(&mut beside).await;
}

async fn refused(client: &StoreApi, request: SeriesRequest) -> (Code, String) {
    let error = client.series(request).await.unwrap_err();
    (error.code(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn matchers_without_measure_are_answered_or_refused() {
    let mut beside = Beside::start(&[]);
    let client = beside.connect().await;
    let many = |count: usize| {
        let mut request = everything();
        let more = (1..count).map(|n| matcher("instance", "!=", &n.to_string()));
        request.matchers.extend(more);
        request
    };
    let series = all_series(client.series(many(10_000)).await.unwrap());
    assert!(series.len() > 100);
    let (code, message) = refused(&client, many(10_001)).await;
    assert_eq!(code, Code::InvalidArgument, "{message}");

    let nested = "(".repeat(20_000) + "a" + &")*".repeat(20_000);
    let patterns = [
        ("(".to_owned(), "missing"),
        (nested, "expression"),
        ("(a{1000}){1000}".to_owned(), "repeat"),
        ("a".repeat((768 << 10) + 1), "expression too large"),
        ("a**".to_owned(), "repetition"),
        (r"\8".to_owned(), "escape"),
    ];
    for (pattern, text) in patterns {
        for (name, op) in [("job", "=~"), ("cluster", "!~")] {
            let mut request = everything();
            request.matchers.push(matcher(name, op, &pattern));
            let (code, message) = refused(&client, request).await;
            assert_eq!(code, Code::InvalidArgument, "{message}");
            assert!(message.contains(text), "{text}: {message}");
            assert!(message.len() < 2000, "{} bytes", message.len());
        }
    }
    // A long list of names, as dashboards send it.
    let names: Vec<String> = (0..50_000).map(|n| format!("name-{n}")).collect();
    let mut request = everything();
    request
        .matchers
        .push(matcher("instance", "!~", &names.join("|")));
    assert!(!client.series(request).await.unwrap().is_empty());
    assert_alive(&mut beside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn times_out_of_this_world_are_answered() {
    let mut beside = Beside::start(&[]);
    let client = beside.connect().await;
    for skip_chunks in [false, true] {
        for (min_time, max_time, is_there) in [
            (i64::MIN, i64::MAX, true),
            (0, i64::MAX, true),
            (i64::MIN, i64::MIN, false),
            (i64::MAX, i64::MAX, false),
            (-2000, -1000, false),
            (2000, 1000, false),
            (i64::MAX, i64::MIN, false),
        ] {
            let request = SeriesRequest {
                min_time,
                max_time,
                skip_chunks,
                ..everything()
            };
            let series = client.series(request).await;
            let series = series.unwrap_or_else(|e| panic!("{min_time} {max_time}: {e:?}"));
            assert_eq!(
                !series.is_empty(),
                is_there,
                "{min_time} {max_time} {skip_chunks}"
            );
        }
    }
    for (start, end, is_there) in [(i64::MIN, i64::MAX, true), (i64::MAX, i64::MIN, false)] {
        let request = LabelNamesRequest {
            start,
            end,
            ..LabelNamesRequest::default()
        };
        let answer = client.unary::<_, LabelNamesResponse>("/thanos.Store/LabelNames", request);
        assert_eq!(
            !answer.await.unwrap().names.is_empty(),
            is_there,
            "{start} {end}"
        );
    }
    assert_alive(&mut beside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn numbers_that_mean_nothing_are_refused_or_passed_over() {
    let mut beside = Beside::start(&[]);
    let client = beside.connect().await;
    let mut request = everything();
    request.matchers[0].r#type = 9;
    let (code, message) = refused(&client, request).await;
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(message, "unrecognized label matcher type [9]");

    let strange = SeriesRequest {
        aggregates: vec![77, -1],
        partial_response_strategy: 9,
        response_batch_size: i64::MIN,
        limit: i64::MIN,
        max_resolution_window: -5,
        ..everything()
    };
    let messages: Vec<SeriesResponse> = client.series(strange).await.unwrap();
    assert!(messages.len() > 100);
    let is_series =
        |m: &SeriesResponse| matches!(m.result, Some(series_response::Result::Series(_)));
    assert!(messages.iter().all(is_series));

    let sharded = |shard_index, total_shards| SeriesRequest {
        shard_info: Some(ShardInfo {
            shard_index,
            total_shards,
            ..ShardInfo::default()
        }),
        ..everything()
    };
    let whole = client.series(sharded(5, -3)).await.unwrap();
    assert!(whole.len() > 100);
    // There is no such shard: nothing is in it, or the request is refused.
    for (index, total) in [(-1, 3), (3, 3), (i64::MAX, 2)] {
        match client.series(sharded(index, total)).await {
            Ok(series) => assert_eq!(series, [], "{index} of {total}"),
            Err(error) => assert_eq!(error.code(), Code::InvalidArgument, "{error:?}"),
        }
    }
    assert_alive(&mut beside).await;
}

/// A header list past every limit, and metadata that is no text.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn headers_without_measure_are_refused() {
    let mut beside = Beside::start(&[]);
    let address = beside.grpc_address();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{SERIES}"))
        .header("content-type", "application/grpc");
    for n in 0..100 {
        request = request.header(format!("x-{n}"), "a".repeat(1000));
    }
    let mut client = client.ready().await.unwrap();
    let sent = client.send_request(request.body(()).unwrap(), true);
    let outcome = match sent {
        Ok((answer, _)) => answer.await.map(|answer| answer.status().as_u16()),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome, Err(_) | Ok(431)), "{outcome:?}");
    driver.abort();
    assert_alive(&mut beside).await;
}
