//! Ended spans on their way to whoever sends them: a queue that never makes anybody wait.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

/// Spans that wait for the collector unless the configuration says otherwise: what OpenTelemetry
/// SDKs keep. A span has some hundred bytes, and 10 KiB at most.
pub const QUEUED_SPANS_DEFAULT: usize = 2048;
/// The most that may be configured.
pub const QUEUED_SPANS_MAX: usize = 16_384;

/// Takes ended spans; one that finds no room is dropped and counted.
#[derive(Debug)]
pub struct SpanQueue {
    sender: mpsc::Sender<SpanData>,
    dropped: Counter,
}

/// The other end of a [`SpanQueue`].
pub type SpanReceiver = mpsc::Receiver<SpanData>;

/// A queue for `spans_max` spans (1 to [`QUEUED_SPANS_MAX`]); `dropped` counts those without room.
pub fn span_queue(spans_max: usize, dropped: Counter) -> (SpanQueue, SpanReceiver) {
    let (sender, receiver) = mpsc::channel(spans_max.clamp(1, QUEUED_SPANS_MAX));
    (SpanQueue { sender, dropped }, receiver)
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
