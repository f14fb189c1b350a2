//! Stores that speak S3 at endpoints of their own: Alibaba's OSS, Tencent's COS, Baidu's BOS and
//! Huawei's OBS. Their keys of the reference (contract `objstore.md` §5) become settings of the S3
//! client, with addressing and region as the vendors' pages on S3 compatibility say. Oracle's store
//! has such an endpoint too, but not for the keys that its document has.

mod bos;
mod cos;
mod obs;
mod oci;
mod oss;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::IgnoredAny;

pub(super) use bos::BosKeys;
pub(super) use cos::CosKeys;
pub(super) use obs::ObsKeys;
pub(super) use oci::OciKeys;
pub(super) use oss::OssKeys;

use super::Refusal;
use super::s3::{Addressing, CredentialsConfig, HttpConfig, S3Config, S3Settings};
use crate::net::TlsError;

/// The document of such a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum VendorConfigError {
    /// An unknown key, or a value of the wrong type; the text has line and column.
    #[error("parsing the {kind} configuration: {}", .source)]
    Yaml {
        /// The type of the bucket.
        kind: &'static str,
        /// Where and what.
        source: Box<serde_saphyr::Error>,
    },
    /// A key that must be there.
    #[error("{problem}: set `{key}`")]
    Missing {
        /// What the reference says.
        problem: &'static str,
        /// The key.
        key: &'static str,
    },
    /// `endpoint` is nonsense.
    #[error(
        "`endpoint` {endpoint:?} is not of the form [http://|https://]host[:port]: write it such \
         as {example}"
    )]
    Endpoint {
        /// As given.
        endpoint: String,
        /// One that is right.
        example: &'static str,
    },
    /// A host of the user's own, behind which the vendor does not speak S3.
    #[error(
        "`endpoint` {endpoint:?} is not one of the vendor's own, and others don't speak S3: write \
         that of the region, such as {example}"
    )]
    ForeignEndpoint {
        /// As given.
        endpoint: String,
        /// One that is right.
        example: &'static str,
    },
    /// The region is nowhere to be seen.
    #[error(
        "`endpoint` {endpoint:?} does not tell the region, which signatures need: set `region`"
    )]
    NoRegion {
        /// As given.
        endpoint: String,
    },
    /// Keys that no S3 request can be signed with.
    #[error(
        "`{key}` names an API signing key or a principal of Oracle's, which its S3 endpoint does \
         not take: make a customer secret key for a user (Identity, the user, Customer secret \
         keys) and write {instead}"
    )]
    OciIdentity {
        /// The key that tells.
        key: &'static str,
        /// The document.
        instead: String,
    },
    /// Not one of the reference's ways to log in.
    #[error("unsupported OCI provider: {given:?}: `provider` is one of {choices}")]
    OciProvider {
        /// As given.
        given: String,
        /// All that there are.
        choices: &'static str,
    },
    /// A TLS file of `http_config` can't be used.
    #[error("`http_config`")]
    Tls(#[from] TlsError),
}

/// A vendor's host, read from its key `endpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// `host[:port]`, in lower case.
    authority: String,
    insecure: bool,
}

impl Host {
    /// Reads `endpoint`; TLS is used unless the scheme says otherwise.
    fn parsed(endpoint: &str, example: &'static str) -> Result<Self, VendorConfigError> {
        let (insecure, rest) = match endpoint.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => (false, ""),
            None => (false, endpoint),
        };
        let authority = rest.trim_end_matches('/').to_ascii_lowercase();
        let parsed = authority.parse::<http::uri::Authority>();
        let is_usable = !authority.contains(['/', '?', '#', '@'])
            && parsed.is_ok_and(|parsed| !parsed.host().is_empty());
        match is_usable {
            true => Ok(Self {
                authority,
                insecure,
            }),
            false => Err(VendorConfigError::Endpoint {
                endpoint: endpoint.to_owned(),
                example,
            }),
        }
    }

    /// Without the port.
    fn name(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &self.authority,
        }
    }

    /// An address, or a name of this machine alone: a server for tests or an appliance.
    fn is_local(&self) -> bool {
        let name = self.name().trim_matches(['[', ']']);
        name.parse::<IpAddr>().is_ok() || !name.contains('.')
    }
}

/// What a vendor's document comes to.
struct Mapped<'a> {
    kind: &'static str,
    bucket: &'a str,
    host: &'a str,
    insecure: bool,
    region: Option<String>,
    addressing: Addressing,
    access_key: String,
    secret_key: String,
    max_retries: Option<i64>,
    http: HttpConfig,
}

impl Mapped<'_> {
    fn settings(self) -> S3Settings {
        let mut client = S3Config::plain(self.bucket, self.host, self.max_retries);
        client.insecure = self.insecure;
        client.region = self.region;
        client.addressing = self.addressing;
        S3Settings {
            kind: self.kind,
            label: None,
            client,
            credentials: CredentialsConfig::Static {
                access_key: self.access_key,
                secret_key: self.secret_key,
                session_token: None,
            },
            http: self.http,
        }
    }
}

/// An empty value is none.
fn text(given: Option<String>) -> Option<String> {
    given.filter(|text| !text.is_empty())
}

/// A value that must be there.
fn needed(
    given: Option<String>,
    problem: &'static str,
    key: &'static str,
) -> Result<String, VendorConfigError> {
    text(given).ok_or(VendorConfigError::Missing { problem, key })
}

/// The reference takes no notice of unknown keys in these documents.
fn unknown(kind: &str, keys: &BTreeMap<String, IgnoredAny>) -> Vec<String> {
    let told = |key| format!("unknown key `{key}` in the {kind} bucket configuration is ignored");
    keys.keys().map(told).collect()
}

/// What an operator of a bucket of this kind can do about a refusal.
pub(super) fn remedy(kind: &str) -> fn(&Refusal) -> Option<&'static str> {
    match kind {
        "ALIYUNOSS" => oss::remedy,
        "COS" => cos::remedy,
        _ => Refusal::s3_remedy,
    }
}

#[cfg(test)]
mod tests;
