//! The document of `--tracing.config` (contract `cli.md` §2; the reference's `docs/tracing.md`):
//! which provider, and from its keys where spans go and which are recorded.
//!
//! At the top unknown keys are errors, below `config` they give a warning, as the reference reads
//! the first strictly and passes over the others. A value of the wrong type is an error everywhere.

mod elastic_apm;
mod endpoint;
mod google_cloud;
mod jaeger;
mod keys;
mod lightstep;
mod provider;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Uri};

use super::error::TracingConfigError;
use crate::model::Mapping;
use crate::net::ClientTls;
use crate::trace::{QUEUED_SPANS_DEFAULT, QUEUED_SPANS_MAX, Sampling};

/// How long a batch is waited for, unless the document says otherwise: what OpenTelemetry SDKs do.
const FLUSH_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// How long a collector may take for a batch.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const KNOWN_TYPES: &str = "OTLP, JAEGER, ELASTIC_APM, LIGHTSTEP, GOOGLE_CLOUD, STACKDRIVER";
/// The name of a service that was given none, as OpenTelemetry has it.
const UNNAMED_SERVICE: &str = "unknown_service:outrigger";
const SERVICE_NAME: &str = "service.name";

/// Asks for the value of an environment variable.
type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What the document asks for.
#[derive(Clone, Debug)]
pub struct TracingConfig {
    /// Which traces are recorded.
    pub sampling: Sampling,
    /// How many spans may wait for the collector.
    pub queued_spans_max: usize,
    /// What to tell about the document.
    pub remarks: Vec<Remark>,
    /// What is said of this process with each batch.
    pub(super) resource: Vec<(String, String)>,
    pub(super) flush_interval: Duration,
    pub(super) destination: Destination,
}

/// Something that whoever wrote the document should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It may not be what was meant.
    Warning(String),
    /// It is as it should be.
    Note(String),
}

/// Where spans go. Header values don't show in its `Debug` form.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) protocol: Protocol,
    /// `host:port`.
    pub(super) address: String,
    /// `None` is plain text.
    pub(super) tls: Option<ClientTls>,
    pub(super) headers: HeaderMap,
    pub(super) is_compressed: bool,
    /// For one batch.
    pub(super) timeout: Duration,
    pub(super) retry: Retry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http { url: Uri },
}

/// How a batch is tried again. The default is that of the reference's exporters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// Above zero.
    pub(super) delay_min: Duration,
    /// No less than `delay_min`.
    pub(super) delay_max: Duration,
    /// Then the batch is dropped.
    pub(super) elapsed_max: Duration,
}

impl TracingConfig {
    /// Reads a document that is not empty. What it leaves out may stand in the environment, as
    /// OpenTelemetry's specification and the vendors' say.
    ///
    /// # Errors
    /// See [`TracingConfigError`]. Files are not looked at yet.
    pub fn parse(
        yaml: &str,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, TracingConfigError> {
        let mut root = Mapping::parse(yaml)?;
        let given = root.text("type")?.unwrap_or_default();
        let config = root.mapping("config")?;
        root.end()?;
        match given.to_uppercase().as_str() {
            "OTLP" => provider::parse(config, variable),
            "JAEGER" => jaeger::parse(config, variable),
            "ELASTIC_APM" => elastic_apm::parse(config, variable),
            "LIGHTSTEP" => lightstep::parse(config, variable),
            "GOOGLE_CLOUD" | "STACKDRIVER" => Err(google_cloud::refuse(config, &given)),
            _ => Err(TracingConfigError::Type {
                given,
                known: KNOWN_TYPES,
            }),
        }
    }

    /// The files that it names: read at start, and when they change.
    pub fn files(&self) -> Vec<PathBuf> {
        let tls = self.destination.tls.clone().unwrap_or_default();
        let named = [tls.ca_file, tls.cert_file, tls.key_file];
        named.into_iter().flatten().collect()
    }

    /// Where spans go, for the log.
    pub fn collector(&self) -> String {
        self.destination.shown()
    }
}

impl Destination {
    /// For the log.
    pub(super) fn shown(&self) -> String {
        match &self.protocol {
            Protocol::Grpc => self.address.clone(),
            Protocol::Http { url } => url.to_string(),
        }
    }
}

impl Retry {
    pub(super) const DEFAULT: Self = Self {
        delay_min: Duration::from_secs(5),
        delay_max: Duration::from_secs(30),
        elapsed_max: Duration::from_secs(60),
    };
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warning(text) | Self::Note(text) => f.write_str(text),
        }
    }
}

/// How many spans may wait, and how long a batch is waited for: what the document says, else the
/// environment, as for every OpenTelemetry SDK.
fn pace(
    queued_spans_max: Option<usize>,
    flush_interval: Option<Duration>,
    variable: Variable<'_>,
) -> Result<(usize, Duration), TracingConfigError> {
    let number = |name| keys::variable_number(variable, name);
    let queued = match queued_spans_max {
        Some(spans) => Some(spans),
        None => number("OTEL_BSP_MAX_QUEUE_SIZE")?
            .map(|spans| usize::try_from(spans).unwrap_or(usize::MAX)),
    };
    let interval = match flush_interval {
        Some(interval) => Some(interval),
        None => number("OTEL_BSP_SCHEDULE_DELAY")?.map(Duration::from_millis),
    };
    let queued = queued.unwrap_or(QUEUED_SPANS_DEFAULT).min(QUEUED_SPANS_MAX);
    Ok((queued, interval.unwrap_or(FLUSH_INTERVAL_DEFAULT)))
}

/// The resource of a service: its name, and what else is said of it. A name or attribute of the
/// document goes before one of the environment.
fn resource(
    service_name: Option<String>,
    attributes: Vec<(String, String)>,
    variable: Variable<'_>,
) -> Vec<(String, String)> {
    let mut resource: Vec<(String, String)> = Vec::new();
    let named = service_name.map(|name| (SERVICE_NAME.to_owned(), name));
    let from_environment = keys::variable_text(variable, "OTEL_SERVICE_NAME")
        .map(|name| (SERVICE_NAME.to_owned(), name));
    let listed = keys::variable_text(variable, "OTEL_RESOURCE_ATTRIBUTES");
    let listed = listed.map_or_else(Vec::new, |text| keys::pairs(&text));
    let unnamed = (SERVICE_NAME.to_owned(), UNNAMED_SERVICE.to_owned());
    let all = attributes.into_iter().chain(named).rev();
    for (key, value) in all.chain(from_environment).chain(listed).chain([unnamed]) {
        if !resource.iter().any(|(known, _)| *known == key) {
            resource.push((key, value));
        }
    }
    resource
}

#[cfg(test)]
mod tests;
