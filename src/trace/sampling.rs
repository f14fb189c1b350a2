//! Which traces are recorded: the decision at a trace's root, and what becomes of a decision that
//! was made before.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// What is decided where nobody has decided before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// Every trace is recorded.
    Always,
    /// None is.
    Never,
    /// This fraction of traces, chosen by the trace's id: all services choose the same ones.
    Ratio(f64),
}

/// What a decision made before means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// Nothing: each span is decided as a root is.
    Ignored,
    /// It is followed.
    Followed {
        /// But where a span of this process was recorded, it is decided anew for those below.
        local_anew: bool,
        /// But where the caller recorded, it is decided anew here.
        remote_anew: bool,
    },
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Where nobody has decided.
    pub root: Root,
    /// Where somebody has.
    pub parents: Parents,
}

/// Marks the context of a trace that was asked for: it is recorded whatever the sampler says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced;

/// A sampler that what is [`Forced`] passes by.
#[derive(Clone, Debug)]
pub(super) struct ForcedOr(Box<dyn ShouldSample>);

impl Parents {
    /// The caller's decision is everybody's.
    pub const FOLLOWED: Self = Self::Followed {
        local_anew: false,
        remote_anew: false,
    };
}

impl Sampling {
    /// All traces but those that the caller does not record: the reference's default for OTLP.
    pub const DEFAULT: Self = Self {
        root: Root::Ratio(1.0),
        parents: Parents::FOLLOWED,
    };

    pub(super) fn sampler(self) -> ForcedOr {
        let root = match self.root {
            Root::Always => Sampler::AlwaysOn,
            Root::Never => Sampler::AlwaysOff,
            Root::Ratio(fraction) => Sampler::TraceIdRatioBased(fraction),
        };
        let Parents::Followed {
            local_anew,
            remote_anew,
        } = self.parents
        else {
            return ForcedOr(Box::new(root));
        };
        let mut sampler = Sampler::parent_based(root.clone());
        if local_anew {
            sampler = sampler.with_local_parent_sampled(root.clone());
        }
        if remote_anew {
            sampler = sampler.with_remote_parent_sampled(root);
        }
        ForcedOr(Box::new(sampler))
    }
}

impl ShouldSample for ForcedOr {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let forced = parent_context.filter(|context| context.get::<Forced>().is_some());
        match forced {
            None => {
                self.0
                    .should_sample(parent_context, trace_id, name, span_kind, attributes, links)
            }
            Some(context) => SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: context.span().span_context().trace_state().clone(),
            },
        }
    }
}
