//! The YAML of `--prometheus.http-client` (contract `cli.md` §3.3): how to reach Prometheus.
//!
//! Not strict: a key that is unknown gives a warning, as operators' tools write such documents for
//! many versions; a value of the wrong type is an error that names key and line.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::authorization::{Authorization, Secret, SecretSource};
use crate::model::{DocumentError, Mapping, UnknownKey};
use crate::net::http::{ClientConfig, InvalidProxy, Proxy};
use crate::net::{ClientTls, TlsError};

/// The longest time limit that is told apart from none: `Instant` arithmetic stays in range.
const NO_LIMIT_FROM: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// What Go keeps per host where the document says 0.
const IDLE_PER_HOST_DEFAULT: usize = 2;

/// How to reach Prometheus. The default is that of an empty document.
#[derive(Clone, Debug)]
pub struct HttpClientConfig {
    pub(super) authorization: Authorization,
    pub(super) accept_gzip: bool,
    proxy: Option<Proxy>,
    tls: ClientTls,
    transport: Transport,
}

/// `transport_config`. `expect_continue_timeout` is read and has no effect, as in the reference:
/// neither sends `Expect: 100-continue`.
#[derive(Clone, Debug)]
struct Transport {
    idle_max: i64,
    idle_per_host_max: i64,
    idle_timeout_ns: i64,
    response_header_timeout_ns: i64,
    connections_per_host_max: i64,
    tls_handshake_timeout_ns: i64,
    dialer_timeout_ns: i64,
}

/// Why the document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientConfigError {
    /// Not YAML, or a value of another type than wanted.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Two keys that exclude each other.
    #[error("at most one of {keys} may be set")]
    Conflict {
        /// The keys.
        keys: &'static str,
    },
    /// The proxy's URL is none.
    #[error("`proxy_url` in line {line}")]
    Proxy {
        /// Its line, from 1.
        line: u64,
        /// Why.
        source: InvalidProxy,
    },
}

// === impl HttpClientConfig ===

impl HttpClientConfig {
    /// Reads the document; an empty one gives the defaults. Also returns the unknown keys, for one
    /// warning each.
    ///
    /// # Errors
    /// See [`HttpClientConfigError`]. Files are not looked at yet.
    pub fn parse(yaml: &str) -> Result<(Self, Vec<UnknownKey>), HttpClientConfigError> {
        let mut root = Mapping::parse(yaml)?;
        let mut basic = root.mapping("basic_auth")?;
        let authorization = authorization(&mut root, &mut basic)?;
        let proxy = match root.scalar("proxy_url")? {
            None => None,
            Some(url) => {
                let line = url.line;
                let proxy = Proxy::parse(&url.text);
                Some(proxy.map_err(|source| HttpClientConfigError::Proxy { line, source })?)
            }
        };
        let mut tls = root.mapping("tls_config")?;
        let client_tls = client_tls(&mut tls)?;
        let mut transport = root.mapping("transport_config")?;
        let accept_gzip = !transport.boolean("disable_compression")?.unwrap_or(false);
        let limits = Transport::parse(&mut transport)?;
        let mut unknown = root.unknown();
        for mapping in [basic, tls, transport] {
            unknown.extend(mapping.unknown());
        }
        unknown.sort_by_key(|key| key.line);
        let config = Self {
            authorization,
            accept_gzip,
            proxy,
            tls: client_tls,
            transport: limits,
        };
        Ok((config, unknown))
    }

    /// The files that are read while it is in use: certificates, keys, passwords, tokens.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls.files().chain(self.authorization.file())
    }

    /// The transport's side of it; reads the TLS files.
    pub(super) fn client(&self) -> Result<ClientConfig, TlsError> {
        let transport = &self.transport;
        let per_host = match usize::try_from(transport.idle_per_host_max) {
            Ok(0) => IDLE_PER_HOST_DEFAULT,
            Ok(max) => max,
            // Go keeps no connection at all below zero.
            Err(_) => 0,
        };
        // There is one host, so the limit for all hosts is one for this one too.
        let overall = usize::try_from(transport.idle_max)
            .ok()
            .filter(|max| *max > 0);
        Ok(ClientConfig {
            tls: self.tls.build()?,
            proxy: self.proxy.clone(),
            connect_timeout: limit(transport.dialer_timeout_ns),
            tls_handshake_timeout: limit(transport.tls_handshake_timeout_ns),
            response_header_timeout: limit(transport.response_header_timeout_ns),
            idle_timeout: limit(transport.idle_timeout_ns),
            idle_per_host_max: per_host.min(overall.unwrap_or(usize::MAX)),
            connections_per_host_max: usize::try_from(transport.connections_per_host_max)
                .ok()
                .and_then(NonZeroUsize::new),
        })
    }
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self {
            authorization: Authorization::None,
            accept_gzip: true,
            proxy: None,
            tls: ClientTls::default(),
            transport: Transport::default(),
        }
    }
}

