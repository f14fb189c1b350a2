//! What differs between S3 and Swift ("Object Storage API"; "Static large objects", "Dynamic large
//! objects").

use async_trait::async_trait;
use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::SwiftAccess;
use super::login::Asking;
use crate::model::Clock;
use crate::objstore::Refusal;
use crate::objstore::s3::{
    Call, ListPage, Mend, Parts, Protection, Query, Reply, S3Config, S3Fault, S3Integrity,
    SdkClient, Sending, Sums, Wire, XmlError, octets, text_header, uri_encoded,
};
use crate::objstore::token::{Tokens, secret_header};

/// Segments of one object that a cluster takes where its operator has not said otherwise
/// (`max_manifest_segments`).
const SEGMENTS_MAX: u64 = 1000;
/// Names of a page: what a cluster gives where its operator has not said otherwise
/// (`container_listing_limit`), and more than an object has segments.
const PAGE_NAMES: usize = 10_000;
/// Where segments stand, in the container that has them.
const SEGMENTS: &str = "segments";

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const IS_STATIC: HeaderName = HeaderName::from_static("x-static-large-object");
const OBJECT_MANIFEST: HeaderName = HeaderName::from_static("x-object-manifest");

/// Swift's own API.
#[derive(Debug)]
pub(in crate::objstore) struct SwiftWire {
    tokens: Tokens,
    container: String,
    /// The container of segments, maybe the same.
    segments: String,
    /// Manifests that name a prefix, not each segment.
    dynamic: bool,
}

/// A line of a listing: an object or a directory.
#[derive(Deserialize)]
struct Line {
    name: Option<String>,
    subdir: Option<String>,
}

/// A segment in a manifest.
#[derive(Serialize)]
struct Segment<'a> {
    path: String,
    etag: &'a str,
    size_bytes: u64,
}

// === impl SwiftWire ===

impl SwiftWire {
    pub(in crate::objstore) fn new(
        access: &SwiftAccess,
        client: SdkClient,
        clock: Clock,
        (container, segments): (&str, &str),
        dynamic: bool,
    ) -> Self {
        let source = Asking {
            access: access.clone(),
            client,
            clock: clock.clone(),
        };
        Self {
            tokens: Tokens::new("swift", source, clock),
            container: container.to_owned(),
            segments: segments.to_owned(),
            dynamic,
        }
    }

    /// The name of a segment in its container.
    fn segment(key: &str, upload_id: &str, number: u32) -> String {
        format!("{SEGMENTS}/{key}/{upload_id}/{number:08}")
    }

    fn in_segments(&self, name: &str) -> String {
        let container = uri_encoded(&self.segments, false);
        format!("{container}/{}", uri_encoded(name, true))
    }
}

