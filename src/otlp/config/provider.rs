//! `type: OTLP`: the keys of the reference, and what OpenTelemetry's variables say where one is
//! left out.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;

use super::endpoint::Endpoint;
use super::{
    Destination, Protocol, Remark, Retry, TIMEOUT_DEFAULT, TracingConfig, Variable, keys, pace,
    resource,
};
use crate::model::{DocumentError, Mapping, Scalar};
use crate::net::ClientTls;
use crate::otlp::error::TracingConfigError;
use crate::trace::{Parents, Root, Sampling};

const CLIENT_TYPES: &str = "`grpc` or `http`";
const ENDPOINT: &str = "HOST:PORT";
const ENDPOINT_VARIABLE: &str = "a URL such as http://localhost:4318";
const SAMPLER_TYPES: &str = "alwayssample, neversample, traceidratiobased, \
    parentbasedalwayssample, parentbasedneversample, parentbasedtraceidratiobased";
/// OTLP's path for spans.
pub(super) const TRACES_PATH: &str = "/v1/traces";

/// Reads `config`. What it leaves out may be in `OTEL_EXPORTER_OTLP_*`.
pub(super) fn parse(
    mut config: Mapping<'_>,
    variable: Variable<'_>,
) -> Result<TracingConfig, TracingConfigError> {
    let mut remarks = Vec::new();
    let client_type = config.scalar("client_type")?;
    let is_grpc = match &client_type {
        Some(given) if given.text == "grpc" => true,
        Some(given) if given.text == "http" => false,
        Some(given) => return Err(keys::invalid(given, CLIENT_TYPES)),
        None => {
            return Err(TracingConfigError::Missing {
                key: "config.client_type",
                wanted: CLIENT_TYPES,
            });
        }
    };
    let service_name = config.text("service_name")?;
    let attributes = config.mapping("resource_attributes")?.named_scalars()?;
    let attributes = attributes.into_iter().map(|(key, value)| (key, value.text));
    let sampling = sampling(&mut config, &mut remarks)?;
    // Connections are made anew when they are needed, so there is no period to wait.
    keys::duration(&mut config, "reconnection_period")?;
    let is_compressed = is_compressed(&mut config, variable, &mut remarks)?;
    let timeout = match keys::duration(&mut config, "timeout")? {
        Some(timeout) => timeout,
        None => timeout_variable(variable)?.unwrap_or(TIMEOUT_DEFAULT),
    };
    let retry = retry(&mut config, &mut remarks)?;
    let headers = headers(&mut config, variable)?;
    let mut tls = config.mapping("tls_config")?;
    let tls_files = client_tls(&mut tls)?;
    let place = place(&mut config, is_grpc, variable)?;
    remarks.extend(keys::unknown(tls));
    remarks.extend(keys::unknown(config));
    let (queued_spans_max, flush_interval) = pace(None, None, variable)?;
    Ok(TracingConfig {
        sampling,
        queued_spans_max,
        remarks,
        resource: resource(service_name, attributes.collect(), variable),
        flush_interval,
        destination: Destination {
            protocol: place.protocol,
            address: place.address,
            tls: (!place.is_plain).then_some(tls_files),
            headers,
            is_compressed,
            timeout,
            retry,
        },
    })
}

struct Place {
    protocol: Protocol,
    address: String,
    is_plain: bool,
}

