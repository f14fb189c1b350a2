//! The gRPC port as clients see it that others wrote: tonic with its health and reflection
//! clients, and Python's grpcio.

mod bad_input;
mod calls;
mod general;
mod grpcio;
mod life;
mod load;
mod request_log;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::{HeaderMap, Request};
use outrigger::proto::thanos::{Label, LabelMatcher, SeriesRequest};
use tonic::Code;

use crate::support::{
    Gate, GateState, Outrigger, Prometheus, PrometheusSetup, Site, StoreApi, eventually, get,
    matcher,
};

/// outrigger beside a Prometheus that scrapes itself, through a gate.
struct Beside {
    // Dropped in this order.
    outrigger: Outrigger,
    gate: Gate,
    prometheus: Prometheus,
    _site: Site,
}

impl Beside {
    fn start(extra: &[&str]) -> Self {
        let setup = PrometheusSetup {
            scrapes_itself: true,
            ..PrometheusSetup::default()
        };
        Self::start_with(&setup, extra)
    }

    fn start_with(setup: &PrometheusSetup, extra: &[&str]) -> Self {
        let site = Site::new();
        let prometheus = Prometheus::start(&site.data, setup);
        let gate = Gate::new(GateState::Open(prometheus.address()));
        let outrigger = site.start(gate.address(), extra);
        outrigger.grpc_address();
        eventually("it is ready", || {
            (outrigger.probe("/-/ready") == 200).then_some(())
        });
        if setup.scrapes_itself {
            eventually("Prometheus has scraped itself", || {
                is_in(prometheus.address(), "up").then_some(())
            });
        }
        Self {
            outrigger,
            gate,
            prometheus,
            _site: site,
        }
    }

    fn grpc_address(&self) -> SocketAddr {
        self.outrigger.grpc_address()
    }

    async fn connect(&self) -> StoreApi {
        StoreApi::connect(self.grpc_address()).await
    }
}

/// Whether an instant query of this metric finds something.
fn is_in(prometheus: SocketAddr, metric: &str) -> bool {
    let (status, body) = get(prometheus, &format!("/api/v1/query?query={metric}")).unwrap();
    status == 200 && body.contains("\"__name__\"")
}

fn job_matcher() -> LabelMatcher {
    matcher("job", "=", "prometheus")
}

/// Everything that Prometheus scraped from itself.
fn everything() -> SeriesRequest {
    SeriesRequest {
        min_time: 0,
        max_time: i64::MAX,
        matchers: vec![job_matcher()],
        ..SeriesRequest::default()
    }
}

fn label_map(labels: &[Label]) -> BTreeMap<&str, &str> {
    let pairs = labels.iter();
    pairs
        .map(|label| (label.name.as_str(), label.value.as_str()))
        .collect()
}

/// Code and message that end a call whose request is these bytes.
async fn raw(
    address: SocketAddr,
    path: &str,
    timeout: Option<&str>,
    bytes: Vec<u8>,
    ends: bool,
) -> (Code, String) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let request = request.body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(bytes.into(), ends).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let status = match answer.headers().contains_key("grpc-status") {
        true => status(answer.headers()),
        false => {
            let mut answer = answer.into_body();
            assert!(answer.data().await.is_none());
            status(&answer.trailers().await.unwrap().unwrap())
        }
    };
    driver.abort();
    status
}

fn status(headers: &HeaderMap) -> (Code, String) {
    let status = tonic::Status::from_header_map(headers).unwrap();
    (status.code(), status.message().to_owned())
}

fn framed(flag: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flag];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
