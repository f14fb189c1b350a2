//! Samples written into a Prometheus by remote write, at times of one's own choice.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use outrigger::proto::prometheus::{BucketSpan, Histogram, Label, Sample, TimeSeries, histogram};
use prost::Message as _;

use super::{Labels, Point};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What a remote write sends (`prometheus.WriteRequest`).
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

/// Gathers samples, and sends them.
pub(crate) struct Writer {
    address: SocketAddr,
    request: WriteRequest,
}

impl Writer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            request: WriteRequest::default(),
        }
    }

    pub(crate) fn float(&mut self, labels: &Labels, t_ms: i64, value: f64) {
        self.series(labels).samples.push(Sample {
            value,
            timestamp: t_ms,
        });
    }

    pub(crate) fn histogram(&mut self, labels: &Labels, histogram: Histogram) {
        self.series(labels).histograms.push(histogram);
    }

    /// Sends what was gathered; the status, and the text of a refusal.
    pub(crate) fn send(&mut self) -> (u16, String) {
        let request = std::mem::take(&mut self.request);
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec());
        let body = body.unwrap();
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let head = format!(
            "POST /api/v1/write HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.unwrap(), answer)
    }

    /// Sends what was gathered, which has to be taken.
    pub(crate) fn flush(&mut self) {
        let (status, answer) = self.send();
        assert!((200..300).contains(&status), "{answer}");
    }

    fn series(&mut self, labels: &Labels) -> &mut TimeSeries {
        let labels = labels.iter().map(|(name, value)| Label {
            name: name.clone(),
            value: value.clone(),
        });
        let series = TimeSeries {
            labels: labels.collect(),
            ..TimeSeries::default()
        };
        let all = &mut self.request.timeseries;
        if all.last().is_none_or(|last| last.labels != series.labels) {
            all.push(series);
        }
        all.last_mut().unwrap()
    }
}

/// A native histogram of three buckets, with whole or float counts, and how it is seen later.
pub(crate) fn histogram(t_ms: i64, count: u64, is_float: bool) -> (Histogram, Point) {
    let (low, high) = (count / 3, count / 2);
    let middle = count - low - high;
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let [low_f, middle_f, high_f, count_f] = [low, middle, high, count].map(|count| count as f64);
    let sum = count_f * 1.5;
    let signed = |count: u64| i64::try_from(count).unwrap();
    let mut histogram = Histogram {
        sum,
        schema: 1,
        zero_threshold: 1e-128,
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
        timestamp: t_ms,
        ..Histogram::default()
    };
    if is_float {
        histogram.count = Some(histogram::Count::CountFloat(count_f));
        histogram.zero_count = Some(histogram::ZeroCount::ZeroCountFloat(0.0));
        histogram.positive_counts = vec![low_f, middle_f, high_f];
    } else {
        histogram.count = Some(histogram::Count::CountInt(count));
        histogram.zero_count = Some(histogram::ZeroCount::ZeroCountInt(0));
        let deltas = [low, middle, high].map(signed);
        histogram.positive_deltas = vec![deltas[0], deltas[1] - deltas[0], deltas[2] - deltas[1]];
    }
    (
        histogram,
        Point::Histogram(count_f.to_bits(), sum.to_bits()),
    )
}
