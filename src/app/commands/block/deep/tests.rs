//! What a writer may get wrong, sample by sample.

use std::sync::Arc;

use super::*;

fn layout() -> HistogramLayout {
    let span = |offset, length| Span { offset, length };
    HistogramLayout {
        positive_spans: vec![span(-2, 1), span(1, 2)],
        negative_spans: vec![span(0, 1)],
        ..HistogramLayout::default()
    }
}

fn integer(layout: HistogramLayout, count: u64, positive: &[i64]) -> HistogramSample {
    HistogramSample {
        t_ms: 1,
        layout: Arc::new(layout),
        sum: 1.0,
        counts: HistogramCounts::Integer {
            count,
            zero: 1,
            positive: positive.to_vec(),
            negative: vec![4],
        },
    }
}

#[test]
fn histograms_that_are_right_pass() {
    // Buckets 3, 1 and 2, one in the zero bucket, 4 negative ones.
    assert_eq!(check_histogram(&integer(layout(), 11, &[3, -2, 1])), Ok(()));
    let mut nan = integer(layout(), 15, &[3, -2, 1]);
    nan.sum = f64::NAN;
    assert_eq!(check_histogram(&nan), Ok(()));
    let stale = HistogramSample {
        sum: f64::from_bits(0x7ff0_0000_0000_0002),
        ..integer(layout(), 0, &[])
    };
    assert_eq!(check_histogram(&stale), Ok(()));
    let custom = HistogramLayout {
        schema: CUSTOM_BOUNDS_SCHEMA,
        custom_bounds: vec![0.5, 1.0],
        positive_spans: vec![Span {
            offset: 0,
            length: 1,
        }],
        ..HistogramLayout::default()
    };
    let mut custom = integer(custom, 2, &[1]);
    if let HistogramCounts::Integer { negative, .. } = &mut custom.counts {
        negative.clear();
    }
    assert_eq!(check_histogram(&custom), Ok(()));
}

#[test]
fn each_mistake_has_its_name() {
    let fault = |sample: &HistogramSample| check_histogram(sample).unwrap_err();
    assert!(fault(&integer(layout(), 12, &[3, -2, 1])).contains("sum up"));
    assert!(fault(&integer(layout(), 6, &[3, -4, 1])).contains("negative count"));
    assert!(fault(&integer(layout(), 8, &[3])).contains("than its spans"));
    let mut wrong = layout();
    wrong.positive_spans[1].offset = -1;
    assert!(fault(&integer(wrong, 11, &[3, -2, 1])).contains("overlap"));
    let mut wrong = layout();
    wrong.schema = 9;
    assert!(fault(&integer(wrong, 11, &[3, -2, 1])).contains("schema"));
    let mut wrong = layout();
    wrong.schema = CUSTOM_BOUNDS_SCHEMA;
    wrong.custom_bounds = vec![1.0, 1.0];
    assert!(fault(&integer(wrong.clone(), 11, &[3, -2, 1])).contains("ascend"));
    wrong.custom_bounds = vec![1.0, 2.0];
    assert!(fault(&integer(wrong, 11, &[3, -2, 1])).contains("beside custom"));
    let float = HistogramSample {
        counts: HistogramCounts::Float {
            count: 1.0,
            zero: 0.0,
            positive: vec![1.0, -0.5, 0.5],
            negative: vec![0.0],
        },
        ..integer(layout(), 0, &[])
    };
    assert!(fault(&float).contains("negative count"));
}
