//! Google's XML API, where it differs from S3: tokens, `x-goog-hash`, and no header of Amazon's.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use http::HeaderValue;
use md5::{Digest as _, Md5};
use serde_json::Value;

use super::store::{Answer, Refused, plain};
use super::{SeenRequest, text_header};
use crate::net::http::percent_decoded;

const TOKEN: &str = "ya29.a-token-of-google";
const HASH: &str = "x-goog-hash";

/// A service account whose tokens are had at `token_uri`: its key file, and the public half of its
/// key.
///
/// # Panics
/// Where no key can be made.
pub fn service_account(token_uri: &str) -> (String, Vec<u8>) {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("keys can be made");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("keys can be written");
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(der.as_ref())
    );
    let json = serde_json::json!({
        "type": "service_account",
        "client_email": "outrigger@project.iam.gserviceaccount.com",
        "private_key_id": "key-1",
        "private_key": pem,
        "token_uri": token_uri,
    });
    (json.to_string(), pair.public_key().as_ref().to_vec())
}

/// A token for an assertion that is signed with the key and says what it must.
pub(super) fn token(public_key: &[u8], body: &[u8]) -> Result<Answer, Refused> {
    let invalid = || (400, "invalid_grant");
    let body = std::str::from_utf8(body).map_err(|_| invalid())?;
    let mut assertion = None;
    for (name, value) in body.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = percent_decoded(value);
        match name {
            "grant_type" if value != "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                return Err((400, "unsupported_grant_type"));
            }
            "assertion" => assertion = Some(value),
            _ => {}
        }
    }
    let assertion = assertion.ok_or_else(invalid)?;
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(invalid)?;
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| invalid());
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key);
    let verified = key.verify(signed.as_bytes(), &decoded(signature)?);
    verified.map_err(|_| invalid())?;
    let (header, claims) = signed.split_once('.').ok_or_else(invalid)?;
    let json = |part: &str| -> Result<Value, Refused> {
        serde_json::from_slice(&decoded(part)?).map_err(|_| invalid())
    };
    let (header, claims) = (json(header)?, json(claims)?);
    let is_right = header["alg"] == "RS256"
        && header["kid"] == "key-1"
        && claims["iss"] == "outrigger@project.iam.gserviceaccount.com"
        && claims["aud"]
            .as_str()
            .is_some_and(|aud| aud.ends_with("/token"))
        && claims["scope"]
            .as_str()
            .is_some_and(|scope| scope.ends_with("/devstorage.read_write"))
        && claims["exp"]
            .as_i64()
            .zip(claims["iat"].as_i64())
            .is_some_and(|(exp, iat)| exp - iat <= 3600 && iat > 0);
    if !is_right {
        return Err(invalid());
    }
    let answer = serde_json::json!({
        "access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer",
    });
    Ok(plain(200, answer.to_string().into()))
}

/// Refuses what Google refuses.
pub(super) fn checked(seen: &SeenRequest, body: &[u8]) -> Result<(), Refused> {
    let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
    if header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Err((401, "AuthenticationRequired"));
    }
    if seen
        .headers
        .keys()
        .any(|name| name.as_str().starts_with("x-amz-"))
    {
        return Err((400, "ExcessHeaderValues"));
    }
    let is_content = ["PutObject", "UploadPart"].contains(&seen.operation);
    let crc32c = format!("crc32c={}", crc32c_text(body));
    let md5 = BASE64_STANDARD.encode(Md5::digest(body));
    if is_content && header("content-md5").is_none() && header(HASH).is_none() {
        return Err((400, "NoSumAtAll"));
    }
    if is_content
        && (header(HASH).is_some_and(|told| told != crc32c)
            || header("content-md5").is_some_and(|told| told != md5))
    {
        return Err((400, "BadDigest"));
    }
    Ok(())
}

/// The answer with the sum of what came, or of the object that it is about.
pub(super) fn with_hash(
    seen: &SeenRequest,
    mut answer: Answer,
    body: &[u8],
    object: Option<&Bytes>,
) -> Answer {
    let of = match seen.operation {
        "PutObject" | "UploadPart" => Some(body),
        "HeadObject" | "GetObject" => object.map(AsRef::as_ref),
        _ => None,
    };
    if let Some(of) = of {
        let headers = answer.headers_mut();
        headers.append(HASH, text_header(&format!("crc32c={}", crc32c_text(of))));
        headers.append(HASH, HeaderValue::from_static("md5=AAAA"));
    }
    answer
}

fn crc32c_text(content: &[u8]) -> String {
    let sum = checksum(CrcAlgorithm::Crc32Iscsi, content);
    BASE64_STANDARD.encode(sum.to_be_bytes().split_at(4).1)
}
