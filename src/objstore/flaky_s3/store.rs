//! What the server keeps, and how it answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::{S3Checksums, S3Failure, S3Manners, S3Request, S3RequestKind};

const CRC64: &str = "x-amz-checksum-crc64nvme";

/// Objects and uploads in parts.
#[derive(Debug)]
pub(super) struct Store {
    manners: S3Manners,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    uploads_begun: u64,
}

#[derive(Debug)]
struct Object {
    content: Bytes,
    crc64: Option<String>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    parts: BTreeMap<u32, Bytes>,
}

/// An answer before it is put into bytes.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

// === impl Store ===

impl Store {
    pub(super) fn new(manners: S3Manners) -> Self {
        Self {
            manners,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            uploads_begun: 0,
        }
    }

    pub(super) fn objects(&self) -> BTreeMap<String, Bytes> {
        let objects = self.objects.iter();
        objects
            .map(|(key, object)| (key.clone(), object.content.clone()))
            .collect()
    }

    pub(super) fn open_uploads(&self) -> usize {
        let uploads = self.uploads.values();
        uploads.filter(|upload| !upload.parts.is_empty()).count()
    }

    pub(super) fn insert(&mut self, key: &str, content: Bytes, crc64: Option<String>) {
        self.objects
            .insert(key.to_owned(), Object { content, crc64 });
    }

    pub(super) fn answer(&mut self, request: &S3Request, fault: Option<S3Failure>) -> Answer {
        let answer = self.checked(request);
        match answer.and_then(|()| self.act(request, fault)) {
            Ok(answer) | Err(answer) => answer,
        }
    }

    /// Refuses what a strict server refuses.
    fn checked(&self, request: &S3Request) -> Result<(), Answer> {
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let body = &request.body;
        if header("x-amz-content-sha256").is_some_and(|sha| sha.starts_with("STREAMING"))
            || header("content-encoding").is_some_and(|encoding| encoding.contains("aws-chunked"))
            || header("transfer-encoding").is_some()
        {
            return Err(Answer::error(501, "NotImplemented"));
        }
        match header("x-amz-content-sha256") {
            Some("UNSIGNED-PAYLOAD") => {}
            Some(sha) if sha == hex::encode(Sha256::digest(body)) => {}
            _ => return Err(Answer::error(400, "XAmzContentSHA256Mismatch")),
        }
        if header("content-md5").is_some_and(|md5| md5 != base64(&Md5::digest(body))) {
            return Err(Answer::error(400, "BadDigest"));
        }
        let names = request.headers.keys();
        let mut checksums = names.filter(|name| name.starts_with("x-amz-checksum-"));
        match self.manners.checksums {
            S3Checksums::Ignored => Ok(()),
            S3Checksums::Refused => match checksums.find(|name| *name != "x-amz-checksum-mode") {
                Some(_) => Err(Answer::error(501, "NotImplemented")),
                None => Ok(()),
            },
            S3Checksums::Honoured => match (request.kind, header(CRC64)) {
                (S3RequestKind::Put | S3RequestKind::Part, Some(crc)) if crc != crc64(body) => {
                    Err(Answer::error(400, "BadDigest"))
                }
                _ => Ok(()),
            },
        }
    }

    fn act(&mut self, request: &S3Request, fault: Option<S3Failure>) -> Result<Answer, Answer> {
        let keeps = fault != Some(S3Failure::LoseObject);
        match request.kind {
            S3RequestKind::Put => {
                let told = self.told(request);
                if keeps {
                    self.insert(&request.key, request.body.clone(), told.clone());
                }
                Ok(stored(&request.body, told))
            }
            S3RequestKind::Create => Ok(self.create(request)),
            S3RequestKind::Part => {
                let told = self.told(request);
                let upload = self.upload_mut(request)?;
                let number = request.query.get("partNumber").map(|n| n.parse());
                let Some(Ok(number @ 1..=10_000)) = number else {
                    return Err(Answer::error(400, "InvalidArgument"));
                };
                if keeps {
                    upload.parts.insert(number, request.body.clone());
                }
                Ok(stored(&request.body, told))
            }
            S3RequestKind::Complete => self.complete(request, fault),
            S3RequestKind::Abort => {
                self.upload_mut(request)?;
                self.uploads.remove(&request.query["uploadId"]);
                Ok(Answer::empty(204))
            }
            S3RequestKind::Head | S3RequestKind::Get => self.read(request),
            S3RequestKind::Delete => {
                self.objects.remove(&request.key);
                Ok(Answer::empty(204))
            }
            S3RequestKind::List => Ok(self.list(request)),
            S3RequestKind::Location => Ok(Answer::xml(
                "<LocationConstraint>eu-west-3</LocationConstraint>".to_owned(),
            )),
            S3RequestKind::Other => Err(Answer::error(501, "NotImplemented")),
        }
    }

    fn told(&self, request: &S3Request) -> Option<String> {
        let sent = request.headers.get(CRC64)?;
        (self.manners.checksums == S3Checksums::Honoured).then(|| sent.clone())
    }

    fn upload_mut(&mut self, request: &S3Request) -> Result<&mut Upload, Answer> {
        let id = request.query.get("uploadId").map_or("", String::as_str);
        match self.uploads.get_mut(id) {
            Some(upload) if upload.key == request.key => Ok(upload),
            _ => Err(Answer::error(404, "NoSuchUpload")),
        }
    }

