//! `put_user_metadata`: which headers its keys become (contract `objstore.md` §2).
//!
//! A key that is a header of S3's own is sent as it is, any other as `x-amz-meta-<key>`; the
//! storage class is told apart, as it belongs to single and multipart uploads alike.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

const STORAGE_CLASS: &str = "x-amz-storage-class";
const USER_PREFIX: &str = "x-amz-meta-";
/// Algorithm, key and context of encryption at the server.
const ENCRYPTION_PREFIX: &str = "x-amz-server-side-encryption";
/// The customer's own key for it.
const CUSTOMER_KEY_PREFIX: &str = "x-amz-server-side-encryption-customer-";
/// Of one object's bytes, so it can't be the same for all.
const CHECKSUM_PREFIX: &str = "x-amz-checksum-";

/// Headers of an upload request that are not user metadata.
const STANDARD_HEADERS: [&str; 11] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-acl",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-website-redirect-location",
];
const STANDARD_PREFIXES: [&str; 3] = [USER_PREFIX, "x-amz-grant-", ENCRYPTION_PREFIX];

/// The headers that every upload carries.
#[derive(Debug, Default)]
pub(super) struct PutHeaders {
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) storage_class: Option<HeaderValue>,
}

/// An entry that can't be sent. Values are left out: one never knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// The key has characters that no header name has.
    #[error(
        "the key {key:?} can't be part of a header's name: use letters, digits, `-`, `_` and `.`"
    )]
    Name {
        /// As given.
        key: String,
    },
    /// The value has characters that can't be sent.
    #[error(
        "the value of {key:?} can't be sent in a header: S3 takes printable ASCII only, so \
         percent-encode the rest"
    )]
    Value {
        /// Whose value.
        key: String,
    },
    /// A checksum for all objects, however their bytes differ.
    #[error(
        "{key:?} would be the checksum of every object: remove it, uploads are checksummed anyway"
    )]
    Checksum {
        /// As given.
        key: String,
    },
    /// Two keys are the same header.
    #[error("the header of {key:?} is there twice: header names have no upper and lower case")]
    Twice {
        /// The second of the keys.
        key: String,
    },
    /// A customer's key for encryption, which reads and parts of uploads need too.
    #[error(
        "{key:?} must go with every request, not only with those that begin an object: use \
         sse_config of type SSE-C with the key in encryption_key"
    )]
    CustomerKey {
        /// As given.
        key: String,
    },
    /// `sse_config` sends the same header.
    #[error("{key:?} is set although sse_config has a type, which sends it: remove one of them")]
    Encryption {
        /// As given.
        key: String,
    },
}

impl PutHeaders {
    /// Sorts the entries. `encrypted`: `sse_config` sends headers of its own.
    pub(super) fn new(
        metadata: &BTreeMap<String, String>,
        encrypted: bool,
    ) -> Result<Self, InvalidMetadata> {
        let mut put = Self::default();
        for (key, value) in metadata {
            let lower = key.to_ascii_lowercase();
            let value = match HeaderValue::from_str(value) {
                Ok(header) if value.is_ascii() => header,
                _ => return Err(InvalidMetadata::Value { key: key.clone() }),
            };
            if lower == STORAGE_CLASS {
                if put.storage_class.replace(value).is_some() {
                    return Err(InvalidMetadata::Twice { key: key.clone() });
                }
                continue;
            }
            if lower.starts_with(CHECKSUM_PREFIX) {
                return Err(InvalidMetadata::Checksum { key: key.clone() });
            }
            if lower.starts_with(CUSTOMER_KEY_PREFIX) {
                return Err(InvalidMetadata::CustomerKey { key: key.clone() });
            }
            if encrypted && lower.starts_with(ENCRYPTION_PREFIX) {
                return Err(InvalidMetadata::Encryption { key: key.clone() });
            }
            let name = match is_standard(&lower) {
                true => HeaderName::from_bytes(lower.as_bytes()),
                false => HeaderName::from_bytes(format!("{USER_PREFIX}{lower}").as_bytes()),
            };
            let name = name.map_err(|_| InvalidMetadata::Name { key: key.clone() })?;
            if put.headers.iter().any(|(known, _)| *known == name) {
                return Err(InvalidMetadata::Twice { key: key.clone() });
            }
            put.headers.push((name, value));
        }
        put.storage_class = put.storage_class.filter(|class| !class.is_empty());
        Ok(put)
    }
}

