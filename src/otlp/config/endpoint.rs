//! Where a collector listens, as documents and variables write it.

use http::Uri;
use http::uri::{Authority, Scheme};

/// `host`, `host:port`, or a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// What its scheme says; `None` without one.
    pub(super) is_plain: Option<bool>,
    /// Without the slash at its end; empty where there is none.
    pub(super) path: String,
}

impl Endpoint {
    /// `None` for a text that is none of the three.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // A name of grpc-go's resolver.
        let text = text.strip_prefix("dns:///").unwrap_or(text);
        let (authority, is_plain, path) = match text.contains("://") {
            false => (text.parse::<Authority>().ok()?, None, String::new()),
            true => {
                let parts = text.parse::<Uri>().ok()?.into_parts();
                let scheme = parts.scheme?;
                let is_plain = match () {
                    () if scheme == Scheme::HTTP => true,
                    () if scheme == Scheme::HTTPS => false,
                    () => return None,
                };
                let path = parts.path_and_query.map_or_else(String::new, |path| {
                    path.as_str().trim_end_matches('/').to_owned()
                });
                (parts.authority?, Some(is_plain), path)
            }
        };
        // Not what the parser says of the port: it passes over one that is no number.
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => None,
            rest => Some(rest.strip_prefix(':')?.parse().ok()?),
        };
        (!authority.host().is_empty()).then(|| Self {
            host: authority.host().to_owned(),
            port,
            is_plain,
            path,
        })
    }

    /// `host:port`.
    pub(super) fn address(&self, port_default: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(port_default))
    }

    /// The URL of a path there.
    pub(super) fn url(&self, is_plain: bool, path: &str) -> Option<Uri> {
        let scheme = if is_plain {
            Scheme::HTTP
        } else {
            Scheme::HTTPS
        };
        let authority = match self.port {
            None => self.host.clone(),
            Some(port) => format!("{}:{port}", self.host),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(format!("{slash}{path}"))
            .build()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_ports_and_urls_are_told_apart() {
        let endpoint = |host: &str, port, is_plain, path: &str| Endpoint {
            host: host.to_owned(),
            port,
            is_plain,
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("otel:4317", endpoint("otel", Some(4317), None, "")),
            ("otel", endpoint("otel", None, None, "")),
            ("[::1]:4317", endpoint("[::1]", Some(4317), None, "")),
            ("dns:///otel:4317", endpoint("otel", Some(4317), None, "")),
            (
                "http://otel:4318",
                endpoint("otel", Some(4318), Some(true), ""),
            ),
            (
                "https://otel/a/b/",
                endpoint("otel", None, Some(false), "/a/b"),
            ),
        ] {
            assert_eq!(Endpoint::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            ":4317",
            "a b",
            "otel:",
            "otel:99999",
            "otel:x",
            "ftp://otel",
            "u:p@otel:1",
            "http://",
            "otel:4317/v1/traces",
            "unix:///run/otel.sock",
        ] {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
        let bare = Endpoint::parse("otel").unwrap();
        assert_eq!(bare.address(443), "otel:443");
        assert_eq!(
            bare.url(false, "v1/traces").unwrap(),
            "https://otel/v1/traces"
        );
        assert_eq!(bare.url(true, "/x y"), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}") {
            if let Some(endpoint) = Endpoint::parse(&text) {
                prop_assert!(!endpoint.host.is_empty());
                endpoint.address(1);
            }
        }
    }
}
