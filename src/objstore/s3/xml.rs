//! The few XML documents of S3, read from a server that may be broken or hostile.
//!
//! Only what is needed is taken, by path; unknown elements are ignored, depth is limited, and the
//! caller limits the length. Nothing here panics, whatever arrives.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::Event;

/// Real documents nest 4 deep.
const DEPTH_MAX: usize = 32;

/// A document that is no XML, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// Not UTF-8.
    #[error("the answer is not UTF-8")]
    Encoding(#[from] std::str::Utf8Error),
    /// Not well-formed.
    #[error("the answer is not well-formed XML")]
    Syntax(#[from] quick_xml::Error),
    /// Ends before its root element does, or has none.
    #[error("the answer is cut short")]
    Truncated,
    /// Nested deeper than any document of S3.
    #[error("the answer nests deeper than {DEPTH_MAX} elements")]
    Depth,
    /// Another document.
    #[error("the answer is <{found}> instead of <{wanted}>")]
    Root {
        /// Its root element.
        found: String,
        /// The one asked for.
        wanted: &'static str,
    },
    /// Not JSON, or not what was asked for.
    #[error("the answer is not the JSON that was asked for")]
    Json(#[from] serde_json::Error),
    /// An element that must be there is not.
    #[error("the answer has no <{0}>")]
    Missing(&'static str),
    /// An element holds what it can't mean.
    #[error("the answer's <{element}> is `{value}`")]
    Value {
        /// Which.
        element: &'static str,
        /// What it holds.
        value: String,
    },
}

/// `<Error>`: why a request was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorDocument {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) resource: String,
    pub(super) request_id: String,
    /// The bucket's region, where the request went to another one.
    pub(super) region: String,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::objstore) struct ListPage {
    pub(in crate::objstore) keys: Vec<String>,
    pub(in crate::objstore) prefixes: Vec<String>,
    /// What the next page is asked for with; `None` at the last one.
    pub(in crate::objstore) next: Option<String>,
}

/// The answer to CompleteMultipartUpload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Completed {
    pub(super) crc64nvme: Option<String>,
    pub(super) checksum_type: Option<String>,
}

/// Calls `leaf` with the path below the root and the text of each element that has no children,
/// and `leave` likewise at the end of the others. Returns the root's name.
fn walk(
    document: &[u8],
    mut visit: impl FnMut(&str, String) -> Result<(), XmlError>,
) -> Result<String, XmlError> {
    let mut reader = Reader::from_str(std::str::from_utf8(document)?);
    reader.config_mut().expand_empty_elements = true;
    let mut root = None;
    let mut path = String::new();
    let mut lengths = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                if lengths.len() >= DEPTH_MAX {
                    return Err(XmlError::Depth);
                }
                let local = start.local_name();
                let name = local.as_ref();
                lengths.push(path.len());
                if root.is_none() {
                    root = Some(name.to_owned());
                } else {
                    if !path.is_empty() {
                        path.push('/');
                    }
                    path.push_str(name);
                }
                text.clear();
            }
            Event::End(_) => {
                let length = lengths.pop().ok_or(XmlError::Truncated)?;
                visit(&path, std::mem::take(&mut text))?;
                path.truncate(length);
                if lengths.is_empty() {
                    return root.ok_or(XmlError::Truncated);
                }
            }
            Event::Text(run) => text.push_str(&run.xml10_content()),
            Event::CData(run) => text.push_str(&run.xml10_content()),
            Event::GeneralRef(reference) => {
                if let Some(character) = reference.resolve_char_ref()? {
                    text.push(character);
                } else if let Some(value) = resolve_predefined_entity(&reference.xml10_content()) {
                    text.push_str(value);
                }
            }
            Event::Eof => return Err(XmlError::Truncated),
            _ => {}
        }
    }
}

/// As [`walk`], for a document whose root must be `wanted`.
pub(in crate::objstore) fn walk_in(
    document: &[u8],
    wanted: &'static str,
    visit: impl FnMut(&str, String) -> Result<(), XmlError>,
) -> Result<(), XmlError> {
    let found = walk(document, visit)?;
    if found == wanted {
        Ok(())
    } else {
        Err(XmlError::Root { found, wanted })
    }
}

