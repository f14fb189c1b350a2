//! The samples of an element as numbers, for whom Prometheus' JSON is of no use.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, Visitor};
use serde_json::value::RawValue;

use super::histogram::{Bucket, FloatHistogram};
use super::{Element, QueryError};

/// The samples of an element, in the order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Milliseconds since the epoch, and values.
    pub floats: Vec<(i64, f64)>,
    /// Milliseconds since the epoch, and histograms.
    pub histograms: Vec<(i64, FloatHistogram)>,
}

/// Samples are not what they must be.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// They are not JSON of the form expected.
    #[error("they are not JSON of the form expected")]
    Json(#[from] serde_json::Error),
    /// The members of the element can't be told apart.
    #[error("the members of the element can't be told apart")]
    Members,
}

/// Seconds with up to three decimals, as milliseconds.
struct Time(i64);

/// A number in a string: `"1.5"`, `"NaN"`, `"+Inf"`.
struct Number(f64);

#[derive(Deserialize)]
struct Float(Time, Number);

#[derive(Deserialize)]
struct Timed(Time, Histogram);

#[derive(Deserialize)]
struct Histogram {
    count: Number,
    sum: Number,
    #[serde(default)]
    buckets: Option<Vec<Bounds>>,
}

/// Rule, left, right, count.
#[derive(Deserialize)]
struct Bounds(u8, Number, Number, Number);

impl Element<'_> {
    /// The samples as numbers; of a scalar its one sample. Native histograms get float counts, as
    /// the results of queries have them.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for histograms with custom buckets, as their empty buckets
    /// can't be known; [`QueryError::Samples`] where the bytes are broken, and for a string.
    pub fn decode(&self) -> Result<Samples, QueryError> {
        let mut rest: &[u8] = &self.samples;
        let mut samples = Samples::default();
        if rest.first() == Some(&b'[') {
            let Float(time, value) = next_value(&mut rest)?;
            samples.floats.push((time.0, value.0));
            return finished(rest, samples);
        }
        loop {
            let key: String = next_value(&mut rest)?;
            rest = after(rest, b':')?;
            match key.as_str() {
                "value" => samples.push(next_value(&mut rest)?),
                "values" => {
                    let values: Vec<Float> = next_value(&mut rest)?;
                    samples.floats.reserve_exact(values.len());
                    values.into_iter().for_each(|value| samples.push(value));
                }
                "histogram" => samples.push_histogram(&next_value(&mut rest)?)?,
                "histograms" => {
                    let histograms: Vec<Timed> = next_value(&mut rest)?;
                    for histogram in &histograms {
                        samples.push_histogram(histogram)?;
                    }
                }
                _ => drop(next_value::<IgnoredAny>(&mut rest)?),
            }
            if rest.trim_ascii().is_empty() {
                return Ok(samples);
            }
            rest = after(rest, b',')?;
        }
    }
}

impl Samples {
    fn push(&mut self, Float(time, value): Float) {
        self.floats.push((time.0, value.0));
    }

    fn push_histogram(&mut self, Timed(time, histogram): &Timed) -> Result<(), QueryError> {
        let buckets = histogram.buckets.iter().flatten();
        let buckets: Vec<Bucket> = buckets
            .map(|Bounds(rule, left, right, count)| Bucket {
                rule: *rule,
                left: left.0,
                right: right.0,
                count: count.0,
            })
            .collect();
        let (count, sum) = (histogram.count.0, histogram.sum.0);
        let histogram = FloatHistogram::of_buckets(count, sum, &buckets)?;
        self.histograms.push((time.0, histogram));
        Ok(())
    }
}

fn finished(rest: &[u8], samples: Samples) -> Result<Samples, QueryError> {
    match rest.trim_ascii().is_empty() {
        true => Ok(samples),
        false => Err(SamplesError::Members.into()),
    }
}

/// The JSON value at the front of `rest`, which then stands behind it.
fn next_value<'de, T: Deserialize<'de>>(rest: &mut &'de [u8]) -> Result<T, SamplesError> {
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
    let value = values.next().ok_or(SamplesError::Members)??;
    *rest = rest.get(values.byte_offset()..).unwrap_or_default();
    Ok(value)
}

/// What stands behind the separator.
fn after(rest: &[u8], separator: u8) -> Result<&[u8], SamplesError> {
    let rest = rest.trim_ascii_start();
    match rest.split_first() {
        Some((byte, rest)) if *byte == separator => Ok(rest),
        _ => Err(SamplesError::Members),
    }
}

/// The milliseconds of a decimal of seconds, exactly.
fn milliseconds(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !is_number(whole) || !is_number(part) {
        return None;
    }
    // Signed from the start, as the lowest number has no counterpart.
    let whole: i64 = whole.parse::<i128>().ok()?.try_into().ok()?;
    let part: i64 = format!("{part:0<3}").parse().ok()?;
    let total = i128::from(whole) * 1000 + i128::from(part);
    i64::try_from(total * sign).ok()
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        match milliseconds(raw.get()) {
            Some(ms) => Ok(Self(ms)),
            None => Err(D::Error::custom(format!("`{}` is no time", raw.get()))),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NumberVisitor).map(Self)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number in a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<f64, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests;
