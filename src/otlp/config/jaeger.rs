//! `type: JAEGER`, whose collectors take OTLP since 1.35.
//!
//! The reference speaks Thrift to them: over HTTP to `endpoint`, or over UDP to an agent, which
//! newer releases of Jaeger do not have any more. A collector's usual endpoint says where its OTLP
//! port is; for anything else the document to write is told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::endpoint::Endpoint;
use super::provider::TRACES_PATH;
use super::{
    Destination, Protocol, Remark, Retry, TIMEOUT_DEFAULT, TracingConfig, Variable, keys, pace,
    resource,
};
use crate::model::{Mapping, Scalar};
use crate::net::ClientTls;
use crate::otlp::error::TracingConfigError;
use crate::trace::{Parents, Root, Sampling};

/// Where a collector listens for Thrift over HTTP.
const THRIFT_PORT: u16 = 14268;
/// Where it listens for OTLP over HTTP.
const OTLP_PORT: u16 = 4318;
/// What Jaeger's samplers record until a server has told them a strategy.
const REMOTE_INITIAL_RATE: f64 = 0.001;
const NO_UDP: &str = "spans go to an agent over UDP, which is not spoken here";
const NO_OTLP_PORT: &str = "it is not the port at which a collector takes Thrift, so that the one \
    for OTLP can't be told";
const WHOLE_NUMBER: &str = "a whole number";

/// Reads `config`.
pub(super) fn parse(
    mut config: Mapping<'_>,
    variable: Variable<'_>,
) -> Result<TracingConfig, TracingConfigError> {
    let mut remarks = Vec::new();
    let service_name = config.text("service_name")?;
    let tags = config.text("tags")?.unwrap_or_default();
    let sampling = sampling(&mut config, &mut remarks)?;
    let queued = config.integer("reporter_max_queue_size", WHOLE_NUMBER)?;
    let flush_interval = keys::duration(&mut config, "reporter_flush_interval")?;
    without_effect(&mut config)?;
    let endpoint = config.scalar("endpoint")?;
    let (user, password) = (config.text("user")?, config.text("password")?);
    let agent = config.scalar("agent_host")?;
    config.integer("agent_port", WHOLE_NUMBER)?;
    remarks.extend(keys::unknown(config));
    let Some(endpoint) = endpoint else {
        return Err(no_endpoint(agent.as_ref(), service_name.as_deref()));
    };
    let collector = collector(&endpoint, service_name.as_deref())?;
    remarks.push(Remark::Note(format!(
        "Jaeger's collector gets its spans by OTLP, at {}",
        collector.url
    )));
    let queued = queued.and_then(|spans| usize::try_from(spans).ok());
    let queued = queued.filter(|spans| *spans > 0);
    let (queued_spans_max, flush_interval) = pace(queued, flush_interval, variable)?;
    Ok(TracingConfig {
        sampling,
        queued_spans_max,
        remarks,
        resource: resource(service_name, keys::tags(&tags, variable), variable),
        flush_interval,
        destination: Destination {
            protocol: Protocol::Http { url: collector.url },
            address: collector.address,
            tls: collector.tls,
            headers: credentials(user, password),
            is_compressed: false,
            timeout: TIMEOUT_DEFAULT,
            retry: Retry::DEFAULT,
        },
    })
}

struct Collector {
    url: http::Uri,
    address: String,
    tls: Option<ClientTls>,
}

fn collector(given: &Scalar, service: Option<&str>) -> Result<Collector, TracingConfigError> {
    let endpoint = Endpoint::parse(&given.text).filter(|endpoint| endpoint.is_plain.is_some());
    let invalid = || {
        keys::invalid(
            given,
            "a URL such as http://jaeger-collector:14268/api/traces",
        )
    };
    let endpoint = endpoint.ok_or_else(invalid)?;
    let is_plain = endpoint.is_plain.unwrap_or(false);
    let port = match endpoint.port {
        Some(THRIFT_PORT | OTLP_PORT) => Some(OTLP_PORT),
        _ => {
            return Err(TracingConfigError::Refused {
                what: format!("`{}` in line {} is {:?}", given.key, given.line, given.text),
                why: NO_OTLP_PORT,
                remedy: remedy(&endpoint.host, service),
            });
        }
    };
    let endpoint = Endpoint { port, ..endpoint };
    Ok(Collector {
        url: endpoint.url(is_plain, TRACES_PATH).ok_or_else(invalid)?,
        address: endpoint.address(OTLP_PORT),
        tls: (!is_plain).then(ClientTls::default),
    })
}

