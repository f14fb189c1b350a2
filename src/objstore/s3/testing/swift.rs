//! Keystone's login and Swift's API: objects, manifests of both kinds, listings.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::{Value, json};

use super::store::{Answer, Refused, Service, plain, ranged};
use super::{SeenRequest, text_header};
use crate::net::http::percent_decoded;

const TOKEN: &str = "gAAAA-a-token-of-keystone";
const ACCOUNT: &str = "v1/AUTH_project/";
const CONTAINERS: [&str; 2] = ["blocks", "segments"];

/// Objects by `container/name`.
#[derive(Default)]
pub(super) struct SwiftService(BTreeMap<String, Object>);

enum Object {
    Bytes(Bytes),
    /// The segments, by `container/name`.
    Static(Vec<String>),
    /// What the segments' `container/name` begin with.
    Dynamic(String),
}

#[derive(Deserialize)]
struct Segment {
    path: String,
    etag: String,
    size_bytes: u64,
}

impl Service for SwiftService {
    fn answer(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Answer {
        let outcome = match seen.name.as_str() {
            "v3/auth/tokens" => login(seen, &body),
            "auth/v1.0" => own_login(seen),
            _ => self.perform(seen, body, keeps),
        };
        outcome.unwrap_or_else(|(status, text)| plain(status, text.into()))
    }

    fn contents(&self) -> BTreeMap<String, Bytes> {
        let names = self.0.keys();
        names
            .map(|name| (name.clone(), self.content(name)))
            .collect()
    }

    fn uploads(&self, parts_min: usize) -> usize {
        let segments = self.0.keys().filter(|name| name.contains("segments/"));
        usize::from(segments.count() >= parts_min.max(1))
    }

    fn set_part_bytes_min(&mut self, _: usize) {}
}

impl SwiftService {
    fn content(&self, name: &str) -> Bytes {
        let names: Vec<_> = match self.0.get(name) {
            None => return Bytes::new(),
            Some(Object::Bytes(bytes)) => return bytes.clone(),
            Some(Object::Static(names)) => names.iter().collect(),
            Some(Object::Dynamic(prefix)) => self
                .0
                .keys()
                .filter(|name| name.starts_with(prefix.as_str()))
                .collect(),
        };
        let parts = names.into_iter().map(|name| self.content(name));
        parts.flatten().collect::<Vec<u8>>().into()
    }

    fn perform(&mut self, seen: &SeenRequest, body: Bytes, keeps: bool) -> Result<Answer, Refused> {
        let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
        if header("x-auth-token") != Some(TOKEN) {
            return Err((401, "Unauthorized"));
        }
        let name = seen
            .name
            .strip_prefix(ACCOUNT)
            .ok_or((404, "no such account"))?;
        let container = name.split('/').next().unwrap_or_default();
        if !CONTAINERS.contains(&container) {
            return Err((404, "no such container"));
        }
        if container == name {
            return match seen.method.as_str() {
                "GET" => Ok(self.listing(container, seen)),
                _ => Err((405, "not a thing to do with containers")),
            };
        }
        let manifest = seen.query.get("multipart-manifest").map(String::as_str);
        match seen.method.as_str() {
            "PUT" => {
                let md5 = hex::encode(Md5::digest(&body));
                if header("etag").is_some_and(|told| told != md5) {
                    return Err((422, "Unprocessable Entity"));
                }
                let object = match (manifest, header("x-object-manifest")) {
                    (Some("put"), _) => Object::Static(self.manifest(&body)?),
                    (_, Some(prefix)) => Object::Dynamic(percent_decoded(prefix)),
                    _ => Object::Bytes(body),
                };
                if keeps {
                    self.0.insert(name.to_owned(), object);
                }
                let mut answer = plain(201, Bytes::new());
                answer.headers_mut().insert("etag", text_header(&md5));
                Ok(answer)
            }
            "HEAD" | "GET" => {
                let object = self.0.get(name).ok_or((404, "no such object"))?;
                let mut answer = ranged(seen, &self.content(name));
                if matches!(object, Object::Static(_)) {
                    let headers = answer.headers_mut();
                    headers.insert("x-static-large-object", text_header("True"));
                }
                Ok(answer)
            }
            "DELETE" => match (self.0.remove(name), manifest) {
                (None, _) => Err((404, "no such object")),
                (Some(Object::Static(names)), Some("delete")) => {
                    names.iter().for_each(|name| drop(self.0.remove(name)));
                    Ok(plain(
                        200,
                        json!({"Response Status": "200 OK"}).to_string().into(),
                    ))
                }
                (Some(_), Some("delete")) => Err((400, "Not an SLO manifest")),
                (Some(_), _) => Ok(plain(204, Bytes::new())),
            },
            _ => Err((405, "no such method")),
        }
    }

