//! Traces across processes: what the caller's headers say of its span, and what ours say.
//!
//! Queriers send W3C `traceparent` and `tracestate` (the default of the reference's tracers since
//! they are built on OpenTelemetry); older ones and those told so by `OTEL_PROPAGATORS=jaeger` send
//! Jaeger's `uber-trace-id`. Prometheus reads W3C.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, trace};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::sampling::Forced;

/// What asks for a trace whatever the sampler says; its value must not be empty.
const FORCE: &str = "x-thanos-force-tracing";
const BAGGAGE: &str = "baggage";
const TRACE_STATE: &str = "tracestate";
const JAEGER: &str = "uber-trace-id";
/// The longest `tracestate` that is carried on: what W3C wants to be carried at least. Queued spans
/// hold it each.
const TRACE_STATE_BYTES_MAX: usize = 512;
const JAEGER_SAMPLED: u8 = 1;
const JAEGER_DEBUG: u8 = 2;

/// Headers as the propagator reads them.
struct Received<'a>(&'a HeaderMap);

/// Headers as the propagator writes them.
struct Sent<'a>(&'a mut HeaderMap);

/// Where a call comes from: empty where its headers do not tell.
pub(super) fn extract(headers: &HeaderMap) -> Context {
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Received(headers));
    let (context, is_debug) = match context.has_active_span() {
        true => (context, false),
        false => match jaeger(headers) {
            Some((parent, is_debug)) => (context.with_remote_span_context(parent), is_debug),
            None => (context, false),
        },
    };
    match is_debug || is_forced(headers) {
        true => context.with_value(Forced),
        false => context,
    }
}

/// Tells whoever gets these headers of the current span; nothing where there is none.
pub fn inject(headers: &mut HeaderMap) {
    Context::map_current(|context| {
        if trace::TraceContextExt::has_active_span(context) {
            TraceContextPropagator::new().inject_context(context, &mut Sent(headers));
        }
    });
}

/// `trace:span:parent:flags`, each in hexadecimal without leading zeros; Jaeger's clients escape
/// the colons in HTTP headers. True beside it where the trace was asked for by hand.
fn jaeger(headers: &HeaderMap) -> Option<(SpanContext, bool)> {
    let text = headers.get(JAEGER)?.to_str().ok()?;
    let text = text.replace("%3A", ":").replace("%3a", ":");
    let mut parts = text.split(':');
    let (trace_id, span_id) = (parts.next()?, parts.next()?);
    let (_parent, flags) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let trace_id = TraceId::from(u128::from_str_radix(digits(trace_id, 32)?, 16).ok()?);
    let span_id = SpanId::from(u64::from_str_radix(digits(span_id, 16)?, 16).ok()?);
    let flags = u8::from_str_radix(digits(flags, 2)?, 16).ok()?;
    let is_debug = flags & JAEGER_DEBUG != 0;
    let sampled = match is_debug || flags & JAEGER_SAMPLED != 0 {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    let parent = SpanContext::new(trace_id, span_id, sampled, true, TraceState::default());
    parent.is_valid().then_some((parent, is_debug))
}

/// The text, if it is one to so many digits: the parser would take a sign, too.
fn digits(text: &str, digits_max: usize) -> Option<&str> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && (1..=digits_max).contains(&text.len())).then_some(text)
}

/// By a header, or by the baggage that a querier makes of such a header.
fn is_forced(headers: &HeaderMap) -> bool {
    if headers.get(FORCE).is_some_and(|value| !value.is_empty()) {
        return true;
    }
    let members = headers.get_all(BAGGAGE).iter();
    let members = members.filter_map(|value| value.to_str().ok());
    members.flat_map(|value| value.split(',')).any(|member| {
        let (name, rest) = member.split_once('=').unwrap_or_default();
        let value = rest.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(FORCE) && !value.trim().is_empty()
    })
}

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let text = self.0.get(key)?.to_str().ok()?;
        (key != TRACE_STATE || text.len() <= TRACE_STATE_BYTES_MAX).then_some(text)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::try_from(key);
        // The propagator's own names, and values that came in as headers or are hexadecimal.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}
