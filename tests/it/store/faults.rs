//! A remote read that breaks: an error of the right class, never a short answer that looks whole.

use std::time::Duration;

use outrigger::net::grpc::Code;

use super::{Stand, everything, exposition};
use crate::support::Harm;

#[test]
fn a_broken_remote_read_is_never_a_short_answer() {
    let stand = Stand::new(&exposition(), &[]);
    let whole = stand.client.series(&everything());
    assert_eq!(whole.series.len(), 360);
    // What can't be read may be the text that Prometheus appends when it fails late, so that
    // another try may succeed.
    for (harm, code, text) in [
        (Harm::Reset, Code::Unavailable, ""),
        (Harm::CutBetweenFrames, Code::Unavailable, ""),
        (Harm::Truncated, Code::Unavailable, ""),
        (Harm::TextAfter, Code::Unavailable, ""),
        (Harm::FlippedBit, Code::Unavailable, "checksum"),
        (Harm::HugeLength, Code::Unavailable, "4294967296 bytes"),
        (Harm::EndlessLength, Code::Unavailable, "frame 180"),
        (Harm::ContentType, Code::Internal, "text/plain"),
        (Harm::Status(503), Code::Unavailable, "503"),
        (Harm::Status(500), Code::Internal, "500"),
        (Harm::Status(400), Code::InvalidArgument, "400"),
    ] {
        stand.proxy.set(harm);
        for batch in [0, 64] {
            let mut request = everything();
            request.response_batch_size = batch;
            let answer = stand.client.try_series(&request);
            let failure = answer.failure.unwrap_or_else(|| {
                panic!("{harm:?}: OK with {} series", answer.series.len());
            });
            assert_eq!(failure.code, code, "{harm:?}: {failure:?}");
            assert!(failure.message.contains(text), "{harm:?}: {failure:?}");
            // What came before is what would have come.
            assert!(answer.series.len() < whole.series.len() || harm == Harm::TextAfter);
            assert_eq!(
                answer.series,
                whole.series[..answer.series.len()],
                "{harm:?}"
            );
        }
    }
    stand.proxy.release();
    assert_eq!(stand.client.series(&everything()).series, whole.series);
}

#[test]
fn a_remote_read_that_stalls_ends_with_the_callers_deadline() {
    let stand = Stand::new(&exposition(), &[]);
    stand.proxy.set(Harm::Stall);
    let answer = stand
        .client
        .series_within(&everything(), Duration::from_secs(2));
    assert_eq!(answer.failure.unwrap().code, Code::DeadlineExceeded);
    assert!(answer.series.len() < 360);
    stand.proxy.release();
    assert_eq!(stand.client.series(&everything()).series.len(), 360);
}

#[test]
fn without_a_prometheus_calls_are_unavailable() {
    let mut stand = Stand::new(&exposition(), &[]);
    stand.prometheus.stop();
    let failure = stand.client.try_series(&everything()).failure.unwrap();
    assert_eq!(failure.code, Code::Unavailable, "{failure:?}");
}