/// The error in `document`; `None` where it is none.
pub(super) fn error_document(document: &[u8]) -> Option<ErrorDocument> {
    let mut error = ErrorDocument::default();
    let read = walk_in(document, "Error", |path, text| {
        let field = match path {
            "Code" => &mut error.code,
            "Message" => &mut error.message,
            "Resource" => &mut error.resource,
            "RequestId" => &mut error.request_id,
            "Region" => &mut error.region,
            _ => return Ok(()),
        };
        text.trim().clone_into(field);
        Ok(())
    });
    read.is_ok().then_some(error)
}

/// The upload's id.
pub(super) fn initiated(document: &[u8]) -> Result<String, XmlError> {
    let mut id = None;
    walk_in(document, "InitiateMultipartUploadResult", |path, text| {
        if path == "UploadId" {
            id = Some(text.trim().to_owned());
        }
        Ok(())
    })?;
    id.filter(|id| !id.is_empty())
        .ok_or(XmlError::Missing("UploadId"))
}

/// What the completed object is.
pub(super) fn completed(document: &[u8]) -> Result<Completed, XmlError> {
    let mut completed = Completed::default();
    walk_in(document, "CompleteMultipartUploadResult", |path, text| {
        match path {
            "ChecksumCRC64NVME" => completed.crc64nvme = Some(text.trim().to_owned()),
            "ChecksumType" => completed.checksum_type = Some(text.trim().to_owned()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(completed)
}

/// The region; an empty constraint is us-east-1, `EU` an old name of eu-west-1.
pub(super) fn location(document: &[u8]) -> Result<String, XmlError> {
    let mut region = String::new();
    walk_in(document, "LocationConstraint", |path, text| {
        if path.is_empty() {
            text.trim().clone_into(&mut region);
        }
        Ok(())
    })?;
    Ok(match region.as_str() {
        "" => "us-east-1".to_owned(),
        "EU" => "eu-west-1".to_owned(),
        _ => region,
    })
}

/// A page of ListObjects or ListObjectsV2.
pub(super) fn list_page(document: &[u8]) -> Result<ListPage, XmlError> {
    let mut page = ListPage::default();
    let mut truncated = false;
    let mut url_encoded = false;
    let (mut token, mut marker) = (None, None);
    walk_in(document, "ListBucketResult", |path, text| {
        match path {
            "Contents/Key" => page.keys.push(text),
            "CommonPrefixes/Prefix" => page.prefixes.push(text),
            "EncodingType" => url_encoded = text.trim() == "url",
            "NextContinuationToken" => token = Some(text).filter(|text| !text.is_empty()),
            "NextMarker" => marker = Some(text).filter(|text| !text.is_empty()),
            "IsTruncated" => {
                truncated = match text.trim() {
                    "true" => true,
                    "false" | "" => false,
                    _ => {
                        return Err(XmlError::Value {
                            element: "IsTruncated",
                            value: text,
                        });
                    }
                };
            }
            _ => {}
        }
        Ok(())
    })?;
    if url_encoded {
        for name in page.keys.iter_mut().chain(&mut page.prefixes) {
            *name = url_decoded(name);
        }
        marker = marker.map(|marker| url_decoded(&marker));
    }
    if truncated {
        // Version 1 names no marker where there is no delimiter: then it is the last name.
        let last = || page.keys.iter().chain(&page.prefixes).max().cloned();
        page.next = token.or(marker).or_else(last);
        if page.next.is_none() {
            return Err(XmlError::Missing("NextMarker"));
        }
    }
    Ok(page)
}

/// `encoding-type=url` is that of HTML forms: a space is a plus.
fn url_decoded(text: &str) -> String {
    crate::net::http::percent_decoded(&text.replace('+', " "))
}

/// The body of CompleteMultipartUpload, of part number, entity tag and checksum.
pub(super) fn complete_request<'a>(
    parts: impl Iterator<Item = (u32, &'a str, Option<String>)>,
) -> String {
    let mut text = String::from(
        r#"<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#,
    );
    for (number, etag, crc64nvme) in parts {
        let etag = escape(etag);
        let crc = crc64nvme.map_or_else(String::new, |crc| {
            format!("<ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME>")
        });
        write!(
            text,
            "<Part>{crc}<ETag>{etag}</ETag><PartNumber>{number}</PartNumber></Part>"
        )
        .expect("a String takes everything");
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
          <Name>b</Name><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>
          <Contents><Key>a%2Fb+c%C3%A4%2B</Key><Owner><Key>no</Key></Owner><Size>1</Size></Contents>
          <Contents><Key>a/&amp;&#x41;<![CDATA[<x>]]></Key></Contents>
          <CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes><New><Thing/></New>
          <NextContinuationToken>t+/=</NextContinuationToken></ListBucketResult>"#;

    #[test]
    fn a_page_is_read() {
        let page = list_page(PAGE.as_bytes()).unwrap();
        assert_eq!(page.keys, ["a/b cä+", "a/&A<x>"]);
        assert_eq!(page.prefixes, ["a/d/"]);
        assert_eq!(page.next.as_deref(), Some("t+/="));
        let v1 = b"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>b</Key>\
                   </Contents><Contents><Key>a</Key></Contents></ListBucketResult>";
        assert_eq!(list_page(v1).unwrap().next.as_deref(), Some("b"));
        let endless = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert!(matches!(list_page(endless), Err(XmlError::Missing(_))));
    }

    #[test]
    fn an_error_is_read_and_nothing_else_is_one() {
        let error = error_document(
            b"<Error><Code>NoSuchKey</Code><Message>gone &lt;x&gt;</Message>\
              <Resource>/b/k</Resource><RequestId>R1</RequestId><HostId>h</HostId></Error>",
        )
        .unwrap();
        assert_eq!(
            (
                error.code.as_str(),
                error.message.as_str(),
                error.request_id.as_str()
            ),
            ("NoSuchKey", "gone <x>", "R1")
        );
        for other in [
            "",
            "no XML",
            "<html><Code>x</Code></html>",
            "<Error><Code>",
            PAGE,
        ] {
            assert_eq!(error_document(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_location_is_a_region() {
        for (text, region) in [
            ("<LocationConstraint/>", "us-east-1"),
            ("<LocationConstraint>EU</LocationConstraint>", "eu-west-1"),
            (
                "<LocationConstraint xmlns='x'>eu-central-1</LocationConstraint>",
                "eu-central-1",
            ),
        ] {
            assert_eq!(location(text.as_bytes()).unwrap(), region);
        }
    }

    #[test]
    fn an_upload_needs_an_id_and_a_result() {
        let result = |inner: &str| {
            format!("<InitiateMultipartUploadResult>{inner}</InitiateMultipartUploadResult>")
        };
        let id = initiated(result("<UploadId>u~1</UploadId>").as_bytes());
        assert_eq!(id.unwrap(), "u~1");
        assert!(initiated(result("<UploadId></UploadId>").as_bytes()).is_err());
        assert!(initiated(b"<Error/>").is_err());
        assert!(completed(b"<Error><Code>InternalError</Code></Error>").is_err());
        let done = b"<CompleteMultipartUploadResult><ChecksumCRC64NVME>AA==</ChecksumCRC64NVME>\
                     </CompleteMultipartUploadResult>";
        assert_eq!(completed(done).unwrap().crc64nvme.as_deref(), Some("AA=="));
    }

    #[test]
    fn what_is_sent_is_escaped() {
        let body = complete_request([(1, "\"a&b\"", Some("x".to_owned()))].into_iter());
        assert!(
            body.contains("<Part><ChecksumCRC64NVME>x</ChecksumCRC64NVME><ETag>&quot;a&amp;b"),
            "{body}"
        );
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = "<Error>".repeat(DEPTH_MAX + 1);
        assert!(matches!(
            walk(deep.as_bytes(), |_, _| Ok(())),
            Err(XmlError::Depth)
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..PAGE.len(),
        ) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let truncated = PAGE.as_bytes().get(..cut).unwrap_or_default();
            prop_assert!(list_page(truncated).is_err(), "a cut page is no page");
            for document in [&bytes[..], text.as_bytes(), truncated] {
                drop(error_document(document));
                drop(initiated(document));
                drop(completed(document));
                drop(location(document));
                drop(list_page(document));
            }
        }

        #[test]
        fn odd_markup_causes_no_panic(text in "[<>/&;#!\\[\\]A-Cx0-9 \"'=?-]{0,80}") {
            let wrapped = format!("<ListBucketResult>{text}</ListBucketResult>");
            drop(list_page(wrapped.as_bytes()));
            drop(error_document(text.as_bytes()));
        }
    }
}