/// `endpoint`, `insecure` and `url_path`.
fn place(
    config: &mut Mapping<'_>,
    is_grpc: bool,
    variable: Variable<'_>,
) -> Result<Place, TracingConfigError> {
    let is_insecure = config.boolean("insecure")?.unwrap_or(false);
    let endpoint_key = config.scalar("endpoint")?;
    let path_key = config.scalar("url_path")?;
    let (endpoint, path) = match &endpoint_key {
        Some(given) => (parsed(given)?, None),
        None => variable_endpoint(variable)?.unwrap_or_else(|| {
            let port = if is_grpc { 4317 } else { 4318 };
            let local = Endpoint {
                host: "localhost".to_owned(),
                port: Some(port),
                is_plain: None,
                path: String::new(),
            };
            (local, None)
        }),
    };
    let is_plain = endpoint.is_plain.unwrap_or(is_insecure);
    let protocol = match is_grpc {
        true => Protocol::Grpc,
        false => {
            let path = match (&path_key, path) {
                (Some(given), _) => given.text.clone(),
                (None, Some(path)) => path,
                (None, None) if endpoint.path.is_empty() => TRACES_PATH.to_owned(),
                (None, None) => endpoint.path.clone(),
            };
            let url = endpoint.url(is_plain, &path);
            let invalid = |given: &Scalar| keys::invalid(given, "a path such as /v1/traces");
            let url = url.ok_or_else(|| match (&path_key, &endpoint_key) {
                (Some(given), _) | (None, Some(given)) => invalid(given),
                (None, None) => TracingConfigError::Missing {
                    key: "config.endpoint",
                    wanted: ENDPOINT,
                },
            })?;
            Protocol::Http { url }
        }
    };
    let port_default = if is_plain && !is_grpc { 80 } else { 443 };
    Ok(Place {
        protocol,
        address: endpoint.address(port_default),
        is_plain,
    })
}

fn parsed(given: &Scalar) -> Result<Endpoint, TracingConfigError> {
    Endpoint::parse(&given.text).ok_or_else(|| keys::invalid(given, ENDPOINT))
}

/// The endpoint that the environment names, and the path if it is not to be guessed.
fn variable_endpoint(
    variable: Variable<'_>,
) -> Result<Option<(Endpoint, Option<String>)>, TracingConfigError> {
    for (name, is_of_traces) in [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", true),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", false),
    ] {
        let Some(given) = keys::variable_text(variable, name) else {
            continue;
        };
        let endpoint = Endpoint::parse(&given).ok_or(TracingConfigError::Variable {
            name,
            given,
            wanted: ENDPOINT_VARIABLE,
        })?;
        // The one for all signals is what their paths are put under.
        let path = match is_of_traces {
            true => format!("{}/", endpoint.path),
            false => format!("{}{TRACES_PATH}", endpoint.path),
        };
        let path = match (is_of_traces, endpoint.path.is_empty()) {
            (true, false) => endpoint.path.clone(),
            _ => path,
        };
        return Ok(Some((endpoint, Some(path))));
    }
    Ok(None)
}

fn is_compressed(
    config: &mut Mapping<'_>,
    variable: Variable<'_>,
    remarks: &mut Vec<Remark>,
) -> Result<bool, TracingConfigError> {
    if let Some(given) = config.scalar("compression")? {
        let is_gzip = given.text == "gzip";
        if !is_gzip && given.text != "none" {
            remarks.push(Remark::Warning(format!(
                "`{}` in line {} is {:?}, which is none of `gzip` and `none`: spans are sent \
                 uncompressed",
                given.key, given.line, given.text
            )));
        }
        return Ok(is_gzip);
    }
    let named = [
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ];
    let given = named
        .iter()
        .find_map(|name| keys::variable_text(variable, name));
    Ok(given.is_some_and(|given| given == "gzip"))
}

/// In milliseconds.
fn timeout_variable(variable: Variable<'_>) -> Result<Option<Duration>, TracingConfigError> {
    for name in [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ] {
        if let Some(millis) = keys::variable_number(variable, name)? {
            return Ok(Some(Duration::from_millis(millis)));
        }
    }
    Ok(None)
}

