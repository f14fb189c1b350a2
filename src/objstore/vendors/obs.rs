//! Huawei's OBS (`type: OBS`), whose endpoints speak S3 as they are, the bucket in the host's name
//! ("Endpoints and Access Domain Names").

use serde::Deserialize;

use super::{Host, Mapped, VendorConfigError, needed, text};
use crate::objstore::s3::{Addressing, HttpKeys, S3Settings};

const EXAMPLE: &str = "obs.cn-north-4.myhuaweicloud.com";

/// The mapping `config:`, which the reference reads strictly.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::objstore) struct ObsKeys {
    bucket: Option<String>,
    endpoint: Option<String>,
    access_key: Option<String>,
    secret_key: Option<String>,
    max_retries: Option<i64>,
    http_config: Option<HttpKeys>,
}

impl ObsKeys {
    pub(in crate::objstore) fn settings(
        self,
    ) -> Result<(S3Settings, Vec<String>), VendorConfigError> {
        let endpoint = needed(self.endpoint, "no obs endpoint in config file", "endpoint")?;
        let host = Host::parsed(&endpoint, EXAMPLE)?;
        let http = self.http_config.unwrap_or_default();
        let warnings = http.warnings();
        // Where the host does not tell, the server is asked.
        let mut labels = host.name().split('.');
        let region = match labels.next() {
            Some("obs") => labels.next().filter(|_| labels.next().is_some()),
            _ => None,
        };
        let (access_key, secret_key) = match (text(self.access_key), text(self.secret_key)) {
            (Some(access_key), Some(secret_key)) => (access_key, secret_key),
            (None, Some(_)) => return Err(missing("no obs access_key specified", "access_key")),
            (Some(_), None) => return Err(missing("no obs secret_key specified", "secret_key")),
            (None, None) => {
                let problem = "no obs secret_key and access_key specified";
                return Err(missing(problem, "access_key"));
            }
        };
        let bucket = needed(self.bucket, "no obs bucket in config file", "bucket")?;
        let mapped = Mapped {
            kind: "OBS",
            bucket: &bucket,
            host: &host.authority,
            insecure: host.insecure,
            region: region.map(str::to_owned),
            addressing: match host.is_local() {
                true => Addressing::Path,
                false => Addressing::VirtualHosted,
            },
            access_key,
            secret_key,
            max_retries: self.max_retries,
            http: http.config(),
        };
        Ok((mapped.settings(), warnings))
    }
}

fn missing(problem: &'static str, key: &'static str) -> VendorConfigError {
    VendorConfigError::Missing { problem, key }
}
