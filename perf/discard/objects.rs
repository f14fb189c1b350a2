//! What the discarding server remembers, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::protocol::{Head, http_date};
use super::{BEGIN, PUT};

/// Checksums that are remembered and told back.
const CHECKSUMS: [&str; 5] = [
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc32",
    "x-amz-checksum-sha256",
    "x-amz-checksum-sha1",
];

/// What goes back.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Where it is not that of the body.
    pub(super) length: Option<u64>,
    pub(super) body: Vec<u8>,
}

/// Everything that was uploaded, without the bytes.
#[derive(Debug, Default)]
pub(super) struct Objects {
    stored: Mutex<Stored>,
    is_silent: bool,
}

#[derive(Debug, Default)]
struct Stored {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<u64, Upload>,
    uploads_begun: u64,
}

#[derive(Clone, Debug)]
struct Object {
    size_bytes: u64,
    etag: String,
    modified: Timestamp,
    checksums: Vec<(&'static str, String)>,
    /// Where it is small.
    body: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Upload {
    algorithm: Option<String>,
    parts: BTreeMap<u32, u64>,
}

impl Objects {
    /// For tests: says nothing on stdout.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        Self {
            is_silent: true,
            ..Self::default()
        }
    }

    /// Empties the bucket.
    pub(super) fn forget(&self) {
        let mut stored = self.lock();
        stored.objects.clear();
        stored.uploads.clear();
    }

    /// A request has begun to come.
    pub(super) fn begin(&self, head: &Head) -> io::Result<()> {
        let is_first = match head.method.as_str() {
            "PUT" => head.query("uploadId").is_none(),
            "POST" => head.query("uploads").is_some(),
            _ => false,
        };
        if is_first {
            self.tell(&format!("{BEGIN}{}", key(head)))
        } else {
            Ok(())
        }
    }

    /// Answers a request whose body was `length` bytes long.
    pub(super) fn answer(
        &self,
        head: &Head,
        length: u64,
        body: Option<Vec<u8>>,
    ) -> io::Result<Answer> {
        let upload = head.query("uploadId").and_then(|id| id.parse().ok());
        let key = key(head);
        Ok(match (head.method.as_str(), upload) {
            ("PUT", Some(id)) => self.put_part(head, id, length),
            ("POST", Some(id)) => {
                let answer = self.complete(head, id);
                self.tell_put(head)?;
                answer
            }
            ("DELETE", Some(id)) => {
                self.lock().uploads.remove(&id);
                Answer::empty("204 No Content")
            }
            ("POST", None) if head.query("uploads").is_some() => self.create(head),
            ("POST", None) if head.query("delete").is_some() => {
                Answer::xml("<DeleteResult></DeleteResult>".to_owned())
            }
            ("PUT", None) if !key.is_empty() => {
                let answer = self.put(head, length, body);
                self.tell_put(head)?;
                answer
            }
            ("DELETE", None) => {
                self.lock().objects.remove(key);
                Answer::empty("204 No Content")
            }
            ("GET", _) if head.query("location").is_some() => Answer::xml(
                "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>"
                    .to_owned(),
            ),
            ("GET", _) if key.is_empty() => self.list(head),
            ("GET" | "HEAD", _) => self.get(key, head.method == "HEAD"),
            _ => Answer::empty("501 Not Implemented"),
        })
    }

    fn put(&self, head: &Head, length: u64, body: Option<Vec<u8>>) -> Answer {
        // Signed chunks make the body longer than the object.
        let decoded = head.header("x-amz-decoded-content-length");
        let is_plain = decoded.is_none();
        let object = Object {
            size_bytes: decoded
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(length),
            etag: format!("\"put-{length}\""),
            modified: Timestamp::now(),
            checksums: checksums(head),
            body: body.filter(|_| is_plain),
        };
        let mut answer = Answer::empty("200 OK");
        answer.headers.push(("ETag", object.etag.clone()));
        answer.headers.extend(object.checksums.clone());
        self.lock().objects.insert(key(head).to_owned(), object);
        answer
    }

    fn create(&self, head: &Head) -> Answer {
        let mut stored = self.lock();
        stored.uploads_begun += 1;
        let id = stored.uploads_begun;
        let algorithm = head.header("x-amz-checksum-algorithm").map(str::to_owned);
        let upload = Upload {
            algorithm: algorithm.clone(),
            parts: BTreeMap::new(),
        };
        stored.uploads.insert(id, upload);
        let mut answer = Answer::xml(format!(
            "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key>\
             <UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
            super::BUCKET,
            escaped(key(head))
        ));
        for name in ["x-amz-checksum-algorithm", "x-amz-checksum-type"] {
            if let Some(value) = head.header(name) {
                answer.headers.push((name, value.to_owned()));
            }
        }
        answer
    }

