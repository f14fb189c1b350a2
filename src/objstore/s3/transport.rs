//! `http_config`: how connections to the bucket are made (contract `objstore.md` §3).

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::model::PromDuration;
use crate::net::http::{ClientConfig, Proxy};
use crate::net::{ClientTls, TlsError};

/// Name look-up and TCP connect; not configurable, as in the reference.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// What Go keeps per host where the document says 0.
const IDLE_PER_HOST_DEFAULT: usize = 2;
/// The longest time limit that is told apart from none: `Instant` arithmetic stays in range.
const NO_LIMIT_FROM: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How connections to the bucket are made. The default is that of an empty document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    tls: ClientTls,
    /// `None` is no limit, here and below.
    idle_timeout: Option<Duration>,
    response_header_timeout: Option<Duration>,
    tls_handshake_timeout: Option<Duration>,
    idle_per_host_max: usize,
    connections_per_host_max: Option<NonZeroUsize>,
}

/// The mapping `http_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::objstore) struct HttpKeys {
    idle_conn_timeout: Option<PromDuration>,
    response_header_timeout: Option<PromDuration>,
    tls_handshake_timeout: Option<PromDuration>,
    /// Without effect: no request is sent with `Expect: 100-continue`.
    expect_continue_timeout: Option<PromDuration>,
    max_idle_conns: Option<i64>,
    max_idle_conns_per_host: Option<i64>,
    max_conns_per_host: Option<i64>,
    insecure_skip_verify: Option<bool>,
    /// The reference reads it and does nothing with it either.
    disable_compression: Option<bool>,
    tls_config: Option<TlsKeys>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsKeys {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    insecure_skip_verify: Option<bool>,
}

// === impl HttpConfig ===

impl HttpConfig {
    /// How long an answer may take to begin once its request was sent.
    pub fn response_header_timeout(&self) -> Option<Duration> {
        self.response_header_timeout
    }

    /// The TLS files that are read while it is in use.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls.files()
    }

    /// How many bodies may be in flight where `wanted` are: one that waits for a connection holds
    /// buffers which the one that has it may need.
    pub fn bodies_max(&self, wanted: NonZeroUsize) -> NonZeroUsize {
        let connections = self.connections_per_host_max.unwrap_or(wanted);
        wanted.min(connections)
    }

    #[cfg(test)]
    pub(super) fn parsed(document: &str) -> Self {
        let keys: Option<HttpKeys> = serde_saphyr::from_str(document).unwrap();
        keys.unwrap_or_default().config()
    }

    /// The transport of the bucket's client; reads the TLS files. `proxy`: what connections go
    /// through.
    ///
    /// Over TLS only HTTP/1.1 is offered: S3 endpoints speak nothing else, and parts that are sent
    /// at the same time want a connection each, not shares of one flow-control window.
    ///
    /// # Errors
    /// Where a file is missing or not what it should be; it is named.
    pub fn client(&self, proxy: Option<Proxy>) -> Result<ClientConfig, TlsError> {
        Ok(ClientConfig {
            tls: self.tls.build()?.http1_only(),
            proxy,
            connect_timeout: Some(DIAL_TIMEOUT),
            tls_handshake_timeout: self.tls_handshake_timeout,
            // The bucket's client counts it from when the last byte was taken off our hands.
            response_header_timeout: None,
            idle_timeout: self.idle_timeout,
            idle_per_host_max: self.idle_per_host_max,
            connections_per_host_max: self.connections_per_host_max,
        })
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpKeys::default().config()
    }
}

// === impl HttpKeys ===

impl HttpKeys {
    pub(in crate::objstore) fn config(self) -> HttpConfig {
        let tls = self.tls_config.unwrap_or_default();
        let set = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        // There is one host, so the limit for all hosts is one for this one too.
        let overall = usize::try_from(self.max_idle_conns.unwrap_or(100)).ok();
        let overall = overall.filter(|max| *max > 0).unwrap_or(usize::MAX);
        let per_host = match usize::try_from(self.max_idle_conns_per_host.unwrap_or(100)) {
            Ok(0) => IDLE_PER_HOST_DEFAULT,
            Ok(max) => max,
            // Go keeps no connection at all below zero.
            Err(_) => 0,
        };
        HttpConfig {
            tls: ClientTls {
                ca_file: set(tls.ca_file),
                cert_file: set(tls.cert_file),
                key_file: set(tls.key_file),
                server_name: tls.server_name.filter(|name| !name.is_empty()),
                insecure_skip_verify: self.insecure_skip_verify.unwrap_or(false),
            },
            idle_timeout: limit(self.idle_conn_timeout, 90),
            response_header_timeout: limit(self.response_header_timeout, 120),
            tls_handshake_timeout: limit(self.tls_handshake_timeout, 10),
            idle_per_host_max: per_host.min(overall),
            connections_per_host_max: usize::try_from(self.max_conns_per_host.unwrap_or(0))
                .ok()
                .and_then(NonZeroUsize::new),
        }
    }

    /// What is odd and yet no error, for the log.
    pub(in crate::objstore) fn warnings(&self) -> Vec<String> {
        let nested = self.tls_config.as_ref();
        let nested = nested.and_then(|tls| tls.insecure_skip_verify);
        match nested == Some(true) && self.insecure_skip_verify != Some(true) {
            true => vec![
                "`http_config.tls_config.insecure_skip_verify` is ignored: the key that counts is \
                 `http_config.insecure_skip_verify`"
                    .to_owned(),
            ],
            false => Vec::new(),
        }
    }
}

/// Zero means no limit, as in Go.
fn limit(given: Option<PromDuration>, default_seconds: u64) -> Option<Duration> {
    let duration = match given {
        Some(given) => given.to_std(),
        None => Duration::from_secs(default_seconds),
    };
    (!duration.is_zero() && duration < NO_LIMIT_FROM).then_some(duration)
}
