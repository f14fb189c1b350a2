//! Azure's Blob API: blobs, blocks, block lists and listings. Signatures are Azurite's to check.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use http::HeaderValue;
use quick_xml::escape::escape;
use serde::Deserialize;

use super::store::{Answer, Refused, Service, document, plain, ranged};
use super::{SeenRequest, text_header};

const ACCOUNT: &str = "account/";
const CRC64: &str = "x-ms-content-crc64";

/// Containers, blobs, and blocks that nobody has committed.
#[derive(Default)]
pub(super) struct AzureService {
    containers: Vec<String>,
    blobs: BTreeMap<String, Bytes>,
    /// By the blob's `container/name` and the block's id.
    blocks: BTreeMap<String, BTreeMap<String, Bytes>>,
}

#[derive(Deserialize)]
struct BlockList {
    #[serde(rename = "Latest", default)]
    latest: Vec<String>,
}

impl Service for AzureService {
    fn answer(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Answer {
        self.perform(seen, body, keeps)
            .unwrap_or_else(|(status, code)| {
                let text = format!("<Error><Code>{code}</Code><Message>as it is</Message></Error>");
                // A byte order mark comes before the documents of the real one.
                let mut answer = plain(status, document(&text).into_body());
                let code = HeaderValue::from_static(code);
                answer.headers_mut().insert("x-ms-error-code", code);
                answer
            })
    }

    fn contents(&self) -> BTreeMap<String, Bytes> {
        self.blobs.clone()
    }

    fn uploads(&self, parts_min: usize) -> usize {
        self.blocks
            .values()
            .filter(|blocks| blocks.len() >= parts_min)
            .count()
    }

    fn set_part_bytes_min(&mut self, _: usize) {}
}

impl AzureService {
    fn perform(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Result<Answer, Refused> {
        let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
        let parameter = |name: &str| seen.query.get(name).map(String::as_str);
        if header("authorization").is_none() && parameter("sig").is_none() {
            return Err((401, "NoAuthenticationInformation"));
        }
        if header("x-ms-version").is_none() || header("x-ms-date").is_none() {
            return Err((400, "MissingRequiredHeader"));
        }
        let name = seen
            .name
            .strip_prefix(ACCOUNT)
            .ok_or((404, "ResourceNotFound"))?;
        let (container, is_container) = match name.split_once('/') {
            Some((container, _)) => (container, false),
            None => (name, true),
        };
        if is_container && seen.method == "PUT" && parameter("restype") == Some("container") {
            if self.containers.iter().any(|known| known == container) {
                return Err((409, "ContainerAlreadyExists"));
            }
            self.containers.push(container.to_owned());
            return Ok(plain(201, Bytes::new()));
        }
        if !self.containers.iter().any(|known| known == container) {
            return Err((404, "ContainerNotFound"));
        }
        match (seen.method.as_str(), parameter("comp")) {
            ("GET", Some("list")) if is_container => Ok(self.listing(container, seen)),
            ("PUT", comp @ (None | Some("block"))) => {
                let crc64 = checksum(CrcAlgorithm::Crc64Nvme, &body).to_le_bytes();
                let crc64 = BASE64_STANDARD.encode(crc64);
                if header(CRC64).is_some_and(|told| told != crc64) {
                    return Err((400, "Crc64Mismatch"));
                }
                match (comp, parameter("blockid")) {
                    (Some(_), Some(id)) if keeps => {
                        let blocks = self.blocks.entry(name.to_owned()).or_default();
                        blocks.insert(id.to_owned(), body);
                    }
                    (Some(_), None) => return Err((400, "InvalidQueryParameterValue")),
                    (None, _) if header("x-ms-blob-type") != Some("BlockBlob") => {
                        return Err((400, "InvalidHeaderValue"));
                    }
                    (None, _) if keeps => {
                        self.blocks.remove(name);
                        self.blobs.insert(name.to_owned(), body);
                    }
                    _ => {}
                }
                let mut answer = plain(201, Bytes::new());
                answer.headers_mut().insert(CRC64, text_header(&crc64));
                Ok(answer)
            }
            ("PUT", Some("blocklist")) => self.commit(name, &body, keeps),
            ("HEAD" | "GET", None) => {
                let blob = self.blobs.get(name).ok_or((404, "BlobNotFound"))?;
                Ok(ranged(seen, blob))
            }
            ("DELETE", None) => {
                self.blobs.remove(name).ok_or((404, "BlobNotFound"))?;
                Ok(plain(202, Bytes::new()))
            }
            _ => Err((400, "UnsupportedHttpVerb")),
        }
    }

    fn commit(&mut self, name: &str, body: &[u8], keeps: bool) -> Result<Answer, Refused> {
        let text = String::from_utf8_lossy(body);
        let list: BlockList =
            quick_xml::de::from_str(&text).map_err(|_| (400, "InvalidXmlDocument"))?;
        let blocks = self.blocks.get(name).ok_or((400, "InvalidBlockList"))?;
        let mut whole = Vec::new();
        for id in &list.latest {
            whole.extend_from_slice(blocks.get(id).ok_or((400, "InvalidBlockList"))?);
        }
        if keeps {
            self.blocks.remove(name);
            self.blobs.insert(name.to_owned(), whole.into());
        }
        Ok(plain(201, Bytes::new()))
    }

    /// A page of three names, to see pages turned.
    fn listing(&self, container: &str, seen: &SeenRequest) -> Answer {
        const PAGE: usize = 3;
        let parameter = |name| seen.query.get(name).map_or("", String::as_str);
        let (prefix, after) = (parameter("prefix"), parameter("marker"));
        let base = format!("{container}/");
        let mut names: Vec<String> = self
            .blobs
            .keys()
            .filter_map(|name| name.strip_prefix(&base)?.strip_prefix(prefix))
            .map(|name| match name.split_once('/') {
                Some((directory, _)) => format!("{prefix}{directory}/"),
                None => format!("{prefix}{name}"),
            })
            .collect();
        names.dedup();
        names.retain(|name| name.as_str() > after);
        let mut text = "\u{feff}<EnumerationResults><Blobs>".to_owned();
        for name in names.iter().take(PAGE) {
            let escaped = escape(name.as_str());
            text.push_str(&match name.ends_with('/') {
                true => format!("<BlobPrefix><Name>{escaped}</Name></BlobPrefix>"),
                false => format!("<Blob><Name>{escaped}</Name></Blob>"),
            });
        }
        let next = names.get(PAGE - 1).filter(|_| names.len() > PAGE);
        let next = next.map_or("", String::as_str);
        text.push_str(&format!(
            "</Blobs><NextMarker>{}</NextMarker></EnumerationResults>",
            escape(next)
        ));
        plain(200, text.into())
    }
}
