//! Oracle's object storage (`type: OCI`): refused, with the document to write instead.
//!
//! Its S3-compatible endpoint takes customer secret keys only ("Amazon S3 Compatibility API"). What
//! this document has are API signing keys and principals, which sign requests of Oracle's own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{VendorConfigError, needed, text};

/// The reference's ways to log in.
const PROVIDERS: [&str; 4] = [
    "default",
    "instance-principal",
    "raw",
    "oke-workload-identity",
];

/// The mapping `config:`, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::objstore) struct OciKeys {
    provider: Option<String>,
    bucket: Option<String>,
    region: Option<String>,
    privatekey: Option<String>,
    #[serde(flatten)]
    _unknown: BTreeMap<String, IgnoredAny>,
}

impl OciKeys {
    /// Why it can't be used.
    pub(in crate::objstore) fn refused(self) -> VendorConfigError {
        let provider = self.provider.unwrap_or_default().to_lowercase();
        if !PROVIDERS.contains(&provider.as_str()) {
            return VendorConfigError::OciProvider {
                given: provider,
                choices: "default, instance-principal, raw, oke-workload-identity",
            };
        }
        let bucket = match needed(self.bucket, "no OCI bucket specified", "bucket") {
            Ok(bucket) => bucket,
            Err(error) => return error,
        };
        let region = text(self.region).unwrap_or_else(|| "<region>".to_owned());
        let instead = format!(
            "`type: S3` with `config: {{bucket: {bucket}, region: {region}, endpoint: \
             <namespace>.compat.objectstorage.{region}.oraclecloud.com, bucket_lookup_type: path, \
             access_key: <access key>, secret_key: <secret key>}}`"
        );
        let key = match text(self.privatekey) {
            Some(_) => "privatekey",
            None => "provider",
        };
        VendorConfigError::OciIdentity { key, instead }
    }
}