fn is_standard(lower: &str) -> bool {
    STANDARD_HEADERS.contains(&lower)
        || STANDARD_PREFIXES
            .iter()
            .any(|prefix| lower.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(entries: &[(&str, &str)], encrypted: bool) -> Result<PutHeaders, InvalidMetadata> {
        let pairs = entries.iter();
        let map = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        PutHeaders::new(&map.collect(), encrypted)
    }

    fn sent(key: &str) -> String {
        let put = put(&[(key, "v")], false).unwrap();
        assert_eq!(put.storage_class, None, "{key}");
        assert_eq!(put.headers.len(), 1, "{key}");
        assert_eq!(put.headers[0].1, "v", "{key}");
        put.headers[0].0.to_string()
    }

    #[test]
    fn headers_of_s3_are_sent_as_they_are_and_others_as_user_metadata() {
        for key in [
            "Cache-Control",
            "content-type",
            "CONTENT-ENCODING",
            "Content-Disposition",
            "Content-Language",
            "Expires",
            "X-Amz-Acl",
            "x-amz-object-lock-mode",
            "x-amz-object-lock-retain-until-date",
            "x-amz-object-lock-legal-hold",
            "x-amz-grant-read",
            "x-amz-website-redirect-location",
            "X-Amz-Server-Side-Encryption",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "X-Amz-Meta-Team",
        ] {
            assert_eq!(sent(key), key.to_ascii_lowercase());
        }
        for (key, name) in [
            ("Team", "x-amz-meta-team"),
            ("cost.center_1", "x-amz-meta-cost.center_1"),
            ("x-amz-tagging", "x-amz-meta-x-amz-tagging"),
            ("content-length", "x-amz-meta-content-length"),
        ] {
            assert_eq!(sent(key), name);
        }
    }

    #[test]
    fn the_storage_class_is_told_apart() {
        for key in ["x-amz-storage-class", "X-Amz-Storage-Class"] {
            let put = put(&[(key, "STANDARD_IA"), ("a", "b")], false).unwrap();
            assert_eq!(put.storage_class.unwrap(), "STANDARD_IA");
            assert_eq!(put.headers.len(), 1);
        }
        let none = put(&[("x-amz-storage-class", "")], false).unwrap();
        assert_eq!(none.storage_class, None);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_its_key() {
        let refused = |entries: &[(&str, &str)], encrypted| {
            let error = put(entries, encrypted).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
            error
        };
        for (entries, key) in [
            (&[("a", "hidden\n")][..], "a"),
            (&[("ä", "hidden")], "ä"),
            (&[("a b", "hidden")], "a b"),
            (&[("b", "hidden ü")], "b"),
            (&[("A", "1"), ("a", "hidden")], "a"),
            (&[("X-Amz-Meta-A", "1"), ("a", "hidden")], "a"),
            (
                &[("x-amz-checksum-crc32", "hidden")],
                "x-amz-checksum-crc32",
            ),
            (
                &[
                    ("X-AMZ-Storage-Class", "1"),
                    ("x-amz-storage-class", "hidden"),
                ],
                "x-amz-storage-class",
            ),
        ] {
            let text = refused(entries, false).to_string();
            assert!(text.contains(&format!("{key:?}")), "{text}");
        }
        for key in [
            "x-amz-server-side-encryption-customer-key",
            "X-Amz-Server-Side-Encryption-Customer-Algorithm",
        ] {
            for encrypted in [false, true] {
                let text = refused(&[(key, "hidden")], encrypted).to_string();
                assert!(text.contains(key) && text.contains("sse_config"), "{text}");
            }
        }
        let twice = &[("x-amz-server-side-encryption", "hidden")];
        assert!(put(twice, false).is_ok());
        assert!(matches!(
            refused(twice, true),
            InvalidMetadata::Encryption { .. }
        ));
    }
}
