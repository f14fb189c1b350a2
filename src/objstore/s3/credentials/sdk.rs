//! Lets the AWS crates send with our HTTP client and read our clock, so that the process has one
//! HTTP and TLS stack and one set of rules for proxies.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::provider_config::ProviderConfig;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpClient as SdkHttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_types::region::Region;
use bytes::Bytes;
use http::{Request, Response, Uri};

use super::chain::ChainSettings;
use crate::model::Clock;
use crate::net::http::{BodyLimit, ClientConfig, HttpClient, HttpError, full_body};

/// An answer about credentials is a few KiB.
const ANSWER: BodyLimit = BodyLimit {
    name: "CREDENTIALS_ANSWER_BYTES_MAX",
    bytes: 256 * 1024,
};
/// Longest wait for an answer where the caller does not say.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a connection where the caller does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where STS is asked in a region's name, and none is known.
const REGION_DEFAULT: &str = "us-east-1";

/// Sends requests about credentials.
#[derive(Clone, Debug)]
pub(in crate::objstore) struct SdkClient {
    http: ClientConfig,
    /// Replaces scheme and authority of every request, and comes before its path.
    endpoint: Option<Uri>,
}

#[derive(Debug)]
struct Connector {
    client: SdkClient,
    connect_timeout: Duration,
    read_timeout: Duration,
}

/// An exchange about credentials failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::objstore) enum ExchangeError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("no answer within {after:?}")]
    ReadTimeout { after: Duration },
}

/// Our clock as the AWS crates take it.
pub(super) struct WallClock(pub(super) Clock);

// === impl SdkClient ===

impl SdkClient {
    pub(in crate::objstore) fn new(http: ClientConfig) -> Self {
        Self {
            http,
            endpoint: None,
        }
    }

    /// What providers of the AWS crates are configured with. `endpoint`: where all their requests
    /// go.
    pub(super) fn provider_config(
        &self,
        settings: &ChainSettings,
        endpoint: Option<Uri>,
    ) -> ProviderConfig {
        let variable = |name: &str| (settings.variable)(name)?.into_string().ok();
        let region = variable("AWS_REGION").filter(|region| !region.is_empty());
        let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
        ProviderConfig::empty()
            .with_region(Some(Region::new(region)))
            .with_time_source(WallClock(settings.clock.clone()))
            .with_sleep_impl(TokioSleep::new())
            .with_http_client(Self {
                endpoint,
                ..self.clone()
            })
    }

    /// One exchange, with the answer read whole.
    pub(in crate::objstore) async fn exchange(
        &self,
        request: Request<Bytes>,
        connect_timeout: Duration,
        read_timeout: Duration,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let mut http = self.http.clone();
        http.connect_timeout = Some(connect_timeout);
        http.tls_handshake_timeout = Some(connect_timeout.max(CONNECT_TIMEOUT));
        if is_link_local(request.uri()) {
            // No proxy can reach our own link, and it must not see the credentials either.
            http.proxy = None;
        }
        let within = connect_timeout.saturating_add(read_timeout);
        let exchange = async {
            let response = HttpClient::new(http).send(request.map(full_body)).await?;
            let (head, body) = response.into_parts();
            Ok(Response::from_parts(head, body.read(ANSWER).await?))
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ExchangeError::ReadTimeout {
                after: read_timeout,
            }),
        }
    }

    /// The request as it is sent to `endpoint`.
    fn redirected(&self, mut request: Request<Bytes>) -> Result<Request<Bytes>, http::Error> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(request);
        };
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let base = endpoint.path().trim_end_matches('/');
        let mut parts = endpoint.clone().into_parts();
        parts.path_and_query = Some(format!("{base}{path}").parse()?);
        *request.uri_mut() = Uri::from_parts(parts)?;
        Ok(request)
    }
}

impl SdkHttpClient for SdkClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // Connections are not kept: these requests come hours apart.
        SharedHttpConnector::new(Connector {
            client: self.clone(),
            connect_timeout: settings.connect_timeout().unwrap_or(CONNECT_TIMEOUT),
            read_timeout: settings.read_timeout().unwrap_or(READ_TIMEOUT),
        })
    }
}

/// 169.254.0.0/16, fe80::/10, and the addresses that AWS uses like them below fd00:ec2::/32.
fn is_link_local(target: &Uri) -> bool {
    let host = target.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local() || address.segments().starts_with(&[0xfd00, 0xec2])
        }
        Err(_) => false,
    }
}

// === impl Connector ===

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, connect, read) =
            (self.client.clone(), self.connect_timeout, self.read_timeout);
        HttpConnectorFuture::new(async move {
            let user =
                |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::user(error);
            let request = request.try_into_http1x().map_err(|e| user(e.into()))?;
            let (head, body) = request.into_parts();
            let bytes = body
                .bytes()
                .ok_or_else(|| user("a streaming body".into()))?;
            let request = Request::from_parts(head, Bytes::copy_from_slice(bytes));
            let request = client.redirected(request).map_err(|e| user(e.into()))?;
            match client.exchange(request, connect, read).await {
                Ok(response) => {
                    let response = response.map(SdkBody::from);
                    HttpResponse::try_from(response).map_err(|e| user(e.into()))
                }
                Err(error) if error.is_timeout() => Err(ConnectorError::timeout(error.into())),
                Err(error) => Err(ConnectorError::io(error.into())),
            }
        })
    }
}

impl ExchangeError {
    fn is_timeout(&self) -> bool {
        match self {
            Self::Http(error) => error.is_timeout(),
            Self::ReadTimeout { .. } => true,
        }
    }
}

// === impl WallClock ===

impl TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        let nanos = u64::try_from(self.0.now_ns()).unwrap_or_default();
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_the_own_link_are_known() {
        for (uri, expected) in [
            ("http://169.254.169.254/x", true),
            ("http://169.254.170.2/x", true),
            ("http://169.254.170.23/x", true),
            ("http://[fd00:ec2::254]/x", true),
            ("http://[fe80::1]/x", true),
            ("http://[fd00:ec3::1]/x", false),
            ("http://10.0.0.1/x", false),
            ("https://sts.amazonaws.com/", false),
        ] {
            assert_eq!(is_link_local(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
