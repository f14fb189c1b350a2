//! Baidu's BOS (`type: BOS`), at its S3-compatible endpoints `s3.<region>.bcebos.com`, with the
//! bucket in the path ("Service Domain Name", AWS S3 compatibility of BOS).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Host, Mapped, VendorConfigError, needed, unknown};
use crate::objstore::s3::{Addressing, HttpConfig, S3Settings};

const EXAMPLE: &str = "bj.bcebos.com";
const DOMAIN: &str = ".bcebos.com";

/// The mapping `config:`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::objstore) struct BosKeys {
    bucket: Option<String>,
    endpoint: Option<String>,
    access_key: Option<String>,
    secret_key: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

impl BosKeys {
    pub(in crate::objstore) fn settings(
        self,
    ) -> Result<(S3Settings, Vec<String>), VendorConfigError> {
        let problem = "insufficient BOS configuration information";
        let warnings = unknown("BOS", &self.unknown);
        let bucket = needed(self.bucket, problem, "bucket")?;
        let endpoint = needed(self.endpoint, problem, "endpoint")?;
        let host = Host::parsed(&endpoint, EXAMPLE)?;
        let (authority, region) = match host.name().strip_suffix(DOMAIN) {
            Some(labels) => {
                let region = labels.strip_prefix("s3.").unwrap_or(labels);
                let foreign = region.is_empty() || region.contains('.');
                if foreign {
                    return Err(foreign_endpoint(endpoint));
                }
                let port = host.authority.strip_prefix(host.name()).unwrap_or_default();
                (format!("s3.{region}{DOMAIN}{port}"), region.to_owned())
            }
            None if host.is_local() => (host.authority.clone(), "bj".to_owned()),
            None => return Err(foreign_endpoint(endpoint)),
        };
        let mapped = Mapped {
            kind: "BOS",
            bucket: &bucket,
            host: &authority,
            insecure: host.insecure,
            region: Some(region),
            addressing: Addressing::Path,
            access_key: needed(self.access_key, problem, "access_key")?,
            secret_key: needed(self.secret_key, problem, "secret_key")?,
            max_retries: None,
            http: HttpConfig::default(),
        };
        Ok((mapped.settings(), warnings))
    }
}

fn foreign_endpoint(endpoint: String) -> VendorConfigError {
    VendorConfigError::ForeignEndpoint {
        endpoint,
        example: EXAMPLE,
    }
}
