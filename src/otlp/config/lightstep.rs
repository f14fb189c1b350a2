//! `type: LIGHTSTEP`: its public collectors take OTLP over gRPC, with the token as a header. What
//! satellites of one's own take can't be told from the keys.

use http::HeaderMap;

use super::{
    Destination, Protocol, Remark, Retry, SERVICE_NAME, TIMEOUT_DEFAULT, TracingConfig, Variable,
    keys, pace, resource,
};
use crate::model::Mapping;
use crate::net::ClientTls;
use crate::otlp::error::TracingConfigError;
use crate::trace::{Parents, Root, Sampling};

const ADDRESS: &str = "ingest.lightstep.com:443";
const TOKEN_HEADER: &str = "lightstep-access-token";
/// The tag that names a service there.
const COMPONENT_NAME: &str = "lightstep.component_name";
const WHY: &str = "spans go to a satellite in a protocol that is not spoken here";

/// Reads `config`.
pub(super) fn parse(
    mut config: Mapping<'_>,
    variable: Variable<'_>,
) -> Result<TracingConfig, TracingConfigError> {
    let token = config.scalar("access_token")?;
    let tags = config.text("tags")?.unwrap_or_default();
    let mut collector = config.mapping("collector")?;
    collector.text("scheme")?;
    collector.integer("port", "a whole number")?;
    collector.boolean("plaintext")?;
    collector.text("custom_ca_cert_file")?;
    if let Some(host) = collector.scalar("host")? {
        return Err(TracingConfigError::Refused {
            what: format!("`{}` in line {} is {:?}", host.key, host.line, host.text),
            why: WHY,
            remedy: format!(
                "write `type: OTLP` with `config: {{client_type: grpc, endpoint: \"{}:PORT\", \
                 headers: {{{TOKEN_HEADER}: TOKEN}}, sampler_type: alwayssample}}` and the \
                 satellite's port for OTLP",
                host.text
            ),
        });
    }
    let token = token.ok_or(TracingConfigError::Missing {
        key: "config.access_token",
        wanted: "the token of the project",
    })?;
    let mut headers = HeaderMap::new();
    if !keys::add_header(&mut headers, TOKEN_HEADER, &token.text) {
        return Err(TracingConfigError::Value {
            key: token.key,
            line: token.line,
            given: "…".to_owned(),
            wanted: "a text of one line",
        });
    }
    let mut tags = keys::tags(&tags, variable);
    let name = tags.iter().position(|(key, _)| key == COMPONENT_NAME);
    if let Some((_, name)) = name.map(|at| tags.remove(at)) {
        tags.push((SERVICE_NAME.to_owned(), name));
    }
    let mut remarks = vec![Remark::Note(format!(
        "Lightstep gets its spans by OTLP, at {ADDRESS}"
    ))];
    remarks.extend(keys::unknown(collector));
    remarks.extend(keys::unknown(config));
    let (queued_spans_max, flush_interval) = pace(None, None, variable)?;
    Ok(TracingConfig {
        sampling: Sampling {
            root: Root::Always,
            parents: Parents::Ignored,
        },
        queued_spans_max,
        remarks,
        resource: resource(None, tags, variable),
        flush_interval,
        destination: Destination {
            protocol: Protocol::Grpc,
            address: ADDRESS.to_owned(),
            tls: Some(ClientTls::default()),
            headers,
            is_compressed: true,
            timeout: TIMEOUT_DEFAULT,
            retry: Retry::DEFAULT,
        },
    })
}
