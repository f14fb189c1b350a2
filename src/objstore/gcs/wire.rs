//! What differs between S3 and the XML API of Google Cloud Storage ("XML API overview", "HTTP
//! headers and query string parameters for XML API").

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, StatusCode};

use super::GcsIdentity;
use crate::objstore::s3::{
    Mend, Protection, S3Fault, S3Integrity, Sending, Sums, Wire, crc32c_text, text_header,
};
use crate::objstore::{Refusal, token::Tokens};

/// A request's or an object's checksums: `crc32c=…`, `md5=…`.
const HASH: HeaderName = HeaderName::from_static("x-goog-hash");

/// The XML API.
#[derive(Debug)]
pub(in crate::objstore) struct GcsWire {
    /// `None` where nobody asks in whose name requests are.
    tokens: Option<Arc<Tokens>>,
}

impl GcsWire {
    pub(in crate::objstore) fn new(identity: GcsIdentity) -> Self {
        Self {
            tokens: identity.tokens,
        }
    }
}

#[async_trait]
impl Wire for GcsWire {
    fn component(&self) -> &'static str {
        "gcs"
    }

    fn checks(&self) -> Option<(S3Integrity, Option<S3Integrity>)> {
        Some((S3Integrity::Crc32c, Some(S3Integrity::ContentMd5)))
    }

    async fn authorize(&self, sending: &mut Sending<'_>) -> Result<(), S3Fault> {
        match &self.tokens {
            Some(tokens) => tokens.bear(sending.headers).await,
            None => Ok(()),
        }
    }

    fn mend(&self, refusal: &Refusal) -> Mend {
        match &self.tokens {
            Some(tokens) if refusal.status == StatusCode::UNAUTHORIZED => {
                tokens.invalidate();
                Mend::Again
            }
            _ => Mend::No,
        }
    }

    fn remedy(&self) -> fn(&Refusal) -> Option<&'static str> {
        remedy
    }

    fn protection(&self, check: S3Integrity, sums: &Sums) -> Option<Protection> {
        match (check, sums.crc32c, &sums.md5) {
            (S3Integrity::Crc32c, Some(crc32c), _) => {
                let text = crc32c_text(crc32c);
                Some(Protection {
                    header: (HASH, text_header(&format!("crc32c={text}"))),
                    echo: Some(text),
                })
            }
            (S3Integrity::ContentMd5, _, Some(md5)) => Some(Protection::content_md5(md5)),
            _ => None,
        }
    }

    /// The header stands there once for each sum, or once for all.
    fn echoed(&self, headers: &HeaderMap) -> Option<String> {
        let values = headers.get_all(&HASH).into_iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let mut sums = texts.flat_map(|text| text.split(','));
        sums.find_map(|sum| sum.trim().strip_prefix("crc32c=").map(str::to_owned))
    }
}

fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.code.as_str() {
        _ if refusal.status == StatusCode::UNAUTHORIZED => {
            "Google does not take the token: check `service_account`, or the credentials that the \
             error's other lines name"
        }
        "AccessDenied" => {
            "the account needs storage.objects.create, get, list and delete on the bucket (role \
             Storage Object User, and Storage Object Admin where objects are overwritten)"
        }
        "NoSuchBucket" => "create the bucket, or correct `bucket`",
        "UserProjectMissing" => {
            "the bucket is one whose readers pay, which is not supported: turn that off"
        }
        "UserProjectAccountProblem" | "AccountProblem" => "see to the project's billing account",
        _ => return None,
    })
}
