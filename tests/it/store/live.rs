//! Series while everything moves: a Prometheus with short blocks takes samples in and out of order,
//! compacts, deletes by retention and on request, and loads its configuration again, while a client
//! asks for all of a range. Each answer is what Prometheus tells of that range.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outrigger::model::{MatchOp, Matcher};
use outrigger::prometheus::RemoteQuery;
use outrigger::proto::thanos::SeriesRequest;

use super::blocks::{in_range, labels, plans};
use super::with_external;
use crate::support::{
    Labels, Outrigger, Point, PointsOf, Prometheus, PrometheusSetup, Random, Site, StoreClient,
    Writer, matcher, post, remotely_read,
};

const SERIES: i64 = 30;
const SEED: u64 = 0x11fe;
/// The value of samples out of order.
const LATE: f64 = -1.0;

#[test]
fn answers_stay_whole_for_a_minute() {
    stay_whole(Duration::from_secs(60));
}

#[test]
#[ignore = "takes ten minutes, part of test-long"]
fn answers_stay_whole_for_long() {
    stay_whole(Duration::from_secs(600));
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn stay_whole(length: Duration) {
    let site = Site::new();
    let setup = PrometheusSetup {
        min_block_duration: "4s",
        max_block_duration: "12s",
        retention: "40s",
        out_of_order: "6s",
        flags: vec![
            "--web.enable-remote-write-receiver".to_owned(),
            "--web.enable-admin-api".to_owned(),
        ],
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let arguments = site.arguments_without_bucket(prometheus.address(), &[]);
    let outrigger = Outrigger::start(&arguments);
    let client = StoreClient::connect(outrigger.grpc_address());
    let start_ms = now_ms();
    let is_over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        scope.spawn(|| write_until(&is_over, &prometheus));
        scope.spawn(|| disturb_until(&is_over, &prometheus, &setup));
        let _over = OverAtEnd(&is_over);
        ask(&client, &prometheus, start_ms, length)
    });
    let of_blocks = plans(&outrigger, "mixed") + plans(&outrigger, "local");
    eprintln!("{asked:?}, {of_blocks} of blocks");
    assert!(asked.same > 20, "{asked:?}");
    assert!(asked.broken_off < asked.same / 10, "{asked:?}");
    assert!(asked.late <= 3 + asked.same / 200, "{asked:?}");
    assert!(
        of_blocks > 20.0,
        "only {of_blocks} plans used blocks: {asked:?}"
    );
}

/// Ends the other threads, also when an answer was wrong.
struct OverAtEnd<'a>(&'a AtomicBool);

