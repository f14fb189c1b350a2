//! Tencent's COS (`type: COS`), whose endpoints `cos.<region>.myqcloud.com` speak S3, the bucket
//! (`name-appid`) in the host's name ("Accessing COS with AWS S3 SDK").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Host, Mapped, VendorConfigError, needed, text, unknown};
use crate::objstore::Refusal;
use crate::objstore::s3::{Addressing, HttpKeys, S3Settings};

const EXAMPLE: &str = "https://name-1250000000.cos.ap-guangzhou.myqcloud.com";

/// The mapping `config:`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::objstore) struct CosKeys {
    bucket: Option<String>,
    region: Option<String>,
    app_id: Option<String>,
    endpoint: Option<String>,
    secret_key: Option<String>,
    secret_id: Option<String>,
    max_retries: Option<i64>,
    http_config: Option<HttpKeys>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

impl CosKeys {
    pub(in crate::objstore) fn settings(
        mut self,
    ) -> Result<(S3Settings, Vec<String>), VendorConfigError> {
        let mut warnings = unknown("COS", &self.unknown);
        let http = self.http_config.take().unwrap_or_default();
        warnings.extend(http.warnings());
        let label = text(self.bucket.clone());
        let place = self.place()?;
        let problem = "insufficient cos configuration information";
        let mapped = Mapped {
            kind: "COS",
            bucket: &place.bucket,
            host: &place.host,
            insecure: place.insecure,
            region: Some(place.region),
            addressing: place.addressing,
            access_key: needed(self.secret_id, problem, "secret_id")?,
            secret_key: needed(self.secret_key, problem, "secret_key")?,
            max_retries: self.max_retries,
            http: http.config(),
        };
        let mut settings = mapped.settings();
        settings.label = label;
        Ok((settings, warnings))
    }

    /// The bucket's own URL where it is given, else bucket, number of the account and region.
    fn place(&mut self) -> Result<Place, VendorConfigError> {
        let region = text(self.region.take());
        let Some(endpoint) = text(self.endpoint.take()) else {
            let problem = "insufficient cos configuration information";
            let bucket = needed(self.bucket.take(), problem, "bucket")?;
            let app_id = needed(self.app_id.take(), problem, "app_id")?;
            let region = needed(region, problem, "region")?;
            return Ok(Place {
                bucket: format!("{bucket}-{app_id}"),
                host: format!("cos.{region}.myqcloud.com"),
                insecure: false,
                region,
                addressing: Addressing::VirtualHosted,
            });
        };
        let host = Host::parsed(&endpoint, EXAMPLE)?;
        if host.is_local() {
            // No name of a bucket is in an address.
            let problem = "`endpoint` has no bucket in it";
            return Ok(Place {
                bucket: needed(self.bucket.take(), problem, "bucket")?,
                host: host.authority,
                insecure: host.insecure,
                region: region.unwrap_or_else(|| "ap-guangzhou".to_owned()),
                addressing: Addressing::Path,
            });
        }
        let (bucket, rest) = host.authority.split_once('.').unwrap_or_default();
        let told = rest
            .strip_prefix("cos.")
            .and_then(|rest| rest.split_once('.'));
        let told = told.map(|(region, _)| region.to_owned());
        Ok(Place {
            bucket: bucket.to_owned(),
            host: rest.to_owned(),
            insecure: host.insecure,
            region: told
                .or(region)
                .ok_or(VendorConfigError::NoRegion { endpoint })?,
            addressing: Addressing::VirtualHosted,
        })
    }
}

struct Place {
    bucket: String,
    host: String,
    insecure: bool,
    region: String,
    addressing: Addressing,
}

pub(super) fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.code.as_str() {
        "SignatureDoesNotMatch" => {
            "the secret does not go with the id; check `secret_key`, and that no proxy in between \
             changes requests"
        }
        "InvalidAccessKeyId" => "COS does not know the id; check `secret_id`",
        "NoSuchBucket" => "create the bucket, or correct `bucket`, `app_id` and `region`",
        _ => return refusal.s3_remedy(),
    })
}
