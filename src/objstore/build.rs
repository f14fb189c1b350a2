//! From a parsed document to a bucket with all its decorators.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::azure::{AzureIdentity, AzureWire};
use super::gcs::{GcsIdentity, GcsWire};
use super::s3::{ChainSettings, S3Wire, SdkClient};
use super::swift::SwiftWire;
use super::{
    AzureConfigError, AzureSettings, Bucket, BucketConfig, BucketMetrics, ConfigError,
    CredentialsConfig, FilesystemBucket, GcsConfigError, GcsSettings, HttpConfig, Instrumented,
    Pace, PayloadSigning, Prefixed, Provider, RequestStats, Retrying, S3Bucket, S3Config,
    S3ConfigError, S3Credentials, S3Limits, S3Settings, SwiftConfigError, SwiftSettings, vendors,
};
use crate::disk::DiskEngine;
use crate::model::Clock;
use crate::net::http::{ClientConfig, HttpClient, Proxy};
use crate::net::{ClientTls, TlsError};

/// How long a server may take no byte of a body, or give none of an answer that has begun. Slow is
/// fine, standing still is not.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks for the value of an environment variable.
pub type Variables = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// What a bucket needs from its surroundings.
pub struct BucketDependencies<'a> {
    /// Reads and writes files, for the bucket in a directory.
    pub engine: DiskEngine,
    /// Where the bucket's metrics go.
    pub registry: &'a mut Registry,
    /// The wall clock: requests are signed with the time.
    pub clock: Clock,
    /// Spreads retries.
    pub jitter_seed: u64,
    /// The environment: proxies and credentials.
    pub variable: Variables,
    /// Most parts of all uploads that are sent at a time.
    pub parts_in_flight: NonZeroUsize,
    /// Largest body that is held in memory; a larger one is read twice.
    pub body_bytes_max: u64,
    /// A limit on what all uploads together send.
    pub pace: Option<Pace>,
    /// `--s3.payload-signing`.
    pub payload_signing: PayloadSigning,
    /// Where requests are counted and timed.
    pub requests: RequestStats,
}

/// Builds the bucket with all its decorators: `Instrumented(Prefixed(Retrying(provider)))`; stores
/// over HTTP without `Retrying`, as their client retries each request by itself.
///
/// Nothing is sent: a bucket that can't be reached shows at the first operation.
///
/// # Errors
/// Where the prefix can't begin an object's name, a TLS file can't be used, or a proxy variable
/// holds no proxy.
pub fn build(
    config: &BucketConfig,
    dependencies: BucketDependencies<'_>,
) -> Result<Arc<dyn Bucket>, ConfigError> {
    let bucket: Arc<dyn Bucket> = match &config.provider {
        Provider::Filesystem { directory } => Arc::new(Retrying::new(
            Arc::new(
                FilesystemBucket::new(directory.clone())
                    .with_engine(&dependencies.engine)
                    .with_pace(dependencies.pace.clone()),
            ),
            dependencies.jitter_seed,
        )),
        Provider::S3(settings) => Arc::new(s3_bucket(settings, &dependencies)?),
        Provider::Gcs(settings) => Arc::new(gcs_bucket(settings, &dependencies)?),
        Provider::Azure(settings) => Arc::new(azure_bucket(settings, &dependencies)?),
        Provider::Swift(settings) => Arc::new(swift_bucket(settings, &dependencies)?),
    };
    let BucketDependencies {
        registry, clock, ..
    } = dependencies;
    let metrics = BucketMetrics::register(registry, bucket.name());
    let prefixed = Prefixed::wrap(bucket, &config.prefix)?;
    Ok(Arc::new(Instrumented::new(prefixed, metrics, clock)))
}

fn s3_bucket(
    settings: &S3Settings,
    dependencies: &BucketDependencies<'_>,
) -> Result<S3Bucket, S3ConfigError> {
    let variable = &dependencies.variable;
    let proxy = Proxy::from_environment(&|name| variable(name))?;
    let mut client = settings.client.clone();
    client.payload_signing = dependencies.payload_signing;
    let http = settings.http.client(proxy.clone())?;
    let credentials = s3_credentials(settings, dependencies, proxy)?;
    let bucket = over_http(client, &settings.http, http, credentials, dependencies);
    let wire = S3Wire {
        remedy: vendors::remedy(settings.kind),
    };
    Ok(bucket
        .speaking(Arc::new(wire))
        .labelled(settings.label.clone()))
}

fn gcs_bucket(
    settings: &GcsSettings,
    dependencies: &BucketDependencies<'_>,
) -> Result<S3Bucket, GcsConfigError> {
    let variable = &*dependencies.variable;
    let proxy = Proxy::from_environment(&|name| variable(name))?;
    let http = settings.http.client(proxy)?;
    let identity = GcsIdentity::new(
        &settings.access,
        variable,
        credentials_client(&http)?,
        dependencies.clock.clone(),
    )?;
    let client = settings.placed(identity.universe.as_deref(), variable)?;
    let anonymous = S3Credentials::anonymous();
    let bucket = over_http(client, &settings.http, http, anonymous, dependencies);
    Ok(bucket.speaking(Arc::new(GcsWire::new(identity))))
}

