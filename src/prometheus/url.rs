//! URLs of Prometheus: the base from the command line, the paths under it, redirect targets.

use std::fmt;
use std::str::FromStr;

use http::uri::{Authority, Scheme, Uri};

use super::authorization::{Authorization, Secret, SecretSource};
use crate::net::http::percent_decoded;

/// Where Prometheus is: scheme, host, and the path under which its API lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    path: String,
    /// From `user:password@` in the URL.
    user: Option<(String, Secret)>,
}

/// The text is no http or https URL. The text itself is left out: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of Prometheus: {reason}")]
pub struct InvalidUrl {
    reason: &'static str,
}

// === impl BaseUrl ===

impl BaseUrl {
    /// The URL of `path` under the base, which keeps its own path: joined and cleaned like Go's
    /// `path.Join`, so that a trailing slash of the base does no harm.
    pub(super) fn join(&self, path: &str, query: &str) -> Option<Uri> {
        let path = clean_path(&format!("{}/{path}", self.path));
        let path_and_query = match query {
            "" => path,
            query => format!("{path}?{query}"),
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path_and_query)
            .build()
            .ok()
    }

    /// The credentials of the URL, which count where the client's configuration has none.
    pub(super) fn authorization(&self) -> Authorization {
        match &self.user {
            None => Authorization::None,
            Some((username, password)) => Authorization::Basic {
                username: username.clone(),
                password: SecretSource::Inline(password.clone()),
            },
        }
    }
}

/// Without credentials.
impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl FromStr for BaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let reason = "it can't be parsed";
        Self::try_from(&text.parse::<Uri>().map_err(|_| InvalidUrl { reason })?)
    }
}

impl TryFrom<&Uri> for BaseUrl {
    type Error = InvalidUrl;

    fn try_from(uri: &Uri) -> Result<Self, InvalidUrl> {
        let invalid = |reason| InvalidUrl { reason };
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::HTTP,
            Some("https") => Scheme::HTTPS,
            Some(_) => return Err(invalid("the scheme is neither http nor https")),
            None => return Err(invalid("it has no scheme")),
        };
        let authority = uri.authority().ok_or(invalid("it has no host"))?;
        if authority.host().is_empty() {
            return Err(invalid("it has no host"));
        }
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (
                percent_decoded(name),
                Secret::from(percent_decoded(password)),
            )
        });
        Ok(Self {
            scheme,
            authority: host.parse().map_err(|_| invalid("it has no host"))?,
            path: uri.path().to_owned(),
            user,
        })
    }
}

/// Go's `path.Clean` for a path that begins with `/`: no empty, `.` or `..` element and no final
/// slash remain.
pub(super) fn clean_path(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            element => kept.push(element),
        }
    }
    format!("/{}", kept.join("/"))
}

/// A redirect's location as it may be followed and shown: without `user:password@`, which would
/// else go into `Host` and into the texts of errors.
pub(super) fn without_userinfo(location: &str) -> String {
    let Some((scheme, rest)) = location.split_once("//") else {
        return location.to_owned();
    };
    // Further on, `//` begins no authority.
    if scheme.contains(['/', '?', '#']) {
        return location.to_owned();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}//{host}{after}")
}

/// The target of a redirect from `from` (RFC 3986 §5.2 without the parts that http never has),
/// without credentials.
pub(super) fn redirect_target(from: &Uri, location: &str) -> Option<Uri> {
    let location = without_userinfo(location);
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let before_path = location.split(['/', '?']).next().unwrap_or_default();
    let text = if before_path.contains(':') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let (relative, query) = match location.split_once('?') {
            Some((relative, query)) => (relative, format!("?{query}")),
            None => (location, String::new()),
        };
        let directory = from
            .path()
            .rsplit_once('/')
            .map_or("", |(before, _)| before);
        let mut path = clean_path(&format!("{directory}/{relative}"));
        if relative.ends_with('/') && path != "/" {
            path.push('/');
        }
        format!("{scheme}://{authority}{path}{query}")
    };
    let target: Uri = text.parse().ok()?;
    let is_http = matches!(target.scheme_str(), Some("http" | "https"));
    (is_http && target.authority().is_some()).then_some(target)
}

