//! `trace.enable`: what goes over the wire, at debug level, without secrets.

use std::fmt;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};

/// Headers for the log.
pub(super) struct Redacted<'a>(pub(super) &'a HeaderMap);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(", ")?;
            }
            if is_secret(name) || value.is_sensitive() {
                write!(f, "{name}: …")?;
            } else {
                write!(f, "{name}: {}", value.as_bytes().escape_ascii())?;
            }
        }
        Ok(())
    }
}

fn is_secret(name: &HeaderName) -> bool {
    let text = name.as_str();
    name == AUTHORIZATION
        || name == PROXY_AUTHORIZATION
        || text.contains("security-token")
        || text.contains("customer-key")
        || text.contains("cookie")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn secrets_are_not_told() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "proxy-authorization",
            "x-amz-security-token",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-server-side-encryption-customer-key-md5",
            "set-cookie",
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static("secret"),
            );
        }
        headers.insert("x-amz-date", HeaderValue::from_static("now"));
        let text = Redacted(&headers).to_string();
        assert!(
            !text.contains("secret") && text.contains("x-amz-date: now"),
            "{text}"
        );
    }
}
