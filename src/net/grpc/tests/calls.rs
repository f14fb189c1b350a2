//! Calls by tonic, which no one here wrote.

use tonic::Code as TonicCode;

use super::*;

#[tokio::test]
async fn unary_calls_are_answered_and_counted() {
    let running = Running::plain().await;
    let mut client = tonic_client(running.addr).await;
    for message in [&b""[..], b"hello", &vec![3; 1 << 20]] {
        let message = Bytes::copy_from_slice(message);
        let response = unary(&mut client, "/t.Trial/Echo", request(message.clone())).await;
        assert_eq!(response.unwrap().into_inner(), message);
    }
    let error = unary(&mut client, "/t.Trial/Fail", request("x"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), TonicCode::NotFound);
    assert_eq!(error.message(), "caf\u{e9}: 100% gone\n");
    let error = unary(&mut client, "/t.Trial/Panic", request("x"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), TonicCode::Internal);
    assert!(error.message().contains("no such luck"), "{error:?}");
    for (path, expected) in [
        ("/t.Trial/None", "unknown method None for service t.Trial"),
        ("/t.Other/Echo", "unknown service t.Other"),
    ] {
        let error = unary(&mut client, path, request("x")).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (TonicCode::Unimplemented, expected)
        );
    }
    let metrics = running.metrics();
    let labels = "grpc_type=\"unary\",grpc_service=\"t.Trial\",grpc_method=\"Echo\"";
    let counted = |name: &str| format!("{name}{{{labels}}} 3");
    for line in [
        &counted("grpc_server_started_total"),
        &counted("grpc_server_msg_received_total"),
        &counted("grpc_server_msg_sent_total"),
        "grpc_code=\"OK\"} 3",
        "grpc_code=\"NotFound\"} 1",
        "grpc_req_panics_recovered_total 1",
        "grpc_method=\"Panic\",grpc_code=\"Unauthenticated\"} 0",
        &counted("grpc_server_handling_seconds_count"),
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(
        !metrics.contains("Many"),
        "methods that were not named appear on first call"
    );
}

#[tokio::test]
async fn many_messages_of_any_size_arrive_whole() {
    let running = Running::plain().await;
    let mut client = tonic_client(running.addr)
        .await
        .max_decoding_message_size(8 << 20);
    for (count, size) in [
        (0, 0),
        (1, 0),
        (20_000, 20),
        (3, 3 << 20),
        (500, 65_531),
        (70, 100_000),
    ] {
        let mut stream = streaming(&mut client, "/t.Trial/Many", request(many(count, size)))
            .await
            .unwrap();
        let mut received = 0;
        while let Some(message) = stream.message().await.unwrap() {
            assert!(message.len() == size as usize && message.iter().all(|byte| *byte == 7));
            received += 1;
        }
        assert_eq!(received, count, "of {size} bytes");
    }
}

#[tokio::test]
async fn answers_come_in_the_encoding_of_the_request() {
    let running = Running::plain().await;
    let mut gzip = tonic_client(running.addr)
        .await
        .send_compressed(tonic::codec::CompressionEncoding::Gzip)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    let message = Bytes::from(vec![5; 100_000]);
    let response = unary(&mut gzip, "/t.Trial/Echo", request(message.clone()))
        .await
        .unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert!(response.into_inner() == message);

    let client = Client::connect(&running.addr.to_string(), None)
        .await
        .unwrap();
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Snappy] {
        let options = || CallOptions {
            encoding,
            ..CallOptions::default()
        };
        let answer = client
            .unary("/t.Trial/Echo", &message, options())
            .await
            .unwrap();
        assert!(answer == message, "{encoding:?}");
        let wanted = many(300, 70_000);
        let mut answers = client
            .server_streaming("/t.Trial/Many", &wanted, options())
            .await
            .unwrap();
        let mut received = 0;
        while let Some(answer) = answers.message().await.unwrap() {
            assert!(answer.len() == 70_000 && answer.iter().all(|byte| *byte == 7));
            received += 1;
        }
        assert_eq!(received, 300, "{encoding:?}");
    }
}

#[tokio::test]
async fn both_sides_of_a_chat_take_turns() {
    let running = Running::plain().await;
    let mut client = tonic_client(running.addr).await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = futures_util::stream::unfold(said, |mut said| async move {
        said.recv().await.map(|message: Bytes| (message, said))
    });
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/t.Trial/Chat");
    say.send(Bytes::from_static(b"0")).await.unwrap();
    let response = client
        .streaming(tonic::Request::new(said), path, BytesCodec)
        .await
        .unwrap();
    let mut heard = response.into_inner();
    for turn in 0..50 {
        assert_eq!(heard.message().await.unwrap().unwrap(), turn.to_string());
        say.send(Bytes::from((turn + 1).to_string())).await.unwrap();
    }
    drop(say);
    assert_eq!(heard.message().await.unwrap().unwrap(), "50");
    assert!(heard.message().await.unwrap().is_none());
}

#[tokio::test]
async fn the_own_client_reads_statuses_limits_and_deadlines() {
    let running = Running::plain().await;
    let client = Client::connect(&running.addr.to_string(), None)
        .await
        .unwrap();
    let call = |path, message: Vec<u8>, options| {
        let client = &client;
        async move { client.unary(path, &message, options).await }
    };
    let error = call("/t.Trial/Fail", vec![], CallOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error, Status::new(Code::NotFound, "caf\u{e9}: 100% gone\n"));
    let small = CallOptions {
        message_bytes_max: 99,
        ..CallOptions::default()
    };
    let error = call("/t.Trial/Echo", vec![0; 100], small)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted);
    let short = CallOptions {
        timeout: Some(Duration::from_millis(50)),
        ..CallOptions::default()
    };
    let error = call("/t.Trial/Wait", vec![], short).await.unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
    let error = call("/t.Trial/Many", many(0, 0), CallOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Internal, "{error}");
    assert!(matches!(
        Client::connect("127.0.0.1:1", None).await,
        Err(ConnectError::Connect { .. })
    ));
}

#[tokio::test]
async fn many_calls_leave_nothing_behind() {
    let running = Running::plain().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(
            Client::connect(&running.addr.to_string(), None)
                .await
                .unwrap(),
        );
    }
    let wanted = many(20, 3000);
    let call = |client: usize| {
        let (client, wanted) = (&clients[client % 4], &wanted);
        async move {
            let options = CallOptions::default();
            let mut answers = client
                .server_streaming("/t.Trial/Many", wanted, options)
                .await
                .unwrap();
            let mut received = 0;
            while let Some(answer) = answers.message().await.unwrap() {
                received += answer.len();
            }
            assert_eq!(received, 20 * 3000);
        }
    };
    futures_util::future::join_all((0..200).map(call)).await;
    for turn in 0..300 {
        call(turn).await;
    }
    let trial = &running.trial;
    assert_eq!(trial.begun.load(Ordering::SeqCst), 500);
    until("all calls dropped", || {
        trial.dropped.load(Ordering::SeqCst) == 500
    })
    .await;
    let handle = tokio::runtime::Handle::current();
    drop(clients);
    // The acceptor alone is left.
    until("all tasks ended", || {
        handle.metrics().num_alive_tasks() <= 1
    })
    .await;
}
