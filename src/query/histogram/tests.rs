//! Histograms as Prometheus writes them, and back.

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::prometheus::LabelsText;
use crate::query::{Element, Samples};

/// Where a bucket of this index ends, as a reference: the power as a whole.
fn ends_at(index: i32, schema: i32) -> f64 {
    let exponent = f64::from(index) * 2_f64.powi(-schema);
    match exponent {
        1024.0 => f64::MAX,
        exponent => exponent.exp2(),
    }
}

/// A number as Go writes it.
fn shown(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value if value.is_nan() => "NaN".to_owned(),
        value if value != 0.0 && value.abs() < 1e-6 => format!("{value:e}"),
        value => value.to_string(),
    }
}

fn indexes(spans: &[(i32, u32)]) -> Vec<i32> {
    let mut all = Vec::new();
    let mut next = 0;
    for (offset, length) in spans {
        next += offset;
        for _ in 0..*length {
            all.push(next);
            next += 1;
        }
    }
    all
}

/// The JSON that Prometheus writes: empty buckets are left out, and none reaches below the zero
/// threshold.
fn written(histogram: &FloatHistogram) -> String {
    let schema = histogram.schema;
    let side = |spans: &[(i32, u32)], counts: &[f64]| -> Vec<(f64, f64, f64)> {
        let indexes = indexes(spans);
        assert_eq!(indexes.len(), counts.len());
        let buckets = indexes.iter().zip(counts);
        buckets
            .filter(|(_, count)| **count != 0.0)
            .map(|(&index, &count)| {
                let near = ends_at(index - 1, schema).max(histogram.zero_threshold);
                (near, ends_at(index, schema), count)
            })
            .collect()
    };
    let mut buckets = Vec::new();
    let mut push = |rule: u8, left: f64, right: f64, count: f64| {
        let (left, right, count) = (shown(left), shown(right), shown(count));
        buckets.push(format!(r#"[{rule},"{left}","{right}","{count}"]"#));
    };
    for (near, far, count) in side(&histogram.negative_spans, &histogram.negative_counts)
        .into_iter()
        .rev()
    {
        push(1, -far, -near, count);
    }
    if histogram.zero_count != 0.0 {
        let threshold = histogram.zero_threshold;
        push(3, -threshold, threshold, histogram.zero_count);
    }
    for (near, far, count) in side(&histogram.positive_spans, &histogram.positive_counts) {
        push(0, near, far, count);
    }
    let (count, sum) = (shown(histogram.count), shown(histogram.sum));
    let mut json = format!(r#"{{"count":"{count}","sum":"{sum}""#);
    if !buckets.is_empty() {
        write!(json, r#","buckets":[{}]"#, buckets.join(",")).unwrap();
    }
    json + "}"
}

fn decoded(json: &str) -> Result<FloatHistogram, QueryError> {
    let element = Element {
        labels: &LabelsText::default(),
        samples: Bytes::from(format!(r#""histogram":[1.5,{json}]"#)),
    };
    let Samples { floats, histograms } = element.decode()?;
    assert!(floats.is_empty());
    let [(1500, histogram)] = &histograms[..] else {
        panic!("{histograms:?}");
    };
    Ok(histogram.clone())
}

fn of_buckets(buckets: &str) -> Result<FloatHistogram, QueryError> {
    decoded(&format!(
        r#"{{"count":"3","sum":"-4.5","buckets":[{buckets}]}}"#
    ))
}

#[test]
fn buckets_become_spans() {
    let read = of_buckets(
        r#"[1,"-4","-2","1"],[3,"-0.001","0.001","5"],[0,"0.5","1","2"],[0,"1","2","3.5"],
           [0,"8","16","NaN"]"#,
    )
    .unwrap();
    let expected = FloatHistogram {
        count: 3.0,
        sum: -4.5,
        schema: 0,
        zero_threshold: 0.001,
        zero_count: 5.0,
        negative_spans: vec![(2, 1)],
        negative_counts: vec![1.0],
        positive_spans: vec![(0, 2), (2, 1)],
        positive_counts: vec![2.0, 3.5, f64::NAN],
    };
    assert!(read.positive_counts[2].is_nan());
    assert_eq!(format!("{read:?}"), format!("{expected:?}"));
}

#[test]
fn no_buckets_are_of_the_finest_schema() {
    let none = decoded(r#"{"count":"0","sum":"NaN"}"#).unwrap();
    assert_eq!((none.schema, none.count), (8, 0.0));
    assert!(none.sum.is_nan() && none.positive_spans.is_empty());
    let null = decoded(r#"{"count":"0","sum":"0","buckets":null}"#).unwrap();
    assert_eq!(null.zero_threshold, 0.0);
    let zero = of_buckets(r#"[3,"-0","0","3"]"#).unwrap();
    assert_eq!(
        (zero.schema, zero.zero_count, zero.zero_threshold),
        (8, 3.0, 0.0)
    );
}

#[test]
fn a_bucket_may_be_cut_by_the_zero_bucket() {
    // Other buckets tell the schema.
    let buckets =
        r#"[1,"-1","-0.75","4"],[3,"-0.75","0.75","1"],[0,"0.75","1","2"],[0,"1","2","3"]"#;
    let read = of_buckets(buckets).unwrap();
    assert_eq!((read.schema, read.zero_threshold), (0, 0.75));
    assert_eq!(
        (read.negative_spans, read.positive_spans),
        (vec![(0, 1)], vec![(0, 2)])
    );
    // The zero bucket is empty, and not shown.
    let read = of_buckets(r#"[0,"0.75","1","2"],[0,"1","2","3"]"#).unwrap();
    assert_eq!(
        (read.schema, read.zero_threshold, read.zero_count),
        (0, 0.75, 0.0)
    );
    // Nothing else tells it: the finest that has the bucket, which says the least beyond it.
    let read = of_buckets(r#"[0,"0.9","1","2"]"#).unwrap();
    assert_eq!((read.schema, read.zero_threshold), (2, 0.9));
    assert_eq!(read.positive_spans, [(0, 1)]);
    // Two thresholds there can't be.
    assert!(of_buckets(r#"[1,"-1","-0.8","4"],[0,"0.75","1","2"],[0,"1","2","3"]"#).is_err());
    assert!(of_buckets(r#"[3,"-0.7","0.7","1"],[0,"0.75","1","2"],[0,"1","2","3"]"#).is_err());
}

#[test]
fn the_last_buckets_end_at_the_largest_number_and_at_infinity() {
    let max = shown(f64::MAX);
    for schema in SCHEMA_MIN..=SCHEMA_MAX {
        let last = (1024.0 * 2_f64.powi(schema)) as i32;
        let before = shown(ends_at(last - 1, schema));
        let buckets =
            format!(r#"[1,"-Inf","-{max}","3"],[0,"{before}","{max}","1"],[0,"{max}","+Inf","2"]"#);
        let read = of_buckets(&buckets).unwrap();
        assert_eq!(read.schema, schema);
        assert_eq!(read.positive_spans, [(last, 2)]);
        assert_eq!(read.negative_spans, [(last + 1, 1)]);
    }
}

#[test]
fn the_smallest_numbers_have_buckets() {
    let smallest = f64::from_bits(1);
    for exponent in [-1074, -1073, -1060, -1022, -1000] {
        let right = smallest * 2_f64.powi(exponent + 1074);
        let left = right / 2.0;
        let buckets = format!(r#"[0,"{}","{}","1"]"#, shown(left), shown(right));
        let read = of_buckets(&buckets).unwrap();
        // Finer schemas have the same bounds there, where numbers are far apart.
        let [(index, 1)] = read.positive_spans[..] else {
            panic!("{read:?}");
        };
        let bounds = (bound(index - 1, read.schema), bound(index, read.schema));
        assert_eq!(bounds, (left, right), "{read:?}");
    }
}

#[test]
fn custom_buckets_are_refused() {
    for custom in [
        r#"[3,"-Inf","0.1","1"]"#,
        r#"[0,"-Inf","0.1","1"]"#,
        r#"[0,"0","0.1","1"],[0,"0.1","0.25","1"]"#,
        r#"[0,"-5","5","1"]"#,
        r#"[0,"1","10","1"]"#,
        r#"[0,"1","2","1"],[0,"2","5","1"]"#,
        r#"[0,"1","2","1"],[0,"1","2","1"]"#,
        r#"[0,"2","4","1"],[0,"1","2","1"]"#,
        r#"[0,"1","NaN","1"]"#,
        r#"[0,"NaN","1","1"]"#,
        r#"[0,"2","1","1"]"#,
        r#"[0,"0","0","1"]"#,
        r#"[0,"0","+Inf","1"]"#,
        r#"[2,"1","2","1"]"#,
        r#"[3,"-1","1","1"],[3,"-1","1","1"]"#,
        r#"[3,"1","-1","1"]"#,
        r#"[0,"1","2","1"],[3,"-1","1","1"],[3,"-1","1","2"]"#,
    ] {
        let error = of_buckets(custom).unwrap_err();
        let expected = "unsupported native histograms with custom buckets";
        assert_eq!(error.to_string(), expected, "{custom}");
        assert_eq!(error.error_type(), "execution");
    }
}

fn count() -> impl Strategy<Value = f64> {
    prop_oneof![(1_u32..1000).prop_map(f64::from), 0.001_f64..1e9]
}

/// Spans, and as many counts: gaps at least one long, offsets where neither the smallest nor the
/// largest numbers are.
fn side(schema: i32) -> impl Strategy<Value = (Vec<(i32, u32)>, Vec<f64>)> {
    let scale = 2_f64.powi(schema);
    let (low, high) = ((-900.0 * scale) as i32, (700.0 * scale) as i32);
    let length = if schema < 0 { 1_u32..2 } else { 1..9 };
    let spans = prop::collection::vec((1_i32..6, length), 0..4);
    (low..=high, spans)
        .prop_map(|(first, mut spans)| {
            if let Some(span) = spans.first_mut() {
                span.0 = first;
            }
            spans
        })
        .prop_flat_map(|spans| {
            let buckets: u32 = spans.iter().map(|(_, length)| length).sum();
            let counts = prop::collection::vec(count(), buckets as usize);
            (Just(spans), counts)
        })
}

fn histogram() -> impl Strategy<Value = FloatHistogram> {
    (SCHEMA_MIN..=SCHEMA_MAX)
        .prop_flat_map(|schema| {
            let zero = prop_oneof![Just((0.0, 0.0)), (Just(1e-300), count())];
            (Just(schema), side(schema), side(schema), zero, any::<f64>())
        })
        .prop_map(|(schema, negative, positive, zero, sum)| FloatHistogram {
            count: 7.5,
            sum: if sum.is_nan() { 0.0 } else { sum },
            // Nothing tells the schema of a histogram without buckets.
            schema: match negative.0.is_empty() && positive.0.is_empty() {
                true => SCHEMA_MAX,
                false => schema,
            },
            zero_threshold: zero.0,
            zero_count: zero.1,
            negative_spans: negative.0,
            negative_counts: negative.1,
            positive_spans: positive.0,
            positive_counts: positive.1,
        })
}

proptest! {
    #[test]
    fn what_prometheus_writes_reads_back(histogram in histogram()) {
        prop_assert_eq!(decoded(&written(&histogram)).unwrap(), histogram);
    }

    #[test]
    fn any_buckets_are_read_or_refused(
        buckets in prop::collection::vec((0_u8..4, any::<f64>(), any::<f64>()), 0..5),
    ) {
        let buckets: Vec<_> = buckets
            .into_iter()
            .map(|(rule, left, right)| Bucket { rule, left, right, count: 1.0 })
            .collect();
        if let Ok(read) = FloatHistogram::of_buckets(1.0, 1.0, &buckets) {
            prop_assert!(read.positive_counts.len() + read.negative_counts.len() <= buckets.len());
        }
    }
}
