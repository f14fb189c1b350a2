//! Which region a bucket is in, where neither the configuration nor the host's name tells: the
//! server is asked once, and believed where it says later that the bucket is elsewhere.

use std::sync::PoisonError;

use http::Method;

use super::address::REGION_DEFAULT;
use super::error::S3Error;
use super::request::{Call, Client};
use super::response::is_region;
use super::xml::{self, XmlError};
use crate::objstore::ErrorKind;

/// What a region that is none is cut to in the error.
const NAME_CHARS_MAX: usize = 100;

impl Client {
    /// The region to sign for: configured, told by the host, or asked for once.
    pub(super) async fn region(&self) -> Result<String, ErrorKind> {
        let known = self.known_region();
        if !known.is_empty() {
            return Ok(known);
        }
        if self.credentials.is_anonymous() {
            return Ok(String::new());
        }
        let _one_asks = self.discovery.lock().await;
        let known = self.known_region();
        if !known.is_empty() {
            return Ok(known);
        }
        let mut call = Call::new("GetBucketLocation", Method::GET, None);
        call.check = Some(|body| location(body).map(drop));
        let url = self.address.location_url();
        let region = REGION_DEFAULT.to_owned();
        let found = match self.attempts(&call, region, Some(&url)).await {
            Ok(reply) => location(&reply.body)
                .ok()
                .unwrap_or_else(|| REGION_DEFAULT.to_owned()),
            Err(ErrorKind::S3(error)) => region_despite(error)?,
            Err(kind) => return Err(kind),
        };
        // A redirect on the way may have told it already.
        let mut region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        if region.is_empty() {
            let bucket = &self.config.bucket;
            tracing::debug!(
                component = self.wire.component(),
                bucket,
                region = found,
                "found the bucket's region"
            );
            region.clone_from(&found);
        }
        Ok(region.clone())
    }

    fn known_region(&self) -> String {
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        region.clone()
    }

    /// Remembers the bucket's region, and says so once.
    pub(super) fn moved(&self, from: &str, to: &str) {
        let mut region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        if *region != to {
            to.clone_into(&mut region);
            tracing::warn!(
                component = self.wire.component(),
                bucket = %self.config.bucket,
                configured = from,
                region = to,
                remedy = "correct `region` and `endpoint`",
                "the bucket is in another region; its requests go there"
            );
        }
    }
}

/// The region in the answer. It goes into a host's name, so it must be one.
fn location(body: &[u8]) -> Result<String, XmlError> {
    let region = xml::location(body)?;
    match is_region(&region) {
        true => Ok(region),
        false => Err(XmlError::Value {
            element: "LocationConstraint",
            value: region.chars().take(NAME_CHARS_MAX).collect(),
        }),
    }
}

/// Those that may not ask for a bucket's region, and servers that don't know the request, have it
/// in the default one, or the error tells.
fn region_despite(error: Box<S3Error>) -> Result<String, ErrorKind> {
    let refusal = error.fault.refusal();
    let told = refusal.and_then(|refusal| refusal.region.clone());
    let final_answer =
        refusal.is_some() && !error.is_retryable() && !error.has_code("NoSuchBucket");
    match told {
        Some(region) => Ok(region),
        None if final_answer => Ok(REGION_DEFAULT.to_owned()),
        None => Err(ErrorKind::S3(error)),
    }
}