/// `retry_config`. In the reference a document without `retry_enabled: true` has the defaults, and
/// one with it never tries again, which can't be meant: here its values are used.
fn retry(config: &mut Mapping<'_>, remarks: &mut Vec<Remark>) -> Result<Retry, TracingConfigError> {
    let mut mapping = config.mapping("retry_config")?;
    let is_given = mapping.boolean("retry_enabled")?.unwrap_or(false);
    let first = keys::duration(&mut mapping, "retry_initial_interval")?;
    let longest = keys::duration(&mut mapping, "retry_max_interval")?;
    let elapsed = keys::duration(&mut mapping, "retry_max_elapsed_time")?;
    remarks.extend(keys::unknown(mapping));
    if !is_given {
        return Ok(Retry::DEFAULT);
    }
    let delay_min = first.unwrap_or(Retry::DEFAULT.delay_min);
    Ok(Retry {
        delay_min,
        delay_max: longest.unwrap_or(Retry::DEFAULT.delay_max).max(delay_min),
        elapsed_max: elapsed.unwrap_or(Retry::DEFAULT.elapsed_max),
    })
}

/// `headers`, and those of the environment that it leaves out.
fn headers(
    config: &mut Mapping<'_>,
    variable: Variable<'_>,
) -> Result<HeaderMap, TracingConfigError> {
    let mut headers = HeaderMap::new();
    for name in [
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    ] {
        let listed = keys::variable_text(variable, name);
        for (header, value) in listed.map_or_else(Vec::new, |text| keys::pairs(&text)) {
            if !keys::add_header(&mut headers, &header, &value) {
                return Err(TracingConfigError::Variable {
                    name,
                    given: header,
                    wanted: "a list of headers, NAME=VALUE,…",
                });
            }
        }
    }
    for (name, value) in config.mapping("headers")?.named_scalars()? {
        if !keys::add_header(&mut headers, &name, &value.text) {
            return Err(TracingConfigError::Value {
                key: value.key,
                line: value.line,
                given: name,
                wanted: "a header's name, with a value of one line",
            });
        }
    }
    Ok(headers)
}

fn client_tls(tls: &mut Mapping<'_>) -> Result<ClientTls, DocumentError> {
    Ok(ClientTls {
        ca_file: tls.text("ca_file")?.map(PathBuf::from),
        cert_file: tls.text("cert_file")?.map(PathBuf::from),
        key_file: tls.text("key_file")?.map(PathBuf::from),
        server_name: tls.text("server_name")?,
        insecure_skip_verify: tls.boolean("insecure_skip_verify")?.unwrap_or(false),
    })
}

/// `sampler_type` and `sampler_param`. The reference goes on with all traces where it can't read
/// one of them; so does this, with a warning.
fn sampling(
    config: &mut Mapping<'_>,
    remarks: &mut Vec<Remark>,
) -> Result<Sampling, TracingConfigError> {
    let kind = config.scalar("sampler_type")?;
    let param = config.scalar("sampler_param")?;
    let mut ratio = || match &param {
        Some(given) => match given.text.trim().parse::<f64>() {
            Ok(fraction) if !fraction.is_nan() => Root::Ratio(fraction),
            _ => {
                remarks.push(Remark::Warning(format!(
                    "`{}` in line {} is {:?}, which is no number: all traces are sampled",
                    given.key, given.line, given.text
                )));
                Root::Ratio(1.0)
            }
        },
        None => {
            remarks.push(Remark::Warning(
                "`config.sampler_param` is missing: all traces are sampled".to_owned(),
            ));
            Root::Ratio(1.0)
        }
    };
    let Some(kind) = kind else {
        return Ok(Sampling::DEFAULT);
    };
    let (root, parents) = match kind.text.to_lowercase().as_str() {
        "alwayssample" => (Root::Always, Parents::Ignored),
        "neversample" => (Root::Never, Parents::Ignored),
        "traceidratiobased" => (ratio(), Parents::Ignored),
        "parentbasedalwayssample" => (Root::Always, Parents::FOLLOWED),
        "parentbasedneversample" => (Root::Never, Parents::FOLLOWED),
        "parentbasedtraceidratiobased" => (ratio(), Parents::FOLLOWED),
        _ => {
            remarks.push(Remark::Warning(format!(
                "`{}` in line {} is {:?}, which is none of {SAMPLER_TYPES}: all traces are \
                 sampled but those that callers do not sample",
                kind.key, kind.line, kind.text
            )));
            return Ok(Sampling::DEFAULT);
        }
    };
    Ok(Sampling { root, parents })
}
