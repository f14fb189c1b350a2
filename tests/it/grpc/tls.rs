//! TLS on the gRPC port: who is let in, files that change, and what is not TLS.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use outrigger::proto::thanos::info::{InfoRequest, InfoResponse};
use tonic::transport::{ClientTlsConfig, Endpoint};

use super::Beside;
use crate::support::{Ca, Site, StoreApi, replace, run_to_end};

/// 24 bytes of payload: no stream, PROTOCOL_ERROR, and why.
const GOAWAY: &[u8] = b"\0\0\x18\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01no_http2_preface";

struct Secure {
    beside: Beside,
    ca: Ca,
    ca_file: PathBuf,
    // Holds the files.
    files: Site,
}

impl Secure {
    /// A server whose certificate the authority signed; `client_auth`: and whose clients'.
    fn start(client_auth: bool) -> Self {
        let (ca, files) = (Ca::new(), Site::new());
        let (cert, key) = ca.sign("localhost").write(files.scratch(), "server");
        let ca_file = files.scratch().join("ca.pem");
        replace(&ca_file, ca.pem());
        let mut flags = vec![
            format!("--grpc-server-tls-cert={}", cert.display()),
            format!("--grpc-server-tls-key={}", key.display()),
        ];
        if client_auth {
            flags.push(format!("--grpc-server-tls-client-ca={}", ca_file.display()));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Self {
            beside: Beside::start(&flags),
            ca,
            ca_file,
            files,
        }
    }

    fn address(&self) -> SocketAddr {
        self.beside.grpc_address()
    }
}

/// One call over a new connection; `Err` where there is none. With TLS 1.3 a client learns only
/// after its handshake that it is not wanted.
async fn call(address: SocketAddr, tls: ClientTlsConfig) -> Result<(), String> {
    let client = StoreApi::connect_tls(address, tls).await;
    let client = client.map_err(|error| format!("{error:?}"))?;
    let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    let info = info.await.map_err(|error| format!("{error:?}"))?;
    assert_eq!(info.component_type, "sidecar");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_that_trust_the_server_are_answered() {
    let secure = Secure::start(false);
    let address = secure.address();
    call(address, secure.ca.trusted()).await.unwrap();
    let error = call(address, Ca::new().trusted()).await.unwrap_err();
    assert!(
        error.contains("UnknownIssuer") || error.contains("BadSignature"),
        "{error}"
    );
    // A certificate that nobody asked for does not hurt.
    let identity = Ca::new().sign("someone").identity();
    call(address, secure.ca.trusted().identity(identity))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_a_client_ca_only_its_clients_are_answered() {
    let secure = Secure::start(true);
    let address = secure.address();
    let good = secure.ca.sign("querier").identity();
    call(address, secure.ca.trusted().identity(good.clone()))
        .await
        .unwrap();
    let error = call(address, secure.ca.trusted()).await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
    let wrong = Ca::new().sign("querier").identity();
    let error = call(address, secure.ca.trusted().identity(wrong))
        .await
        .unwrap_err();
    assert!(
        error.contains("UnknownCA") || error.contains("DecryptError"),
        "{error}"
    );
    call(address, secure.ca.trusted().identity(good))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn changed_files_count_from_the_next_connection() {
    let secure = Secure::start(true);
    let address = secure.address();
    let old = secure
        .ca
        .trusted()
        .identity(secure.ca.sign("querier").identity());
    let established = StoreApi::connect_tls(address, old.clone()).await.unwrap();
    call(address, old.clone()).await.unwrap();

    let new_ca = Ca::new();
    new_ca
        .sign("localhost")
        .write(secure.files.scratch(), "server");
    // The certificate is new, clients are still those of the old authority.
    let mixed = new_ca
        .trusted()
        .identity(secure.ca.sign("querier").identity());
    call(address, mixed.clone()).await.unwrap();
    call(address, old).await.unwrap_err();

    replace(&secure.ca_file, new_ca.pem());
    let new = new_ca.trusted().identity(new_ca.sign("querier").identity());
    call(address, new.clone()).await.unwrap();
    call(address, mixed).await.unwrap_err();

    // A file that can't be used leaves everything as it is.
    replace(&secure.ca_file, "no certificate\n");
    call(address, new).await.unwrap();
    // As does all that for those who are connected.
    let info = established.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    info.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plain_text_to_tls_and_tls_to_plain_text_end_at_once() {
    let secure = Secure::start(false);
    let endpoint = Endpoint::from_shared(format!("http://{}", secure.address())).unwrap();
    // The connection stands until the server has read the preface.
    let outcome = match StoreApi::connect_to(&endpoint).await {
        Ok(client) => client
            .unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {})
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    outcome.unwrap_err();
    // An alert, which is a TLS record of type 21, and the end.
    let answer = say(secure.address(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    call(secure.address(), secure.ca.trusted()).await.unwrap();

    let plain = Beside::start(&[]);
    call(plain.grpc_address(), secure.ca.trusted())
        .await
        .unwrap_err();
    let client = plain.connect().await;
    let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    info.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn http_1_on_the_grpc_port_ends_at_once() {
    let beside = Beside::start(&[]);
    let address = beside.grpc_address();
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /thanos.info.Info/Info HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
    ] {
        let answer = say(address, request.as_bytes());
        // SETTINGS come first, and GOAWAY last.
        let goaway = &answer[answer.len().saturating_sub(GOAWAY.len())..];
        assert_eq!(goaway, GOAWAY, "{answer:?}");
    }
    let client = beside.connect().await;
    let info = client.unary::<_, InfoResponse>("/thanos.info.Info/Info", InfoRequest {});
    info.await.unwrap();
}

/// Everything that comes back until the other side closes, which it must.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset would look like a fault of the network.
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn a_client_ca_that_can_not_be_used_ends_the_start() {
    let site = Site::new();
    let (cert, key) = Ca::new().sign("localhost").write(site.scratch(), "server");
    let empty = site.scratch().join("empty.pem");
    replace(&empty, "");
    let arguments = site.arguments(
        SocketAddr::from(([127, 0, 0, 1], 9)),
        &[
            &format!("--grpc-server-tls-cert={}", cert.display()),
            &format!("--grpc-server-tls-key={}", key.display()),
            &format!("--grpc-server-tls-client-ca={}", empty.display()),
        ],
    );
    let (code, log) = run_to_end(&arguments);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("empty.pem"), "{log}");
}
