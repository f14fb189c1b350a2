//! Native histograms, which Prometheus' JSON tells otherwise than the wire has them.

use outrigger::proto::prometheus_copy::{BucketSpan, Histogram, histogram as copy};

use super::{ENABLE, Stand, instant, range};
use crate::support::{BACKFILL_START_S, Labels, PrometheusSetup, Site, Writer, histogram};

const STEP_S: i64 = 15;
const SAMPLES: i64 = 41;
const END_S: i64 = BACKFILL_START_S + STEP_S * (SAMPLES - 1);

fn stand() -> Stand {
    let setup = PrometheusSetup {
        flags: vec![
            "--web.enable-remote-write-receiver".to_owned(),
            "--enable-feature=native-histograms".to_owned(),
        ],
        ..PrometheusSetup::default()
    };
    let stand = Stand::over(Site::new(), &setup, &[ENABLE]);
    let mut writer = Writer::new(stand.prometheus.address());
    for at in 0..SAMPLES {
        let t_ms = (BACKFILL_START_S + at * STEP_S) * 1000;
        for (name, is_float) in [("h_int", false), ("h_float", true)] {
            let labels: Labels = vec![("__name__".to_owned(), name.to_owned())];
            let count = u64::try_from(at * 6 + 6).unwrap();
            writer.histogram(&labels, histogram(t_ms, count, is_float).0);
        }
    }
    writer.flush();
    stand
}

/// What `support::histogram` writes: schema 1 with the buckets 0, 1 and 5.
fn expected(t_ms: i64, count: f64) -> Histogram {
    let (low, high) = ((count / 3.0).floor(), (count / 2.0).floor());
    Histogram {
        count: Some(copy::Count::CountFloat(count)),
        sum: count * 1.5,
        schema: 1,
        zero_count: Some(copy::ZeroCount::ZeroCountFloat(0.0)),
        positive_spans: vec![
            BucketSpan {
                offset: 0,
                length: 2,
            },
            BucketSpan {
                offset: 3,
                length: 1,
            },
        ],
        positive_counts: vec![low, count - low - high, high],
        timestamp: t_ms,
        ..Histogram::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn histograms_are_float_histograms_of_their_schema() {
    let stand = stand();
    for name in ["h_int", "h_float"] {
        let mut request = instant(name);
        request.time_seconds = END_S;
        let answer = stand.instant(request).await.unwrap();
        let [series] = &answer.series[..] else {
            panic!("{answer:?}");
        };
        assert_eq!(series.samples, []);
        let count = f64::from(u32::try_from(SAMPLES * 6).unwrap());
        assert_eq!(series.histograms, [expected(END_S * 1000, count)]);

        let mut request = range(name);
        request.start_time_seconds = BACKFILL_START_S;
        request.end_time_seconds = END_S;
        request.interval_seconds = STEP_S;
        let answer = stand.range(request).await.unwrap();
        let all = (0..SAMPLES).map(|at| {
            let count = f64::from(u32::try_from(at * 6 + 6).unwrap());
            expected((BACKFILL_START_S + at * STEP_S) * 1000, count)
        });
        let all: Vec<Histogram> = all.collect();
        assert_eq!(answer.series[0].histograms, all, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn aggregated_histograms_and_quantiles_agree_with_prometheus() {
    let stand = stand();
    let mut request = instant("sum(rate(h_int[5m]))");
    request.time_seconds = END_S;
    let answer = stand.instant(request).await.unwrap();
    let histogram = &answer.series[0].histograms[0];
    let path = format!("/api/v1/query?query=sum(rate(h_int[5m]))&time={END_S}");
    let direct = &stand.asked_directly(&path)[0]["histogram"][1];
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<f64>().unwrap();
    assert_eq!(
        histogram.count,
        Some(copy::Count::CountFloat(number(&direct["count"])))
    );
    assert_eq!(histogram.sum.to_bits(), number(&direct["sum"]).to_bits());
    let counts: Vec<f64> = direct["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| number(&b[3]))
        .collect();
    assert_eq!(histogram.positive_counts, counts);

    let mut request = instant("histogram_quantile(0.9, sum(rate(h_int[5m])))");
    request.time_seconds = END_S;
    let answer = stand.instant(request).await.unwrap();
    assert_eq!(answer.series[0].samples.len(), 1);
}
