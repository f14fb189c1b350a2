//! What differs between S3 and Azure's Blob service: Put Blob, Put Block, Put Block List, List
//! Blobs, and their headers (Blob service REST API).

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use quick_xml::escape::escape;

use super::AzureIdentity;
use super::credentials::Proven;
use crate::objstore::Refusal;
use crate::objstore::s3::{
    Call, ListPage, Mend, Parts, Protection, Query, Reply, S3Config, S3Fault, S3Integrity, Sending,
    Sums, Wire, XmlError, octets, text_header, uri_encoded, walk_in,
};
use crate::objstore::token::secret_header;

/// The version of the service that all of this is written for.
const VERSION: HeaderValue = HeaderValue::from_static("2021-12-02");

const MS_VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const MS_DATE: HeaderName = HeaderName::from_static("x-ms-date");
const MS_BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const MS_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");
/// CRC-64 by the polynomial of CRC-64/NVME, the lowest byte first.
const MS_CRC64: HeaderName = HeaderName::from_static("x-ms-content-crc64");

/// The Blob service.
#[derive(Debug)]
pub(in crate::objstore) struct AzureWire {
    identity: AzureIdentity,
    /// The container's URL.
    container: String,
    creates: bool,
}

impl AzureWire {
    /// Of a container; one that is not there is made where `creates`.
    pub(in crate::objstore) fn new(
        identity: AzureIdentity,
        base: &str,
        container: &str,
        creates: bool,
    ) -> Self {
        Self {
            identity,
            container: format!("{base}/{}", uri_encoded(container, false)),
            creates,
        }
    }
}

