//! From tracing's events and spans to lines on a writer.

use std::borrow::Cow;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tracing::span::{Attributes, Id, Record as Recorded};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::record::{Fields, Record, Value};
use super::{json, logfmt};
use crate::model::Clock;

/// The form of a line.
#[derive(Clone, Copy, Debug)]
pub(super) enum LineFormat {
    Logfmt,
    Json,
}

/// Writes one line per event.
#[derive(Debug)]
pub(super) struct LineLayer<W> {
    format: LineFormat,
    name: Option<Value>,
    clock: Clock,
    out: Mutex<W>,
}

impl<W: Write> LineLayer<W> {
    /// Lines for `out`; each has the field `name` unless that is empty.
    pub(super) fn new(format: LineFormat, name: &str, clock: Clock, out: W) -> Self {
        Self {
            format,
            name: (!name.is_empty()).then(|| Value::Text(name.to_owned())),
            clock,
            out: Mutex::new(out),
        }
    }

    /// The line's fields: time, place, level, name; what the spans say, component first; message;
    /// the event's fields. An event's field takes the place of a span's, and an inner span's that
    /// of an outer one.
    fn record<'a>(
        &'a self,
        metadata: &Metadata<'_>,
        spans: &'a [Fields],
        event: &'a Fields,
    ) -> Record<'a> {
        let mut record = Record::default();
        record.push_text("ts", timestamp(self.clock.now_ns()));
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            record.push_text("caller", format!("{}:{line}", short_path(file)));
        }
        record.push_text("level", level(*metadata.level()).to_owned());
        if let Some(name) = &self.name {
            record.push("name", Cow::Borrowed(name));
        }
        let inner_first = || std::iter::once(event).chain(spans.iter().rev());
        if let Some(component) = inner_first().find_map(|fields| fields.value(COMPONENT)) {
            record.push(COMPONENT, Cow::Borrowed(component));
        }
        for (at, span) in spans.iter().enumerate() {
            let is_overridden = |key| {
                let inner = &spans[at + 1..];
                event.value(key).is_some() || inner.iter().any(|span| span.value(key).is_some())
            };
            for (key, value) in span.iter() {
                if key != COMPONENT && !is_overridden(key) {
                    record.push(key, Cow::Borrowed(value));
                }
            }
        }
        if let Some(message) = event.value(MESSAGE) {
            record.push("msg", Cow::Borrowed(message));
        }
        for (key, value) in event.iter() {
            if key != COMPONENT && key != MESSAGE {
                record.push(key, Cow::Borrowed(value));
            }
        }
        record
    }

    fn write(&self, record: &Record<'_>) {
        let mut line = String::with_capacity(LINE_BYTES_TYPICAL);
        let line = match self.format {
            LineFormat::Logfmt => {
                logfmt::write_line(record, &mut line);
                line.into_bytes()
            }
            LineFormat::Json => {
                let mut line = line.into_bytes();
                json::write_line(record, &mut line);
                line
            }
        };
        // A thread that panicked while it wrote leaves at worst half a line.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever reads stderr may be gone. There is no other place to say so; shipping goes on.
        drop(out.write_all(&line));
    }
}

impl<S, W> Layer<S> for LineLayer<W>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    W: Write + Send + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Recorded<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).into_iter();
        let spans = scope.flat_map(|scope| scope.from_root());
        let spans: Vec<Fields> = spans
            .filter_map(|span| span.extensions().get::<Fields>().cloned())
            .collect();
        self.write(&self.record(event.metadata(), &spans, &fields));
    }
}

/// RFC 3339 in UTC with as many digits of a second as are not zero, as Go's `RFC3339Nano`.
fn timestamp(now_ns: i128) -> String {
    let last = if now_ns < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_nanosecond(now_ns)
        .unwrap_or(last)
        .to_string()
}

/// The file's name; for a `mod.rs`, whose name says nothing, with its directory.
fn short_path(path: &str) -> &str {
    let mut slashes = path.rmatch_indices('/').map(|(at, _)| at);
    let start = match path.rsplit('/').next() {
        Some("mod.rs") => slashes.nth(1),
        _ => slashes.next(),
    };
    start.and_then(|at| path.get(at + 1..)).unwrap_or(path)
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The field that names the part of the program; right after the level, as in the reference.
const COMPONENT: &str = "component";

/// The name that tracing gives an event's text.
const MESSAGE: &str = "message";

/// Room for most lines, so that they are not copied while they grow.
const LINE_BYTES_TYPICAL: usize = 256;
