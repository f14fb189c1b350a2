//! One span: a piece of work with a name, a beginning and an end.

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;

use opentelemetry::trace::{SpanBuilder, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};

use super::tracer::Tracer;

/// The longest text of an attribute or a status; the rest is cut off.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Neither: work in here.
    Internal,
    /// Answers another process.
    Server,
    /// Asks another process.
    Client,
}

/// A span, or nothing where there is no tracer. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// No span: for what is not traced.
    pub const fn none() -> Self {
        Self(None)
    }

    /// A span of work in here, below the current one; none where none is current.
    pub fn child(name: &'static str) -> Self {
        Self::below(name, SpanKind::Internal)
    }

    /// A span of a question to another process, below the current one; none where none is.
    pub fn asking(name: &'static str) -> Self {
        Self::below(name, SpanKind::Client)
    }

    fn below(name: &'static str, kind: SpanKind) -> Self {
        let parent = Context::map_current(|context| {
            let is_traced = context.get::<Tracer>().is_some();
            is_traced.then(|| context.clone())
        });
        let Some(parent) = parent else {
            return Self(None);
        };
        match parent.get::<Tracer>() {
            Some(tracer) => Self::start(tracer, name.into(), kind, &parent),
            None => Self(None),
        }
    }

    pub(super) fn start(
        tracer: &Tracer,
        name: Cow<'static, str>,
        kind: SpanKind,
        parent: &Context,
    ) -> Self {
        let builder = SpanBuilder::from_name(name).with_kind(kind.into());
        let span = tracer.sdk().build_with_context(builder, parent);
        Self(Some(parent.with_span(span)))
    }

    /// Does the work with this span as the current one.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let Some(context) = &self.0 else {
            return work.await;
        };
        std::future::poll_fn(|task| {
            let _current = context.clone().attach();
            work.as_mut().poll(task)
        })
        .await
    }

    /// Whether what is noted will be sent to anyone.
    pub fn is_recording(&self) -> bool {
        let context = self.0.as_ref();
        context.is_some_and(|context| context.span().is_recording())
    }

    /// Notes a fact. Texts are cut at [`ATTRIBUTE_BYTES_MAX`].
    pub fn note(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = self.recorded() {
            let value = match value.into() {
                Value::String(text) => Value::from(cut(text.as_str()).to_owned()),
                value => value,
            };
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Notes a fact that costs something to tell; it is only asked for where it is recorded.
    pub fn note_with<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if self.is_recording() {
            self.note(key, value());
        }
    }

    /// Notes how many.
    pub fn count(&self, key: &'static str, value: u64) {
        self.note(key, i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Notes that the work failed, as status and as the event that the reference's spans have.
    pub fn fail(&self, why: &dyn fmt::Display) {
        if let Some(context) = self.recorded() {
            let why = why.to_string();
            let why = cut(&why).to_owned();
            let message = KeyValue::new("message", why.clone());
            context.span().add_event("error", vec![message]);
            context.span().set_status(Status::error(why));
        }
    }

    /// The trace's id in hexadecimal, where it is recorded: a trace that nobody can look at needs
    /// no name.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        let span = context.span();
        let span_context = span.span_context();
        let is_told = span_context.is_sampled() && span_context.is_valid();
        is_told.then(|| span_context.trace_id().to_string())
    }

    fn recorded(&self) -> Option<&Context> {
        self.0
            .as_ref()
            .filter(|context| context.span().is_recording())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

impl From<SpanKind> for opentelemetry::trace::SpanKind {
    fn from(kind: SpanKind) -> Self {
        match kind {
            SpanKind::Internal => Self::Internal,
            SpanKind::Server => Self::Server,
            SpanKind::Client => Self::Client,
        }
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=ATTRIBUTE_BYTES_MAX.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(ATTRIBUTE_BYTES_MAX);
        assert_eq!(cut(&long).len(), ATTRIBUTE_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(cut(&odd).len(), ATTRIBUTE_BYTES_MAX - 1);
    }
}
