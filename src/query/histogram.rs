//! Native histograms out of the buckets that Prometheus' HTTP API writes.
//!
//! The API tells buckets by their bounds (`[rule, "left", "right", "count"]`), empty ones not at
//! all; protobuf tells them by index. The index of a bucket is that of the bound further from
//! zero, in a schema in which all bounds stand: bound `i` of schema `s` is `2^(i / 2^s)`. The bound
//! next to the zero bucket may be that bucket's instead.

use super::QueryError;

/// The coarsest and the finest schema of exponential buckets.
const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;
/// How far a bound may be from where the schema has it, relatively: Prometheus computes bounds
/// from a table, with an error in the last place or two.
const TOLERANCE: f64 = 1e-12;
/// The exponent of the bound that would be 2^1024: the largest finite number stands for it, so
/// that one more bucket has the infinite.
const EXPONENT_LAST: i32 = 1024;

/// A native histogram with float counts and exponential buckets, as protobuf has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    /// Observations.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// From -4 to 8.
    pub schema: i32,
    /// The width of the zero bucket; 0 where the API does not show it.
    pub zero_threshold: f64,
    /// Observations in it.
    pub zero_count: f64,
    /// Offset from the end of the span before, or from 0, and length.
    pub negative_spans: Vec<(i32, u32)>,
    /// Observations in each of their buckets.
    pub negative_counts: Vec<f64>,
    /// As `negative_spans`.
    pub positive_spans: Vec<(i32, u32)>,
    /// As `negative_counts`.
    pub positive_counts: Vec<f64>,
}

/// A bucket as the API has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    /// Which bounds are outside: 0 the left one, 1 the right one, 2 both, 3 none.
    pub(super) rule: u8,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) count: f64,
}

/// Buckets on one side of zero, by their distance from it.
#[derive(Debug, Default)]
struct Side(Vec<Distant>);

#[derive(Clone, Copy, Debug)]
struct Distant {
    near: f64,
    far: f64,
    count: f64,
}

/// What the bounds of one side tell, in one schema.
struct Fit {
    indexes: Vec<i32>,
    /// The bound next to zero, where it is none of the schema's.
    cut: Option<f64>,
}

impl FloatHistogram {
    /// Puts the buckets, which ascend, where they belong. The finest schema in which all bounds
    /// stand is the histogram's own: bounds next to each other are in no other one, unless the
    /// only bucket of a side is cut by the zero bucket.
    ///
    /// # Errors
    /// Where the buckets are in no exponential schema: they are custom ones, whose empty buckets
    /// the API does not tell.
    pub(super) fn of_buckets(count: f64, sum: f64, buckets: &[Bucket]) -> Result<Self, QueryError> {
        let custom = || QueryError::Unsupported {
            what: "native histograms with custom buckets".to_owned(),
        };
        let (mut negative, mut positive) = (Side::default(), Side::default());
        let mut zero = None;
        for bucket in buckets {
            let (left, right, count) = (bucket.left, bucket.right, bucket.count);
            match bucket.rule {
                0 if left >= 0.0 && zero_is_left_of(left, zero) => positive.0.push(Distant {
                    near: left,
                    far: right,
                    count,
                }),
                1 if right <= 0.0 => negative.0.push(Distant {
                    near: -right,
                    far: -left,
                    count,
                }),
                3 if left == -right && right >= 0.0 && zero.is_none() => {
                    zero = Some((right, count))
                }
                _ => return Err(custom()),
            }
        }
        negative.0.reverse();
        let threshold = zero.map(|(threshold, _)| threshold);
        let fits = |schema| {
            let negative = negative.fit(schema, threshold)?;
            let positive = positive.fit(schema, threshold)?;
            // One threshold cuts both sides.
            let is_one = match (negative.cut, positive.cut) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            };
            is_one.then_some((schema, negative, positive))
        };
        let mut schemas = (SCHEMA_MIN..=SCHEMA_MAX).rev();
        let (schema, below, above) = schemas.find_map(fits).ok_or_else(custom)?;
        let cut = below.cut.or(above.cut);
        Ok(Self {
            count,
            sum,
            schema,
            zero_threshold: threshold.or(cut).unwrap_or_default(),
            zero_count: zero.map_or(0.0, |(_, count)| count),
            negative_spans: spans(&below.indexes),
            negative_counts: negative.counts(),
            positive_spans: spans(&above.indexes),
            positive_counts: positive.counts(),
        })
    }
}

