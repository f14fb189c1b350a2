//! What differs between S3 and the stores that are spoken to like it: names of requests and
//! headers, checksums, the form of listings, and how a request proves in whose name it is.
//!
//! Everything that decides whether bytes arrive whole and what they cost (reading, summing,
//! sending, judging progress, trying again, going on after a crash) is the same for all of them
//! and stands in the other files here. The methods that a [`Wire`] does not write itself are S3's.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::address::uri_encoded;
use super::error::{Refusal, S3Fault};
use super::integrity::{S3Integrity, Sums, crc64_text};
use super::object::{
    CHECKSUM_CRC64NVME, CHECKSUM_TYPE, creation_headers, key_headers, md5_header, text_header,
};
use super::request::{Call, Check, Reply};
use super::xml::{self, ListPage, XmlError};
use super::{ListVersion, S3Config};
use crate::objstore::{MultipartState, SentPart};

const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
const FULL_OBJECT: HeaderValue = HeaderValue::from_static("FULL_OBJECT");

/// A header that protects a body, and what the answer says where the store has checked it.
pub(in crate::objstore) struct Protection {
    pub(in crate::objstore) header: (HeaderName, HeaderValue),
    /// What [`Wire::echoed`] must give where it gives something.
    pub(in crate::objstore) echo: Option<String>,
}

/// A request that is about to be sent.
pub(in crate::objstore) struct Sending<'a> {
    pub(in crate::objstore) method: &'a Method,
    pub(in crate::objstore) url: &'a mut String,
    pub(in crate::objstore) headers: &'a mut HeaderMap,
    /// Of the body, in bytes.
    pub(in crate::objstore) length: u64,
    /// The time for signatures.
    pub(in crate::objstore) now_ns: i128,
}

/// What can be done about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::objstore) enum Mend {
    /// Nothing.
    No,
    /// Something was done: the request is worth another try.
    Again,
    /// The bucket is to be made, by [`Wire::creation_call`].
    Create,
}

/// How a store is spoken to.
#[async_trait]
pub(in crate::objstore) trait Wire: fmt::Debug + Send + Sync {
    /// What logs and errors call the store.
    fn component(&self) -> &'static str;

    /// The check to begin with and the one for servers that don't take it; `None` where the
    /// configuration says.
    fn checks(&self) -> Option<(S3Integrity, Option<S3Integrity>)> {
        None
    }

    /// Where a request goes, unless that is what the configuration's address says.
    async fn url(&self, _call: &Call<'_>) -> Result<Option<String>, S3Fault> {
        Ok(None)
    }

    /// Proves in whose name the request is; it comes last.
    async fn authorize(&self, _sending: &mut Sending<'_>) -> Result<(), S3Fault> {
        Ok(())
    }

    /// What can be done about a refusal. Asked until it has helped once for a call.
    fn mend(&self, _refusal: &Refusal) -> Mend {
        Mend::No
    }