/// Zero and below mean no limit, as in Go.
fn limit(nanoseconds: i64) -> Option<Duration> {
    let nanoseconds = u64::try_from(nanoseconds).ok()?;
    let duration = Duration::from_nanos(nanoseconds);
    (!duration.is_zero() && duration < NO_LIMIT_FROM).then_some(duration)
}

fn client_tls(tls: &mut Mapping<'_>) -> Result<ClientTls, HttpClientConfigError> {
    Ok(ClientTls {
        ca_file: tls.text("ca_file")?.map(PathBuf::from),
        cert_file: tls.text("cert_file")?.map(PathBuf::from),
        key_file: tls.text("key_file")?.map(PathBuf::from),
        server_name: tls.text("server_name")?,
        insecure_skip_verify: tls.boolean("insecure_skip_verify")?.unwrap_or(false),
    })
}

fn authorization(
    root: &mut Mapping<'_>,
    basic: &mut Mapping<'_>,
) -> Result<Authorization, HttpClientConfigError> {
    let username = basic.text("username")?;
    let keys = "basic_auth.password and basic_auth.password_file";
    let password = secret(basic, "password", "password_file", keys)?;
    let keys = "bearer_token and bearer_token_file";
    let bearer = secret(root, "bearer_token", "bearer_token_file", keys)?;
    match (username, password, bearer) {
        (None, None, None) => Ok(Authorization::None),
        (None, None, Some(token)) => Ok(Authorization::Bearer(token)),
        (username, password, None) => Ok(Authorization::Basic {
            username: username.unwrap_or_default(),
            password: password.unwrap_or_else(|| SecretSource::Inline(Secret::from(String::new()))),
        }),
        (_, _, Some(_)) => Err(HttpClientConfigError::Conflict {
            keys: "basic_auth, bearer_token and bearer_token_file",
        }),
    }
}

fn secret(
    mapping: &mut Mapping<'_>,
    inline: &'static str,
    file: &'static str,
    keys: &'static str,
) -> Result<Option<SecretSource>, HttpClientConfigError> {
    match (mapping.text(inline)?, mapping.text(file)?) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(SecretSource::Inline(Secret::from(text)))),
        (None, Some(path)) => Ok(Some(SecretSource::File(PathBuf::from(path)))),
        (Some(_), Some(_)) => Err(HttpClientConfigError::Conflict { keys }),
    }
}

// === impl Transport ===

impl Transport {
    fn parse(mapping: &mut Mapping<'_>) -> Result<Self, HttpClientConfigError> {
        const COUNT: &str = "a whole number";
        const TIME: &str = "a whole number of nanoseconds";
        let default = Self::default();
        let mut read = |key: &'static str, wanted, default: i64| {
            Ok::<_, DocumentError>(mapping.integer(key, wanted)?.unwrap_or(default))
        };
        read("expect_continue_timeout", TIME, 0)?;
        Ok(Self {
            idle_max: read("max_idle_conns", COUNT, default.idle_max)?,
            idle_per_host_max: read("max_idle_conns_per_host", COUNT, default.idle_per_host_max)?,
            idle_timeout_ns: read("idle_conn_timeout", TIME, default.idle_timeout_ns)?,
            response_header_timeout_ns: read(
                "response_header_timeout",
                TIME,
                default.response_header_timeout_ns,
            )?,
            connections_per_host_max: read(
                "max_conns_per_host",
                COUNT,
                default.connections_per_host_max,
            )?,
            tls_handshake_timeout_ns: read(
                "tls_handshake_timeout",
                TIME,
                default.tls_handshake_timeout_ns,
            )?,
            dialer_timeout_ns: read("dialer_timeout", TIME, default.dialer_timeout_ns)?,
        })
    }
}

impl Default for Transport {
    fn default() -> Self {
        const SECOND_NS: i64 = 1_000_000_000;
        Self {
            idle_max: 100,
            idle_per_host_max: 2,
            idle_timeout_ns: 90 * SECOND_NS,
            response_header_timeout_ns: 0,
            connections_per_host_max: 0,
            tls_handshake_timeout_ns: 10 * SECOND_NS,
            dialer_timeout_ns: 5 * SECOND_NS,
        }
    }
}

#[cfg(test)]
mod tests;
