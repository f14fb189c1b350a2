//! The exporter with collectors that take, refuse, hang, or are not there.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prometheus_client::registry::Registry;
use prost::Message as _;

use super::*;
use crate::net::http::{Reply, ScriptedServer, response, until};
use crate::trace::{QUEUED_SPANS_DEFAULT, Sampling, Tracer, span_queue};

struct Scene {
    tracer: Tracer,
    exporter: RunningExporter,
    metrics: ExportMetrics,
}

/// An exporter to `server` by a document with these lines more.
fn start(server: &str, lines: &str) -> Scene {
    let yaml = format!(
        "type: OTLP\nconfig:\n  client_type: http\n  service_name: me\n  \
         endpoint: {server}\n{lines}"
    );
    let mut config = TracingConfig::parse(&yaml, &|_| None).unwrap();
    config.flush_interval = Duration::from_millis(10);
    let metrics = ExportMetrics::register(&mut Registry::default());
    let (queue, spans) = span_queue(config.queued_spans_max, metrics.without_room());
    Scene {
        tracer: Tracer::new(Sampling::DEFAULT, queue),
        exporter: Exporter::new(&config, None, 1, metrics.clone())
            .unwrap()
            .start(spans),
        metrics,
    }
}

impl Scene {
    fn spans(&self, count: usize) {
        for _ in 0..count {
            drop(self.tracer.root("work"));
        }
    }

    fn sent(&self) -> u64 {
        self.metrics.sent.get()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.metrics.dropped(reason).get()
    }
}

fn taken() -> Reply {
    Reply::Bytes(response("200 OK", &[], ""))
}

const QUICK: &str = "  retry_config: {retry_enabled: true, retry_initial_interval: 10ms, \
    retry_max_interval: 20ms, retry_max_elapsed_time: 1m}\n";

#[tokio::test]
async fn spans_are_gathered_and_sent_with_what_is_said_of_us() {
    let server = ScriptedServer::start(|_| taken()).await;
    let lines = "  compression: gzip\n  headers: {x-key: \"7\"}\n";
    let scene = start(&server.url(""), lines);
    scene.spans(BATCH_SPANS_MAX + 1);
    until("all are sent", || {
        scene.sent() == BATCH_SPANS_MAX as u64 + 1
    })
    .await;
    let mut sizes = Vec::new();
    for seen in server.seen() {
        assert_eq!(seen.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(seen.header("content-encoding"), Some("gzip"));
        assert_eq!(seen.header("x-key"), Some("7"));
        let mut body = Vec::new();
        GzDecoder::new(&seen.body[..])
            .read_to_end(&mut body)
            .unwrap();
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        let of_us = &request.resource_spans[0];
        let resource = of_us.resource.as_ref().unwrap();
        assert_eq!(resource.attributes[0].key, "service.name");
        assert_eq!(
            of_us.scope_spans[0].scope.as_ref().unwrap().name,
            "outrigger"
        );
        sizes.push(of_us.scope_spans[0].spans.len());
    }
    assert_eq!(sizes.iter().sum::<usize>(), BATCH_SPANS_MAX + 1);
    assert!(
        sizes.iter().all(|size| *size <= BATCH_SPANS_MAX),
        "{sizes:?}"
    );
    scene.exporter.finish(FLUSH_TIMEOUT).await;
}

#[tokio::test]
async fn what_may_go_well_later_is_tried_again() {
    let asked = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Bytes(response(
            "503 Service Unavailable",
            &[("Retry-After", "0")],
            "busy",
        )),
        1 => Reply::Close(Vec::new()),
        2 => Reply::Bytes(response("429 Too Many Requests", &[], "")),
        _ => taken(),
    })
    .await;
    let scene = start(&server.url(""), QUICK);
    scene.spans(3);
    until("they are sent", || scene.sent() == 3).await;
    assert_eq!(server.seen().len(), 4);
    assert_eq!(scene.dropped(DropReason::export_failed), 0);
}

#[tokio::test]
async fn what_is_refused_is_dropped_and_counted() {
    let asked = AtomicUsize::new(0);
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too old".to_owned(),
        }),
    };
    let server = ScriptedServer::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Bytes(response("400 Bad Request", &[], "no")),
        1 => Reply::Bytes(response("200 OK", &[], partial.encode_to_vec())),
        _ => Reply::Bytes(response("200 OK", &[], "garbage \u{ff}")),
    })
    .await;
    let scene = start(&server.url(""), QUICK);
    scene.spans(3);
    until("a batch is dropped", || {
        scene.dropped(DropReason::export_failed) == 3
    })
    .await;
    scene.spans(3);
    until("a batch is taken in part", || {
        scene.dropped(DropReason::rejected) == 2
    })
    .await;
    assert_eq!(scene.sent(), 1);
    // Taken is taken, whatever the answer's body is.
    scene.spans(1);
    until("a batch is taken", || scene.sent() == 2).await;
}

#[tokio::test]
async fn a_collector_that_hangs_costs_a_bounded_queue_and_no_time() {
    let server = ScriptedServer::start(|_| Reply::Hang).await;
    let scene = start(&server.url(""), "");
    scene.spans(1);
    until("the first batch is under way", || !server.seen().is_empty()).await;
    scene.spans(3 * QUEUED_SPANS_DEFAULT);
    assert_eq!(
        scene.dropped(DropReason::queue_full),
        2 * QUEUED_SPANS_DEFAULT as u64
    );
    // The collector's timeout is not waited for.
    let finishing = scene.exporter.finish(Duration::from_millis(50));
    timeout(TIMEOUT, finishing).await.unwrap();
}

/// That of an exchange, unless it is configured.
const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn at_the_end_what_is_left_is_sent_at_once() {
    let server = ScriptedServer::start(|_| taken()).await;
    let yaml = format!(
        "type: OTLP\nconfig: {{client_type: http, endpoint: \"{}\"}}",
        server.url("")
    );
    let config = TracingConfig::parse(&yaml, &|_| None).unwrap();
    let metrics = ExportMetrics::register(&mut Registry::default());
    let (queue, spans) = span_queue(1000, metrics.without_room());
    let tracer = Tracer::new(Sampling::DEFAULT, queue);
    let exporter = Exporter::new(&config, None, 1, metrics.clone())
        .unwrap()
        .start(spans);
    for _ in 0..1000 {
        drop(tracer.root("work"));
    }
    // Before the interval of five seconds is over, and while somebody still has the tracer.
    exporter.finish(FLUSH_TIMEOUT).await;
    assert_eq!(metrics.sent.get(), 1000);
    drop(tracer);
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_given_up_at_the_end() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for client in ["http", "grpc"] {
        let yaml = format!(
            "type: OTLP\nconfig: {{client_type: {client}, insecure: true, endpoint: \"{address}\"}}"
        );
        let config = TracingConfig::parse(&yaml, &|_| None).unwrap();
        let metrics = ExportMetrics::register(&mut Registry::default());
        let (queue, spans) = span_queue(10, metrics.without_room());
        let tracer = Tracer::new(Sampling::DEFAULT, queue);
        let exporter = Exporter::new(&config, None, 1, metrics.clone())
            .unwrap()
            .start(spans);
        drop(tracer.root("work"));
        exporter.finish(TIMEOUT).await;
        assert_eq!(
            metrics.dropped(DropReason::export_failed).get(),
            1,
            "{client}"
        );
    }
}