    fn put_part(&self, head: &Head, id: u64, length: u64) -> Answer {
        let decoded = head.header("x-amz-decoded-content-length");
        let size_bytes = decoded
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(length);
        let number = head
            .query("partNumber")
            .and_then(|number| number.parse().ok());
        let mut stored = self.lock();
        let Some((upload, number)) = stored.uploads.get_mut(&id).zip(number) else {
            return Answer::error("404 Not Found", "NoSuchUpload");
        };
        upload.parts.insert(number, size_bytes);
        let mut answer = Answer::empty("200 OK");
        answer
            .headers
            .push(("ETag", format!("\"part-{number}-{size_bytes}\"")));
        answer.headers.extend(checksums(head));
        answer
    }

    fn complete(&self, head: &Head, id: u64) -> Answer {
        let mut stored = self.lock();
        let Some(upload) = stored.uploads.remove(&id) else {
            return Answer::error("404 Not Found", "NoSuchUpload");
        };
        let etag = format!("\"whole-{}\"", upload.parts.len());
        let checksums = checksums(head);
        let mut xml = format!(
            "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag>",
            super::BUCKET,
            escaped(key(head)),
            escaped(&etag)
        );
        for (name, value) in &checksums {
            let short = name
                .trim_start_matches("x-amz-checksum-")
                .to_ascii_uppercase();
            xml.push_str(&format!("<Checksum{short}>{value}</Checksum{short}>"));
        }
        if upload.algorithm.is_some() && !checksums.is_empty() {
            xml.push_str("<ChecksumType>FULL_OBJECT</ChecksumType>");
        }
        xml.push_str("</CompleteMultipartUploadResult>");
        let object = Object {
            size_bytes: upload.parts.values().sum(),
            etag,
            modified: Timestamp::now(),
            checksums,
            body: None,
        };
        stored.objects.insert(key(head).to_owned(), object);
        Answer::xml(xml)
    }

    fn get(&self, key: &str, is_head: bool) -> Answer {
        let stored = self.lock();
        let Some(object) = stored.objects.get(key) else {
            return Answer::empty("404 Not Found");
        };
        let mut answer = Answer::empty("200 OK");
        answer.headers.push(("ETag", object.etag.clone()));
        answer
            .headers
            .push(("Last-Modified", http_date(object.modified)));
        if !object.checksums.is_empty() {
            answer.headers.extend(object.checksums.clone());
            answer
                .headers
                .push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        }
        answer.length = Some(object.size_bytes);
        match &object.body {
            Some(body) => answer.body.clone_from(body),
            None if is_head => {}
            None => return Answer::error("501 Not Implemented", "Discarded"),
        }
        answer
    }

    /// All names at once; a run has some dozens.
    fn list(&self, head: &Head) -> Answer {
        let prefix = head.query("prefix").unwrap_or_default();
        let delimiter = head.query("delimiter").filter(|text| !text.is_empty());
        let stored = self.lock();
        let mut contents = String::new();
        let mut directories = BTreeSet::new();
        for (key, object) in &stored.objects {
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            match delimiter.and_then(|d| rest.split_once(d).zip(Some(d))) {
                Some(((first, _), d)) => {
                    directories.insert(format!("{prefix}{first}{d}"));
                }
                None => contents.push_str(&format!(
                    "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag>\
                     <LastModified>{}</LastModified></Contents>",
                    escaped(key),
                    object.size_bytes,
                    escaped(&object.etag),
                    object.modified
                )),
            }
        }
        let directories: String = directories
            .iter()
            .map(|name| {
                let name = escaped(name);
                format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>")
            })
            .collect();
        Answer::xml(format!(
            "<ListBucketResult><Name>{}</Name><Prefix>{}</Prefix><IsTruncated>false</IsTruncated>\
             {contents}{directories}</ListBucketResult>",
            super::BUCKET,
            escaped(prefix)
        ))
    }

    /// The object is there; one that is not was refused.
    fn tell_put(&self, head: &Head) -> io::Result<()> {
        let size_bytes = self
            .lock()
            .objects
            .get(key(head))
            .map(|object| object.size_bytes);
        match size_bytes {
            Some(bytes) => self.tell(&format!("{PUT}{} {bytes}", key(head))),
            None => Ok(()),
        }
    }

    fn tell(&self, event: &str) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{event}")?;
        stdout.flush()
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn empty(status: &'static str) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn xml(body: String) -> Self {
        Self {
            status: "200 OK",
            headers: vec![("Content-Type", "application/xml".to_owned())],
            length: None,
            body: format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}").into_bytes(),
        }
    }

    fn error(status: &'static str, code: &str) -> Self {
        Self {
            status,
            ..Self::xml(format!(
                "<Error><Code>{code}</Code><Message>{code}</Message></Error>"
            ))
        }
    }
}

/// The object's name: the path without the bucket.
fn key(head: &Head) -> &str {
    head.path.split_once('/').map_or("", |(_, key)| key)
}

fn checksums(head: &Head) -> Vec<(&'static str, String)> {
    let told = CHECKSUMS
        .iter()
        .filter_map(|name| Some((*name, head.header(name)?)));
    told.map(|(name, value)| (name, value.to_owned())).collect()
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
