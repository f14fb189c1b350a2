//! Signature version 4, made at the moment a request is sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningError,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::error::S3Fault;

const CONTENT_MD5: &str = "content-md5";
const SERVICE: &str = "s3";

/// What the signature says about the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PayloadHash {
    /// Nothing: TLS protects it, or the user wants it so.
    Unsigned,
    /// This SHA-256.
    Sha256([u8; 32]),
}

/// The SHA-256 of no bytes.
pub(super) fn empty_sha256() -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(b"").into()
}

/// Adds the headers of the signature to `headers`.
///
/// Only `host`, `x-amz-*`, `content-md5` and `content-type` are covered: a proxy or load balancer
/// may rewrite everything else (Google rewrites `accept-encoding`).
pub(super) fn signed(
    method: &Method,
    url: &str,
    headers: &mut HeaderMap,
    payload: &PayloadHash,
    credentials: &Credentials,
    region: &str,
    now_ns: i128,
) -> Result<(), S3Fault> {
    let identity = credentials.clone().into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(system_time(now_ns))
        .settings(settings)
        .build()
        .map_err(|error| S3Fault::Sign(error.into()))?
        .into();
    let body = match payload {
        PayloadHash::Unsigned => SignableBody::UnsignedPayload,
        PayloadHash::Sha256(hash) => SignableBody::Precomputed(hex::encode(hash)),
    };
    let covered = headers
        .iter()
        .filter(|(name, _)| is_covered(name))
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let failed = |error: SigningError| S3Fault::Sign(error.into());
    let request = SignableRequest::new(method.as_str(), url, covered, body).map_err(failed)?;
    let (instructions, _) = sign(request, &params).map_err(failed)?.into_parts();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        let (Ok(name), Ok(mut value)) = (name, value) else {
            return Err(S3Fault::Sign("a signature that is no header".into()));
        };
        value.set_sensitive(name == AUTHORIZATION || name == "x-amz-security-token");
        headers.insert(name, value);
    }
    Ok(())
}

fn is_covered(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-amz-") || name == CONTENT_TYPE || name == CONTENT_MD5
}

fn system_time(now_ns: i128) -> SystemTime {
    let nanoseconds = u64::try_from(now_ns).unwrap_or(0);
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user of the examples in "Signature Calculations for the Authorization Header", Amazon
    /// S3 API Reference; the time is 2013-05-24T00:00:00Z.
    const NOW_NS: i128 = 1_369_353_600_000_000_000;

    fn example() -> Credentials {
        Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            None,
            None,
            "test",
        )
    }

    fn signature(method: Method, url: &str, headers: &[(&str, &str)]) -> String {
        let mut map: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let hash = PayloadHash::Sha256(empty_sha256());
        signed(
            &method,
            url,
            &mut map,
            &hash,
            &example(),
            "us-east-1",
            NOW_NS,
        )
        .unwrap();
        map[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_published_examples_come_out() {
        let base = "https://examplebucket.s3.amazonaws.com";
        let lifecycle = signature(Method::GET, &format!("{base}/?lifecycle="), &[]);
        assert!(
            lifecycle.ends_with(
                "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=\
                 fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
            ),
            "{lifecycle}"
        );
        let list = signature(Method::GET, &format!("{base}/?max-keys=2&prefix=J"), &[]);
        assert!(
            list.ends_with(
                "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
            ),
            "{list}"
        );
    }

    #[test]
    fn pitfall_04_accept_encoding_and_the_like_are_not_covered() {
        let signed = signature(
            Method::PUT,
            "https://h/b/k",
            &[
                ("accept-encoding", "identity"),
                ("user-agent", "x"),
                ("range", "bytes=0-1"),
                ("content-md5", "m"),
                ("content-type", "t"),
                ("x-amz-acl", "private"),
            ],
        );
        assert!(
            signed.contains(
                "SignedHeaders=content-md5;content-type;host;x-amz-acl;x-amz-content-sha256;\
                 x-amz-date,"
            ),
            "{signed}"
        );
    }
}
