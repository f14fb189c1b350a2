//! Spans from their start to the queue, with every sampler and what callers send.

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::trace::SpanData;
use prometheus_client::metrics::counter::Counter;
use proptest::prelude::*;

use super::*;

const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const W3C_UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN_ID: &str = "00f067aa0ba902b7";

fn traced(sampling: Sampling) -> (Tracer, SpanReceiver) {
    let (queue, spans) = span_queue(16, Counter::default());
    (Tracer::new(sampling, queue), spans)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        let name = http::HeaderName::from_static(name);
        (name, HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn sampling(root: Root, parents: Parents) -> Sampling {
    Sampling { root, parents }
}

/// Whether a call with these headers is recorded, and what its span is.
fn called(sampling: Sampling, pairs: &[(&'static str, &str)]) -> Option<SpanData> {
    let (tracer, mut spans) = traced(sampling);
    drop(tracer.call("/t.Trial/One".to_owned(), &headers(pairs)));
    spans.try_recv().ok()
}

#[tokio::test]
async fn spans_stand_below_the_callers_and_each_other() {
    let (tracer, mut spans) = traced(Sampling::DEFAULT);
    let call = tracer.call("/t.Trial/One".to_owned(), &headers(&[("traceparent", W3C)]));
    assert_eq!(call.trace_id().as_deref(), Some(TRACE_ID));
    let mut sent = HeaderMap::new();
    call.around(async {
        let inner = Span::asking("inner");
        inner.note("text", "x".repeat(2 * ATTRIBUTE_BYTES_MAX));
        inner.fail(&"broken");
        inner.around(async { inject(&mut sent) }).await;
        drop(inner);
        // Current again, after what was inside.
        drop(Span::child("other"));
    })
    .await;
    drop(call);
    let [inner, other, call] = [(); 3].map(|()| spans.try_recv().unwrap());
    assert_eq!((&*inner.name, &*other.name), ("inner", "other"));
    assert_eq!(call.name, "/t.Trial/One");
    assert_eq!(call.parent_span_id.to_string(), SPAN_ID);
    assert!(call.parent_span_is_remote);
    for below in [&inner, &other] {
        assert_eq!(below.parent_span_id, call.span_context.span_id());
        assert_eq!(below.span_context.trace_id().to_string(), TRACE_ID);
    }
    assert_eq!(inner.status, Status::error("broken"));
    assert_eq!(inner.events.events[0].name, "error");
    assert_eq!(
        inner.attributes[0].value.as_str().len(),
        ATTRIBUTE_BYTES_MAX
    );
    let expected = format!("00-{TRACE_ID}-{}-01", inner.span_context.span_id());
    assert_eq!(sent["traceparent"], expected);
    assert!(!sent.contains_key("tracestate"));
}

#[tokio::test]
async fn without_a_tracer_there_is_nothing() {
    let span = Span::child("inner");
    assert!(!span.is_recording() && span.trace_id().is_none());
    span.note_with("key", || -> i64 { unreachable!("nobody records it") });
    let mut sent = HeaderMap::new();
    Span::none().around(async { inject(&mut sent) }).await;
    assert!(sent.is_empty());
}

#[tokio::test]
async fn an_unsampled_caller_is_told_on_and_not_recorded() {
    let (tracer, mut spans) = traced(Sampling::DEFAULT);
    let call = tracer.call(
        "/t/One".to_owned(),
        &headers(&[("traceparent", W3C_UNSAMPLED)]),
    );
    let mut sent = HeaderMap::new();
    call.around(async { inject(&mut sent) }).await;
    assert!(call.trace_id().is_none() && !call.is_recording());
    drop(call);
    assert!(spans.try_recv().is_err());
    let told = sent["traceparent"].to_str().unwrap();
    assert!(
        told.starts_with("00-4bf92f35") && told.ends_with("-00"),
        "{told}"
    );
}

#[test]
fn samplers_decide_as_their_names_say() {
    let all = Root::Ratio(1.0);
    let anew = Parents::Followed {
        local_anew: false,
        remote_anew: true,
    };
    // Without a parent, below a recorded one, below one that is not.
    for (name, sampling, expected) in [
        (
            "always",
            sampling(Root::Always, Parents::Ignored),
            [true, true, true],
        ),
        (
            "never",
            sampling(Root::Never, Parents::Ignored),
            [false, false, false],
        ),
        (
            "ratio 0",
            sampling(Root::Ratio(0.0), Parents::Ignored),
            [false, false, false],
        ),
        (
            "ratio 1",
            sampling(all, Parents::Ignored),
            [true, true, true],
        ),
        (
            "parent, always",
            sampling(Root::Always, Parents::FOLLOWED),
            [true, true, false],
        ),
        (
            "parent, never",
            sampling(Root::Never, Parents::FOLLOWED),
            [false, true, false],
        ),
        (
            "parent, ratio 0",
            sampling(Root::Ratio(0.0), Parents::FOLLOWED),
            [false, true, false],
        ),
        (
            "parent anew, never",
            sampling(Root::Never, anew),
            [false, false, false],
        ),
        ("default", Sampling::DEFAULT, [true, true, false]),
    ] {
        let parents = [None, Some(W3C), Some(W3C_UNSAMPLED)];
        let found = parents.map(|parent| match parent {
            None => called(sampling, &[]).is_some(),
            Some(parent) => called(sampling, &[("traceparent", parent)]).is_some(),
        });
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_ratio_is_of_the_traces_and_the_same_for_all() {
    let half = sampling(Root::Ratio(0.5), Parents::Ignored);
    let parent = |low: &str| format!("00-4bf92f3577b34da6{low}-00f067aa0ba902b7-00");
    for (low, expected) in [
        ("0000000000000001", true),
        ("7fffffffffffffff", true),
        ("8000000000000001", false),
        ("ffffffffffffffff", false),
    ] {
        let found = called(half, &[("traceparent", &parent(low))]);
        assert_eq!(found.is_some(), expected, "{low}");
    }
}

#[tokio::test]
async fn what_is_asked_for_is_recorded_whatever_the_sampler_says() {
    let never = sampling(Root::Never, Parents::Ignored);
    for forced in [
        &[("x-thanos-force-tracing", "1")][..],
        &[("baggage", "a=b, x-thanos-force-tracing=true;p=1")],
        &[("uber-trace-id", "1:2:0:3")],
        &[
            ("traceparent", W3C_UNSAMPLED),
            ("x-thanos-force-tracing", "yes"),
        ],
    ] {
        let (tracer, mut spans) = traced(never);
        let call = tracer.call("/t/One".to_owned(), &headers(forced));
        call.around(async { drop(Span::child("inner")) }).await;
        drop(call);
        assert_eq!(spans.recv().await.unwrap().name, "inner", "{forced:?}");
        let call = spans.recv().await.unwrap();
        assert_eq!(call.attributes[0].key.as_str(), "thanos.force_tracing");
    }
    // Queriers always send the member; it is empty where nobody asked.
    for other in [
        "x-thanos-force-tracing=",
        "x-thanos-force-tracing=;p=1",
        "x-thanos-force-tracing",
    ] {
        assert!(called(never, &[("baggage", other)]).is_none(), "{other}");
    }
    assert!(called(never, &[("x-thanos-force-tracing", "")]).is_none());
}

#[test]
fn jaegers_header_is_read_where_there_is_no_other() {
    let read = |text: &str| {
        let span = called(Sampling::DEFAULT, &[("uber-trace-id", text)])?;
        Some((
            span.span_context.trace_id().to_string(),
            span.parent_span_id.to_string(),
        ))
    };
    let (short, span) = ("000000000000000000000000000000ab", "00000000000000cd");
    for text in [
        "ab:cd:0:1",
        "AB:CD:0:1",
        "00ab:cd:ef:01",
        "ab%3Acd%3A0%3A1",
        "ab%3acd%3a0%3a3",
    ] {
        assert_eq!(
            read(text),
            Some((short.to_owned(), span.to_owned())),
            "{text}"
        );
    }
    assert_eq!(read("ab:cd:0:0"), None, "it is not sampled");
    let long = read(&format!("{TRACE_ID}:{SPAN_ID}:0:1")).unwrap();
    assert_eq!(long, (TRACE_ID.to_owned(), SPAN_ID.to_owned()));
    // What is no such header begins a trace of its own.
    for text in [
        "",
        ":",
        "ab:cd:0",
        "ab:cd:0:1:2",
        "0:cd:0:1",
        "ab:0:0:1",
        "+ab:cd:0:1",
        "ab:cd:0:",
        "ab:xy:0:1",
        "ab:cd:0:100",
        "1ab00000000000000000000000000000000:cd:0:1",
    ] {
        let (trace, parent) = read(text).unwrap();
        assert_ne!(trace, short, "{text}");
        assert_eq!(parent, SpanId::INVALID.to_string(), "{text}");
    }
    let both = called(
        Sampling::DEFAULT,
        &[("uber-trace-id", "ab:cd:0:1"), ("traceparent", W3C)],
    );
    assert_eq!(both.unwrap().span_context.trace_id().to_string(), TRACE_ID);
}

#[tokio::test]
async fn trace_state_is_carried_on_unless_it_is_long() {
    for (state, expected) in [
        ("a=b,c=d".to_owned(), true),
        (format!("a={}", "x".repeat(511)), false),
    ] {
        let (tracer, _spans) = traced(Sampling::DEFAULT);
        let pairs = [("traceparent", W3C), ("tracestate", state.as_str())];
        let call = tracer.call("/t/One".to_owned(), &headers(&pairs));
        let mut sent = HeaderMap::new();
        call.around(async { inject(&mut sent) }).await;
        assert_eq!(
            sent.get("tracestate").is_some_and(|told| *told == state),
            expected
        );
        assert!(sent.contains_key("traceparent"));
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let dropped = Counter::default();
    let (queue, mut spans) = span_queue(2, dropped.clone());
    let tracer = Tracer::new(Sampling::DEFAULT, queue);
    for _ in 0..5 {
        drop(tracer.root("one"));
    }
    assert_eq!((spans.len(), dropped.get()), (2, 3));
    assert!(spans.try_recv().is_ok());
    drop(tracer.root("one"));
    assert_eq!((spans.len(), dropped.get()), (2, 3));
    let (queue, spans) = span_queue(usize::MAX, Counter::default());
    drop(queue);
    assert_eq!(spans.max_capacity(), QUEUED_SPANS_MAX);
}

proptest! {
    #[test]
    fn no_header_is_too_odd(
        traceparent in "\\PC{0,60}", jaeger in "[0-9a-f:%+-]{0,60}", baggage in "[ -~]{0,80}",
    ) {
        let mut odd = HeaderMap::new();
        for (name, text) in [("traceparent", traceparent), ("uber-trace-id", jaeger)] {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                odd.insert(name, value);
            }
        }
        odd.insert("baggage", HeaderValue::from_str(&baggage).unwrap());
        let (tracer, mut spans) = traced(sampling(Root::Always, Parents::Ignored));
        drop(tracer.call("/t/One".to_owned(), &odd));
        prop_assert!(spans.try_recv().unwrap().span_context.is_valid());
    }
}