    /// Makes the bucket.
    fn creation_call(&self) -> Call<'static> {
        Call::new("CreateBucket", Method::PUT, None)
    }

    /// What an operator can do about a refusal.
    fn remedy(&self) -> fn(&Refusal) -> Option<&'static str> {
        Refusal::s3_remedy
    }

    /// The header for `check`; `None` where nothing protects the body.
    fn protection(&self, check: S3Integrity, sums: &Sums) -> Option<Protection>;

    /// The check's value that an answer bears.
    fn echoed(&self, headers: &HeaderMap) -> Option<String>;

    /// Whether HEAD may ask for checksums.
    fn asks_checksum(&self) -> bool {
        false
    }

    /// Whether a refusal says that there is no such object.
    fn is_missing(&self, refusal: &Refusal) -> bool {
        refusal.status == StatusCode::NOT_FOUND && refusal.code == "NoSuchKey"
    }

    /// Whether a refusal says that an upload in parts, or a part of it, is not there any more.
    fn is_gone(&self, _operation: &'static str, refusal: &Refusal) -> bool {
        ["NoSuchUpload", "InvalidPart"].contains(&refusal.code.as_str())
    }

    /// Writes an object whole.
    fn put_call<'a>(&self, config: &S3Config, key: &'a str) -> Call<'a> {
        let mut call = Call::new("PutObject", Method::PUT, Some(key));
        call.headers = creation_headers(config);
        call
    }

    /// Most parts of one object.
    fn parts_max(&self) -> u64 {
        10_000
    }

    /// Begins an upload in parts; `None` where its name is made here and nobody need be told.
    fn begin_call<'a>(
        &self,
        config: &S3Config,
        key: &'a str,
        check: S3Integrity,
    ) -> Option<Call<'a>> {
        Some(begin_call(config, key, check))
    }

    /// Frees the object's name of parts that others left, where theirs would be in the way of ours;
    /// asked where the upload's name is made here.
    fn clearing_call<'a>(&self, _: &S3Config, _: &'a str) -> Option<Call<'a>> {
        None
    }

    /// The new upload's name.
    fn upload_id(&self, body: &[u8]) -> Result<String, XmlError> {
        xml::initiated(body)
    }

    /// Writes a part.
    fn part_call<'a>(
        &self,
        config: &S3Config,
        key: &'a str,
        upload_id: &str,
        number: u32,
    ) -> Call<'a> {
        let mut call = Call::new("UploadPart", Method::PUT, Some(key));
        call.query = format!(
            "partNumber={number}&uploadId={}",
            uri_encoded(upload_id, false)
        );
        call.headers = key_headers(config);
        call
    }

    /// What completing the upload calls a part.
    fn part_tag(&self, _upload_id: &str, _number: u32, reply: &Reply) -> Result<String, S3Fault> {
        let etag = reply.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        etag.map(str::to_owned).ok_or(S3Fault::Header("etag"))
    }

    /// Makes the parts an object, by this body.
    fn complete_call<'a>(
        &self,
        config: &S3Config,
        key: &'a str,
        parts: &Parts<'_>,
    ) -> (Call<'a>, Bytes) {
        complete_call(config, key, parts.state, None)
    }

    /// Frees the parts; `None` where they go by themselves.
    fn abort_call<'a>(&self, key: &'a str, upload_id: &str) -> Option<Call<'a>> {
        let mut call = Call::new("AbortMultipartUpload", Method::DELETE, Some(key));
        call.query = format!("uploadId={}", uri_encoded(upload_id, false));
        Some(call)
    }

    /// Asks for the names of the parts that are left, where each is an object of its own.
    fn leftovers_call(&self, _key: &str, _upload_id: &str) -> Option<Call<'static>> {
        None
    }

    /// Removes a part by its name in that list.
    fn leftover_call(&self, _name: &str) -> Call<'static> {
        Call::new("DeleteObject", Method::DELETE, None)
    }

    /// Removes an object; `found` is what HEAD says of it, where that is asked for.
    fn delete_call<'a>(&self, key: &'a str, _found: Option<&HeaderMap>) -> Call<'a> {
        Call::new("DeleteObject", Method::DELETE, Some(key))
    }

    /// Whether an object is looked at before it is removed.
    fn looks_before_delete(&self) -> bool {
        false
    }

    /// Asks for the page of `prefix`'s children after `after`.
    fn list_call(&self, config: &S3Config, prefix: &str, after: Option<&str>) -> Call<'static> {
        list_call(config.list_version, prefix, after)
    }

    /// Reads a page.
    fn list_page(&self, body: &[u8]) -> Result<ListPage, XmlError> {
        xml::list_page(body)
    }
}

/// What an upload in parts is completed from.
pub(in crate::objstore) struct Parts<'a> {
    /// The upload.
    pub(in crate::objstore) state: &'a MultipartState,
    /// Of the whole object, in bytes.
    pub(in crate::objstore) size_bytes: u64,
    /// Of the whole object.
    pub(in crate::objstore) crc64: u64,
}

impl Parts<'_> {
    /// The parts with their lengths, in order.
    pub(in crate::objstore) fn each(&self) -> impl Iterator<Item = (u32, &SentPart, u64)> {
        let part_bytes = self.state.part_bytes.get();
        self.state.parts.iter().map(move |(number, part)| {
            let start = u64::from(number.saturating_sub(1)).saturating_mul(part_bytes);
            let length = self.size_bytes.saturating_sub(start).min(part_bytes);
            (*number, part, length)
        })
    }
}

/// S3 itself, and every server that speaks it.
#[derive(Debug)]
pub(in crate::objstore) struct S3Wire {
    pub(in crate::objstore) remedy: fn(&Refusal) -> Option<&'static str>,
}