/// Whether credentials for one may be shown to the other.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    a.scheme() == b.scheme() && a.authority() == b.authority()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(base: &str, path: &str) -> String {
        let base: BaseUrl = base.parse().unwrap();
        base.join(path, "").unwrap().to_string()
    }

    #[test]
    fn the_path_of_the_base_is_kept() {
        for (base, expected) in [
            ("http://h:9090", "http://h:9090/api/v1/read"),
            ("http://h:9090/", "http://h:9090/api/v1/read"),
            ("http://h/prom/", "http://h/prom/api/v1/read"),
            ("https://h/a//b/./../c", "https://h/a/c/api/v1/read"),
            ("http://h/../..", "http://h/api/v1/read"),
            (
                "http://[::1]:9090/x?y=1#z",
                "http://[::1]:9090/x/api/v1/read",
            ),
        ] {
            assert_eq!(joined(base, "/api/v1/read"), expected, "{base}");
        }
        let base: BaseUrl = "http://h/p".parse().unwrap();
        assert_eq!(
            base.join("/x", "a=b").unwrap().to_string(),
            "http://h/p/x?a=b"
        );
    }

    #[test]
    fn credentials_in_the_url_are_kept_apart() {
        let base: BaseUrl = "http://user:pass@h/".parse().unwrap();
        assert_eq!(base.join("/x", "").unwrap().to_string(), "http://h/x");
        assert!(!format!("{base:?}").contains("pass"));
        assert_eq!(base.to_string(), "http://h/");
        let Authorization::Basic { username, .. } = base.authorization() else {
            panic!("{:?}", base.authorization());
        };
        assert_eq!(username, "user");
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "localhost:9090",
            "/x",
            "ftp://h",
            "unix:///x",
            "http://",
            "http://a b",
        ] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn redirects_resolve_against_the_request() {
        let from = Uri::from_static("http://h:1/a/b?c=d");
        for (location, expected) in [
            ("https://other/x", "https://other/x"),
            ("//other/x", "http://other/x"),
            ("/x?y#z", "http://h:1/x?y"),
            ("x", "http://h:1/a/x"),
            ("../x/", "http://h:1/x/"),
            ("?q=1", "http://h:1/a/b?q=1"),
            ("http://user:pw@other:2/x@y?a@b", "http://other:2/x@y?a@b"),
            ("//user@pw@other", "http://other/"),
            ("/x//a@b", "http://h:1/x//a@b"),
        ] {
            let target = redirect_target(&from, location).unwrap();
            assert_eq!(target.to_string(), expected, "{location}");
        }
        for bad in ["http://", "http:// x", "gopher://x", "mailto:x", "http:x"] {
            assert!(redirect_target(&from, bad).is_none(), "{bad}");
        }
        assert_eq!(without_userinfo("gopher://u:pw@x/y"), "gopher://x/y");
    }

    proptest! {
        #[test]
        fn a_clean_path_is_rooted_has_no_odd_element_and_stays_the_same(
            path in "(/|\\.|\\.\\.|[a-z]{1,3}){0,12}",
        ) {
            let clean = clean_path(&path);
            prop_assert!(clean.starts_with('/'));
            prop_assert!(clean == "/" || !clean.ends_with('/'));
            for element in clean.split('/').skip(1) {
                prop_assert!(!element.is_empty() || clean == "/");
                prop_assert!(element != "." && element != "..");
            }
            prop_assert_eq!(clean_path(&clean), clean.clone());
        }

        #[test]
        fn joining_appends_whole_elements(
            base in "(/[a-z]{1,4}){0,4}/?",
            path in "(/[a-z0-9]{1,4}){1,4}",
        ) {
            let expected = format!("http://h{}{path}", base.trim_end_matches('/'));
            prop_assert_eq!(joined(&format!("http://h{base}"), &path), expected);
        }
    }
}