    fn create(&mut self, request: &S3Request) -> Answer {
        self.uploads_begun += 1;
        let id = format!("upload/{}+=", self.uploads_begun);
        self.uploads.insert(
            id.clone(),
            Upload {
                key: request.key.clone(),
                parts: BTreeMap::new(),
            },
        );
        let mut answer = Answer::xml(format!(
            "<InitiateMultipartUploadResult><Key>{}</Key><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>",
            request.key
        ));
        if self.manners.checksums == S3Checksums::Honoured {
            for name in ["x-amz-checksum-algorithm", "x-amz-checksum-type"] {
                if let Some(value) = request.headers.get(name) {
                    answer.headers.push((name, value.clone()));
                }
            }
        }
        answer
    }

    fn complete(
        &mut self,
        request: &S3Request,
        fault: Option<S3Failure>,
    ) -> Result<Answer, Answer> {
        let part_bytes_min = self.manners.part_bytes_min;
        let upload = self.upload_mut(request)?;
        let text = std::str::from_utf8(&request.body).unwrap_or_default();
        let listed = listed_parts(text);
        let mut content = Vec::new();
        for (position, (number, etag)) in listed.iter().enumerate() {
            let part = upload
                .parts
                .get(number)
                .filter(|part| *etag == etag_of(part));
            let Some(part) = part else {
                return Err(Answer::error(400, "InvalidPart"));
            };
            if part.len() < part_bytes_min && position + 1 < listed.len() {
                return Err(Answer::error(400, "EntityTooSmall"));
            }
            content.extend_from_slice(part);
        }
        if listed.is_empty() || !listed.is_sorted() {
            return Err(Answer::error(400, "InvalidPartOrder"));
        }
        let combined = request.headers.get(CRC64).cloned();
        let honoured = self.manners.checksums == S3Checksums::Honoured;
        if honoured
            && combined
                .as_ref()
                .is_some_and(|sent| *sent != crc64(&content))
        {
            return Err(Answer::error(400, "BadDigest"));
        }
        self.uploads.remove(&request.query["uploadId"]);
        let told = combined.filter(|_| honoured);
        if fault != Some(S3Failure::LoseObject) {
            self.insert(&request.key, content.into(), told.clone());
        }
        let checksum = told.map(|crc| format!("<ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME>"));
        Ok(Answer::xml(format!(
            "<CompleteMultipartUploadResult><Key>{}</Key><ETag>\"whole-{}\"</ETag>{}\
             </CompleteMultipartUploadResult>",
            request.key,
            listed.len(),
            checksum.unwrap_or_default()
        )))
    }

    fn read(&self, request: &S3Request) -> Result<Answer, Answer> {
        let Some(object) = self.objects.get(&request.key) else {
            return Err(Answer::error(404, "NoSuchKey"));
        };
        let mut answer = Answer::empty(200);
        answer.body = object.content.clone();
        let modified = "Mon, 23 Nov 2026 04:05:06 GMT".to_owned();
        answer.headers.push(("Last-Modified", modified));
        answer.headers.push(("ETag", etag_of(&object.content)));
        let wants = request.headers.get("x-amz-checksum-mode");
        if let (Some(crc), Some(_)) = (&object.crc64, wants) {
            answer.headers.push((CRC64, crc.clone()));
            answer
                .headers
                .push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        }
        Ok(answer)
    }

    fn list(&self, request: &S3Request) -> Answer {
        let prefix = request.query.get("prefix").map_or("", String::as_str);
        let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        let mut directories = Vec::new();
        for key in self.objects.keys().filter(|key| key.starts_with(prefix)) {
            let rest = key.get(prefix.len()..).unwrap_or_default();
            match rest.split_once('/') {
                Some((directory, _)) if request.query.contains_key("delimiter") => {
                    directories.push(format!("{prefix}{directory}/"));
                }
                _ => {
                    write!(body, "<Contents><Key>{key}</Key></Contents>").expect("a string grows");
                }
            }
        }
        directories.dedup();
        for directory in directories {
            let element = format!("<CommonPrefixes><Prefix>{directory}</Prefix></CommonPrefixes>");
            body.push_str(&element);
        }
        body.push_str("</ListBucketResult>");
        Answer::xml(body)
    }
}

/// `(number, entity tag)` of each part that completing lists.
fn listed_parts(text: &str) -> Vec<(u32, String)> {
    let field = |part: &str, name: &str| -> Option<String> {
        let (_, rest) = part.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(value.replace("&quot;", "\""))
    };
    let parts = text.split("<Part>").skip(1);
    parts
        .filter_map(|part| {
            let number = field(part, "PartNumber")?.parse().ok()?;
            Some((number, field(part, "ETag")?))
        })
        .collect()
}

fn stored(body: &Bytes, crc64: Option<String>) -> Answer {
    let mut answer = Answer::empty(200);
    answer.headers.push(("ETag", etag_of(body)));
    if let Some(crc64) = crc64 {
        answer.headers.push((CRC64, crc64));
    }
    answer
}

fn etag_of(content: &[u8]) -> String {
    // Not the MD5 that some clients expect; real servers differ too.
    format!("\"{:016x}\"", checksum(CrcAlgorithm::Crc64Xz, content))
}

fn crc64(content: &[u8]) -> String {
    base64(&checksum(CrcAlgorithm::Crc64Nvme, content).to_be_bytes())
}

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

// === impl Answer ===

impl Answer {
    fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    fn xml(body: String) -> Self {
        Self {
            status: 200,
            headers: vec![("Content-Type", "application/xml".to_owned())],
            body: body.into(),
        }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>as the test wants</Message><RequestId>1</RequestId></Error>"
        );
        Self {
            status,
            ..Self::xml(body)
        }
    }

    /// As it goes over the wire; a HEAD request gets no body and its length all the same.
    pub(super) fn to_bytes(&self, is_head: bool) -> Vec<u8> {
        let length = self.body.len();
        let mut text = format!("HTTP/1.1 {} X\r\nContent-Length: {length}\r\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}
