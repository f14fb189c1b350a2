//! The S3 client against an S3 server of others, and against one that misbehaves as told.

mod faults;
mod mistakes;
mod pitfalls;
mod s3s_server;
mod servers;

pub(in crate::objstore) use s3s_server::S3sServer;

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use super::*;
use crate::model::Clock;
use crate::net::ClientTls;
use crate::net::http::{ClientConfig, HttpClient};

pub(super) const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub(super) const SECRET_KEY: &str = "not-a-real-secret";

/// The smallest part that S3 allows.
pub(super) const PART_BYTES: u64 = 5 << 20;

/// A bucket at `endpoint`, over plain HTTP, all else as it is by default.
pub(super) fn config(endpoint: &str) -> S3Config {
    S3Config {
        bucket: "bucket".to_owned(),
        endpoint: endpoint.to_owned(),
        region: None,
        dualstack: true,
        insecure: true,
        addressing: Addressing::Auto,
        list_version: ListVersion::V2,
        put_headers: Vec::new(),
        storage_class: None,
        send_content_md5: None,
        disable_multipart: false,
        part_bytes: NonZeroU64::new(PART_BYTES).unwrap(),
        encryption: Encryption::None,
        attempts_max: NonZeroU32::new(10).unwrap(),
        trace: false,
        payload_signing: PayloadSigning::Auto,
    }
}

pub(super) fn limits() -> S3Limits {
    S3Limits {
        parts_in_flight: NonZeroUsize::new(4).unwrap(),
        body_bytes_max: 20 << 20,
        pace: None,
        stall_timeout: Duration::from_secs(60),
        response_header_timeout: Some(Duration::from_secs(120)),
    }
}

pub(super) fn client_config(tls: &ClientTls) -> ClientConfig {
    ClientConfig {
        tls: tls.build().unwrap().http1_only(),
        proxy: None,
        connect_timeout: Some(Duration::from_secs(30)),
        tls_handshake_timeout: Some(Duration::from_secs(10)),
        response_header_timeout: None,
        idle_timeout: Some(Duration::from_secs(90)),
        idle_per_host_max: 100,
        connections_per_host_max: None,
    }
}

pub(super) fn http(tls: &ClientTls) -> HttpClient {
    HttpClient::new(client_config(tls))
}

pub(super) fn keys() -> S3Credentials {
    S3Credentials::fixed(ACCESS_KEY, SECRET_KEY, None)
}

/// A time of day; s3s checks that a signature is right, not when it was made.
pub(super) fn clock() -> Clock {
    Clock::fixed(1_700_000_000_000_000_000)
}

pub(super) fn bucket(config: S3Config) -> S3Bucket {
    bucket_with(config, limits())
}

pub(super) fn bucket_with(config: S3Config, limits: S3Limits) -> S3Bucket {
    let http = http(&ClientTls::default());
    S3Bucket::new(config, http, keys(), limits, clock(), 1)
}
