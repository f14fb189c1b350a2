//! Shared Key signatures ("Authorize with Shared Key", Blob Storage REST API).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, Method};

use crate::net::http::percent_decoded;

/// An account and its key.
#[derive(Clone)]
pub(super) struct SharedKey {
    account: String,
    key: Arc<hmac::Key>,
    /// Tells two keys apart.
    digest: [u8; 32],
}

// === impl SharedKey ===

impl SharedKey {
    pub(super) fn new(account: &str, key: &[u8]) -> Self {
        use sha2::Digest as _;
        Self {
            account: account.to_owned(),
            key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)),
            digest: sha2::Sha256::digest(key).into(),
        }
    }

    /// The value of `Authorization`.
    pub(super) fn authorization(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        length: u64,
    ) -> String {
        let text = self.string_to_sign(method, url, headers, length);
        let signature = hmac::sign(&self.key, text.as_bytes());
        let signature = BASE64_STANDARD.encode(signature.as_ref());
        format!("SharedKey {}:{signature}", self.account)
    }

    /// Verb, standard headers, headers of the service, resource.
    fn string_to_sign(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        length: u64,
    ) -> String {
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        // Since version 2015-02-21 a body of no bytes has no length here.
        let length = if length == 0 {
            String::new()
        } else {
            length.to_string()
        };
        let mut text = format!("{method}\n");
        for line in [
            header("content-encoding"),
            header("content-language"),
            length,
            header("content-md5"),
            header("content-type"),
            // `x-ms-date` stands for it.
            String::new(),
            header("if-modified-since"),
            header("if-match"),
            header("if-none-match"),
            header("if-unmodified-since"),
            header("range"),
        ] {
            text.push_str(&line);
            text.push('\n');
        }
        let mut of_service: Vec<_> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-ms-"))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        of_service.sort_unstable();
        for (name, value) in of_service {
            text.push_str(&format!("{name}:{}\n", value.trim()));
        }
        text.push_str(&self.resource(url));
        text
    }

    /// The account, the path as it is sent, and the decoded parameters in order.
    fn resource(&self, url: &str) -> String {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let after_scheme = place.split_once("://").map_or(place, |(_, rest)| rest);
        let path = after_scheme.find('/').and_then(|at| after_scheme.get(at..));
        let mut text = format!("/{}{}", self.account, path.unwrap_or("/"));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<_> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (percent_decoded(name).to_lowercase(), percent_decoded(value)))
            .collect();
        pairs.sort_unstable();
        for (name, value) in pairs {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text
    }
}

impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.account, &self.digest) == (&other.account, &other.digest)
    }
}

impl Eq for SharedKey {}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut form = f.debug_struct("SharedKey");
        form.field("account", &self.account).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        let pair = |(name, value): &(&str, &str)| {
            let name = HeaderName::try_from(*name).unwrap();
            (name, HeaderValue::try_from(*value).unwrap())
        };
        pairs.map(pair).collect()
    }

    /// The examples of the page, with the canonical lines that it shows.
    #[test]
    fn the_published_examples_come_out() {
        let key = SharedKey::new("myaccount", b"key");
        let metadata = key.string_to_sign(
            &Method::GET,
            "https://myaccount.blob.core.windows.net/mycontainer?comp=metadata&restype=container\
             &timeout=20",
            &headers(&[
                ("x-ms-version", "2015-02-21"),
                ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"),
            ]),
            0,
        );
        assert_eq!(
            metadata,
            "GET\n\n\n\n\n\n\n\n\n\n\n\n\
             x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
        let put = key.string_to_sign(
            &Method::PUT,
            "http://myaccount.blob.core.windows.net/mycontainer/hello.txt",
            &headers(&[
                ("content-type", "text/plain; charset=UTF-8"),
                ("x-ms-date", "Sun, 20 Sep 2009 20:36:40 GMT"),
                ("x-ms-meta-m1", "v1"),
                ("x-ms-meta-m2", "v2"),
            ]),
            11,
        );
        assert_eq!(
            put,
            "PUT\n\n\n11\n\ntext/plain; charset=UTF-8\n\n\n\n\n\n\n\
             x-ms-date:Sun, 20 Sep 2009 20:36:40 GMT\nx-ms-meta-m1:v1\nx-ms-meta-m2:v2\n\
             /myaccount/mycontainer/hello.txt"
        );
    }

    #[test]
    fn an_emulators_account_stands_there_twice_and_values_are_decoded() {
        let key = SharedKey::new("dev", b"key");
        let text = key.resource("http://127.0.0.1:1/dev/c/a%20b?comp=block&blockid=YWI%3D");
        assert_eq!(text, "/dev/dev/c/a%20b\nblockid:YWI=\ncomp:block");
        assert_eq!(key.resource("http://h"), "/dev/");
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_hmac_sha256() {
        let key = SharedKey::new("a", b"Jefe");
        let signature = hmac::sign(&key.key, b"what do ya want for nothing?");
        assert!(hex::encode(signature.as_ref()).starts_with("5bdcc146bf60754e6a042426089575c7"));
        let value = key.authorization(&Method::GET, "https://h/c", &HeaderMap::new(), 0);
        assert!(value.starts_with("SharedKey a:"), "{value}");
    }
}