impl Wire for S3Wire {
    fn component(&self) -> &'static str {
        "s3"
    }

    fn remedy(&self) -> fn(&Refusal) -> Option<&'static str> {
        self.remedy
    }

    fn protection(&self, check: S3Integrity, sums: &Sums) -> Option<Protection> {
        match (check, &sums.md5) {
            (S3Integrity::Crc64Nvme, _) => {
                let text = crc64_text(sums.crc64);
                Some(Protection {
                    header: (CHECKSUM_CRC64NVME, text_header(&text)),
                    echo: Some(text),
                })
            }
            (S3Integrity::ContentMd5, Some(md5)) => Some(Protection::content_md5(md5)),
            _ => None,
        }
    }

    fn echoed(&self, headers: &HeaderMap) -> Option<String> {
        let value = headers.get(CHECKSUM_CRC64NVME)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    fn asks_checksum(&self) -> bool {
        true
    }

    fn complete_call<'a>(
        &self,
        config: &S3Config,
        key: &'a str,
        parts: &Parts<'_>,
    ) -> (Call<'a>, Bytes) {
        let with_crc = parts.state.integrity == S3Integrity::Crc64Nvme.name();
        complete_call(config, key, parts.state, with_crc.then_some(parts.crc64))
    }
}

impl Protection {
    /// `Content-MD5`, which servers check and don't repeat.
    pub(in crate::objstore) fn content_md5(md5: &[u8; 16]) -> Self {
        let name = HeaderName::from_static("content-md5");
        Self {
            header: (name, md5_header(md5)),
            echo: None,
        }
    }
}

fn begin_call<'a>(config: &S3Config, key: &'a str, check: S3Integrity) -> Call<'a> {
    let mut call = Call::new("CreateMultipartUpload", Method::POST, Some(key));
    call.query = "uploads=".to_owned();
    call.headers = creation_headers(config);
    if check == S3Integrity::Crc64Nvme {
        let algorithm = HeaderValue::from_static("CRC64NVME");
        call.headers.insert(CHECKSUM_ALGORITHM, algorithm);
        call.headers.insert(CHECKSUM_TYPE, FULL_OBJECT);
    }
    call.check = Some(|body| xml::initiated(body).map(drop));
    call
}

fn complete_call<'a>(
    config: &S3Config,
    key: &'a str,
    state: &MultipartState,
    whole: Option<u64>,
) -> (Call<'a>, Bytes) {
    let parts = state.parts.iter().map(|(number, part)| {
        let crc = whole.map(|_| crc64_text(part.crc64));
        (*number, part.etag.as_str(), crc)
    });
    let body = Bytes::from(xml::complete_request(parts));
    let mut call = Call::new("CompleteMultipartUpload", Method::POST, Some(key));
    call.query = format!("uploadId={}", uri_encoded(&state.upload_id, false));
    call.headers = key_headers(config);
    if let Some(crc64) = whole {
        let text = text_header(&crc64_text(crc64));
        call.headers.insert(CHECKSUM_CRC64NVME, text);
        call.headers.insert(CHECKSUM_TYPE, FULL_OBJECT);
    }
    let check: Check = |body| xml::completed(body).map(drop);
    call.check = Some(check);
    (call, body)
}

fn list_call(version: ListVersion, prefix: &str, after: Option<&str>) -> Call<'static> {
    let (operation, after_name) = match version {
        ListVersion::V1 => ("ListObjects", "marker"),
        ListVersion::V2 => ("ListObjectsV2", "continuation-token"),
    };
    let mut query = Query::default();
    // In the order of their names, as signatures want them.
    if let (ListVersion::V2, Some(after)) = (version, after) {
        query.add(after_name, after);
    }
    query.add("delimiter", "/");
    query.add("encoding-type", "url");
    match version {
        ListVersion::V1 => {
            if let Some(after) = after {
                query.add(after_name, after);
            }
        }
        ListVersion::V2 => query.add("list-type", "2"),
    }
    query.add("prefix", prefix);
    let mut call = Call::new(operation, Method::GET, None);
    call.query = query.0;
    call.check = Some(|body| xml::list_page(body).map(drop));
    call
}

/// A query in the making, encoded.
#[derive(Debug, Default)]
pub(in crate::objstore) struct Query(pub(in crate::objstore) String);

impl Query {
    pub(in crate::objstore) fn add(&mut self, name: &str, value: &str) {
        let mark = if self.0.is_empty() { "" } else { "&" };
        let value = uri_encoded(value, false);
        self.0.push_str(&format!("{mark}{name}={value}"));
    }
}

/// `application/octet-stream`, for stores that keep what they are told.
pub(in crate::objstore) fn octets(headers: &mut HeaderMap) {
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
}
