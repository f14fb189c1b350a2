//! Native histograms as the wire has them.
//!
//! Their schema was read off the bounds in Prometheus' JSON. Histograms with custom buckets
//! (Prometheus 3) whose bounds happen to be powers of two look the same there, but quantiles
//! between their bounds are others, and buckets of theirs that are empty are missing. So what could
//! be either is refused rather than guessed.

use crate::net::grpc::{Code, Status};
use crate::proto::prometheus_copy::{BucketSpan, Histogram, histogram};
use crate::query::FloatHistogram;

/// The histogram at this time, in milliseconds since the epoch.
///
/// # Errors
/// `Aborted` where the buckets may be custom ones.
pub(super) fn message(timestamp: i64, of: FloatHistogram) -> Result<Histogram, Status> {
    if !is_surely_exponential(&of) {
        let text = "unsupported native histogram over gRPC: its buckets may be exponential or \
                    custom ones, which Prometheus' API does not tell";
        return Err(Status::new(Code::Aborted, text));
    }
    Ok(Histogram {
        count: Some(histogram::Count::CountFloat(of.count)),
        sum: of.sum,
        schema: of.schema,
        zero_threshold: of.zero_threshold,
        zero_count: Some(histogram::ZeroCount::ZeroCountFloat(of.zero_count)),
        negative_spans: spans(&of.negative_spans),
        negative_counts: of.negative_counts,
        positive_spans: spans(&of.positive_spans),
        positive_counts: of.positive_counts,
        timestamp,
        ..Histogram::default()
    })
}

/// Custom buckets have no zero bucket and none that leave out their upper bound, and their bounds
/// are hardly roots of two.
fn is_surely_exponential(of: &FloatHistogram) -> bool {
    let has_buckets = !(of.positive_counts.is_empty() && of.negative_counts.is_empty());
    let has_zero_bucket = of.zero_count != 0.0;
    // The width of a zero bucket that is not shown: some bound is none of the schema's.
    let is_cut = of.zero_threshold != 0.0 && !has_zero_bucket;
    let has_roots = of.schema > 0 && !is_cut;
    !has_buckets || has_zero_bucket || has_roots || !of.negative_counts.is_empty()
}

fn spans(spans: &[(i32, u32)]) -> Vec<BucketSpan> {
    let spans = spans.iter();
    spans
        .map(|&(offset, length)| BucketSpan { offset, length })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(schema: i32) -> FloatHistogram {
        FloatHistogram {
            count: 3.0,
            sum: -2.5,
            schema,
            positive_spans: vec![(-1, 2), (3, 1)],
            positive_counts: vec![0.5, 1.0, 1.5],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn every_field_is_passed_on() {
        let of = FloatHistogram {
            zero_threshold: 0.25,
            zero_count: 4.0,
            negative_spans: vec![(7, 1)],
            negative_counts: vec![2.0],
            ..positive(-2)
        };
        let span = |offset, length| BucketSpan { offset, length };
        let expected = Histogram {
            count: Some(histogram::Count::CountFloat(3.0)),
            sum: -2.5,
            schema: -2,
            zero_threshold: 0.25,
            zero_count: Some(histogram::ZeroCount::ZeroCountFloat(4.0)),
            negative_spans: vec![span(7, 1)],
            negative_counts: vec![2.0],
            positive_spans: vec![span(-1, 2), span(3, 1)],
            positive_counts: vec![0.5, 1.0, 1.5],
            timestamp: 5,
            ..Histogram::default()
        };
        assert_eq!(message(5, of).unwrap(), expected);
    }

    #[test]
    fn what_may_have_custom_buckets_is_refused() {
        let with_zero = |schema, zero_threshold, zero_count| FloatHistogram {
            zero_threshold,
            zero_count,
            ..positive(schema)
        };
        let negative = FloatHistogram {
            negative_spans: vec![(0, 1)],
            negative_counts: vec![1.0],
            ..FloatHistogram::default()
        };
        for (of, is_taken) in [
            (positive(1), true),
            (positive(8), true),
            (positive(0), false),
            (positive(-4), false),
            (with_zero(0, 0.5, 1.0), true),
            // A bound beside those of the schema, as if a zero bucket without observations ended
            // there.
            (with_zero(3, 0.5, 0.0), false),
            (negative, true),
            (FloatHistogram::default(), true),
        ] {
            let outcome = message(0, of.clone());
            assert_eq!(outcome.is_ok(), is_taken, "{of:?}");
            if let Err(status) = outcome {
                assert_eq!(status.code, Code::Aborted);
                assert!(status.message.starts_with("unsupported native histogram"));
            }
        }
    }
}
