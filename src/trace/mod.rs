//! Traces: which part of a call took how long, for whoever collects such spans.
//!
//! A [`Tracer`] starts the spans that nothing here is above: of a call that comes in, of a block
//! that is shipped. While work runs inside a span ([`Span::around`]) that span is the current one,
//! and [`Span::child`] starts spans below it, wherever they are. Without a tracer nothing is ever
//! current: then a child is one look at a thread-local, and nothing is allocated or sent.
//!
//! There are a few spans a call, never one for a series or a chunk. Ended spans that are sampled
//! go into a queue with a limit ([`span_queue`]); nobody ever waits for room in it.
//!
//! The span model, the samplers and the W3C headers are those of the OpenTelemetry crates.

mod propagation;
mod queue;
mod sampling;
mod span;
mod tracer;

pub use propagation::inject;
pub use queue::{QUEUED_SPANS_DEFAULT, QUEUED_SPANS_MAX, SpanQueue, SpanReceiver, span_queue};
pub use sampling::{Parents, Root, Sampling};
pub use span::{ATTRIBUTE_BYTES_MAX, Span, SpanKind};
pub use tracer::Tracer;

#[cfg(test)]
mod tests;