#[async_trait]
impl Wire for AzureWire {
    fn component(&self) -> &'static str {
        "azure"
    }

    fn checks(&self) -> Option<(S3Integrity, Option<S3Integrity>)> {
        Some((S3Integrity::Crc64Nvme, Some(S3Integrity::ContentMd5)))
    }

    async fn url(&self, call: &Call<'_>) -> Result<Option<String>, S3Fault> {
        let mut url = self.container.clone();
        if let Some(key) = call.key {
            url.push('/');
            url.push_str(&uri_encoded(key, true));
        }
        if !call.query.is_empty() {
            url.push('?');
            url.push_str(&call.query);
        }
        Ok(Some(url))
    }

    async fn authorize(&self, sending: &mut Sending<'_>) -> Result<(), S3Fault> {
        let headers = &mut *sending.headers;
        headers.insert(MS_VERSION, VERSION);
        headers.insert(MS_DATE, text_header(&date(sending.now_ns)));
        match &self.identity.proven {
            Proven::Key(key) => {
                let (method, length) = (sending.method, sending.length);
                let value = key.authorization(method, sending.url, headers, length);
                headers.insert(AUTHORIZATION, secret_header(&value)?);
                Ok(())
            }
            Proven::Signature(query) => {
                let mark = if sending.url.contains('?') { '&' } else { '?' };
                sending.url.push(mark);
                sending.url.push_str(query);
                Ok(())
            }
            Proven::Tokens(tokens) => tokens.bear(headers).await,
        }
    }

    fn mend(&self, refusal: &Refusal) -> Mend {
        match &self.identity.proven {
            _ if self.creates && refusal.code == "ContainerNotFound" => Mend::Create,
            Proven::Tokens(tokens) if refusal.status == StatusCode::UNAUTHORIZED => {
                tokens.invalidate();
                Mend::Again
            }
            _ => Mend::No,
        }
    }

    fn creation_call(&self) -> Call<'static> {
        let mut call = Call::new("CreateContainer", Method::PUT, None);
        call.query = "restype=container".to_owned();
        call
    }

    fn remedy(&self) -> fn(&Refusal) -> Option<&'static str> {
        remedy
    }

    fn protection(&self, check: S3Integrity, sums: &Sums) -> Option<Protection> {
        match (check, &sums.md5) {
            (S3Integrity::Crc64Nvme, _) => {
                let text = BASE64_STANDARD.encode(sums.crc64.to_le_bytes());
                Some(Protection {
                    header: (MS_CRC64, text_header(&text)),
                    echo: Some(text),
                })
            }
            (S3Integrity::ContentMd5, Some(md5)) => Some(Protection::content_md5(md5)),
            _ => None,
        }
    }

    fn echoed(&self, headers: &HeaderMap) -> Option<String> {
        let value = headers.get(MS_CRC64)?.to_str().ok()?;
        Some(value.to_owned())
    }

    fn is_missing(&self, refusal: &Refusal) -> bool {
        refusal.status == StatusCode::NOT_FOUND
            && ["BlobNotFound", "ResourceNotFound", "NoSuchKey"].contains(&refusal.code.as_str())
    }

    /// Blocks that nobody committed are thrown away after a week, or when the blob is written.
    fn is_gone(&self, operation: &'static str, refusal: &Refusal) -> bool {
        operation == "PutBlockList"
            && ["InvalidBlockList", "InvalidBlockId"].contains(&refusal.code.as_str())
    }

    fn put_call<'a>(&self, _: &S3Config, key: &'a str) -> Call<'a> {
        let mut call = Call::new("PutBlob", Method::PUT, Some(key));
        octets(&mut call.headers);
        let block = HeaderValue::from_static("BlockBlob");
        call.headers.insert(MS_BLOB_TYPE, block);
        call
    }

    /// Blocks belong to the blob; our name for the upload is in theirs.
    fn begin_call<'a>(&self, _: &S3Config, _: &'a str, _: S3Integrity) -> Option<Call<'a>> {
        None
    }

    /// The ids of all blocks of a blob must be equally long, of those too that another program
    /// left uncommitted. Writing the blob, empty, throws them away.
    fn clearing_call<'a>(&self, config: &S3Config, key: &'a str) -> Option<Call<'a>> {
        Some(self.put_call(config, key))
    }

    fn part_call<'a>(&self, _: &S3Config, key: &'a str, upload_id: &str, number: u32) -> Call<'a> {
        let mut call = Call::new("PutBlock", Method::PUT, Some(key));
        let mut query = Query::default();
        query.add("blockid", &block_id(upload_id, number));
        query.add("comp", "block");
        call.query = query.0;
        octets(&mut call.headers);
        call
    }

    fn part_tag(&self, upload_id: &str, number: u32, _: &Reply) -> Result<String, S3Fault> {
        Ok(block_id(upload_id, number))
    }

    fn complete_call<'a>(
        &self,
        _: &S3Config,
        key: &'a str,
        parts: &Parts<'_>,
    ) -> (Call<'a>, Bytes) {
        let mut body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>".to_owned();
        for (_, part, _) in parts.each() {
            // The latest block of that name: a list that was committed already can be again.
            body.push_str(&format!("<Latest>{}</Latest>", escape(part.etag.as_str())));
        }
        body.push_str("</BlockList>");
        let mut call = Call::new("PutBlockList", Method::PUT, Some(key));
        call.query = "comp=blocklist".to_owned();
        let xml = HeaderValue::from_static("application/xml");
        call.headers.insert("content-type", xml);
        let octets = HeaderValue::from_static("application/octet-stream");
        call.headers.insert(MS_CONTENT_TYPE, octets);
        (call, body.into())
    }

    fn abort_call<'a>(&self, _: &'a str, _: &str) -> Option<Call<'a>> {
        None
    }

    fn delete_call<'a>(&self, key: &'a str, _: Option<&HeaderMap>) -> Call<'a> {
        let mut call = Call::new("DeleteBlob", Method::DELETE, Some(key));
        let include = HeaderValue::from_static("include");
        call.headers.insert("x-ms-delete-snapshots", include);
        call
    }

    fn list_call(&self, _: &S3Config, prefix: &str, after: Option<&str>) -> Call<'static> {
        let mut query = Query::default();
        query.add("comp", "list");
        query.add("delimiter", "/");
        if let Some(after) = after {
            query.add("marker", after);
        }
        query.add("prefix", prefix);
        query.add("restype", "container");
        let mut call = Call::new("ListBlobs", Method::GET, None);
        call.query = query.0;
        call.check = Some(|body| page(body).map(drop));
        call
    }

    fn list_page(&self, body: &[u8]) -> Result<ListPage, XmlError> {
        page(body)
    }
}