impl Drop for OverAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Samples of now, and some late ones.
fn write_until(is_over: &AtomicBool, prometheus: &Prometheus) {
    let mut random = Random(SEED);
    let mut writer = Writer::new(prometheus.address());
    let mut round = 0_i64;
    while !is_over.load(Ordering::Relaxed) {
        let t_ms = now_ms();
        for set in 0..SERIES {
            writer.float(&series(set), t_ms, round as f64);
        }
        writer.flush();
        if round % 30 == 0 {
            for set in 0..5 {
                let late = t_ms - 500 - i64::try_from(random.below(5_000)).unwrap();
                writer.float(&series(set), late, LATE);
            }
            // One that is too old by now is refused, the others are taken.
            let (status, answer) = writer.send();
            assert!(status < 500, "{answer}");
        }
        round += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn series(set: i64) -> Labels {
    labels(&[("__name__", "live"), ("set", &format!("{set:02}"))])
}

/// Deletes now and then, and loads the configuration again.
fn disturb_until(is_over: &AtomicBool, prometheus: &Prometheus, setup: &PrometheusSetup) {
    let mut round = 0;
    let mut last = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        if last.elapsed() < Duration::from_secs(5) {
            continue;
        }
        last = Instant::now();
        round += 1;
        match round % 3 {
            0 => prometheus.reload(setup),
            1 => {
                let (from, to) = (now_ms() - 14_000, now_ms() - 13_000);
                let path = format!(
                    "/api/v1/admin/tsdb/delete_series?match[]=live%7Bset=\"07\"%7D\
                     &start={}&end={}",
                    from as f64 / 1000.0,
                    to as f64 / 1000.0
                );
                assert_eq!(post(prometheus.address(), &path).unwrap().0, 204);
            }
            _ => {
                let path = "/api/v1/admin/tsdb/clean_tombstones";
                assert_eq!(post(prometheus.address(), path).unwrap().0, 204);
            }
        }
    }
}

/// What came out.
#[derive(Debug, Default)]
struct Asked {
    same: usize,
    /// Prometheus itself told something else a moment later.
    moved: usize,
    /// Prometheus broke off, which it does when a chunk goes that it was about to read; or we did
    /// for that, and said so.
    broken_off: usize,
    /// A block beyond the retention was still there.
    retained: usize,
    /// Late samples were missing that no block was asked for: Prometheus before 2.49 may leave them
    /// out while it writes them to a block.
    late: usize,
}

fn ask(client: &StoreClient, prometheus: &Prometheus, start_ms: i64, length: Duration) -> Asked {
    let began = Instant::now();
    let mut asked = Asked::default();
    while began.elapsed() < length {
        let request = SeriesRequest {
            min_time: start_ms,
            max_time: now_ms() - 200,
            matchers: vec![matcher("__name__", "=", "live")],
            response_batch_size: 64,
            ..SeriesRequest::default()
        };
        let before = told(prometheus, &request);
        let answer = client.try_series(&request);
        let after = told(prometheus, &request);
        let (Some(before), Some(after), None) = (before, after, answer.failure) else {
            asked.broken_off += 1;
            continue;
        };
        let found = in_range(&answer.series, &request, "live");
        if before != after {
            asked.moved += 1;
        } else if found == before {
            asked.same += 1;
        } else {
            match compare(&found, &before, &request) {
                0 => asked.retained += 1,
                _ => asked.late += 1,
            }
        }
    }
    asked
}

/// Prometheus forgets a block before its directory goes: what we have more is older than all it
/// has. Returns how many late samples are missing that are younger than what blocks answer for.
fn compare(found: &PointsOf, told: &PointsOf, request: &SeriesRequest) -> usize {
    let oldest = told
        .values()
        .filter_map(|points| points.first())
        .map(|(t, _)| *t)
        .min();
    let oldest = oldest.unwrap_or(request.max_time);
    let mut kept = found.clone();
    for points in kept.values_mut() {
        points.retain(|(t, _)| *t >= oldest);
    }
    kept.retain(|_, points| !points.is_empty());
    let mut late = 0;
    for (labels, points) in told {
        let other = kept.get(labels).cloned().unwrap_or_default();
        let missing = points.iter().filter(|point| !other.contains(point));
        let (missing, late_ones): (Vec<&_>, Vec<&_>) =
            missing.partition(|point| !is_late(point, request));
        late += late_ones.len();
        let more: Vec<_> = other
            .iter()
            .filter(|point| !points.contains(point))
            .collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "{labels:?}: {} missing {missing:?}, {} more {more:?}, oldest {oldest}",
            missing.len(),
            more.len()
        );
    }
    assert_eq!(kept.len(), told.len());
    late
}

/// Blocks answer for nothing that may have come out of order since the head before this one: the
/// window and two block ranges back.
fn is_late((t_ms, value): &(i64, Point), request: &SeriesRequest) -> bool {
    *value == Point::Float(LATE.to_bits()) && *t_ms > request.max_time - 6_000 - 2 * 4_000
}

fn told(prometheus: &Prometheus, request: &SeriesRequest) -> Option<PointsOf> {
    let query = RemoteQuery {
        start_ms: request.min_time,
        end_ms: request.max_time,
        matchers: vec![Matcher {
            op: MatchOp::Equal,
            name: "__name__".to_owned(),
            value: "live".to_owned(),
        }],
    };
    let (read, _) = remotely_read(prometheus.address(), &query).ok()?;
    let read = read.into_iter();
    let read = read.map(|(labels, points)| (with_external(labels.into_iter()), points));
    Some(read.collect())
}
