//! The base URL of Prometheus, as lax as the reference about what it can still reach.
//!
//! Go's parser takes nearly any text, and the reference then retries for ever with a URL that no
//! client can call (`localhost:9090` is a URL with the scheme `localhost`). Here such a URL is a
//! command-line error. What Go can call is taken: blanks and non-ASCII in the path, a user and
//! password, a scheme in capitals; query and fragment are dropped, as each request has its own.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use http::Uri;

/// An `http` or `https` URL with a host, an optional path prefix and optional credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct PrometheusUrl(Uri);

/// Why the text is no URL that Prometheus could be called at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parse {url:?}: {problem}")]
pub struct InvalidUrl {
    url: String,
    problem: UrlProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum UrlProblem {
    #[error("net/url: invalid control character in URL")]
    ControlCharacter,
    #[error("missing protocol scheme")]
    NoScheme,
    #[error("first path segment in URL cannot contain colon")]
    ColonBeforeScheme,
    #[error("unsupported protocol scheme {0:?}, want http or https")]
    OtherScheme(String),
    #[error("no host in URL")]
    NoHost,
    #[error("invalid port {0:?} after host")]
    Port(String),
    #[error("missing ']' in host")]
    OpenBracket,
    #[error("invalid host or user {0:?}")]
    Authority(String),
    #[error("invalid URL escape {0:?}")]
    Escape(String),
}

// === impl PrometheusUrl ===

impl PrometheusUrl {
    /// The URL; its path is the prefix of every request, `/` where there is none.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for PrometheusUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).map_err(|problem| InvalidUrl {
            url: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for PrometheusUrl {
    /// The URL without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self.0.authority().map_or("", |a| a.as_str());
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        write!(f, "{scheme}://{host}{}", self.0.path())
    }
}

impl fmt::Debug for PrometheusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === parsing ===

fn parse(text: &str) -> Result<Uri, UrlProblem> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(UrlProblem::ControlCharacter);
    }
    let text = text.split('#').next().unwrap_or_default();
    let (scheme, rest) = split_scheme(text)?;
    let rest = rest.strip_prefix("//").ok_or(UrlProblem::NoHost)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('?').next().unwrap_or_default();
    let authority = checked_authority(authority)?;
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(escaped_path(path)?);
    uri.build()
        .map_err(|_| UrlProblem::Authority(authority.to_owned()))
}

fn split_scheme(text: &str) -> Result<(&'static str, &str), UrlProblem> {
    let (scheme, rest) = text.split_once(':').ok_or(UrlProblem::NoScheme)?;
    if scheme.is_empty() || scheme.contains('/') {
        return Err(UrlProblem::NoScheme);
    }
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(UrlProblem::ColonBeforeScheme);
    }
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Ok(("http", rest)),
        "https" => Ok(("https", rest)),
        _ => Err(UrlProblem::OtherScheme(scheme.to_owned())),
    }
}

/// `[user[:password]@]host[:port]`, without the colon of an empty port.
fn checked_authority(authority: &str) -> Result<&str, UrlProblem> {
    let host_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = if host_port.starts_with('[') {
        let end = host_port.rfind(']').ok_or(UrlProblem::OpenBracket)?;
        host_port.split_at(end + 1)
    } else {
        host_port.split_at(host_port.find(':').unwrap_or(host_port.len()))
    };
    if host.is_empty() {
        return Err(UrlProblem::NoHost);
    }
    match port.strip_prefix(':') {
        Some("") => Ok(&authority[..authority.len() - 1]),
        Some(digits)
            if digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok() =>
        {
            Ok(authority)
        }
        None if port.is_empty() => Ok(authority),
        _ => Err(UrlProblem::Port(port.to_owned())),
    }
}

/// The path with everything percent-encoded that a request line cannot carry.
fn escaped_path(path: &str) -> Result<String, UrlProblem> {
    let mut escaped = String::with_capacity(path.len().max(1));
    for (at, byte) in path.bytes().enumerate() {
        match byte {
            b'%' => {
                let code: String = path.bytes().skip(at).take(3).map(char::from).collect();
                let is_hex = code.len() == 3 && code.bytes().skip(1).all(|b| b.is_ascii_hexdigit());
                if !is_hex {
                    return Err(UrlProblem::Escape(code));
                }
                escaped.push('%');
            }
            b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                write!(escaped, "%{byte:02X}").expect("a String takes any text");
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    if escaped.is_empty() {
        escaped.push('/');
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_can_be_called_is_taken() {
        for (text, uri) in [
            ("http://localhost:9090", "http://localhost:9090/"),
            ("http://localhost:9090/", "http://localhost:9090/"),
            ("https://prom.example/a/b", "https://prom.example/a/b"),
            ("http://h:9090/a/b/", "http://h:9090/a/b/"),
            ("HTTP://H/", "http://H/"),
            ("http://h:", "http://h/"),
            ("http://[::1]:9090/x", "http://[::1]:9090/x"),
            ("http://h_x/", "http://h_x/"),
            ("http://h/a b", "http://h/a%20b"),
            ("http://h/é", "http://h/%C3%A9"),
            ("http://h/%41%2f", "http://h/%41%2f"),
            ("http://h?x=1", "http://h/"),
            ("https://u:p@h:1/x?y=1#z", "https://u:p@h:1/x"),
            ("http://h/a<\"|^`{}", "http://h/a%3C%22%7C%5E%60%7B%7D"),
        ] {
            let url: PrometheusUrl = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(url.uri().to_string(), uri, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_refused() {
        for (text, problem) in [
            ("", "missing protocol scheme"),
            ("foo", "missing protocol scheme"),
            ("//h:1/x", "missing protocol scheme"),
            (":9090", "missing protocol scheme"),
            (
                "127.0.0.1:9090",
                "first path segment in URL cannot contain colon",
            ),
            (
                "localhost:9090",
                "unsupported protocol scheme \"localhost\", want http or https",
            ),
            (
                "unix:///x",
                "unsupported protocol scheme \"unix\", want http or https",
            ),
            ("http:h", "no host in URL"),
            ("http://", "no host in URL"),
            ("http:///path", "no host in URL"),
            ("http://:9090", "no host in URL"),
            ("http://h:x", "invalid port \":x\" after host"),
            ("http://h:+1", "invalid port \":+1\" after host"),
            ("http://h:99999", "invalid port \":99999\" after host"),
            ("http://::1:9090", "no host in URL"),
            ("http://[::1", "missing ']' in host"),
            ("http://[::1]x", "invalid port \"x\" after host"),
            ("http://a b/", "invalid host or user \"a b\""),
            ("http://u p@h", "invalid host or user \"u p@h\""),
            ("http://h/%zz", "invalid URL escape \"%zz\""),
            ("http://h/%4", "invalid URL escape \"%4\""),
            ("http://h\u{1}", "net/url: invalid control character in URL"),
        ] {
            let error = text.parse::<PrometheusUrl>().unwrap_err();
            assert_eq!(error.to_string(), format!("parse {text:?}: {problem}"));
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let url: PrometheusUrl = "https://user:secret@h:1/x".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://h:1/x https://h:1/x");
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_with_a_host_or_an_error(
            text in "\\PC{0,20}|https?://[-a-z0-9.:@%/\\[\\]é ]{0,30}",
        ) {
            if let Ok(url) = text.parse::<PrometheusUrl>() {
                prop_assert!(url.uri().host().is_some_and(|host| !host.is_empty()));
                prop_assert!(url.uri().path().starts_with('/'));
            }
        }
    }
}
