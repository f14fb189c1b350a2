//! TLS by clients that no one here wrote: who is let in, and files that change.

use std::fs;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::*;
use crate::net::http::TestCa;
use crate::net::{ClientTls, ServerTls, TlsVersion};

struct Secure {
    running: Running,
    ca: TestCa,
    tls: ServerTls,
}

async fn secure(with_client_ca: bool, min_version: TlsVersion) -> Secure {
    let ca = TestCa::new();
    let (cert, key) = ca.issue("localhost");
    let tls = ServerTls {
        cert: Some(cert),
        key: Some(key),
        client_ca: with_client_ca.then(|| ca.ca_file()),
        min_version,
        ..ServerTls::default()
    };
    let config = GrpcServerConfig {
        tls: tls.build().unwrap(),
        ..GrpcServerConfig::default()
    };
    let running = start(config, Duration::ZERO).await;
    Secure { running, ca, tls }
}

async fn tonic_call(
    addr: SocketAddr,
    ca_file: &Path,
    identity: Option<&(std::path::PathBuf, std::path::PathBuf)>,
) -> Result<Bytes, String> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(ca_file).unwrap()))
        .domain_name("localhost");
    if let Some((cert, key)) = identity {
        tls = tls.identity(Identity::from_pem(
            fs::read(cert).unwrap(),
            fs::read(key).unwrap(),
        ));
    }
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", addr.port())).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await;
    let channel = channel.map_err(|error| format!("{error:?}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| format!("{error:?}"))?;
    let path = http::uri::PathAndQuery::from_static("/t.Trial/Echo");
    let answer = client.unary(request("hello"), path, BytesCodec).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn tls_is_spoken_in_both_versions_and_what_is_not_tls_ends() {
    for version in [TlsVersion::Tls10, TlsVersion::Tls13] {
        let secure = secure(false, version).await;
        let addr = secure.running.addr;
        assert_eq!(
            tonic_call(addr, &secure.ca.ca_file(), None).await.unwrap(),
            "hello"
        );
        let client_tls = ClientTls {
            ca_file: Some(secure.ca.ca_file()),
            ..ClientTls::default()
        };
        let address = format!("localhost:{}", addr.port());
        let client = Client::connect(&address, Some(client_tls.build().unwrap()))
            .await
            .unwrap();
        let answer = client
            .unary("/t.Trial/Echo", b"own", CallOptions::default())
            .await;
        assert_eq!(answer.unwrap(), "own");

        let mut plain = TcpStream::connect(addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut plain, &raw::opening())
            .await
            .unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut answer));
        let _reset = ended.await.expect("plain text on the TLS port ends");
        assert!(answer.len() < 100);
    }
}

