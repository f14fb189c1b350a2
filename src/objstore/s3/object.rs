//! Requests for one object that is there already: HEAD, GET, DELETE; and the headers that all
//! requests for objects share.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use md5::Digest as _;

use super::error::{Refusal, S3Error, S3Fault};
use super::integrity::{crc64_value, md5_text};
use super::request::{Call, Client};
use super::response::http_date;
use super::{Encryption, S3Config};
use crate::objstore::{Attributes, BucketError, ErrorKind, ObjectReader};

pub(super) const CHECKSUM_CRC64NVME: HeaderName =
    HeaderName::from_static("x-amz-checksum-crc64nvme");
pub(super) const CHECKSUM_TYPE: HeaderName = HeaderName::from_static("x-amz-checksum-type");
const CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");

const SSE: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
const SSE_KMS_KEY: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
const SSE_KMS_CONTEXT: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-context");
const SSE_C_ALGORITHM: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");
const SSE_C_KEY: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-key");
const SSE_C_KEY_MD5: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5");
const STORAGE_CLASS: HeaderName = HeaderName::from_static("x-amz-storage-class");

/// Headers of requests that begin an object: PutObject, CreateMultipartUpload.
pub(super) fn creation_headers(config: &S3Config) -> HeaderMap {
    let mut headers = key_headers(config);
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
    for (name, value) in &config.put_headers {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(class) = &config.storage_class {
        headers.insert(STORAGE_CLASS, class.clone());
    }
    match &config.encryption {
        Encryption::None | Encryption::Customer { .. } => {}
        Encryption::S3 => {
            headers.insert(SSE, HeaderValue::from_static("AES256"));
        }
        Encryption::Kms { key_id, context } => {
            headers.insert(SSE, HeaderValue::from_static("aws:kms"));
            headers.insert(SSE_KMS_KEY, key_id.clone());
            // An empty context is `{}`: `null` is refused.
            let context = serde_json::to_vec(context).expect("a map of texts is JSON");
            headers.insert(SSE_KMS_CONTEXT, base64_header(&context));
        }
    }
    headers
}

/// Headers of every request for an object: the key it is encrypted with, where it is ours.
pub(super) fn key_headers(config: &S3Config) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Encryption::Customer { key } = &config.encryption {
        headers.insert(SSE_C_ALGORITHM, HeaderValue::from_static("AES256"));
        headers.insert(SSE_C_KEY, base64_header(key));
        headers.insert(SSE_C_KEY_MD5, base64_header(&md5::Md5::digest(key)));
        for value in headers.values_mut().skip(1) {
            value.set_sensitive(true);
        }
    }
    headers
}

fn base64_header(bytes: &[u8]) -> HeaderValue {
    text_header(&BASE64_STANDARD.encode(bytes))
}

/// Base64, digits: text that is a header for sure.
pub(in crate::objstore) fn text_header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("visible ASCII")
}

/// `Content-MD5`.
pub(super) fn md5_header(md5: &[u8; 16]) -> HeaderValue {
    text_header(&md5_text(md5))
}

impl Client {
    /// HeadObject, without the checksum where the server does not take the question, or does not
    /// let us ask: of objects encrypted by KMS that takes kms:Decrypt.
    pub(super) async fn look(&self, key: &str) -> Result<Attributes, ErrorKind> {
        let asks = self.wire.asks_checksum() && self.asks_checksum.load(Ordering::Relaxed);
        match self.head(key, asks).await {
            Err(ErrorKind::S3(error)) if asks && error.denies_access() => {
                // Rights may be given, and other objects encrypted otherwise.
                self.head(key, false).await
            }
            Err(ErrorKind::S3(error)) if asks && refuses_question(error.fault.refusal()) => {
                let attributes = self.head(key, false).await;
                if attributes.is_ok() {
                    self.asks_checksum.store(false, Ordering::Relaxed);
                }
                attributes
            }
            outcome => outcome,
        }
    }

