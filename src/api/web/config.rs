//! The web configuration document of `--http.config` (contract `cli.md` §3.1): TLS, headers, users,
//! rate limit.
//!
//! Strict: an unknown key, a value of the wrong kind and whatever can't be done is an error that
//! names key and line. What the reference takes and does nothing with is a warning.

use std::collections::BTreeMap;
use std::path::Path;

use bcrypt::HashParts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::passwords::Users;
use super::rate::RateLimit;
use super::tls::parse_tls;
use crate::model::{DocumentError, GoDuration, Mapping, Scalar};
use crate::net::{HttpsTls, TlsError};

/// A bcrypt cost from which on one check takes more than a second of CPU.
const BCRYPT_COST_HIGH: u32 = 15;

/// Headers that may be set, and what they may say; empty for anything.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// A parsed document. TLS files are not read yet.
#[derive(Debug)]
pub(super) struct WebConfig {
    /// `tls_server_config`; `None` for plain text.
    pub(super) tls: Option<HttpsTls>,
    /// `http_server_config.http2`.
    pub(super) http2: bool,
    /// `http_server_config.headers`.
    pub(super) headers: HeaderMap,
    /// `basic_auth_users`.
    pub(super) users: Users,
    /// `rate_limit`.
    pub(super) rate: Option<RateLimit>,
    /// What is odd and yet no error, for the log.
    pub(super) warnings: Vec<String>,
}

/// Why a document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WebDocumentError {
    /// Not YAML, an unknown key, or a value of the wrong kind.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A value that is none of those that may stand there.
    #[error("`{key}` in line {line} is {value:?} and must be one of {allowed}")]
    NotAllowed {
        /// The key with those around it.
        key: String,
        /// Its line, from 1.
        line: u64,
        /// As given.
        value: String,
        /// What may stand there.
        allowed: String,
    },
    /// A cipher suite or curve that can't be used.
    #[error("`{key}` in line {line}")]
    Tls {
        /// The key with those around it.
        key: String,
        /// Its line, from 1.
        line: u64,
        /// Why.
        source: Box<TlsError>,
    },
    /// Something else that can't be.
    #[error("`{key}` in line {line}: {reason}")]
    Refused {
        /// The key with those around it.
        key: String,
        /// Its line, from 1.
        line: u64,
        /// Why, and what to do.
        reason: String,
    },
}

// === impl WebConfig ===

impl WebConfig {
    /// Reads the document. Relative paths in it begin at `directory`, where its file is.
    ///
    /// # Errors
    /// See [`WebDocumentError`].
    pub(super) fn parse(yaml: &str, directory: &Path) -> Result<Self, WebDocumentError> {
        let mut warnings = Vec::new();
        let mut root = Mapping::parse(yaml)?;
        let mut http = root.mapping("http_server_config")?;
        let http2 = http.boolean("http2")?.unwrap_or(true);
        let headers = headers(http.mapping("headers")?)?;
        http.end()?;
        let tls = parse_tls(
            root.mapping("tls_server_config")?,
            directory,
            http2,
            &mut warnings,
        )?;
        let users = users(root.mapping("basic_auth_users")?, &mut warnings)?;
        let rate = rate_limit(root.mapping("rate_limit")?)?;
        root.end()?;
        if tls.is_none() && users.is_empty() {
            warnings.push(
                "the web configuration asks for neither TLS nor basic authentication: \
                 the HTTP server is open"
                    .to_owned(),
            );
        }
        Ok(Self {
            tls,
            http2,
            headers,
            users,
            rate,
            warnings,
        })
    }
}

// === impl WebDocumentError ===

impl WebDocumentError {
    pub(super) fn refused(scalar: &Scalar, reason: impl Into<String>) -> Self {
        Self::Refused {
            key: scalar.key.clone(),
            line: scalar.line,
            reason: reason.into(),
        }
    }

    pub(super) fn not_allowed(scalar: &Scalar, allowed: &[&str]) -> Self {
        Self::NotAllowed {
            key: scalar.key.clone(),
            line: scalar.line,
            value: scalar.text.clone(),
            allowed: allowed.join(", "),
        }
    }
}

fn headers(mapping: Mapping<'_>) -> Result<HeaderMap, WebDocumentError> {
    let mut headers = HeaderMap::new();
    for (name, scalar) in mapping.named_scalars()? {
        let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
            let reason = format!("this header can't be set, only {} can", names.join(", "));
            return Err(WebDocumentError::refused(&scalar, reason));
        };
        // A text of several lines is one line in a header, as in the reference.
        let value = scalar.text.replace(['\r', '\n'], " ");
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        if !allowed.is_empty() && !allowed.contains(&value) {
            return Err(WebDocumentError::not_allowed(&scalar, allowed));
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            let reason = "a header holds no control characters";
            return Err(WebDocumentError::refused(&scalar, reason));
        };
        headers.insert(name, value);
    }
    Ok(headers)
}

fn users(mapping: Mapping<'_>, warnings: &mut Vec<String>) -> Result<Users, WebDocumentError> {
    let mut hashes = BTreeMap::new();
    for (name, hash) in mapping.named_scalars()? {
        let cost = hash.text.parse::<HashParts>().map(|parts| parts.get_cost());
        let Some(cost) = cost.ok().filter(|cost| (4..=31).contains(cost)) else {
            let reason = "not a bcrypt hash (`$2y$<cost 04 to 31>$` and 53 characters more), make \
                          one by `htpasswd -nBC 10 \"\"`";
            return Err(WebDocumentError::refused(&hash, reason));
        };
        if cost >= BCRYPT_COST_HIGH {
            warnings.push(format!(
                "`{}` in line {}: with a bcrypt cost of {cost} each check of a password that was \
                 not seen before takes seconds of CPU",
                hash.key, hash.line
            ));
        }
        hashes.insert(name, hash.text);
    }
    Ok(Users::new(hashes))
}

fn rate_limit(mut mapping: Mapping<'_>) -> Result<Option<RateLimit>, WebDocumentError> {
    let interval = mapping.scalar("interval")?;
    let burst = mapping.scalar("burst")?;
    let line = mapping.line();
    mapping.end()?;
    let Some(interval) = interval else {
        return Ok(None);
    };
    // A bare number counts nanoseconds, as in the reference.
    let nanos = interval.text.parse().map(GoDuration::from_nanos).ok();
    let parsed = nanos.or_else(|| interval.text.parse().ok());
    let Some(every) = parsed.and_then(GoDuration::to_std) else {
        let reason = "want a duration such as `1s`, or 0 for no limit";
        return Err(WebDocumentError::refused(&interval, reason));
    };
    if every.is_zero() {
        return Ok(None);
    }
    let burst = burst.unwrap_or(Scalar {
        text: "0".to_owned(),
        key: "rate_limit.burst".to_owned(),
        line,
    });
    match burst.text.parse() {
        Ok(0) => Err(WebDocumentError::refused(
            &burst,
            "with a burst of 0 every request would be refused, want 1 or more",
        )),
        Ok(requests) => Ok(Some(RateLimit::new(every, requests))),
        Err(_) => Err(WebDocumentError::refused(
            &burst,
            "want a whole number, 1 or more",
        )),
    }
}

#[cfg(test)]
mod tests;
