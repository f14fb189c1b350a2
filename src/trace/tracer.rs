//! Where spans begin that have none above them in this process.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::propagation;
use super::queue::SpanQueue;
use super::sampling::{Forced, Sampling};
use super::span::{Span, SpanKind};

/// The instrumentation scope of our spans.
const SCOPE: &str = "outrigger";
/// The name of the attribute by which the reference marks a trace that was asked for.
const FORCED_ATTRIBUTE: &str = "thanos.force_tracing";

/// Starts spans; cheap to clone. Its last clone and span closes the queue.
#[derive(Clone, Debug)]
pub struct Tracer {
    sdk: SdkTracer,
}

impl Tracer {
    /// A tracer that records what `sampling` says into `queue`.
    pub fn new(sampling: Sampling, queue: SpanQueue) -> Self {
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampling.sampler())
            .with_span_processor(queue)
            // Whoever sends the spans knows whose they are.
            .with_resource(Resource::builder_empty().build())
            .build();
        Self {
            sdk: provider.tracer(SCOPE),
        }
    }

    /// The span of a call that came in with these headers: below the caller's, if they tell of
    /// one.
    pub fn call(&self, name: String, headers: &HeaderMap) -> Span {
        let caller = propagation::extract(headers).with_value(self.clone());
        let span = Span::start(self, name.into(), SpanKind::Server, &caller);
        if caller.get::<Forced>().is_some() {
            span.note(FORCED_ATTRIBUTE, "true");
        }
        span
    }

    /// A span with nothing above it.
    pub fn root(&self, name: &'static str) -> Span {
        let nothing = Context::new().with_value(self.clone());
        Span::start(self, name.into(), SpanKind::Internal, &nothing)
    }

    pub(super) fn sdk(&self) -> &SdkTracer {
        &self.sdk
    }
}
