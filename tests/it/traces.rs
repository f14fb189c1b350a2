//! Traces beside a real Prometheus: what a collector gets, and what happens where there is none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger::proto::thanos::info::{InfoRequest, InfoResponse};
use outrigger::proto::thanos::{LabelNamesRequest, LabelNamesResponse, SeriesRequest};
use tonic::metadata::MetadataValue;

use crate::support::{
    BACKFILL_START_S, Collected, Collector, Gate, GateState, Outrigger, Prometheus,
    PrometheusSetup, RemoteProxy, Site, StoreApi, StoreClient, all_series, eventually, get,
    logfmt_value, matcher, run_to_end,
};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// Sends what there is within this time, rather than after five seconds.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");
const INFO: &str = "/thanos.info.Info/Info";

fn ready(outrigger: &Outrigger) -> SocketAddr {
    let address = outrigger.grpc_address();
    eventually("it is ready", || {
        (outrigger.probe("/-/ready") == 200).then_some(())
    });
    address
}

/// All series of the blocks that [`Site::backfill`] makes.
fn backfilled() -> SeriesRequest {
    SeriesRequest {
        min_time: BACKFILL_START_S * 1000,
        max_time: (BACKFILL_START_S + 86_400) * 1000,
        matchers: vec![matcher("__name__", "=~", ".+")],
        ..SeriesRequest::default()
    }
}

fn traced<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let parent = format!("00-{TRACE_ID}-{CALLER}-01");
    let parent = MetadataValue::try_from(parent).unwrap();
    request.metadata_mut().insert("traceparent", parent);
    request
}

/// The spans of the caller's trace, once the one of the call itself is there: it is the last.
fn of_call(collector: &Collector, method: &str) -> (Collected, Vec<Collected>) {
    let suits = |c: &Collected| c.span.name == method && c.trace_id() == TRACE_ID;
    let call = collector.wait_for(&format!("of {method}"), suits);
    let mut spans = collector.spans();
    spans.retain(|span| span.trace_id() == TRACE_ID);
    (call, spans)
}

