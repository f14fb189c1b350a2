//! What goes wrong between this process and an S3 server, and what can be done about it.

use std::error::Error as StdError;
use std::time::Duration;

use http::StatusCode;

use super::xml::XmlError;
use crate::net::http::HttpError;

/// Statuses after which the same request may succeed (contract `objstore.md` §2.2).
const RETRYABLE_STATUS: [u16; 8] = [408, 429, 499, 500, 502, 503, 504, 520];

/// Codes after which the same request may succeed, whatever the status.
const RETRYABLE_CODES: [&str; 17] = [
    "RequestError",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "InternalError",
    "ExpiredToken",
    "ExpiredTokenException",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "ServiceUnavailable",
    "BadDigest",
    "IncompleteBody",
    // Azure's names for what its other codes are here for.
    "Md5Mismatch",
    "Crc64Mismatch",
];

/// The code of Azure's emulator for headers that it does not know.
const NOT_SUPPORTED: &str = "FeatureNotSupported";

/// A request to S3 that failed for good, or for now.
#[derive(Debug, thiserror::Error)]
#[error("{operation} at {place}")]
pub struct S3Error {
    /// Which store, as logs call it.
    pub store: &'static str,
    /// The operation by its name in the S3 API.
    pub operation: &'static str,
    /// Host, bucket and object, without the query.
    pub place: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why.
    #[source]
    pub fault: S3Fault,
}