#[async_trait]
impl Wire for SwiftWire {
    fn component(&self) -> &'static str {
        "swift"
    }

    fn checks(&self) -> Option<(S3Integrity, Option<S3Integrity>)> {
        Some((S3Integrity::ContentMd5, None))
    }

    async fn url(&self, call: &Call<'_>) -> Result<Option<String>, S3Fault> {
        let token = self.tokens.current().await?;
        let place = token.place.as_deref().unwrap_or_default();
        let below = match (&call.elsewhere, call.key) {
            (Some(elsewhere), _) => elsewhere.clone(),
            (None, None) => uri_encoded(&self.container, false),
            (None, Some(key)) => {
                let container = uri_encoded(&self.container, false);
                format!("{container}/{}", uri_encoded(key, true))
            }
        };
        let mark = if call.query.is_empty() { "" } else { "?" };
        Ok(Some(format!("{place}/{below}{mark}{}", call.query)))
    }

    async fn authorize(&self, sending: &mut Sending<'_>) -> Result<(), S3Fault> {
        let token = self.tokens.current().await?;
        sending
            .headers
            .insert(AUTH_TOKEN, secret_header(&token.text)?);
        Ok(())
    }

    fn mend(&self, refusal: &Refusal) -> Mend {
        match refusal.status {
            StatusCode::UNAUTHORIZED => {
                self.tokens.invalidate();
                Mend::Again
            }
            _ => Mend::No,
        }
    }

    fn remedy(&self) -> fn(&Refusal) -> Option<&'static str> {
        remedy
    }

    /// The server compares what it got with the tag that it is told.
    fn protection(&self, check: S3Integrity, sums: &Sums) -> Option<Protection> {
        let md5 = sums.md5.filter(|_| check == S3Integrity::ContentMd5)?;
        let text = hex::encode(md5);
        Some(Protection {
            header: (ETAG, text_header(&text)),
            echo: Some(text),
        })
    }

    fn echoed(&self, headers: &HeaderMap) -> Option<String> {
        let etag = headers.get(ETAG)?.to_str().ok()?;
        Some(etag.trim_matches('"').to_owned())
    }

    fn parts_max(&self) -> u64 {
        SEGMENTS_MAX
    }

    /// A segment that the manifest names and the container has not, or has otherwise.
    fn is_gone(&self, operation: &'static str, refusal: &Refusal) -> bool {
        operation == "PutManifest" && refusal.status == StatusCode::BAD_REQUEST
    }

    fn put_call<'a>(&self, _: &S3Config, key: &'a str) -> Call<'a> {
        let mut call = Call::new("PutObject", Method::PUT, Some(key));
        octets(&mut call.headers);
        call
    }

    fn begin_call<'a>(&self, _: &S3Config, _: &'a str, _: S3Integrity) -> Option<Call<'a>> {
        None
    }

    fn part_call<'a>(&self, _: &S3Config, key: &'a str, upload_id: &str, number: u32) -> Call<'a> {
        let mut call = Call::new("PutSegment", Method::PUT, Some(key));
        call.elsewhere = Some(self.in_segments(&Self::segment(key, upload_id, number)));
        octets(&mut call.headers);
        call
    }

    fn part_tag(&self, _: &str, _: u32, reply: &Reply) -> Result<String, S3Fault> {
        self.echoed(&reply.headers).ok_or(S3Fault::Header("etag"))
    }

    fn complete_call<'a>(
        &self,
        _: &S3Config,
        key: &'a str,
        parts: &Parts<'_>,
    ) -> (Call<'a>, Bytes) {
        let mut call = Call::new("PutManifest", Method::PUT, Some(key));
        octets(&mut call.headers);
        let upload_id = &parts.state.upload_id;
        if self.dynamic {
            let prefix = self.in_segments(&format!("{SEGMENTS}/{key}/{upload_id}/"));
            call.headers.insert(OBJECT_MANIFEST, text_header(&prefix));
            return (call, Bytes::new());
        }
        call.query = "multipart-manifest=put".to_owned();
        let segments: Vec<_> = parts
            .each()
            .map(|(number, part, size_bytes)| {
                let name = Self::segment(key, upload_id, number);
                Segment {
                    path: format!("/{}/{name}", self.segments),
                    etag: &part.etag,
                    size_bytes,
                }
            })
            .collect();
        let body = serde_json::to_vec(&segments).expect("texts and numbers are JSON");
        (call, body.into())
    }

    fn leftovers_call(&self, key: &str, upload_id: &str) -> Option<Call<'static>> {
        let mut query = Query::default();
        query.add("format", "json");
        query.add("limit", &PAGE_NAMES.to_string());
        query.add("prefix", &format!("{SEGMENTS}/{key}/{upload_id}/"));
        let mut call = Call::new("ListObjects", Method::GET, None);
        call.elsewhere = Some(uri_encoded(&self.segments, false));
        call.query = query.0;
        call.check = Some(|body| lines(body).map(drop));
        Some(call)
    }

    fn leftover_call(&self, name: &str) -> Call<'static> {
        let mut call = Call::new("DeleteObject", Method::DELETE, None);
        call.elsewhere = Some(self.in_segments(name));
        call
    }

    fn looks_before_delete(&self) -> bool {
        true
    }

    fn delete_call<'a>(&self, key: &'a str, found: Option<&HeaderMap>) -> Call<'a> {
        let mut call = Call::new("DeleteObject", Method::DELETE, Some(key));
        let is_static = found.and_then(|headers| headers.get(IS_STATIC));
        if is_static.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")) {
            // With its segments. That some could not be removed stands in the answer's body.
            call.query = "format=json&multipart-manifest=delete".to_owned();
            let json = HeaderValue::from_static("application/json");
            call.headers.insert("accept", json);
        }
        call
    }

    fn list_call(&self, _: &S3Config, prefix: &str, after: Option<&str>) -> Call<'static> {
        let mut query = Query::default();
        query.add("delimiter", "/");
        query.add("format", "json");
        if let Some(after) = after {
            query.add("marker", after);
        }
        query.add("prefix", prefix);
        let mut call = Call::new("ListObjects", Method::GET, None);
        call.query = query.0;
        call.check = Some(|body| lines(body).map(drop));
        call
    }

    /// Every page but an empty one may have another after it: clusters choose how long they are.
    fn list_page(&self, body: &[u8]) -> Result<ListPage, XmlError> {
        let own = format!("{SEGMENTS}/");
        let hides = |name: &str| self.segments == self.container && name == own;
        let mut page = ListPage::default();
        for line in lines(body)? {
            page.next = line.name.clone().or_else(|| line.subdir.clone());
            page.keys.extend(line.name);
            page.prefixes
                .extend(line.subdir.filter(|name| !hides(name)));
        }
        Ok(page)
    }
}

/// An empty listing may be an answer without a body.
fn lines(body: &[u8]) -> Result<Vec<Line>, XmlError> {
    match body.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(serde_json::from_slice(body)?),
    }
}

fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.status {
        StatusCode::UNAUTHORIZED => {
            "Swift does not take the token: check the login, `project_name` and `region_name`"
        }
        StatusCode::FORBIDDEN => {
            "the user needs a role that may write in the project (member, or one that the \
             container's ACL names)"
        }
        StatusCode::NOT_FOUND => {
            "create the container, or correct `container_name` and \
             `large_object_segments_container_name`"
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            "the cluster takes no objects or segments of this size, or a quota is used up: lower \
             `large_object_chunk_size`"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_listing_is_read() {
        let text = br#"[{"name":"a","bytes":1,"hash":"x"},{"subdir":"b/"}]"#;
        let lines = lines(text).unwrap();
        assert_eq!(lines[0].name.as_deref(), Some("a"));
        assert_eq!(lines[1].subdir.as_deref(), Some("b/"));
        assert!(super::lines(b"").unwrap().is_empty());
        assert!(super::lines(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(lines(&bytes));
        }
    }
}
