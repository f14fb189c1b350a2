//! Proxies: which kind, where, and with which credentials.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use http::uri::Uri;

/// A proxy through which every connection goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) kind: ProxyKind,
    pub(super) uri: Uri,
    pub(super) credentials: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyKind {
    /// Spoken to in HTTP, over TLS where the scheme is https: CONNECT for https targets,
    /// absolute-form requests for http targets.
    Http,
    /// SOCKS 5; names are resolved by the proxy, also for `socks5`, as in the reference.
    Socks5,
}

/// The text names no usable proxy. The text itself is left out: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a proxy URL: {reason}")]
pub struct InvalidProxy {
    reason: &'static str,
}

// === impl Proxy ===

impl Proxy {
    /// Parses `http://`, `https://`, `socks5://` or `socks5h://` with optional `user:password@`.
    ///
    /// # Errors
    /// Where the scheme is another, or there is no host.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        let invalid = |reason| InvalidProxy { reason };
        let uri: Uri = text.parse().map_err(|_| invalid("not a URL"))?;
        let (kind, scheme, port) = match uri.scheme_str() {
            Some("http") => (ProxyKind::Http, "http", 80),
            Some("https") => (ProxyKind::Http, "https", 443),
            Some("socks5" | "socks5h") => (ProxyKind::Socks5, "http", 1080),
            Some(_) => return Err(invalid("the scheme is none of http, https, socks5")),
            None => return Err(invalid("it has no scheme")),
        };
        let authority = uri.authority().ok_or(invalid("it has no host"))?;
        let credentials = authority.as_str().rsplit_once('@').map(|(user_info, _)| {
            let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
            (percent_decoded(user), percent_decoded(password))
        });
        if authority.host().is_empty() {
            return Err(invalid("it has no host"));
        }
        let port = authority.port_u16().unwrap_or(port);
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(format!("{}:{port}", authority.host()))
            .path_and_query("/")
            .build()
            .map_err(|_| invalid("not a URL"))?;
        Ok(Self {
            kind,
            uri,
            credentials,
        })
    }

    /// The header that plain-http requests through an HTTP proxy carry.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let token = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {token}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether plain-http requests are sent to the proxy in absolute form.
    pub(super) fn takes_absolute_form(&self) -> bool {
        self.kind == ProxyKind::Http
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("uri", &self.uri)
            .field("credentials", &self.credentials.as_ref().map(|_| "***"))
            .finish()
    }
}

/// Replaces `%41` by `A`: user names and passwords inside URLs are written so.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let escaped = (*byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 16).ok()
            });
        bytes.push(escaped.unwrap_or(*byte));
        rest = match escaped {
            Some(_) => tail.get(2..).unwrap_or_default(),
            None => tail,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_parsed_and_keep_their_secret() {
        let proxy = Proxy::parse("http://us%40er:p%3Aw@proxy.example:3128").unwrap();
        assert_eq!(
            proxy.credentials,
            Some(("us@er".to_owned(), "p:w".to_owned()))
        );
        assert_eq!(proxy.uri.to_string(), "http://proxy.example:3128/");
        assert!(!format!("{proxy:?}").contains("p:w"), "{proxy:?}");
        let socks = Proxy::parse("socks5://[::1]").unwrap();
        assert_eq!(socks.uri.to_string(), "http://[::1]:1080/");
        for bad in ["", "proxy:3128", "ftp://a", "/x", "http://"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_escapes_are_decoded_and_broken_ones_kept() {
        assert_eq!(percent_decoded("a%20b%zz%4"), "a b%zz%4");
    }
}