#[tokio::test]
async fn a_peer_without_http2_in_its_offer_is_not_served() {
    let secure = secure(false, TlsVersion::Tls12).await;
    let client_tls = ClientTls {
        ca_file: Some(secure.ca.ca_file()),
        ..ClientTls::default()
    };
    for protocols in [Vec::new(), vec![b"http/1.1".to_vec()]] {
        let mut config = (*client_tls.build().unwrap().config).clone();
        config.alpn_protocols = protocols;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(secure.running.addr).await.unwrap();
        let connected = connector
            .connect("localhost".try_into().unwrap(), stream)
            .await;
        let Ok(mut stream) = connected else {
            continue;
        };
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        let _end = ended.await.expect("the server hangs up");
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn clients_are_let_in_by_their_certificate_alone() {
    let secure = secure(true, TlsVersion::Tls13).await;
    let addr = secure.running.addr;
    let known = secure.ca.issue("client");
    let ca_file = secure.ca.ca_file();
    assert_eq!(
        tonic_call(addr, &ca_file, Some(&known)).await.unwrap(),
        "hello"
    );
    tonic_call(addr, &ca_file, None).await.unwrap_err();
    let other = TestCa::new();
    let stranger_files = other.issue("stranger");
    tonic_call(addr, &ca_file, Some(&stranger_files))
        .await
        .unwrap_err();
    assert_eq!(secure.running.trial.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_new_certificate_and_a_new_client_ca_count_from_the_next_handshake_on() {
    let secure = secure(true, TlsVersion::Tls13).await;
    let addr = secure.running.addr;
    let old_client = secure.ca.issue("client");
    let old_ca = secure.ca.ca_file();
    tonic_call(addr, &old_ca, Some(&old_client)).await.unwrap();

    // The new authority signs both sides.
    let new = TestCa::new();
    let new_client = new.issue("client");
    let (cert, key) = new.issue("localhost");
    let replace = |from: &Path, to: &Path| {
        let beside = to.with_extension("new");
        fs::copy(from, &beside).unwrap();
        fs::rename(&beside, to).unwrap();
    };
    tonic_call(addr, &old_ca, Some(&new_client))
        .await
        .unwrap_err();
    replace(&new.ca_file(), secure.tls.client_ca.as_ref().unwrap());
    replace(&cert, secure.tls.cert.as_ref().unwrap());
    replace(&key, secure.tls.key.as_ref().unwrap());
    tonic_call(addr, &new.ca_file(), Some(&new_client))
        .await
        .unwrap();
    tonic_call(addr, &new.ca_file(), Some(&old_client))
        .await
        .unwrap_err();

    // Files that broke leave the last good ones in force.
    fs::write(secure.tls.client_ca.as_ref().unwrap(), "").unwrap();
    tonic_call(addr, &new.ca_file(), Some(&new_client))
        .await
        .unwrap();
    tonic_call(addr, &new.ca_file(), None).await.unwrap_err();
}

#[tokio::test]
async fn a_silent_handshake_does_not_hold_up_others() {
    let secure = secure(false, TlsVersion::Tls13).await;
    let addr = secure.running.addr;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let ca_file = secure.ca.ca_file();
    assert_eq!(tonic_call(addr, &ca_file, None).await.unwrap(), "hello");
    secure.running.trigger.start();
    let ended = tokio::time::timeout(Duration::from_secs(20), secure.running.task);
    ended.await.expect("the drain ends handshakes").unwrap();
}

/// Passes bytes on, those of the answer with pauses, so that the server's socket is full.
async fn slow_relay(to: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let asking = tokio::io::copy(&mut from_client, &mut to_server);
        let answering = async {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = from_server.read(&mut buffer).await.unwrap();
                if read == 0 {
                    return;
                }
                to_client.write_all(&buffer[..read]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! { _ = asking => {}, () = answering => {} }
    });
    addr
}

/// TLS takes more than the socket has room for; nobody writes after the last byte.
#[tokio::test]
async fn a_long_answer_reaches_a_slow_reader_to_its_end() {
    const COUNT: u32 = 256;
    const SIZE: u32 = 64 << 10;
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let secure = secure(false, version).await;
        let relay = slow_relay(secure.running.addr).await;
        let ca = Certificate::from_pem(fs::read(secure.ca.ca_file()).unwrap());
        let tls = ClientTlsConfig::new()
            .ca_certificate(ca)
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", relay.port()));
        // So large that the client never has to tell that it has read.
        let window = 1 << 30;
        let endpoint = endpoint
            .unwrap()
            .initial_stream_window_size(window)
            .initial_connection_window_size(window);
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        let reading = async {
            let asked = request(many(COUNT, SIZE));
            let mut answer = streaming(&mut client, "/t.Trial/Many", asked)
                .await
                .unwrap();
            let mut messages = 0;
            while let Some(message) = answer.message().await.unwrap() {
                assert_eq!(message.len(), SIZE as usize);
                messages += 1;
            }
            messages
        };
        let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert_eq!(read.expect("the answer ends"), COUNT, "{version:?}");
    }
}