fn azure_bucket(
    settings: &AzureSettings,
    dependencies: &BucketDependencies<'_>,
) -> Result<S3Bucket, AzureConfigError> {
    let variable = &*dependencies.variable;
    let proxy = Proxy::from_environment(&|name| variable(name))?;
    let http = settings.http.client(proxy)?;
    let identity = AzureIdentity::new(
        &settings.access,
        variable,
        credentials_client(&http)?,
        dependencies.clock.clone(),
    )?;
    let client = settings.client.clone();
    let wire = AzureWire::new(identity, &settings.base, &client.bucket, settings.creates);
    let anonymous = S3Credentials::anonymous();
    let bucket = over_http(client, &settings.http, http, anonymous, dependencies);
    Ok(bucket.speaking(Arc::new(wire)))
}

/// Keystone is reached as the store is, as in the reference.
fn swift_bucket(
    settings: &SwiftSettings,
    dependencies: &BucketDependencies<'_>,
) -> Result<S3Bucket, SwiftConfigError> {
    let variable = &*dependencies.variable;
    let proxy = Proxy::from_environment(&|name| variable(name))?;
    let mut http = settings.http.client(proxy)?;
    http.connect_timeout = Some(settings.connect_timeout);
    let client = settings.client.clone();
    let wire = SwiftWire::new(
        &settings.access,
        SdkClient::new(http.clone()),
        dependencies.clock.clone(),
        (&client.bucket, &settings.segments),
        settings.dynamic,
    );
    let anonymous = S3Credentials::anonymous();
    let mut limits = limits(&settings.http, dependencies);
    limits.stall_timeout = settings.timeout;
    let bucket = with_limits(client, http, anonymous, limits, dependencies);
    Ok(bucket.speaking(Arc::new(wire)))
}

/// The bucket's client, which all stores over HTTP share.
fn over_http(
    client: S3Config,
    settings: &HttpConfig,
    http: ClientConfig,
    credentials: S3Credentials,
    dependencies: &BucketDependencies<'_>,
) -> S3Bucket {
    let limits = limits(settings, dependencies);
    with_limits(client, http, credentials, limits, dependencies)
}

fn limits(http: &HttpConfig, dependencies: &BucketDependencies<'_>) -> S3Limits {
    S3Limits {
        parts_in_flight: http.bodies_max(dependencies.parts_in_flight),
        body_bytes_max: dependencies.body_bytes_max,
        pace: dependencies.pace.clone(),
        stall_timeout: STALL_TIMEOUT,
        response_header_timeout: http.response_header_timeout(),
    }
}

fn with_limits(
    client: S3Config,
    http: ClientConfig,
    credentials: S3Credentials,
    limits: S3Limits,
    dependencies: &BucketDependencies<'_>,
) -> S3Bucket {
    let bucket = S3Bucket::new(
        client,
        HttpClient::new(http),
        credentials,
        limits,
        dependencies.clock.clone(),
        dependencies.jitter_seed,
    );
    bucket.counted(dependencies.requests.clone())
}

/// Services that give tokens are not the bucket's server, so its CA and our certificate for it do
/// not count there.
fn credentials_client(http: &ClientConfig) -> Result<SdkClient, TlsError> {
    let mut http = http.clone();
    http.tls = ClientTls::default().build()?.http1_only();
    Ok(SdkClient::new(http))
}

/// Services that give credentials are reached through the same proxies. They are not the bucket's
/// server, so its CA and our certificate for it do not count there.
fn s3_credentials(
    settings: &S3Settings,
    dependencies: &BucketDependencies<'_>,
    proxy: Option<Proxy>,
) -> Result<S3Credentials, S3ConfigError> {
    let (sts_endpoint, required, signature_version2) = match &settings.credentials {
        CredentialsConfig::Static {
            access_key,
            secret_key,
            session_token,
        } => {
            let token = session_token.clone();
            return Ok(S3Credentials::fixed(access_key, secret_key, token));
        }
        CredentialsConfig::Chain {
            sts_endpoint,
            required,
            signature_version2,
        } => (sts_endpoint.clone(), *required, *signature_version2),
    };
    let mut http = settings.http.client(proxy)?;
    http.tls = ClientTls::default().build()?.http1_only();
    Ok(S3Credentials::chain(ChainSettings {
        sts_endpoint,
        required,
        signature_version2,
        variable: Arc::clone(&dependencies.variable),
        clock: dependencies.clock.clone(),
        http,
    }))
}

impl fmt::Debug for BucketDependencies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketDependencies")
            .field("clock", &self.clock)
            .field("parts_in_flight", &self.parts_in_flight)
            .field("body_bytes_max", &self.body_bytes_max)
            .field("payload_signing", &self.payload_signing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
