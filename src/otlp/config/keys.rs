//! Values that several providers' keys have in common.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Remark, Variable};
use crate::model::{DocumentError, GoDuration, Mapping, Scalar};
use crate::net::http::percent_decoded;
use crate::otlp::error::TracingConfigError;

/// A duration: Go's text (`5s`), or a whole number of nanoseconds. Zero is none.
pub(super) fn duration(
    mapping: &mut Mapping<'_>,
    key: &'static str,
) -> Result<Option<Duration>, DocumentError> {
    let Some(scalar) = mapping.scalar(key)? else {
        return Ok(None);
    };
    let parsed = match scalar.text.parse::<i64>() {
        Ok(nanos) => Some(GoDuration::from_nanos(nanos)),
        Err(_) => scalar.text.parse().ok(),
    };
    let parsed = parsed.and_then(GoDuration::to_std);
    match parsed {
        Some(duration) => Ok(Some(duration).filter(|duration| !duration.is_zero())),
        None => Err(wrong_type(&scalar, "a duration such as 5s")),
    }
}

/// A number, maybe with a fraction.
pub(super) fn number(
    mapping: &mut Mapping<'_>,
    key: &'static str,
) -> Result<Option<f64>, DocumentError> {
    let Some(scalar) = mapping.scalar(key)? else {
        return Ok(None);
    };
    let parsed = scalar
        .text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite());
    match parsed {
        Some(number) => Ok(Some(number)),
        None => Err(wrong_type(&scalar, "a number")),
    }
}

pub(super) fn wrong_type(scalar: &Scalar, wanted: &'static str) -> DocumentError {
    DocumentError::WrongType {
        key: format!("`{}`", scalar.key),
        line: scalar.line,
        wanted,
    }
}

/// A warning for each key that is left.
pub(super) fn unknown(mapping: Mapping<'_>) -> impl Iterator<Item = Remark> {
    let unknown = mapping.unknown().into_iter();
    unknown.map(|key| Remark::Warning(format!("{key} has no effect")))
}

/// A variable's value, unless it is empty.
pub(super) fn variable_text(variable: Variable<'_>, name: &str) -> Option<String> {
    let value = variable(name)?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// A variable's value as a number above zero.
pub(super) fn variable_number(
    variable: Variable<'_>,
    name: &'static str,
) -> Result<Option<u64>, TracingConfigError> {
    let Some(given) = variable_text(variable, name) else {
        return Ok(None);
    };
    match given.parse::<u64>().ok().filter(|number| *number > 0) {
        Some(number) => Ok(Some(number)),
        None => Err(TracingConfigError::Variable {
            name,
            given,
            wanted: "a whole number above 0",
        }),
    }
}

/// `key=value,…`, percent-encoded, as OpenTelemetry writes lists into variables.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |member: &str| {
        let (key, value) = member.split_once('=')?;
        Some((key.trim().to_owned(), percent_decoded(value.trim())))
    };
    text.split(',').filter_map(pair).collect()
}

/// `key=value,…` where `${NAME:default}` as a value stands for a variable, as in the reference's
/// `tags`.
pub(super) fn tags(text: &str, variable: Variable<'_>) -> Vec<(String, String)> {
    let tag = |member: &str| {
        let (key, value) = member.split_once('=')?;
        let (key, value) = (key.trim().to_owned(), value.trim());
        let inner = value
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'));
        let value = match inner {
            None => value.to_owned(),
            Some(inner) => {
                let (name, default) = inner.split_once(':').unwrap_or((inner, ""));
                variable_text(variable, name).unwrap_or_else(|| default.to_owned())
            }
        };
        Some((key, value))
    };
    text.split(',').filter_map(tag).collect()
}

/// Adds a header whose value is not shown anywhere; false where name or value can't be a header's.
pub(super) fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> bool {
    let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value));
    let (Ok(name), Ok(mut value)) = (name, value) else {
        return false;
    };
    value.set_sensitive(true);
    headers.insert(name, value);
    true
}

/// A key's value in an error.
pub(super) fn invalid(scalar: &Scalar, wanted: &'static str) -> TracingConfigError {
    TracingConfigError::Value {
        key: scalar.key.clone(),
        line: scalar.line,
        given: scalar.text.clone(),
        wanted,
    }
}

/// One of so many.
#[expect(
    clippy::cast_precision_loss,
    reason = "a fraction of traces need not be exact"
)]
pub(super) fn fraction_of(factor: i64) -> f64 {
    1.0 / factor as f64
}
