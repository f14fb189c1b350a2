//! Proxies: which kind, where, with which credentials, and for which targets.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use http::uri::{Scheme, Uri};

use super::no_proxy::NoProxy;

/// What connections go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy(Routes);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Routes {
    /// One proxy for every target.
    All(Arc<ProxyServer>),
    /// As `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say.
    Environment(Arc<Environment>),
}

#[derive(Debug, PartialEq, Eq)]
struct Environment {
    http: Option<ProxyServer>,
    https: Option<ProxyServer>,
    no_proxy: NoProxy,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ProxyServer {
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

/// An environment variable that should name a proxy names none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}")]
pub struct InvalidProxyVariable {
    /// The variable.
    pub name: &'static str,
    /// Why.
    pub source: InvalidProxy,
}

// === impl Proxy ===

impl Proxy {
    /// One proxy for every target: `http://`, `https://`, `socks5://` or `socks5h://` with
    /// optional `user:password@`.
    ///
    /// # Errors
    /// Where the scheme is another, or there is no host.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        Ok(Self(Routes::All(Arc::new(ProxyServer::parse(text)?))))
    }

    /// The proxies of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or their names in lower case;
    /// `None` where neither of the first two is set. Loopback is always reached directly.
    ///
    /// # Errors
    /// Where a variable names no usable proxy. Going past a proxy that was asked for would be
    /// worse than not starting.
    pub fn from_environment(
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, InvalidProxyVariable> {
        let text = |upper: &'static str, lower: &'static str| {
            [upper, lower].into_iter().find_map(|name| {
                let value = variable(name)?.to_string_lossy().into_owned();
                (!value.is_empty()).then_some((name, value))
            })
        };
        let server = |upper, lower| match text(upper, lower) {
            None => Ok(None),
            Some((name, value)) => match ProxyServer::parse_lenient(&value) {
                Ok(server) => Ok(Some(server)),
                Err(source) => Err(InvalidProxyVariable { name, source }),
            },
        };
        let (http, https) = (
            server("HTTP_PROXY", "http_proxy")?,
            server("HTTPS_PROXY", "https_proxy")?,
        );
        if http.is_none() && https.is_none() {
            return Ok(None);
        }
        let no_proxy = text("NO_PROXY", "no_proxy").map(|(_, value)| NoProxy::parse(&value));
        Ok(Some(Self(Routes::Environment(Arc::new(Environment {
            http,
            https,
            no_proxy: no_proxy.unwrap_or_default(),
        })))))
    }

    /// The proxy that a connection to `target` goes through.
    pub(super) fn server(&self, target: &Uri) -> Option<&ProxyServer> {
        match &self.0 {
            Routes::All(server) => Some(server),
            Routes::Environment(environment) => environment.server(target),
        }
    }
}

impl Environment {
    fn server(&self, target: &Uri) -> Option<&ProxyServer> {
        let is_https = target.scheme() == Some(&Scheme::HTTPS);
        let host = target.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = target.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let server = if is_https { &self.https } else { &self.http };
        server
            .as_ref()
            .filter(|_| !self.no_proxy.covers(host, port))
    }
}

// === impl ProxyServer ===

impl ProxyServer {
    /// As [`Self::parse`], and without a scheme it is an HTTP proxy, as Go has it in variables.
    fn parse_lenient(text: &str) -> Result<Self, InvalidProxy> {
        match text.contains("://") {
            true => Self::parse(text),
            false => Self::parse(&format!("http://{text}")),
        }
    }

    fn parse(text: &str) -> Result<Self, InvalidProxy> {
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

impl fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyServer")
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
        let proxy = ProxyServer::parse("http://us%40er:p%3Aw@proxy.example:3128").unwrap();
        assert_eq!(
            proxy.credentials,
            Some(("us@er".to_owned(), "p:w".to_owned()))
        );
        assert_eq!(proxy.uri.to_string(), "http://proxy.example:3128/");
        assert!(!format!("{proxy:?}").contains("p:w"), "{proxy:?}");
        let socks = ProxyServer::parse("socks5://[::1]").unwrap();
        assert_eq!(socks.uri.to_string(), "http://[::1]:1080/");
        for bad in ["", "proxy:3128", "ftp://a", "/x", "http://"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    /// Through which proxy each target goes, by these variables.
    fn through(variables: &[(&str, &str)], target: &str) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let proxy = Proxy::from_environment(&variable).unwrap()?;
        let server = proxy.server(&target.parse().unwrap())?;
        Some(server.uri.to_string())
    }

    #[test]
    fn the_environment_says_which_target_goes_through_which_proxy() {
        let both = [
            ("HTTP_PROXY", "http://plain:1"),
            ("HTTPS_PROXY", "secure:2"),
            ("NO_PROXY", "direct.example,10.0.0.0/8,here:9000"),
        ];
        for (target, proxy) in [
            ("http://s3.example/b", Some("http://plain:1/")),
            ("https://s3.example/b", Some("http://secure:2/")),
            ("https://b.direct.example/k", None),
            ("http://10.1.2.3:9000/", None),
            ("http://here:9000/", None),
            ("http://here:9001/", Some("http://plain:1/")),
            ("http://localhost:9000/", None),
            ("http://[::1]:9000/", None),
            ("http://127.0.0.1/", None),
        ] {
            assert_eq!(through(&both, target).as_deref(), proxy, "{target}");
        }
        let lower = [("https_proxy", "socks5://s"), ("no_proxy", "*.a")];
        assert_eq!(
            through(&lower, "https://b").as_deref(),
            Some("http://s:1080/")
        );
        assert_eq!(through(&lower, "http://b"), None);
        assert_eq!(through(&lower, "https://x.a"), None);
        let upper_first = [("HTTP_PROXY", ""), ("http_proxy", "http://l:1")];
        assert_eq!(
            through(&upper_first, "http://b").as_deref(),
            Some("http://l:1/")
        );
        assert_eq!(through(&[("NO_PROXY", "*")], "http://b"), None);
        assert_eq!(through(&[], "http://b"), None);
    }

    #[test]
    fn a_broken_variable_is_named_and_not_shown() {
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            let variable = |asked: &str| (asked == name).then(|| "ftp://hidden@x".into());
            let error = Proxy::from_environment(&variable).unwrap_err();
            assert_eq!(error.name, name);
            let shown = format!("{error} {} {error:?}", error.source);
            assert!(!shown.contains("hidden"), "{shown}");
        }
    }

    #[test]
    fn percent_escapes_are_decoded_and_broken_ones_kept() {
        assert_eq!(percent_decoded("a%20b%zz%4"), "a b%zz%4");
    }
}