fn zero_is_left_of(left: f64, zero: Option<(f64, f64)>) -> bool {
    zero.is_none_or(|(threshold, _)| threshold <= left)
}

impl Side {
    /// The buckets' indexes, if all bounds stand in this schema.
    fn fit(&self, schema: i32, threshold: Option<f64>) -> Option<Fit> {
        let mut fit = Fit {
            indexes: Vec::with_capacity(self.0.len()),
            cut: None,
        };
        for (position, bucket) in self.0.iter().enumerate() {
            let index = index_of(bucket.far, schema)?;
            if fit.indexes.last().is_some_and(|last| *last >= index) {
                return None;
            }
            let lower = bound(index.checked_sub(1)?, schema);
            if !is_close(bucket.near, lower) {
                let may_be_cut = position == 0 && threshold.is_none_or(|t| t == bucket.near);
                if !may_be_cut || bucket.near < lower || bucket.near >= bucket.far {
                    return None;
                }
                fit.cut = Some(bucket.near);
            }
            fit.indexes.push(index);
        }
        Some(fit)
    }

    fn counts(&self) -> Vec<f64> {
        self.0.iter().map(|bucket| bucket.count).collect()
    }
}

/// The index of the bucket that ends at this bound, if the schema has it.
fn index_of(far: f64, schema: i32) -> Option<i32> {
    let last = scaled(f64::from(EXPONENT_LAST), schema);
    let index = match far {
        far if far == f64::INFINITY => last + 1.0,
        far if far > 0.0 => scaled(far.log2(), schema).round(),
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "logarithms are from -1074 to 1024, times 256 at most"
    )]
    let index = index as i32;
    is_close(bound(index, schema), far).then_some(index)
}

fn scaled(exponent: f64, schema: i32) -> f64 {
    exponent * 2_f64.powi(schema)
}

/// The bound that the bucket of this index ends at.
fn bound(index: i32, schema: i32) -> f64 {
    if let Ok(shift) = u32::try_from(schema) {
        let parts = 1_i32.checked_shl(shift).unwrap_or(1);
        let (exponent, part) = (index.div_euclid(parts), index.rem_euclid(parts));
        return match (exponent, part) {
            (EXPONENT_LAST, 0) => f64::MAX,
            _ => times_power((f64::from(part) / f64::from(parts)).exp2(), exponent),
        };
    }
    let factor = 1_i32.checked_shl(schema.unsigned_abs()).unwrap_or(1);
    match index.saturating_mul(factor) {
        EXPONENT_LAST => f64::MAX,
        exponent => times_power(1.0, exponent),
    }
}

/// `value * 2^exponent`, in two steps so that neither factor is out of range where the product is
/// not.
fn times_power(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * 2_f64.powi(half) * 2_f64.powi(exponent.saturating_sub(half))
}

fn is_close(a: f64, b: f64) -> bool {
    // The smallest numbers are further apart than the tolerance.
    let apart = (a - b).abs();
    a == b || apart <= TOLERANCE * a.abs().max(b.abs()) || apart <= f64::from_bits(1)
}

/// Ascending indexes as spans.
fn spans(indexes: &[i32]) -> Vec<(i32, u32)> {
    let mut spans: Vec<(i32, u32)> = Vec::new();
    let mut next = 0_i32;
    for &index in indexes {
        let offset = index.saturating_sub(next);
        match spans.last_mut() {
            Some((_, length)) if offset == 0 => *length = length.saturating_add(1),
            _ => spans.push((offset, 1)),
        }
        next = index.saturating_add(1);
    }
    spans
}

#[cfg(test)]
mod tests;
