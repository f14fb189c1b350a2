//! Samples in every form, exact to the millisecond and the bit.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::prometheus::LabelsText;

fn decode(samples: &str) -> Result<Samples, QueryError> {
    let element = Element {
        labels: &LabelsText::default(),
        samples: Bytes::copy_from_slice(samples.as_bytes()),
    };
    element.decode()
}

fn floats(samples: &str) -> Vec<(i64, f64)> {
    let samples = decode(samples).unwrap();
    assert!(samples.histograms.is_empty());
    samples.floats
}

#[test]
fn floats_come_as_they_were_written() {
    let values =
        r#""values":[[1435781430.781,"1.5"],[1435781430.8,"+Inf"], [-0.001,"-Inf"],[2,"5e-324"]]"#;
    let expected = [
        (1_435_781_430_781, 1.5),
        (1_435_781_430_800, f64::INFINITY),
        (-1, f64::NEG_INFINITY),
        (2000, 5e-324),
    ];
    assert_eq!(floats(values), expected);
    assert_eq!(floats(r#" "value" : [1.5, "2"] "#), [(1500, 2.0)]);
    assert_eq!(floats(r#"[1.5,"2"]"#), [(1500, 2.0)], "a scalar");
    assert_eq!(floats(r#""values":[],"later":{"a":[1]}"#), []);
    let nan = floats(r#""value":[0,"NaN"]"#);
    assert!(nan[0].1.is_nan() && nan[0].0 == 0);
}

#[test]
fn floats_and_histograms_stand_side_by_side() {
    let both = decode(concat!(
        r#""values":[[1,"2"]],"histograms":["#,
        r#"[3,{"count":"1","sum":"2","buckets":[[0,"1","2","1"]]}],"#,
        r#"[4,{"sum":"2","count":"0"}]]"#,
    ))
    .unwrap();
    assert_eq!(both.floats, [(1000, 2.0)]);
    let times: Vec<_> = both.histograms.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [3000, 4000]);
    assert_eq!(both.histograms[0].1.positive_spans, [(1, 1)]);
}

#[test]
fn what_is_broken_is_an_error() {
    for broken in [
        "",
        "[",
        "[1]",
        r#"[1,"x"]"#,
        r#"[1,"2"]]"#,
        r#""value""#,
        r#""value":"#,
        r#""value":[1,2]"#,
        r#""value":["1","2"]"#,
        r#""value":[1,"2",3]"#,
        r#""value":[1.2345,"2"]"#,
        r#""value":[1e3,"2"]"#,
        r#""value":[99999999999999999,"2"]"#,
        r#""value":[1,"2"]]"#,
        r#""value":[1,"2"],"#,
        r#""value":[1,"2"]"value":[1,"2"]"#,
        r#""value" [1,"2"]"#,
        r#""values":[[1,"2"}]"#,
        r#""histogram":[1,{"count":"1"}]"#,
        r#""histogram":[1,{"count":"1","sum":"1","buckets":[[0,"1","2"]]}]"#,
        r#""histogram":[1,{"count":"1","sum":"1","buckets":[[-1,"1","2","3"]]}]"#,
    ] {
        let error = decode(broken).unwrap_err();
        assert!(
            matches!(error, QueryError::Samples(_)),
            "{broken}: {error:?}"
        );
    }
    let whole = r#""values":[[1,"2"]],"histogram":[1,{"count":"1","sum":"1"}]"#;
    for cut in 0..whole.len() {
        let may_end_here = &whole[..cut] == r#""values":[[1,"2"]]"#;
        assert_eq!(decode(&whole[..cut]).is_ok(), may_end_here, "{cut}");
    }
}

proptest! {
    #[test]
    fn times_are_exact(ms: i64) {
        let (sign, abs) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
        let text = format!("{sign}{}.{:03}", abs / 1000, abs % 1000);
        prop_assert_eq!(milliseconds(&text), Some(ms));
        let short = text.trim_end_matches('0').trim_end_matches('.');
        prop_assert_eq!(milliseconds(short), Some(ms));
    }

    #[test]
    fn values_are_exact(value: f64) {
        prop_assume!(!value.is_nan());
        let read = floats(&format!(r#""value":[1,"{value:e}"]"#));
        prop_assert_eq!(read[0].1.to_bits(), value.to_bits());
    }

    #[test]
    fn garbage_never_panics(text in "[{}\\[\\],:\"0-9.a-z\\\\-]{0,60}") {
        drop(decode(&text));
        drop(decode(&format!(r#""values":{text}"#)));
        drop(decode(&format!(r#""histogram":[1,{{"count":"1","sum":"1","buckets":{text}}}]"#)));
    }
}
