//! Answers that say no: what they tell, from status, headers and error document.

use std::time::Duration;

use aws_credential_types::Credentials;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::error::Refusal;
use super::xml;

/// A server that wants longer is asked again all the same; the next sync comes soon enough.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Where S3, Google, Azure and Swift tell a request's id.
const REQUEST_ID: [&str; 4] = [
    "x-amz-request-id",
    "x-guploader-uploadid",
    "x-ms-request-id",
    "x-trans-id",
];

/// Texts of servers are cut here.
const TEXT_CHARS_MAX: usize = 500;

/// What an answer with `status` says. `body` may be anything.
pub(super) fn refusal(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    credentials: Option<&Credentials>,
    now_ns: i128,
) -> Refusal {
    let document = xml::error_document(body);
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    // Azure says it in a header too, and to HEAD only there.
    let told = header("x-ms-error-code");
    let documented = document.is_some() || !told.is_empty();
    let document = document.unwrap_or_default();
    let code = match document.code.as_str() {
        "" if !told.is_empty() => cut(&told),
        "" => code_of(status).to_owned(),
        code => cut(code),
    };
    let request_id = match document.request_id.as_str() {
        "" => cut(&REQUEST_ID.map(header).concat()),
        id => cut(id),
    };
    let region = match header("x-amz-bucket-region") {
        region if region.is_empty() => cut(&document.region),
        region => region,
    };
    let id = credentials.filter(|_| status == StatusCode::FORBIDDEN || code.contains("AccessKey"));
    Refusal {
        status,
        code,
        message: cut(&document.message),
        request_id,
        resource: cut(&document.resource),
        access_key_id: id.map(|credentials| credentials.access_key_id().to_owned()),
        region: Some(region).filter(|region| is_region(region)),
        skew_ms: skew_ms(headers, now_ns),
        retry_after: retry_after(headers),
        documented,
        remedies: Refusal::s3_remedy,
    }
}

/// The code of an answer without a body: all that HEAD gets.
fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        301 => "PermanentRedirect",
        307 => "TemporaryRedirect",
        400 => "BadRequest",
        401 | 403 => "AccessDenied",
        404 => "NoSuchKey",
        405 => "MethodNotAllowed",
        412 => "PreconditionFailed",
        416 => "InvalidRange",
        // Swift, where a body is not what its tag says.
        422 => "BadDigest",
        429 | 503 => "SlowDown",
        500 => "InternalError",
        501 => "NotImplemented",
        _ => "",
    }
}

/// A region goes into a host's name, so it must be one.
pub(super) fn is_region(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// The server's time as `Date` tells it.
fn skew_ms(headers: &HeaderMap, now_ns: i128) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let time = DateTimeParser::new().parse_timestamp(date).ok()?;
    let skew_ns = time.as_nanosecond().checked_sub(now_ns)?;
    i64::try_from(skew_ns / 1_000_000).ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// `Last-Modified`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        let pair = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), HeaderValue::from_static(value))
        };
        pairs.map(pair).collect()
    }

    #[test]
    fn an_answer_without_a_body_has_a_code() {
        let headers = headers(&[
            ("x-amz-bucket-region", "eu-west-1"),
            ("date", "Fri, 24 May 2013 00:00:10 GMT"),
            ("retry-after", "3000"),
            ("x-amz-request-id", "R"),
        ]);
        let now_ns = 1_369_353_600_000_000_000;
        let refusal = refusal(StatusCode::MOVED_PERMANENTLY, &headers, b"", None, now_ns);
        assert_eq!(refusal.code, "PermanentRedirect");
        assert_eq!(refusal.region.as_deref(), Some("eu-west-1"));
        assert_eq!(refusal.skew_ms, Some(10_000));
        assert_eq!(refusal.retry_after, Some(RETRY_AFTER_MAX));
        assert_eq!(refusal.request_id, "R");
    }

    #[test]
    fn the_access_key_id_is_named_and_the_secret_is_not() {
        let credentials = Credentials::new("AKID", "SECRET", Some("TOKEN".to_owned()), None, "t");
        let body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>";
        let status = StatusCode::FORBIDDEN;
        let refusal = refusal(status, &HeaderMap::new(), body, Some(&credentials), 0);
        let text = format!("{refusal} {refusal:?}");
        assert!(text.contains("AKID"), "{text}");
        assert!(
            !text.contains("SECRET") && !text.contains("TOKEN"),
            "{text}"
        );
    }

    #[test]
    fn hostile_answers_are_cut_and_never_become_hosts() {
        let body = format!(
            "<Error><Code>X</Code><Message>{}</Message><Region>evil.example/</Region></Error>",
            "m".repeat(10_000)
        );
        let status = StatusCode::BAD_REQUEST;
        let refusal = refusal(status, &HeaderMap::new(), body.as_bytes(), None, 0);
        assert_eq!(refusal.message.len(), TEXT_CHARS_MAX);
        assert_eq!(refusal.region, None);
    }
}
