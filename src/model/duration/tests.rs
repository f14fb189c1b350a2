//! Both dialects against tables of what Go's and Prometheus' own parsers say.

use proptest::prelude::*;

use super::*;

/// A row: the text, then its value and its printed form, or `error` and the message.
struct Row {
    text: String,
    value: String,
    printed: String,
}

fn rows(table: &str) -> Vec<Row> {
    let quoted = |field: &str| serde_json::from_str::<String>(field).unwrap();
    let rows = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let [text, value, printed] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("three columns: {line}");
            };
            Row {
                text: quoted(text),
                value: value.to_owned(),
                printed: quoted(printed),
            }
        });
    rows.collect()
}

#[test]
fn go_durations_are_what_go_says() {
    let rows = rows(include_str!("../../../tests/golden/go_durations.tsv"));
    assert!(rows.len() > 200, "{}", rows.len());
    for row in rows {
        match row.text.parse::<GoDuration>() {
            Ok(duration) => {
                assert_eq!(duration.as_nanos().to_string(), row.value, "{:?}", row.text);
                assert_eq!(duration.to_string(), row.printed, "{:?}", row.text);
            }
            Err(error) => {
                assert_eq!(row.value, "error", "{:?}: {error}", row.text);
                assert_eq!(error.to_string(), row.printed, "{:?}", row.text);
            }
        }
    }
}

#[test]
fn prometheus_durations_are_what_prometheus_says() {
    let rows = rows(include_str!(
        "../../../tests/golden/prometheus_durations.tsv"
    ));
    assert!(rows.len() > 200, "{}", rows.len());
    for row in rows {
        match row.text.parse::<PromDuration>() {
            Ok(duration) => {
                assert_eq!(
                    duration.as_millis().to_string(),
                    row.value,
                    "{:?}",
                    row.text
                );
                assert_eq!(duration.to_string(), row.printed, "{:?}", row.text);
            }
            Err(error) => {
                assert_eq!(row.value, "error", "{:?}: {error}", row.text);
                assert_eq!(error.to_string(), row.printed, "{:?}", row.text);
            }
        }
    }
}

#[test]
fn a_negative_go_duration_is_no_standard_duration() {
    let negative: GoDuration = "-1s".parse().unwrap();
    assert_eq!(negative.to_std(), None);
    assert_eq!(negative.to_std_or_zero(), Duration::ZERO);
    assert!(!negative.is_positive());
    let positive: GoDuration = "1.5s".parse().unwrap();
    assert_eq!(positive.to_std(), Some(Duration::from_millis(1500)));
}

#[test]
fn the_ends_of_the_range_print() {
    for (nanos, printed) in [
        (i64::MAX, "2562047h47m16.854775807s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        assert_eq!(GoDuration::from_nanos(nanos).to_string(), printed);
    }
}

#[test]
fn a_prometheus_duration_in_a_document_may_be_a_bare_zero() {
    let parse = serde_json::from_str::<PromDuration>;
    assert_eq!(parse("0").unwrap(), PromDuration::default());
    assert_eq!(
        parse("\"1m30s\"").unwrap(),
        PromDuration::from_millis(90_000)
    );
    for bad in ["5", "-5", "\"1.5m\"", "true", "null", "\"\""] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_printed_go_duration_parses_back(nanos in -i64::MAX..=i64::MAX) {
        let duration = GoDuration::from_nanos(nanos);
        let parsed: GoDuration = duration.to_string().parse().unwrap();
        // Seconds carry up to nine digits after the point, through a double: exact.
        prop_assert_eq!(parsed, duration);
    }

    #[test]
    fn a_printed_prometheus_duration_parses_back(millis in 0..=PROM_MS_MAX) {
        let duration = PromDuration::from_millis(millis);
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
    }

    #[test]
    fn any_text_is_a_duration_or_an_error(text in "\\PC{0,12}|[-+.0-9a-zµ]{0,40}") {
        if let Ok(duration) = text.parse::<GoDuration>() {
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
        if let Ok(duration) = text.parse::<PromDuration>() {
            prop_assert!(duration.as_millis() <= PROM_MS_MAX);
        }
    }

    #[test]
    fn terms_add_up(hours in 0u32..10_000, minutes in 0u32..10_000, days in 0u32..1_000) {
        let minutes_in_all = (u64::from(days) * 24 + u64::from(hours)) * 60 + u64::from(minutes);
        let ms = minutes_in_all * 60_000;
        let text = format!("{days}d{hours}h{minutes}m");
        prop_assert_eq!(text.parse(), Ok(PromDuration::from_millis(ms)));
        let go: GoDuration = format!("{minutes}m{hours}h{days}d").parse().unwrap();
        prop_assert_eq!(go.to_std(), Some(Duration::from_millis(ms)));
    }
}