/// Names of blocks in one blob must be equally long before they are encoded.
fn block_id(upload_id: &str, number: u32) -> String {
    BASE64_STANDARD.encode(format!("{upload_id}-{number:06}"))
}

/// RFC 1123, as `x-ms-date` wants it.
fn date(now_ns: i128) -> String {
    let now = Timestamp::from_nanosecond(now_ns).unwrap_or(Timestamp::UNIX_EPOCH);
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `<EnumerationResults>`.
fn page(body: &[u8]) -> Result<ListPage, XmlError> {
    // Some versions of the service begin with a byte order mark.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut page = ListPage::default();
    walk_in(body, "EnumerationResults", |path, text| {
        match path {
            "Blobs/Blob/Name" => page.keys.push(text),
            "Blobs/BlobPrefix/Name" => page.prefixes.push(text),
            "NextMarker" if !text.is_empty() => page.next = Some(text),
            _ => {}
        }
        Ok(())
    })?;
    Ok(page)
}

fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.code.as_str() {
        "AuthenticationFailed" => {
            "check `storage_account`, `storage_account_key` or `storage_connection_string`, the \
             expiry of a shared access signature, and this machine's clock (NTP)"
        }
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => {
            "the identity needs the role Storage Blob Data Contributor on the container; a shared \
             access signature needs read, create, write, delete and list"
        }
        "AuthorizationFailure" => {
            "the account's network rules or its policies keep this machine or this kind of \
             credentials out: allow them"
        }
        "KeyBasedAuthenticationNotPermitted" => {
            "the account takes no keys: use client_id and client_secret, or a managed identity"
        }
        "ContainerNotFound" => {
            "create the container, correct `container`, or set `storage_create_container` to true"
        }
        "ContainerBeingDeleted" => "wait until the container is gone, or name another",
        "InvalidResourceName" => {
            "correct `container`: 3 to 63 lower-case letters, digits and single hyphens"
        }
        _ if refusal.status == StatusCode::UNAUTHORIZED => {
            "Azure does not take the token: check az_tenant_id, client_id and client_secret, or \
             the identity of this machine"
        }
        _ if refusal.status == StatusCode::FORBIDDEN => {
            "the identity needs the role Storage Blob Data Contributor on the container"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_those_of_rfc_1123() {
        assert_eq!(
            date(1_435_361_952_000_000_000),
            "Fri, 26 Jun 2015 23:39:12 GMT"
        );
    }

    #[test]
    fn names_of_blocks_are_equally_long_and_tell_uploads_apart() {
        let ids = [(1, "a"), (10_000, "a"), (1, "b")].map(|(n, id)| block_id(id, n));
        assert!(ids.iter().all(|id| id.len() == ids[0].len()));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
    }

    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
        ServiceEndpoint=\"https://a/\" ContainerName=\"c\"><Prefix>d/</Prefix><Blobs><Blob>\
        <Name>d/a&amp;b</Name><Properties><Content-Length>3</Content-Length></Properties></Blob>\
        <BlobPrefix><Name>d/e/</Name></BlobPrefix></Blobs><NextMarker>2!72</NextMarker>\
        </EnumerationResults>";

    #[test]
    fn a_page_is_read() {
        let page = page(PAGE.as_bytes()).unwrap();
        assert_eq!(page.keys, ["d/a&b"]);
        assert_eq!(page.prefixes, ["d/e/"]);
        assert_eq!(page.next.as_deref(), Some("2!72"));
        let last = super::page(PAGE.replace("2!72", "").as_bytes()).unwrap();
        assert_eq!(last.next, None);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..PAGE.len(),
        ) {
            drop(page(&bytes));
            let truncated = PAGE.as_bytes().get(..cut).unwrap_or_default();
            prop_assert!(page(truncated).is_err());
        }
    }
}
