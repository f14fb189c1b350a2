//! Tracing of the sidecar: from its document, if there is one.

use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;

use crate::app::Environment;
use crate::app::cli::GlobalArgs;
use crate::net::http::Proxy;
use crate::otlp::{ExportMetrics, Exporter, FLUSH_TIMEOUT, Remark, RunningExporter, TracingConfig};
use crate::trace::{SpanReceiver, Tracer, span_queue};

/// A tracer, and what sends its spans, not yet at work.
#[derive(Debug)]
pub(super) struct TracingPart {
    tracer: Tracer,
    exporter: Exporter,
    spans: SpanReceiver,
}

/// Reads the document; `None` for none. Errors name the flag or the file.
///
/// # Errors
/// Where it can't be used.
pub(super) fn config(
    global: &GlobalArgs,
    yaml: &str,
    environment: &Environment,
) -> anyhow::Result<Option<TracingConfig>> {
    if yaml.is_empty() {
        return Ok(None);
    }
    let variable = &environment.variable;
    let config = TracingConfig::parse(yaml, &|name| variable(name));
    let config = config.with_context(|| source(global))?;
    for remark in &config.remarks {
        match remark {
            Remark::Warning(text) => tracing::warn!(flag = "tracing.config", "{text}"),
            Remark::Note(text) => tracing::info!(flag = "tracing.config", "{text}"),
        }
    }
    Ok(Some(config))
}

fn source(global: &GlobalArgs) -> String {
    match &global.tracing.config_file {
        Some(path) => format!("parsing tracing.config-file {}", path.display()),
        None => "parsing tracing.config".to_owned(),
    }
}

/// Builds what the document wants; nothing is sent yet.
///
/// # Errors
/// Where a TLS file can't be used, or a proxy variable holds no proxy.
pub(super) fn build(
    global: &GlobalArgs,
    config: Option<&TracingConfig>,
    environment: &Environment,
    registry: &mut Registry,
) -> anyhow::Result<Option<TracingPart>> {
    let Some(config) = config else {
        return Ok(None);
    };
    let variable = &environment.variable;
    let proxy = Proxy::from_environment(&|name| variable(name))?;
    let jitter_seed = u64::try_from(environment.clock.now_ns()).unwrap_or_default();
    let metrics = ExportMetrics::register(registry);
    let (queue, spans) = span_queue(config.queued_spans_max, metrics.without_room());
    let exporter = Exporter::new(config, proxy, jitter_seed, metrics);
    let part = TracingPart {
        tracer: Tracer::new(config.sampling, queue),
        exporter: exporter.with_context(|| source(global))?,
        spans,
    };
    tracing::info!(
        component = "tracing", collector = config.collector(), sampling = ?config.sampling,
        "recording spans"
    );
    Ok(Some(part))
}

impl TracingPart {
    /// Starts spans.
    pub(super) fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Begins to send. Must be called inside a tokio runtime.
    pub(super) fn start(self) -> RunningExporter {
        self.exporter.start(self.spans)
    }
}

/// Sends what is left, within what `left` of the grace period.
pub(super) async fn finish(exporter: RunningExporter, left: Duration) {
    exporter.finish(left.min(FLUSH_TIMEOUT)).await;
}
