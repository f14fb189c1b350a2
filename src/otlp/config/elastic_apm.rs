//! `type: ELASTIC_APM`: APM Server takes OTLP over HTTP at its own address since 7.13. Where that
//! is stands in the environment, as for Elastic's agents.

use std::path::PathBuf;

use http::HeaderMap;

use super::endpoint::Endpoint;
use super::provider::TRACES_PATH;
use super::{
    Destination, Protocol, Remark, Retry, TIMEOUT_DEFAULT, TracingConfig, Variable, keys, pace,
    resource,
};
use crate::model::Mapping;
use crate::net::ClientTls;
use crate::otlp::error::TracingConfigError;
use crate::trace::{Parents, Root, Sampling};

const SERVER_URL: &str = "ELASTIC_APM_SERVER_URL";
const SERVER_URL_DEFAULT: &str = "http://localhost:8200";
const SECRET_TOKEN: &str = "ELASTIC_APM_SECRET_TOKEN";
const API_KEY: &str = "ELASTIC_APM_API_KEY";

/// Reads `config` and Elastic's variables.
pub(super) fn parse(
    mut config: Mapping<'_>,
    variable: Variable<'_>,
) -> Result<TracingConfig, TracingConfigError> {
    let mut text = |key, fallback| {
        let given = config.text(key)?;
        Ok::<_, TracingConfigError>(given.or_else(|| keys::variable_text(variable, fallback)))
    };
    let name = text("service_name", "ELASTIC_APM_SERVICE_NAME")?;
    let version = text("service_version", "ELASTIC_APM_SERVICE_VERSION")?;
    let environment = text("service_environment", "ELASTIC_APM_ENVIRONMENT")?;
    let rate = keys::number(&mut config, "sample_rate")?.unwrap_or_default();
    let mut remarks = Vec::new();
    if rate == 0.0 {
        remarks.push(Remark::Warning(
            "`config.sample_rate` is 0: no trace begins here, only what callers sample is sent"
                .to_owned(),
        ));
    }
    remarks.extend(keys::unknown(config));
    let given = keys::variable_text(variable, SERVER_URL);
    let given = given.unwrap_or_else(|| SERVER_URL_DEFAULT.to_owned());
    let (endpoint, url) = server(&given).ok_or(TracingConfigError::Variable {
        name: SERVER_URL,
        given,
        wanted: "a URL such as http://localhost:8200",
    })?;
    remarks.push(Remark::Note(format!(
        "APM Server gets its spans by OTLP, at {url}"
    )));
    let is_plain = endpoint.is_plain.unwrap_or(false);
    let attributes = [
        ("service.version", version),
        ("deployment.environment", environment),
    ];
    let attributes = attributes
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    let (queued_spans_max, flush_interval) = pace(None, None, variable)?;
    Ok(TracingConfig {
        sampling: Sampling {
            root: Root::Ratio(rate),
            parents: Parents::FOLLOWED,
        },
        queued_spans_max,
        remarks,
        resource: resource(name, attributes, variable),
        flush_interval,
        destination: Destination {
            protocol: Protocol::Http { url },
            address: endpoint.address(if is_plain { 80 } else { 443 }),
            tls: (!is_plain).then(|| tls(variable)),
            headers: credentials(variable)?,
            is_compressed: true,
            timeout: TIMEOUT_DEFAULT,
            retry: Retry::DEFAULT,
        },
    })
}

fn server(given: &str) -> Option<(Endpoint, http::Uri)> {
    let endpoint = Endpoint::parse(given)?;
    let path = format!("{}{TRACES_PATH}", endpoint.path);
    let url = endpoint.url(endpoint.is_plain?, &path)?;
    Some((endpoint, url))
}

fn tls(variable: Variable<'_>) -> ClientTls {
    let verify = keys::variable_text(variable, "ELASTIC_APM_VERIFY_SERVER_CERT");
    let ca = keys::variable_text(variable, "ELASTIC_APM_SERVER_CA_CERT_FILE");
    ClientTls {
        ca_file: ca.map(PathBuf::from),
        insecure_skip_verify: verify.is_some_and(|verify| verify.eq_ignore_ascii_case("false")),
        ..ClientTls::default()
    }
}

/// An API key goes before a token.
fn credentials(variable: Variable<'_>) -> Result<HeaderMap, TracingConfigError> {
    let mut headers = HeaderMap::new();
    for (name, scheme) in [(SECRET_TOKEN, "Bearer"), (API_KEY, "ApiKey")] {
        if let Some(secret) = keys::variable_text(variable, name)
            && !keys::add_header(&mut headers, "authorization", &format!("{scheme} {secret}"))
        {
            return Err(TracingConfigError::Variable {
                name,
                given: "…".to_owned(),
                wanted: "a text of one line",
            });
        }
    }
    Ok(headers)
}
