//! What scrapers read back from both formats.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use proptest::prelude::*;

use super::*;

#[test]
fn the_preferred_format_is_chosen() {
    let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let prometheus_3 = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
        application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,\
        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, expected) in [
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
        ("application/json", Format::Text),
        (prometheus_2, Format::OpenMetrics1),
        (prometheus_3, Format::OpenMetrics1),
        ("application/openmetrics-text", Format::OpenMetrics001),
        (
            "application/openmetrics-text; version=0.0.1",
            Format::OpenMetrics001,
        ),
        ("application/openmetrics-text;version=9.9.9", Format::Text),
        (
            "text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.8",
            Format::Text,
        ),
        (
            "*/*, application/openmetrics-text;version=1.0.0",
            Format::OpenMetrics1,
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=0",
            Format::Text,
        ),
        (
            "APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"; Q=1.0",
            Format::OpenMetrics1,
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=nonsense, text/plain",
            Format::Text,
        ),
    ] {
        assert_eq!(Format::negotiated(accept), expected, "{accept}");
    }
}

#[test]
fn gzip_is_used_where_it_is_allowed() {
    for (accept, expected) in [
        ("", false),
        ("gzip", true),
        ("deflate, gzip;q=0.5", true),
        ("gzip;q=0", false),
        ("gzip;q=0, *", false),
        ("*", true),
        ("identity", false),
        ("br", false),
    ] {
        assert_eq!(accepts_gzip(accept), expected, "{accept}");
    }
}

proptest! {
    #[test]
    fn any_accept_header_gives_a_format(accept in "[ -~]{0,80}") {
        let format = Format::negotiated(&accept);
        if !accept.to_ascii_lowercase().contains("openmetrics") {
            prop_assert_eq!(format, Format::Text);
        }
    }

    #[test]
    fn the_higher_quality_wins(text in 1u32..1000, openmetrics in 1u32..1000, swap: bool) {
        let quality = |q: u32| f64::from(q) / 1000.0;
        let mut clauses = [
            format!("text/plain;version=0.0.4;q={}", quality(text)),
            format!("application/openmetrics-text;version=1.0.0;q={}", quality(openmetrics)),
        ];
        if swap { clauses.reverse(); }
        let expected = match text.cmp(&openmetrics) {
            std::cmp::Ordering::Less => Format::OpenMetrics1,
            std::cmp::Ordering::Greater => Format::Text,
            std::cmp::Ordering::Equal if swap => Format::OpenMetrics1,
            std::cmp::Ordering::Equal => Format::Text,
        };
        prop_assert_eq!(Format::negotiated(&clauses.join(", ")), expected);
    }
}