fn named<'a>(spans: &'a [Collected], name: &str) -> &'a Collected {
    let found = spans.iter().find(|collected| collected.span.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_series_call_and_a_shipped_block_reach_a_collector_over_grpc() {
    let site = Site::new();
    let blocks = site.backfill(1);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let collector = Collector::start();
    let flag = collector.flag("grpc", "  compression: gzip\n");
    let flags = [&flag, "--log.level=debug", "--no-store.local-blocks"];
    let arguments = site.arguments(prometheus.address(), &flags);
    let outrigger = Outrigger::start_with_environment(&[AT_ONCE], &arguments);
    let client = StoreApi::connect(ready(&outrigger)).await;
    let series = all_series(client.series(traced(backfilled())).await.unwrap());
    assert!(!series.is_empty());

    let (call, spans) = of_call(&collector, "/thanos.Store/Series");
    assert_eq!(hex::encode(&call.span.parent_span_id), CALLER);
    assert_eq!(call.resource("service.name").as_deref(), Some("sidecar"));
    // SERVER, as OTLP numbers the kinds.
    assert_eq!(call.span.kind, 2);
    for (key, value) in [
        ("component", "gRPC"),
        ("rpc.service", "thanos.Store"),
        ("rpc.method", "Series"),
        ("rpc.grpc.status_code", "0"),
    ] {
        assert_eq!(call.attribute(key).as_deref(), Some(value), "{key}");
    }
    let read = named(&spans, "query_prometheus");
    assert!(read.is_below(&call), "{read:#?}");
    let count = series.len().to_string();
    assert_eq!(read.attribute("processed.series"), Some(count.clone()));
    let request = read.attribute("query.request").unwrap();
    assert!(request.contains("__name__=~"), "{request}");
    let sent = named(&spans, "transform_and_respond");
    assert!(sent.is_below(&call), "{sent:#?}");
    assert_eq!(sent.attribute("series_count"), Some(count));
    assert!(spans.len() < 10, "a few spans a call: {spans:#?}");
    let line = outrigger.process.wait_for_line("the call's line", |line| {
        line.contains("/thanos.Store/Series") && line.contains("call ended")
    });
    assert_eq!(logfmt_value(&line, "traceID"), Some(TRACE_ID));

    let block = blocks[0].file_name().unwrap().to_str().unwrap();
    let shipped = collector.wait_for("of the block", |c| c.span.name == "ship_block");
    assert_eq!(shipped.attribute("block").as_deref(), Some(block));
    let spans = collector.spans();
    let meta = format!("{block}/meta.json");
    for (name, of) in [
        ("bucket_upload", meta.as_str()),
        ("ship_file", &format!("{block}/index")),
    ] {
        let suits =
            |c: &&Collected| c.span.name == name && c.attribute("name").as_deref() == Some(of);
        let found = spans.iter().find(suits);
        let found = found.unwrap_or_else(|| panic!("no {name} of {of} in {spans:#?}"));
        assert!(found.is_below(&shipped) && found.trace_id() == shipped.trace_id());
    }
    assert_eq!(collector.heads()[0].1["grpc-encoding"], "gzip");
    let sent = outrigger.wait_for_metric("outrigger_tracing_spans_sent_total", |n| n >= 3.0);
    assert!(sent <= collector.spans().len() as f64);
    let (status, body) = get(outrigger.address(), "/metrics").unwrap();
    assert_eq!(
        (status, super::metrics::differences(&body, true)),
        (200, Vec::new())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn local_blocks_and_lists_are_told_over_http() {
    let site = Site::new();
    site.backfill(1);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let collector = Collector::start();
    let flag = collector.flag("http", "  headers: {x-tenant: me}\n");
    let arguments = site.arguments(prometheus.address(), &[&flag]);
    let outrigger = Outrigger::start_with_environment(&[AT_ONCE], &arguments);
    let client = StoreApi::connect(ready(&outrigger)).await;
    outrigger.wait_for_metric("outrigger_store_local_blocks", |blocks| blocks >= 1.0);
    client.series(traced(backfilled())).await.unwrap();
    let (call, spans) = of_call(&collector, "/thanos.Store/Series");
    assert!(named(&spans, "read_local_blocks").is_below(&call));
    let everything = LabelNamesRequest {
        start: 0,
        end: i64::MAX,
        ..LabelNamesRequest::default()
    };
    let asking = client.unary::<LabelNamesRequest, LabelNamesResponse>(
        "/thanos.Store/LabelNames",
        traced(everything),
    );
    asking.await.unwrap();
    let (call, spans) = of_call(&collector, "/thanos.Store/LabelNames");
    let asked = named(&spans, "/prom_label_names HTTP[client]");
    assert!(asked.is_below(&call) && asked.span.kind == 3, "{asked:#?}");
    // An error is one of the span, too.
    let nothing = SeriesRequest::default();
    client.series(traced(nothing)).await.unwrap_err();
    let failed = collector.wait_for("that failed", |c| {
        c.span.name == "/thanos.Store/Series" && c.span.status.as_ref().unwrap().code == 2
    });
    assert_eq!(
        failed.attribute("rpc.grpc.status_code").as_deref(),
        Some("3")
    );
    assert_eq!(failed.span.events[0].name, "error");
    let heads = collector.heads();
    assert!(
        heads.iter().all(|(path, _)| path == "/v1/traces"),
        "{heads:?}"
    );
    assert_eq!(heads[0].1["x-tenant"], "me");
    assert_eq!(heads[0].1["content-type"], "application/x-protobuf");
}

#[test]
fn the_last_spans_are_sent_at_the_end() {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let collector = Collector::start();
    // The interval is five seconds, so that the end comes first.
    let flag = collector.flag("grpc", "");
    let outrigger = site.start(prometheus.address(), &[&flag]);
    let client = StoreClient::connect(ready(&outrigger));
    client.unary::<InfoResponse>(INFO, &InfoRequest {}).unwrap();
    drop(client);
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        collector.spans().iter().any(|c| c.span.name == INFO),
        "{log}"
    );
}

/// More than waits and is under way, each call of one span.
const MANY: usize = 3200;

#[test]
fn a_collector_that_hangs_slows_no_call_and_no_end() {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let collector = Collector::hanging();
    let flag = collector.flag("grpc", "");
    let arguments = site.arguments(prometheus.address(), &[&flag]);
    let outrigger = Outrigger::start_with_environment(&[AT_ONCE], &arguments);
    let client = StoreClient::connect(ready(&outrigger));
    let ask = || client.unary::<InfoResponse>(INFO, &InfoRequest {}).unwrap();
    ask();
    eventually("the collector is asked", || {
        (!collector.heads().is_empty()).then_some(())
    });
    let before_kib = outrigger.proc_status("VmRSS");
    for _ in 0..MANY {
        ask();
    }
    let dropped = "outrigger_tracing_spans_dropped_total{reason=\"queue_full\"}";
    assert!(outrigger.metric(dropped).unwrap() >= 1.0);
    let grown_kib = outrigger.proc_status("VmRSS").saturating_sub(before_kib);
    assert!(grown_kib < 32 << 10, "{grown_kib} KiB more");
    drop(client);
    let asked = Instant::now();
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    // The collector has five seconds, of the ten of the grace period.
    assert!(asked.elapsed() < Duration::from_secs(20), "{log}");
    assert!(log.contains("did not take the last spans in time"), "{log}");
}

#[test]
fn a_collector_that_is_not_there_is_told_once() {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let flag = format!(
        "--tracing.config={{type: OTLP, config: {{client_type: http, endpoint: \"{address}\", \
         insecure: true, retry_config: {{retry_enabled: true, retry_initial_interval: 1ms, \
         retry_max_elapsed_time: 5ms}}}}}}"
    );
    let arguments = site.arguments(prometheus.address(), &[&flag]);
    let outrigger = Outrigger::start_with_environment(&[AT_ONCE], &arguments);
    let client = StoreClient::connect(ready(&outrigger));
    let failed = "outrigger_tracing_spans_dropped_total{reason=\"export_failed\"}";
    for batches in 1..4 {
        client.unary::<InfoResponse>(INFO, &InfoRequest {}).unwrap();
        outrigger.wait_for_metric(failed, |spans| spans >= f64::from(batches));
    }
    drop(client);
    let (status, log) = outrigger.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let told = log
        .lines()
        .filter(|line| line.contains("spans could not be sent"));
    assert_eq!(told.count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_tracing_nothing_is_told_to_anyone() {
    let site = Site::new();
    site.backfill(1);
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let collector = Collector::start();
    let mut answers = Vec::new();
    for flag in [
        None,
        Some(collector.flag("grpc", "  sampler_type: alwayssample\n")),
    ] {
        let proxy = RemoteProxy::new(prometheus.address());
        let flags = [
            "--no-store.local-blocks",
            flag.as_deref().unwrap_or("--log.level=info"),
        ];
        let outrigger = site.start(proxy.address(), &flags);
        let client = StoreApi::connect(ready(&outrigger)).await;
        answers.push(client.series(traced(backfilled())).await.unwrap());
        let (_, body) = get(outrigger.address(), "/metrics").unwrap();
        assert_eq!(body.contains("outrigger_tracing"), flag.is_some());
        let told = proxy.headers("/api/v1/read", "traceparent");
        match flag {
            None => assert_eq!(told, [""; 0]),
            Some(_) => assert!(told[0].contains(TRACE_ID), "{told:?}"),
        }
    }
    assert_eq!(answers[0], answers[1], "tracing changes no answer");
}

#[test]
fn a_document_that_is_wrong_ends_the_start_with_its_place() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("tracing.yaml");
    for (document, expected) in [
        (
            "type: OTLP\nconfig:\n  client_type: udp\n",
            "`config.client_type` in line 3 is",
        ),
        (
            "type: OTLP\nconfig:\n  client_type: [grpc]\n",
            "`config.client_type` in line 3 must be",
        ),
        ("kind: OTLP\n", "unknown key `kind` in line 1"),
        (
            "type: JAEGER\nconfig: {agent_host: a}\n",
            "write `type: OTLP`",
        ),
        (
            "type: OTLP\nconfig: {client_type: grpc, tls_config: {ca_file: /nowhere/ca.pem}}\n",
            "/nowhere/ca.pem",
        ),
        ("type: $(OUTRIGGER_TEST_UNSET)\n", "OUTRIGGER_TEST_UNSET"),
    ] {
        std::fs::write(&file, document).unwrap();
        let flag = format!("--tracing.config-file={}", file.display());
        let (code, text) = run_to_end(&["sidecar", &flag, "--http-address=127.0.0.1:0"]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(expected), "{document}: {text}");
        assert!(text.contains("tracing.config"), "{text}");
    }
    let flag = format!("--tracing.config-file={}", scratch.path().display());
    let (code, text) = run_to_end(&["sidecar", &flag]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("for tracing.config-file"), "{text}");
    // What is only passed over in the reference gives a warning, and a start.
    let site = Site::new();
    let gate = Gate::new(GateState::Down);
    let flag = "--tracing.config={type: OTLP, config: {client_type: grpc, endpont: x}}";
    let (status, log) = site.start(gate.address(), &[flag]).stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let warned = log
        .lines()
        .find(|line| line.contains("unknown key `config.endpont` in line 1"));
    assert!(
        warned.is_some_and(|line| line.contains("level=warn")),
        "{log}"
    );
}