    /// The names in a manifest, whose segments must be there and as it says.
    fn manifest(&self, body: &[u8]) -> Result<Vec<String>, Refused> {
        let segments: Vec<Segment> =
            serde_json::from_slice(body).map_err(|_| (400, "Manifest must be valid JSON."))?;
        let mut names = Vec::new();
        for segment in segments {
            let name = segment.path.trim_start_matches('/').to_owned();
            match self.0.get(&name) {
                Some(Object::Bytes(bytes))
                    if bytes.len() as u64 == segment.size_bytes
                        && hex::encode(Md5::digest(bytes)) == segment.etag => {}
                _ => return Err((400, "Errors: a segment is not as the manifest says")),
            }
            names.push(name);
        }
        Ok(names)
    }

    /// A page of three lines where there is a delimiter, to see pages turned.
    fn listing(&self, container: &str, seen: &SeenRequest) -> Answer {
        let parameter = |name| seen.query.get(name).map_or("", String::as_str);
        let (prefix, after) = (parameter("prefix"), parameter("marker"));
        let is_flat = parameter("delimiter").is_empty();
        let base = format!("{container}/");
        let mut names: Vec<String> = self
            .0
            .keys()
            .filter_map(|name| name.strip_prefix(&base)?.strip_prefix(prefix))
            .map(|name| match name.split_once('/') {
                Some((directory, _)) if !is_flat => format!("{prefix}{directory}/"),
                _ => format!("{prefix}{name}"),
            })
            .collect();
        names.dedup();
        names.retain(|name| name.as_str() > after);
        names.truncate(if is_flat { usize::MAX } else { 3 });
        let line = |name: &String| match name.ends_with('/') {
            true => json!({"subdir": name}),
            false => json!({"name": name, "bytes": 1, "hash": "x"}),
        };
        let lines: Vec<Value> = names.iter().map(line).collect();
        plain(200, Value::from(lines).to_string().into())
    }
}

/// Keystone's v3, for one user.
fn login(seen: &SeenRequest, body: &[u8]) -> Result<Answer, Refused> {
    let asked: Value = serde_json::from_slice(body).map_err(|_| (400, "Bad Request"))?;
    let identity = &asked["auth"]["identity"];
    let user = &identity["password"]["user"];
    let credential = &identity["application_credential"];
    let by_password = identity["methods"] == json!(["password"])
        && user["name"] == "user"
        && user["password"] == "hidden"
        && user["domain"].is_object()
        && asked["auth"]["scope"]["project"].is_object();
    let by_credential = identity["methods"] == json!(["application_credential"])
        && credential["id"] == "credential"
        && credential["secret"] == "hidden";
    if !by_password && !by_credential {
        return Err((
            401,
            "{\"error\":{\"message\":\"The request requires authentication.\"}}",
        ));
    }
    let endpoint = |interface: &str, region: &str, url: &str| {
        let mut endpoint = json!({"interface": interface, "region": region, "url": url});
        endpoint["region_id"] = region.into();
        endpoint
    };
    let here = format!("http://{}/v1/AUTH_project", host(seen));
    let token = json!({"token": {
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [
            {"type": "identity", "endpoints": [endpoint("public", "one", "http://elsewhere/")]},
            {"type": "object-store", "endpoints": [
                endpoint("internal", "one", "http://elsewhere/"),
                endpoint("public", "one", &here),
                endpoint("public", "two", "http://elsewhere/"),
            ]},
        ],
    }});
    let mut answer = plain(201, token.to_string().into());
    answer
        .headers_mut()
        .insert("x-subject-token", text_header(TOKEN));
    Ok(answer)
}

/// Swift's own.
fn own_login(seen: &SeenRequest) -> Result<Answer, Refused> {
    let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
    if header("x-auth-user") != Some("project:user") || header("x-auth-key") != Some("hidden") {
        return Err((401, "Unauthorized"));
    }
    let mut answer = plain(200, Bytes::new());
    let here = format!("http://{}/v1/AUTH_project", host(seen));
    let headers = answer.headers_mut();
    headers.insert("x-storage-url", text_header(&here));
    headers.insert("x-auth-token", text_header(TOKEN));
    headers.insert("x-auth-token-expires", text_header("86399"));
    Ok(answer)
}

fn host(seen: &SeenRequest) -> String {
    let host = seen
        .headers
        .get("host")
        .and_then(|value| value.to_str().ok());
    host.unwrap_or_default().to_owned()
}