fn no_endpoint(agent: Option<&Scalar>, service: Option<&str>) -> TracingConfigError {
    let what = match agent {
        Some(agent) => format!("`{}` in line {} is {:?}", agent.key, agent.line, agent.text),
        None => "`config.endpoint` is missing with type JAEGER".to_owned(),
    };
    TracingConfigError::Refused {
        what,
        why: NO_UDP,
        remedy: remedy("jaeger-collector", service),
    }
}

/// The document for a collector at `host`.
fn remedy(host: &str, service: Option<&str>) -> String {
    format!(
        "Jaeger 1.35 and later take OTLP, so write `type: OTLP` with `config: {{client_type: http, \
         endpoint: \"{host}:{OTLP_PORT}\", insecure: true, service_name: {:?}}}`",
        service.unwrap_or("thanos-sidecar")
    )
}

fn credentials(user: Option<String>, password: Option<String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if user.is_some() || password.is_some() {
        let pair = format!(
            "{}:{}",
            user.unwrap_or_default(),
            password.unwrap_or_default()
        );
        let value = format!("Basic {}", STANDARD.encode(pair));
        let is_header = keys::add_header(&mut headers, "authorization", &value);
        debug_assert!(is_header, "base64 is always a header's value");
    }
    headers
}

/// Keys whose type is checked and which do nothing: they are about Thrift, about strategies that a
/// server tells, or without effect in the reference, too.
fn without_effect(config: &mut Mapping<'_>) -> Result<(), TracingConfigError> {
    for key in [
        "disabled",
        "rpc_metrics",
        "operation_name_late_binding",
        "reporter_log_spans",
        "reporter_disable_attempt_reconnecting",
        "traceid_128bit",
    ] {
        config.boolean(key)?;
    }
    keys::duration(config, "sampler_refresh_interval")?;
    keys::duration(config, "reporter_attempt_reconnect_interval")?;
    config.integer("sampler_max_operations", WHOLE_NUMBER)?;
    config.text("sampler_manager_host_port")?;
    Ok(())
}

/// `sampler_*`. What asks a server for strategies records what it would until it had an answer.
fn sampling(
    config: &mut Mapping<'_>,
    remarks: &mut Vec<Remark>,
) -> Result<Sampling, TracingConfigError> {
    let kind = config.text("sampler_type")?;
    let param = keys::number(config, "sampler_param")?.unwrap_or_default();
    let initial = keys::number(config, "initial_sampler_rate")?;
    config.text("sampling_server_url")?;
    let mut parents = config.mapping("sampler_parent_config")?;
    let local_anew = parents.boolean("local_parent_sampled")?.unwrap_or(false);
    let remote_anew = parents.boolean("remote_parent_sampled")?.unwrap_or(false);
    remarks.extend(keys::unknown(parents));
    let root = match kind.as_deref() {
        Some("probabilistic") => Root::Ratio(param),
        // Go rounds half away from zero, as this does.
        Some("const") if param.clamp(0.0, 1.0).round() > 0.5 => Root::Always,
        Some("const") => Root::Never,
        _ => {
            let rate = initial
                .filter(|rate| *rate != 0.0)
                .unwrap_or(REMOTE_INITIAL_RATE);
            let kind = kind.as_deref().unwrap_or("ratelimiting");
            remarks.push(Remark::Warning(format!(
                "`config.sampler_type` {kind} asks a server which traces to sample, which is not \
                 done here: a fraction of {rate} is sampled, and what callers sample; write \
                 `sampler_type: const` or `probabilistic` with a `sampler_param`"
            )));
            Root::Ratio(rate)
        }
    };
    Ok(Sampling {
        root,
        parents: Parents::Followed {
            local_anew,
            remote_anew,
        },
    })
}