    /// HeadObject. `with_checksum` asks for the checksum too, which some servers refuse.
    pub(super) async fn head(
        &self,
        key: &str,
        with_checksum: bool,
    ) -> Result<Attributes, ErrorKind> {
        let headers = self.head_headers(key, with_checksum).await?;
        let header = |name: &HeaderName| headers.get(name)?.to_str().ok();
        let size = header(&CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let whole = header(&CHECKSUM_TYPE).is_none_or(|kind| kind == "FULL_OBJECT");
        let crc64 = header(&CHECKSUM_CRC64NVME).filter(|_| whole);
        Ok(Attributes {
            size_bytes: size
                .ok_or_else(|| self.failed("HeadObject", key, S3Fault::Header("content-length")))?,
            last_modified: header(&LAST_MODIFIED)
                .and_then(http_date)
                .unwrap_or(Timestamp::UNIX_EPOCH),
            crc64: crc64.and_then(crc64_value),
        })
    }

    /// All that HeadObject answers.
    pub(super) async fn head_headers(
        &self,
        key: &str,
        with_checksum: bool,
    ) -> Result<HeaderMap, ErrorKind> {
        let mut call = Call::new("HeadObject", Method::HEAD, Some(key));
        call.headers = key_headers(&self.config);
        if with_checksum {
            let enabled = HeaderValue::from_static("ENABLED");
            call.headers.insert(CHECKSUM_MODE, enabled);
        }
        let reply = self.call(&call).await;
        Ok(reply.map_err(|kind| self.not_found(kind))?.headers)
    }

    /// GetObject, from `offset`; `length` bytes, or what there is.
    pub(super) async fn get(
        &self,
        key: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ObjectReader, ErrorKind> {
        let mut call = Call::new("GetObject", Method::GET, Some(key));
        call.headers = key_headers(&self.config);
        call.is_streamed = true;
        let end = length.map(|length| offset.saturating_add(length).saturating_sub(1));
        match (offset, end) {
            (_, Some(end)) if end < offset || length == Some(0) => {
                return Ok(stream::empty().boxed());
            }
            (offset, Some(end)) => {
                let range = text_header(&format!("bytes={offset}-{end}"));
                call.headers.insert(RANGE, range);
            }
            (0, None) => {}
            (offset, None) => {
                let range = text_header(&format!("bytes={offset}-"));
                call.headers.insert(RANGE, range);
            }
        }
        let reply = self.call(&call).await;
        let reply = reply.map_err(|kind| self.not_found(kind))?;
        let Some(body) = reply.stream else {
            return Ok(stream::once(async move { Ok(reply.body) }).boxed());
        };
        let (tls, after) = (self.address.tls, self.limits.stall_timeout);
        let (place, store) = (self.place(key), self.wire.component());
        let name = key.to_owned();
        let chunks = stream::try_unfold(body, move |mut body| async move {
            match tokio::time::timeout(after, body.chunk()).await {
                Ok(Ok(chunk)) => Ok(chunk.map(|chunk| (chunk, body))),
                Ok(Err(error)) => Err(S3Fault::http(error, tls)),
                Err(_) => Err(S3Fault::NoAnswer { after }),
            }
        });
        let failed = move |fault| {
            let error = S3Error {
                store,
                operation: "GetObject",
                place: place.clone(),
                attempts: 1,
                fault,
            };
            BucketError::new("get", &name, ErrorKind::S3(Box::new(error)))
        };
        Ok(chunks.map_err(failed).boxed())
    }

    /// DeleteObject; a missing object is no error.
    pub(super) async fn delete(&self, key: &str) -> Result<(), ErrorKind> {
        let found = match self.wire.looks_before_delete() {
            false => None,
            true => match self.head_headers(key, false).await {
                Err(ErrorKind::NotFound) => return Ok(()),
                found => Some(found?),
            },
        };
        let call = self.wire.delete_call(key, found.as_ref());
        match self.call(&call).await.map_err(|kind| self.not_found(kind)) {
            Ok(_) | Err(ErrorKind::NotFound) => Ok(()),
            Err(kind) => Err(kind),
        }
    }

    /// A failure after the answer was taken.
    pub(super) fn failed(&self, operation: &'static str, key: &str, fault: S3Fault) -> ErrorKind {
        ErrorKind::S3(Box::new(S3Error {
            store: self.wire.component(),
            operation,
            place: self.place(key),
            attempts: 1,
            fault,
        }))
    }

    fn place(&self, key: &str) -> String {
        self.address.destination(key)
    }

    /// A missing object is what callers ask for; a missing bucket is told as such where the answer
    /// says so (to HEAD it does not).
    fn not_found(&self, kind: ErrorKind) -> ErrorKind {
        match kind {
            ErrorKind::S3(error)
                if error
                    .fault
                    .refusal()
                    .is_some_and(|refusal| self.wire.is_missing(refusal)) =>
            {
                ErrorKind::NotFound
            }
            kind => kind,
        }
    }
}

fn refuses_question(refusal: Option<&Refusal>) -> bool {
    refusal.is_some_and(|refusal| {
        matches!(
            refusal.status,
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
        )
    })
}
