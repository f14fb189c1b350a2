//! What tests and benches need of S3: a server in memory that fails as it is told to, a client
//! without TLS, and the costly steps of a request by themselves.

mod azure;
mod google;
mod server;
mod store;
mod swift;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

pub use google::service_account;
pub use server::{FakeS3, Fault, SeenRequest};
pub use store::Checksums;

use super::address::uri_encoded;
use super::integrity::{Summing, Wanted};
use super::object::text_header;
use super::{S3Bucket, S3Config, S3Credentials, S3Limits};
use crate::model::Clock;
use crate::net::http::{ClientConfig, HttpClient};
use crate::net::{ClientTls, TlsError};

/// A client for any number of buckets without TLS.
#[derive(Clone, Debug)]
pub struct PlainHttp(HttpClient);

impl PlainHttp {
    /// A client without connections. They belong to the runtime that they are made in.
    ///
    /// # Errors
    /// Where TLS, which it never uses, can't be set up.
    pub fn new() -> Result<Self, TlsError> {
        let config = ClientConfig {
            tls: ClientTls::default().build()?,
            proxy: None,
            connect_timeout: Some(Duration::from_secs(30)),
            tls_handshake_timeout: None,
            response_header_timeout: None,
            idle_timeout: Some(Duration::from_secs(90)),
            idle_per_host_max: 4,
            connections_per_host_max: None,
        };
        Ok(Self(HttpClient::new(config)))
    }

    /// A bucket whose requests somebody signs.
    pub fn bucket(&self, config: S3Config, limits: S3Limits, clock: Clock) -> S3Bucket {
        let somebody = S3Credentials::fixed("AKIAANYBODY", "secret", None);
        S3Bucket::new(config, self.0.clone(), somebody, limits, clock, 1)
    }
}

/// The headers that a signed request to `url` bears, for measuring what a signature costs.
///
/// # Panics
/// Where `url` is none.
pub fn signed_headers(url: &str) -> HeaderMap {
    let keys = aws_credential_types::Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let mut headers = HeaderMap::new();
    let payload = super::sign::PayloadHash::Unsigned;
    let now_ns = 1_369_353_600_000_000_000;
    super::sign::signed(
        &Method::PUT,
        url,
        &mut headers,
        &payload,
        &keys,
        "us-east-1",
        now_ns,
    )
    .expect("a good URL is signed");
    headers
}

/// The CRC-64/NVME of `runs`, and the other sums too where they are wanted, for measuring.
pub fn summed(runs: &[Bytes], md5: bool, sha256: bool) -> u64 {
    let mut summing = Summing::new(Wanted {
        md5,
        sha256,
        crc32c: false,
    });
    for run in runs {
        summing.update(run);
    }
    summing.finish().crc64
}
