//! Alibaba Cloud OSS (`type: ALIYUNOSS`), at its S3-compatible endpoints: `s3.` before the usual
//! host, the bucket always in the host's name ("Use Amazon S3 SDKs to access OSS").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Host, Mapped, VendorConfigError, needed, unknown};
use crate::objstore::Refusal;
use crate::objstore::s3::{Addressing, HttpConfig, S3Settings};

const EXAMPLE: &str = "oss-cn-hangzhou.aliyuncs.com";
/// Where the host is that of no region (acceleration): OSS does not hold signatures to it.
const REGION_ANY: &str = "us-east-1";

/// The mapping `config:`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::objstore) struct OssKeys {
    endpoint: Option<String>,
    bucket: Option<String>,
    access_key_id: Option<String>,
    access_key_secret: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

impl OssKeys {
    pub(in crate::objstore) fn settings(
        self,
    ) -> Result<(S3Settings, Vec<String>), VendorConfigError> {
        let place = "aliyun oss endpoint or bucket is not present in config file";
        let keys = "aliyun oss access_key_id or access_key_secret is not present in config file";
        let warnings = unknown("ALIYUNOSS", &self.unknown);
        let endpoint = needed(self.endpoint, place, "endpoint")?;
        let bucket = needed(self.bucket, place, "bucket")?;
        let host = Host::parsed(&endpoint, EXAMPLE)?;
        let (authority, region) = s3_host(&host);
        let addressing = match host.is_local() {
            true => Addressing::Path,
            false => Addressing::VirtualHosted,
        };
        let mapped = Mapped {
            kind: "ALIYUNOSS",
            bucket: &bucket,
            host: &authority,
            insecure: host.insecure,
            region: Some(region),
            addressing,
            access_key: needed(self.access_key_id, keys, "access_key_id")?,
            secret_key: needed(self.access_key_secret, keys, "access_key_secret")?,
            max_retries: None,
            http: HttpConfig::default(),
        };
        Ok((mapped.settings(), warnings))
    }
}

/// The host that speaks S3, and the region that it tells.
fn s3_host(host: &Host) -> (String, String) {
    let label = host
        .name()
        .split('.')
        .find(|label| label.starts_with("oss-"));
    let region = label.and_then(|label| label.strip_prefix("oss-"));
    let region = region.map(|region| region.strip_suffix("-internal").unwrap_or(region));
    let region = region.filter(|region| !region.starts_with("accelerate"));
    let is_own = host.name().ends_with(".aliyuncs.com") && host.name().starts_with("oss-");
    let authority = match is_own {
        true => format!("s3.{}", host.authority),
        false => host.authority.clone(),
    };
    (authority, region.unwrap_or(REGION_ANY).to_owned())
}

pub(super) fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.code.as_str() {
        "SignatureDoesNotMatch" => {
            "the secret does not go with the id; check `access_key_secret`, and that no proxy in \
             between changes requests"
        }
        "InvalidAccessKeyId" => "OSS does not know the id; check `access_key_id`",
        "AccessDenied" => {
            "the RAM user needs oss:PutObject, oss:GetObject, oss:ListObjects, oss:DeleteObject \
             and oss:AbortMultipartUpload on the bucket; also check `endpoint`"
        }
        _ => return refusal.s3_remedy(),
    })
}