#[test]
fn floats_are_written_as_go_writes_them() {
    // Printed by Go's strconv.FormatFloat(v, 'g', -1, 64).
    for (value, text) in [
        (0.001, "0.001"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (0.3, "0.3"),
        (1.0, "1"),
        (120.0, "120"),
        (32768.0, "32768"),
        (999_999.0, "999999"),
        (1e6, "1e+06"),
        (1_048_576.0, "1.048576e+06"),
        (1_073_741_824.0, "1.073741824e+09"),
        (1e21, "1e+21"),
        (2.5e-7, "2.5e-07"),
        (0.0, "0"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(go_float(value, false), text);
    }
    assert_eq!(go_float(1.0, true), "1.0");
    assert_eq!(go_float(1e6, true), "1e+06");
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
}

fn registry(labels: &[String], numbers: &[u32]) -> Registry {
    let mut registry = Registry::default();
    let counters = Family::<Named, Counter>::default();
    let gauges = Family::<Named, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    let histograms = Family::<Named, Histogram>::new_with_constructor(|| {
        Histogram::new([0.1, 1.0, 2_000_000.0])
    });
    for (label, number) in labels.iter().zip(numbers.iter().cycle()) {
        let named = Named {
            name: label.clone(),
        };
        counters.get_or_create(&named).inc_by(u64::from(*number));
        gauges.get_or_create(&named).set(f64::from(*number) / 8.0);
        histograms.get_or_create(&named).observe(f64::from(*number));
    }
    registry.register("test_requests", "Requests seen", counters);
    registry.register("test_level", "A level. With a stop.", gauges);
    registry.register("test_seconds", "Durations", histograms);
    let info = Info::new(vec![("version", "1")]);
    registry.register("test", "An info", info);
    registry
}

/// Families and samples of a text exposition, in the stricter of the ways scrapers read them.
#[derive(Debug, Default, PartialEq)]
struct Read {
    types: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

fn read_back(text: &str) -> Read {
    let mut read = Read::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                read.types
                    .insert(name.to_owned(), kind.to_owned())
                    .is_none(),
                "{name} twice"
            );
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            read.helps.insert(name.to_owned(), help.to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let previous = read
                .samples
                .insert(series.to_owned(), value.parse().unwrap());
            assert!(previous.is_none(), "{series} twice");
        }
    }
    read
}

#[test]
fn the_text_format_names_counters_and_bounds_as_the_reference() {
    let registry = registry(&["a".to_owned()], &[3]);
    let text = render(&registry, Format::Text).unwrap().text;
    let expected = "\
# HELP test_requests_total Requests seen
# TYPE test_requests_total counter
test_requests_total{name=\"a\"} 3
# HELP test_level A level. With a stop.
# TYPE test_level gauge
test_level{name=\"a\"} 0.375
# HELP test_seconds Durations
# TYPE test_seconds histogram
test_seconds_sum{name=\"a\"} 3.0
test_seconds_count{name=\"a\"} 1
test_seconds_bucket{le=\"0.1\",name=\"a\"} 0
test_seconds_bucket{le=\"1\",name=\"a\"} 0
test_seconds_bucket{le=\"2e+06\",name=\"a\"} 1
test_seconds_bucket{le=\"+Inf\",name=\"a\"} 1
# HELP test_info An info
# TYPE test_info gauge
test_info{version=\"1\"} 1
";
    assert_eq!(text, expected);
    let openmetrics = render(&registry, Format::OpenMetrics1).unwrap().text;
    for line in [
        "# HELP test_requests Requests seen\n# TYPE test_requests counter\n",
        "test_seconds_bucket{le=\"1.0\",name=\"a\"} 0\n",
        "# TYPE test info\n",
    ] {
        assert!(openmetrics.contains(line), "{openmetrics}");
    }
    assert!(openmetrics.ends_with("# EOF\n"));
}

#[test]
fn infinite_values_are_written_as_scrapers_read_them() {
    let mut registry = Registry::default();
    for (name, value) in [
        ("up", f64::INFINITY),
        ("down", f64::NEG_INFINITY),
        ("odd", f64::NAN),
    ] {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        registry.register(name, "h", gauge);
    }
    let text = render(&registry, Format::Text).unwrap().text;
    assert!(
        text.contains("\nup +Inf\n")
            && text.contains("\ndown -Inf\n")
            && text.contains("\nodd NaN\n"),
        "{text}"
    );
}

#[test]
fn an_exposition_past_the_limit_is_an_error() {
    let labels: Vec<String> = (0..200)
        .map(|i| format!("{i}{}", "x".repeat(1 << 17)))
        .collect();
    let error = render(&registry(&labels, &[1]), Format::Text).unwrap_err();
    assert!(matches!(error, ExpositionError::Encode(_)), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn both_formats_hold_the_same_samples(
        labels in proptest::collection::hash_set("[ -~\\n{}\"\\\\,=é]{0,12}", 1..6),
        numbers in proptest::collection::vec(any::<u32>(), 1..6),
    ) {
        let labels: Vec<String> = labels.into_iter().collect();
        let registry = registry(&labels, &numbers);
        let text = read_back(&render(&registry, Format::Text).unwrap().text);
        let open = read_back(&render(&registry, Format::OpenMetrics1).unwrap().text);
        prop_assert_eq!(text.types.len(), open.types.len());
        prop_assert_eq!(&text.helps["test_level"], "A level. With a stop.");
        let series = labels.len();
        prop_assert_eq!(text.samples.len(), series * (1 + 1 + 2 + 4) + 1);
        let unified = |series: &str| {
            let is_bucket = series.contains("_bucket{le=\"1.0\"");
            series.replacen("le=\"1.0\"", "le=\"1\"", usize::from(is_bucket))
        };
        let open_samples: BTreeMap<String, f64> =
            open.samples.iter().map(|(series, value)| (unified(series), *value)).collect();
        prop_assert_eq!(text.samples, open_samples);
    }
}
