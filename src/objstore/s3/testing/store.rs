//! What the server keeps, what it refuses, and how it answers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use http::{HeaderValue, Response, StatusCode};
use md5::{Digest as _, Md5};
use serde::Deserialize;
use sha2::Sha256;

use super::{SeenRequest, google, text_header, uri_encoded};

const CRC64: &str = "x-amz-checksum-crc64nvme";
const CHECKSUM_MODE: &str = "x-amz-checksum-mode";

/// What the server does about `x-amz-checksum-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Checks, keeps and echoes, as AWS does.
    Echo,
    /// Takes no notice of them, as old servers do.
    Ignore,
    /// 501 NotImplemented, as R2 does.
    NotImplemented,
    /// 400 InvalidArgument, as B2 does.
    InvalidArgument,
}

pub(super) type Answer = Response<Bytes>;

/// Status and S3 code.
pub(super) type Refused = (u16, &'static str);

/// What answers requests, and keeps what they bring.
pub(super) trait Service: Send {
    /// Does what is asked for, or says why not; nothing is kept unless `keeps`.
    fn answer(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Answer;

    /// Every object, by bucket and name.
    fn contents(&self) -> BTreeMap<String, Bytes>;

    /// How many uploads are open that hold so many parts or more.
    fn uploads(&self, parts_min: usize) -> usize;

    /// From now on parts but the last are at least so long.
    fn set_part_bytes_min(&mut self, bytes: usize);
}

/// Objects and uploads in parts.
pub(super) struct Store {
    checksums: Checksums,
    /// Google's, with the public key that assertions must be signed with.
    google: Option<Vec<u8>>,
    /// Of parts but the last.
    part_bytes_min: usize,
    /// By `bucket/name`.
    objects: BTreeMap<String, Object>,
    /// By the object's `bucket/name` and an id.
    uploads: BTreeMap<(String, String), BTreeMap<u32, Bytes>>,
    uploads_ever: u32,
}

struct Object {
    content: Bytes,
    /// As it was sent.
    crc64: Option<HeaderValue>,
}

/// The document that completes an upload.
#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Part", default)]
    parts: Vec<ListedPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPart {
    #[serde(rename = "ETag")]
    etag: String,
    part_number: u32,
}

// === impl Store ===

impl Store {
    pub(super) fn new(checksums: Checksums) -> Self {
        Self {
            checksums,
            google: None,
            part_bytes_min: 0,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            uploads_ever: 0,
        }
    }

    pub(super) fn google(public_key: Vec<u8>) -> Self {
        Self {
            google: Some(public_key),
            ..Self::new(Checksums::Ignore)
        }
    }

    fn insert(&mut self, name: &str, content: Bytes, crc64: Option<HeaderValue>) {
        let object = Object { content, crc64 };
        self.objects.insert(name.to_owned(), object);
    }

    /// Refuses what a strict server refuses.
    fn checked(&self, seen: &SeenRequest, body: &[u8]) -> Result<(), Refused> {
        let header = |name: &str| seen.headers.get(name).map(HeaderValue::as_bytes);
        if header("transfer-encoding").is_some() || header("content-encoding").is_some() {
            return Err((501, "NotImplemented"));
        }
        let is_checksum = |name: &str| name.starts_with("x-amz-checksum-") && name != CHECKSUM_MODE;
        let has_checksum = seen.headers.keys().any(|name| is_checksum(name.as_str()));
        match self.checksums {
            Checksums::NotImplemented if has_checksum => return Err((501, "NotImplemented")),
            Checksums::InvalidArgument if has_checksum => return Err((400, "InvalidArgument")),
            _ => {}
        }
        // What completes an upload bears the checksum of the object.
        let is_content = ["PutObject", "UploadPart"].contains(&seen.operation);
        let crc64 = self.told(seen).filter(|_| is_content);
        let md5 = header("content-md5");
        if crc64.is_some_and(|crc64| crc64 != crc64_text(body).as_str())
            || md5.is_some_and(|md5| md5 != BASE64_STANDARD.encode(Md5::digest(body)).as_bytes())
        {
            return Err((400, "BadDigest"));
        }
        match header("x-amz-content-sha256") {
            Some(b"UNSIGNED-PAYLOAD") => Ok(()),
            Some(sha256) if sha256 == hex::encode(Sha256::digest(body)).as_bytes() => Ok(()),
            None if header("authorization").is_none() => Ok(()),
            _ => Err((400, "XAmzContentSHA256Mismatch")),
        }
    }

    fn perform(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Result<Answer, Refused> {
        let told = self.told(seen);
        let upload_id = seen.query.get("uploadId").cloned().unwrap_or_default();
        let upload_key = (seen.name.clone(), upload_id);
        let upload = self.uploads.get_mut(&upload_key);
        match seen.operation {
            "PutObject" => {
                let answer = stored(&body, told.as_ref());
                if keeps {
                    self.insert(&seen.name, body, told);
                }
                Ok(answer)
            }
            "CreateMultipartUpload" => Ok(self.create(&seen.name)),
            "UploadPart" => {
                let parts = upload.ok_or((404, "NoSuchUpload"))?;
                let number = seen.query.get("partNumber").map(|text| text.parse());
                let Some(Ok(number @ 1..=10_000)) = number else {
                    return Err((400, "InvalidArgument"));
                };
                let answer = stored(&body, told.as_ref());
                if keeps {
                    parts.insert(number, body);
                }
                Ok(answer)
            }
            "CompleteMultipartUpload" => {
                let parts = upload.ok_or((404, "NoSuchUpload"))?;
                let whole = whole(parts, &body, self.part_bytes_min)?;
                let answer = completed(&whole, told.as_ref())?;
                self.uploads.remove(&upload_key);
                if keeps {
                    self.insert(&seen.name, whole.into(), told);
                }
                Ok(answer)
            }
            "AbortMultipartUpload" => {
                upload.ok_or((404, "NoSuchUpload"))?;
                self.uploads.remove(&upload_key);
                Ok(plain(204, Bytes::new()))
            }
            "HeadObject" | "GetObject" => {
                let object = self.objects.get(&seen.name).ok_or((404, "NoSuchKey"))?;
                Ok(read(seen, object))
            }
            "DeleteObject" => {
                self.objects.remove(&seen.name);
                Ok(plain(204, Bytes::new()))
            }
            "GetBucketLocation" => Ok(document("<LocationConstraint/>")),
            "ListObjects" | "ListObjectsV2" => Ok(document(&self.listing(seen))),
            _ => Err((501, "NotImplemented")),
        }
    }

    fn create(&mut self, name: &str) -> Answer {
        self.uploads_ever += 1;
        let id = format!("upload/{}+=", self.uploads_ever);
        let answer = document(&format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        ));
        self.uploads.insert((name.to_owned(), id), BTreeMap::new());
        answer
    }

    /// The checksum that is kept and echoed.
    fn told(&self, seen: &SeenRequest) -> Option<HeaderValue> {
        let sent = seen.headers.get(CRC64)?;
        (self.checksums == Checksums::Echo).then(|| sent.clone())
    }

    /// A page of three names, to see pages turned.
    fn listing(&self, seen: &SeenRequest) -> String {
        const PAGE: usize = 3;
        let v1 = seen.operation == "ListObjects";
        let parameter = |name| seen.query.get(name).map_or("", String::as_str);
        let prefix = parameter("prefix");
        let after = parameter(if v1 { "marker" } else { "continuation-token" });
        let base = format!("{}/", seen.name);
        let mut names: Vec<String> = self
            .objects
            .keys()
            .filter_map(|name| name.strip_prefix(&base)?.strip_prefix(prefix))
            .map(|name| match name.split_once('/') {
                Some((directory, _)) => format!("{prefix}{directory}/"),
                None => format!("{prefix}{name}"),
            })
            .collect();
        names.dedup();
        names.retain(|name| name.as_str() > after);
        let mut text = format!(
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>",
            names.len() > PAGE
        );
        for name in names.iter().take(PAGE) {
            let encoded = uri_encoded(name, false);
            text.push_str(&match name.ends_with('/') {
                true => format!("<CommonPrefixes><Prefix>{encoded}</Prefix></CommonPrefixes>"),
                false => format!("<Contents><Key>{encoded}</Key></Contents>"),
            });
        }
        if let Some(last) = names.get(PAGE - 1).filter(|_| names.len() > PAGE) {
            // Markers are encoded like names, tokens are opaque.
            text.push_str(&match v1 {
                true => format!("<NextMarker>{}</NextMarker>", uri_encoded(last, false)),
                false => format!("<NextContinuationToken>{last}</NextContinuationToken>"),
            });
        }
        text.push_str("</ListBucketResult>");
        text
    }
}

impl Service for Store {
    fn answer(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Answer {
        let outcome = match &self.google {
            Some(key) if seen.operation == "Token" => google::token(key, &body),
            Some(_) => google::checked(seen, &body).and_then(|()| {
                let answer = self.perform(seen, body.clone(), keeps)?;
                let object = self.objects.get(&seen.name);
                let content = object.map(|object| object.content.clone());
                Ok(google::with_hash(seen, answer, &body, content.as_ref()))
            }),
            None => self
                .checked(seen, &body)
                .and_then(|()| self.perform(seen, body, keeps)),
        };
        outcome.unwrap_or_else(|(status, code)| refusal(status, code, &[]))
    }

    fn contents(&self) -> BTreeMap<String, Bytes> {
        let objects = self.objects.iter();
        objects
            .map(|(name, object)| (name.clone(), object.content.clone()))
            .collect()
    }

    fn uploads(&self, parts_min: usize) -> usize {
        let uploads = self.uploads.values();
        uploads.filter(|parts| parts.len() >= parts_min).count()
    }

    fn set_part_bytes_min(&mut self, bytes: usize) {
        self.part_bytes_min = bytes;
    }
}

/// The parts of an upload in one, as `body` lists them all.
fn whole(
    parts: &BTreeMap<u32, Bytes>,
    body: &[u8],
    part_bytes_min: usize,
) -> Result<Vec<u8>, Refused> {
    let text = String::from_utf8_lossy(body);
    let listed: Listed = quick_xml::de::from_str(&text).map_err(|_| (400, "MalformedXML"))?;
    let listed = listed.parts.iter();
    let listed = listed.map(|part| (part.part_number, part.etag.clone()));
    let held = parts.iter().map(|(number, part)| (*number, etag(part)));
    if parts.is_empty() || !listed.eq(held) {
        return Err((400, "InvalidPart"));
    }
    let mut all_but_last = parts.values().rev().skip(1);
    if all_but_last.any(|part| part.len() < part_bytes_min) {
        return Err((400, "EntityTooSmall"));
    }
    Ok(parts.values().flatten().copied().collect())
}

fn completed(whole: &[u8], told: Option<&HeaderValue>) -> Result<Answer, Refused> {
    let crc64 = crc64_text(whole);
    let told = match told {
        Some(told) if *told != *crc64 => return Err((400, "BadDigest")),
        Some(_) => format!(
            "<ChecksumCRC64NVME>{crc64}</ChecksumCRC64NVME>\
             <ChecksumType>FULL_OBJECT</ChecksumType>"
        ),
        None => String::new(),
    };
    Ok(document(&format!(
        "<CompleteMultipartUploadResult>{told}</CompleteMultipartUploadResult>"
    )))
}

/// The content, or the range of it that is asked for.
pub(super) fn ranged(seen: &SeenRequest, content: &Bytes) -> Answer {
    let range = seen.headers.get("range").and_then(|range| {
        let (start, end) = range
            .to_str()
            .ok()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let end = end.parse().unwrap_or(usize::MAX);
        Some(start.parse().ok()?..=end.min(content.len() - 1))
    });
    match range {
        Some(range) => plain(206, content.slice(range)),
        None => plain(200, content.clone()),
    }
}

fn read(seen: &SeenRequest, object: &Object) -> Answer {
    let mut answer = ranged(seen, &object.content);
    if let Some(crc64) = &object.crc64
        && seen.headers.contains_key(CHECKSUM_MODE)
    {
        let full = HeaderValue::from_static("FULL_OBJECT");
        answer.headers_mut().insert(CRC64, crc64.clone());
        answer.headers_mut().insert("x-amz-checksum-type", full);
    }
    answer
}

fn stored(body: &[u8], told: Option<&HeaderValue>) -> Answer {
    let mut answer = plain(200, Bytes::new());
    answer
        .headers_mut()
        .insert("etag", text_header(&etag(body)));
    if let Some(crc64) = told {
        answer.headers_mut().insert(CRC64, crc64.clone());
    }
    answer
}

/// Not the MD5 that some clients expect; real servers differ too.
fn etag(content: &[u8]) -> String {
    let crc64 = checksum(CrcAlgorithm::Crc64Xz, content);
    format!("\"{crc64:016x}<&>-of-its-own\"")
}

fn crc64_text(content: &[u8]) -> String {
    BASE64_STANDARD.encode(checksum(CrcAlgorithm::Crc64Nvme, content).to_be_bytes())
}

pub(super) fn plain(status: u16, body: Bytes) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).expect("tests have good statuses");
    let date = HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT");
    answer.headers_mut().insert("date", date);
    answer
}

/// Its last byte may go missing: what is left is a whole document all the same.
pub(super) fn document(text: &str) -> Answer {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}\n");
    plain(200, Bytes::from(text))
}

/// An error document, or none where there is no `code`.
pub(super) fn refusal(status: u16, code: &str, headers: &[(&'static str, &'static str)]) -> Answer {
    let body = document(&format!(
        "<Error><Code>{code}</Code><Message>as the test wants it</Message>\
         <RequestId>R-1</RequestId></Error>"
    ));
    let body = Some(body.into_body()).filter(|_| !code.is_empty());
    let mut answer = plain(status, body.unwrap_or_default());
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(*name, value);
    }
    answer
}