/// Why a request to S3 failed.
#[derive(Debug, thiserror::Error)]
pub enum S3Fault {
    /// The server answered with an error.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// There was no whole answer.
    #[error("no whole answer")]
    Http {
        /// What the server seems to be, where that is the reason.
        mismatch: Option<Mismatch>,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The server took no more bytes of the body.
    #[error("the server took no byte of the body for {after:?}")]
    Stalled {
        /// The limit.
        after: Duration,
    },
    /// The whole request was sent and no answer began.
    #[error("no answer within {after:?} of the request")]
    NoAnswer {
        /// The limit.
        after: Duration,
    },
    /// The answer is not what S3 answers.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// A header that must be there is not, or holds what it can't mean.
    #[error("the answer has no usable `{0}` header")]
    Header(&'static str),
    /// What the server stored is not what was sent.
    #[error("the server has checksum {stored} of what was sent with {sent}")]
    ChecksumDiffers {
        /// Ours.
        sent: String,
        /// The server's.
        stored: String,
    },
    /// The credentials could not be had.
    #[error("getting credentials")]
    Credentials(#[source] Box<dyn StdError + Send + Sync>),
    /// The request could not be signed.
    #[error("signing the request")]
    Sign(#[source] Box<dyn StdError + Send + Sync>),
    /// The request could not be made: bucket, endpoint or a header is no part of a URL.
    #[error("making the request")]
    Request(#[from] http::Error),
    /// Larger than S3 takes in one request.
    #[error("{size_bytes} bytes are more than the {max_bytes} that fit into one request")]
    TooLarge {
        /// The object's size.
        size_bytes: u64,
        /// S3's limit.
        max_bytes: u64,
    },
}

/// An answer that says no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}{}", self.details())]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// S3's code, or one that follows from the status where the answer has no body.
    pub code: String,
    /// What the server says.
    pub message: String,
    /// The server's id of the request.
    pub request_id: String,
    /// What the server says it is about.
    pub resource: String,
    /// The id of the access key that signed the request, where access was refused.
    pub access_key_id: Option<String>,
    /// The region that the request should have gone to.
    pub(super) region: Option<String>,
    /// The server's clock minus ours, in milliseconds, by its `Date`.
    pub(super) skew_ms: Option<i64>,
    /// How long the server wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Whether the answer had an S3 error document.
    pub(super) documented: bool,
    /// What the store's operator can do about its refusals.
    pub(super) remedies: fn(&Refusal) -> Option<&'static str>,
}

/// The other end speaks something else than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Its certificate is of an authority that is not trusted here.
    UnknownCa,
    /// Its certificate is for another name, or expired.
    Certificate,
    /// It speaks plain HTTP where TLS was meant.
    PlainHttp,
    /// It speaks TLS, or nothing known, where plain HTTP was meant.
    NotHttp,
}

// === impl S3Error ===

impl S3Error {
    /// Whether the same operation may succeed later without anyone doing something.
    pub fn is_retryable(&self) -> bool {
        self.fault.is_retryable()
    }

    /// Whether the server says that the thing does not exist, by this code.
    pub(super) fn has_code(&self, code: &str) -> bool {
        self.fault
            .refusal()
            .is_some_and(|refusal| refusal.code == code)
    }

    /// Whether the server does not want this from us now. It may be an operator's mistake that is
    /// mended soon.
    pub(super) fn denies_access(&self) -> bool {
        self.fault.refusal().is_some_and(|refusal| {
            matches!(
                refusal.status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            )
        })
    }

    /// Whether what was sent before may be gone on with some day: nobody said that it is wrong. A
    /// full server (507) or an expired certificate must not have all of it sent again.
    pub(super) fn may_pass(&self) -> bool {
        let is_servers = match self.fault.refusal() {
            Some(refusal) => {
                refusal.status.is_server_error() && refusal.status != StatusCode::NOT_IMPLEMENTED
            }
            None => matches!(self.fault, S3Fault::Http { .. }),
        };
        is_servers || self.is_retryable() || self.denies_access()
    }

    /// Whether what was to be made is there already.
    pub(super) fn is_conflict(&self) -> bool {
        let refusal = self.fault.refusal();
        refusal.is_some_and(|refusal| refusal.status == StatusCode::CONFLICT)
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match &self.fault {
            // The configuration of other stores has other keys.
            S3Fault::Http { mismatch: None, .. } if self.store != "s3" => Some(
                "check the host that the error names, name resolution and firewalls between here \
                 and there",
            ),
            fault => fault.remedy(),
        }
    }
}

// === impl S3Fault ===

impl S3Fault {
    /// Sorts what the transport says; `tls` is what the request was meant for.
    pub(super) fn http(source: HttpError, tls: bool) -> Self {
        let mismatch = mismatch(&source, tls);
        Self::Http { mismatch, source }
    }

    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => (refusal.remedies)(refusal),
            Self::Http { mismatch, source } => match mismatch {
                Some(Mismatch::UnknownCa) => Some(
                    "name the authority of the server's certificate in \
                     http_config.tls_config.ca_file",
                ),
                Some(Mismatch::Certificate) => Some(
                    "check that `endpoint` bears a name of the server's certificate and that the \
                     certificate has not expired; http_config.tls_config.server_name names another",
                ),
                Some(Mismatch::PlainHttp) => Some(
                    "the endpoint speaks plain HTTP: set `insecure: true`, or use its TLS port",
                ),
                Some(Mismatch::NotHttp) => {
                    Some("the endpoint does not speak plain HTTP: remove `insecure: true`")
                }
                None if source.is_connect() => Some(
                    "check `endpoint` (host[:port], without a scheme), name resolution and \
                     firewalls between here and there",
                ),
                None => None,
            },
            Self::Xml(XmlError::Value {
                element: "LocationConstraint",
                ..
            }) => Some("set `region` to the bucket's"),
            Self::TooLarge { .. } => Some("remove `disable_multipart`, or set it to false"),
            Self::Credentials(_) => {
                Some("check the credentials of the bucket configuration, or where they come from")
            }
            Self::Request(_) => {
                Some("check `endpoint` (host[:port], without a scheme) and `bucket`")
            }
            _ => None,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Http { mismatch, source } => {
                mismatch.is_none() && !matches!(source, HttpError::NotAbsolute { .. })
            }
            Self::Stalled { .. }
            | Self::NoAnswer { .. }
            | Self::Xml(_)
            | Self::Header(_)
            | Self::ChecksumDiffers { .. }
            | Self::Credentials(_) => true,
            Self::Sign(_) | Self::Request(_) | Self::TooLarge { .. } => false,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    fn is_retryable(&self) -> bool {
        // Azurite says with 500 what it does not have.
        if self.code == NOT_SUPPORTED {
            return false;
        }
        RETRYABLE_STATUS.contains(&self.status.as_u16())
            || RETRYABLE_CODES.contains(&self.code.as_str())
    }

    /// Credentials that were good and are not any more. AWS says it with status 400.
    pub(super) fn is_expired_token(&self) -> bool {
        matches!(
            self.code.as_str(),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired"
        )
    }

    pub(super) fn is_skewed(&self) -> bool {
        self.code == "RequestTimeTooSkewed"
    }

    /// The answers of servers that don't know `x-amz-checksum-*`: R2 says 501 NotImplemented, B2
    /// 400 InvalidArgument, others the like. Whether that was the reason shows when the request
    /// succeeds without.
    pub(super) fn may_be_about_checksums(&self) -> bool {
        let status = self.status;
        let code = matches!(
            self.code.as_str(),
            "NotImplemented"
                | "InvalidArgument"
                | "InvalidRequest"
                | "InvalidHeader"
                | "InvalidHeaderValue"
                | "InvalidChecksum"
                | "InvalidDigest"
                | "MalformedXML"
                | "UnsupportedHeader"
                | "UnsupportedOperation"
                | "XAmzContentChecksumMismatch"
                | "BadRequest"
        );
        let refuses = status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_IMPLEMENTED;
        refuses && (code || !self.documented) || self.code == NOT_SUPPORTED
    }

    /// The text after the status.
    fn details(&self) -> String {
        let mut text = String::new();
        let mut add = |before: &str, what: &str| {
            if !what.is_empty() {
                text.push_str(before);
                text.push_str(what);
            }
        };
        add(", code ", &self.code);
        add(": ", &self.message);
        add(", resource ", &self.resource);
        add(", request id ", &self.request_id);
        if let Some(id) = &self.access_key_id {
            add(", access key id ", id);
        }
        text
    }

    /// What an operator of an S3 bucket can do about it.
    pub(in crate::objstore) fn s3_remedy(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "SignatureDoesNotMatch" => {
                "the secret key does not go with the access key id; check `secret_key`, and that \
                 no proxy in between changes requests"
            }
            "InvalidAccessKeyId" => {
                "the server does not know the access key id; check `access_key`"
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
                "the access key needs s3:ListBucket, s3:GetObject, s3:PutObject and \
                 s3:DeleteObject on the bucket, and its encryption key where there is one"
            }
            "NoSuchBucket" => "create the bucket, or correct `bucket` and `endpoint`",
            "RequestTimeTooSkewed" => "set this machine's clock (NTP)",
            "EntityTooSmall" => "the server wants larger parts: raise `part_size`",
            "EntityTooLarge" => "the server wants smaller parts: lower `part_size`",
            "ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired" => {
                "the session token is used up; see that something renews it"
            }
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => {
                "the bucket is in another region: correct `region` and `endpoint`"
            }
            _ if self.status.is_redirection() => {
                "the bucket is in another region: correct `region` and `endpoint`"
            }
            _ if self.status == StatusCode::BAD_REQUEST && !self.documented => {
                "this is no answer of S3: check `endpoint`, and `insecure`, which must be left out \
                 where the endpoint speaks HTTPS"
            }
            _ => return None,
        })
    }
}

/// What the chain of causes says of the other end.
fn mismatch(error: &HttpError, tls: bool) -> Option<Mismatch> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = rustls_error(error) {
            return of_rustls(error);
        }
        if !tls
            && let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_parse()
        {
            return Some(Mismatch::NotHttp);
        }
        cause = error.source();
    }
    None
}

/// The TLS error, also where it is wrapped as one of input and output.
fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref());
    wrapped.or_else(|| error.downcast_ref())
}

fn of_rustls(error: &rustls::Error) -> Option<Mismatch> {
    use rustls::{CertificateError, Error};
    match error {
        // A bad signature is that of another authority of the same name, made anew.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(Mismatch::UnknownCa),
        Error::InvalidCertificate(_) => Some(Mismatch::Certificate),
        Error::InvalidMessage(_) => Some(Mismatch::PlainHttp),
        _ => None,
    }
}
